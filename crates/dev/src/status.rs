//! `status`: how each node of a cluster is. It takes no lock, so that it also works beside a command that waits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use model::Name;
use serde::Serialize;

use crate::client::role;
use crate::daemon::{self, DaemonError};
use crate::layout::{Layout, NodeNumber};
use crate::links::{self, LinkError};
use crate::process::Vitals;
use crate::record::{Record, RecordError};
use crate::world::{self, WorldError};

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    /// The table, with each node's role and disk.
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    #[error("there is no cluster {0}")]
    NoCluster(Name),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error("cannot look at the links of cluster {cluster}")]
    Links { cluster: Name, source: LinkError },
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    node: String,
    role: &'static str,
    address: Ipv4Addr,
    daemon: Daemon,
    link: Link,
    /// The daemon's, while it lives.
    pid: Option<i32>,
    disk: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Daemon {
    Running,
    Paused,
    /// The rest of the node is there.
    Killed,
    /// Nothing of the node is there.
    Crashed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Link {
    Up,
    Down,
}

pub(crate) fn load(layout: &Layout) -> Result<Record, StatusError> {
    Record::load(layout)?.ok_or_else(|| StatusError::NoCluster(layout.cluster().clone()))
}

pub(crate) fn rows(layout: &Layout) -> Result<Vec<Row>, StatusError> {
    let record = load(layout)?;
    let ports = match world::living(record.switch)? {
        Some(switch) => links::ports(switch)
            .map_err(|source| StatusError::Links { cluster: layout.cluster().clone(), source })?,
        None => BTreeMap::new(),
    };
    let mut rows = Vec::new();
    for (node, known) in &record.nodes {
        let held = world::living(known.holder)?.is_some();
        let daemon = daemon::living(layout, *node)?;
        let link = ports.get(&node.to_string()).copied().unwrap_or(false);
        rows.push(Row {
            pid: daemon.map(|(process, _)| process.pid),
            daemon: daemon_of(held, daemon.map(|(_, vitals)| vitals)),
            link: if link { Link::Up } else { Link::Down },
            ..row(layout, &record, *node, known.manager)
        });
    }
    Ok(rows)
}

/// A node of which nothing is there.
fn row(layout: &Layout, record: &Record, node: NodeNumber, manager: bool) -> Row {
    Row {
        node: node.to_string(),
        role: role(manager),
        address: record.ip(node),
        daemon: Daemon::Crashed,
        link: Link::Down,
        pid: None,
        disk: layout.data(node).display().to_string(),
    }
}

fn daemon_of(held: bool, daemon: Option<Vitals>) -> Daemon {
    match (held, daemon) {
        (false, _) => Daemon::Crashed,
        (true, Some(Vitals::Running)) => Daemon::Running,
        (true, Some(Vitals::Stopped)) => Daemon::Paused,
        (true, Some(Vitals::Gone) | None) => Daemon::Killed,
    }
}

pub(crate) fn render(rows: &[Row], format: Format) -> String {
    match format {
        Format::Table => table(rows, false),
        Format::Wide => table(rows, true),
        Format::Json => serde_json::to_string_pretty(rows).expect("rows are plain text and numbers"),
        Format::Yaml => yaml(rows),
    }
}

fn table(rows: &[Row], wide: bool) -> String {
    let mut lines = vec![["NODE", "ADDRESS", "DAEMON", "LINK", "PID", "ROLE", "DISK"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let pid = row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let (daemon, link) = (word(&row.daemon), word(&row.link));
        [row.node.clone(), row.address.to_string(), daemon, link, pid, row.role.to_owned(), row.disk.clone()]
    }));
    let columns = if wide { 7 } else { 5 };
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(text, "{}", cells.join("  ").trim_end()).expect("writing to a string does not fail");
    }
    text
}

/// An enum's word is the same in every format.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("an enum without fields is a word");
    value.as_str().map(str::to_owned).unwrap_or_default()
}

/// JSON's scalars are YAML's.
fn yaml(rows: &[Row]) -> String {
    const KEYS: [&str; 7] = ["node", "role", "address", "daemon", "link", "pid", "disk"];
    let mut text = String::new();
    for row in rows {
        let row = serde_json::to_value(row).expect("rows are plain text and numbers");
        for (at, key) in KEYS.into_iter().enumerate() {
            let lead = if at == 0 { "-" } else { " " };
            writeln!(text, "{lead} {key}: {}", row[key]).expect("writing to a string does not fail");
        }
    }
    if text.is_empty() { "[]\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(format: Format, expected: &Expect) {
        let layout = Layout::new("dev".parse().unwrap(), None);
        let record = Record::new([10, 199, 7, 0].into(), 2, 1).unwrap();
        let [n1, n2] = [1, 2].map(|number| NodeNumber::new(number).unwrap());
        let up = Row {
            daemon: Daemon::Running,
            link: Link::Up,
            pid: Some(4711),
            ..row(&layout, &record, n1, true)
        };
        expected.assert_eq(&render(&[up, row(&layout, &record, n2, false)], format));
    }

    #[test]
    fn a_table_has_what_faults_change() {
        let table = expect![[r#"
            NODE  ADDRESS      DAEMON   LINK  PID
            n1    10.199.7.11  running  up    4711
            n2    10.199.7.12  crashed  down  -
        "#]];
        check(Format::Table, &table);
    }

    #[test]
    fn a_wide_table_has_roles_and_disks() {
        let wide = expect![[r#"
            NODE  ADDRESS      DAEMON   LINK  PID   ROLE     DISK
            n1    10.199.7.11  running  up    4711  manager  /var/lib/gantry-dev/dev/n1
            n2    10.199.7.12  crashed  down  -     worker   /var/lib/gantry-dev/dev/n2
        "#]];
        check(Format::Wide, &wide);
    }

    #[test]
    fn json_has_stable_names_and_null_for_what_is_not_there() {
        let layout = Layout::new("dev".parse().unwrap(), None);
        let record = Record::new([10, 199, 7, 0].into(), 1, 1).unwrap();
        let json = render(&[row(&layout, &record, NodeNumber::FIRST, true)], Format::Json);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!([{
            "node": "n1", "role": "manager", "address": "10.199.7.11", "daemon": "crashed", "link": "down",
            "pid": null, "disk": "/var/lib/gantry-dev/dev/n1",
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn yaml_says_the_same() {
        let yaml = expect![[r#"
            - node: "n1"
              role: "manager"
              address: "10.199.7.11"
              daemon: "running"
              link: "up"
              pid: 4711
              disk: "/var/lib/gantry-dev/dev/n1"
            - node: "n2"
              role: "worker"
              address: "10.199.7.12"
              daemon: "crashed"
              link: "down"
              pid: null
              disk: "/var/lib/gantry-dev/dev/n2"
        "#]];
        check(Format::Yaml, &yaml);
        assert_eq!(render(&[], Format::Yaml), "[]\n");
    }

    #[test]
    fn a_node_without_a_holder_is_crashed_whatever_else_is_there() {
        assert_eq!(daemon_of(false, Some(Vitals::Running)), Daemon::Crashed);
        assert_eq!(daemon_of(true, None), Daemon::Killed);
        assert_eq!(daemon_of(true, Some(Vitals::Stopped)), Daemon::Paused);
    }
}
