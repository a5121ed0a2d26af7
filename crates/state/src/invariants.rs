//! What is true after every `apply`. Tests and simulations call [`check`] each time.

use std::collections::{BTreeMap, BTreeSet};

use imbl::{OrdMap, OrdSet};
use model::{Digest, NodeId, Registry, RolloutPhase, TaskId};

use crate::occupancy::Occupancy;
use crate::tables::{REGISTRIES, State};

/// Each broken invariant in a sentence; empty when all hold.
pub fn check(state: &State) -> Vec<String> {
    let mut broken = Vec::new();
    indexes(state, &mut broken);
    tasks(state, &mut broken);
    nothing_is_held_twice(state, &mut broken);
    capacity(state, &mut broken);
    names(state, &mut broken);
    rollouts(state, &mut broken);
    images(state, &mut broken);
    registries(state, &mut broken);
    broken
}

fn indexes(state: &State, broken: &mut Vec<String>) {
    let fresh = State::from_rows(state.rows());
    let without_empty = |map: &OrdMap<NodeId, OrdSet<TaskId>>| {
        map.iter().filter(|(_, set)| !set.is_empty()).map(|(id, set)| (*id, set.clone())).collect::<Vec<_>>()
    };
    let occupied = |map: &OrdMap<NodeId, Occupancy>| {
        map.iter().filter(|(_, o)| !o.is_empty()).map(|(id, o)| (*id, o.clone())).collect::<Vec<_>>()
    };
    if fresh.by_load != state.by_load {
        broken.push("the order of nodes by their load is not what the nodes and tasks say".to_owned());
    }
    if fresh.leaving != state.leaving {
        broken.push("the index of tasks that are to be elsewhere is not what the tasks say".to_owned());
    }
    if fresh.draining != state.draining {
        broken.push("the index of draining nodes is not what the nodes say".to_owned());
    }
    if fresh.unplaced != state.unplaced {
        broken.push("the index of unplaced tasks is not what the tasks say".to_owned());
    }
    if without_empty(&fresh.on_node) != without_empty(&state.on_node) {
        broken.push("the index of tasks by node is not what the tasks say".to_owned());
    }
    if occupied(&fresh.occupancy) != occupied(&state.occupancy) {
        broken.push("the occupancy of nodes is not what the tasks say".to_owned());
    }
    if fresh.request_ages != state.request_ages {
        broken.push("the ages of requests are not what the requests say".to_owned());
    }
}

fn tasks(state: &State, broken: &mut Vec<String>) {
    for (id, task) in state.tasks() {
        match state.service(id.service) {
            None => broken.push(format!("task {id} has no service")),
            Some(service) if id.sequence >= service.next_sequence => {
                broken
                    .push(format!("task {id} is ahead of its service's sequence {}", service.next_sequence));
            }
            Some(service) if !service.templates.contains_key(&task.version) => {
                broken.push(format!("task {id} is made from {}, which is not kept", task.version));
            }
            Some(_) => {}
        }
        if let Some(service) = state.service(id.service) {
            let last = service.job.as_ref().map_or(0, |job| job.last);
            let least = u32::from(service.spec.job.is_some());
            if !(least..=last).contains(&task.run) {
                broken.push(format!("task {id} is of run {}, of {last}", task.run));
            }
        }
        if task.status.is_some() && task.placement.is_none() {
            broken.push(format!("task {id} has a status and no node"));
        }
        if let Some(placement) = &task.placement {
            match state.node(placement.node) {
                None if task.ended().is_some() => {}
                None => broken.push(format!("task {id} is on {}, which does not exist", placement.node)),
                Some(node) if !node.subnet.contains(placement.address) => {
                    broken.push(format!(
                        "task {id} has {}, which is not of {}",
                        placement.address, placement.node
                    ));
                }
                Some(_) => {}
            }
        }
    }
}

fn nothing_is_held_twice(state: &State, broken: &mut Vec<String>) {
    let mut addresses = BTreeMap::new();
    let mut ports = BTreeMap::new();
    for (id, task) in state.tasks() {
        let Some(placement) = task.occupies() else { continue };
        if let Some(other) = addresses.insert(placement.address, id) {
            broken.push(format!("tasks {other} and {id} both have the address {}", placement.address));
        }
        for port in &placement.ports {
            if let Some(other) = ports.insert((placement.node, port.protocol, port.host), id) {
                broken.push(format!(
                    "tasks {other} and {id} both have port {} of {}",
                    port.host, placement.node
                ));
            }
        }
    }
}

fn capacity(state: &State, broken: &mut Vec<String>) {
    for (id, row) in state.nodes.iter() {
        let taken = state.occupancy(*id).reserved;
        // A machine that came back smaller keeps what runs on it; what it was given, it had room for at the time.
        let had = row.promised;
        if taken.cpu > had.cpu || taken.memory > had.memory {
            broken.push(format!("node {id} is committed beyond its capacity"));
        }
    }
}

fn names(state: &State, broken: &mut Vec<String>) {
    for (stack, row) in state.stacks() {
        for (name, id) in &row.services {
            match state.service(*id) {
                Some(service)
                    if service.name.stack == *stack && service.name.service == *name && !service.removing => {
                }
                _ => broken
                    .push(format!("stack {stack} names {name} as {id}, which is another service or none")),
            }
        }
    }
    for (id, service) in state.services() {
        let named = state.service_named(&service.name).is_some_and(|(named, _)| named == id);
        if named == service.removing {
            broken.push(format!("service {id} is being removed and named, or neither"));
        }
    }
    for (name, digest) in state.tags() {
        if state.image(digest).is_none() {
            broken.push(format!("image {name} stands for {digest}, which is not there"));
        }
    }
}

fn rollouts(state: &State, broken: &mut Vec<String>) {
    for (id, service) in state.services() {
        if !service.templates.contains_key(&service.version) || service.version > service.last_version {
            broken.push(format!(
                "service {id} is to be {}, which it never had or has forgotten",
                service.version
            ));
        }
        if service.templates[&service.version].task.as_ref() != &service.spec.task {
            broken
                .push(format!("service {id} is declared otherwise than its version {} is", service.version));
        }
        if service.spec.job.is_some() != service.job.is_some()
            || (service.job.is_some() && service.rollout.is_some())
        {
            broken.push(format!("service {id} is a job and is not"));
        }
        let runs = service.job.iter().flat_map(|job| job.active());
        for (number, run) in runs.filter(|(_, run)| !service.templates.contains_key(&run.version)) {
            broken.push(format!("service {id} has forgotten {}, which its run {number} is of", run.version));
        }
        let Some(rollout) = &service.rollout else { continue };
        if rollout.to != service.version {
            broken.push(format!(
                "service {id} is to be {}, and its rollout is to {}",
                service.version, rollout.to
            ));
        }
        if rollout.phase != RolloutPhase::Completed && !service.templates.contains_key(&rollout.from) {
            broken.push(format!(
                "service {id} has forgotten {}, which its rollout may go back to",
                rollout.from
            ));
        }
    }
}

fn images(state: &State, broken: &mut Vec<String>) {
    let mut used: BTreeSet<Digest> = BTreeSet::new();
    for (id, service) in state.services() {
        for (version, template) in &service.templates {
            used.insert(template.image);
            if state.image(template.image).is_none() {
                broken.push(format!(
                    "service {id} is made from {} in {version}, which is not there",
                    template.image
                ));
            }
        }
    }
    for (digest, image) in state.images() {
        if image.digest != digest {
            broken.push(format!("the row of image {digest} is of {}", image.digest));
        }
        if used.contains(&digest) != image.idle.is_none() {
            broken.push(format!("image {digest} is used and idle, or neither"));
        }
    }
}

fn registries(state: &State, broken: &mut Vec<String>) {
    if state.registries.len() > REGISTRIES {
        broken.push(format!("there are settings of {} registries", state.registries.len()));
    }
    for (name, registry) in state.registries() {
        if registry.size() > Registry::MAX_SIZE || *registry == Registry::default() {
            broken.push(format!("the settings of registry {name} are too large, or none"));
        }
    }
}
