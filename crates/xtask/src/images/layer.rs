//! Writing a layer: a tar in which everything is root's, and which is the same whenever it is made.

use std::fs::File;
use std::io;
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// A layer that is being written. Parents go before what is in them.
pub(super) struct Layer(Builder<File>);

impl Layer {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        File::create(path).map(|file| Self(Builder::new(file)))
    }

    pub(super) fn dir(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.0.append_data(&mut header(EntryType::Directory, mode, 0), path, io::empty())
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.0.append_data(&mut header(EntryType::Regular, mode, content.len() as u64), path, content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.0.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.0.into_inner()?.sync_all()
    }
}

/// Of an entry from the epoch's first second, so that an archive depends on what is in it alone.
pub(super) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}
