use expect_test::{Expect, expect};
use model::{RequestId, Timestamp};
use openraft::storage::RaftLogStorageExt;
use state::Proposal;
use tokio::task::JoinSet;

use super::*;
use crate::flush::flusher;
use crate::memory::MemoryEngine;
use crate::raft::{LeaderId, Submission};

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id: 1 }, index }
}

fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: id(term, index), payload: Payload::Blank }
}

fn proposal(index: u64) -> Entry {
    let proposal = Proposal {
        at: Timestamp(1),
        request: Some(RequestId(u128::from(index))),
        by: None,
        commands: Vec::new(),
    };
    Entry { log_id: id(1, index), payload: Payload::Normal(Submission::new(proposal)) }
}

/// A log and the task that syncs it.
struct Opened {
    log: Log,
    _tasks: JoinSet<()>,
}

fn open(engine: &MemoryEngine) -> Result<Opened, Damage> {
    let engine: Arc<dyn Engine> = Arc::new(engine.clone());
    let (flusher, task) = flusher(engine.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(task.run());
    Ok(Opened { log: Log::open(engine, flusher)?, _tasks: tasks })
}

/// A log of `0..count`, all of it durable.
async fn filled(engine: &MemoryEngine, count: u64) -> Opened {
    let mut opened = open(engine).unwrap();
    opened.log.blocking_append((0..count).map(|index| blank(1, index))).await.unwrap();
    opened
}

fn shown(opened: &mut Opened) -> String {
    let entries = opened.log.read(&..).unwrap();
    entries
        .iter()
        .map(|entry| format!("{}.{}", entry.log_id.leader_id.term, entry.log_id.index))
        .collect::<Vec<_>>()
        .join(" ")
}

fn refused(engine: &MemoryEngine, expected: Expect) {
    let Err(damage) = open(engine) else { panic!("the damaged log was opened") };
    expected.assert_eq(&damage.to_string());
}

fn write(engine: &MemoryEngine, edit: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    edit(&mut batch);
    engine.write(batch).unwrap();
}

#[tokio::test]
async fn a_power_cut_loses_only_what_was_not_acknowledged() {
    let engine = MemoryEngine::new();
    let mut opened = filled(&engine, 3).await;
    for index in 3..6 {
        opened.log.append([blank(1, index)], IOFlushed::noop()).await.unwrap();
    }
    engine.crash(|unsynced| unsynced - 2);
    assert_eq!(shown(&mut open(&engine.reopen()).unwrap()), "1.0 1.1 1.2 1.3");
}

#[tokio::test]
async fn a_vote_is_durable_when_it_is_saved() {
    let engine = MemoryEngine::new();
    let mut opened = open(&engine).unwrap();
    let vote = Vote::new(7, 2);
    opened.log.save_vote(&vote).await.unwrap();
    engine.crash(|_| 0);
    assert_eq!(open(&engine.reopen()).unwrap().log.read_vote().await.unwrap(), Some(vote));
}

#[tokio::test]
async fn what_replaces_a_truncated_tail_is_read_back() {
    let engine = MemoryEngine::new();
    let mut opened = filled(&engine, 6).await;
    opened.log.truncate_after(Some(id(1, 2))).await.unwrap();
    opened.log.blocking_append([blank(2, 3), blank(2, 4)]).await.unwrap();
    assert_eq!(shown(&mut opened), "1.0 1.1 1.2 2.3 2.4");
    engine.crash(|_| 0);
    assert_eq!(shown(&mut open(&engine.reopen()).unwrap()), "1.0 1.1 1.2 2.3 2.4");
}

#[tokio::test]
async fn a_purge_beyond_the_end_leaves_an_empty_log_that_goes_on_there() {
    let engine = MemoryEngine::new();
    let mut opened = filled(&engine, 3).await;
    opened.log.purge(id(4, 9)).await.unwrap();
    opened.log.blocking_append([blank(4, 10)]).await.unwrap();
    let mut opened = open(&engine.reopen()).unwrap();
    assert_eq!(shown(&mut opened), "4.10");
    assert_eq!(opened.log.purged(), Some(9));
}

#[tokio::test]
async fn an_append_that_would_leave_a_hole_is_refused() {
    let engine = MemoryEngine::new();
    let mut opened = filled(&engine, 3).await;
    let error = opened.log.append([blank(1, 4)], IOFlushed::noop()).await.unwrap_err();
    assert_eq!(error.to_string(), "entry 4 does not follow entry 2");
}

#[tokio::test]
async fn what_no_longer_fits_in_memory_is_read_from_the_engine() {
    let engine = MemoryEngine::new();
    let mut opened = open(&engine).unwrap();
    let count = (TAIL_BYTES / 64) as u64 + 1_000;
    opened.log.blocking_append((0..count).map(proposal)).await.unwrap();
    assert!(opened.log.ledger().tail.len() < count as usize);
    let indices: Vec<u64> = opened.log.read(&..).unwrap().iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indices, (0..count).collect::<Vec<_>>());
    let streamed: Vec<u64> = {
        let stream = opened.log.entries_stream(5..count).await;
        stream.map(|entry| entry.unwrap().log_id.index).collect().await
    };
    assert_eq!(streamed, (5..count).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_holds_at_least_one_entry_and_not_too_many() {
    let engine = MemoryEngine::new();
    let mut opened = open(&engine).unwrap();
    let count = (MESSAGE_BYTES / 64) as u64 * 2;
    opened.log.blocking_append((0..count).map(|index| blank(1, index))).await.unwrap();
    let sent = opened.log.limited_get_log_entries(0, count).await.unwrap();
    assert_eq!(sent.len(), MESSAGE_BYTES / 64);
    assert_eq!(opened.log.limited_get_log_entries(7, 8).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_flipped_bit_in_an_entry_refuses_to_start() {
    let engine = MemoryEngine::new();
    drop(filled(&engine, 5).await);
    let mut value = engine.read(&entry_key(2)).unwrap().unwrap();
    *value.last_mut().unwrap() ^= 1;
    write(&engine, |batch| batch.put(entry_key(2), value));
    refused(&engine, expect!["the record l 2 does not match its checksum"]);
}

#[tokio::test]
async fn a_hole_refuses_to_start() {
    let engine = MemoryEngine::new();
    drop(filled(&engine, 5).await);
    write(&engine, |batch| batch.delete(entry_key(2)));
    refused(&engine, expect!["log entry 2 is missing"]);
}

#[tokio::test]
async fn a_lost_beginning_refuses_to_start() {
    let engine = MemoryEngine::new();
    drop(filled(&engine, 5).await);
    write(&engine, |batch| batch.delete(entry_key(0)));
    refused(&engine, expect!["log entry 0 is missing"]);
}

#[tokio::test]
async fn a_committed_entry_that_is_gone_refuses_to_start() {
    let engine = MemoryEngine::new();
    let mut opened = filled(&engine, 5).await;
    opened.log.save_committed(Some(id(1, 4))).await.unwrap();
    write(&engine, |batch| batch.delete(entry_key(4)));
    refused(&engine, expect!["log entry 4 is missing"]);
}
