//! Removing what containers have written, whatever they made of it.
//!
//! `fs::remove_dir_all` takes a descriptor and some stack for each level of a tree, and a container can nest a hundred thousand:
//! the agent would be brought down by it, or never get the container's directory away. The image store has the same trouble
//! with layers, and its own answer to it, since neither of the two crates knows the other.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags, ioctl_getflags, ioctl_setflags, openat,
    openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

/// How deep a tree is gone into: each level takes a descriptor and some stack. The deepest real ones have some 60.
const LEVELS: usize = 64;

/// How often a directory is emptied that is never empty: one that somebody still writes to.
const AGAIN: usize = 10;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is mounted in a tree is not of the tree: whatever has come to be there, it is not what is to be removed.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Removes a file or a whole tree, however deep it is and whatever is called what in it. One that is not there is removed
/// already. What is mounted in it is left, and makes this fail.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is too deep is moved up to the top of the tree, and removed from there.
fn remove_tree(path: &Path) -> io::Result<()> {
    let top = openat(CWD, path, DIRECTORY, Mode::empty())?;
    loosen(top.as_fd());
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

/// Removes what is in the directory, but for directories that are so many levels below it, which are moved to `top`. What goes
/// meanwhile is gone.
fn empty(directory: &mut Dir, top: BorrowedFd<'_>, levels: usize, lifted: &mut u64) -> io::Result<()> {
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let (at, name) = (directory.fd()?, entry.file_name());
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlink(at, name) {
            Err(Errno::ISDIR) => {}
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno.into()),
        }
        if levels == 0 {
            lift(at, name, top, lifted)?;
            continue;
        }
        let below = match openat2(at, name, DIRECTORY, Mode::empty(), INSIDE) {
            Err(Errno::NOENT) => continue,
            below => below?,
        };
        empty(&mut Dir::new(below)?, top, levels - 1, lifted)?;
        match unlinkat(at, name, AtFlags::REMOVEDIR) {
            // What is in it again is found the next time.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Removes what is not a directory. Kernels before 5.15 let a container that has CAP_LINUX_IMMUTABLE see to it that its files
/// may not be.
fn unlink(at: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::PERM) => {
            loosen(at);
            loosen_entry(at, name);
            unlinkat(at, name, AtFlags::empty())
        }
        unlinked => unlinked,
    }
}

/// The kernel keeps it of files and directories alone; to open a device can be to act.
fn loosen_entry(at: BorrowedFd<'_>, name: &CStr) {
    let Ok(about) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
    if !matches!(FileType::from_raw_mode(about.st_mode), FileType::RegularFile | FileType::Directory) {
        return;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(entry) = openat(at, name, flags, Mode::empty()) {
        loosen(entry.as_fd());
    }
}

/// Takes away what keeps a file, or what is in a directory, from being changed. Where that fails, what is tried next tells.
fn loosen(file: BorrowedFd<'_>) {
    let held = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = ioctl_getflags(file)
        && flags.intersects(held)
    {
        let _still_held = ioctl_setflags(file, flags.difference(held));
    }
}

/// Moves a directory to `top`, under a name that is free there.
fn lift(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, lifted: &mut u64) -> io::Result<()> {
    loop {
        let free = format!(".lifted-{lifted}");
        *lifted += 1;
        match renameat(from, name, top, free.as_str()) {
            Err(Errno::NOENT) => return Ok(()),
            // The tree has one of this name.
            Err(Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
            renamed => return Ok(renamed?),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    /// A directory in a directory, and so on, some with a file.
    pub(crate) fn nest(root: &Path, depth: usize) {
        let mut at = openat(CWD, root, DIRECTORY, Mode::empty()).unwrap();
        let file = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        for level in 0..depth {
            if level % 16 == 0 {
                drop(openat(&at, "file", file, Mode::RUSR).unwrap());
            }
            rustix::fs::mkdirat(&at, "nest", Mode::RWXU).unwrap();
            at = openat(&at, "nest", DIRECTORY, Mode::empty()).unwrap();
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
    fn a_tree_is_removed_whatever_is_called_what_in_it() {
        let root = tempfile::tempdir().unwrap();
        let longest = [b'x'; 255];
        let names: [&[u8]; 9] =
            [b"\xff\xfe", b"\n", b" ", b"...", b"-rf", b"\\", b"*", "\u{202e}x".as_bytes(), &longest];
        for name in names {
            let tree = root.path().join("tree");
            let odd = tree.join(OsStr::from_bytes(name));
            fs::create_dir_all(odd.join(OsStr::from_bytes(name))).unwrap();
            fs::write(odd.join("file"), "").unwrap();
            fs::write(tree.join(OsStr::from_bytes(b"\x80 file")), "").unwrap();
            nest(&odd, LEVELS + 1);
            remove(&tree).unwrap();
            assert!(!tree.exists(), "{}", name.escape_ascii());
        }
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

    #[test]
    fn what_may_not_be_changed_is_removed_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        let held = |path: &Path, flag: IFlags| {
            let file = fs::File::open(path).unwrap();
            // Not every file system keeps such flags, and only root may set them.
            let Ok(flags) = ioctl_getflags(&file) else { return false };
            ioctl_setflags(&file, flags | flag).is_ok()
        };
        fs::create_dir_all(tree.join("dir/inner")).unwrap();
        for file in ["file", "dir/file"] {
            fs::write(tree.join(file), "").unwrap();
        }
        let paths = ["file", "dir/file", "dir/inner", "dir", ""].map(|path| tree.join(path));
        let flags = [IFlags::IMMUTABLE, IFlags::APPEND];
        let all_held =
            paths.iter().zip(flags.into_iter().cycle()).filter(|(path, flag)| held(path, *flag)).count();
        assert!(all_held == 0 || fs::remove_dir_all(&tree).is_err(), "it may not be removed");
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
