//! How a slot of a service stands, from its tasks alone, and when an empty one is filled again.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{
    Availability, Desired, Ended, Liveness, Mode, NodeId, RestartCondition, ServiceId, SpecVersion, Task,
    TaskId, TaskVerdict, Timestamp,
};
use state::{Command, Service, State, Wanted};

use crate::{Plan, Waiting, back_off};

/// After a node's own attempts have failed, the slot rests this long before another node tries, and twice as long after
/// each further failure, up to [`LONGEST_REST`]. The node has already tried several times with waits of its own. The five
/// ended tasks that a slot keeps are enough to count that far.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(15);

pub(crate) type Row<'a> = (TaskId, &'a Task);

/// The tasks of a service by their slot, and then by age.
pub(crate) type Slots<'a> = BTreeMap<u32, Vec<Row<'a>>>;

pub(crate) enum Standing<'a> {
    /// A task fills it or is on its way to.
    Held(Holder<'a>),
    /// Its task was told to stop, is on a node that is up, and has not been seen stopped.
    Leaving(TaskId),
    /// Nothing fills it; the latest task to have ended, if any.
    Empty { last: Option<Row<'a>> },
}

pub(crate) struct Holder<'a> {
    pub(crate) task: Row<'a>,
    /// The one that serves until the holder does.
    pub(crate) yields: Option<Row<'a>>,
    /// Others that are to run as well: a node came back after its task was replaced.
    pub(crate) surplus: Vec<Row<'a>>,
    /// Another of its tasks was told to stop and has not been seen stopped.
    pub(crate) is_crowded: bool,
}

pub(crate) fn slots(state: &State, id: ServiceId) -> Slots<'_> {
    let mut slots: Slots<'_> = BTreeMap::new();
    for (id, task) in state.tasks_of(id) {
        slots.entry(id.slot).or_default().push((id, task));
    }
    slots
}

pub(crate) fn standing<'a>(state: &State, tasks: &[Row<'a>]) -> Standing<'a> {
    let here = |(_, task): &&Row<'a>| task.is_live() && task.ended().is_none() && !is_lost(state, task);
    let best = |desired: Desired| {
        let mut rows: Vec<Row<'a>> =
            tasks.iter().filter(here).filter(|(_, task)| task.desired == desired).copied().collect();
        // What serves is kept; between equals, the newest.
        rows.sort_by_key(|(id, task)| (task.is_ready(), task.is_running(), id.sequence));
        (rows.pop(), rows)
    };
    let leaving = tasks.iter().filter(here).find(|(_, task)| !task.desired.runs());
    let (runs, others) = best(Desired::Running);
    let (yields, rest) = best(Desired::Yielding);
    let surplus = others.into_iter().chain(rest).collect();
    let (task, yields) = match (runs, yields) {
        (Some(task), yields) => (task, yields),
        (None, Some(task)) => (task, None),
        (None, None) => {
            return match leaving {
                Some((id, _)) => Standing::Leaving(*id),
                None => Standing::Empty { last: last_ended(tasks) },
            };
        }
    };
    Standing::Held(Holder { task, yields, surplus, is_crowded: leaving.is_some() })
}

pub(crate) fn last_ended<'a>(tasks: &[Row<'a>]) -> Option<Row<'a>> {
    tasks.iter().rfind(|(_, task)| task.ended().is_some()).copied()
}

fn is_lost(state: &State, task: &Task) -> bool {
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
    node.is_some_and(|node| matches!(node.liveness, Liveness::Down { .. }))
}

pub(crate) enum Refill {
    Now { avoid: Option<NodeId> },
    Not(Waiting),
}

/// Makes the commands that fill a service's slots.
pub(crate) struct Creation<'a> {
    id: ServiceId,
    service: &'a Service,
    next_sequence: u64,
}

impl<'a> Creation<'a> {
    pub(crate) fn new(id: ServiceId, service: &'a Service) -> Self {
        Self { id, service, next_sequence: service.next_sequence }
    }

    /// `run` is 0 where the service is no job.
    pub(crate) fn fill(
        &mut self,
        slot: u32,
        version: SpecVersion,
        run: u32,
        avoid: Option<NodeId>,
    ) -> Command {
        let task = TaskId { service: self.id, slot, sequence: self.next_sequence };
        self.next_sequence += 1;
        // What is bound to a node has no other to go to.
        let avoid = avoid.filter(|_| self.service.spec.mode != Mode::Global);
        Command::CreateTask { task, version, run, avoid }
    }
}

/// What an agent is done with gets control's last word, so that the slot no longer counts on it; a slot that is not wanted loses
/// every task and leaves nothing behind.
pub(crate) fn tidy(
    state: &State,
    service: &Service,
    slot: u32,
    tasks: &[Row<'_>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let wanted = state.wanted(service, slot);
    if wanted == Wanted::AsItIs {
        tasks.iter().for_each(|task| end_of_drain(state, *task, now, plan));
    }
    match wanted {
        Wanted::Filled | Wanted::AsItIs => {
            let ended = tasks.iter().filter(|(_, task)| task.is_live() && task.ended().is_some());
            let conclude = |(id, _): &Row<'_>| Command::Conclude { task: *id, verdict: TaskVerdict::Ended };
            plan.commands.extend(ended.map(conclude));
        }
        Wanted::Empty => remove(tasks, plan),
    }
}

/// What runs to its end on a node that is being drained may do so until the drain's time is up.
pub(crate) fn end_of_drain(state: &State, (id, task): Row<'_>, now: Timestamp, plan: &mut Plan) {
    let node = task.occupies().and_then(|placement| state.node(placement.node));
    let Some(Availability::Drain { until: Some(until) }) = node.map(|node| node.availability) else { return };
    if until > now {
        plan.wake(until);
    } else if task.desired.runs() {
        plan.commands.push(Command::SetDesired { task: id, desired: Desired::Stopped });
    }
}

/// Nothing of these tasks is to be left.
pub(crate) fn remove(tasks: &[Row<'_>], plan: &mut Plan) {
    let kept = tasks.iter().filter(|(_, task)| task.desired != Desired::Removed);
    plan.commands.extend(kept.map(|(id, _)| Command::SetDesired { task: *id, desired: Desired::Removed }));
}

/// What a task's agent last said of it, in one line.
pub(crate) fn said(state: &State, slot: u32, id: TaskId) -> String {
    let status = state.task(id).and_then(|task| task.status.as_ref());
    let reason = status.and_then(|status| match (&status.reason, &status.exit) {
        (Some(reason), _) => Some(reason.clone()),
        (None, Some(exit)) => Some(exit.to_string()),
        (None, None) => None,
    });
    reason.map_or_else(|| format!("slot {slot} failed"), |reason| format!("slot {slot}: {reason}"))
}

/// Whether a slot that is to have a task of version `want`, and has none, gets one now.
pub(crate) fn refill(
    service: &Service,
    want: SpecVersion,
    last: Option<Row<'_>>,
    tasks: &[Row<'_>],
    now: Timestamp,
) -> Refill {
    match next(service, want, last, tasks, now) {
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
    want: SpecVersion,
    last: Option<Row<'_>>,
    tasks: &[Row<'_>],
    now: Timestamp,
) -> Refill {
    // A new version is a new chance, whatever became of the old one; so is the same again, when somebody wants it.
    let is_its = |(_, task): &Row<'_>| {
        let rollout = service.rollout.as_ref().filter(|rollout| rollout.to == want);
        task.version == want && rollout.is_none_or(|rollout| task.created >= rollout.began)
    };
    let Some((_, task)) = last.filter(is_its) else { return Refill::Now { avoid: None } };
    let node = task.placement.as_ref().map(|placement| placement.node);
    let ended_at = task.status.as_ref().map_or(task.created, |status| status.at);
    match task.ended() {
        None | Some(Ended::Stopped) => Refill::Now { avoid: left_behind(task) },
        Some(Ended::GaveUp) => Refill::Not(Waiting::GivenUp),
        Some(Ended::Completed) if service.spec.task.restart.condition == RestartCondition::Always => {
            Refill::Now { avoid: None }
        }
        Some(Ended::Completed) => Refill::Not(Waiting::Completed),
        Some(Ended::Failing) => {
            let at = ended_at.plus(replacement_delay(failures(want, tasks)));
            if at > now { Refill::Not(Waiting::ToTryAgain { at }) } else { Refill::Now { avoid: node } }
        }
    }
}

/// The node that somebody wants the task away from.
pub(crate) fn left_behind(task: &Task) -> Option<NodeId> {
    task.placement.as_ref().filter(|_| task.leaves).map(|placement| placement.node)
}

/// The tasks of this version that failed last, one after the other.
fn failures(version: SpecVersion, tasks: &[Row<'_>]) -> u32 {
    let failed = |(_, task): &&Row<'_>| task.version == version && task.ended() == Some(Ended::Failing);
    let ended = tasks.iter().rev().filter(|(_, task)| task.ended().is_some());
    u32::try_from(ended.take_while(failed).count()).unwrap_or(u32::MAX)
}

/// How long a slot rests after `failures` tasks in a row failed.
pub fn replacement_delay(failures: u32) -> Duration {
    back_off(FIRST_REST, failures, LONGEST_REST)
}
