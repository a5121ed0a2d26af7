//! Snapshots on disk: one that counts, and for a while the one that replaces it.
//!
//! The records of a new snapshot are written under a generation of their own. The one record that names the generation
//! is written last; it makes the snapshot count, atomically, and only when that is durable are the older records
//! deleted and, by openraft, the log behind them.

use std::io;
use std::sync::Arc;

use state::State;

use crate::convert::{from_meta, to_meta};
use crate::engine::{Batch, Engine};
use crate::flush::Flusher;
use crate::message;
use crate::raft::{Snapshot, SnapshotMeta};
use crate::record::{self, Damage, snapshot_key};

/// Records written in one batch.
const BATCH_BYTES: usize = 256 << 10;
/// Records read in one go.
const PAGE: usize = 64;

/// Keeps the latest snapshot: on disk, and in memory, where it shares all that has not changed with the live state.
pub(crate) struct Shelf {
    engine: Arc<dyn Engine>,
    flusher: Flusher,
    generation: u64,
    current: Option<Snapshot>,
}

impl Shelf {
    /// Loads the stored snapshot, and clears away what is left of one that was never finished.
    pub(crate) fn open(engine: Arc<dyn Engine>, flusher: Flusher) -> Result<Self, Damage> {
        let (generation, current) = match record::get::<message::StoredSnapshot>(&*engine, record::SNAPSHOT)?
        {
            None => (0, None),
            Some(stored) => {
                let generation = stored.generation;
                (generation, Some(load(&*engine, stored)?))
            }
        };
        let mut batch = Batch::new();
        batch.delete_range(snapshot_key(0, 0), snapshot_key(generation, 0));
        batch.delete_range(snapshot_key(generation + 1, 0), record::SNAPSHOT);
        engine.write(batch)?;
        Ok(Self { engine, flusher, generation, current })
    }

    pub(crate) fn current(&self) -> Option<Snapshot> {
        self.current.clone()
    }

    /// Stores a snapshot durably in place of the one before it. One that is no newer changes nothing.
    pub(crate) async fn put(&mut self, meta: &SnapshotMeta, state: &State) -> io::Result<()> {
        if self.current.as_ref().is_some_and(|current| current.meta.last_log_id >= meta.last_log_id) {
            return Ok(());
        }
        let generation = self.generation + 1;
        let records = self.write_records(generation, state).await?;
        let mut batch = Batch::new();
        let stored = message::StoredSnapshot { meta: Some(from_meta(meta)), generation, records };
        record::put(&mut batch, record::SNAPSHOT, &stored);
        self.engine.write(batch).map_err(io::Error::other)?;
        self.flusher.flushed().await?;
        self.generation = generation;
        self.current = Some(Snapshot { meta: meta.clone(), snapshot: state.clone() });
        let mut batch = Batch::new();
        batch.delete_range(snapshot_key(0, 0), snapshot_key(generation, 0));
        self.engine.write(batch).map_err(io::Error::other)
    }

    async fn write_records(&self, generation: u64, state: &State) -> io::Result<u64> {
        let (mut count, mut bytes) = (0, 0);
        let mut batch = Batch::new();
        for body in wire::snapshot::records(state) {
            let key = snapshot_key(generation, count);
            let value = record::seal(&key, &body);
            bytes += value.len();
            batch.put(key, value);
            count += 1;
            if bytes >= BATCH_BYTES {
                self.engine.write(std::mem::take(&mut batch)).map_err(io::Error::other)?;
                bytes = 0;
                // Heartbeats go out from the same threads.
                tokio::task::yield_now().await;
            }
        }
        self.engine.write(batch).map_err(io::Error::other)?;
        Ok(count)
    }
}

fn load(engine: &dyn Engine, stored: message::StoredSnapshot) -> Result<Snapshot, Damage> {
    let message::StoredSnapshot { meta, generation, records } = stored;
    let meta = to_meta(meta).map_err(|reason| record::unreadable(record::SNAPSHOT, reason))?;
    let mut loader = wire::snapshot::Loader::new();
    let mut found = 0;
    while found < records {
        let (from, to) = (snapshot_key(generation, found), snapshot_key(generation, records));
        let page = engine.scan(&from, &to, PAGE)?;
        if page.is_empty() {
            break;
        }
        for (key, value) in page {
            if key != snapshot_key(generation, found) {
                return Err(Damage::CutSnapshot { found, expected: records });
            }
            let body = record::unseal(&key, value)?;
            loader.push(&body).map_err(|reason| malformed(&key, reason))?;
            found += 1;
        }
    }
    if found < records {
        return Err(Damage::CutSnapshot { found, expected: records });
    }
    let state = loader.finish().map_err(|reason| malformed(record::SNAPSHOT, reason))?;
    Ok(Snapshot { meta, snapshot: state })
}

fn malformed(key: &[u8], reason: wire::Invalid) -> Damage {
    record::unreadable(key, crate::convert::Malformed::Record(reason))
}
