//! Files on their way into the store: written under a name of their own, hashed once, synced, and only then renamed to
//! their digest. Whatever is dropped before that is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use model::{Bytes, Digest};
use sha2::{Digest as _, Sha256};

use crate::store::Paths;

/// A step on the store's own files that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", .path.display())]
pub struct DiskError {
    act: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl DiskError {
    pub(crate) fn new(act: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { act, path: path.to_owned(), source: source.into() }
    }

    pub(crate) fn at(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::new(act, path, source)
    }
}

/// Hashes what is read through it.
pub(crate) struct Hashed<R> {
    input: R,
    hasher: Sha256,
}

impl<R> Hashed<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, hasher: Sha256::new() }
    }

    /// Of everything read so far.
    pub(crate) fn digest(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

pub(crate) fn digest_of(content: &[u8]) -> Digest {
    Digest(Sha256::digest(content).into())
}

/// Makes a rename or removal in this directory last.
pub(crate) fn sync_directory(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(DiskError::at("sync", path))
}

/// A file in `ingest/` that is being written.
pub(crate) struct Staged {
    file: File,
    at: Temporary,
    hasher: Sha256,
    written: u64,
}

/// Removed when dropped. Once it has been renamed there is nothing to remove, since such names are used once.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The next `Store::open` removes it.
            Err(error) => tracing::warn!(path = %self.0.display(), %error, "a temporary file stays"),
        }
    }
}

impl Staged {
    pub(crate) fn new(paths: &Paths) -> Result<Self, DiskError> {
        let path = paths.temporary();
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(DiskError::at("create", &path))?;
        Ok(Self { file, at: Temporary(path), hasher: Sha256::new(), written: 0 })
    }

    pub(crate) fn holding(paths: &Paths, content: &[u8]) -> Result<Sealed, DiskError> {
        let mut staged = Self::new(paths)?;
        staged.write(content)?;
        staged.seal()
    }

    pub(crate) fn write(&mut self, content: &[u8]) -> Result<(), DiskError> {
        self.file.write_all(content).map_err(DiskError::at("write", &self.at.0))?;
        self.hasher.update(content);
        self.written += content.len() as u64;
        Ok(())
    }

    pub(crate) fn written(&self) -> Bytes {
        Bytes(self.written)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the content, and says what it is.
    pub(crate) fn seal(self) -> Result<Sealed, DiskError> {
        let Self { file, at, hasher, written } = self;
        file.sync_all().map_err(DiskError::at("sync", &at.0))?;
        Ok(Sealed { at, digest: Digest(hasher.finalize().into()), size: Bytes(written) })
    }
}

/// Complete and on disk, but not yet in the store.
pub(crate) struct Sealed {
    at: Temporary,
    pub(crate) digest: Digest,
    pub(crate) size: Bytes,
}

impl Sealed {
    pub(crate) fn open(&self) -> Result<File, DiskError> {
        File::open(&self.at.0).map_err(DiskError::at("open", &self.at.0))
    }

    pub(crate) fn rename_to(&self, path: &Path) -> Result<(), DiskError> {
        fs::rename(&self.at.0, path).map_err(DiskError::at("rename a file to", path))
    }
}

/// Puts the blobs under their digests, to last.
pub(crate) fn publish<'a>(
    paths: &Paths,
    blobs: impl IntoIterator<Item = &'a Sealed>,
) -> Result<(), DiskError> {
    for blob in blobs {
        blob.rename_to(&paths.blob(&blob.digest))?;
    }
    sync_directory(&paths.blobs())
}

/// Takes in one blob whose digest is known, piece by piece. Dropped before [`Ingest::finish`], it leaves nothing.
pub struct Ingest {
    staged: Staged,
    paths: Paths,
    expected: Digest,
    limit: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("blob {blob} is larger than the {limit} that it should have at most")]
    TooLarge { blob: Digest, limit: Bytes },
    #[error("what came as blob {expected} is {found}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Ingest {
    pub(crate) fn new(paths: &Paths, expected: Digest, limit: Bytes) -> Result<Self, IngestError> {
        Ok(Self { staged: Staged::new(paths)?, paths: paths.clone(), expected, limit })
    }

    /// Appends a piece; fails as soon as the limit is passed.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), IngestError> {
        if self.staged.written().0.saturating_add(piece.len() as u64) > self.limit.0 {
            return Err(IngestError::TooLarge { blob: self.expected, limit: self.limit });
        }
        Ok(self.staged.write(piece)?)
    }

    /// Checks the digest and puts the blob into the store, to last. Returns its size.
    pub fn finish(self) -> Result<Bytes, IngestError> {
        let paths = self.paths.clone();
        let sealed = self.seal()?;
        publish(&paths, [&sealed])?;
        Ok(sealed.size)
    }

    /// Checks the digest; the blob is on disk then, and not yet in the store.
    pub(crate) fn seal(self) -> Result<Sealed, IngestError> {
        let sealed = self.staged.seal()?;
        if sealed.digest != self.expected {
            return Err(IngestError::WrongDigest { expected: self.expected, found: sealed.digest });
        }
        Ok(sealed)
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("expected", &self.expected)
            .field("written", &self.staged.written)
            .finish()
    }
}
