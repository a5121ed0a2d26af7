//! The content store: blobs by digest, records of complete images, unpacked layers.

mod ingest;
mod open;
mod paths;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
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

pub use ingest::{IngestLayer, IngestLayerError};
pub use open::OpenError;
pub(crate) use paths::Paths;
pub use unpack::{UnpackError, Unpacked};

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
    /// Held for writing while something is removed, and for reading by whoever needs what is there to stay.
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

    /// Makes an image over `base`, with one more layer: the tar archive that `layer` writes, of at most 10 GiB. Nothing of `base` is
    /// removed meanwhile. After an error the store is as it was.
    pub fn commit(
        &self,
        base: &Digest,
        layer: impl FnOnce(&mut dyn Write) -> Result<(), LayerFailure>,
        edits: &Edits,
    ) -> Result<Committed, CommitError> {
        let _present = self.shared.using();
        let draft = commit::draft(self, &self.record(base)?, layer, edits)?;
        let committed = Committed { digest: draft.record.manifest.digest, size: draft.record.size() };
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

    /// Forgets an image, and removes the blobs and unpacked layers that no other image uses. The caller sees to it that
    /// no container has them mounted. Returns whether the image was here.
    pub fn remove(&self, manifest: &Digest) -> Result<bool, RemoveError> {
        let _alone = self.shared.removal.write().unwrap_or_else(PoisonError::into_inner);
        let mut records = self.shared.records();
        let Some(record) = records.get(manifest).cloned() else { return Ok(false) };
        let failed = |source| RemoveError::Disk { image: *manifest, source };
        // First the record: after a crash, the rest is what no record vouches for.
        open::remove(&self.shared.paths.record(manifest)).map_err(failed)?;
        records.remove(manifest);
        let (blobs, layers) = used(records.values());
        drop(records);
        sync_directory(&self.shared.paths.images()).map_err(failed)?;
        for blob in record.blobs().filter(|blob| !blobs.contains(&blob.digest)) {
            open::remove(&self.shared.paths.blob(&blob.digest)).map_err(failed)?;
        }
        for layer in record.layers.iter().filter(|layer| !layers.contains(&layer.diff_id)) {
            self.remove_layer(&layer.diff_id).map_err(failed)?;
        }
        Ok(true)
    }

    /// A layer loses its name before its content, so that half of one is never taken for whole.
    fn remove_layer(&self, diff_id: &Digest) -> Result<(), DiskError> {
        let (layer, doomed) = (self.shared.paths.layer(diff_id), self.shared.paths.unfinished_layer());
        match fs::rename(&layer, &doomed) {
            Ok(()) => open::remove(&doomed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
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
