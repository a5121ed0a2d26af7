//! One call that reads logs, for as long as its client reads: who is asked, what comes of it, and who is asked besides when
//! there are more tasks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use model::{NodeId, TaskId};
use state::State;
use store::{Leadership, News, Watch};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use wire::proto::api::LogEntry;

use crate::api::Api;
use crate::api::logs::find::{self, Found, SLOTS_OF_A_NODE, Scope};
use crate::api::logs::merge::{Merge, Next};
use crate::api::logs::source::{Event, Events, Options, Place, Source};

/// How long a node that has something to send of what was written before may be silent, before what others write now is shown
/// without it. Dialling takes some ten milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long after the time with which it is to end what is followed ends: nodes look at their logs a little later.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What a client asked for.
pub(super) struct Wanted {
    pub(super) scope: Scope,
    pub(super) options: Options,
    /// Where the logs of tasks begin that are not in `read`.
    pub(super) begin: Place,
    /// Where the logs go on that were read in a call before this one.
    pub(super) read: BTreeMap<TaskId, Place>,
}

pub(super) struct Reading {
    api: Api,
    scope: Scope,
    options: Options,
    nodes: BTreeMap<u64, Events>,
    last_lane: u64,
    merge: Merge,
    /// Of this call's own, to be given before anything else.
    said: VecDeque<LogEntry>,
    following: Option<Following>,
}

/// What is followed besides logs that are there.
struct Following {
    /// For tasks that are made while others are followed.
    watch: Watch,
    leadership: watch::Receiver<Leadership>,
    known: BTreeSet<TaskId>,
    /// From where on the logs of further tasks are read.
    since: u64,
    ends: Option<Instant>,
    stage: Stage,
    /// It was said that there are too many tasks.
    is_crowded: bool,
}

/// How far what is followed has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Goes,
    /// What was named is not there any more, and what is left of it is being read.
    Gone,
    /// There is nothing more to come.
    Over,
}

enum Happened {
    Told(u64, Option<Event>),
    News(Box<State>),
    /// Another manager leads, and knows of further tasks.
    Deposed,
    /// The time has come with which it is to end.
    Ended,
    Waited,
}

impl Reading {
    pub(super) fn of(api: &Api, state: &State, found: &[Found], wanted: Wanted) -> Self {
        let Wanted { scope, options, begin, read } = wanted;
        let following = options.follow.then(|| Following {
            watch: api.parts.store.watch(),
            leadership: api.parts.store.leadership(),
            known: found.iter().map(|found| found.task).collect(),
            since: begin.since,
            ends: options.until.map(|until| end(until, api.parts.clock.now(state).0)),
            stage: Stage::Goes,
            is_crowded: false,
        });
        let mut reading = Self {
            api: api.clone(),
            merge: Merge::new(options.follow.then_some(PATIENCE)),
            nodes: BTreeMap::new(),
            last_lane: 0,
            said: VecDeque::new(),
            scope,
            options,
            following,
        };
        reading.ask(state, found, |task| read.get(&task).copied().unwrap_or(begin));
        reading
    }

    /// Asks the nodes of these tasks, each once.
    fn ask(&mut self, state: &State, found: &[Found], from: impl Fn(TaskId) -> Place) {
        let mut tasks: BTreeMap<NodeId, Vec<(TaskId, Place)>> = BTreeMap::new();
        for Found { task, node } in found {
            tasks.entry(*node).or_default().push((*task, from(*task)));
        }
        for (node, tasks) in tasks {
            self.last_lane += 1;
            self.merge.open(self.last_lane, Instant::now());
            let source = Source::new(&self.api, state, node, tasks, self.options);
            self.nodes.insert(self.last_lane, source.events());
        }
    }

    /// The next answer; nothing once there can be none.
    pub(super) async fn next(&mut self) -> Option<Result<LogEntry, Status>> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(Ok(said));
            }
            let wait = match self.merge.next(Instant::now()) {
                Next::Give(entry) => return Some(Ok(entry)),
                Next::Wait(until) => until,
            };
            if self.nodes.is_empty() && self.merge.is_empty() && self.is_over() {
                return self.said.pop_front().map(Ok);
            }
            match happens(&mut self.nodes, &self.merge, &mut self.following, wait).await {
                Happened::Told(lane, event) => self.take(lane, event),
                Happened::News(state) => self.look(&state),
                Happened::Deposed => {
                    self.finish();
                    return Some(Err(Status::unavailable("another manager leads now; try again")));
                }
                Happened::Ended => self.finish(),
                Happened::Waited => {}
            }
        }
    }

    fn take(&mut self, lane: u64, event: Option<Event>) {
        match event {
            Some(Event::Entry(entry)) => self.merge.push(lane, entry, Instant::now()),
            // What is not followed has an end, and is waited for until it is there.
            Some(Event::CaughtUp) if self.options.follow => self.merge.caught_up(lane),
            Some(Event::Away) if self.options.follow => self.merge.away(lane),
            Some(Event::CaughtUp | Event::Away) => {}
            None => {
                self.nodes.remove(&lane);
                self.merge.close(lane);
            }
        }
    }

    /// Nothing more is read. What is here already is given.
    fn finish(&mut self) {
        self.nodes.clear();
        self.merge.close_all();
        if let Some(following) = &mut self.following {
            following.stage = Stage::Over;
            following.ends = None;
        }
    }

    /// Whether no task can come that has not been asked for. To be called when all that was asked for is read; what is to be
    /// said at the end is in `said` then.
    fn is_over(&mut self) -> bool {
        let Some(following) = &mut self.following else { return true };
        // A task's log ends with it, and that has been said.
        if matches!(self.scope, Scope::Task(_)) && !following.known.is_empty() {
            return true;
        }
        match following.stage {
            Stage::Over => true,
            Stage::Goes => false,
            Stage::Gone => {
                following.stage = Stage::Over;
                let note = match &self.scope {
                    Scope::Task(id) => format!("task {id} was removed before it ran"),
                    Scope::Slot(name, _) | Scope::Whole(name) => format!("`{name}` was removed"),
                };
                self.said.push_back(LogEntry { note, ..LogEntry::default() });
                true
            }
        }
    }

    /// Asks for the logs of tasks that there were not before.
    fn look(&mut self, state: &State) {
        let Some(following) = &mut self.following else { return };
        if following.stage == Stage::Over {
            return;
        }
        let Ok(found) = find::tasks(state, &self.scope) else {
            following.stage = Stage::Gone;
            return;
        };
        following.stage = Stage::Goes;
        let crowded = find::crowded(&found);
        let mut new = Vec::new();
        for found in found {
            if following.known.contains(&found.task) {
                continue;
            }
            if crowded.contains_key(&found.node) {
                if !following.is_crowded {
                    following.is_crowded = true;
                    self.said.push_back(too_many(state, found));
                }
                continue;
            }
            following.known.insert(found.task);
            new.push(found);
        }
        following.known.retain(|id| state.task(*id).is_some());
        // All that they write is new.
        let begin = Place { since: following.since, tail: None };
        self.ask(state, &new, |_| begin);
    }
}

/// When what is followed until a time (nanoseconds since the epoch) ends, as of `now` (milliseconds since the epoch).
fn end(until: u64, now: u64) -> Instant {
    let left = (until / 1_000_000).saturating_sub(now);
    // A hundred years from now is as good as never; and so far away, a time may be too large for an instant.
    let left = Duration::from_millis(left).min(Duration::from_secs(100 * 366 * 24 * 3600));
    Instant::now() + left + LAST_LINES
}

fn too_many(state: &State, Found { task, node }: Found) -> LogEntry {
    let name = state.node(node).map_or_else(|| node.to_string(), |node| node.name.to_string());
    let warning = format!(
        "node {name}: task {task} and later ones are not followed: logs of {SLOTS_OF_A_NODE} slots of a node are read at most"
    );
    LogEntry { node: name, warning, ..LogEntry::default() }
}

/// What happens next, be it that `wait` is over.
async fn happens(
    nodes: &mut BTreeMap<u64, Events>,
    merge: &Merge,
    following: &mut Option<Following>,
    wait: Option<Instant>,
) -> Happened {
    tokio::select! {
        biased;
        changed = changed(following) => changed,
        told = std::future::poll_fn(|context| poll_told(nodes, merge, context)) => told,
        () = reached(wait) => Happened::Waited,
    }
}

/// What nodes have to tell, if there is room for it.
fn poll_told(nodes: &mut BTreeMap<u64, Events>, merge: &Merge, context: &mut Context<'_>) -> Poll<Happened> {
    for (lane, events) in nodes.iter_mut().filter(|(lane, _)| merge.has_room(**lane)) {
        if let Poll::Ready(event) = events.poll_next_unpin(context) {
            return Poll::Ready(Happened::Told(*lane, event));
        }
    }
    Poll::Pending
}

async fn changed(following: &mut Option<Following>) -> Happened {
    let Some(Following { watch, leadership, ends, stage: Stage::Goes | Stage::Gone, .. }) = following else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        () = deposed(leadership) => Happened::Deposed,
        news = watch.next() => match news {
            News::Changes { state, changes: _ } | News::Resync { state } => Happened::News(Box::new(state)),
        },
        () = reached(*ends) => Happened::Ended,
    }
}

async fn deposed(leadership: &mut watch::Receiver<Leadership>) {
    let is_led = |now: &Leadership| match now {
        Leadership::Leader { .. } => false,
        Leadership::Follower { .. } => true,
    };
    // An error is a store that has stopped, which leads as little.
    let _ = leadership.wait_for(is_led).await.map(drop);
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_call_ends_with_the_leadership_and_not_before() {
        let (published, mut leadership) = watch::channel(Leadership::Leader { term: 3 });
        assert!(deposed(&mut leadership).now_or_never().is_none());
        published.send_replace(Leadership::Leader { term: 4 });
        assert!(deposed(&mut leadership).now_or_never().is_none(), "it leads on");
        published.send_replace(Leadership::Follower { leader: None });
        assert!(deposed(&mut leadership).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_has_passed_ends_what_is_followed_at_once_and_one_far_away_never() {
        let seconds = |until: u64| (end(until * 1_000_000_000, 5_000) - Instant::now()).as_secs();
        assert_eq!([seconds(0), seconds(5), seconds(15)], [1, 1, 11]);
        assert!(end(u64::MAX, 5_000) > Instant::now());
    }
}
