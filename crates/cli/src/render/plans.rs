//! `gantry plan`.

use std::collections::BTreeMap;

use model::Name;
use serde::Serialize;
use wire::proto::api::{PlanReply, PlannedService, PlannedTask};

use crate::render::plain;
use crate::render::rollouts::{Field, field};

#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    stack: &'a str,
    /// For `gantry deploy --check-index`.
    index: u64,
    services: Vec<Service<'a>>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct Service<'a> {
    service: &'a str,
    /// `create | replace | in-place | scale | settings | remove | unchanged`
    action: &'a str,
    changes: Vec<Field<'a>>,
    tasks: Vec<Task<'a>>,
    /// Slots in which nothing would change.
    kept: u32,
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct Task<'a> {
    slot: u32,
    /// `create | replace | in-place | stop | unplaced`
    action: &'a str,
    from_node: Option<&'a str>,
    to_node: Option<&'a str>,
    reason: Option<&'a str>,
}

pub(crate) fn document<'a>(stack: &'a Name, plan: &'a PlanReply) -> Document<'a> {
    let unless_empty = |text: &'a str| (!text.is_empty()).then_some(text);
    let task = move |task: &'a PlannedTask| Task {
        slot: task.slot,
        action: &task.action,
        from_node: unless_empty(&task.from_node),
        to_node: unless_empty(&task.to_node),
        reason: unless_empty(&task.reason),
    };
    let service = |service: &'a PlannedService| Service {
        service: &service.service,
        action: &service.action,
        changes: service.changes.iter().map(field).collect(),
        tasks: service.tasks.iter().map(task).collect(),
        kept: service.kept,
        notes: &service.notes,
    };
    Document {
        stack: stack.as_str(),
        index: plan.generation,
        services: plan.services.iter().map(service).collect(),
        warnings: &plan.warnings,
    }
}

/// For people: what changes, and then how to make it so.
pub(crate) fn text(stack: &Name, plan: &PlanReply, wide: bool) -> String {
    let mut text = String::new();
    for service in &plan.services {
        text += &format!("{}\n", plain(&head(service)));
        if service.action == "unchanged" {
            continue;
        }
        if service.action != "create" && service.action != "remove" {
            for change in &service.changes {
                let shown = |value: &str| if value.is_empty() { "-".to_owned() } else { plain(value) };
                text += &format!(
                    "    {}: {} -> {}\n",
                    plain(&change.path),
                    shown(&change.before),
                    shown(&change.after)
                );
            }
        }
        let lines = if wide { service.tasks.iter().map(slot).collect() } else { summary(&service.tasks) };
        let notes = service.notes.iter().cloned();
        for line in lines.into_iter().chain(notes) {
            text += &format!("    {}\n", plain(&line));
        }
    }
    let nothing = plan.services.iter().all(|service| service.action == "unchanged");
    let index = plan.generation;
    text += &match nothing {
        true => format!("{stack}: nothing would change\n"),
        false => format!("to do this and nothing else: gantry deploy --check-index {index} -f … {stack}\n"),
    };
    text
}

/// `+ hello/web: create, 3 slots`
fn head(service: &PlannedService) -> String {
    let sign = match service.action.as_str() {
        "create" => '+',
        "remove" => '-',
        "unchanged" => ' ',
        _ => '~',
    };
    let kept = match (service.kept, service.action.as_str()) {
        (0, _) | (_, "unchanged") => String::new(),
        (1, _) => ", one slot is left alone".to_owned(),
        (kept, _) => format!(", {kept} slots are left alone"),
    };
    format!("{sign} {}: {}{kept}", service.service, service.action)
}

fn slot(task: &PlannedTask) -> String {
    let PlannedTask { slot, action, from_node, to_node, reason } = task;
    let place = match (from_node.as_str(), to_node.as_str()) {
        ("", "") => String::new(),
        ("", to) => format!(" on {to}"),
        (from, "") => format!(" on {from}"),
        (from, to) if from == to => format!(" on {to}"),
        (from, to) => format!(" {from} -> {to}"),
    };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("slot {slot}: {action}{place}{reason}")
}

/// `create 3: 2 on n1, 1 on n2`, a line an action; and each reason for which tasks would have no node.
fn summary(tasks: &[PlannedTask]) -> Vec<String> {
    let mut lines = Vec::new();
    for action in ["create", "replace", "in-place", "stop"] {
        let of: Vec<&PlannedTask> = tasks.iter().filter(|task| task.action == action).collect();
        if of.is_empty() {
            continue;
        }
        let mut on: BTreeMap<&str, u32> = BTreeMap::new();
        for task in &of {
            let node = if action == "stop" { &task.from_node } else { &task.to_node };
            *on.entry(node.as_str()).or_default() += 1;
        }
        let places: Vec<String> = on.iter().map(|(node, count)| format!("{count} on {node}")).collect();
        lines.push(format!("{action} {}: {}", of.len(), places.join(", ")));
    }
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.action == "unplaced") {
        *reasons.entry(task.reason.as_str()).or_default() += 1;
    }
    lines.extend(reasons.iter().map(|(why, count)| format!("no node for {count}: {why}")));
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use wire::proto::api::ChangedField;

    use super::*;
    use crate::render::document as write;

    fn plan() -> PlanReply {
        let task = |slot, action: &str, from: &str, to: &str| PlannedTask {
            slot,
            action: action.to_owned(),
            from_node: from.to_owned(),
            to_node: to.to_owned(),
            reason: String::new(),
        };
        let unplaced = PlannedTask {
            reason: "no node fits: not enough CPU on 3 nodes".to_owned(),
            ..task(4, "unplaced", "", "")
        };
        let service = |name: &str, action: &str| PlannedService {
            service: format!("hello/{name}"),
            action: action.to_owned(),
            ..PlannedService::default()
        };
        let change = ChangedField {
            path: "task.command".to_owned(),
            before: String::new(),
            after: r#"["two"]"#.to_owned(),
        };
        PlanReply {
            generation: 42,
            services: vec![
                service("cache", "unchanged"),
                PlannedService {
                    tasks: vec![
                        task(1, "create", "", "n1"),
                        task(2, "create", "", "n2"),
                        task(3, "create", "", "n1"),
                        unplaced,
                    ],
                    ..service("db", "create")
                },
                PlannedService { tasks: vec![task(1, "stop", "n3", "")], ..service("old", "remove") },
                PlannedService {
                    changes: vec![change],
                    tasks: vec![task(1, "replace", "n1", "n2"), task(2, "replace", "n2", "n2")],
                    kept: 1,
                    notes: vec!["one slot at a time, each stopped before its successor starts".to_owned()],
                    ..service("web", "replace")
                },
            ],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_plan_reads_as_a_list_of_what_would_be_done() {
        let stack = "hello".parse().unwrap();
        expect![[r#"
              hello/cache: unchanged
            + hello/db: create
                create 3: 2 on n1, 1 on n2
                no node for 1: no node fits: not enough CPU on 3 nodes
            - hello/old: remove
                stop 1: 1 on n3
            ~ hello/web: replace, one slot is left alone
                task.command: - -> ["two"]
                replace 2: 2 on n2
                one slot at a time, each stopped before its successor starts
            to do this and nothing else: gantry deploy --check-index 42 -f … hello
        "#]]
        .assert_eq(&text(&stack, &plan(), false));
        expect![[r#"
              hello/cache: unchanged
            + hello/db: create
                slot 1: create on n1
                slot 2: create on n2
                slot 3: create on n1
                slot 4: unplaced: no node fits: not enough CPU on 3 nodes
            - hello/old: remove
                slot 1: stop on n3
            ~ hello/web: replace, one slot is left alone
                task.command: - -> ["two"]
                slot 1: replace n1 -> n2
                slot 2: replace on n2
                one slot at a time, each stopped before its successor starts
            to do this and nothing else: gantry deploy --check-index 42 -f … hello
        "#]]
        .assert_eq(&text(&stack, &plan(), true));
        let nothing = PlanReply { services: plan().services[..1].to_vec(), ..plan() };
        expect![[r#"
              hello/cache: unchanged
            hello: nothing would change
        "#]]
        .assert_eq(&text(&stack, &nothing, false));
    }

    #[test]
    fn json_has_every_slot() {
        let (stack, plan) = ("hello".parse().unwrap(), plan());
        let one = PlanReply { services: plan.services[3..].to_vec(), ..plan };
        expect![[r#"
            {
              "stack": "hello",
              "index": 42,
              "services": [
                {
                  "service": "hello/web",
                  "action": "replace",
                  "changes": [
                    {
                      "path": "task.command",
                      "before": null,
                      "after": [
                        "two"
                      ]
                    }
                  ],
                  "tasks": [
                    {
                      "slot": 1,
                      "action": "replace",
                      "from_node": "n1",
                      "to_node": "n2",
                      "reason": null
                    },
                    {
                      "slot": 2,
                      "action": "replace",
                      "from_node": "n2",
                      "to_node": "n2",
                      "reason": null
                    }
                  ],
                  "kept": 1,
                  "notes": [
                    "one slot at a time, each stopped before its successor starts"
                  ]
                }
              ],
              "warnings": []
            }
        "#]]
        .assert_eq(&write::json(&document(&stack, &one)));
    }
}
