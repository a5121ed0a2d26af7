//! The ledger on disk, and where each task's directories are.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use model::{Subnet, TaskId};
use runtime::removal;

use crate::host::Failure;
use crate::ledger::Record;
use crate::real::failure;

const RECORD: &str = "record";

#[derive(Clone, Debug)]
pub(crate) struct Disk {
    data: PathBuf,
}

impl Disk {
    pub(crate) fn new(data: PathBuf) -> Self {
        Self { data }
    }

    /// What of the node is gantry's own, and outlives the machine.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The layer with every container's mount points.
    pub(crate) fn skeleton(&self) -> PathBuf {
        self.data.join("skeleton")
    }

    fn tasks(&self) -> PathBuf {
        self.data.join("tasks")
    }

    fn task(&self, task: TaskId) -> PathBuf {
        self.tasks().join(task.to_string())
    }

    pub(crate) fn attempt(&self, task: TaskId, attempt: u32) -> PathBuf {
        self.task(task).join(attempt.to_string())
    }

    /// The directories of a task's attempts, oldest first.
    pub(crate) fn attempts(&self, task: TaskId) -> Vec<(u32, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.task(task)) else { return Vec::new() };
        let number = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let attempt = entry.file_name().to_str()?.parse().ok()?;
            Some((attempt, entry.path()))
        };
        let mut attempts: Vec<(u32, PathBuf)> = entries.filter_map(number).collect();
        attempts.sort();
        attempts
    }

    pub(crate) fn records(&self) -> Result<Vec<Record>, Failure> {
        let tasks = self.tasks();
        let entries = match fs::read_dir(&tasks) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failure(&format!("cannot read {}", tasks.display()), &error)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let entry =
                entry.map_err(|error| failure(&format!("cannot read {}", tasks.display()), &error))?;
            match read(&entry.path())? {
                Some(record) => records.push(record),
                // Nothing was started, since the record comes first, or it is gone with the machine.
                None => remove(&entry.path())?,
            }
        }
        records.sort_by_key(|record| record.assigned.id);
        Ok(records)
    }

    pub(crate) fn record(&self, task: TaskId) -> Result<Option<Record>, Failure> {
        read(&self.task(task))
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), Failure> {
        let dir = self.task(record.assigned.id);
        let ended = record.status.as_ref().is_some_and(|status| status.ended.is_some());
        let kept = if ended { Kept::Synced } else { Kept::Cached };
        replace(&dir, RECORD, &record.encode(), kept)
            .map_err(|error| failure(&format!("cannot write {}", dir.join(RECORD).display()), &error))
    }

    pub(crate) fn forget(&self, task: TaskId) -> Result<(), Failure> {
        remove(&self.task(task))
    }

    pub(crate) fn subnet(&self) -> Result<Option<Subnet>, Failure> {
        let path = self.data.join("subnet");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failure(&format!("cannot read {}", path.display()), &error)),
        };
        // A torn write is as good as none: the next session brings it again.
        let Some((base, prefix)) = text.trim().split_once('/') else { return Ok(None) };
        let Ok(prefix) = prefix.parse() else { return Ok(None) };
        Ok(wire::subnet(base, prefix).ok())
    }

    pub(crate) fn keep_subnet(&self, subnet: Subnet) -> Result<(), Failure> {
        if self.subnet()? == Some(subnet) {
            return Ok(());
        }
        replace(&self.data, "subnet", subnet.to_string().as_bytes(), Kept::Cached)
            .map_err(|error| failure(&format!("cannot write {}", self.data.join("subnet").display()), &error))
    }
}

/// The record in a task's directory. `None` if it was never written, or never written out: records are not synced, so a
/// power cut may leave an empty one. The task's container is gone with the machine then, and the next session tells what
/// the task is.
fn read(dir: &Path) -> Result<Option<Record>, Failure> {
    let path = dir.join(RECORD);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure(&format!("cannot read {}", path.display()), &error)),
    };
    match Record::decode(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(error) if bytes.iter().all(|byte| *byte == 0) => {
            tracing::warn!(path = %path.display(), %error, "a record that was never written out is dropped");
            Ok(None)
        }
        Err(error) => Err(failure(&format!("{} is damaged", path.display()), &error)),
    }
}

/// Makes a directory, and what it is in, for root alone: what containers write is there as it is, other people's setuid programs
/// among it, and no user of the node's is to come near.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Containers have written to it, and may have nested in it what they liked.
fn remove(dir: &Path) -> Result<(), Failure> {
    removal::remove(dir).map_err(|error| failure(&format!("cannot remove {}", dir.display()), &error))
}

/// How a file outlives its writer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// It survives the agent.
    Cached,
    /// It survives the machine: once an end is known, the task's address and ports are given to others.
    Synced,
}

/// Replaces a file's content at once: a reader sees the old or the new.
fn replace(dir: &Path, name: &str, content: &[u8], kept: Kept) -> io::Result<()> {
    make_dir(dir)?;
    let draft = dir.join(format!("{name}.new"));
    let mut file = fs::File::create(&draft)?;
    file.write_all(content)?;
    if kept == Kept::Synced {
        file.sync_all()?;
    }
    fs::rename(&draft, dir.join(name))?;
    if kept == Kept::Synced {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    use model::Desired;
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    use super::*;
    use crate::host::fake::assigned;

    /// As a container may leave it: deeper than any path is long.
    fn nest(root: &Path) {
        let enter = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = openat(CWD, root, enter, Mode::empty()).unwrap();
        for _ in 0..10_000 {
            mkdirat(at.as_fd(), "nest", Mode::RWXU).unwrap();
            at = openat(at.as_fd(), "nest", enter, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn what_containers_have_nested_keeps_no_agent_from_starting() {
        let data = tempfile::tempdir().unwrap();
        let disk = Disk::new(data.path().to_owned());
        let record = Record::new(assigned(Desired::Running));
        let id = record.assigned.id;
        // A record that a power cut took, and one whose task is over.
        for saved in [false, true] {
            fs::create_dir_all(disk.attempt(id, 1)).unwrap();
            nest(&disk.attempt(id, 1));
            if saved {
                disk.save(&record).unwrap();
                disk.forget(id).unwrap();
            }
            assert_eq!(disk.records(), Ok(Vec::new()));
            assert!(!disk.task(id).exists());
        }
    }

    #[test]
    fn a_record_reads_back_and_what_was_never_written_out_is_none() {
        let data = tempfile::tempdir().unwrap();
        let disk = Disk::new(data.path().to_owned());
        let record = Record { failures: 2, remains: true, ..Record::new(assigned(Desired::Running)) };
        let id = record.assigned.id;
        assert_eq!(disk.record(id), Ok(None));
        disk.save(&record).unwrap();
        let mode = fs::metadata(disk.tasks()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "it is for root alone, whatever the data directory is");
        assert_eq!(disk.record(id), Ok(Some(record.clone())));
        assert_eq!(disk.records(), Ok(vec![record]));

        fs::write(disk.task(id).join(RECORD), [0u8; 16]).unwrap();
        fs::create_dir(disk.attempt(id, 1)).unwrap();
        assert_eq!(disk.record(id), Ok(None));
        assert_eq!(disk.records(), Ok(Vec::new()));
        assert!(disk.attempts(id).is_empty(), "nothing of a lost life is taken for a part of the next");

        fs::create_dir(disk.task(id)).unwrap();
        fs::write(disk.task(id).join(RECORD), [7u8; 16]).unwrap();
        assert!(disk.records().is_err());
    }
}
