//! Into the container: an archive as files.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, linkat,
    makedev, mkdirat, mknodat, openat, readlinkat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Entry, EntryType, Header};

use crate::files::root::{DIRECTORY, HELD, resolve, through};
use crate::files::{DEEPEST, FilesError, MOST_ENTRIES};

/// What comes before an entry's content: its header, its name if that is long, extensions, the map of a file's holes. A name
/// has 4096 bytes at most and a map of this size has a third of a million holes; more is meant to fill our memory.
const LONGEST_HEADER: u64 = 8 << 20;

/// Links that lead to links, as the kernel counts them.
const LINKS: usize = 40;

/// What is read and written at once.
const PIECE: usize = 64 << 10;

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpack {
    /// Owners as the archive has them, and with them set-user-id and set-group-id; otherwise all belongs to root.
    pub keep_owner: bool,
    /// The archive has one file or directory, which becomes the path itself unless that is a directory. An archive whose
    /// first entry is `.` is such a directory without a name of its own; where the path is one, its content goes there.
    pub rename: bool,
}

pub(super) fn unpack(root: &File, path: &str, how: Unpack, archive: impl Read) -> Result<(), FilesError> {
    let place = Place::find(root, path, how.rename)?;
    let budget = Rc::new(Cell::new(LONGEST_HEADER));
    let mut archive = tar::Archive::new(Budgeted { reader: archive, left: budget.clone() });
    let mut tree = Tree { place, how, top: Top::Unseen, parent: None, times: Vec::new(), entries: 0 };
    let mut entries = archive.entries().map_err(FilesError::Malformed)?;
    loop {
        budget.set(LONGEST_HEADER);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(FilesError::Malformed)?;
        budget.set(u64::MAX);
        tree.put(&mut entry)?;
        // What nobody asked for, so that the next header is what is read next.
        io::copy(&mut entry, &mut io::sink()).map_err(FilesError::Malformed)?;
    }
    tree.set_times();
    budget.set(u64::MAX);
    // Whoever sends has not sent all until this has an end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(FilesError::Malformed)?;
    Ok(())
}

/// A reader that fails when it has given as much as it may.
struct Budgeted<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("what is said of one file is longer than 8 MiB"));
        }
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.reader.read(&mut buffer[..most])?;
        self.left.set(left.saturating_sub(count as u64));
        Ok(count)
    }
}

/// Where the archive goes.
struct Place {
    dir: File,
    /// The path of `dir`, for messages.
    path: PathBuf,
    /// What the archive's one file or directory is called there; `None` if names are as they are.
    name: Option<OsString>,
    /// The user says that it is a directory, and it is not there yet.
    has_to_be_directory: bool,
}

impl Place {
    fn find(root: &File, path: &str, rename: bool) -> Result<Self, FilesError> {
        let asked = Path::new(path);
        let errno = match resolve(root, asked, DIRECTORY) {
            Ok(dir) => {
                return Ok(Self { dir, path: asked.to_owned(), name: None, has_to_be_directory: false });
            }
            Err(errno) => errno,
        };
        match errno {
            Errno::NOENT | Errno::NOTDIR if rename => Self::beside(root, path),
            Errno::NOTDIR => Err(FilesError::NotADirectory { path: asked.to_owned() }),
            errno => Err(FilesError::unresolved(asked, errno)),
        }
    }

    /// The directory in which `path`, which is none, is or will be. A link at its end stands for what it leads to.
    fn beside(root: &File, path: &str) -> Result<Self, FilesError> {
        let has_to_be_directory = path.ends_with('/') || path.ends_with("/.");
        let asked = Path::new(path);
        let mut path = asked.to_owned();
        for _ in 0..LINKS {
            let not_found = || FilesError::NotFound { path: path.clone() };
            let name = path.file_name().ok_or_else(not_found)?.to_owned();
            let parent =
                path.parent().filter(|parent| *parent != Path::new("")).unwrap_or_else(|| Path::new("/"));
            let dir = match resolve(root, parent, DIRECTORY) {
                Ok(dir) => dir,
                Err(Errno::NOTDIR) => return Err(FilesError::NotADirectory { path: parent.to_owned() }),
                Err(errno) => return Err(FilesError::unresolved(parent, errno)),
            };
            let link = match openat(&dir, name.as_os_str(), HELD, Mode::empty()) {
                Ok(node) => link_of(&File::from(node))
                    .map_err(|source| FilesError::Read { path: path.clone(), source })?,
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(FilesError::Read { path, source: errno.into() }),
            };
            match link {
                // An absolute one takes the place of what is before it.
                Some(target) => path = parent.join(target),
                None => {
                    let path = parent.to_owned();
                    return Ok(Self { dir, path, name: Some(name), has_to_be_directory });
                }
            }
        }
        Err(FilesError::EndlessLinks { path: asked.to_owned() })
    }
}

/// Where a link leads; `None` if what is held is no link.
fn link_of(node: &File) -> io::Result<Option<PathBuf>> {
    if !node.metadata()?.is_symlink() {
        return Ok(None);
    }
    let target = readlinkat(node, "", Vec::<u8>::new())?;
    Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes()))))
}

/// What the archive's first entry was.
enum Top {
    Unseen,
    Dot,
    Named(OsString),
}

/// The directory that the archive is unpacked into, while it is.
struct Tree {
    place: Place,
    how: Unpack,
    top: Top,
    /// The directory of the last entry, which is often that of the next.
    parent: Option<(Vec<OsString>, Rc<File>)>,
    /// The times of directories that were made. They are set when nothing is put into them any more.
    times: Vec<(Vec<OsString>, SystemTime)>,
    entries: usize,
}

impl Tree {
    fn put(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), FilesError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            return Err(FilesError::TooMany);
        }
        let path = self.path_of(&entry.path_bytes())?;
        let is_directory = kind == EntryType::Directory || is_old_directory(entry);
        if path.len() == 1 && self.place.has_to_be_directory && !is_directory {
            return Err(FilesError::NotFound { path: self.shown(&path) });
        }
        // The place itself stays as it is.
        let Some((name, above)) = path.split_last() else { return Ok(()) };
        let parent = self.parent(above)?;
        let spot = Spot { parent: &parent, name, path: &path };
        match kind {
            _ if is_directory => self.directory(spot, entry.header()),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(spot, entry),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| malformed("a link that leads nowhere"))?;
                self.symlink(spot, entry.header(), &target)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| malformed("a link that leads nowhere"))?;
                let target = self.path_of(&target)?;
                self.link(spot, &target)
            }
            EntryType::Fifo => self.node(spot, entry.header(), FileType::Fifo, 0),
            EntryType::Char => {
                let device = device(entry.header())?;
                self.node(spot, entry.header(), FileType::CharacterDevice, device)
            }
            EntryType::Block => {
                let device = device(entry.header())?;
                self.node(spot, entry.header(), FileType::BlockDevice, device)
            }
            kind => {
                let kind = char::from(kind.as_byte());
                Err(malformed(&format!("an entry of a kind that is not known, {kind:?}")))
            }
        }
    }

    /// Where an entry goes, name by name below the place.
    fn path_of(&mut self, raw: &[u8]) -> Result<Vec<OsString>, FilesError> {
        let names = names(raw)?;
        let Some(name) = &self.place.name else { return Ok(names) };
        if matches!(self.top, Top::Unseen) {
            self.top = names.first().cloned().map_or(Top::Dot, Top::Named);
        }
        let below = match (&self.top, names.split_first()) {
            (Top::Named(top), Some((first, below))) if first == top => below,
            (Top::Named(_), _) => {
                return Err(FilesError::Beside { path: PathBuf::from(OsStr::from_bytes(raw)) });
            }
            (Top::Dot | Top::Unseen, _) => names.as_slice(),
        };
        Ok([name].into_iter().chain(below).cloned().collect())
    }

    fn shown(&self, names: &[OsString]) -> PathBuf {
        names.iter().fold(self.place.path.clone(), |path, name| path.join(name))
    }

    fn failed(&self, names: &[OsString], source: impl Into<io::Error>) -> FilesError {
        let (path, source) = (self.shown(names), source.into());
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => FilesError::ReadOnly { path },
            _ => FilesError::Write { path, source },
        }
    }

    /// The directory below the place. An archive need not name every directory: what is missing is made.
    fn parent(&mut self, names: &[OsString]) -> Result<Rc<File>, FilesError> {
        if let Some((_, dir)) = self.parent.as_ref().filter(|(known, _)| known == names) {
            return Ok(dir.clone());
        }
        let mut dir: Option<File> = None;
        for (at, name) in names.iter().enumerate() {
            let next = self.step(dir.as_ref().unwrap_or(&self.place.dir), name, &names[..=at])?;
            dir = Some(next);
        }
        let dir = match dir {
            Some(dir) => dir,
            None => self.place.dir.try_clone().map_err(|error| self.failed(names, error))?,
        };
        let dir = Rc::new(dir);
        self.parent = Some((names.to_vec(), dir.clone()));
        Ok(dir)
    }

    fn step(&self, dir: &File, name: &OsStr, path: &[OsString]) -> Result<File, FilesError> {
        let open = || openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map(File::from);
        let opened = match open() {
            Err(Errno::NOENT) => match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(errno) => Err(errno),
            },
            done => done,
        };
        match opened {
            Err(Errno::NOTDIR | Errno::LOOP) => Err(FilesError::InTheWay { path: self.shown(path) }),
            opened => opened.map_err(|errno| self.failed(path, errno)),
        }
    }

    fn directory(&mut self, spot: Spot<'_>, header: &Header) -> Result<(), FilesError> {
        let is_new = match mkdirat(spot.parent, spot.name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(self.failed(spot.path, errno)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(spot.parent, spot.name, flags, Mode::empty()) {
            Ok(dir) => File::from(dir),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(FilesError::DirectoryOverFile { path: self.shown(spot.path) });
            }
            Err(errno) => return Err(self.failed(spot.path, errno)),
        };
        if is_new || self.how.keep_owner {
            self.dress(&dir, spot.path, header)?;
            self.times.extend(time(header)?.map(|time| (spot.path.to_vec(), time)));
        }
        Ok(())
    }

    fn file(&self, spot: Spot<'_>, entry: &mut Entry<'_, impl Read>) -> Result<(), FilesError> {
        self.clear(spot)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(spot.parent, spot.name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.map_err(|errno| self.failed(spot.path, errno))?);
        let mut left = entry.size();
        let mut piece = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
        while left > 0 {
            let count = entry.read(&mut piece).map_err(FilesError::Malformed)?;
            if count == 0 {
                return Err(FilesError::Malformed(io::ErrorKind::UnexpectedEof.into()));
            }
            file.write_all(&piece[..count]).map_err(|error| self.failed(spot.path, error))?;
            left = left.saturating_sub(count as u64);
        }
        self.dress(&file, spot.path, entry.header())?;
        match time(entry.header())? {
            Some(time) => {
                let set = file.set_times(FileTimes::new().set_modified(time));
                set.map_err(|error| self.failed(spot.path, error))
            }
            None => Ok(()),
        }
    }

    fn symlink(&self, spot: Spot<'_>, header: &Header, target: &[u8]) -> Result<(), FilesError> {
        self.clear(spot)?;
        let Spot { parent, name, path } = spot;
        let (uid, gid) = self.owner(header)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let made = symlinkat(OsStr::from_bytes(target), parent, name)
            .and_then(|()| chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW));
        made.map_err(|errno| self.failed(path, errno))?;
        let Ok(seconds) = i64::try_from(header.mtime().map_err(FilesError::Malformed)?) else {
            return Ok(());
        };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
        };
        let set = utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        set.map_err(|errno| self.failed(path, errno))
    }

    /// A second name for a file that the archive had before.
    fn link(&mut self, spot: Spot<'_>, target: &[OsString]) -> Result<(), FilesError> {
        let Some((first, above)) = target.split_last() else {
            return Err(malformed("a link to a directory"));
        };
        let other = self.parent(above)?;
        self.clear(spot)?;
        let linked = linkat(&*other, first.as_os_str(), spot.parent, spot.name, AtFlags::empty());
        linked.map_err(|errno| self.failed(spot.path, errno))
    }

    fn node(&self, spot: Spot<'_>, header: &Header, kind: FileType, device: Dev) -> Result<(), FilesError> {
        self.clear(spot)?;
        let failed = |errno: Errno| self.failed(spot.path, errno);
        mknodat(spot.parent, spot.name, kind, Mode::from_raw_mode(0o600), device).map_err(failed)?;
        // Opening it would act on it.
        let node = File::from(openat(spot.parent, spot.name, HELD, Mode::empty()).map_err(failed)?);
        let (uid, gid) = self.owner(header)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&node, "", uid, gid, AtFlags::EMPTY_PATH).map_err(failed)?;
        let mode = Permissions::from_mode(self.mode(header)?);
        std::fs::set_permissions(through(&node), mode).map_err(|error| self.failed(spot.path, error))
    }

    /// Makes room: what is there and no directory goes.
    fn clear(&self, Spot { parent, name, path }: Spot<'_>) -> Result<(), FilesError> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(FilesError::FileOverDirectory { path: self.shown(path) }),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// Gives what was opened its owner and mode, in this order: a change of owner takes some of the mode away.
    fn dress(&self, file: &File, path: &[OsString], header: &Header) -> Result<(), FilesError> {
        let (uid, gid) = self.owner(header)?;
        let mode = Permissions::from_mode(self.mode(header)?);
        let dressed = fchown(file, Some(uid), Some(gid)).and_then(|()| file.set_permissions(mode));
        dressed.map_err(|error| self.failed(path, error))
    }

    fn owner(&self, header: &Header) -> Result<(u32, u32), FilesError> {
        if !self.how.keep_owner {
            return Ok((0, 0));
        }
        // The largest number says "leave it" to the kernel, and belongs to nobody.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let uid = id(header.uid().map_err(FilesError::Malformed)?);
        let gid = id(header.gid().map_err(FilesError::Malformed)?);
        uid.zip(gid).ok_or_else(|| malformed("an owner that no system has"))
    }

    fn mode(&self, header: &Header) -> Result<u32, FilesError> {
        let kept = if self.how.keep_owner { 0o7777 } else { 0o1777 };
        Ok(header.mode().map_err(FilesError::Malformed)? & kept)
    }

    /// The times of directories. Whatever the container has done to them since is not worth failing for.
    fn set_times(&mut self) {
        for (path, time) in std::mem::take(&mut self.times) {
            let Ok(dir) = self.parent(&path) else { continue };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(dir) = openat(&*dir, ".", flags, Mode::empty()) {
                let _gone = File::from(dir).set_times(FileTimes::new().set_modified(time));
            }
        }
    }
}

/// Where one entry goes.
#[derive(Clone, Copy)]
struct Spot<'a> {
    parent: &'a File,
    name: &'a OsStr,
    /// All names below the place, this one included.
    path: &'a [OsString],
}

fn malformed(what: &str) -> FilesError {
    FilesError::Malformed(io::Error::new(io::ErrorKind::InvalidData, format!("it has {what}")))
}

/// Archives from before directories had a kind of their own.
fn is_old_directory(entry: &Entry<'_, impl Read>) -> bool {
    entry.header().as_ustar().is_none()
        && entry.header().as_gnu().is_none()
        && entry.header().entry_type() == EntryType::Regular
        && entry.path_bytes().ends_with(b"/")
}

/// The names of a path, without `.` and a leading `/`.
fn names(raw: &[u8]) -> Result<Vec<OsString>, FilesError> {
    let path = Path::new(OsStr::from_bytes(raw));
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(FilesError::Outside { path: path.to_owned() });
            }
        }
    }
    if names.len() > DEEPEST { Err(FilesError::TooDeep { path: path.to_owned() }) } else { Ok(names) }
}

/// When it was last changed; `None` if that is further away than anyone counts.
fn time(header: &Header) -> Result<Option<SystemTime>, FilesError> {
    let seconds = header.mtime().map_err(FilesError::Malformed)?;
    // The kernel counts in an i64.
    let seconds = i64::try_from(seconds).ok().and_then(|seconds| u64::try_from(seconds).ok());
    Ok(seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))))
}

fn device(header: &Header) -> Result<Dev, FilesError> {
    let major = header.device_major().map_err(FilesError::Malformed)?;
    let minor = header.device_minor().map_err(FilesError::Malformed)?;
    let (major, minor) = major.zip(minor).ok_or_else(|| malformed("a device without a number"))?;
    Ok(makedev(major, minor))
}
