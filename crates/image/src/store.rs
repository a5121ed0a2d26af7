//! The content store: blobs by digest, records of complete images, unpacked layers.

mod arrival;
mod ingest;
mod open;
mod parts;
mod paths;
mod removal;
mod unpack;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use model::{Bytes, Digest};

use crate::blob::{DiskError, Ingest, IngestError, Sealed, Staged, publish, sync_directory};
use crate::commit::{self, CommitError, Committed, Edits, LayerFailure};
use crate::config::{ImageConfig, InvalidConfig};
use crate::document::{InvalidDocument, Manifest};
use crate::import::{self, ImportError, Imported, Progress};
use crate::limits;
use crate::record::{Blob, Layer, Record, used};
use crate::unpacker::Unpacker;

pub use arrival::Arrival;
pub use ingest::{IngestLayer, IngestLayerError};
pub use open::OpenError;
pub use parts::{LayerRef, Parts};
pub(crate) use paths::Paths;
pub use unpack::{UnpackError, Unpacked};
pub use upkeep::Space;

/// This node's images. Cheap to clone; every method may be called from several threads at once.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    unpacker: Option<Arc<Unpacker>>,
}

#[derive(Debug)]
struct Shared {
    paths: Paths,
    /// Locked as long as it is open, so that no second process removes what this one is writing.
    _lock: File,
    records: Mutex<BTreeMap<Digest, Record>>,
    /// Held for writing while something is taken away, and for reading by whoever needs what is there to stay. By nobody
    /// for longer than it takes to give or take names.
    removal: RwLock<()>,
    /// The layers that are being unpacked.
    turns: Mutex<BTreeSet<Digest>>,
    turn_over: Condvar,
}

/// An image that is complete on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of the manifest.
    pub digest: Digest,
    /// Layers and configuration, as the manifest has them.
    pub size: Bytes,
}

/// One file of an image, as another node would fetch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    pub digest: Digest,
    pub size: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("image {0} is not on this node")]
    Absent(Digest),
    #[error("{0} is larger than the {limit} that a manifest or configuration may have", limit = limits::DOCUMENT)]
    TooLarge(Digest),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("manifest {manifest} is not acceptable")]
    Manifest {
        manifest: Digest,
        #[source]
        source: InvalidDocument,
    },
    #[error("configuration {config} is not acceptable")]
    Config {
        config: Digest,
        #[source]
        source: InvalidConfig,
    },
    #[error("blob {blob} has {actual}, but the manifest says {said}")]
    Size { blob: Digest, said: Bytes, actual: Bytes },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("image {image} cannot be removed")]
    Disk {
        image: Digest,
        #[source]
        source: DiskError,
    },
}

impl Store {
    /// Opens the store beneath `root`, which is made if need be, and removes what a crash left of unfinished work. One
    /// process at a time.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let paths = Paths::new(root);
        let (lock, records) = open::open(&paths)?;
        let shared = Shared {
            paths,
            _lock: lock,
            records: Mutex::new(records),
            removal: RwLock::new(()),
            turns: Mutex::default(),
            turn_over: Condvar::new(),
        };
        Ok(Self { shared: Arc::new(shared), unpacker: None })
    }

    /// The same store, whose layers are unpacked by processes that can do nothing else. Without an unpacker it is done in
    /// the process that asks, with all its rights.
    #[must_use]
    pub fn with_unpacker(self, unpacker: Unpacker) -> Self {
        Self { unpacker: Some(Arc::new(unpacker)), ..self }
    }

    /// Takes in the one image of an archive: what `docker save` writes, an OCI layout as a tar, or the tar of a root file
    /// system, each plain or compressed with gzip or zstd. The same archive always gives the same digest. After an error
    /// the store is as it was.
    pub fn import(
        &self,
        mut archive: impl Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, ImportError> {
        import::import(self, &mut archive, progress)
    }

    /// Makes an image over `base`, with one more layer: the tar archive that `layer` writes, of at most 10 GiB. After an error
    /// the store is as it was.
    pub fn commit(
        &self,
        base: &Digest,
        layer: impl FnOnce(&mut dyn Write) -> Result<(), LayerFailure>,
        edits: &Edits,
    ) -> Result<Committed, CommitError> {
        let draft = commit::draft(self, &self.record(base)?, layer, edits)?;
        let committed = Committed { digest: draft.record.manifest.digest, size: draft.record.size() };
        // Only now, since whoever waits to remove an image keeps others from bringing some in.
        let _present = self.shared.using();
        // Its blobs are the new one's too.
        self.record(base)?;
        self.put(&draft.blobs, draft.record)?;
        Ok(committed)
    }

    /// Whether the image is complete here.
    pub fn contains(&self, manifest: &Digest) -> bool {
        self.shared.records().get(manifest).is_some_and(|record| self.is_whole(record))
    }

    /// The images that are complete here, by digest.
    pub fn list(&self) -> Vec<Stored> {
        let records = self.shared.records();
        let whole = records.values().filter(|record| self.is_whole(record));
        whole.map(|record| Stored { digest: record.manifest.digest, size: record.size() }).collect()
    }

    /// The files that make up a complete image: manifest, configuration, layers, each once.
    pub fn blobs(&self, manifest: &Digest) -> Result<Vec<BlobRef>, ReadError> {
        let record = self.record(manifest)?;
        let mut seen = BTreeSet::new();
        let blobs = record.blobs().filter(|blob| seen.insert(blob.digest));
        Ok(blobs.map(|blob| BlobRef { digest: blob.digest, size: Bytes(blob.size) }).collect())
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.shared.paths.blob(digest))
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.size_of(digest).is_some()
    }

    /// Begins to take in a blob from elsewhere, of at most `limit` bytes. Only [`Store::complete`] makes it last beyond a
    /// restart.
    pub fn ingest(&self, expected: &Digest, limit: Bytes) -> Result<Ingest, IngestError> {
        Ingest::new(&self.shared.paths, *expected, limit)
    }

    /// Which blobs this node lacks for an image: the manifest first; with it here, configuration and layers. When none is
    /// missing, the image is checked, recorded, and complete. Nothing is unpacked.
    pub fn complete(&self, manifest: &Digest) -> Result<Vec<Digest>, CompleteError> {
        let _present = self.shared.using();
        if self.contains(manifest) {
            return Ok(Vec::new());
        }
        let Some(size) = self.size_of(manifest) else { return Ok(vec![*manifest]) };
        let parsed = Manifest::parse(&self.document(manifest)?);
        let parsed = parsed.map_err(|source| CompleteError::Manifest { manifest: *manifest, source })?;
        let mut missing = BTreeSet::new();
        for blob in parsed.descriptors() {
            match self.size_of(&blob.digest) {
                Some(actual) if actual == Bytes(blob.size) => {}
                Some(actual) => {
                    return Err(CompleteError::Size { blob: blob.digest, said: Bytes(blob.size), actual });
                }
                None => {
                    missing.insert(blob.digest);
                }
            }
        }
        if missing.is_empty() {
            let config = parsed.config.digest;
            let read = ImageConfig::parse(&self.document(&config)?, parsed.layers.len());
            let read = read.map_err(|source| CompleteError::Config { config, source })?;
            self.keep(record_of(*manifest, size, &parsed, &read))?;
        }
        Ok(missing.into_iter().collect())
    }

    /// Forgets an image, and removes the blobs and unpacked layers that no other image uses; also what has come of one that
    /// is not complete. The caller sees to it that no container has them mounted. Returns whether the image was here.
    pub fn remove(&self, manifest: &Digest) -> Result<bool, RemoveError> {
        let failed = |source| RemoveError::Disk { image: *manifest, source };
        let (was_here, doomed) = self.strike(manifest).map_err(failed)?;
        // Nobody finds them any more, and nobody is kept waiting.
        for tree in doomed {
            removal::remove(&tree).map_err(failed)?;
        }
        Ok(was_here)
    }

    /// Takes an image off the records, and away what no other one uses. Returns whether it was complete, and the trees of
    /// its layers, which are nameless and still to be removed.
    fn strike(&self, manifest: &Digest) -> Result<(bool, Vec<PathBuf>), DiskError> {
        let _alone = self.shared.removal.write().unwrap_or_else(PoisonError::into_inner);
        let mut records = self.shared.records();
        let record = records.get(manifest).cloned();
        if record.is_some() {
            // First the record: after a crash, the rest is what no record vouches for.
            removal::remove(&self.shared.paths.record(manifest))?;
            records.remove(manifest);
        }
        let (blobs, layers) = used(records.values());
        drop(records);
        let (all, trees) = match &record {
            Some(record) => {
                sync_directory(&self.shared.paths.images())?;
                used([record])
            }
            None => self.half(manifest),
        };
        for blob in all.difference(&blobs) {
            removal::remove(&self.shared.paths.blob(blob))?;
        }
        let doomed = trees.difference(&layers).map(|layer| self.unname(layer));
        let doomed = doomed.collect::<Result<Vec<_>, _>>()?;
        Ok((record.is_some(), doomed.into_iter().flatten().collect()))
    }

    /// The blobs of an image that is not complete, and those of them that are layers. Its manifest comes first, and nothing
    /// comes after one that is not acceptable.
    fn half(&self, manifest: &Digest) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
        let text = self.document(manifest).ok();
        let Some(parsed) = text.and_then(|text| Manifest::parse(&text).ok()) else {
            return (BTreeSet::from([*manifest]), BTreeSet::new());
        };
        let layers = parsed.layers.iter().map(|layer| layer.digest).collect();
        let blobs = parsed.descriptors().map(|blob| blob.digest).chain([*manifest]).collect();
        (blobs, layers)
    }

    /// A layer loses its name before its content, so that half of one is never taken for whole. Where it is now.
    fn unname(&self, blob: &Digest) -> Result<Option<PathBuf>, DiskError> {
        let (layer, doomed) = (self.shared.paths.layer(blob), self.shared.paths.unfinished_layer());
        match fs::rename(&layer, &doomed) {
            Ok(()) => Ok(Some(doomed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::new("rename", &layer, error)),
        }
    }

    fn size_of(&self, digest: &Digest) -> Option<Bytes> {
        let found = fs::metadata(self.shared.paths.blob(digest)).ok()?;
        found.is_file().then_some(Bytes(found.len()))
    }

    /// A disk that lost files is not a reason to claim them.
    fn is_whole(&self, record: &Record) -> bool {
        record.blobs().all(|blob| self.size_of(&blob.digest) == Some(Bytes(blob.size)))
    }

    fn record(&self, manifest: &Digest) -> Result<Record, ReadError> {
        self.shared.records().get(manifest).cloned().ok_or(ReadError::Absent(*manifest))
    }

    /// The whole content of a small blob.
    pub(crate) fn document(&self, digest: &Digest) -> Result<Vec<u8>, ReadError> {
        let path = self.shared.paths.blob(digest);
        let file = File::open(&path).map_err(DiskError::at("open", &path))?;
        let mut text = Vec::new();
        file.take(limits::DOCUMENT.0 + 1).read_to_end(&mut text).map_err(DiskError::at("read", &path))?;
        if text.len() as u64 > limits::DOCUMENT.0 { Err(ReadError::TooLarge(*digest)) } else { Ok(text) }
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.shared.paths
    }

    /// Puts all of an image into the store, its record last.
    pub(crate) fn admit(&self, blobs: &[Sealed], record: Record) -> Result<(), DiskError> {
        let _present = self.shared.using();
        self.put(blobs, record)
    }

    /// The same for who sees to it that nothing is removed meanwhile.
    fn put(&self, blobs: &[Sealed], record: Record) -> Result<(), DiskError> {
        publish(&self.shared.paths, blobs)?;
        self.keep(record)
    }

    fn keep(&self, record: Record) -> Result<(), DiskError> {
        let text = serde_json::to_vec(&record).expect("digests and numbers can be written as JSON");
        let digest = record.manifest.digest;
        Staged::holding(&self.shared.paths, &text)?.rename_to(&self.shared.paths.record(&digest))?;
        sync_directory(&self.shared.paths.images())?;
        self.shared.records().insert(digest, record);
        Ok(())
    }
}

impl Shared {
    /// A panic in another thread leaves the records whole: they change in single steps, after the disk did.
    fn records(&self) -> MutexGuard<'_, BTreeMap<Digest, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is removed while this is held.
    fn using(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn record_of(manifest: Digest, size: Bytes, parsed: &Manifest, config: &ImageConfig) -> Record {
    let blob = |digest, size| Blob { digest, size };
    let layers = parsed.layers.iter().zip(&config.diff_ids);
    Record {
        version: Record::VERSION,
        manifest: blob(manifest, size.0),
        config: blob(parsed.config.digest, parsed.config.size),
        layers: layers
            .map(|(layer, diff_id)| Layer { blob: blob(layer.digest, layer.size), diff_id: *diff_id })
            .collect(),
    }
}
