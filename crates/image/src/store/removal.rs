//! Removing what is not needed any more, whatever somebody made of it.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::blob::DiskError;

/// How deep a tree is gone into: each level takes a descriptor and some stack. The deepest real ones have some 60.
const LEVELS: usize = 64;

/// How often a directory is emptied that is never empty.
const AGAIN: usize = 10;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a file or a whole tree; it may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), DiskError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::new("remove", path, error)),
        _ => Ok(()),
    }
}

/// Removes a tree however deep it is: what is too deep is moved up to its top first. A layer that has taken its unpacker
/// over is held to no limit of ours, and `fs::remove_dir_all` overflows the stack some thousand levels down, of which a
/// store could not even be opened again.
///
/// A process that was unpacking dies with the daemon that asked for it; but the next daemon may be here before it has made
/// its last file, which then is in a directory that was taken for empty.
fn remove_tree(path: &Path) -> io::Result<()> {
    let top = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
    let mut lifted = 0;
    let mut tries_left = AGAIN;
    loop {
        let before = lifted;
        empty(&mut Dir::read_from(&top)?, top.as_fd(), LEVELS, &mut lifted)?;
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && lifted > before => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries_left > 0 => {
                tries_left -= 1;
            }
            removed => return removed,
        }
    }
}

/// Removes what is in the directory, but for directories that are so many levels below it, which are moved to `top`.
fn empty(directory: &mut Dir, top: BorrowedFd<'_>, levels: usize, lifted: &mut u64) -> io::Result<()> {
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let (at, name) = (directory.fd()?, entry.file_name());
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        }
        if levels == 0 {
            lift(at, name, top, lifted)?;
            continue;
        }
        let below = rustix::fs::openat(at, name, DIRECTORY, Mode::empty())?;
        empty(&mut Dir::new(below)?, top, levels - 1, lifted)?;
        match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
            // What is in it again is found the next time.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Moves a directory to `top`, under a name that is free there.
fn lift(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, lifted: &mut u64) -> io::Result<()> {
    loop {
        let free = format!(".lifted-{lifted}");
        *lifted += 1;
        match rustix::fs::renameat(from, name, top, free.as_str()) {
            // The tree has one of this name.
            Err(Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
            renamed => return Ok(renamed?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory in a directory, and so on, each with a file.
    fn nest(root: &Path, depth: usize) {
        let mut at = rustix::fs::openat(CWD, root, DIRECTORY, Mode::empty()).unwrap();
        let file = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        for _ in 0..depth {
            drop(rustix::fs::openat(&at, "file", file, Mode::RUSR).unwrap());
            rustix::fs::mkdirat(&at, "nest", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "nest", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_is_removed_however_deep_it_is() {
        let root = tempfile::tempdir().unwrap();
        for depth in [0, 1, LEVELS - 1, LEVELS, LEVELS + 1, 3 * LEVELS, 10_000] {
            let tree = root.path().join("tree");
            fs::create_dir_all(tree.join("wide")).unwrap();
            fs::create_dir_all(tree.join(".lifted-1/kept")).unwrap();
            fs::write(tree.join(".lifted-2"), "").unwrap();
            nest(&tree, depth);
            nest(&tree.join("wide"), depth.min(3 * LEVELS));
            remove(&tree).unwrap();
            assert!(!tree.exists(), "{depth}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_link_leads_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let (outside, tree) = (root.path().join("outside"), root.path().join("tree"));
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::create_dir_all(&tree).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        remove(&tree).unwrap();
        remove(&tree).unwrap();
        assert!(outside.join("dir").exists() && !tree.exists());
        std::os::unix::fs::symlink(&outside, &tree).unwrap();
        remove(&tree).unwrap();
        assert!(outside.join("dir").exists() && !tree.exists());
    }
}
