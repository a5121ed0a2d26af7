//! A manager's disk: the store's memory engine, and an fsync that can be made to hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use store::memory::MemoryEngine;
use store::{Batch, Engine, EngineError, Pair};

/// A handle on a disk, dead after the machine's or the daemon's crash.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    engine: MemoryEngine,
    /// By how many milliseconds each fsync is late.
    stall: Arc<AtomicU64>,
}

impl Disk {
    /// An empty disk whose fsync takes `sync_time`.
    pub(crate) fn new(sync_time: Duration) -> Self {
        Self { engine: MemoryEngine::with_sync_time(sync_time), stall: Arc::default() }
    }

    pub(crate) fn stall(&self, by: Duration) {
        self.stall.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Loses what was not synced but the first batches of it; `keep` is given their number.
    pub(crate) fn crash(&self, keep: impl FnOnce(usize) -> usize) {
        self.engine.crash(keep);
    }

    /// A handle on the same disk for the next daemon.
    pub(crate) fn reopen(&self) -> Self {
        Self { engine: self.engine.reopen(), stall: self.stall.clone() }
    }
}

impl Engine for Disk {
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        self.engine.write(batch)
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), EngineError>> {
        // Asked for first: it covers what was written before this call, however long it takes.
        let synced = self.engine.sync();
        let stall = self.stall.clone();
        Box::pin(async move {
            let late = stall.load(Ordering::Relaxed);
            if late > 0 {
                tokio::time::sleep(Duration::from_millis(late)).await;
            }
            synced.await
        })
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.engine.read(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError> {
        self.engine.scan(from, to, limit)
    }
}
