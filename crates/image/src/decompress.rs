//! Archives and layers come plain, or compressed with gzip or zstd. Which one is read from the content: media types lie.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use model::Bytes;

/// Real layers compress two- to tenfold, very sparse ones perhaps a hundredfold; a bomb a thousandfold.
pub(crate) const RATIO: u64 = 200;

/// How much of what it gave a zstd stream may refer back to, as a power of two: 128 MiB, what `zstd --long` takes and the
/// most that the `zstd` program itself gives memory for unasked. What says that it needs more is refused.
const WINDOW: u32 = 27;

/// Below this much output the ratio is nobody's concern: small files of zeroes are common.
pub(crate) const RATIO_FLOOR: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Plain,
    Gzip,
    Zstd,
}

/// Why reading stopped before the end: the source of an `io::Error` of kind `Other`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bomb {
    #[error("it is more than {0} when uncompressed")]
    Size(Bytes),
    #[error("it grows more than {most}-fold when uncompressed", most = RATIO)]
    Ratio,
}

/// Reads the uncompressed content, and fails rather than give more than the limits allow. One layer of compression is
/// taken off, never two.
pub(crate) struct Decompressed<'a> {
    content: Box<dyn Read + 'a>,
    pub(crate) codec: Codec,
    taken: Rc<Cell<u64>>,
    given: u64,
    limit: Bytes,
}

impl<'a> Decompressed<'a> {
    pub(crate) fn new(mut input: impl Read + 'a, limit: Bytes) -> io::Result<Self> {
        let mut start = Vec::with_capacity(4);
        input.by_ref().take(4).read_to_end(&mut start)?;
        let codec = match start.as_slice() {
            [0x1f, 0x8b, ..] => Codec::Gzip,
            // A frame, or one to be skipped in front of it, as pzstd writes it.
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Codec::Zstd,
            _ => Codec::Plain,
        };
        let taken = Rc::new(Cell::new(0));
        let counted = Counted { input: Cursor::new(start).chain(input), taken: Rc::clone(&taken) };
        let content: Box<dyn Read + 'a> = match codec {
            Codec::Plain => Box::new(counted),
            Codec::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(128 << 10, counted))),
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(counted)?;
                decoder.window_log_max(WINDOW)?;
                Box::new(decoder)
            }
        };
        Ok(Self { content, codec, taken, given: 0, limit })
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.given += count as u64;
        if self.given > self.limit.0 {
            return Err(io::Error::other(Bomb::Size(self.limit)));
        }
        if self.given > RATIO_FLOOR.max(self.taken.get().saturating_mul(RATIO)) {
            return Err(io::Error::other(Bomb::Ratio));
        }
        Ok(count)
    }
}

struct Counted<R> {
    input: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Decompressed::new(packed, Bytes(limit))?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn the_codec_is_read_from_the_content() {
        let zstd = zstd::stream::encode_all(&b"content"[..], 1).unwrap();
        for packed in [b"content".to_vec(), gzip(b"content"), zstd] {
            assert_eq!(read(&packed, 100).unwrap(), b"content");
        }
        assert_eq!(read(b"", 100).unwrap(), b"");
        assert_eq!(read(b"abc", 100).unwrap(), b"abc");
    }

    #[test]
    fn frames_that_are_to_be_skipped_are_skipped_wherever_they_are() {
        let frame = zstd::stream::encode_all(&b"content"[..], 1).unwrap();
        let skipped = [0x53, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        for packed in [[&skipped[..], &frame[..]].concat(), [&frame[..], &skipped[..]].concat()] {
            assert_eq!(read(&packed, 100).unwrap(), b"content");
        }
    }

    #[test]
    fn only_one_layer_of_compression_is_taken_off() {
        let once = gzip(b"content");
        assert_eq!(read(&gzip(&once), 1000).unwrap(), once);
    }

    #[test]
    fn a_bomb_ends_the_reading() {
        let zeroes = gzip(&vec![0; 80 << 20]);
        let bomb = |error: io::Error| error.get_ref().and_then(|e| e.downcast_ref::<Bomb>()).cloned();
        assert_eq!(bomb(read(&zeroes, 1 << 30).unwrap_err()), Some(Bomb::Ratio));
        assert_eq!(bomb(read(&zeroes, 1 << 20).unwrap_err()), Some(Bomb::Size(Bytes(1 << 20))));
    }

    #[test]
    fn a_bomb_of_ten_thousandfold_ends_the_reading_too() {
        let zeroes = zstd::stream::encode_all(io::repeat(0).take(80 << 20), 3).unwrap();
        assert!(zeroes.len() * 10_000 < 80 << 20, "{}", zeroes.len());
        let error = read(&zeroes, 1 << 30).unwrap_err();
        assert_eq!(error.get_ref().and_then(|e| e.downcast_ref::<Bomb>()), Some(&Bomb::Ratio));
    }

    #[test]
    fn a_window_that_takes_more_memory_than_there_may_be_is_refused() {
        // RFC 8878, 3.1.1.1: a window of 2 GiB, then a frame that is one segment of 1 EiB; each with an empty block.
        let mut window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
        let mut segment = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
        segment.extend_from_slice(&(1_u64 << 60).to_le_bytes());
        for frame in [&mut window, &mut segment] {
            frame.extend_from_slice(&[1, 0, 0]);
            let error = read(frame, 1 << 30).unwrap_err().to_string();
            assert!(error.contains("too much memory"), "{error}");
        }
    }

    #[test]
    fn gzip_of_several_members_is_one_content() {
        let members = [gzip(b"one, "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(read(&members, 100).unwrap(), b"one, two");
        let followed = [gzip(b"one"), b"no member".to_vec()].concat();
        read(&followed, 100).unwrap_err();
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let packed = gzip(&vec![7; 10_000]);
        assert_eq!(
            read(&packed[..packed.len() - 4], 1 << 20).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
