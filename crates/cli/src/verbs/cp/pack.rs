//! A file or tree of this machine's as an archive.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::verbs::cp::place::is_content_only;
use crate::verbs::cp::{Copied, CopyError};

/// Of what was there a moment ago.
const GONE: &str = "it is gone, or something else by now";

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// What the archive's first entry is called: `.` where only the content of a directory is meant.
    name: OsString,
    /// A link at the end of the path stands for what it leads to.
    follow: bool,
    /// In bytes, of a file.
    pub(super) size: Option<u64>,
}

impl Source {
    pub(super) fn find(path: &Path, follow: bool) -> Result<Self, CopyError> {
        let about = look(path, follow)?;
        let kind = about.file_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            return Err(CopyError::Special(path.to_owned()));
        }
        let name = name(path).map_err(|source| CopyError::Read { path: path.to_owned(), source })?;
        let size = kind.is_file().then_some(about.len());
        Ok(Self { path: path.to_owned(), name, follow, size })
    }
}

fn look(path: &Path, follow: bool) -> Result<Metadata, CopyError> {
    let about = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    about.map_err(|source| CopyError::Read { path: path.to_owned(), source })
}

/// The last part of a path, which for one that ends in `..` is that of the directory it leads to.
fn name(path: &Path) -> io::Result<OsString> {
    if is_content_only(&path.to_string_lossy()) {
        return Ok(".".into());
    }
    let name = match path.file_name() {
        Some(name) => Some(name.to_owned()),
        None => path.canonicalize()?.file_name().map(ToOwned::to_owned),
    };
    Ok(name.unwrap_or_else(|| ".".into()))
}

/// Writes the archive to `sink` and flushes that. Our own walk and not `tar`'s, which fails of the first socket, and takes
/// a file that grows meanwhile for a longer one than it has announced.
pub(super) fn pack(source: &Source, sink: impl Write) -> Result<Copied, CopyError> {
    let mut builder = tar::Builder::new(sink);
    let mut copied = Copied::default();
    // What is left to do, the next at the end: where it is, and what it is called in the archive.
    let mut left = vec![(source.path.clone(), PathBuf::from(&source.name))];
    let mut is_first = true;
    while let Some((path, name)) = left.pop() {
        let is_below = !std::mem::take(&mut is_first);
        let follow = source.follow && !is_below;
        let about = match look(&path, follow) {
            Ok(about) => about,
            Err(CopyError::Read { source, .. }) if is_below && source.kind() == io::ErrorKind::NotFound => {
                copied.skip(&path, GONE);
                continue;
            }
            Err(error) => return Err(error),
        };
        add(&mut builder, Spot { path: &path, name: &name, about: &about, follow }, &mut copied)?;
        if about.is_dir() {
            left.extend(below(&path, &name)?);
        }
    }
    let sent = builder.into_inner().and_then(|mut sink| sink.flush());
    sent.map_err(|error| CopyError::Send { path: source.path.clone(), source: error })?;
    Ok(copied)
}

/// What is in a directory, the last first.
fn below(path: &Path, name: &Path) -> Result<Vec<(PathBuf, PathBuf)>, CopyError> {
    let unread = |source| CopyError::Read { path: path.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        entries.push((entry.path(), name.join(entry.file_name())));
    }
    entries.sort();
    entries.reverse();
    Ok(entries)
}

/// What was found, and what it is called in the archive.
#[derive(Clone, Copy)]
struct Spot<'a> {
    path: &'a Path,
    name: &'a Path,
    about: &'a Metadata,
    follow: bool,
}

/// Adds one entry.
fn add<W: Write>(
    builder: &mut tar::Builder<W>,
    Spot { path, name, about, follow }: Spot<'_>,
    copied: &mut Copied,
) -> Result<(), CopyError> {
    let unread = |source| CopyError::Read { path: path.to_owned(), source };
    let kind = about.file_type();
    let mut header = header(about);
    let sent = if kind.is_dir() {
        builder.append_data(&mut header, name, io::empty())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(unread)?;
        builder.append_link(&mut header, name, target)
    } else if kind.is_file() {
        let Some(file) = regular(path, follow).map_err(unread)? else {
            copied.skip(path, GONE);
            return Ok(());
        };
        copied.files += 1;
        copied.bytes += about.len();
        builder.append_data(&mut header, name, Exactly { file, left: about.len() })
    } else {
        copied.skip(path, "it is a socket, a pipe or a device");
        return Ok(());
    };
    sent.map_err(|source| CopyError::Send { path: path.to_owned(), source })
}

/// Opens what was a file a moment ago; `None` if it is none any more. Root copies directories of other users, who could put a
/// link to a file of root's in its place, or a pipe that nobody ever writes to.
fn regular(path: &Path, follow: bool) -> io::Result<Option<File>> {
    let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follow);
    match open(path, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(Errno::NOENT | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn header(about: &Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(about);
    header.set_mode(about.mode() & 0o7777);
    // What was before 1970 has no form here.
    header.set_mtime(u64::try_from(about.mtime()).unwrap_or(0));
    header
}

/// So many bytes of a file, whatever it has by now.
struct Exactly {
    file: File,
    left: u64,
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
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    #[test]
    fn what_has_become_a_pipe_or_a_link_since_it_was_looked_at_is_left_out() {
        let place = tempfile::tempdir().unwrap();
        let [file, pipe, link] = ["file", "pipe", "link"].map(|name| place.path().join(name));
        fs::write(&file, "x").unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        symlink(&file, &link).unwrap();
        let about = fs::metadata(&file).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut copied = Copied::default();
        for (path, follow) in [(&file, false), (&pipe, false), (&link, false), (&link, true)] {
            let spot = Spot { path, name: Path::new("n"), about: &about, follow };
            add(&mut builder, spot, &mut copied).unwrap();
        }
        assert_eq!((copied.files, &copied.skipped), (2, &vec![(pipe, GONE), (link, GONE)]));
    }
}
