//! One object as a JSON document.

mod container;

use std::collections::BTreeMap;
use std::time::Duration;

use model::{
    Availability, Condition, Digest, FailureAction, JobSpec, Name, Rollout, TaskId, Timestamp, UpdateOrder,
    UpdatePolicy,
};
use serde_json::{Value, json};
use state::State;
use tonic::Status;
use wire::proto::api::{self, InspectReply};

use crate::api::views;

/// What a reference can stand for, in the order in which it is tried.
pub(super) fn answer(state: &State, reference: &str) -> Result<InspectReply, Status> {
    let found = service(state, reference)
        .or_else(|| task(state, reference))
        .or_else(|| stack(state, reference))
        .or_else(|| node(state, reference))
        .or_else(|| image(state, reference));
    let (kind, value) = found.ok_or_else(|| {
        Status::not_found(format!("there is no stack, service, task, node or image `{reference}`"))
    })?;
    Ok(InspectReply { kind: kind.to_owned(), json: value.to_string() })
}

/// A node by its name, whatever else is called so.
pub(super) fn node_alone(state: &State, reference: &str) -> Result<InspectReply, Status> {
    let (kind, value) =
        node(state, reference).ok_or_else(|| Status::not_found(format!("there is no node `{reference}`")))?;
    Ok(InspectReply { kind: kind.to_owned(), json: value.to_string() })
}

/// What a version's tasks are made from.
pub(super) fn task_document(task: &model::TaskSpec) -> Value {
    container::task(task)
}

fn time(at: Timestamp) -> Value {
    // Milliseconds, as everywhere on the wire; the client writes them as RFC 3339.
    json!({ "unix_ms": at.0 })
}

fn service(state: &State, reference: &str) -> Option<(&'static str, Value)> {
    let (id, service) = state.service_named(&reference.parse().ok()?)?;
    let versions: Vec<Value> = service
        .templates
        .iter()
        .map(|(version, template)| {
            json!({
                "version": version.0,
                "image": template.task.image.as_str(),
                "digest": template.image.to_string(),
                "made": time(template.made),
                "by": template.by,
                "served": template.stable.map(time),
            })
        })
        .collect();
    Some((
        "service",
        json!({
            "service": service.name.to_string(),
            "id": id.to_string(),
            "generation": service.generation.0,
            "created": time(service.created),
            "mode": service.spec.mode_name(),
            "replicas": service.spec.mode.replicas(),
            "labels": service.spec.labels,
            "version": service.version.0,
            "versions": versions,
            "update": policy(&service.spec.update),
            "rollback": policy(&service.spec.rollback),
            "rollout": service.rollout.as_ref().map(rollout),
            "job": service.spec.job.as_ref().map(job),
            "depends_on": depends_on(&service.spec.depends_on),
            "task": container::task(&service.spec.task),
        }),
    ))
}

pub(super) fn policy(policy: &UpdatePolicy) -> Value {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    json!({
        "parallelism": policy.parallelism,
        "delay_ms": millis(policy.delay),
        "order": match policy.order {
            UpdateOrder::StopFirst => "stop-first",
            UpdateOrder::StartFirst => "start-first",
        },
        "monitor_ms": millis(policy.monitor),
        "min_healthy_ms": policy.min_healthy.map(millis),
        "max_failure_ratio": f64::from(policy.max_failure_ratio) / 1000.0,
        "failure_action": match policy.failure_action {
            FailureAction::Pause => "pause",
            FailureAction::Continue => "continue",
            FailureAction::Rollback => "rollback",
        },
        "progress_deadline_ms": millis(policy.progress_deadline),
        "canaries": policy.canaries,
        "promote_after_ms": policy.promote_after.map(millis),
    })
}

/// By the names of services, in Compose's words.
pub(super) fn depends_on(services: &BTreeMap<Name, Condition>) -> Value {
    let word = |condition: Condition| match condition {
        Condition::Started => "service_started",
        Condition::Healthy => "service_healthy",
        Condition::Completed => "service_completed_successfully",
    };
    services.iter().map(|(name, condition)| (name.to_string(), word(*condition))).collect()
}

pub(super) fn job(job: &JobSpec) -> Value {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let JobSpec { parallelism, deadline, history, schedule } = job;
    let schedule = schedule.as_ref().map(|schedule| {
        json!({
            "cron": schedule.cron(),
            "timezone": schedule.zone(),
            "overlap": schedule.overlap.as_str(),
            "missed": schedule.missed.as_str(),
        })
    });
    json!({
        "parallelism": parallelism,
        "deadline_ms": deadline.map(millis),
        "history": history,
        "schedule": schedule,
    })
}

fn rollout(rollout: &Rollout) -> Value {
    json!({
        "from": rollout.from.0,
        "to": rollout.to.0,
        "cause": rollout.cause.as_str(),
        "phase": rollout.phase.as_str(),
        "began": time(rollout.began),
        "progressed": time(rollout.progressed),
        "failed": rollout.failed,
        "promoted": rollout.promoted,
        "reason": rollout.reason,
    })
}

fn task(state: &State, reference: &str) -> Option<(&'static str, Value)> {
    let id: TaskId = reference.parse().ok()?;
    let row = state.task(id)?;
    let api::Task {
        service,
        slot,
        task,
        node,
        desired,
        phase,
        attempt,
        ready,
        image,
        address,
        ports,
        since,
        reason,
        node_address,
        warnings,
    } = views::view(state, id, row)?;
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| json!({ "host": port.host, "target": port.target, "protocol": port.protocol }))
        .collect();
    let exit = row.status.as_ref().and_then(|status| status.exit);
    let unless_empty = |text: String| if text.is_empty() { Value::Null } else { text.into() };
    Some((
        "task",
        json!({
            "task": task,
            "service": service,
            "slot": slot,
            "version": row.version.0,
            "created": time(row.created),
            "desired": desired,
            "phase": phase,
            "attempt": attempt,
            "ready": ready,
            "node": unless_empty(node),
            "node_address": unless_empty(node_address),
            "address": unless_empty(address),
            "ports": ports,
            "image": image,
            "since": time(Timestamp(since)),
            "exit": exit.map(|exit| exit.to_string()),
            "reason": unless_empty(reason),
            "warnings": warnings,
        }),
    ))
}

fn stack(state: &State, reference: &str) -> Option<(&'static str, Value)> {
    let name: Name = reference.parse().ok()?;
    let stack = state.stack(&name)?;
    let services: Vec<String> = stack.services.keys().map(|service| format!("{name}/{service}")).collect();
    Some((
        "stack",
        json!({
            "stack": name.as_str(),
            "generation": stack.generation.0,
            "deployed": time(stack.deployed),
            "status": if stack.removing { "removing" } else { "active" },
            "services": services,
        }),
    ))
}

fn node(state: &State, reference: &str) -> Option<(&'static str, Value)> {
    let (id, row) = state.node_named(reference)?;
    let view = views::node_view(state, id, row, None);
    let tasks: Vec<String> =
        state.tasks_on(id).filter(|(_, task)| task.is_live()).map(|(id, _)| id.to_string()).collect();
    Some((
        "node",
        json!({
            "node": view.node,
            "id": id.to_string(),
            "role": view.role,
            "status": view.status,
            "availability": view.availability,
            "address": view.address,
            "subnet": row.subnet.to_string(),
            "version": view.version,
            "platform": row.platform.as_ref().map(ToString::to_string),
            "drain_until": match row.availability {
                Availability::Drain { until: Some(until) } => Some(time(until)),
                Availability::Drain { until: None } | Availability::Active | Availability::Pause => None,
            },
            "labels": row.labels,
            "engine_labels": row.engine_labels,
            "capacity": { "cpu_millis": row.capacity.cpu.0, "memory_bytes": row.capacity.memory.0 },
            "allocated": view.allocated.map(|a| {
                let allocated = model::Capacity::from(a);
                json!({ "cpu_millis": allocated.cpu.0, "memory_bytes": allocated.memory.0 })
            }),
            "tasks": tasks,
        }),
    ))
}

fn image(state: &State, reference: &str) -> Option<(&'static str, Value)> {
    let digest = match reference.parse::<model::ImageName>() {
        Ok(name) => state.image_named(&name)?,
        Err(_) => reference.parse().ok()?,
    };
    Some(("image", image_document(state, digest)?))
}

/// What the cluster knows of an image.
pub(super) fn image_document(state: &State, digest: Digest) -> Option<Value> {
    let image = state.image(digest)?;
    let names: Vec<&str> = state.names_of(digest).map(|(name, _)| name.as_str()).collect();
    let asked = state.names_of(digest).filter_map(|(_, tag)| tag.asked).max();
    let copies: Vec<Value> = image
        .copies
        .iter()
        .map(|(id, since)| {
            let node = state.node(*id).map(|node| node.name.to_string());
            json!({ "node": node, "held_since": since.map(time) })
        })
        .collect();
    let uses = |service: &state::Service| service.templates.values().any(|template| template.image == digest);
    let services: Vec<String> = state
        .services()
        .filter(|(_, service)| !service.removing && uses(service))
        .map(|(_, service)| service.name.to_string())
        .collect();
    Some(json!({
        "names": names,
        "digest": digest.to_string(),
        // What nobody has looked at has no size yet.
        "size": (image.size.0 > 0).then_some(image.size.0),
        "imported": time(image.imported),
        "origin": image.origin.as_ref().map(ToString::to_string),
        "asked": asked.map(time),
        "copies": copies,
        "services": services,
    }))
}

#[cfg(test)]
mod tests {
    use model::TaskStatus;
    use state::Command;

    use super::*;
    use crate::fixture::World;

    fn inspected(world: &World, reference: &str) -> Value {
        let InspectReply { kind: _, json } = answer(&world.state, reference).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_service_says_what_was_declared_of_its_tasks() {
        let world = World::of("nodes n1\n service hello/web x2 cpu=0.5\n deploy");
        let service = inspected(&world, "hello/web");
        assert_eq!(service["replicas"], 2);
        let task = &service["task"];
        assert_eq!(task["reservations"]["cpu_millis"], 500);
        assert_eq!(task["health"], json!({ "check": "image" }));
        assert_eq!(task["container"]["stop"], json!({ "signal": null, "grace_ms": 10_000 }));
        assert_eq!((&task["readiness"], &task["pull_policy"]), (&Value::Null, &json!("missing")));
    }

    #[test]
    fn a_task_says_what_its_node_does_not_do() {
        let mut world = World::of("nodes n1\n service hello/web x1\n deploy\n settle");
        let id = world.task("web.1");
        assert_eq!(inspected(&world, &id.to_string())["warnings"], json!([]));
        let row = world.state.task(id).unwrap();
        let (node, status) = (row.placement.as_ref().unwrap().node, row.status.clone().unwrap());
        let warnings = vec!["no swap limit".to_owned()];
        let status = TaskStatus { seq: status.seq + 1, warnings, ..status };
        world.must(Command::Report { node, statuses: vec![(id, status)] });
        assert_eq!(inspected(&world, &id.to_string())["warnings"], json!(["no swap limit"]));
        let listed = views::tasks(&world.state, &api::ListRequest::default(), world.now).unwrap();
        assert_eq!(listed.tasks[0].warnings, ["no swap limit"]);
    }
}
