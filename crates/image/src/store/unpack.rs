//! An image's layers as directories: each unpacked once, whoever asks and however often.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Digest;

use super::paths::TREE;
use super::{Paths, ReadError, Shared, Store, removal};
use crate::blob::{DiskError, Sealed, publish, sync_directory};
use crate::config::{Config, ImageConfig, InvalidConfig};
use crate::layer::{self, LayerError, Made};
use crate::record::Layer;
use crate::unpacker::Unpacker;

/// What a container mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Directories for overlayfs, lowest first, none twice. They are read-only by agreement: all containers share them.
    pub layers: Vec<PathBuf>,
    pub config: Config,
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the configuration of image {image} is not acceptable")]
    Config {
        image: Digest,
        #[source]
        source: InvalidConfig,
    },
    #[error("layer {layer} cannot be unpacked")]
    Layer {
        layer: Digest,
        #[source]
        source: LayerError,
    },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Store {
    /// Unpacks the layers of an image that are not unpacked yet, two at a time, and says where they are. As often as
    /// wanted, from any number of threads. Needs root.
    pub fn unpack(&self, manifest: &Digest) -> Result<Unpacked, UnpackError> {
        // How long a layer takes is up to who made it, so nothing is kept from being removed meanwhile: what is missing is
        // looked up until nothing is.
        loop {
            let (unpacked, missing) = self.survey(manifest)?;
            if missing.is_empty() {
                return Ok(unpacked);
            }
            self.unpack_all(manifest, missing)?;
        }
    }

    /// What a container mounts of the image, and which layers of it are not unpacked yet.
    fn survey(&self, manifest: &Digest) -> Result<(Unpacked, Vec<Layer>), UnpackError> {
        let _present = self.shared.using();
        let record = self.record(manifest)?;
        let text = self.document(&record.config.digest)?;
        let config = ImageConfig::parse(&text, record.layers.len());
        let config = config.map_err(|source| UnpackError::Config { image: *manifest, source })?.config;
        let layers = record.mounted();
        let trees = layers.iter().map(|layer| self.shared.paths.tree(&layer.blob.digest)).collect();
        let missing = layers.into_iter().filter(|layer| !self.has_layer(&layer.blob.digest));
        Ok((Unpacked { layers: trees, config }, missing.collect()))
    }

    /// Whether the layer that this blob is is unpacked. It gets its name when everything in it is on disk.
    pub(super) fn has_layer(&self, blob: &Digest) -> bool {
        self.shared.paths.tree(blob).is_dir()
    }

    fn unpack_all(&self, image: &Digest, layers: Vec<Layer>) -> Result<(), UnpackError> {
        let several = layers.len() > 1;
        let left = Mutex::new(layers.into_iter());
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(layer) = next() {
                if let Err(error) = self.layer(image, &layer) {
                    // The image is of no use, so the rest is not worth the work.
                    while next().is_some() {}
                    return Err(error);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            // Two: one decompresses while the other waits for the disk.
            let other = several.then(|| scope.spawn(work));
            let this = work();
            let other =
                other.map_or(Ok(()), |other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            this.and(other)
        })
    }

    fn layer(&self, image: &Digest, layer: &Layer) -> Result<(), UnpackError> {
        let name = layer.blob.digest;
        let _turn = Turn::wait_for(&self.shared, name);
        let blob = {
            let _present = self.shared.using();
            self.record(image)?;
            if self.has_layer(&name) {
                return Ok(());
            }
            let path = self.shared.paths.blob(&name);
            File::open(&path).map_err(DiskError::at("open", &path))?
        };
        let draft = Draft::new(&self.shared.paths)?;
        let made = make(self.unpacker.as_ref(), blob, &draft.tree());
        let made = made.and_then(|made| draft.check(&made, layer.diff_id));
        made.map_err(|source| UnpackError::Layer { layer: name, source })?;
        let _present = self.shared.using();
        // An image that was removed meanwhile gets nothing back.
        self.record(image)?;
        Ok(draft.keep(&name)?)
    }

    /// Gives a blob and its tree their names. If another tree got it meanwhile, this one goes: the same blob is the same
    /// layer.
    pub(super) fn settle(&self, blob: &Sealed, draft: Option<Draft>) -> Result<(), DiskError> {
        // In this order, as in `layer`: whoever waits for a turn keeps nobody from removing.
        let _turn = Turn::wait_for(&self.shared, blob.digest);
        let _present = self.shared.using();
        publish(&self.shared.paths, [blob])?;
        match draft {
            Some(draft) if !self.has_layer(&blob.digest) => draft.keep(&blob.digest),
            Some(_) | None => Ok(()),
        }
    }
}

/// Makes the tree of a blob that is all there: in a process of its own where there is a program for that, and right here
/// where there is none.
pub(super) fn make(unpacker: Option<&Arc<Unpacker>>, blob: File, into: &Path) -> Result<Made, LayerError> {
    match unpacker {
        Some(unpacker) => unpacker.unpack(blob, into),
        None => layer::make(blob, into),
    }
}

/// A layer's directory while it is made. Dropped before [`Draft::keep`], it leaves nothing.
pub(super) struct Draft {
    path: PathBuf,
    paths: Paths,
}

impl Draft {
    pub(super) fn new(paths: &Paths) -> Result<Self, DiskError> {
        let draft = Self { path: paths.unfinished_layer(), paths: paths.clone() };
        let tree = draft.tree();
        fs::create_dir_all(&tree).map_err(DiskError::at("create", &tree))?;
        Ok(draft)
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.path.join(TREE)
    }

    /// Whether what was made is the layer that it should be. If so, it is complete and on disk afterwards.
    pub(super) fn check(&self, made: &Made, expected: Digest) -> Result<(), LayerError> {
        layer::finish(&self.tree(), made, expected)?;
        let Made { diff_id, entries, bytes, skipped_xattrs, opaque: _ } = made;
        tracing::debug!(layer = %diff_id, entries, %bytes, "unpacked a layer");
        if *skipped_xattrs > 0 {
            tracing::info!(layer = %diff_id, skipped_xattrs, "left out extended attributes of a layer");
        }
        Ok(())
    }

    fn keep(self, blob: &Digest) -> Result<(), DiskError> {
        let done = self.paths.layer(blob);
        fs::rename(&self.path, &done).map_err(DiskError::at("rename a layer to", &done))?;
        sync_directory(&self.paths.layers())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // With its name it is gone from here already. What is left, the next `Store::open` removes.
        if let Err(error) = removal::remove(&self.path) {
            tracing::warn!(%error, "a layer that was not unpacked stays");
        }
    }
}

/// The right to unpack one layer; others wait for it.
struct Turn<'a> {
    shared: &'a Shared,
    layer: Digest,
}

impl<'a> Turn<'a> {
    fn wait_for(shared: &'a Shared, layer: Digest) -> Self {
        let taken = lock(shared);
        let taken = shared.turn_over.wait_while(taken, |taken| taken.contains(&layer));
        taken.unwrap_or_else(PoisonError::into_inner).insert(layer);
        Self { shared, layer }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(self.shared).remove(&self.layer);
        self.shared.turn_over.notify_all();
    }
}

/// A set that a panicking thread leaves is whole: it changes in single steps.
fn lock(shared: &Shared) -> MutexGuard<'_, BTreeSet<Digest>> {
    shared.turns.lock().unwrap_or_else(PoisonError::into_inner)
}
