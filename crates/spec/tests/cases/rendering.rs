//! The model as text: what is not at its default, one thing a line.

use std::collections::BTreeMap;
use std::fmt::Debug;

use model::{Limits, PortSpec, Publish, Reservations, RestartPolicy, ServiceSpec, TaskSpec};
use spec::{Loaded, Problem, Problems, Project};

pub(crate) fn outcome(result: &Result<Loaded, Problems>) -> String {
    match result {
        Ok(Loaded { project, warnings }) => project_text(project) + &problem_lines("warning", warnings),
        Err(problems) => {
            let mut text = problem_lines("error", problems.as_slice());
            if problems.omitted() > 0 {
                text += &format!("and {} more\n", problems.omitted());
            }
            text + &problem_lines("warning", problems.warnings())
        }
    }
}

fn problem_lines(level: &str, problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{level} {problem}\n")).collect()
}

fn project_text(Project { name, services }: &Project) -> String {
    let mut text = String::new();
    if let Some(name) = name {
        text += &format!("project {name}\n");
    }
    for (name, spec) in services {
        text += &format!("{name}\n");
        for line in service_lines(spec) {
            text += &format!("  {line}\n");
        }
    }
    text
}

fn service_lines(ServiceSpec { replicas, labels, task }: &ServiceSpec) -> Vec<String> {
    let TaskSpec {
        image,
        entrypoint,
        command,
        environment,
        labels: container_labels,
        working_dir,
        user,
        ports,
        resources,
        restart,
        constraints,
        container: _,
        health: _,
        readiness: _,
        pull: _,
    } = task;
    let mut lines = vec![format!("image {image}")];
    if *replicas != 1 {
        lines.push(format!("replicas {replicas}"));
    }
    lines.extend(labels.iter().map(|(key, value)| format!("service label {key} = {value:?}")));
    optional(&mut lines, "entrypoint", entrypoint);
    optional(&mut lines, "command", command);
    lines.extend(pairs("env", environment));
    lines.extend(pairs("label", container_labels));
    optional(&mut lines, "working_dir", working_dir);
    optional(&mut lines, "user", user);
    lines.extend(ports.iter().map(port_line));
    lines.extend(reservation_line(resources.reservations));
    lines.extend(limit_line(resources.limits));
    if *restart != RestartPolicy::default() {
        let RestartPolicy { condition, delay, max_attempts, window } = restart;
        lines.push(format!("restart {condition:?} delay={delay:?} max={max_attempts:?} window={window:?}"));
    }
    lines.extend(constraints.iter().map(|constraint| format!("where {constraint}")));
    lines
}

fn optional(lines: &mut Vec<String>, name: &str, value: &Option<impl Debug>) {
    if let Some(value) = value {
        lines.push(format!("{name} {value:?}"));
    }
}

fn pairs(name: &str, pairs: &BTreeMap<String, String>) -> Vec<String> {
    pairs.iter().map(|(key, value)| format!("{name} {key} = {value:?}")).collect()
}

fn port_line(PortSpec { target, protocol, publish }: &PortSpec) -> String {
    let host = match publish {
        Publish::AnyHostPort => "any".to_owned(),
        Publish::HostPort(port) => port.to_string(),
    };
    format!("port {target}/{} at {host}", protocol.as_str())
}

fn reservation_line(Reservations { cpu, memory }: Reservations) -> Option<String> {
    (cpu.0 > 0 || memory.0 > 0).then(|| format!("reserved {cpu} cpus, {memory}"))
}

fn limit_line(Limits { cpu, memory, pids }: Limits) -> Option<String> {
    let parts: Vec<String> = [
        cpu.map(|cpu| format!("{cpu} cpus")),
        memory.map(|memory| memory.to_string()),
        pids.map(|pids| format!("{pids} pids")),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| format!("limited to {}", parts.join(", ")))
}
