//! How much an archive may ask of this machine.

use model::Bytes;

/// One layer, unpacked. The largest public images (CUDA, game servers) have layers of 5 to 8 GiB.
pub(crate) const LAYER: Bytes = Bytes(10 << 30);

/// A whole archive, uncompressed: several of the largest layers.
pub(crate) const ARCHIVE: Bytes = Bytes(64 << 30);

/// Manifests and configurations are read into memory; 4 MiB is what registries and containerd accept of them.
pub(crate) const DOCUMENT: Bytes = Bytes(4 << 20);

/// Entries in one layer, and besides them directories that it leaves out. The largest layers that people build
/// (node_modules, texlive) have some 300,000.
pub(crate) const ENTRIES: u64 = 1_000_000;

/// Layers of one image: Docker's own maximum.
pub(crate) const LAYERS: usize = 127;

/// Paths whose times are set when everything else is in place are kept in memory until then.
const DIRECTORY_NAMES: usize = 64 << 20;

/// Paths of directories that hide what is below them: kept, and sent from one process to another. An image has some
/// dozens; one in which every directory of a large tree was replaced has a megabyte of them.
pub(crate) const OPAQUE_NAMES: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    #[error("it has more than {0} entries")]
    Entries(u64),
    #[error("it leaves out more than {0} directories that its entries are in")]
    Implied(u64),
    #[error("its files have more than {0} together")]
    Size(Bytes),
    #[error("the names of its directories take more than {most}", most = Bytes(DIRECTORY_NAMES as u64))]
    DirectoryNames,
    #[error("the names of its opaque directories take more than {most}", most = Bytes(OPAQUE_NAMES as u64))]
    OpaqueNames,
}

/// What one archive or layer has used so far.
#[derive(Debug)]
pub(crate) struct Usage {
    limit: Bytes,
    most_entries: u64,
    entries: u64,
    bytes: u64,
    directory_names: usize,
}

impl Usage {
    /// Nothing yet, of so many bytes in as many entries as a layer may have.
    pub(crate) fn of_at_most(limit: Bytes) -> Self {
        Self::of_at_most_entries(limit, ENTRIES)
    }

    pub(crate) fn of_at_most_entries(limit: Bytes, most_entries: u64) -> Self {
        Self { limit, most_entries, entries: 0, bytes: 0, directory_names: 0 }
    }

    /// Counts one entry whose file has this apparent size: a hole costs the disk nothing, but whoever copies it all.
    pub(crate) fn entry(&mut self, size: u64) -> Result<(), OverLimit> {
        self.entries += 1;
        if self.entries > self.most_entries {
            return Err(OverLimit::Entries(self.most_entries));
        }
        self.bytes = self.bytes.saturating_add(size);
        self.within(self.limit)
    }

    pub(crate) fn directory_name(&mut self, length: usize) -> Result<(), OverLimit> {
        self.directory_names += length;
        if self.directory_names > DIRECTORY_NAMES { Err(OverLimit::DirectoryNames) } else { Ok(()) }
    }

    pub(crate) fn within(&self, limit: Bytes) -> Result<(), OverLimit> {
        if self.bytes > limit.0 { Err(OverLimit::Size(limit)) } else { Ok(()) }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Of files, with their holes.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes(self.bytes)
    }
}
