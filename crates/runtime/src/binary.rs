//! The program that shims, and other processes of ours, are exec'd from: this one, and out of reach of containers.
//!
//! A container can get at the program of the process that made it, through `/proc/self/exe`, and write to it
//! (CVE-2019-5736). So shims are exec'd from a file that cannot be written:
//!
//! - a detached, read-only mount of the program's own file, open for as long as the agent lives. It costs no memory, and
//!   agent and shims share one page cache, which for a program of tens of megabytes is what keeps a shim small;
//! - where the kernel refuses that (before Linux 5.12, or when the program lies in another mount namespace), a sealed
//!   copy in memory, one for all shims.
//!
//! Either also keeps the shims of a running agent at the agent's own version while the file on disk is replaced.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount_attr;

/// What the program is called with to become a shim: `gantry shim DIR`.
pub const SHIM_ARGUMENT: &str = "shim";

/// A program to exec shims from.
#[derive(Debug)]
pub struct ShimBinary {
    path: PathBuf,
    /// What `path` names, for as long as it has to.
    sealed: Option<OwnedFd>,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("cannot find this program's own file")]
    Find(#[source] io::Error),
    #[error("cannot make a sealed copy of this program")]
    Copy(#[source] io::Error),
}

impl ShimBinary {
    /// This very program, sealed. Once for an agent's life.
    pub fn seal() -> Result<Self, SealError> {
        let fd = match read_only_view() {
            Some(fd) => fd,
            None => sealed_copy()?,
        };
        Ok(Self { path: format!("/proc/self/fd/{}", fd.as_raw_fd()).into(), sealed: Some(fd) })
    }

    /// A program as it lies on disk; for tests, whose containers are their own.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), sealed: None }
    }

    /// Whether a container could not write to it.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The command that becomes the shim of `dir`.
    pub(crate) fn command(&self, dir: &Path) -> Command {
        let mut command = self.run_as("gantry-shim", SHIM_ARGUMENT);
        command.arg(dir);
        command
    }

    /// The same program as another kind of process, which its first argument tells it to be. `name` is what it is called
    /// among processes. It gets nothing of the caller's environment.
    pub fn run_as(&self, name: &str, kind: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(name).arg(kind).env_clear().current_dir("/");
        command
    }
}

/// `None` where the kernel does not do it.
fn read_only_view() -> Option<OwnedFd> {
    let path = std::env::current_exe().ok()?;
    let view =
        open_tree(CWD, &path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).ok()?;
    // The path may by now name a newer version.
    let seen = std::fs::metadata(format!("/proc/self/fd/{}", view.as_raw_fd())).ok()?;
    let ours = std::fs::metadata("/proc/self/exe").ok()?;
    ((seen.dev(), seen.ino()) == (ours.dev(), ours.ino())).then_some(())?;
    let read_only = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, ..mount_attr::NONE };
    mount_attr::set(&view, false, read_only).ok()?;
    Some(view)
}

fn sealed_copy() -> Result<OwnedFd, SealError> {
    let mut program = File::open("/proc/self/exe").map_err(SealError::Find)?;
    let options = pentacle::SealOptions::new().executable(true).memfd_name(c"gantry-shim");
    options.copy_and_seal(&mut program).map(OwnedFd::from).map_err(SealError::Copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(fd: &OwnedFd) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        let copy = sealed_copy().unwrap();
        let opened = File::options().write(true).open(path(&copy));
        let error = opened.and_then(|mut file| io::Write::write_all(&mut file, b"x")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_read_only_view_cannot_be_written_and_needs_no_copy() {
        // Only root can make one.
        let Some(view) = read_only_view() else { return };
        // Writing proves nothing: no running program's file can be opened for that. Its mode could be changed.
        let mode = std::fs::metadata(path(&view)).unwrap().permissions();
        let error = std::fs::set_permissions(path(&view), mode).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
}
