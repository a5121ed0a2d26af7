//! How a node becomes a member: its configuration, its daemon, and the wait until the cluster has it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::client::{self, ClientError};
use crate::daemon::{self, Answer, DaemonError};
use crate::label::Labels;
use crate::layout::{Layout, NodeNumber};
use crate::output::{Narrator, chain};
use crate::process::Process;
use crate::record::Record;

/// How long a cluster may take to be made. It takes seconds; on a machine that does much else, some more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How long one call may take before it is made again.
const CALL: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
/// How much of a daemon's log is shown when it fails.
pub(crate) const LAST_LINES: usize = 20;
/// The cluster's containers: a range that neither this machine's links to the nodes (10.199.0.0/16) nor usual private
/// networks are in. It is seen inside of the nodes only.
const CONTAINERS: &str = "10.208.0.0/12";
/// The prefix length of one node's part of it: 1,021 containers.
const NODE_PREFIX: u8 = 22;
/// The containers' bridge. Each node has network devices of its own, so that it can have the same name in all.
const BRIDGE: &str = "gantry0";

#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("cannot write the configuration of {node}")]
    Configure { node: NodeNumber, source: io::Error },
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error("{0} is crashed and cannot run a daemon")]
    Crashed(NodeNumber),
    #[error("the daemon of {node} does not run")]
    Died { node: NodeNumber, log: String },
    #[error("the cluster refuses")]
    Refused(#[source] ClientError),
    #[error("after {} s {why}", .within.as_secs())]
    Late { why: String, within: Duration, log: String },
}

/// The start of a node that makes the cluster.
pub(crate) fn founding() -> node::Start {
    node::Start::Found { range: CONTAINERS.to_owned(), node_prefix: NODE_PREFIX }
}

/// The start of one that joins it through these managers.
pub(crate) fn joining(token: String, managers: Vec<SocketAddr>) -> node::Start {
    node::Start::Join { token, managers }
}

/// Writes what the node's daemon will read.
pub(crate) fn configure(
    layout: &Layout,
    record: &Record,
    node: NodeNumber,
    labels: Labels,
    start: node::Start,
) -> Result<(), JoinError> {
    let config = node::Config {
        name: node.to_string(),
        listen: record.address(node),
        run: layout.run(node),
        cgroup: layout.node_cgroup(node),
        bridge: BRIDGE.to_owned(),
        labels,
        // Each node takes all of the machine for its own, as it would find it by itself.
        capacity: None,
        start,
    };
    config.save(&layout.data(node)).map_err(|source| JoinError::Configure { node, source })
}

/// Starts the node's daemon, unless it lives.
pub(crate) fn start(layout: &Layout, record: &Record, node: NodeNumber) -> Result<Process, JoinError> {
    if let Some((daemon, _)) = daemon::living(layout, node)? {
        return Ok(daemon);
    }
    let holder = record.nodes.get(&node).and_then(|known| known.holder).ok_or(JoinError::Crashed(node))?;
    Ok(daemon::start(layout, node, holder)?)
}

/// Waits until a daemon that was started listens.
pub(crate) async fn await_answer(
    layout: &Layout,
    record: &Record,
    node: NodeNumber,
    daemon: Process,
) -> Result<(), JoinError> {
    match daemon::answer(record, node, daemon, PATIENCE).await? {
        Answer::Yes => Ok(()),
        Answer::Died => Err(died(layout, node)),
        Answer::NotYet => Err(late(layout, format!("the daemon of {node} does not listen"), Some(node))),
    }
}

/// A join token from one of these managers, as soon as there is one that leads.
pub(crate) async fn await_token(
    layout: &Layout,
    managers: &[NodeNumber],
    manager: bool,
) -> Result<String, JoinError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut why = String::new();
        let running = running(layout, managers)?;
        if let (true, Some(first)) = (running.is_empty(), managers.first()) {
            return Err(died(layout, *first));
        }
        for node in running {
            match timeout(CALL, client::create_token(&layout.socket(node), manager)).await {
                Ok(Ok(token)) => return Ok(token),
                Ok(Err(error)) if error.is_passing() => why = chain(&error),
                Ok(Err(error)) => return Err(JoinError::Refused(error)),
                Err(_) => why = format!("{node} does not answer"),
            }
        }
        if Instant::now() >= deadline {
            return Err(late(layout, why, managers.first().copied()));
        }
        sleep(PAUSE).await;
    }
}

/// Waits until the cluster has these nodes in their roles and ready. The daemons of all of them run.
pub(crate) async fn await_ready(
    layout: &Layout,
    record: &Record,
    nodes: &[NodeNumber],
    narrator: &Narrator,
) -> Result<(), JoinError> {
    let deadline = Instant::now() + PATIENCE;
    let roles = nodes.iter().filter_map(|node| Some((node.to_string(), record.nodes.get(node)?.manager)));
    let wanted: Vec<(String, bool)> = roles.collect();
    let managers: Vec<NodeNumber> = record.managers(None).collect();
    loop {
        for node in nodes {
            if daemon::living(layout, *node)?.is_none() {
                return Err(died(layout, *node));
            }
        }
        let Some(why) = what_is_missing(layout, &managers, &wanted).await? else { return Ok(()) };
        if Instant::now() >= deadline {
            let suspect = nodes.iter().copied().find(|node| why.contains(&node.to_string()));
            return Err(late(layout, why, suspect));
        }
        narrator.doing(format!("waiting: {why}"));
        sleep(PAUSE).await;
    }
}

/// As the first manager that answers sees it.
async fn what_is_missing(
    layout: &Layout,
    managers: &[NodeNumber],
    wanted: &[(String, bool)],
) -> Result<Option<String>, JoinError> {
    let mut why = "no manager runs".to_owned();
    for node in running(layout, managers)? {
        match timeout(CALL, client::nodes(&layout.socket(node))).await {
            Ok(Ok(seen)) => return Ok(client::missing(&seen, wanted)),
            Ok(Err(error)) if error.is_passing() => why = chain(&error),
            Ok(Err(error)) => return Err(JoinError::Refused(error)),
            Err(_) => why = format!("{node} does not answer"),
        }
    }
    Ok(Some(why))
}

fn running(layout: &Layout, nodes: &[NodeNumber]) -> Result<Vec<NodeNumber>, DaemonError> {
    let mut running = Vec::new();
    for node in nodes {
        running.extend(daemon::living(layout, *node)?.map(|_| *node));
    }
    Ok(running)
}

fn died(layout: &Layout, node: NodeNumber) -> JoinError {
    JoinError::Died { node, log: daemon::last_words(layout, node, 0, LAST_LINES) }
}

fn late(layout: &Layout, why: String, suspect: Option<NodeNumber>) -> JoinError {
    let log = suspect.map(|node| daemon::last_words(layout, node, 0, LAST_LINES)).unwrap_or_default();
    JoinError::Late { why, within: PATIENCE, log }
}
