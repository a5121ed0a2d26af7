//! An archive on its way from the client to one node, and from there to a second. And what images are called.

use std::time::Duration;

use model::{ImageName, Liveness, NodeId};
use state::{Command, Rejected, State};
use store::Store;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::proto::agent::{Chunk, ImportedImage, Open, OpenImport, chunk, open};
use wire::proto::api::{ChangeReply, ImportChunk, ImportProgress, TagImageRequest};

use crate::api::{ANSWERS, Answers, Api, change, image_name, image_tag, refused, views};
use crate::streams::Dialled;

/// How long a node has to dial a stream that it was told to open.
const DIAL: Duration = Duration::from_secs(5);
/// How long a second node has to copy the image before the import is called a success with a single copy.
const SECOND_COPY: Duration = Duration::from_secs(300);

/// Sends answers until the image is in the cluster; dropped when the client goes away.
pub(super) type Progress = mpsc::Sender<Result<ImportProgress, Status>>;

pub(super) async fn import(
    api: Api,
    mut chunks: Streaming<ImportChunk>,
) -> Result<Answers<ImportProgress>, Status> {
    let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("no archive was sent"))?;
    let name = if first.name.is_empty() { None } else { Some(image_tag(&first.name)?) };
    let node = choose_node(&api).await?;
    let dialled = dial(&api, node, open::What::Import(OpenImport {})).await?;
    let (progress, answers) = mpsc::channel(ANSWERS);
    // The work lives in the answer: when the client hangs up, it is dropped half way, and the node discards its part.
    let work = async move {
        let done = run(&api, node, dialled, first.data, chunks, name, &progress).await;
        if let Err(status) = done {
            let _ = progress.send(Err(status)).await;
        }
    };
    Ok(Box::pin(crate::streams::driven(ReceiverStream::new(answers), work)))
}

/// Gives an image another name.
pub(super) async fn tag(api: &Api, request: TagImageRequest) -> Result<ChangeReply, Status> {
    let TagImageRequest { request, name, target } = request;
    let (name, target) = (image_name(&name)?, image_tag(&target)?);
    let state = api.state().await?;
    if let Some(outcome) = api.answered(&state, &request)? {
        return Ok(change(&outcome.map_err(|rejected| refused(&rejected))?, 0, Vec::new()));
    }
    let image = state.image_named(&name).ok_or_else(|| absent(&name))?;
    let size = model::Bytes(0);
    let named = Command::NameImage { name: target, image, size, origin: None, automatic: false };
    Ok(change(&api.propose_one(&request, named).await?, 0, Vec::new()))
}

pub(super) fn absent(name: &ImageName) -> Status {
    refused(&Rejected::NoImage(name.clone()))
}

/// The leader's own node if it can, since the archive is here already; otherwise the first that is connected.
pub(super) async fn choose_node(api: &Api) -> Result<NodeId, Status> {
    let connected = api.dispatcher.connected().await;
    let own = connected.iter().find(|node| **node == api.parts.node);
    let node = own.or_else(|| connected.first()).copied();
    node.ok_or_else(|| Status::unavailable("no node is connected that could take the image; try again"))
}

/// Has the node open a stream, and waits until it has.
pub(super) async fn dial(api: &Api, node: NodeId, what: open::What) -> Result<Dialled, Status> {
    let expected = api.streams.expect();
    let open = Open { stream: expected.id.clone(), what: Some(what) };
    api.dispatcher.tell(node, open).await.map_err(|error| Status::unavailable(error.to_string()))?;
    match tokio::time::timeout(DIAL, expected.dialled()).await {
        Ok(Some(dialled)) => Ok(dialled),
        Ok(None) | Err(_) => Err(Status::unavailable(format!("node {node} did not answer"))),
    }
}

async fn run(
    api: &Api,
    node: NodeId,
    mut dialled: Dialled,
    first: Vec<u8>,
    mut chunks: Streaming<ImportChunk>,
    name: Option<ImageName>,
    progress: &Progress,
) -> Result<(), Status> {
    let outgoing = dialled.outgoing;
    let send = async move {
        let gone = || Status::unavailable("the node that was importing has gone");
        let data = |data| Ok(Chunk { kind: Some(chunk::Kind::Data(data)) });
        outgoing.send(data(first)).await.map_err(|_| gone())?;
        while let Some(next) = chunks.message().await? {
            // The node ends the stream early when it refuses the archive; what it says about that comes the other way.
            if outgoing.send(data(next.data)).await.is_err() {
                return Ok(());
            }
        }
        let _ = outgoing.send(Ok(Chunk { kind: Some(chunk::Kind::End(true)) })).await;
        Ok::<(), Status>(())
    };
    let receive = async {
        while let Some(chunk) = dialled.incoming.message().await? {
            match chunk.kind {
                Some(chunk::Kind::Import(event)) => match event.done {
                    Some(done) => return Ok(done),
                    None => say(progress, "importing", event.read).await,
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
        Err(Status::unavailable("the node that was importing has gone"))
    };
    let (mut send, mut receive) = (std::pin::pin!(send), std::pin::pin!(receive));
    let done = tokio::select! {
        biased;
        // What the node says of the archive explains more than that it stopped reading, and ends the upload.
        done = &mut receive => done?,
        sent = &mut send => {
            let done = receive.await?;
            sent?;
            done
        }
    };
    record(api, node, done, name, progress).await
}

/// Gives an image that has come to be on a node its names, and waits for the second copy.
pub(super) async fn record(
    api: &Api,
    node: NodeId,
    done: ImportedImage,
    name: Option<ImageName>,
    progress: &Progress,
) -> Result<(), Status> {
    let digest = wire::digest(&done.digest).map_err(|error| Status::internal(error.to_string()))?;
    let names = match name {
        Some(name) => vec![name],
        None => done.names.iter().map(|name| image_tag(name)).collect::<Result<_, _>>()?,
    };
    if names.is_empty() {
        return Err(Status::invalid_argument(
            "the archive does not say what the image is called; name it: `gantry image import FILE NAME`",
        ));
    }
    let put = |name| Command::PutImage { name, image: digest, size: model::Bytes(done.size), holder: node };
    for outcome in api.propose("", names.iter().cloned().map(put).collect()).await? {
        outcome.map_err(|rejected| refused(&rejected))?;
    }
    say(progress, "copying to a second node", done.size).await;
    let state = second_copy(&api.parts.store, digest).await?;
    let image = views::images(&state).images.into_iter().find(|image| image.name == names[0].as_str());
    let last = ImportProgress { stage: "done".to_owned(), bytes: done.size, image };
    let _ = progress.send(Ok(last)).await;
    Ok(())
}

/// Waits until two nodes that are up hold the image, or all of them where there is only one.
async fn second_copy(store: &Store, digest: model::Digest) -> Result<State, Status> {
    let mut watch = store.watch();
    let enough = |state: &State| {
        let up = |id: &NodeId| state.node(*id).is_some_and(|node| node.liveness == Liveness::Ready);
        let held = state
            .image(digest)
            .map_or(0, |image| image.copies.iter().filter(|(id, since)| since.is_some() && up(id)).count());
        held >= state.nodes().filter(|(id, _)| up(id)).count().clamp(1, 2)
    };
    let wait = async {
        loop {
            let state = store.state();
            if enough(&state) {
                return state;
            }
            watch.next().await;
        }
    };
    let late =
        || Status::deadline_exceeded("the image is in the cluster, but no second node has a copy of it yet");
    tokio::time::timeout(SECOND_COPY, wait).await.map_err(|_| late())
}

pub(super) async fn say(progress: &Progress, stage: &str, bytes: u64) {
    // Progress that nobody reads any more is no reason to stop: the work itself is dropped with the call.
    let _ = progress.send(Ok(ImportProgress { stage: stage.to_owned(), bytes, image: None })).await;
}
