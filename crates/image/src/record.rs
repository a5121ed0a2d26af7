//! What the store remembers of a complete image: enough to tell which blobs and layers it uses.

use std::collections::BTreeSet;

use model::{Bytes, Digest};
use serde::{Deserialize, Serialize};

use crate::document::{read_digest, write_digest};

/// Written as JSON, under the manifest's digest. Its presence means that manifest, configuration and layers were there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) manifest: Blob,
    pub(crate) config: Blob,
    /// Lowest first.
    pub(crate) layers: Vec<Layer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Blob {
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    /// Its digest is what the unpacked layer is named by, too.
    pub(crate) blob: Blob,
    /// Of the uncompressed content, as the configuration has it: what the blob is held against when it is unpacked.
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub(crate) diff_id: Digest,
}

impl Record {
    pub(crate) const VERSION: u32 = 1;

    /// Manifest, configuration, layers.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        [&self.manifest, &self.config].into_iter().chain(self.layers.iter().map(|layer| &layer.blob))
    }

    /// Layers and configuration, as the manifest has them.
    pub(crate) fn size(&self) -> Bytes {
        Bytes(self.blobs().skip(1).map(|blob| blob.size).sum())
    }

    /// Layers in the order in which they are mounted, each at most once: overlayfs refuses a directory that comes twice.
    /// The topmost place counts: what it shows hides whatever the same layer would show further down.
    pub(crate) fn mounted(&self) -> Vec<Layer> {
        let mut seen = BTreeSet::new();
        let mut layers: Vec<Layer> =
            self.layers.iter().rev().filter(|layer| seen.insert(layer.blob.digest)).copied().collect();
        layers.reverse();
        layers
    }
}

/// What all these images need: blobs, and those of them that are layers.
pub(crate) fn used<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
    let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        blobs.extend(record.blobs().map(|blob| blob.digest));
        layers.extend(record.layers.iter().map(|layer| layer.blob.digest));
    }
    (blobs, layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(layers: &[u8]) -> Record {
        let blob = |n| Blob { digest: Digest([n; 32]), size: 10 };
        let layers =
            layers.iter().map(|n| Layer { blob: blob(*n), diff_id: Digest([n + 100; 32]) }).collect();
        Record { version: Record::VERSION, manifest: blob(1), config: blob(2), layers }
    }

    #[test]
    fn a_layer_that_comes_twice_is_mounted_once_at_its_topmost_place() {
        let mounted: Vec<u8> =
            record(&[3, 4, 3, 5]).mounted().iter().map(|layer| layer.blob.digest.0[0]).collect();
        assert_eq!(mounted, [4, 3, 5]);
    }

    #[test]
    fn the_size_is_that_of_layers_and_configuration() {
        assert_eq!(record(&[3, 4]).size(), Bytes(30));
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let text = serde_json::to_vec(&record(&[3])).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record(&[3]));
    }
}
