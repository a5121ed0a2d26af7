//! Files in and out of a container, as tar archives. The work is the runtime's, on a thread that may block.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use runtime::files::{self, Fault, FilesError, Source, Unpack};
use tokio::sync::mpsc;
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{Begun, CopyIn, CopyOut, piece};

use crate::real::failure;
use crate::real::talk::{Ear, Gone, Mouth, Refusal};
use crate::real::tasks::Cut;

/// The archive leaves in pieces of about this size.
const PIECE: usize = 32 << 10;

/// Pieces of an archive that wait for the disk.
const WAITING: usize = 8;

pub(super) async fn out(dir: PathBuf, asked: CopyOut, ear: &mut Ear<'_>, mouth: &Mouth) -> Result<(), Cut> {
    let CopyOut { path, follow } = asked;
    let source = on_thread(move || Source::open(&dir, &path, follow)).await?;
    let found = source.found();
    let (name, directory, size) = (found.name.clone(), found.directory, found.size);
    let begun = Begun { name, directory, size, ..Begun::default() };
    mouth.say(piece::Kind::Begun(begun)).await?;
    let sink = Pieces { mouth: mouth.clone(), gathered: Vec::new() };
    let archived = on_thread(move || source.archive(sink));
    tokio::select! {
        archived = archived => archived?,
        // The thread finds out with its next piece.
        () = ear.hung_up() => return Err(Cut::Gone),
    }
    Ok(mouth.say(piece::Kind::End(true)).await?)
}

pub(super) async fn into(dir: PathBuf, asked: CopyIn, ear: &mut Ear<'_>, mouth: &Mouth) -> Result<(), Cut> {
    let CopyIn { path, keep_owner, rename } = asked;
    let (pieces, archive) = mpsc::channel(WAITING);
    let unpacked = on_thread(move || {
        let archive = Archive { pieces: archive, piece: Vec::new(), at: 0, whole: false };
        files::unpack(&dir, &path, Unpack { keep_owner, rename }, archive)
    });
    let feed = async move {
        while let Some(kind) = ear.hear().await {
            match kind {
                piece::Kind::Data(data) => match pieces.send(Some(data)).await {
                    Ok(()) => {}
                    // It has failed and says why itself.
                    Err(_) => return Ok(()),
                },
                piece::Kind::End(_) => {
                    let _ = pieces.send(None).await;
                    return Ok(());
                }
                _other => {}
            }
        }
        // Hung up in the middle: what was sent is not whole.
        Err(Gone)
    };
    whole(unpacked, feed, mouth).await?;
    Ok(mouth.say(piece::Kind::End(true)).await?)
}

/// Waits until all has come and is unpacked. A failure is told when it is known, and not with the next piece, for which a
/// client may wait itself.
async fn whole(
    unpacked: impl Future<Output = Result<(), Refusal>>,
    feed: impl Future<Output = Result<(), Gone>>,
    mouth: &Mouth,
) -> Result<(), Cut> {
    let mut unpacked = std::pin::pin!(unpacked);
    tokio::select! {
        biased;
        done = &mut unpacked => return Ok(done?),
        fed = feed => fed?,
        () = mouth.gone() => return Err(Gone.into()),
    }
    Ok(unpacked.await?)
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| Refusal::from(failure("the copy failed", &error)))?;
    done.map_err(|error| {
        let kind = match error.fault() {
            Fault::NotFound => Kind::NotFound,
            Fault::NotRunning => Kind::Conflict,
            Fault::Other => Kind::Failed,
        };
        Refusal::new(kind, failure("cannot copy", &error).0)
    })
}

/// An archive on its way to the client.
struct Pieces {
    mouth: Mouth,
    gathered: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let said = self.mouth.say_blocking(piece::Kind::Data(std::mem::take(&mut self.gathered)));
        said.map_err(|Gone| io::Error::new(io::ErrorKind::BrokenPipe, "the client has hung up"))
    }
}

/// An archive as it comes from the client. One that stops without its end is an error, so that half of it is not taken for
/// all.
struct Archive {
    pieces: mpsc::Receiver<Option<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    /// The client has said that this was all.
    whole: bool,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.whole {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => (self.piece, self.at) = (piece, 0),
                Some(None) => self.whole = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client has hung up")),
            }
        }
        let rest = &self.piece[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_copy_that_failed_does_not_wait_for_more_to_come() {
        let (says, hears) = mpsc::channel(1);
        let mouth = Mouth(says);
        let refused = Refusal::new(Kind::NotFound, "there is no /x in the container");
        let cut = whole(ready(Err(refused)), pending(), &mouth).await.unwrap_err();
        assert!(matches!(cut, Cut::Refused(Refusal { kind: Kind::NotFound, .. })), "{cut:?}");
        drop(hears);
        let cut = whole(pending(), pending(), &mouth).await.unwrap_err();
        assert!(matches!(cut, Cut::Gone), "the client hung up while nothing had room: {cut:?}");
        assert!(matches!(whole(pending(), ready(Err(Gone)), &mouth).await, Err(Cut::Gone)));
    }

    #[tokio::test]
    async fn a_copy_is_done_when_all_has_come_and_is_unpacked() {
        let (says, _hears) = mpsc::channel(1);
        let (done, unpacked) = tokio::sync::oneshot::channel();
        let unpacked = async move { unpacked.await.map_err(|_| Refusal::new(Kind::Failed, "it stopped")) };
        let feed = async move {
            done.send(()).unwrap();
            Ok(())
        };
        assert!(whole(unpacked, feed, &Mouth(says)).await.is_ok());
    }
}
