//! An image over one that is here: its layers and one more, and its configuration with some changes.

mod change;
mod edit;
mod pack;
mod words;

use std::error::Error;
use std::io::Write;
use std::time::SystemTime;

use model::{Bytes, Digest};
use serde_json::{Map, Value};

use crate::blob::{DiskError, Sealed, Staged, digest_of};
use crate::config::{ImageConfig, InvalidConfig};
use crate::decompress::Codec;
use crate::document::{Descriptor, InvalidDocument, Manifest, read_json};
use crate::limits;
use crate::record::Record;
use crate::store::{ReadError, Store, record_of};
pub use change::{Change, InvalidChange};
use pack::{Packed, pack};

/// What is said of the new image beyond its layer.
#[derive(Clone, Debug)]
pub struct Edits {
    pub created: SystemTime,
    pub author: Option<String>,
    pub message: Option<String>,
    /// Made in this order to what the image below says of running it. All else stays as it is there, also what gantry knows
    /// nothing of.
    pub changes: Vec<Change>,
}

/// What came of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of the manifest.
    pub digest: Digest,
    /// Layers and configuration, as the manifest has them.
    pub size: Bytes,
}

/// Why whoever was to write the layer did not.
pub type LayerFailure = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the manifest of image {image} is not acceptable")]
    Manifest {
        image: Digest,
        #[source]
        source: InvalidDocument,
    },
    #[error("image {0} has {most} layers, and an image cannot have more", most = limits::LAYERS)]
    TooManyLayers(Digest),
    #[error("the configuration of image {image} is not the JSON that it should be")]
    Json {
        image: Digest,
        #[source]
        source: serde_json::Error,
    },
    #[error("the layer cannot be made")]
    Layer(#[source] LayerFailure),
    #[error("the layer has more than the {limit} that one may have", limit = limits::LAYER)]
    TooLarge,
    #[error(transparent)]
    Change(#[from] InvalidChange),
    #[error("the configuration that it would have is not acceptable")]
    Config(#[source] InvalidConfig),
    #[error("the manifest that it would have is not acceptable")]
    Document(#[source] InvalidDocument),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// All of the new image that the store lacks, staged and checked.
pub(crate) struct Draft {
    pub(crate) blobs: Vec<Sealed>,
    pub(crate) record: Record,
}

pub(crate) fn draft(
    store: &Store,
    base: &Record,
    layer: impl FnOnce(&mut dyn Write) -> Result<(), LayerFailure>,
    edits: &Edits,
) -> Result<Draft, CommitError> {
    let image = base.manifest.digest;
    let below = Manifest::parse(&store.document(&image)?);
    let below = below.map_err(|source| CommitError::Manifest { image, source })?;
    if below.layers.len() >= limits::LAYERS {
        return Err(CommitError::TooManyLayers(image));
    }
    let text = store.document(&base.config.digest)?;
    let mut config: Map<String, Value> =
        read_json(&text).map_err(|source| CommitError::Json { image, source })?;
    let Packed { sealed, diff_id } = pack(store.paths(), layer)?;
    edit::edit(&mut config, diff_id, below.layers.len(), edits)?;
    let text = serde_json::to_vec(&config).expect("what was read as JSON can be written as JSON");
    let read = ImageConfig::parse(&text, below.layers.len() + 1).map_err(CommitError::Config)?;
    let config = Descriptor::of_config(digest_of(&text), Bytes(text.len() as u64));
    let mut layers: Vec<Descriptor> = below.layers.iter().map(Descriptor::as_oci).collect();
    layers.push(Descriptor::of_layer(Codec::Gzip, sealed.digest, sealed.size));
    let manifest = Manifest { config, layers }.write();
    let parsed = Manifest::parse(&manifest).map_err(CommitError::Document)?;
    let config = Staged::holding(store.paths(), &text)?;
    let manifest = Staged::holding(store.paths(), &manifest)?;
    let record = record_of(manifest.digest, manifest.size, &parsed, &read);
    Ok(Draft { blobs: vec![sealed, config, manifest], record })
}
