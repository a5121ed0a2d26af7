//! What is true once the faults are over: everyone agrees, what is wanted is there, and nobody writes any
//! more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controllers::Waiting;
use model::{Job, Liveness, NodeId, ServiceId, TaskId, Timestamp};
use state::{Service, State};
use store::Store;
use tokio::time::{Instant, sleep};

use crate::check::is_same;
use crate::client::Belief;
use crate::cluster::Cluster;

/// How long a cluster may take. What kept failing rests for a minute before it is tried again, and a second
/// time after images had to be copied.
const CONVERGENCE: Duration = Duration::from_secs(240);
/// How long it must not write afterwards.
const SILENCE: Duration = Duration::from_secs(30);
/// The nodes that hold each image that no registry has, at least.
const COPIES: usize = 2;
/// How long a message and the write that it leads to may still be under way: many times the slowest disk and link.
const SETTLING: Duration = Duration::from_secs(5);
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(250);

/// Waits until the cluster has converged, and then that it stays as it is. What does not happen is recorded
/// as broken.
pub(crate) async fn demand(cluster: &Cluster, beliefs: &[Belief]) {
    let deadline = Instant::now() + CONVERGENCE;
    while let Some(lacking) = lacking(cluster) {
        if cluster.trace.is_broken() {
            return;
        }
        if Instant::now() > deadline {
            cluster.trace.broken(format_args!("not converged within {CONVERGENCE:?}: {lacking}"));
            return;
        }
        sleep(GLANCE).await;
    }
    cluster.trace.line("converged");
    // What was on its way at that instant (a report, its commit, a follower's word) arrives.
    sleep(SETTLING).await;
    let before = cluster.reach();
    sleep(SILENCE).await;
    let after = cluster.reach();
    if before != after {
        cluster.trace.broken(format_args!("it goes on writing: {before:?}, {SILENCE:?} later {after:?}"));
    }
    if let Some(lacking) = lacking(cluster) {
        cluster.trace.broken(format_args!("converged, and then not any more: {lacking}"));
    }
    remember(cluster, beliefs).await;
}

/// Whatever was acknowledged is there, by a quorum's word.
async fn remember(cluster: &Cluster, beliefs: &[Belief]) {
    let leader = cluster.leaders().first().and_then(|leader| cluster.store(*leader));
    let Some(leader) = leader else { return };
    let state = match leader.linearize().await {
        Ok(state) => state,
        Err(error) => {
            return cluster.trace.broken(format_args!("a cluster in peace cannot be read: {error}"));
        }
    };
    for lost in cluster.check.lost(&state) {
        cluster.trace.broken(format_args!("{lost} was acknowledged and is lost"));
    }
    for contradiction in beliefs.iter().filter_map(|belief| belief.is_in(&state).err()) {
        cluster.trace.broken(contradiction);
    }
}

/// The first thing that is not yet as it has to be.
fn lacking(cluster: &Cluster) -> Option<String> {
    let leaders = cluster.leaders();
    let [leader] = leaders[..] else { return Some(format!("{leaders:?} lead")) };
    let stores = cluster.stores();
    if stores.len() != cluster.managers().len() {
        return Some("a manager does not run".to_owned());
    }
    let state = cluster.store(leader)?.state();
    managers_differ(&stores, &state)
        .or_else(|| nodes(cluster, &state))
        .or_else(|| unplanned(&state))
        .or_else(|| slots(&state))
        .or_else(|| containers(cluster, &state))
        .or_else(|| ledgers(cluster, &state))
        .or_else(|| images(cluster, &state))
}

fn managers_differ(stores: &[(NodeId, Store)], state: &State) -> Option<String> {
    let (node, _) = stores.iter().find(|(_, store)| !is_same(&store.state(), state))?;
    Some(format!("{node} has another state than the leader"))
}

fn nodes(cluster: &Cluster, state: &State) -> Option<String> {
    if state.nodes().count() != cluster.nodes().len() {
        return Some("a node is missing".to_owned());
    }
    let (node, row) = state.nodes().find(|(_, row)| row.liveness != Liveness::Ready)?;
    Some(format!("{node} is {:?}", row.liveness))
}

/// The planners have nothing to do, and the scheduler has a reason for what it leaves.
fn unplanned(state: &State) -> Option<String> {
    let far = Timestamp(u64::MAX);
    let planned = controllers::all(state).into_iter().find_map(|object| {
        let plan = controllers::plan(state, object, far);
        plan.commands.first().map(|command| format!("{object:?} still needs {command:?}"))
    });
    if planned.is_some() {
        return planned;
    }
    let pending: Vec<TaskId> = state.unplaced().collect();
    let placement = scheduler::place(state, &pending, usize::MAX);
    if let Some(command) = placement.commands.first() {
        return Some(format!("the scheduler still has {command:?}"));
    }
    let unexplained = placement.unplaced.iter().find(|(_, why)| why.reasons.is_empty());
    unexplained.map(|(task, _)| format!("task {task} has no node and no reason for it"))
}

/// Every slot is filled by a running task, or there is a reason that time does not cure.
fn slots(state: &State) -> Option<String> {
    for (id, service) in state.services() {
        if service.removing {
            return Some(format!("service {} is still being removed", service.name));
        }
        if let Some(job) = &service.job {
            if let Some(why) = runs(state, id, service, job) {
                return Some(why);
            }
            continue;
        }
        // The cluster's own time stands still while nobody has anything to write.
        let plan = controllers::plan(state, controllers::Object::Service(id), Timestamp(u64::MAX));
        let final_word = |why: &Waiting| {
            matches!(
                why,
                Waiting::GivenUp | Waiting::Completed | Waiting::OnlyOnce | Waiting::ForService { .. }
            )
        };
        // A node that is drained for good keeps what has nowhere else to go.
        let for_a_person = |why: &Waiting| {
            matches!(
                why,
                Waiting::Promotion
                    | Waiting::Paused
                    | Waiting::Failed
                    | Waiting::ForAnotherNode { .. }
                    | Waiting::ForItsEnd { .. }
            )
        };
        let given: BTreeSet<u32> = plan.notes.iter().filter(|n| final_word(&n.why)).map(|n| n.slot).collect();
        let tasks = state.tasks_of(id).filter(|(_, task)| task.is_live() && task.desired.runs());
        let live: BTreeMap<u32, _> = tasks.map(|(id, task)| (id.slot, (id, task))).collect();
        let mut stuck = plan.notes.iter().any(|note| note.why == Waiting::GivenUp);
        for slot in state.slots(service).filter(|slot| !given.contains(slot)) {
            match live.get(&slot) {
                None => return Some(format!("slot {slot} of {} is empty: {:?}", service.name, plan.notes)),
                // That there is a reason was seen above.
                Some((_, task)) if task.placement.is_none() => stuck = true,
                Some((_, task)) if task.is_ready() => {}
                Some((id, task)) => return Some(format!("task {id} is not ready: {:?}", task.status)),
            }
        }
        // A rollout waits for ever behind a slot that cannot be filled, and for nothing else.
        let is_over = |why: &Waiting| final_word(why) || for_a_person(why);
        let waits = plan.notes.iter().find(|note| !is_over(&note.why) && !stuck);
        if let Some(note) = waits {
            return Some(format!("{}: {note}", service.name));
        }
    }
    None
}

/// Every slot of a run that goes on has succeeded, is being tried, or waits behind those that are.
fn runs(state: &State, id: ServiceId, service: &Service, job: &Job) -> Option<String> {
    let plan = controllers::plan(state, controllers::Object::Service(id), Timestamp(u64::MAX));
    if plan.notes.iter().any(|note| matches!(note.why, Waiting::ForService { .. })) {
        return None;
    }
    for (number, _) in job.active() {
        let done = state.completed(id, number);
        let tried: BTreeMap<u32, _> = state
            .tasks_of(id)
            .filter(|(_, task)| task.run == number && task.is_live() && task.desired.runs())
            .map(|(id, task)| (id.slot, (id, task)))
            .collect();
        let open: Vec<u32> = state.slots(service).filter(|slot| !done.contains(slot)).collect();
        let most = service.spec.job.as_ref().and_then(|spec| spec.parallelism).unwrap_or(u32::MAX);
        if open.is_empty() {
            return Some(format!("run {number} of {} is done and goes on", service.name));
        }
        let expected = open.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if open.iter().filter(|slot| tried.contains_key(slot)).count() < expected {
            return Some(format!("run {number} of {} has slots that are not tried", service.name));
        }
        for (id, task) in tried.values() {
            if task.placement.is_some() && !task.is_ready() && !done.contains(&id.slot) {
                return Some(format!("task {id} is not ready: {:?}", task.status));
            }
        }
    }
    None
}

/// What runs is what is wanted, where it is wanted, and nothing else holds anything.
fn containers(cluster: &Cluster, state: &State) -> Option<String> {
    let mut wanted: BTreeMap<TaskId, NodeId> = BTreeMap::new();
    for (id, task) in state.tasks().filter(|(_, task)| task.desired.runs()) {
        if let Some(placement) = task.occupies() {
            wanted.insert(id, placement.node);
        }
    }
    for seen in cluster.world.containers() {
        let is_wanted = wanted.get(&seen.task) == Some(&seen.node);
        if seen.running != is_wanted {
            return Some(format!("{seen:?} and it is wanted: {is_wanted}"));
        }
        if seen.holds && !seen.running {
            return Some(format!("{seen:?} ended and still holds its address"));
        }
        let attempt =
            state.task(seen.task).and_then(|task| task.status.as_ref()).map(|status| status.attempt);
        if seen.running && attempt != Some(seen.attempt) {
            return Some(format!("{seen:?} is reported as attempt {attempt:?}"));
        }
        wanted.remove(&seen.task);
    }
    wanted.first_key_value().map(|(task, node)| format!("task {task} has no container on {node}"))
}

/// No node remembers a task that the cluster has forgotten, and none has a container without a record.
fn ledgers(cluster: &Cluster, state: &State) -> Option<String> {
    for node in cluster.nodes() {
        let assigned: BTreeSet<TaskId> = state.tasks_on(node).map(|(id, _)| id).collect();
        let recorded: BTreeSet<TaskId> = cluster.world.recorded(node).into_iter().collect();
        if recorded != assigned {
            let surplus: Vec<String> =
                recorded.symmetric_difference(&assigned).map(ToString::to_string).collect();
            return Some(format!("{node} and the cluster do not agree that there are {surplus:?}"));
        }
        let loose = cluster
            .world
            .containers()
            .into_iter()
            .find(|seen| seen.node == node && !recorded.contains(&seen.task));
        if let Some(seen) = loose {
            return Some(format!("{seen:?} has no record"));
        }
    }
    None
}

/// Every image is held where the cluster believes it is, and often enough.
fn images(cluster: &Cluster, state: &State) -> Option<String> {
    for (digest, image) in state.images() {
        let held = image.copies.iter().filter(|(_, since)| since.is_some()).map(|(node, _)| *node);
        let held: Vec<NodeId> = held.collect();
        if !state.image_is_wanted(digest) {
            return Some(format!("image {} is not wanted and still there", digest.short()));
        }
        if held.len() < COPIES && image.origin.is_none() {
            return Some(format!("image {} is held by {held:?} only", digest.short()));
        }
        if let Some(node) = held.into_iter().find(|node| !cluster.world.has_image(*node, digest)) {
            return Some(format!("{node} does not hold image {}, and is believed to", digest.short()));
        }
    }
    None
}
