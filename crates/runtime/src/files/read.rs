//! Out of the container: a file or a tree as an archive.

use std::ffi::{CString, OsStr};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags, fstatfs, major, minor, openat, readlinkat};
use rustix::io::Errno;

use crate::files::root::{self, HELD, resolve, through};
use crate::files::{DEEPEST, FilesError, MOST_ENTRIES};

/// File systems in which the kernel shows itself: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, configfs, bpf,
/// pstore, efivarfs, mqueue and binfmt_misc, by the numbers of linux/magic.h. Their files are no data: some do not end, and
/// reading some has effects. Docker's copies do not see them at all.
const KERNELS: [u64; 13] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0xcafe_4a11,
    0x6165_676c,
    0xde5e_81e4,
    0x1980_0202,
    0x4249_4e4d,
];

/// Something in a container that was found, and stays the same whatever becomes of its path.
#[derive(Debug)]
pub struct Source {
    node: File,
    found: Found,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is called, and what its archive's first entry is. `.` for the root, and for a path that ends in `..`; the
    /// entries below are then called without it.
    pub name: String,
    pub directory: bool,
    /// In bytes; 0 unless it is a file.
    pub size: u64,
}

impl Source {
    /// Finds `path` in the running container of `dir`. A link at its end is itself what is found, unless `follow`.
    pub fn open(dir: &Path, path: &str, follow: bool) -> Result<Self, FilesError> {
        Self::find(&root::of(dir)?, path, follow)
    }

    pub(super) fn find(root: &File, path: &str, follow: bool) -> Result<Self, FilesError> {
        let asked = Path::new(path);
        let flags = if follow { OFlags::PATH } else { HELD };
        let node = resolve(root, asked, flags).map_err(|errno| FilesError::unresolved(asked, errno))?;
        let about = node.metadata().map_err(|source| FilesError::Read { path: asked.to_owned(), source })?;
        if about.file_type().is_socket() {
            return Err(FilesError::Socket { path: asked.to_owned() });
        }
        let size = if about.is_file() { about.len() } else { 0 };
        Ok(Self { node, found: Found { name: name(asked), directory: about.is_dir(), size } })
    }

    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Writes it, with all that is below, to `sink` and flushes that. What vanishes meanwhile is left out; a file that
    /// changes is cut, or filled up with zeros, to the size that it had, as tar does it.
    pub fn archive(self, sink: impl Write) -> Result<(), FilesError> {
        self.archive_at_most(MOST_ENTRIES, sink)
    }

    fn archive_at_most(self, most: usize, sink: impl Write) -> Result<(), FilesError> {
        let Self { node, found } = self;
        let name = PathBuf::from(found.name);
        let builder = tar::Builder::new(sink);
        let mut archive = Archive { builder, levels: Vec::new(), entries: 0, most };
        archive.add(node, name.clone(), None)?;
        while let Some(level) = archive.levels.last_mut() {
            let Some(name) = level.names.pop() else {
                archive.levels.pop();
                continue;
            };
            let path = level.path.join(OsStr::from_bytes(name.as_bytes()));
            let device = level.device;
            match openat(&level.dir, name.as_c_str(), HELD, Mode::empty()) {
                Ok(node) => archive.add(File::from(node), path, Some(device))?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(FilesError::Read { path, source: errno.into() }),
            }
        }
        let sent = archive.builder.into_inner().and_then(|mut sink| sink.flush());
        sent.map_err(|source| FilesError::Archive { path: name, source })
    }
}

fn name(path: &Path) -> String {
    match path.components().next_back() {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        Some(Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_)) | None => {
            ".".to_owned()
        }
    }
}

struct Archive<W: Write> {
    builder: tar::Builder<W>,
    /// The directories from the source down to where we are.
    levels: Vec<Level>,
    entries: usize,
    /// That many entries, those that wait included: of 256 levels with a million names each, no memory holds all.
    most: usize,
}

struct Level {
    dir: File,
    /// What is in it and not yet archived, the last first.
    names: Vec<CString>,
    /// In the archive.
    path: PathBuf,
    device: u64,
}

impl<W: Write> Archive<W> {
    /// Adds what is held in `node` as `path`; `above` is the device of the directory that it was found in.
    fn add(&mut self, node: File, path: PathBuf, above: Option<u64>) -> Result<(), FilesError> {
        let unread = |source| FilesError::Read { path: path.clone(), source };
        let about = node.metadata().map_err(unread)?;
        let kind = about.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        self.entries += 1;
        if self.entries > self.most {
            return Err(FilesError::TooMany);
        }
        let mut header = header(&about).map_err(unread)?;
        let added = if kind.is_symlink() {
            let target = readlinkat(&node, "", Vec::<u8>::new()).map_err(|errno| unread(errno.into()))?;
            self.builder.append_link(&mut header, &path, OsStr::from_bytes(target.as_bytes()))
        } else if kind.is_file() {
            let file = File::open(through(&node)).map_err(unread)?;
            self.builder.append_data(&mut header, &path, Exactly { file, left: about.len() })
        } else {
            self.builder.append_data(&mut header, &path, io::empty())
        };
        if let Err(source) = added {
            return Err(FilesError::Archive { path, source });
        }
        if kind.is_dir() { self.enter(node, about.dev(), path, above) } else { Ok(()) }
    }

    /// What is in a directory comes next.
    fn enter(&mut self, dir: File, device: u64, path: PathBuf, above: Option<u64>) -> Result<(), FilesError> {
        let unread = |errno: Errno| FilesError::Read { path: path.clone(), source: errno.into() };
        let is_mount = above.is_some_and(|above| above != device);
        if is_mount && is_kernels(&dir).map_err(unread)? {
            return Ok(());
        }
        if self.levels.len() >= DEEPEST {
            return Err(FilesError::TooDeep { path });
        }
        let waiting: usize = self.levels.iter().map(|level| level.names.len()).sum();
        let room = self.most.saturating_sub(self.entries + waiting);
        let names = names(&dir, room).map_err(unread)?.ok_or(FilesError::TooMany)?;
        self.levels.push(Level { dir, names, path, device });
        Ok(())
    }
}

fn is_kernels(dir: &File) -> Result<bool, Errno> {
    Ok(KERNELS.contains(&(fstatfs(dir)?.f_type as u64)))
}

/// The names in a directory, the last first, so that an archive of the same files is the same; `None` if there are more than
/// `most`.
fn names(dir: &File, most: usize) -> Result<Option<Vec<CString>>, Errno> {
    // The one that is held cannot be read, but opened anew.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::new(openat(dir, ".", flags, Mode::empty())?)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if names.len() >= most {
            return Ok(None);
        }
        names.push(name.to_owned());
    }
    names.sort_unstable();
    names.reverse();
    Ok(Some(names))
}

fn header(about: &Metadata) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(about);
    header.set_mode(about.mode() & 0o7777);
    // What was before 1970 has no form here.
    header.set_mtime(u64::try_from(about.mtime()).unwrap_or(0));
    let kind = about.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        header.set_size(0);
        header.set_device_major(major(about.rdev()))?;
        header.set_device_minor(minor(about.rdev()))?;
    }
    Ok(header)
}

/// So many bytes of a file, whatever it has by now.
pub(crate) struct Exactly {
    pub(crate) file: File,
    pub(crate) left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..most];
        let count = match self.file.read(buffer)? {
            0 => {
                buffer.fill(0);
                most
            }
            count => count,
        };
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_changed_has_the_size_that_it_had() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::write(&path, "four").unwrap();
        for (size, content) in [(0, &b""[..]), (2, b"fo"), (4, b"four"), (7, b"four\0\0\0")] {
            let mut read = Vec::new();
            let mut file = Exactly { file: File::open(&path).unwrap(), left: size };
            file.read_to_end(&mut read).unwrap();
            assert_eq!(read, content, "{size}");
        }
    }

    #[test]
    fn names_that_wait_count_as_what_was_copied_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().to_owned();
        for _ in 0..3 {
            // They wait while what is in `d` is copied, which comes before them.
            for name in ["x", "y"] {
                std::fs::write(path.join(name), "").unwrap();
            }
            path.push("d");
            std::fs::create_dir(&path).unwrap();
        }
        let root = File::open(dir.path()).unwrap();
        let archive = |most| {
            let mut sent = Vec::new();
            let done = Source::find(&root, "/", false).unwrap().archive_at_most(most, &mut sent);
            (done, tar::Archive::new(sent.as_slice()).entries().unwrap().count())
        };
        assert!(matches!(archive(10), (Ok(()), 10)));
        assert!(matches!(archive(9), (Err(FilesError::TooMany), _)));
        let (done, sent) = archive(5);
        assert!(matches!(done, Err(FilesError::TooMany)) && sent == 2, "{done:?} after {sent}");
    }

    #[test]
    fn a_copy_is_called_as_it_was_asked_for() {
        for (path, called) in [
            ("/etc/hosts", "hosts"),
            ("etc/", "etc"),
            ("/etc/.", "etc"),
            ("/", "."),
            ("/etc/..", "."),
            (".", "."),
        ] {
            assert_eq!(name(Path::new(path)), called, "{path}");
        }
    }
}
