//! Images to and from registries on behalf of a user, and archives out.

use std::io::{self, Write};
use std::time::Duration;

use image::registry::{LayerState, Progress, Reference};
use model::{Digest, ImageName};
use tokio::sync::{mpsc, watch};
use tonic::Streaming;
use wire::proto::agent::{
    Chunk, ImportedImage, OpenDetails, OpenPull, OpenPush, OpenSave, TransferEvent, chunk,
};
use wire::proto::model as nouns;

use super::Sink;
use crate::host::Failure;
use crate::ledger;
use crate::real::{Fetcher, blocking, failure};

/// How often it is told how far the layers are. A person reads it.
const TELL: Duration = Duration::from_millis(200);

/// Large enough that the messages around it cost nothing, and far below the 4 MiB that one may have.
const CHUNK: usize = 256 << 10;

/// Pieces of an archive that wait for the network.
const WAITING: usize = 4;

/// Makes sure that an image is here.
pub(super) async fn pull(
    fetcher: &Fetcher,
    open: OpenPull,
    incoming: &mut Streaming<Chunk>,
    sink: &Sink,
) -> Result<(), Failure> {
    let image = open.image.ok_or_else(|| Failure("no image was named".to_owned()))?;
    let source = ledger::image_source(image).map_err(|error| failure("malformed", &error))?;
    let progress = watch::Sender::new(Progress::default());
    let _hold = fetcher.hold(source.digest);
    let fetch = fetcher.fetch(&source, &progress);
    follow(fetch, &progress, incoming, sink).await?;
    done(fetcher, source.digest, sink).await
}

/// Sends an image that is here to a registry.
pub(super) async fn push(
    fetcher: &Fetcher,
    open: OpenPush,
    incoming: &mut Streaming<Chunk>,
    sink: &Sink,
) -> Result<(), Failure> {
    let OpenPush { digest, name, registries } = open;
    let digest = wire::digest(&digest).map_err(|error| failure("malformed", &error))?;
    let name = name.parse::<ImageName>().map_err(|error| malformed(&error))?;
    let registries = ledger::registries_of(registries).map_err(|error| failure("malformed", &error))?;
    let reference =
        Reference::try_from(&name).map_err(|error| failure("no registry has such a name", &error))?;
    let client = fetcher.registries.of(&registries);
    let (client, credentials) = client.map_err(|error| failure("the registry cannot be asked", &error))?;
    let progress = watch::Sender::new(Progress::default());
    let _hold = fetcher.hold(digest);
    let push = async {
        let pushed = client.push(&fetcher.images, &digest, &reference, &credentials, &progress).await;
        pushed.map_err(|error| failure("not pushed", &error))
    };
    follow(push, &progress, incoming, sink).await?;
    done(fetcher, digest, sink).await
}

fn malformed(error: &model::InvalidImageName) -> Failure {
    failure("malformed", error)
}

/// Does the work, and tells how far it is, until it is done or the reader has gone.
async fn follow(
    work: impl Future<Output = Result<(), Failure>>,
    progress: &watch::Sender<Progress>,
    incoming: &mut Streaming<Chunk>,
    sink: &Sink,
) -> Result<(), Failure> {
    let mut seen = progress.subscribe();
    let tell = async {
        while seen.changed().await.is_ok() {
            let layers = layers(&seen.borrow_and_update());
            sink.send(chunk::Kind::Transfer(TransferEvent { layers, done: None })).await?;
            tokio::time::sleep(TELL).await;
        }
        Ok::<(), Failure>(())
    };
    tokio::select! {
        biased;
        worked = work => worked?,
        told = tell => return told,
        _ = incoming.message() => return Err(Failure("the reader has gone".to_owned())),
    }
    // The last that happened may not have been told yet.
    let layers = layers(&progress.borrow());
    sink.send(chunk::Kind::Transfer(TransferEvent { layers, done: None })).await
}

async fn done(fetcher: &Fetcher, image: Digest, sink: &Sink) -> Result<(), Failure> {
    let images = fetcher.images.clone();
    let stored =
        blocking(move || Ok(images.list().into_iter().find(|stored| stored.digest == image))).await?;
    let stored = stored.ok_or_else(|| Failure("the image is gone again".to_owned()))?;
    let done = ImportedImage { digest: image.to_string(), size: stored.size.0, names: Vec::new() };
    sink.send(chunk::Kind::Transfer(TransferEvent { layers: Vec::new(), done: Some(done) })).await
}

fn layers(progress: &Progress) -> Vec<nouns::LayerProgress> {
    let layers = progress.layers.iter().map(|layer| {
        let state = match layer.state {
            LayerState::Waiting => nouns::LayerState::Waiting,
            LayerState::Downloading => nouns::LayerState::Downloading,
            LayerState::Uploading => nouns::LayerState::Uploading,
            LayerState::Done => nouns::LayerState::Done,
            LayerState::Exists => nouns::LayerState::Exists,
        };
        nouns::LayerProgress {
            digest: layer.digest.to_string(),
            total: layer.total.0,
            done: layer.done.0,
            state: state.into(),
        }
    });
    layers.collect()
}

/// Writes an image as an archive.
pub(super) async fn save(fetcher: &Fetcher, open: OpenSave, sink: &Sink) -> Result<(), Failure> {
    let OpenSave { digest, names } = open;
    let digest = wire::digest(&digest).map_err(|error| failure("malformed", &error))?;
    let names: Result<Vec<ImageName>, _> = names.iter().map(|name| name.parse::<ImageName>()).collect();
    let names = names.map_err(|error| malformed(&error))?;
    let _hold = fetcher.hold(digest);
    let images = fetcher.images.clone();
    let (pieces, written) = mpsc::channel(WAITING);
    let write = blocking(move || {
        let to = Pieces { piece: Vec::with_capacity(CHUNK), pieces };
        images.save(&digest, &names, to).map_err(|error| failure("cannot save the image", &error))
    });
    let send = async move {
        // Its own, so that it is gone when this ends: a writer that nobody reads from ends as well.
        let mut written = written;
        while let Some(piece) = written.recv().await {
            if sink.send(chunk::Kind::Data(piece)).await.is_err() {
                return;
            }
        }
    };
    let mut write = std::pin::pin!(write);
    let mut send = std::pin::pin!(send);
    tokio::select! {
        written = &mut write => {
            written?;
            // What was written last is still to be sent.
            send.await;
            Ok(())
        }
        () = &mut send => write.await,
    }
}

/// Cuts what is written into pieces for the network.
struct Pieces {
    piece: Vec<u8>,
    pieces: mpsc::Sender<Vec<u8>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(CHUNK));
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Says what an image is made of.
pub(super) async fn details(fetcher: &Fetcher, open: OpenDetails, sink: &Sink) -> Result<(), Failure> {
    let digest = wire::digest(&open.digest).map_err(|error| failure("malformed", &error))?;
    let images = fetcher.images.clone();
    let read =
        blocking(move || images.details(&digest).map_err(|error| failure("cannot read the image", &error)));
    sink.send(chunk::Kind::Document(read.await?)).await
}
