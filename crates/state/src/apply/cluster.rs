//! The cluster and its nodes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use model::{Availability, Capacity, ClusterId, Liveness, Name, Node, NodeId, Role, Subnet, Timestamp};

use crate::apply::{Change, Step};
use crate::command::{Authority, Done, Outcome, Rejected};
use crate::tables::{Cluster, NodeRow, Token};

impl Step<'_> {
    pub(super) fn found(
        &mut self,
        id: ClusterId,
        range: Subnet,
        node_prefix: u8,
        authority: &Authority,
    ) -> Outcome {
        if self.state.cluster.is_some() {
            return Err(Rejected::Founded);
        }
        self.state.cluster = Some(Arc::new(Cluster { id, range, node_prefix, authority: authority.clone() }));
        self.changes.insert(Change::Cluster);
        Ok(Done::Changed)
    }

    pub(super) fn put_token(&mut self, digest: [u8; 32], role: Role, expires: Timestamp) -> Outcome {
        let now = self.state.time;
        // Every new token sweeps out the expired ones, so the table stays as small as its use.
        let fresh = self.state.tokens.iter().filter(|(_, token)| token.expires > now);
        self.state.tokens = fresh.map(|(digest, token)| (*digest, token.clone())).collect();
        self.state.tokens.insert(digest, Token { role, expires });
        Ok(Done::Changed)
    }

    pub(super) fn admit_node(
        &mut self,
        name: &Name,
        role: Role,
        address: SocketAddr,
        token: Option<[u8; 32]>,
        key: Option<[u8; 32]>,
    ) -> Outcome {
        let Some(cluster) = self.state.cluster.clone() else { return Err(Rejected::NotFounded) };
        match token {
            Some(digest) => {
                let now = self.state.time;
                let valid = self.state.tokens.get(&digest).is_some_and(|t| t.role == role && t.expires > now);
                if !valid {
                    return Err(Rejected::BadToken);
                }
            }
            None if self.state.nodes.is_empty() => {}
            None => return Err(Rejected::BadToken),
        }
        if let Some((id, row)) = self.state.nodes.iter().find(|(_, row)| row.node.name == *name) {
            // Once it has had a session, it had heard: a machine that asks then has lost its disk, and its id with it.
            let unheard = row.node.liveness == Liveness::Unknown;
            let same = row.key == key && row.node.role == role && row.node.address == address;
            let again = unheard && key.is_some() && same;
            return if again { Ok(Done::Admitted(*id)) } else { Err(Rejected::NodeNameTaken(name.clone())) };
        }
        let subnet = self.free_subnet(&cluster).ok_or(Rejected::NoSubnet)?;
        self.state.last_node += 1;
        let id = NodeId(self.state.last_node);
        let node = Node {
            name: name.clone(),
            role,
            address,
            labels: BTreeMap::new(),
            capacity: Capacity::default(),
            availability: Availability::Active,
            liveness: Liveness::Unknown,
            subnet,
            version: String::new(),
        };
        self.state.nodes.insert(
            id,
            Arc::new(NodeRow { node, next_address: 0, next_port: 0, promised: Capacity::default(), key }),
        );
        self.changes.insert(Change::Node(id));
        Ok(Done::Admitted(id))
    }

    fn free_subnet(&self, cluster: &Cluster) -> Option<Subnet> {
        let count = 1u32 << cluster.node_prefix.checked_sub(cluster.range.prefix)?;
        let size = 1u32 << (32 - cluster.node_prefix);
        let base = u32::from(cluster.range.base);
        (0..count)
            .map(|at| Subnet { base: Ipv4Addr::from(base + at * size), prefix: cluster.node_prefix })
            .find(|subnet| self.state.nodes().all(|(_, node)| node.subnet != *subnet))
    }

    pub(super) fn describe_node(
        &mut self,
        id: NodeId,
        address: SocketAddr,
        labels: &BTreeMap<String, String>,
        capacity: Capacity,
        version: &str,
    ) -> Outcome {
        let is_empty = self.state.occupancy(id).is_empty();
        self.change_node(id, |row| {
            row.node.address = address;
            row.node.labels = labels.clone();
            row.node.capacity = capacity;
            version.clone_into(&mut row.node.version);
            let before = if is_empty { Capacity::default() } else { row.promised };
            row.promised.cpu = before.cpu.max(capacity.cpu);
            row.promised.memory = before.memory.max(capacity.memory);
        })
    }

    pub(super) fn set_liveness(&mut self, id: NodeId, ready: bool) -> Outcome {
        let now = self.state.time;
        self.change_node(id, |row| {
            row.node.liveness = match (ready, row.node.liveness) {
                (true, _) => Liveness::Ready,
                (false, down @ Liveness::Down { .. }) => down,
                (false, Liveness::Ready | Liveness::Unknown) => Liveness::Down { since: now },
            };
        })
    }

    fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut NodeRow)) -> Outcome {
        let row = self.state.nodes.get(&id).ok_or(Rejected::NoNode(id))?;
        let mut changed = NodeRow::clone(row);
        change(&mut changed);
        if changed == **row {
            return Ok(Done::Unchanged);
        }
        self.state.nodes.insert(id, Arc::new(changed));
        self.changes.insert(Change::Node(id));
        Ok(Done::Changed)
    }
}
