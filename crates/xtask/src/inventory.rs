//! What there is of gantry on this machine, and of what it could leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command::Call;
use crate::{procs, wait};

/// The kernel takes a moment to be done with a namespace's devices and a dead process's mounts.
const SETTLING: Duration = Duration::from_secs(15);

/// The most differences that a message names.
const NAMED: usize = 20;

/// Each thing by what kind it is and a name that is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inventory(BTreeSet<(&'static str, String)>);

/// What belongs to a cluster, or to nobody in particular. Files of other clusters come and go.
pub(crate) fn take(cluster: &str) -> Result<Inventory> {
    let mut things = BTreeSet::new();
    let mut add = |kind, names: Vec<String>| things.extend(names.into_iter().map(|name| (kind, name)));
    add("process", processes()?);
    add("namespace", namespaces()?);
    add("mount", mounts("/proc/self/mountinfo")?);
    add("cgroup", cgroups(procs::CGROUP)?);
    add("interface", interfaces("/proc/self/net/dev")?);
    add("nft table", tables()?);
    for root in [Path::new("/run/gantry"), &dev_root()] {
        add("file", top(root));
        add("file", files(&root.join(cluster), &|_| true));
    }
    Ok(Inventory(things))
}

/// Waits until all is as it was `before`; an error that names what is not.
pub(crate) fn demand_equal(cluster: &str, before: &Inventory) -> Result<()> {
    let mut differences = Vec::new();
    let equal = wait::until("nothing to be left", SETTLING, || {
        differences = before.differences(&take(cluster)?);
        Ok(differences.is_empty().then_some(()))
    });
    match equal {
        Ok(()) => Ok(()),
        Err(error) if differences.is_empty() => Err(error),
        Err(_) => {
            let named: String =
                differences.iter().take(NAMED).map(|thing| format!("\n    {thing}")).collect();
            bail!("{} things are not as they were before:{named}", differences.len())
        }
    }
}

impl Inventory {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    fn differences(&self, after: &Self) -> Vec<String> {
        let left = after.0.difference(&self.0).map(|(kind, name)| format!("left behind: {kind} {name}"));
        let gone = self.0.difference(&after.0).map(|(kind, name)| format!("gone: {kind} {name}"));
        left.chain(gone).collect()
    }
}

/// Where dev clusters keep their disks.
pub(crate) fn dev_root() -> PathBuf {
    let given = std::env::var_os("GANTRY_DEV_ROOT").filter(|root| !root.is_empty());
    given.map_or_else(|| PathBuf::from("/var/lib/gantry-dev"), PathBuf::from)
}

fn processes() -> Result<Vec<String>> {
    let gantrys = procs::all()?.into_iter().filter(procs::Found::is_gantrys);
    Ok(gantrys.map(|found| format!("{} ({})", found.process.pid, found.name)).collect())
}

/// Those that a process is in. One that is pinned instead shows as a mount.
fn namespaces() -> Result<Vec<String>> {
    let all = procs::all()?.into_iter();
    Ok(all.flat_map(|found| procs::namespaces(found.process.pid).into_values()).collect())
}

/// The mounts that a process sees, by `/proc/<pid>/mountinfo`: where, which part, what kind.
pub(crate) fn mounts(mountinfo: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(mountinfo).with_context(|| format!("cannot read {mountinfo}"))?;
    let describe = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (part, at) = (fields.next()?, fields.next()?);
        Some(format!("{at} ({} {part})", after.split(' ').next()?))
    };
    Ok(text.lines().filter_map(describe).collect())
}

/// The cgroups in any hierarchy below the one of this path, and itself.
pub(crate) fn cgroups(below: &str) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind.starts_with("cgroup") && at.starts_with("/sys/fs/cgroup")).then_some(at)
    });
    let mut cgroups = Vec::new();
    for hierarchy in hierarchies {
        descend(&Path::new(hierarchy).join(below), &mut cgroups);
    }
    Ok(cgroups)
}

fn descend(dir: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    found.push(dir.display().to_string());
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        descend(&entry.path(), found);
    }
}

/// The interfaces in a process's network namespace, by `/proc/<pid>/net/dev`.
pub(crate) fn interfaces(dev: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(dev).with_context(|| format!("cannot read {dev}"))?;
    // Two lines of headings.
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).collect())
}

fn tables() -> Result<Vec<String>> {
    let text = Call::of("nft").args(["list", "tables"]).read()?;
    Ok(text.lines().map(|line| line.trim_start_matches("table ").to_owned()).collect())
}

/// What is directly in a directory; nothing if there is none.
fn top(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// Everything below a directory, of whatever kind, without following links. `enter` says of a directory whether to look
/// into it.
pub(crate) fn files(dir: &Path, enter: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            found.push(path.display().to_string());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && enter(&path) {
                pending.push(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(things: &[(&'static str, &str)]) -> Inventory {
        Inventory(things.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect())
    }

    #[test]
    fn what_came_and_what_went_are_both_differences() {
        let before = inventory(&[("mount", "/a"), ("file", "/x")]);
        let after = inventory(&[("mount", "/a"), ("mount", "/b")]);
        assert_eq!(before.differences(&after), ["left behind: mount /b", "gone: file /x"]);
        assert_eq!(before.differences(&before), [""; 0]);
    }

    #[test]
    fn files_are_found_at_any_depth_unless_a_directory_is_not_to_be_entered() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "").unwrap();
        assert_eq!(files(dir.path(), &|_| true).len(), 3);
        assert_eq!(files(dir.path(), &|path| !path.ends_with("b")).len(), 2);
        assert_eq!(files(&dir.path().join("absent"), &|_| true).len(), 0);
    }

    #[test]
    fn this_process_has_mounts_and_a_loopback_interface() {
        assert!(
            mounts("/proc/self/mountinfo").unwrap().iter().any(|mount| mount.starts_with("/proc (proc "))
        );
        assert!(interfaces("/proc/self/net/dev").unwrap().contains(&"lo".to_owned()));
    }
}
