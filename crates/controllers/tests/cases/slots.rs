//! Slots are filled, refilled and given up.

use std::collections::BTreeSet;
use std::time::Duration;

use controllers::Object;
use expect_test::expect;
use state::Rejected;

use crate::fixture::{World, check_plan};

#[test]
fn a_deployed_service_gets_a_task_a_slot() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy",
        expect![[r#"
            create web.1#1 v1
            create web.2#2 v1
            create web.3#3 v1
        "#]],
    );
}

#[test]
fn a_service_that_runs_as_declared_is_left_alone() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         tick 24h",
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn a_service_of_no_replicas_has_no_tasks() {
    check_plan(
        "nodes n1
         service hello/web x0
         deploy",
        expect![[r#"
            rollout of web to v1 completed
        "#]],
    );
}

#[test]
fn a_service_that_grows_gets_the_missing_slots_only() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         scale web 5",
        expect![[r#"
            create web.4#4 v1
            create web.5#5 v1
        "#]],
    );
}

#[test]
fn a_service_that_shrinks_loses_its_highest_slots() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         scale web 1",
        expect![[r#"
            remove web.2#2
            remove web.3#3
        "#]],
    );
}

#[test]
fn a_service_scaled_to_zero_keeps_nothing_but_its_name() {
    let mut world = World::of(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         scale web 0",
    );
    expect![[r#"
        remove web.1#1
        remove web.2#2
        remove web.3#3
    "#]]
    .assert_eq(&world.plan());
    world.settle();
    assert_eq!(world.state.tasks().count(), 0);
    assert!(world.state.service(world.service("web")).is_some_and(|service| !service.removing));
}

#[test]
fn a_slot_that_comes_back_waits_for_its_predecessor_to_stop() {
    check_plan(
        "nodes n1 n2
         service hello/web x2
         deploy
         settle
         scale web 1
         plan
         scale web 2",
        expect![[r#"
            web slot 2 waits until task s1-2-2 has stopped
        "#]],
    );
}

#[test]
fn a_lost_node_is_replaced_at_once() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         down n2",
        expect![[r#"
            create web.2#4 v1
        "#]],
    );
}

#[test]
fn a_task_that_was_told_to_stop_is_not_waited_for_on_a_lost_node() {
    // Nobody can tell whether web.2#2 runs, and the slot had lost its claim on it anyway.
    check_plan(
        "nodes n1 n2
         service hello/web x2
         deploy
         settle
         scale web 1
         plan
         scale web 2
         down n2",
        expect![[r#"
            create web.2#3 v1
        "#]],
    );
}

#[test]
fn a_node_that_returns_before_its_replacement_serves_keeps_its_task() {
    let lost = "nodes n1 n2 n3
        service hello/web x3
        deploy
        settle
        down n2
        plan\n";
    // First a replacement without a node, then one that has a node and does not run yet.
    for fixture in [format!("{lost} up n2"), format!("{lost} place\n up n2")] {
        check_plan(
            &fixture,
            expect![[r#"
                remove web.2#4
            "#]],
        );
    }
}

#[test]
fn a_node_that_returns_after_its_replacement_serves_loses_its_task() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3
         deploy
         settle
         down n2
         settle
         up n2",
        expect![[r#"
            remove web.2#2
        "#]],
    );
}

#[test]
fn a_node_that_comes_and_goes_leaves_one_task_a_slot() {
    let mut world = World::of("nodes n1 n2 n3\n service hello/web x6\n deploy\n settle");
    for node in ["n1", "n2", "n3", "n1"] {
        world.run(&format!("down {node}\n settle\n up {node}\n settle"));
    }
    let slots: Vec<u32> = world.state.tasks().map(|(id, _)| id.slot).collect();
    assert_eq!(slots, [1, 2, 3, 4, 5, 6]);
    assert!(world.state.tasks().all(|(_, task)| task.is_ready()));
}

#[test]
fn restarts_on_the_node_are_the_agents_affair() {
    check_plan(
        "nodes n1
         service hello/web x1
         deploy
         settle
         report web.1 exited",
        expect![[r#"
            nothing
        "#]],
    );
}

#[test]
fn a_slot_whose_task_kept_failing_rests_first() {
    check_plan(
        "nodes n1 n2
         service hello/web x1
         deploy
         settle
         report web.1 failing",
        expect![[r#"
            conclude web.1#1 ended
            web slot 1 keeps failing and waits before it is tried again
            web wakes in 1s
        "#]],
    );
}

#[test]
fn a_slot_that_has_rested_is_tried_elsewhere() {
    check_plan(
        "nodes n1 n2
         service hello/web x1
         deploy
         settle
         report web.1 failing
         plan
         tick 1s",
        expect![[r#"
            create web.1#2 v1 avoid n1
        "#]],
    );
}

#[test]
fn the_rest_doubles_with_every_failure() {
    assert_eq!(rests_after_failures(5), [1, 2, 4, 8, 15].map(Duration::from_secs));
}

#[test]
fn the_rest_grows_to_fifteen_seconds_though_few_ended_tasks_are_kept() {
    assert_eq!(rests_after_failures(8), [1, 2, 4, 8, 15, 15, 15, 15].map(Duration::from_secs));
}

/// How long one slot rests after each of so many failures in a row.
fn rests_after_failures(failures: usize) -> Vec<Duration> {
    let mut world = World::of("nodes n1 n2\n service hello/web x1\n deploy\n settle");
    let web = Object::Service(world.service("web"));
    let mut rests = Vec::new();
    for _ in 0..failures {
        world.run("report web.1 failing\n plan");
        let again =
            controllers::plan(&world.state, web, world.now).wake_at.expect("a failing slot is tried again");
        rests.push(again.since(world.now));
        world.now = again;
        world.settle();
    }
    rests
}

#[test]
fn a_slot_that_was_given_up_stays_so() {
    check_plan(
        "nodes n1 n2
         service hello/web x1 restart=on-failure
         deploy
         settle
         report web.1 gaveup",
        expect![[r#"
            conclude web.1#1 ended
            web slot 1 failed as often as its restart policy allows
        "#]],
    );
    check_plan(
        "nodes n1 n2
         service hello/web x1 restart=on-failure
         deploy
         settle
         report web.1 gaveup
         plan
         tick 24h",
        expect![[r#"
            web slot 1 failed as often as its restart policy allows
        "#]],
    );
}

#[test]
fn a_slot_that_was_given_up_is_tried_again_after_scaling_to_zero_and_back() {
    check_plan(
        "nodes n1
         service hello/web x1 restart=on-failure
         deploy
         settle
         report web.1 gaveup
         plan
         scale web 0
         settle
         scale web 1",
        expect![[r#"
            create web.1#2 v1
        "#]],
    );
}

#[test]
fn a_task_that_did_its_work_is_not_replaced() {
    for restart in ["never", "on-failure"] {
        check_plan(
            &format!(
                "nodes n1
                 service hello/job x1 restart={restart}
                 deploy
                 settle
                 report job.1 completed"
            ),
            expect![[r#"
                conclude job.1#1 ended
                job slot 1 has completed
            "#]],
        );
    }
}

#[test]
fn a_task_that_is_to_run_always_is_replaced_though_it_completed() {
    check_plan(
        "nodes n1
         service hello/web x1 restart=always
         deploy
         settle
         report web.1 completed",
        expect![[r#"
            conclude web.1#1 ended
            create web.1#2 v1
        "#]],
    );
}

#[test]
fn a_task_that_stopped_unasked_is_replaced() {
    check_plan(
        "nodes n1
         service hello/web x1
         deploy
         settle
         report web.1 stopped",
        expect![[r#"
            conclude web.1#1 ended
            create web.1#2 v1
        "#]],
    );
}

#[test]
fn a_slot_that_shrinks_away_while_its_task_ends_gets_no_command_that_is_rejected() {
    // The sixth ended task pushes out the first, which the same plan must not name any more.
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy\n settle");
    for _ in 0..5 {
        world.run("report web.1 failing\n plan\n tick 2m\n settle");
    }
    world.run("report web.1 failing\n scale web 0\n plan");
    assert_eq!(world.state.tasks().count(), 0);
}

#[test]
fn any_first_part_of_a_plan_leads_where_all_of_it_does() {
    // The reconcile loop proposes as much of a plan as goes into one log entry.
    let world = World::of(
        "nodes n1 n2 n3
         service hello/web x6
         deploy
         settle
         report web.1 failing
         report web.2 stopped
         down n3
         scale web 5",
    );
    let web = Object::Service(world.service("web"));
    let planned = controllers::plan(&world.state, web, world.now).commands;
    assert!(planned.len() > 3, "{planned:?}");
    let ends = (0..=planned.len()).map(|cut| {
        let mut world = world.clone();
        world.must_all(planned[..cut].to_vec());
        world.settle();
        world.tasks()
    });
    let ends: BTreeSet<String> = ends.collect();
    assert_eq!(ends.len(), 1, "{ends:#?}");
}

#[test]
fn of_two_leaders_that_fill_the_same_slots_one_is_refused() {
    let mut world = World::of("nodes n1\n service hello/web x2\n deploy");
    let web = Object::Service(world.service("web"));
    let planned = controllers::plan(&world.state, web, world.now).commands;
    world.must_all(planned.clone());
    for (at, outcome) in world.apply(planned).into_iter().enumerate() {
        assert!(
            matches!(outcome, Err(Rejected::OutOfSequence(_))),
            "the second leader's command {at}: {outcome:?}"
        );
    }
    expect![[r#"
        web.1#1 v1 nowhere: to be running, is pending
        web.2#2 v1 nowhere: to be running, is pending
    "#]]
    .assert_eq(&world.tasks());
}
