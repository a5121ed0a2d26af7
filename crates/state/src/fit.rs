//! Which nodes can take a task, and the sentence that says why none can.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{
    Affinity, Attribute, Availability, Barred, Comparison, Liveness, Node, NodeId, ServiceId, ServiceName,
    SpecVersion, Strategy, TaskId, TaskSpec, Wish,
};

use crate::command::Lacking;
use crate::occupancy::Occupancy;
use crate::tables::State;

/// Why a node cannot take a task: the first row of the table below that applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    Down,
    NeverSeen,
    Paused,
    Draining,
    Barred(Barred),
    /// A service that it has to be near is not there.
    Misses(ServiceName),
    /// A service that it has to be apart from is there, or one that has to be apart from it.
    Has(ServiceName),
    /// What room it has is for something of a higher priority.
    Kept,
    /// It has as many of the service as may share a node.
    Enough(u32),
    Lacks(Lacking),
}

/// What tasks that are alike ask of a node, looked up once for all of them.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    pub service: ServiceId,
    pub version: SpecVersion,
    pub spec: &'a TaskSpec,
    /// The one node on which it may be.
    pub bound: Option<NodeId>,
    pub strategy: Strategy,
    near: Vec<Target>,
    apart: Vec<Target>,
}

/// A service as it is spoken of in an affinity. There may be none.
#[derive(Clone, Debug)]
struct Target {
    name: ServiceName,
    id: Option<ServiceId>,
    required: bool,
}

/// Who shuns whom, for the other side of it: looked up once for all demands.
#[derive(Clone, Debug, Default)]
pub struct Shunned(BTreeMap<ServiceName, Vec<(ServiceName, ServiceId)>>);

impl State {
    pub fn shunned(&self) -> Shunned {
        let mut shunned = Shunned::default();
        for (id, service) in self.services() {
            let apart = |affinity: &&Affinity| affinity.wish == Wish::Apart && affinity.required;
            for affinity in service.spec.task.placement.affinities.iter().filter(apart) {
                let target = affinity.target(&service.name.stack);
                shunned.0.entry(target).or_default().push((service.name.clone(), id));
            }
        }
        shunned
    }

    /// What a task of this version of a service asks, in this slot.
    pub fn demand(&self, task: TaskId, version: SpecVersion, shunned: &Shunned) -> Option<Demand<'_>> {
        let service = self.service(task.service)?;
        let spec = &*service.templates.get(&version)?.task;
        let (mut near, mut apart) = (Vec::new(), Vec::new());
        for affinity in &spec.placement.affinities {
            let name = affinity.target(&service.name.stack);
            let id = self.service_named(&name).map(|(id, _)| id);
            let target = Target { name, id, required: affinity.required };
            match affinity.wish {
                Wish::Near => near.push(target),
                Wish::Apart => apart.push(target),
            }
        }
        let others = shunned.0.get(&service.name).into_iter().flatten();
        apart.extend(others.map(|(name, id)| Target { name: name.clone(), id: Some(*id), required: true }));
        let clusters = self.cluster().map(|cluster| cluster.strategy).unwrap_or_default();
        Some(Demand {
            service: task.service,
            version,
            spec,
            bound: self.bound_to(task),
            strategy: spec.placement.strategy.unwrap_or(clusters),
            near,
            apart,
        })
    }

    /// Whether a node other than the one that it is on would take this task, made anew in `version`.
    pub fn has_other_place(&self, task: TaskId, version: SpecVersion, shunned: &Shunned) -> bool {
        let Some(demand) = self.demand(task, version, shunned) else { return false };
        let here = self.task(task).and_then(|task| task.placement.as_ref()).map(|placement| placement.node);
        let mut others = self.nodes().filter(|(id, _)| Some(*id) != here);
        others.any(|(id, node)| demand.admits(id, node, &self.occupancy(id)).is_ok())
    }
}

impl Demand<'_> {
    /// What is the same for every task comes first, so that a node that is down is not also said to be full.
    pub fn admits(&self, id: NodeId, node: &Node, occupancy: &Occupancy) -> Result<(), Unfit> {
        self.may_ever(id, node)?;
        self.has_room(node, occupancy)
    }

    /// What holds of the node for as long as nothing but tasks of this demand come to it.
    pub fn may_ever(&self, id: NodeId, node: &Node) -> Result<(), Unfit> {
        match node.liveness {
            Liveness::Down { .. } => return Err(Unfit::Down),
            Liveness::Unknown => return Err(Unfit::NeverSeen),
            Liveness::Ready => {}
        }
        match node.availability {
            Availability::Pause => return Err(Unfit::Paused),
            Availability::Drain { .. } => return Err(Unfit::Draining),
            Availability::Active => {}
        }
        match self.spec.placement.bars(id, node) {
            Some(barred) => Err(Unfit::Barred(barred)),
            None => Ok(()),
        }
    }

    pub fn has_room(&self, node: &Node, occupancy: &Occupancy) -> Result<(), Unfit> {
        let is_there = |target: &&Target| target.id.is_some_and(|id| occupancy.of_service(id) > 0);
        let mut needed = self.near.iter().filter(|target| target.required);
        if let Some(missing) = needed.find(|target| !is_there(target)) {
            return Err(Unfit::Misses(missing.name.clone()));
        }
        if let Some(other) = self.apart.iter().filter(|target| target.required).find(is_there) {
            return Err(Unfit::Has(other.name.clone()));
        }
        if let Some(most) = self.spec.placement.max_per_node
            && occupancy.of_service(self.service) >= most.get()
        {
            return Err(Unfit::Enough(most.get()));
        }
        match occupancy.lacks(node, &self.spec.resources.reservations, &self.spec.ports) {
            Some(lacking) => Err(Unfit::Lacks(lacking)),
            None => Ok(()),
        }
    }

    /// Whether there are services that it would rather be near, or apart from.
    pub fn has_preferences(&self) -> bool {
        self.near.iter().chain(&self.apart).any(|target| !target.required)
    }

    /// How many of the things that it would rather have are not so on a node.
    pub fn regrets(&self, occupancy: &Occupancy) -> u32 {
        let is_there = |target: &Target| target.id.is_some_and(|id| occupancy.of_service(id) > 0);
        let near = self.near.iter().filter(|target| !target.required && !is_there(target));
        let apart = self.apart.iter().filter(|target| !target.required && is_there(target));
        u32::try_from(near.count() + apart.count()).unwrap_or(u32::MAX)
    }
}

/// Why a task has no node: how many nodes fail for which reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    pub reasons: BTreeMap<Unfit, u32>,
    /// What may have been meant instead.
    pub hint: Option<String>,
}

impl Explanation {
    pub fn add(&mut self, unfit: Unfit) {
        *self.reasons.entry(unfit).or_default() += 1;
    }

    /// Looks for a slip of the keyboard: a label that no node has, or a value that no node's label has.
    pub fn look_for_slips(&mut self, state: &State) {
        let barring = self.reasons.keys().find_map(|unfit| match unfit {
            Unfit::Barred(Barred::Constraint(constraint)) if constraint.comparison == Comparison::Is => {
                Some(constraint)
            }
            _ => None,
        });
        let Some(constraint) = barring else { return };
        let known: BTreeSet<Cow<'_, str>> =
            state.nodes().filter_map(|(id, node)| constraint.attribute.of(id, node)).collect();
        let list = |of: Vec<&str>| of.into_iter().take(10).collect::<Vec<_>>().join(", ");
        let has = |value: &String| known.iter().any(|known| known.eq_ignore_ascii_case(value));
        self.hint = match &constraint.attribute {
            Attribute::Label(key) | Attribute::EngineLabel(key) if known.is_empty() => {
                let all = state.nodes().flat_map(|(_, node)| node.all_labels().into_keys());
                let keys: BTreeSet<&str> = all.collect();
                let there = match keys.len() {
                    0 => "no node has any".to_owned(),
                    _ => format!("there are {}", list(keys.into_iter().collect())),
                };
                Some(format!("no node has a label `{key}`: {there}"))
            }
            Attribute::Ip => None,
            attribute if !constraint.values.iter().any(has) => {
                let there = list(known.iter().map(|value| &**value).collect());
                Some(format!("{attribute} is {there} on the nodes that there are"))
            }
            _ => None,
        };
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return f.write_str("waiting for a node");
        }
        f.write_str("no node fits: ")?;
        for (at, (unfit, nodes)) in self.reasons.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            let (node, is, has) = if *nodes == 1 { ("node", "is", "has") } else { ("nodes", "are", "have") };
            match unfit {
                Unfit::Down => write!(f, "{nodes} {node} {is} down")?,
                Unfit::NeverSeen => write!(f, "{nodes} {node} {is} not connected yet")?,
                Unfit::Paused => write!(f, "{nodes} {node} {is} paused")?,
                Unfit::Draining => write!(f, "{nodes} {node} {is} draining")?,
                Unfit::Barred(Barred::Constraint(constraint)) => {
                    write!(f, "{constraint} is not met on {nodes} {node}")?;
                }
                Unfit::Barred(Barred::Platform(platform)) => write!(f, "{nodes} {node} {is} not {platform}")?,
                Unfit::Misses(service) => write!(f, "{service} is not on {nodes} {node}")?,
                Unfit::Has(service) => {
                    write!(f, "{nodes} {node} {has} {service}, which it is kept apart from")?
                }
                Unfit::Enough(most) => write!(f, "{nodes} {node} {has} {most} of it already, its most")?,
                Unfit::Kept => write!(f, "{nodes} {node} {has} room for what goes before it")?,
                Unfit::Lacks(lacking) => write!(f, "{lacking} on {nodes} {node}")?,
            }
        }
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
