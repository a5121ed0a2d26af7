//! A changed spec replaces its tasks one slot at a time, stop first.

use expect_test::expect;

use crate::fixture::{World, check_plan};

const TWO: &str = "nodes n1 n2 n3
    service hello/web x3
    deploy
    settle
    service hello/web x3 command=two
    deploy\n";

#[test]
fn a_new_version_begins_with_one_slot() {
    check_plan(
        TWO,
        expect![[r#"
            stop web.1#1
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn the_old_task_stops_before_the_new_one_is_made() {
    check_plan(
        &format!("{TWO} plan"),
        expect![[r#"
            web slot 1 waits until task s1-1-1 has stopped
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &format!("{TWO} plan\n agents"),
        expect![[r#"
            conclude web.1#1 ended
            create web.1#4 v2
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn the_next_slot_waits_until_the_last_one_is_ready() {
    let first = format!("{TWO} plan\n agents\n plan\n place\n");
    check_plan(
        &format!("{first} report web.1 unready"),
        expect![[r#"
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &format!("{first} report web.1 running"),
        expect![[r#"
            stop web.2#2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn all_but_one_serve_throughout() {
    let mut world = World::of(TWO);
    let ready = |world: &World| world.state.tasks().filter(|(_, task)| task.is_ready()).count();
    let mut least = ready(&world);
    // Two passes a slot: its task is stopped in one and replaced in the next.
    for _ in 0..6 {
        world.plan();
        world.place();
        world.agents();
        least = least.min(ready(&world));
    }
    assert_eq!(least, 2);
    expect![[r#"
        web.1#1 v1 on n1: to be stopped, is exited
        web.1#4 v2 on n1: to be running, is running
        web.2#2 v1 on n2: to be stopped, is exited
        web.2#5 v2 on n2: to be running, is running
        web.3#3 v1 on n3: to be stopped, is exited
        web.3#6 v2 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn what_does_not_serve_is_replaced_first() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         report web.3 unready
         service hello/web x3 command=two
         deploy",
        expect![[r#"
            stop web.3#3
            web slot 1 is to be replaced and waits for its turn
            web slot 2 is to be replaced and waits for its turn
        "#]],
    );
}

/// Version 2 is given up in its first slot.
fn broken() -> String {
    format!("{TWO} plan\n agents\n plan\n place\n report web.1 gaveup\n")
}

#[test]
fn a_version_that_does_not_work_takes_down_one_slot_only() {
    check_plan(
        &broken(),
        expect![[r#"
            conclude web.1#4 ended
            rollout of web to v2 0 done, 1 failed
            rollout of web to v2 failed: slot 1: exit code 1
            web slot 1 failed as often as its restart policy allows
        "#]],
    );
}

#[test]
fn a_version_that_keeps_failing_takes_down_one_slot_only() {
    check_plan(
        &format!("{TWO} plan\n agents\n plan\n place\n report web.1 failing\n"),
        expect![[r#"
            conclude web.1#4 ended
            rollout of web to v2 0 done, 1 failed
            rollout of web to v2 failed: slot 1: exit code 1
            web slot 1 keeps failing and waits before it is tried again
            web wakes in 1s
        "#]],
    );
}

#[test]
fn a_version_that_repairs_another_fills_the_given_up_slot_first() {
    check_plan(
        &format!("{} service hello/web x3 command=three\n deploy", broken()),
        expect![[r#"
            conclude web.1#4 ended
            create web.1#5 v3
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn a_version_that_repairs_another_replaces_its_crashing_task_first() {
    check_plan(
        &format!(
            "{TWO} plan
             agents
             plan
             place
             report web.1 exited
             service hello/web x3 command=three
             deploy"
        ),
        expect![[r#"
            stop web.1#4
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn a_task_that_never_found_a_node_becomes_one_of_the_new_version_at_once() {
    check_plan(
        "nodes n1
         service hello/web x1 cpu=200
         deploy
         plan
         place
         service hello/web x1
         deploy",
        expect![[r#"
            revise web.1#1 to v2
        "#]],
    );
}

#[test]
fn what_is_not_of_the_task_replaces_nothing() {
    check_plan(
        "nodes n1
         service hello/web x1
         deploy
         settle
         service hello/web x1 label=blue
         deploy",
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn new_content_under_the_same_name_is_a_new_version() {
    check_plan(
        "nodes n1 n2
         image nginx on n1 n2
         service hello/web x1 image=nginx
         deploy
         settle
         image nginx on n1 n2
         deploy",
        expect![[r#"
            stop web.1#1
        "#]],
    );
}

#[test]
fn a_node_lost_meanwhile_is_replaced_by_the_new_version_without_a_turn() {
    check_plan(
        &format!("{TWO} plan\n down n3"),
        expect![[r#"
            create web.3#4 v2
            web slot 1 waits until task s1-1-1 has stopped
            web slot 2 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn a_node_that_returns_with_an_old_version_loses_its_task() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         down n3
         settle
         service hello/web x3 command=two
         deploy
         settle
         up n3",
        expect![[r#"
            remove web.3#3
        "#]],
    );
}
