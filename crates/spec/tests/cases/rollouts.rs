use expect_test::expect;

use super::{check, check_web};

#[test]
fn how_versions_change_is_said_as_in_compose() {
    check_web(
        "deploy:\n  update_config: {parallelism: 2, delay: 10s, order: start-first, failure_action: rollback, monitor: 1m, max_failure_ratio: 0.3}\n  rollback_config: {parallelism: 0, failure_action: continue}",
        expect![[r#"
            web
              image nginx:latest
              update parallelism=2 delay=10s StartFirst monitor=60s ratio=300/1000 Rollback
              rollback parallelism=0 Continue
        "#]],
    );
    check_web(
        "deploy: {update_config: {}, rollback_config: {}}",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
    check_web(
        "deploy: {update_config: {max_failure_ratio: \"1\"}}",
        expect![[r#"
        web
          image nginx:latest
          update ratio=1000/1000
    "#]],
    );
}

#[test]
fn what_compose_has_no_key_for_is_an_extension() {
    check_web(
        "x-gantry:\n  rollout: {min_healthy: 3s, progress_deadline: 2m, canaries: 1, promote: 30s}",
        expect![[r#"
            web
              image nginx:latest
              update min_healthy=Some(3s) deadline=120s canaries=1 promote_after=Some(30s)
              rollback min_healthy=Some(3s) deadline=120s
        "#]],
    );
    check_web(
        "x-gantry:\n  rollout: {canaries: 2, promote: manual}",
        expect![[r#"
        web
          image nginx:latest
          update canaries=2
    "#]],
    );
}

#[test]
fn what_cannot_be_is_said_where_it_stands() {
    check_web(
        "deploy:\n  update_config: {parallelism: -1, order: first, failure_action: restart, max_failure_ratio: 30}\n  rollback_config: {failure_action: rollback, monitor: soon, paralelism: 1}",
        expect![[r#"
            error a.yaml:5:36: `parallelism` must be a whole number from 0 to 4294967295, and this is the number `-1`
            error a.yaml:5:47: `order` cannot be `first`; write stop-first or start-first
            error a.yaml:5:70: `failure_action` cannot be `restart` here; write pause, continue or rollback
            error a.yaml:5:98: `max_failure_ratio` cannot be `30`; write a number between 0 and 1: 0.3 is three slots of ten
            error a.yaml:6:41: `failure_action` cannot be `rollback` here; write pause or continue
            error a.yaml:6:60: `monitor`: `soon` is not a duration: write for example 10s, 1m30s or 500ms
            error a.yaml:6:66: unknown key `paralelism`; did you mean `parallelism`?
        "#]],
    );
    check_web(
        "x-gantry:\n  rollout: {promote: 30s, progress_deadline: 0s, canary: 1}",
        expect![[r#"
        error a.yaml:5:17: there is nothing to promote without `canaries`; add `canaries: 1`
        error a.yaml:5:50: no rollout is done within no time; write for example `10m`
        error a.yaml:5:54: unknown key `canary`; there are min_healthy, progress_deadline, canaries and promote
    "#]],
    );
    check_web(
        "deploy: {update_config: {max_failure_ratio: {}, delay: 5}}",
        expect![[r#"
        error a.yaml:4:49: `max_failure_ratio` must be a string, and this is a mapping
        error a.yaml:4:60: `delay`: `5` is not a duration: write for example 10s, 1m30s or 500ms
    "#]],
    );
}

#[test]
fn one_file_adds_to_what_another_says_of_a_rollout() {
    super::check_files(
        &[
            "services: {web: {image: nginx, deploy: {update_config: {parallelism: 2, order: start-first}}}}",
            "services: {web: {deploy: {update_config: {parallelism: 3}}}}",
        ],
        &expect![[r#"
            web
              image nginx:latest
              update parallelism=3 StartFirst
        "#]],
    );
}

#[test]
fn who_says_no_number_of_replicas_is_known() {
    let source = spec::Source {
        name: "a.yaml".to_owned(),
        text: "services:\n  a: {image: x}\n  b: {image: x, scale: 2}\n  c: {image: x, deploy: {replicas: 1}}"
            .to_owned(),
    };
    let loaded = spec::load(&[source], &super::variables()).unwrap();
    assert_eq!(loaded.project.unscaled.iter().map(model::Name::as_str).collect::<Vec<_>>(), ["a"]);
    check(
        "services: {a: {image: x, deploy: {replicas: null}}}",
        expect![[r#"
        error a.yaml:1:45: `replicas` must be a whole number from 0 to 100000, and this is empty
    "#]],
    );
}
