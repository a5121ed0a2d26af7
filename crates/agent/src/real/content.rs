//! The service from which other nodes copy images.

use std::io::Read as _;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wire::proto::agent::content_server::Content;
use wire::proto::agent::{Blob, BlobChunk, DescribeImage, FetchBlob, ImageBlobs};

use crate::real::{blocking, failure};

/// Large enough that a chunk's overhead does not count, small enough that several in flight are no memory worth naming.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for the network.
const WAITING: usize = 2;

#[derive(Clone, Debug)]
pub struct Service {
    images: image::Store,
}

impl Service {
    pub fn new(images: image::Store) -> Self {
        Self { images }
    }
}

fn digest(text: &str) -> Result<model::Digest, Status> {
    wire::digest(text).map_err(|error| Status::invalid_argument(failure("malformed", &error).0))
}

#[tonic::async_trait]
impl Content for Service {
    type FetchStream = ReceiverStream<Result<BlobChunk, Status>>;

    async fn describe(&self, request: Request<DescribeImage>) -> Result<Response<ImageBlobs>, Status> {
        let manifest = digest(&request.into_inner().manifest)?;
        if !self.images.contains(&manifest) {
            return Err(Status::not_found(format!("this node does not hold image {manifest}")));
        }
        let images = self.images.clone();
        let blobs = blocking(move || {
            images.blobs(&manifest).map_err(|error| failure("cannot read the image", &error))
        });
        let blobs = blobs.await.map_err(|failure| Status::internal(failure.0))?;
        let blobs = blobs.into_iter().map(|blob| Blob { digest: blob.digest.to_string(), size: blob.size.0 });
        Ok(Response::new(ImageBlobs { blobs: blobs.collect() }))
    }

    async fn fetch(&self, request: Request<FetchBlob>) -> Result<Response<Self::FetchStream>, Status> {
        let digest = digest(&request.into_inner().digest)?;
        let file = self.images.open_blob(&digest);
        let mut file = file.map_err(|_| Status::not_found(format!("this node does not hold {digest}")))?;
        let (chunks, answer) = mpsc::channel(WAITING);
        // The thread ends with the call: a receiver that is gone fails the next send.
        tokio::task::spawn_blocking(move || {
            loop {
                let mut data = Vec::with_capacity(CHUNK);
                let chunk = match (&mut file).take(CHUNK as u64).read_to_end(&mut data) {
                    Ok(0) => return,
                    Ok(_) => Ok(BlobChunk { data }),
                    Err(error) => Err(Status::internal(format!("cannot read {digest}: {error}"))),
                };
                let failed = chunk.is_err();
                if chunks.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answer)))
    }
}
