//! Commands that are run in a container beside its own.

use expect_test::expect;

use crate::check_web;

#[test]
fn hooks_are_lines_or_lists_with_what_each_is_run_with() {
    check_web(
        r#"post_start:
  - command: /bin/warm up --all
    user: root
    privileged: true
    working_dir: /srv
    environment: [HOW=fast]
  - command: [/bin/register, "a b"]
pre_stop:
  - command: flush"#,
        expect![[r#"
            web
              image nginx:latest
              after start Hook { command: ["/bin/warm", "up", "--all"], user: Some("root"), privileged: true, working_dir: Some("/srv"), environment: {"HOW": "fast"} }
              after start Hook { command: ["/bin/register", "a b"], user: None, privileged: false, working_dir: None, environment: {} }
              before stop Hook { command: ["flush"], user: None, privileged: false, working_dir: None, environment: {} }
        "#]],
    );
}

#[test]
fn a_hook_has_a_command() {
    check_web(
        r#"post_start:
  - {user: root}
  - command:
  - {comand: x}
  - flush
  - {command: [], user: "a b"}
  - {command: "'unfinished"}
pre_stop: flush"#,
        expect![[r#"
            error a.yaml:5:9: this item of `post_start` has no command; write for example `command: /usr/bin/warm-up --all`
            error a.yaml:6:9: this item of `post_start` has no command; write for example `command: /usr/bin/warm-up --all`
            error a.yaml:7:9: this item of `post_start` has no command; write for example `command: /usr/bin/warm-up --all`
            error a.yaml:7:10: unknown key `comand`; did you mean `command`?
            error a.yaml:8:9: each item of `post_start` must be a mapping, and this is the string `flush`
            error a.yaml:9:9: this item of `post_start` has no command; write for example `command: /usr/bin/warm-up --all`
            error a.yaml:9:29: `a b` is not a user; write `user`, `uid`, `user:group` or `uid:gid`
            error a.yaml:10:19: `command`: a quote ' is never closed; write the command as a list of words
            error a.yaml:11:15: `pre_stop` must be a list, and this is the string `flush`
        "#]],
    );
}
