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
    fn role(&self, node: NodeId) -> Option<Role> {
        match self.state() {
            Some(state) => state.node(node).map(|row| row.role),
            None => self.told.contains_key(&node).then_some(Role::Manager),
        }
    }
}
