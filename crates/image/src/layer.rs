//! A layer's tar becomes a directory tree, in the form in which overlayfs wants it.
//!
//! Layers are hostile until shown otherwise. Every step is relative to a directory opened beneath the layer's root with
//! `openat2(RESOLVE_IN_ROOT)`, so that a symbolic link in the layer leads where it would lead inside the container; the
//! last component of a path is never followed. See `DESIGN.md`.

mod entries;
mod tree;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use model::{Bytes, Digest};

use crate::blob::Hashed;
use crate::decompress::{Codec, Decompressed};
use crate::limits::{self, OverLimit, Usage};
use crate::path::{Clean, InvalidPath, shown};
use crate::tape::{Entry, Kind, Tape, TapeError};
use entries::place;
use tree::Tree;

/// Large enough that a syscall costs nothing beside hashing what it read.
const BUFFER: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("the blob cannot be read")]
    Blob(#[source] io::Error),
    #[error("its tree cannot be written")]
    Tree(#[source] io::Error),
    #[error("it is not a sound tar archive")]
    Tape(#[source] TapeError),
    #[error("the path of entry `{entry}` is refused")]
    Path {
        entry: String,
        #[source]
        source: InvalidPath,
    },
    #[error("entry `{entry}` is refused: {problem}")]
    Entry { entry: String, problem: &'static str },
    #[error("cannot {act} entry `{entry}`")]
    Place {
        entry: String,
        act: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("entry `{entry}` goes beyond what a layer may have")]
    Limit {
        entry: String,
        #[source]
        source: OverLimit,
    },
    #[error("its uncompressed content is {found}, but the image's configuration says {expected}")]
    DiffId { expected: Digest, found: Digest },
}

impl LayerError {
    fn place(entry: &Entry, act: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Place { entry: shown(&entry.path), act, source: source.into() }
    }

    fn refused(entry: &Entry, problem: &'static str) -> Self {
        Self::Entry { entry: shown(&entry.path), problem }
    }
}

/// What a layer's blob turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// Of the uncompressed content.
    pub(crate) diff_id: Digest,
    pub(crate) codec: Codec,
}

/// Reads a layer to its end and says what it is, or why it could not be unpacked.
pub(crate) fn inspect(blob: impl Read) -> Result<Inspected, LayerError> {
    let content = Decompressed::new(blob, limits::LAYER).map_err(LayerError::Blob)?;
    let codec = content.codec;
    let mut tape = Tape::new(BufReader::with_capacity(BUFFER, Hashed::new(content)));
    walk(&mut tape, limits::LAYER, |_, _, _| Ok(()))?;
    Ok(Inspected { diff_id: finish(tape)?, codec })
}

/// Makes the layer's tree in the empty directory `into`, and syncs the file system that it is on. Needs root: owners,
/// devices, and overlayfs's marks.
///
/// Returns how many extended attributes were left out, because they are not a layer's to set or the file system has none.
pub(crate) fn unpack(blob: File, expected: Digest, into: &Path) -> Result<u64, LayerError> {
    let content = Decompressed::new(blob, limits::LAYER).map_err(LayerError::Blob)?;
    let mut tape = Tape::new(BufReader::with_capacity(BUFFER, Hashed::new(content)));
    let mut tree = Tree::open(into).map_err(LayerError::Tree)?;
    walk(&mut tape, limits::LAYER, |entry, path, tape| place(&mut tree, entry, path, tape))?;
    let found = finish(tape)?;
    if found != expected {
        return Err(LayerError::DiffId { expected, found });
    }
    tree.finish().map_err(LayerError::Tree)
}

/// Gives each entry to `each` with its path made safe, and holds the archive to the limits. Returns how much it used.
pub(crate) fn walk<R: Read>(
    tape: &mut Tape<R>,
    limit: Bytes,
    mut each: impl FnMut(&Entry, &Clean, &mut Tape<R>) -> Result<(), LayerError>,
) -> Result<Usage, LayerError> {
    let mut usage = Usage::of_at_most(limit);
    while let Some(entry) = tape.next().map_err(LayerError::Tape)? {
        let over = |source| LayerError::Limit { entry: shown(&entry.path), source };
        let path = Clean::new(&entry.path);
        let path = path.map_err(|source| LayerError::Path { entry: shown(&entry.path), source })?;
        match &entry.kind {
            Kind::File { size, .. } => usage.entry(*size).map_err(over)?,
            Kind::Directory => {
                usage.entry(0).map_err(over)?;
                usage.directory_name(path.as_bytes().len()).map_err(over)?;
            }
            Kind::HardLink { target } => {
                usage.entry(0).map_err(over)?;
                Clean::new(target).map_err(|source| LayerError::Path { entry: shown(target), source })?;
            }
            Kind::Symlink { .. } | Kind::Fifo | Kind::CharacterDevice { .. } | Kind::BlockDevice { .. } => {
                usage.entry(0).map_err(over)?;
            }
        }
        if path.split().is_none() && entry.kind != Kind::Directory {
            return Err(LayerError::refused(&entry, "the root can only be a directory"));
        }
        each(&entry, &path, tape)?;
    }
    Ok(usage)
}

/// The digest covers what comes after the archive's end too.
fn finish<R: Read>(tape: Tape<BufReader<Hashed<R>>>) -> Result<Digest, LayerError> {
    let mut rest = tape.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(LayerError::Blob)?;
    Ok(rest.into_inner().digest())
}
