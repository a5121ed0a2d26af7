//! A layer on its way into the store: hashed as it is, compressed, and hashed again.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;

use flate2::Compression;
use flate2::write::GzEncoder;
use model::Digest;
use sha2::{Digest as _, Sha256};

use super::{CommitError, LayerFailure};
use crate::blob::{DiskError, Sealed, Staged};
use crate::decompress::{RATIO, RATIO_FLOOR};
use crate::limits;
use crate::store::Paths;

/// What grows so much when it is read is taken for a bomb, here and elsewhere, and a file of zeroes does. So before it comes to
/// that, a part is stored as it is; this far from it, compression goes on.
const STEEP: u64 = RATIO / 2;
const GENTLE: u64 = RATIO / 4;

/// As far as a change between the two may come late.
const PIECE: usize = 64 << 10;

pub(super) struct Packed {
    pub(super) sealed: Sealed,
    /// Of the uncompressed content.
    pub(super) diff_id: Digest,
}

pub(super) fn pack(
    paths: &Paths,
    layer: impl FnOnce(&mut dyn Write) -> Result<(), LayerFailure>,
) -> Result<Packed, CommitError> {
    let failed = Rc::new(Cell::new(None));
    let mut packer = Packer::new(Staged::new(paths)?, Rc::clone(&failed));
    let written = layer(&mut packer);
    if packer.given > limits::LAYER.0 {
        return Err(CommitError::TooLarge);
    }
    let packed = written.map_err(CommitError::Layer).and_then(|()| packer.finish());
    // It says more than that no more was taken.
    match failed.take() {
        Some(error) => Err(CommitError::Disk(error)),
        None => packed,
    }
}

struct Packer {
    /// `None` after it has failed.
    encoder: Option<GzEncoder<Output>>,
    hasher: Sha256,
    given: u64,
    /// Nothing is compressed for now.
    stores: bool,
}

/// The compressed content.
struct Output {
    staged: Staged,
    /// Why it could not be kept: this machine's fault, and not that of whoever writes.
    failed: Rc<Cell<Option<DiskError>>>,
}

impl Packer {
    fn new(staged: Staged, failed: Rc<Cell<Option<DiskError>>>) -> Self {
        let encoder = Some(encoder(Output { staged, failed }, false));
        Self { encoder, hasher: Sha256::new(), given: 0, stores: false }
    }

    fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        self.given += piece.len() as u64;
        if self.given > limits::LAYER.0 {
            return Err(io::Error::other("the layer is too large"));
        }
        self.hasher.update(piece);
        let taken = self.encoder.as_ref().map_or(0, |encoder| encoder.get_ref().staged.written().0);
        let stores = match self.stores {
            false => self.given > RATIO_FLOOR / 2 && self.given > taken * STEEP,
            true => self.given > taken * GENTLE,
        };
        if stores != self.stores {
            self.turn(stores)?;
        }
        let Some(encoder) = &mut self.encoder else { return Err(io::ErrorKind::BrokenPipe.into()) };
        encoder.write_all(piece)
    }

    /// Goes on with another member: a reader of gzip reads one after the other.
    fn turn(&mut self, stores: bool) -> io::Result<()> {
        let Some(before) = self.encoder.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        self.encoder = Some(encoder(before.finish()?, stores));
        self.stores = stores;
        Ok(())
    }

    fn finish(self) -> Result<Packed, CommitError> {
        let Self { encoder, hasher, given: _, stores: _ } = self;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let finished = encoder.ok_or_else(gone).and_then(GzEncoder::finish);
        let output = finished.map_err(|error| CommitError::Layer(error.into()))?;
        Ok(Packed { sealed: output.staged.seal()?, diff_id: Digest(hasher.finalize().into()) })
    }
}

/// The quickest compression: the node's processors are others'. Nothing of the time of day goes into it.
fn encoder(output: Output, stores: bool) -> GzEncoder<Output> {
    GzEncoder::new(output, if stores { Compression::none() } else { Compression::fast() })
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.chunks(PIECE).try_for_each(|piece| self.piece(piece))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.staged.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed.set(Some(error));
                Err(io::Error::other("the layer could not be kept"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::digest_of;
    use crate::decompress::{Codec, Decompressed};
    use crate::store::Store;

    /// Packs it, reads it back as any layer, and says how large it was packed.
    fn packed(content: &[u8]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let packed = pack(store.paths(), |sink| sink.write_all(content).map_err(LayerFailure::from));
        let Packed { sealed, diff_id } = packed.unwrap();
        assert_eq!(diff_id, digest_of(content));
        let mut read = Decompressed::new(sealed.open().unwrap(), limits::LAYER).unwrap();
        assert_eq!(read.codec, Codec::Gzip);
        let mut back = Vec::new();
        io::Read::read_to_end(&mut read, &mut back).unwrap();
        assert!(back == content);
        sealed.size.0
    }

    #[test]
    fn what_compresses_well_does() {
        assert!(packed(&[]) < 100);
        let text = "a line like any other\n".repeat(1 << 20);
        assert!(packed(text.as_bytes()) < text.len() as u64 / 20);
    }

    #[test]
    fn what_would_be_taken_for_a_bomb_is_not_packed_into_one() {
        let zeroes = vec![0; 200 << 20];
        let size = packed(&zeroes);
        assert!((zeroes.len() as u64 / RATIO..zeroes.len() as u64 / 10).contains(&size), "{size}");
        // Also where only a part of it is like that.
        let mut noise = 1_u32;
        let mut mixed: Vec<u8> = vec![0; 100 << 20];
        mixed.extend(
            std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .take(1 << 20),
        );
        mixed.extend(vec![0; 100 << 20]);
        packed(&mixed);
    }

    #[test]
    fn a_layer_that_fails_half_way_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let failed = pack(store.paths(), |sink| {
            sink.write_all(&[7; 100_000])?;
            Err("the disk is on fire".into())
        });
        assert!(matches!(&failed, Err(CommitError::Layer(why)) if why.to_string() == "the disk is on fire"));
        assert_eq!(std::fs::read_dir(root.path().join("ingest")).unwrap().count(), 0);
    }
}
