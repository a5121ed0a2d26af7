//! How far a pull or push is, layer by layer.

use model::{Bytes, Digest};
use tokio::sync::watch;

use crate::document::Manifest;

/// The layers, lowest first, each once. Empty until the manifest is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub layers: Vec<LayerProgress>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// Of the blob, as it travels.
    pub digest: Digest,
    pub total: Bytes,
    /// It can go back, when a blob has to be begun again.
    pub done: Bytes,
    pub state: LayerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// For its turn, or for another image that is bringing the same layer.
    Waiting,
    Downloading,
    Uploading,
    Done,
    /// It was there already.
    Exists,
}

/// Tells the watcher, who sees the latest state and need not keep up.
#[derive(Clone, Debug)]
pub(super) struct Reporter(watch::Sender<Progress>);

impl Reporter {
    pub(super) fn to(watcher: &watch::Sender<Progress>) -> Self {
        Self(watcher.clone())
    }

    pub(super) fn begin(&self, manifest: &Manifest) {
        let mut layers: Vec<LayerProgress> = Vec::with_capacity(manifest.layers.len());
        for layer in &manifest.layers {
            if !layers.iter().any(|known| known.digest == layer.digest) {
                let (total, done, state) = (Bytes(layer.size), Bytes(0), LayerState::Waiting);
                layers.push(LayerProgress { digest: layer.digest, total, done, state });
            }
        }
        self.0.send_replace(Progress { layers });
    }

    pub(super) fn moved(&self, digest: Digest, state: LayerState, done: Bytes) {
        self.change(digest, |layer| (layer.state, layer.done) = (state, done));
    }

    pub(super) fn done(&self, digest: Digest) {
        self.change(digest, |layer| (layer.state, layer.done) = (LayerState::Done, layer.total));
    }

    pub(super) fn exists(&self, digest: Digest) {
        self.change(digest, |layer| {
            // What this very pull has brought is found again when something else was taken away meanwhile.
            if layer.state != LayerState::Done {
                (layer.state, layer.done) = (LayerState::Exists, layer.total);
            }
        });
    }

    /// A configuration is reported as the layers are, and is none of them.
    fn change(&self, digest: Digest, change: impl FnOnce(&mut LayerProgress)) {
        self.0.send_if_modified(|progress| {
            let layer = progress.layers.iter_mut().find(|layer| layer.digest == digest);
            layer.map(change).is_some()
        });
    }
}
