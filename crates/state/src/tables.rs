//! The tables and how they are read. Rows change in `apply` only.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use model::{
    Availability, Capacity, ClusterId, Desired, Digest, Generation, Image, ImageName, Job, Liveness,
    LogIndex, Name, Node, NodeId, Registry, RegistryName, RequestId, Role, Rollout, ServiceId, ServiceName,
    ServiceSpec, SpecVersion, Strategy, Subnet, Task, TaskId, Template, Timestamp,
};

use crate::command::{Authority, Outcome};
use crate::occupancy::{Load, Occupancy};

/// How many nodes hold each image that no registry has, where there are that many.
pub const COPIES: usize = 2;

/// The most registries that the cluster keeps something of. With [`Registry::MAX_SIZE`], 4 MiB of every snapshot.
pub const REGISTRIES: usize = 64;

/// All that the cluster has agreed on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(crate) applied: LogIndex,
    pub(crate) time: Timestamp,
    pub(crate) last_node: u64,
    pub(crate) last_service: u64,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) tokens: OrdMap<[u8; 32], Token>,
    pub(crate) nodes: OrdMap<NodeId, Arc<NodeRow>>,
    pub(crate) stacks: OrdMap<Name, Arc<Stack>>,
    pub(crate) services: OrdMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: OrdMap<TaskId, Arc<Task>>,
    pub(crate) images: OrdMap<Digest, Arc<Image>>,
    pub(crate) tags: OrdMap<ImageName, Tag>,
    pub(crate) registries: OrdMap<RegistryName, Arc<Registry>>,
    pub(crate) requests: OrdMap<RequestId, Recorded>,
    // Indexes: derived from the tables above and kept in step by `apply`.
    pub(crate) occupancy: OrdMap<NodeId, Occupancy>,
    pub(crate) on_node: OrdMap<NodeId, OrdSet<TaskId>>,
    pub(crate) unplaced: OrdSet<TaskId>,
    /// Tasks that run and that somebody wants elsewhere.
    pub(crate) leaving: OrdSet<TaskId>,
    pub(crate) draining: OrdSet<NodeId>,
    /// The nodes that take tasks, the emptiest first.
    pub(crate) by_load: OrdSet<(Load, NodeId)>,
    pub(crate) request_ages: OrdSet<(Timestamp, RequestId)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    /// All container addresses.
    pub range: Subnet,
    /// The prefix length of each node's part of `range`.
    pub node_prefix: u8,
    pub authority: Authority,
    /// How tasks are placed whose service does not say.
    pub strategy: Strategy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub role: Role,
    pub expires: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    pub node: Arc<Node>,
    /// Where the search for a free container address starts: behind the last one given out, so that an address rests
    /// before it is used again.
    pub next_address: u32,
    /// The same for free host ports.
    pub next_port: u16,
    /// The most that the node has had to give since it last had no task: what its tasks were placed by.
    pub promised: Capacity,
    /// The digest of the public key that it was admitted with; the founder has none.
    pub key: Option<[u8; 32]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    pub generation: Generation,
    pub deployed: Timestamp,
    pub services: BTreeMap<Name, ServiceId>,
    pub removing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    pub spec: ServiceSpec,
    /// The template that its tasks should be made from. It goes back when a change is undone.
    pub version: SpecVersion,
    /// The highest that there has been.
    pub last_version: SpecVersion,
    /// The current one and others that are kept.
    pub templates: BTreeMap<SpecVersion, Template>,
    /// The latest, which is to `version`. What is run once has none, and neither has a job.
    pub rollout: Option<Rollout>,
    /// The runs of a job.
    pub job: Option<Job>,
    pub generation: Generation,
    pub created: Timestamp,
    /// The sequence number of the next task.
    pub next_sequence: u64,
    /// On its way out: its tasks are being removed, and its name is free.
    pub removing: bool,
}

/// What an image's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub image: Digest,
    /// When a registry last said that it is so; `None` if none ever did.
    pub asked: Option<Timestamp>,
    /// Nobody asked for the name itself: it is here because something that was deployed calls its image so.
    pub automatic: bool,
}

/// An answered request, kept for a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub at: Timestamp,
    pub outcomes: Arc<Vec<Outcome>>,
}

/// One row of any table: what a snapshot is made of, and what [`State::from_rows`] makes a state of again.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// Counters and clocks; first of all rows.
    Head {
        applied: LogIndex,
        time: Timestamp,
        last_node: u64,
        last_service: u64,
    },
    Cluster(Arc<Cluster>),
    Token([u8; 32], Token),
    Node(NodeId, Arc<NodeRow>),
    Stack(Name, Arc<Stack>),
    Service(ServiceId, Arc<Service>),
    Task(TaskId, Arc<Task>),
    Image(Digest, Arc<Image>),
    Tag(ImageName, Tag),
    Request(RequestId, Recorded),
    Registry(RegistryName, Arc<Registry>),
}

impl State {
    pub fn new() -> Self {
        Self::default()
    }

    /// The log index of the last proposal applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Cluster time: the latest that any proposer's clock has shown.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, row)| (*id, &*row.node))
    }

    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).map(|row| &*row.node)
    }

    /// Whether this id was ever given to a node, be it gone by now: ids are given in order and never again.
    pub fn has_admitted(&self, id: NodeId) -> bool {
        id.0 <= self.last_node
    }

    pub fn node_named(&self, name: &str) -> Option<(NodeId, &Node)> {
        self.nodes().find(|(_, node)| node.name.as_str() == name)
    }

    pub fn stacks(&self) -> impl Iterator<Item = (&Name, &Stack)> {
        self.stacks.iter().map(|(name, stack)| (name, &**stack))
    }

    pub fn stack(&self, name: &Name) -> Option<&Stack> {
        self.stacks.get(name).map(|stack| &**stack)
    }

    /// The generation of the last change of a stack or of one of its services; the first of all where there is no such stack.
    pub fn generation_of(&self, name: &Name) -> Generation {
        let Some(stack) = self.stack(name) else { return Generation::default() };
        let services = stack.services.values().filter_map(|id| self.service(*id));
        services.map(|service| service.generation).fold(stack.generation, Generation::max)
    }

    /// Every service, those that are being removed included.
    pub fn services(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        self.services.iter().map(|(id, service)| (*id, &**service))
    }

    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(&id).map(|service| &**service)
    }

    /// The service that has this name now.
    pub fn service_named(&self, name: &ServiceName) -> Option<(ServiceId, &Service)> {
        let id = *self.stacks.get(&name.stack)?.services.get(&name.service)?;
        self.service(id).map(|service| (id, service))
    }

    pub fn tasks(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.tasks.iter().map(|(id, task)| (*id, &**task))
    }

    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id).map(|task| &**task)
    }

    /// A service's tasks, ended ones included, by slot and then by age.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = (TaskId, &Task)> {
        let first = TaskId { service, slot: 0, sequence: 0 };
        let last = TaskId { service, slot: u32::MAX, sequence: u64::MAX };
        self.tasks.range(first..=last).map(|(id, task)| (*id, &**task))
    }

    /// The tasks whose rows name this node, ended ones included.
    pub fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = (TaskId, &Task)> {
        self.on_node.get(&node).into_iter().flatten().filter_map(|id| self.task(*id).map(|task| (*id, task)))
    }

    /// The tasks that wait for a node.
    pub fn unplaced(&self) -> impl Iterator<Item = TaskId> {
        self.unplaced.iter().copied()
    }

    /// Tasks that somebody wants on another node.
    pub fn leaving(&self) -> impl Iterator<Item = TaskId> {
        self.leaving.iter().copied()
    }

    /// The nodes that are being drained.
    pub fn draining(&self) -> impl Iterator<Item = NodeId> {
        self.draining.iter().copied()
    }

    /// The nodes that take tasks, the emptiest first, behind this one.
    pub fn next_by_load(&self, after: Option<(Load, NodeId)>) -> Option<(Load, NodeId)> {
        match after {
            None => self.by_load.get_min().copied(),
            Some(after) => self.by_load.range((Bound::Excluded(after), Bound::Unbounded)).next().copied(),
        }
    }

    /// How full a node is.
    pub fn load(&self, id: NodeId) -> Load {
        let capacity = self.node(id).map(|node| node.capacity).unwrap_or_default();
        self.occupancy.get(&id).map(|occupancy| occupancy.load(capacity)).unwrap_or_default()
    }

    /// The same where anything is taken, without a copy.
    pub fn occupied(&self, node: NodeId) -> Option<&Occupancy> {
        self.occupancy.get(&node)
    }

    /// What is taken on a node.
    pub fn occupancy(&self, node: NodeId) -> Occupancy {
        self.occupancy.get(&node).cloned().unwrap_or_default()
    }

    /// What would be taken on a node if these of its tasks had been seen stopped.
    pub fn occupancy_without(&self, node: NodeId, tasks: &[TaskId]) -> Occupancy {
        let mut occupancy = self.occupancy(node);
        for id in tasks {
            let Some(task) = self.task(*id) else { continue };
            if let Some(placement) = task.occupies().filter(|placement| placement.node == node) {
                let reserved = self.reservation_of(id.service, task.version);
                occupancy.release(placement, reserved, stays(*id, task));
            }
        }
        occupancy
    }

    /// The template that a task is made from.
    pub fn template_of(&self, id: TaskId) -> Option<&Template> {
        let version = self.task(id)?.version;
        self.service(id.service)?.templates.get(&version)
    }

    pub fn images(&self) -> impl Iterator<Item = (Digest, &Image)> {
        self.images.iter().map(|(digest, image)| (*digest, &**image))
    }

    pub fn image(&self, digest: Digest) -> Option<&Image> {
        self.images.get(&digest).map(|image| &**image)
    }

    pub fn tags(&self) -> impl Iterator<Item = (&ImageName, Digest)> {
        self.tags.iter().map(|(name, tag)| (name, tag.image))
    }

    pub fn tag(&self, name: &ImageName) -> Option<&Tag> {
        self.tags.get(name)
    }

    pub fn image_named(&self, name: &ImageName) -> Option<Digest> {
        self.tag(name).map(|tag| tag.image)
    }

    /// The names that an image has.
    pub fn names_of(&self, digest: Digest) -> impl Iterator<Item = (&ImageName, &Tag)> {
        self.tags.iter().filter(move |(_, tag)| tag.image == digest)
    }

    /// A service that would lose its image's name if this name were taken away.
    pub fn user_of(&self, name: &ImageName) -> Option<&Service> {
        self.services().map(|(_, service)| service).find(|s| !s.removing && s.spec.task.image == *name)
    }

    pub fn registries(&self) -> impl Iterator<Item = (&RegistryName, &Registry)> {
        self.registries.iter().map(|(name, registry)| (name, &**registry))
    }

    pub fn registry(&self, name: &RegistryName) -> Option<&Registry> {
        self.registries.get(name).map(|registry| &**registry)
    }

    /// The answer that a request got, if it was applied within the last day.
    pub fn recorded(&self, request: RequestId) -> Option<&Recorded> {
        self.requests.get(&request)
    }

    /// Whether a name or a service's template still needs this image. A service that is being removed counts until it
    /// is gone: its tasks may still be starting.
    pub fn image_is_wanted(&self, digest: Digest) -> bool {
        self.tags.values().any(|tag| tag.image == digest)
            || self.services.values().any(|s| s.templates.values().any(|template| template.image == digest))
    }

    /// Whether the image can be counted on: it is wanted, or a registry has it. Nodes are dropping any other, and those that
    /// are away will.
    pub fn image_is_kept(&self, digest: Digest) -> bool {
        let image = self.image(digest);
        image.is_some_and(|image| image.origin.is_some() || self.image_is_wanted(digest))
    }

    /// Whether this node may not let go of the image: no registry has it, and it is one of the [`COPIES`] that are to last.
    /// Those are on nodes that are up, as far as there are such, and have arrived; between equals, the lowest id. So two
    /// nodes never take each other's copy for the one that stays.
    pub fn must_hold(&self, digest: Digest, node: NodeId) -> bool {
        let Some(image) = self.image(digest) else { return false };
        if image.origin.is_some() || !image.copies.contains_key(&node) || !self.image_is_wanted(digest) {
            return false;
        }
        let is_up = |id: &NodeId| self.node(*id).is_some_and(|node| node.liveness == Liveness::Ready);
        let mut copies: Vec<(bool, bool, NodeId)> =
            image.copies.iter().map(|(id, since)| (!is_up(id), since.is_none(), *id)).collect();
        copies.sort_unstable();
        copies.into_iter().take(COPIES).any(|(_, _, id)| id == node)
    }

    /// Every row, in an order in which [`State::from_rows`] takes them.
    pub fn rows(&self) -> Vec<Row> {
        let head = Row::Head {
            applied: self.applied,
            time: self.time,
            last_node: self.last_node,
            last_service: self.last_service,
        };
        let mut rows = vec![head];
        rows.extend(self.cluster.iter().cloned().map(Row::Cluster));
        rows.extend(self.tokens.iter().map(|(key, row)| Row::Token(*key, row.clone())));
        rows.extend(self.nodes.iter().map(|(key, row)| Row::Node(*key, row.clone())));
        rows.extend(self.stacks.iter().map(|(key, row)| Row::Stack(key.clone(), row.clone())));
        rows.extend(self.services.iter().map(|(key, row)| Row::Service(*key, row.clone())));
        rows.extend(self.tasks.iter().map(|(key, row)| Row::Task(*key, row.clone())));
        rows.extend(self.images.iter().map(|(key, row)| Row::Image(*key, row.clone())));
        rows.extend(self.tags.iter().map(|(key, row)| Row::Tag(key.clone(), *row)));
        rows.extend(self.registries.iter().map(|(key, row)| Row::Registry(key.clone(), row.clone())));
        rows.extend(self.requests.iter().map(|(key, row)| Row::Request(*key, row.clone())));
        rows
    }

    /// The state that these rows describe, with its indexes made anew.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut state = Self::new();
        for row in rows {
            match row {
                Row::Head { applied, time, last_node, last_service } => {
                    (state.applied, state.time) = (applied, time);
                    (state.last_node, state.last_service) = (last_node, last_service);
                }
                Row::Cluster(cluster) => state.cluster = Some(cluster),
                Row::Token(key, row) => drop(state.tokens.insert(key, row)),
                Row::Node(key, row) => state.put_node(key, row),
                Row::Stack(key, row) => drop(state.stacks.insert(key, row)),
                Row::Service(key, row) => drop(state.services.insert(key, row)),
                Row::Task(key, row) => drop(state.tasks.insert(key, row)),
                Row::Image(key, row) => drop(state.images.insert(key, row)),
                Row::Tag(key, row) => drop(state.tags.insert(key, row)),
                Row::Registry(key, row) => drop(state.registries.insert(key, row)),
                Row::Request(key, row) => {
                    state.request_ages.insert((row.at, key));
                    state.requests.insert(key, row);
                }
            }
        }
        state.index_tasks();
        state
    }

    fn index_tasks(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        for (id, task) in tasks {
            self.put_task(id, task);
        }
    }

    /// Writes a node's row and brings every index in step with it.
    pub(crate) fn put_node(&mut self, id: NodeId, row: Arc<NodeRow>) {
        match row.node.availability {
            Availability::Drain { .. } => drop(self.draining.insert(id)),
            Availability::Active | Availability::Pause => drop(self.draining.remove(&id)),
        }
        self.change_load(id, |state| drop(state.nodes.insert(id, row)));
    }

    /// Does what may change how full a node is, and keeps the order of the nodes in step.
    fn change_load(&mut self, id: NodeId, change: impl FnOnce(&mut Self)) {
        let before = self.load(id);
        change(self);
        let after = self.load(id);
        let is_taking = self.node(id).is_some_and(Node::takes_tasks);
        if !is_taking {
            self.by_load.remove(&(before, id));
        } else if before != after || !self.by_load.contains(&(after, id)) {
            self.by_load.remove(&(before, id));
            self.by_load.insert((after, id));
        }
    }

    /// Writes a task's row and brings every index in step with it.
    pub(crate) fn put_task(&mut self, id: TaskId, task: Arc<Task>) {
        self.unindex_task(id);
        match &task.placement {
            None if task.is_live() => drop(self.unplaced.insert(id)),
            None => {}
            Some(placement) => {
                self.on_node.entry(placement.node).or_default().insert(id);
                if task.occupies().is_some() {
                    let reserved = self.reservation_of(id.service, task.version);
                    self.change_load(placement.node, |state| {
                        let occupancy = state.occupancy.entry(placement.node).or_default();
                        occupancy.take(placement, reserved, stays(id, &task));
                    });
                }
            }
        }
        if task.leaves && task.occupies().is_some() {
            self.leaving.insert(id);
        }
        self.tasks.insert(id, task);
    }

    /// No task names it any more.
    pub(crate) fn drop_node(&mut self, id: NodeId) {
        self.draining.remove(&id);
        self.by_load.remove(&(self.load(id), id));
        self.nodes.remove(&id);
    }

    pub(crate) fn drop_task(&mut self, id: TaskId) {
        self.unindex_task(id);
        self.tasks.remove(&id);
    }

    fn unindex_task(&mut self, id: TaskId) {
        let Some(old) = self.tasks.get(&id).cloned() else { return };
        self.unplaced.remove(&id);
        self.leaving.remove(&id);
        let Some(placement) = &old.placement else { return };
        // What is empty is left out, so that a state that was restored equals one that never was.
        if let Some(on_node) = self.on_node.get_mut(&placement.node) {
            on_node.remove(&id);
            if on_node.is_empty() {
                self.on_node.remove(&placement.node);
            }
        }
        if old.occupies().is_some() {
            let reserved = self.reservation_of(id.service, old.version);
            self.change_load(placement.node, |state| {
                let Some(occupancy) = state.occupancy.get_mut(&placement.node) else { return };
                occupancy.release(placement, reserved, stays(id, &old));
                if occupancy.is_empty() {
                    state.occupancy.remove(&placement.node);
                }
            });
        }
    }

    pub(crate) fn reservation_of(&self, service: ServiceId, version: SpecVersion) -> model::Reservations {
        self.service(service)
            .and_then(|service| service.templates.get(&version))
            .map(|template| template.task.resources.reservations)
            .unwrap_or_default()
    }
}

/// The service that a task counts for where its tasks are spread: one that is on its way out leaves its place to others.
fn stays(id: TaskId, task: &Task) -> Option<ServiceId> {
    (task.desired == Desired::Running).then_some(id.service)
}
