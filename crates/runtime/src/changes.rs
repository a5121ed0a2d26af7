//! What a container did to its image's files: `docker diff`, by what overlayfs keeps of it.
//!
//! The writable layer (`upper`) holds what was made or touched; a character device 0:0 there hides a file of the layers
//! below, and an attribute on a directory hides all that they have in it. All of it is the container's to arrange, while
//! this runs too. So paths are resolved by the kernel, beneath each layer and through no link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, fgetxattr, open, openat2};
use rustix::io::Errno;

use crate::launch::Launch;
use crate::record::{self, LoadError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    Added,
    /// For a directory also: something in it is not as it was.
    Changed,
    /// With all that was in it.
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub kind: ChangeKind,
    /// In the container, absolute.
    pub path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    #[error("there is no container in {dir}")]
    NoContainer { dir: PathBuf },
    #[error("the container in {dir} has no writable layer, or not any more")]
    NoLayer { dir: PathBuf },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot read /{path} in the container")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot open layer {path}")]
    Layer { path: PathBuf, source: io::Error },
    #[error("the container has changed more than {max} files", max = MOST)]
    TooMany,
}

/// More is nothing that a person reads, and may be a container's attempt to use up its node's memory.
const MOST: usize = 200_000;

/// Where kernel file systems are mounted. What lies there in the layer, the container does not see.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];

const OPAQUE: &str = "trusted.overlay.opaque";

/// Compares the writable layer of `dir`'s container with its image, in the order of paths. The container may run. What
/// gantry itself put there to mount something on is left out.
pub fn changes(dir: &Path) -> Result<Vec<Change>, ChangesError> {
    compare(Layers::of(dir)?, MOST)
}

/// More than `most` are too many: of changes, or of names in one directory.
fn compare(layers: Layers, most: usize) -> Result<Vec<Change>, ChangesError> {
    let mut ahead = vec![Pair { path: PathBuf::new(), layers: layers.all() }];
    let mut comparison = Comparison { layers, most, found: BTreeMap::new(), hollow: BTreeSet::new() };
    while let Some(pair) = ahead.pop() {
        comparison.directory(&pair, &mut ahead)?;
    }
    Ok(comparison.finish())
}

/// A directory of the upper layer, and the layers below (by index, the highest first) that show through it.
struct Pair {
    path: PathBuf,
    layers: Vec<usize>,
}

/// What is below an entry of the upper layer.
pub(crate) struct Below {
    pub(crate) seen: Option<Metadata>,
    /// If it is a directory: the layers that it is made of, by index, the highest first.
    pub(crate) layers: Vec<usize>,
}

/// A container's writable layer and those below it, held by descriptor.
pub(crate) struct Layers {
    pub(crate) upper: OwnedFd,
    /// The highest first.
    below: Vec<OwnedFd>,
    left_out: BTreeSet<PathBuf>,
}

impl Layers {
    pub(crate) fn of(dir: &Path) -> Result<Self, ChangesError> {
        let launch = Launch::load(dir)?.ok_or_else(|| ChangesError::NoContainer { dir: dir.to_owned() })?;
        let ours = MOUNT_POINTS.iter().map(PathBuf::from);
        let mounted = launch.options.mounts.iter().map(|mount| mount.target.as_path());
        let bound = launch.files.keys().map(PathBuf::as_path).chain(mounted);
        let bound = bound.filter_map(|path| path.strip_prefix("/").ok()).map(Path::to_owned);
        let upper = dir.join(record::UPPER);
        match Self::open(&upper, &launch.layers, ours.chain(bound).collect()) {
            Err(ChangesError::Layer { path, source })
                if path == upper && source.kind() == io::ErrorKind::NotFound =>
            {
                Err(ChangesError::NoLayer { dir: dir.to_owned() })
            }
            opened => opened,
        }
    }

    /// `layers` are the lowest first, `left_out` is relative to the root.
    pub(crate) fn open(
        upper: &Path,
        layers: &[PathBuf],
        left_out: BTreeSet<PathBuf>,
    ) -> Result<Self, ChangesError> {
        let root = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = open(path, flags, Mode::empty());
            opened.map_err(|errno| ChangesError::Layer { path: path.to_owned(), source: errno.into() })
        };
        let upper = root(upper)?;
        let below = layers.iter().rev().map(|layer| root(layer)).collect::<Result<_, _>>()?;
        Ok(Self { upper, below, left_out })
    }

    /// Those that show through the root.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.below.len()).collect()
    }

    /// Whether gantry itself put something there for the container to mount over, or a mount hides what is there.
    pub(crate) fn is_left_out(&self, path: &Path) -> bool {
        self.left_out.contains(path)
    }

    /// Whether such a place is in this directory, however deep.
    pub(crate) fn leads_to_left_out(&self, path: &Path) -> bool {
        self.left_out.iter().any(|left_out| left_out.starts_with(path))
    }

    /// What `layers` have at `path`.
    pub(crate) fn below(&self, path: &Path, layers: &[usize]) -> io::Result<Below> {
        let mut below = Below { seen: None, layers: Vec::new() };
        for index in layers {
            let Some(found) = look(&self.below[*index], path)? else { continue };
            if is_whiteout(&found) {
                break;
            }
            let is_dir = found.is_dir();
            below.seen.get_or_insert(found);
            // A file hides what is below it, and is hidden by a directory above it.
            if !is_dir {
                break;
            }
            below.layers.push(*index);
            if directory(&self.below[*index], path)?.is_some_and(|directory| is_opaque(&directory)) {
                break;
            }
        }
        Ok(below)
    }
}

struct Comparison {
    layers: Layers,
    most: usize,
    found: BTreeMap<PathBuf, ChangeKind>,
    /// Directories that were made for what is left out, and count only with something else in them.
    hollow: BTreeSet<PathBuf>,
}

impl Comparison {
    fn directory(&mut self, pair: &Pair, ahead: &mut Vec<Pair>) -> Result<(), ChangesError> {
        let failed = |source| ChangesError::Read { path: pair.path.clone(), source };
        // It may be gone by now.
        let Some(directory) = directory(&self.layers.upper, &pair.path).map_err(failed)? else {
            return Ok(());
        };
        let opaque = is_opaque(&directory);
        let names = names(directory, self.most).map_err(failed)?.ok_or(ChangesError::TooMany)?;
        for name in &names {
            let path = pair.path.join(OsStr::from_bytes(name));
            if !self.layers.is_left_out(&path) {
                self.entry(path, pair, ahead)?;
            }
        }
        if opaque {
            self.hidden(pair, &names)?;
        }
        if self.found.len() > self.most { Err(ChangesError::TooMany) } else { Ok(()) }
    }

    fn entry(&mut self, path: PathBuf, pair: &Pair, ahead: &mut Vec<Pair>) -> Result<(), ChangesError> {
        let failed = |source| ChangesError::Read { path: path.clone(), source };
        let Some(above) = look(&self.layers.upper, &path).map_err(failed)? else { return Ok(()) };
        let below = self.layers.below(&path, &pair.layers).map_err(failed)?;
        if is_whiteout(&above) {
            // One that hides nothing is left over from a file that came and went.
            if below.seen.is_some() {
                self.found.insert(path, ChangeKind::Deleted);
            }
            return Ok(());
        }
        if above.is_dir() {
            ahead.push(Pair { path: path.clone(), layers: below.layers });
        }
        match below.seen {
            None if above.is_dir() && self.layers.leads_to_left_out(&path) => {
                self.hollow.insert(path);
            }
            None => {
                self.found.insert(path, ChangeKind::Added);
            }
            Some(before) if differ(&above, &before) => {
                self.found.insert(path, ChangeKind::Changed);
            }
            // Copied up to look at it, or for something in it.
            Some(_) => {}
        }
        Ok(())
    }

    /// What the layers have in a directory that hides them all, and that is not there again.
    fn hidden(&mut self, pair: &Pair, names: &BTreeSet<Vec<u8>>) -> Result<(), ChangesError> {
        let failed = |source| ChangesError::Read { path: pair.path.clone(), source };
        let mut hidden = BTreeSet::new();
        for index in &pair.layers {
            let found = directory(&self.layers.below[*index], &pair.path).map_err(failed)?;
            if let Some(directory) = found {
                let names = self::names(directory, self.most).map_err(failed)?;
                hidden.extend(names.ok_or(ChangesError::TooMany)?);
            }
        }
        for name in hidden.difference(names) {
            let path = pair.path.join(OsStr::from_bytes(name));
            if self.layers.below(&path, &pair.layers).map_err(failed)?.seen.is_some() {
                self.found.insert(path, ChangeKind::Deleted);
            }
        }
        Ok(())
    }

    /// Docker names every directory on the way to a change.
    fn finish(mut self) -> Vec<Change> {
        let paths: Vec<PathBuf> = self.found.keys().cloned().collect();
        for path in &paths {
            for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                let kind = if self.hollow.contains(parent) { ChangeKind::Added } else { ChangeKind::Changed };
                self.found.entry(parent.to_owned()).or_insert(kind);
            }
        }
        let root = Path::new("/");
        self.found.into_iter().map(|(path, kind)| Change { kind, path: root.join(path) }).collect()
    }
}

/// Beneath the root, through no link.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn look(root: &OwnedFd, path: &Path) -> io::Result<Option<Metadata>> {
    hold(root, path)?.map(|held| held.metadata()).transpose()
}

/// An entry as it is, by a descriptor that opens nothing; `None` if there is none, nor a directory for it.
pub(crate) fn hold(root: &OwnedFd, path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), WITHIN) {
        Ok(found) => Ok(Some(File::from(found))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A directory to read; `None` if there is none.
pub(crate) fn directory(root: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), WITHIN) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// What is in a directory; `None` if that is more than `most`, of which no more is kept.
fn names(directory: OwnedFd, most: usize) -> io::Result<Option<BTreeSet<Vec<u8>>>> {
    let mut names = BTreeSet::new();
    for entry in Dir::new(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.insert(name);
        }
        if names.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(names))
}

pub(crate) fn is_whiteout(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

/// A directory whose file system has no such attributes hides nothing.
pub(crate) fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0; 1];
    fgetxattr(directory, OPAQUE, &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
}

/// Docker's rule. A directory's time says that something in it came or went, which is told by itself.
fn differ(now: &Metadata, before: &Metadata) -> bool {
    let about = |of: &Metadata| (of.mode(), of.uid(), of.gid(), of.rdev());
    let content = |of: &Metadata| (of.size(), of.mtime(), of.mtime_nsec());
    about(now) != about(before) || (!now.is_dir() && content(now) != content(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use nix::sys::stat::{SFlag, mknod};
    use rustix::fs::{XattrFlags, setxattr};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// Layers in a directory of their own. `None` where the tests may not make what marks hidden files.
    struct Layers(tempfile::TempDir);

    impl Layers {
        fn new() -> Option<Self> {
            let layers = Self(tempfile::tempdir().unwrap());
            for layer in ["low", "high", "upper"] {
                fs::create_dir(layers.at(layer)).unwrap();
            }
            setxattr(layers.at("upper"), OPAQUE, b"n", XattrFlags::empty()).ok()?;
            Some(layers)
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str) -> &Self {
            let path = self.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            self
        }

        fn whiteout(&self, path: &str) -> &Self {
            let path = self.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            mknod(&path, SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0).unwrap();
            self
        }

        fn opaque(&self, path: &str) -> &Self {
            fs::create_dir_all(self.at(path)).unwrap();
            setxattr(self.at(path), OPAQUE, b"y", XattrFlags::empty()).unwrap();
            self
        }

        /// As overlayfs does when a file is opened for writing.
        fn copy_up(&self, from: &str, to: &str) -> &Self {
            self.write(to);
            let about = fs::metadata(self.at(from)).unwrap();
            let times = fs::FileTimes::new().set_modified(about.modified().unwrap());
            File::options().write(true).open(self.at(to)).unwrap().set_times(times).unwrap();
            fs::set_permissions(self.at(to), about.permissions()).unwrap();
            self
        }

        fn check(&self, left_out: &[&str], expected: Expect) {
            let left_out = left_out.iter().map(PathBuf::from).collect();
            let below = [self.at("low"), self.at("high")];
            let layers = super::Layers::open(&self.at("upper"), &below, left_out).unwrap();
            let found = compare(layers, MOST).unwrap();
            let line = |change: &Change| format!("{:?} {}\n", change.kind, change.path.display());
            expected.assert_eq(&found.iter().map(line).collect::<String>());
        }
    }

    #[test]
    fn what_was_made_touched_and_removed_is_told_apart() {
        let Some(layers) = Layers::new() else { return };
        layers.write("low/etc/passwd").write("low/etc/group").write("low/bin/sh").write("low/var/a/b");
        layers.copy_up("low/etc/group", "upper/etc/group");
        layers.copy_up("low/bin/sh", "upper/bin/sh");
        fs::set_permissions(layers.at("upper/bin/sh"), fs::Permissions::from_mode(0o600)).unwrap();
        layers.write("upper/srv/new/file").whiteout("upper/etc/passwd").whiteout("upper/var/a");
        layers.whiteout("upper/etc/never-was");
        symlink("/etc/passwd", layers.at("upper/srv/link")).unwrap();
        layers.check(
            &[],
            expect![[r#"
                Changed /bin
                Changed /bin/sh
                Changed /etc
                Deleted /etc/passwd
                Added /srv
                Added /srv/link
                Added /srv/new
                Added /srv/new/file
                Changed /var
                Deleted /var/a
            "#]],
        );
    }

    #[test]
    fn a_directory_that_was_replaced_has_lost_what_is_not_there_again() {
        let Some(layers) = Layers::new() else { return };
        layers.write("low/app/old").write("low/app/both").write("high/app/newer");
        layers.opaque("upper/app").write("upper/app/made");
        layers.copy_up("low/app/both", "upper/app/both");
        layers.check(
            &[],
            expect![[r#"
                Changed /app
                Added /app/made
                Deleted /app/newer
                Deleted /app/old
            "#]],
        );
    }

    #[test]
    fn what_a_layer_of_the_image_hides_was_not_there() {
        let Some(layers) = Layers::new() else { return };
        layers.write("low/gone").whiteout("high/gone").write("upper/gone");
        layers.write("low/dir/below").opaque("high/dir").write("high/dir/shown");
        layers.write("upper/dir/below").whiteout("upper/dir/shown");
        layers.check(
            &[],
            expect![[r#"
                Changed /dir
                Added /dir/below
                Deleted /dir/shown
                Added /gone
            "#]],
        );
    }

    #[test]
    fn what_gantry_put_there_is_left_out() {
        let Some(layers) = Layers::new() else { return };
        layers.write("upper/etc/hosts").write("upper/run/secrets/key").write("upper/run/mine/pid");
        layers.write("upper/proc/oddity");
        layers.check(
            &["etc/hosts", "run/secrets/key", "proc"],
            expect![[r#"
                Added /run
                Added /run/mine
                Added /run/mine/pid
            "#]],
        );
    }

    #[test]
    fn a_directory_of_too_many_files_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let full = || OwnedFd::from(File::open(dir.path()).unwrap());
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(names(full(), 3).unwrap().map(|names| names.len()), Some(3));
        assert_eq!(names(full(), 2).unwrap(), None);
        let layers = || super::Layers::open(dir.path(), &[], BTreeSet::new()).unwrap();
        let compared = |most| compare(layers(), most);
        assert_eq!(compared(3).unwrap().len(), 3);
        assert!(matches!(compared(2), Err(ChangesError::TooMany)));
    }

    #[test]
    fn a_link_is_not_followed_in_whichever_layer() {
        let Some(layers) = Layers::new() else { return };
        let outside = layers.at("outside");
        fs::create_dir(&outside).unwrap();
        layers.write("outside/secret");
        symlink(&outside, layers.at("low/data")).unwrap();
        layers.write("upper/data/secret");
        symlink(&outside, layers.at("upper/away")).unwrap();
        layers.check(
            &[],
            expect![[r#"
                Added /away
                Changed /data
                Added /data/secret
            "#]],
        );
    }

    #[test]
    fn without_a_container_or_its_layer_there_is_nothing_to_compare() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(changes(dir.path()), Err(ChangesError::NoContainer { .. })));
        let launch = Launch { layers: Vec::new(), ..crate::launch::tests::sample() };
        launch.save(dir.path()).unwrap();
        assert!(matches!(changes(dir.path()), Err(ChangesError::NoLayer { .. })));
    }
}
