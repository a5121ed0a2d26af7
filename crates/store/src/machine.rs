//! The state machine as openraft drives it: the live state, in memory, rebuilt at start from the snapshot and the log.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures::stream::{Stream, TryStreamExt};
use model::LogIndex;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use state::State;
use tokio::sync::Mutex;

use crate::feed::Feed;
use crate::raft::{Answer, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::shelf::Shelf;

pub(crate) struct Machine {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Shared with the task that builds a snapshot, which works on its own clone of the state.
    shelf: Arc<Mutex<Shelf>>,
    feed: Arc<Feed>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl Machine {
    /// An empty machine; openraft installs the shelf's snapshot and applies the log behind it.
    pub(crate) fn new(shelf: Shelf, feed: Arc<Feed>) -> Self {
        Self {
            state: State::new(),
            applied: None,
            membership: StoredMembership::default(),
            shelf: Arc::new(Mutex::new(shelf)),
            feed,
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    /// A snapshot is a clone of the state, which costs nothing; it becomes records where it is stored or sent.
    type SnapshotData = State;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut answers, mut changes) = (Vec::new(), Vec::new());
        let mut at = self.applied.map_or(LogIndex(0), |id| LogIndex(id.index));
        while let Some((entry, responder)) = entries.try_next().await? {
            at = LogIndex(entry.log_id.index);
            let answer = match entry.payload {
                Payload::Blank => Answer::default(),
                Payload::Normal(submission) => {
                    let applied = self.state.apply(at, &submission.proposal);
                    changes.push((at, applied.changes));
                    Answer(applied.outcomes)
                }
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Answer::default()
                }
            };
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, answer)));
        }
        // Published first, so that whoever has an answer finds its effect in the state.
        self.feed.publish(self.state.clone(), at, changes);
        for (responder, answer) in answers {
            responder.send(answer);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { meta: self.meta(), state: self.state.clone(), shelf: self.shelf.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, state: State) -> io::Result<()> {
        self.shelf.lock().await.put(meta, &state).await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.state = state.clone();
        self.feed.replace(state, meta.last_log_id.map_or(LogIndex(0), |id| LogIndex(id.index)));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.shelf.lock().await.current())
    }
}

/// Stores the state as it was when the builder was made, while the machine goes on.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    state: State,
    shelf: Arc<Mutex<Shelf>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = State;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut shelf = self.shelf.lock().await;
        shelf.put(&self.meta, &self.state).await?;
        // Not always ours: a newer one may have been installed while this one waited.
        Ok(shelf.current().expect("a snapshot was just put on the shelf"))
    }
}
