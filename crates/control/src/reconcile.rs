//! The only loop that runs planners: what is dirty on a change or a deadline, everything on a resync.

mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controllers::Object;
use futures::FutureExt as _;
use model::Timestamp;
use state::{Change, Proposal, State};
use store::{News, Store};

use crate::WallClock;

/// One pass over a copy of the state, which has no effect.
pub(crate) use pass::run as pass_over;

/// How long to wait before trying again when a proposal's outcome is unknown: the store is busy electing.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs for as long as this manager leads; the caller ends it by dropping it.
pub(crate) async fn run(store: Store, clock: WallClock) {
    let mut watch = store.watch();
    // The first news of a watch is that everything is new.
    let mut todo = Todo::default();
    loop {
        let state = store.state();
        let now = clock.now(&state);
        todo.wake(now);
        if todo.is_idle() {
            let deadline = todo.sleep(now);
            tokio::select! {
                biased;
                news = watch.next() => todo.saw(news),
                () = tokio::time::sleep(deadline) => {}
            }
            continue;
        }
        let pass = pass::run(&state, &todo.dirty, now);
        todo.wakes.extend(pass.wakes);
        if pass.commands.is_empty() {
            todo.done(pass.rest);
            continue;
        }
        tracing::debug!(target: "hop", hop = "planned", commands = pass.commands.len());
        let proposal = Proposal { at: now, request: None, by: None, commands: pass.commands };
        match store.propose(proposal).await {
            // What was rejected was planned from a state that is no longer; what was accepted shows in the watch.
            Ok(outcomes) if outcomes.iter().all(Result::is_ok) => {
                tracing::debug!(target: "hop", hop = "assigned");
                todo.done(pass.rest);
            }
            Ok(outcomes) => {
                for rejected in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                    tracing::debug!(%rejected, "planned from an older state");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the plan was not committed for certain");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while let Some(news) = watch.next().now_or_never() {
            todo.saw(news);
        }
    }
}

/// What is to be looked at, now and later.
#[derive(Debug, Default)]
struct Todo {
    dirty: BTreeSet<Object>,
    /// Something changed that may free a place for a task that waits for one.
    place: bool,
    wakes: BTreeMap<Object, Timestamp>,
}

impl Todo {
    fn everything(state: &State) -> Self {
        Self { dirty: controllers::all(state).into_iter().collect(), place: true, wakes: BTreeMap::new() }
    }

    fn saw(&mut self, news: News) {
        match news {
            News::Resync { state } => *self = Self::everything(&state),
            News::Changes { state, changes } => {
                for change in &changes {
                    self.place |= matches!(change, Change::Node(_) | Change::Task(..));
                    self.dirty.extend(controllers::touched(&state, change));
                }
            }
        }
    }

    fn wake(&mut self, now: Timestamp) {
        let due: Vec<Object> =
            self.wakes.iter().filter(|(_, at)| **at <= now).map(|(object, _)| *object).collect();
        for object in due {
            self.wakes.remove(&object);
            self.dirty.insert(object);
        }
    }

    fn is_idle(&self) -> bool {
        self.dirty.is_empty() && !self.place
    }

    /// All but `rest` has been seen to.
    fn done(&mut self, rest: BTreeSet<Object>) {
        self.place = !rest.is_empty();
        self.dirty = rest;
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        // With nothing to wake for, a change is what ends the wait.
        self.wakes.values().min().map_or(Duration::from_secs(3600), |at| at.since(now))
    }
}
