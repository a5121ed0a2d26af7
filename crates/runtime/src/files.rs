//! Files in and out of a running container, as tar archives.
//!
//! What is copied is what the container sees, its mounts included. So its root is entered where its first process has it
//! (`root`), and read (`read`) and written (`write`) from there.
//!
//! All of it is the container's to arrange, also while this runs: a path may become a link to `/etc` between two looks at it
//! (CVE-2018-15664). Hence:
//!
//! **Invariant:** a path is resolved by `openat2` with the container's root as its limit, or by one name at a time from a
//! directory that is held open, following no link. No path of the container's is ever one of the node's.
//!
//! **Invariant:** what is opened has been looked at through the same descriptor, so that no device, pipe or socket is.
//!
//! **Invariant:** nothing of the image's is loaded or executed (CVE-2019-14271).
//!
//! Left out are extended attributes (Docker's copies leave them out, too) and sockets. Hard links become files of their own,
//! and holes are read as the zeros that they stand for.

mod read;
mod root;
mod write;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::handle::InspectError;

pub(crate) use read::Exactly;
pub use read::{Found, Source};
pub use write::Unpack;

/// What one copy consists of at most. An image has some ten thousand files; whoever means to copy more copies in parts, and
/// a container that makes directories without end comes to one.
const MOST_ENTRIES: usize = 1_000_000;

/// How deep directories are followed. Each level is a descriptor of the agent's, which has 1024 if nobody gave it more; the
/// deepest trees of source code have some fifty.
const DEEPEST: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("the container is not running")]
    NotRunning,
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("cannot enter the container's root")]
    Root(#[source] io::Error),
    #[error("there is no {path} in the container")]
    NotFound { path: PathBuf },
    #[error("{path} in the container is not a directory")]
    NotADirectory { path: PathBuf },
    #[error("{path} in the container leads from link to link without an end")]
    EndlessLinks { path: PathBuf },
    #[error("{path} in the container is a socket, of which there is nothing to copy")]
    Socket { path: PathBuf },
    #[error("cannot read {path} in the container")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path} in the container")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write {path} in the container: its file system is mounted read-only")]
    ReadOnly { path: PathBuf },
    #[error("{path} in the container is not a directory, so none can be copied over it")]
    DirectoryOverFile { path: PathBuf },
    #[error("{path} in the container is a directory, so no file can be copied over it")]
    FileOverDirectory { path: PathBuf },
    #[error("{path} in the container is a link or a file, through which nothing is copied")]
    InTheWay { path: PathBuf },
    #[error("the archive names {path}, which is outside of where it is unpacked")]
    Outside { path: PathBuf },
    #[error("the archive has {path} beside its one file or directory")]
    Beside { path: PathBuf },
    #[error("{path} is more than {max} directories deep", max = DEEPEST)]
    TooDeep { path: PathBuf },
    #[error("a copy has {max} files and directories at most; copy in parts", max = MOST_ENTRIES)]
    TooMany,
    #[error("cannot archive {path}")]
    Archive { path: PathBuf, source: io::Error },
    #[error("the archive cannot be read")]
    Malformed(#[source] io::Error),
}

/// What a client's exit code depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotFound,
    NotRunning,
    Other,
}

impl FilesError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } => Fault::NotFound,
            Self::NotRunning => Fault::NotRunning,
            Self::Inspect(_)
            | Self::Root(_)
            | Self::NotADirectory { .. }
            | Self::EndlessLinks { .. }
            | Self::Socket { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::ReadOnly { .. }
            | Self::DirectoryOverFile { .. }
            | Self::FileOverDirectory { .. }
            | Self::InTheWay { .. }
            | Self::Outside { .. }
            | Self::Beside { .. }
            | Self::TooDeep { .. }
            | Self::TooMany
            | Self::Archive { .. }
            | Self::Malformed(_) => Fault::Other,
        }
    }

    /// Why the path that the user named cannot be resolved.
    fn unresolved(path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::NotFound { path },
            Errno::LOOP => Self::EndlessLinks { path },
            errno => Self::Read { path, source: errno.into() },
        }
    }
}

/// Unpacks a tar archive into the running container of `dir`. `path` is a directory of it; with [`Unpack::rename`] it may
/// also be what the archive's one file or directory is to become. Reads `archive` to its end.
///
/// What is there and is no directory is replaced; directories are merged, and one that was there keeps its owner, mode and
/// time (unless [`Unpack::keep_owner`]). No link is followed below `path`.
pub fn unpack(dir: &Path, path: &str, how: Unpack, archive: impl Read) -> Result<(), FilesError> {
    write::unpack(&root::of(dir)?, path, how, archive)
}

#[cfg(test)]
mod tests;
