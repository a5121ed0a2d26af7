//! Where everything lies beneath the store's root.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Digest;

/// What an unfinished or doomed layer's directory is called until it has its name, or is gone.
pub(super) const UNFINISHED: &str = ".tmp-";

/// A layer's files, in its directory.
pub(super) const TREE: &str = "fs";

#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
    /// Temporary names are used once, so that whoever holds one may remove it without asking.
    next: Arc<AtomicU64>,
}

impl Paths {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), next: Arc::new(AtomicU64::new(0)) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(super) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.ingest().join(self.number().to_string())
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Of the layer that this blob is.
    pub(super) fn layer(&self, blob: &Digest) -> PathBuf {
        self.layers().join(blob.hex())
    }

    /// What containers mount of a layer.
    pub(super) fn tree(&self, blob: &Digest) -> PathBuf {
        self.layer(blob).join(TREE)
    }

    pub(super) fn unfinished_layer(&self) -> PathBuf {
        self.layers().join(format!("{UNFINISHED}{}", self.number()))
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn record(&self, manifest: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", manifest.hex()))
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
