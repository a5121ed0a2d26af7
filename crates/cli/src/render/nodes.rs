//! `gantry node ls`.

use std::collections::BTreeMap;

use model::{Bytes, MilliCpu};
use serde::Serialize;
use wire::proto::api;
use wire::proto::model::Capacity;

use crate::render::known;
use crate::render::table::table;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    node: &'a str,
    /// `manager | worker`
    role: &'a str,
    leader: bool,
    /// `ready | down | unknown`
    status: &'a str,
    /// `active | pause | drain`
    availability: &'a str,
    address: &'a str,
    version: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    /// `linux/amd64`
    platform: Option<&'a str>,
    /// What tasks can have there.
    capacity: Option<Amount>,
    /// What is set aside for tasks.
    allocated: Option<Amount>,
}

#[derive(Debug, Serialize)]
struct Amount {
    cpu_millis: u64,
    memory_bytes: u64,
}

pub(crate) fn rows(nodes: &[api::Node]) -> Vec<Row<'_>> {
    nodes.iter().map(row).collect()
}

fn row(node: &api::Node) -> Row<'_> {
    let api::Node {
        node,
        role,
        leader,
        status,
        availability,
        address,
        version,
        labels,
        capacity,
        allocated,
        platform,
    } = node;
    Row {
        node,
        role,
        leader: *leader,
        status,
        availability,
        address,
        version: known(version),
        labels,
        platform: known(platform),
        capacity: capacity.as_ref().map(amount),
        allocated: allocated.as_ref().map(amount),
    }
}

fn amount(capacity: &Capacity) -> Amount {
    let Capacity { milli_cpu, memory } = capacity;
    Amount { cpu_millis: *milli_cpu, memory_bytes: *memory }
}

pub(crate) fn nodes_table(nodes: &[api::Node], wide: bool) -> String {
    let mut header = vec!["NODE", "ROLE", "STATUS", "AVAILABILITY", "ADDRESS", "CPU", "MEMORY"];
    if wide {
        header.extend(["VERSION", "PLATFORM", "LABELS"]);
    }
    let rows: Vec<_> = nodes.iter().map(|node| cells(node, wide)).collect();
    table(&header, &rows)
}

fn cells(node: &api::Node, wide: bool) -> Vec<String> {
    let leader = if node.leader { " (leader)" } else { "" };
    let mut cells = vec![
        node.node.clone(),
        format!("{}{leader}", node.role),
        node.status.clone(),
        node.availability.clone(),
        node.address.clone(),
        of(node, |capacity| MilliCpu(capacity.milli_cpu).to_string()),
        of(node, |capacity| Bytes(capacity.memory).to_string()),
    ];
    if wide {
        let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
        cells.extend([node.version.clone(), node.platform.clone(), labels.collect::<Vec<_>>().join(" ")]);
    }
    cells
}

/// What is set aside of what there is; empty if the node has not said what there is.
fn of(node: &api::Node, shown: impl Fn(&Capacity) -> String) -> String {
    let nothing = Capacity::default();
    let allocated = node.allocated.as_ref().unwrap_or(&nothing);
    let capacity = node.capacity.as_ref().filter(|capacity| **capacity != nothing);
    capacity.map_or_else(String::new, |capacity| format!("{} of {}", shown(allocated), shown(capacity)))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    fn n1() -> api::Node {
        api::Node {
            node: "n1".to_owned(),
            role: "manager".to_owned(),
            leader: true,
            status: "ready".to_owned(),
            availability: "active".to_owned(),
            address: "10.199.7.1:7400".to_owned(),
            version: "0.1.0".to_owned(),
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            platform: "linux/amd64".to_owned(),
            capacity: Some(Capacity { milli_cpu: 4000, memory: 8 << 30 }),
            allocated: Some(Capacity { milli_cpu: 500, memory: 64 << 20 }),
        }
    }

    fn never_seen() -> api::Node {
        api::Node {
            node: "n2".to_owned(),
            role: "worker".to_owned(),
            status: "unknown".to_owned(),
            availability: "active".to_owned(),
            address: "10.199.7.2:7400".to_owned(),
            capacity: Some(Capacity::default()),
            ..api::Node::default()
        }
    }

    #[test]
    fn the_table_has_roles_states_and_room() {
        expect![[r#"
            NODE  ROLE              STATUS   AVAILABILITY  ADDRESS          CPU       MEMORY
            n1    manager (leader)  ready    active        10.199.7.1:7400  0.5 of 4  64 MiB of 8 GiB
            n2    worker            unknown  active        10.199.7.2:7400  -
        "#]]
        .assert_eq(&nodes_table(&[n1(), never_seen()], false));
    }

    #[test]
    fn the_wide_table_has_labels() {
        let table = nodes_table(&[n1()], true);
        assert!(table.contains("VERSION  PLATFORM     LABELS\n"), "{table}");
        assert!(table.contains("0.1.0    linux/amd64  disk=ssd\n"), "{table}");
    }

    #[test]
    fn json_has_the_documented_fields() {
        expect![[r#"
            [
              {
                "node": "n1",
                "role": "manager",
                "leader": true,
                "status": "ready",
                "availability": "active",
                "address": "10.199.7.1:7400",
                "version": "0.1.0",
                "labels": {
                  "disk": "ssd"
                },
                "platform": "linux/amd64",
                "capacity": {
                  "cpu_millis": 4000,
                  "memory_bytes": 8589934592
                },
                "allocated": {
                  "cpu_millis": 500,
                  "memory_bytes": 67108864
                }
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[n1()])));
    }
}
