//! One blob from one registry into the store: hashed once, while it is written, and taken up again where a connection broke.

use std::error::Error;

use model::{Bytes, Digest};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure::RequestError;
use super::session::Session;
use super::transport::{Answer, Call};
use crate::store::{BlobRef, IngestLayerError, Store};

/// A registry that breaks off three times in a row is in trouble; whoever wants the image tries again later.
pub(super) const TRIES: u32 = 3;

/// A try that brought so much is the first of a new row: a link that breaks every few minutes would never bring a layer of
/// some gigabytes else. Less than that is no way to get on.
const HEADWAY: u64 = 1 << 20;

/// Pieces on their way from the network to the disk: each works while the other does, and neither runs ahead.
const IN_FLIGHT: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("{at} gives more than the {size} that the manifest says of blob {blob}")]
    TooLong { at: String, blob: Digest, size: Bytes },
    #[error("{at} announces {said} of blob {blob}, of which {expected} are to come by the manifest")]
    Announced { at: String, blob: Digest, said: Bytes, expected: Bytes },
    #[error("blob {blob} is truncated: {at} ended it after {done} of {size}")]
    Truncated { at: String, blob: Digest, done: Bytes, size: Bytes },
    #[error("{at} gives another part of blob {blob} than was asked for")]
    Range { at: String, blob: Digest },
    #[error(transparent)]
    Ingest(#[from] IngestLayerError),
    #[error("blob {0} was not written to the end: gantry is being stopped")]
    Stopped(Digest),
}

impl BlobError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Request(error) => error.may_pass(),
            Self::Truncated { .. } => true,
            Self::TooLong { .. }
            | Self::Announced { .. }
            | Self::Range { .. }
            | Self::Ingest(_)
            | Self::Stopped(_) => false,
        }
    }
}

/// Brings the blob into the store. `report` hears how much of it has come. What unpacks to `layer` is unpacked on the way,
/// where the store does that.
pub(super) async fn fetch(
    session: &Session<'_>,
    store: &Store,
    blob: BlobRef,
    layer: Option<Digest>,
    report: impl Fn(Bytes),
) -> Result<(), BlobError> {
    let mut fetching = Fetching { session, blob, sink: Sink::open(store, blob, layer), done: 0, report };
    let shortest = session.client.transport.settings.timeouts.pause;
    let (mut tries_left, mut pause) = (TRIES, shortest);
    loop {
        let before = fetching.done;
        let Err(error) = fetching.receive().await else { break };
        if fetching.done - before >= HEADWAY {
            (tries_left, pause) = (TRIES, shortest);
        }
        tries_left -= 1;
        if tries_left == 0 || !error.may_pass() {
            return Err(error);
        }
        let (blob, done) = (blob.digest, fetching.done);
        tracing::warn!(%blob, done, error = &error as &(dyn Error + 'static), "asking for a blob again");
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    fetching.sink.finish().await
}

struct Fetching<'a, F> {
    session: &'a Session<'a>,
    blob: BlobRef,
    sink: Sink,
    /// Bytes that the sink has.
    done: u64,
    report: F,
}

impl<F: Fn(Bytes)> Fetching<'_, F> {
    /// One request for what is still to come.
    async fn receive(&mut self) -> Result<(), BlobError> {
        let BlobRef { digest, size: Bytes(size) } = self.blob;
        // A connection can also break when everything has come.
        if self.done == size {
            return Ok(());
        }
        let mut call = Call::get(self.session.url(&format!("blobs/{digest}")));
        if self.done > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.done));
            call = call.with(RANGE, range.expect("a number can stand in a header"));
        }
        let mut answer = self.session.send(&call).await?;
        let mut skip = match self.begins_at(&answer)? {
            Some(begin) => self.done - begin,
            None => return Err(self.session.refusal(answer, &format!("blob {digest}")).await.into()),
        };
        while let Some(mut piece) = answer.chunk().await? {
            let known = skip.min(piece.len() as u64);
            skip -= known;
            // What is skipped is no longer than the piece, whose length is a `usize`.
            let piece = piece.split_off(usize::try_from(known).unwrap_or(usize::MAX));
            if self.done + piece.len() as u64 > size {
                return Err(BlobError::TooLong { at: answer.at(), blob: digest, size: Bytes(size) });
            }
            self.done += piece.len() as u64;
            if !piece.is_empty() && !self.sink.write(piece).await {
                // The writer has failed, and says why when it is asked to finish.
                return Ok(());
            }
            (self.report)(Bytes(self.done));
        }
        if self.done < size {
            let (done, size) = (Bytes(self.done), Bytes(size));
            return Err(BlobError::Truncated { at: answer.at(), blob: digest, done, size });
        }
        Ok(())
    }

    /// Where in the blob the answer's body begins; `None` if it is not the blob at all.
    fn begins_at(&self, answer: &Answer) -> Result<Option<u64>, BlobError> {
        let asked = Asked { done: self.done, size: self.blob.size.0 };
        let range = answer.header(CONTENT_RANGE);
        let (at, blob) = (answer.at(), self.blob.digest);
        match begins_at(asked, answer.status(), range, answer.length()) {
            Ok(begin) => Ok(begin),
            Err(Wrong::Range) => Err(BlobError::Range { at, blob }),
            Err(Wrong::Length { said, expected }) if said > expected => {
                Err(BlobError::TooLong { at, blob, size: self.blob.size })
            }
            Err(Wrong::Length { said, expected }) => {
                Err(BlobError::Announced { at, blob, said: Bytes(said), expected: Bytes(expected) })
            }
        }
    }
}

/// The rest of a blob of `size`, of which `done` is here.
#[derive(Clone, Copy)]
struct Asked {
    done: u64,
    size: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Range,
    Length { said: u64, expected: u64 },
}

/// A server may give all of a blob when it was asked for the rest (RFC 9110, section 14.2), but nothing else.
fn begins_at(
    Asked { done, size }: Asked,
    status: StatusCode,
    range: Option<&str>,
    length: Option<u64>,
) -> Result<Option<u64>, Wrong> {
    let begin = match status {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT if done > 0 && is_rest(range, done, size) => done,
        StatusCode::PARTIAL_CONTENT => return Err(Wrong::Range),
        _ => return Ok(None),
    };
    match length {
        Some(said) if said != size - begin => Err(Wrong::Length { said, expected: size - begin }),
        Some(_) | None => Ok(Some(begin)),
    }
}

/// Whether a `Content-Range` is `bytes <done>-<size - 1>/<size>`; the total may be `*`.
fn is_rest(range: Option<&str>, done: u64, size: u64) -> bool {
    let Some((part, total)) = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/')) else {
        return false;
    };
    let ends = part.trim().split_once('-').map(|(first, last)| (first.parse::<u64>(), last.parse::<u64>()));
    ends == Some((Ok(done), Ok(size - 1))) && (total.trim() == "*" || total.trim().parse::<u64>() == Ok(size))
}

/// A blob's bytes on their way to the disk. Dropped before [`Sink::finish`], it leaves nothing.
struct Sink {
    pieces: mpsc::Sender<Piece>,
    writer: JoinHandle<Result<(), IngestLayerError>>,
    blob: Digest,
}

enum Piece {
    Bytes(bytes::Bytes),
    End,
}

impl Sink {
    fn open(store: &Store, blob: BlobRef, layer: Option<Digest>) -> Self {
        let (pieces, coming) = mpsc::channel(IN_FLIGHT);
        let store = store.clone();
        let writer = tokio::task::spawn_blocking(move || keep(&store, blob, layer, coming));
        Self { pieces, writer, blob: blob.digest }
    }

    /// False when the writer has given up.
    async fn write(&self, piece: bytes::Bytes) -> bool {
        self.pieces.send(Piece::Bytes(piece)).await.is_ok()
    }

    async fn finish(self) -> Result<(), BlobError> {
        let Self { pieces, writer, blob } = self;
        // One that has given up does not listen, and says why as its result.
        drop(pieces.send(Piece::End).await);
        match writer.await {
            Ok(written) => Ok(written?),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(BlobError::Stopped(blob)),
        }
    }
}

/// What becomes of a blob that is downloaded, on a thread that may block. This is the one place that knows.
fn keep(
    store: &Store,
    blob: BlobRef,
    layer: Option<Digest>,
    mut coming: mpsc::Receiver<Piece>,
) -> Result<(), IngestLayerError> {
    let mut arrival = store.arrive(blob, layer)?;
    loop {
        match coming.blocking_recv() {
            Some(Piece::Bytes(piece)) => arrival.write(&piece)?,
            Some(Piece::End) => return arrival.finish().map(drop),
            // Nobody waits for it any more.
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: StatusCode = StatusCode::OK;
    const PARTIAL: StatusCode = StatusCode::PARTIAL_CONTENT;

    #[test]
    fn an_answer_is_all_of_a_blob_or_its_rest() {
        let wrong = |said, expected| Err(Wrong::Length { said, expected });
        for (done, status, range, length, expected) in [
            (0, OK, None, Some(10), Ok(Some(0))),
            (0, OK, None, None, Ok(Some(0))),
            (0, OK, None, Some(11), wrong(11, 10)),
            (0, OK, None, Some(9), wrong(9, 10)),
            (0, PARTIAL, Some("bytes 0-9/10"), Some(10), Err(Wrong::Range)),
            (4, PARTIAL, Some("bytes 4-9/10"), Some(6), Ok(Some(4))),
            (4, PARTIAL, Some("bytes 4-9/*"), None, Ok(Some(4))),
            (4, PARTIAL, Some("bytes 4-9/10"), Some(7), wrong(7, 6)),
            (4, PARTIAL, Some("bytes 3-9/10"), Some(7), Err(Wrong::Range)),
            (4, PARTIAL, Some("bytes 4-8/10"), Some(5), Err(Wrong::Range)),
            (4, PARTIAL, Some("bytes 4-9/11"), Some(6), Err(Wrong::Range)),
            (4, PARTIAL, Some("bytes 4-9"), Some(6), Err(Wrong::Range)),
            (4, PARTIAL, Some("bytes=4-9/10"), Some(6), Err(Wrong::Range)),
            (4, PARTIAL, None, Some(6), Err(Wrong::Range)),
            // It does not know ranges.
            (4, OK, None, Some(10), Ok(Some(0))),
            (4, OK, None, Some(6), wrong(6, 10)),
            (4, StatusCode::NOT_FOUND, None, Some(100), Ok(None)),
            (4, StatusCode::RANGE_NOT_SATISFIABLE, None, None, Ok(None)),
        ] {
            let found = begins_at(Asked { done, size: 10 }, status, range, length);
            assert_eq!(found, expected, "{done} {status} {range:?} {length:?}");
        }
    }
}
