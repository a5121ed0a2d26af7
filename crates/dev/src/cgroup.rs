//! The control groups of a cluster, whichever way the host has them (v1, v2, both): who lives in them, and their end.
//!
//! A path is absolute in the hierarchy (`/gantry-dev/dev/n1`) and the same in each. Every process of a node is in its
//! node's part of at least one hierarchy: holder and daemon are put there before they do anything, and what a daemon
//! starts either inherits it or is moved below it. That is what makes `crash` and `down` complete.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::process::Signal;

use crate::process::{deliver, open_pidfd, reap, wait_for_any};

/// Where this host keeps its cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies(Vec<Hierarchy>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// A new v1 cpuset has no CPUs, and nothing can be moved into it.
    cpuset: bool,
    pids: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read this machine's mounts")]
    Mounts(#[source] io::Error),
    #[error("cannot move into cgroup {path}")]
    Enter { path: PathBuf, source: io::Error },
    #[error("cannot read the members of cgroup {path}")]
    Members { path: PathBuf, source: io::Error },
    #[error("cannot kill process {pid} of cgroup {path}")]
    Kill { path: String, pid: i32, source: io::Error },
    #[error("processes {pids:?} of cgroup {path} outlived SIGKILL; they wait for a device or a network disk")]
    Unkillable { path: String, pids: Vec<i32> },
    #[error("cannot remove cgroup {path}")]
    Remove { path: PathBuf, source: io::Error },
}

/// Between two looks at something that the kernel finishes by itself and does not announce.
const PAUSE: Duration = Duration::from_millis(5);

impl Hierarchies {
    pub(crate) fn find() -> Result<Self, CgroupError> {
        fs::read_to_string("/proc/self/mounts")
            .map(|mounts| Self::parse(&mounts))
            .map_err(CgroupError::Mounts)
    }

    /// `mounts` in the form of fstab(5). A container's view of cgroups, bound elsewhere, is not the host's.
    fn parse(mounts: &str) -> Self {
        let hierarchy = |line: &str| {
            let mut fields = line.split(' ');
            let (_source, mount, kind, options) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let v1 = |name: &str| kind == "cgroup" && options.split(',').any(|option| option == name);
            let (cpuset, pids) = (v1("cpuset"), v1("pids") || kind == "cgroup2");
            let ours = mount.starts_with("/sys/fs/cgroup") && ["cgroup", "cgroup2"].contains(&kind);
            ours.then(|| Hierarchy { mount: mount.into(), cpuset, pids })
        };
        Self(mounts.lines().filter_map(hierarchy).collect())
    }

    /// Whether containers can be confined here.
    pub(crate) fn are_usable(&self) -> bool {
        self.0.iter().any(|hierarchy| hierarchy.pids)
    }

    fn dirs(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        let path = path.trim_start_matches('/').to_owned();
        self.0.iter().map(move |hierarchy| hierarchy.mount.join(&path))
    }

    /// Whether any hierarchy has such a cgroup.
    pub(crate) fn have(&self, path: &str) -> bool {
        self.dirs(path).any(|dir| dir.exists())
    }

    /// Moves the calling process into a cgroup, which is made where it is missing.
    pub(crate) fn enter(&self, path: &str) -> Result<(), CgroupError> {
        for (hierarchy, dir) in self.0.iter().zip(self.dirs(path)) {
            if hierarchy.cpuset {
                continue;
            }
            fs::create_dir_all(&dir)
                .and_then(|()| fs::write(dir.join("cgroup.procs"), "0"))
                .map_err(|source| CgroupError::Enter { path: dir, source })?;
        }
        Ok(())
    }

    /// Kills whatever lives in the cgroup and below it, at once where the kernel can (v2, since Linux 5.14), and waits
    /// until all of it is dead.
    pub(crate) fn kill(&self, path: &str, within: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + within;
        for dir in self.dirs(path) {
            // Absent in v1, in older kernels, and where there is no such cgroup: the loop below does it then.
            let _no_switch = fs::OpenOptions::new()
                .write(true)
                .open(dir.join("cgroup.kill"))
                .and_then(|mut switch| io::Write::write_all(&mut switch, b"1"));
        }
        loop {
            let opened = self.opened(path)?;
            // Only now is it certain that each descriptor is of a member and not of one that got a dead one's number.
            let still = self.members(path)?;
            if still.is_empty() {
                return Ok(());
            }
            let mut killed = Vec::new();
            for (pid, fd) in opened.into_iter().filter(|(pid, _)| still.contains(pid)) {
                deliver(&fd, Signal::KILL).map_err(|source| CgroupError::Kill {
                    path: path.to_owned(),
                    pid,
                    source,
                })?;
                killed.push((pid, fd));
            }
            self.await_death(path, &killed, deadline)?;
        }
    }

    fn opened(&self, path: &str) -> Result<Vec<(i32, OwnedFd)>, CgroupError> {
        let mut opened = Vec::new();
        for pid in self.members(path)? {
            let fd =
                open_pidfd(pid).map_err(|source| CgroupError::Kill { path: path.to_owned(), pid, source })?;
            opened.extend(fd.map(|fd| (pid, fd)));
        }
        Ok(opened)
    }

    fn await_death(
        &self,
        path: &str,
        killed: &[(i32, OwnedFd)],
        deadline: Instant,
    ) -> Result<(), CgroupError> {
        for (pid, fd) in killed {
            let left = deadline.saturating_duration_since(Instant::now());
            let dead = wait_for_any(std::slice::from_ref(fd), left).map_err(|source| CgroupError::Kill {
                path: path.to_owned(),
                pid: *pid,
                source,
            })?;
            if !dead {
                let pids = self.members(path)?.into_iter().collect();
                return Err(CgroupError::Unkillable { path: path.to_owned(), pids });
            }
            reap(*pid);
        }
        if killed.is_empty() {
            // The members changed under us.
            let _timed_out = wait_for_any(&[], PAUSE);
        }
        Ok(())
    }

    /// The processes in the cgroup and below it, in any hierarchy. A cgroup that does not exist has none.
    fn members(&self, path: &str) -> Result<BTreeSet<i32>, CgroupError> {
        let mut pids = BTreeSet::new();
        for root in self.dirs(path) {
            let dirs = with_descendants(root.clone())
                .map_err(|source| CgroupError::Members { path: root, source })?;
            for dir in dirs {
                match fs::read_to_string(dir.join("cgroup.procs")) {
                    Ok(text) => {
                        // 0 is a process of a PID namespace that cannot be seen from here.
                        pids.extend(
                            text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0),
                        );
                    }
                    Err(error) if is_gone(&error) => {}
                    Err(source) => return Err(CgroupError::Members { path: dir, source }),
                }
            }
        }
        Ok(pids)
    }

    /// Removes the cgroup and those below it. One that is not there is removed already.
    pub(crate) fn remove(&self, path: &str) -> Result<(), CgroupError> {
        for root in self.dirs(path) {
            let dirs = with_descendants(root.clone())
                .map_err(|source| CgroupError::Remove { path: root, source })?;
            for dir in dirs.into_iter().rev() {
                remove_one(&dir).map_err(|source| CgroupError::Remove { path: dir, source })?;
            }
        }
        Ok(())
    }

    /// Removes a cgroup that is shared between clusters, unless another one has something in it.
    pub(crate) fn remove_if_empty(&self, path: &str) {
        for dir in self.dirs(path) {
            let _in_use_or_gone = fs::remove_dir(dir);
        }
    }
}

/// A cgroup's directory and those below it, parents first.
fn with_descendants(root: PathBuf) -> io::Result<Vec<PathBuf>> {
    let mut dirs = vec![root];
    let mut at = 0;
    while let Some(dir) = dirs.get(at) {
        at += 1;
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        dirs.extend(found);
    }
    Ok(dirs)
}

/// Reading a cgroup while it is removed fails in either way.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn remove_one(dir: &Path) -> io::Result<()> {
    /// The kernel lets go of a cgroup a moment after its last process is dead; half a second is an age.
    const ATTEMPTS: u32 = 100;
    for _ in 1..ATTEMPTS {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                wait_for_any(&[], PAUSE)?;
            }
            Err(error) if is_gone(&error) => return Ok(()),
            done => return done,
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
proc /proc proc rw,nosuid 0 0
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
cgroup /var/lib/other/pids cgroup rw,relatime,pids 0 0
";

    #[test]
    fn every_hierarchy_of_the_host_is_searched() {
        let host = Hierarchies::parse(HYBRID);
        let dirs: Vec<_> = host.dirs("/g/n1").collect();
        let expected =
            ["cpuset", "pids", "unified"].map(|name| PathBuf::from(format!("/sys/fs/cgroup/{name}/g/n1")));
        assert_eq!(dirs, expected);
        assert!(host.are_usable() && host.0[0].cpuset && !host.0[1].cpuset);
        assert!(!Hierarchies::parse("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0").are_usable());
    }

    #[test]
    fn members_are_found_at_every_depth_and_a_cgroup_that_never_was_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let host = Hierarchies(vec![Hierarchy { mount: dir.path().to_owned(), cpuset: false, pids: true }]);
        for (path, procs) in [("g/n1", "1\n"), ("g/n1/a/b", "7\n0\n8\n"), ("g/n2", "9\n")] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
            fs::write(dir.path().join(path).join("cgroup.procs"), procs).unwrap();
        }
        assert_eq!(host.members("/g/n1").unwrap(), [1, 7, 8].into());
        assert_eq!(host.members("/g/n3").unwrap(), BTreeSet::new());
        host.kill("/g/n3", Duration::from_secs(1)).unwrap();
        host.remove("/g/n3").unwrap();
        assert!(host.have("/g/n2") && !host.have("/g/n3"));
    }
}
