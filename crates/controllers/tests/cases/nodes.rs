//! Nodes that are drained, held, given labels and removed.

use expect_test::expect;

use crate::fixture::{World, check_plan};

#[test]
fn a_drain_moves_a_service_at_the_pace_of_its_rollouts() {
    check_plan(
        "nodes n1 n2
         service hello/web x4
         deploy
         settle
         drain n1",
        expect![[r#"
            stop web.1#1
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    let mut world = World::of(
        "nodes n1 n2
         service hello/web x4
         deploy
         settle
         drain n1
         settle",
    );
    expect![[r#"
        web.1#1 v1 on n1: to be stopped, is exited
        web.1#5 v1 on n2: to be running, is running
        web.2#2 v1 on n2: to be running, is running
        web.3#3 v1 on n1: to be stopped, is exited
        web.3#6 v1 on n2: to be running, is running
        web.4#4 v1 on n2: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
    world.run("activate n1\n settle");
    assert!(!world.plan().contains("create"), "what has moved stays where it is");
}

#[test]
fn where_new_tasks_are_started_first_none_is_missing_during_a_drain() {
    let mut world = World::of(
        "nodes n1 n2
         service hello/web x1 order=start-first port=80 host=8080
         deploy
         settle
         drain n1",
    );
    expect![[r#"
        yield web.1#1
        create web.1#2 v1
    "#]]
    .assert_eq(&world.plan());
    world.run("place\n agents");
    expect![[r#"
        stop web.1#1
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn a_drain_takes_nothing_down_that_has_nowhere_else_to_go() {
    let mut world = World::of(
        "nodes n1 n2 cpu=2
         service hello/web x3 cpu=1
         deploy
         settle
         drain n1",
    );
    expect![[r#"
        stop web.1#1
        web slot 3 is to be replaced and waits for its turn
    "#]]
    .assert_eq(&world.plan());
    world.run("settle");
    expect![[r#"
        web slot 3 stays on n1, since no other node takes it
    "#]]
    .assert_eq(&world.plan());
    // A node that is there again takes it.
    world.run("nodes n3\n settle");
    expect![[r#"
        web.1#1 v1 on n1: to be stopped, is exited
        web.1#4 v1 on n2: to be running, is running
        web.2#2 v1 on n2: to be running, is running
        web.3#3 v1 on n1: to be stopped, is exited
        web.3#5 v1 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn when_the_time_of_a_drain_is_up_nothing_stays() {
    let mut world = World::of(
        r#"nodes n1 n2
           service hello/web x2 constraint "node.hostname == n1"
           service hello/job x1 job constraint "node.hostname == n1"
           deploy
           settle
           drain n1 60s"#,
    );
    expect![[r#"
        job wakes in 60s
        web slot 1 stays on n1, since no other node takes it
        web slot 2 stays on n1, since no other node takes it
        web wakes in 60s
    "#]]
    .assert_eq(&world.plan());
    world.run("tick 60s");
    expect![[r#"
        stop job.1#1
        stop web.1#1
        stop web.2#2
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn a_job_may_come_to_its_end_on_a_node_that_is_drained() {
    check_plan(
        "nodes n1 n2
         service hello/job x2 job
         service hello/each global job
         deploy
         settle
         drain n1",
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn what_is_run_once_is_not_begun_again_for_a_drain() {
    check_plan(
        "nodes n1 n2
         service hello/once x1 once
         deploy
         settle
         drain n1",
        expect![[r#"
            once slot 1 runs to its end on n1, since it is run only once
        "#]],
    );
}

#[test]
fn a_paused_node_keeps_what_it_has_and_takes_no_more() {
    let world = World::of(
        "nodes n1 n2
         service hello/web x2
         deploy
         settle
         hold n1
         scale web 4
         settle",
    );
    expect![[r#"
        web.1#1 v1 on n1: to be running, is running
        web.2#2 v1 on n2: to be running, is running
        web.3#3 v1 on n2: to be running, is running
        web.4#4 v1 on n2: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn a_label_that_is_taken_away_moves_what_needs_it() {
    let mut world = World::of(
        r#"nodes n1 n2
           label n1 disk=ssd
           service hello/db x2 constraint "node.labels.disk == ssd"
           deploy
           settle
           label n2 disk=ssd
           label n1 disk"#,
    );
    expect![[r#"
        stop db.1#1
        db slot 2 is to be replaced and waits for its turn
    "#]]
    .assert_eq(&world.plan());
    world.run("settle");
    expect![[r#"
        db.1#1 v1 on n1: to be stopped, is exited
        db.1#3 v1 on n2: to be running, is running
        db.2#2 v1 on n1: to be stopped, is exited
        db.2#4 v1 on n2: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn more_than_may_share_a_node_move_when_fewer_may() {
    let mut world = World::of(
        "nodes n1
         service hello/web x3
         deploy
         settle
         nodes n2 n3
         service hello/web x3 most-per-node=1
         deploy",
    );
    expect![[r#"
        revise web.1#1 to v2
        revise web.2#2 to v2
        revise web.3#3 to v2
        then
        stop web.2#2
        web slot 3 is to be replaced and waits for its turn
        keep app:latest on n2
    "#]]
    .assert_eq(&world.plan());
    world.run("settle");
    expect![[r#"
        web.1#1 v2 on n1: to be running, is running
        web.2#2 v2 on n1: to be stopped, is exited
        web.2#4 v2 on n2: to be running, is running
        web.3#3 v2 on n1: to be stopped, is exited
        web.3#5 v2 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn what_a_removed_node_had_is_made_anew_and_what_had_ended_there_stays_to_be_seen() {
    let mut world = World::of(
        "nodes n1 n2
         service hello/web x2
         service hello/each global
         service hello/done x2 restart=never
         deploy
         settle
         report done.1 completed
         plan
         down n1
         settle
         remove n1",
    );
    expect![[r#"
        done slot 1 has completed
    "#]]
    .assert_eq(&world.plan());
    world.run("settle");
    expect![[r#"
        done.1#1 v1 on n1: to be running, is exited
        done.2#2 v1 on n2: to be running, is running
        each.2#2 v1 on n2: to be running, is running
        web.1#3 v1 on n2: to be running, is running
        web.2#2 v1 on n2: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn a_rollout_and_a_drain_share_their_pace() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         drain n1
         service hello/web x3 command=two
         deploy",
        expect![[r#"
            stop web.1#1
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}
