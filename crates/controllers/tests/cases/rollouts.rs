//! What becomes of a rollout: pace, health, failure, canaries, and what people decide.

use expect_test::expect;

use crate::fixture::{World, check_plan};

/// Three slots of version 1 serve, and version 2 has been deployed with these options.
fn changed(options: &str) -> String {
    format!(
        "nodes n1 n2 n3
         service hello/web x3 {options}
         deploy
         settle
         service hello/web x3 command=two {options}
         deploy\n"
    )
}

#[test]
fn so_many_slots_change_at_a_time() {
    check_plan(
        &changed("parallelism=2"),
        expect![[r#"
            stop web.1#1
            stop web.2#2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &changed("parallelism=0"),
        expect![[r#"
            stop web.1#1
            stop web.2#2
            stop web.3#3
        "#]],
    );
}

#[test]
fn what_failed_by_itself_counts_among_those_that_are_down() {
    check_plan(
        &format!("{} report web.2 exited\n report web.3 exited", changed("parallelism=2")),
        expect![[r#"
            stop web.2#2
            stop web.3#3
            web slot 1 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn start_first_keeps_the_old_task_until_the_new_one_serves() {
    let begun = format!("{} plan\n place", changed("order=start-first"));
    check_plan(
        &changed("order=start-first"),
        expect![[r#"
            yield web.1#1
            create web.1#4 v2
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &begun,
        expect![[r#"
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &format!("{begun}\n report web.1 running"),
        expect![[r#"
            stop web.1#1
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &format!("{begun}\n report web.1 running\n plan\n agents"),
        expect![[r#"
            conclude web.1#1 ended
            yield web.2#2
            create web.2#5 v2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn at_no_time_do_fewer_serve_where_the_new_one_starts_first() {
    let mut world = World::of(&changed("order=start-first"));
    for _ in 0..9 {
        world.plan();
        world.place();
        world.agents();
        let ready = world.state.tasks().filter(|(_, task)| task.is_ready()).count();
        assert!((3..=4).contains(&ready), "{ready} are ready:\n{}", world.tasks());
    }
    world.settle();
    expect![[r#"
        web.1#1 v1 on n1: to be stopped, is exited
        web.1#4 v2 on n1: to be running, is running
        web.2#2 v1 on n2: to be stopped, is exited
        web.2#5 v2 on n2: to be running, is running
        web.3#3 v1 on n3: to be stopped, is exited
        web.3#6 v2 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
    expect![[r#"
        deploy v1 -> v2 completed, 3 done, 0 failed
    "#]]
    .assert_eq(&world.rollout("web"));
}

#[test]
fn two_tasks_that_name_the_same_port_of_their_node_are_never_there_at_once() {
    check_plan(
        &changed("order=start-first port=80 host=8080"),
        expect![[r#"
            stop web.1#1
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn a_slot_is_done_once_it_has_been_ready_for_long_enough() {
    let ready = format!("{} plan\n agents\n plan\n place\n report web.1 running\n", changed("monitor=5s"));
    check_plan(
        &ready,
        expect![[r#"
            web slot 1 is ready and has to stay so for a while
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
            web wakes in 5s
        "#]],
    );
    check_plan(
        &format!("{ready} tick 5s"),
        expect![[r#"
            stop web.2#2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn the_next_batch_waits_for_the_delay() {
    let ready = format!("{} plan\n agents\n plan\n place\n report web.1 running\n", changed("delay=30s"));
    check_plan(
        &ready,
        expect![[r#"
            web slot 2 is to be replaced and waits until the delay is over
            web slot 3 is to be replaced and waits until the delay is over
            web wakes in 30s
        "#]],
    );
    check_plan(
        &format!("{ready} tick 30s"),
        expect![[r#"
            stop web.2#2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn a_rollout_is_completed_when_all_have_served_for_as_long_as_it_is_watched() {
    let all = format!("{} settle\n tick 1s\n", changed("parallelism=0 min-healthy=0s monitor=5s"));
    check_plan(
        &all,
        expect![[r#"
        web wakes in 4s
    "#]],
    );
    check_plan(
        &format!("{all} tick 4s"),
        expect![[r#"
        rollout of web to v2 completed
    "#]],
    );
}

#[test]
fn a_failure_goes_back_to_the_version_that_served() {
    let mut world = World::of(&format!(
        "{} plan\n agents\n plan\n place\n report web.1 failing",
        changed("action=rollback")
    ));
    expect![[r#"
        conclude web.1#4 ended
        rollout of web to v2 0 done, 1 failed
        rollout of web to v2 back to v1: slot 1: exit code 1
        web slot 1 keeps failing and waits before it is tried again
        web wakes in 1s
        then
        create web.1#5 v1
    "#]]
    .assert_eq(&world.plan());
    expect![[r#"
        rollback v2 -> v1 running, 0 done, 0 failed: slot 1: exit code 1
    "#]]
    .assert_eq(&world.rollout("web"));
    world.settle();
    expect![[r#"
        web.1#1 v1 on n1: to be stopped, is exited
        web.1#4 v2 on n1: to be running, is failed
        web.1#5 v1 on n1: to be running, is running
        web.2#2 v1 on n2: to be running, is running
        web.3#3 v1 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
    expect![[r#"
        rollback v2 -> v1 completed, 3 done, 0 failed: slot 1: exit code 1
    "#]]
    .assert_eq(&world.rollout("web"));
}

#[test]
fn going_back_in_the_middle_of_start_first_leaves_alone_what_still_serves() {
    let mut world = World::of(&format!(
        "{} plan\n place\n report web.1 failing",
        changed("order=start-first action=rollback")
    ));
    world.settle();
    expect![[r#"
        web.1#1 v1 on n1: to be yielding, is running
        web.1#4 v2 on n1: to be running, is failed
        web.2#2 v1 on n2: to be running, is running
        web.3#3 v1 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn some_may_fail() {
    let one = |options| {
        format!(
            "{} plan\n agents\n plan\n place\n report web.1 failing\n report web.2 running",
            changed(options)
        )
    };
    check_plan(
        &one("parallelism=2 ratio=300 action=rollback"),
        expect![[r#"
            conclude web.1#4 ended
            rollout of web to v2 1 done, 1 failed
            rollout of web to v2 back to v1: slot 1: exit code 1
            web slot 1 keeps failing and waits before it is tried again
            web wakes in 1s
            then
            create web.1#6 v1
            web slot 2 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &one("parallelism=2 ratio=340 action=rollback"),
        expect![[r#"
            conclude web.1#4 ended
            rollout of web to v2 1 done, 1 failed
            stop web.3#3
            web slot 1 keeps failing and waits before it is tried again
            web wakes in 1s
        "#]],
    );
}

#[test]
fn whatever_fails_a_rollout_may_go_on() {
    check_plan(
        &format!("{} plan\n agents\n plan\n place\n report web.1 gaveup", changed("action=continue")),
        expect![[r#"
            conclude web.1#4 ended
            rollout of web to v2 0 done, 1 failed
            stop web.2#2
            web slot 1 failed as often as its restart policy allows
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn a_rollout_that_gets_nowhere_fails() {
    let stuck = format!("{} plan\n agents\n plan\n place\n", changed("deadline=60s action=rollback"));
    check_plan(
        &stuck,
        expect![[r#"
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
            web wakes in 60s
        "#]],
    );
    check_plan(
        &format!("{stuck} tick 60s"),
        expect![[r#"
            rollout of web to v2 back to v1: no further slot was done within 60 s; 3 of 3 are left
            then
            stop web.1#4
        "#]],
    );
}

#[test]
fn a_task_that_has_no_node_counts_against_the_deadline() {
    check_plan(
        "nodes n1
         service hello/web x1 cpu=1 deadline=60s
         deploy
         settle
         service hello/web x1 cpu=100 command=two deadline=60s
         deploy
         plan
         agents
         plan
         place
         tick 60s",
        expect![[r#"
            rollout of web to v2 failed: no further slot was done within 60 s; 1 of 1 are left
        "#]],
    );
}

#[test]
fn progress_is_written_down_when_it_has_to_be_known() {
    let second = format!(
        "{} plan\n agents\n plan\n place\n report web.1 running\n plan\n agents\n plan\n place\n",
        changed("deadline=80s")
    );
    check_plan(
        &second,
        expect![[r#"
            web slot 3 is to be replaced and waits for its turn
            web wakes in 10s
        "#]],
    );
    check_plan(
        &format!("{second} tick 10s"),
        expect![[r#"
            rollout of web to v2 1 done, 0 failed
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
    check_plan(
        &format!("{second} tick 10s\n plan\n tick 79s"),
        expect![[r#"
            web slot 3 is to be replaced and waits for its turn
            web wakes in 1s
        "#]],
    );
    check_plan(
        &format!("{second} tick 10s\n plan\n tick 80s"),
        expect![[r#"
        rollout of web to v2 failed: no further slot was done within 80 s; 2 of 3 are left
    "#]],
    );
}

#[test]
fn a_new_service_that_never_gets_there_has_failed_and_still_may() {
    let late = "nodes n1
         service hello/web x1 deadline=60s
         deploy
         plan
         place
         tick 60s\n";
    check_plan(
        late,
        expect![[r#"
        rollout of web to v1 failed: no further slot was done within 60 s; 1 of 1 are left
    "#]],
    );
    let mut world = World::of(&format!("{late} plan\n report web.1 running\n plan"));
    expect![[r#"
        create v1 -> v1 completed, 1 done, 0 failed
    "#]]
    .assert_eq(&world.rollout("web"));
    expect![[r#"
        nothing
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn canaries_wait_for_a_person() {
    let canary = format!("{} settle\n", changed("canaries=1"));
    check_plan(
        &canary,
        expect![[r#"
        web slot 2 has an old version until the canaries are promoted
        web slot 3 has an old version until the canaries are promoted
    "#]],
    );
    check_plan(
        &format!("{canary} promote web"),
        expect![[r#"
            stop web.2#2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn canaries_are_promoted_by_time() {
    let canary = format!("{} settle\n", changed("canaries=1 promote=60s"));
    check_plan(
        &canary,
        expect![[r#"
        web slot 2 has an old version until the canaries are promoted
        web slot 3 has an old version until the canaries are promoted
        web wakes in 60s
    "#]],
    );
    check_plan(
        &format!("{canary} tick 60s"),
        expect![[r#"
            rollout of web to v2 promoted
            web slot 2 has an old version until the canaries are promoted
            web slot 3 has an old version until the canaries are promoted
            then
            stop web.2#2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn what_is_lost_behind_the_canaries_comes_back_as_it_was() {
    check_plan(
        &format!("{} settle\n down n3", changed("canaries=1")),
        expect![[r#"
        create web.3#5 v1
        web slot 2 has an old version until the canaries are promoted
        web slot 3 has an old version until the canaries are promoted
    "#]],
    );
}

#[test]
fn a_paused_rollout_replaces_nothing_and_keeps_what_there_is_running() {
    let paused = format!("{} plan\n agents\n plan\n place\n report web.1 running\n pause web\n", changed(""));
    check_plan(
        &paused,
        expect![[r#"
        web slot 2 has an old version, and the rollout is paused
        web slot 3 has an old version, and the rollout is paused
    "#]],
    );
    check_plan(
        &format!("{paused} down n2"),
        expect![[r#"
        create web.2#5 v1
        web slot 2 has an old version, and the rollout is paused
        web slot 3 has an old version, and the rollout is paused
    "#]],
    );
    check_plan(
        &format!("{paused} resume web"),
        expect![[r#"
            stop web.2#2
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn an_aborted_rollout_goes_back() {
    let mut world = World::of(&format!(
        "{} plan\n agents\n plan\n place\n report web.1 running\n abort web",
        changed("")
    ));
    expect![[r#"
        abort v2 -> v1 running, 0 done, 0 failed
    "#]]
    .assert_eq(&world.rollout("web"));
    expect![[r#"
        stop web.1#4
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn a_rollout_that_failed_goes_on_when_somebody_says_so() {
    let mut world = World::of(&format!(
        "{} plan\n agents\n plan\n place\n report web.1 gaveup\n plan\n tick 1s\n resume web",
        changed("")
    ));
    expect![[r#"
        deploy v1 -> v2 running, 0 done, 0 failed
    "#]]
    .assert_eq(&world.rollout("web"));
    expect![[r#"
        create web.1#5 v2
        web slot 2 is to be replaced and waits for its turn
        web slot 3 is to be replaced and waits for its turn
    "#]]
    .assert_eq(&world.plan());
}

#[test]
fn a_version_that_served_is_gone_back_to_and_forward_again() {
    let mut world = World::of(&format!("{} settle\n undo web", changed("")));
    expect![[r#"
        undo v2 -> v1 running, 0 done, 0 failed
    "#]]
    .assert_eq(&world.rollout("web"));
    world.run("settle\n deploy");
    expect![[r#"
        deploy v1 -> v2 running, 0 done, 0 failed
    "#]]
    .assert_eq(&world.rollout("web"));
}

#[test]
fn a_restart_makes_new_containers_of_the_same() {
    let world = World::of(&format!("{} settle\n restart web\n settle", changed("parallelism=0")));
    expect![[r#"
        web.1#1 v1 on n1: to be stopped, is exited
        web.1#4 v2 on n1: to be stopped, is exited
        web.1#7 v3 on n1: to be running, is running
        web.2#2 v1 on n2: to be stopped, is exited
        web.2#5 v2 on n2: to be stopped, is exited
        web.2#8 v3 on n2: to be running, is running
        web.3#3 v1 on n3: to be stopped, is exited
        web.3#6 v2 on n3: to be stopped, is exited
        web.3#9 v3 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
    expect![[r#"
        restart v2 -> v3 completed, 3 done, 0 failed
    "#]]
    .assert_eq(&world.rollout("web"));
}

#[test]
fn what_can_be_changed_in_a_running_container_replaces_none() {
    check_plan(
        "nodes n1 n2 n3
         service hello/web x3 limit-mem=64m
         deploy
         settle
         service hello/web x3 limit-mem=128m cpu=0.5 name-label=blue
         deploy",
        expect![[r#"
            revise web.1#1 to v2
            revise web.2#2 to v2
            revise web.3#3 to v2
            then
            rollout of web to v2 completed
        "#]],
    );
}

#[test]
fn what_a_node_has_no_room_for_is_replaced() {
    check_plan(
        "nodes n1 n2 cpu=2
         service hello/web x1 cpu=1
         service hello/other x2 cpu=1
         deploy
         settle
         service hello/web x1 cpu=2
         deploy",
        expect![[r#"
            stop web.1#1
        "#]],
    );
}

#[test]
fn a_constraint_that_still_holds_replaces_nothing() {
    let changed = |constraint: &str| {
        format!(
            r#"nodes n1 disk=ssd
               nodes n2
               service hello/web x2
               deploy
               settle
               service hello/web x2 constraint "{constraint}"
               deploy"#
        )
    };
    check_plan(
        &changed("node.labels.disk != hdd"),
        expect![[r#"
        revise web.1#1 to v2
        revise web.2#2 to v2
        then
        rollout of web to v2 completed
    "#]],
    );
    check_plan(
        &changed("node.labels.disk == ssd"),
        expect![[r#"
        revise web.1#1 to v2
        stop web.2#2
    "#]],
    );
}

#[test]
fn a_deploy_in_the_middle_takes_the_place_of_the_rollout_before_it() {
    let mut world = World::of(&format!(
        "{} plan\n place\n report web.1 running\n service hello/web x3 command=three order=start-first\n deploy",
        changed("order=start-first")
    ));
    expect![[r#"
        stop web.1#4
        web slot 2 is to be replaced and waits for its turn
        web slot 3 is to be replaced and waits for its turn
        then
        create web.1#5 v3
        web slot 2 is to be replaced and waits for its turn
        web slot 3 is to be replaced and waits for its turn
    "#]]
    .assert_eq(&world.plan());
    world.settle();
    expect![[r#"
        web.1#1 v1 on n1: to be stopped, is exited
        web.1#4 v2 on n1: to be stopped, is exited
        web.1#5 v3 on n1: to be running, is running
        web.2#2 v1 on n2: to be stopped, is exited
        web.2#6 v3 on n2: to be running, is running
        web.3#3 v1 on n3: to be stopped, is exited
        web.3#7 v3 on n3: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn a_service_that_is_scaled_in_the_middle_gets_new_slots_of_the_new_version() {
    check_plan(
        &format!("{} plan\n agents\n plan\n place\n scale web 4", changed("")),
        expect![[r#"
            create web.4#5 v2
            web slot 2 is to be replaced and waits for its turn
            web slot 3 is to be replaced and waits for its turn
        "#]],
    );
}

#[test]
fn a_restart_after_a_restart_was_undone_is_another_one() {
    let world = World::of(&format!(
        "{} settle\n restart web\n settle\n undo web\n restart web",
        changed("parallelism=0")
    ));
    let service = world.state.service(world.service("web")).expect("it is declared");
    let counts: Vec<u32> = service.templates.values().map(|template| template.restarted).collect();
    assert_eq!(counts, [0, 0, 1, 2]);
}
