//! Pure placement: a node for each unplaced task, or the sentence that says why none.
//!
//! [`place`] is for the reconcile loop, [`explain`] for whoever asks why a task has no node. Tasks that are alike are a class,
//! for which the nodes that may ever take one are put in order once: [`candidates`] is that order, [`rank`] what it goes by, and
//! [`preempt`] what is done where none is left and something less important runs. [`mod@rebalance`] finds what would be better off
//! elsewhere by now.
//! Whether a node can take a task is `state`'s to say, in `state::Demand`.
//!
//! **Invariant:** a decision depends on the state and the task alone; ties break by node id.

mod candidates;
mod preempt;
mod rank;
mod rebalance;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::{
    Attribute, Constraint, Desired, NodeId, PlacementPolicy, Platform, Priority, ServiceId, SpecVersion,
    Task, TaskId,
};
use state::{Command, Demand, Explanation, Occupancy, Proposal, State, Unfit};

use candidates::{Candidates, Groups};
use preempt::{Room, Rooms};
pub use rebalance::{Move, Uneven, rebalance};

/// Tasks of one are alike as far as any node can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    service: ServiceId,
    version: SpecVersion,
    bound: Option<NodeId>,
    avoid: Option<NodeId>,
}

/// What decides which nodes may ever have a task, and over what it is spread.
type Asked<'a> = (&'a [Constraint], Option<&'a Platform>, &'a [Attribute]);

/// What was decided for the tasks that were asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `Assign` commands, and such as stop what makes room, in the order in which they have to be judged.
    pub commands: Vec<Command>,
    pub unplaced: BTreeMap<TaskId, Explanation>,
}

/// Finds a node for each of `pending`, what has the highest priority first and then the oldest, each decision seeing the ones
/// before it, until there are `most` commands. What stands behind those is neither placed nor explained.
pub fn place(state: &State, pending: &[TaskId], most: usize) -> Placement {
    let shunned = state.shunned();
    let mut pass = Pass { decided: state.clone(), rooms: Rooms::default(), placement: Placement::default() };
    let mut groups: BTreeMap<Asked<'_>, Groups> = BTreeMap::new();
    for (kind, tasks) in classes(state, pending) {
        let Some(demand) = tasks.first().and_then(|task| state.demand(*task, kind.version, &shunned)) else {
            continue;
        };
        let PlacementPolicy { constraints, platform, spread_over, .. } = &demand.spec.placement;
        let asked = (constraints.as_slice(), platform.as_ref(), spread_over.as_slice());
        let groups = groups.entry(asked).or_insert_with(|| Groups::new(&pass.decided, &demand));
        if !pass.place(&demand, groups, kind.avoid, &tasks, most) {
            break;
        }
    }
    pass.placement
}

struct Pass {
    /// The state with all that has been decided.
    decided: State,
    rooms: Rooms,
    placement: Placement,
}

impl Pass {
    /// Tells whether there is room for more commands.
    fn place(
        &mut self,
        demand: &Demand<'_>,
        groups: &mut Groups,
        avoid: Option<NodeId>,
        tasks: &[TaskId],
        most: usize,
    ) -> bool {
        let mut candidates = Candidates::new(&self.decided, demand, groups, avoid);
        let mut why: Option<Explanation> = None;
        let mut may_make_room = true;
        for task in tasks {
            if self.placement.commands.len() >= most {
                candidates.give_back(&self.decided);
                return false;
            }
            if why.is_none() && self.assign(demand, &mut candidates, *task) {
                continue;
            }
            // Nodes only fill up, so that what none of them takes now none takes later.
            let why =
                why.get_or_insert_with(|| reasons(&self.decided, demand, None, |id| self.fits(demand, id)));
            let mut why = why.clone();
            if may_make_room && preempt::may_help(&why) {
                match self.rooms.make(&self.decided, demand) {
                    Some(room) => why.hint = Some(self.make_room(room)),
                    None => may_make_room = false,
                }
            }
            self.placement.unplaced.insert(*task, why);
        }
        candidates.give_back(&self.decided);
        true
    }

    /// Whether one of the candidates has the task now.
    fn assign(&mut self, demand: &Demand<'_>, candidates: &mut Candidates<'_>, task: TaskId) -> bool {
        while let Some(node) = candidates.next(&self.decided) {
            // The command asks the same questions, save for free ports, which only run out here.
            if self.fits(demand, node).is_ok() && self.decide(Command::Assign { task, node }) {
                candidates.has_taken(node, rank::rank(&self.decided, demand, node));
                return true;
            }
        }
        false
    }

    /// Whether a node that may ever take such a task takes one now.
    fn fits(&self, demand: &Demand<'_>, id: NodeId) -> Result<(), Unfit> {
        if self.rooms.is_kept(id, demand.spec.placement.priority) {
            return Err(Unfit::Kept);
        }
        has_room(&self.decided, demand, id)
    }

    /// Says where there is going to be room.
    fn make_room(&mut self, room: Room) -> String {
        let hint = room.hint(&self.decided);
        for task in room.stop {
            self.decide(Command::SetDesired { task, desired: Desired::Stopped });
        }
        hint
    }

    fn decide(&mut self, command: Command) -> bool {
        let at = self.decided.time();
        let proposal = Proposal { at, request: None, by: None, commands: vec![command.clone()] };
        let applied = self.decided.apply(self.decided.applied(), &proposal);
        let is_done = matches!(applied.outcomes.as_slice(), [Ok(_)]);
        if is_done {
            self.placement.commands.push(command);
        }
        is_done
    }
}

/// The classes of `pending`, in the order in which they are placed, each with its tasks by age.
fn classes(state: &State, pending: &[TaskId]) -> Vec<(Kind, Vec<TaskId>)> {
    let mut classes: Vec<(Kind, Vec<TaskId>)> = Vec::new();
    for id in pending {
        let Some(Task { version, avoid, .. }) = state.task(*id) else { continue };
        let kind = Kind { service: id.service, version: *version, bound: state.bound_to(*id), avoid: *avoid };
        // Tasks come by service, so that those that are alike are mostly neighbours.
        let of_service = classes.iter_mut().rev().take_while(|(known, _)| known.service == id.service);
        match of_service.into_iter().find(|(known, _)| *known == kind) {
            Some((_, tasks)) => tasks.push(*id),
            None => classes.push((kind, vec![*id])),
        }
    }
    classes.sort_by_key(|(kind, _)| order(state, kind));
    classes
}

/// What is more important comes first, and what seeks or shuns others after those that do not: whoever is sought has to be there,
/// and whoever is shunned may have fewer nodes to choose from.
fn order(state: &State, kind: &Kind) -> (Reverse<Priority>, bool) {
    let template = state.service(kind.service).and_then(|service| service.templates.get(&kind.version));
    let policy = template.map(|template| &template.task.placement);
    let priority = policy.map(|policy| policy.priority).unwrap_or_default();
    (Reverse(priority), policy.is_some_and(|policy| !policy.affinities.is_empty()))
}

/// Why no node is free for `task`; without reasons when one is.
pub fn explain(state: &State, task: TaskId) -> Explanation {
    let Some(version) = state.task(task).map(|task| task.version) else { return Explanation::default() };
    let Some(demand) = state.demand(task, version, &state.shunned()) else { return Explanation::default() };
    let mut why = reasons(state, &demand, None, |id| has_room(state, &demand, id));
    if preempt::may_help(&why)
        && let Some(room) = Rooms::default().make(state, &demand)
    {
        why.hint = Some(room.hint(state));
    }
    why
}

/// Why no node but the one that it is on would take `task`, made anew in `version`; without reasons when one would.
pub fn explain_move(state: &State, task: TaskId, version: SpecVersion) -> Explanation {
    let Some(demand) = state.demand(task, version, &state.shunned()) else { return Explanation::default() };
    let here = state.task(task).and_then(|task| task.placement.as_ref()).map(|placement| placement.node);
    reasons(state, &demand, here, |id| has_room(state, &demand, id))
}

fn has_room(state: &State, demand: &Demand<'_>, id: NodeId) -> Result<(), Unfit> {
    let Some(node) = state.node(id) else { return Err(Unfit::Down) };
    match state.occupied(id) {
        Some(occupancy) => demand.has_room(node, occupancy),
        None => demand.has_room(node, &Occupancy::default()),
    }
}

/// What speaks against each node but one; nothing where one has nothing against it, `fits` included.
fn reasons(
    state: &State,
    demand: &Demand<'_>,
    but: Option<NodeId>,
    fits: impl Fn(NodeId) -> Result<(), Unfit>,
) -> Explanation {
    let mut explanation = Explanation::default();
    for (id, node) in candidates::nodes(state, demand).filter(|(id, _)| Some(*id) != but) {
        match demand.may_ever(id, node).and_then(|()| fits(id)) {
            Ok(()) => return Explanation::default(),
            Err(unfit) => explanation.add(unfit),
        }
    }
    explanation.look_for_slips(state);
    explanation
}
