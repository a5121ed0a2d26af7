//! Wall time as an argument, so that a simulated cluster has its own.

use std::sync::Arc;

use model::Timestamp;
use state::State;

/// Tells the time of day.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl WallClock {
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Cluster time: this clock's, or what the cluster has reached already if that is later.
    pub fn now(&self, state: &State) -> Timestamp {
        (self.0)().max(state.time())
    }
}

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallClock")
    }
}
