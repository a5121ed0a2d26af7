//! Which services wait for others: Compose's `depends_on`.
//!
//! A service that does not run yet, and a new version of one that does, wait until what they depend on is as they want it. What
//! runs is not stopped for it, and neither is what is made up for in a slot beside those that run.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{
    Condition, Ending, Liveness, Name, Phase, RolloutPhase, ServiceId, ServiceName, Task, Timestamp,
};
use state::{Service, State};

use crate::{Waiting, one_off};

/// How long a service that has gone down waits for what it depends on: what did without it for so long may never come, and what
/// needs it has to cope. The first time, the progress deadline is what ends the wait, and says so.
const COLD_START: Duration = Duration::from_secs(2 * 60);

/// What `service` waits for: the first of its dependencies that is not as it wants it.
pub(crate) fn unmet(state: &State, service: &Service) -> Option<Waiting> {
    let dependencies = service.spec.depends_on.iter();
    let unmet = dependencies.filter(|(name, condition)| !is_met(state, service, name, **condition));
    unmet.map(|(name, condition)| Waiting::ForService { name: name.clone(), condition: *condition }).next()
}

/// What keeps a service from being begun, and until when if there is a bound: what is [`unmet`], unless some of it runs, which is
/// made up for in the slots beside it whatever has become of what it depends on. One that has served before waits for a while
/// and no longer.
pub(crate) fn holds_back(
    state: &State,
    id: ServiceId,
    service: &Service,
    now: Timestamp,
) -> Option<(Waiting, Option<Timestamp>)> {
    let why = unmet(state, service)?;
    if state.tasks_of(id).any(|(_, task)| has_started(state, task)) {
        return None;
    }
    let has_served = service.rollout.as_ref().is_some_and(|rollout| rollout.phase == RolloutPhase::Completed);
    if !has_served {
        return Some((why, None));
    }
    let ends = state.tasks_of(id).filter_map(|(_, task)| one_off::end_of(state, task));
    let until = ends.max()?.plus(COLD_START);
    (until > now).then_some((why, Some(until)))
}

/// Services that wait for this one, or may.
pub(crate) fn dependents(state: &State, id: ServiceId) -> Vec<ServiceId> {
    let Some(service) = state.service(id) else { return Vec::new() };
    let Some(stack) = state.stack(&service.name.stack) else { return Vec::new() };
    let depends = |other: &ServiceId| {
        state.service(*other).is_some_and(|other| other.spec.depends_on.contains_key(&service.name.service))
    };
    stack.services.values().copied().filter(depends).collect()
}

/// One that is not there keeps nobody waiting.
fn is_met(state: &State, service: &Service, name: &Name, condition: Condition) -> bool {
    let name = ServiceName { stack: service.name.stack.clone(), service: name.clone() };
    let Some((id, wanted)) = state.service_named(&name) else { return true };
    let (latest, has_succeeded) = match wanted.job.as_ref().map(|job| job.latest()) {
        None => (0, false),
        Some(None) => return false,
        Some(Some((number, run))) => {
            (number, run.end.as_ref().is_some_and(|end| end.how == Ending::Succeeded))
        }
    };
    if wanted.job.is_some() && condition == Condition::Completed {
        return has_succeeded;
    }
    let does = |task: &Task| match condition {
        Condition::Completed => task.succeeded() && task.version == wanted.version,
        Condition::Started => task.succeeded() || has_started(state, task),
        Condition::Healthy => task.succeeded() || (task.is_ready() && has_started(state, task)),
    };
    let mut slots: BTreeMap<u32, bool> = BTreeMap::new();
    for (task, row) in state.tasks_of(id).filter(|(_, task)| task.run == latest) {
        *slots.entry(task.slot).or_default() |= does(row);
    }
    has_succeeded || state.slots(wanted).all(|slot| slots.get(&slot).copied().unwrap_or_default())
}

/// Whether its container runs, as far as anybody can see.
fn has_started(state: &State, task: &Task) -> bool {
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
    let is_there = node.is_some_and(|node| node.liveness == Liveness::Ready);
    let phase = task.status.as_ref().map(|status| status.phase);
    let runs = matches!(phase, Some(Phase::Starting | Phase::Running));
    is_there && runs && task.is_live() && task.ended().is_none()
}
