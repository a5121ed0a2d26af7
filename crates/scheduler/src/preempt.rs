//! Room for what has a higher priority than something that runs.
//!
//! What makes room is stopped, and what needs the room is placed once it is seen stopped. Until then the room is kept: each pass
//! finds it anew from the state, before it places anything of a lower priority, and so stops nothing twice.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use model::{Bytes, MilliCpu, NodeId, Priority, ServiceId, Task, TaskId};
use state::{Demand, State, Unfit};

/// Where one pass makes room.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    /// What is kept on each node, and for what priority.
    kept: BTreeMap<NodeId, Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    cpu: MilliCpu,
    memory: Bytes,
    /// Of each service, the slots that it is for.
    slots: BTreeMap<ServiceId, u32>,
    ports: BTreeSet<(model::Protocol, u16)>,
    priority: Priority,
}

/// A node on which there is going to be room, and what has to be stopped for that.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) node: NodeId,
    pub(crate) stop: Vec<TaskId>,
}

impl Room {
    /// For a person who waits for it.
    pub(crate) fn hint(&self, state: &State) -> String {
        let name = state.node(self.node).map(|node| node.name.to_string()).unwrap_or_default();
        format!("room is being made on {name}")
    }
}

/// What it costs to make room somewhere. Lower is better, compared from the first field on.
type Cost = (Option<Priority>, usize, NodeId);

impl Rooms {
    /// Whether a node's room is kept for something of a higher priority.
    pub(crate) fn is_kept(&self, node: NodeId, priority: Priority) -> bool {
        self.kept.get(&node).is_some_and(|kept| kept.priority > priority)
    }

    /// The node on which room for one more task of `demand` costs the least, which is then kept for it.
    pub(crate) fn make(&mut self, state: &State, demand: &Demand<'_>) -> Option<Room> {
        let nodes = crate::candidates::nodes(state, demand);
        let fit = nodes.filter(|(id, node)| demand.may_ever(*id, node).is_ok());
        let rooms = fit.filter_map(|(id, _)| self.room_on(state, demand, id));
        let (_, room) = rooms.min_by_key(|(cost, _)| *cost)?;
        let kept = self.kept.entry(room.node).or_default();
        let wants = &demand.spec.resources.reservations;
        kept.cpu.0 += wants.cpu.0;
        kept.memory.0 += wants.memory.0;
        *kept.slots.entry(demand.service).or_default() += 1;
        kept.ports.extend(demand.spec.host_ports());
        kept.priority = kept.priority.max(demand.spec.placement.priority);
        Some(room)
    }

    fn room_on(&self, state: &State, demand: &Demand<'_>, id: NodeId) -> Option<(Cost, Room)> {
        let priority = demand.spec.placement.priority;
        let node = state.node(id)?;
        let kept = self.kept.get(&id);
        if kept.is_some_and(|kept| kept.priority > priority) {
            return None;
        }
        let fits = |without: &[TaskId]| {
            let mut occupancy = state.occupancy_without(id, without);
            if let Some(kept) = kept {
                occupancy.reserved.cpu.0 += kept.cpu.0;
                occupancy.reserved.memory.0 += kept.memory.0;
                occupancy.ports.extend(kept.ports.iter().copied());
            }
            let most = demand.spec.placement.max_per_node.map_or(u32::MAX, std::num::NonZeroU32::get);
            let to_come = kept.and_then(|kept| kept.slots.get(&demand.service)).copied().unwrap_or_default();
            let others = to_come + occupancy.of_service(demand.service);
            others < most && demand.has_room(node, &occupancy).is_ok()
        };
        let mut gone: Vec<TaskId> = Vec::new();
        let mut lower: Vec<(Priority, Reverse<TaskId>)> = Vec::new();
        for (task, row) in state.tasks_on(id).filter(|(_, row)| row.occupies().is_some()) {
            if row.desired.runs() {
                lower.extend(
                    priority_of(state, task, row)
                        .filter(|its| *its < priority)
                        .map(|its| (its, Reverse(task))),
                );
            } else {
                gone.push(task);
            }
        }
        if lower.is_empty() && gone.is_empty() {
            return None;
        }
        if fits(&gone) {
            return Some(((None, 0, id), Room { node: id, stop: Vec::new() }));
        }
        // The least important first, and of those the newest; then whatever turns out not to be needed stays.
        lower.sort_unstable();
        let leaving = gone.len();
        let mut order = lower.into_iter();
        while !fits(&gone) {
            gone.push(order.next()?.1.0);
        }
        for at in (leaving..gone.len()).rev() {
            let spared = gone.remove(at);
            if !fits(&gone) {
                gone.insert(at, spared);
            }
        }
        let stop = gone.split_off(leaving);
        let dearest = stop.iter().filter_map(|task| priority_of(state, *task, state.task(*task)?)).max();
        Some(((dearest, stop.len(), id), Room { node: id, stop }))
    }
}

fn priority_of(state: &State, id: TaskId, task: &Task) -> Option<Priority> {
    let template = state.service(id.service)?.templates.get(&task.version)?;
    Some(template.task.placement.priority)
}

/// Whether stopping something could help at all.
pub(crate) fn may_help(explanation: &state::Explanation) -> bool {
    explanation.reasons.keys().any(|unfit| matches!(unfit, Unfit::Lacks(_)))
}
