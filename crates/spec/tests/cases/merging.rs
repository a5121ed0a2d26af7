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

#[test]
fn lists_append_and_what_has_a_name_takes_its_place() {
    check_files(
        &[
            &web(
                "volumes: [\"/a:/x\", \"/b:/y\"]\ntmpfs: /run:size=1m\ndevices: [\"/dev/a:/dev/x\", /dev/b]\ndns: 1.1.1.1\ndns_search: [a.example]\ndns_opt: [use-vc]\ncap_add: [NET_ADMIN]\ncap_drop: [ALL]\nsecurity_opt: [no-new-privileges]\ngroup_add: [audio]\nsysctls: {net.core.somaxconn: 1, net.ipv4.tcp_syncookies: 1}\nannotations: {a: \"1\"}",
            ),
            &web(
                "volumes: [\"/c:/x/\", {type: tmpfs, target: /z}]\ntmpfs: [\"/run:mode=0700\", /tmp]\ndevices: [{source: /dev/c, target: /dev/x}]\ndns: [1.1.1.1, 9.9.9.9]\ndns_search: b.example\ndns_opt: [\"ndots:1\"]\ncap_add: [NET_ADMIN, SYS_TIME]\ncap_drop: [KILL]\nsecurity_opt: [apparmor=unconfined]\ngroup_add: [video, audio]\nsysctls: [net.core.somaxconn=2]\nannotations: [b=2]",
            ),
        ],
        &expect![[r#"
        web
          image nginx:latest
          annotation a = "1"
          annotation b = "2"
          dns 1.1.1.1
          dns 9.9.9.9
          dns search a.example
          dns search b.example
          dns option use-vc
          dns option ndots:1
          group audio
          group video
          bind /c at /x
          bind /b at /y
          tmpfs at /z
          tmpfs at /run, mode 700
          tmpfs at /tmp
          sysctl net.core.somaxconn = "2"
          sysctl net.ipv4.tcp_syncookies = "1"
          add CAP_NET_ADMIN
          add CAP_SYS_TIME
          drop all
          drop CAP_KILL
          no new privileges
          apparmor "unconfined"
          device /dev/c at /dev/x rwm
          device /dev/b at /dev/b rwm
    "#]],
    );
}

#[test]
fn mappings_merge_by_the_rules_of_their_key() {
    check_files(
        &[
            &web(
                "healthcheck: {test: [CMD, a], interval: 5s, retries: 2}\nulimits: {nofile: {soft: 1, hard: 2}, nproc: 5}\nlogging: {driver: syslog, options: {tag: a, syslog-facility: user}}\nextra_hosts: {a: 10.0.0.1, b: [10.0.0.2]}\nx-gantry: {readiness: {http: {port: 80}, interval: 1s}}\nblkio_config: {weight: 100, device_read_bps: [{path: /dev/a, rate: 1}]}",
            ),
            &web(
                "healthcheck: {test: b c, retries: 3}\nulimits: {nofile: 7}\nlogging: {driver: syslog, options: {tag: b}}\nextra_hosts: [a=10.0.0.9, b=10.0.0.2]\nx-gantry: {readiness: {tcp: {port: 81}}}\nblkio_config: {device_read_bps: [{path: /dev/b, rate: 2}]}",
            ),
        ],
        &expect![[r#"
        web
          image nginx:latest
          host a = 10.0.0.1
          host b = 10.0.0.2
          host a = 10.0.0.9
          ulimit nofile 7:7
          ulimit nproc 5:5
          blkio weight 100
          blkio read bytes /dev/a 1
          blkio read bytes /dev/b 2
          logging syslog unix:///dev/log user "b", 3 files of 16 MiB
          health Exec(["/bin/sh", "-c", "b c"]), every 5s, 3 retries
          ready Tcp { port: 81 }, every 1s, within 1s, 1 up, 3 down
    "#]],
    );
}

#[test]
fn options_of_one_log_driver_are_not_anothers() {
    check_files(
        &[
            &web("logging: {driver: local, options: {max-size: 10m}}"),
            &web("logging: {driver: journald, options: {tag: x}}"),
        ],
        &expect![[r#"
        web
          image nginx:latest
          logging journald "x", 3 files of 16 MiB
    "#]],
    );
    check_files(
        &[
            &web("logging: {options: {max-size: 10m}}"),
            &web("logging: {driver: local, options: {max-file: 5}}"),
        ],
        &expect![[r#"
        web
          image nginx:latest
          logging local, 5 files of 10 MiB
    "#]],
    );
}

#[test]
fn a_later_file_turns_a_health_check_off() {
    check_files(
        &[&web("healthcheck: {test: [CMD, a]}"), &web("healthcheck: {disable: true}")],
        &expect![[r#"
        web
          image nginx:latest
          health unchecked
    "#]],
    );
    check_files(
        &[&web("x-gantry: {readiness: {exec: [a, b]}}"), &web("x-gantry: {readiness: {exec: [c]}}")],
        &expect![[r#"
        web
          image nginx:latest
          ready Exec(["c"]), every 2s, within 1s, 1 up, 3 down
    "#]],
    );
}

#[test]
fn directives_hold_for_volumes_and_hosts() {
    check_files(
        &[
            &web("extra_hosts: {a: 10.0.0.1, b: 10.0.0.2, c: 10.0.0.3}\nvolumes: [\"/a:/a\"]\ndns: 1.1.1.1"),
            &web(
                "extra_hosts: {a: !reset null, b: !override 10.0.0.4}\nvolumes: !override [\"/b:/b\"]\ndns: !reset []",
            ),
        ],
        &expect![[r#"
        web
          image nginx:latest
          host c = 10.0.0.3
          host b = 10.0.0.4
          bind /b at /b
    "#]],
    );
}

#[test]
fn what_cannot_be_merged_is_told_where_it_stands() {
    check_files(
        &[
            &web("dns: {a: b}\nmem_limit: 1g\ntmpfs: /a"),
            &web("dns: [1.1.1.1]\ndeploy: {resources: {limits: {memory: 2g}}}\ntmpfs: {b: c}"),
        ],
        &expect![[r#"
        error a.yaml:4:10: `dns` must be a list, and this is a mapping
        error a.yaml:5:16: `mem_limit` is not what `deploy.resources.limits.memory` in another file is; they mean the same; keep one of them
        error b.yaml:6:12: `tmpfs` must be a list, and this is a mapping
    "#]],
    );
}
