//! What a node sends of a container, as files of this machine's.
//!
//! A container is hostile, and so may its node be. **Invariant:** nothing is written but below the directory that the user
//! named: every name is taken by itself from a directory that is held open, and no link is followed, whoever made it.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, mkdirat, open, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use tar::{Entry, EntryType, Header};
use wire::proto::stream::Begun;

use crate::verbs::cp::{Copied, CopyError};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What comes before an entry's content: its header, its name if that is long, and where a link leads. Our own nodes follow
/// 256 directories, which makes 64 KiB; more is meant to fill our memory.
const LONGEST_HEADER: u64 = 1 << 20;

/// What is read and written at once.
const PIECE: usize = 64 << 10;

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// It is there, and links to it are the user's own.
    dir: PathBuf,
    /// What the archive's one file or directory is called there; `None` if its content goes straight into `dir`.
    name: Option<OsString>,
}

impl Target {
    /// Docker's rules. `content_only`: of a directory the content is meant.
    pub(super) fn choose(destination: &Path, begun: &Begun, content_only: bool) -> Result<Self, CopyError> {
        let named = only_name(&begun.name)?;
        match fs::metadata(destination) {
            Ok(about) if about.is_dir() => {
                let name = named.filter(|_| !content_only);
                Ok(Self { dir: destination.to_owned(), name })
            }
            Ok(about) if !about.is_file() => Err(CopyError::OverSpecial(destination.to_owned())),
            Ok(_) if begun.directory => Err(CopyError::DirectoryOverFile(destination.to_owned())),
            Ok(_) => {
                // A link is the user's own, and stands for what it leads to.
                let file = destination.canonicalize().map_err(|source| unwritable(destination, source))?;
                Self::beside(&file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_to_be_directory(destination) && !begun.directory {
                    return Err(CopyError::NotADirectory(destination.to_owned()));
                }
                Self::beside(destination)
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(CopyError::NotADirectory(destination.to_owned()))
            }
            Err(error) => Err(unwritable(destination, error)),
        }
    }

    /// A file or directory that is no directory yet, by its own name.
    fn beside(path: &Path) -> Result<Self, CopyError> {
        let name = path.file_name().ok_or_else(|| CopyError::NotADirectory(path.to_owned()))?;
        let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or_else(|| Path::new("."));
        match fs::metadata(dir) {
            Ok(about) if about.is_dir() => Ok(Self { dir: dir.to_owned(), name: Some(name.to_owned()) }),
            Ok(_) => Err(CopyError::NotADirectory(dir.to_owned())),
            Err(error) => Err(unwritable(dir, error)),
        }
    }
}

fn has_to_be_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

/// What the node calls it; `None` for `.`, which is a root. It becomes a name here, and may be nothing else.
fn only_name(name: &str) -> Result<Option<OsString>, CopyError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::CurDir), None) => Ok(None),
        (Some(Component::Normal(only)), None) if only == name => Ok(Some(only.to_owned())),
        (_, _) => Err(CopyError::Outside(name.into())),
    }
}

fn unwritable(path: &Path, source: io::Error) -> CopyError {
    CopyError::Write { path: path.to_owned(), source }
}

/// Unpacks what the node calls `name`. Owners are kept if that was asked for and we are root; set-user-id and set-group-id
/// only with them.
pub(super) fn unpack(
    target: Target,
    name: &str,
    keep_owner: bool,
    archive: impl Read,
) -> Result<Copied, CopyError> {
    let Target { dir, name: renamed } = target;
    let opened = open(&dir, DIRECTORY, Mode::empty()).map_err(|errno| unwritable(&dir, errno.into()))?;
    let mut tree = Tree {
        dir: Rc::new(File::from(opened)),
        path: dir,
        top: only_name(name)?,
        renamed,
        keep_owner: keep_owner && geteuid().is_root(),
        parent: None,
        directories: Vec::new(),
        copied: Copied::default(),
    };
    let budget = Rc::new(Cell::new(LONGEST_HEADER));
    let mut archive = tar::Archive::new(Budgeted { reader: archive, left: budget.clone() });
    let mut entries = archive.entries().map_err(CopyError::Archive)?;
    loop {
        budget.set(LONGEST_HEADER);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(CopyError::Archive)?;
        budget.set(u64::MAX);
        tree.put(&mut entry)?;
        // What nobody asked for, so that the next header is what is read next.
        io::copy(&mut entry, &mut io::sink()).map_err(CopyError::Archive)?;
    }
    tree.leave(&[])?;
    budget.set(u64::MAX);
    // What is still to come is the archive's end. Without it, the archive is not whole.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(CopyError::Archive)?;
    Ok(tree.copied)
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
            return Err(io::Error::other("what is said of one file is longer than 1 MiB"));
        }
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.reader.read(&mut buffer[..most])?;
        self.left.set(left.saturating_sub(count as u64));
        Ok(count)
    }
}

struct Tree {
    dir: Rc<File>,
    /// The path of `dir`, for messages.
    path: PathBuf,
    /// What all names in the archive begin with; `None` if with nothing.
    top: Option<OsString>,
    /// What stands in the place of that.
    renamed: Option<OsString>,
    keep_owner: bool,
    /// The directory of the last entry, which is often that of the next.
    parent: Option<(Vec<OsString>, Rc<File>)>,
    /// Directories that were made and that the last entry is in, the outermost first, and what they are to be like when
    /// nothing is put into them any more. All that were made would be as many as a container likes.
    directories: Vec<(Vec<OsString>, Dress)>,
    copied: Copied,
}

/// Owner, mode and time of an entry.
#[derive(Clone, Copy)]
struct Dress {
    owner: Option<(u32, u32)>,
    mode: u32,
    time: Option<SystemTime>,
}

impl Tree {
    fn put(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), CopyError> {
        let kind = entry.header().entry_type();
        let path = self.path_of(&entry.path_bytes())?;
        // Its content goes into a directory that is there.
        let Some((name, above)) = path.split_last() else { return Ok(()) };
        self.leave(&path)?;
        match kind {
            EntryType::Directory => self.directory(name, above, &path, entry.header()),
            EntryType::Regular | EntryType::Continuous => self.file(name, above, &path, entry),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.symlink(name, above, &path, &target, entry.header())
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let shown = self.shown(&path);
                self.copied.skip(&shown, "it is a pipe or a device");
                Ok(())
            }
            // No node sends anything else.
            _ => {
                let unknown = "it has an entry of a kind that is not known";
                Err(CopyError::Archive(io::Error::new(io::ErrorKind::InvalidData, unknown)))
            }
        }
    }

    /// Where an entry goes, name by name below the directory.
    fn path_of(&self, raw: &[u8]) -> Result<Vec<OsString>, CopyError> {
        let path = Path::new(OsStr::from_bytes(raw));
        let outside = || CopyError::Outside(path.to_owned());
        let mut names = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => names.push(name.to_owned()),
                Component::CurDir => {}
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => return Err(outside()),
            }
        }
        let below = match &self.top {
            None => names.as_slice(),
            Some(top) => match names.split_first() {
                Some((first, below)) if first == top => below,
                Some(_) | None => return Err(outside()),
            },
        };
        Ok(self.renamed.iter().chain(below).cloned().collect())
    }

    fn shown(&self, names: &[OsString]) -> PathBuf {
        names.iter().fold(self.path.clone(), |path, name| path.join(name))
    }

    fn failed(&self, names: &[OsString], source: impl Into<io::Error>) -> CopyError {
        CopyError::Write { path: self.shown(names), source: source.into() }
    }

    /// A directory below ours. The archive has it before what is in it.
    fn parent(&mut self, names: &[OsString]) -> Result<Rc<File>, CopyError> {
        if let Some((_, dir)) = self.parent.as_ref().filter(|(known, _)| known == names) {
            return Ok(dir.clone());
        }
        let mut dir = self.dir.clone();
        for (at, name) in names.iter().enumerate() {
            let opened = openat(&*dir, name.as_os_str(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
            dir = match opened {
                Ok(opened) => Rc::new(File::from(opened)),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(CopyError::InTheWay(self.shown(&names[..=at])));
                }
                Err(errno) => return Err(self.failed(&names[..=at], errno)),
            };
        }
        self.parent = Some((names.to_vec(), dir.clone()));
        Ok(dir)
    }

    fn directory(
        &mut self,
        name: &OsStr,
        above: &[OsString],
        path: &[OsString],
        header: &Header,
    ) -> Result<(), CopyError> {
        let dress = self.dress(header)?;
        let parent = self.parent(above)?;
        // Ours alone until all is in it.
        match mkdirat(&*parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                self.directories.push((path.to_vec(), dress));
                Ok(())
            }
            Err(Errno::EXIST) => match self.parent(path) {
                // One that was there stays as it was.
                Ok(_) => Ok(()),
                Err(CopyError::InTheWay(path)) => Err(CopyError::DirectoryOverFile(path)),
                Err(error) => Err(error),
            },
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    fn file(
        &mut self,
        name: &OsStr,
        above: &[OsString],
        path: &[OsString],
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<(), CopyError> {
        let dress = self.dress(entry.header())?;
        let parent = self.parent(above)?;
        self.clear(&parent, name, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&*parent, name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.map_err(|errno| self.failed(path, errno))?);
        let mut left = entry.size();
        let mut piece = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
        while left > 0 {
            let count = entry.read(&mut piece).map_err(CopyError::Archive)?;
            if count == 0 {
                return Err(CopyError::Archive(io::ErrorKind::UnexpectedEof.into()));
            }
            file.write_all(&piece[..count]).map_err(|error| self.failed(path, error))?;
            left = left.saturating_sub(count as u64);
        }
        self.copied.files += 1;
        self.copied.bytes += entry.size();
        dress.put_on(&file).map_err(|error| self.failed(path, error))
    }

    fn symlink(
        &mut self,
        name: &OsStr,
        above: &[OsString],
        path: &[OsString],
        target: &[u8],
        header: &Header,
    ) -> Result<(), CopyError> {
        let dress = self.dress(header)?;
        let parent = self.parent(above)?;
        self.clear(&parent, name, path)?;
        let made = symlinkat(OsStr::from_bytes(target), &*parent, name);
        let owned = match dress.owner {
            Some((uid, gid)) => made.and_then(|()| {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                chownat(&*parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }),
            None => made,
        };
        owned.map_err(|errno| self.failed(path, errno))
    }

    /// Makes room: a file or link that is there goes.
    fn clear(&self, parent: &File, name: &OsStr, path: &[OsString]) -> Result<(), CopyError> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(self.failed(path, errno)),
            Ok(about) => match FileType::from_raw_mode(about.st_mode) {
                FileType::RegularFile | FileType::Symlink | FileType::Directory => {}
                _special => return Err(CopyError::OverSpecial(self.shown(path))),
            },
        }
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(CopyError::FileOverDirectory(self.shown(path))),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// Directories that `next` is not in get their modes and times, the deepest first: one may be closed to ourselves then. An
    /// archive has what is in a directory right after it.
    fn leave(&mut self, next: &[OsString]) -> Result<(), CopyError> {
        while let Some((path, dress)) = self.directories.pop_if(|(path, _)| !next.starts_with(path)) {
            self.parent = None;
            let dir = self.parent(&path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = openat(&*dir, ".", flags, Mode::empty()).map_err(|errno| self.failed(&path, errno))?;
            dress.put_on(&File::from(dir)).map_err(|error| self.failed(&path, error))?;
        }
        Ok(())
    }

    fn dress(&self, header: &Header) -> Result<Dress, CopyError> {
        let id = |id: io::Result<u64>| {
            let id = id.map_err(CopyError::Archive)?;
            // The largest number says "leave it" to the kernel, and belongs to nobody.
            let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            let unknown = || io::Error::new(io::ErrorKind::InvalidData, "it has an owner that no system has");
            id.ok_or_else(|| CopyError::Archive(unknown()))
        };
        let owner = if self.keep_owner { Some((id(header.uid())?, id(header.gid())?)) } else { None };
        let kept = if self.keep_owner { 0o7777 } else { 0o777 };
        let mode = header.mode().map_err(CopyError::Archive)? & kept;
        let seconds = header.mtime().map_err(CopyError::Archive)?;
        // The kernel counts in an i64.
        let seconds = i64::try_from(seconds).ok().and_then(|seconds| u64::try_from(seconds).ok());
        let since = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Dress { owner, mode, time: seconds.and_then(since) })
    }
}

impl Dress {
    /// In this order: a change of owner takes some of the mode away.
    fn put_on(self, file: &File) -> io::Result<()> {
        let Self { owner, mode, time } = self;
        if let Some((uid, gid)) = owner {
            fchown(file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        match time {
            Some(time) => file.set_times(FileTimes::new().set_modified(time)),
            None => Ok(()),
        }
    }
}
