//! One entry of the archive: a ustar header, and before it what that has no room for, in pax's form (POSIX.1-2008, `pax`).

use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{major, minor};
use tar::{Builder, EntryType, Header};

/// The header's fields for a name and for a link's target.
const NAME: usize = 100;
/// What seven and eleven octal digits can say.
const LARGEST_ID: u64 = 0o7_777_777;
const LARGEST_SIZE: u64 = 0o77_777_777_777;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    kind: EntryType,
    path: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since the epoch, and nanoseconds after that.
    modified: (i64, u32),
    size: u64,
    /// Major and minor number.
    device: Option<(u32, u32)>,
    pub(super) attributes: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn of(kind: EntryType, path: &Path, about: &Metadata) -> Self {
        Self {
            kind,
            path: path.as_os_str().as_bytes().to_vec(),
            link: Vec::new(),
            mode: about.mode() & 0o7777,
            uid: about.uid(),
            gid: about.gid(),
            modified: (about.mtime(), u32::try_from(about.mtime_nsec()).unwrap_or_default()),
            size: 0,
            device: None,
            attributes: Vec::new(),
        }
    }

    /// With a slash at its end, by which every program knows one; the root is `./`.
    pub(super) fn directory(path: &Path, about: &Metadata) -> Self {
        let mut entry = Self::of(EntryType::Directory, path, about);
        if entry.path.is_empty() {
            entry.path.push(b'.');
        }
        entry.path.push(b'/');
        entry
    }

    pub(super) fn file(path: &Path, about: &Metadata) -> Self {
        Self { size: about.len(), ..Self::of(EntryType::Regular, path, about) }
    }

    /// Another name of `first`.
    pub(super) fn link(path: &Path, first: &Path, about: &Metadata) -> Self {
        Self { link: first.as_os_str().as_bytes().to_vec(), ..Self::of(EntryType::Link, path, about) }
    }

    pub(super) fn symlink(path: &Path, target: &[u8], about: &Metadata) -> Self {
        Self { link: target.to_vec(), ..Self::of(EntryType::Symlink, path, about) }
    }

    /// A pipe or a device.
    pub(super) fn node(path: &Path, about: &Metadata) -> Self {
        let kind = about.file_type();
        let (kind, is_device) = if kind.is_fifo() {
            (EntryType::Fifo, false)
        } else if kind.is_block_device() {
            (EntryType::Block, true)
        } else {
            (EntryType::Char, true)
        };
        let device = is_device.then(|| (major(about.rdev()), minor(about.rdev())));
        Self { device, ..Self::of(kind, path, about) }
    }

    /// An empty file that hides what is below. It says nothing but its name, so that the same layer is the same whenever it is
    /// written.
    pub(super) fn mark(path: &Path) -> Self {
        Self {
            kind: EntryType::Regular,
            path: path.as_os_str().as_bytes().to_vec(),
            link: Vec::new(),
            mode: 0o600,
            uid: 0,
            gid: 0,
            modified: (0, 0),
            size: 0,
            device: None,
            attributes: Vec::new(),
        }
    }

    /// `content` has exactly the entry's size.
    pub(super) fn write<W: Write>(&self, builder: &mut Builder<W>, content: impl Read) -> io::Result<()> {
        let records = self.records();
        builder.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        builder.append(&self.header()?, content)
    }

    fn header(&self) -> io::Result<Header> {
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        copy(&mut old.name, &self.path);
        copy(&mut old.linkname, &self.link);
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        header.set_mtime(u64::try_from(self.modified.0).unwrap_or_default());
        header.set_size(self.size);
        if let Some((major, minor)) = self.device {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        header.set_cksum();
        Ok(header)
    }

    /// What the header cannot say, or not exactly.
    fn records(&self) -> Vec<(String, Vec<u8>)> {
        let mut records = Vec::new();
        let mut record = |key: &str, value: Vec<u8>| records.push((key.to_owned(), value));
        if self.path.len() > NAME {
            record("path", self.path.clone());
        }
        if self.link.len() > NAME {
            record("linkpath", self.link.clone());
        }
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            if u64::from(id) > LARGEST_ID {
                record(key, id.to_string().into_bytes());
            }
        }
        if self.size > LARGEST_SIZE {
            record("size", self.size.to_string().into_bytes());
        }
        if self.modified.0 < 0 || self.modified.1 > 0 {
            record("mtime", time(self.modified).into_bytes());
        }
        for (name, value) in &self.attributes {
            record(&format!("SCHILY.xattr.{name}"), value.clone());
        }
        records
    }
}

/// What fits; the rest is in a record.
fn copy(field: &mut [u8; NAME], text: &[u8]) {
    let fits = text.len().min(NAME);
    field[..fits].copy_from_slice(&text[..fits]);
}

/// Seconds with a fraction. Before the epoch the kernel counts nanoseconds forward from the second before.
fn time((seconds, nanoseconds): (i64, u32)) -> String {
    match (seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanoseconds:09}"),
        (_, _) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_the_epoch() {
        for (modified, written) in [
            ((12, 0), "12"),
            ((12, 500_000_000), "12.500000000"),
            ((1, 1), "1.000000001"),
            ((-2, 750_000_000), "-1.250000000"),
            ((-1, 750_000_000), "-0.250000000"),
            ((-3, 0), "-3"),
        ] {
            assert_eq!(time(modified), written);
        }
    }

    #[test]
    fn only_what_the_header_cannot_say_is_in_a_record() {
        let plain = Entry::mark(Path::new("a"));
        assert_eq!(plain.records(), []);
        let large = Entry {
            path: vec![b'p'; NAME + 1],
            link: vec![b'l'; NAME + 1],
            uid: 3_000_000,
            size: 8 << 30,
            modified: (5, 500_000_000),
            attributes: vec![("user.note".to_owned(), b"a\nb".to_vec())],
            ..plain
        };
        let keys: Vec<String> = large.records().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["path", "linkpath", "uid", "size", "mtime", "SCHILY.xattr.user.note"]);
    }
}
