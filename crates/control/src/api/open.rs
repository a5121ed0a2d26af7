//! A client and a node about one task, or about all of a node's: found, dialled, and then passed through piece by piece.
//!
//! The manager does not look into what is said. Both ways have flow control: a piece is taken from one side when the other
//! has room for it.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use model::{NodeId, ServiceId, Shown, TaskId};
use state::State;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Status, Streaming};
use wire::proto::agent::{Chunk, Open, OpenTask, chunk, open};
use wire::proto::api::{OpenInput, OpenTarget, open_target};
use wire::proto::model::Nothing;
use wire::proto::stream::Piece;

use crate::api::{Answers, Api};
use crate::streams::{Dialled, driven};

/// How long a node has to dial a stream that it was told to open.
const DIAL: Duration = Duration::from_secs(5);

pub(super) async fn answer(api: &Api, inputs: Streaming<OpenInput>) -> Result<Answers<Piece>, Status> {
    // The node hears the first word when there are answers to read, so nothing was begun that is refused here.
    connect(api, inputs).await.map_err(|mut refused| {
        refused.metadata_mut().insert(wire::NOT_BEGUN, MetadataValue::from_static("1"));
        refused
    })
}

async fn connect(api: &Api, mut inputs: Streaming<OpenInput>) -> Result<Answers<Piece>, Status> {
    let unsaid = || Status::invalid_argument("the first message has to name a task or a node, and to begin");
    let first = inputs.message().await?.ok_or_else(unsaid)?;
    let target = first.target.and_then(|OpenTarget { kind }| kind).ok_or_else(unsaid)?;
    let begin = first.piece.ok_or_else(unsaid)?;
    let state = api.state().await?;
    let (node, what) = match target {
        open_target::Kind::Task(reference) => task(&state, &reference)?,
        open_target::Kind::Node(name) => self::node(&state, &name)?,
    };
    let Dialled { incoming, outgoing } = dial(api, &state, node, what).await?;
    let inputs = inputs.map_ok(|OpenInput { target: _, piece }| piece).boxed();
    Ok(Box::pin(driven(answers(incoming).boxed(), pass(begin, inputs, outgoing))))
}

/// The task that a reference stands for, and the node that has it.
fn task(state: &State, reference: &str) -> Result<(NodeId, open::What), Status> {
    let id = match reference.parse::<TaskId>() {
        Ok(id) => id,
        Err(_) => running(state, reference)?,
    };
    let row = state.task(id).ok_or_else(|| Status::not_found(format!("there is no task {id}")))?;
    let node = row.placement.as_ref().map(|placement| placement.node);
    let node = node.ok_or_else(|| {
        Status::aborted(format!("task {id} has no node yet; `gantry ps --all` says what it waits for"))
    })?;
    Ok((node, open::What::Task(OpenTask { task: Some(id.into()) })))
}

/// The running task of a slot, or of the lowest slot that has one.
fn running(state: &State, reference: &str) -> Result<TaskId, Status> {
    let place = Place::named(state, reference)?;
    if let Some(task) = place.running(state) {
        return Ok(task);
    }
    match place.tasks(state).filter(|(_, row)| row.is_live()).last() {
        Some((task, row)) => {
            let shown = row.shown(is_down(state, row)).as_str();
            Err(Status::aborted(format!("`{reference}` has no running task: {task} is {shown}")))
        }
        None => Err(Status::aborted(format!("`{reference}` has no running task"))),
    }
}

/// Where tasks of a service run: in one slot, or in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    service: ServiceId,
    slot: Option<u32>,
}

impl Place {
    pub(super) fn named(state: &State, reference: &str) -> Result<Self, Status> {
        let (name, slot) = match reference.rsplit_once('.') {
            Some((name, slot)) => match slot.parse::<u32>() {
                Ok(slot) => (name, Some(slot)),
                Err(_) => (reference, None),
            },
            None => (reference, None),
        };
        let unknown = || {
            Status::not_found(format!(
                "there is no service or task `{reference}`; name a task, STACK/SERVICE or STACK/SERVICE.SLOT"
            ))
        };
        let (service, _) =
            name.parse().ok().and_then(|name| state.service_named(&name)).ok_or_else(unknown)?;
        Ok(Self { service, slot })
    }

    /// By slot and then by age.
    pub(super) fn tasks(self, state: &State) -> impl Iterator<Item = (TaskId, &model::Task)> {
        state.tasks_of(self.service).filter(move |(task, _)| self.slot.is_none_or(|slot| slot == task.slot))
    }

    /// What runs here. Of a slot that is being replaced, the older one still does the work.
    pub(super) fn running(self, state: &State) -> Option<TaskId> {
        let is_running = |row: &model::Task| match row.shown(is_down(state, row)) {
            Shown::Running | Shown::Starting => true,
            Shown::Pending
            | Shown::Assigned
            | Shown::Preparing
            | Shown::Created
            | Shown::Stopping
            | Shown::Restarting
            | Shown::Exited
            | Shown::Failed
            | Shown::Lost
            | Shown::Cancelled => false,
        };
        self.tasks(state).find(|(_, row)| row.is_live() && is_running(row)).map(|(task, _)| task)
    }
}

fn is_down(state: &State, row: &model::Task) -> bool {
    let node = row.placement.as_ref().and_then(|placement| state.node(placement.node));
    node.is_some_and(|node| matches!(node.liveness, model::Liveness::Down { .. }))
}

fn node(state: &State, name: &str) -> Result<(NodeId, open::What), Status> {
    let found = state.nodes().find(|(_, node)| node.name.as_str() == name);
    let (id, _) = found.ok_or_else(|| Status::not_found(format!("there is no node `{name}`")))?;
    Ok((id, open::What::Node(Nothing {})))
}

/// Has a node open a stream, and waits until it has.
pub(super) async fn dial(
    api: &Api,
    state: &State,
    node: NodeId,
    what: open::What,
) -> Result<Dialled, Status> {
    let name = || state.node(node).map_or_else(|| node.to_string(), |node| node.name.to_string());
    let expected = api.streams.expect();
    let open = Open { stream: expected.id.clone(), what: Some(what) };
    let told = api.dispatcher.tell(node, open).await;
    told.map_err(|_| Status::unavailable(format!("node {} is not connected", name())))?;
    match tokio::time::timeout(DIAL, expected.dialled()).await {
        Ok(Some(dialled)) => Ok(dialled),
        Ok(None) | Err(_) => Err(Status::unavailable(format!("node {} did not answer", name()))),
    }
}

/// What the client says, to the node. Ends when the node has hung up; never because the client has no more to say, which
/// would tell the node that nobody listens.
async fn pass(
    begin: Piece,
    mut inputs: BoxStream<'static, Result<Option<Piece>, Status>>,
    outgoing: mpsc::Sender<Result<Chunk, Status>>,
) {
    let chunk = |piece| Ok(Chunk { kind: Some(chunk::Kind::Piece(piece)) });
    if outgoing.send(chunk(begin)).await.is_err() {
        return;
    }
    while let Some(Ok(input)) = inputs.next().await {
        let Some(piece) = input else { continue };
        if outgoing.send(chunk(piece)).await.is_err() {
            return;
        }
    }
    outgoing.closed().await;
}

/// What the node says, to the client, until it has said all.
fn answers(incoming: Streaming<Chunk>) -> impl futures::Stream<Item = Result<Piece, Status>> + Send {
    futures::stream::unfold(Some(incoming), |incoming| async move {
        let mut incoming = incoming?;
        loop {
            return match incoming.message().await {
                Ok(Some(Chunk { kind })) => match kind {
                    Some(chunk::Kind::Piece(piece)) => Some((Ok(piece), Some(incoming))),
                    Some(chunk::Kind::Failure(why)) => Some((Err(Status::failed_precondition(why)), None)),
                    Some(chunk::Kind::End(_)) => None,
                    // Of other streams than this one.
                    Some(
                        chunk::Kind::Data(_)
                        | chunk::Kind::Line(_)
                        | chunk::Kind::Import(_)
                        | chunk::Kind::Transfer(_)
                        | chunk::Kind::Document(_),
                    )
                    | None => continue,
                },
                Ok(None) => Some((Err(Status::unavailable("the node hung up in the middle")), None)),
                Err(status) => {
                    Some((Err(Status::unavailable(format!("the node is gone: {}", status.message()))), None))
                }
            };
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, service};

    async fn find(alone: &Alone, reference: &str) -> Result<String, String> {
        let state = alone.api.state().await.unwrap();
        match task(&state, reference) {
            Ok((node, open::What::Task(OpenTask { task }))) => {
                Ok(format!("{} on {node}", TaskId::try_from(task.unwrap()).unwrap()))
            }
            Ok(other) => panic!("{other:?}"),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reference_stands_for_a_task_by_its_id_and_for_nothing_that_does_not_run() {
        let alone = Alone::found().await;
        let _session = alone.connect(1).await;
        alone.deploy(&service(1)).await;
        alone
            .until("the task has a node", |state| state.tasks().any(|(_, task)| task.placement.is_some()))
            .await;
        let (id, name) = {
            let state = alone.api.state().await.unwrap();
            let (id, _) = state.tasks().next().unwrap();
            (id, state.service(id.service).unwrap().name.to_string())
        };
        assert_eq!(find(&alone, &id.to_string()).await, Ok(format!("{id} on n1")));
        for reference in [name.clone(), format!("{name}.1")] {
            let why = format!("`{reference}` has no running task: {id} is assigned");
            assert_eq!(find(&alone, &reference).await, Err(why));
        }
        assert_eq!(find(&alone, &format!("{name}.7")).await, Err(format!("`{name}.7` has no running task")));
        assert_eq!(find(&alone, "s99-1-1").await, Err("there is no task s99-1-1".to_owned()));
        assert!(find(&alone, "nothing").await.is_err());
        assert!(find(&alone, "no/such").await.is_err());
    }
}
