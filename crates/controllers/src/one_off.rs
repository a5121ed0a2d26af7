//! What was run once, some time after its end.
//!
//! Whoever runs it takes it away; this is for what nobody has taken away, since its client died or did not wait.

use std::time::Duration;

use model::{Liveness, ServiceId, ServiceSpec, Task, Timestamp};
use state::{Command, Service, State};

use crate::Plan;

/// Long enough to look at what it printed.
const KEPT: Duration = Duration::from_secs(60 * 60);

pub(crate) fn plan(state: &State, id: ServiceId, service: &Service, now: Timestamp, plan: &mut Plan) {
    let is_once =
        service.spec.labels.get(ServiceSpec::ONE_OFF).is_some_and(|value| value == ServiceSpec::ONCE);
    if !is_once || !is_alone(state, service) {
        return;
    }
    let Some(end) = end(state, id) else { return };
    let due = end.plus(KEPT);
    if due <= now {
        plan.commands.push(Command::RemoveStack { stack: service.name.stack.clone() });
    } else {
        plan.wake(due);
    }
}

/// A stack that somebody wrote does not go because one of its services says that it is run once.
fn is_alone(state: &State, service: &Service) -> bool {
    state.stack(&service.name.stack).is_some_and(|stack| stack.services.len() == 1)
}

/// When the last of its tasks ended, or was lost with its node. `None` while one may be running, or has yet to be made.
fn end(state: &State, id: ServiceId) -> Option<Timestamp> {
    let mut latest = None;
    for (_, task) in state.tasks_of(id) {
        latest = latest.max(Some(end_of(state, task)?));
    }
    latest
}

/// When a task ended, or was lost with its node.
pub(crate) fn end_of(state: &State, task: &Task) -> Option<Timestamp> {
    if task.ended().is_some() {
        return task.status.as_ref().map(|status| status.at);
    }
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node))?;
    match node.liveness {
        Liveness::Down { since } => Some(since),
        Liveness::Ready | Liveness::Unknown => None,
    }
}
