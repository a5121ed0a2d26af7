//! One image from another node: its manifest and configuration first, then its layers, several at once, each unpacked while
//! it comes.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use identity::Expect;
use image::registry::{LayerProgress, LayerState, Progress};
use image::{BlobRef, LayerRef, Parts};
use model::{Bytes, Digest, NodeId};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;
use wire::proto::agent::content_client::ContentClient;
use wire::proto::agent::{Blob, DescribeImage, FetchBlob};

use super::Fetcher;
use crate::host::Failure;
use crate::real::{blocking, failure};

/// As many as come from a registry at once: one connection's window seldom fills a link, and unpacking takes a processor.
const AT_ONCE: usize = 3;

/// What goes with another image while this one comes is brought again. Somebody who keeps removing images is not waited for.
const ROUNDS: usize = 3;

/// A holder that says nothing for so long is given up, and the next one is asked, or the registry. Its connection lives: one
/// that is dead is seen sooner. Its disk may hang, or it is stopped.
const SILENCE: Duration = Duration::from_secs(30);

/// Chunks on their way to the disk: disk and network each work while the other does.
const IN_FLIGHT: usize = 4;

type Holder = ContentClient<Channel>;

impl Fetcher {
    pub(super) async fn copy(
        &self,
        manifest: Digest,
        node: NodeId,
        address: SocketAddr,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        let channel = self.connector.connect(address, Expect::Node(node)).await;
        let channel = channel.map_err(|error| failure("no connection", &error))?;
        let mut holder = ContentClient::new(channel);
        let described = heard(holder.describe(DescribeImage { manifest: manifest.to_string() })).await?;
        let described = described.into_inner();
        let size = described.blobs.iter().find(|blob| blob.digest == manifest.to_string());
        let Some(Blob { size, .. }) = size else {
            return Err(Failure("it does not say how large the manifest is".to_owned()));
        };
        let manifest = BlobRef { digest: manifest, size: Bytes(*size) };
        for _ in 0..ROUNDS {
            if self.round(&holder, manifest, progress).await? {
                return Ok(());
            }
        }
        Err(Failure("parts of the image are removed again and again".to_owned()))
    }

    /// Brings what is missing, and says whether the image is complete then.
    async fn round(
        &self,
        holder: &Holder,
        manifest: BlobRef,
        progress: &watch::Sender<Progress>,
    ) -> Result<bool, Failure> {
        self.copy_blob(holder, manifest, None, &|_| {}).await?;
        let Parts { config, .. } = self.parts(manifest.digest).await?;
        self.copy_blob(holder, config, None, &|_| {}).await?;
        // What cannot be run here is not worth its layers: the configuration is judged with this.
        let layers = self.parts(manifest.digest).await?.layers.unwrap_or_default();
        begin(progress, &layers);
        let copies: Vec<_> = layers.iter().map(|layer| self.copy_layer(holder, *layer, progress)).collect();
        stream::iter(copies).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let (images, image) = (self.images.clone(), manifest.digest);
        let missing = blocking(move || {
            images.complete(&image).map_err(|error| failure("what was copied is not the image", &error))
        });
        Ok(missing.await?.is_empty())
    }

    async fn parts(&self, manifest: Digest) -> Result<Parts, Failure> {
        let images = self.images.clone();
        blocking(move || {
            images.parts(&manifest).map_err(|error| failure("what was copied is not the image", &error))
        })
        .await
    }

    async fn copy_layer(
        &self,
        holder: &Holder,
        layer: LayerRef,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        let LayerRef { blob, diff_id } = layer;
        let moved = |state, done| change(progress, blob.digest, state, done);
        if self.images.has_blob(&blob.digest) {
            moved(LayerState::Exists, blob.size);
            return Ok(());
        }
        self.copy_blob(holder, blob, Some(diff_id), &|done| moved(LayerState::Downloading, done)).await?;
        moved(LayerState::Done, blob.size);
        Ok(())
    }

    async fn copy_blob(
        &self,
        holder: &Holder,
        blob: BlobRef,
        layer: Option<Digest>,
        report: &(dyn Fn(Bytes) + Sync),
    ) -> Result<(), Failure> {
        if self.images.has_blob(&blob.digest) {
            return Ok(());
        }
        let mut holder = holder.clone();
        let call = heard(holder.fetch(FetchBlob { digest: blob.digest.to_string() })).await?;
        let mut chunks = call.into_inner();
        let images = self.images.clone();
        let (pieces, mut written) = mpsc::channel::<Piece>(IN_FLIGHT);
        let write = tokio::task::spawn_blocking(move || {
            let mut arrival = images.arrive(blob, layer)?;
            loop {
                match written.blocking_recv() {
                    Some(Piece::Data(piece)) => arrival.write(&piece)?,
                    Some(Piece::End) => return arrival.finish().map(drop),
                    // The fetch was given up.
                    None => return Ok(()),
                }
            }
        });
        let mut done = 0;
        loop {
            let Some(chunk) = heard(chunks.message()).await? else { break };
            done += chunk.data.len() as u64;
            report(Bytes(done));
            if pieces.send(Piece::Data(chunk.data)).await.is_err() {
                break;
            }
        }
        // A writer that has failed does not listen, and says why as its result.
        let _ = pieces.send(Piece::End).await;
        drop(pieces);
        let written = write.await.map_err(|error| failure("a blocking call did not return", &error))?;
        written.map_err(|error| self.failed(&error))
    }
}

/// What a holder answers, if it does.
async fn heard<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
    match timeout(SILENCE, answer).await {
        Ok(answer) => answer.map_err(|status| Failure(status.message().to_owned())),
        Err(_) => Err(Failure(format!("nothing came in {SILENCE:?}"))),
    }
}

/// What is on its way to the disk. Its end is said: a channel that closes is a fetch that was given up.
enum Piece {
    Data(Vec<u8>),
    End,
}

/// Each layer once, in the manifest's order.
fn begin(progress: &watch::Sender<Progress>, layers: &[LayerRef]) {
    let mut begun: Vec<LayerProgress> = Vec::with_capacity(layers.len());
    for LayerRef { blob, .. } in layers {
        if !begun.iter().any(|known| known.digest == blob.digest) {
            let (total, done, state) = (blob.size, Bytes(0), LayerState::Waiting);
            begun.push(LayerProgress { digest: blob.digest, total, done, state });
        }
    }
    progress.send_replace(Progress { layers: begun });
}

fn change(progress: &watch::Sender<Progress>, digest: Digest, state: LayerState, done: Bytes) {
    progress.send_if_modified(|progress| {
        let layer = progress.layers.iter_mut().find(|layer| layer.digest == digest);
        layer.map(|layer| (layer.state, layer.done) = (state, done)).is_some()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_says_nothing_is_given_up() {
        assert_eq!(heard(async { Ok(1) }).await, Ok(1));
        let refused = heard(async { Err::<(), _>(Status::not_found("no such image")) }).await;
        assert_eq!(refused, Err(Failure("no such image".to_owned())));
        let silent = heard(std::future::pending::<Result<(), Status>>()).await;
        assert_eq!(silent, Err(Failure("nothing came in 30s".to_owned())));
    }
}
