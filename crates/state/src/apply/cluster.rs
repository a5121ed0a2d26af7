//! The cluster and its nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use model::{
    Availability, Capacity, ClusterId, Liveness, MAX_LABEL, MAX_LABELS, Name, Node, NodeId, Platform, Role,
    ServiceId, Strategy, Subnet, TaskId, Timestamp,
};

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
        self.state.cluster = Some(Arc::new(Cluster {
            id,
            range,
            node_prefix,
            authority: authority.clone(),
            strategy: Strategy::default(),
        }));
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
            engine_labels: BTreeMap::new(),
            capacity: Capacity::default(),
            platform: None,
            availability: Availability::Active,
            liveness: Liveness::Unknown,
            subnet,
            version: String::new(),
        };
        let row = NodeRow {
            node: Arc::new(node),
            next_address: 0,
            next_port: 0,
            promised: Capacity::default(),
            key,
        };
        self.state.put_node(id, Arc::new(row));
        self.changes.insert(Change::Node(id));
        Ok(Done::Admitted(id))
    }

    fn free_subnet(&self, cluster: &Cluster) -> Option<Subnet> {
        let count = 1u32 << cluster.node_prefix.checked_sub(cluster.range.prefix)?;
        let size = 1u32 << (32 - cluster.node_prefix);
        let base = u32::from(cluster.range.base);
        let taken: BTreeSet<Subnet> = self.state.nodes().map(|(_, node)| node.subnet).collect();
        (0..count)
            .map(|at| Subnet { base: Ipv4Addr::from(base + at * size), prefix: cluster.node_prefix })
            .find(|subnet| !taken.contains(subnet))
    }

    pub(super) fn describe_node(
        &mut self,
        id: NodeId,
        address: SocketAddr,
        labels: &BTreeMap<String, String>,
        capacity: Capacity,
        platform: Option<&Platform>,
        version: &str,
    ) -> Outcome {
        let is_empty = self.state.occupancy(id).is_empty();
        self.change_node(id, |row| {
            let node = Arc::make_mut(&mut row.node);
            node.address = address;
            node.engine_labels = labels.clone();
            node.platform = platform.cloned();
            node.capacity = capacity;
            version.clone_into(&mut node.version);
            let before = if is_empty { Capacity::default() } else { row.promised };
            row.promised.cpu = before.cpu.max(capacity.cpu);
            row.promised.memory = before.memory.max(capacity.memory);
        })
    }

    pub(super) fn set_liveness(&mut self, id: NodeId, ready: bool) -> Outcome {
        let now = self.state.time;
        self.change_node(id, |row| {
            let node = Arc::make_mut(&mut row.node);
            node.liveness = match (ready, node.liveness) {
                (true, _) => Liveness::Ready,
                (false, down @ Liveness::Down { .. }) => down,
                (false, Liveness::Ready | Liveness::Unknown) => Liveness::Down { since: now },
            };
        })
    }

    pub(super) fn set_availability(&mut self, id: NodeId, availability: Availability) -> Outcome {
        self.change_node(id, |row| Arc::make_mut(&mut row.node).availability = availability)
    }

    pub(super) fn label_node(&mut self, id: NodeId, labels: &BTreeMap<String, Option<String>>) -> Outcome {
        let row = self.state.nodes.get(&id).ok_or(Rejected::NoNode(id))?;
        let mut all = row.node.labels.clone();
        for (key, value) in labels {
            match value {
                Some(value) => drop(all.insert(key.clone(), value.clone())),
                None => drop(all.remove(key)),
            }
        }
        let is_long = |(key, value): (&String, &String)| key.len() > MAX_LABEL || value.len() > MAX_LABEL;
        if all.len() > MAX_LABELS || all.iter().any(is_long) {
            return Err(Rejected::TooManyLabels);
        }
        self.change_node(id, |row| Arc::make_mut(&mut row.node).labels = all)
    }

    /// Nothing that was there is anywhere any more: who says so knows it.
    pub(super) fn remove_node(&mut self, id: NodeId) -> Outcome {
        let row = self.state.nodes.get(&id).ok_or(Rejected::NoNode(id))?;
        if row.node.liveness == Liveness::Ready {
            return Err(Rejected::NodeIsUp(row.node.name.clone()));
        }
        // What was seen to end stays to be seen: a job may count on it.
        let open = self.state.tasks_on(id).filter(|(_, task)| task.occupies().is_some());
        let tasks: Vec<TaskId> = open.map(|(task, _)| task).collect();
        let services: BTreeSet<ServiceId> = tasks.iter().map(|task| task.service).collect();
        for task in tasks {
            self.state.drop_task(task);
            self.changes.insert(Change::Task(task, Some(id)));
        }
        for service in services {
            self.forget_templates(service);
        }
        self.lose_copies(id);
        self.state.drop_node(id);
        self.changes.insert(Change::Node(id));
        Ok(Done::Changed)
    }

    pub(super) fn configure(&mut self, strategy: Strategy) -> Outcome {
        let cluster = self.state.cluster.as_deref().ok_or(Rejected::NotFounded)?;
        if cluster.strategy == strategy {
            return Ok(Done::Unchanged);
        }
        self.state.cluster = Some(Arc::new(Cluster { strategy, ..cluster.clone() }));
        self.changes.insert(Change::Cluster);
        Ok(Done::Changed)
    }

    fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut NodeRow)) -> Outcome {
        let row = self.state.nodes.get(&id).ok_or(Rejected::NoNode(id))?;
        let mut changed = NodeRow::clone(row);
        change(&mut changed);
        if changed == **row {
            return Ok(Done::Unchanged);
        }
        self.state.put_node(id, Arc::new(changed));
        self.changes.insert(Change::Node(id));
        Ok(Done::Changed)
    }
}
