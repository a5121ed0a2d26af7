//! Opening a store: what a crash left behind goes, what the records vouch for stays.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use model::Digest;
use rustix::fs::FlockOperation;

use super::paths::{Paths, UNFINISHED};
use super::removal::remove;
use crate::blob::{DiskError, sync_directory};
use crate::record::{Record, used};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the image store {} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("the image record {} is damaged: remove it and import the image again", .path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("the image record {} is of version {version}, and this gantry knows version {known}", .path.display(), known = Record::VERSION)]
    Version { path: PathBuf, version: u32 },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Makes the directories, takes the lock, and removes what no record vouches for. The lock lasts as long as the file.
pub(super) fn open(paths: &Paths) -> Result<(File, BTreeMap<Digest, Record>), OpenError> {
    // Nobody else may come near the layers: they hold other people's setuid programs and devices.
    for directory in [paths.root(), &paths.ingest(), &paths.blobs(), &paths.layers(), &paths.images()] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(DiskError::at("create", directory))?;
    }
    let lock = lock(paths)?;
    for entry in entries(&paths.ingest())? {
        remove(&entry.path())?;
    }
    let records = records(paths)?;
    let (blobs, layers) = used(records.values());
    // A blob without a record is half of a copy; the other half would have to be fetched anyway.
    sweep(&paths.blobs(), |name| digest(name).is_some_and(|digest| blobs.contains(&digest)))?;
    sweep(&paths.layers(), |name| {
        !name.starts_with(UNFINISHED) && digest(name).is_some_and(|digest| layers.contains(&digest))
    })?;
    sync_directory(paths.root())?;
    Ok((lock, records))
}

fn lock(paths: &Paths) -> Result<File, OpenError> {
    let path = paths.lock();
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(DiskError::at("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(paths.root().to_owned())),
        Err(error) => Err(DiskError::new("lock", &path, error).into()),
    }
}

fn records(paths: &Paths) -> Result<BTreeMap<Digest, Record>, OpenError> {
    let mut records = BTreeMap::new();
    for entry in entries(&paths.images())? {
        let path = entry.path();
        let text = fs::read(&path).map_err(DiskError::at("read", &path))?;
        let record: Record = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(source) => return Err(OpenError::Damaged { path, source }),
        };
        if record.version != Record::VERSION {
            return Err(OpenError::Version { path, version: record.version });
        }
        records.insert(record.manifest.digest, record);
    }
    Ok(records)
}

fn sweep(directory: &Path, keep: impl Fn(&str) -> bool) -> Result<(), DiskError> {
    for entry in entries(directory)? {
        if !entry.file_name().to_str().is_some_and(&keep) {
            tracing::info!(path = %entry.path().display(), "removing what no image uses");
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<DirEntry>, DiskError> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    entries.map_err(DiskError::at("list", directory))
}

fn digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}
