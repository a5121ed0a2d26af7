//! A layer's tar becomes a directory tree, in the form in which overlayfs wants it.
//!
//! Layers are hostile until shown otherwise. Every step is relative to a directory that was opened beneath the layer's
//! root without following a link. A symbolic link in the layer leads where it would lead inside the container; the last
//! component of a path is never followed. See `DESIGN.md`.
//!
//! [`make`] is the part that a process without privileges does ([`crate::unpacker`]), [`finish`] the part that takes them.

mod entries;
mod opaque;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, BufReader, Read};
use std::path::Path;

use model::{Bytes, Digest};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::blob::Hashed;
use crate::decompress::{Codec, Decompressed};
use crate::limits::{self, OverLimit, Usage};
use crate::path::{Clean, InvalidPath, shown};
use crate::tape::{Entry, Kind, Tape, TapeError};
use crate::unpacker::UnpackerError;
use entries::place;
pub(crate) use opaque::Opaque;
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
    #[error(transparent)]
    Unpacker(#[from] UnpackerError),
}

/// Where the reason lies why a layer could not be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is refused wherever it comes from, and will be refused again.
    Layer,
    /// This machine's disk is full, for example: the same layer may do another time.
    Machine,
}

impl LayerError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Blob(source) | Self::Place { source, .. } | Self::Tape(TapeError::Read { source, .. }) => {
                of_step(source)
            }
            Self::Tape(_)
            | Self::Path { .. }
            | Self::Entry { .. }
            | Self::Limit { .. }
            | Self::DiffId { .. } => Fault::Layer,
            Self::Tree(_) => Fault::Machine,
            Self::Unpacker(error) => error.fault(),
        }
    }

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
    walk(&mut tape, Usage::of_at_most(limits::LAYER), |_, _, _| Ok(()))?;
    Ok(Inspected { diff_id: end(tape)?, codec })
}

/// What making a layer's tree came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Of the uncompressed content.
    pub(crate) diff_id: Digest,
    pub(crate) entries: u64,
    /// Of files, with their holes.
    pub(crate) bytes: Bytes,
    /// Extended attributes that were left out, because they are not a layer's to set or the file system has none.
    pub(crate) skipped_xattrs: u64,
    /// What [`finish`] has to mark.
    pub(crate) opaque: Opaque,
}

/// Makes the layer's tree in the empty directory `into`. Takes the right to give files to other users, to make devices
/// and to set capabilities of files.
pub(crate) fn make(blob: impl Read, into: &Path) -> Result<Made, LayerError> {
    let mut tree = Tree::open(into).map_err(LayerError::Tree)?;
    let content = Decompressed::new(blob, limits::LAYER).map_err(LayerError::Blob)?;
    let mut tape = Tape::new(BufReader::with_capacity(BUFFER, Hashed::new(content)));
    let usage = Usage::of_at_most(limits::LAYER);
    let usage = walk(&mut tape, usage, |entry, path, tape| place(&mut tree, entry, path, tape))?;
    let diff_id = end(tape)?;
    let (skipped_xattrs, opaque) = tree.finish().map_err(LayerError::Tree)?;
    Ok(Made { diff_id, entries: usage.entries(), bytes: usage.bytes(), skipped_xattrs, opaque })
}

/// Checks that what was made is the layer that it should be, gives it the marks that take CAP_SYS_ADMIN, and syncs the
/// file system that it is on.
pub(crate) fn finish(into: &Path, made: &Made, expected: Digest) -> Result<(), LayerError> {
    if made.diff_id != expected {
        return Err(LayerError::DiffId { expected, found: made.diff_id });
    }
    let marked = tree::open_root(into).and_then(|root| {
        made.opaque.mark(&root)?;
        Ok(rustix::fs::syncfs(&root)?)
    });
    marked.map_err(LayerError::Tree)
}

/// Gives each entry to `each` with its path made safe, and holds the archive to the limits. Returns how much it used.
pub(crate) fn walk<R: Read>(
    tape: &mut Tape<R>,
    mut usage: Usage,
    mut each: impl FnMut(&Entry, &Clean, &mut Tape<R>) -> Result<(), LayerError>,
) -> Result<Usage, LayerError> {
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
fn end<R: Read>(tape: Tape<BufReader<Hashed<R>>>) -> Result<Digest, LayerError> {
    let mut rest = tape.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(LayerError::Blob)?;
    Ok(rest.into_inner().digest())
}

/// Of a step that failed: what is full, broken or not allowed is the machine's, all else comes of what the layer has.
fn of_step(error: &io::Error) -> Fault {
    match Errno::from_io_error(error) {
        Some(
            Errno::NOSPC
            | Errno::DQUOT
            | Errno::IO
            | Errno::ROFS
            | Errno::NOMEM
            | Errno::MFILE
            | Errno::NFILE
            | Errno::PERM
            | Errno::ACCESS,
        ) => Fault::Machine,
        _ => Fault::Layer,
    }
}
