//! The slots of a replicated service: each is to be filled by one task of the current version.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use model::{
    Desired, Ended, Liveness, NodeId, RestartCondition, ServiceId, Task, TaskId, TaskVerdict, Timestamp,
};
use state::{Command, Service, State};

use crate::{Plan, back_off};

/// After a node's own attempts have failed, the slot rests this long before another node tries, and twice as long after
/// each further failure, up to [`LONGEST_REST`]. The node has already tried several times with waits of its own. The five
/// ended tasks that a slot keeps are enough to count that far.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(15);

/// Why nothing is being done for a slot that has no ready task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotNote {
    pub slot: u32,
    pub why: Waiting,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// The task before it has not been seen stopped yet.
    ForItsPredecessor(TaskId),
    /// Its tasks keep failing.
    ToTryAgain { at: Timestamp },
    /// It failed as often as the restart policy allows.
    GivenUp,
    /// It did what it was there for.
    Completed,
    /// It is run once, and was begun.
    OnlyOnce,
    /// It has an old version; others are being replaced first.
    ItsTurn,
}

impl fmt::Display for SlotNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} ", self.slot)?;
        match &self.why {
            Waiting::ForItsPredecessor(task) => write!(f, "waits until task {task} has stopped"),
            Waiting::ToTryAgain { .. } => f.write_str("keeps failing and waits before it is tried again"),
            Waiting::GivenUp => f.write_str("failed as often as its restart policy allows"),
            Waiting::Completed => f.write_str("has completed"),
            Waiting::OnlyOnce => f.write_str("is run only once, and was begun already"),
            Waiting::ItsTurn => f.write_str("has an old version and waits for its turn"),
        }
    }
}

/// How a slot stands, from its tasks alone.
enum Standing<'a> {
    /// A task fills it or is on its way to.
    Held { holder: (TaskId, &'a Task), surplus: Vec<TaskId> },
    /// Its task was told to stop, is on a node that is up, and has not been seen stopped.
    Leaving(TaskId),
    /// Nothing fills it; the latest task to have ended, if any.
    Empty { last: Option<(TaskId, &'a Task)> },
}

pub(crate) fn plan(state: &State, id: ServiceId, service: &Service, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let slots = slots(state, id);
    conclude(&slots, service.spec.replicas, &mut plan);
    shrink(&slots, service.spec.replicas, &mut plan);
    let mut next_sequence = service.next_sequence;
    let mut rollout = Rollout::default();
    for slot in 1..=service.spec.replicas {
        let tasks = slots.get(&slot).map_or(&[][..], Vec::as_slice);
        match standing(state, tasks) {
            Standing::Held { holder, surplus } => {
                let remove = |task| Command::SetDesired { task, desired: Desired::Removed };
                plan.commands.extend(surplus.into_iter().map(remove));
                rollout.saw(service, slot, holder);
            }
            Standing::Leaving(task) => {
                rollout.busy = true;
                plan.notes.push(SlotNote { slot, why: Waiting::ForItsPredecessor(task) });
            }
            Standing::Empty { last } => match refill(service, last, tasks, now) {
                Refill::Now { avoid } => {
                    rollout.busy = true;
                    let task = TaskId { service: id, slot, sequence: next_sequence };
                    next_sequence += 1;
                    plan.commands.push(Command::CreateTask { task, version: service.version, avoid });
                }
                Refill::Not(why) => {
                    if let Waiting::ToTryAgain { at } = why {
                        plan.wake(at);
                    }
                    rollout.busy |= why != Waiting::Completed;
                    plan.notes.push(SlotNote { slot, why });
                }
            },
        }
    }
    rollout.advance(&mut plan);
    plan
}

fn slots(state: &State, id: ServiceId) -> BTreeMap<u32, Vec<(TaskId, &Task)>> {
    let mut slots: BTreeMap<u32, Vec<(TaskId, &Task)>> = BTreeMap::new();
    for (id, task) in state.tasks_of(id) {
        slots.entry(id.slot).or_default().push((id, task));
    }
    slots
}

/// What an agent is done with gets control's last word, so that the slot no longer counts on it.
fn conclude(slots: &BTreeMap<u32, Vec<(TaskId, &Task)>>, replicas: u32, plan: &mut Plan) {
    let wanted = slots.range(..=replicas);
    let ended =
        wanted.flat_map(|(_, tasks)| tasks).filter(|(_, task)| task.is_live() && task.ended().is_some());
    plan.commands.extend(ended.map(|(id, _)| Command::Conclude { task: *id, verdict: TaskVerdict::Ended }));
}

/// Slots beyond the wanted number lose every task and leave nothing behind.
fn shrink(slots: &BTreeMap<u32, Vec<(TaskId, &Task)>>, replicas: u32, plan: &mut Plan) {
    for (id, task) in slots.range(replicas.saturating_add(1)..).flat_map(|(_, tasks)| tasks) {
        if task.desired != Desired::Removed {
            plan.commands.push(Command::SetDesired { task: *id, desired: Desired::Removed });
        }
    }
}

fn standing<'a>(state: &State, tasks: &[(TaskId, &'a Task)]) -> Standing<'a> {
    let live = |(_, task): &&(TaskId, &Task)| task.is_live() && task.ended().is_none();
    let on_lost_node = |task: &Task| {
        let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
        node.is_some_and(|node| matches!(node.liveness, Liveness::Down { .. }))
    };
    let mut holders: Vec<(TaskId, &Task)> = tasks
        .iter()
        .filter(live)
        .filter(|(_, task)| task.desired == Desired::Running && !on_lost_node(task))
        .copied()
        .collect();
    // Several when a node came back after its task was replaced. What serves is kept; between equals, the newest.
    holders.sort_by_key(|(id, task)| (task.is_ready(), task.is_running(), id.sequence));
    if let Some(holder) = holders.pop() {
        return Standing::Held { holder, surplus: holders.into_iter().map(|(id, _)| id).collect() };
    }
    let leaving =
        tasks.iter().filter(live).find(|(_, task)| task.desired != Desired::Running && !on_lost_node(task));
    if let Some((id, _)) = leaving {
        return Standing::Leaving(*id);
    }
    Standing::Empty { last: tasks.iter().rfind(|(_, task)| task.ended().is_some()).copied() }
}

enum Refill {
    Now { avoid: Option<NodeId> },
    Not(Waiting),
}

fn refill(
    service: &Service,
    last: Option<(TaskId, &Task)>,
    tasks: &[(TaskId, &Task)],
    now: Timestamp,
) -> Refill {
    match next(service, last, tasks, now) {
        // Also where nobody knows what became of it.
        Refill::Now { .. } if service.spec.task.is_one_off() && service.next_sequence > 1 => {
            Refill::Not(Waiting::OnlyOnce)
        }
        refill => refill,
    }
}

/// What a service that runs for good does.
fn next(
    service: &Service,
    last: Option<(TaskId, &Task)>,
    tasks: &[(TaskId, &Task)],
    now: Timestamp,
) -> Refill {
    // A new version is a new chance, whatever became of the old one.
    let Some((_, task)) = last.filter(|(_, task)| task.version == service.version) else {
        return Refill::Now { avoid: None };
    };
    let node = task.placement.as_ref().map(|placement| placement.node);
    let ended_at = task.status.as_ref().map_or(task.created, |status| status.at);
    match task.ended() {
        None | Some(Ended::Stopped) => Refill::Now { avoid: None },
        Some(Ended::GaveUp) => Refill::Not(Waiting::GivenUp),
        Some(Ended::Completed) if service.spec.task.restart.condition == RestartCondition::Always => {
            Refill::Now { avoid: None }
        }
        Some(Ended::Completed) => Refill::Not(Waiting::Completed),
        Some(Ended::Failing) => {
            let at = ended_at.plus(replacement_delay(failures(service, tasks)));
            if at > now { Refill::Not(Waiting::ToTryAgain { at }) } else { Refill::Now { avoid: node } }
        }
    }
}

/// The tasks of this version that failed last, one after the other.
fn failures(service: &Service, tasks: &[(TaskId, &Task)]) -> u32 {
    let failed = |(_, task): &&(TaskId, &Task)| {
        task.version == service.version && task.ended() == Some(Ended::Failing)
    };
    let ended = tasks.iter().rev().filter(|(_, task)| task.ended().is_some());
    u32::try_from(ended.take_while(failed).count()).unwrap_or(u32::MAX)
}

/// How long a slot rests after `failures` tasks in a row failed.
pub fn replacement_delay(failures: u32) -> Duration {
    back_off(FIRST_REST, failures, LONGEST_REST)
}

/// Replaces the tasks of older versions, one slot at a time, stop first.
#[derive(Default)]
struct Rollout {
    /// A slot has no ready task of the current version yet: nothing else is taken down meanwhile.
    busy: bool,
    outdated: Vec<(bool, u32, TaskId)>,
}

impl Rollout {
    fn saw(&mut self, service: &Service, slot: u32, (id, task): (TaskId, &Task)) {
        if task.version != service.version {
            self.outdated.push((task.is_ready(), slot, id));
        } else if !task.is_ready() {
            self.busy = true;
        }
    }

    fn advance(mut self, plan: &mut Plan) {
        // What does not serve anyway goes first, so that a version that never worked does not block its own repair.
        self.outdated.sort_unstable();
        let mut waiting = self.outdated.as_slice();
        if let (false, Some(((_, _, id), rest))) = (self.busy, self.outdated.split_first()) {
            plan.commands.push(Command::SetDesired { task: *id, desired: Desired::Stopped });
            waiting = rest;
        }
        plan.notes.extend(waiting.iter().map(|(_, slot, _)| SlotNote { slot: *slot, why: Waiting::ItsTurn }));
    }
}
