//! What no rollout may do, whatever happens in its course: more at once than it may, or less.
//!
//! The seed is fixed, as in `properties`; `PROPTEST_RNG_SEED=7` with `PROPTEST_CASES=5000` looks further.

#[expect(dead_code, reason = "some of it is for the other tests")]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use model::{Ended, FailureAction, Liveness, ServiceId, Task, TaskId};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use state::State;

use fixture::World;

#[derive(Clone, Debug)]
enum Step {
    Deploy(u8),
    Scale(u32),
    /// What people decide, whether or not it can be done now.
    Decide(&'static str),
    Plan,
    Place,
    /// A task that is on a node that is up, and what becomes of it.
    See(Index, &'static str),
    /// Everything that is told to stop has stopped.
    Obey,
    Down(Index),
    Up(Index),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let seen = select(vec!["running", "running", "running", "unready", "exited", "failing", "gaveup"]);
    prop_oneof![
        3 => (1u8..=3).prop_map(Step::Deploy),
        1 => (0u32..=6).prop_map(Step::Scale),
        2 => select(vec!["undo", "restart", "pause", "resume", "abort", "promote"]).prop_map(Step::Decide),
        10 => Just(Step::Plan),
        8 => Just(Step::Place),
        14 => (any::<Index>(), seen).prop_map(|(task, seen)| Step::See(task, seen)),
        5 => Just(Step::Obey),
        1 => any::<Index>().prop_map(Step::Down),
        2 => any::<Index>().prop_map(Step::Up),
        2 => (0u64..20).prop_map(Step::Wait),
    ]
}

fn policy() -> impl Strategy<Value = String> {
    (
        0u32..=3,
        select(vec!["stop-first", "start-first"]),
        select(vec!["pause", "continue", "rollback"]),
        select(vec![0u32, 300, 1000]),
        0u32..=2,
        select(vec!["", "monitor=3s", "delay=2s", "min-healthy=1s"]),
    )
        .prop_map(|(parallelism, order, action, ratio, canaries, more)| {
            format!(
                "parallelism={parallelism} order={order} action={action} ratio={ratio} canaries={canaries} \
                 deadline=30s {more} back-parallelism={parallelism} back-order={order}"
            )
        })
}

fn id(world: &World) -> ServiceId {
    world.service("web")
}

fn is_here(state: &State, task: &Task) -> bool {
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
    let is_down = node.is_some_and(|node| matches!(node.liveness, Liveness::Down { .. }));
    task.is_live() && task.ended().is_none() && task.desired.runs() && !is_down
}

/// The tasks that are to run and may, by slot.
fn held(world: &World) -> BTreeMap<u32, Vec<(TaskId, Task)>> {
    let mut slots: BTreeMap<u32, Vec<(TaskId, Task)>> = BTreeMap::new();
    for (task, row) in world.state.tasks_of(id(world)).filter(|(_, row)| is_here(&world.state, row)) {
        slots.entry(task.slot).or_default().push((task, row.clone()));
    }
    slots
}

/// Slots with a task that serves, among those that are wanted.
fn serving(world: &World) -> BTreeSet<u32> {
    let replicas = world.state.slot_count(world.state.service(id(world)).expect("it is declared"));
    let slots = held(world).into_iter().filter(|(slot, _)| *slot <= replicas);
    slots.filter(|(_, tasks)| tasks.iter().any(|(_, task)| task.is_ready())).map(|(slot, _)| slot).collect()
}

/// Slots whose newest task has failed.
fn failed(world: &World) -> BTreeSet<u32> {
    let newest: BTreeMap<u32, &Task> =
        world.state.tasks_of(id(world)).map(|(task, row)| (task.slot, row)).collect();
    let failed = |task: &Task| matches!(task.ended(), Some(Ended::Failing | Ended::GaveUp));
    newest.into_iter().filter(|(_, task)| failed(task)).map(|(slot, _)| slot).collect()
}

/// Plans, and judges what was planned.
fn plan(world: &mut World) {
    let before = serving(world);
    world.plan();
    let service = world.state.service(id(world)).expect("it is declared");
    let policy = controllers::policy(service);
    let (replicas, parallelism) = (world.state.slot_count(service), policy.parallelism);
    let goes_on = policy.failure_action == FailureAction::Continue;
    let most = if parallelism == 0 { replicas } else { parallelism };
    let slots = held(world);
    for (slot, tasks) in &slots {
        let running = tasks.iter().filter(|(_, task)| task.desired == model::Desired::Running).count();
        assert!(running <= 1, "slot {slot} has {running} tasks that are to run:\n{}", world.tasks());
    }
    let tasks: usize = slots.values().map(Vec::len).sum();
    assert!(
        tasks <= (replicas + most) as usize,
        "{tasks} tasks are to run where {replicas} are wanted and {most} more allowed:\n{}",
        world.tasks()
    );
    let after = serving(world);
    let left = after.intersection(&before).count();
    // Who goes on whatever fails, goes on past what has failed.
    let passed = if goes_on { failed(world).len() } else { 0 };
    assert!(
        left == before.len() || left + most as usize + passed >= replicas as usize,
        "of {replicas} slots {} served and {left} do, where {most} may be down:\n{}",
        before.len(),
        world.tasks()
    );
}

fn run(policy: &str, replicas: u32, steps: &[Step]) -> World {
    let mut world = World::of(&format!(
        "nodes n1 n2 n3 n4\n service hello/web x{replicas} restart=on-failure {policy}\n deploy\n settle"
    ));
    for step in steps {
        match step {
            Step::Deploy(version) => world.run(&format!(
                "service hello/web x{replicas} restart=on-failure command=v{version} {policy}\n deploy"
            )),
            Step::Scale(replicas) => world.run(&format!("scale web {replicas}")),
            Step::Decide(what) => drop(world.try_to(&format!("{what} web"))),
            Step::Plan => plan(&mut world),
            Step::Place => drop(world.place()),
            Step::See(task, seen) => {
                let tasks: Vec<TaskId> = held(&world)
                    .into_values()
                    .flatten()
                    .filter(|(_, task)| task.placement.is_some())
                    .map(|(task, _)| task)
                    .collect();
                if !tasks.is_empty() {
                    world.report(*task.get(&tasks), fixture::agents::seen(seen));
                }
            }
            Step::Obey => stop(&mut world),
            Step::Down(node) => liveness(&mut world, *node, "down"),
            Step::Up(node) => liveness(&mut world, *node, "up"),
            Step::Wait(seconds) => world.run(&format!("tick {seconds}s")),
        }
    }
    world
}

/// Whatever is told to stop, where its node is up, has.
fn stop(world: &mut World) {
    let told: Vec<TaskId> = world
        .state
        .tasks_of(id(world))
        .filter(|(_, task)| {
            let node = task.placement.as_ref().and_then(|placement| world.state.node(placement.node));
            let is_up = node.is_some_and(|node| node.liveness == Liveness::Ready);
            is_up && !task.desired.runs() && task.ended().is_none()
        })
        .map(|(task, _)| task)
        .collect();
    for task in told {
        world.report(task, fixture::agents::seen("stopped"));
    }
}

fn liveness(world: &mut World, node: Index, word: &str) {
    let names: Vec<String> = world.state.nodes().map(|(_, node)| node.name.to_string()).collect();
    world.run(&format!("{word} {}", node.get(&names)));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_takes_down_no_more_and_adds_no_more_than_it_may(
        policy in policy(),
        replicas in 0u32..=5,
        steps in prop::collection::vec(step(), 1..90),
    ) {
        run(&policy, replicas, &steps);
    }

    #[test]
    fn it_ends_when_agents_obey_and_time_passes(
        policy in policy(),
        replicas in 0u32..=5,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = run(&policy, replicas, &steps);
        world.run("up n1 n2 n3 n4");
        for _ in 0..60 {
            plan(&mut world);
            world.place();
            world.agents();
            world.run("tick 31s");
        }
        let service = world.state.service(id(&world)).expect("it is declared");
        let rollout = service.rollout.as_ref().expect("it is no one-off");
        let waits = rollout.is_halted() || !rollout.promoted;
        prop_assert!(waits || rollout.phase == model::RolloutPhase::Completed, "{rollout:?}\n{}", world.tasks());
        let rests = controllers::plan(&world.state, controllers::Object::Service(id(&world)), world.now);
        prop_assert!(rests.commands.is_empty(), "{:?}", rests.commands);
    }
}
