use expect_test::expect;

use super::{check, check_files, web};

#[test]
fn a_later_file_adds_appends_and_replaces() {
    check_files(
        &[
            r#"
name: first
services:
  web:
    image: nginx:1
    command: [a, b]
    entrypoint: [c]
    environment: [A=1, B=2]
    labels: {x: "1"}
    ports: [80]
    deploy:
      replicas: 2
      labels: [p=1]
      resources: {limits: {memory: 64m}}
      placement: {constraints: [node.hostname != n1]}
  old: {image: busybox}
"#,
            r#"
name: second
services:
  web:
    image: nginx:2
    command: [d]
    entrypoint:
    environment: {B: 3, C: 4}
    labels: [y=2]
    ports: [81]
    deploy:
      labels: {q: 2}
      resources: {limits: {cpus: 1}}
      placement: {constraints: [node.hostname != n2]}
  new: {image: busybox}
"#,
        ],
        &expect![[r#"
            project second
            new
              image busybox:latest
            old
              image busybox:latest
            web
              image nginx:2
              replicas 2
              service label p = "1"
              service label q = "2"
              command ["d"]
              env A = "1"
              env B = "3"
              env C = "4"
              label x = "1"
              label y = "2"
              port 80/tcp at any
              port 81/tcp at any
              limited to 1 cpus, 64 MiB
              where node.hostname != n1
              where node.hostname != n2
        "#]],
    );
}

#[test]
fn reset_drops_and_override_replaces() {
    let base =
        web("environment: {A: 1, B: 2}\nports: [80, 81]\nlabels: {a: b}\nuser: root\ndepends_on: [db]");
    let over = web(
        "environment: {A: !reset null}\nports: !override [82]\nlabels: !reset {}\nuser: !reset\ndepends_on: !reset []",
    );
    check_files(
        &[&base, &over],
        &expect![[r#"
        web
          image nginx:latest
          env B = "2"
          port 82/tcp at any
    "#]],
    );
    check(
        &over,
        expect![[r#"
        web
          image nginx:latest
          port 82/tcp at any
    "#]],
    );
}

#[test]
fn three_files_merge_in_order() {
    let with = |value: &str| web(&format!("environment: {{A: {value}}}"));
    check_files(
        &[&with("1"), &with("!reset 2"), &with("3")],
        &expect![[r#"
        web
          image nginx:latest
          env A = "3"
    "#]],
    );
}

#[test]
fn a_key_without_value_takes_nothing_away() {
    check_files(
        &[&web("environment: {A: 1}\nports: [80]"), &web("environment:\nports:\ndeploy:")],
        &expect![[r#"
        web
          image nginx:latest
          env A = "1"
          port 80/tcp at any
    "#]],
    );
}

#[test]
fn a_problem_names_the_file_that_it_is_in() {
    check_files(
        &[&web("ports: [x]"), &web("labels: [=]\nports: [y]")],
        &expect![[r#"
        error a.yaml:4:13: `x` is not a port of a container; write a number from 1 to 65535, such as `80` or `53/udp`
        error b.yaml:4:14: each item of `labels` needs a name before its value
        error b.yaml:5:13: `y` is not a port of a container; write a number from 1 to 65535, such as `80` or `53/udp`
    "#]],
    );
}

#[test]
fn a_file_that_cannot_be_read_stops_the_others_from_being_blamed() {
    check_files(
        &["services:\n  web: {ports: [x]}\n", "services: {\n"],
        &expect![[r#"
        error b.yaml:1:11: this is not YAML: unclosed bracket '{'; check brackets, quotes and indentation here and on the line before
    "#]],
    );
}
