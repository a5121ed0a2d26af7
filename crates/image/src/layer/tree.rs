//! The directory tree of one layer while it is made: every system call that touches it, none of which can leave it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::path::DEPTH;
use crate::tape::{Entry, Modified};

/// A name in an open directory: where an entry goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) directory: &'a OwnedFd,
    pub(super) name: &'a [u8],
}

const OPAQUE: &str = "trusted.overlay.opaque";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// How deep the root itself lies, for telling how deep a directory lies in it.
    root_depth: usize,
    /// Set last, since every entry made in a directory changes its time.
    directories: Vec<(Vec<u8>, Modified)>,
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

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        // Whatever the umask made of it; a layer that has an entry for its root overrides this.
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        let root_depth = depth(&root)?;
        Ok(Self { root, root_depth, directories: Vec::new(), skipped_xattrs: 0 })
    }

    pub(super) fn root(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }

    /// Opens a directory of the layer, following links as they lead inside it. With `create`, directories that are
    /// missing are made as root's with mode 0755, as containerd and Docker do.
    pub(super) fn directory(&self, path: &[u8], create: bool) -> io::Result<OwnedFd> {
        match self.resolve(path) {
            Err(Errno::NOENT) if create => {}
            resolved => return self.checked(resolved?),
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let mut at = self.root()?;
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            at = match self.resolve(&path[..end]) {
                Err(Errno::NOENT) => {
                    let spot = Spot { directory: &at, name: &path[start..end] };
                    spot.make_directory()?;
                    let made = spot.open_directory()?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                    self.checked(made)?
                }
                resolved => self.checked(resolved?)?,
            };
            start = end + 1;
        }
        Ok(at)
    }

    fn resolve(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        // Everything but the last component may be a link, and so may it: `lib -> usr/lib` has to work. NO_XDEV: nothing
        // is ever mounted in here.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        loop {
            // EAGAIN: something was renamed somewhere on the machine meanwhile, and the kernel cannot rule out a race.
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                resolved => return resolved,
            }
        }
    }

    /// Links let an archive nest deeper than its paths are long; what is too deep could not be removed again.
    fn checked(&self, directory: OwnedFd) -> io::Result<OwnedFd> {
        if depth(&directory)?.saturating_sub(self.root_depth) > DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(directory)
    }

    /// Restores the directory's time when all is in place.
    pub(super) fn defer_time(&mut self, path: &[u8], modified: Modified) {
        self.directories.push((path.to_vec(), modified));
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

    /// Sets the deferred times, and syncs everything. Returns how many attributes were left out.
    pub(super) fn finish(self) -> io::Result<u64> {
        for (path, modified) in self.directories.iter().rev() {
            match self.resolve(path) {
                Ok(directory) => rustix::fs::futimens(&directory, &times(*modified))?,
                // A later entry of the archive replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        rustix::fs::syncfs(&self.root)?;
        Ok(self.skipped_xattrs)
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
        let stat = match rustix::fs::statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
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
        Ok(rustix::fs::unlinkat(self.directory, self.name, flags)?)
    }

    /// Opens the directory of this name, and no link of this name.
    pub(super) fn open_directory(self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(self.directory, self.name, DIRECTORY, Mode::empty())?)
    }

    pub(super) fn make_directory(self) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self.directory, self.name, Mode::from_raw_mode(0o700))?)
    }

    /// A new file, open for writing and nobody else's yet.
    pub(super) fn make_file(self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, self.name, flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(file))
    }

    pub(super) fn make_symlink(self, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, self.directory, self.name)?)
    }

    pub(super) fn make_node(self, kind: FileType, device: u64) -> io::Result<()> {
        Ok(rustix::fs::mknodat(self.directory, self.name, kind, Mode::from_raw_mode(0o600), device)?)
    }

    /// Gives what `self` names this other name too. A symbolic link is linked itself and not followed.
    pub(super) fn link_to(self, other: Spot<'_>) -> io::Result<()> {
        Ok(rustix::fs::linkat(self.directory, self.name, other.directory, other.name, AtFlags::empty())?)
    }

    pub(super) fn inode(self) -> io::Result<u64> {
        Ok(rustix::fs::statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
    }

    /// Owner, mode and time of what cannot be opened without side effects. The mode of a link is nobody's to change.
    pub(super) fn dress(self, entry: &Entry, link: bool) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        rustix::fs::chownat(self.directory, self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if !link {
            // Follows a link, but this was just made and nobody else has access to the tree.
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(self.directory, self.name, mode, AtFlags::empty())?;
        }
        let times = times(entry.modified);
        Ok(rustix::fs::utimensat(self.directory, self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Hides what the layers below have in this directory.
pub(super) fn make_opaque(directory: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())?)
}

/// How many components the directory's path has, as the kernel knows it.
fn depth(directory: &OwnedFd) -> io::Result<usize> {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = rustix::fs::readlinkat(rustix::fs::CWD, link.as_str(), Vec::<u8>::new())?;
    Ok(path.to_bytes().iter().filter(|byte| **byte == b'/').count())
}
