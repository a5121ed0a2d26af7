//! The fault verbs: what can befall a node, and what undoes it. Each states what is to be, so that it may be repeated.

use std::io;
use std::time::Duration;

use model::Name;
use rustix::process::Signal;

use crate::daemon::{self, Answer, DaemonError};
use crate::join::{self, JoinError};
use crate::layout::{Layout, NodeNumber};
use crate::lock::{self, LockError, WAITING};
use crate::output::note;
use crate::process::{Process, Vitals};
use crate::record::{Record, RecordError, Stage};
use crate::up::list;
use crate::world::{self, WorldError};

/// How long a started daemon is waited for. It answers long before its cluster does; one that takes longer goes on
/// alone.
const ANSWER: Duration = Duration::from_secs(10);
/// As long as dying takes that nothing holds up.
const DEATH: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Start,
    Pause,
    Resume,
    Partition,
    Heal,
    Crash,
    Reboot,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FaultError {
    #[error("there is no cluster {0}")]
    NoCluster(Name),
    #[error("cluster {0} is not up")]
    NotUp(Name),
    #[error("there is no node {node}: cluster {cluster} has {nodes}")]
    NoNode { node: NodeNumber, cluster: Name, nodes: String },
    #[error("{0} is crashed: nothing of it is left but its disk")]
    Crashed(NodeNumber),
    #[error("the daemon of {0} does not run")]
    NoDaemon(NodeNumber),
    #[error("the daemon of {0} is paused")]
    Paused(NodeNumber),
    #[error("cannot signal the daemon of {node} (pid {pid})")]
    Signal { node: NodeNumber, pid: i32, source: io::Error },
    #[error("the daemon of {node} ended as soon as it was started")]
    Died { node: NodeNumber, log: String },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Makes it so, and returns what was done as a sentence.
pub(crate) async fn inflict(layout: &Layout, node: NodeNumber, fault: Fault) -> Result<String, FaultError> {
    let cluster = || layout.cluster().clone();
    let _lock =
        lock::acquire(&layout.dir(), || note(WAITING))?.ok_or_else(|| FaultError::NoCluster(cluster()))?;
    let mut record = Record::load(layout)?.ok_or_else(|| FaultError::NoCluster(cluster()))?;
    let Some(holder) = record.nodes.get(&node).map(|known| known.holder) else {
        let nodes: Vec<NodeNumber> = record.nodes.keys().copied().collect();
        return Err(FaultError::NoNode { node, cluster: cluster(), nodes: list(&nodes) });
    };
    if record.stage != Stage::Made || world::living(record.switch)?.is_none() {
        return Err(FaultError::NotUp(cluster()));
    }
    let is_up = world::living(holder)?.is_some();
    match fault {
        Fault::Crash => crash(layout, &mut record, node, is_up),
        Fault::Reboot => reboot(layout, &mut record, node).await,
        Fault::Kill | Fault::Start | Fault::Pause | Fault::Resume | Fault::Partition | Fault::Heal
            if !is_up =>
        {
            Err(FaultError::Crashed(node))
        }
        Fault::Kill => kill(layout, node),
        Fault::Start => start(layout, &record, node).await,
        Fault::Pause => pause(layout, node),
        Fault::Resume => resume(layout, node),
        Fault::Partition => link(layout, &mut record, node, false),
        Fault::Heal => link(layout, &mut record, node, true),
    }
}

fn kill(layout: &Layout, node: NodeNumber) -> Result<String, FaultError> {
    let Some((daemon, _)) = daemon::living(layout, node)? else {
        return Ok(format!("{node}: its daemon was not running"));
    };
    daemon.kill(DEATH).map_err(|source| FaultError::Signal { node, pid: daemon.pid, source })?;
    Ok(format!("{node}: daemon killed (pid {})", daemon.pid))
}

async fn start(layout: &Layout, record: &Record, node: NodeNumber) -> Result<String, FaultError> {
    match daemon::living(layout, node)? {
        Some((_, Vitals::Stopped)) => Err(FaultError::Paused(node)),
        Some((daemon, Vitals::Running | Vitals::Gone)) => {
            Ok(format!("{node}: its daemon was running already (pid {})", daemon.pid))
        }
        None => {
            let (daemon, how) = start_daemon(layout, record, node).await?;
            Ok(format!("{node}: daemon started (pid {}), {how}", daemon.pid))
        }
    }
}

async fn start_daemon(
    layout: &Layout,
    record: &Record,
    node: NodeNumber,
) -> Result<(Process, &'static str), FaultError> {
    let before = daemon::log_length(layout, node);
    let daemon = join::start(layout, record, node)?;
    match daemon::answer(record, node, daemon, ANSWER).await? {
        Answer::Yes => Ok((daemon, "it listens")),
        Answer::NotYet => Ok((daemon, "it does not listen yet")),
        // What daemons before it wrote does not explain its end.
        Answer::Died => {
            let log = daemon::last_words(layout, node, before, join::LAST_LINES);
            Err(FaultError::Died { node, log })
        }
    }
}

fn pause(layout: &Layout, node: NodeNumber) -> Result<String, FaultError> {
    signal(layout, node, Signal::STOP, "paused")
}

fn resume(layout: &Layout, node: NodeNumber) -> Result<String, FaultError> {
    signal(layout, node, Signal::CONT, "resumed")
}

fn signal(layout: &Layout, node: NodeNumber, signal: Signal, what: &str) -> Result<String, FaultError> {
    let (daemon, _) = daemon::living(layout, node)?.ok_or(FaultError::NoDaemon(node))?;
    let sent =
        daemon.signal(signal).map_err(|source| FaultError::Signal { node, pid: daemon.pid, source })?;
    if sent {
        Ok(format!("{node}: daemon {what} (pid {})", daemon.pid))
    } else {
        Err(FaultError::NoDaemon(node))
    }
}

fn link(layout: &Layout, record: &mut Record, node: NodeNumber, up: bool) -> Result<String, FaultError> {
    world::set_link(layout, record, node, up)?;
    Ok(format!("{node}: its link is {}", if up { "up" } else { "down" }))
}

fn crash(layout: &Layout, record: &mut Record, node: NodeNumber, was_up: bool) -> Result<String, FaultError> {
    // Also where it was not: what an interrupted crash left is removed now.
    world::fell_node(layout, record, node)?;
    let what = if was_up { "crashed: all of it was killed, its disk is kept" } else { "was crashed already" };
    Ok(format!("{node}: {what}"))
}

async fn reboot(layout: &Layout, record: &mut Record, node: NodeNumber) -> Result<String, FaultError> {
    world::fell_node(layout, record, node)?;
    world::raise_node(layout, record, node)?;
    let (daemon, how) = start_daemon(layout, record, node).await?;
    let cut = record.nodes.get(&node).is_some_and(|known| known.partitioned);
    let link = if cut { "; its link is still down" } else { "" };
    Ok(format!("{node}: rebooted, daemon started (pid {}), {how}{link}", daemon.pid))
}
