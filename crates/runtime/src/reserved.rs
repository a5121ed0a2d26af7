//! What of the node is gantry's own: nothing that is done for a container reaches into it by a path, since whoever names one may have
//! put a link in its way.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// A path of the node's, through the node's own links. Not through those in `/proc` that lead out of any file system.
pub(crate) fn find(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// Whether what was found is a directory of gantry's, or has one in it, or is in one: by what the directories are, so that
/// neither links nor other mounts of the same file system help. What cannot be told is taken for one.
pub(crate) fn hands_out(found: &OwnedFd, own: &Path) -> bool {
    // One that is not there can be handed out by nobody.
    let Ok(own) = own.canonicalize() else { return false };
    let (Some(found), Some(own)) = (place(found), chain(&own)) else { return true };
    let has_first = |chain: &[FileId], of: &[FileId]| of.first().is_some_and(|first| chain.contains(first));
    has_first(&found, &own) || has_first(&own, &found)
}

/// Whether it is a directory of gantry's, or in one.
pub(crate) fn is_within(found: &OwnedFd, own: &Path) -> bool {
    let Ok(own) = own.canonicalize() else { return false };
    let (Some(found), Some(own)) = (place(found), identity(&own)) else { return true };
    found.contains(&own)
}

/// What tells a file from all others, whatever its names are: its file system's number and its own.
pub(crate) type FileId = (u64, u64);

/// What was found, and all that it is in.
pub(crate) fn place(found: &OwnedFd) -> Option<Vec<FileId>> {
    chain(&std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?)
}

fn chain(path: &Path) -> Option<Vec<FileId>> {
    path.ancestors().map(identity).collect()
}

pub(crate) fn identity(path: &Path) -> Option<FileId> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}
