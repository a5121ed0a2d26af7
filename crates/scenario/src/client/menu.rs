//! What users ask for.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Bytes, Condition, Constraint, ContainerSpec, Digest, FailureAction, Health, HealthCheck, ImageName,
    JobSpec, Limits, MilliCpu, Mode, Name, NodeId, PlacementPolicy, PortSpec, Priority, Probe, Protocol,
    Publish, PullPolicy, Readiness, RequestId, Reservations, Resources, RestartCondition, RestartPolicy,
    ServiceSpec, Strategy, TaskSpec, UpdateOrder, UpdatePolicy,
};
use state::{Command, Proposal};
use tokio::time::{Instant, sleep};

use crate::check::Check;
use crate::client::PATIENCE;
use crate::client::belief::{Belief, Op, Services, Turn};
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::net::{Net, Port, USERS};
use crate::trace::Trace;
use crate::world::World;

/// The images that there are from the beginning.
const IMAGES: [&str; 3] = ["alpha:latest", "beta:latest", "gamma:latest"];

const SERVICES: [&str; 3] = ["api", "batch", "web"];

const TURNS: [Turn; 8] = [
    Turn::Undo,
    Turn::Restart,
    Turn::RunJob,
    Turn::StopJob,
    Turn::Steer("pause"),
    Turn::Steer("resume"),
    Turn::Steer("abort"),
    Turn::Steer("promote"),
];

/// A change that makes sense as far as the user knows.
pub(super) fn choose(dice: &Dice, belief: &Belief) -> Op {
    let Some(services) = belief.guess() else { return Op::Deploy(self::services(dice)) };
    let names: Vec<Name> = services.keys().cloned().collect();
    match dice.below(100) {
        0..12 => Op::Remove,
        12..50 => Op::Deploy(changed(dice, services)),
        50..70 => Op::Turn { service: dice.pick(&names), turn: dice.pick(&TURNS) },
        _ => Op::Scale { service: dice.pick(&names), replicas: replicas(dice) },
    }
}

/// Some services, at least one.
pub(super) fn services(dice: &Dice) -> Services {
    let first = dice.pick(&SERVICES);
    let names = SERVICES.into_iter().filter(|name| *name == first || dice.chance(30));
    let mut services: Services =
        names.map(|name| (name.parse().expect("that is a DNS label"), spec(dice))).collect();
    let names: Vec<Name> = services.keys().cloned().collect();
    for (at, spec) in services.values_mut().enumerate() {
        // Those before it, so that none waits for itself in the end.
        for name in names.iter().take(at).filter(|_| dice.chance(25)) {
            let condition = dice.pick(&[Condition::Started, Condition::Healthy, Condition::Completed]);
            spec.depends_on.insert(name.clone(), condition);
        }
    }
    services
}

fn changed(dice: &Dice, before: &Services) -> Services {
    if dice.chance(30) {
        return services(dice);
    }
    let mut after = before.clone();
    for spec in after.values_mut() {
        match dice.below(4) {
            0 => spec.task.image = image(dice),
            1 => drop(spec.task.environment.insert("VERSION".to_owned(), dice.below(1000).to_string())),
            2 => spec.mode = mode(dice),
            _ => {}
        }
    }
    after
}

fn mode(dice: &Dice) -> Mode {
    if dice.chance(15) { Mode::Global } else { Mode::Replicated { replicas: replicas(dice) } }
}

fn replicas(dice: &Dice) -> u32 {
    dice.pick(&[0, 1, 1, 2, 2, 3, 4, 6])
}

fn image(dice: &Dice) -> ImageName {
    dice.pick(&IMAGES).parse().expect("that is an image's name")
}

fn spec(dice: &Dice) -> ServiceSpec {
    let publish = dice.pick(&[None, None, Some(Publish::AnyHostPort), Some(Publish::HostPort(8080))]);
    let port = publish.map(|publish| PortSpec { target: 80, protocol: Protocol::Tcp, publish });
    let condition = dice.pick(&[
        RestartCondition::Always,
        RestartCondition::Always,
        RestartCondition::OnFailure,
        RestartCondition::Never,
    ]);
    let restart = RestartPolicy {
        condition,
        delay: dice.pick(&[None, None, Some(Duration::from_secs(1))]),
        max_attempts: dice.pick(&[None, None, None, Some(2)]),
        window: RestartPolicy::WINDOW,
    };
    let constraints: Vec<Constraint> = if dice.chance(15) {
        vec!["node.labels.zone == z1".parse().expect("that is a constraint")]
    } else {
        Vec::new()
    };
    let zone = "node.labels.zone".parse().expect("that is an attribute");
    let placement = PlacementPolicy {
        constraints,
        spread_over: dice.chance(20).then_some(zone).into_iter().collect(),
        max_per_node: dice.pick(&[None, None, None, NonZeroU32::new(1), NonZeroU32::new(2)]),
        strategy: dice.pick(&[None, None, Some(Strategy::BinPack)]),
        priority: Priority(dice.pick(&[0, 0, 0, -5, 10])),
        ..PlacementPolicy::default()
    };
    let reservations =
        Reservations { cpu: MilliCpu(dice.pick(&[0, 100, 400])), memory: Bytes(dice.pick(&[0, 64 << 20])) };
    let task = TaskSpec {
        image: image(dice),
        entrypoint: None,
        command: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        working_dir: None,
        user: None,
        ports: port.into_iter().collect(),
        resources: Resources { reservations, limits: Limits::default() },
        restart,
        placement,
        container: ContainerSpec::default(),
        health: health(dice),
        readiness: dice.chance(40).then(|| readiness(dice)),
        pull: PullPolicy::default(),
    };
    let (update, rollback) = (policy(dice), policy(dice));
    let mut spec = ServiceSpec { mode: mode(dice), update, rollback, ..ServiceSpec::replicated(1, task) };
    if dice.chance(15) {
        spec.job = Some(job(dice));
        spec.task.restart.condition = dice.pick(&[RestartCondition::OnFailure, RestartCondition::Never]);
    }
    spec
}

fn job(dice: &Dice) -> JobSpec {
    JobSpec {
        parallelism: dice.pick(&[None, Some(1), Some(2)]),
        // It is over before the cluster has to be at rest.
        deadline: dice.pick(&[None, Some(Duration::from_secs(20)), Some(Duration::from_secs(60))]),
        history: dice.pick(&[1, 2, 5]),
        schedule: None,
    }
}

fn policy(dice: &Dice) -> UpdatePolicy {
    let seconds = |choices: &[u64]| Duration::from_secs(dice.pick(choices));
    UpdatePolicy {
        parallelism: dice.pick(&[0, 1, 1, 2]),
        delay: seconds(&[0, 0, 0, 2]),
        order: dice.pick(&[UpdateOrder::StopFirst, UpdateOrder::StartFirst]),
        monitor: seconds(&[0, 1, 5]),
        min_healthy: dice.pick(&[None, None, Some(Duration::ZERO), Some(Duration::from_secs(3))]),
        max_failure_ratio: dice.pick(&[0, 0, 350, 1000]),
        failure_action: dice.pick(&[
            FailureAction::Pause,
            FailureAction::Continue,
            FailureAction::Rollback,
            FailureAction::Rollback,
        ]),
        // Long enough for a cluster that faults hold up, and over before it has to be at rest.
        progress_deadline: seconds(&[30, 60]),
        canaries: dice.pick(&[0, 0, 0, 1]),
        promote_after: dice.pick(&[None, Some(Duration::from_secs(4))]),
    }
}

fn health(dice: &Dice) -> Health {
    match dice.below(10) {
        0..4 => Health::Image,
        4 => Health::Disabled,
        _ => Health::Check(HealthCheck {
            probe: Some(Probe::Exec(vec!["check".to_owned()])),
            interval: Some(Duration::from_secs(dice.pick(&[1, 2, 5]))),
            timeout: Some(Duration::from_secs(1)),
            retries: dice.pick(&[None, Some(1), Some(2)]),
            start_period: dice.pick(&[None, Some(Duration::from_secs(5))]),
            start_interval: Some(Duration::from_millis(500)),
        }),
    }
}

fn readiness(dice: &Dice) -> Readiness {
    Readiness {
        probe: Probe::Tcp { port: 80 },
        interval: Duration::from_millis(dice.pick(&[500, 1_000, 3_000])),
        timeout: Readiness::TIMEOUT,
        successes: dice.pick(&[1, 2]),
        failures: dice.pick(&[1, 3]),
    }
}

/// Whoever brings images in.
#[derive(Debug)]
pub(crate) struct Importer {
    net: Net,
    world: Arc<World>,
    check: Check,
    trace: Trace,
    dice: Dice,
    nodes: Vec<NodeId>,
    managers: Vec<NodeId>,
}

impl Importer {
    pub(crate) fn new(seed: u64, cluster: &Cluster) -> Self {
        Self {
            net: cluster.net.clone(),
            world: cluster.world.clone(),
            check: cluster.check.clone(),
            trace: cluster.trace.clone(),
            dice: Dice::new(seed, "importer"),
            nodes: cluster.nodes(),
            managers: cluster.managers(),
        }
    }

    /// Makes every name that services use stand for something.
    pub(crate) async fn begin(&self) {
        for name in IMAGES {
            self.import(name).await;
        }
    }

    /// Gives names new content now and then, until `until`.
    pub(crate) async fn run(self, until: Instant) {
        while Instant::now() < until && !self.trace.is_broken() {
            sleep(self.dice.millis(4_000, 20_000)).await;
            self.import(self.dice.pick(&IMAGES)).await;
        }
    }

    /// Puts new content on some node or into the registry and tells the cluster of it, as the API does at the end of an import
    /// or once it has asked.
    async fn import(&self, name: &str) {
        let mut digest = [0; 32];
        digest[..16].copy_from_slice(&self.dice.id().to_be_bytes());
        let image = Digest(digest);
        let (request, shown) = (RequestId(self.dice.id()), image.short());
        let (name, size): (ImageName, _) = (name.parse().expect("that is an image's name"), Bytes(1 << 20));
        let named = name.clone();
        let command = if self.dice.chance(60) {
            let holder = self.dice.pick(&self.nodes);
            self.world.import(holder, image);
            self.trace.line(format_args!("{name} is imported into {holder} as {shown}"));
            Command::PutImage { name: named, image, size, holder }
        } else {
            self.world.publish(image);
            self.trace.line(format_args!("{name} is in the registry as {shown}"));
            let origin = Some("docker.io/library/image".parse().expect("that is a repository"));
            Command::NameImage { name: named, image, size, origin, automatic: false }
        };
        while !self.trace.is_broken() {
            let put = command.clone();
            let asked = self.net.ask(USERS, self.dice.pick(&self.managers), PATIENCE, move |port: Port| {
                Box::pin(async move {
                    let at = port.store.state().time();
                    let proposal = Proposal { at, request: Some(request), by: None, commands: vec![put] };
                    port.store.propose(proposal).await
                })
            });
            match asked.await {
                Ok(Ok(_)) => {
                    self.trace.count("image imported");
                    self.check.acknowledged(request, &format!("the import of {name}"));
                    return;
                }
                Ok(Err(_)) | Err(_) => sleep(self.dice.millis(50, 300)).await,
            }
        }
    }
}
