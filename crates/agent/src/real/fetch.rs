//! Images from the nodes that hold them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use identity::{Connector, Expect};
use model::{Bytes, Digest, NodeId};
use wire::proto::agent::content_client::ContentClient;
use wire::proto::agent::{Blob, DescribeImage, FetchBlob};

use crate::host::{Failure, ImageSource};
use crate::real::{blocking, failure};

#[derive(Debug)]
pub(crate) struct Fetcher {
    images: image::Store,
    connector: Connector,
    /// One lock an image, so that thirty tasks that start at once copy it once.
    // A std mutex around the map: it is held for one map operation and never across an await.
    fetching: Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Fetcher {
    pub(crate) fn new(images: image::Store, connector: Connector) -> Self {
        Self { images, connector, fetching: Mutex::default() }
    }

    pub(crate) fn images(&self) -> Vec<Digest> {
        self.images.list().into_iter().map(|stored| stored.digest).collect()
    }

    /// Makes sure that the image is here, copying it from the first holder that gives it.
    pub(crate) async fn fetch(&self, source: ImageSource) -> Result<(), Failure> {
        if self.images.contains(&source.digest) {
            return Ok(());
        }
        let lock = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = { lock }.entry(source.digest).or_default().clone();
        let _alone = lock.lock().await;
        if self.images.contains(&source.digest) {
            return Ok(());
        }
        let mut why = format!("no node holds image {}", source.digest);
        for (node, address) in &source.holders {
            match self.copy(source.digest, *node, *address).await {
                Ok(()) => return Ok(()),
                Err(Failure(cause)) => why = format!("cannot fetch the image from {address}: {cause}"),
            }
        }
        Err(Failure(why))
    }

    async fn copy(&self, manifest: Digest, node: NodeId, address: SocketAddr) -> Result<(), Failure> {
        let channel = self.connector.connect(address, Expect::Node(node)).await;
        let channel = channel.map_err(|error| failure("no connection", &error))?;
        let mut holder = ContentClient::new(channel);
        let described = holder.describe(DescribeImage { manifest: manifest.to_string() }).await;
        let described = described.map_err(|status| Failure(status.message().to_owned()))?.into_inner();
        for Blob { digest, size } in described.blobs {
            let digest = wire::digest(&digest).map_err(|error| failure("a malformed answer", &error))?;
            if !self.images.has_blob(&digest) {
                self.copy_blob(&mut holder, digest, Bytes(size)).await?;
            }
        }
        let images = self.images.clone();
        let missing = blocking(move || {
            images.complete(&manifest).map_err(|error| failure("what was copied is not the image", &error))
        })
        .await?;
        match missing.first() {
            None => Ok(()),
            Some(missing) => Err(Failure(format!("it does not have all of the image: {missing} is missing"))),
        }
    }

    async fn copy_blob(
        &self,
        holder: &mut ContentClient<tonic::transport::Channel>,
        digest: Digest,
        size: Bytes,
    ) -> Result<(), Failure> {
        let call = holder.fetch(FetchBlob { digest: digest.to_string() }).await;
        let mut chunks = call.map_err(|status| Failure(status.message().to_owned()))?.into_inner();
        let images = self.images.clone();
        // A few chunks in flight: the disk and the network each work while the other does.
        let (pieces, mut written) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
        let write = blocking(move || {
            let bad = |error: image::IngestError| failure("cannot keep what was copied", &error);
            let mut ingest = images.ingest(&digest, size).map_err(bad)?;
            while let Some(piece) = written.blocking_recv() {
                ingest.write(&piece).map_err(bad)?;
            }
            ingest.finish().map_err(bad)
        });
        let read = async move {
            while let Some(chunk) =
                chunks.message().await.map_err(|status| Failure(status.message().to_owned()))?
            {
                if pieces.send(chunk.data).await.is_err() {
                    // The writer has failed and says why itself.
                    break;
                }
            }
            Ok::<(), Failure>(())
        };
        let (written, read) = tokio::join!(write, read);
        read?;
        written.map(drop)
    }

    pub(crate) async fn discard(&self, image: Digest) -> Result<(), Failure> {
        let images = self.images.clone();
        blocking(move || {
            images.remove(&image).map(drop).map_err(|error| failure("cannot remove the image", &error))
        })
        .await
    }
}
