//! One blob from elsewhere, whatever it is: a layer is unpacked on its way where the store does that.

use model::{Bytes, Digest};

use super::ingest::{IngestLayer, IngestLayerError};
use super::{BlobRef, Store};
use crate::blob::Ingest;

/// Takes in one blob, piece by piece. Dropped before [`Arrival::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Arrival(Kind);

#[derive(Debug)]
enum Kind {
    File(Box<Ingest>),
    Layer(Box<IngestLayer>),
}

impl Store {
    /// Begins to take in a blob; `layer` is what it unpacks to, if it is a layer.
    pub fn arrive(&self, blob: BlobRef, layer: Option<Digest>) -> Result<Arrival, IngestLayerError> {
        // In this process it would only hold up the download.
        let kind = match layer.filter(|_| self.unpacker.is_some()) {
            Some(diff_id) => Kind::Layer(Box::new(self.ingest_layer(&blob.digest, blob.size, diff_id)?)),
            None => Kind::File(Box::new(self.ingest(&blob.digest, blob.size)?)),
        };
        Ok(Arrival(kind))
    }
}

impl Arrival {
    /// Appends a piece; fails as soon as there is more than there should be.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), IngestLayerError> {
        match &mut self.0 {
            Kind::File(ingest) => Ok(ingest.write(piece)?),
            Kind::Layer(ingest) => Ok(ingest.write(piece)?),
        }
    }

    /// Checks what has come and puts it into the store, to last once [`Store::complete`] knows of it. Returns its size.
    pub fn finish(self) -> Result<Bytes, IngestLayerError> {
        match self.0 {
            Kind::File(ingest) => Ok(ingest.finish()?),
            Kind::Layer(ingest) => ingest.finish(),
        }
    }
}
