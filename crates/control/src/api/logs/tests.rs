//! Against agents that a test plays: it sees what they are asked, and says what they would.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use model::{Ended, NodeId, Phase, TaskStatus, Timestamp};
use state::{Command, Proposal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{DecodeBuf, Decoder, EncodeBody, EncodeBuf, Encoder};
use tonic::{Code, Request, Streaming};
use wire::proto::agent::{Chunk, LogLine, LogMark, Open, OpenLogs, chunk, from_manager, open};
use wire::proto::api::cluster_server::Cluster as _;
use wire::proto::api::{LogRead, RemoveStackRequest};

use super::*;
use crate::alone::{Alone, NOW, service};
use crate::api::logs::source::DIAL;
use crate::dispatch::Session;

/// Carries messages beside the frames, which stay empty.
#[derive(Clone, Default)]
struct Beside(Arc<Mutex<VecDeque<Chunk>>>);

impl Encoder for Beside {
    type Item = Chunk;
    type Error = Status;

    fn encode(&mut self, chunk: Chunk, _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(chunk);
        Ok(())
    }
}

impl Decoder for Beside {
    type Item = Chunk;
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<Chunk>, Status> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front())
    }
}

/// A stream that an agent dialled. It breaks off when this is dropped.
struct Dialled {
    asked: OpenLogs,
    chunks: mpsc::UnboundedSender<Result<Chunk, Status>>,
    _from_manager: mpsc::Receiver<Result<Chunk, Status>>,
}

impl Dialled {
    fn say(&self, kind: chunk::Kind) {
        self.chunks.send(Ok(Chunk { kind: Some(kind) })).expect("it is read");
    }

    /// Lines of the first task.
    fn lines(&self, times: &[u64]) {
        for at in times {
            self.say(chunk::Kind::Line(LogLine { at: *at, text: b"x".to_vec(), ..LogLine::default() }));
        }
    }

    fn mark(&self, mark: LogMark, at: u64) {
        self.say(chunk::Kind::Line(LogLine { at, mark: mark.into(), ..LogLine::default() }));
    }

    fn end(&self) {
        self.say(chunk::Kind::End(true));
    }
}

/// A node's agent. It is up until its heart is stopped.
struct Agent {
    session: Session,
    heart: JoinSet<()>,
}

impl Agent {
    async fn connect(alone: &Alone, node: u64) -> Self {
        let session = alone.connect(node).await;
        let dispatcher = alone.dispatcher.clone();
        let mut heart = JoinSet::new();
        heart.spawn(async move {
            let mut beat = interval(Duration::from_millis(500));
            loop {
                beat.tick().await;
                let _ = dispatcher.heartbeat(NodeId(node)).await;
            }
        });
        Self { session, heart }
    }

    /// Waits until it is told to open a stream.
    async fn told(&mut self) -> Open {
        let told = async {
            loop {
                let message = self.session.outgoing.recv().await.expect("the session goes on");
                if let Some(from_manager::Kind::Open(open)) = message.kind {
                    return open;
                }
            }
        };
        timeout(Duration::from_secs(60), told).await.expect("it is told within a minute")
    }

    /// Waits until it is asked for logs, and dials.
    async fn dial(&mut self, alone: &Alone) -> Dialled {
        let Open { stream, what } = self.told().await;
        let Some(open::What::Logs(asked)) = what else { panic!("logs are asked for") };
        let (chunks, sent) = mpsc::unbounded_channel();
        let beside = Beside::default();
        let body = EncodeBody::new_client(beside.clone(), UnboundedReceiverStream::new(sent), None, None);
        let incoming = Streaming::new_request(beside, body, None, None);
        let from_manager = alone.api.streams.dialled(&stream, incoming).expect("it is waited for");
        Dialled { asked, chunks, _from_manager: from_manager }
    }
}

/// A cluster of one node with so many replicas, and the node's agent.
async fn one_node(replicas: u32) -> (Alone, Agent) {
    let alone = Alone::found().await;
    let agent = Agent::connect(&alone, 1).await;
    deploy(&alone, replicas).await;
    (alone, agent)
}

/// The same with two nodes.
async fn two_nodes(replicas: u32) -> (Alone, Agent, Agent) {
    let alone = Alone::found().await;
    let (first, second) = (Agent::connect(&alone, 1).await, Agent::connect(&alone, 2).await);
    deploy(&alone, replicas).await;
    (alone, first, second)
}

async fn deploy(alone: &Alone, replicas: u32) {
    alone.deploy(&service(replicas)).await;
    let all = usize::try_from(replicas).unwrap();
    alone
        .until("all tasks have a node", |state| {
            state.tasks().filter(|(_, task)| task.placement.is_some()).count() == all
        })
        .await;
}

/// Removes the stack; its one task, on the first node, has stopped.
async fn remove(alone: &Alone) {
    let remove = RemoveStackRequest { request: String::new(), stack: "hello".to_owned() };
    alone.api.remove_stack(Request::new(remove)).await.unwrap();
    let status = TaskStatus {
        attempt: 1,
        phase: Phase::Exited,
        seq: 0,
        ready: false,
        at: Timestamp(0),
        exit: None,
        ended: Some(Ended::Stopped),
        reason: None,
        warnings: Vec::new(),
    };
    let task = "s1-1-1".parse().unwrap();
    let report = Command::Report { node: NodeId(1), statuses: vec![(task, status)] };
    let proposal = Proposal { at: NOW, request: None, by: None, commands: vec![report] };
    alone.api.parts.store.propose(proposal).await.unwrap();
}

/// A client that reads as fast as it can.
struct Client {
    entries: mpsc::UnboundedReceiver<Result<LogEntry, Status>>,
    _reads: JoinSet<()>,
}

async fn client(alone: &Alone, request: LogsRequest) -> Client {
    let mut answers = answer(&alone.api, request).await.expect("there is such a thing");
    let (sender, entries) = mpsc::unbounded_channel();
    let mut reads = JoinSet::new();
    reads.spawn(async move {
        while let Some(answer) = answers.next().await {
            let _ = sender.send(answer);
        }
    });
    Client { entries, _reads: reads }
}

impl Client {
    /// `NODE TIME` of a line, a note or a warning; nothing at the end.
    async fn next(&mut self) -> Option<String> {
        let entry = timeout(Duration::from_secs(60), self.entries.recv()).await.expect("within a minute")?;
        let LogEntry { node, at, note, warning, .. } = entry.expect("no failure");
        Some(match (note.as_str(), warning.as_str()) {
            ("", "") => format!("{node} {at}"),
            (note, "") => format!("note: {note}"),
            (_, warning) => format!("warning: {warning}"),
        })
    }

    /// The next entries begin with these texts.
    async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            let next = self.next().await;
            assert!(next.as_ref().is_some_and(|next| next.starts_with(expected)), "{expected}: {next:?}");
        }
    }
}

fn hello() -> LogsRequest {
    LogsRequest { reference: "hello".to_owned(), ..LogsRequest::default() }
}

fn followed() -> LogsRequest {
    LogsRequest { follow: true, ..hello() }
}

#[tokio::test(start_paused = true)]
async fn lines_of_all_nodes_are_read_in_the_order_of_their_times() {
    let (alone, mut first, mut second) = two_nodes(4).await;
    let mut client = client(&alone, hello()).await;
    let (first, second) = (first.dial(&alone).await, second.dial(&alone).await);
    assert_eq!(
        first.asked.tasks.len() + second.asked.tasks.len(),
        4,
        "a node is asked once for all of its tasks"
    );
    first.lines(&[10, 30, 50]);
    second.lines(&[20, 30, 40]);
    first.end();
    second.end();
    client.expect(&["n1 10", "n2 20", "n1 30", "n2 30", "n2 40", "n1 50"]).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_costs_some_seconds_and_its_own_lines() {
    let (alone, mut first, _silent) = two_nodes(4).await;
    let asked = Instant::now();
    let mut client = client(&alone, hello()).await;
    let first = first.dial(&alone).await;
    first.lines(&[10, 20]);
    first.end();
    client.expect(&["warning: node n2 did not answer: lines of hello/web", "n1 10", "n1 20"]).await;
    assert_eq!(client.next().await, None);
    assert_eq!(asked.elapsed().as_secs(), DIAL.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_waited_for_once_it_is_known_to_be_down() {
    let (alone, mut first, mut gone) = two_nodes(2).await;
    gone.heart.abort_all();
    let asked = Instant::now();
    let mut reading = client(&alone, hello()).await;
    let answered = first.dial(&alone).await;
    answered.lines(&[10]);
    answered.end();
    reading.expect(&["warning: node n2 is down: lines of hello/web", "n1 10"]).await;
    assert_eq!(reading.next().await, None);
    assert!(asked.elapsed() < DIAL, "{:?}", asked.elapsed());
    // It is not even asked from then on.
    let asked = Instant::now();
    let mut reading = client(&alone, hello()).await;
    first.dial(&alone).await.end();
    reading.expect(&["warning: node n2 is down: lines of hello/web"]).await;
    assert_eq!(reading.next().await, None);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_breaks_off_half_way_is_named() {
    let (alone, mut first, mut second) = two_nodes(2).await;
    let mut client = client(&alone, hello()).await;
    let (first, second) = (first.dial(&alone).await, second.dial(&alone).await);
    first.lines(&[10, 30]);
    second.lines(&[20]);
    client.expect(&["n1 10", "n2 20"]).await;
    drop(second);
    first.end();
    client.expect(&["warning: node n2 broke off", "n1 30"]).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_followed_is_in_order_and_waits_for_no_silent_node() {
    let (alone, mut first, mut second) = two_nodes(2).await;
    let mut client = client(&alone, followed()).await;
    let asked = Instant::now();
    let first = first.dial(&alone).await;
    first.lines(&[10]);
    first.mark(LogMark::CaughtUp, 15);
    client.expect(&["n1 10"]).await;
    assert!(asked.elapsed() < DIAL, "{:?}", asked.elapsed());
    client.expect(&["warning: node n2 did not answer"]).await;
    // The first time it does not dial.
    second.told().await;
    let second = second.dial(&alone).await;
    second.mark(LogMark::CaughtUp, 15);
    client.expect(&["note: node n2 answers again"]).await;
    first.lines(&[40]);
    second.lines(&[30]);
    client.expect(&["n2 30", "n1 40"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_made_meanwhile_is_followed_from_its_first_line() {
    let (alone, mut agent) = one_node(1).await;
    let mut client = client(&alone, LogsRequest { tail: Some(0), ..followed() }).await;
    let first = agent.dial(&alone).await;
    assert_eq!(first.asked.tasks[0].tail, Some(0));
    first.mark(LogMark::CaughtUp, 15);
    deploy(&alone, 2).await;
    let second = agent.dial(&alone).await;
    assert_eq!(second.asked.tasks.len(), 1, "it is asked for what it was not asked for before");
    assert_eq!((second.asked.tasks[0].tail, second.asked.tasks[0].since_nanos), (None, 0));
    second.lines(&[5]);
    client.expect(&["n1 5"]).await;
    first.mark(LogMark::Ended, 0);
    first.end();
    client.expect(&["note: task s1-1-1 has ended"]).await;
    second.lines(&[20]);
    client.expect(&["n1 20"]).await;
}

#[tokio::test(start_paused = true)]
async fn who_follows_what_has_no_task_yet_waits_for_one() {
    let alone = Alone::found().await;
    alone.deploy(&service(1)).await;
    alone.until("there is a task", |state| state.tasks().count() == 1).await;
    let nowhere = answer(&alone.api, hello()).await.map(drop).unwrap_err();
    assert_eq!(nowhere.code(), Code::NotFound);
    assert_eq!(nowhere.message(), "`hello` has no task that has been on a node yet");
    let mut client = client(&alone, followed()).await;
    let mut agent = Agent::connect(&alone, 1).await;
    let dialled = agent.dial(&alone).await;
    dialled.lines(&[10]);
    client.expect(&["n1 10"]).await;
}

#[tokio::test(start_paused = true)]
async fn following_goes_on_where_it_broke_off() {
    let (alone, mut agent) = one_node(2).await;
    let mut client = client(&alone, LogsRequest { tail: Some(3), since_nanos: Some(5), ..followed() }).await;
    let place = |dialled: &Dialled| -> Vec<(u64, Option<u32>)> {
        dialled.asked.tasks.iter().map(|task| (task.since_nanos, task.tail)).collect()
    };
    let dialled = agent.dial(&alone).await;
    assert_eq!(place(&dialled), [(5, Some(3)), (5, Some(3))]);
    dialled.lines(&[10]);
    client.expect(&["n1 10"]).await;
    drop(dialled);
    client.expect(&["warning: node n1 broke off"]).await;
    let dialled = agent.dial(&alone).await;
    assert_eq!(place(&dialled), [(11, None), (5, Some(3))], "of the other one nothing was read");
    dialled.mark(LogMark::CaughtUp, 20);
    client.expect(&["note: node n1 answers again"]).await;
    drop(dialled);
    client.expect(&["warning: node n1 broke off"]).await;
    let dialled = agent.dial(&alone).await;
    assert_eq!(place(&dialled), [(20, None), (20, None)], "all that there was before has been read");
    dialled.lines(&[30]);
    client.expect(&["note: node n1 answers again", "n1 30"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_goes_on_where_it_was() {
    let (alone, mut agent) = one_node(2).await;
    let read = vec![LogRead { task: "s1-2-2".to_owned(), at: 70 }];
    let request = LogsRequest { tail: Some(3), read, ..followed() };
    let _client = client(&alone, request).await;
    let dialled = agent.dial(&alone).await;
    let asked: Vec<_> = dialled.asked.tasks.iter().map(|task| (task.since_nanos, task.tail)).collect();
    assert_eq!(asked, [(0, Some(3)), (71, None)]);
    let malformed = vec![LogRead { task: "web".to_owned(), at: 70 }];
    let refused = answer(&alone.api, LogsRequest { read: malformed, ..hello() }).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn what_is_followed_ends_when_it_is_removed() {
    let (alone, mut agent) = one_node(1).await;
    let mut of_stack = client(&alone, followed()).await;
    let of_stack_dialled = agent.dial(&alone).await;
    let mut of_task = client(&alone, LogsRequest { reference: "s1-1-1".to_owned(), ..followed() }).await;
    let of_task_dialled = agent.dial(&alone).await;
    for dialled in [&of_stack_dialled, &of_task_dialled] {
        dialled.lines(&[10]);
        dialled.mark(LogMark::Removed, 0);
        dialled.end();
    }
    of_stack.expect(&["n1 10", "note: task s1-1-1 was removed"]).await;
    of_task.expect(&["n1 10", "note: task s1-1-1 was removed"]).await;
    assert_eq!(of_task.next().await, None);
    remove(&alone).await;
    of_stack.expect(&["note: `hello` was removed"]).await;
    assert_eq!(of_stack.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_removed_while_its_node_is_away_is_not_waited_for() {
    let (alone, mut agent) = one_node(1).await;
    let mut client = client(&alone, LogsRequest { reference: "s1-1-1".to_owned(), ..followed() }).await;
    drop(agent.dial(&alone).await);
    client.expect(&["warning: node n1 broke off"]).await;
    remove(&alone).await;
    client.expect(&["note: task s1-1-1 was removed"]).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_followed_until_a_time_ends_then_also_if_a_node_does_not() {
    let (alone, mut agent) = one_node(1).await;
    let until_nanos = Some((NOW.0 + 10_000) * 1_000_000);
    let asked = Instant::now();
    let mut client = client(&alone, LogsRequest { until_nanos, ..followed() }).await;
    let dialled = agent.dial(&alone).await;
    assert_eq!(dialled.asked.until_nanos, until_nanos);
    dialled.lines(&[10]);
    dialled.mark(LogMark::CaughtUp, 15);
    client.expect(&["n1 10"]).await;
    assert_eq!(client.next().await, None);
    assert_eq!(asked.elapsed().as_secs(), 11);
}

#[tokio::test(start_paused = true)]
async fn what_a_node_does_not_have_is_named_if_it_was_asked_for_by_its_id() {
    let (alone, mut agent) = one_node(1).await;
    let by_id = LogsRequest { reference: "s1-1-1".to_owned(), ..hello() };
    for (request, notes) in [(hello(), 0), (by_id, 1)] {
        let mut client = client(&alone, request).await;
        let dialled = agent.dial(&alone).await;
        dialled.mark(LogMark::NotHere, 0);
        dialled.end();
        for _ in 0..notes {
            client.expect(&["note: nothing of task s1-1-1 is on node n1"]).await;
        }
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_reads_more_logs_of_a_node_than_it_has_files_for() {
    let (alone, _agent) = one_node(201).await;
    let refused = answer(&alone.api, followed()).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().starts_with("`hello` stands for 201 slots on node n1"),
        "{}",
        refused.message()
    );
}
