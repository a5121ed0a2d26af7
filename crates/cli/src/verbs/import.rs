//! `gantry image import`.

use std::future::pending;
use std::io;
use std::path::PathBuf;

use futures::Stream;
use futures::stream::unfold;
use model::ImageName;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tonic::{Response, Status, Streaming};
use wire::proto::api::{Image, ImportChunk, ImportProgress};

use crate::cluster::{CallError, Client, Effect, Operation, PATIENCE, is_passing};
use crate::failure::Failure;
use crate::input::{self, InputError};
use crate::progress::ImportDisplay;
use crate::render;
use crate::session::Session;

/// Large enough that the messages around it cost nothing, and far below the 4 MiB that a message may have.
const CHUNK: u64 = 256 << 10;

/// Bring an image into the cluster, and wait until two nodes hold it
///
/// Reads what `docker save` writes, an OCI layout as a tar archive, and a plain root file system as a tar archive. Each may
/// be compressed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image import nginx.tar
  gantry image import rootfs.tar.zst mine:1.0
  docker save nginx:1.22 | gantry image import -")]
pub struct Import {
    /// The archive, or `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the image is called; the archive's own name for it if this is left out
    name: Option<ImageName>,
}

impl Import {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let operand = input::shown(&self.file);
        let (file, size) = input::open(&self.file)?;
        let mut cluster = session.cluster()?;
        let operation = Operation { operand: &operand, effect: Effect::Reads, list: "gantry node ls" };
        // The archive can be read once only, so the manager that gets it has to be one that answers.
        let found =
            cluster.call(operation, PATIENCE, |client| async move { Ok::<_, Status>(Response::new(client)) });
        let client = found.await?;
        session.if_interrupted("the import is given up; repeating it is safe");
        let mut display = ImportDisplay::of(session.output, size);
        let (failed, failure) = oneshot::channel();
        let name = self.name.map(|name| name.to_string());
        let archive = Archive { file, name: Some(name.unwrap_or_default()), failed };
        let imported = tokio::select! {
            image = import(client, chunks(archive), operation, &mut display) => image?,
            Ok(source) = failure => return Err(InputError::Read { path: self.file, source }.into()),
        };
        drop(display);
        session.output.data(render::images::imported(&imported))?;
        Ok(())
    }
}

struct Archive {
    file: File,
    /// Goes with the first chunk.
    name: Option<String>,
    /// Told when the file cannot be read on.
    failed: oneshot::Sender<io::Error>,
}

/// The archive in pieces. When it cannot be read on, the stream stays as it is: its end would say that the archive is
/// complete, so whoever is told of the failure has to drop it.
fn chunks(archive: Archive) -> impl Stream<Item = ImportChunk> + Send + 'static {
    unfold(archive, |mut archive| async move {
        let mut data = Vec::new();
        let read = (&mut archive.file).take(CHUNK).read_to_end(&mut data).await;
        match read {
            Ok(0) if archive.name.is_none() => None,
            Ok(_) => {
                let name = archive.name.take().unwrap_or_default();
                Some((ImportChunk { name, data }, archive))
            }
            Err(error) => {
                // Without a receiver the whole import is being dropped.
                let _ = archive.failed.send(error);
                pending().await
            }
        }
    })
}

/// Sends the archive and shows what becomes of it; the image that it became.
async fn import(
    mut client: Client,
    chunks: impl Stream<Item = ImportChunk> + Send + 'static,
    operation: Operation<'_>,
    display: &mut ImportDisplay,
) -> Result<Image, CallError> {
    let answers = client.import_image(chunks).await.map_err(|status| failed(operation, &status))?;
    follow(answers.into_inner(), operation, display).await
}

/// Shows how an image comes into the cluster; the image.
pub(super) async fn follow(
    mut answers: Streaming<ImportProgress>,
    operation: Operation<'_>,
    display: &mut ImportDisplay,
) -> Result<Image, CallError> {
    while let Some(progress) = answers.message().await.map_err(|status| failed(operation, &status))? {
        let ImportProgress { stage, bytes, image } = progress;
        match image {
            Some(image) => return Ok(image),
            None => display.show(&render::plain(&stage), bytes),
        }
    }
    Err(operation.broken("the manager said no last word"))
}

fn failed(operation: Operation<'_>, status: &Status) -> CallError {
    match is_passing(status) {
        true => operation.broken(status.message()),
        false => operation.refused(status),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use futures::StreamExt as _;

    use super::*;

    fn archive(path: &std::path::Path) -> (Archive, oneshot::Receiver<io::Error>) {
        let (failed, failure) = oneshot::channel();
        let file = File::from_std(fs::File::open(path).unwrap());
        (Archive { file, name: Some("nginx:latest".to_owned()), failed }, failure)
    }

    async fn sent(bytes: &[u8]) -> Vec<(String, usize)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        fs::write(&path, bytes).unwrap();
        let chunks = chunks(archive(&path).0);
        chunks.map(|chunk| (chunk.name, chunk.data.len())).collect().await
    }

    #[tokio::test]
    async fn the_first_chunk_carries_the_name_even_of_an_empty_file() {
        let name = || "nginx:latest".to_owned();
        assert_eq!(sent(b"").await, [(name(), 0)]);
        let size = usize::try_from(CHUNK).unwrap();
        assert_eq!(sent(&vec![7; size + 1]).await, [(name(), size), (String::new(), 1)]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_on_does_not_look_complete() {
        let directory = tempfile::tempdir().unwrap();
        let (archive, failure) = archive(directory.path());
        let mut chunks = Box::pin(chunks(archive));
        tokio::select! {
            chunk = chunks.next() => panic!("a directory was read: {chunk:?}"),
            error = failure => assert_eq!(error.unwrap().kind(), io::ErrorKind::IsADirectory),
        }
    }
}
