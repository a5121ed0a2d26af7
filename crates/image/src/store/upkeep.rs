//! What whoever tidies up has to know: when an image was last used, and how much room there is.

use std::fs::{self, File};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use model::{Bytes, Digest};

use super::Store;

/// Of the file system that the store is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What is left for this program.
    pub free: Bytes,
    pub total: Bytes,
}

impl Store {
    /// Notes that an image is used now. It is kept as the time at which its record was changed, so that it costs nothing
    /// and survives a restart. An image that is not here is not noted.
    pub fn touch(&self, manifest: &Digest) -> io::Result<()> {
        match File::options().write(true).open(self.shared.paths.record(manifest)) {
            Ok(record) => record.set_modified(SystemTime::now()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// When an image came, or was last noted to be used; of one that came by half, when its manifest did. What cannot be read
    /// was used long ago: a disk like that gives nothing to a container either.
    pub fn last_used(&self, manifest: &Digest) -> SystemTime {
        let noted = fs::metadata(self.shared.paths.record(manifest));
        let noted = noted.or_else(|_| fs::metadata(self.shared.paths.blob(manifest)));
        noted.and_then(|noted| noted.modified()).unwrap_or(UNIX_EPOCH)
    }

    pub fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::statvfs(self.shared.paths.root())?;
        let bytes = |blocks: u64| Bytes(blocks.saturating_mul(found.f_frsize));
        Ok(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }
}
