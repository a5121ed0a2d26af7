//! What is run once.

use expect_test::expect;

use crate::fixture::{World, check_plan};

const RUNNING: &str = "nodes n1
    service hello/job once
    deploy
    settle\n";

#[test]
fn a_one_off_that_runs_is_left_alone_however_long() {
    check_plan(
        &format!("{RUNNING} tick 24h"),
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn a_one_off_is_taken_away_an_hour_after_its_end() {
    let ended = format!("{RUNNING} report job.1 completed\n plan\n tick 59m\n");
    check_plan(
        &ended,
        expect![[r#"
            job slot 1 has completed
            job wakes in 60s
        "#]],
    );
    check_plan(
        &format!("{ended} tick 1m"),
        expect![[r#"
            remove stack hello
            job slot 1 has completed
            then
            remove job.1#1
            then
            drop service job
        "#]],
    );
}

#[test]
fn a_one_off_that_its_user_keeps_stays() {
    check_plan(
        "nodes n1
         service hello/job kept
         deploy
         settle
         report job.1 gaveup
         plan
         tick 24h",
        expect![[r#"
            job slot 1 failed as often as its restart policy allows
        "#]],
    );
}

#[test]
fn a_one_off_whose_node_is_lost_is_not_run_again_elsewhere() {
    let mut world = World::of(
        r#"nodes n1 n2
        service hello/job once constraint "node.hostname == n1"
        deploy
        settle
        down n1"#,
    );
    expect![[r#"
        job slot 1 is run only once, and was begun already
        job wakes in 3600s
    "#]]
    .assert_eq(&world.plan());
    let mut returned = world.clone();
    returned.run("up n1");
    assert_eq!(returned.plan(), "nothing\n");
    world.run("tick 1h");
    expect![[r#"
        remove stack hello
        job slot 1 is run only once, and was begun already
        then
        remove job.1#1
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn a_one_off_that_was_told_to_stop_is_not_run_again() {
    // As when its service is scaled to nothing and back.
    check_plan(
        &format!("{RUNNING} scale job 0\n plan\n agents\n scale job 1"),
        expect![[r#"
            job slot 1 is run only once, and was begun already
        "#]],
    );
}

#[test]
fn a_stack_of_more_than_the_one_off_is_its_users_to_remove() {
    check_plan(
        "nodes n1
         service hello/job once
         service hello/web x1
         deploy
         settle
         report job.1 completed
         plan
         tick 24h",
        expect![[r#"
            job slot 1 has completed
        "#]],
    );
}
