//! How large a container's writable layer may grow: a project quota of the node's file system, as Docker has it.
//!
//! Every file in the layer belongs to a project whose number is the layer's own, and new ones inherit it.
#![expect(unsafe_code, reason = "the calls for quotas have no wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum QuotaError {
    #[error(
        "cannot limit how large the container grows: this node's file system at {mount} ({kind}) has no project quotas \
         (it is not mounted with `prjquota`)"
    )]
    Unsupported { mount: PathBuf, kind: String },
    #[error("cannot limit how large the container grows: the file system at {path} refuses a quota")]
    Refused { path: PathBuf, source: io::Error },
}

/// The numbers of our projects begin here, far from those that an administrator gives out.
const PROJECTS: u32 = 1 << 30;

/// Limits the directories, which are new and empty, to `bytes` together.
pub(crate) fn limit(dirs: &[&Path], bytes: u64) -> Result<(), QuotaError> {
    let Some(first) = dirs.first() else { return Ok(()) };
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| QuotaError::Refused { path, source }
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(refused(first))?;
    supported(&mounts, first)?;
    let layer = File::open(first).map_err(refused(first))?;
    let inode = layer.metadata().map_err(refused(first))?.ino();
    // A number of its own while the layer is there; truncated, since a project's has 32 bits.
    let project = PROJECTS | (inode as u32 & (PROJECTS - 1));
    set_limit(&layer, project, bytes).map_err(refused(first))?;
    for dir in dirs {
        let opened = File::open(dir).and_then(|dir| set_project(&dir, project));
        opened.map_err(refused(dir))?;
    }
    Ok(())
}

/// `mounts` in the form of proc_pid_mountinfo(5).
fn supported(mounts: &str, dir: &Path) -> Result<(), QuotaError> {
    let mount = |line: &'_ str| {
        let (before, after) = line.split_once(" - ")?;
        let at = PathBuf::from(before.split(' ').nth(4)?);
        let mut after = after.split(' ');
        let (kind, _device, options) = (after.next()?, after.next()?, after.next()?);
        let has = options.split(',').any(|option| option == "prjquota");
        dir.starts_with(&at).then(|| (at, kind.to_owned(), has))
    };
    // The innermost, and of those at one place the last, which hides the others.
    let found = mounts.lines().filter_map(mount).max_by_key(|(at, _, _)| at.components().count());
    match found {
        Some((_, _, true)) => Ok(()),
        Some((mount, kind, false)) => Err(QuotaError::Unsupported { mount, kind }),
        None => Err(QuotaError::Unsupported { mount: dir.to_owned(), kind: "unknown".to_owned() }),
    }
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copied_extent_size: u32,
    pad: [u8; 8],
}

fn set_project(dir: &File, project: u32) -> io::Result<()> {
    /// `_IOW('X', 32, struct fsxattr)`.
    const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
    const FS_XFLAG_PROJINHERIT: u32 = 0x200;
    let attributes = Attributes { flags: FS_XFLAG_PROJINHERIT, project, ..Attributes::default() };
    // SAFETY: the call reads as many bytes as the structure has, which lives through it, and writes nothing.
    let result = unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_limit(layer: &File, project: u32, bytes: u64) -> io::Result<()> {
    /// `QCMD(Q_SETQUOTA, PRJQUOTA)`.
    const SET_PROJECT_QUOTA: u32 = ((libc::Q_SETQUOTA as u32) << 8) | 2;
    /// What limits are counted in (`QIF_DQBLKSIZE`).
    const BLOCK: u64 = 1024;
    let blocks = bytes.div_ceil(BLOCK);
    let quota = libc::dqblk {
        dqb_bhardlimit: blocks,
        dqb_bsoftlimit: blocks,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: libc::QIF_BLIMITS,
    };
    // SAFETY: the call reads one `dqblk`, which lives through it, and writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, layer.as_raw_fd(), SET_PROJECT_QUOTA, project, &raw const quota)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_project_quotas_is_named() {
        let mounts = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 8:1 / /var rw,relatime shared:1 - xfs /dev/sda1 rw,attr2,prjquota
31 30 8:2 / /var/lib/other rw - ext4 /dev/sda2 rw
";
        let check = |dir: &str| supported(mounts, Path::new(dir)).map_err(|error| error.to_string());
        assert_eq!(check("/var/lib/gantry/tasks"), Ok(()));
        let refused = check("/var/lib/other/x").unwrap_err();
        assert!(refused.contains("file system at /var/lib/other (ext4) has no project quotas"), "{refused}");
        assert!(check("/srv").unwrap_err().contains("at / (ext4)"));
    }
}
