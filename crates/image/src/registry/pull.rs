//! An image from a registry into the store.

use std::error::Error;

use futures::{StreamExt, TryStreamExt, stream};
use model::{Bytes, Digest};
use tokio::sync::watch;

use super::blob::{self, BlobError};
use super::progress::{LayerState, Progress, Reporter};
use super::resolve::{Found, ResolveError, Wish};
use super::session::{Access, Session};
use super::settings::Credentials;
use super::{Client, Reference, RegistryHost, Target};
use crate::blob::IngestError;
use crate::config::{ImageConfig, InvalidConfig};
use crate::document::{Descriptor, Manifest};
use crate::store::{BlobRef, CompleteError, ReadError, Store};

/// Docker's number: one connection seldom fills a link, and more make each other late.
const AT_ONCE: usize = 3;

/// What goes with another image while this one comes is brought again. Somebody who keeps removing images is not waited for.
const ROUNDS: usize = 3;

/// An image that is complete in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Of its manifest: what the store calls it by.
    pub manifest: Digest,
    /// What led to it, where the name stands for images for several platforms.
    pub index: Option<Digest>,
}

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Resolve(Box<ResolveError>),
    #[error("cannot pull {image}")]
    Blob { image: String, source: Box<BlobError> },
    #[error("cannot keep the manifest of {image}")]
    Manifest { image: String, source: Box<IngestError> },
    #[error("cannot use the configuration of {image}")]
    Config { image: String, source: Box<InvalidConfig> },
    #[error("cannot read what was pulled of {image}")]
    Read { image: String, source: Box<ReadError> },
    #[error("what was pulled as {image} is no image")]
    Complete { image: String, source: Box<CompleteError> },
    #[error("{image} was not pulled: parts of it are removed again and again")]
    Removed { image: String },
    #[error("{image} was not pulled to the end: gantry is being stopped")]
    Stopped { image: String },
}

impl Client {
    /// Brings an image into the store, and says which it was. What is there already is not brought again, and an image
    /// that is named by its manifest's digest and complete is not asked for at all.
    ///
    /// Dropped before its end, it leaves nothing but whole blobs, which the next pull finds. `progress` shows the layers.
    pub async fn pull(
        &self,
        store: &Store,
        image: &Reference,
        credentials: &Credentials,
        progress: &watch::Sender<Progress>,
    ) -> Result<Pulled, PullError> {
        if let Target::Digest(manifest) = *image.target() {
            let here = store.clone();
            if blocking(image, move || here.contains(&manifest)).await? {
                return Ok(Pulled { manifest, index: None });
            }
        }
        let found = self.find(image, credentials, Wish::Manifest).await;
        let Found { host, resolved, read } = found.map_err(|error| PullError::Resolve(Box::new(error)))?;
        let pulled = Pulled { manifest: resolved.manifest, index: resolved.index };
        let (text, manifest) = read.expect("a manifest that was wished for was read");
        let mirrors = self.transport.settings.mirrors(image.host());
        let sources = mirrors.iter().chain([image.host()]);
        let sources = sources.skip_while(|source| **source != host).cloned().collect();
        let reporter = Reporter::to(progress);
        reporter.begin(&manifest);
        let pull = Pull { client: self, store, image, credentials, sources, reporter };
        for _ in 0..ROUNDS {
            pull.manifest(pulled.manifest, &text).await?;
            let diff_ids = pull.config(&manifest).await?;
            pull.layers(&manifest, diff_ids).await?;
            if pull.complete(pulled.manifest).await? {
                return Ok(pulled);
            }
        }
        Err(PullError::Removed { image: image.to_string() })
    }
}

struct Pull<'a> {
    client: &'a Client,
    store: &'a Store,
    image: &'a Reference,
    credentials: &'a Credentials,
    /// Who may have the blobs, the registry itself last.
    sources: Vec<RegistryHost>,
    reporter: Reporter,
}

impl Pull<'_> {
    async fn manifest(&self, digest: Digest, text: &[u8]) -> Result<(), PullError> {
        let (store, text) = (self.store.clone(), text.to_vec());
        let kept = blocking(self.image, move || {
            if store.has_blob(&digest) {
                return Ok(());
            }
            let mut ingest = store.ingest(&digest, Bytes(text.len() as u64))?;
            ingest.write(&text)?;
            ingest.finish().map(drop)
        });
        let image = || self.image.to_string();
        kept.await?.map_err(|source| PullError::Manifest { image: image(), source: Box::new(source) })
    }

    /// What cannot be run here is not worth its layers. Returns what these unpack to.
    async fn config(&self, manifest: &Manifest) -> Result<Vec<Digest>, PullError> {
        let digest = manifest.config.digest;
        self.blob(blob_of(&manifest.config), None).await?;
        let (store, image) = (self.store.clone(), || self.image.to_string());
        let text = blocking(self.image, move || store.document(&digest)).await?;
        let text = text.map_err(|source| PullError::Read { image: image(), source: Box::new(source) })?;
        let read = ImageConfig::parse(&text, manifest.layers.len());
        let read = read.map_err(|source| PullError::Config { image: image(), source: Box::new(source) })?;
        Ok(read.diff_ids)
    }

    async fn layers(&self, manifest: &Manifest, diff_ids: Vec<Digest>) -> Result<(), PullError> {
        let layers = manifest.layers.iter().zip(diff_ids);
        let layers: Vec<_> =
            layers.map(|(layer, diff_id)| self.blob(blob_of(layer), Some(diff_id))).collect();
        // The first failure drops the others, and with them whatever of theirs is not whole.
        stream::iter(layers).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// One blob, unless it is here, or comes with another image meanwhile.
    async fn blob(&self, blob: BlobRef, layer: Option<Digest>) -> Result<(), PullError> {
        let turn = self.client.turns.of(self.image.host(), blob.digest);
        let _turn = turn.lock().await;
        let store = self.store.clone();
        if blocking(self.image, move || store.has_blob(&blob.digest)).await? {
            self.reporter.exists(blob.digest);
            return Ok(());
        }
        self.download(blob, layer).await?;
        self.reporter.done(blob.digest);
        Ok(())
    }

    /// From the first source that gives it. Nothing of what one gave is continued by another.
    async fn download(&self, blob: BlobRef, layer: Option<Digest>) -> Result<(), PullError> {
        let mut last = None;
        for source in &self.sources {
            if let Some(error) = last.take() {
                let error: BlobError = error;
                let error = &error as &(dyn Error + 'static);
                tracing::warn!(blob = %blob.digest, error, next = %source, "a mirror does not help");
            }
            self.reporter.moved(blob.digest, LayerState::Downloading, Bytes(0));
            match self.download_from(source, blob, layer).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        let source = Box::new(last.expect("the registry itself is a source"));
        Err(PullError::Blob { image: self.image.to_string(), source })
    }

    async fn download_from(
        &self,
        source: &RegistryHost,
        blob: BlobRef,
        layer: Option<Digest>,
    ) -> Result<(), BlobError> {
        let (repository, credential) = (self.image.repository(), self.credentials.get(source));
        let session = Session::new(self.client, source, repository, Access::Read, credential).await?;
        let report = |done| self.reporter.moved(blob.digest, LayerState::Downloading, done);
        blob::fetch(&session, self.store, blob, layer, report).await
    }

    /// Whether all of it is here; then it is recorded.
    async fn complete(&self, manifest: Digest) -> Result<bool, PullError> {
        let store = self.store.clone();
        let missing = blocking(self.image, move || store.complete(&manifest)).await?;
        let failed = |source| PullError::Complete { image: self.image.to_string(), source: Box::new(source) };
        Ok(missing.map_err(failed)?.is_empty())
    }
}

fn blob_of(descriptor: &Descriptor) -> BlobRef {
    BlobRef { digest: descriptor.digest, size: Bytes(descriptor.size) }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    image: &Reference,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PullError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(PullError::Stopped { image: image.to_string() }),
    }
}
