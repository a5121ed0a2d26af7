//! The Raft log and the vote, in the engine.
//!
//! Every change is written at once, in the order in which openraft makes it, and becomes durable with the next fsync.
//! Since the engine loses only a suffix of what was written, what is on disk is always what was there at some moment:
//! no entry without those before it, no committed mark ahead of its entry, no truncation undone after its successor
//! was acknowledged.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream::{self, Stream, StreamExt};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use crate::convert::{from_entry, from_log_id, from_vote, to_entry, to_log_id, to_vote};
use crate::engine::{Batch, Engine};
use crate::flush::Flusher;
use crate::message;
use crate::raft::{Entry, LogId, Payload, TypeConfig, Vote};
use crate::record::{self, Damage, LOG_END, entry_key};

/// How much of the log's end is kept decoded: what is being replicated and applied is read here, and only what a
/// follower that lags asks for is read from the engine.
const TAIL_BYTES: usize = 2 << 20;
/// What one message to a follower holds at most, unless one entry is larger: a message has a deadline.
const MESSAGE_BYTES: usize = 1 << 20;
/// Entries read from the engine in one go.
const PAGE: u64 = 256;

/// The log: storage for openraft's core, and reader for its replication tasks. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    flusher: Flusher,
    ledger: Mutex<Ledger>,
}

/// What the engine holds, known without asking it.
#[derive(Default)]
struct Ledger {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The index of the first entry that is there, or that will be.
    first: u64,
    /// The entries up to `last`, as many as fit.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
}

impl Ledger {
    /// The index after the last entry.
    fn end(&self) -> u64 {
        self.last.map_or(self.first, |last| last.index + 1)
    }

    /// The part of `range` that is in the log.
    fn clip(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let start = start.max(self.first);
        start..end.min(self.end()).max(start)
    }

    fn push(&mut self, entry: Entry) {
        self.last = Some(entry.log_id);
        self.tail_bytes += size(&entry);
        self.tail.push_back(entry);
        while self.tail_bytes > TAIL_BYTES && self.tail.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= size(&entry);
        }
    }

    fn truncate(&mut self, end: u64, last: Option<LogId>) {
        while self.tail.back().is_some_and(|entry| entry.log_id.index >= end) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= size(&entry);
            }
        }
        self.last = last;
    }

    fn purge(&mut self, upto: LogId) {
        while self.tail.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.drop_oldest();
        }
        self.purged = Some(upto);
        self.first = upto.index + 1;
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
    }
}

/// About what an entry takes in memory and on the wire.
fn size(entry: &Entry) -> usize {
    // For the log id and the fields around it.
    const FRAME: usize = 64;
    match &entry.payload {
        Payload::Blank | Payload::Membership(_) => FRAME,
        Payload::Normal(submission) => FRAME + submission.encoded.len(),
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = self.ledger();
        f.debug_struct("Log")
            .field("purged", &ledger.purged)
            .field("last", &ledger.last)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Reads the whole log and checks that every entry is whole and that none is missing.
    pub(crate) fn open(engine: Arc<dyn Engine>, flusher: Flusher) -> Result<Self, Damage> {
        let mut ledger = Ledger {
            vote: vote(&*engine)?,
            committed: log_id(&*engine, record::COMMITTED)?,
            purged: log_id(&*engine, record::PURGED)?,
            ..Ledger::default()
        };
        ledger.last = ledger.purged;
        ledger.first = ledger.purged.map_or(0, |purged| purged.index + 1);
        // What is left of purged entries when the purge itself was interrupted does not exist: batches are atomic.
        let mut next = ledger.first;
        let mut from = entry_key(0);
        loop {
            let page = engine.scan(&from, LOG_END, PAGE as usize)?;
            let Some((last, _)) = page.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            for (key, value) in page {
                if key != entry_key(next) {
                    return Err(Damage::MissingEntry { index: next });
                }
                ledger.push(read_entry(next, value)?);
                next += 1;
            }
        }
        // Marks are written after what they mark, so the entry behind one can be missing only if it was lost.
        if let Some(committed) = ledger.committed.filter(|committed| committed.index >= next) {
            return Err(Damage::MissingEntry { index: committed.index });
        }
        Ok(Self { shared: Arc::new(Shared { engine, flusher, ledger: Mutex::new(ledger) }) })
    }

    pub(crate) fn purged(&self) -> Option<u64> {
        self.ledger().purged.map(|purged| purged.index)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().expect("no code panics while it holds the ledger")
    }

    /// The entries of `range` that are in the log.
    fn read(&self, range: &impl RangeBounds<u64>) -> io::Result<Vec<Entry>> {
        // Held throughout, so that what is read is the log of one moment: a purge or a truncation in between would look
        // like a hole.
        let ledger = self.ledger();
        let range = ledger.clip(range);
        let cached = ledger.tail.front().map_or(range.end, |entry| entry.log_id.index);
        let mut entries = self.read_engine(range.start..range.end.min(cached)).map_err(io::Error::other)?;
        let wanted = ledger.tail.iter().skip_while(|entry| entry.log_id.index < range.start);
        entries.extend(wanted.take_while(|entry| entry.log_id.index < range.end).cloned());
        Ok(entries)
    }

    fn read_engine(&self, range: Range<u64>) -> Result<Vec<Entry>, Damage> {
        let mut entries = Vec::new();
        let mut next = range.start;
        while next < range.end {
            let count = (range.end - next).min(PAGE);
            let page = self.shared.engine.scan(&entry_key(next), &entry_key(next + count), PAGE as usize)?;
            if page.is_empty() {
                return Err(Damage::MissingEntry { index: next });
            }
            for (key, value) in page {
                if key != entry_key(next) {
                    return Err(Damage::MissingEntry { index: next });
                }
                entries.push(read_entry(next, value)?);
                next += 1;
            }
        }
        Ok(entries)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.shared.engine.write(batch).map_err(io::Error::other)
    }
}

fn vote(engine: &dyn Engine) -> Result<Option<Vote>, Damage> {
    let found: Option<message::Vote> = record::get(engine, record::VOTE)?;
    found
        .map(|vote| to_vote(Some(vote)).map_err(|reason| record::unreadable(record::VOTE, reason)))
        .transpose()
}

fn log_id(engine: &dyn Engine, key: &[u8]) -> Result<Option<LogId>, Damage> {
    Ok(record::get(engine, key)?.map(to_log_id))
}

fn read_entry(index: u64, value: Vec<u8>) -> Result<Entry, Damage> {
    let key = entry_key(index);
    let entry = to_entry(record::parse(&key, value)?).map_err(|reason| record::unreadable(&key, reason))?;
    if entry.log_id.index == index { Ok(entry) } else { Err(Damage::MisplacedEntry { index }) }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(&range)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.ledger().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries = self.read(&(start..end))?;
        let mut bytes = 0;
        let fits = entries.iter().take_while(|entry| {
            bytes += size(entry);
            bytes <= MESSAGE_BYTES
        });
        // At least one, or replication would never get past a large entry.
        let count = fits.count().max(1);
        entries.truncate(count);
        Ok(entries)
    }

    /// In pages, so that applying a long stretch of log does not hold all of it decoded.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        let range = log.ledger().clip(&range);
        let end = range.end;
        stream::iter(range.step_by(PAGE as usize)).flat_map(move |start| {
            let page: Vec<io::Result<Entry>> = match log.read(&(start..end.min(start + PAGE))) {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(page)
        })
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let ledger = self.ledger();
        Ok(LogState { last_purged_log_id: ledger.purged, last_log_id: ledger.last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut batch = Batch::new();
        record::put(&mut batch, record::VOTE, &from_vote(vote));
        self.write(batch)?;
        self.shared.flusher.flushed().await?;
        self.ledger().vote = Some(*vote);
        Ok(())
    }

    /// Not waited for: a mark that is lost makes a restart apply less of the log by itself, and the next leader tells
    /// the rest.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut batch = Batch::new();
        match &committed {
            Some(id) => record::put(&mut batch, record::COMMITTED, &from_log_id(id)),
            None => batch.delete(record::COMMITTED),
        }
        self.write(batch)?;
        self.ledger().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.ledger().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut batch = Batch::new();
        for entry in &entries {
            record::put(&mut batch, &entry_key(entry.log_id.index), &from_entry(entry));
        }
        {
            let mut ledger = self.ledger();
            let starts = entries.first().map(|entry| entry.log_id.index);
            if let (Some(start), Some(last)) = (starts, ledger.last)
                && start != last.index + 1
            {
                return Err(io::Error::other(format!("entry {start} does not follow entry {}", last.index)));
            }
            self.write(batch)?;
            if let (Some(start), None) = (starts, ledger.last) {
                ledger.first = start;
            }
            entries.into_iter().for_each(|entry| ledger.push(entry));
        }
        self.shared.flusher.notify(callback)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let mut ledger = self.ledger();
        let end = last.map_or(ledger.first, |last| last.index + 1);
        if end >= ledger.end() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete_range(entry_key(end), LOG_END);
        self.write(batch)?;
        let last = last.or(ledger.purged);
        ledger.truncate(end, last);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut ledger = self.ledger();
        let mut batch = Batch::new();
        batch.delete_range(entry_key(0), entry_key(upto.index + 1));
        record::put(&mut batch, record::PURGED, &from_log_id(&upto));
        self.write(batch)?;
        ledger.purge(upto);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
