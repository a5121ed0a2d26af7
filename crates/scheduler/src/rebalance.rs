//! Tasks that would be better off on another node by now: nodes came back, were added or drained, and what runs stayed where it was.
//!
//! A move is worth its interruption only where it makes a difference, so that what was evened out stays as it is. Services come one
//! by one, first each for itself and then for what nodes have of all of them, and of each the fullest node first. Every move is
//! found in the state in which those before it are done. What is packed on purpose is not evened out, and what has files of its
//! node stays with them.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use model::{
    Affinity, Attribute, Availability, Desired, Ended, Liveness, Mode, MountKind, NodeId, Phase,
    RolloutPhase, ServiceId, Strategy, TaskId, TaskStatus, TaskVerdict, Wish,
};
use state::{Command, Demand, Load, Outcome, Proposal, Service, Shunned, State};

use crate::has_room;

/// A node has to be fuller than another by so many thousandths, the task itself left out.
const MARGIN: u64 = 100;

/// A task that would be better off elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub task: TaskId,
    pub from: NodeId,
    pub to: NodeId,
    pub why: Uneven,
}

/// What differs between the node that a task is on and the one that it is better on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uneven {
    /// Which services are near that it would rather be near, or apart from.
    Company,
    /// How many tasks of the service there are with each value of what it is spread over.
    Spread { attribute: Attribute, here: (String, u32), there: (String, u32) },
    /// How many tasks of the service they have.
    Service { here: u32, there: u32 },
    /// How many thousandths of them are reserved.
    Reserved { here: u64, there: u64 },
    /// How many tasks they have, where nothing is reserved.
    Tasks { here: u32, there: u32 },
}

impl Uneven {
    fn is_load(&self) -> bool {
        match self {
            Self::Reserved { .. } | Self::Tasks { .. } => true,
            Self::Company | Self::Spread { .. } | Self::Service { .. } => false,
        }
    }
}

impl fmt::Display for Uneven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Company => f.write_str("there it has the neighbours that it prefers"),
            Self::Spread { attribute, here: (here, tasks), there: (there, others) } => {
                write!(f, "{tasks} of it with {attribute} {here}, and {others} with {there}")
            }
            Self::Service { here, there } => write!(f, "{here} of it here, and {there} there"),
            Self::Reserved { here, there } => {
                write!(f, "{} % reserved here, and {} % there", here / 10, there / 10)
            }
            Self::Tasks { here, there } => write!(f, "{here} tasks here, and {there} there"),
        }
    }
}

/// Moves that even out what runs, in an order in which each is possible; `most` of them at most.
pub fn rebalance(state: &State, most: usize) -> Vec<Move> {
    let (mut decided, mut moves) = (state.clone(), Vec::new());
    let shunned = state.shunned();
    let services: Vec<_> = state.services().filter(|(_, service)| may_move(state, service)).collect();
    // Where services are even by themselves, the nodes mostly are.
    for by_load in [false, true] {
        for service in &services {
            while moves.len() < most
                && let Some(found) = next(&decided, *service, &shunned, by_load)
                && let Some(after) = with(&decided, &found)
            {
                decided = after;
                moves.push(found);
            }
        }
    }
    moves
}

fn may_move(state: &State, service: &Service) -> bool {
    let task = &service.spec.task;
    let clusters = state.cluster().map(|cluster| cluster.strategy).unwrap_or_default();
    let is_changing =
        service.rollout.as_ref().is_some_and(|rollout| rollout.phase != RolloutPhase::Completed);
    let has_files = task.container.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Bind(_)));
    matches!(service.spec.mode, Mode::Replicated { .. })
        && service.spec.job.is_none()
        && !service.removing
        && !task.is_one_off()
        && !is_changing
        && !has_files
        && task.placement.strategy.unwrap_or(clusters) == Strategy::Spread
        && !is_sought(state, service)
}

/// Whether another service has to be where this one is.
fn is_sought(state: &State, service: &Service) -> bool {
    state.services().any(|(_, other)| {
        let seeks = |affinity: &Affinity| {
            affinity.required
                && affinity.wish == Wish::Near
                && affinity.target(&other.name.stack) == service.name
        };
        other.spec.task.placement.affinities.iter().any(seeks)
    })
}

/// How well a task of the service is placed on a node, itself left out; less is better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    regrets: u32,
    /// For each attribute that it is spread over, its tasks with the node's value, within those before.
    groups: Vec<u32>,
    of_service: u32,
    load: Load,
}

struct View<'a> {
    state: &'a State,
    demand: Demand<'a>,
    /// The tasks with the values of each way down the attributes that it is spread over.
    groups: BTreeMap<Vec<Option<String>>, u32>,
}

impl<'a> View<'a> {
    fn new(state: &'a State, demand: Demand<'a>) -> Self {
        let mut view = Self { state, demand, groups: BTreeMap::new() };
        let mut groups: BTreeMap<Vec<Option<String>>, u32> = BTreeMap::new();
        for (id, _) in state.nodes() {
            let here = view.of_service(id);
            for way in view.ways(id).into_iter().filter(|_| here > 0) {
                *groups.entry(way).or_default() += here;
            }
        }
        view.groups = groups;
        view
    }

    fn of_service(&self, node: NodeId) -> u32 {
        self.state.occupied(node).map_or(0, |occupancy| occupancy.of_service(self.demand.service))
    }

    fn ways(&self, id: NodeId) -> Vec<Vec<Option<String>>> {
        let Some(node) = self.state.node(id) else { return Vec::new() };
        let over = &self.demand.spec.placement.spread_over;
        let values: Vec<_> =
            over.iter().map(|attribute| attribute.of(id, node).map(Cow::into_owned)).collect();
        (1..=values.len()).map(|to| values[..to].to_vec()).collect()
    }

    /// Of a node while `task` is not on `from`.
    fn standing(&self, id: NodeId, (task, from): (TaskId, NodeId)) -> Standing {
        let is_from = id == from;
        let without = if is_from { vec![task] } else { Vec::new() };
        let occupancy = self.state.occupancy_without(id, &without);
        let capacity = self.state.node(id).map(|node| node.capacity).unwrap_or_default();
        let left = self.ways(from);
        let ways = self.ways(id).into_iter();
        let of_way = |way: Vec<Option<String>>| {
            let tasks = self.groups.get(&way).copied().unwrap_or_default();
            tasks.saturating_sub(u32::from(left.contains(&way)))
        };
        Standing {
            regrets: self.demand.regrets(&occupancy),
            groups: ways.map(of_way).collect(),
            of_service: self.of_service(id).saturating_sub(u32::from(is_from)),
            load: occupancy.load(capacity),
        }
    }

    fn takes(&self, id: NodeId) -> bool {
        let node = self.state.node(id);
        node.is_some_and(|node| self.demand.may_ever(id, node).is_ok())
            && has_room(self.state, &self.demand, id).is_ok()
    }

    /// What makes a difference between where a task is and where it might be.
    fn uneven(&self, from: (NodeId, &Standing), to: (NodeId, &Standing)) -> Option<Uneven> {
        let ((from, here), (to, there)) = (from, to);
        if here.regrets != there.regrets {
            return (there.regrets < here.regrets).then_some(Uneven::Company);
        }
        if let Some(level) = (0..here.groups.len()).find(|level| here.groups[*level] != there.groups[*level])
        {
            let attribute = self.demand.spec.placement.spread_over.get(level)?.clone();
            let value = |id| {
                let node = self.state.node(id)?;
                Some(attribute.of(id, node).map_or_else(|| "(none)".to_owned(), Cow::into_owned))
            };
            let (ours, others) = (here.groups[level] + 1, there.groups[level]);
            let (here, there) = ((value(from)?, ours), (value(to)?, others));
            return (others + 1 < ours).then_some(Uneven::Spread { attribute, here, there });
        }
        if here.of_service != there.of_service {
            let (here, there) = (here.of_service + 1, there.of_service);
            return (there + 1 < here).then_some(Uneven::Service { here, there });
        }
        let (here, there) = (here.load, there.load);
        if here.reserved >= there.reserved + MARGIN {
            let here = self.state.load(from).reserved;
            return Some(Uneven::Reserved { here, there: there.reserved });
        }
        let is_free = here.reserved == 0 && there.reserved == 0;
        (is_free && here.tasks > there.tasks)
            .then_some(Uneven::Tasks { here: here.tasks + 1, there: there.tasks })
    }
}

/// The next move of a service. A task that was made by an earlier one is not moved again.
fn next(
    state: &State,
    (id, service): (ServiceId, &Service),
    shunned: &Shunned,
    by_load: bool,
) -> Option<Move> {
    let mut on: BTreeMap<NodeId, TaskId> = BTreeMap::new();
    for (task_id, task) in state.tasks_of(id) {
        let may = task.desired == Desired::Running && task.is_ready() && !task.leaves;
        let is_its = task.version == service.version && task_id.sequence < service.next_sequence;
        if let Some(placement) = task.occupies().filter(|_| may && is_its) {
            on.insert(placement.node, task_id);
        }
    }
    let may_leave = |id: &NodeId| {
        let node = state.node(*id);
        node.is_some_and(|node| node.liveness == Liveness::Ready && node.availability == Availability::Active)
    };
    on.retain(|id, _| may_leave(id));
    let demand = state.demand(*on.values().next()?, service.version, shunned)?;
    let view = View::new(state, demand);
    let mut from: Vec<_> =
        on.into_iter().map(|(node, task)| (view.standing(node, (task, node)), node, task)).collect();
    from.sort_by_key(|(standing, node, _)| (Reverse(standing.clone()), *node));
    from.into_iter().find_map(|(here, from, task)| {
        let others = state.nodes().map(|(id, _)| id).filter(|id| *id != from && view.takes(*id));
        let (there, to) = others.map(|id| (view.standing(id, (task, from)), id)).min()?;
        let why = view.uneven((from, &here), (to, &there)).filter(|why| by_load || !why.is_load())?;
        Some(Move { task, from, to, why })
    })
}

/// The state in which a move is done, if it can be.
fn with(state: &State, made: &Move) -> Option<State> {
    let old = state.task(made.task)?;
    let known = old.status.as_ref()?;
    let status = TaskStatus {
        attempt: known.attempt,
        phase: Phase::Exited,
        seq: known.seq + 1,
        ready: false,
        at: state.time(),
        exit: None,
        ended: Some(Ended::Stopped),
        reason: None,
        warnings: Vec::new(),
    };
    let sequence = state.service(made.task.service)?.next_sequence;
    let task = TaskId { sequence, ..made.task };
    let commands = vec![
        Command::SetDesired { task: made.task, desired: Desired::Stopped },
        Command::Report { node: made.from, statuses: vec![(made.task, status)] },
        Command::Conclude { task: made.task, verdict: TaskVerdict::Ended },
        Command::CreateTask { task, version: old.version, run: 0, avoid: Some(made.from) },
        Command::Assign { task, node: made.to },
    ];
    let mut after = state.clone();
    let proposal = Proposal { at: state.time(), request: None, by: None, commands };
    let applied = after.apply(state.applied(), &proposal);
    applied.outcomes.iter().all(Outcome::is_ok).then_some(after)
}
