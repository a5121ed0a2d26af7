//! Generated histories: users, nodes and agents do whatever they may, and their words arrive in any order. What must
//! hold after every step is checked by [`fixture`]; here stands what must be true when the faults stop.
//!
//! The seed is fixed, so that a change is never blamed for another's bad luck. `PROPTEST_RNG_SEED=7` with
//! `PROPTEST_CASES=5000` looks further.

#[expect(dead_code, reason = "some of it is for the other tests")]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{
    Digest, Ended, Liveness, Mode, NodeId, Phase, RestartCondition, ServiceId, Task, TaskId, TaskStatus,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use state::{Command, Service, State, Wanted};

use fixture::World;
use fixture::agents::{self, Seen, is_up};

/// After so many passes nothing is left to do: two for each of five slots that are replaced in turn, and as many again
/// for what the history left half done.
const PASSES: usize = 20;

/// Longer than any slot rests after a failure.
const A_WHILE: Duration = Duration::from_secs(61);

/// What the operator may want of a node.
const AVAILABILITIES: [&str; 4] = ["drain NODE", "drain NODE 30s", "hold NODE", "activate NODE"];

/// How a service may say where it is to be. Two of the third fill a node, so that the job, which goes before it, takes its place.
const PLACEMENTS: [&str; 5] = [
    "",
    "most-per-node=2 spread=node.labels.zone",
    "cpu=32 priority=-5",
    "constraint \"node.labels.zone != b\"",
    "strategy=binpack order=start-first",
];

#[derive(Clone, Debug)]
enum Step {
    /// Without a number it is global; `job` is in the file or not.
    Deploy {
        replicas: Option<u32>,
        command: u8,
        job: bool,
        placement: usize,
    },
    Scale {
        replicas: u32,
    },
    Remove,
    /// New content under the name that all services use.
    Import {
        holder: Index,
    },
    /// The same from a registry, for a deploy alone or because somebody wants it.
    Pull {
        automatic: bool,
    },
    Down(Index),
    Up(Index),
    /// The operator drains it, pauses it or has it take tasks again.
    Make(usize, Index),
    /// The operator says in which zone it is.
    Label(Index, bool),
    /// The operator has moved what would be better off elsewhere.
    Rebalance,
    /// A node that is down is given up, and another joins under its name.
    Replace(Index),
    Wait(u64),
    Plan,
    Place,
    /// One agent sees one of its tasks change, and its report is on its way.
    Act {
        node: Index,
        task: Index,
        act: Act,
    },
    /// A report arrives; if `again`, it will arrive another time.
    Deliver {
        report: Index,
        again: bool,
    },
    /// Every agent that is connected does as it is told, and its reports overtake all others.
    Obey,
    /// The manager starts again from its snapshot.
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    NextPhase,
    BecomeReady,
    BecomeUnready,
    Exit,
    End(Ended),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        3 => (prop::option::weighted(0.8, 0u32..=4), 1u8..=3, any::<bool>(), 0..PLACEMENTS.len())
            .prop_map(|(replicas, command, job, placement)| Step::Deploy { replicas, command, job, placement }),
        2 => (0u32..=5).prop_map(|replicas| Step::Scale { replicas }),
        1 => Just(Step::Remove),
        1 => index().prop_map(|holder| Step::Import { holder }),
        1 => any::<bool>().prop_map(|automatic| Step::Pull { automatic }),
        3 => index().prop_map(Step::Down),
        3 => index().prop_map(Step::Up),
        2 => (0..AVAILABILITIES.len(), index()).prop_map(|(how, node)| Step::Make(how, node)),
        1 => (index(), any::<bool>()).prop_map(|(node, zone)| Step::Label(node, zone)),
        1 => Just(Step::Rebalance),
        1 => index().prop_map(Step::Replace),
        2 => (0u64..40).prop_map(Step::Wait),
        8 => Just(Step::Plan),
        8 => Just(Step::Place),
        10 => (index(), index(), act()).prop_map(|(node, task, act)| Step::Act { node, task, act }),
        10 => (index(), any::<bool>()).prop_map(|(report, again)| Step::Deliver { report, again }),
        4 => Just(Step::Obey),
        2 => Just(Step::Restart),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::NextPhase),
        4 => Just(Act::BecomeReady),
        1 => Just(Act::BecomeUnready),
        2 => Just(Act::Exit),
        1 => prop::sample::select(vec![Ended::Completed, Ended::GaveUp, Ended::Failing]).prop_map(Act::End),
    ]
}

/// What the agents know and the managers may not have heard.
#[derive(Debug, Default)]
struct Agents {
    said: BTreeMap<TaskId, TaskStatus>,
    under_way: Vec<(NodeId, TaskId, TaskStatus)>,
}

impl Agents {
    /// One agent sees a task change; what it sees is on its way.
    fn act(&mut self, world: &World, node: Index, task: Index, act: Act) {
        let nodes: Vec<NodeId> = world.state.nodes().map(|(id, _)| id).collect();
        let node = *node.get(&nodes);
        let here: Vec<TaskId> = world.state.tasks_on(node).map(|(id, _)| id).collect();
        if here.is_empty() {
            return;
        }
        let id = *task.get(&here);
        let desired = world.state.task(id).map(|task| task.desired);
        // Without a session it goes on with what it was told last.
        let is_told_to_stop = is_up(&world.state, node) && desired.is_none_or(|desired| !desired.runs());
        if let Some(status) = self.next(world, id, act, is_told_to_stop) {
            self.under_way.push((node, id, status));
        }
    }

    /// Every agent that is up does as it is told. Returns the reports.
    fn obey(&mut self, world: &World) -> Vec<(NodeId, TaskId, TaskStatus)> {
        let mut reports = Vec::new();
        for (node, _) in world.state.nodes().filter(|(id, _)| is_up(&world.state, *id)) {
            for (id, task) in world.state.tasks_on(node) {
                let is_told_to_stop = !task.desired.runs();
                if let Some(status) = self.next(world, id, Act::BecomeReady, is_told_to_stop) {
                    reports.push((node, id, status));
                }
            }
        }
        reports
    }

    /// What an agent says of a task after `act`, unless that cannot happen or is nothing new.
    fn next(&mut self, world: &World, id: TaskId, act: Act, is_told_to_stop: bool) -> Option<TaskStatus> {
        let known = self.said.get(&id);
        if known.is_some_and(|known| known.ended.is_some()) {
            return None;
        }
        let seen = if is_told_to_stop { Seen::Over(Ended::Stopped) } else { seen(known, act)? };
        let status = agents::status(known, seen, world.now);
        self.said.insert(id, status.clone());
        Some(status)
    }
}

fn seen(known: Option<&TaskStatus>, act: Act) -> Option<Seen> {
    let phase = known.map(|known| known.phase);
    let is_ready = known.is_some_and(|known| known.ready);
    match act {
        Act::NextPhase => match phase {
            None | Some(Phase::Exited) => Some(Seen::In(Phase::Preparing, false)),
            Some(Phase::Preparing) => Some(Seen::In(Phase::Created, false)),
            Some(Phase::Created) => Some(Seen::In(Phase::Starting, false)),
            Some(Phase::Starting) => Some(Seen::In(Phase::Running, false)),
            Some(Phase::Running) => Some(Seen::In(Phase::Stopping, false)),
            Some(Phase::Stopping) => Some(Seen::In(Phase::Exited, false)),
        },
        Act::BecomeReady => (!is_ready).then_some(Seen::In(Phase::Running, true)),
        Act::BecomeUnready => is_ready.then_some(Seen::In(Phase::Running, false)),
        Act::Exit => (phase != Some(Phase::Exited)).then_some(Seen::In(Phase::Exited, false)),
        Act::End(ended) => Some(Seen::Over(ended)),
    }
}

/// The cluster after `steps`; without the restarts unless `restarting`.
fn run(steps: &[Step], restarting: bool) -> World {
    let mut world = World::of("nodes n1 n2 n3\n image app on n1 n2");
    let mut agents = Agents::default();
    for step in steps {
        take(&mut world, &mut agents, step, restarting);
    }
    for (node, id, status) in agents.under_way {
        world.must(Command::Report { node, statuses: vec![(id, status)] });
    }
    world
}

fn take(world: &mut World, agents: &mut Agents, step: &Step, restarting: bool) {
    let nodes = world.state.nodes().count();
    let name = |at: &Index| format!("n{}", at.index(nodes) + 1);
    let web = fixture::service_name("hello/web");
    let deployed = world.state.service_named(&web);
    let is_deployed = deployed.is_some();
    let is_replicated = deployed.is_some_and(|(_, service)| service.spec.mode != Mode::Global);
    match step {
        Step::Deploy { replicas, command, job, placement } => {
            let job = if *job { "service hello/job x2 job cpu=40" } else { "" };
            let placement = PLACEMENTS[*placement];
            world.run("service hello/job x1\n without hello/job");
            let mode = replicas.map_or_else(|| "global".to_owned(), |replicas| format!("x{replicas}"));
            world.run(&format!(
                "service hello/web {mode} port=80 command=v{command} {placement}\n {job}\n deploy"
            ));
        }
        Step::Scale { replicas } if is_replicated => world.run(&format!("scale web {replicas}")),
        Step::Remove if is_deployed => world.run("rm hello"),
        Step::Scale { .. } | Step::Remove => {}
        Step::Import { holder } => world.run(&format!("image app on {}", name(holder))),
        Step::Pull { automatic } => world.run(if *automatic { "pinned app" } else { "pull app" }),
        Step::Down(node) => world.run(&format!("down {}", name(node))),
        Step::Up(node) => world.run(&format!("up {}", name(node))),
        Step::Make(how, node) => world.run(&AVAILABILITIES[*how].replace("NODE", &name(node))),
        Step::Label(node, zone) => {
            world.run(&format!("label {} zone={}", name(node), if *zone { "a" } else { "b" }));
        }
        Step::Replace(node) => {
            let name = name(node);
            let id = world.node(&name);
            if !is_up(&world.state, id) {
                agents.under_way.retain(|(node, ..)| *node != id);
                world.run(&format!("remove {name}\n nodes {name}"));
            }
        }
        Step::Rebalance => world.run("rebalance"),
        Step::Wait(seconds) => world.now = world.now.plus(Duration::from_secs(*seconds)),
        Step::Plan => drop(world.plan()),
        Step::Place => drop(world.place()),
        Step::Act { node, task, act } => agents.act(world, *node, *task, *act),
        Step::Deliver { report, again } => {
            if agents.under_way.is_empty() {
                return;
            }
            let at = report.index(agents.under_way.len());
            let (node, id, status) =
                if *again { agents.under_way[at].clone() } else { agents.under_way.remove(at) };
            world.must(Command::Report { node, statuses: vec![(id, status)] });
        }
        Step::Obey => {
            for (node, id, status) in agents.obey(world) {
                world.must(Command::Report { node, statuses: vec![(id, status)] });
            }
        }
        Step::Restart if restarting => world.state = State::from_rows(world.state.rows()),
        Step::Restart => {}
    }
}

/// The faults stop: every node comes back, or one does and the others that are down stay away; agents do as told.
fn recover(world: &mut World, all_return: bool) {
    world.run("activate n1\n activate n2\n activate n3");
    world.run(if all_return { "up n1 n2 n3" } else { "up n1" });
    for _ in 0..PASSES {
        world.plan();
        world.place();
        world.agents();
        world.now = world.now.plus(A_WHILE);
    }
    let applied = world.state.applied();
    world.settle();
    assert_eq!(
        world.state.applied(),
        applied,
        "there still was something to do after {PASSES} passes:\n{}",
        world.tasks()
    );
}

fn is_down(state: &State, task: &Task) -> bool {
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
    node.is_some_and(|node| matches!(node.liveness, Liveness::Down { .. }))
}

/// Every service is as declared, as far as one can be: a node that is down may still run what it was given.
fn services_are_as_declared(world: &World) {
    for (id, service) in world.state.services() {
        let reachable: Vec<(TaskId, &Task)> =
            world.state.tasks_of(id).filter(|(_, task)| !is_down(&world.state, task)).collect();
        if service.removing {
            assert!(reachable.is_empty(), "{id} is being removed:\n{}", world.tasks());
            assert!(world.state.tasks_of(id).next().is_some(), "{id} has no tasks left and is still there");
            continue;
        }
        if service.spec.job.is_some() {
            job_is_as_declared(world, id, service);
            continue;
        }
        let active: Vec<(TaskId, &Task)> =
            reachable.iter().filter(|(_, task)| task.ended().is_none()).copied().collect();
        let wanted = |(id, task): &(TaskId, &Task)| {
            task.desired.runs() && task.is_ready() && world.state.wanted(service, id.slot) == Wanted::Filled
        };
        let is_left = |task: &Task| task.placement.is_some() || task.is_live();
        let waits = |held: &(TaskId, &Task)| {
            world.state.wanted(service, held.0.slot) != Wanted::Empty && has_no_place(world, held.0)
        };
        let surplus: Vec<_> =
            active.iter().filter(|held| !wanted(held) && is_left(held.1) && !waits(held)).collect();
        assert!(surplus.is_empty(), "{id} has tasks that it should not have: {surplus:#?}");
        // So does a rollout that has failed.
        let mut held_back = service.rollout.as_ref().is_some_and(model::Rollout::is_halted);
        for slot in world.state.slots(service) {
            let holders: Vec<_> = active.iter().filter(|held| held.0.slot == slot && wanted(held)).collect();
            let over = last_word(service, world.state.tasks_of(id).filter(|(id, _)| id.slot == slot));
            held_back |= over == Some(Ended::GaveUp);
            if active.iter().any(|(task, _)| task.slot == slot && has_no_place(world, *task)) {
                held_back = true;
                continue;
            }
            let expected = usize::from(over.is_none() || !holders.is_empty());
            assert_eq!(holders.len(), expected, "tasks in slot {slot} of {id}:\n{}", world.tasks());
        }
        // A slot that was given up holds the others back, so that a broken version takes down no more than one.
        let outdated = active.iter().filter(|held| wanted(held) && held.1.version != service.version).count();
        assert!(held_back || outdated == 0, "{id} has old tasks that nothing holds back:\n{}", world.tasks());
    }
}

/// Whether a task waits for a node, and none can take it.
fn has_no_place(world: &World, task: TaskId) -> bool {
    let waits = world.state.unplaced().any(|unplaced| unplaced == task);
    waits && !scheduler::explain(&world.state, task).reasons.is_empty()
}

/// A run that goes on has a task in each slot that has not succeeded, and one that is over has none.
fn job_is_as_declared(world: &World, id: ServiceId, service: &Service) {
    let job = service.job.as_ref().expect("it is a job");
    let lives = |task: &Task| {
        task.is_live() && task.ended().is_none() && task.desired.runs() && !is_down(&world.state, task)
    };
    let mut expected: BTreeSet<(u32, u32)> = BTreeSet::new();
    for (run, _) in job.active() {
        let done = world.state.completed(id, run);
        expected
            .extend(world.state.slots(service).filter(|slot| !done.contains(slot)).map(|slot| (run, slot)));
    }
    let held: Vec<(u32, u32)> = world
        .state
        .tasks_of(id)
        .filter(|(_, task)| lives(task))
        .map(|(task, row)| (row.run, task.slot))
        .collect();
    let distinct: BTreeSet<(u32, u32)> = held.iter().copied().collect();
    assert_eq!((distinct.len(), &distinct), (held.len(), &expected), "{:?}\n{}", job, world.tasks());
}

/// How the last of a slot's tasks ended, where this leaves the slot rightly empty.
fn last_word<'a>(service: &Service, tasks: impl Iterator<Item = (TaskId, &'a Task)>) -> Option<Ended> {
    let (_, last) = tasks.filter(|(_, task)| task.ended().is_some()).max_by_key(|(id, _)| id.sequence)?;
    let always = service.spec.task.restart.condition == RestartCondition::Always;
    match last.ended() {
        ended @ Some(Ended::GaveUp) if last.version == service.version => ended,
        ended @ Some(Ended::Completed) if last.version == service.version && !always => ended,
        Some(Ended::GaveUp | Ended::Completed | Ended::Stopped | Ended::Failing) | None => None,
    }
}

/// A wanted image that some node can give and no registry is on two nodes that are up, where there are two; what nothing wants
/// is not kept.
fn images_are_kept(world: &World) {
    let up = world.state.nodes().filter(|(id, _)| is_up(&world.state, *id)).count();
    for (digest, image) in world.state.images() {
        let holders: BTreeSet<NodeId> =
            image.copies.iter().filter(|(_, since)| since.is_some()).map(|(id, _)| *id).collect();
        let held = holders.iter().filter(|id| is_up(&world.state, **id)).count();
        if world.state.image_is_wanted(digest) {
            assert!(
                image.origin.is_some() || held == 0 || held >= up.min(2),
                "{digest:?} is on {held} of {up} nodes that are up"
            );
        } else {
            assert!(
                held == 0 && !holders.is_empty(),
                "{digest:?} is kept though nothing wants it: {holders:?}"
            );
        }
    }
    let known: BTreeSet<Digest> = world.state.images().map(|(digest, _)| digest).collect();
    assert!(world.state.tags().all(|(_, digest)| known.contains(&digest)));
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 64,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn when_faults_stop_the_cluster_becomes_what_is_declared(
        steps in prop::collection::vec(step(), 1..80),
        all_return in any::<bool>(),
    ) {
        let mut world = run(&steps, true);
        recover(&mut world, all_return);
        services_are_as_declared(&world);
        images_are_kept(&world);
    }

    #[test]
    fn a_manager_that_starts_from_a_snapshot_decides_as_the_others_do(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (stayed, restarted) = (run(&steps, false), run(&steps, true));
        prop_assert!(stayed.state.rows() == restarted.state.rows());
        prop_assert_eq!(stayed.tasks(), restarted.tasks());
    }
}
