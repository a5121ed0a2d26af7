//! Who belongs to the cluster and where its nodes are reached: from the replicated state, and before there is any here,
//! from what this node was told when it joined.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use identity::Membership;
use model::{NodeId, Role};
use state::State;
use store::Store;

/// A cheap handle. A manager's Raft needs it before its state is there, and its state comes through Raft.
#[derive(Clone, Debug)]
pub struct Members {
    told: Arc<BTreeMap<NodeId, SocketAddr>>,
    store: Arc<OnceLock<Store>>,
}

impl Members {
    /// `told` are the managers that were there when this node joined.
    pub fn new(told: BTreeMap<NodeId, SocketAddr>) -> Self {
        Self { told: Arc::new(told), store: Arc::default() }
    }

    /// From now on, `store` has the word.
    pub fn follow(&self, store: &Store) {
        let _ = self.store.set(store.clone());
    }

    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        match self.state() {
            Some(state) => state.node(node).map(|row| row.address),
            None => self.told.get(&node).copied(),
        }
    }

    /// The state, once there is a cluster in it.
    fn state(&self) -> Option<State> {
        self.store.get().map(Store::state).filter(|state| state.cluster().is_some())
    }
}

impl Membership for Members {
    fn role(&self, node: NodeId, certified: Option<Role>) -> Option<Role> {
        match self.state() {
            Some(state) => in_state(&state, node, certified),
            None => as_told(&self.told, node, certified),
        }
    }
}

/// A node whose id this state has not given out yet was admitted later, and is what the authority says that it was
/// admitted as. Otherwise a manager that was away would refuse the leader that was elected meanwhile, and so never learn
/// of it. An id without a row that was given out was taken away.
fn in_state(state: &State, node: NodeId, certified: Option<Role>) -> Option<Role> {
    match state.node(node) {
        Some(row) => Some(row.role),
        None => certified.filter(|_| !state.has_admitted(node)),
    }
}

/// The same before there is any state. Ids up to the highest that was told had been given out by then, and all managers of
/// that time were told, so the others with such ids are none. Whoever founded the cluster was told of nobody, and
/// everybody came later.
fn as_told(told: &BTreeMap<NodeId, SocketAddr>, node: NodeId, certified: Option<Role>) -> Option<Role> {
    let last = told.last_key_value().map(|(last, _)| *last);
    match told.get(&node) {
        Some(_) => Some(Role::Manager),
        None => certified.filter(|_| Some(node) > last),
    }
}

#[cfg(test)]
mod tests {
    use state::Row;

    use super::*;
    use crate::fixture::World;

    const MANAGER: Option<Role> = Some(Role::Manager);
    const WORKER: Option<Role> = Some(Role::Worker);

    #[test]
    fn a_manager_that_was_away_hears_one_that_was_admitted_meanwhile() {
        let state = World::of("nodes n1 n2 n3").state;
        assert_eq!(in_state(&state, NodeId(4), MANAGER), MANAGER);
        assert_eq!(in_state(&state, NodeId(4), WORKER), WORKER);
        assert_eq!(in_state(&state, NodeId(4), None), None, "its certificate does not say what it is");
    }

    #[test]
    fn a_certificate_counts_for_nothing_where_the_state_has_the_word() {
        let state = World::of("nodes n1 n2 n3").state;
        assert_eq!(in_state(&state, NodeId(2), WORKER), MANAGER);
        assert_eq!(in_state(&state, NodeId(2), None), MANAGER);
        // No command removes a node yet, so the rows of a real state are changed.
        let left = state.rows().into_iter().filter(|row| !matches!(row, Row::Node(NodeId(2 | 3), _)));
        let state = State::from_rows(left);
        for removed in [NodeId(0), NodeId(2), NodeId(3)] {
            assert_eq!(in_state(&state, removed, MANAGER), None, "{removed}");
        }
    }

    #[test]
    fn before_there_is_a_state_the_word_is_of_those_who_were_there() {
        let told = BTreeMap::from([1, 3].map(|id| (NodeId(id), SocketAddr::from(([192, 0, 2, 1], 7)))));
        let members = Members::new(told);
        assert_eq!(members.role(NodeId(1), None), MANAGER);
        assert_eq!(members.role(NodeId(2), MANAGER), None, "it was no manager then");
        assert_eq!(members.role(NodeId(4), MANAGER), MANAGER, "it was admitted later");
        assert_eq!(members.role(NodeId(4), None), None);
    }
}
