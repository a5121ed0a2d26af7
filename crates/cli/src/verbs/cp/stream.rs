//! An archive on its way between the thread that makes or reads it and the conversation.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;
use wire::proto::stream::piece;

use crate::progress::CopyDisplay;
use crate::talk::{HungUp, Mouth};

/// Pieces that wait for the disk.
pub(super) const WAITING: usize = 8;

/// An archive leaves in pieces of about this size.
const PIECE: usize = 32 << 10;

/// An archive as it comes. One that stops without its end is an error, so that half of it is not taken for all.
pub(super) struct Fed {
    pieces: mpsc::Receiver<Option<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    is_whole: bool,
}

impl Fed {
    /// `None` is the end.
    pub(super) fn new(pieces: mpsc::Receiver<Option<Vec<u8>>>) -> Self {
        Self { pieces, piece: Vec::new(), at: 0, is_whole: false }
    }
}

impl Read for Fed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.is_whole {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Some(piece)) => (self.piece, self.at) = (piece, 0),
                Some(None) => self.is_whole = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it broke off")),
            }
        }
        let rest = &self.piece[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// An archive as it leaves.
pub(super) struct Pieces {
    mouth: Mouth,
    gathered: Vec<u8>,
    display: CopyDisplay,
}

impl Pieces {
    pub(super) fn new(mouth: Mouth, display: CopyDisplay) -> Self {
        Self { mouth, gathered: Vec::new(), display }
    }
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
        self.display.add(self.gathered.len() as u64);
        let said = self.mouth.say_blocking(piece::Kind::Data(std::mem::take(&mut self.gathered)));
        said.map_err(|HungUp| io::Error::new(io::ErrorKind::BrokenPipe, "the node listens no more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: Vec<Option<Vec<u8>>>) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(8);
        for piece in pieces {
            sender.try_send(piece).unwrap();
        }
        drop(sender);
        let mut bytes = Vec::new();
        Fed::new(receiver).read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn half_an_archive_is_not_taken_for_all() {
        let (one, other) = (Some(b"ab".to_vec()), Some(b"c".to_vec()));
        assert_eq!(read(vec![one.clone(), Some(Vec::new()), other, None]).unwrap(), b"abc");
        assert_eq!(read(vec![None]).unwrap(), b"");
        assert_eq!(read(vec![one]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
