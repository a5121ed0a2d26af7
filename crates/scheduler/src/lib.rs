//! Pure placement: a node for each unplaced task, or the sentence that says why none.
//!
//! [`place`] is for the reconcile loop, [`explain`] for whoever asks why a task has no node. A node is admitted by
//! [`filter`]'s ordered table, and the best of those admitted is the one that spreads the service the furthest.
//!
//! **Invariant:** a decision depends on the state and the task alone; ties break by node id.

mod filter;

use std::collections::BTreeMap;

use model::{Node, NodeId, ServiceId, SpecVersion, TaskId};
use state::{Command, Occupancy, Proposal, State};

pub use filter::{Explanation, Unfit};

/// Tasks of one are alike as far as any node can tell.
type Kind = (ServiceId, SpecVersion, Option<NodeId>);

/// What was decided for the tasks that were asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `Assign` commands, in the order in which they have to be judged.
    pub commands: Vec<Command>,
    pub unplaced: BTreeMap<TaskId, Explanation>,
}

/// Finds a node for each of `pending`, oldest first, each decision seeing the ones before it, until `most` of them have
/// one. What stands behind those is neither placed nor explained.
pub fn place(state: &State, pending: &[TaskId], most: usize) -> Placement {
    let mut decided = state.clone();
    let mut placement = Placement::default();
    // Tasks that are alike fare alike: nodes only fill up while this goes on, so that what none of them takes now none
    // takes later, and the node that a task is to avoid bars it from no other.
    let mut hopeless: BTreeMap<Kind, Explanation> = BTreeMap::new();
    for task in pending {
        if placement.commands.len() == most {
            break;
        }
        let kind = state.task(*task).map(|row| (task.service, row.version, state.bound_to(*task)));
        if let Some(explanation) = kind.and_then(|kind| hopeless.get(&kind)) {
            placement.unplaced.insert(*task, explanation.clone());
            continue;
        }
        match choose(&decided, *task) {
            Ok(node) => {
                let command = Command::Assign { task: *task, node };
                let proposal =
                    Proposal { at: decided.time(), request: None, by: None, commands: vec![command.clone()] };
                let applied = decided.apply(decided.applied(), &proposal);
                // `choose` asks the same questions as `apply`, save for free ports, which only run out here.
                match applied.outcomes.first() {
                    Some(Ok(_)) => placement.commands.push(command),
                    Some(Err(_)) | None => {
                        placement.unplaced.insert(*task, explain(&decided, *task));
                    }
                }
            }
            Err(explanation) => {
                hopeless.extend(kind.map(|kind| (kind, explanation.clone())));
                placement.unplaced.insert(*task, explanation);
            }
        }
    }
    placement
}

/// Why no node is free for `task`; without reasons when one is.
pub fn explain(state: &State, task: TaskId) -> Explanation {
    choose(state, task).err().unwrap_or_default()
}

fn choose(state: &State, id: TaskId) -> Result<NodeId, Explanation> {
    let (Some(task), Some(template)) = (state.task(id), state.template_of(id)) else {
        return Err(Explanation::default());
    };
    let mut explanation = Explanation::default();
    let mut best: Option<(Rank, NodeId)> = None;
    let bound = state.bound_to(id);
    for (node_id, node) in state.nodes().filter(|(node, _)| bound.is_none_or(|bound| bound == *node)) {
        let occupancy = state.occupancy(node_id);
        match filter::admits(node, &occupancy, &template.task) {
            Err(unfit) => explanation.add(unfit),
            Ok(()) => {
                let rank = rank(id, task.avoid == Some(node_id), node, &occupancy);
                if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                    best = Some((rank, node_id));
                }
            }
        }
    }
    best.map(|(_, node)| node).ok_or(explanation)
}

/// Lower is better, compared from the first field on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// The task before it failed there.
    avoided: bool,
    of_service: u32,
    /// Thousandths of the fuller of CPU and memory that is reserved.
    reserved: u64,
    tasks: u32,
}

fn rank(id: TaskId, avoided: bool, node: &Node, occupancy: &Occupancy) -> Rank {
    let share = |part: u64, whole: u64| part.saturating_mul(1000).checked_div(whole).unwrap_or_default();
    let cpu = share(occupancy.reserved.cpu.0, node.capacity.cpu.0);
    let memory = share(occupancy.reserved.memory.0, node.capacity.memory.0);
    Rank {
        avoided,
        of_service: occupancy.of_service(id.service),
        reserved: cpu.max(memory),
        tasks: occupancy.tasks,
    }
}
