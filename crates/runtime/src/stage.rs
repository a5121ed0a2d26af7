//! What is mounted into a container, put together before there is one.
//!
//! libcontainer mounts by path, and by then other containers may be writing to what is mounted. So each of a container's mounts is
//! made here as a tree without a place, by descriptor and with its flags, and put where nobody but the shim comes to: below
//! its bundle. From there libcontainer copies it into the container. What goes *within* another mount is mounted there in
//! the tree, following no link: a volume may be shared, and whoever else has it could swap a directory for a link at any
//! moment (CVE-2021-30465, CVE-2017-1002101). Links of the image lead where they lead in the container, and nobody can change
//! them meanwhile.

mod source;

pub(crate) use source::{Source, SourceError, open};

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, readlinkat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::record;

/// Linux follows no more links than this for one path.
const MOST_LINKS: u32 = 40;

/// What may be mounted over in `/proc`: where a container is shown its own share of the machine (lxcfs). As runc has it, less what
/// differs by process. All else there is written by gantry and libcontainer on a container's behalf, and a mount over it would
/// have them write to something else (CVE-2019-16884, CVE-2025-52881).
const SHOWN_BY_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error("cannot mount over {path} in the container: {why}")]
    Target { path: PathBuf, why: &'static str },
    #[error("cannot find {path} in the image")]
    Inspect { path: PathBuf, source: io::Error },
    #[error("{path} in the image leads through more than {max} links", max = MOST_LINKS)]
    Loop { path: PathBuf },
    #[error("two mounts are at {path} in the container")]
    Twice { path: PathBuf },
    #[error(
        "cannot mount at {path} in the container: it is within the mount at {within}, where no link is followed and what is \
         missing has to be made"
    )]
    Within { path: PathBuf, within: PathBuf, source: io::Error },
    #[error(
        "cannot mount at {path} in the container: it is within the mount at {within}, which shows its mounts on the node"
    )]
    Shown { path: PathBuf, within: PathBuf },
    #[error("cannot prepare the mount at {path}")]
    Prepare { path: PathBuf, source: io::Error },
}

/// A mount that libcontainer copies into the container, with all that is mounted within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    /// In the bundle.
    pub(crate) tree: PathBuf,
    /// In the container; without links of the image's.
    pub(crate) target: PathBuf,
}

/// All of a container's mounts, where they are copied from.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    placed: Vec<Placed>,
    staged: Vec<Staged>,
}

#[derive(Debug)]
struct Placed {
    target: PathBuf,
    tree: OwnedFd,
    is_dir: bool,
    is_shared: bool,
}

impl Placed {
    /// Whether what is mounted at `path` would show on the node.
    fn shows(&self, path: &Path) -> bool {
        self.is_shared && path.starts_with(&self.target)
    }
}

/// Where a path of the container's is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In the image, at this path.
    Image(PathBuf),
    /// Exactly where a mount is.
    Mount(usize),
    /// Within one: what is left of the path.
    Within(usize, Vec<OsString>),
}

impl Stage {
    /// Places all of `sources`, outer ones before inner ones. `root` is the image.
    pub(crate) fn set(bundle: &Path, root: impl AsFd, mut sources: Vec<Source>) -> Result<Self, StageError> {
        sources.sort_by_key(|source| source.target.components().count());
        let mut stage = Self::default();
        for source in sources {
            stage.place(bundle, root.as_fd(), source)?;
        }
        Ok(stage)
    }

    fn place(&mut self, bundle: &Path, root: BorrowedFd<'_>, source: Source) -> Result<(), StageError> {
        let Source { target: asked, tree, is_dir, is_shared } = source;
        let target = match self.locate(root, &asked)? {
            Place::Mount(_) => return Err(StageError::Twice { path: asked }),
            Place::Image(target) => {
                check(&target, is_shared)?;
                let at = stage_at(bundle, self.staged.len(), &tree, is_dir);
                let at = at.map_err(|source| StageError::Prepare { path: asked, source })?;
                self.staged.push(Staged { tree: at, target: target.clone() });
                target
            }
            Place::Within(outer, rest) => {
                let outer = &self.placed[outer];
                let path = rest.iter().fold(outer.target.clone(), |path, step| path.join(step));
                if self.placed.iter().any(|placed| placed.target == path) {
                    return Err(StageError::Twice { path });
                }
                // Also of a mount that is itself within the outer one.
                if let Some(shown) = self.placed.iter().find(|placed| placed.shows(&path)) {
                    return Err(StageError::Shown { path, within: shown.target.clone() });
                }
                let placed = place_within(outer, &rest, &tree, is_dir);
                let within = outer.target.clone();
                placed.map_err(|source| StageError::Within { path: path.clone(), within, source })?;
                path
            }
        };
        self.placed.push(Placed { target, tree, is_dir, is_shared });
        Ok(())
    }

    /// Places the files that every container sees as its own where they are within one of the mounts. Returns the others, for
    /// libcontainer to mount, by their number, and what could not be placed, in words: a container is not refused for that.
    pub(crate) fn place_files<'a>(
        &self,
        bundle: &Path,
        root: impl AsFd,
        targets: impl Iterator<Item = &'a PathBuf>,
    ) -> (Vec<(usize, PathBuf)>, Vec<String>) {
        let (mut others, mut warnings) = (Vec::new(), Vec::new());
        for (number, target) in targets.enumerate() {
            let place = match self.placed.is_empty() {
                true => Ok(Place::Image(target.clone())),
                false => self.locate(root.as_fd(), target),
            };
            match place {
                // A user's own, in place of gantry's.
                Ok(Place::Mount(_)) => {}
                Ok(Place::Within(outer, rest)) => {
                    let outer = &self.placed[outer];
                    let path = rest.iter().fold(outer.target.clone(), |path, step| path.join(step));
                    if self.placed.iter().any(|placed| placed.target == path) {
                        continue;
                    }
                    let file = bundle.join(record::FILES).join(number.to_string());
                    if let Err(error) = self.place_file(outer, &rest, &file) {
                        let (target, outer) = (target.display(), outer.target.display());
                        warnings.push(format!("{target} is what the mount at {outer} has: {error}"));
                    }
                }
                Ok(Place::Image(_)) | Err(_) => others.push((number, target.clone())),
            }
        }
        (others, warnings)
    }

    fn place_file(&self, outer: &Placed, rest: &[OsString], file: &Path) -> io::Result<()> {
        let path = rest.iter().fold(outer.target.clone(), |path, step| path.join(step));
        if self.placed.iter().any(|placed| placed.shows(&path)) {
            return Err(io::Error::other("it would show on the node"));
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        place_within(outer, rest, &open_tree(CWD, file, flags)?, false)
    }

    /// What libcontainer has to copy, in order.
    pub(crate) fn staged(&self) -> &[Staged] {
        &self.staged
    }

    /// Whether any of the mounts shows on the node what the container mounts within it.
    pub(crate) fn is_shared(&self) -> bool {
        self.placed.iter().any(|placed| placed.is_shared)
    }

    /// Whether a path that has no links in it is where a mount is, or within one.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        self.placed.iter().any(|placed| path.starts_with(&placed.target))
    }

    /// Makes a directory of the container's where it is within a mount; false if it is not. One that cannot be made there is the
    /// container's to miss.
    pub(crate) fn make_dir(&self, root: impl AsFd, path: &Path) -> bool {
        if self.placed.is_empty() {
            return false;
        }
        match self.locate(root.as_fd(), path) {
            Ok(Place::Mount(_)) => true,
            Ok(Place::Within(outer, rest)) => {
                let _there_or_not = make_beneath(self.placed[outer].tree.as_fd(), &rest);
                true
            }
            Ok(Place::Image(_)) | Err(_) => false,
        }
    }

    /// Follows the image's links, and none of a mount's.
    fn locate(&self, root: BorrowedFd<'_>, path: &Path) -> Result<Place, StageError> {
        let mut done: Vec<OsString> = Vec::new();
        let mut to_do: VecDeque<OsString> = steps(path).into();
        let mut links = 0;
        while let Some(step) = to_do.pop_front() {
            if step == ".." {
                done.pop();
                continue;
            }
            done.push(step);
            let here = at(&done);
            if let Some(outer) = self.placed.iter().rposition(|placed| placed.target == here) {
                let rest: Vec<OsString> = to_do.into();
                return Ok(if rest.is_empty() { Place::Mount(outer) } else { Place::Within(outer, rest) });
            }
            // What is there in the image is hidden in the container by the kernel's own file systems.
            if ["dev", "proc", "sys"].iter().any(|name| done[0] == *name) {
                continue;
            }
            let inspect = |errno: Errno| StageError::Inspect { path: here.clone(), source: errno.into() };
            if let Some(link) = link_at(root, &done).map_err(inspect)? {
                links += 1;
                if links > MOST_LINKS {
                    return Err(StageError::Loop { path: path.to_owned() });
                }
                done.pop();
                if link.is_absolute() {
                    done.clear();
                }
                for step in steps(&link).into_iter().rev() {
                    to_do.push_front(step);
                }
            }
        }
        Ok(Place::Image(at(&done)))
    }
}

/// The names that a path is made of, with `..`.
fn steps(path: &Path) -> Vec<OsString> {
    let step = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

fn at(steps: &[OsString]) -> PathBuf {
    steps.iter().fold(PathBuf::from("/"), |path, step| path.join(step))
}

/// Where a link leads; `None` if there is something else, or nothing. All but the last step is known to be no link.
fn link_at(root: BorrowedFd<'_>, steps: &[OsString]) -> Result<Option<PathBuf>, Errno> {
    let path: PathBuf = steps.iter().collect();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = match openat2(root, &path, flags, Mode::empty(), resolve) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    let link = readlinkat(&found, "", Vec::<u8>::new())?;
    Ok(Some(OsString::from_vec(link.into_bytes()).into()))
}

/// Refuses a place that is not the container's to mount over.
fn check(target: &Path, is_shared: bool) -> Result<(), StageError> {
    let refused = |why| Err(StageError::Target { path: target.to_owned(), why });
    if target == Path::new("/") {
        return refused("it is the root file system");
    }
    if target == Path::new("/dev") {
        return refused(
            "name what of it the container is to have under `devices`, or mount what is below it",
        );
    }
    if target.starts_with("/proc") && !SHOWN_BY_PROC.iter().any(|shown| target == Path::new(shown)) {
        return refused("nothing may stand between a container and what the kernel says of it");
    }
    if is_shared && target.starts_with("/sys") {
        return refused("what is masked there for the container would be masked on the node, too");
    }
    Ok(())
}

/// Puts a tree into the bundle, and returns where.
fn stage_at(bundle: &Path, number: usize, tree: &OwnedFd, is_dir: bool) -> io::Result<PathBuf> {
    let at = bundle.join(record::MOUNTS).join(number.to_string());
    if is_dir {
        std::fs::create_dir_all(&at)?;
    } else {
        std::fs::create_dir_all(bundle.join(record::MOUNTS))?;
        std::fs::File::create(&at)?;
    }
    move_mount(tree, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(at)
}

/// Mounts a tree within another one, at a place that is made where it is missing.
fn place_within(outer: &Placed, rest: &[OsString], tree: &OwnedFd, is_dir: bool) -> io::Result<()> {
    if !outer.is_dir {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let target = if is_dir {
        make_beneath(outer.tree.as_fd(), rest)?
    } else {
        let Some((name, parents)) = rest.split_last() else { return Err(io::ErrorKind::InvalidInput.into()) };
        make_file(make_beneath(outer.tree.as_fd(), parents)?.as_fd(), name)?
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", &target, "", flags)?)
}

/// Never out of a directory, and through no link.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory below `dir`, and makes what is missing on the way, as root's.
fn make_beneath(dir: BorrowedFd<'_>, steps: &[OsString]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let enter = |dir: BorrowedFd<'_>, step: &OsStr| openat2(dir, step, flags, Mode::empty(), BENEATH);
    let mut here = enter(dir, OsStr::new("."))?;
    for step in steps {
        here = match enter(here.as_fd(), step) {
            Err(Errno::NOENT) => {
                match mkdirat(&here, step, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                enter(here.as_fd(), step)?
            }
            entered => entered?,
        };
    }
    Ok(here)
}

/// Opens a file in `dir` to mount on, and makes it where it is missing.
fn make_file(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let find = || openat2(dir, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH);
    match find() {
        Err(Errno::NOENT) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            match openat2(dir, name, flags, Mode::from_raw_mode(0o644), BENEATH) {
                Ok(_) | Err(Errno::EXIST) => find(),
                Err(errno) => Err(errno),
            }
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// An image, and a stage with mounts at these paths that were never made.
    fn image(mounts: &[&str]) -> (tempfile::TempDir, OwnedFd, Stage) {
        let dir = tempfile::tempdir().unwrap();
        let open =
            |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mount = |target: &&str| Placed {
            target: target.into(),
            tree: open(dir.path()),
            is_dir: true,
            is_shared: false,
        };
        let stage = Stage { placed: mounts.iter().map(mount).collect(), staged: Vec::new() };
        let root = open(dir.path());
        (dir, root, stage)
    }

    fn located(stage: &Stage, root: &OwnedFd, path: &str) -> String {
        match stage.locate(root.as_fd(), Path::new(path)) {
            Ok(Place::Image(path)) => format!("image {}", path.display()),
            Ok(Place::Mount(outer)) => format!("mount {}", stage.placed[outer].target.display()),
            Ok(Place::Within(outer, rest)) => {
                let rest: PathBuf = rest.iter().collect();
                format!("{} within {}", rest.display(), stage.placed[outer].target.display())
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn links_of_the_image_lead_where_they_lead_in_the_container() {
        let (dir, root, stage) = image(&[]);
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("var/lib")).unwrap();
        symlink("/run", at("var/run")).unwrap();
        symlink("../../../../../etc", at("var/up")).unwrap();
        symlink("/proc", at("sneaky")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("/", at("all")).unwrap();
        for (path, place) in [
            ("/var/lib/data/deep", "image /var/lib/data/deep"),
            ("/var/run/app.sock", "image /run/app.sock"),
            ("/var/up/passwd", "image /etc/passwd"),
            ("/sneaky/self/attr", "image /proc/self/attr"),
            ("/all", "image /"),
            ("/loop/x", "/loop/x in the image leads through more than 40 links"),
            ("/dev/shm", "image /dev/shm"),
        ] {
            assert_eq!(located(&stage, &root, path), place, "{path}");
        }
    }

    #[test]
    fn what_is_within_a_mount_is_found_there_and_links_in_it_are_not_followed() {
        let (dir, root, stage) = image(&["/run", "/data", "/data/inner", "/dev/shm"]);
        symlink("run", dir.path().join("var")).unwrap();
        // In the image below the mount, where nobody will see it.
        std::fs::create_dir(dir.path().join("data")).unwrap();
        symlink("/etc", dir.path().join("data/link")).unwrap();
        for (path, place) in [
            ("/data", "mount /data"),
            ("/data/link/x", "link/x within /data"),
            ("/data/inner/x", "inner/x within /data"),
            ("/var/x", "x within /run"),
            ("/dev/shm/x", "x within /dev/shm"),
        ] {
            assert_eq!(located(&stage, &root, path), place, "{path}");
        }
        assert!(stage.covers(Path::new("/data/inner/x")) && !stage.covers(Path::new("/database")));
    }

    #[test]
    fn nothing_is_made_through_a_link_or_outside() {
        let (dir, root, _) = image(&[]);
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        let names = |path: &str| steps(Path::new(path));
        assert!(make_beneath(root.as_fd(), &names("a/b")).is_ok());
        assert!(dir.path().join("a/b").is_dir());
        assert_eq!(make_beneath(root.as_fd(), &names("out/c")).unwrap_err(), Errno::LOOP);
        assert!(make_beneath(root.as_fd(), &names("../c")).is_err());
        assert!(make_file(root.as_fd(), OsStr::new("file")).is_ok());
        symlink(outside.path().join("made"), dir.path().join("link")).unwrap();
        assert_eq!(make_file(root.as_fd(), OsStr::new("link")).unwrap_err(), Errno::LOOP);
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_gantry_and_the_kernel_write_to_is_not_mounted_over() {
        for allowed in
            ["/data", "/sys", "/sys/fs/cgroup", "/dev/shm", "/dev/log", "/proc/meminfo", "/processes"]
        {
            assert!(check(Path::new(allowed), false).is_ok(), "{allowed}");
        }
        for refused in ["/", "/dev", "/proc", "/proc/self/attr", "/proc/sys", "/proc/meminfo/x"] {
            assert!(check(Path::new(refused), false).is_err(), "{refused}");
        }
        assert!(check(Path::new("/sys"), true).is_err() && check(Path::new("/data"), true).is_ok());
    }
}
