//! The machines of one cluster, and the daemons on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use agent::uplink::Manager;
use anyhow::{Context as _, Result, bail, ensure};
use control::{Control, Parts, WallClock};
use model::{Bytes, Capacity, ClusterId, LogIndex, MilliCpu, Name, NodeId, Role, Subnet, Timestamp};
use state::command::Authority;
use state::{Command, Done, Proposal, State};
use store::{Config, Health, Store};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::check::{self, Check};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::net::{AgentWire, Net, Port, RaftWire, address};
use crate::trace::Trace;
use crate::world::{SimHost, World};

/// The day on which every run begins.
const EPOCH: Timestamp = Timestamp(1_800_000_000_000);

const CLUSTER: ClusterId = ClusterId(0x5eed);

/// How long a healthy cluster may take to be founded.
const FOUNDING: Duration = Duration::from_secs(60);

/// The hashes of the tokens that machines join with.
const MANAGERS_TOKEN: [u8; 32] = [7; 32];
const WORKERS_TOKEN: [u8; 32] = [8; 32];

/// All machines.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) net: Net,
    pub(crate) world: Arc<World>,
    pub(crate) check: Check,
    pub(crate) trace: Trace,
    machines: BTreeMap<NodeId, Machine>,
    managers: BTreeSet<Manager>,
    snapshot_after: u64,
    began: Instant,
    dice: Dice,
}

#[derive(Debug)]
struct Machine {
    role: Role,
    disk: Disk,
    /// How far its clock is from the true time, in milliseconds.
    skew: i64,
    capacity: Capacity,
    powered: bool,
    daemon: Option<Daemon>,
}

/// What dies with `kill -9`.
#[derive(Debug)]
struct Daemon {
    tasks: JoinSet<()>,
    store: Option<Store>,
}

/// What the clock of a machine shows in a run that began at `began`.
fn wall(began: Instant, skew: i64) -> impl Fn() -> Timestamp + Send + Sync + 'static {
    let base = EPOCH.0.saturating_add_signed(skew);
    move || Timestamp(base).plus(began.elapsed())
}

impl Cluster {
    /// Three managers and `workers` more machines, all in one cluster.
    pub(crate) async fn found(seed: u64, workers: u64, wild: bool, trace: Trace) -> Result<Self> {
        let dice = Dice::new(seed, "cluster");
        let net = Net::new(seed, trace.clone());
        let check = Check::new(trace.clone());
        let world = World::new(seed, wild, net.clone(), check.clone(), trace.clone());
        let managers = (1..=3).map(NodeId);
        let mut cluster = Self {
            net,
            world,
            check,
            trace,
            machines: BTreeMap::new(),
            managers: managers.map(|node| Manager { node: Some(node), address: address(node) }).collect(),
            snapshot_after: dice.pick(&[30, 100, 400]),
            began: Instant::now(),
            dice,
        };
        cluster.add(NodeId(1), Role::Manager);
        cluster.start(NodeId(1)).await?;
        cluster.admit(workers).await?;
        let nodes: Vec<NodeId> = cluster.machines.keys().copied().filter(|node| *node != NodeId(1)).collect();
        for node in nodes {
            cluster.start(node).await?;
        }
        cluster.settled().await?;
        Ok(cluster)
    }

    fn add(&mut self, node: NodeId, role: Role) {
        // Most disks are quick, some are not; clocks are a little off, as NTP leaves them.
        let sync_time = self.dice.pick(&[0, 1, 2, 5, 20, 60]);
        let below = i64::try_from(self.dice.below(300)).unwrap_or_default();
        let machine = Machine {
            role,
            disk: Disk::new(Duration::from_millis(sync_time)),
            skew: below - 150,
            capacity: Capacity { cpu: MilliCpu(4000), memory: Bytes(4 << 30) },
            powered: true,
            daemon: None,
        };
        self.machines.insert(node, machine);
        self.world.add_machine(node);
        self.net.power(node, true);
    }

    /// Founds the cluster at the first manager, and gives every other machine its identity.
    async fn admit(&mut self, workers: u64) -> Result<()> {
        let founder = self.store(NodeId(1)).context("the founder has a store")?;
        founder.initialize().await?;
        let range = Subnet { base: [10, 128, 0, 0].into(), prefix: 16 };
        let authority = Authority { certificate_pem: String::new(), key_pem: String::new() };
        let expires = EPOCH.plus(Duration::from_secs(3600));
        let commands = vec![
            Command::Found { cluster: CLUSTER, range, node_prefix: 24, authority },
            Command::PutToken { digest: MANAGERS_TOKEN, role: Role::Manager, expires },
            Command::PutToken { digest: WORKERS_TOKEN, role: Role::Worker, expires },
        ];
        founder.propose(Proposal { at: EPOCH, request: None, by: None, commands }).await?;
        for number in 1..=3 + workers {
            let node = NodeId(number);
            let (role, token) = match number {
                1 => (Role::Manager, None),
                2 | 3 => (Role::Manager, Some(MANAGERS_TOKEN)),
                _ => (Role::Worker, Some(WORKERS_TOKEN)),
            };
            let name: Name = format!("node-{number}").parse()?;
            let admit = Command::AdmitNode { name, role, address: address(node), token, key: None };
            let outcomes = founder
                .propose(Proposal { at: EPOCH, request: None, by: None, commands: vec![admit] })
                .await?;
            ensure!(outcomes == [Ok(Done::Admitted(node))], "{node} was not admitted: {outcomes:?}");
            if number > 1 {
                self.add(node, role);
            }
        }
        Ok(())
    }

    /// Waits until every manager votes and every node has a session.
    async fn settled(&self) -> Result<()> {
        let deadline = Instant::now() + FOUNDING;
        loop {
            let voters = self.store(NodeId(1)).map(|store| store.voters().len());
            let ready =
                self.newest().nodes().filter(|(_, node)| node.liveness == model::Liveness::Ready).count();
            if voters == Some(3) && ready == self.machines.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the cluster is not complete after {FOUNDING:?}: voters {voters:?}, {ready} nodes ready"
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a node's daemon on a machine that is on. Does nothing where one runs.
    pub(crate) async fn start(&mut self, node: NodeId) -> Result<()> {
        let (net, world, check) = (self.net.clone(), self.world.clone(), self.check.clone());
        let (managers, trace) = (self.managers.clone(), self.trace.clone());
        let (snapshot_after, began) = (self.snapshot_after, self.began);
        // Every daemon draws its election timeouts anew, as a real one does.
        let chance = self.dice.below(u64::MAX);
        let machine = self.machine(node);
        if machine.daemon.is_some() || !machine.powered {
            return Ok(());
        }
        trace.line(format_args!("{node} starts its daemon"));
        let mut tasks = JoinSet::new();
        let mut daemon_store = None;
        if machine.role == Role::Manager {
            let mut config = Config::new(node, CLUSTER, chance);
            config.snapshot_after = snapshot_after;
            machine.disk = machine.disk.reopen();
            let wire = RaftWire { net: net.clone(), node };
            let store = Store::start(config, machine.disk.clone(), wire).await;
            let store = store.with_context(|| format!("{node} does not start"))?;
            let clock = WallClock::new(wall(began, machine.skew));
            let control = Control::new(Parts { node, store: store.clone(), clock, version: "0.0.0" });
            let port = Port { store: store.clone(), dispatcher: control.dispatcher(), api: control.api() };
            net.listen(node, port);
            tasks.spawn(control.run());
            tasks.spawn(check::observe(node, store.clone(), check));
            tasks.spawn(notice_failure(node, store.clone(), trace.clone()));
            daemon_store = Some(store);
        }
        let config = agent::Config {
            address: address(node),
            labels: BTreeMap::from([("zone".to_owned(), format!("z{}", node.0 % 2))]),
            capacity: machine.capacity,
            platform: "linux/amd64".parse().expect("that is a platform"),
            version: "0.0.0".to_owned(),
            managers,
        };
        let host = Arc::new(SimHost::new(world, node));
        let uplink = Arc::new(AgentWire { net, node });
        // Nothing dials streams here, so what is asked to be opened goes nowhere.
        let (opens, _) = mpsc::unbounded_channel();
        let (mut agent, heart) =
            Agent::new(config, host, uplink, agent::Clock::new(wall(began, machine.skew)), opens);
        tasks.spawn(async move {
            if let Err(failure) = agent.adopt().await {
                return trace.broken(format_args!("the agent of {node} cannot start: {failure}"));
            }
            match agent.run().await {}
        });
        tasks.spawn(heart.run());
        machine.daemon = Some(Daemon { tasks, store: daemon_store });
        Ok(())
    }

    /// Kills a node's daemon, as `kill -9` does: the page cache and the containers stay.
    pub(crate) async fn kill(&mut self, node: NodeId) {
        self.trace.line(format_args!("{node} loses its daemon"));
        self.end_daemon(node, |unsynced| unsynced).await;
    }

    /// Cuts a machine's power.
    pub(crate) async fn crash(&mut self, node: NodeId) {
        self.trace.line(format_args!("{node} loses its power"));
        let kept = self.dice.below(100);
        self.net.power(node, false);
        self.machine(node).powered = false;
        self.end_daemon(node, |unsynced| match kept {
            0..40 => 0,
            40..60 => unsynced,
            _ => unsynced / 2,
        })
        .await;
        self.world.crash(node);
    }

    /// Gives a machine its power back; its daemon comes up with it.
    pub(crate) async fn reboot(&mut self, node: NodeId) -> Result<()> {
        self.machine(node).powered = true;
        self.net.power(node, true);
        self.start(node).await
    }

    async fn end_daemon(&mut self, node: NodeId, keep: impl FnOnce(usize) -> usize) {
        let Some(mut daemon) = self.machine(node).daemon.take() else { return };
        self.net.close(node);
        // The disk first: what the dying still try to write is lost.
        self.machine(node).disk.crash(keep);
        daemon.tasks.abort_all();
        daemon.tasks.shutdown().await;
        if let Some(store) = daemon.store {
            store.shutdown().await;
        }
    }

    /// Ends every daemon, so that none is in the middle of something when the runtime goes.
    pub(crate) async fn end(&mut self) {
        for node in self.nodes() {
            self.end_daemon(node, |unsynced| unsynced).await;
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// Whether a node's daemon runs.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.machines.get(&node).is_some_and(|machine| machine.daemon.is_some())
    }

    pub(crate) fn managers(&self) -> Vec<NodeId> {
        let managers = self.machines.iter().filter(|(_, machine)| machine.role == Role::Manager);
        managers.map(|(node, _)| *node).collect()
    }

    /// The store of a manager that runs.
    pub(crate) fn store(&self, node: NodeId) -> Option<Store> {
        self.machines.get(&node)?.daemon.as_ref()?.store.clone()
    }

    pub(crate) fn stores(&self) -> Vec<(NodeId, Store)> {
        self.managers().into_iter().filter_map(|node| Some((node, self.store(node)?))).collect()
    }

    /// Those who believe that they lead.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leads = |(_, store): &(NodeId, Store)| store.leadership().borrow().is_leader();
        self.stores().into_iter().filter(leads).map(|(node, _)| node).collect()
    }

    pub(crate) fn health(&self) -> BTreeMap<NodeId, Health> {
        self.stores().into_iter().map(|(node, store)| (node, store.health())).collect()
    }

    /// How far each manager's log reaches, and how far it is applied.
    pub(crate) fn reach(&self) -> BTreeMap<NodeId, (Option<LogIndex>, Option<LogIndex>)> {
        self.health().into_iter().map(|(node, health)| (node, (health.last, health.applied))).collect()
    }

    /// The newest state that any manager was ever seen in.
    pub(crate) fn newest(&self) -> State {
        self.check.newest().unwrap_or_default()
    }

    pub(crate) fn stall(&mut self, node: NodeId, by: Duration) {
        self.machine(node).disk.stall(by);
    }

    fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("faults are drawn from the machines that there are")
    }
}

/// A store that fails by itself is a fault that nobody injected: its disk only ever fails together with its
/// daemon.
async fn notice_failure(node: NodeId, store: Store, trace: Trace) {
    let failure = store.failed().await;
    trace.broken(format_args!("the store of {node} failed: {failure}"));
}
