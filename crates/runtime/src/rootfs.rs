//! The container's root: an overlay of shared layers, and what is looked up or made in it before the container exists.
//!
//! Its content belongs to the image's author. So nothing here follows a path through it but `openat2`, which resolves in
//! the kernel with the root as its limit.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};

use crate::quota::{self, QuotaError};
use crate::record;
use crate::user::{self, Identity, UnknownUser};

#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    #[error("cannot leave the node's mount namespace")]
    Namespace(#[source] io::Error),
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot open layer {path}")]
    Layer { path: PathBuf, source: io::Error },
    #[error("cannot mount the overlay of {layers} layers on {path}")]
    Overlay { layers: usize, path: PathBuf, source: io::Error },
    #[error(
        "the image's /{0} is not a directory but a link or a file, by which a container could reach the node"
    )]
    NotADirectory(&'static str),
    #[error("cannot look into the image at /{path}")]
    Inspect { path: String, source: io::Error },
    #[error("the image's /{path} is not a plain file of at most {max} bytes", max = LARGEST_USER_FILE)]
    NotAUserFile { path: &'static str },
    #[error(transparent)]
    Quota(#[from] QuotaError),
    #[error(transparent)]
    User(#[from] UnknownUser),
    #[error("cannot make the working directory {path} in the container")]
    WorkingDir { path: String, source: io::Error },
}

/// /etc/passwd and /etc/group are read whole. A megabyte is some ten thousand users.
const LARGEST_USER_FILE: u64 = 1 << 20;

/// Leaves the node's mount namespace for one of the shim's own, so that whatever it mounts ends with it, also after
/// kill -9. Unmounts on the node still arrive here (slave), so a shim pins nobody's mount.
pub(crate) fn enter_own_mounts() -> Result<(), RootfsError> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE))
        .map_err(|errno| RootfsError::Namespace(errno.into()))
}

/// Mounts a small file system in memory on the task directory's `bundle`, and returns its path. What libcontainer is given
/// and keeps is a dozen files that nobody needs after the attempt: on the disk, making and removing them took longer than
/// the container. The container may write to those that it sees, such as `/etc/hosts`, and can fill no disk with them.
pub(crate) fn mount_bundle(dir: &Path) -> Result<PathBuf, RootfsError> {
    let bundle = dir.join(record::BUNDLE);
    let failed = |source| RootfsError::Make { path: bundle.clone(), source };
    std::fs::create_dir_all(&bundle).map_err(failed)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &bundle, Some("tmpfs"), flags, Some("mode=0700,size=16m"))
        .map_err(|errno| failed(errno.into()))?;
    Ok(bundle)
}

/// Mounts the root file system in the bundle: `layers`, the lowest first, under a fresh writable layer on the disk. Returns
/// the mounted root.
///
/// `volatile`: nothing is synced for the writable layer. It never outlives the attempt, let alone the machine, and
/// without it unmounting waits for all of the node's dirty data. `most`: how many bytes it may grow to.
pub(crate) fn mount_overlay(
    dir: &Path,
    bundle: &Path,
    layers: &[PathBuf],
    most: Option<u64>,
) -> Result<OwnedFd, RootfsError> {
    let made = [bundle.join(record::ROOTFS), dir.join(record::UPPER), dir.join(record::WORK)];
    for path in &made {
        std::fs::create_dir_all(path).map_err(|source| RootfsError::Make { path: path.clone(), source })?;
    }
    let [rootfs, upper, work] = made;
    if let Some(bytes) = most {
        quota::limit(&[&upper, &work], bytes)?;
    }
    let opened =
        |path: &PathBuf| directory(path).map_err(|source| RootfsError::Layer { path: path.clone(), source });
    let lower = layers.iter().rev().map(opened).collect::<Result<Vec<OwnedFd>, RootfsError>>()?;
    let (upper, work) = (opened(&upper)?, opened(&work)?);
    // By descriptor: short, so that an image's 127 layers fit into mount(2)'s one page, and free of the characters that
    // overlayfs would want escaped.
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower = lower.iter().map(name).collect::<Vec<_>>();
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), name(&upper), name(&work));
    let attempt =
        |options: &str| mount(Some("overlay"), &rootfs, Some("overlay"), MsFlags::empty(), Some(options));
    let mounted = match attempt(&format!("{options},volatile")) {
        // Linux before 5.10.
        Err(Errno::EINVAL) => attempt(&options),
        done => done,
    };
    let failed = |source| RootfsError::Overlay { layers: layers.len(), path: rootfs.clone(), source };
    mounted.map_err(|errno| failed(errno.into()))?;
    directory(&rootfs).map_err(failed)
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Takes the root file system and the bundle away. Lazily: a process that still looks at them must not keep the shim.
pub(crate) fn unmount(dir: &Path) -> io::Result<()> {
    const NONE: Option<&str> = None;
    let bundle = dir.join(record::BUNDLE);
    // A container's mounts are below it. One that shows the node what is mounted within it would otherwise take from the node what
    // is taken away here, and what the node has mounted there itself.
    let _not_mounted = mount(NONE, &bundle, NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE);
    for path in [bundle.join(record::ROOTFS), bundle] {
        match umount2(&path, MntFlags::MNT_DETACH) {
            // Not mounted, or not there.
            Err(Errno::EINVAL | Errno::ENOENT) | Ok(()) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Refuses an image whose mount points for kernel file systems are anything but directories, and makes those it lacks.
/// libcontainer creates and removes files below them by path, before the container has left the node's root (the class of
/// CVE-2026-41579).
pub(crate) fn check_mount_points(root: impl AsFd) -> Result<(), RootfsError> {
    for name in ["dev", "proc", "sys"] {
        let inspect =
            |errno: rustix::io::Errno| RootfsError::Inspect { path: name.to_owned(), source: errno.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(root.as_fd(), name, flags, Mode::empty(), resolve) {
            Ok(_directory) => {}
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(root.as_fd(), name, Mode::from_raw_mode(0o755)).map_err(inspect)?
            }
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
                return Err(RootfsError::NotADirectory(name));
            }
            Err(errno) => return Err(inspect(errno)),
        }
    }
    Ok(())
}

/// Who `asked` is in this container, and in which groups besides.
pub(crate) fn identity(
    root: impl AsFd,
    asked: Option<&str>,
    groups: &[String],
) -> Result<Identity, RootfsError> {
    let passwd = user_file(root.as_fd(), "etc/passwd")?;
    let group = user_file(root.as_fd(), "etc/group")?;
    let mut identity = user::look_up(asked.unwrap_or_default(), &passwd, &group)?;
    user::join(&mut identity, groups, &group)?;
    Ok(identity)
}

/// Reads one of the two files; empty if the image has none.
fn user_file(root: BorrowedFd<'_>, path: &'static str) -> Result<String, RootfsError> {
    let inspect = |source| RootfsError::Inspect { path: path.to_owned(), source };
    // Looked at before it is opened. A FIFO would wait for a writer; and a container may make device files that it may not
    // open, but the shim may, and to open some is to act: a watchdog reboots the node.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => std::fs::File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(inspect(errno.into())),
    };
    let about = found.metadata().map_err(inspect)?;
    if !about.is_file() || about.len() > LARGEST_USER_FILE {
        return Err(RootfsError::NotAUserFile { path });
    }
    // What was found and no other, whatever has its name by now.
    let file = std::fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(inspect)?;
    let mut text = Vec::new();
    file.take(LARGEST_USER_FILE).read_to_end(&mut text).map_err(inspect)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Makes the working directory where the image lacks it, as Docker does. What lies below a kernel file system's mount
/// point is left alone: it exists in the running container or not at all.
pub(crate) fn make_working_dir(root: impl AsFd, path: &str) -> Result<(), RootfsError> {
    let failed =
        |errno: rustix::io::Errno| RootfsError::WorkingDir { path: path.to_owned(), source: errno.into() };
    let steps = clean(path);
    if steps.first().is_some_and(|first| ["dev", "proc", "sys"].contains(&first.as_str())) {
        return Ok(());
    }
    let mut so_far = PathBuf::from(".");
    let mut parent = enter(root.as_fd(), &so_far).map_err(failed)?;
    for step in steps {
        so_far.push(&step);
        parent = match enter(root.as_fd(), &so_far) {
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&parent, step.as_str(), Mode::from_raw_mode(0o755)).map_err(failed)?;
                enter(root.as_fd(), &so_far).map_err(failed)?
            }
            found => found.map_err(failed)?,
        };
    }
    Ok(())
}

fn enter(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// The names of a path from the root, `..` taken as it is written.
fn clean(path: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}

/// Writes the files that the container sees in place of its image's.
pub(crate) fn write_files<'a>(
    bundle: &Path,
    texts: impl Iterator<Item = &'a String>,
) -> Result<(), RootfsError> {
    let files = bundle.join(record::FILES);
    let failed = |path: &Path, source| RootfsError::Make { path: path.to_owned(), source };
    std::fs::create_dir_all(&files).map_err(|source| failed(&files, source))?;
    for (index, text) in texts.enumerate() {
        let path = files.join(index.to_string());
        std::fs::write(&path, text).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

/// Opens a directory so that a socket in it can be named in less than the 108 bytes that an address has.
pub(crate) fn short_path(dir: &Path, name: &str) -> io::Result<(OwnedFd, PathBuf)> {
    let fd = rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(name);
    Ok((fd, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn image() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = directory(dir.path()).unwrap();
        (dir, fd)
    }

    #[test]
    fn missing_mount_points_are_made() {
        let (dir, root) = image();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        check_mount_points(&root).unwrap();
        assert!(["dev", "proc", "sys"].iter().all(|name| dir.path().join(name).is_dir()));
    }

    #[test]
    fn a_mount_point_that_is_a_link_or_a_file_is_refused() {
        for name in ["dev", "proc", "sys"] {
            let (dir, root) = image();
            symlink("/etc", dir.path().join(name)).unwrap();
            let error = check_mount_points(&root).unwrap_err();
            assert!(matches!(error, RootfsError::NotADirectory(refused) if refused == name), "{error}");
            std::fs::remove_file(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name), "").unwrap();
            assert!(matches!(check_mount_points(&root), Err(RootfsError::NotADirectory(_))));
        }
    }

    #[test]
    fn the_nodes_users_are_not_the_containers() {
        let (dir, root) = image();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        // In the container's root this names a file that does not exist.
        symlink("/../../../../../../etc/group", dir.path().join("etc/passwd")).unwrap();
        assert!(identity(&root, Some("daemon"), &[]).is_err());
        assert_eq!(identity(&root, Some("7"), &[]).unwrap().uid, 7);
    }

    #[test]
    fn a_user_file_that_would_never_end_is_refused() {
        let (dir, root) = image();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(identity(&root, None, &[]), Err(RootfsError::NotAUserFile { path: "etc/passwd" })));
    }

    #[test]
    fn a_user_file_that_is_a_device_is_not_opened() {
        let (dir, root) = image();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        // Behind 0:0, which anyone may make, is no driver, so to open it is an error of its own.
        let device = nix::sys::stat::SFlag::S_IFCHR;
        nix::sys::stat::mknod(&dir.path().join("etc/passwd"), device, nix::sys::stat::Mode::S_IRWXU, 0)
            .unwrap();
        assert!(matches!(identity(&root, None, &[]), Err(RootfsError::NotAUserFile { path: "etc/passwd" })));
    }

    #[test]
    fn a_working_directory_is_made_inside_the_root_only() {
        let (dir, root) = image();
        let outside = tempfile::tempdir().unwrap();
        make_working_dir(&root, "/srv/app/../data").unwrap();
        assert!(dir.path().join("srv/data").is_dir());
        // An absolute link is absolute in the container, where its target does not exist.
        symlink(outside.path(), dir.path().join("out")).unwrap();
        assert!(make_working_dir(&root, "/out/new").is_err());
        assert!(!outside.path().join("new").exists());
        make_working_dir(&root, "/proc/self/fd/7").unwrap();
        assert!(!dir.path().join("proc").exists());
    }
}
