//! `gantry top` of one task.

use std::time::Duration;

use model::Bytes;
use serde::Serialize;
use wire::proto::stream::Process;

use crate::render::table::table;
use crate::times;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    /// In the container.
    pid: u32,
    /// On the node.
    node_pid: u32,
    uid: u32,
    elapsed_ms: u64,
    cpu_ms: u64,
    memory_bytes: u64,
    command: &'a str,
}

pub(crate) fn rows(processes: &[Process]) -> Vec<Row<'_>> {
    processes.iter().map(row).collect()
}

fn row(process: &Process) -> Row<'_> {
    let Process { pid, node_pid, uid, elapsed_ms, cpu_ms, memory, command } = process;
    Row {
        pid: *pid,
        node_pid: *node_pid,
        uid: *uid,
        elapsed_ms: *elapsed_ms,
        cpu_ms: *cpu_ms,
        memory_bytes: *memory,
        command,
    }
}

pub(crate) fn processes_table(processes: &[Process], wide: bool) -> String {
    let mut header = vec!["PID", "UID", "ELAPSED", "CPU", "MEMORY", "COMMAND"];
    if wide {
        header.insert(1, "NODE PID");
    }
    let cells = |process: &Process| {
        let Process { pid, node_pid, uid, elapsed_ms, cpu_ms, memory, command } = process;
        let length = |millis: u64| times::length(Duration::from_millis(millis));
        let mut cells = vec![
            pid.to_string(),
            uid.to_string(),
            length(*elapsed_ms),
            length(*cpu_ms),
            Bytes(*memory).to_string(),
            command.clone(),
        ];
        if wide {
            cells.insert(1, node_pid.to_string());
        }
        cells
    };
    table(&header, &processes.iter().map(cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    fn nginx() -> Process {
        Process {
            pid: 7,
            node_pid: 4711,
            uid: 101,
            elapsed_ms: 61_000,
            cpu_ms: 120,
            memory: 5 << 20,
            command: "nginx: worker\tprocess".to_owned(),
        }
    }

    #[test]
    fn processes_are_listed_by_their_ids_in_the_container() {
        expect![[r#"
            PID  UID  ELAPSED    CPU     MEMORY  COMMAND
            7    101  1 min 1 s  120 ms  5 MiB   nginx: worker\tprocess
        "#]]
        .assert_eq(&processes_table(&[nginx()], false));
        let wide = processes_table(&[nginx()], true);
        assert!(wide.starts_with("PID  NODE PID  UID"), "{wide}");
        expect![[r#"
            [
              {
                "pid": 7,
                "node_pid": 4711,
                "uid": 101,
                "elapsed_ms": 61000,
                "cpu_ms": 120,
                "memory_bytes": 5242880,
                "command": "nginx: worker\tprocess"
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[nginx()])));
    }
}
