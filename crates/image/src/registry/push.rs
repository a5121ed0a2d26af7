//! An image of the store's to a registry.

use std::error::Error;

use futures::{StreamExt, TryStreamExt, stream};
use model::{Bytes, Digest};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::watch;

use super::address::same_origin;
use super::blob::TRIES;
use super::failure::RequestError;
use super::progress::{LayerState, Progress, Reporter};
use super::resolve::CONTENT_DIGEST;
use super::session::{Access, Session};
use super::settings::Credentials;
use super::transport::{Answer, Body, Call, Sent};
use super::{Client, Reference};
use crate::document::{Document, InvalidDocument, Manifest};
use crate::store::{BlobRef, ReadError, Store};

/// As many as are pulled at once, for the same reasons.
const AT_ONCE: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("cannot push {image}")]
    Read { image: String, source: Box<ReadError> },
    #[error("the manifest of {image} is not acceptable")]
    Manifest { image: String, source: Box<InvalidDocument> },
    #[error("cannot push {image}")]
    Request { image: String, source: Box<RequestError> },
    #[error("cannot push {image}: blob {blob} does not arrive")]
    Blob { image: String, blob: Digest, source: Box<RequestError> },
    #[error("registry {host} takes {sent} for {taken}: what is there now is not {image}", host = .image.host())]
    WrongDigest { image: Box<Reference>, sent: Digest, taken: Digest },
    #[error("{image} was not pushed to the end: gantry is being stopped")]
    Stopped { image: String },
}

/// What a manifest is pushed with.
struct Parts {
    text: Vec<u8>,
    media_type: String,
    manifest: Manifest,
    /// Configuration and layers, each once.
    blobs: Vec<BlobRef>,
}

impl Client {
    /// Sends a complete image of the store's: the blobs that the registry lacks, and the manifest last, so that what has
    /// a name there is whole. `progress` shows the layers.
    pub async fn push(
        &self,
        store: &Store,
        manifest: &Digest,
        image: &Reference,
        credentials: &Credentials,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), PushError> {
        let parts = parts(store, *manifest, image).await?;
        let reporter = Reporter::to(progress);
        reporter.begin(&parts.manifest);
        let failed = |source| PushError::Request { image: image.to_string(), source: Box::new(source) };
        let (host, repository) = (image.host(), image.repository());
        let session = Session::new(self, host, repository, Access::Write, credentials.get(host)).await;
        let push = Push { store, image, session: session.map_err(failed)?, reporter };
        let blobs: Vec<_> = parts.blobs.iter().map(|blob| push.blob(*blob)).collect();
        stream::iter(blobs).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        push.manifest(*manifest, parts.text, &parts.media_type).await
    }
}

/// Reads the manifest, and finds out what belongs to it.
async fn parts(store: &Store, digest: Digest, image: &Reference) -> Result<Parts, PushError> {
    let here = store.clone();
    let read = move || {
        let blobs = here.blobs(&digest)?;
        let text = here.document(&digest)?;
        Ok::<_, ReadError>((blobs, text))
    };
    let name = || image.to_string();
    let read = match tokio::task::spawn_blocking(read).await {
        Ok(read) => read,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return Err(PushError::Stopped { image: name() }),
    };
    let (all, text) = read.map_err(|source| PushError::Read { image: name(), source: Box::new(source) })?;
    let invalid = |source| PushError::Manifest { image: name(), source: Box::new(source) };
    let media_type = Document::media_type(&text).map_err(invalid)?;
    let manifest = Manifest::parse(&text).map_err(invalid)?;
    let blobs = all.into_iter().filter(|blob| blob.digest != digest).collect();
    Ok(Parts { text, media_type, manifest, blobs })
}

struct Push<'a> {
    store: &'a Store,
    image: &'a Reference,
    session: Session<'a>,
    reporter: Reporter,
}

impl Push<'_> {
    async fn blob(&self, blob: BlobRef) -> Result<(), PushError> {
        let (image, digest) = (|| self.image.to_string(), blob.digest);
        let failed = |source| PushError::Blob { image: image(), blob: digest, source: Box::new(source) };
        if self.has(blob).await.map_err(failed)? {
            self.reporter.exists(digest);
            return Ok(());
        }
        let mut pause = self.session.client.transport.settings.timeouts.pause;
        for tries_left in (0..TRIES).rev() {
            self.reporter.moved(digest, LayerState::Uploading, Bytes(0));
            match self.upload(blob).await {
                Ok(()) => break,
                Err(error) if tries_left > 0 && error.may_pass() => {
                    let blob = digest;
                    tracing::warn!(%blob, error = &error as &(dyn Error + 'static), "pushing a blob again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        self.reporter.done(digest);
        Ok(())
    }

    async fn has(&self, blob: BlobRef) -> Result<bool, RequestError> {
        let call = Call::new(Method::HEAD, self.session.url(&format!("blobs/{}", blob.digest)));
        let answer = self.session.send(&call).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            // The blob store that the registry leads to does not say: many sign what they are led to for GET alone.
            _ if !same_origin(&answer.url, &self.session.peer.base) => Ok(false),
            _ => Err(self.session.refusal(answer, &format!("blob {}", blob.digest)).await),
        }
    }

    /// Asks where to put the blob, and puts it there in one piece.
    async fn upload(&self, BlobRef { digest, size }: BlobRef) -> Result<(), RequestError> {
        let begin = Call::new(Method::POST, self.session.url("blobs/uploads/"));
        let begin = begin.with(CONTENT_LENGTH, HeaderValue::from(0_u64));
        let answer = self.session.send(&begin).await?;
        let answer = self.session.expect(answer, StatusCode::ACCEPTED, "place for blobs").await?;
        let sent = {
            let reporter = self.reporter.clone();
            Sent::to(move |sent| reporter.moved(digest, LayerState::Uploading, sent))
        };
        let mut put = Call::new(Method::PUT, self.place(&answer, digest)?)
            .with(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .with(CONTENT_LENGTH, HeaderValue::from(size.0));
        put.body = Body::Blob { store: self.store.clone(), digest, size, sent };
        let answer = self.session.send(&put).await?;
        self.session.expect(answer, StatusCode::CREATED, &format!("place for blob {digest}")).await.map(drop)
    }

    /// Where the registry wants the blob, with the digest that ends the upload.
    fn place(&self, answer: &Answer, digest: Digest) -> Result<Url, RequestError> {
        let transport = &self.session.client.transport;
        let place = transport.location(&self.session.peer, &answer.url, answer.headers());
        let mut place = place.map_err(|source| RequestError::Redirect { at: answer.at(), source })?;
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        Ok(place)
    }

    /// Gives the image its name, and sees to it that the name is this image's.
    async fn manifest(&self, digest: Digest, text: Vec<u8>, media_type: &str) -> Result<(), PushError> {
        let name = || self.image.to_string();
        let failed = |source| PushError::Request { image: name(), source: Box::new(source) };
        let target = self.image.target();
        let url = self.session.url(&format!("manifests/{target}"));
        let kind = HeaderValue::try_from(media_type).expect("the media type is one of those that are known");
        let mut put = Call::new(Method::PUT, url).with(CONTENT_TYPE, kind);
        put.body = Body::Small(text.into());
        let what = format!("repository {}", self.image.repository());
        let answer = self.session.send(&put).await.map_err(failed)?;
        let answer = self.session.expect(answer, StatusCode::CREATED, &what).await.map_err(failed)?;
        let taken = answer.header(CONTENT_DIGEST).and_then(|taken| taken.parse::<Digest>().ok());
        match taken {
            Some(taken) if taken == digest => Ok(()),
            Some(taken) => {
                Err(PushError::WrongDigest { image: Box::new(self.image.clone()), sent: digest, taken })
            }
            // Who does not say what it took is asked for it.
            None => {
                let call = Call::new(Method::HEAD, self.session.url(&format!("manifests/{digest}")));
                let answer = self.session.send(&call).await.map_err(failed)?;
                let what = format!("manifest {digest}, which it has just taken");
                self.session.expect(answer, StatusCode::OK, &what).await.map(drop).map_err(failed)
            }
        }
    }
}
