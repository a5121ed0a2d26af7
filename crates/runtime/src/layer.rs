//! A container's writable layer as a layer of an image: a tar archive of what it made, touched and hid.
//!
//! The marks by which overlayfs hides what is below become those of an archive (OCI image specification, "Whiteouts"): a device
//! 0/0 is a file `.wh.NAME`, and a directory that hides all has a file `.wh..wh..opq`. Owners, modes, times, hard links, devices
//! and such attributes as an image may have go along; sockets do not. What gantry put there itself is left out, as in
//! [`crate::changes`], and so is what hides nothing.
//!
//! As there, all of it is the container's to arrange, while this runs too unless it is paused: paths are resolved by the kernel
//! beneath each layer and through no link, and what is opened has been looked at through the same descriptor.

mod entry;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, fgetxattr, flistxattr, flistxattr_query, readlinkat};
use rustix::io::Errno;

use crate::changes::{ChangesError, Layers, directory, hold, is_opaque, is_whiteout};
use crate::files::Exactly;
use entry::Entry;

/// What an image's layer may have: whoever unpacks it refuses more (crate `image`).
const MOST_ENTRIES: usize = 1_000_000;
const DEEPEST: usize = 200;
/// Attributes of one file, together.
const MOST_ATTRIBUTES: usize = 512 << 10;

/// The kernel's largest list of attributes, and largest attribute.
const LARGEST_ATTRIBUTE: usize = 64 << 10;

/// What begins like this hides something, when it is in an archive.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// By these a layer has its content in others, when overlayfs is used so. The node's kernel may have it as its default.
const REDIRECTED: [&str; 2] = ["trusted.overlay.redirect", "trusted.overlay.metacopy"];

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Read(#[from] ChangesError),
    #[error("/{path} cannot be in an image's layer: {why}")]
    Unfit { path: PathBuf, why: &'static str },
    #[error("the container has more than {max} files of its own, which an image's layer cannot have", max = MOST_ENTRIES)]
    TooMany,
    #[error("the layer cannot be written")]
    Write(#[source] io::Error),
}

/// Writes the writable layer of `dir`'s container, which may run, to `sink` and flushes that. The same layer gives the same bytes. A
/// file that changes meanwhile is cut, or filled up with zeros, to the size that it had when it was come to.
pub fn write(dir: &Path, sink: impl Write) -> Result<(), LayerError> {
    archive(&Layers::of(dir)?, sink)
}

fn archive(layers: &Layers, sink: impl Write) -> Result<(), LayerError> {
    let mut archive = Archive {
        layers,
        builder: tar::Builder::new(sink),
        levels: Vec::new(),
        links: BTreeMap::new(),
        entries: 0,
    };
    archive.enter(PathBuf::new(), layers.all(), false)?;
    while let Some(level) = archive.levels.last_mut() {
        let Some(name) = level.names.pop() else {
            archive.levels.pop();
            continue;
        };
        let (path, below) = (level.path.join(OsStr::from_bytes(&name)), level.below.clone());
        if !layers.is_left_out(&path) {
            archive.add(path, &name, &below)?;
        }
    }
    let written = archive.builder.into_inner().and_then(|mut sink| sink.flush());
    written.map_err(LayerError::Write)
}

struct Archive<'a, W: Write> {
    layers: &'a Layers,
    builder: tar::Builder<W>,
    /// The directories from the root down to where we are.
    levels: Vec<Level>,
    /// Files of several names, by device and inode: the first name of each.
    links: BTreeMap<(u64, u64), PathBuf>,
    entries: usize,
}

struct Level {
    path: PathBuf,
    /// What is in it and was not come to yet, the last first.
    names: Vec<Vec<u8>>,
    /// The layers that show through it.
    below: Vec<usize>,
    /// It was made for what is left out, and is written only when something else is found in it.
    unwritten: Option<File>,
}

impl<W: Write> Archive<'_, W> {
    fn add(&mut self, path: PathBuf, name: &[u8], below: &[usize]) -> Result<(), LayerError> {
        if self.levels.len() > DEEPEST {
            return Err(LayerError::Unfit { path, why: "it is too many directories deep" });
        }
        let unread = |source| ChangesError::Read { path: path.clone(), source };
        // It may be gone by now.
        let Some(held) = hold(&self.layers.upper, &path).map_err(unread)? else { return Ok(()) };
        let about = held.metadata().map_err(unread)?;
        let below = self.layers.below(&path, below).map_err(unread)?;
        if is_whiteout(&about) {
            return if below.seen.is_some() { self.hide(&path, name) } else { Ok(()) };
        }
        if name.starts_with(WHITEOUT) {
            let why = "a name that begins with `.wh.` means there that something is hidden";
            return Err(LayerError::Unfit { path, why });
        }
        let kind = about.file_type();
        if kind.is_dir() {
            let is_hollow = below.seen.is_none() && self.layers.leads_to_left_out(&path);
            self.enter(path, below.layers, is_hollow)
        } else if kind.is_socket() {
            Ok(())
        } else if kind.is_file() {
            self.file(path, &held)
        } else {
            self.node(path, &held, &about)
        }
    }

    /// What is in a directory comes next.
    fn enter(&mut self, path: PathBuf, below: Vec<usize>, is_hollow: bool) -> Result<(), LayerError> {
        let unread = |source| ChangesError::Read { path: path.clone(), source };
        let Some(directory) = directory(&self.layers.upper, &path).map_err(unread)? else { return Ok(()) };
        let directory = File::from(directory);
        let names = names(&directory, MOST_ENTRIES).map_err(|errno| unread(errno.into()))?;
        let names = names.ok_or(LayerError::TooMany)?;
        let is_opaque = is_opaque(&directory);
        let unwritten = if is_hollow {
            Some(directory)
        } else {
            self.directory(&path, &directory)?;
            None
        };
        // overlayfs marks most directories that a container makes. Where nothing shows through, there is nothing to hide.
        if is_opaque && !below.is_empty() {
            self.write(&Entry::mark(&path.join(OPAQUE)), io::empty())?;
        }
        let below = if is_opaque { Vec::new() } else { below };
        self.levels.push(Level { path, names, below, unwritten });
        Ok(())
    }

    fn directory(&mut self, path: &Path, directory: &File) -> Result<(), LayerError> {
        let about = directory.metadata().map_err(|source| read(path, source))?;
        let mut entry = Entry::directory(path, &about);
        entry.attributes = attributes(path, directory)?;
        self.write(&entry, io::empty())
    }

    fn hide(&mut self, path: &Path, name: &[u8]) -> Result<(), LayerError> {
        let mark = path.with_file_name(OsStr::from_bytes(&[WHITEOUT, name].concat()));
        self.write(&Entry::mark(&mark), io::empty())
    }

    fn file(&mut self, path: PathBuf, held: &File) -> Result<(), LayerError> {
        let unread = |source| read(&path, source);
        // The way of our own process to what is held, whatever has become of its name.
        let file = File::open(format!("/proc/self/fd/{}", held.as_raw_fd())).map_err(unread)?;
        let about = file.metadata().map_err(unread)?;
        if about.nlink() > 1 {
            let inode = (about.dev(), about.ino());
            if let Some(first) = self.links.get(&inode) {
                let entry = Entry::link(&path, first, &about);
                return self.write(&entry, io::empty());
            }
            self.links.insert(inode, path.clone());
        }
        let mut entry = Entry::file(&path, &about);
        entry.attributes = attributes(&path, &file)?;
        let left = about.len();
        self.write(&entry, Exactly { file, left })
    }

    /// A symbolic link, a pipe or a device.
    fn node(&mut self, path: PathBuf, held: &File, about: &Metadata) -> Result<(), LayerError> {
        let entry = if about.file_type().is_symlink() {
            let target = readlinkat(held, "", Vec::<u8>::new()).map_err(|errno| read(&path, errno.into()))?;
            Entry::symlink(&path, target.as_bytes(), about)
        } else {
            Entry::node(&path, about)
        };
        self.write(&entry, io::empty())
    }

    /// Writes an entry, after the directories that it is in.
    fn write(&mut self, entry: &Entry, content: impl io::Read) -> Result<(), LayerError> {
        let unwritten: Vec<(PathBuf, File)> = self
            .levels
            .iter_mut()
            .filter_map(|level| level.unwritten.take().map(|directory| (level.path.clone(), directory)))
            .collect();
        for (path, directory) in unwritten {
            self.directory(&path, &directory)?;
        }
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            return Err(LayerError::TooMany);
        }
        entry.write(&mut self.builder, content).map_err(LayerError::Write)
    }
}

fn read(path: &Path, source: io::Error) -> LayerError {
    ChangesError::Read { path: path.to_owned(), source }.into()
}

/// The names in a directory, the last first; `None` if there are more than `most`.
fn names(directory: &File, most: usize) -> Result<Option<Vec<Vec<u8>>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if names.len() >= most {
            return Ok(None);
        }
        names.push(name.to_vec());
    }
    names.sort_unstable();
    names.reverse();
    Ok(Some(names))
}

/// The attributes of an open file or directory that an image may have. Fails for one whose content is elsewhere.
fn attributes(path: &Path, file: &File) -> Result<Vec<(String, Vec<u8>)>, LayerError> {
    let unfit = |why| LayerError::Unfit { path: path.to_owned(), why };
    let unread = |errno: Errno| read(path, errno.into());
    match flistxattr_query(file) {
        // As nearly always.
        Ok(0) => return Ok(Vec::new()),
        Ok(_) => {}
        // A file system that knows none.
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(unread(errno)),
    }
    let mut list = vec![0; LARGEST_ATTRIBUTE];
    let length = flistxattr(file, &mut list[..]).map_err(unread)?;
    list.truncate(length);
    let (mut found, mut size) = (Vec::new(), 0);
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if REDIRECTED.iter().any(|redirected| redirected.as_bytes() == name) {
            return Err(unfit("overlayfs keeps a part of it in another place"));
        }
        let is_plain = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if !is_plain && name != b"security.capability" {
            continue;
        }
        // `=` would end the name there.
        let Some(text) = std::str::from_utf8(name).ok().filter(|name| !name.contains('=')) else {
            return Err(unfit("it has an attribute with a name that no archive can have"));
        };
        let mut value = vec![0; LARGEST_ATTRIBUTE];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // It was taken away meanwhile.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(unread(errno)),
        }
        size += name.len() + value.len();
        if size > MOST_ATTRIBUTES {
            return Err(unfit("it has too many attributes"));
        }
        found.push((text.to_owned(), value));
    }
    // A file system gives them in whichever order.
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
