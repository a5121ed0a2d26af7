//! Where tasks go, case by case. The language is [`fixture`]'s.

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "../../controllers/tests/fixture/mod.rs"]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use expect_test::{Expect, expect};
use model::{NodeId, Placement};
use state::{Command, Explanation, State};

use fixture::{World, check_place};

#[test]
fn tasks_of_a_service_spread_over_the_nodes() {
    check_place(
        "nodes n1 n2 n3
         service hello/web x5 port=80
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n1 10.0.0.2 30000->80/tcp
            assign web.2#2 -> n2 10.0.1.2 30000->80/tcp
            assign web.3#3 -> n3 10.0.2.2 30000->80/tcp
            assign web.4#4 -> n1 10.0.0.3 30001->80/tcp
            assign web.5#5 -> n2 10.0.1.3 30001->80/tcp
        "#]],
    );
}

#[test]
fn services_spread_each_for_itself() {
    // A node that is fuller still takes the first task of another service, where the emptier one has one already.
    check_place(
        r#"nodes n1 n2
           service hello/busy x4 cpu=1 constraint "node.hostname == n1"
           deploy
           settle
           service hello/web x2
           deploy
           plan"#,
        expect![[r#"
            assign web.1#1 -> n2 10.0.1.2
            assign web.2#2 -> n1 10.0.0.6
        "#]],
    );
}

#[test]
fn between_equals_the_emptier_node_wins() {
    check_place(
        r#"nodes n1 n2
           service hello/busy x1 mem=1g constraint "node.hostname == n1"
           deploy
           settle
           service hello/web x1
           deploy
           plan"#,
        expect![[r#"
            assign web.1#1 -> n2 10.0.1.2
        "#]],
    );
}

#[test]
fn constraints_choose_among_the_nodes() {
    check_place(
        r#"nodes n1
           nodes n2 n3 disk=ssd
           service hello/web x2 constraint "node.labels.disk == SSD" constraint "node.hostname != n2"
           deploy
           plan"#,
        expect![[r#"
            assign web.1#1 -> n3 10.0.2.2
            assign web.2#2 -> n3 10.0.2.3
        "#]],
    );
}

#[test]
fn reservations_are_never_exceeded() {
    check_place(
        "nodes n1 cpu=1
         nodes n2 cpu=2
         service hello/web x7 cpu=0.5
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n1 10.0.0.2
            assign web.2#2 -> n2 10.0.1.2
            assign web.3#3 -> n2 10.0.1.3
            assign web.4#4 -> n1 10.0.0.3
            assign web.5#5 -> n2 10.0.1.4
            assign web.6#6 -> n2 10.0.1.5
            web.7#7 waits: no node fits: not enough CPU on 2 nodes
        "#]],
    );
}

#[test]
fn what_a_task_reserves_is_free_when_it_is_seen_stopped_and_not_before() {
    let told = "nodes n1 cpu=1
        service hello/web x1 cpu=1
        deploy
        settle
        service hello/web x0 cpu=1
        service hello/new x1 cpu=1
        deploy
        plan\n";
    check_place(
        told,
        expect![[r#"
            new.1#1 waits: no node fits: not enough CPU on 1 node (room is being made on n1)
        "#]],
    );
    check_place(
        &format!("{told} agents"),
        expect![[r#"
            assign new.1#1 -> n1 10.0.0.3
        "#]],
    );
}

#[test]
fn losing_a_node_frees_nothing_there() {
    check_place(
        "nodes n1 cpu=1
         service hello/web x1 cpu=1
         deploy
         settle
         down n1
         plan
         up n1",
        expect![[r#"
            web.1#2 waits: no node fits: not enough CPU on 1 node
        "#]],
    );
}

#[test]
fn a_host_port_is_had_once_a_node() {
    check_place(
        "nodes n1 n2
         service hello/web x3 port=80 host=8080
         deploy
         plan",
        expect![[r#"
            assign web.1#1 -> n1 10.0.0.2 8080->80/tcp
            assign web.2#2 -> n2 10.0.1.2 8080->80/tcp
            web.3#3 waits: no node fits: host port 8080 is taken on 2 nodes
        "#]],
    );
}

#[test]
fn the_port_of_a_nodes_daemon_is_not_to_be_had() {
    check_place(
        "nodes n1
         service hello/web x1 port=80 host=7070
         deploy
         plan",
        expect![[r#"
            web.1#1 waits: no node fits: host port 7070 is taken on 1 node
        "#]],
    );
}

#[test]
fn a_host_port_is_another_one_for_udp() {
    check_place(
        "nodes n1
         service hello/dns x1 port=53 host=53 port=53/udp host=53
         deploy
         plan",
        expect![[r#"
            assign dns.1#1 -> n1 10.0.0.2 53->53/tcp 53->53/udp
        "#]],
    );
}

#[test]
fn a_port_that_is_given_out_is_none_that_someone_asked_for() {
    check_place(
        "nodes n1
         service hello/a x1 port=80 host=30001
         service hello/b x2 port=80
         deploy
         plan",
        expect![[r#"
            assign a.1#1 -> n1 10.0.0.2 30001->80/tcp
            assign b.1#1 -> n1 10.0.0.3 30000->80/tcp
            assign b.2#2 -> n1 10.0.0.4 30002->80/tcp
        "#]],
    );
}

#[test]
fn addresses_and_given_ports_rest_before_they_are_used_again() {
    check_place(
        "nodes n1
         service hello/web x2 port=80
         deploy
         settle
         scale web 1
         settle
         scale web 2
         plan",
        expect![[r#"
            assign web.2#3 -> n1 10.0.0.4 30002->80/tcp
        "#]],
    );
}

#[test]
fn every_address_of_a_node_is_used_before_the_first_comes_again() {
    let mut world = World::of("nodes n1\n service hello/web x0\n deploy");
    let mut seen = Vec::new();
    for _ in 0..254 {
        world.run("scale web 1\n settle");
        seen.push(placement(&world, "web.1").address);
        world.run("scale web 0\n settle");
    }
    let distinct: BTreeSet<Ipv4Addr> = seen[..253].iter().copied().collect();
    assert_eq!(distinct.len(), 253);
    assert_eq!(seen[253], seen[0]);
}

fn placement(world: &World, task: &str) -> Placement {
    let task = world.state.task(world.task(task)).expect("the task was just found");
    task.placement.clone().expect("the task has a node")
}

#[test]
fn a_failed_slot_goes_elsewhere_if_it_can() {
    let failed = "service hello/web x1
        deploy
        settle
        report web.1 failing
        plan
        tick 1s
        plan\n";
    check_place(
        &format!("nodes n1 n2\n {failed}"),
        expect![[r#"
            assign web.1#2 -> n2 10.0.1.2
        "#]],
    );
    check_place(
        &format!("nodes n1\n {failed}"),
        expect![[r#"
            assign web.1#2 -> n1 10.0.0.3
        "#]],
    );
}

#[test]
fn a_node_with_nothing_to_give_takes_what_asks_for_nothing() {
    check_place(
        "nodes n1 cpu=0 mem=0
         service hello/big x1 cpu=0.001
         service hello/fat x1 mem=1
         service hello/small x1
         deploy
         plan",
        expect![[r#"
            assign small.1#1 -> n1 10.0.0.2
            big.1#1 waits: no node fits: not enough CPU on 1 node
            fat.1#1 waits: no node fits: not enough memory on 1 node
        "#]],
    );
}

#[test]
fn each_node_is_counted_for_the_first_reason_against_it() {
    check_place(
        r#"nodes n1 down cpu=1
           nodes n2 n3 unseen
           nodes n4 disk=hdd cpu=1
           nodes n5 disk=ssd cpu=1
           nodes n6 disk=ssd mem=1m
           service hello/web x1 cpu=2 mem=1g constraint "node.labels.disk == ssd"
           deploy
           plan"#,
        expect![[r#"
            web.1#1 waits: no node fits: 1 node is down; 2 nodes are not connected yet; node.labels.disk == ssd is not met on 1 node; not enough CPU on 1 node; not enough memory on 1 node
        "#]],
    );
}

#[test]
fn a_paused_and_a_draining_node_are_named_as_such() {
    check_place(
        "nodes n1 n2 n3
         hold n1
         drain n2
         drain n3
         service hello/web x1
         deploy
         plan",
        expect![[r#"
            web.1#1 waits: no node fits: 1 node is paused; 2 nodes are draining
        "#]],
    );
}

#[test]
fn a_cluster_without_nodes_is_waited_for() {
    assert_eq!(Explanation::default().to_string(), "waiting for a node");
}

#[test]
fn a_node_without_a_free_address_is_full() {
    explained(
        "nodes n1\n service hello/web x254\n deploy\n plan",
        expect![[r#"
            web.254#254 waits: no node fits: no free container address on 1 node
        "#]],
    );
}

/// 2768 ports are given out, so that two tasks of a thousand fit on a node and a third does not.
#[test]
fn a_node_without_a_free_host_port_is_full() {
    explained(
        "nodes n1\n service hello/web x3 ports=1000\n deploy\n plan",
        expect![[r#"
            web.3#3 waits: no node fits: no free host port on 1 node
        "#]],
    );
}

/// Places what it can and shows what is said of the rest.
#[track_caller]
fn explained(fixture: &str, expect: Expect) {
    let mut world = World::of(fixture);
    let text = world.place();
    let waiting: String =
        text.lines().filter(|line| line.contains(" waits: ")).map(|line| format!("{line}\n")).collect();
    expect.assert_eq(&waiting);
    for task in world.state.unplaced() {
        let said = scheduler::explain(&world.state, task).to_string();
        assert!(waiting.contains(&said), "asked by itself, it is: {said}");
    }
}

#[test]
fn a_node_without_a_free_host_port_does_not_keep_a_task_from_another_node() {
    // n2 has more tasks, so that n1 would be the better one but for its ports.
    let mut world = World::of(
        r#"nodes n1 n2
           service hello/full x2 ports=1000 constraint "node.hostname == n1"
           service hello/many x3 constraint "node.hostname == n2"
           deploy
           settle
           service hello/web x1 ports=1000
           deploy
           plan
           place"#,
    );
    assert_eq!(placement(&world, "web.1").node, world.node("n2"));
    assert_eq!(world.place(), "nothing\n");
}

#[test]
fn a_task_that_waits_does_not_hold_up_those_behind_it() {
    check_place(
        "nodes n1 cpu=1
         service hello/big x1 cpu=2
         service hello/small x1 cpu=1
         deploy
         plan",
        expect![[r#"
            assign small.1#1 -> n1 10.0.0.2
            big.1#1 waits: no node fits: not enough CPU on 1 node
        "#]],
    );
}

#[test]
fn a_task_that_has_a_node_is_not_placed_again() {
    let world = World::of("nodes n1 n2\n service hello/web x1\n deploy\n settle");
    let placement = scheduler::place(&world.state, &[world.task("web.1")], usize::MAX);
    assert!(placement.commands.is_empty(), "{:?}", placement.commands);
}

#[test]
fn as_many_are_placed_as_were_asked_for_and_those_that_cannot_be_do_not_count() {
    let world = World::of(
        "nodes n1 cpu=1
         service hello/big x5 cpu=2
         service hello/small x5
         deploy
         plan",
    );
    let pending: Vec<_> = world.state.unplaced().collect();
    let placement = scheduler::place(&world.state, &pending, 3);
    let assign = |task| Command::Assign { task: world.task(task), node: world.node("n1") };
    assert_eq!(placement.commands, ["small.1", "small.2", "small.3"].map(assign));
    let said: BTreeSet<String> = placement.unplaced.values().map(ToString::to_string).collect();
    assert_eq!(said, BTreeSet::from(["no node fits: not enough CPU on 1 node".to_owned()]));
    assert_eq!(placement.unplaced.len(), 5, "the last two were not come to");
}

#[test]
fn a_task_that_no_node_takes_says_nothing_of_another_version() {
    let world = World::of(
        "nodes n1 cpu=1
         service hello/web x2 cpu=2
         deploy
         plan
         service hello/web x2 command=two
         deploy
         plan",
    );
    // Slot 2 has the old version still, slot 1 the new one already.
    let pending = ["web.2#2", "web.1#3"].map(|task| world.task(task));
    let placement = scheduler::place(&world.state, &pending, usize::MAX);
    assert_eq!(placement.commands, [Command::Assign { task: pending[1], node: world.node("n1") }]);
}

#[test]
fn a_thousand_tasks_are_spread_evenly_in_one_call() {
    let mut world =
        World::of("nodes n1 n2 n3 n4 n5 cpu=40\n service hello/web x1000 cpu=0.1 port=80\n deploy\n plan");
    world.place();
    let mut on: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (_, task) in world.state.tasks() {
        *on.entry(task.placement.as_ref().expect("all of them fit").node).or_default() += 1;
    }
    assert_eq!(on.values().copied().collect::<Vec<_>>(), [200; 5]);
}

#[test]
fn deciding_disturbs_nothing_and_comes_out_the_same_again() {
    let world = World::of("nodes n1 n2 n3 cpu=2\n service hello/web x9 cpu=0.5 port=80\n deploy\n plan");
    let (before, pending) = (world.state.rows(), world.state.unplaced().collect::<Vec<_>>());
    let placement = scheduler::place(&world.state, &pending, usize::MAX);
    assert_eq!(placement, scheduler::place(&State::from_rows(before.clone()), &pending, usize::MAX));
    assert!(world.state.rows() == before);
}
