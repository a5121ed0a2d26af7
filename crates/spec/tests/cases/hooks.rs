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
        expect![[""]],
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
        expect![[""]],
    );
}
