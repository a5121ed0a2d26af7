//! A layer that comes from elsewhere and is unpacked on the way.

use std::fmt;

use model::{Bytes, Digest};

use super::Store;
use super::unpack::{Draft, make};
use crate::blob::{DiskError, Ingest, IngestError, Sealed};
use crate::layer::LayerError;
use crate::unpacker::Running;

/// Takes in the blob of one layer, piece by piece, while its tree is made. Dropped before [`IngestLayer::finish`], it
/// leaves neither.
pub struct IngestLayer {
    ingest: Ingest,
    /// `None` for a layer that is unpacked already.
    unpacking: Option<Unpacking>,
    store: Store,
    diff_id: Digest,
}

/// Fields are dropped in this order: the process is gone before its directory is.
struct Unpacking {
    /// `None` where layers are unpacked in this process: it is done at the end then.
    process: Option<Running>,
    draft: Draft,
}

#[derive(Debug, thiserror::Error)]
pub enum IngestLayerError {
    #[error(transparent)]
    Blob(#[from] IngestError),
    #[error("cannot unpack layer {layer}")]
    Layer {
        layer: Digest,
        #[source]
        source: LayerError,
    },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Store {
    /// Begins to take in a layer from elsewhere, of at most `limit` bytes as it comes, and to unpack it meanwhile. Several
    /// at once, also of the same one. Only [`Store::complete`] makes it last beyond a restart. Needs root.
    pub fn ingest_layer(
        &self,
        blob: &Digest,
        limit: Bytes,
        diff_id: Digest,
    ) -> Result<IngestLayer, IngestLayerError> {
        let ingest = self.ingest(blob, limit)?;
        let unpacking = if self.has_layer(blob) {
            None
        } else {
            let draft = Draft::new(&self.shared.paths)?;
            let process = self.unpacker.as_ref().map(|unpacker| unpacker.start(&draft.tree())).transpose();
            let failed =
                |error| IngestLayerError::Layer { layer: *blob, source: LayerError::Unpacker(error) };
            Some(Unpacking { process: process.map_err(failed)?, draft })
        };
        Ok(IngestLayer { ingest, unpacking, store: self.clone(), diff_id })
    }
}

impl IngestLayer {
    /// Appends a piece; fails as soon as the limit is passed. A layer that cannot be unpacked goes on being taken in, and
    /// [`IngestLayer::finish`] says why not: first of all it has to be the one that was asked for.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), IngestError> {
        self.ingest.write(piece)?;
        if let Some(Unpacking { process: Some(process), .. }) = &mut self.unpacking {
            process.feed(piece);
        }
        Ok(())
    }

    /// Checks the blob's digest, then that what was unpacked is the layer with this diff id, and puts both into the store,
    /// to last. Neither is there after an error. Returns the blob's size.
    pub fn finish(self) -> Result<Bytes, IngestLayerError> {
        let Self { ingest, mut unpacking, store, diff_id } = self;
        // It does the rest of its work while the blob goes to disk.
        if let Some(Unpacking { process: Some(process), .. }) = &mut unpacking {
            process.end_input();
        }
        let blob = ingest.seal()?;
        let draft = unpacking.map(|unpacking| unpacking.end(&blob, diff_id)).transpose()?;
        store.settle(&blob, draft)?;
        Ok(blob.size)
    }
}

impl Unpacking {
    fn end(self, blob: &Sealed, diff_id: Digest) -> Result<Draft, IngestLayerError> {
        let Self { process, draft } = self;
        let made = match process {
            Some(process) => process.end().map_err(LayerError::Unpacker),
            None => make(None, blob.open()?, &draft.tree()),
        };
        let checked = made.and_then(|made| draft.check(&made, diff_id));
        checked.map_err(|source| IngestLayerError::Layer { layer: blob.digest, source })?;
        Ok(draft)
    }
}

impl fmt::Debug for IngestLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngestLayer")
            .field("ingest", &self.ingest)
            .field("diff_id", &self.diff_id)
            .finish_non_exhaustive()
    }
}
