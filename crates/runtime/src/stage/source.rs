//! What a container's mounts are made from: files and directories of the node's, and memory.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, open_tree,
};

use super::{make_beneath, steps};
use crate::launch::{Bind, Mount, MountKind, Options, Propagation, Tmpfs};
use crate::mount_attr;
use crate::reserved::{find, hands_out, is_within};

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot bind {path}: there is nothing of that name on this node")]
    Missing { path: PathBuf },
    #[error("cannot make {path} on this node")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot bind {path}")]
    Bind { path: PathBuf, source: io::Error },
    #[error(
        "cannot bind {path}: it would hand out {reserved}, which is gantry's own; only a privileged container may have that"
    )]
    Reserved { path: PathBuf, reserved: PathBuf },
    #[error(
        "cannot bind {path} so that its mounts are shared: it is not on a mount that this node shares (`mount --make-shared`)"
    )]
    NotShared { path: PathBuf },
    #[error("cannot make a file system in memory for {target}")]
    Memory { target: PathBuf, source: io::Error },
}

/// A mount without a place.
#[derive(Debug)]
pub(crate) struct Source {
    /// In the container, as it was asked for.
    pub(super) target: PathBuf,
    pub(super) tree: OwnedFd,
    pub(super) is_dir: bool,
    /// What is mounted within it shows on the node.
    pub(super) is_shared: bool,
}

/// Opens all that `options` has mounted, with its flags. To be called while the shim is still in the node's mount namespace: a mount
/// that is to be shared with the node has to be copied there. What the node cannot do is added to `warnings`.
pub(crate) fn open(options: &Options, warnings: &mut Vec<String>) -> Result<Vec<Source>, SourceError> {
    let mut mounts = options.mounts.clone();
    // Docker's: who shares the node's IPC shares the memory that its processes share by name.
    if options.shared.ipc && !mounts.iter().any(|mount| mount.target == Path::new(SHARED_MEMORY)) {
        mounts.push(nodes_shared_memory());
    }
    let reserved: &[PathBuf] = if options.privileges.privileged { &[] } else { &options.reserved };
    let open = |mount: &Mount| -> Result<Source, SourceError> {
        let (tree, is_shared) = match &mount.kind {
            MountKind::Bind(bind) => bind_tree(bind, mount.read_only, reserved, warnings)?,
            MountKind::Tmpfs(tmpfs) => {
                let tree = memory_tree(tmpfs, mount.read_only);
                let failed =
                    |errno: Errno| SourceError::Memory { target: mount.target.clone(), source: errno.into() };
                (tree.map_err(failed)?, false)
            }
        };
        let is_dir = is_dir(&tree);
        Ok(Source { target: mount.target.clone(), tree, is_dir, is_shared })
    };
    mounts.iter().map(open).collect()
}

const SHARED_MEMORY: &str = "/dev/shm";

fn nodes_shared_memory() -> Mount {
    let source = SHARED_MEMORY.into();
    let bind = Bind { source, create: false, propagation: Propagation::Private, recursive: false };
    Mount { target: SHARED_MEMORY.into(), read_only: false, kind: MountKind::Bind(bind) }
}

fn is_dir(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Directory)
}

/// Copies what a bind names. From here on it is this and nothing else, whatever becomes of its path.
fn bind_tree(
    bind: &Bind,
    read_only: bool,
    reserved: &[PathBuf],
    warnings: &mut Vec<String>,
) -> Result<(OwnedFd, bool), SourceError> {
    let Bind { source: path, create, propagation, recursive } = bind;
    let failed = |source: io::Error| SourceError::Bind { path: path.clone(), source };
    if let Some(reserved) = reserved.iter().find(|own| path.starts_with(own) || own.starts_with(path)) {
        return Err(SourceError::Reserved { path: path.clone(), reserved: reserved.clone() });
    }
    let found = match find(path) {
        Err(Errno::NOENT) if *create => make(path, reserved)?,
        Err(Errno::NOENT) => return Err(SourceError::Missing { path: path.clone() }),
        found => found.map_err(|errno| failed(errno.into()))?,
    };
    if let Some(reserved) = reserved.iter().find(|own| hands_out(&found, own)) {
        return Err(SourceError::Reserved { path: path.clone(), reserved: reserved.clone() });
    }
    if *propagation != Propagation::Private {
        let peers = peers(&found).map_err(failed)?;
        match propagation {
            Propagation::Shared if !peers.shared => return Err(SourceError::NotShared { path: path.clone() }),
            Propagation::Slave if !peers.shared && !peers.slave => warnings.push(format!(
                "later mounts below {} will not show in the container: it is not on a mount that this node shares",
                path.display()
            )),
            Propagation::Private | Propagation::Slave | Propagation::Shared => {}
        }
    }
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, *recursive);
    let tree = open_tree(&found, "", flags).map_err(|errno| failed(errno.into()))?;
    let attributes = libc::mount_attr {
        attr_set: if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 },
        propagation: match propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => 0,
        },
        ..mount_attr::NONE
    };
    // All of it, or a read-only mount would be writable below the next mount point.
    mount_attr::set(&tree, true, attributes).map_err(failed)?;
    Ok((tree, *propagation == Propagation::Shared))
}

/// Makes the directories that a path lacks, in the last one that is there: in that and in no other, whatever has its name by then.
/// Not in one of gantry's own, where a name may mean something.
fn make(path: &Path, reserved: &[PathBuf]) -> Result<OwnedFd, SourceError> {
    let failed = |errno: Errno| SourceError::Make { path: path.to_owned(), source: errno.into() };
    for above in path.ancestors().skip(1) {
        let there = match find(above) {
            Err(Errno::NOENT) => continue,
            found => found.map_err(failed)?,
        };
        if let Some(reserved) = reserved.iter().find(|own| is_within(&there, own)) {
            return Err(SourceError::Reserved { path: path.to_owned(), reserved: reserved.clone() });
        }
        let missing = steps(path.strip_prefix(above).unwrap_or(path));
        // Root's, 0755.
        return make_beneath(there.as_fd(), &missing).map_err(failed);
    }
    Err(failed(Errno::NOENT))
}

/// What the mount of a file passes on, and from whom it gets what others mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peers {
    shared: bool,
    slave: bool,
}

fn peers(file: &OwnedFd) -> io::Result<Peers> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim();
    Ok(peers_of(&std::fs::read_to_string("/proc/self/mountinfo")?, mount))
}

/// `mounts` in the form of proc_pid_mountinfo(5). A mount that is not in it has none.
fn peers_of(mounts: &str, mount: &str) -> Peers {
    let of_mount = |line: &&str| line.split(' ').next() == Some(mount);
    let line = mounts.lines().find(of_mount).unwrap_or_default();
    // Six fields, then as many of these as there are, then a dash.
    let tags = line.split(' ').skip(6).take_while(|field| *field != "-");
    let has = |name: &str| tags.clone().any(|tag| tag.starts_with(name));
    Peers { shared: has("shared:"), slave: has("master:") }
}

fn memory_tree(tmpfs: &Tmpfs, read_only: bool) -> rustix::io::Result<OwnedFd> {
    /// Where nothing is said: as `/tmp` is.
    const MODE: u32 = 0o1777;
    let Tmpfs { bytes, mode, uid, gid, exec } = tmpfs;
    let system = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |name: &str, value: String| fsconfig_set_string(&system, name, value);
    set("source", "tmpfs".to_owned())?;
    set("mode", format!("{:o}", mode.unwrap_or(MODE)))?;
    for (name, value) in [("size", *bytes), ("uid", uid.map(u64::from)), ("gid", gid.map(u64::from))] {
        if let Some(value) = value {
            set(name, value.to_string())?;
        }
    }
    fsconfig_create(&system)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec);
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    fsmount(&system, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reserved::{identity, place};
    use std::os::unix::fs::symlink;

    fn bind(source: &Path) -> Bind {
        Bind { source: source.to_owned(), create: false, propagation: Propagation::Private, recursive: true }
    }

    fn refusal(source: &Path, reserved: &Path) -> Option<String> {
        let mut warnings = Vec::new();
        match bind_tree(&bind(source), false, &[reserved.to_owned()], &mut warnings) {
            Err(error @ (SourceError::Reserved { .. } | SourceError::Missing { .. })) => {
                Some(error.to_string())
            }
            // Who is not root may not mount, and was not refused before.
            Ok(_) | Err(_) => None,
        }
    }

    #[test]
    fn gantrys_own_directories_are_handed_out_by_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("lib/gantry/tasks/s1-1-1")).unwrap();
        std::fs::create_dir_all(at("lib/other")).unwrap();
        symlink(at("lib"), at("link")).unwrap();
        symlink("gantry/tasks", at("lib/inner")).unwrap();
        let own = at("lib/gantry");
        for refused in
            ["", "lib", "lib/gantry", "lib/gantry/tasks/s1-1-1", "link", "link/gantry", "lib/inner"]
        {
            let refusal = refusal(&at(refused), &own).unwrap_or_default();
            assert!(refusal.contains("which is gantry's own"), "{refused}: {refusal}");
        }
        assert!(refusal(Path::new("/"), &own).is_some());
        assert_eq!(refusal(&at("lib/other"), &own), None);
        let missing = refusal(&at("lib/absent"), &own).unwrap();
        assert!(missing.ends_with("lib/absent: there is nothing of that name on this node"), "{missing}");
    }

    #[test]
    fn what_is_missing_is_made_where_it_was_found_to_be_missing_and_nothing_in_gantrys_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("lib/gantry/tasks")).unwrap();
        std::fs::create_dir(at("shared")).unwrap();
        symlink(at("lib/gantry/tasks"), at("shared/link")).unwrap();
        symlink(at("nowhere"), at("shared/dangling")).unwrap();
        symlink(at("shared"), at("other")).unwrap();
        std::fs::write(at("shared/file"), "").unwrap();
        let own = [at("lib/gantry")];
        for refused in ["lib/gantry/made", "shared/link/made/deep", "other/link/made"] {
            let refusal = make(&at(refused), &own).unwrap_err().to_string();
            assert!(refusal.contains("which is gantry's own"), "{refused}: {refusal}");
        }
        assert_eq!(std::fs::read_dir(at("lib/gantry/tasks")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(at("lib/gantry")).unwrap().count(), 1);
        for impossible in ["shared/dangling", "shared/file/made"] {
            assert!(matches!(make(&at(impossible), &own), Err(SourceError::Make { .. })), "{impossible}");
        }
        assert!(!at("nowhere").exists());
        // Beside it, above it, and through a link that leads elsewhere.
        for made in ["lib/made/deep", "made", "other/made"] {
            let found = make(&at(made), &own).unwrap();
            assert_eq!(place(&found).unwrap().first(), identity(&at(made)).as_ref(), "{made}");
        }
        assert!(at("shared/made").is_dir());
    }

    #[test]
    fn what_a_mount_shares_is_read_from_the_kernels_table() {
        let mounts = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:28 / /mnt rw,relatime shared:7 master:1 - tmpfs tmpfs rw,shared:9
";
        assert_eq!(peers_of(mounts, "22"), Peers { shared: false, slave: false });
        assert_eq!(peers_of(mounts, "27"), Peers { shared: true, slave: false });
        assert_eq!(peers_of(mounts, "31"), Peers { shared: true, slave: true });
        assert_eq!(peers_of(mounts, "99"), Peers { shared: false, slave: false });
    }
}
