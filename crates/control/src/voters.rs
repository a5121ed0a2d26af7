//! Managers that were admitted become voters, one at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Liveness, NodeId, Role};
use state::State;
use store::Store;

/// How long to wait before a manager that could not be added is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs for as long as this manager leads; the caller ends it by dropping it.
pub(crate) async fn run(store: Store) {
    let mut watch = store.watch();
    loop {
        match next(&store.state(), &store.voters()) {
            None => drop(watch.next().await),
            Some(node) => match store.add_voter(node).await {
                Ok(()) => tracing::info!(%node, "votes"),
                Err(error) => {
                    tracing::debug!(%node, %error, "could not be made a voter; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// The next manager to add, of those that have a session here. One that was admitted and never started, or is down, would
/// only keep the others waiting.
fn next(state: &State, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
    let managers = state.nodes().filter(|(_, node)| node.role == Role::Manager);
    let reachable = managers.filter(|(_, node)| node.liveness == Liveness::Ready);
    reachable.map(|(id, _)| id).find(|id| !voters.contains(id))
}
