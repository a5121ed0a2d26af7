//! What the user declares of a service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    Bytes, ContainerSpec, Digest, Health, ImageName, JobSpec, MilliCpu, Name, PlacementPolicy, Readiness,
    Timestamp, UpdatePolicy,
};

/// The most replicas that one service may have. More is a slip of the keyboard on the clusters gantry is made for.
pub const MAX_REPLICAS: u32 = 100_000;

/// A service as it is wanted. Changing [`ServiceSpec::task`] may replace tasks; changing anything else does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub mode: Mode,
    /// Compose's `deploy.labels`: of the service, not of its containers.
    pub labels: BTreeMap<String, String>,
    pub task: TaskSpec,
    pub update: UpdatePolicy,
    /// How it goes back to an earlier version.
    pub rollback: UpdatePolicy,
    /// Its tasks run to their end; without one, for good.
    pub job: Option<JobSpec>,
    /// Services of its stack that it waits for, and how they have to be. Compose's `depends_on`.
    pub depends_on: BTreeMap<Name, Condition>,
}

/// How a service has to be for those that depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Its containers run.
    Started,
    /// They are ready.
    Healthy,
    /// They did what they were there for; of a job, its latest run did.
    Completed,
}

impl Condition {
    /// Of a service that is so.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "has started",
            Self::Healthy => "is healthy",
            Self::Completed => "has completed successfully",
        }
    }
}

/// Which slots a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// So many, wherever there is room.
    Replicated { replicas: u32 },
    /// One on every node that may have it.
    Global,
}

impl Mode {
    /// How many slots were asked for; `None` where the nodes decide.
    pub fn replicas(self) -> Option<u32> {
        match self {
            Self::Replicated { replicas } => Some(replicas),
            Self::Global => None,
        }
    }
}

impl ServiceSpec {
    /// So many of such tasks, with Compose's defaults for all else.
    pub fn replicated(replicas: u32, task: TaskSpec) -> Self {
        Self {
            mode: Mode::Replicated { replicas },
            labels: BTreeMap::new(),
            task,
            update: UpdatePolicy::default(),
            rollback: UpdatePolicy::default(),
            job: None,
            depends_on: BTreeMap::new(),
        }
    }

    /// Compose's word for its mode.
    pub fn mode_name(&self) -> &'static str {
        match (self.mode, &self.job) {
            (Mode::Replicated { .. }, None) => "replicated",
            (Mode::Global, None) => "global",
            (Mode::Replicated { .. }, Some(_)) => "replicated-job",
            (Mode::Global, Some(_)) => "global-job",
        }
    }

    /// Whether a service that is declared as this can become one that is declared as `other`: both count slots alike, and both
    /// run for good or to their end.
    pub fn can_become(&self, other: &Self) -> bool {
        self.mode_name() == other.mode_name()
    }

    /// The label of what is run once and never again, whatever becomes of it: of the service and of its containers.
    pub const ONE_OFF: &str = "gantry.run";
    /// Its value where the stack is removed some time after the end.
    pub const ONCE: &str = "once";
    /// Its value where the stack stays until somebody removes it.
    pub const KEPT: &str = "keep";
}

impl TaskSpec {
    /// The ports of its node that it names.
    pub fn host_ports(&self) -> impl Iterator<Item = (Protocol, u16)> {
        self.ports.iter().filter_map(|port| match port.publish {
            Publish::HostPort(host) => Some((port.protocol, host)),
            Publish::AnyHostPort => None,
        })
    }

    /// Whether it is run once and never again.
    pub fn is_one_off(&self) -> bool {
        self.labels.contains_key(ServiceSpec::ONE_OFF)
    }
}

/// What each task of a service is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    pub image: ImageName,
    /// Replaces the image's entrypoint; empty clears it. `None` keeps the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command. `None` keeps the image's, unless `entrypoint` is given, which drops it (Docker's rule).
    pub command: Option<Vec<String>>,
    /// Added to the image's environment, replacing equal names.
    pub environment: BTreeMap<String, String>,
    /// Compose's `labels`: of each container.
    pub labels: BTreeMap<String, String>,
    /// An absolute path; `None` keeps the image's.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the container's own files; `None` keeps the image's.
    pub user: Option<String>,
    pub ports: Vec<PortSpec>,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub placement: PlacementPolicy,
    pub container: ContainerSpec,
    pub health: Health,
    pub readiness: Option<Readiness>,
    pub pull: PullPolicy,
}

/// When a service's image is asked for at its registry. Compose's `pull_policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Where the cluster does not have it.
    #[default]
    Missing,
    /// At every deploy.
    Always,
    /// Not at all: the image has to be in the cluster.
    Never,
    /// At a deploy, where the cluster last asked longer ago than this.
    After(Duration),
}

/// A task template as the cluster records it: the image's tag is pinned to the content that it named when it was
/// deployed, so that every node runs the same bytes whatever the tag says later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub task: Arc<TaskSpec>,
    /// Of the image's manifest.
    pub image: Digest,
    /// Counts the times that somebody wanted new containers of the same.
    pub restarted: u32,
    /// When it was declared.
    pub made: Timestamp,
    /// Who declared it; `None` where that is not known.
    pub by: Option<String>,
    /// When a rollout to it was last completed. One that fails goes back to such a version.
    pub stable: Option<Timestamp>,
}

impl Template {
    /// Whether both make the same containers, whoever declared them and when.
    pub fn is_like(&self, other: &Self) -> bool {
        self.image == other.image && self.restarted == other.restarted && self.task == other.task
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSpec {
    /// The port in the container.
    pub target: u16,
    pub protocol: Protocol,
    pub publish: Publish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How a container's port is reached on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Publish {
    /// A free port of the node, chosen when the task is placed.
    AnyHostPort,
    /// This port of the node; two tasks that want it cannot share a node.
    HostPort(u16),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub reservations: Reservations,
    pub limits: Limits,
}

/// What the scheduler sets aside for each task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    pub cpu: MilliCpu,
    pub memory: Bytes,
}

/// What the kernel holds each container to. `None` is no limit of the user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu: Option<MilliCpu>,
    pub memory: Option<Bytes>,
    pub pids: Option<u32>,
}

/// When the agent starts a container again after it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    /// The first wait; it doubles with every failure in a row. `None` is gantry's own back-off.
    pub delay: Option<Duration>,
    /// How often a container is started again before its slot is given up; `None` is for ever.
    pub max_attempts: Option<u32>,
    /// How long a container has to run for its start to count as a success.
    pub window: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartCondition {
    Never,
    OnFailure,
    Always,
}

impl RestartPolicy {
    /// Five seconds, Swarm's default for telling a start that held from one that did not.
    pub const WINDOW: Duration = Duration::from_secs(5);

    /// No start counts as a success, however long it held: what is there to end has not succeeded before it has.
    pub const NEVER_HELD: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
}

impl Default for RestartPolicy {
    /// Swarm's: restart whatever the exit, for ever.
    fn default() -> Self {
        Self { condition: RestartCondition::Always, delay: None, max_attempts: None, window: Self::WINDOW }
    }
}
