//! Which nodes can take a task, and the sentence that says why none can.

use std::collections::BTreeMap;
use std::fmt;

use model::{Availability, Constraint, Liveness, Node, TaskSpec};
use state::Occupancy;
use state::command::Lacking;

/// Why a node cannot take a task: the first row of the table below that applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    Down,
    NeverSeen,
    Paused,
    Draining,
    Constraint(Constraint),
    Lacks(Lacking),
}

/// What is the same for every task comes first, so that a node that is down is not also said to be full.
pub(crate) fn admits(node: &Node, occupancy: &Occupancy, spec: &TaskSpec) -> Result<(), Unfit> {
    match node.liveness {
        Liveness::Down { .. } => return Err(Unfit::Down),
        Liveness::Unknown => return Err(Unfit::NeverSeen),
        Liveness::Ready => {}
    }
    match node.availability {
        Availability::Pause => return Err(Unfit::Paused),
        Availability::Drain => return Err(Unfit::Draining),
        Availability::Active => {}
    }
    if let Some(constraint) = spec.constraints.iter().find(|constraint| !constraint.admits(node)) {
        return Err(Unfit::Constraint(constraint.clone()));
    }
    match occupancy.lacks(node, spec.resources.reservations, &spec.ports) {
        Some(lacking) => Err(Unfit::Lacks(lacking)),
        None => Ok(()),
    }
}

/// Why a task has no node: how many nodes fail for which reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    pub reasons: BTreeMap<Unfit, u32>,
}

impl Explanation {
    pub(crate) fn add(&mut self, unfit: Unfit) {
        *self.reasons.entry(unfit).or_default() += 1;
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
            let (node, is) = if *nodes == 1 { ("node", "is") } else { ("nodes", "are") };
            match unfit {
                Unfit::Down => write!(f, "{nodes} {node} {is} down")?,
                Unfit::NeverSeen => write!(f, "{nodes} {node} {is} not connected yet")?,
                Unfit::Paused => write!(f, "{nodes} {node} {is} paused")?,
                Unfit::Draining => write!(f, "{nodes} {node} {is} draining")?,
                Unfit::Constraint(constraint) => write!(f, "{constraint} is not met on {nodes} {node}")?,
                Unfit::Lacks(lacking) => write!(f, "{lacking} on {nodes} {node}")?,
            }
        }
        Ok(())
    }
}
