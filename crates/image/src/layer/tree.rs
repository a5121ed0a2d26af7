//! The directory tree of one layer while it is made: every system call that touches it, none of which can leave it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::opaque::Opaque;
use crate::limits::{self, OverLimit};
use crate::path::{DEPTH, LENGTH};
use crate::tape::{Entry, Modified};

/// An open directory of the layer.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) fd: OwnedFd,
    /// From the layer's root, with no link on the way; the root's is empty.
    pub(super) path: Vec<u8>,
}

/// A name in an open directory: where an entry goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) directory: &'a Directory,
    pub(super) name: &'a [u8],
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many links the kernel follows on the way to one file (`MAXSYMLINKS`); a container sees no more of the layer either.
const LINKS: usize = 40;

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// Set last, since every entry made in a directory changes its time.
    directories: Vec<(Vec<u8>, Modified)>,
    /// How many directories may still be made that have no entry: the path of one entry can have two hundred.
    implied_left: u64,
    opaque: Opaque,
    skipped_xattrs: u64,
}

/// What already has an entry's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    Directory,
    /// A device 0/0: the mark that hides the name in the layers below.
    Whiteout,
    Other,
}

pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// Opens a directory beneath another one, and no link on the way: a path with one in it is `ELOOP`. Nothing is ever
/// mounted in a layer.
pub(super) fn open_beneath(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    // Without NOFOLLOW, which would make a link at the path's end an `ENOTDIR` as any other file is.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The first: something was renamed somewhere on the machine meanwhile, and the kernel cannot rule out a race.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = open_root(path)?;
        // Whatever the umask made of it; a layer that has an entry for its root overrides this.
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        let (implied_left, opaque) = (limits::ENTRIES, Opaque::default());
        Ok(Self { root, directories: Vec::new(), implied_left, opaque, skipped_xattrs: 0 })
    }

    pub(super) fn root(&self) -> io::Result<Directory> {
        Ok(Directory { fd: self.root.try_clone()?, path: Vec::new() })
    }

    /// Opens a directory of the layer, following links as they lead inside it. With `create`, directories that are
    /// missing are made as root's with mode 0755, as containerd and Docker do.
    pub(super) fn directory(&mut self, path: &[u8], create: bool) -> io::Result<Directory> {
        match self.resolve(path) {
            Err(Errno::NOENT) if create => {}
            resolved => return Ok(resolved?),
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let mut at = self.root()?;
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            at = match self.resolve(&path[..end]) {
                Err(Errno::NOENT) => {
                    let left = self.implied_left.checked_sub(1);
                    let left = left.ok_or_else(|| io::Error::other(OverLimit::Implied(limits::ENTRIES)))?;
                    self.implied_left = left;
                    let spot = Spot { directory: &at, name: &path[start..end] };
                    spot.make_directory()?;
                    let made = spot.open_directory()?;
                    rustix::fs::fchmod(&made.fd, Mode::from_raw_mode(0o755))?;
                    made
                }
                resolved => resolved?,
            };
            start = end + 1;
        }
        Ok(at)
    }

    /// Everything but the last component may be a link, and so may it: `lib -> usr/lib` has to work.
    fn resolve(&self, path: &[u8]) -> rustix::io::Result<Directory> {
        let (fd, path) = match open_beneath(&self.root, path) {
            Err(Errno::LOOP) => {
                let path = self.follow(path)?;
                (open_beneath(&self.root, &path)?, path)
            }
            opened => (opened?, path.to_vec()),
        };
        Directory { fd, path }.checked()
    }

    /// Where a path leads inside the layer: the same place, and no link on the way. As in the container, the root is its
    /// own parent. Links are read here and not followed by the kernel, so that the way there is known by name.
    fn follow(&self, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let components = |path: &[u8]| {
            path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<Vec<u8>>>()
        };
        let mut left = components(path);
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or_default());
                    continue;
                }
                _ => {}
            }
            let before = at.len();
            if !at.is_empty() {
                at.push(b'/');
            }
            at.extend_from_slice(&name);
            match rustix::fs::readlinkat(&self.root, at.as_slice(), Vec::new()) {
                // It is no link.
                Err(Errno::INVAL) => {}
                Err(error) => return Err(error),
                Ok(_) if links == LINKS => return Err(Errno::LOOP),
                Ok(target) => {
                    links += 1;
                    let target = target.to_bytes();
                    at.truncate(if target.starts_with(b"/") { 0 } else { before });
                    left.extend(components(target));
                }
            }
        }
        Ok(at)
    }

    /// Restores the directory's time when all is in place.
    pub(super) fn defer_time(&mut self, path: &[u8], modified: Modified) {
        self.directories.push((path.to_vec(), modified));
    }

    /// Takes note that the directory hides what the layers below have in it.
    pub(super) fn hide_below(&mut self, directory: &Directory) -> Result<(), OverLimit> {
        self.opaque.add(directory.path.clone())
    }

    /// Owner, mode and attributes of an open file or directory, in the order in which one does not undo another: a change
    /// of owner clears setuid bits and capabilities.
    pub(super) fn dress(&mut self, file: impl AsFd, entry: &Entry) -> io::Result<()> {
        rustix::fs::fchown(file.as_fd(), Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(entry.mode))?;
        self.set_xattrs(file.as_fd(), entry)
    }

    /// Sets what attributes a layer may bring; counts the others. Not `trusted.overlay.*` and its like: they would
    /// redirect overlayfs to any directory of the layers below.
    fn set_xattrs(&mut self, file: impl AsFd, entry: &Entry) -> io::Result<()> {
        for (name, value) in &entry.xattrs {
            let allowed = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
            if !allowed && name != b"security.capability" {
                self.skipped_xattrs += 1;
                continue;
            }
            match rustix::fs::fsetxattr(file.as_fd(), name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => self.skipped_xattrs += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) fn skip_xattrs(&mut self, entry: &Entry) {
        self.skipped_xattrs += entry.xattrs.len() as u64;
    }

    /// Sets the deferred times. Returns how many attributes were left out, and what has to be marked.
    pub(super) fn finish(self) -> io::Result<(u64, Opaque)> {
        for (path, modified) in self.directories.iter().rev() {
            match self.resolve(path) {
                Ok(directory) => rustix::fs::futimens(&directory.fd, &times(*modified))?,
                // A later entry of the archive replaced it, or a link on the way to it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((self.skipped_xattrs, self.opaque))
    }
}

impl Directory {
    /// Links let an archive nest deeper than its paths are long; what is too deep could not be removed again.
    fn checked(self) -> rustix::io::Result<Self> {
        let components = self.path.split(|byte| *byte == b'/').count();
        if components > DEPTH || self.path.len() >= LENGTH { Err(Errno::NAMETOOLONG) } else { Ok(self) }
    }
}

pub(super) fn times(modified: Modified) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: modified.seconds, tv_nsec: i64::from(modified.nanoseconds) },
    }
}

impl Spot<'_> {
    pub(super) fn there(self) -> io::Result<There> {
        let stat = match rustix::fs::statat(&self.directory.fd, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(There::Nothing),
            Err(error) => return Err(error.into()),
        };
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => There::Directory,
            FileType::CharacterDevice if stat.st_rdev == 0 => There::Whiteout,
            _ => There::Other,
        })
    }

    /// Removes what has the name of an entry that comes later: a tar's last entry of a name counts. A directory that has
    /// something in it stays, and is an error: no program writes such a layer.
    pub(super) fn make_way(self, there: There) -> io::Result<()> {
        let flags = match there {
            There::Nothing => return Ok(()),
            There::Directory => AtFlags::REMOVEDIR,
            There::Whiteout | There::Other => AtFlags::empty(),
        };
        Ok(rustix::fs::unlinkat(&self.directory.fd, self.name, flags)?)
    }

    /// Opens the directory of this name, and no link of this name.
    pub(super) fn open_directory(self) -> io::Result<Directory> {
        let fd = rustix::fs::openat(&self.directory.fd, self.name, DIRECTORY, Mode::empty())?;
        let mut path = self.directory.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.name);
        Ok(Directory { fd, path }.checked()?)
    }

    pub(super) fn make_directory(self) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.directory.fd, self.name, Mode::from_raw_mode(0o700))?)
    }

    /// A new file, open for writing and nobody else's yet.
    pub(super) fn make_file(self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory.fd, self.name, flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(file))
    }

    pub(super) fn make_symlink(self, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.directory.fd, self.name)?)
    }

    pub(super) fn make_node(self, kind: FileType, device: u64) -> io::Result<()> {
        Ok(rustix::fs::mknodat(&self.directory.fd, self.name, kind, Mode::from_raw_mode(0o600), device)?)
    }

    /// Gives what `self` names this other name too. A symbolic link is linked itself and not followed.
    pub(super) fn link_to(self, other: Spot<'_>) -> io::Result<()> {
        let (from, to) = (&self.directory.fd, &other.directory.fd);
        Ok(rustix::fs::linkat(from, self.name, to, other.name, AtFlags::empty())?)
    }

    pub(super) fn inode(self) -> io::Result<u64> {
        Ok(rustix::fs::statat(&self.directory.fd, self.name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
    }

    /// Owner, mode and time of what cannot be opened without side effects. The mode of a link is nobody's to change.
    pub(super) fn dress(self, entry: &Entry, link: bool) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        rustix::fs::chownat(&self.directory.fd, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if !link {
            // Follows a link, but this was just made and nobody else has access to the tree.
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(&self.directory.fd, self.name, mode, AtFlags::empty())?;
        }
        let times = times(entry.modified);
        Ok(rustix::fs::utimensat(&self.directory.fd, self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_have_no_entry_are_counted_too() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(root.path()).unwrap();
        tree.implied_left = 3;
        tree.directory(b"a/b", true).unwrap();
        tree.directory(b"a/b", true).unwrap();
        tree.directory(b"a/c", true).unwrap();
        let error = tree.directory(b"d/e", true).unwrap_err();
        let over = error.get_ref().and_then(|error| error.downcast_ref::<OverLimit>());
        assert_eq!(over, Some(&OverLimit::Implied(limits::ENTRIES)));
        assert!(tree.directory(b"a/c", true).is_ok() && !root.path().join("d").exists());
    }
}
