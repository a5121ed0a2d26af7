//! Agents' reports arrive in any order, more than once, and late.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Capacity, Desired, Ended, Exit, MilliCpu, NodeId, ObservedOrder, Phase, Task, TaskId, TaskStatus,
    Timestamp,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use state::{Command, Done, Occupancy};

use crate::fixture::{CAPACITY, World, address_of};

const PHASES: [Phase; 6] =
    [Phase::Preparing, Phase::Created, Phase::Starting, Phase::Running, Phase::Stopping, Phase::Exited];

/// The one status that an agent gives at this place of its order.
fn status((ended, attempt, phase, seq): ObservedOrder) -> TaskStatus {
    TaskStatus {
        attempt,
        phase,
        seq,
        ready: phase == Phase::Running && seq % 2 == 0,
        at: Timestamp(u64::from(attempt)),
        exit: (attempt > 1).then_some(Exit::Code(1)),
        ended: ended.then_some(if seq % 2 == 0 { Ended::Failing } else { Ended::Completed }),
        reason: None,
        warnings: Vec::new(),
    }
}

fn order() -> impl Strategy<Value = ObservedOrder> {
    (prop::bool::weighted(0.1), 1u32..4, prop::sample::select(PHASES.to_vec()), 0u32..3)
}

/// Some statuses of one task, and the same in another order with some of them twice.
fn reports() -> impl Strategy<Value = (Vec<TaskStatus>, Vec<TaskStatus>)> {
    prop::collection::btree_set(order(), 1..12).prop_flat_map(|orders: BTreeSet<ObservedOrder>| {
        let statuses: Vec<TaskStatus> = orders.into_iter().map(status).collect();
        let again = prop::sample::subsequence(statuses.clone(), 0..=statuses.len());
        let all = again.prop_map({
            let statuses = statuses.clone();
            move |again| [statuses.clone(), again].concat()
        });
        (Just(statuses).prop_shuffle(), all.prop_shuffle())
    })
}

/// One task on n1; `desired` is what is wanted of it by the time its reports arrive.
fn placed(desired: Desired) -> (World, TaskId) {
    let mut world = World::of("nodes n1 n2\n service hello/web x1 cpu=1 port=80\n deploy\n plan\n place");
    let task = world.task("web.1");
    world.must(Command::SetDesired { task, desired });
    (world, task)
}

fn report(task: TaskId, statuses: Vec<TaskStatus>) -> Command {
    let statuses = statuses.into_iter().map(|status| (task, status)).collect();
    Command::Report { node: NodeId(1), statuses }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_order_and_number_of_reports_make_no_difference(
        (once, jumbled) in reports(),
        desired in prop::sample::select(vec![Desired::Running, Desired::Stopped, Desired::Removed]),
    ) {
        let (mut one, task) = placed(desired);
        for status in &once {
            one.must(report(task, vec![status.clone()]));
        }
        let (mut other, _) = placed(desired);
        other.must(report(task, jumbled));
        // The first row counts proposals, of which there were more on one side.
        let (left, right) = (one.state.rows(), other.state.rows());
        prop_assert_eq!(&left[1..], &right[1..]);

        let latest = once.iter().max_by_key(|status| status.order());
        match one.state.task(task) {
            Some(task) => prop_assert_eq!(task.status.as_ref(), latest),
            None => prop_assert!(desired == Desired::Removed && latest.is_some_and(|status| status.ended.is_some())),
        }
    }
}

#[test]
fn a_report_that_says_nothing_new_changes_nothing() {
    let (mut world, task) = placed(Desired::Running);
    let running = status((false, 1, Phase::Running, 0));
    assert_eq!(world.must(report(task, vec![running.clone()])), Done::Changed);
    let rows = world.state.rows();
    let late = status((false, 1, Phase::Preparing, 2));
    assert_eq!(world.must(report(task, vec![running, late])), Done::Unchanged);
    assert!(world.state.rows()[1..] == rows[1..]);
}

#[test]
fn only_the_node_that_has_a_task_is_heard_about_it() {
    let (mut world, task) = placed(Desired::Running);
    let running = status((false, 1, Phase::Running, 0));
    let elsewhere = Command::Report { node: NodeId(2), statuses: vec![(task, running.clone())] };
    assert_eq!(world.must(elsewhere), Done::Unchanged);
    let unknown = TaskId { sequence: 99, ..task };
    assert_eq!(world.must(report(unknown, vec![running])), Done::Unchanged);
}

#[test]
fn a_report_of_a_task_without_a_node_is_not_heard() {
    let mut world = World::of("nodes n1\n service hello/web x1\n deploy\n plan");
    let task = world.task("web.1");
    assert_eq!(world.must(report(task, vec![status((false, 1, Phase::Running, 0))])), Done::Unchanged);
}

#[test]
fn nothing_comes_after_the_end() {
    let (mut world, task) = placed(Desired::Running);
    world.must(report(task, vec![status((true, 1, Phase::Exited, 0))]));
    assert_eq!(world.must(report(task, vec![status((false, 3, Phase::Running, 0))])), Done::Unchanged);
    assert_eq!(world.state.task(task).and_then(Task::ended), Some(Ended::Failing));
}

#[test]
fn what_a_task_holds_is_free_when_it_is_seen_stopped_and_not_before() {
    let (mut world, task) = placed(Desired::Stopped);
    for phase in PHASES {
        world.must(report(task, vec![status((false, 1, phase, 0))]));
        let taken = world.state.occupancy(NodeId(1));
        assert_eq!(
            (taken.tasks, taken.reserved.cpu.0, taken.addresses.len(), taken.ports.len()),
            (1, 1000, 1, 1)
        );
    }
    world.must(report(task, vec![status((true, 1, Phase::Exited, 0))]));
    assert!(world.state.occupancy(NodeId(1)).is_empty());
    assert_eq!(world.state.occupancy(NodeId(1)), Occupancy::default());
}

#[test]
fn a_node_that_comes_back_smaller_keeps_what_it_runs_and_takes_no_more() {
    let mut world = World::of("nodes n1 cpu=2\n service hello/web x2 cpu=1\n deploy\n settle");
    let smaller = Capacity { cpu: MilliCpu(1000), ..CAPACITY };
    world.must(Command::DescribeNode {
        node: NodeId(1),
        address: address_of(NodeId(1)),
        labels: BTreeMap::new(),
        capacity: smaller,
        platform: None,
        version: "1.0".to_owned(),
    });
    world.run("scale web 3\n plan");
    assert_eq!(world.place(), "web.3#3 waits: no node fits: not enough CPU on 1 node\n");
}
