//! The containers' network namespaces, each held by a bind mount on a file that is named after its task. So they outlive
//! the daemon, and the names are a record of what there is.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use model::TaskId;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("cannot make {path} a place for network namespaces")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("cannot list {path}")]
    List { path: PathBuf, source: io::Error },
    #[error("cannot create a network namespace and pin it on {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot enter the network namespace {path}")]
    Enter { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
}

/// A task's namespace, which the calling thread is in.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) netns: File,
    /// It was made just now, so nothing is in it.
    pub(crate) is_new: bool,
}

/// The directory of pins.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// Makes the directory a shared mount of its own. Shims keep copies of all mounts in their own mount namespaces;
    /// only because this mount is shared does unpinning here let go of a namespace there too (as in ip-netns(8)).
    pub(crate) fn prepare(dir: PathBuf) -> Result<Self, PinError> {
        let prepared = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .and_then(|()| share(&dir).map_err(io::Error::from));
        match prepared {
            Ok(()) => Ok(Self { dir }),
            Err(source) => Err(PinError::Prepare { path: dir, source }),
        }
    }

    pub(crate) fn path(&self, task: TaskId) -> PathBuf {
        self.dir.join(task.to_string())
    }

    /// Moves the calling thread into the task's namespace, which is made if there is none. The thread is good for
    /// nothing else from then on, also when this fails.
    pub(crate) fn enter(&self, task: TaskId) -> Result<Entered, PinError> {
        let path = self.path(task);
        match enter_pinned(&path) {
            Ok(Some(netns)) => Ok(Entered { netns, is_new: false }),
            Ok(None) => match enter_new(&path) {
                Ok(netns) => Ok(Entered { netns, is_new: true }),
                Err(source) => Err(PinError::Create { path, source }),
            },
            Err(source) => Err(PinError::Enter { path, source }),
        }
    }

    /// Lets go of the task's namespace. The kernel frees it once no process is in it either.
    pub(crate) fn remove(&self, task: TaskId) -> Result<(), PinError> {
        let path = self.path(task);
        let gone = unmount_all(&path).and_then(|()| absent_is_fine(fs::remove_file(&path)));
        gone.map_err(|source| PinError::Remove { path, source })
    }

    /// The tasks that have a pin, finished or not. Files of other names are none of ours.
    pub(crate) fn tasks(&self) -> Result<BTreeSet<TaskId>, PinError> {
        list(&self.dir).map_err(|source| PinError::List { path: self.dir.clone(), source })
    }

    /// Undoes [`Pins::prepare`]. All pins must have been removed.
    pub(crate) fn close(&self) -> Result<(), PinError> {
        let gone = unmount_all(&self.dir).and_then(|()| absent_is_fine(fs::remove_dir(&self.dir)));
        gone.map_err(|source| PinError::Remove { path: self.dir.clone(), source })
    }
}

fn share(dir: &Path) -> nix::Result<()> {
    let set = |flags| mount(None::<&str>, dir, None::<&str>, flags, None::<&str>);
    match set(MsFlags::MS_SHARED) {
        // It is not a mount yet. Private first, or it would share with its parent and show each pin there as well.
        Err(Errno::EINVAL) => {
            mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            set(MsFlags::MS_PRIVATE)?;
            set(MsFlags::MS_SHARED)
        }
        outcome => outcome,
    }
}

/// `None` if there is no file, or one on which nothing was mounted: its maker was killed in between.
fn enter_pinned(path: &Path) -> io::Result<Option<File>> {
    let netns = match File::open(path) {
        Ok(netns) => netns,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if fstatfs(&netns)?.filesystem_type() != NSFS_MAGIC {
        return Ok(None);
    }
    setns(&netns, CloneFlags::CLONE_NEWNET)?;
    Ok(Some(netns))
}

fn enter_new(path: &Path) -> io::Result<File> {
    // Not readable by anyone: what is opened later is the namespace that is mounted over it.
    OpenOptions::new().create(true).write(true).truncate(false).mode(0o000).open(path)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    File::open(OWN)
}

fn list(dir: &Path) -> io::Result<BTreeSet<TaskId>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut tasks = BTreeSet::new();
    for entry in entries {
        if let Some(task) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            tasks.insert(task);
        }
    }
    Ok(tasks)
}

/// Unmounts whatever is mounted on a path, however often.
fn unmount_all(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
