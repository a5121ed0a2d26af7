//! What containers wrote, from the nodes that they ran on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use model::{NodeId, TaskId};
use state::State;
use tokio::sync::Semaphore;
use tonic::Status;
use wire::proto::agent::{Chunk, LogLine, Open, OpenLogs, chunk, open};
use wire::proto::api::{LogEntry, LogsRequest};

use crate::api::{Answers, Api};
use crate::streams::Dialled;

/// How long a node has to dial a stream that it was told to open.
const DIAL: Duration = Duration::from_secs(5);

/// The most tasks whose logs are read at once.
const TASKS: usize = 200;

/// The most streams that one node is asked to open at the same time: a session has room for some hundred messages, and a
/// node whose session is full loses it.
const OPENING: usize = 32;

type Entry = Result<LogEntry, Status>;
type Lines = BoxStream<'static, Entry>;
/// The next entry of a source, and what follows it.
type Head = (Entry, Lines);

/// How many more streams each node may be asked to open now. Closed for a node that has not answered once.
type Doors = BTreeMap<NodeId, Arc<Semaphore>>;

/// Why a node's logs cannot be read.
enum Unread {
    NotConnected,
    Silent,
}

pub(super) async fn answer(api: &Api, request: LogsRequest) -> Result<Answers<LogEntry>, Status> {
    let state = api.state().await?;
    let tasks = find(&state, &request.reference)?;
    if tasks.len() > TASKS {
        let (found, reference) = (tasks.len(), &request.reference);
        return Err(Status::invalid_argument(format!(
            "`{reference}` stands for {found} tasks; logs are read from {TASKS} at most: name a slot, STACK/SERVICE.SLOT"
        )));
    }
    let mut doors = Doors::new();
    let sources: Vec<Lines> =
        tasks.into_iter().map(|id| lines(api, &state, id, &request, &mut doors)).collect();
    if request.follow {
        return Ok(Box::pin(futures::stream::select_all(sources)));
    }
    Ok(Box::pin(merge(sources)))
}

/// The tasks that a reference stands for: the latest of every slot that it names.
fn find(state: &State, reference: &str) -> Result<Vec<TaskId>, Status> {
    if let Ok(id) = reference.parse::<TaskId>() {
        return match state.task(id) {
            Some(_) => Ok(vec![id]),
            None => Err(Status::not_found(format!("there is no task {id}"))),
        };
    }
    let (name, slot) = match reference.rsplit_once('.') {
        Some((name, slot)) => match slot.parse::<u32>() {
            Ok(slot) => (name, Some(slot)),
            Err(_) => (reference, None),
        },
        None => (reference, None),
    };
    let services = state.services().filter(|(_, service)| {
        service.name.to_string() == name || (slot.is_none() && service.name.stack.as_str() == name)
    });
    let mut tasks: Vec<TaskId> = Vec::new();
    let mut known = false;
    for (id, _) in services {
        known = true;
        for (task, row) in state.tasks_of(id) {
            if slot.is_some_and(|slot| slot != task.slot) || row.placement.is_none() {
                continue;
            }
            match tasks.last_mut() {
                // Tasks come by slot and then by age, so the last of a slot is its latest.
                Some(last) if (last.service, last.slot) == (task.service, task.slot) => *last = task,
                Some(_) | None => tasks.push(task),
            }
        }
    }
    match (known, tasks.is_empty()) {
        (false, _) => Err(Status::not_found(format!("there is no stack, service or task `{reference}`"))),
        (true, true) => {
            Err(Status::not_found(format!("`{reference}` has no task that has been on a node yet")))
        }
        (true, false) => Ok(tasks),
    }
}

/// One task's lines, asked for when they are first read. What cannot be had becomes a note among them, so that one lost node
/// does not hide the others.
fn lines(api: &Api, state: &State, id: TaskId, request: &LogsRequest, doors: &mut Doors) -> Lines {
    let service = state.service(id.service).map(|service| service.name.to_string()).unwrap_or_default();
    let placement = state.task(id).and_then(|task| task.placement.as_ref());
    let Some(node) = placement.map(|placement| placement.node) else {
        return futures::stream::empty().boxed();
    };
    let template = LogEntry {
        service,
        slot: id.slot,
        task: id.to_string(),
        node: state.node(node).map(|node| node.name.to_string()).unwrap_or_default(),
        ..LogEntry::default()
    };
    let what =
        OpenLogs { task: Some(id.into()), follow: request.follow, since: request.since, tail: request.tail };
    let door = doors.entry(node).or_insert_with(|| Arc::new(Semaphore::new(OPENING))).clone();
    let api = api.clone();
    let opened = async move {
        match open(&api, node, what, &door).await {
            Ok(dialled) => read(dialled, template),
            Err(why) => note(template, &why),
        }
    };
    opened.flatten_stream().boxed()
}

async fn open(api: &Api, node: NodeId, what: OpenLogs, door: &Semaphore) -> Result<Dialled, Unread> {
    let _place = door.acquire().await.map_err(|_| Unread::Silent)?;
    let expected = api.streams.expect();
    let open = Open { stream: expected.id.clone(), what: Some(open::What::Logs(what)) };
    api.dispatcher.tell(node, open).await.map_err(|_| Unread::NotConnected)?;
    match tokio::time::timeout(DIAL, expected.dialled()).await {
        Ok(Some(dialled)) => Ok(dialled),
        Ok(None) | Err(_) => {
            // Who waits to ask it as well would wait as long again.
            door.close();
            Err(Unread::Silent)
        }
    }
}

fn read(dialled: Dialled, template: LogEntry) -> Lines {
    // The sender is kept: closing it would tell the node that nobody reads any more.
    let lines = futures::stream::unfold((dialled, template), |(mut dialled, template)| async move {
        let entry = match dialled.incoming.message().await {
            Ok(Some(chunk)) => entry(&template, chunk)?,
            Ok(None) => return None,
            Err(status) => Ok(LogEntry { note: status.message().to_owned(), ..template.clone() }),
        };
        Some((entry, (dialled, template)))
    });
    lines.boxed()
}

fn note(template: LogEntry, why: &Unread) -> Lines {
    let (node, task) = (&template.node, &template.task);
    let note = match why {
        Unread::NotConnected => {
            format!("node {node} is not connected, so what {task} wrote there cannot be read")
        }
        Unread::Silent => format!("node {node} did not answer"),
    };
    futures::stream::once(std::future::ready(Ok(LogEntry { note, ..template }))).boxed()
}

fn entry(template: &LogEntry, chunk: Chunk) -> Option<Result<LogEntry, Status>> {
    match chunk.kind {
        Some(chunk::Kind::Line(LogLine { at, stderr, text })) => {
            Some(Ok(LogEntry { at, stderr, text, ..template.clone() }))
        }
        Some(chunk::Kind::Failure(note)) => Some(Ok(LogEntry { note, ..template.clone() })),
        Some(chunk::Kind::End(_) | chunk::Kind::Data(_) | chunk::Kind::Import(_) | chunk::Kind::Piece(_))
        | None => None,
    }
}

/// Lines of several tasks in the order of their times.
fn merge(sources: Vec<Lines>) -> impl futures::Stream<Item = Entry> + Send {
    // Which is the first is known when all have begun. They are asked at the same time.
    let heads = futures::future::join_all(sources.into_iter().map(head));
    heads.map(|heads| in_order(heads.into_iter().flatten().collect())).flatten_stream()
}

async fn head(mut source: Lines) -> Option<Head> {
    let entry = source.next().await?;
    Some((entry, source))
}

fn in_order(heads: Vec<Head>) -> impl futures::Stream<Item = Entry> + Send {
    let nothing_given: Option<(usize, Lines)> = None;
    futures::stream::unfold((heads, nothing_given), |(mut heads, given)| async move {
        // The source of the entry before goes on in its place: between equals, the order is that of the tasks.
        if let Some((at, source)) = given
            && let Some(next) = head(source).await
        {
            heads.insert(at, next);
        }
        let (at, _) = heads.iter().enumerate().min_by_key(|(at, (entry, _))| match entry {
            Ok(entry) => (entry.at, *at),
            Err(_) => (0, *at),
        })?;
        let (entry, source) = heads.remove(at);
        Some((entry, (heads, Some((at, source)))))
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use wire::proto::agent::from_manager;

    use super::*;
    use crate::alone::{Alone, service};

    /// A source of one line for each of these times, in order.
    fn source(name: &str, times: &[u64]) -> Lines {
        let line = |at: &u64| Ok(LogEntry { task: name.to_owned(), at: *at, ..LogEntry::default() });
        futures::stream::iter(times.iter().map(line).collect::<Vec<Entry>>()).boxed()
    }

    #[test]
    fn lines_come_in_the_order_of_their_times_and_then_of_their_tasks() {
        let sources = vec![source("a", &[1, 4, 4]), source("b", &[]), source("c", &[0, 4, 5])];
        let merged = merge(sources).collect::<Vec<Entry>>().now_or_never().expect("all of it is there");
        let merged = merged.into_iter().map(|entry| entry.map(|entry| format!("{}{}", entry.task, entry.at)));
        let merged: Result<Vec<String>, Status> = merged.collect();
        assert_eq!(merged.unwrap(), ["c0", "a1", "a4", "a4", "c4", "c5"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_is_waited_for_once() {
        let tasks = OPENING + 10;
        let alone = Alone::found().await;
        let mut session = alone.connect(1).await;
        alone.deploy(&service(u32::try_from(tasks).unwrap())).await;
        alone
            .until("all tasks have a node", |state| {
                state.tasks().filter(|(_, task)| task.placement.is_some()).count() == tasks
            })
            .await;
        let request = LogsRequest { reference: "hello".to_owned(), ..LogsRequest::default() };
        let answers = answer(&alone.api, request).await.unwrap();
        let asked = Instant::now();
        let notes = answers.map(|entry| entry.map(|entry| entry.note)).collect::<Vec<_>>().await;
        assert_eq!(asked.elapsed().as_secs(), DIAL.as_secs());
        assert_eq!(notes.len(), tasks);
        assert!(notes.iter().all(|note| note.as_ref().is_ok_and(|note| note == "node n1 did not answer")));
        let mut opens = 0;
        while let Ok(message) = session.outgoing.try_recv() {
            opens += usize::from(matches!(message.kind, Some(from_manager::Kind::Open(_))));
        }
        assert_eq!(opens, OPENING, "no more than it has room for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_does_not_answer_holds_up_nobody_who_follows() {
        let alone = Alone::found().await;
        let (_silent, gone) = (alone.connect(1).await, alone.connect(2).await);
        alone.deploy(&service(2)).await;
        alone
            .until("each node has a task", |state| {
                [1, 2].into_iter().all(|node| state.tasks_on(NodeId(node)).count() == 1)
            })
            .await;
        alone.dispatcher.close(NodeId(2), gone.id).await;
        let request = LogsRequest { reference: "hello".to_owned(), follow: true, ..LogsRequest::default() };
        let mut answers = answer(&alone.api, request).await.unwrap();
        let asked = Instant::now();
        let first = answers.next().await.unwrap().unwrap();
        assert!(first.note.starts_with("node n2 is not connected"), "{}", first.note);
        assert_eq!(asked.elapsed().as_millis(), 0, "it was not waited for the other");
        let second = answers.next().await.unwrap().unwrap();
        assert_eq!(second.note, "node n1 did not answer");
        assert!(answers.next().await.is_none());
    }
}
