//! The service that agents call. Who is calling comes from the connection's certificate, never from a message.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Poll;

use futures::Stream;
use identity::Peer;
use model::NodeId;
use store::Leadership;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use wire::proto::agent::dispatcher_server::Dispatcher as Service;
use wire::proto::agent::{Beat, BeatReceived, Chunk, FromAgent, FromManager, from_agent};

use crate::dispatch::{Dispatcher, SessionId};
use crate::leader::Parts;
use crate::streams::Streams;

/// Metadata that names the leader's address to an agent that called another manager.
pub(super) const LEADER: &str = "gantry-leader";
/// Metadata that names the stream that an agent dials.
pub(super) const STREAM: &str = "gantry-stream";

#[derive(Clone, Debug)]
pub struct Grpc {
    parts: Parts,
    dispatcher: Dispatcher,
    streams: Streams,
}

impl Grpc {
    pub(crate) fn new(parts: Parts, dispatcher: Dispatcher, streams: Streams) -> Self {
        Self { parts, dispatcher, streams }
    }

    /// Refuses unless this manager leads, and says who does.
    fn lead(&self) -> Result<(), Status> {
        let leader = match *self.parts.store.leadership().borrow() {
            Leadership::Leader { .. } => return Ok(()),
            Leadership::Follower { leader } => leader,
        };
        let mut status = Status::failed_precondition("this manager does not lead");
        let state = self.parts.store.state();
        let address = leader.and_then(|leader| state.node(leader)).map(|node| node.address.to_string());
        if let Some(address) = address.and_then(|address| MetadataValue::try_from(address).ok()) {
            status.metadata_mut().insert(LEADER, address);
        }
        Err(status)
    }
}

fn calling_node<T>(request: &Request<T>) -> Result<NodeId, Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Node { id, role: _ }) => Ok(*id),
        Some(Peer::Admin { .. } | Peer::Local | Peer::Joining) | None => {
            Err(Status::permission_denied("only a node may call this"))
        }
    }
}

#[tonic::async_trait]
impl Service for Grpc {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<FromManager, Status>> + Send>>;
    type StreamStream = ReceiverStream<Result<Chunk, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = calling_node(&request)?;
        self.lead()?;
        let mut incoming = request.into_inner();
        let Some(FromAgent { kind: Some(from_agent::Kind::Hello(hello)) }) = incoming.message().await? else {
            return Err(Status::invalid_argument("a session begins with a greeting"));
        };
        let opened = self.dispatcher.open(node, hello).await;
        let session = opened.map_err(|error| Status::unavailable(error.to_string()))?;
        // The agent's messages are carried for exactly as long as the answer is being read.
        let mut carry = Box::pin(carry(self.dispatcher.clone(), node, session.id, incoming));
        let mut outgoing = session.outgoing;
        let messages = futures::stream::poll_fn(move |context| {
            if carry.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            outgoing.poll_recv(context).map(|message| message.map(Ok))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn heartbeat(&self, request: Request<Beat>) -> Result<Response<BeatReceived>, Status> {
        let node = calling_node(&request)?;
        self.lead()?;
        match self.dispatcher.heartbeat(node).await {
            Ok(()) => Ok(Response::new(BeatReceived {})),
            Err(error) => Err(Status::not_found(error.to_string())),
        }
    }

    async fn stream(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        calling_node(&request)?;
        let id =
            request.metadata().get(STREAM).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let dialled = self.streams.dialled(&id, request.into_inner());
        let to_agent = dialled.ok_or_else(|| Status::not_found("nobody waits for this stream any more"))?;
        Ok(Response::new(ReceiverStream::new(to_agent)))
    }
}

async fn carry(dispatcher: Dispatcher, node: NodeId, session: SessionId, mut incoming: Streaming<FromAgent>) {
    while let Ok(Some(message)) = incoming.message().await {
        dispatcher.receive(node, session, message).await;
    }
    dispatcher.close(node, session).await;
}
