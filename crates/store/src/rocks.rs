//! The engine of real machines: RocksDB.

use std::error::Error;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Direction, ErrorKind, IteratorMode,
    LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::engine::{Batch, Edit, Engine, EngineError, Pair};

/// A database directory, held exclusively until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct RocksEngine {
    inner: Arc<Inner>,
}

struct Inner {
    db: DB,
    /// Kept for its counters, which it shares with the database.
    options: Options,
    path: PathBuf,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why a database directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is in use by another process; is a gantry daemon already running on it?")]
    Locked { path: PathBuf },
    #[error(
        "{path} is damaged; remove this node from the cluster, clear the directory and join again (it gets a new identity)"
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("cannot create {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open {path}")]
    Failed {
        path: PathBuf,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl RocksEngine {
    /// Opens the database in `path`, creating it where there is none, and locks it.
    ///
    /// A torn record at the end of the write-ahead log is cut: it was never acknowledged. Any other damage that RocksDB
    /// sees is [`OpenError::Damaged`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref().to_owned();
        create_durably(&path).map_err(|source| OpenError::Create { path: path.clone(), source })?;
        let options = options();
        match DB::open(&options, &path) {
            Ok(db) => Ok(Self { inner: Arc::new(Inner { db, options, path }) }),
            // RocksDB has no kind of its own for this; the message names the lock file in both of its forms.
            Err(error) if error.as_ref().contains("/LOCK") => Err(OpenError::Locked { path }),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                Err(OpenError::Damaged { path, source: Box::new(error) })
            }
            Err(error) => Err(OpenError::Failed { path, source: Box::new(error) }),
        }
    }

    /// How often the write-ahead log has been synced since the database was opened. A batch of writes that is
    /// acknowledged without this going up was acknowledged too early.
    pub fn wal_syncs(&self) -> u64 {
        self.inner.options.get_ticker_count(Ticker::WalFileSynced)
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

/// Nobody else may read what a manager knows: the authority's key and the registries' passwords are in its log, and
/// RocksDB makes its files for everybody.
const PRIVATE: u32 = 0o700;

/// A directory whose own entry would survive a power cut, so that a synced database cannot vanish with it.
fn create_durably(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
    // One that was there may have been made by another hand.
    fs::set_permissions(path, Permissions::from_mode(PRIVATE))?;
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(parent)?.sync_all()
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    durability(&mut options);
    footprint(&mut options);
    options.set_compression_type(DBCompressionType::Lz4);
    // Statistics cost a few counters a write; timers and histograms are what is expensive about them.
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options
}

fn durability(options: &mut Options) {
    // The default, point-in-time, silently drops every synced record after a damaged one: for Raft, a forgotten vote.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    // A recycled log file would make the end of the log impossible to tell from old records.
    options.set_recycle_log_file_num(0);
}

/// A manager's working set is small (the state is in memory, the log is read at start and by followers that lag), and
/// the whole daemon has 40 MiB. So: one memtable to write and one to flush, a cache of a few blocks, few files.
fn footprint(options: &mut Options) {
    options.set_write_buffer_size(4 << 20);
    options.set_max_write_buffer_number(2);
    options.set_db_write_buffer_size(8 << 20);
    options.set_arena_block_size(128 << 10);
    options.set_max_total_wal_size(32 << 20);
    options.set_max_open_files(32);
    options.set_table_cache_num_shard_bits(1);
    options.set_max_background_jobs(2);
    options.set_compaction_readahead_size(256 << 10);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(1 << 20));
    options.set_block_based_table_factory(&table);
}

fn failed(action: &'static str) -> impl FnOnce(rocksdb::Error) -> EngineError {
    move |source| EngineError::Failed { action, source: Box::new(source) }
}

impl Engine for RocksEngine {
    fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let mut writes = WriteBatch::default();
        for edit in batch.edits() {
            match edit {
                Edit::Put { key, value } => writes.put(key, value),
                Edit::Delete { key } => writes.delete(key),
                Edit::DeleteRange { from, to } if from < to => writes.delete_range(from, to),
                Edit::DeleteRange { .. } => {}
            }
        }
        self.inner.db.write_opt(writes, &WriteOptions::default()).map_err(failed("write to"))
    }

    fn sync(&self) -> BoxFuture<'static, Result<(), EngineError>> {
        let inner = self.inner.clone();
        Box::pin(async move {
            let synced = tokio::task::spawn_blocking(move || inner.db.flush_wal(true)).await;
            match synced {
                Ok(result) => result.map_err(failed("sync")),
                Err(gone) => Err(EngineError::Failed { action: "sync", source: Box::new(gone) }),
            }
        })
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.inner.db.get(key).map_err(failed("read"))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError> {
        let mut how = ReadOptions::default();
        how.set_iterate_upper_bound(to);
        how.set_verify_checksums(true);
        // Scans read the log and snapshots once, at start: they would only push useful blocks out.
        how.fill_cache(false);
        let found = self.inner.db.iterator_opt(IteratorMode::From(from, Direction::Forward), how);
        let pairs = found.take(limit).map(|pair| pair.map(|(key, value)| (key.into_vec(), value.into_vec())));
        pairs.collect::<Result<_, _>>().map_err(failed("read"))
    }
}
