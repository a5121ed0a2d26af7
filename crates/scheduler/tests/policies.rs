//! What a service may say of its placement, case by case. The language is [`fixture`]'s.

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "../../controllers/tests/fixture/mod.rs"]
mod fixture;

use expect_test::expect;

use fixture::{World, check_place};

#[test]
fn every_key_of_a_node_can_be_asked_for() {
    for (constraint, on) in [
        ("node.id == n2", "n2"),
        ("node.hostname != n1", "n2"),
        ("node.ip == 192.168.0.0/31", "n1"),
        ("node.platform.arch == aarch64", "n2"),
        ("node.platform.os == linux", "n1"),
        ("node.labels.zone in (b, c)", "n2"),
        ("node.labels.zone not in (b, c)", "n1"),
        ("engine.labels.zone = a", "n1"),
        ("node.role == manager", "n1"),
    ] {
        let placed = World::of(&format!(
            r#"nodes n1 zone=a
               nodes n2 zone=b platform=linux/arm64
               service hello/web x1 constraint "{constraint}"
               deploy
               plan"#
        ))
        .place();
        assert!(placed.starts_with(&format!("assign web.1#1 -> {on}")), "{constraint}: {placed}");
    }
}

#[test]
fn the_operators_label_holds_before_the_nodes_own() {
    let mut world = World::of(
        r#"nodes n1 n2 zone=a
           label n2 zone=b
           service hello/web x1 constraint "node.labels.zone == b"
           service hello/own x1 constraint "engine.labels.zone == a" constraint "node.hostname == n2"
           deploy
           plan"#,
    );
    expect![[r#"
        assign own.1#1 -> n2 10.0.1.2
        assign web.1#1 -> n2 10.0.1.3
    "#]]
    .assert_eq(&world.place());
}

#[test]
fn a_slip_of_the_keyboard_in_a_constraint_is_said() {
    for (constraint, hint) in [
        (
            "node.labels.dsk == ssd",
            "node.labels.dsk == ssd is not met on 2 nodes (no node has a label `dsk`: there are disk, zone)",
        ),
        (
            "node.labels.disk == sdd",
            "node.labels.disk == sdd is not met on 2 nodes (node.labels.disk is hdd, ssd on the nodes that there are)",
        ),
        (
            "node.hostname == n3",
            "node.hostname == n3 is not met on 2 nodes (node.hostname is n1, n2 on the nodes that there are)",
        ),
    ] {
        let placed = World::of(&format!(
            r#"nodes n1 disk=ssd zone=a
               nodes n2 disk=hdd
               service hello/web x1 constraint "{constraint}"
               deploy
               plan"#
        ))
        .place();
        assert_eq!(placed, format!("web.1#1 waits: no node fits: {hint}\n"));
    }
}

#[test]
fn tasks_are_spread_over_the_values_of_a_label_and_then_over_the_nodes() {
    check_place(
        "nodes n1 n2 n3 zone=a
         nodes n4 zone=b
         service hello/web x6 spread=node.labels.zone
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n1 10.0.0.2
            assign web.2#2 -> n4 10.0.3.2
            assign web.3#3 -> n2 10.0.1.2
            assign web.4#4 -> n4 10.0.3.3
            assign web.5#5 -> n3 10.0.2.2
            assign web.6#6 -> n4 10.0.3.4
        "#]],
    );
}

#[test]
fn a_second_preference_counts_within_the_first() {
    check_place(
        "nodes n1 zone=a rack=1
         nodes n2 zone=a rack=2
         nodes n3 zone=a rack=2
         nodes n4 zone=b rack=1
         nodes n5
         service hello/web x7 spread=node.labels.zone spread=node.labels.rack
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n5 10.0.4.2
            assign web.2#2 -> n1 10.0.0.2
            assign web.3#3 -> n4 10.0.3.2
            assign web.4#4 -> n5 10.0.4.3
            assign web.5#5 -> n2 10.0.1.2
            assign web.6#6 -> n4 10.0.3.3
            assign web.7#7 -> n5 10.0.4.4
        "#]],
    );
}

#[test]
fn a_zone_that_is_full_leaves_its_share_to_the_others() {
    check_place(
        "nodes n1 zone=a
         nodes n2 zone=b cpu=1
         service hello/web x4 cpu=1 spread=node.labels.zone
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n1 10.0.0.2
            assign web.2#2 -> n2 10.0.1.2
            assign web.3#3 -> n1 10.0.0.3
            assign web.4#4 -> n1 10.0.0.4
        "#]],
    );
}

#[test]
fn no_more_than_its_most_share_a_node() {
    check_place(
        "nodes n1 n2
         service hello/web x5 most-per-node=2
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n1 10.0.0.2
            assign web.2#2 -> n2 10.0.1.2
            assign web.3#3 -> n1 10.0.0.3
            assign web.4#4 -> n2 10.0.1.3
            web.5#5 waits: no node fits: 2 nodes have 2 of it already, its most
        "#]],
    );
}

#[test]
fn what_is_made_for_another_platform_goes_where_it_runs() {
    check_place(
        "nodes n1 n2
         nodes n3 platform=linux/arm64
         service hello/arm x2 platform=linux/arm64
         service hello/sparc x1 platform=solaris/sparc
         deploy
         plan",
        expect![[r#"
            assign arm.1#1 -> n3 10.0.2.2
            assign arm.2#2 -> n3 10.0.2.3
            sparc.1#1 waits: no node fits: 3 nodes are not solaris/sparc
        "#]],
    );
}

#[test]
fn tasks_are_packed_where_the_service_or_the_cluster_says_so() {
    let fixture = |more: &str, option: &str| {
        format!(
            "nodes n1 n2 cpu=4
             service hello/first x1 cpu=1
             deploy
             settle
             {more}
             service hello/web x4 cpu=1 {option}
             deploy
             plan"
        )
    };
    let packed = World::of(&fixture("", "strategy=binpack")).place();
    expect![[r#"
        assign web.1#1 -> n1 10.0.0.3
        assign web.2#2 -> n1 10.0.0.4
        assign web.3#3 -> n1 10.0.0.5
        assign web.4#4 -> n2 10.0.1.2
    "#]]
    .assert_eq(&packed);
    assert_eq!(World::of(&fixture("pack", "")).place(), packed);
    assert_ne!(World::of(&fixture("pack", "strategy=spread")).place(), packed);
}

#[test]
fn a_service_is_near_another_or_apart_from_it() {
    check_place(
        r#"nodes n1 n2 n3
           service hello/db x1 constraint "node.hostname == n2"
           deploy
           settle
           service hello/cache x2 near=db
           service hello/batch x3 apart=db
           service hello/log x3 rather-near=db
           service hello/noise x2 rather-apart=db
           deploy
           plan"#,
        expect![[r#"
            assign batch.1#1 -> n1 10.0.0.2
            assign batch.2#2 -> n3 10.0.2.2
            assign batch.3#3 -> n1 10.0.0.3
            assign cache.1#1 -> n2 10.0.1.3
            assign cache.2#2 -> n2 10.0.1.4
            assign log.1#1 -> n2 10.0.1.5
            assign log.2#2 -> n2 10.0.1.6
            assign log.3#3 -> n2 10.0.1.7
            assign noise.1#1 -> n3 10.0.2.3
            assign noise.2#2 -> n1 10.0.0.4
        "#]],
    );
}

#[test]
fn what_shuns_another_is_shunned_by_it() {
    check_place(
        r#"nodes n1 n2
           service hello/quiet x1 apart=loud constraint "node.hostname == n1"
           deploy
           settle
           service hello/loud x2
           service other/loud x1 near=hello/quiet
           deploy
           plan"#,
        expect![[r#"
            assign loud.1#1 -> n2 10.0.1.2
            assign loud.2#2 -> n2 10.0.1.3
            assign loud.1#1 -> n1 10.0.0.3
        "#]],
    );
}

#[test]
fn what_is_sought_or_shunned_is_placed_before_those_who_do() {
    check_place(
        r#"nodes n1 n2 n3
           service hello/apart x2 apart=db
           service hello/beside x1 near=db
           service hello/db x1 constraint "node.hostname == n2"
           deploy
           plan"#,
        expect![[r#"
            assign db.1#1 -> n2 10.0.1.2
            assign apart.1#1 -> n1 10.0.0.2
            assign apart.2#2 -> n3 10.0.2.2
            assign beside.1#1 -> n2 10.0.1.3
        "#]],
    );
}

#[test]
fn what_it_has_to_be_near_may_not_be_there() {
    check_place(
        r#"nodes n1 n2
           service hello/loud x1 constraint "node.hostname == n1"
           deploy
           settle
           service hello/web x1 near=db
           service hello/quiet x1 apart=loud constraint "node.hostname == n1"
           deploy
           plan"#,
        expect![[r#"
            quiet.1#1 waits: no node fits: node.hostname == n1 is not met on 1 node; 1 node has hello/loud, which it is kept apart from
            web.1#1 waits: no node fits: hello/db is not on 2 nodes
        "#]],
    );
}

#[test]
fn a_node_on_which_a_version_keeps_failing_is_avoided_by_all_its_slots() {
    check_place(
        "nodes n1 n2
         service hello/web x6
         deploy
         settle
         report web.1 failing
         report web.3 failing
         report web.5 failing
         tick 60s
         settle
         scale web 8
         plan",
        expect![[r#"
            assign web.7#10 -> n2 10.0.1.8
            assign web.8#11 -> n2 10.0.1.9
        "#]],
    );
}

#[test]
fn what_has_a_higher_priority_is_placed_first() {
    check_place(
        "nodes n1 cpu=2
         service hello/batch x2 cpu=1 priority=-10
         service hello/web x1 cpu=1 priority=10
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n1 10.0.0.2
            assign batch.1#1 -> n1 10.0.0.3
            batch.2#2 waits: no node fits: not enough CPU on 1 node
        "#]],
    );
}

#[test]
fn what_is_less_important_makes_room() {
    let mut world = World::of(
        r#"nodes n1 n2 cpu=2
           service hello/batch x4 cpu=1 priority=-10
           deploy
           settle
           service hello/db x1 cpu=2 priority=10
           deploy
           plan"#,
    );
    expect![[r#"
        stop batch.3#3
        stop batch.1#1
        db.1#1 waits: no node fits: not enough CPU on 2 nodes (room is being made on n1)
    "#]]
    .assert_eq(&world.place());
    // Whoever asks is told the same.
    let why = scheduler::explain(&world.state, world.task("db.1")).to_string();
    assert_eq!(why, "no node fits: not enough CPU on 2 nodes (room is being made on n1)");
    // What was stopped is made again, and does not come before what it was stopped for.
    world.run("agents\n plan");
    expect![[r#"
        assign db.1#1 -> n1 10.0.0.4
        batch.1#5 waits: no node fits: not enough CPU on 2 nodes
        batch.3#6 waits: no node fits: not enough CPU on 2 nodes
    "#]]
    .assert_eq(&world.place());
    expect![[r#"
        batch.1#1 v1 on n1: to be stopped, is exited
        batch.1#5 v1 nowhere: to be running, is pending
        batch.2#2 v1 on n2: to be running, is running
        batch.3#3 v1 on n1: to be stopped, is exited
        batch.3#6 v1 nowhere: to be running, is pending
        batch.4#4 v1 on n2: to be running, is running
        db.1#1 v1 on n1: to be running, is assigned
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn the_least_that_has_to_go_makes_room_and_nothing_of_the_same_priority() {
    check_place(
        r#"nodes n1 cpu=4
           nodes n2 cpu=4
           service hello/low x1 cpu=3 priority=-10 constraint "node.hostname == n1"
           service hello/mid x1 cpu=1 priority=5 constraint "node.hostname == n1"
           service hello/other x2 cpu=2 priority=5 constraint "node.hostname == n2"
           deploy
           settle
           service hello/web x3 cpu=2 priority=5
           deploy
           plan"#,
        expect![[r#"
            stop low.1#1
            web.1#1 waits: no node fits: not enough CPU on 2 nodes (room is being made on n1)
            web.2#2 waits: no node fits: not enough CPU on 2 nodes
            web.3#3 waits: no node fits: not enough CPU on 2 nodes
        "#]],
    );
}

#[test]
fn a_port_that_is_taken_is_made_room_for_as_well() {
    check_place(
        "nodes n1
         service hello/old x1 port=80 host=80 priority=-1
         deploy
         settle
         service hello/new x1 port=80 host=80
         deploy
         plan",
        expect![[r#"
            stop old.1#1
            new.1#1 waits: no node fits: host port 80 is taken on 1 node (room is being made on n1)
        "#]],
    );
}

#[test]
fn room_that_is_being_made_is_not_given_to_others() {
    let mut world = World::of(
        r#"nodes n1 cpu=3
           service hello/batch x2 cpu=1 priority=-10
           deploy
           settle
           service hello/db x1 cpu=2 priority=10
           service hello/more x1 cpu=1
           deploy
           plan"#,
    );
    expect![[r#"
        stop batch.2#2
        db.1#1 waits: no node fits: not enough CPU on 1 node (room is being made on n1)
        more.1#1 waits: no node fits: 1 node has room for what goes before it
    "#]]
    .assert_eq(&world.place());
    world.run("settle");
    expect![[r#"
        batch.1#1 v1 on n1: to be stopped, is exited
        batch.1#4 v1 nowhere: to be running, is pending
        batch.2#2 v1 on n1: to be stopped, is exited
        batch.2#3 v1 nowhere: to be running, is pending
        db.1#1 v1 on n1: to be running, is running
        more.1#1 v1 on n1: to be running, is running
    "#]]
    .assert_eq(&world.tasks());
}

#[test]
fn room_for_one_service_does_not_count_as_a_place_of_another() {
    check_place(
        "nodes n1 cpu=4
         service hello/batch x4 cpu=1 priority=-10
         deploy
         settle
         service hello/first x1 cpu=1
         service hello/second x1 cpu=1 most-per-node=1
         deploy
         plan",
        expect![[r#"
            stop batch.4#4
            stop batch.3#3
            first.1#1 waits: no node fits: not enough CPU on 1 node (room is being made on n1)
            second.1#1 waits: no node fits: not enough CPU on 1 node (room is being made on n1)
        "#]],
    );
}
