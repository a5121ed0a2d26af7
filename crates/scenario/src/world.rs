//! The machines as they are outside of any daemon: containers, images and ledgers. They live on when an
//! agent dies; when a machine dies its containers do, and its disk stays.

mod host;
mod temper;
mod vigour;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::health;
use agent::host::{Failure, Found, ProbeResult};
use agent::ledger::Assigned;
use model::{Digest, Exit, NodeId, Placement, Probe, Subnet, TaskId};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::check::Check;
use crate::dice::Dice;
use crate::net::Net;
use crate::trace::Trace;

pub(crate) use host::SimHost;
use temper::{Fate, Temper};
use vigour::Vigour;

/// All machines.
#[derive(Debug)]
pub(crate) struct World {
    inner: Mutex<Inner>,
    /// What happens to containers by itself.
    fates: Mutex<JoinSet<()>>,
    /// The nodes whose daemons do nothing to their host now.
    frozen: watch::Sender<BTreeSet<NodeId>>,
    net: Net,
    check: Check,
    dice: Dice,
    /// For what containers answer when they are asked, which is often.
    moods: Dice,
    trace: Trace,
}

#[derive(Debug, Default)]
struct Inner {
    machines: BTreeMap<NodeId, Machine>,
    /// Where each task was first started. It never runs anywhere else.
    homes: BTreeMap<TaskId, NodeId>,
    tempers: BTreeMap<String, Temper>,
    /// Containers end by themselves, and starts fail; disks are full.
    wild: bool,
    runs: u64,
    /// What the registry has, which is no machine of the cluster's, and whether it can be asked.
    registry: BTreeSet<Digest>,
    registry_is_down: bool,
}

#[derive(Debug, Default)]
struct Machine {
    containers: BTreeMap<TaskId, Container>,
    ledger: BTreeMap<TaskId, Vec<u8>>,
    /// When each came.
    images: BTreeMap<Digest, Instant>,
    subnet: Option<Subnet>,
    /// Told when an image has come by itself, and when one could not for want of room.
    arrived: Arc<Notify>,
    full: Arc<Notify>,
}

#[derive(Debug)]
struct Container {
    /// Tells this run from others of the same task.
    run: u64,
    service: String,
    attempt: u32,
    placement: Placement,
    image: Digest,
    started: Instant,
    life: Life,
    vigour: Vigour,
    /// How many failures in a row its health check allows, if it has one, and how many there were.
    retries: Option<u32>,
    failures: u32,
    /// Whether it still has its address and its ports.
    holds: bool,
    ended: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Exited { exit: Exit, ran: Duration },
}

/// A container as others look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) node: NodeId,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) running: bool,
    pub(crate) holds: bool,
}

impl World {
    pub(crate) fn new(seed: u64, wild: bool, net: Net, check: Check, trace: Trace) -> Arc<Self> {
        let inner = Inner { wild, ..Inner::default() };
        Arc::new(Self {
            inner: Mutex::new(inner),
            fates: Mutex::new(JoinSet::new()),
            frozen: watch::Sender::new(BTreeSet::new()),
            net,
            check,
            dice: Dice::new(seed, "world"),
            moods: Dice::new(seed, "moods"),
            trace,
        })
    }

    pub(crate) fn add_machine(&self, node: NodeId) {
        self.lock().machines.insert(node, Machine::default());
    }

    /// Puts an image on a node, as an import does.
    pub(crate) fn import(&self, node: NodeId, image: Digest) {
        self.lock().machine(node).images.insert(image, Instant::now());
    }

    /// Puts an image into the registry.
    pub(crate) fn publish(&self, image: Digest) {
        self.lock().registry.insert(image);
    }

    /// From now on the registry answers nobody, or everybody again.
    pub(crate) fn set_registry_down(&self, is_down: bool) {
        self.lock().registry_is_down = is_down;
    }

    /// What a machine's daemon hears of its images.
    fn signals(&self, node: NodeId) -> (Arc<Notify>, Arc<Notify>) {
        let mut inner = self.lock();
        let machine = inner.machine(node);
        (machine.arrived.clone(), machine.full.clone())
    }

    /// Whether the registry gives an image now.
    fn gives(&self, image: Digest) -> bool {
        let inner = self.lock();
        !inner.registry_is_down && inner.registry.contains(&image)
    }

    /// Cuts a machine's power: its containers are gone, its disk is not.
    pub(crate) fn crash(&self, node: NodeId) {
        let gone = std::mem::take(&mut self.lock().machine(node).containers);
        let running = gone.values().filter(|container| container.life == Life::Running).count();
        self.trace.line(format_args!("{node} lost {running} running containers"));
    }

    /// Keeps a node's daemon from doing anything to its host, until thawed.
    pub(crate) fn freeze(&self, node: NodeId) {
        self.frozen.send_modify(|frozen| {
            frozen.insert(node);
        });
    }

    pub(crate) fn thaw(&self, node: NodeId) {
        self.frozen.send_modify(|frozen| {
            frozen.remove(&node);
        });
    }

    /// From now on containers run until they are stopped, and starts succeed.
    pub(crate) fn calm(&self) {
        self.lock().wild = false;
    }

    pub(crate) fn containers(&self) -> Vec<Seen> {
        let inner = self.lock();
        let all = inner.machines.iter().flat_map(|(node, machine)| {
            machine.containers.iter().map(|(task, container)| Seen {
                node: *node,
                task: *task,
                attempt: container.attempt,
                running: container.life == Life::Running,
                holds: container.holds,
            })
        });
        all.collect()
    }

    /// The tasks that a node's ledger has records of.
    pub(crate) fn recorded(&self, node: NodeId) -> Vec<TaskId> {
        self.lock()
            .machines
            .get(&node)
            .map(|machine| machine.ledger.keys().copied().collect())
            .unwrap_or_default()
    }

    pub(crate) fn has_image(&self, node: NodeId, image: Digest) -> bool {
        self.lock().machines.get(&node).is_some_and(|machine| machine.images.contains_key(&image))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a container, and lays down what will become of it.
    fn launch(self: &Arc<Self>, node: NodeId, task: &Assigned, attempt: u32) -> Result<(), Failure> {
        let id = task.id;
        let mut inner = self.lock();
        let temper = inner.wild.then(|| inner.temper(&self.dice, &task.service));
        let fate = temper.map_or(Fate::Runs, |temper| temper.fate(&self.dice));
        let vigour = temper.map_or(Vigour::STEADY, |temper| temper.vigour(&self.moods));
        if fate == Fate::NeverStarts {
            return Err(Failure("the program is not there".to_owned()));
        }
        let home = *inner.homes.entry(id).or_insert(node);
        if home != node {
            self.trace.broken(format_args!("task {id} was started on {node} after {home}"));
        }
        if let Some(holder) = inner.holder_of(id, &task.placement) {
            self.trace.broken(format_args!(
                "task {id} was started on {node} with an address or a port that task {holder} has: {:?}",
                task.placement
            ));
        }
        inner.runs += 1;
        let run = inner.runs;
        let machine = inner.machine(node);
        if machine.containers.get(&id).is_some_and(|container| container.life == Life::Running) {
            self.trace.broken(format_args!("task {id} was started on {node} while it ran there"));
        }
        if !machine.ledger.contains_key(&id) {
            self.trace.broken(format_args!("task {id} was started on {node} without a record of it"));
        }
        if !machine.images.contains_key(&task.image) {
            self.trace.broken(format_args!("task {id} was started on {node} without its image"));
        }
        let container = Container {
            run,
            service: task.service.clone(),
            attempt,
            placement: task.placement.clone(),
            image: task.image,
            started: Instant::now(),
            life: Life::Running,
            vigour,
            retries: health::Check::resolve(&task.spec.health, vigour::own_check(task.image).as_ref())
                .map(|check| check.retries),
            failures: 0,
            holds: true,
            ended: watch::Sender::new(false),
        };
        machine.containers.insert(id, container);
        drop(inner);
        self.trace.line(format_args!("{node} started {id} attempt {attempt}"));
        self.trace.count("container started");
        if let Fate::Ends { after, exit } = fate {
            let world = self.clone();
            self.later(async move {
                tokio::time::sleep(after).await;
                world.ends_by_itself(node, id, run, exit);
            });
        }
        Ok(())
    }

    fn ends_by_itself(&self, node: NodeId, task: TaskId, run: u64, exit: Exit) {
        if self.lock().wild {
            self.trace.count("container ended by itself");
            self.ends(node, task, run, exit);
        }
    }

    fn ends(&self, node: NodeId, task: TaskId, run: u64, exit: Exit) {
        let mut inner = self.lock();
        let Some(container) = inner.machine(node).containers.get_mut(&task) else { return };
        if container.run != run || container.life != Life::Running {
            return;
        }
        container.life = Life::Exited { exit, ran: container.started.elapsed() };
        container.ended.send_replace(true);
        self.trace.line(format_args!("{node} saw {task} attempt {} end: {exit}", container.attempt));
    }

    /// What a container answers.
    fn answer(&self, node: NodeId, task: TaskId, attempt: u32, probe: &Probe) -> ProbeResult {
        let mut inner = self.lock();
        let wild = inner.wild;
        let container = inner.machine(node).containers.get_mut(&task);
        let runs = |c: &&mut Container| c.attempt == attempt && c.life == Life::Running;
        let Some(container) = container.filter(runs) else {
            let output = "there is no such container".to_owned();
            return ProbeResult { healthy: false, output, paused: false };
        };
        let age = container.started.elapsed();
        let healthy = match probe {
            Probe::Exec(_) => {
                let healthy = container.vigour.lives(age, wild);
                container.failures = if healthy { 0 } else { container.failures + 1 };
                healthy
            }
            Probe::Http(_) | Probe::Tcp { .. } | Probe::Grpc { .. } => container.vigour.serves(age, wild),
        };
        self.trace.note(format_args!("{node} asked {task} attempt {attempt}: {healthy}"));
        if !healthy {
            self.trace.count("probe failed");
        }
        ProbeResult { healthy, output: format!("asked at {age:?}"), paused: false }
    }

    /// The run of a task that is to be stopped, if it runs. Whoever stops one that is wanted breaks the
    /// promise that losing the managers, or an old word of theirs, changes nothing; unless its own health
    /// check has failed as often as it may.
    fn about_to_stop(&self, node: NodeId, task: TaskId) -> Option<u64> {
        let (running, unhealthy) = match self.lock().machine(node).containers.get(&task) {
            Some(container) if container.life == Life::Running => {
                let unhealthy = container.retries.is_some_and(|retries| container.failures >= retries);
                (container.run, unhealthy)
            }
            Some(_) | None => return None,
        };
        match self.check.may_stop(task) {
            Ok(()) => {}
            Err(_) if unhealthy => self.trace.count("container ended as unhealthy"),
            Err(reason) => {
                self.trace.broken(format_args!("{node} stops task {task} although {reason}"));
            }
        }
        Some(running)
    }

    fn find(&self, node: NodeId, task: TaskId, attempt: u32) -> Found {
        let mut inner = self.lock();
        let container =
            inner.machine(node).containers.get(&task).filter(|container| container.attempt == attempt);
        match container.map(|container| (container.life, container.started)) {
            None => Found::Nothing,
            Some((Life::Running, started)) => Found::Running { ran: started.elapsed() },
            Some((Life::Exited { exit, ran }, _)) => Found::Exited { exit, ran },
        }
    }

    /// Takes away what an ended container holds.
    fn release(&self, node: NodeId, task: TaskId) {
        let mut inner = self.lock();
        let Some(container) = inner.machine(node).containers.get_mut(&task) else { return };
        if container.life == Life::Running {
            self.trace.broken(format_args!("{node} took its address from task {task}, which runs"));
        }
        container.holds = false;
    }

    fn remove(&self, node: NodeId, task: TaskId) {
        if let Some(run) = self.about_to_stop(node, task) {
            self.ends(node, task, run, Exit::Signal { signal: 9, oom: false });
        }
        self.lock().machine(node).containers.remove(&task);
    }

    fn farewell(&self, node: NodeId, task: TaskId) -> Duration {
        let mut inner = self.lock();
        let service = inner.machine(node).containers.get(&task).map(|container| container.service.clone());
        match service.filter(|_| inner.wild) {
            Some(service) => inner.temper(&self.dice, &service).farewell(&self.dice),
            None => Temper::Steady.farewell(&self.dice),
        }
    }

    /// Turns true when the container ends.
    fn end_of(&self, node: NodeId, task: TaskId) -> Option<watch::Receiver<bool>> {
        self.lock().machine(node).containers.get(&task).map(|container| container.ended.subscribe())
    }

    fn records(&self, node: NodeId) -> Vec<Vec<u8>> {
        self.lock().machine(node).ledger.values().cloned().collect()
    }

    fn discard(&self, node: NodeId, image: Digest) {
        let mut inner = self.lock();
        let machine = inner.machine(node);
        let used = machine.containers.values().any(|c| c.image == image && c.life == Life::Running);
        if used {
            // Its layers are mounted.
            self.trace.broken(format_args!("{node} discarded image {} under a container", image.short()));
        }
        machine.images.remove(&image);
        self.trace.line(format_args!("{node} discarded image {}", image.short()));
    }

    /// What happens whatever becomes of the daemons.
    fn later(&self, what: impl Future<Output = ()> + Send + 'static) {
        let mut fates = self.fates.lock().unwrap_or_else(PoisonError::into_inner);
        while fates.try_join_next().is_some() {}
        fates.spawn(what);
    }

    /// Returns once the node's daemon may act on its host.
    async fn thawed(&self, node: NodeId) {
        let mut frozen = self.frozen.subscribe();
        // The sender is this world's own.
        let _ = frozen.wait_for(|frozen| !frozen.contains(&node)).await;
    }
}

impl Inner {
    fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.entry(node).or_default()
    }

    fn temper(&mut self, dice: &Dice, service: &str) -> Temper {
        *self.tempers.entry(service.to_owned()).or_insert_with(|| Temper::draw(dice))
    }

    /// The other task that has this address, or one of these ports on this node.
    fn holder_of(&self, id: TaskId, wanted: &Placement) -> Option<TaskId> {
        let containers = self.machines.values().flat_map(|machine| &machine.containers);
        let mut holders = containers.filter(|(task, container)| **task != id && container.holds);
        let collides = |held: &Placement| {
            let same_port = |port: &model::PublishedPort| {
                wanted.ports.iter().any(|other| (other.host, other.protocol) == (port.host, port.protocol))
            };
            held.address == wanted.address || (held.node == wanted.node && held.ports.iter().any(same_port))
        };
        holders.find(|(_, container)| collides(&container.placement)).map(|(task, _)| *task)
    }
}
