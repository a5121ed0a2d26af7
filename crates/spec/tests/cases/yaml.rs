use expect_test::expect;
use spec::{load, render};

use super::{check, check_web, sources, variables, web};

#[test]
fn what_is_not_yaml_is_refused_with_its_place() {
    check(
        "services:\n  web: [\n",
        expect![[r#"
        error a.yaml:2:8: this is not YAML: unclosed bracket '['; check brackets, quotes and indentation here and on the line before
    "#]],
    );
    check(
        "a: *b\n",
        expect![[r#"
        error a.yaml:1:4: this is not YAML: while parsing node, found unknown anchor; check brackets, quotes and indentation here and on the line before
    "#]],
    );
}

#[test]
fn a_duplicate_key_is_an_error_and_the_rest_is_read() {
    check_web(
        "user: a\nuser: b\nlabels: {x: 1, x: 2}\nports: 5",
        expect![[r#"
        error a.yaml:5:5: the key `user` is already on line 4; keep one of them
        error a.yaml:6:20: the key `x` is already on line 6; keep one of them
        error a.yaml:7:12: `ports` must be a list, and this is the number `5`
    "#]],
    );
}

#[test]
fn a_key_is_a_string() {
    check_web(
        "environment: {1: a, true: b, [x]: c, '2': d}",
        expect![[r#"
        error a.yaml:4:19: a key must be a string, and this is the number `1`; put it in quotes
        error a.yaml:4:25: a key must be a string, and this is the boolean `true`; put it in quotes
        error a.yaml:4:34: a key must be a string, and this is a list; put it in quotes
    "#]],
    );
}

#[test]
fn aliases_stand_for_their_anchors_and_merge_keys_fill_in() {
    check(
        r#"
x-base: &base
  image: nginx
  user: root
x-more: &more {user: nobody, working_dir: /srv}
services:
  a: *base
  b: {<<: *base, user: me}
  c:
    <<: [*base, *more]
    labels: &labels {x: "1"}
  d:
    image: busybox
    labels: *labels
"#,
        expect![[r#"
            a
              image nginx:latest
              user "root"
            b
              image nginx:latest
              user "me"
            c
              image nginx:latest
              label x = "1"
              working_dir "/srv"
              user "root"
            d
              image busybox:latest
              label x = "1"
        "#]],
    );
}

#[test]
fn a_problem_behind_an_anchor_is_told_once_and_at_the_anchor() {
    check(
        "x-p: &p [http]\nservices:\n  a: {image: nginx, ports: *p}\n  b: {image: nginx, ports: *p}\n",
        expect![[r#"
            error a.yaml:1:10: `http` is not a port of a container; write a number from 1 to 65535, such as `80` or `53/udp`
        "#]],
    );
}

#[test]
fn merge_keys_take_mappings() {
    check_web(
        "<<: 5",
        expect![[r#"
        error a.yaml:4:9: `<<` takes a mapping or a list of mappings, and this is the number `5`; write `<<: *anchor`
    "#]],
    );
}

#[test]
fn tags_are_known_or_refused() {
    check_web(
        "environment: {A: !!str 0444, B: !!int \"5\", C: ! 1, D: !secret x}",
        expect![[r#"
        error a.yaml:4:67: gantry does not know the tag `!secret`; Compose has `!reset` and `!override`
    "#]],
    );
    check_web(
        "environment: {A: !!str 0444, B: !!int \"0x10\"}",
        expect![[r#"
        web
          image nginx:latest
          env A = "0444"
          env B = "16"
    "#]],
    );
}

#[test]
fn one_file_holds_one_document() {
    check(
        "services:\n  a: {image: nginx}\n---\nservices: {}\n",
        expect![[r#"
        error a.yaml:3:1: a second document begins here; gantry reads one document a file; put it into a file of its own and name both with -f
    "#]],
    );
    check(
        "---\nservices:\n  a: {image: nginx}\n...\n",
        expect![[r#"
        a
          image nginx:latest
    "#]],
    );
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    check(
        "\u{feff}services:\r\n  a:\r\n    image: nginx\r\n    user: 5\r\n",
        expect![[r#"
        error a.yaml:4:11: `user` must be a string, and this is the number `5`; put it in quotes
    "#]],
    );
}

#[test]
fn columns_count_characters() {
    check_web(
        "labels: {äöü: é, b: [1]}",
        expect![[r#"
        error a.yaml:4:25: `b` must be a string, number or boolean, and this is a list
    "#]],
    );
}

/// The only problem that a hostile text has.
fn refusal(text: &str) -> String {
    let problems = load(&sources(&[text]), &variables()).expect_err("it is hostile");
    let [problem] = problems.as_slice() else { panic!("{problems}") };
    assert!(problem.line() >= 1 && problem.column() >= 1, "{problem}");
    problem.message().to_owned()
}

#[test]
fn an_anchor_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    assert!(refusal(&bomb).starts_with("with its aliases expanded the file is too large"));
}

#[test]
fn an_anchor_bomb_of_text_or_keys_is_refused() {
    let aliases = ["*a"; 200].join(", ");
    let text = format!("a: &a {}\nb: [{aliases}]\n", "x".repeat(100_000));
    assert!(refusal(&text).starts_with("with its aliases expanded the file is too large"));
    let keys = format!("a: &a\n  ? {}\n  : 1\nb: [{aliases}]\n", "x".repeat(100_000));
    assert!(refusal(&keys).starts_with("with its aliases expanded the file is too large"));
}

#[test]
fn nesting_is_bounded_with_and_without_aliases() {
    let deep = |levels: usize| {
        format!("x-a: {}{}\nservices: {{a: {{image: nginx}}}}\n", "[".repeat(levels), "]".repeat(levels))
    };
    assert!(load(&sources(&[&deep(63)]), &variables()).is_ok(), "the mapping around it is the 64th level");
    for levels in [64, 200, 1000, 100_000] {
        assert_eq!(refusal(&deep(levels)), "the file is nested more than 64 levels deep here", "{levels}");
    }
    let mut chain = "x-0: &a0 [x]\n".to_owned();
    for level in 1..1000 {
        chain += &format!("x-{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert_eq!(refusal(&chain), "the file is nested more than 64 levels deep here");
}

#[test]
fn an_anchor_inside_itself_is_refused() {
    assert_eq!(refusal("x-a: &a [*a]\n"), "this alias stands inside what it stands for");
}

#[test]
fn a_file_of_10_mb_is_refused_before_it_is_read() {
    assert_eq!(
        refusal(&"[".repeat(10 << 20)),
        "the file has 10485760 bytes; a Compose file has 1048576 at most"
    );
}

#[test]
fn many_problems_are_shown_up_to_a_hundred_and_counted() {
    let keys: String = (0..250).map(|at| format!("key{at}: 1\n")).collect();
    let problems = load(&sources(&[&web(&keys)]), &variables()).unwrap_err();
    assert_eq!((problems.as_slice().len(), problems.omitted()), (100, 150));
    assert!(problems.to_string().ends_with("\nand 150 more problems"));
}

#[test]
fn text_in_a_message_is_short_and_cannot_act_on_a_terminal() {
    check_web(
        "restart: \"\\e[31mred\\u202E\"\nuser: \"a b\\n\"",
        expect![[r#"
        error a.yaml:4:14: `restart` cannot be `\u{1b}[31mred\u{202e}`; write no, always, on-failure, on-failure:5 or unless-stopped
        error a.yaml:5:11: `a b\n` is not a user; write `user`, `uid`, `user:group` or `uid:gid`
    "#]],
    );
    let key = "k".repeat(1000);
    let message = refusal(&web(&format!("{key}: 1")));
    assert_eq!(message, format!("unknown key `{}…`", "k".repeat(60)));
}

#[test]
fn without_a_file_there_are_no_services() {
    let problems = load(&[], &variables()).unwrap_err();
    assert!(problems.to_string().starts_with("<none>:1:1: there are no services here"), "{problems}");
}

#[test]
fn problems_are_shown_on_their_line() {
    let sources = sources(&[&web("usr: a\nports: [80, http]")]);
    let problems = load(&sources, &variables()).unwrap_err();
    expect![[r#"
        error: unknown key `usr`
         --> a.yaml:4:5
          |
        4 |     usr: a
          |     ^^^
          |
          = help: did you mean `user`?

        error: `http` is not a port of a container
         --> a.yaml:5:17
          |
        5 |     ports: [80, http]
          |                 ^^^^
          |
          = help: write a number from 1 to 65535, such as `80` or `53/udp`"#]]
    .assert_eq(&render(problems.as_slice(), &sources, false));
    assert!(render(problems.as_slice(), &sources, true).contains("\u{1b}["), "colours are asked for");
}

#[test]
fn problems_are_shown_without_a_line_where_there_is_none_to_show() {
    let text = format!("{{services: {{a: {{image: nginx}}}}, k: 1, x-a: {}}}", "x".repeat(2000));
    let sources = sources(&[&text]);
    let problems = load(&sources, &variables()).unwrap_err();
    let shown = render(problems.as_slice(), &sources, false);
    assert!(shown.contains("--> a.yaml:1:33") && shown.len() < 1000, "{shown}");
    assert!(render(problems.as_slice(), &[], false).contains("--> a.yaml:1:33"));
}
