//! `up` and `node add`: a cluster is made, brought back after the machine was off, or gets one more node.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use model::Name;

use crate::addresses;
use crate::join::{self, JoinError};
use crate::label::{Label, Labels, NodeLabel, by_node};
use crate::layout::{Layout, NodeNumber};
use crate::lock::{self, Lock, LockError, WAITING};
use crate::output::{Narrator, chain};
use crate::preflight::{self, PreflightError};
use crate::record::{NodeRecord, Record, RecordError, Stage};
use crate::world::{self, WorldError};

/// What the user asked of `up`, as far as it was said.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) nodes: Option<u8>,
    pub(crate) managers: Option<u8>,
    pub(crate) labels: Vec<NodeLabel>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error("{managers} managers do not fit on {nodes} nodes")]
    Managers { managers: u8, nodes: u8 },
    #[error("there is no node {node} to label: the cluster has n1 to n{nodes}")]
    LabelOf { node: NodeNumber, nodes: u8 },
    #[error("the nodes of cluster {cluster} are as they were made: {option} cannot be changed now")]
    Settled { cluster: Name, option: &'static str },
    #[error("cluster {0} is up already")]
    Exists(Name),
    #[error("there is no cluster {0}")]
    Absent(Name),
    #[error("cluster {0} is not up")]
    NotUp(Name),
    #[error("cluster {0} has as many nodes as a dev cluster can have")]
    Full(Name),
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("all of 10.199.0.0/16 is in use: there is no network for the cluster")]
    NoNetwork,
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("interrupted")]
    Interrupted,
}

/// Makes a cluster, or brings back one whose processes are gone and whose disks are there. What was made is taken down
/// again if not all of it can be.
pub(crate) async fn up(layout: &Layout, wanted: &Wanted, narrator: &Narrator) -> Result<Record, UpError> {
    preflight::check(std::env::var_os("PATH"))?;
    let size = size(wanted)?;
    let _lock = claim(layout, narrator)?;
    let (mut record, fresh) = match Record::load(layout)? {
        Some(record) if record.stage == Stage::Made => (settled(layout, record, wanted)?, false),
        unfinished => {
            // By name, since what was left need not be in any record.
            let felled = world::fell_cluster(layout)?;
            world::clear_disks(layout)?;
            if felled || unfinished.is_some() {
                narrator.done("what an interrupted command had left of this cluster is removed");
            }
            let begun = begin(layout, size);
            (begun.inspect_err(|_| abandon(layout, true, narrator))?, true)
        }
    };
    let labels = by_node(&wanted.labels);
    let outcome = tokio::select! {
        made = raise(layout, &mut record, labels, fresh, narrator) => made,
        _ = tokio::signal::ctrl_c() => Err(UpError::Interrupted),
    };
    match outcome {
        Ok(()) => Ok(record),
        Err(error) => {
            abandon(layout, fresh, narrator);
            Err(error)
        }
    }
}

/// Takes down what was made, with the disks if they were made just now. The error that led here is the one to report,
/// so that another one is only told.
fn abandon(layout: &Layout, fresh: bool, narrator: &Narrator) {
    narrator.doing("taking down what was made");
    let felled = world::fell_cluster(layout).map(drop);
    let removed = if fresh { felled.and_then(|()| world::remove_disks(layout).map(drop)) } else { felled };
    if let Err(also) = removed {
        narrator.done(&format!("what was made cannot be taken down: {}", chain(&also)));
    }
}

/// Adds one node to a cluster that is up. Returns its number.
pub(crate) async fn add(
    layout: &Layout,
    manager: bool,
    labels: &[Label],
    narrator: &Narrator,
) -> Result<NodeNumber, UpError> {
    let cluster = || layout.cluster().clone();
    let waiting = || narrator.done(WAITING);
    let _lock = lock::acquire(&layout.dir(), waiting)?.ok_or_else(|| UpError::Absent(cluster()))?;
    let mut record = Record::load(layout)?.ok_or_else(|| UpError::Absent(cluster()))?;
    if record.stage != Stage::Made || world::living(record.switch)?.is_none() {
        return Err(UpError::NotUp(cluster()));
    }
    forget_unfinished(layout, &mut record)?;
    let node = record.next().ok_or_else(|| UpError::Full(cluster()))?;
    record.nodes.insert(node, NodeRecord::new(manager));
    record.save(layout)?;
    let outcome = tokio::select! {
        added = raise_one(layout, &mut record, node, Label::map(labels), narrator) => added,
        _ = tokio::signal::ctrl_c() => Err(UpError::Interrupted),
    };
    if let Err(error) = outcome {
        if let Err(also) = forget(layout, &mut record, node) {
            narrator.done(&format!("what was made of {node} cannot be taken down: {}", chain(&also)));
        }
        return Err(error);
    }
    Ok(node)
}

fn claim(layout: &Layout, narrator: &Narrator) -> Result<Lock, UpError> {
    loop {
        world::make_dir(&layout.dir())?;
        let waiting = || narrator.done(WAITING);
        // None: that other command removed the folder.
        if let Some(lock) = lock::acquire(&layout.dir(), waiting)? {
            return Ok(lock);
        }
    }
}

/// How many nodes, and how many of them managers.
fn size(wanted: &Wanted) -> Result<(u8, u8), UpError> {
    /// Three managers are the fewest that go on without one of them.
    const USUAL: u8 = 3;
    let nodes = wanted.nodes.unwrap_or_else(|| wanted.managers.unwrap_or(USUAL).max(USUAL));
    let managers = wanted.managers.unwrap_or_else(|| nodes.min(USUAL));
    if managers > nodes {
        return Err(UpError::Managers { managers, nodes });
    }
    match wanted.labels.iter().find(|label| label.node.get() > nodes) {
        Some(NodeLabel { node, .. }) => Err(UpError::LabelOf { node: *node, nodes }),
        None => Ok((nodes, managers)),
    }
}

/// A cluster that was made before and may be brought back, if nothing else was asked for.
fn settled(layout: &Layout, record: Record, wanted: &Wanted) -> Result<Record, UpError> {
    let cluster = layout.cluster().clone();
    if world::living(record.switch)?.is_some() {
        return Err(UpError::Exists(cluster));
    }
    let count = |managers: bool| record.nodes.values().filter(|node| node.manager || !managers).count();
    let differs = |asked: Option<u8>, there: usize| asked.is_some_and(|asked| usize::from(asked) != there);
    let changed = [
        (differs(wanted.nodes, count(false)), "--nodes"),
        (differs(wanted.managers, count(true)), "--managers"),
        (!wanted.labels.is_empty(), "--label"),
    ];
    match changed.into_iter().find(|(changed, _)| *changed) {
        Some((_, option)) => Err(UpError::Settled { cluster, option }),
        None => Ok(record),
    }
}

/// The record of a cluster of which nothing exists yet.
fn begin(layout: &Layout, (nodes, managers): (u8, u8)) -> Result<Record, UpError> {
    let path = Path::new("/proc/net/route");
    let routes =
        fs::read_to_string(path).map_err(|source| UpError::Read { path: path.to_owned(), source })?;
    let network: Ipv4Addr =
        addresses::choose(layout.hash(), &addresses::parse_routes(&routes)).ok_or(UpError::NoNetwork)?;
    let record = Record::new(network, nodes, managers)?;
    record.save(layout)?;
    Ok(record)
}

async fn raise(
    layout: &Layout,
    record: &mut Record,
    labels: BTreeMap<NodeNumber, Labels>,
    fresh: bool,
    narrator: &Narrator,
) -> Result<(), UpError> {
    if !fresh {
        forget_unfinished(layout, record)?;
    }
    narrator.doing("making the switch");
    world::raise_switch(layout, record)?;
    world::raise_masquerade(layout, record)?;
    let way_out =
        if record.masquerade { "nodes reach the outside" } else { "nodes do not reach the outside" };
    narrator.done(&format!("switch: {}/{}, {way_out}", record.network, addresses::PREFIX));

    let nodes: Vec<NodeNumber> = record.nodes.keys().copied().collect();
    for node in &nodes {
        narrator.doing(format!("making {node}"));
        world::raise_node(layout, record, *node)?;
    }
    narrator.done(&format!("{}: namespaces and links", list(&nodes)));

    if fresh {
        found_and_join(layout, record, &nodes, labels, narrator).await?;
    } else {
        for node in &nodes {
            join::start(layout, record, *node)?;
        }
        narrator.done(&format!("{}: daemons started, on the disks that were there", list(&nodes)));
    }
    join::await_ready(layout, record, &nodes, narrator).await?;
    narrator.done("every node is a ready member");
    for node in record.nodes.values_mut() {
        node.joined = true;
    }
    record.stage = Stage::Made;
    record.save(layout)?;
    Ok(())
}

/// The first node makes the cluster; the others join it, all at the same time.
async fn found_and_join(
    layout: &Layout,
    record: &Record,
    nodes: &[NodeNumber],
    mut labels: BTreeMap<NodeNumber, Labels>,
    narrator: &Narrator,
) -> Result<(), UpError> {
    let first = NodeNumber::FIRST;
    narrator.doing(format!("{first} makes the cluster"));
    join::configure(layout, record, first, labels.remove(&first).unwrap_or_default(), join::founding())?;
    let daemon = join::start(layout, record, first)?;
    join::await_answer(layout, record, first, daemon).await?;
    narrator.done(&format!("{first}: its daemon listens"));

    let mut tokens = BTreeMap::new();
    for node in nodes.iter().filter(|node| **node != first) {
        let manager = record.nodes.get(node).is_some_and(|known| known.manager);
        let token: String = match tokens.get(&manager) {
            Some(token) => String::clone(token),
            None => {
                narrator.doing("making a join token");
                let token = join::await_token(layout, &[first], manager).await?;
                tokens.insert(manager, token.clone());
                token
            }
        };
        let start = join::joining(token, vec![record.address(first)]);
        join::configure(layout, record, *node, labels.remove(node).unwrap_or_default(), start)?;
        join::start(layout, record, *node)?;
    }
    if nodes.len() > 1 {
        narrator.done(&format!("{}: daemons started, joining", list(&nodes[1..])));
    }
    Ok(())
}

async fn raise_one(
    layout: &Layout,
    record: &mut Record,
    node: NodeNumber,
    labels: Labels,
    narrator: &Narrator,
) -> Result<(), UpError> {
    world::raise_node(layout, record, node)?;
    narrator.done(&format!("{node}: namespaces and link"));
    let managers: Vec<NodeNumber> = record.managers(Some(node)).collect();
    let manager = record.nodes.get(&node).is_some_and(|known| known.manager);
    narrator.doing("making a join token");
    let token = join::await_token(layout, &managers, manager).await?;
    let addresses = managers.iter().map(|manager| record.address(*manager)).collect();
    join::configure(layout, record, node, labels, join::joining(token, addresses))?;
    join::start(layout, record, node)?;
    narrator.done(&format!("{node}: daemon started, joining"));
    join::await_ready(layout, record, &[node], narrator).await?;
    if let Some(known) = record.nodes.get_mut(&node) {
        known.joined = true;
    }
    record.save(layout)?;
    Ok(())
}

/// Takes away the nodes of which an earlier `node add` was killed before they were members.
fn forget_unfinished(layout: &Layout, record: &mut Record) -> Result<(), WorldError> {
    let unfinished: Vec<NodeNumber> =
        record.nodes.iter().filter(|(_, node)| !node.joined).map(|(number, _)| *number).collect();
    for node in unfinished {
        forget(layout, record, node)?;
    }
    Ok(())
}

/// Takes a node that is not a member out of the world and of the record.
fn forget(layout: &Layout, record: &mut Record, node: NodeNumber) -> Result<(), WorldError> {
    world::fell_node(layout, record, node)?;
    world::remove_dir(&layout.data(node))?;
    record.nodes.remove(&node);
    Ok(record.save(layout)?)
}

pub(crate) fn list(nodes: &[NodeNumber]) -> String {
    let names: Vec<String> = nodes.iter().map(NodeNumber::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(nodes: Option<u8>, managers: Option<u8>, labels: &[&str]) -> Result<(u8, u8), String> {
        let labels = labels.iter().map(|text| text.parse().unwrap()).collect();
        size(&Wanted { nodes, managers, labels }).map_err(|error| error.to_string())
    }

    #[test]
    fn three_managers_are_usual_and_fewer_nodes_have_fewer() {
        assert_eq!(sized(None, None, &[]), Ok((3, 3)));
        assert_eq!(sized(Some(1), None, &[]), Ok((1, 1)));
        assert_eq!(sized(Some(7), None, &[]), Ok((7, 3)));
        assert_eq!(sized(None, Some(1), &[]), Ok((3, 1)));
        assert_eq!(sized(None, Some(5), &[]), Ok((5, 5)));
        assert_eq!(sized(Some(2), Some(3), &[]), Err("3 managers do not fit on 2 nodes".to_owned()));
    }

    #[test]
    fn a_label_needs_a_node_that_is_there() {
        assert_eq!(sized(None, None, &["n3:disk=ssd", "n1:a=b=c"]), Ok((3, 3)));
        let error = sized(None, None, &["n4:disk=ssd"]).unwrap_err();
        assert_eq!(error, "there is no node n4 to label: the cluster has n1 to n3");
    }

    #[test]
    fn a_cluster_that_is_brought_back_keeps_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new("dev".parse().unwrap(), Some(dir.path().into()));
        let record = || Record::new(Ipv4Addr::new(10, 199, 7, 0), 3, 1).unwrap();
        let settle =
            |nodes, managers| settled(&layout, record(), &Wanted { nodes, managers, labels: Vec::new() });
        assert_eq!(settle(None, None).unwrap(), record());
        assert_eq!(settle(Some(3), Some(1)).unwrap(), record());
        assert!(matches!(settle(Some(4), None), Err(UpError::Settled { option: "--nodes", .. })));
        assert!(matches!(settle(None, Some(3)), Err(UpError::Settled { option: "--managers", .. })));
    }
}
