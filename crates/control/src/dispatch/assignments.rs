//! What one node must be doing, computed from the state: all of it, or what changed.

use std::collections::BTreeSet;

use model::{Desired, Digest, NodeId, Role, Task, TaskId};
use state::{Change, State};
use wire::proto::agent::{AssignedImage, AssignedTask, Delta, Holder, Subnet, Whole};

/// Everything that `node` must be doing. Of the tasks that it says it knows, those without a row are named as unknown.
pub fn whole(state: &State, node: NodeId, known: &[TaskId]) -> Whole {
    let row = state.node(node);
    let tasks = state.tasks_on(node).filter_map(|(id, task)| assigned(state, id, task)).collect();
    let here: BTreeSet<TaskId> = state.tasks_on(node).map(|(id, _)| id).collect();
    let unknown = known.iter().filter(|id| !here.contains(id));
    let kept = state
        .images()
        .filter(|(digest, image)| image.copies.contains_key(&node) && state.image_is_wanted(*digest));
    Whole {
        cluster: state.cluster().map(|cluster| cluster.id.to_string()).unwrap_or_default(),
        generation: state.applied().0,
        subnet: row.map(|row| Subnet { base: row.subnet.base.to_string(), prefix: row.subnet.prefix.into() }),
        tasks,
        unknown: unknown.map(|id| (*id).into()).collect(),
        images: kept.map(|(digest, _)| assigned_image(state, digest)).collect(),
        managers: state
            .nodes()
            .filter(|(_, node)| node.role == Role::Manager)
            .map(|(id, node)| Holder { node: id.0, address: node.address.to_string() })
            .collect(),
    }
}

/// What `changes` mean for `node`, or nothing.
pub fn delta(state: &State, node: NodeId, from: u64, changes: &BTreeSet<Change>) -> Option<Delta> {
    let mut delta = Delta { from, generation: state.applied().0, ..Delta::default() };
    let mut images = BTreeSet::new();
    for change in changes {
        match change {
            Change::Task(id, Some(there)) if *there == node => match state.task(*id) {
                Some(task) => delta.tasks.extend(assigned(state, *id, task)),
                None => delta.unknown.push((*id).into()),
            },
            Change::Image(digest) => drop(images.insert(*digest)),
            // An image is no longer wanted when the last service that used it goes.
            Change::Service(id) => {
                images.extend(
                    state.service(*id).into_iter().flat_map(|s| s.templates.values()).map(|t| t.image),
                );
            }
            Change::Task(..) | Change::Node(_) | Change::Stack(_) | Change::Cluster => {}
        }
    }
    let unwanted = |digest: &Digest| {
        state.image(*digest).is_some_and(|image| image.copies.contains_key(&node))
            && !state.image_is_wanted(*digest)
    };
    for digest in images {
        let Some(image) = state.image(digest) else { continue };
        if unwanted(&digest) {
            delta.dropped_images.push(digest.to_string());
        } else if image.copies.contains_key(&node) || is_used(state, node, digest) {
            delta.images.push(assigned_image(state, digest));
        }
    }
    let is_empty = delta.tasks.is_empty()
        && delta.unknown.is_empty()
        && delta.images.is_empty()
        && delta.dropped_images.is_empty();
    (!is_empty).then_some(delta)
}

/// Images that `node` holds and nothing wants any more.
pub fn unwanted_images(state: &State, node: NodeId) -> Vec<String> {
    let held = state.images().filter(|(_, image)| image.copies.contains_key(&node));
    held.filter(|(digest, _)| !state.image_is_wanted(*digest)).map(|(digest, _)| digest.to_string()).collect()
}

fn is_used(state: &State, node: NodeId, digest: Digest) -> bool {
    state
        .tasks_on(node)
        .filter(|(_, task)| task.desired == Desired::Running && task.ended().is_none())
        .any(|(id, _)| state.template_of(id).is_some_and(|template| template.image == digest))
}

fn assigned(state: &State, id: TaskId, task: &Task) -> Option<AssignedTask> {
    let service = state.service(id.service)?;
    let template = service.templates.get(&task.version)?;
    Some(AssignedTask {
        id: Some(id.into()),
        service: service.name.to_string(),
        desired: wire::proto::model::Desired::from(task.desired).into(),
        spec: Some((&*template.task).into()),
        placement: task.placement.as_ref().map(Into::into),
        image: Some(assigned_image(state, template.image)),
    })
}

fn assigned_image(state: &State, digest: Digest) -> AssignedImage {
    let copies = state.image(digest).into_iter().flat_map(|image| image.copies.iter());
    let holders = copies.filter(|(_, since)| since.is_some()).filter_map(|(id, _)| {
        state.node(*id).map(|node| Holder { node: id.0, address: node.address.to_string() })
    });
    AssignedImage { digest: digest.to_string(), holders: holders.collect() }
}
