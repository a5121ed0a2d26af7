//! Directories that hide what the layers below have in them.
//!
//! overlayfs knows them by an attribute that takes CAP_SYS_ADMIN to set. Whoever makes a layer's tree has no such right
//! and makes a list; who asked for the tree sets the attribute when it is there.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::tree::open_beneath;
use crate::limits::{OPAQUE_NAMES, OverLimit};

const ATTRIBUTE: &str = "trusted.overlay.opaque";

/// Their paths from the layer's root, with no link on the way; the root's is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opaque {
    paths: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Opaque {
    pub(super) fn add(&mut self, path: Vec<u8>) -> Result<(), OverLimit> {
        let bytes = path.len() + 1;
        if self.paths.insert(path) {
            self.bytes += bytes;
        }
        if self.bytes > OPAQUE_NAMES { Err(OverLimit::OpaqueNames) } else { Ok(()) }
    }

    /// Sets the attribute. The list may be a liar's: nothing outside the layer is reached, and no link is followed.
    pub(super) fn mark(&self, root: &OwnedFd) -> io::Result<()> {
        for path in &self.paths {
            match open_beneath(root, path) {
                Ok(directory) => {
                    rustix::fs::fsetxattr(&directory, ATTRIBUTE, b"y", XattrFlags::empty())?;
                }
                // A later entry of the archive took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One line's worth: each byte as the character of its number, and NUL, which no path has, after each path.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.bytes);
        for path in &self.paths {
            text.extend(path.iter().map(|byte| char::from(*byte)));
            text.push('\0');
        }
        text
    }

    /// `None` for what [`Opaque::to_text`] does not write.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut opaque = Self::default();
        for path in text.split_terminator('\0') {
            let path: Option<Vec<u8>> = path.chars().map(|c| u8::try_from(c).ok()).collect();
            opaque.add(path?).ok()?;
        }
        Some(opaque)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_reads_back_as_written_whatever_the_names() {
        let lists: [&[&[u8]]; 4] = [&[], &[b""], &[b"a/b", b"\xff\x80 \n\"", b""], &[b"a", b"a"]];
        for paths in lists {
            let mut opaque = Opaque::default();
            paths.iter().for_each(|path| opaque.add(path.to_vec()).unwrap());
            assert_eq!(Opaque::from_text(&opaque.to_text()), Some(opaque), "{paths:?}");
        }
        assert_eq!(Opaque::from_text("\u{100}"), None);
    }

    #[test]
    fn the_list_is_bounded_and_one_path_counts_once() {
        let mut opaque = Opaque::default();
        let long = vec![b'x'; OPAQUE_NAMES / 2];
        (0..10).for_each(|_| opaque.add(long.clone()).unwrap());
        opaque.add(vec![b'y'; OPAQUE_NAMES / 4]).unwrap();
        assert_eq!(opaque.add(vec![b'z'; OPAQUE_NAMES / 2]), Err(OverLimit::OpaqueNames));
    }
}
