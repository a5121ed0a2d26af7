//! What containers wrote, from the nodes that they ran on.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::TaskId;
use state::State;
use tonic::Status;
use wire::proto::agent::{Chunk, LogLine, Open, OpenLogs, chunk, open};
use wire::proto::api::{LogEntry, LogsRequest};

use crate::api::{Answers, Api};

/// How long a node has to dial a stream that it was told to open.
const DIAL: Duration = Duration::from_secs(5);

/// The most tasks whose logs are read at once.
const TASKS: usize = 200;

pub(super) async fn answer(api: &Api, request: LogsRequest) -> Result<Answers<LogEntry>, Status> {
    let state = api.state().await?;
    let tasks = find(&state, &request.reference)?;
    if tasks.len() > TASKS {
        let (found, reference) = (tasks.len(), &request.reference);
        return Err(Status::invalid_argument(format!(
            "`{reference}` stands for {found} tasks; logs are read from {TASKS} at most: name a slot, STACK/SERVICE.SLOT"
        )));
    }
    let mut sources = Vec::new();
    for id in tasks {
        sources.push(open(api, &state, id, &request).await);
    }
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

/// One task's lines. What cannot be had becomes a note among them, so that one lost node does not hide the others.
async fn open(
    api: &Api,
    state: &State,
    id: TaskId,
    request: &LogsRequest,
) -> BoxStream<'static, Result<LogEntry, Status>> {
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
    let expected = api.streams.expect();
    let what =
        OpenLogs { task: Some(id.into()), follow: request.follow, since: request.since, tail: request.tail };
    let open = Open { stream: expected.id.clone(), what: Some(open::What::Logs(what)) };
    let note = |template: LogEntry, note: String| {
        futures::stream::once(std::future::ready(Ok(LogEntry { note, ..template }))).boxed()
    };
    if api.dispatcher.tell(node, open).await.is_err() {
        let why = format!(
            "node {} is not connected, so what {} wrote there cannot be read",
            template.node, template.task
        );
        return note(template, why);
    }
    match tokio::time::timeout(DIAL, expected.dialled()).await {
        Ok(Some(dialled)) => {
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
        Ok(None) | Err(_) => {
            let why = format!("node {} did not answer", template.node);
            note(template, why)
        }
    }
}

fn entry(template: &LogEntry, chunk: Chunk) -> Option<Result<LogEntry, Status>> {
    match chunk.kind {
        Some(chunk::Kind::Line(LogLine { at, stderr, text })) => {
            Some(Ok(LogEntry { at, stderr, text, ..template.clone() }))
        }
        Some(chunk::Kind::Failure(note)) => Some(Ok(LogEntry { note, ..template.clone() })),
        Some(chunk::Kind::End(_) | chunk::Kind::Data(_) | chunk::Kind::Import(_)) | None => None,
    }
}

/// Lines of several tasks in the order of their times.
fn merge(
    sources: Vec<BoxStream<'static, Result<LogEntry, Status>>>,
) -> impl futures::Stream<Item = Result<LogEntry, Status>> + Send {
    let heads: Vec<_> = sources.into_iter().map(|source| (None, source)).collect();
    futures::stream::unfold(heads, |mut heads| async move {
        let mut open = Vec::with_capacity(heads.len());
        for (head, mut source) in heads.drain(..) {
            let head = match head {
                Some(head) => Some(head),
                None => source.next().await,
            };
            if let Some(head) = head {
                open.push((Some(head), source));
            }
        }
        let earliest = open
            .iter()
            .enumerate()
            .min_by_key(|(at, (head, _))| match head {
                Some(Ok(entry)) => (entry.at, *at),
                Some(Err(_)) | None => (0, *at),
            })
            .map(|(at, _)| at)?;
        let head = open[earliest].0.take()?;
        Some((head, open))
    })
}
