//! RocksDB on a real disk: what it holds when it is opened again, and what it says when it cannot be.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use model::{ClusterId, NodeId, RequestId, Timestamp};
use state::Proposal;
use store::rocks::{OpenError, RocksEngine};
use store::{Batch, Config, Engine, RaftRequest, Store, Transport, TransportError};
use tokio::time::{Instant, sleep};

/// The transport of a manager that has no others.
struct Alone;

fn nobody(node: NodeId) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
    async move { Err(TransportError::Unreachable { node, source: "there is nobody else".into() }) }.boxed()
}

impl Transport for Alone {
    fn call(
        &self,
        target: NodeId,
        _request: RaftRequest,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        nobody(target)
    }

    fn snapshot(
        &self,
        target: NodeId,
        _header: Vec<u8>,
        _records: BoxStream<'static, Vec<u8>>,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        nobody(target)
    }
}

async fn start(engine: RocksEngine) -> Store {
    let config = Config { snapshot_after: 20, ..Config::new(NodeId(1), ClusterId(7), 1) };
    Store::start(config, engine, Alone).await.unwrap()
}

/// Opens a database whose former owner is still letting go of it.
async fn reopen(path: &Path) -> RocksEngine {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match RocksEngine::open(path) {
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => {
                sleep(Duration::from_millis(10)).await
            }
            opened => return opened.unwrap(),
        }
    }
}

fn mark(number: u64) -> Proposal {
    Proposal {
        at: Timestamp(1),
        request: Some(RequestId(u128::from(number))),
        by: None,
        commands: Vec::new(),
    }
}

fn put(engine: &RocksEngine, key: &str) {
    let mut batch = Batch::new();
    batch.put(key, vec![b'x'; 100]);
    engine.write(batch).unwrap();
}

fn keys(engine: &RocksEngine) -> String {
    let pairs = engine.scan(b"", b"~", 100).unwrap();
    pairs.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>().join(" ")
}

/// The write-ahead log that is being written.
fn newest_wal(path: &Path) -> PathBuf {
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .max()
        .expect("there is a log")
}

#[tokio::test]
async fn every_acknowledged_proposal_was_synced_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    let store = start(engine.clone()).await;
    store.initialize().await.unwrap();
    for number in 0..50 {
        let before = engine.wal_syncs();
        store.propose(mark(number)).await.unwrap();
        assert!(engine.wal_syncs() > before, "proposal {number} was acknowledged without a sync");
    }
    store.shutdown().await;
    drop((store, engine));

    let store = start(reopen(dir.path()).await).await;
    let mut leadership = store.leadership();
    leadership.wait_for(|now| now.is_leader()).await.unwrap();
    let state = store.linearize().await.unwrap();
    let lost: Vec<u64> =
        (0..50).filter(|number| state.recorded(RequestId(u128::from(*number))).is_none()).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are gone");
    assert!(store.health().snapshot.is_some(), "{:?}", store.health());
    store.shutdown().await;
}

#[tokio::test]
async fn nobody_else_reads_what_a_manager_knows() {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    fs::create_dir(&old).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    for path in [new, old] {
        let _engine = RocksEngine::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
}

#[tokio::test]
async fn a_second_process_on_the_same_directory_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = RocksEngine::open(dir.path()).unwrap();
    let error = RocksEngine::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
}

#[tokio::test]
async fn a_torn_record_at_the_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    for key in ["a", "b", "c"] {
        put(&engine, key);
    }
    drop(engine);
    let wal = newest_wal(dir.path());
    let torn = fs::metadata(&wal).unwrap().len() - 3;
    fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(torn).unwrap();
    assert_eq!(keys(&RocksEngine::open(dir.path()).unwrap()), "a b");
}

#[tokio::test]
async fn damage_before_the_end_refuses_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    for key in ["a", "b", "c"] {
        put(&engine, key);
    }
    drop(engine);
    let wal = newest_wal(dir.path());
    let mut bytes = fs::read(&wal).unwrap();
    bytes[60] ^= 1;
    fs::write(&wal, bytes).unwrap();
    let error = RocksEngine::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_range_is_deleted_up_to_its_upper_bound_and_scans_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(dir.path()).unwrap();
    for key in ["a", "b", "c", "d"] {
        put(&engine, key);
    }
    let mut batch = Batch::new();
    batch.delete_range("b", "d");
    batch.delete_range("z", "a");
    engine.write(batch).unwrap();
    assert_eq!(keys(&engine), "a d");
    assert_eq!(engine.scan(b"a", b"d", 10).unwrap().len(), 1);
    assert_eq!(engine.scan(b"a", b"z", 1).unwrap().len(), 1);
    assert_eq!(engine.read(b"b").unwrap(), None);
    engine.sync().await.unwrap();
}
