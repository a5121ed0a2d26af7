//! One command at a time works on a cluster.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// What a command says that has to wait for the lock.
pub(crate) const WAITING: &str = "waiting for another `gantry dev` command to finish";

/// Held by the command; gone with it, however it ends. The lock is on the cluster's folder itself, so that nothing is
/// left of it, and no child inherits it.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: File,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot lock {path}")]
pub(crate) struct LockError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Waits for the lock on an existing folder; `None` if there is none. `waiting` is called once if another command has
/// it.
pub(crate) fn acquire(dir: &Path, waiting: impl FnOnce()) -> Result<Option<Lock>, LockError> {
    let mut waiting = Some(waiting);
    loop {
        let locked = lock(dir, &mut waiting).and_then(|folder| {
            let now = fs::metadata(dir)?;
            let held = folder.metadata()?;
            Ok(((now.dev(), now.ino()) == (held.dev(), held.ino())).then_some(Lock { _folder: folder }))
        });
        match locked {
            Ok(Some(lock)) => return Ok(Some(lock)),
            // The folder that is locked now was removed and made again in the meantime.
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LockError { path: dir.to_owned(), source }),
        }
    }
}

fn lock(dir: &Path, waiting: &mut Option<impl FnOnce()>) -> io::Result<File> {
    let folder = File::open(dir)?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            flock(&folder, FlockOperation::LockExclusive)?;
        }
        outcome => outcome?,
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_command_waits_and_a_removed_cluster_has_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("dev");
        assert!(acquire(&folder, || {}).unwrap().is_none());
        fs::create_dir(&folder).unwrap();
        let first = acquire(&folder, || panic!("nobody has it")).unwrap().unwrap();
        std::thread::scope(|scope| {
            let (told, tells) = std::sync::mpsc::channel();
            let second = scope.spawn({
                let folder = folder.clone();
                move || acquire(&folder, || told.send(()).unwrap()).unwrap()
            });
            tells.recv().unwrap();
            // The first command was a `down`: what the second gets hold of is no longer the cluster's.
            fs::remove_dir(&folder).unwrap();
            drop(first);
            assert!(second.join().unwrap().is_none());
        });
    }
}
