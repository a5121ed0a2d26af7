//! Where a stream that an agent dialled meets the client's call that asked for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};
use wire::proto::agent::Chunk;

/// Chunks on their way to an agent. Small, so that a slow agent slows the client down instead of filling memory.
const CHUNKS: usize = 16;

/// A dialled stream, as the side that asked for it holds it.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) incoming: Streaming<Chunk>,
    pub(crate) outgoing: mpsc::Sender<Result<Chunk, Status>>,
}

/// The streams that have been asked for and are not yet dialled.
#[derive(Clone, Debug, Default)]
// A std mutex: it is held for one map operation and never across an await.
pub(crate) struct Streams(Arc<Mutex<BTreeMap<String, oneshot::Sender<Dialled>>>>);

/// A stream that an agent is asked to dial. Dropping it withdraws the request.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) id: String,
    dialled: oneshot::Receiver<Dialled>,
    streams: Streams,
}

impl Streams {
    pub(crate) fn expect(&self) -> Expected {
        let id = format!("{:032x}", rand::rng().random::<u128>());
        let (sender, dialled) = oneshot::channel();
        self.lock().insert(id.clone(), sender);
        Expected { id, dialled, streams: self.clone() }
    }

    /// Hands a dialled stream to whoever asked for it; returns what to send to the agent.
    pub(crate) fn dialled(
        &self,
        id: &str,
        incoming: Streaming<Chunk>,
    ) -> Option<mpsc::Receiver<Result<Chunk, Status>>> {
        let sender = self.lock().remove(id)?;
        let (outgoing, to_agent) = mpsc::channel(CHUNKS);
        sender.send(Dialled { incoming, outgoing }).ok()?;
        Some(to_agent)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, oneshot::Sender<Dialled>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    /// Waits until the agent has dialled.
    pub(crate) async fn dialled(mut self) -> Option<Dialled> {
        (&mut self.dialled).await.ok()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}

/// A stream of answers that does `work` for exactly as long as it is being read.
pub(crate) fn driven<T: Send + 'static>(
    answers: impl futures::Stream<Item = T> + Send + Unpin + 'static,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl futures::Stream<Item = T> + Send {
    let mut work = Some(Box::pin(work));
    let mut answers = answers;
    futures::stream::poll_fn(move |context| {
        if let Some(running) = &mut work
            && running.as_mut().poll(context).is_ready()
        {
            // What it sent last is still to be read.
            work = None;
        }
        std::pin::Pin::new(&mut answers).poll_next(context)
    })
}
