//! Everything that is carried between machines: with delays, losses, partitions and broken connections, all
//! seeded.
//!
//! A call is a message there, work at the other end, and a message back; each of the three can go wrong by
//! itself, and the work goes on when the caller is gone. A daemon that is down refuses at once, a machine
//! that is down says nothing.

mod raft;
mod session;
mod uplink;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::api::Api;
use control::dispatch::Dispatcher;
use futures::future::BoxFuture;
use model::NodeId;
use store::Store;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::dice::Dice;
use crate::trace::Trace;

pub(crate) use raft::RaftWire;
pub(crate) use uplink::AgentWire;

/// Users: they are on no machine of the cluster.
pub(crate) const USERS: NodeId = NodeId(0);

/// How long messages take while nothing is wrong, in milliseconds. Tokio's clock has steps of one.
const USUAL: (u64, u64) = (0, 20);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing came back until the caller's patience was over. The work may have been done.
    Silence,
    /// Nothing listens there, or the connection was reset. The work may have been done.
    Refused,
}

/// What listens on a manager's machine.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) store: Store,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) api: Api,
}

/// A handle on the network.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    links: Mutex<Links>,
    /// What is on its way, whoever waits for it.
    flights: Mutex<JoinSet<()>>,
    /// Counts everything that can end a connection.
    cuts: watch::Sender<u64>,
    dice: Dice,
    trace: Trace,
}

#[derive(Debug)]
struct Links {
    /// How many faults keep messages from going from one to the other.
    blocked: BTreeMap<(NodeId, NodeId), u32>,
    /// Of 100 messages.
    loss: u64,
    latency: (u64, u64),
    /// When the last message from one to the other arrives; later ones do not overtake it.
    last: BTreeMap<(NodeId, NodeId), Instant>,
    powered: BTreeSet<NodeId>,
    ports: BTreeMap<NodeId, Port>,
    /// Counts a machine's daemons and its broken connections: a connection made before does not live on.
    epochs: BTreeMap<NodeId, u64>,
}

/// Where a node's daemon is reached. A node has one address for ever.
pub(crate) fn address(node: NodeId) -> SocketAddr {
    let last = u8::try_from(node.0).expect("simulated clusters are small");
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 7000))
}

fn node_at(address: SocketAddr) -> Option<NodeId> {
    match address {
        SocketAddr::V4(v4) => Some(NodeId(v4.ip().octets()[3].into())),
        SocketAddr::V6(_) => None,
    }
}

impl Net {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let links = Links {
            blocked: BTreeMap::new(),
            loss: 0,
            latency: USUAL,
            last: BTreeMap::new(),
            powered: BTreeSet::from([USERS]),
            ports: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        let shared = Shared {
            links: Mutex::new(links),
            flights: Mutex::new(JoinSet::new()),
            cuts: watch::Sender::new(0),
            dice: Dice::new(seed, "net"),
            trace,
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn power(&self, node: NodeId, on: bool) {
        let mut links = self.links();
        if on {
            links.powered.insert(node);
        } else {
            links.powered.remove(&node);
        }
    }

    /// A manager's daemon is there for the others.
    pub(crate) fn listen(&self, node: NodeId, port: Port) {
        self.links().ports.insert(node, port);
    }

    /// A machine's daemon is gone, and every connection with it.
    pub(crate) fn close(&self, node: NodeId) {
        self.links().ports.remove(&node);
        self.cut(node);
    }

    /// Breaks every connection of a node.
    pub(crate) fn cut(&self, node: NodeId) {
        *self.links().epochs.entry(node).or_default() += 1;
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Keeps messages from going from one to the other, until unblocked as often.
    pub(crate) fn block(&self, from: NodeId, to: NodeId) {
        *self.links().blocked.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn unblock(&self, from: NodeId, to: NodeId) {
        if let Some(count) = self.links().blocked.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Of 100 messages, so many are lost from now on.
    pub(crate) fn lose(&self, percent: u64) {
        self.links().loss = percent;
    }

    /// Messages take from `least` to `most` milliseconds from now on.
    pub(crate) fn slow(&self, least: u64, most: u64) {
        self.links().latency = (least, most);
    }

    pub(crate) fn usual_pace(&self) {
        self.links().latency = USUAL;
    }

    /// Whether two machines can talk with each other now.
    pub(crate) fn is_open(&self, one: NodeId, other: NodeId) -> bool {
        let links = self.links();
        links.powered.contains(&one)
            && links.powered.contains(&other)
            && !links.is_blocked(one, other)
            && !links.is_blocked(other, one)
    }

    /// Has `work` done by the daemon of `to`, and brings its result within `patience`.
    ///
    /// # Errors
    /// In both cases the work may have been done, or may still be.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        from: NodeId,
        to: NodeId,
        patience: Duration,
        work: impl FnOnce(Port) -> BoxFuture<'static, T> + Send + 'static,
    ) -> Result<T, Lost> {
        let deadline = Instant::now() + patience;
        let (reply, answer) = oneshot::channel();
        let net = self.clone();
        self.launch(async move {
            if let Some(result) = net.serve(from, to, work).await {
                // The caller may have lost its patience.
                let _ = reply.send(result);
            }
        });
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            // Nothing will come, and nobody says so.
            Ok(Err(_lost)) => {
                sleep_until(deadline).await;
                Err(Lost::Silence)
            }
            Err(_elapsed) => Err(Lost::Silence),
        }
    }

    /// `None` when nothing reaches the caller.
    async fn serve<T>(
        &self,
        from: NodeId,
        to: NodeId,
        work: impl FnOnce(Port) -> BoxFuture<'static, T>,
    ) -> Option<Result<T, Lost>> {
        self.pass(from, to).await?;
        let (port, epoch) = {
            let links = self.links();
            if !links.powered.contains(&to) {
                return None;
            }
            (links.ports.get(&to).cloned(), links.epoch(to))
        };
        let result = match port {
            None => Err(Lost::Refused),
            Some(port) => tokio::select! {
                biased;
                () = self.until_cut(to, epoch) => Err(Lost::Refused),
                result = work(port) => Ok(result),
            },
        };
        if !self.links().powered.contains(&to) {
            return None;
        }
        self.pass(to, from).await?;
        Some(result)
    }

    /// One message on its way; `None` if it does not arrive.
    async fn pass(&self, from: NodeId, to: NodeId) -> Option<()> {
        let arrival = {
            let mut links = self.links();
            if links.is_blocked(from, to) || self.shared.dice.chance(links.loss) {
                return None;
            }
            let (least, most) = links.latency;
            let arrival = Instant::now() + self.shared.dice.millis(least, most);
            let last = links.last.entry((from, to)).or_insert(arrival);
            *last = arrival.max(*last);
            *last
        };
        sleep_until(arrival).await;
        let open = !self.links().is_blocked(from, to);
        self.shared.trace.note(format_args!("{from} to {to}: {open}"));
        open.then_some(())
    }

    fn epoch(&self, node: NodeId) -> u64 {
        self.links().epoch(node)
    }

    /// Returns when the connections that `node` had at `epoch` are broken.
    async fn until_cut(&self, node: NodeId, epoch: u64) {
        let mut cuts = self.shared.cuts.subscribe();
        while self.epoch(node) == epoch {
            if cuts.changed().await.is_err() {
                return;
            }
        }
    }

    /// Carries something on, whatever becomes of the one who sent it.
    fn launch(&self, flight: impl Future<Output = ()> + Send + 'static) {
        let mut flights = self.shared.flights.lock().unwrap_or_else(PoisonError::into_inner);
        while flights.try_join_next().is_some() {}
        flights.spawn(flight);
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.shared.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    fn epoch(&self, node: NodeId) -> u64 {
        self.epochs.get(&node).copied().unwrap_or_default()
    }
}
