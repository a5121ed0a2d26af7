//! A container's changes on their way into an image: made on its node, and copied to a second.

use model::{Desired, NodeId, TaskId};
use state::State;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::proto::agent::{ImportEvent, ImportedImage, OpenCommit, chunk, open};
use wire::proto::api::{CommitRequest, ImportProgress};

use crate::api::images::{Progress, record, say};
use crate::api::open::{Place, dial};
use crate::api::{ANSWERS, Answers, Api, image_tag};
use crate::streams::{Dialled, driven};

pub(super) async fn commit(api: Api, request: CommitRequest) -> Result<Answers<ImportProgress>, Status> {
    let CommitRequest { reference, name, message, author, no_pause, changes } = request;
    let name = image_tag(&name)?;
    for change in &changes {
        image::Change::parse(change).map_err(|error| Status::invalid_argument(error.to_string()))?;
    }
    let state = api.state().await?;
    let (task, node) = task(&state, &reference)?;
    let commit = OpenCommit { task: Some(task.into()), message, author, no_pause, changes };
    let dialled = dial(&api, &state, node, open::What::Commit(commit)).await?;
    let (progress, answers) = mpsc::channel(ANSWERS);
    // The work lives in the answer: when the client hangs up, it is dropped half way, and the node discards its part.
    let work = async move {
        let done = match follow(dialled, &progress).await {
            Ok(done) => record(&api, node, done, Some(name), &progress).await,
            Err(status) => Err(status),
        };
        if let Err(status) = done {
            let _ = progress.send(Err(status)).await;
        }
    };
    Ok(Box::pin(driven(ReceiverStream::new(answers), work)))
}

/// What a reference stands for: what runs there, or what ended last, and its node.
fn task(state: &State, reference: &str) -> Result<(TaskId, NodeId), Status> {
    let id = match reference.parse::<TaskId>() {
        Ok(id) => id,
        Err(_) => latest(state, reference)?,
    };
    let row = state.task(id).ok_or_else(|| Status::not_found(format!("there is no task {id}")))?;
    match &row.placement {
        Some(placement) => Ok((id, placement.node)),
        None => Err(Status::aborted(format!(
            "task {id} has no node yet; `gantry ps --all` says what it waits for"
        ))),
    }
}

fn latest(state: &State, reference: &str) -> Result<TaskId, Status> {
    let place = Place::named(state, reference)?;
    if let Some(task) = place.running(state) {
        return Ok(task);
    }
    // What is to be removed may have lost its files already.
    let is_kept = |row: &model::Task| row.desired != Desired::Removed && row.placement.is_some();
    let kept = place.tasks(state).filter(|(_, row)| is_kept(row));
    let last = kept.max_by_key(|(id, row)| (row.status.as_ref().map(|status| status.at), id.sequence));
    let nothing = || Status::aborted(format!("`{reference}` has no container, and none that has ended"));
    last.map(|(id, _)| id).ok_or_else(nothing)
}

/// Passes on what the node tells, until the image is there.
async fn follow(dialled: Dialled, progress: &Progress) -> Result<ImportedImage, Status> {
    // The node takes the end of this direction for the client's having hung up.
    let Dialled { mut incoming, outgoing: _open } = dialled;
    while let Some(chunk) = incoming.message().await? {
        match chunk.kind {
            Some(chunk::Kind::Import(ImportEvent { read, done })) => match done {
                Some(done) => return Ok(done),
                None => say(progress, "committing", read).await,
            },
            Some(chunk::Kind::Failure(why)) => return Err(Status::failed_precondition(why)),
            Some(
                chunk::Kind::Data(_)
                | chunk::Kind::Line(_)
                | chunk::Kind::End(_)
                | chunk::Kind::Piece(_)
                | chunk::Kind::Transfer(_)
                | chunk::Kind::Document(_),
            )
            | None => {}
        }
    }
    Err(Status::unavailable("the node that was committing has gone"))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::fixture::World;

    /// Two slots with a container each, and then what `more` says.
    fn world(more: &str) -> World {
        World::of(&format!(
            "nodes n1
             service hello/web x2 restart=never
             deploy
             settle
             {more}"
        ))
    }

    fn find(world: &World, reference: &str) -> Result<String, (Code, String)> {
        task(&world.state, reference)
            .map(|(task, node)| format!("{task} on {node}"))
            .map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[test]
    fn a_reference_stands_for_what_runs_or_for_what_ended_last() {
        let world = world("report web.2 completed");
        let (one, two) = (world.task("web.1"), world.task("web.2"));
        assert_eq!(find(&world, "hello/web"), Ok(format!("{one} on n1")));
        assert_eq!(find(&world, "hello/web.2"), Ok(format!("{two} on n1")));
        assert_eq!(find(&world, &two.to_string()), Ok(format!("{two} on n1")));
    }

    #[test]
    fn what_has_no_container_is_refused() {
        let world = world("");
        assert_eq!(find(&world, "hello/web.9").unwrap_err().0, Code::Aborted);
        assert_eq!(find(&world, "hello/db").unwrap_err().0, Code::NotFound);
        assert_eq!(find(&world, "s99-1-1").unwrap_err().0, Code::NotFound);
    }
}
