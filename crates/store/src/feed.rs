//! The published state, and what changed since someone last looked.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use model::LogIndex;
use state::{Change, State};
use tokio::sync::watch;

/// How many changes are kept for watchers that lag. One that falls further behind reads everything again, which by then
/// is less work for it than the changes one by one.
const RING: usize = 16_384;

/// What a watcher learns.
#[derive(Clone, Debug)]
pub enum News {
    /// These rows changed since the last news, and this is the state after it. A row may be named that has changed back.
    Changes { state: State, changes: BTreeSet<Change> },
    /// Anything may have changed: the first news of a watch, after a snapshot was installed, or after lagging too far.
    Resync { state: State },
}

/// Follows the applied state. Cheap; everyone who is interested has their own.
pub struct Watch {
    feed: Arc<Feed>,
    applied: watch::Receiver<LogIndex>,
    /// The last entry that this watch knows of; `None` before its first news.
    seen: Option<LogIndex>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Watch {
    /// The next news. At once if there are any, the first time always; otherwise when something changes. Waits for ever
    /// once the store has stopped. Cancelling loses nothing.
    pub async fn next(&mut self) -> News {
        loop {
            // Marked before looking, so that what is published in between wakes us again.
            self.applied.mark_unchanged();
            if let Some(news) = self.feed.news(&mut self.seen) {
                return news;
            }
            if self.applied.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Where applied entries are published. Written by the state machine only.
pub(crate) struct Feed {
    inner: Mutex<Inner>,
    applied: watch::Sender<LogIndex>,
}

#[derive(Default)]
struct Inner {
    state: State,
    applied: LogIndex,
    /// Changes up to here are no longer in the ring.
    floor: LogIndex,
    ring: VecDeque<(LogIndex, BTreeSet<Change>)>,
    held: usize,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Feed")
            .field("applied", &inner.applied)
            .field("held", &inner.held)
            .finish_non_exhaustive()
    }
}

impl Feed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), applied: watch::Sender::new(LogIndex::default()) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the feed")
    }

    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    pub(crate) fn watch(self: &Arc<Self>) -> Watch {
        Watch { feed: self.clone(), applied: self.applied.subscribe(), seen: None }
    }

    /// The state after the entry at `applied`, and what each entry since the last publication changed.
    pub(crate) fn publish(
        &self,
        state: State,
        applied: LogIndex,
        changes: Vec<(LogIndex, BTreeSet<Change>)>,
    ) {
        {
            let mut inner = self.lock();
            inner.state = state;
            inner.applied = applied;
            for (at, changed) in changes.into_iter().filter(|(_, changed)| !changed.is_empty()) {
                inner.held += changed.len();
                inner.ring.push_back((at, changed));
            }
            inner.trim();
        }
        self.applied.send_replace(applied);
    }

    /// A state that came as a whole.
    pub(crate) fn replace(&self, state: State, applied: LogIndex) {
        *self.lock() = Inner { state, applied, floor: applied, ..Inner::default() };
        self.applied.send_replace(applied);
    }

    /// What there is since `seen`, which moves on; `None` if nothing changed.
    fn news(&self, seen: &mut Option<LogIndex>) -> Option<News> {
        let inner = self.lock();
        let since = seen.replace(inner.applied);
        let Some(since) = since.filter(|since| *since >= inner.floor) else {
            return Some(News::Resync { state: inner.state.clone() });
        };
        let recent = inner.ring.iter().rev().take_while(|(at, _)| *at > since);
        let changes: BTreeSet<Change> = recent.flat_map(|(_, changed)| changed.iter().cloned()).collect();
        (!changes.is_empty()).then(|| News::Changes { state: inner.state.clone(), changes })
    }
}

impl Inner {
    fn trim(&mut self) {
        while self.held > RING {
            let Some((at, changed)) = self.ring.pop_front() else { break };
            self.held -= changed.len();
            self.floor = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use model::ServiceId;

    use super::*;

    fn publish(feed: &Feed, at: u64, services: std::ops::Range<u64>) {
        let changed = services.map(|id| Change::Service(ServiceId(id))).collect();
        feed.publish(State::new(), LogIndex(at), vec![(LogIndex(at), changed)]);
    }

    fn shown(watch: &mut Watch) -> String {
        match watch.next().now_or_never() {
            None => "nothing".to_owned(),
            Some(News::Resync { .. }) => "resync".to_owned(),
            Some(News::Changes { changes, .. }) => format!("{} changes", changes.len()),
        }
    }

    #[test]
    fn a_watch_begins_with_everything_and_goes_on_with_what_changed() {
        let feed = Feed::new();
        let mut watch = feed.watch();
        assert_eq!(shown(&mut watch), "resync");
        assert_eq!(shown(&mut watch), "nothing");
        publish(&feed, 3, 0..1);
        publish(&feed, 4, 0..2);
        assert_eq!(shown(&mut watch), "2 changes");
        assert_eq!(shown(&mut watch), "nothing");
        publish(&feed, 5, 0..0);
        assert_eq!(shown(&mut watch), "nothing");
        publish(&feed, 6, 7..8);
        assert_eq!(shown(&mut watch), "1 changes");
    }

    #[test]
    fn a_watch_that_lags_too_far_reads_everything_again() {
        let feed = Feed::new();
        let (mut lagging, mut prompt) = (feed.watch(), feed.watch());
        assert_eq!((shown(&mut lagging), shown(&mut prompt)), ("resync".to_owned(), "resync".to_owned()));
        publish(&feed, 1, 0..1);
        assert_eq!(shown(&mut prompt), "1 changes");
        publish(&feed, 2, 0..RING as u64);
        assert_eq!(shown(&mut prompt), format!("{RING} changes"));
        assert_eq!(shown(&mut lagging), "resync");
    }

    #[test]
    fn an_installed_snapshot_makes_everyone_read_everything() {
        let feed = Feed::new();
        let mut watch = feed.watch();
        shown(&mut watch);
        publish(&feed, 1, 0..1);
        feed.replace(State::new(), LogIndex(9));
        assert_eq!(shown(&mut watch), "resync");
        publish(&feed, 10, 0..1);
        assert_eq!(shown(&mut watch), "1 changes");
    }
}
