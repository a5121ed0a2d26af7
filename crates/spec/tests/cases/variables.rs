use expect_test::expect;

use super::{check, check_web};

#[test]
fn variables_are_filled_in_in_values_and_never_in_keys() {
    check(
        "services:\n  web:\n    image: nginx:${TAG}\n    command: echo $$HOME ${NONE:-none}\n    environment: {$TAG: $TAG}\n    deploy: {replicas: $COUNT}\n",
        expect![[r#"
            web
              image nginx:1.22
              replicas 3
              command ["echo", "$HOME", "none"]
              env $TAG = "1.22"
        "#]],
    );
}

#[test]
fn a_variable_brings_no_structure_and_no_type() {
    check_web(
        "environment: {A: '${X:-[1, 2]}', B: '${X:-~}', C: '${X:-0444}'}\nlabels: ['k=${X:-a=b}']",
        expect![[r#"
        web
          image nginx:latest
          env A = "[1, 2]"
          env B = "~"
          env C = "0444"
          label k = "a=b"
    "#]],
    );
}

#[test]
fn what_is_unset_is_told_once() {
    check_web(
        "command: a $NONE\nuser: $NONE$OTHER\nworking_dir: $EMPTY",
        expect![[r#"
        web
          image nginx:latest
          command ["a"]
        warning a.yaml:4:14: the variable `NONE` is not set, so it is empty here; set it, or write `${NAME:-default}`
        warning a.yaml:5:11: the variable `OTHER` is not set, so it is empty here; set it, or write `${NAME:-default}`
    "#]],
    );
}

#[test]
fn malformed_and_missing_variables_are_errors_with_their_place() {
    check_web(
        "command: ${}\nuser: '${USER'\nworking_dir: ${DIR:?where to}\nlabels: {a: '${A?}'}\nenvironment: ['A=${B!}']",
        expect![[r#"
            error a.yaml:4:14: `${}` is not a variable; write `${NAME}` or `${NAME:-default}`; for a dollar sign write `$$`
            error a.yaml:5:11: the brace of `${USER` is never closed; write `${NAME}` or `${NAME:-default}`; for a dollar sign write `$$`
            error a.yaml:6:18: the variable `DIR` is required and not set: where to; set it in the environment of this command
            error a.yaml:7:17: the variable `A` is required and not set; set it in the environment of this command
            error a.yaml:8:19: `${B!}` is not a variable; write `${NAME}` or `${NAME:-default}`; for a dollar sign write `$$`
        "#]],
    );
}

#[test]
fn an_unset_variable_explains_the_error_that_it_causes() {
    check(
        "services:\n  web:\n    image: nginx:${VERSION}\n",
        expect![[r#"
        error a.yaml:3:12: `nginx:` is not an image name: it looks like nginx, nginx:1.22 or registry.example:5000/team/app:v1
        warning a.yaml:3:12: the variable `VERSION` is not set, so it is empty here; set it, or write `${NAME:-default}`
    "#]],
    );
}
