//! The dispatcher itself: it owns the sessions, the deadlines and what has been reported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Liveness, NodeId, TaskId};
use state::{Change, Command, Proposal, State};
use store::{News, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::proto::agent::{FromAgent, FromManager, Hello, Received, from_agent, from_manager};

use crate::WallClock;
use crate::dispatch::liveness::Deadlines;
use crate::dispatch::reports::{Batch, Fold};
use crate::dispatch::{Inbox, Message, OUTBOX, Session, SessionId, assignments};
use crate::leader::Parts;

/// How long to wait before proposing again what may not have been committed.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs while this manager leads; the caller ends it by dropping it, and every session with it.
pub(crate) async fn run(parts: &Parts, inbox: &mut Inbox) {
    let mut watch = parts.store.watch();
    let Inbox { messages, last_session } = inbox;
    let mut desk = Desk::new(parts, last_session);
    loop {
        desk.commit_reports();
        let deadline = desk.deadlines.next();
        tokio::select! {
            biased;
            // First of all: a heartbeat that has arrived is never outrun by the deadline that it pushes back.
            message = messages.recv() => match message {
                Some(message) => desk.take(message),
                None => return,
            },
            Some(done) = desk.work.join_next() => match done {
                Ok(done) => desk.finish(done),
                // What it would have ended with is missing for good. The next dispatcher begins with everything afresh.
                Err(error) => return tracing::error!(%error, "a part of the dispatcher failed"),
            },
            news = watch.next() => desk.tell_changes(news),
            () = sleep_until(deadline) => desk.look_for_missed(),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What the dispatcher waits for.
#[derive(Debug)]
enum Work {
    Opened { node: NodeId, session: SessionId, state: Option<Box<State>> },
    Committed { batch: Batch, committed: bool },
    Downed { node: NodeId, committed: bool },
}

/// A session on its way to its first assignment, or past it.
#[derive(Debug)]
enum Link {
    Opening { id: SessionId, known: Vec<TaskId>, opened: oneshot::Sender<Session> },
    Open { id: SessionId, outbox: mpsc::Sender<FromManager>, generation: u64 },
}

impl Link {
    fn id(&self) -> SessionId {
        match self {
            Self::Opening { id, .. } | Self::Open { id, .. } => *id,
        }
    }
}

struct Desk<'a> {
    store: Store,
    clock: WallClock,
    links: BTreeMap<NodeId, Link>,
    deadlines: Deadlines,
    fold: Fold,
    /// One commit of reports at a time: what arrives meanwhile becomes the next one.
    committing: bool,
    work: JoinSet<Work>,
    last_session: &'a mut u64,
}

impl<'a> Desk<'a> {
    fn new(parts: &Parts, last_session: &'a mut u64) -> Self {
        Self {
            deadlines: Deadlines::afresh(&parts.store.state(), Instant::now()),
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            links: BTreeMap::new(),
            fold: Fold::default(),
            committing: false,
            work: JoinSet::new(),
            last_session,
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Open { node, hello, opened } => self.open(node, hello, opened),
            Message::FromAgent { node, session, message } => {
                if self.links.get(&node).is_some_and(|link| link.id() == session) {
                    self.receive(node, message);
                }
            }
            Message::Closed { node, session } => {
                if self.links.get(&node).is_some_and(|link| link.id() == session) {
                    self.links.remove(&node);
                }
            }
            Message::Heartbeat { node, known } => {
                let has_session = self.links.contains_key(&node);
                if has_session {
                    self.deadlines.heard(node, Instant::now());
                }
                let _ = known.send(has_session);
            }
            Message::Tell { node, open, told } => {
                let sent = self.send(node, from_manager::Kind::Open(open));
                let _ = told.send(sent);
            }
            Message::Connected { nodes } => {
                let open = self.links.iter().filter(|(_, link)| matches!(link, Link::Open { .. }));
                let _ = nodes.send(open.map(|(node, _)| *node).collect());
            }
        }
    }

    fn open(&mut self, node: NodeId, hello: Hello, opened: oneshot::Sender<Session>) {
        let Ok(known) =
            hello.known.iter().copied().map(TryInto::try_into).collect::<Result<Vec<TaskId>, _>>()
        else {
            return;
        };
        let Ok(describe) = describe(node, hello) else { return };
        *self.last_session += 1;
        let id = SessionId(*self.last_session);
        self.deadlines.heard(node, Instant::now());
        self.links.insert(node, Link::Opening { id, known, opened });
        let (store, clock) = (self.store.clone(), self.clock.clone());
        self.work.spawn(async move {
            let state = announce(&store, &clock, node, describe).await;
            Work::Opened { node, session: id, state: state.map(Box::new) }
        });
    }

    fn receive(&mut self, node: NodeId, message: FromAgent) {
        self.deadlines.heard(node, Instant::now());
        match message.kind {
            Some(from_agent::Kind::Report(report)) => {
                tracing::debug!(target: "hop", hop = "reported", %node, tasks = report.tasks.len());
                if let Err(error) = self.fold.add(node, report) {
                    tracing::warn!(%node, %error, "a report that cannot be read; its session is ended");
                    self.links.remove(&node);
                }
            }
            // A second greeting has no meaning; neither has a kind that this version does not know.
            Some(from_agent::Kind::Hello(_)) | None => drop(self.links.remove(&node)),
        }
    }

    fn finish(&mut self, work: Work) {
        match work {
            Work::Opened { node, session, state } => self.opened(node, session, state),
            Work::Committed { batch, committed } => self.committed(batch, committed),
            Work::Downed { node, committed } if committed => {
                tracing::info!(%node, "down");
            }
            // Still to be said: its deadline passes again at once.
            Work::Downed { node, committed: _ } => {
                if !self.links.contains_key(&node) {
                    self.deadlines.passed(node, Instant::now());
                }
            }
        }
    }

    fn opened(&mut self, node: NodeId, session: SessionId, state: Option<Box<State>>) {
        if self.links.get(&node).is_none_or(|link| link.id() != session) {
            return;
        }
        let Some(Link::Opening { id, known, opened }) = self.links.remove(&node) else { return };
        // Without a quorum's word on what the cluster knows, nothing may be called unknown.
        if state.is_none() {
            return;
        }
        // The newest state is at least as new as the one that a quorum has confirmed. What changes after it is told as
        // changes; what changed before it, while the session was opening, is in it.
        let state = self.store.state();
        if state.node(node).is_none_or(|row| row.liveness != Liveness::Ready) {
            return;
        }
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        if opened.send(Session { id, outgoing }).is_err() {
            return;
        }
        let whole = assignments::whole(&state, node, &known);
        let unwanted = assignments::unwanted_images(&state, node);
        let generation = whole.generation;
        self.links.insert(node, Link::Open { id, outbox, generation });
        self.send(node, from_manager::Kind::Whole(whole));
        if !unwanted.is_empty() {
            let delta = wire::proto::agent::Delta {
                from: generation,
                generation,
                dropped_images: unwanted,
                ..Default::default()
            };
            self.send(node, from_manager::Kind::Delta(delta));
        }
        tracing::info!(%node, "session open");
    }

    fn tell_changes(&mut self, news: News) {
        match news {
            News::Changes { state, changes } => {
                self.end_sessions_of_the_down(&state, &changes);
                for node in self.links.keys().copied().collect::<Vec<_>>() {
                    self.tell(node, &state, &changes);
                }
            }
            // What was missed may concern anyone: every agent opens its session anew and is told everything.
            News::Resync { .. } => self.links.retain(|_, link| matches!(link, Link::Opening { .. })),
        }
    }

    /// A node that was declared down while it came back: it opens another session, which says that it is up.
    fn end_sessions_of_the_down(&mut self, state: &State, changes: &BTreeSet<Change>) {
        for change in changes {
            let Change::Node(node) = change else { continue };
            let is_down = state.node(*node).is_none_or(|row| matches!(row.liveness, Liveness::Down { .. }));
            if is_down && matches!(self.links.get(node), Some(Link::Open { .. })) {
                self.links.remove(node);
            }
        }
    }

    fn tell(&mut self, node: NodeId, state: &State, changes: &BTreeSet<Change>) {
        let Some(Link::Open { generation, .. }) = self.links.get_mut(&node) else { return };
        if state.applied().0 <= *generation {
            return;
        }
        let Some(delta) = assignments::delta(state, node, *generation, changes) else { return };
        *generation = delta.generation;
        tracing::debug!(target: "hop", hop = "sent", %node, tasks = delta.tasks.len());
        self.send(node, from_manager::Kind::Delta(delta));
    }

    /// Whether it was sent. An agent that does not keep up loses its session.
    fn send(&mut self, node: NodeId, kind: from_manager::Kind) -> bool {
        let Some(Link::Open { outbox, .. }) = self.links.get(&node) else { return false };
        let sent = outbox.try_send(FromManager { kind: Some(kind) }).is_ok();
        if !sent {
            self.links.remove(&node);
        }
        sent
    }

    fn commit_reports(&mut self) {
        if self.committing || self.fold.is_empty() {
            return;
        }
        self.committing = true;
        let batch = self.fold.take();
        let (store, clock) = (self.store.clone(), self.clock.clone());
        self.work.spawn(async move {
            let committed = batch.commands.is_empty() || commit(&store, &clock, batch.commands.clone()).await;
            if !committed {
                tokio::time::sleep(PAUSE).await;
            }
            Work::Committed { batch, committed }
        });
    }

    fn committed(&mut self, batch: Batch, committed: bool) {
        self.committing = false;
        tracing::debug!(target: "hop", hop = "recorded", committed);
        for (node, number) in batch.numbers {
            if !committed {
                // Unacknowledged: the agent says it again in a new session.
                self.links.remove(&node);
            } else if let Some(number) = number {
                self.send(node, from_manager::Kind::Received(Received { number }));
            }
        }
    }

    fn look_for_missed(&mut self) {
        for node in self.deadlines.missed(Instant::now()) {
            self.links.remove(&node);
            let (store, clock) = (self.store.clone(), self.clock.clone());
            self.work.spawn(async move {
                let down = Command::SetLiveness { node, ready: false };
                let committed = commit(&store, &clock, vec![down]).await;
                if !committed {
                    tokio::time::sleep(PAUSE).await;
                }
                Work::Downed { node, committed }
            });
        }
    }
}

async fn commit(store: &Store, clock: &WallClock, commands: Vec<Command>) -> bool {
    let proposal = Proposal { at: clock.now(&store.state()), request: None, by: None, commands };
    match store.propose(proposal).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, "not committed for certain");
            false
        }
    }
}

/// Records what a node says of itself, if that is news, and returns a state that a quorum has confirmed.
async fn announce(store: &Store, clock: &WallClock, node: NodeId, describe: Command) -> Option<State> {
    let state = store.state();
    let mut ahead = state.clone();
    let proposal = Proposal {
        at: clock.now(&state),
        request: None,
        by: None,
        commands: vec![describe, Command::SetLiveness { node, ready: true }],
    };
    let news = ahead.apply(ahead.applied(), &proposal).changes;
    let was_ready = state.node(node).is_some_and(|node| node.liveness == Liveness::Ready);
    if (!news.is_empty() || !was_ready) && store.propose(proposal).await.is_err() {
        return None;
    }
    store.linearize().await.ok().filter(|state| state.node(node).is_some())
}

fn describe(node: NodeId, hello: Hello) -> Result<Command, wire::Invalid> {
    let Hello { address, labels, capacity, platform, version, known: _ } = hello;
    Ok(Command::DescribeNode {
        node,
        address: wire::socket_address(&address)?,
        labels: labels.into_iter().collect(),
        capacity: capacity.unwrap_or_default().into(),
        platform: platform.map(Into::into),
        version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone;
    use crate::dispatch::channel;

    #[tokio::test(start_paused = true)]
    async fn a_session_has_a_number_that_none_had_in_an_earlier_term() {
        let parts = alone::manager().await;
        let (dispatcher, mut inbox) = channel();
        let mut numbers = BTreeSet::new();
        for _ in 0..3 {
            let hello = Hello { address: "192.0.2.1:7000".to_owned(), ..Hello::default() };
            let opened = tokio::select! {
                () = run(&parts, &mut inbox) => panic!("the dispatcher ended"),
                opened = dispatcher.open(NodeId(1), hello) => opened,
            };
            numbers.insert(opened.unwrap().id);
        }
        assert_eq!(numbers.len(), 3);
    }
}
