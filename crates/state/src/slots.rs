//! Which slots a service is to have: so many, or one on every node that may have it.
//!
//! The number of a global service's slot is its node's. So a task there is bound to that node, and what somebody wants of it
//! can be told from its id.

use model::{Availability, Liveness, Mode, Node, NodeId, TaskId};

use crate::tables::{Service, State};

/// What a service wants of one of its slots now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A task fills it.
    Filled,
    /// It stays as it is: its node is down or paused.
    AsItIs,
    /// No task is in it.
    Empty,
}

impl State {
    /// What `service` wants of this slot.
    pub fn wanted(&self, service: &Service, slot: u32) -> Wanted {
        match service.spec.mode {
            _ if service.removing => Wanted::Empty,
            Mode::Replicated { replicas } if (1..=replicas).contains(&slot) => Wanted::Filled,
            Mode::Replicated { .. } => Wanted::Empty,
            Mode::Global => {
                let id = node_of(slot);
                self.node(id).map_or(Wanted::Empty, |node| wanted_on(service, id, node))
            }
        }
    }

    /// The slots that tasks are to fill, in order.
    pub fn slots<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = u32> + 'a {
        let replicas = service.spec.mode.replicas();
        let nodes = replicas.is_none().then(|| self.nodes().filter_map(|(id, _)| slot_on(id)));
        let slots = (1..=replicas.unwrap_or_default()).chain(nodes.into_iter().flatten());
        slots.filter(|slot| self.wanted(service, *slot) == Wanted::Filled)
    }

    /// How many slots tasks are to fill.
    pub fn slot_count(&self, service: &Service) -> u32 {
        match service.spec.mode {
            Mode::Replicated { replicas } if !service.removing => replicas,
            Mode::Replicated { .. } | Mode::Global => {
                u32::try_from(self.slots(service).count()).unwrap_or(u32::MAX)
            }
        }
    }

    /// How many tasks are to be there now: of a job whose runs are over, none.
    pub fn desired_count(&self, service: &Service) -> u32 {
        let rests = service.job.as_ref().is_some_and(|job| job.active().next().is_none());
        if rests { 0 } else { self.slot_count(service) }
    }

    /// The one node on which a task may be; `None` where the scheduler chooses.
    pub fn bound_to(&self, task: TaskId) -> Option<NodeId> {
        match self.service(task.service)?.spec.mode {
            Mode::Replicated { .. } => None,
            Mode::Global => Some(node_of(task.slot)),
        }
    }
}

fn wanted_on(service: &Service, id: NodeId, node: &Node) -> Wanted {
    if service.spec.task.placement.bars(id, node).is_some() {
        return Wanted::Empty;
    }
    match (node.availability, node.liveness) {
        // What runs to its end may do so.
        (Availability::Drain { .. }, _) if service.spec.job.is_some() => Wanted::AsItIs,
        (Availability::Drain { .. }, _) => Wanted::Empty,
        (Availability::Pause, _) | (Availability::Active, Liveness::Down { .. } | Liveness::Unknown) => {
            Wanted::AsItIs
        }
        (Availability::Active, Liveness::Ready) => Wanted::Filled,
    }
}

fn node_of(slot: u32) -> NodeId {
    NodeId(slot.into())
}

/// `None` for a node whose number is no slot's: no cluster has ever admitted four billion.
fn slot_on(node: NodeId) -> Option<u32> {
    u32::try_from(node.0).ok()
}
