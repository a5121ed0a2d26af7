//! The ledger on disk, and where each task's directories are.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use model::{Subnet, TaskId};

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
            let path = entry.path().join(RECORD);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // Made and not yet written: nothing was started, since the record comes first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::remove_dir_all(entry.path()).map_err(|error| {
                        failure(&format!("cannot remove {}", entry.path().display()), &error)
                    })?;
                    continue;
                }
                Err(error) => return Err(failure(&format!("cannot read {}", path.display()), &error)),
            };
            match Record::decode(&bytes) {
                Ok(record) => records.push(record),
                // Records are not synced, so a power cut may leave an empty one; its container is gone with the machine,
                // and the next session tells what the task is.
                Err(error) if bytes.iter().all(|byte| *byte == 0) => {
                    tracing::warn!(path = %path.display(), %error, "a record that was never written out is dropped");
                }
                Err(error) => return Err(failure(&format!("{} is damaged", path.display()), &error)),
            }
        }
        records.sort_by_key(|record| record.assigned.id);
        Ok(records)
    }

    pub(crate) fn save(&self, record: &Record) -> Result<(), Failure> {
        let dir = self.task(record.assigned.id);
        let ended = record.status.as_ref().is_some_and(|status| status.ended.is_some());
        let kept = if ended { Kept::Synced } else { Kept::Cached };
        replace(&dir, RECORD, &record.encode(), kept)
            .map_err(|error| failure(&format!("cannot write {}", dir.join(RECORD).display()), &error))
    }

    pub(crate) fn forget(&self, task: TaskId) -> Result<(), Failure> {
        let dir = self.task(task);
        match fs::remove_dir_all(&dir) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failure(&format!("cannot remove {}", dir.display()), &error)),
        }
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
    fs::create_dir_all(dir)?;
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
