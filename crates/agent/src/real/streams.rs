//! Streams that a manager asks for: logs out, archives in and out, images to and from registries, containers' changes into
//! images. The agent dials, so that a node need not be reachable.

mod commit;
mod logs;
mod transfers;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use identity::{Connector, Expect};
use model::TaskId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};
use wire::proto::agent::dispatcher_client::DispatcherClient;
use wire::proto::agent::{Chunk, ImportEvent, ImportedImage, Open, OpenLogs, OpenTask, chunk, open};

use crate::agent::Opened;
use crate::details::Details;
use crate::host::Failure;
use crate::real::disk::Disk;
use crate::real::talk::{Ear, Mouth};
use crate::real::tasks::Tasks;
use crate::real::{Fetcher, failure};
use crate::uplink::Manager;

/// Metadata that names the stream that is dialled.
const STREAM: &str = "gantry-stream";
/// Chunks that wait for the network.
const CHUNKS: usize = 64;

/// Serves streams until the agent that they come from is gone.
#[derive(Clone, Debug)]
pub struct Server {
    disk: Disk,
    fetcher: Arc<Fetcher>,
    tasks: Tasks,
    connector: Connector,
}

impl Server {
    /// `data` is the node's data directory, `fetcher` who brings images here and keeps them, and `details` what the agent
    /// knows of its tasks.
    pub fn new(data: PathBuf, fetcher: Arc<Fetcher>, details: Details, connector: Connector) -> Self {
        let disk = Disk::new(data);
        Self { tasks: Tasks::new(disk.clone(), details), disk, fetcher, connector }
    }

    pub async fn run(self, mut opens: mpsc::UnboundedReceiver<Opened>) {
        let server = Arc::new(self);
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                opened = opens.recv() => {
                    let Some((manager, open)) = opened else { return };
                    let server = server.clone();
                    streams.spawn(async move {
                        if let Err(failure) = server.serve(manager, open).await {
                            tracing::debug!(%failure, "a stream ended early");
                        }
                    });
                }
                Some(done) = streams.join_next() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a stream failed");
                    }
                }
            }
        }
    }

    async fn serve(&self, manager: Manager, open: Open) -> Result<(), Failure> {
        let Open { stream, what } = open;
        let expect = manager.node.map_or(Expect::AnyNode, Expect::Node);
        let channel = self.connector.connect(manager.address, expect).await;
        let channel = channel.map_err(|error| failure("cannot dial the manager", &error))?;
        let (outgoing, chunks) = mpsc::channel(CHUNKS);
        let mut request = Request::new(ReceiverStream::new(chunks));
        let id = MetadataValue::try_from(stream).map_err(|error| failure("a malformed stream id", &error))?;
        request.metadata_mut().insert(STREAM, id);
        let mut client = DispatcherClient::new(channel);
        let answered = client.stream(request).await;
        let mut incoming = answered.map_err(|status| Failure(status.message().to_owned()))?.into_inner();
        let sink = Sink(outgoing);
        let done = match what {
            Some(open::What::Logs(logs)) => self.logs(logs, &mut incoming, &sink).await,
            Some(open::What::Import(_)) => self.import(&mut incoming, &sink).await,
            Some(open::What::Pull(pull)) => transfers::pull(&self.fetcher, pull, &mut incoming, &sink).await,
            Some(open::What::Push(push)) => transfers::push(&self.fetcher, push, &mut incoming, &sink).await,
            Some(open::What::Save(save)) => transfers::save(&self.fetcher, save, &sink).await,
            Some(open::What::Details(details)) => transfers::details(&self.fetcher, details, &sink).await,
            Some(open::What::Commit(commit)) => {
                commit::serve(&self.disk, &self.fetcher.images, commit, &mut incoming, &sink).await
            }
            Some(open::What::Task(OpenTask { task })) => match named(task) {
                Ok(task) => self.converse(Some(task), &mut incoming, &sink).await,
                Err(failure) => Err(failure),
            },
            Some(open::What::Node(_)) => self.converse(None, &mut incoming, &sink).await,
            None => Err(Failure("this version of gantry does not know what to stream".to_owned())),
        };
        match done {
            Ok(()) => sink.send(chunk::Kind::End(true)).await?,
            Err(Failure(why)) => sink.send(chunk::Kind::Failure(why)).await?,
        }
        drop(sink);
        // Until the manager has read it all and hangs up: hanging up first would take back what is still on its way.
        while let Ok(Some(_)) = incoming.message().await {}
        Ok(())
    }

    async fn converse(
        &self,
        task: Option<TaskId>,
        incoming: &mut Streaming<Chunk>,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let (mut ear, mouth) = (Ear(incoming), Mouth(sink.0.clone()));
        // A client that has gone has nothing to be told.
        let _ = self.tasks.serve(task, &mut ear, &mouth).await;
        Ok(())
    }

    async fn logs(
        &self,
        open: OpenLogs,
        incoming: &mut Streaming<Chunk>,
        sink: &Sink,
    ) -> Result<(), Failure> {
        let wish = logs::Wish::try_from(open)?;
        tokio::select! {
            sent = logs::send(&self.disk, wish, sink) => sent,
            // The reader has gone.
            _ = incoming.message() => Ok(()),
        }
    }

    async fn import(&self, incoming: &mut Streaming<Chunk>, sink: &Sink) -> Result<(), Failure> {
        let (pieces, archive) = mpsc::channel::<Vec<u8>>(8);
        let (progress, mut told) = tokio::sync::watch::channel(0u64);
        let images = self.fetcher.images.clone();
        let import = tokio::task::spawn_blocking(move || {
            let archive = Archive { pieces: archive, piece: Vec::new(), at: 0 };
            images.import(archive, &mut |now: image::Progress| {
                progress.send_replace(now.done.0);
            })
        });
        let feed = async move {
            while let Ok(Some(message)) = incoming.message().await {
                match message.kind {
                    Some(chunk::Kind::Data(data)) => {
                        if pieces.send(data).await.is_err() {
                            return;
                        }
                    }
                    Some(chunk::Kind::End(_)) => return,
                    Some(
                        chunk::Kind::Line(_)
                        | chunk::Kind::Import(_)
                        | chunk::Kind::Failure(_)
                        | chunk::Kind::Piece(_)
                        | chunk::Kind::Transfer(_)
                        | chunk::Kind::Document(_),
                    )
                    | None => {
                        return;
                    }
                }
            }
        };
        let tell = async {
            while told.changed().await.is_ok() {
                let read = *told.borrow_and_update();
                let event = ImportEvent { read, done: None };
                if sink.send(chunk::Kind::Import(event)).await.is_err() {
                    return;
                }
            }
        };
        let ((), (), imported) = tokio::join!(feed, tell, import);
        let imported = imported.map_err(|error| failure("the import failed", &error))?;
        let imported = imported.map_err(|error| Failure(failure("cannot import the archive", &error).0))?;
        let done = ImportedImage {
            digest: imported.digest.to_string(),
            size: imported.size.0,
            names: imported.names.iter().map(ToString::to_string).collect(),
        };
        sink.send(chunk::Kind::Import(ImportEvent { read: imported.size.0, done: Some(done) })).await
    }
}

fn named(task: Option<wire::proto::model::TaskId>) -> Result<TaskId, Failure> {
    let task = task.ok_or_else(|| Failure("no task was named".to_owned()))?;
    TaskId::try_from(task).map_err(|error| failure("malformed", &error))
}

/// The way to the manager.
struct Sink(mpsc::Sender<Chunk>);

impl Sink {
    async fn send(&self, kind: chunk::Kind) -> Result<(), Failure> {
        let sent = self.0.send(Chunk { kind: Some(kind) }).await;
        sent.map_err(|_| Failure("the reader has gone".to_owned()))
    }
}

/// The archive as the importing thread reads it. A sender that is gone ends it; whether it was whole, the import tells.
struct Archive {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => (self.piece, self.at) = (piece, 0),
            }
        }
        let rest = &self.piece[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
