//! Each kind of entry, as it comes to be in the tree.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::FileType;

use super::LayerError;
use super::tree::{Directory, Spot, There, Tree, times};
use crate::path::{Clean, shown};
use crate::tape::{Entry, Kind, Segment, Tape};

/// What marks a whiteout in a layer's tar (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Bookkeeping of aufs, which old versions of Docker let into layers.
const AUFS: &[u8] = b".wh..wh.";

const COPY: usize = 128 << 10;

/// Makes one entry. `path` is the entry's, made safe; the tape stands at its content.
pub(super) fn place<R: Read>(
    tree: &mut Tree,
    entry: &Entry,
    path: &Clean,
    tape: &mut Tape<R>,
) -> Result<(), LayerError> {
    let Some((parent, name)) = path.split() else {
        tree.defer_time(b"", entry.modified);
        let made = tree.root().and_then(|root| tree.dress(&root.fd, entry));
        return made.map_err(|error| LayerError::place(entry, "make", error));
    };
    let parent = tree.directory(parent, true);
    let parent = parent.map_err(|error| LayerError::place(entry, "open the directory of", error))?;
    let spot = Spot { directory: &parent, name };
    if name.starts_with(WHITEOUT) {
        return whiteout(tree, entry, spot);
    }
    let made = match &entry.kind {
        Kind::Directory => return directory(tree, entry, path, spot),
        Kind::File { size, segments } => file(tree, entry, spot, (*size, segments), tape),
        Kind::Symlink { target } => symlink(tree, entry, spot, target),
        Kind::HardLink { target } => return hard_link(tree, entry, spot, target),
        Kind::Fifo => node(tree, entry, spot, (FileType::Fifo, 0)),
        // Docker makes devices too. A container opens only those that its cgroup allows, and nobody else gets in here.
        Kind::CharacterDevice { major, minor } => {
            node(tree, entry, spot, (FileType::CharacterDevice, rustix::fs::makedev(*major, *minor)))
        }
        Kind::BlockDevice { major, minor } => {
            node(tree, entry, spot, (FileType::BlockDevice, rustix::fs::makedev(*major, *minor)))
        }
    };
    made.map_err(|error| LayerError::place(entry, "make", error))
}

fn directory(tree: &mut Tree, entry: &Entry, path: &Clean, spot: Spot<'_>) -> Result<(), LayerError> {
    let failed = |error: io::Error| LayerError::place(entry, "make", error);
    let before = spot.there().map_err(failed)?;
    let made = open_or_make(spot, before).map_err(failed)?;
    tree.dress(&made.fd, entry).map_err(failed)?;
    if before == There::Whiteout {
        // The layer hides the directory below and then has one of its own: without the mark they would be merged.
        hide_below(tree, entry, &made)?;
    }
    tree.defer_time(path.as_bytes(), entry.modified);
    Ok(())
}

fn open_or_make(spot: Spot<'_>, before: There) -> io::Result<Directory> {
    if before != There::Directory {
        spot.make_way(before)?;
        spot.make_directory()?;
    }
    spot.open_directory()
}

fn hide_below(tree: &mut Tree, entry: &Entry, directory: &Directory) -> Result<(), LayerError> {
    let over = |source| LayerError::Limit { entry: shown(&entry.path), source };
    tree.hide_below(directory).map_err(over)
}

fn file<R: Read>(
    tree: &mut Tree,
    entry: &Entry,
    spot: Spot<'_>,
    (size, segments): (u64, &[Segment]),
    tape: &mut Tape<R>,
) -> io::Result<()> {
    spot.make_way(spot.there()?)?;
    let file = spot.make_file()?;
    let mut buffer = vec![0; usize::try_from(size).map_or(COPY, |size| size.min(COPY))];
    for segment in segments {
        let mut at = segment.offset;
        let end = segment.offset + segment.length;
        while at < end {
            let most = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            tape.read_exact(&mut buffer[..most])?;
            file.write_all_at(&buffer[..most], at)?;
            at += most as u64;
        }
    }
    // Where it ends with a hole.
    if segments.last().map_or(0, |last| last.offset + last.length) < size {
        file.set_len(size)?;
    }
    tree.dress(&file, entry)?;
    Ok(rustix::fs::futimens(&file, &times(entry.modified))?)
}

fn symlink(tree: &mut Tree, entry: &Entry, spot: Spot<'_>, target: &[u8]) -> io::Result<()> {
    spot.make_way(spot.there()?)?;
    // Wherever it points: it is only ever followed inside the container, or with RESOLVE_IN_ROOT.
    spot.make_symlink(target)?;
    tree.skip_xattrs(entry);
    spot.dress(entry, true)
}

fn node(tree: &mut Tree, entry: &Entry, spot: Spot<'_>, (kind, device): (FileType, u64)) -> io::Result<()> {
    spot.make_way(spot.there()?)?;
    spot.make_node(kind, device)?;
    tree.skip_xattrs(entry);
    spot.dress(entry, false)
}

/// Owner, mode and time are the target's own: its entry came first.
fn hard_link(tree: &mut Tree, entry: &Entry, spot: Spot<'_>, target: &[u8]) -> Result<(), LayerError> {
    let absent = || LayerError::refused(entry, "the entry that it is another name of is not in the layer");
    let target =
        Clean::new(target).map_err(|_| LayerError::refused(entry, "its target leads out of the layer"))?;
    let Some((directory, name)) = target.split() else {
        return Err(LayerError::refused(entry, "a directory cannot have two names"));
    };
    let directory = match tree.directory(directory, false) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent()),
        Err(error) => return Err(LayerError::place(entry, "find the target of", error)),
    };
    let target = Spot { directory: &directory, name };
    match target.there().map_err(|error| LayerError::place(entry, "find the target of", error))? {
        There::Nothing => Err(absent()),
        There::Directory => Err(LayerError::refused(entry, "a directory cannot have two names")),
        There::Whiteout | There::Other => {
            link(target, spot).map_err(|error| LayerError::place(entry, "link", error))
        }
    }
}

fn link(target: Spot<'_>, spot: Spot<'_>) -> io::Result<()> {
    let before = spot.there()?;
    if before != There::Nothing && target.inode()? == spot.inode()? {
        return Ok(());
    }
    spot.make_way(before)?;
    target.link_to(spot)
}

/// A whiteout hides what is below this layer and nothing that is in it, in whatever order they come.
fn whiteout(tree: &mut Tree, entry: &Entry, spot: Spot<'_>) -> Result<(), LayerError> {
    let failed = |error: io::Error| LayerError::place(entry, "apply", error);
    if spot.name == OPAQUE_WHITEOUT {
        return hide_below(tree, entry, spot.directory);
    }
    if spot.name.starts_with(AUFS) {
        return Ok(());
    }
    let name = &spot.name[WHITEOUT.len()..];
    if name.is_empty() || name == b"." || name == b".." {
        return Err(LayerError::refused(entry, "a whiteout has to name what it hides"));
    }
    let hidden = Spot { directory: spot.directory, name };
    match hidden.there().map_err(failed)? {
        There::Nothing => hidden.make_node(FileType::CharacterDevice, 0).map_err(failed),
        There::Directory => hide_below(tree, entry, &hidden.open_directory().map_err(failed)?),
        There::Whiteout | There::Other => Ok(()),
    }
}
