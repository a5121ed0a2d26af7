//! The nodes that may take tasks of one class, best first.
//!
//! Nodes without a task of the service come before all that have one, the emptiest first: in the order in which the state keeps
//! them, so that a class that needs few looks at few. Those that have one are ranked as they get it. Where something beside
//! fullness counts (a service that it would rather be near, or filling one node after the other), all are ranked at the start.
//!
//! Where the class is spread over attributes, there is a tree above the nodes with a level for each. At each level the branch with
//! the fewest tasks of the service comes first. The nodes below it are in queues, which classes that ask the same of a node share:
//! each gives back what it took, so that the next one pays for the nodes that this one used and not for all.
//!
//! Nodes that had better not be used (the task before failed there, or the version keeps failing there) come last.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use model::{Ended, Liveness, Node, NodeId, Strategy};
use state::{Demand, Load, State};

use crate::rank::{self, Rank};

/// So many failed tasks of a version on one node, among those whose rows are kept, and it is avoided.
const KEEPS_FAILING: u32 = 3;

pub(crate) struct Candidates<'a> {
    demand: &'a Demand<'a>,
    groups: &'a mut Groups,
    /// What was taken out of the groups' queues.
    borrowed: Vec<NodeId>,
    /// How far the order of the state has been followed; `None` is to its end.
    followed: Option<Option<(Load, NodeId)>>,
    /// All nodes are ranked.
    is_ranked: bool,
    tree: Branch,
    /// Where the node is in it that came last, unless that was one of the last.
    way: Vec<usize>,
    is_last: bool,
    /// Of each leaf, the nodes that have a task of the service.
    ranked: Vec<BTreeSet<(Rank, NodeId)>>,
    /// Nodes that are ranked from the start, or last of all.
    known: BTreeSet<NodeId>,
    last: BTreeSet<(Rank, NodeId)>,
}

#[derive(Debug)]
enum Branch {
    Leaf(usize),
    Over {
        children: Vec<Branch>,
        /// Those that may have a node yet, by how many tasks of the service they have.
        order: BTreeSet<(u32, usize)>,
    },
}

/// Which nodes have the same values of attributes. The same for all classes that are spread over them and that the same nodes may
/// have.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// The values of each leaf.
    paths: Vec<Vec<Option<String>>>,
    /// In which leaf a node is; all are in the first where nothing is spread.
    leaf: BTreeMap<NodeId, usize>,
    /// The nodes of each leaf that may have a task, the emptiest first. A node that has got fuller since is put right when it is
    /// come to: it stands too far ahead, and never too far back.
    queues: Vec<BTreeSet<(Load, NodeId)>>,
}

impl Groups {
    pub(crate) fn new(state: &State, demand: &Demand<'_>) -> Self {
        let over = demand.spec.placement.spread_over.as_slice();
        if over.is_empty() {
            return Self { paths: vec![Vec::new()], leaf: BTreeMap::new(), queues: Vec::new() };
        }
        let mut known: BTreeMap<Vec<Option<Cow<'_, str>>>, Vec<NodeId>> = BTreeMap::new();
        for (id, node) in state.nodes() {
            let path = over.iter().map(|attribute| attribute.of(id, node)).collect();
            known.entry(path).or_default().push(id);
        }
        let mut groups = Self::default();
        for (at, (path, nodes)) in known.into_iter().enumerate() {
            groups.paths.push(path.into_iter().map(|value| value.map(Cow::into_owned)).collect());
            let may = |id: &NodeId| state.node(*id).is_some_and(|node| demand.may_ever(*id, node).is_ok());
            let queue = nodes.iter().filter(|id| may(id)).map(|id| (state.load(*id), *id));
            groups.queues.push(queue.collect());
            groups.leaf.extend(nodes.into_iter().map(|node| (node, at)));
        }
        groups
    }

    fn leaf_of(&self, node: NodeId) -> usize {
        self.leaf.get(&node).copied().unwrap_or_default()
    }
}

/// The nodes that a demand may ever look at.
pub(crate) fn nodes<'a>(state: &'a State, demand: &Demand<'_>) -> impl Iterator<Item = (NodeId, &'a Node)> {
    let bound = demand.bound;
    let all = bound.is_none().then(|| state.nodes());
    let one = bound.and_then(|bound| state.node(bound).map(|node| (bound, node)));
    all.into_iter().flatten().chain(one)
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(
        state: &State,
        demand: &'a Demand<'a>,
        groups: &'a mut Groups,
        avoid: Option<NodeId>,
    ) -> Self {
        let Tasks { on, failing } = tasks(state, demand);
        let mut counts = vec![0; groups.paths.len()];
        for (node, tasks) in &on {
            counts[groups.leaf_of(*node)] += tasks;
        }
        let levels = demand.spec.placement.spread_over.len();
        let all: Vec<usize> = (0..groups.paths.len()).collect();
        let mut candidates = Self {
            demand,
            borrowed: Vec::new(),
            way: Vec::new(),
            is_last: false,
            followed: Some(None),
            is_ranked: false,
            tree: Branch::new(groups, &counts, &all, 0, levels),
            ranked: vec![BTreeSet::new(); groups.paths.len()],
            groups,
            known: BTreeSet::new(),
            last: BTreeSet::new(),
        };
        for id in avoid.into_iter().chain(failing) {
            candidates.know(state, id, true);
        }
        let is_ranked =
            demand.bound.is_some() || demand.strategy == Strategy::BinPack || demand.has_preferences();
        if is_ranked {
            candidates.is_ranked = true;
            nodes(state, demand).for_each(|(id, _)| candidates.know(state, id, false));
        } else {
            on.into_keys().for_each(|id| candidates.know(state, id, false));
        }
        candidates
    }

    /// Ranks a node, if it may ever take a task.
    fn know(&mut self, state: &State, id: NodeId, is_last: bool) {
        let may = state.node(id).is_some_and(|node| self.demand.may_ever(id, node).is_ok());
        if !self.known.insert(id) || !may {
            return;
        }
        let rank = rank::rank(state, self.demand, id);
        if is_last {
            self.last.insert((rank, id));
        } else {
            self.ranked[self.groups.leaf_of(id)].insert((rank, id));
        }
    }

    /// The best node that is left, which is then for the caller to say what came of.
    pub(crate) fn next(&mut self, state: &State) -> Option<NodeId> {
        let mut tree = std::mem::replace(&mut self.tree, Branch::Leaf(0));
        self.way.clear();
        let mut way = std::mem::take(&mut self.way);
        let found = tree.first(&mut way, &mut |leaf| self.next_in(state, leaf));
        (self.tree, self.way) = (tree, way);
        if found.is_some() {
            return found;
        }
        self.is_last = true;
        self.last.pop_first().map(|(_, id)| id)
    }

    /// The node that came last has the task, and this rank from now on. Any other takes none of the class any more.
    pub(crate) fn has_taken(&mut self, id: NodeId, rank: Rank) {
        if self.is_last {
            self.last.insert((rank, id));
            return;
        }
        let leaf = self.tree.count(&self.way);
        self.ranked[leaf].insert((rank, id));
        if self.groups.queues.is_empty() {
            self.known.insert(id);
        }
    }

    fn next_in(&mut self, state: &State, leaf: usize) -> Option<NodeId> {
        self.next_fresh(state, leaf).or_else(|| self.ranked[leaf].pop_first().map(|(_, id)| id))
    }

    /// The emptiest node of a leaf that has no task of the service.
    fn next_fresh(&mut self, state: &State, leaf: usize) -> Option<NodeId> {
        loop {
            if self.is_ranked {
                return None;
            }
            let id = match self.groups.queues.get_mut(leaf) {
                Some(queue) => {
                    let (load, id) = queue.pop_first()?;
                    let actual = state.load(id);
                    if actual != load {
                        queue.insert((actual, id));
                        continue;
                    }
                    self.borrowed.push(id);
                    id
                }
                None => {
                    let next = state.next_by_load(self.followed?);
                    self.followed = next.map(Some);
                    let (_, id) = next?;
                    if state.node(id).is_none_or(|node| self.demand.may_ever(id, node).is_err()) {
                        continue;
                    }
                    id
                }
            };
            if !self.known.contains(&id) {
                return Some(id);
            }
        }
    }

    /// Gives back what other classes may use.
    pub(crate) fn give_back(self, decided: &State) {
        for id in self.borrowed {
            let leaf = self.groups.leaf_of(id);
            self.groups.queues[leaf].insert((decided.load(id), id));
        }
    }
}

/// What there is of a service.
struct Tasks {
    /// How many of its tasks are on each node that is up.
    on: BTreeMap<NodeId, u32>,
    /// Nodes on which tasks of the version have ended in failure again and again.
    failing: Vec<NodeId>,
}

fn tasks(state: &State, demand: &Demand<'_>) -> Tasks {
    let mut on: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut failures: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (_, task) in state.tasks_of(demand.service) {
        let Some(placement) = &task.placement else { continue };
        if task.version == demand.version && task.ended() == Some(Ended::Failing) {
            *failures.entry(placement.node).or_default() += 1;
        }
        if task.occupies().is_some() {
            on.entry(placement.node).or_default();
        }
    }
    on.retain(|id, count| {
        *count = state.occupied(*id).map_or(0, |occupancy| occupancy.of_service(demand.service));
        *count > 0 && state.node(*id).is_some_and(|node| node.liveness == Liveness::Ready)
    });
    let failing = failures.into_iter().filter(|(_, count)| *count >= KEEPS_FAILING).map(|(id, _)| id);
    Tasks { on, failing: failing.collect() }
}

impl Branch {
    /// Of leaves that agree in the first `level` values.
    fn new(groups: &Groups, counts: &[u32], leaves: &[usize], level: usize, levels: usize) -> Self {
        if level == levels {
            return Self::Leaf(leaves.first().copied().unwrap_or_default());
        }
        let mut by_value: BTreeMap<&Option<String>, Vec<usize>> = BTreeMap::new();
        for leaf in leaves {
            by_value.entry(&groups.paths[*leaf][level]).or_default().push(*leaf);
        }
        let (mut children, mut order) = (Vec::new(), BTreeSet::new());
        for group in by_value.into_values() {
            let tasks = group.iter().map(|leaf| counts[*leaf]).sum();
            order.insert((tasks, children.len()));
            children.push(Self::new(groups, counts, &group, level + 1, levels));
        }
        Self::Over { children, order }
    }

    /// The first node below, and the way to its leaf. Branches that have none any more are left out from now on.
    fn first(
        &mut self,
        way: &mut Vec<usize>,
        look: &mut impl FnMut(usize) -> Option<NodeId>,
    ) -> Option<NodeId> {
        match self {
            Self::Leaf(leaf) => look(*leaf),
            Self::Over { children, order } => {
                while let Some((_, child)) = order.first().copied() {
                    way.push(child);
                    let found = children[child].first(way, look);
                    if found.is_some() {
                        return found;
                    }
                    way.pop();
                    order.pop_first();
                }
                None
            }
        }
    }

    /// One more task at the end of this way, of which the leaf is told.
    fn count(&mut self, way: &[usize]) -> usize {
        match (self, way) {
            (Self::Over { children, order }, [child, rest @ ..]) => {
                if let Some((tasks, child)) = order.pop_first() {
                    order.insert((tasks + 1, child));
                }
                children[*child].count(rest)
            }
            (Self::Leaf(leaf), _) => *leaf,
            (Self::Over { .. }, []) => 0,
        }
    }
}
