//! What an image is made of, as far as that is known: for whoever brings it here, and for whoever wants to know.

use model::{Bytes, Digest};
use serde_json::{Map, Value, json};

use super::{BlobRef, CompleteError, ReadError, Store};
use crate::config::ImageConfig;
use crate::document::Manifest;

/// A layer as it travels, and what it unpacks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerRef {
    pub blob: BlobRef,
    pub diff_id: Digest,
}

/// The files of an image besides its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub config: BlobRef,
    /// Lowest first; `None` as long as the configuration is not here.
    pub layers: Option<Vec<LayerRef>>,
}

impl Store {
    /// What belongs to a manifest whose blob is here, whether or not the image is complete. The configuration is judged
    /// before any layer is worth bringing.
    pub fn parts(&self, manifest: &Digest) -> Result<Parts, CompleteError> {
        let parsed = Manifest::parse(&self.document(manifest)?);
        let parsed = parsed.map_err(|source| CompleteError::Manifest { manifest: *manifest, source })?;
        let blob = |digest, size| BlobRef { digest, size: Bytes(size) };
        let config = blob(parsed.config.digest, parsed.config.size);
        if !self.has_blob(&config.digest) {
            return Ok(Parts { config, layers: None });
        }
        let read = ImageConfig::parse(&self.document(&config.digest)?, parsed.layers.len());
        let read = read.map_err(|source| CompleteError::Config { config: config.digest, source })?;
        let layers = parsed.layers.iter().zip(read.diff_ids);
        let layers = layers
            .map(|(layer, diff_id)| LayerRef { blob: blob(layer.digest, layer.size), diff_id })
            .collect();
        Ok(Parts { config, layers: Some(layers) })
    }

    /// The configuration of a complete image, and its layers, lowest first, as they are called as files.
    pub(crate) fn files(&self, manifest: &Digest) -> Result<(Digest, Vec<Digest>), ReadError> {
        let record = self.record(manifest)?;
        Ok((record.config.digest, record.layers.iter().map(|layer| layer.blob.digest).collect()))
    }

    /// What a complete image says of itself, as a JSON document: `created`, `platform`, `config`, `layers`, `history`; what it
    /// does not say is null.
    pub fn details(&self, manifest: &Digest) -> Result<String, ReadError> {
        let record = self.record(manifest)?;
        let config = self.document(&record.config.digest)?;
        // It was read as a configuration when the image became complete.
        let mut config: Map<String, Value> = serde_json::from_slice(&config).unwrap_or_default();
        let mut take = |field: &str| config.remove(field).unwrap_or_default();
        let layers: Vec<Value> = record
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "digest": layer.blob.digest.to_string(),
                    "size": layer.blob.size,
                    "diff_id": layer.diff_id.to_string(),
                })
            })
            .collect();
        let platform = [take("os"), take("architecture"), take("variant")];
        let platform: Vec<&str> = platform.iter().filter_map(Value::as_str).collect();
        let document = json!({
            "created": take("created"),
            "platform": platform.join("/"),
            "config": take("config"),
            "layers": layers,
            "history": take("history"),
        });
        Ok(document.to_string())
    }
}
