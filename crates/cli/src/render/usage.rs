//! `gantry stats` and `gantry top`.

use model::Bytes;
use serde::Serialize;
use wire::proto::stream::TaskStats;

use crate::render::Format;
use crate::render::document;
use crate::render::table::table;
use crate::times;
use crate::usage::{NodeUsage, Rates, TaskUsage};

/// What is not known yet.
const UNKNOWN: &str = "--";

/// Counters are since the container began. What is a second, and a percentage of CPU, is null until there are two moments to
/// compare.
#[derive(Debug, Serialize)]
pub(crate) struct TaskRow<'a> {
    name: &'a str,
    task: String,
    node: &'a str,
    at: Option<String>,
    /// 100 is one CPU.
    cpu_percent: Option<f64>,
    cpu_nanos: u64,
    throttled_nanos: u64,
    memory_bytes: u64,
    /// Its own limit; null if it has none.
    memory_limit_bytes: Option<u64>,
    /// Of its limit, or of its node's memory where that is less.
    memory_percent: Option<f64>,
    pids: u64,
    pids_limit: Option<u64>,
    received_bytes: u64,
    sent_bytes: u64,
    read_bytes: u64,
    write_bytes: u64,
    received_bytes_per_second: Option<f64>,
    sent_bytes_per_second: Option<f64>,
    read_bytes_per_second: Option<f64>,
    write_bytes_per_second: Option<f64>,
    oom_kills: u64,
}

/// One node, with what its tasks use together.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow<'a> {
    node: &'a str,
    cpus: u32,
    /// 100 is one CPU.
    cpu_percent: Option<f64>,
    memory_bytes: u64,
    memory_used_bytes: u64,
    tasks: usize,
}

/// `gantry top` as a document.
#[derive(Debug, Serialize)]
pub(crate) struct Overview<'a> {
    nodes: Vec<NodeRow<'a>>,
    tasks: Vec<TaskRow<'a>>,
}

pub(crate) fn overview<'a>(nodes: &'a [NodeUsage], tasks: &'a [(String, TaskUsage)]) -> Overview<'a> {
    Overview { nodes: nodes.iter().map(node_row).collect(), tasks: tasks.iter().map(task_row).collect() }
}

fn node_row(usage: &NodeUsage) -> NodeRow<'_> {
    let NodeUsage { node, cpus, memory, tasks, memory_used, cpu_percent } = usage;
    NodeRow {
        node,
        cpus: *cpus,
        cpu_percent: cpu_percent.map(rounded),
        memory_bytes: *memory,
        memory_used_bytes: *memory_used,
        tasks: *tasks,
    }
}

fn task_row((name, usage): &(String, TaskUsage)) -> TaskRow<'_> {
    let TaskUsage { task, node, at, counters, memory_limit, rates } = usage;
    let TaskStats {
        task: _,
        cpu_nanos,
        memory,
        memory_limit: own_limit,
        pids,
        pids_limit,
        read_bytes,
        write_bytes,
        received_bytes,
        sent_bytes,
        throttled_nanos,
        oom_kills,
    } = *counters;
    let rate = |of: fn(&Rates) -> f64| rates.as_ref().map(of).map(rounded);
    TaskRow {
        name,
        task: task.to_string(),
        node,
        at: times::rfc3339(*at),
        cpu_percent: rate(|rates| rates.cpu_percent),
        cpu_nanos,
        throttled_nanos,
        memory_bytes: memory,
        memory_limit_bytes: own_limit,
        memory_percent: percent(memory, *memory_limit).map(rounded),
        pids,
        pids_limit,
        received_bytes,
        sent_bytes,
        read_bytes,
        write_bytes,
        received_bytes_per_second: rate(|rates| rates.received_bytes),
        sent_bytes_per_second: rate(|rates| rates.sent_bytes),
        read_bytes_per_second: rate(|rates| rates.read_bytes),
        write_bytes_per_second: rate(|rates| rates.write_bytes),
        oom_kills,
    }
}

/// More decimals would be noise.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn percent(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64 * 100.0)
}

/// Tasks as they are asked for again and again: a table; in JSON an object a line, which is a stream of objects; in YAML
/// entries, which are one list however many follow.
pub(crate) fn tasks(format: Format, tasks: &[(String, TaskUsage)]) -> String {
    match format {
        Format::Table => tasks_table(tasks, false),
        Format::Wide => tasks_table(tasks, true),
        Format::Json => tasks.iter().map(task_row).map(|row| document::json_line(&row)).collect(),
        // Nothing at all is `[]`, which does not continue a list.
        Format::Yaml if tasks.is_empty() => String::new(),
        Format::Yaml => document::yaml(&tasks.iter().map(task_row).collect::<Vec<_>>()),
    }
}

pub(crate) fn tasks_table(tasks: &[(String, TaskUsage)], wide: bool) -> String {
    let mut header =
        vec!["NAME", "NODE", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    if wide {
        header.extend(["TASK", "THROTTLED", "OOM KILLS"]);
    }
    let rows: Vec<Vec<String>> = tasks.iter().map(|task| cells(task, wide)).collect();
    table(&header, &rows)
}

fn cells((name, usage): &(String, TaskUsage), wide: bool) -> Vec<String> {
    let TaskUsage { task, node, at: _, counters, memory_limit, rates } = usage;
    let both = |one: u64, other: u64| format!("{} / {}", Bytes(one), Bytes(other));
    let mut cells = vec![
        name.clone(),
        node.clone(),
        shown(rates.map(|rates| rates.cpu_percent)),
        both(counters.memory, *memory_limit),
        shown(percent(counters.memory, *memory_limit)),
        both(counters.received_bytes, counters.sent_bytes),
        both(counters.read_bytes, counters.write_bytes),
        counters.pids.to_string(),
    ];
    if wide {
        let throttled = std::time::Duration::from_nanos(counters.throttled_nanos);
        cells.extend([task.to_string(), times::length(throttled), counters.oom_kills.to_string()]);
    }
    cells
}

pub(crate) fn nodes_table(nodes: &[NodeUsage]) -> String {
    let cells = |usage: &NodeUsage| {
        let NodeUsage { node, cpus, memory, tasks, memory_used, cpu_percent } = usage;
        vec![
            node.clone(),
            cpus.to_string(),
            shown(*cpu_percent),
            format!("{} / {}", Bytes(*memory_used), Bytes(*memory)),
            shown(percent(*memory_used, *memory)),
            tasks.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = nodes.iter().map(cells).collect();
    table(&["NODE", "CPUS", "CPU %", "MEM USAGE / TOTAL", "MEM %", "TASKS"], &rows)
}

fn shown(percent: Option<f64>) -> String {
    percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent:.2}%"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::usage::Usage;
    use crate::usage::tests::{look, stats};

    /// Of two tasks the second has been there for one look only.
    fn usage() -> (Vec<NodeUsage>, Vec<(String, TaskUsage)>) {
        let mut usage = Usage::default();
        usage.take("n1", look(1_700_000_000_000, vec![stats(1, 100, 1 << 20, 1000)]));
        let web = stats(1, 850, 8 << 20, 5000);
        usage.take("n1", look(1_700_000_002_000, vec![web, stats(2, 5, 512, 0)]));
        let name = |usage: TaskUsage| (format!("hello/{}.1", usage.task.service), usage);
        (usage.nodes(), usage.tasks().into_iter().map(name).collect())
    }

    #[test]
    fn a_table_has_what_docker_s_has_and_the_node() {
        let (nodes, tasks) = usage();
        expect![[r#"
            NAME        NODE  CPU %   MEM USAGE / LIMIT  MEM %   NET I/O              BLOCK I/O          PIDS
            hello/s1.1  n1    37.50%  8 MiB / 64 MiB     12.50%  14.6 KiB / 19.5 KiB  4.8 KiB / 9.7 KiB  3
            hello/s2.1  n1    --      512 B / 64 MiB     0.00%   0 B / 0 B            0 B / 0 B          3
        "#]]
        .assert_eq(&tasks_table(&tasks, false));
        expect![[r#"
            NODE  CPUS  CPU %   MEM USAGE / TOTAL  MEM %  TASKS
            n1    2     37.50%  8 MiB / 8 GiB      0.10%  2
        "#]]
        .assert_eq(&nodes_table(&nodes));
        let wide = tasks_table(&tasks, true);
        assert!(wide.contains("TASK    THROTTLED  OOM KILLS\n") && wide.contains("s1-1-1  0 ms"), "{wide}");
    }

    #[test]
    fn json_is_an_object_a_line_with_counters_and_rates() {
        let (nodes, usage) = usage();
        expect![[r#"
            {"name":"hello/s1.1","task":"s1-1-1","node":"n1","at":"2023-11-14T22:13:22.000Z","cpu_percent":37.5,"cpu_nanos":850000000,"throttled_nanos":0,"memory_bytes":8388608,"memory_limit_bytes":67108864,"memory_percent":12.5,"pids":3,"pids_limit":null,"received_bytes":15000,"sent_bytes":20000,"read_bytes":5000,"write_bytes":10000,"received_bytes_per_second":6000.0,"sent_bytes_per_second":8000.0,"read_bytes_per_second":2000.0,"write_bytes_per_second":4000.0,"oom_kills":0}
            {"name":"hello/s2.1","task":"s2-1-1","node":"n1","at":"2023-11-14T22:13:22.000Z","cpu_percent":null,"cpu_nanos":5000000,"throttled_nanos":0,"memory_bytes":512,"memory_limit_bytes":67108864,"memory_percent":0.0,"pids":3,"pids_limit":null,"received_bytes":0,"sent_bytes":0,"read_bytes":0,"write_bytes":0,"received_bytes_per_second":null,"sent_bytes_per_second":null,"read_bytes_per_second":null,"write_bytes_per_second":null,"oom_kills":0}
        "#]]
        .assert_eq(&tasks(Format::Json, &usage));
        let twice = tasks(Format::Yaml, &usage).repeat(2);
        assert_eq!(twice.matches("- at: ").count(), 4, "one list: {twice}");
        assert_eq!(tasks(Format::Yaml, &[]), "");
        let value = serde_json::to_value(overview(&nodes, &usage)).unwrap();
        assert_eq!(value["nodes"][0]["cpus"], 2);
        assert_eq!(value["tasks"][1]["name"], "hello/s2.1");
    }
}
