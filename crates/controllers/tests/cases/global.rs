//! Services that have one slot on every node.

use expect_test::{Expect, expect};

use crate::fixture::{World, check_plan};

/// The tasks that there are once all is done.
#[track_caller]
fn check_tasks(fixture: &str, expect: Expect) {
    let mut world = World::of(fixture);
    world.settle();
    expect.assert_eq(&world.tasks());
}

#[test]
fn every_node_gets_a_task_whose_slot_is_the_node() {
    check_plan(
        "nodes n1 n2 n3\n service hello/agent global\n deploy",
        expect![[r#"
        create agent.1#1 v1
        create agent.2#2 v1
        create agent.3#3 v1
    "#]],
    );
    check_tasks(
        "nodes n1 n2 n3\n service hello/agent global\n deploy",
        expect![[r#"
        agent.1#1 v1 on n1: to be running, is running
        agent.2#2 v1 on n2: to be running, is running
        agent.3#3 v1 on n3: to be running, is running
    "#]],
    );
}

#[test]
fn a_node_that_joins_gets_one_and_the_others_keep_theirs() {
    check_plan(
        "nodes n1 n2\n service hello/agent global\n deploy\n settle\n nodes n3",
        expect![[r#"
        create agent.3#3 v1
    "#]],
    );
}

#[test]
fn a_node_that_has_never_been_seen_or_does_not_meet_a_constraint_gets_none() {
    check_tasks(
        "nodes n1 n2 disk=ssd
         nodes n3
         nodes n4 disk=ssd unseen
         service hello/agent global constraint \"node.labels.disk == ssd\"
         deploy",
        expect![[r#"
            agent.1#1 v1 on n1: to be running, is running
            agent.2#2 v1 on n2: to be running, is running
        "#]],
    );
}

#[test]
fn a_node_that_goes_down_is_left_alone_and_is_whole_when_it_returns() {
    let down = "nodes n1 n2\n service hello/agent global\n deploy\n settle\n down n2";
    check_plan(
        down,
        expect![[r#"
        nothing
    "#]],
    );
    check_plan(
        &format!("{down}\n tick 1h\n up n2"),
        expect![[r#"
        nothing
    "#]],
    );
}

#[test]
fn a_node_that_was_away_during_a_rollout_gets_the_new_version_when_it_returns() {
    let away = "nodes n1 n2
         service hello/agent global
         deploy
         settle
         down n2
         service hello/agent global command=two
         deploy
         settle";
    check_tasks(
        away,
        expect![[r#"
        agent.1#1 v1 on n1: to be stopped, is exited
        agent.1#3 v2 on n1: to be running, is running
        agent.2#2 v1 on n2: to be running, is lost
    "#]],
    );
    check_plan(
        &format!("{away}\n up n2"),
        expect![[r#"
        stop agent.2#2
    "#]],
    );
    check_tasks(
        &format!("{away}\n up n2"),
        expect![[r#"
        agent.1#1 v1 on n1: to be stopped, is exited
        agent.1#3 v2 on n1: to be running, is running
        agent.2#2 v1 on n2: to be stopped, is exited
        agent.2#4 v2 on n2: to be running, is running
    "#]],
    );
}

#[test]
fn what_is_changed_after_the_rollout_is_over_is_tried_for_as_long() {
    let away = "nodes n1 n2
         service hello/agent global order=start-first min-healthy=5s
         deploy
         settle
         down n2
         service hello/agent global order=start-first min-healthy=5s command=two
         deploy
         settle
         tick 5s
         settle
         up n2
         settle";
    check_plan(
        away,
        expect![[r#"
        agent slot 2 is ready and has to stay so for a while
        agent wakes in 5s
    "#]],
    );
    check_plan(
        &format!("{away}\n tick 5s"),
        expect![[r#"
        stop agent.2#2
    "#]],
    );
}

#[test]
fn a_node_that_loses_its_label_loses_its_task() {
    check_plan(
        "nodes n1 n2 disk=ssd
         service hello/agent global constraint \"node.labels.disk == ssd\"
         deploy
         settle
         relabel n2 disk=hdd",
        expect![[r#"
            remove agent.2#2
        "#]],
    );
}

#[test]
fn a_node_without_room_says_so_and_no_other_node_stands_in() {
    let mut world =
        World::of("nodes n1 cpu=1\n nodes n2 cpu=4\n service hello/agent global cpu=2\n deploy\n plan");
    expect![[r#"
        assign agent.2#2 -> n2 10.0.1.2
        agent.1#1 waits: no node fits: not enough CPU on 1 node
    "#]]
    .assert_eq(&world.place());
}

#[test]
fn what_failed_is_tried_again_where_it_failed() {
    check_plan(
        "nodes n1 n2\n service hello/agent global\n deploy\n settle\n report agent.2 failing\n tick 2s",
        expect![[r#"
            conclude agent.2#2 ended
            create agent.2#3 v1
        "#]],
    );
}

#[test]
fn a_rollout_goes_through_the_nodes_one_by_one() {
    check_plan(
        "nodes n1 n2 n3
         service hello/agent global
         deploy
         settle
         service hello/agent global command=two
         deploy",
        expect![[r#"
            stop agent.1#1
            agent slot 2 is to be replaced and waits for its turn
            agent slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn canaries_are_so_many_nodes() {
    check_tasks(
        "nodes n1 n2 n3
         service hello/agent global canaries=1
         deploy
         settle
         service hello/agent global canaries=1 command=two
         deploy",
        expect![[r#"
            agent.1#1 v1 on n1: to be stopped, is exited
            agent.1#4 v2 on n1: to be running, is running
            agent.2#2 v1 on n2: to be running, is running
            agent.3#3 v1 on n3: to be running, is running
        "#]],
    );
}

#[test]
fn a_service_that_becomes_global_is_another_service_of_that_name() {
    let changed = "nodes n1 n2
         service hello/web x3
         deploy
         settle
         service hello/web global
         deploy";
    check_plan(
        changed,
        expect![[r#"
        remove web.1#1
        remove web.2#2
        remove web.3#3
        create web.1#1 v1
        create web.2#2 v1
    "#]],
    );
    check_tasks(
        changed,
        expect![[r#"
        web.1#1 v1 on n1: to be running, is running
        web.2#2 v1 on n2: to be running, is running
    "#]],
    );
}
