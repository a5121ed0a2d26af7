//! Images between a node and a registry, or out of the cluster: a node does the work over a stream that it dials, and the
//! manager tells the client how it goes.

use std::collections::BTreeMap;
use std::time::Duration;

use image::registry::Reference;
use model::{Bytes, Digest, ImageName, NodeId};
use serde_json::Value;
use state::{Command, State};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::proto::agent::{
    ImportedImage, OpenDetails, OpenPull, OpenPush, OpenSave, TransferEvent, chunk, open,
};
use wire::proto::api::{
    InspectReply, InspectRequest, PullImageRequest, PushImageRequest, SaveChunk, SaveImageRequest,
    TransferProgress,
};
use wire::proto::model::LayerProgress;

use crate::api::images::{absent, choose_node, dial};
use crate::api::{ANSWERS, Answers, Api, image_name, image_tag, inspect as document, pins, refused, views};
use crate::dispatch::assignments;
use crate::registries::chain;
use crate::streams::{Dialled, driven};

/// How long a registry has to say what a name stands for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a node has to read what an image is made of.
const LOOK: Duration = Duration::from_secs(5);

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// The answers of `work`, which is done for exactly as long as they are read.
fn answers<T, F>(work: impl FnOnce(Sender<T>) -> F) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, answers) = mpsc::channel(ANSWERS);
    let failed = sender.clone();
    let work = work(sender);
    let work = async move {
        if let Err(status) = work.await {
            let _ = failed.send(Err(status)).await;
        }
    };
    Box::pin(driven(ReceiverStream::new(answers), work))
}

async fn say(progress: &Sender<TransferProgress>, stage: &str, layers: Vec<LayerProgress>) {
    // Progress that nobody reads any more is no reason to stop: the work itself is dropped with the call.
    let _ = progress.send(Ok(TransferProgress { stage: stage.to_owned(), layers, image: None })).await;
}

fn reference(name: &ImageName) -> Result<Reference, Status> {
    Reference::try_from(name).map_err(|error| Status::invalid_argument(format!("image `{name}`: {error}")))
}

fn gone() -> Status {
    Status::unavailable("the node that was at it has gone")
}

/// A node by its name, if it has a session here.
async fn connected(api: &Api, state: &State, name: &str) -> Result<NodeId, Status> {
    let (node, _) = state.node_named(name).ok_or_else(|| {
        Status::not_found(format!("there is no node `{name}`; `gantry node ls` lists them"))
    })?;
    match api.dispatcher.connected().await.contains(&node) {
        true => Ok(node),
        false => Err(Status::failed_precondition(format!("node `{name}` is not connected now"))),
    }
}

/// A connected node that holds the image: this one if it can.
async fn holder(api: &Api, state: &State, name: &str, image: Digest) -> Result<NodeId, Status> {
    let connected = api.dispatcher.connected().await;
    let row = state.image(image);
    let holds = |node: &NodeId| row.is_some_and(|row| row.copies.get(node).is_some_and(Option::is_some));
    let own = connected.iter().find(|node| **node == api.parts.node && holds(node));
    let found = own.or_else(|| connected.iter().find(|node| holds(node))).copied();
    found.ok_or_else(|| {
        let next = match row.and_then(|row| row.origin.as_ref()) {
            Some(_) => format!("; `gantry image pull {name}` brings it to one"),
            None => String::new(),
        };
        Status::failed_precondition(format!("no node that is connected holds image `{name}`{next}"))
    })
}

pub(super) async fn pull(api: Api, request: PullImageRequest) -> Result<Answers<TransferProgress>, Status> {
    let PullImageRequest { name, node } = request;
    let name = image_name(&name)?;
    let reference = reference(&name)?;
    let state = api.state().await?;
    let node = match node.as_str() {
        "" => choose_node(&api).await?,
        named => connected(&api, &state, named).await?,
    };
    Ok(answers(|progress| async move { bring(&api, &state, name, reference, node, &progress).await }))
}

async fn bring(
    api: &Api,
    state: &State,
    name: ImageName,
    reference: Reference,
    node: NodeId,
    progress: &Sender<TransferProgress>,
) -> Result<(), Status> {
    say(progress, &format!("asking registry {}", reference.host()), Vec::new()).await;
    let (client, credentials) =
        api.registries.of(state).map_err(|error| Status::failed_precondition(chain(&error)))?;
    let image = match timeout(PATIENCE, client.resolve(&reference, &credentials)).await {
        Ok(Ok(resolved)) => resolved.manifest,
        Ok(Err(error)) => return Err(pins::refusal(&name, &reference, &error)),
        Err(_) => {
            let text = format!("registry {} did not say within {PATIENCE:?} what it has", reference.host());
            return Err(Status::failed_precondition(text));
        }
    };
    let origin = reference.origin();
    let assigned = assignments::image_from(state, image, &origin);
    let dialled = dial(api, node, open::What::Pull(OpenPull { image: Some(assigned) })).await?;
    let stage = format!("pulling to {}", state.node(node).map_or("", |node| node.name.as_str()));
    let done = follow(dialled, &stage, progress).await?;
    let size = Bytes(done.size);
    let put = Command::PutImage { name: name.clone(), image, size, holder: node };
    let named =
        Command::NameImage { name: name.clone(), image, size, origin: Some(origin), automatic: false };
    for outcome in api.propose("", vec![put, named]).await? {
        outcome.map_err(|rejected| refused(&rejected))?;
    }
    last(api, &name, progress).await
}

pub(super) async fn push(api: Api, request: PushImageRequest) -> Result<Answers<TransferProgress>, Status> {
    let PushImageRequest { name, target } = request;
    let name = image_name(&name)?;
    let target = image_tag(if target.is_empty() { name.as_str() } else { &target })?;
    let host = reference(&target)?.origin().registry().clone();
    let state = api.state().await?;
    let image = state.image_named(&name).ok_or_else(|| absent(&name))?;
    let node = holder(&api, &state, name.as_str(), image).await?;
    let registries: BTreeMap<String, wire::proto::model::Registry> =
        state.registry(&host).map(|registry| (host.to_string(), registry.into())).into_iter().collect();
    Ok(answers(|progress| async move {
        let open = OpenPush { digest: image.to_string(), name: target.to_string(), registries };
        let dialled = dial(&api, node, open::What::Push(open)).await?;
        let stage = format!("pushing from {}", state.node(node).map_or("", |node| node.name.as_str()));
        follow(dialled, &stage, &progress).await?;
        last(&api, &name, &progress).await
    }))
}

/// Passes on what a node tells of its work, until it is done.
async fn follow(
    dialled: Dialled,
    stage: &str,
    progress: &Sender<TransferProgress>,
) -> Result<ImportedImage, Status> {
    // The node takes the end of this direction for the client's having hung up.
    let Dialled { mut incoming, outgoing: _open } = dialled;
    while let Some(chunk) = incoming.message().await? {
        match chunk.kind {
            Some(chunk::Kind::Transfer(TransferEvent { layers, done })) => match done {
                Some(done) => return Ok(done),
                None => say(progress, stage, layers).await,
            },
            Some(chunk::Kind::Failure(why)) => return Err(Status::failed_precondition(why)),
            Some(
                chunk::Kind::Data(_)
                | chunk::Kind::Line(_)
                | chunk::Kind::Import(_)
                | chunk::Kind::Piece(_)
                | chunk::Kind::Document(_)
                | chunk::Kind::End(_),
            )
            | None => {}
        }
    }
    Err(gone())
}

/// What the image is afterwards.
async fn last(api: &Api, name: &ImageName, progress: &Sender<TransferProgress>) -> Result<(), Status> {
    let image =
        views::images(&api.state().await?).images.into_iter().find(|image| image.name == name.as_str());
    let done = TransferProgress { stage: "done".to_owned(), layers: Vec::new(), image };
    let _ = progress.send(Ok(done)).await;
    Ok(())
}

pub(super) async fn save(api: Api, request: SaveImageRequest) -> Result<Answers<SaveChunk>, Status> {
    let name = image_name(&request.name)?;
    let state = api.state().await?;
    let image = state.image_named(&name).ok_or_else(|| absent(&name))?;
    let node = holder(&api, &state, name.as_str(), image).await?;
    // Whoever loads it cannot give it a name by digest.
    let names = if name.digest().is_some() { Vec::new() } else { vec![name.to_string()] };
    let open = OpenSave { digest: image.to_string(), names };
    let dialled = dial(&api, node, open::What::Save(open)).await?;
    Ok(answers(|pieces| async move { pass_on(dialled, &pieces).await }))
}

async fn pass_on(dialled: Dialled, pieces: &Sender<SaveChunk>) -> Result<(), Status> {
    let Dialled { mut incoming, outgoing: _open } = dialled;
    while let Some(chunk) = incoming.message().await? {
        match chunk.kind {
            Some(chunk::Kind::Data(data)) => {
                if pieces.send(Ok(SaveChunk { data })).await.is_err() {
                    return Ok(());
                }
            }
            Some(chunk::Kind::End(_)) => return Ok(()),
            Some(chunk::Kind::Failure(why)) => return Err(Status::failed_precondition(why)),
            Some(
                chunk::Kind::Line(_)
                | chunk::Kind::Import(_)
                | chunk::Kind::Piece(_)
                | chunk::Kind::Transfer(_)
                | chunk::Kind::Document(_),
            )
            | None => {}
        }
    }
    Err(gone())
}

/// What the cluster knows of an image, and what a node that holds it reads in it. Without such a node, the latter is unknown.
pub(super) async fn inspect(api: &Api, request: InspectRequest) -> Result<InspectReply, Status> {
    let InspectRequest { reference } = request;
    let state = api.state().await?;
    let image = match reference.parse::<Digest>() {
        Ok(digest) => state.image(digest).map(|_| digest),
        Err(_) => state.image_named(&image_name(&reference)?),
    };
    let known = image.and_then(|image| Some((image, document::image_document(&state, image)?)));
    let (image, mut known) =
        known.ok_or_else(|| Status::not_found(format!("there is no image `{reference}`")))?;
    let read = match holder(api, &state, &reference, image).await {
        Ok(node) => details(api, node, image).await.unwrap_or_default(),
        Err(_) => Value::Null,
    };
    if let Value::Object(fields) = &mut known {
        for field in ["created", "platform", "config", "layers", "history"] {
            fields.insert(field.to_owned(), read.get(field).cloned().unwrap_or_default());
        }
    }
    Ok(InspectReply { kind: "image".to_owned(), json: known.to_string() })
}

/// What a node reads in an image; nothing if it does not answer in time.
async fn details(api: &Api, node: NodeId, image: Digest) -> Option<Value> {
    let read = async {
        let open = open::What::Details(OpenDetails { digest: image.to_string() });
        let Dialled { mut incoming, outgoing: _open } = dial(api, node, open).await.ok()?;
        match incoming.message().await.ok()??.kind? {
            chunk::Kind::Document(text) => serde_json::from_str(&text).ok(),
            chunk::Kind::Data(_)
            | chunk::Kind::Line(_)
            | chunk::Kind::Import(_)
            | chunk::Kind::Piece(_)
            | chunk::Kind::Transfer(_)
            | chunk::Kind::End(_)
            | chunk::Kind::Failure(_) => None,
        }
    };
    timeout(LOOK, read).await.ok().flatten()
}
