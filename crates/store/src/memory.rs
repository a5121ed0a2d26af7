//! The engine of simulated machines: a disk in memory that keeps what was synced, and loses the rest when it crashes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::engine::{Batch, Edit, Engine, EngineError, Pair};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A handle on a disk, valid until the machine crashes. Clones share the disk.
#[derive(Clone)]
pub struct MemoryEngine {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
    sync_time: Duration,
}

#[derive(Default)]
struct Disk {
    /// Counts crashes. A handle from before the last one is dead.
    boot: u64,
    durable: Contents,
    /// Written and not yet synced, oldest first.
    unsynced: VecDeque<Batch>,
    /// What reads see: `durable` with `unsynced` applied.
    visible: Contents,
    /// Batches written since the last crash, and how many of those are durable.
    written: u64,
    synced: u64,
    syncs: u64,
}

impl MemoryEngine {
    /// An empty disk whose fsync takes no time.
    pub fn new() -> Self {
        Self::with_sync_time(Duration::ZERO)
    }

    /// An empty disk whose fsync takes `sync_time` of the tokio clock, which is what gives a crash something to lose.
    pub fn with_sync_time(sync_time: Duration) -> Self {
        Self { disk: Arc::default(), boot: 0, sync_time }
    }

    /// Cuts the power: all that was not synced is lost but the first batches of it, as many as `keep` says when given
    /// their number. `|n| n` is a killed process (the page cache lives on), `|_| 0` the worst power cut. Every handle
    /// fails with [`EngineError::Crashed`] from here on; [`MemoryEngine::reopen`] gives a new one.
    pub fn crash(&self, keep: impl FnOnce(usize) -> usize) {
        let mut disk = self.lock();
        let kept = keep(disk.unsynced.len()).min(disk.unsynced.len());
        for _ in 0..kept {
            disk.persist_oldest();
        }
        disk.unsynced.clear();
        disk.visible = disk.durable.clone();
        (disk.written, disk.synced) = (0, 0);
        disk.boot += 1;
    }

    /// A handle on the same disk as it is now.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let boot = self.lock().boot;
        Self { disk: self.disk.clone(), boot, sync_time: self.sync_time }
    }

    /// How many fsyncs have completed on this disk, ever.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many batches a power cut would put at risk now.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no code panics while it holds the disk")
    }

    fn live(&self) -> Result<MutexGuard<'_, Disk>, EngineError> {
        let disk = self.lock();
        if disk.boot == self.boot { Ok(disk) } else { Err(EngineError::Crashed) }
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Disk {
    fn persist_oldest(&mut self) {
        if let Some(batch) = self.unsynced.pop_front() {
            edit(&mut self.durable, &batch);
            self.synced += 1;
        }
    }
}

fn edit(contents: &mut Contents, batch: &Batch) {
    for edit in batch.edits() {
        match edit {
            Edit::Put { key, value } => {
                contents.insert(key.clone(), value.clone());
            }
            Edit::Delete { key } => {
                contents.remove(key);
            }
            Edit::DeleteRange { from, to } if from < to => {
                let doomed: Vec<_> =
                    contents.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    contents.remove(&key);
                }
            }
            Edit::DeleteRange { .. } => {}
        }
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let mut disk = self.live()?;
        edit(&mut disk.visible, &batch);
        disk.unsynced.push_back(batch);
        disk.written += 1;
        Ok(())
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), EngineError>> {
        let engine = self.clone();
        let upto = self.live().map(|disk| disk.written);
        Box::pin(async move {
            let upto = upto?;
            if !engine.sync_time.is_zero() {
                tokio::time::sleep(engine.sync_time).await;
            }
            let mut disk = engine.live()?;
            while disk.synced < upto {
                disk.persist_oldest();
            }
            disk.syncs += 1;
            Ok(())
        })
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.live()?.visible.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError> {
        let disk = self.live()?;
        if from >= to {
            return Ok(Vec::new());
        }
        let range = disk.visible.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        Ok(range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &MemoryEngine, key: &str) {
        let mut batch = Batch::new();
        batch.put(key, b"x".to_vec());
        engine.write(batch).unwrap();
    }

    fn keys(engine: &MemoryEngine) -> String {
        let pairs = engine.scan(b"", b"~", 100).unwrap();
        pairs.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn a_power_cut_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let engine = MemoryEngine::new();
        put(&engine, "a");
        engine.sync().await.unwrap();
        put(&engine, "b");
        put(&engine, "c");
        assert_eq!(keys(&engine), "a b c");
        engine.crash(|unsynced| unsynced - 1);
        assert_eq!(keys(&engine.reopen()), "a b");
    }

    #[tokio::test]
    async fn a_handle_from_before_the_crash_is_dead() {
        let engine = MemoryEngine::new();
        put(&engine, "a");
        let sync = engine.sync();
        engine.crash(|_| 0);
        assert!(matches!(sync.await, Err(EngineError::Crashed)));
        assert!(matches!(engine.write(Batch::new()), Err(EngineError::Crashed)));
        assert!(matches!(engine.read(b"a"), Err(EngineError::Crashed)));
        assert_eq!(keys(&engine.reopen()), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_covers_what_was_written_before_it_began() {
        let engine = MemoryEngine::with_sync_time(Duration::from_millis(5));
        put(&engine, "a");
        let sync = engine.sync();
        put(&engine, "b");
        sync.await.unwrap();
        assert_eq!(engine.unsynced(), 1);
        engine.crash(|_| 0);
        assert_eq!(keys(&engine.reopen()), "a");
    }

    #[tokio::test]
    async fn a_deleted_range_ends_before_its_upper_bound() {
        let engine = MemoryEngine::new();
        for key in ["a", "b", "c", "d"] {
            put(&engine, key);
        }
        let mut batch = Batch::new();
        batch.delete_range("b", "d");
        batch.delete_range("z", "a");
        engine.write(batch).unwrap();
        assert_eq!(keys(&engine), "a d");
    }
}
