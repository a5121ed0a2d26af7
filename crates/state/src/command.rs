//! What can be asked of the state machine, and what it answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::{
    Availability, Bytes, Capacity, ClusterId, Credential, Desired, Digest, Ending, Generation, ImageName,
    Name, NodeId, Origin, Platform, RegistryName, RequestId, Role, RolloutPhase, ServiceId, ServiceName,
    ServiceSpec, SpecVersion, Strategy, Subnet, TaskId, TaskStatus, TaskVerdict, Timestamp,
};

/// One entry of the log: commands that are judged one by one, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The proposer's clock. Cluster time never goes back, so an earlier one counts as the time reached already.
    pub at: Timestamp,
    /// A request that was applied before is answered again and has no second effect.
    pub request: Option<RequestId>,
    /// Who asks; `None` is the cluster itself.
    pub by: Option<String>,
    pub commands: Vec<Command>,
}

/// A wish. Its preconditions are checked when it is applied, against the state of that instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The first command of every cluster.
    Found {
        cluster: ClusterId,
        range: Subnet,
        node_prefix: u8,
        authority: Authority,
    },
    /// Lets whoever has the secret that hashes to `digest` join as `role` until `expires`.
    PutToken {
        digest: [u8; 32],
        role: Role,
        expires: Timestamp,
    },
    /// Gives a machine its identity and its subnet. `token` is `None` for the founder only. `key` is the digest of the
    /// machine's public key: whoever asks again with it has not heard the answer, and gets the same one.
    AdmitNode {
        name: Name,
        role: Role,
        address: SocketAddr,
        token: Option<[u8; 32]>,
        key: Option<[u8; 32]>,
    },
    /// What a node says of itself when its session opens.
    DescribeNode {
        node: NodeId,
        address: SocketAddr,
        labels: BTreeMap<String, String>,
        capacity: Capacity,
        platform: Option<Platform>,
        version: String,
    },
    /// What the operator wants of a node.
    SetAvailability {
        node: NodeId,
        availability: Availability,
    },
    /// Changes the operator's labels of a node: a value, or none.
    LabelNode {
        node: NodeId,
        labels: BTreeMap<String, Option<String>>,
    },
    /// Forgets a node that is gone for good, and all that was on it.
    RemoveNode {
        node: NodeId,
    },
    /// Changes what holds for the whole cluster.
    Configure {
        strategy: Strategy,
    },
    /// The dispatcher's word on whether a node is there.
    SetLiveness {
        node: NodeId,
        ready: bool,
    },

    /// Makes a stack be exactly these services.
    Deploy {
        stack: Name,
        services: BTreeMap<Name, Declared>,
        expected: Option<Generation>,
    },
    RemoveStack {
        stack: Name,
    },
    Scale {
        service: ServiceName,
        replicas: u32,
        expected: Option<Generation>,
    },
    /// Makes a version that is kept the service's again; without one, what it was before.
    Undo {
        service: ServiceName,
        to: Option<SpecVersion>,
    },
    /// Makes new containers of the version that there is.
    Restart {
        service: ServiceName,
    },
    /// What a person decides about a rollout.
    Steer {
        service: ServiceName,
        how: Steer,
    },
    /// Does a job again.
    RunJob {
        service: ServiceName,
    },
    /// Ends the runs of a job that go on.
    StopJob {
        service: ServiceName,
    },
    /// A job's schedule names this time, which has come.
    Due {
        service: ServiceId,
        at: Timestamp,
    },
    /// What a planner found of a job's run.
    EndRun {
        service: ServiceId,
        run: u32,
        how: Ending,
    },
    /// Forgets a removed service whose tasks are all gone.
    DropService {
        service: ServiceId,
    },

    /// What a planner found of the rollout to `to`.
    Advance {
        service: ServiceId,
        to: SpecVersion,
        how: Advance,
    },

    CreateTask {
        task: TaskId,
        version: SpecVersion,
        /// The number of the run that it is for; 0 where the service is no job.
        run: u32,
        avoid: Option<NodeId>,
    },
    Assign {
        task: TaskId,
        node: NodeId,
    },
    /// A task becomes one of another version, which takes no other container.
    Revise {
        task: TaskId,
        version: SpecVersion,
    },
    /// Wants a task to be on another node.
    Move {
        task: TaskId,
    },
    SetDesired {
        task: TaskId,
        desired: Desired,
    },
    Conclude {
        task: TaskId,
        verdict: TaskVerdict,
    },
    /// What one agent saw, latest status a task.
    Report {
        node: NodeId,
        statuses: Vec<(TaskId, TaskStatus)>,
    },

    /// Names an image that `holder` has.
    PutImage {
        name: ImageName,
        image: Digest,
        size: Bytes,
        holder: NodeId,
    },
    /// Gives an image a name. With an origin, a registry has just said that this is what the name stands for there, and no
    /// node need hold the image; without one, the cluster has to have it.
    NameImage {
        name: ImageName,
        image: Digest,
        /// 0 if nobody has looked.
        size: Bytes,
        origin: Option<Origin>,
        /// Only because something that is deployed calls it so: nobody asked for the name itself.
        automatic: bool,
    },
    /// Takes a name away; an image without a name that no service uses is dropped everywhere.
    RemoveImage {
        name: ImageName,
    },
    /// Tells a node to hold a copy.
    KeepCopy {
        image: Digest,
        node: NodeId,
    },
    /// All that a node's image store holds.
    ReportImages {
        node: NodeId,
        held: Vec<Digest>,
    },
    /// Forgets an image that nothing names or uses, once no node holds it.
    DropImage {
        image: Digest,
    },

    /// Changes what the cluster keeps of a registry.
    PutRegistry {
        registry: RegistryName,
        change: RegistryChange,
    },
    /// Forgets all that the cluster keeps of a registry.
    RemoveRegistry {
        registry: RegistryName,
    },
}

/// What a person decides about a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Steer {
    Pause,
    /// Goes on, also after a failure; what has failed so far does not count any more.
    Resume,
    /// Goes back to the version that it came from.
    Abort,
    /// Gives the new version to the slots that are not its canaries.
    Promote,
}

/// A step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// So many slots are done, and in so many a new task has failed.
    Progressed {
        done: u32,
        failed: u32,
    },
    /// Its canaries have served for long enough.
    Promoted,
    Completed,
    /// It failed, and waits for a person.
    Failed {
        reason: String,
    },
    /// It failed, and the service goes back.
    RolledBack {
        to: SpecVersion,
        reason: String,
    },
}

/// A part of what is kept of a registry; the other part stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryChange {
    /// How it is spoken to: exactly so.
    Settings {
        mirrors: Vec<RegistryName>,
        ca: Vec<String>,
        insecure: bool,
    },
    LogIn(Credential),
    LogOut,
}

/// A service as it was deployed: the spec, and the content that its image's name stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub spec: ServiceSpec,
    pub image: Digest,
    /// The file names no number of replicas: a service that is there keeps its own.
    pub keep_replicas: bool,
}

/// The cluster's certificate authority, so that every manager can admit nodes.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// The verdict on one command.
pub type Outcome = Result<Done, Rejected>;

/// What an accepted command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was so already. The word of every command that changes nothing, so that a request which is sent again still
    /// says what it did the first time.
    Unchanged,
    Changed,
    /// The object's generation after the change.
    At(Generation),
    Admitted(NodeId),
}

/// Why a command had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the cluster has been founded already")]
    Founded,
    #[error("the cluster has not been founded")]
    NotFounded,
    #[error("there is no stack `{0}`")]
    NoStack(Name),
    #[error("there is no service `{0}`")]
    NoService(ServiceName),
    #[error("there is no service with the id {0}")]
    NoServiceId(ServiceId),
    #[error("there is no task {0}")]
    NoTask(TaskId),
    #[error("there is no node {0}")]
    NoNode(NodeId),
    #[error("there is no image `{0}`")]
    NoImage(ImageName),
    #[error("there is no image {0}")]
    NoImageContent(Digest),
    #[error("`{name}` has changed meanwhile: it is at generation {actual}, not {expected}")]
    Changed { name: String, expected: Generation, actual: Generation },
    #[error("a node named `{0}` is in the cluster already")]
    NodeNameTaken(Name),
    #[error("the join token is unknown, expired, or for another role")]
    BadToken,
    #[error("the cluster's address range has no free subnet left for another node")]
    NoSubnet,
    #[error("task {0} exists already, or its sequence is not the next one")]
    OutOfSequence(TaskId),
    #[error("service {0} is being removed")]
    Removing(ServiceId),
    #[error("service {0} has no version {1}")]
    NoVersion(ServiceId, SpecVersion),
    #[error("task {0} has a node already")]
    AlreadyAssigned(TaskId),
    #[error("task {0} is no longer wanted")]
    NotWanted(TaskId),
    #[error("node {0} does not take tasks now")]
    NodeUnavailable(NodeId),
    #[error("task {task} does not fit on node {node}: {lacking}")]
    DoesNotFit { task: TaskId, node: NodeId, lacking: Lacking },
    #[error("node {0} is up: stop its daemon first, or `gantry node drain` it and stop it then")]
    NodeIsUp(Name),
    #[error("a node has at most {most} labels, and neither name nor value is longer than {longest} bytes", most = model::MAX_LABELS, longest = model::MAX_LABEL)]
    TooManyLabels,
    #[error("task {0} is not for node {1}")]
    NotItsNode(TaskId, NodeId),
    #[error(
        "service `{0}` is global: it has a task on every node that may have one, and no number to change"
    )]
    CannotScale(ServiceName),
    #[error("task {0} may still be running")]
    StillRunning(TaskId),
    #[error("task {0} cannot become {1} as it is")]
    NotInPlace(TaskId, SpecVersion),
    #[error("the rollout of service {0} to {1} is over, or another has taken its place")]
    NotItsRollout(ServiceId, SpecVersion),
    #[error("the rollout of service `{service}` is {phase}: {hint}")]
    CannotSteer { service: ServiceName, phase: RolloutPhase, hint: String },
    #[error("service `{0}` was run once, and is not rolled out")]
    RunOnce(ServiceName),
    #[error("service `{0}` is a job, and is not rolled out; `gantry job run {0}` does it again")]
    IsJob(ServiceName),
    #[error("service `{0}` is no job; `gantry job ls` lists those that there are")]
    NoJob(ServiceName),
    #[error("run {run} of `{service}` still goes on; wait for its end, or `gantry job stop {service}`")]
    RunGoesOn { service: ServiceName, run: u32 },
    #[error("run {1} of service {0} is over, or there never was one")]
    NoRun(ServiceId, u32),
    #[error("the job {0} is not due at this time, or that has been seen to")]
    NotDue(ServiceId),
    #[error("run {1} of service {0} has slots that have not succeeded")]
    RunNotDone(ServiceId, u32),
    #[error(
        "service `{0}` was nothing else before; `gantry rollout history {0}` lists the versions that are kept"
    )]
    NothingToUndo(ServiceName),
    #[error(
        "service `{service}` keeps no version {version}; `gantry rollout history {service}` lists those that it does"
    )]
    VersionGone { service: ServiceName, version: SpecVersion },
    #[error("service {0} still has tasks")]
    HasTasks(ServiceId),
    #[error("image `{name}` is used by service `{service}`")]
    ImageInUse { name: ImageName, service: ServiceName },
    #[error("image {0} is still named, used or held")]
    ImageKept(Digest),
    #[error("the cluster keeps nothing of registry {0}")]
    NoRegistry(RegistryName),
    #[error("the cluster keeps the settings of {most} registries already, which is all that it does", most = crate::tables::REGISTRIES)]
    TooManyRegistries,
    #[error("the settings of registry {0} are larger than the 64 KiB that the cluster keeps of one")]
    RegistryTooLarge(RegistryName),
}

/// What a node has too little of for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Lacking {
    #[error("not enough CPU")]
    Cpu,
    #[error("not enough memory")]
    Memory,
    #[error("host port {0} is taken")]
    HostPort(u16),
    #[error("no free host port")]
    AnyHostPort,
    #[error("no free container address")]
    Address,
    #[error("{0} of the service are there, which is the most")]
    Places(u32),
}
