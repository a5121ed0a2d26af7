//! What is forgotten, and when. Everything here is done while a command is applied, so every manager forgets the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{Desired, Digest, Job, NodeId, ServiceId, SpecVersion, Task, TaskId};

use crate::tables::{Service, State};

/// Ended tasks that each slot keeps, so that `ps --all` and `logs` can tell what happened last.
const ENDED_TASKS_A_SLOT: usize = 5;

/// Templates that a service keeps, besides those that are needed: ten to go back to, and the current one.
const TEMPLATES_A_SERVICE: usize = 11;

/// How long the answer to a request is kept. A client that tries again does so within minutes.
const REQUESTS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What was forgotten: tasks with their nodes, and the images of templates.
#[derive(Debug, Default)]
pub(crate) struct Trimmed {
    pub(crate) tasks: Vec<(TaskId, Option<NodeId>)>,
    pub(crate) images: Vec<Digest>,
}

/// Drops the ended tasks of `id`'s slot, in the run that it is of, that are too many, and every one that was to be removed.
pub(crate) fn trim_slot(state: &mut State, id: TaskId) -> Trimmed {
    let first = TaskId { sequence: 0, ..id };
    let last = TaskId { sequence: u64::MAX, ..id };
    let run = state.task(id).map(|task| task.run);
    let over: Vec<(TaskId, bool, Option<NodeId>)> = state
        .tasks
        .range(first..=last)
        .filter(|(_, task)| is_over(task) && Some(task.run) == run)
        .map(|(id, task)| {
            (*id, task.desired == Desired::Removed, task.placement.as_ref().map(|placement| placement.node))
        })
        .collect();
    let kept = over.iter().filter(|(_, removed, _)| !removed).count();
    let mut too_many = kept.saturating_sub(ENDED_TASKS_A_SLOT);
    let mut trimmed = Trimmed::default();
    for (id, removed, node) in over {
        if !removed && too_many == 0 {
            continue;
        }
        if !removed {
            too_many -= 1;
        }
        state.drop_task(id);
        trimmed.tasks.push((id, node));
    }
    if !trimmed.tasks.is_empty() {
        trimmed.images = trim_templates(state, id.service);
    }
    trimmed
}

/// Nothing of it runs any more. A task that was to be removed needs no verdict: no slot counts on it.
fn is_over(task: &Task) -> bool {
    task.occupies().is_none()
        && (task.verdict.is_some() || (task.desired == Desired::Removed && task.ended().is_some()))
}

/// Drops the oldest templates that no task is made from and no rollout may need, and returns their images.
pub(crate) fn trim_templates(state: &mut State, id: ServiceId) -> Vec<Digest> {
    let Some(service) = state.service(id) else { return Vec::new() };
    if service.templates.len() <= TEMPLATES_A_SERVICE {
        return Vec::new();
    }
    let mut used: BTreeSet<SpecVersion> = state.tasks_of(id).map(|(_, task)| task.version).collect();
    used.insert(service.version);
    used.extend(service.way_back());
    used.extend(service.rollout.as_ref().map(|rollout| rollout.from));
    used.extend(service.job.iter().flat_map(Job::active).map(|(_, run)| run.version));
    let surplus = service.templates.len() - TEMPLATES_A_SERVICE;
    let spare = service.templates.keys().filter(|version| !used.contains(version)).take(surplus);
    let spare: Vec<SpecVersion> = spare.copied().collect();
    if spare.is_empty() {
        return Vec::new();
    }
    let mut service = Service::clone(service);
    let dropped = spare.iter().filter_map(|version| service.templates.remove(version));
    let images = dropped.map(|template| template.image).collect();
    state.services.insert(id, Arc::new(service));
    images
}

pub(crate) fn expire_requests(state: &mut State) {
    while let Some((at, request)) = state.request_ages.get_min().copied() {
        if state.time.since(at) <= REQUESTS_KEPT {
            return;
        }
        state.request_ages.remove(&(at, request));
        state.requests.remove(&request);
    }
}
