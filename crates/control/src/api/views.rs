//! Rows as users see them.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::nodes;
use controllers::{Object, Plan, Waiting};
use model::{Liveness, NodeId, Publish, Task, TaskId, Timestamp};
use state::{Service, State};
use tonic::Status;
use wire::proto::api::{
    self, ImageList, ListRequest, NodeList, RegistryList, ServiceList, StackList, TaskList,
};

pub(super) fn stacks(state: &State, request: &ListRequest) -> StackList {
    let wanted =
        state.stacks().filter(|(name, _)| request.filter.is_empty() || name.as_str() == request.filter);
    let stacks = wanted.map(|(name, stack)| {
        let services =
            stack.services.values().filter_map(|id| state.service(*id).map(|service| (*id, service)));
        let mut view = api::Stack {
            name: name.to_string(),
            services: 0,
            desired: 0,
            running: 0,
            generation: state.generation_of(name).0,
            deployed: stack.deployed.0,
            status: if stack.removing { "removing" } else { "active" }.to_owned(),
        };
        for (id, service) in services {
            view.services += 1;
            view.desired += state.desired_count(service);
            view.running += counts(state, id).0;
        }
        view
    });
    StackList { stacks: stacks.collect() }
}

pub(super) fn services(state: &State, request: &ListRequest) -> Result<ServiceList, Status> {
    let filter = request.filter.as_str();
    let wanted = |service: &Service| {
        filter.is_empty() || service.name.stack.as_str() == filter || service.name.to_string() == filter
    };
    let found: Vec<_> = state.services().filter(|(_, service)| wanted(service)).collect();
    if found.is_empty() && !filter.is_empty() && state.stacks().all(|(name, _)| name.as_str() != filter) {
        return Err(Status::not_found(format!("there is no stack or service `{filter}`")));
    }
    let services = found.into_iter().map(|(id, service)| {
        let (running, ready) = counts(state, id);
        api::Service {
            service: service.name.to_string(),
            mode: service.spec.mode_name().to_owned(),
            desired: state.desired_count(service),
            running,
            ready,
            version: service.version.0,
            image: service.spec.task.image.to_string(),
            ports: service.spec.task.ports.iter().map(port_spec).collect(),
            removing: service.removing,
            rollout: service.rollout.as_ref().map(|rollout| rollout.phase.to_string()).unwrap_or_default(),
        }
    });
    Ok(ServiceList { services: services.collect() })
}

fn port_spec(port: &model::PortSpec) -> String {
    match port.publish {
        Publish::AnyHostPort => format!("{}/{}", port.target, port.protocol.as_str()),
        Publish::HostPort(host) => format!("{host}->{}/{}", port.target, port.protocol.as_str()),
    }
}

/// How many tasks run, and how many are ready. What is on a node that is down counts as neither.
fn counts(state: &State, id: model::ServiceId) -> (u32, u32) {
    let reachable = state.tasks_of(id).filter(|(_, task)| task.is_live() && !is_lost(state, task));
    reachable.fold((0, 0), |(running, ready), (_, task)| {
        (running + u32::from(task.is_running()), ready + u32::from(task.is_ready()))
    })
}

fn is_lost(state: &State, task: &Task) -> bool {
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
    node.is_some_and(|node| matches!(node.liveness, Liveness::Down { .. }))
}

pub(super) fn tasks(state: &State, request: &ListRequest, now: Timestamp) -> Result<TaskList, Status> {
    let filter = request.filter.as_str();
    let node = state.node_named(filter).map(|(id, _)| id);
    let wanted = |id: TaskId, task: &Task| {
        let Some(service) = state.service(id.service) else { return false };
        filter.is_empty()
            || service.name.stack.as_str() == filter
            || service.name.to_string() == filter
            || node.is_some() && task.placement.as_ref().map(|placement| placement.node) == node
    };
    let exists = filter.is_empty()
        || node.is_some()
        || state.stacks().any(|(name, _)| name.as_str() == filter)
        || state.services().any(|(_, service)| service.name.to_string() == filter);
    if !exists {
        return Err(Status::not_found(format!("there is no stack, service or node `{filter}`")));
    }
    let tasks = state
        .tasks()
        .filter(|(id, task)| wanted(*id, task) && (request.all || task.is_live() && task.ended().is_none()));
    let mut tasks: Vec<api::Task> = tasks.filter_map(|(id, task)| view(state, id, task)).collect();
    tasks.extend(missing(state, filter, now));
    tasks.sort_by(|a, b| (&a.service, a.slot, &a.task).cmp(&(&b.service, b.slot, &b.task)));
    Ok(TaskList { tasks })
}

/// One task, or nothing when its service is gone.
pub(super) fn view(state: &State, id: TaskId, task: &Task) -> Option<api::Task> {
    let service = state.service(id.service)?;
    let placement = task.placement.as_ref();
    let node = placement.and_then(|placement| state.node(placement.node));
    let ports = placement.into_iter().flat_map(|placement| &placement.ports).map(|port| api::Port {
        host: port.host.into(),
        target: port.target.into(),
        protocol: port.protocol.as_str().to_owned(),
    });
    let image = service.templates.get(&task.version).map(|template| template.task.image.to_string());
    let status = task.status.as_ref();
    Some(api::Task {
        service: service.name.to_string(),
        slot: id.slot,
        task: id.to_string(),
        node: node.map(|node| node.name.to_string()).unwrap_or_default(),
        desired: task.desired.as_str().to_owned(),
        phase: task.shown(is_lost(state, task)).as_str().to_owned(),
        attempt: status.map_or(0, |status| status.attempt),
        ready: task.is_ready() && !is_lost(state, task),
        image: image.unwrap_or_default(),
        address: placement.map(|placement| placement.address.to_string()).unwrap_or_default(),
        ports: ports.collect(),
        since: status.map_or_else(|| placement.map_or(task.created, |p| p.at), |status| status.at).0,
        reason: reason(state, id, task),
        node_address: node.map(|node| node.address.ip().to_string()).unwrap_or_default(),
        warnings: status.map(|status| status.warnings.clone()).unwrap_or_default(),
    })
}

fn reason(state: &State, id: TaskId, task: &Task) -> String {
    if task.is_live() && task.placement.is_none() {
        return scheduler::explain(state, id).to_string();
    }
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
    if let Some(node) = node.filter(|_| is_lost(state, task) && task.ended().is_none()) {
        return format!("node {} is down", node.name);
    }
    task.status.as_ref().and_then(|status| status.reason.clone()).unwrap_or_default()
}

/// Why slots of a service are left as they are; where that is for a failure, with what its last task said of it.
pub(super) fn notes(state: &State, id: model::ServiceId, plan: &Plan) -> Vec<(u32, String)> {
    let ended = state.tasks_of(id).filter(|(_, row)| row.ended().is_some());
    // They come by slot and then by age, so that of each slot the last one stays.
    let last: BTreeMap<u32, &Task> = ended.map(|(task, row)| (task.slot, row)).collect();
    let said = |slot: u32| last.get(&slot)?.status.as_ref()?.reason.as_deref();
    plan.notes
        .iter()
        .map(|note| {
            let reason = match note.why {
                Waiting::ToTryAgain { .. } | Waiting::GivenUp | Waiting::OnlyOnce => said(note.slot),
                Waiting::ForItsPredecessor(_)
                | Waiting::Completed
                | Waiting::ForAnotherNode { .. }
                | Waiting::ForItsEnd { .. }
                | Waiting::ItsTurn
                | Waiting::ForService { .. }
                | Waiting::ForOthers
                | Waiting::Rest { .. }
                | Waiting::Trial { .. }
                | Waiting::Promotion
                | Waiting::Paused
                | Waiting::Failed => None,
            };
            let stays = match note.why {
                Waiting::ForAnotherNode { .. } => nodes::why_it_stays(state, id, note.slot),
                _ => None,
            };
            let why = &note.why;
            let reason = stays.as_deref().or(reason);
            (note.slot, reason.map_or_else(|| why.to_string(), |reason| format!("{why}: {reason}")))
        })
        .collect()
}

/// The same as sentences, those that are said of several slots once.
pub(super) fn sentences(notes: &[(u32, String)]) -> Vec<String> {
    let mut slots: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for (slot, why) in notes {
        slots.entry(why).or_default().insert(*slot);
    }
    let said = slots.into_iter().filter_map(|(why, slots)| {
        let slot = *slots.first()?;
        Some(match slots.len() - 1 {
            0 => (slot, format!("slot {slot} {why}")),
            others => (slot, format!("slot {slot} {why} (and {others} more)")),
        })
    });
    let mut sentences: Vec<(u32, String)> = said.collect();
    sentences.sort();
    sentences.into_iter().map(|(_, sentence)| sentence).collect()
}

/// Slots that are wanted and have no task now, with the reason.
fn missing(state: &State, filter: &str, now: Timestamp) -> Vec<api::Task> {
    let mut rows = Vec::new();
    for (id, service) in state.services().filter(|(_, service)| !service.removing) {
        let name = service.name.to_string();
        if !(filter.is_empty() || service.name.stack.as_str() == filter || name == filter) {
            continue;
        }
        let held = state.tasks_of(id).filter(|(_, row)| row.is_live() && row.ended().is_none());
        let shown: BTreeSet<u32> = held.map(|(task, _)| task.slot).collect();
        let plan = controllers::plan(state, Object::Service(id), now);
        for (slot, why) in notes(state, id, &plan) {
            let reason = format!("slot {slot} {why}");
            if !shown.contains(&slot) {
                rows.push(api::Task {
                    service: name.clone(),
                    slot,
                    desired: "running".to_owned(),
                    phase: "waiting".to_owned(),
                    image: service.spec.task.image.to_string(),
                    reason,
                    ..api::Task::default()
                });
            }
        }
    }
    rows
}

pub(super) fn nodes(state: &State, leader: Option<NodeId>) -> NodeList {
    let mut nodes: Vec<api::Node> =
        state.nodes().map(|(id, node)| node_view(state, id, node, leader)).collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    NodeList { nodes }
}

pub(super) fn node_view(state: &State, id: NodeId, node: &model::Node, leader: Option<NodeId>) -> api::Node {
    let reserved = state.occupancy(id).reserved;
    api::Node {
        node: node.name.to_string(),
        role: node.role.as_str().to_owned(),
        leader: leader == Some(id),
        status: match node.liveness {
            Liveness::Ready => "ready",
            Liveness::Down { .. } => "down",
            Liveness::Unknown => "unknown",
        }
        .to_owned(),
        availability: node.availability.as_str().to_owned(),
        address: node.address.to_string(),
        version: node.version.clone(),
        labels: node
            .all_labels()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        platform: node.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
        capacity: Some(node.capacity.into()),
        allocated: Some(model::Capacity { cpu: reserved.cpu, memory: reserved.memory }.into()),
    }
}

pub(super) fn images(state: &State) -> ImageList {
    let mut images: Vec<api::Image> = Vec::new();
    for (digest, image) in state.images() {
        let holders = image.copies.iter().filter(|(_, since)| since.is_some());
        let nodes: Vec<String> =
            holders.filter_map(|(id, _)| state.node(*id).map(|node| node.name.to_string())).collect();
        let view = |name: String| api::Image {
            name,
            digest: digest.to_string(),
            size: image.size.0,
            imported: image.imported.0,
            nodes: nodes.clone(),
            origin: image.origin.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let names: Vec<String> =
            state.tags().filter(|(_, tagged)| *tagged == digest).map(|(name, _)| name.to_string()).collect();
        if names.is_empty() {
            images.push(view(String::new()));
        }
        images.extend(names.into_iter().map(view));
    }
    images.sort_by(|a, b| (&a.name, &a.digest).cmp(&(&b.name, &b.digest)));
    ImageList { images }
}

/// What is kept of registries, without the secrets.
pub(super) fn registries(state: &State) -> RegistryList {
    let registries = state.registries().map(|(name, registry)| {
        let model::Registry { mirrors, ca, insecure, credential } = registry;
        api::Registry {
            registry: name.to_string(),
            username: credential.as_ref().map(|credential| credential.username.clone()).unwrap_or_default(),
            insecure: *insecure,
            mirrors: mirrors.iter().map(ToString::to_string).collect(),
            ca: u32::try_from(ca.len()).unwrap_or(u32::MAX),
        }
    });
    RegistryList { registries: registries.collect() }
}
