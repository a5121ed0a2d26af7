//! One object as a JSON document.

use model::{Digest, Name, TaskId, Timestamp};
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

fn time(at: Timestamp) -> Value {
    // Milliseconds, as everywhere on the wire; the client writes them as RFC 3339.
    json!({ "unix_ms": at.0 })
}

fn service(state: &State, reference: &str) -> Option<(&'static str, Value)> {
    let (id, service) = state.service_named(&reference.parse().ok()?)?;
    let task = &service.spec.task;
    let resources = &task.resources;
    let constraints: Vec<String> = task.constraints.iter().map(ToString::to_string).collect();
    let ports: Vec<Value> = task
        .ports
        .iter()
        .map(|port| {
            let host = match port.publish {
                model::Publish::AnyHostPort => Value::Null,
                model::Publish::HostPort(host) => host.into(),
            };
            json!({ "target": port.target, "host": host, "protocol": port.protocol.as_str() })
        })
        .collect();
    let versions: Vec<Value> = service
        .templates
        .iter()
        .map(|(version, template)| {
            json!({
                "version": version.0,
                "image": template.task.image.as_str(),
                "digest": template.image.to_string(),
            })
        })
        .collect();
    let restart = &task.restart;
    let condition = match restart.condition {
        model::RestartCondition::Never => "none",
        model::RestartCondition::OnFailure => "on-failure",
        model::RestartCondition::Always => "any",
    };
    Some((
        "service",
        json!({
            "service": service.name.to_string(),
            "id": id.to_string(),
            "generation": service.generation.0,
            "created": time(service.created),
            "mode": "replicated",
            "replicas": service.spec.replicas,
            "labels": service.spec.labels,
            "version": service.version.0,
            "versions": versions,
            "task": {
                "image": task.image.as_str(),
                "entrypoint": task.entrypoint,
                "command": task.command,
                "environment": task.environment,
                "labels": task.labels,
                "working_dir": task.working_dir,
                "user": task.user,
                "ports": ports,
                "constraints": constraints,
                "reservations": {
                    "cpu_millis": resources.reservations.cpu.0,
                    "memory_bytes": resources.reservations.memory.0,
                },
                "limits": {
                    "cpu_millis": resources.limits.cpu.map(|cpu| cpu.0),
                    "memory_bytes": resources.limits.memory.map(|memory| memory.0),
                    "pids": resources.limits.pids,
                },
                "restart": {
                    "condition": condition,
                    "delay_ms": restart.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
                    "max_attempts": restart.max_attempts,
                    "window_ms": u64::try_from(restart.window.as_millis()).unwrap_or(u64::MAX),
                },
            },
        }),
    ))
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
            "labels": row.labels,
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
