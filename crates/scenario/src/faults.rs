//! What goes wrong, and when: drawn from the seed. Each run draws which kinds of faults it knows at all, so
//! that some runs are full of one thing and others of everything (swarm testing).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use model::NodeId;
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::net::USERS;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Kill,
    Crash,
    /// Everyone at once: a power cut of the room.
    Blackout,
    Isolate,
    /// Two halves.
    Split,
    /// One hears the other and is not heard.
    OneWay,
    Loss,
    SlowNetwork,
    SlowDisk,
    Reset,
    /// A daemon that neither hears nor is heard and does nothing, while its timers go on.
    Pause,
    HandOver,
    /// Nobody gets images but from one another.
    Registry,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Kill,
        Self::Crash,
        Self::Blackout,
        Self::Isolate,
        Self::Split,
        Self::OneWay,
        Self::Loss,
        Self::SlowNetwork,
        Self::SlowDisk,
        Self::Reset,
        Self::Pause,
        Self::HandOver,
        Self::Registry,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "fault: kill",
            Self::Crash => "fault: crash",
            Self::Blackout => "fault: blackout",
            Self::Isolate => "fault: isolate",
            Self::Split => "fault: split",
            Self::OneWay => "fault: one way",
            Self::Loss => "fault: loss",
            Self::SlowNetwork => "fault: slow network",
            Self::SlowDisk => "fault: slow disk",
            Self::Reset => "fault: reset",
            Self::Pause => "fault: pause",
            Self::HandOver => "fault: hand over",
            Self::Registry => "fault: registry",
        }
    }
}

/// What ends a fault.
#[derive(Clone, Debug)]
enum Repair {
    Start(NodeId),
    Reboot(NodeId),
    Unblock(Vec<(NodeId, NodeId)>),
    NoLoss,
    UsualPace,
    Unstall(NodeId),
    Thaw(NodeId, Vec<(NodeId, NodeId)>),
    Registry,
}

/// Whoever breaks things, and repairs them.
#[derive(Debug)]
pub(crate) struct Mischief {
    dice: Dice,
    known: Vec<Kind>,
    /// By when they are due; the number tells those that are due at once apart.
    repairs: BTreeMap<(Instant, u64), Repair>,
    faults: u64,
}

impl Mischief {
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Dice::new(seed, "faults");
        let mut known: Vec<Kind> = Kind::ALL.into_iter().filter(|_| dice.chance(45)).collect();
        if known.is_empty() {
            known.push(dice.pick(&Kind::ALL));
        }
        Self { dice, known, repairs: BTreeMap::new(), faults: 0 }
    }

    /// Breaks and repairs things until `until`; then repairs everything at once.
    pub(crate) async fn run(mut self, cluster: &mut Cluster, until: Instant) -> Result<()> {
        cluster.trace.line(format_args!("faults: {:?}", self.known));
        let mut next = Instant::now() + self.dice.millis(200, 4_000);
        while next < until && !cluster.trace.is_broken() {
            let due = self.repairs.first_key_value().map(|((at, _), _)| *at);
            match due.filter(|at| *at <= next) {
                Some(at) => {
                    sleep_until(at).await;
                    if let Some((_, repair)) = self.repairs.pop_first() {
                        undo(cluster, repair).await?;
                    }
                }
                None => {
                    sleep_until(next).await;
                    self.strike(cluster).await;
                    next = Instant::now() + self.dice.millis(200, 6_000);
                }
            }
        }
        while let Some((_, repair)) = self.repairs.pop_first() {
            undo(cluster, repair).await?;
        }
        Ok(())
    }

    /// A node, more often than not one that leads.
    fn victim(&self, cluster: &Cluster) -> NodeId {
        match cluster.leaders().first() {
            Some(leader) if self.dice.chance(45) => *leader,
            Some(_) | None => self.dice.pick(&cluster.nodes()),
        }
    }

    fn later(&mut self, after: Duration, repair: Repair) {
        self.faults += 1;
        self.repairs.insert((Instant::now() + after, self.faults), repair);
    }

    async fn strike(&mut self, cluster: &mut Cluster) {
        let kind = self.dice.pick(&self.known);
        let node = self.victim(cluster);
        // Some outages are over before anyone notices; some outlast every grace period.
        let long = self.dice.chance(20);
        let lasts = if long { self.dice.millis(5_000, 15_000) } else { self.dice.millis(50, 4_000) };
        cluster.trace.line(format_args!("fault: {kind:?} at {node} for {lasts:?}"));
        cluster.trace.count(kind.name());
        match kind {
            Kind::Kill => self.kill(cluster, node, lasts).await,
            Kind::Crash => self.crash(cluster, node, lasts).await,
            Kind::Blackout => {
                for node in cluster.nodes() {
                    let lasts = self.dice.millis(100, 6_000);
                    self.crash(cluster, node, lasts).await;
                }
            }
            Kind::Isolate => self.block(cluster, isolated(cluster, node), lasts),
            Kind::Split => self.block(cluster, self.split(cluster), lasts),
            Kind::OneWay => {
                let other = self.dice.pick(&cluster.nodes());
                self.block(cluster, vec![(node, other)], lasts);
            }
            Kind::Loss => {
                cluster.net.lose(self.dice.pick(&[1, 5, 20, 40]));
                self.later(lasts, Repair::NoLoss);
            }
            Kind::SlowNetwork => {
                let most = self.dice.pick(&[60, 200, 600]);
                cluster.net.slow(1, most);
                self.later(lasts, Repair::UsualPace);
            }
            Kind::SlowDisk => {
                cluster.stall(node, self.dice.millis(50, 1_500));
                self.later(lasts, Repair::Unstall(node));
            }
            Kind::Reset => cluster.net.cut(node),
            Kind::Pause => {
                let blocked = isolated(cluster, node);
                blocked.iter().for_each(|(from, to)| cluster.net.block(*from, *to));
                cluster.world.freeze(node);
                self.later(lasts, Repair::Thaw(node, blocked));
            }
            Kind::Registry => {
                cluster.world.set_registry_down(true);
                self.later(lasts, Repair::Registry);
            }
            Kind::HandOver => {
                if let Some(store) = cluster.store(node) {
                    // It does nothing unless this one leads; who leads then is up to the others.
                    let heir = store.hand_over().await;
                    cluster.trace.line(format_args!("{node} hands over to {heir:?}"));
                }
            }
        }
    }

    async fn kill(&mut self, cluster: &mut Cluster, node: NodeId, lasts: Duration) {
        if cluster.is_up(node) {
            cluster.kill(node).await;
            self.later(lasts, Repair::Start(node));
        }
    }

    async fn crash(&mut self, cluster: &mut Cluster, node: NodeId, lasts: Duration) {
        if cluster.is_up(node) {
            cluster.crash(node).await;
            self.later(lasts, Repair::Reboot(node));
        }
    }

    fn block(&mut self, cluster: &Cluster, pairs: Vec<(NodeId, NodeId)>, lasts: Duration) {
        pairs.iter().for_each(|(from, to)| cluster.net.block(*from, *to));
        self.later(lasts, Repair::Unblock(pairs));
    }

    /// All ways between two random halves.
    fn split(&self, cluster: &Cluster) -> Vec<(NodeId, NodeId)> {
        let (one, other): (Vec<NodeId>, Vec<NodeId>) =
            cluster.nodes().into_iter().partition(|_| self.dice.chance(50));
        let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
        pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
    }
}

/// All ways to and from a node.
fn isolated(cluster: &Cluster, node: NodeId) -> Vec<(NodeId, NodeId)> {
    let others = cluster.nodes().into_iter().chain([USERS]).filter(|other| *other != node);
    others.flat_map(|other| [(node, other), (other, node)]).collect()
}

async fn undo(cluster: &mut Cluster, repair: Repair) -> Result<()> {
    cluster.trace.line(format_args!("repair: {repair:?}"));
    match repair {
        Repair::Start(node) => cluster.start(node).await?,
        Repair::Reboot(node) => cluster.reboot(node).await?,
        Repair::Unblock(pairs) => unblock(cluster, &pairs),
        Repair::NoLoss => cluster.net.lose(0),
        Repair::UsualPace => cluster.net.usual_pace(),
        Repair::Unstall(node) => cluster.stall(node, Duration::ZERO),
        Repair::Thaw(node, pairs) => {
            unblock(cluster, &pairs);
            cluster.world.thaw(node);
        }
        Repair::Registry => cluster.world.set_registry_down(false),
    }
    Ok(())
}

fn unblock(cluster: &Cluster, pairs: &[(NodeId, NodeId)]) {
    pairs.iter().for_each(|(from, to)| cluster.net.unblock(*from, *to));
}
