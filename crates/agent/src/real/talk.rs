//! One conversation about a task: pieces that come from the client, and pieces for it.

use tokio::sync::mpsc;
use tonic::Streaming;
use wire::proto::agent::{Chunk, chunk};
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{Failure, Piece, piece};

/// Why a conversation ends early. The client turns the kind into its exit code.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl From<crate::host::Failure> for Refusal {
    fn from(crate::host::Failure(text): crate::host::Failure) -> Self {
        Self { kind: Kind::Failed, text }
    }
}

/// The client has hung up: nobody is left to be told anything.
#[derive(Debug)]
pub(crate) struct Gone;

/// What the client says.
#[derive(Debug)]
pub(crate) struct Ear<'a>(pub(crate) &'a mut Streaming<Chunk>);

impl Ear<'_> {
    /// The next piece; `None` when the client has hung up. A call that is dropped loses nothing.
    pub(crate) async fn hear(&mut self) -> Option<piece::Kind> {
        loop {
            match self.0.message().await {
                Ok(Some(Chunk { kind: Some(chunk::Kind::Piece(Piece { kind: Some(kind) })) })) => {
                    return Some(kind);
                }
                // What this version does not know cannot have been meant for it.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Until the client hangs up; what it says meanwhile is not heard.
    pub(crate) async fn hung_up(&mut self) {
        while self.hear().await.is_some() {}
    }
}

/// The way to the client. Waits while it has no room.
#[derive(Clone, Debug)]
pub(crate) struct Mouth(pub(crate) mpsc::Sender<Chunk>);

impl Mouth {
    pub(crate) async fn say(&self, kind: piece::Kind) -> Result<(), Gone> {
        let chunk = Chunk { kind: Some(chunk::Kind::Piece(Piece { kind: Some(kind) })) };
        self.0.send(chunk).await.map_err(|_| Gone)
    }

    /// Until nobody hears any more: what tells that the client has hung up while its own words are not listened to, since
    /// what they are for has no room for more.
    pub(crate) async fn gone(&self) {
        self.0.closed().await;
    }

    /// From a thread that may block.
    pub(crate) fn say_blocking(&self, kind: piece::Kind) -> Result<(), Gone> {
        let chunk = Chunk { kind: Some(chunk::Kind::Piece(Piece { kind: Some(kind) })) };
        self.0.blocking_send(chunk).map_err(|_| Gone)
    }

    pub(crate) async fn refuse(&self, Refusal { kind, text }: Refusal) -> Result<(), Gone> {
        self.say(piece::Kind::Failure(Failure { kind: kind.into(), text })).await
    }
}
