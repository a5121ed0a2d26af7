//! openraft's own suite for stores, on both engines.

use std::sync::{Arc, Mutex};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::feed::Feed;
use crate::flush::flusher;
use crate::log::Log;
use crate::machine::Machine;
use crate::memory::MemoryEngine;
use crate::raft::TypeConfig;
use crate::rocks::RocksEngine;
use crate::shelf::Shelf;

type Tasks = Mutex<JoinSet<()>>;

fn build(engine: Arc<dyn Engine>) -> (Tasks, Log, Machine) {
    let (flusher, task) = flusher(engine.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(task.run());
    let log = Log::open(engine.clone(), flusher.clone()).unwrap();
    let machine = Machine::new(Shelf::open(engine, flusher).unwrap(), Feed::new());
    (Mutex::new(tasks), log, machine)
}

struct InMemory;

impl StoreBuilder<TypeConfig, Log, Machine, Tasks> for InMemory {
    async fn build(&self) -> Result<(Tasks, Log, Machine), StorageError<TypeConfig>> {
        Ok(build(Arc::new(MemoryEngine::new())))
    }
}

struct OnRocks;

impl StoreBuilder<TypeConfig, Log, Machine, (TempDir, Tasks)> for OnRocks {
    async fn build(&self) -> Result<((TempDir, Tasks), Log, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (tasks, log, machine) = build(Arc::new(RocksEngine::open(dir.path()).unwrap()));
        Ok(((dir, tasks), log, machine))
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_engine_passes_openrafts_suite() {
    Suite::test_all(InMemory).await.unwrap();
}

#[tokio::test]
async fn rocksdb_passes_openrafts_suite() {
    Suite::test_all(OnRocks).await.unwrap();
}
