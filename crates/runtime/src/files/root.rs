//! The container's root, and paths in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::files::FilesError;
use crate::handle::{self, Observed};
use crate::record;

/// A file of any kind that is not opened but only held, and a link that is not followed.
pub(super) const HELD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory, from which names are looked up.
pub(super) const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// With a limit, the kernel gives up on a `..` while anything on the machine is being renamed, and says so. It is asked again
/// as often as any race can be lost by chance.
const ATTEMPTS: usize = 128;

/// The root of the running container of `dir`.
///
/// Its first process is known by number only, and numbers are given out again. So the process is held (a descriptor of it
/// says whether it has died), has to be the shim's child, and must still be the container's when its root is open. A process
/// that the shim itself made since would have the node's root.
pub(super) fn of(dir: &Path) -> Result<File, FilesError> {
    let pid = running(dir)?;
    let process = Pid::from_raw(pid).ok_or(FilesError::NotRunning)?;
    let process = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Err(FilesError::NotRunning),
        Err(errno) => return Err(FilesError::Root(errno.into())),
    };
    let root = match open(format!("/proc/{pid}/root"), DIRECTORY, Mode::empty()) {
        Ok(root) => File::from(root),
        // One that has ended and is not reaped yet has no root any more.
        Err(Errno::NOENT | Errno::SRCH) => return Err(FilesError::NotRunning),
        Err(errno) => return Err(FilesError::Root(errno.into())),
    };
    let shim = record::lock_holder(dir).map_err(FilesError::Root)?;
    let is_its_child = shim.is_some() && parent(pid) == shim;
    let still = is_its_child && is_alive(&process).map_err(FilesError::Root)? && running(dir)? == pid;
    if !still || is_ours(&root).map_err(FilesError::Root)? {
        return Err(FilesError::NotRunning);
    }
    Ok(root)
}

fn running(dir: &Path) -> Result<i32, FilesError> {
    match handle::inspect(dir)? {
        Observed::Running(running) => Ok(running.pid),
        Observed::NotStarted | Observed::Starting | Observed::Exited(_) | Observed::Vanished => {
            Err(FilesError::NotRunning)
        }
    }
}

/// The parent of a process, by its stat, in which the name in brackets may hold anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn is_alive(process: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? == 0)
}

/// Whether a directory is this process's own root.
fn is_ours(root: &File) -> io::Result<bool> {
    let (root, ours) = (root.metadata()?, std::fs::metadata("/")?);
    Ok((root.dev(), root.ino()) == (ours.dev(), ours.ino()))
}

/// Opens a path in the root. Links on the way lead where they would lead a process of the container, and nowhere outside.
pub(super) fn resolve(root: impl AsFd, path: &Path, flags: OFlags) -> Result<File, Errno> {
    let limits = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), limits) {
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            done => return done.map(File::from),
        }
    }
    Err(Errno::AGAIN)
}

/// A path by which what is held can be opened. It is a link of our own process's, which leads to that file and no other,
/// whatever has become of its name.
pub(super) fn through(held: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", held.as_fd().as_raw_fd()))
}
