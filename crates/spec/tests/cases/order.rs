//! `depends_on`.

use expect_test::expect;

use super::{check, check_files};

/// `web` with this `depends_on`, beside `db` and `migrate`.
fn with(depends_on: &str) -> String {
    format!(
        "services:\n  web:\n    image: nginx\n    depends_on: {depends_on}\n  db: {{image: db}}\n  migrate: {{image: migrate}}\n"
    )
}

#[test]
fn a_service_waits_for_those_that_it_names() {
    check(
        &with("[db, migrate]"),
        expect![[r#"
        db
          image db:latest
        migrate
          image migrate:latest
        web
          image nginx:latest
          once db has started
          once migrate has started
    "#]],
    );
    check(
        &with("{db: {condition: service_healthy}, migrate: }"),
        expect![[r#"
        db
          image db:latest
        migrate
          image migrate:latest
        web
          image nginx:latest
          once db is healthy
          once migrate has started
    "#]],
    );
}

#[test]
fn what_others_wait_to_complete_is_a_job_where_nothing_else_is_said() {
    check(
        &with("{migrate: {condition: service_completed_successfully, required: true, restart: false}}"),
        expect![[r#"
            db
              image db:latest
            migrate
              image migrate:latest
              to its end JobSpec { parallelism: None, deadline: None, history: 5, schedule: None }
              restart OnFailure delay=None max=None window=3153600000s
            web
              image nginx:latest
              once migrate has completed successfully
        "#]],
    );
    let migrate = |more: &str| {
        format!(
            "services:\n  web:\n    image: nginx\n    depends_on: {{migrate: {{condition: service_completed_successfully}}}}\n  migrate:\n    image: m\n    {more}\n"
        )
    };
    check(
        &migrate("restart: \"no\""),
        expect![[r#"
        migrate
          image m:latest
          restart Never delay=None max=None window=5s
        web
          image nginx:latest
          once migrate has completed successfully
    "#]],
    );
    check(
        &migrate("restart: always"),
        expect![[r#"
        error a.yaml:4:18: `migrate` is started again whenever it ends, so it never completes; write `deploy: {mode: replicated-job}` there, or another `restart`
    "#]],
    );
    check(
        &migrate("deploy: {mode: replicated}"),
        expect![[r#"
        error a.yaml:4:18: `migrate` is started again whenever it ends, so it never completes; write `deploy: {mode: replicated-job}` there, or another `restart`
    "#]],
    );
}

#[test]
fn files_merge_by_the_names_of_services() {
    check_files(
        &[&with("[db]"), &with("{db: {condition: service_healthy}, migrate: {}}")],
        &expect![[r#"
        db
          image db:latest
        migrate
          image migrate:latest
        web
          image nginx:latest
          once db is healthy
          once migrate has started
    "#]],
    );
}

#[test]
fn what_cannot_be_waited_for_is_said_where_it_stands() {
    check(
        &with("[db, dB, cache]"),
        expect![[r#"
        error a.yaml:4:22: there is no service `dB`; name one of this file, or write `required: false`
        error a.yaml:4:26: there is no service `cache`; name one of this file, or write `required: false`
    "#]],
    );
    check(
        &with("{cache: {required: false}}"),
        expect![[r#"
        db
          image db:latest
        migrate
          image migrate:latest
        web
          image nginx:latest
        warning a.yaml:4:18: there is no service `cache`; it is not waited for
    "#]],
    );
    check(
        &with("{db: {condition: ready, restart: true, when: now}}"),
        expect![[r#"
        error a.yaml:4:34: `condition` cannot be `ready`; write service_started, service_healthy or service_completed_successfully
        error a.yaml:4:41: gantry does not restart services with those that they depend on yet; take it out to deploy without it
        error a.yaml:4:56: unknown key `when`; there are condition, required and restart
    "#]],
    );
    check(
        &with("db"),
        expect![[r#"
        error a.yaml:4:17: `depends_on` must be a mapping, and this is the string `db`
    "#]],
    );
    check(
        &with("[web]"),
        expect![[r#"
        error a.yaml:4:18: services wait for each other: web -> web; take one of them out
    "#]],
    );
    // One that could not be made is not missed as well.
    check(
        "services:\n  web: {image: nginx, depends_on: [db]}\n  db: {}\n",
        expect![[r#"
        error a.yaml:3:3: the service `db` has no image; write `image: NAME`
    "#]],
    );
}

#[test]
fn circles_are_refused() {
    check(
        "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: b, depends_on: [c, d]}\n  c: {image: c, depends_on: [a]}\n  d: {image: d}\n",
        expect![[r#"
            error a.yaml:4:30: services wait for each other: a -> b -> c -> a; take one of them out
        "#]],
    );
}

#[test]
fn a_long_chain_is_followed() {
    let service = |at: u32| format!("  s{at}: {{image: x, depends_on: [s{}]}}\n", at + 1);
    let mut text = "services:\n".to_owned();
    text.extend((0..5_000).map(service));
    text += "  s5000: {image: x}\n";
    let loaded = spec::load(&super::sources(&[&text]), &super::variables()).unwrap();
    assert_eq!(loaded.project.services.len(), 5_001);
}
