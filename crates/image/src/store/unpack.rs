//! An image's layers as directories: each unpacked once, whoever asks and however often.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};

use model::Digest;

use super::{ReadError, Shared, Store, open};
use crate::blob::{DiskError, sync_directory};
use crate::config::{Config, ImageConfig, InvalidConfig};
use crate::layer::{self, LayerError};
use crate::record::Layer;

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
    /// Unpacks the layers of an image that are not unpacked yet, and says where they are. As often as wanted, from any
    /// number of threads. Needs root.
    pub fn unpack(&self, manifest: &Digest) -> Result<Unpacked, UnpackError> {
        let _present = self.shared.using();
        let record = self.record(manifest)?;
        let text = self.document(&record.config.digest)?;
        let config = ImageConfig::parse(&text, record.layers.len());
        let config = config.map_err(|source| UnpackError::Config { image: *manifest, source })?.config;
        let layers = record.mounted().iter().map(|layer| self.layer(layer)).collect::<Result<_, _>>()?;
        Ok(Unpacked { layers, config })
    }

    fn layer(&self, layer: &Layer) -> Result<PathBuf, UnpackError> {
        let _turn = Turn::wait_for(&self.shared, layer.diff_id);
        let paths = &self.shared.paths;
        let done = paths.layer(&layer.diff_id);
        let tree = done.join("fs");
        // It got this name when everything in it was on disk.
        if tree.is_dir() {
            return Ok(tree);
        }
        let blob = paths.blob(&layer.blob.digest);
        let blob = File::open(&blob).map_err(DiskError::at("open", &blob))?;
        let unfinished = paths.unfinished_layer();
        let into = unfinished.join("fs");
        fs::create_dir_all(&into).map_err(DiskError::at("create", &into))?;
        match layer::unpack(blob, layer.diff_id, &into) {
            Ok(0) => {}
            Ok(skipped) => {
                tracing::info!(layer = %layer.diff_id, skipped, "left out extended attributes of a layer");
            }
            Err(source) => {
                // The error in the layer is the one to hear of; the next `Store::open` removes what is left.
                if let Err(error) = open::remove(&unfinished) {
                    tracing::warn!(%error, "a layer that could not be unpacked stays");
                }
                return Err(UnpackError::Layer { layer: layer.blob.digest, source });
            }
        }
        fs::rename(&unfinished, &done).map_err(DiskError::at("rename a layer to", &done))?;
        sync_directory(&paths.layers())?;
        Ok(tree)
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
fn lock(shared: &Shared) -> MutexGuard<'_, std::collections::BTreeSet<Digest>> {
    shared.turns.lock().unwrap_or_else(PoisonError::into_inner)
}
