//! `gantry ps`.

use serde::Serialize;
use wire::proto::api;

use crate::render::known;
use crate::render::table::table;
use crate::times;

/// One task, or a slot that waits for one.
#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    service: &'a str,
    slot: u32,
    task: Option<&'a str>,
    node: Option<&'a str>,
    /// `running | stopped | removed`
    desired: &'a str,
    /// `waiting | pending | assigned | preparing | created | starting | running | stopping | restarting | exited | failed |
    /// lost | cancelled`
    phase: &'a str,
    /// From 1.
    attempt: Option<u32>,
    ready: bool,
    image: Option<&'a str>,
    address: Option<&'a str>,
    ports: Vec<Port<'a>>,
    since: Option<String>,
    reason: Option<&'a str>,
    node_address: Option<&'a str>,
    /// What was asked for and its node does not do.
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct Port<'a> {
    host: u32,
    target: u32,
    protocol: &'a str,
}

pub(crate) fn rows(tasks: &[api::Task]) -> Vec<Row<'_>> {
    tasks.iter().map(row).collect()
}

fn row(task: &api::Task) -> Row<'_> {
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
    } = task;
    Row {
        service,
        slot: *slot,
        task: known(task),
        node: known(node),
        desired,
        phase,
        attempt: Some(*attempt).filter(|attempt| *attempt > 0),
        ready: *ready,
        image: known(image),
        address: known(address),
        ports: ports.iter().map(port).collect(),
        since: times::rfc3339(*since),
        reason: known(reason),
        node_address: known(node_address),
        warnings,
    }
}

fn port(port: &api::Port) -> Port<'_> {
    let api::Port { host, target, protocol } = port;
    Port { host: *host, target: *target, protocol }
}

/// `now` is in milliseconds since the epoch.
pub(crate) fn tasks_table(tasks: &[api::Task], wide: bool, now: u64) -> String {
    if wide {
        let header = [
            "SERVICE", "SLOT", "TASK", "NODE", "DESIRED", "PHASE", "ATTEMPT", "READY", "IMAGE", "ADDRESS",
            "PORTS", "SINCE", "REASON", "WARNINGS",
        ];
        return table(&header, &tasks.iter().map(|task| wide_cells(task, now)).collect::<Vec<_>>());
    }
    let header = ["SERVICE", "SLOT", "NODE", "PHASE", "READY", "PORTS", "SINCE", "REASON"];
    table(&header, &tasks.iter().map(|task| cells(task, now)).collect::<Vec<_>>())
}

fn cells(task: &api::Task, now: u64) -> Vec<String> {
    vec![
        task.service.clone(),
        task.slot.to_string(),
        task.node.clone(),
        task.phase.clone(),
        yes_no(task.ready),
        ports(task),
        times::ago(now, task.since),
        reason(task),
    ]
}

/// Why it is where it is; or that it is so with less than was asked for.
fn reason(task: &api::Task) -> String {
    match task.warnings.as_slice() {
        [first, others @ ..] if task.reason.is_empty() => match others.len() {
            0 => format!("warning: {first}"),
            more => format!("warning: {first} (and {more} more)"),
        },
        _ => task.reason.clone(),
    }
}

fn wide_cells(task: &api::Task, now: u64) -> Vec<String> {
    vec![
        task.service.clone(),
        task.slot.to_string(),
        task.task.clone(),
        task.node.clone(),
        task.desired.clone(),
        task.phase.clone(),
        task.attempt.to_string(),
        yes_no(task.ready),
        task.image.clone(),
        task.address.clone(),
        ports(task),
        times::ago(now, task.since),
        task.reason.clone(),
        task.warnings.join("; "),
    ]
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// Where its ports are reached: `10.1.2.3:30001->80/tcp`.
fn ports(task: &api::Task) -> String {
    let one = |port: &api::Port| {
        let colon = if task.node_address.is_empty() { "" } else { ":" };
        format!("{}{colon}{}->{}/{}", task.node_address, port.host, port.target, port.protocol)
    };
    task.ports.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    const NOW: u64 = 1_700_000_060_000;

    fn running() -> api::Task {
        api::Task {
            service: "hello/web".to_owned(),
            slot: 1,
            task: "s1-1-1".to_owned(),
            node: "n1".to_owned(),
            desired: "running".to_owned(),
            phase: "running".to_owned(),
            attempt: 1,
            ready: true,
            image: "nginx:latest".to_owned(),
            address: "10.208.0.2".to_owned(),
            ports: vec![api::Port { host: 30001, target: 80, protocol: "tcp".to_owned() }],
            since: 1_700_000_000_000,
            reason: String::new(),
            node_address: "10.199.7.1".to_owned(),
            warnings: Vec::new(),
        }
    }

    fn degraded(warnings: &[&str]) -> api::Task {
        api::Task { warnings: warnings.iter().map(|text| (*text).to_owned()).collect(), ..running() }
    }

    fn waiting() -> api::Task {
        api::Task {
            service: "hello/web".to_owned(),
            slot: 2,
            desired: "running".to_owned(),
            phase: "waiting".to_owned(),
            reason: "no node has 4 CPUs free".to_owned(),
            ..api::Task::default()
        }
    }

    #[test]
    fn the_table_says_where_a_task_is_and_why_one_is_nowhere() {
        expect![[r#"
            SERVICE    SLOT  NODE  PHASE    READY  PORTS                     SINCE   REASON
            hello/web  1     n1    running  yes    10.199.7.1:30001->80/tcp  1m ago
            hello/web  2     -     waiting  no     -                         -       no node has 4 CPUs free
        "#]]
        .assert_eq(&tasks_table(&[running(), waiting()], false, NOW));
    }

    #[test]
    fn the_wide_table_has_every_column() {
        expect![[r#"
            SERVICE    SLOT  TASK    NODE  DESIRED  PHASE    ATTEMPT  READY  IMAGE         ADDRESS     PORTS                     SINCE   REASON  WARNINGS
            hello/web  1     s1-1-1  n1    running  running  1        yes    nginx:latest  10.208.0.2  10.199.7.1:30001->80/tcp  1m ago  -
            hello/web  1     s1-1-1  n1    running  running  1        yes    nginx:latest  10.208.0.2  10.199.7.1:30001->80/tcp  1m ago  -       no swap limit; no quota
        "#]]
        .assert_eq(&tasks_table(&[running(), degraded(&["no swap limit", "no quota"])], true, NOW));
    }

    #[test]
    fn a_task_with_less_than_was_asked_for_is_marked_unless_there_is_something_else_to_say() {
        let failing = api::Task { reason: "exit code 1".to_owned(), ..degraded(&["no swap limit"]) };
        let tasks = [degraded(&["no swap limit"]), degraded(&["no swap limit", "no quota", "no"]), failing];
        expect![[r#"
            SERVICE    SLOT  NODE  PHASE    READY  PORTS                     SINCE   REASON
            hello/web  1     n1    running  yes    10.199.7.1:30001->80/tcp  1m ago  warning: no swap limit
            hello/web  1     n1    running  yes    10.199.7.1:30001->80/tcp  1m ago  warning: no swap limit (and 2 more)
            hello/web  1     n1    running  yes    10.199.7.1:30001->80/tcp  1m ago  exit code 1
        "#]]
        .assert_eq(&tasks_table(&tasks, false, NOW));
    }

    #[test]
    fn json_has_the_documented_fields_and_unknown_is_null() {
        expect![[r#"
            [
              {
                "service": "hello/web",
                "slot": 1,
                "task": "s1-1-1",
                "node": "n1",
                "desired": "running",
                "phase": "running",
                "attempt": 1,
                "ready": true,
                "image": "nginx:latest",
                "address": "10.208.0.2",
                "ports": [
                  {
                    "host": 30001,
                    "target": 80,
                    "protocol": "tcp"
                  }
                ],
                "since": "2023-11-14T22:13:20.000Z",
                "reason": null,
                "node_address": "10.199.7.1",
                "warnings": [
                  "no swap limit"
                ]
              },
              {
                "service": "hello/web",
                "slot": 2,
                "task": null,
                "node": null,
                "desired": "running",
                "phase": "waiting",
                "attempt": null,
                "ready": false,
                "image": null,
                "address": null,
                "ports": [],
                "since": null,
                "reason": "no node has 4 CPUs free",
                "node_address": null,
                "warnings": []
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[degraded(&["no swap limit"]), waiting()])));
    }

    #[test]
    fn yaml_has_the_same_fields() {
        let text = document::yaml(&rows(&[waiting()]));
        let value = serde_json::to_value(rows(&[waiting()])).unwrap();
        let fields = value[0].as_object().unwrap();
        assert_eq!(text.lines().count(), fields.len(), "{text}");
        for name in fields.keys() {
            assert!(text.contains(&format!("{name}: ")), "{name} is missing:\n{text}");
        }
    }
}
