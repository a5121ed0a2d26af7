//! The files of a task directory: their names, how they are written, and what the shim records in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use model::{Exit, Timestamp};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) const LAUNCH: &str = "launch.json";
pub(crate) const STATE: &str = "state.json";
pub(crate) const EXIT: &str = "exit.json";
pub(crate) const LOCK: &str = "shim.lock";
pub(crate) const SOCKET: &str = "shim.sock";
pub(crate) const STDERR: &str = "shim.err";
pub(crate) const LOG: &str = "log";
pub(crate) const UPPER: &str = "upper";
pub(crate) const WORK: &str = "work";
/// What the shim makes for libcontainer, in memory and seen by the shim alone; below it are the next five.
pub(crate) const BUNDLE: &str = "bundle";
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const ROOTFS: &str = "rootfs";
pub(crate) const FILES: &str = "files";
pub(crate) const MOUNTS: &str = "mounts";
pub(crate) const RUN: &str = "run";
/// Also in the bundle: what libcontainer is given for each process that joins the container, while it is made.
pub(crate) const EXECS: &str = "execs";

/// `state.json`: the container's first process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// On the node, not in the container.
    pub(crate) pid: i32,
    pub(crate) at_ms: u64,
    /// What was asked for and the host does not do.
    pub(crate) warnings: Vec<String>,
    #[serde(default)]
    pub(crate) paused: bool,
}

/// `exit.json`: it is over, and nothing of it is left but this directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit: ExitForm,
    pub(crate) at_ms: u64,
    /// For a person: why it did not start, or what could not be cleaned up.
    pub(crate) reason: Option<String>,
}

/// [`Exit`] as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExitForm {
    Code(u8),
    Signal { signal: u8, oom: bool },
    Unknown,
    NotStarted,
}

impl From<Exit> for ExitForm {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code(code),
            Exit::Signal { signal, oom } => Self::Signal { signal, oom },
            Exit::Unknown => Self::Unknown,
            Exit::NotStarted => Self::NotStarted,
        }
    }
}

impl From<ExitForm> for Exit {
    fn from(form: ExitForm) -> Self {
        match form {
            ExitForm::Code(code) => Self::Code(code),
            ExitForm::Signal { signal, oom } => Self::Signal { signal, oom },
            ExitForm::Unknown => Self::Unknown,
            ExitForm::NotStarted => Self::NotStarted,
        }
    }
}

/// The wall clock: what people compare a log and an exit with.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().plus(since)
}

/// Whether a record has to survive the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It means nothing after a reboot.
    Cached,
    /// It is the only witness of something that happened.
    Synced,
}

/// Writes `value` so that a reader sees either nothing (or what was there before) or all of it.
pub(crate) fn save(dir: &Path, name: &str, value: &impl Serialize, durability: Durability) -> io::Result<()> {
    let draft = dir.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if durability == Durability::Synced {
        file.sync_all()?;
    }
    std::fs::rename(&draft, dir.join(name))?;
    if durability == Durability::Synced {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not what gantry wrote there")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

/// Reads a record; `None` if it was never written.
pub(crate) fn load<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, LoadError> {
    let path = dir.join(name);
    match std::fs::read(&path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            Err(source) => Err(LoadError::Damaged { path, source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Read { path, source }),
    }
}

/// The same for a record that is written without a sync: one that a power cut has mangled was never written. Nothing that
/// it speaks of can have outlived that power cut. A record of a later version is not mangled, and stays an error.
pub(crate) fn load_unsynced<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, LoadError> {
    match load(dir, name) {
        Err(LoadError::Damaged { source, .. }) if source.is_eof() || source.is_syntax() => Ok(None),
        loaded => loaded,
    }
}

fn whole_file() -> libc::flock {
    let (kind, whence) = (libc::F_WRLCK as libc::c_short, libc::SEEK_SET as libc::c_short);
    libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Takes the lock that says "this shim lives"; `None` if another one has it. Keep the file open for ever, and never open
/// it again: closing any descriptor of it gives the lock up.
///
/// A POSIX record lock and not `flock`, because it belongs to the process: it goes away with the shim whatever else still
/// has the file open, children cloned by libcontainer included, it names its holder, and it survives no reboot. So no
/// process id has to be believed, and none that was given out again is ever mistaken for a shim. A forked child has a table
/// of descriptors of its own, which is what the kernel takes for the owner: it inherits no lock, and what it closes
/// gives none up.
pub(crate) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK))?;
    match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The process id of the shim that lives beside this directory.
pub(crate) fn lock_holder(dir: &Path) -> io::Result<Option<i32>> {
    let file = match File::open(dir.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut asked = whole_file();
    fcntl(&file, FcntlArg::F_GETLK(&mut asked))?;
    Ok((asked.l_type != libc::F_UNLCK as libc::c_short).then_some(asked.l_pid))
}

/// An error and what caused it in one line, for a record that outlives the process. A cause that the line already has is
/// not repeated: libcontainer's errors print their sources themselves.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let exits = [Exit::Code(7), Exit::Signal { signal: 9, oom: true }, Exit::Unknown, Exit::NotStarted];
        for exit in exits {
            let ended = Ended { exit: exit.into(), at_ms: 5, reason: None };
            save(dir.path(), EXIT, &ended, Durability::Synced).unwrap();
            assert_eq!(load::<Ended>(dir.path(), EXIT).unwrap(), Some(ended.clone()));
            assert_eq!(Exit::from(ended.exit), exit);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_and_a_missing_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load::<Ended>(dir.path(), EXIT).unwrap(), None);
        std::fs::write(dir.path().join(EXIT), "{\"exit\":").unwrap();
        let error = load::<Ended>(dir.path(), EXIT).unwrap_err();
        assert!(error.to_string().ends_with("exit.json is not what gantry wrote there"), "{error}");
    }

    #[test]
    fn a_record_that_a_power_cut_mangled_was_never_written() {
        let dir = tempfile::tempdir().unwrap();
        for mangled in ["", "\0\0\0", "{\"pid\":1"] {
            std::fs::write(dir.path().join(STATE), mangled).unwrap();
            assert_eq!(load_unsynced::<Started>(dir.path(), STATE).unwrap(), None, "{mangled:?}");
        }
        std::fs::write(dir.path().join(STATE), "{\"pid\":\"a later version's\"}").unwrap();
        assert!(load_unsynced::<Started>(dir.path(), STATE).is_err());
    }

    #[test]
    fn nobody_holds_the_lock_of_a_directory_without_a_shim() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lock_holder(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join(LOCK), "").unwrap();
        assert_eq!(lock_holder(dir.path()).unwrap(), None);
    }
}
