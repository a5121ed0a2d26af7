//! Control groups of a container and of a shim, whichever way the host has them: v1, v2, or hybrid, which counts as v1
//! since the controllers are there.
//!
//! libcontainer puts the container's processes into its cgroup; the rest is here. Limits are not handed to
//! libcontainer, for which one that the host refuses is the end of the container. A path is absolute in the hierarchy
//! (`/gantry/n1/s1-2-3.1`) and the same in each.

pub(crate) mod freezer;
mod limit;
pub(crate) mod usage;

pub(crate) use limit::limit;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::XattrFlags;

use crate::launch::Launch;
use crate::oci::CgroupView;
use crate::record::chain;
use limit::write;

/// Where this host keeps its cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies(Vec<Hierarchy>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// With its controllers; a named hierarchy such as systemd's has none.
    V1(Vec<String>),
    V2,
}

/// What a container is shown of v1: enough to find its limits and usage, and nothing to switch devices or freeze with.
const SHOWN: [&str; 6] = ["blkio", "cpu", "cpuacct", "cpuset", "memory", "pids"];

impl Hierarchy {
    /// Whether libcontainer puts containers into it: not where systemd alone counts processes, nor in the empty v2 of a hybrid host,
    /// where a cgroup that is there does no harm.
    fn holds_containers(&self) -> bool {
        match &self.kind {
            Kind::V1(controllers) => !controllers.is_empty(),
            Kind::V2 => true,
        }
    }
}

impl Hierarchies {
    /// Reads the host's mounts.
    pub(crate) fn find() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/mounts")?))
    }

    /// `mounts` in the form of fstab(5), one a line.
    fn parse(mounts: &str) -> Self {
        let hierarchy = |line: &str| {
            let mut fields = line.split(' ');
            let (_source, mount, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let options = fields.next()?;
            let known = |option: &&str| {
                let flag = [
                    "rw",
                    "ro",
                    "relatime",
                    "noatime",
                    "nosuid",
                    "nodev",
                    "noexec",
                    "xattr",
                    "clone_children",
                ];
                !flag.contains(option) && !option.contains('=')
            };
            let kind = match kind {
                "cgroup" => Kind::V1(options.split(',').filter(known).map(str::to_owned).collect()),
                "cgroup2" => Kind::V2,
                _ => return None,
            };
            // A container's own view, bound somewhere else, is not the host's.
            mount.starts_with("/sys/fs/cgroup").then(|| Hierarchy { mount: mount.into(), kind })
        };
        Self(mounts.lines().filter_map(hierarchy).collect())
    }

    fn is_unified(&self) -> bool {
        self.0.iter().all(|hierarchy| hierarchy.kind == Kind::V2)
    }

    /// The directories of a cgroup, whether they exist or not.
    fn dirs(&self, path: &str) -> impl Iterator<Item = PathBuf> {
        self.0.iter().map(move |hierarchy| below(&hierarchy.mount, path))
    }

    /// The directory in which a v1 controller is told about a cgroup.
    fn v1(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let has = |hierarchy: &&Hierarchy| match &hierarchy.kind {
            Kind::V1(controllers) => controllers.iter().any(|name| name == controller),
            Kind::V2 => false,
        };
        self.0.iter().find(has).map(|hierarchy| below(&hierarchy.mount, path))
    }

    /// The directory of a cgroup where v2 is in charge.
    fn v2(&self, path: &str) -> Option<PathBuf> {
        if !self.is_unified() {
            return None;
        }
        self.0.first().map(|hierarchy| below(&hierarchy.mount, path))
    }

    /// What a container is shown of its own cgroup.
    pub(crate) fn view(&self, path: &str) -> CgroupView {
        if self.is_unified() {
            return CgroupView::Unified;
        }
        let shown = |hierarchy: &Hierarchy| match &hierarchy.kind {
            Kind::V1(controllers) if controllers.iter().any(|name| SHOWN.contains(&name.as_str())) => {
                let name = hierarchy.mount.file_name()?.to_str()?.to_owned();
                Some((name, below(&hierarchy.mount, path)))
            }
            Kind::V1(_) | Kind::V2 => None,
        };
        CgroupView::Legacy(self.0.iter().filter_map(shown).collect())
    }
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// How many processes of the cgroup the kernel killed for its memory limit; 0 where the kernel does not say.
pub(crate) fn oom_kills(hierarchies: &Hierarchies, path: &str) -> u64 {
    let file = match hierarchies.v2(path) {
        Some(dir) => Some(dir.join("memory.events")),
        None => hierarchies.v1("memory", path).map(|dir| dir.join("memory.oom_control")),
    };
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Moves the calling process into a cgroup, which is made where it is missing, in every hierarchy: also systemd's own,
/// by which it would otherwise be stopped with the daemon's unit. Returns what did not work.
pub(crate) fn enter(hierarchies: &Hierarchies, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for hierarchy in &hierarchies.0 {
        // A new v1 cpuset has no CPUs, so nothing can be moved into it; it limits nothing that a shim needs.
        if matches!(&hierarchy.kind, Kind::V1(controllers) if controllers.iter().any(|name| name == "cpuset"))
        {
            continue;
        }
        let dir = below(&hierarchy.mount, path);
        if let Err(error) = std::fs::create_dir_all(&dir).and_then(|()| write(&dir, "cgroup.procs", "0")) {
            warnings.push(format!("the shim could not move to the cgroup {}: {error}", dir.display()));
        }
    }
    warnings
}

/// Why a cgroup is still there.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read this host's mounts")]
    Mounts(#[source] io::Error),
    #[error("cannot read the members of cgroup {path}")]
    Members { path: PathBuf, source: io::Error },
    #[error(
        "processes {pids:?} of cgroup {path} outlived SIGKILL; they are waiting for a device or a network disk"
    )]
    Unkillable { path: String, pids: Vec<i32> },
    #[error("cannot remove cgroup {path}")]
    Remove { path: PathBuf, source: io::Error },
}

/// Kills whatever lives in the cgroup and below it, and waits until it is dead.
pub(crate) fn kill(hierarchies: &Hierarchies, path: &str, within: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + within;
    loop {
        let candidates = members(hierarchies, path)?;
        let opened: Vec<(i32, OwnedFd)> =
            candidates.into_iter().filter_map(|pid| Some((pid, pidfd(pid)?))).collect();
        // Only now is it certain that each descriptor is of a member and not of a process that got a dead one's number.
        let still = members(hierarchies, path)?;
        if still.is_empty() {
            return Ok(());
        }
        let killed: Vec<OwnedFd> =
            opened.into_iter().filter(|(pid, _)| still.contains(pid)).map(|(_, fd)| fd).collect();
        for fd in &killed {
            // It may be dead already.
            let _gone = rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL);
        }
        // A frozen process dies when it is thawed. What could not be thawed is still there at the deadline.
        let _still_frozen = freezer::thaw(hierarchies, path);
        if !wait_for_any(&killed, deadline) {
            return Err(CgroupError::Unkillable { path: path.to_owned(), pids: still.into_iter().collect() });
        }
    }
}

fn pidfd(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

/// Waits until one of the processes is dead; false if the deadline comes first.
fn wait_for_any(processes: &[OwnedFd], deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut fds: Vec<PollFd<'_>> =
        processes.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    // Without any process to wait for, the members have changed under us: a short pause, and look again.
    let wait = if fds.is_empty() { left.min(PAUSE) } else { left };
    let _woken = poll(&mut fds, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX));
    !left.is_zero()
}

/// Between two looks at something that the kernel finishes by itself and does not announce.
const PAUSE: Duration = Duration::from_millis(5);

/// The processes in the cgroup and below it, in any hierarchy. A cgroup that does not exist has none.
pub(crate) fn members(hierarchies: &Hierarchies, path: &str) -> Result<BTreeSet<i32>, CgroupError> {
    let mut pids = BTreeSet::new();
    for dir in hierarchies.dirs(path) {
        for dir in
            with_descendants(dir.clone()).map_err(|source| CgroupError::Members { path: dir, source })?
        {
            match std::fs::read_to_string(dir.join("cgroup.procs")) {
                Ok(text) => pids
                    .extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0)),
                Err(error) if is_gone(&error) => {}
                Err(source) => return Err(CgroupError::Members { path: dir, source }),
            }
        }
    }
    Ok(pids)
}

/// A cgroup's directory and those below it, parents first.
fn with_descendants(root: PathBuf) -> io::Result<Vec<PathBuf>> {
    let mut dirs = vec![root];
    let mut at = 0;
    while let Some(dir) = dirs.get(at) {
        at += 1;
        let entries = match std::fs::read_dir(dir) {
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
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Makes the cgroup that a container's is to be in, with the container's own, so that nobody who takes an empty one away takes
/// this one. What is made is marked as ours, and one that was there before is not.
pub(crate) fn make_parent(hierarchies: &Hierarchies, parent: &str, path: &str) -> io::Result<()> {
    let mut hierarchies = hierarchies.0.iter().filter(|hierarchy| hierarchy.holds_containers());
    hierarchies.try_for_each(|hierarchy| make_in(&hierarchy.mount, parent, path))
}

fn make_in(mount: &Path, parent: &str, path: &str) -> io::Result<()> {
    /// Another container that ends may take its parent away between any two of the steps. More of them end at once on no machine.
    const ATTEMPTS: u32 = 1000;
    let own = below(mount, path);
    for _ in 1..ATTEMPTS {
        match std::fs::create_dir(&own) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_marked(mount, Path::new(parent))?,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => return Ok(()),
        }
    }
    std::fs::create_dir(&own)
}

/// Says that a cgroup was made by gantry for the containers in it, on the cgroup itself.
const MARK: &str = "trusted.gantry";

fn make_marked(mount: &Path, parent: &Path) -> io::Result<()> {
    let mut dir = mount.to_owned();
    for part in parent.components().skip(1) {
        dir.push(part);
        match std::fs::create_dir(&dir) {
            // A kernel that keeps no marks leaves an empty cgroup behind in the end.
            Ok(()) => {
                let _marked = rustix::fs::setxattr(&dir, MARK, b"1", XattrFlags::empty());
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Taken away meanwhile: the caller begins again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes the cgroup that containers were in away again, and those above it, as far as gantry made them and they are empty.
fn remove_parent(hierarchies: &Hierarchies, parent: &str) {
    for hierarchy in &hierarchies.0 {
        for part in Path::new(parent).ancestors() {
            let Some(part) = part.to_str().filter(|part| *part != "/") else { break };
            let dir = below(&hierarchy.mount, part);
            let is_ours = rustix::fs::getxattr(&dir, MARK, &mut [0_u8; 1]).is_ok();
            // One that is not empty is another container's too, which removes it.
            if !is_ours || std::fs::remove_dir(&dir).is_err() {
                break;
            }
        }
    }
}

/// Removes a container's cgroup, and the one that it is in with the last of its containers.
pub(crate) fn remove_containers(hierarchies: &Hierarchies, launch: &Launch) -> Result<(), CgroupError> {
    remove(hierarchies, &launch.cgroup)?;
    if let Some(parent) = &launch.options.cgroup_parent {
        remove_parent(hierarchies, parent);
    }
    Ok(())
}

/// Removes the cgroup and those below it from every hierarchy. One that is not there is removed already.
pub(crate) fn remove(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    for root in hierarchies.dirs(path) {
        let dirs =
            with_descendants(root.clone()).map_err(|source| CgroupError::Remove { path: root, source })?;
        for dir in dirs.into_iter().rev() {
            remove_one(&dir).map_err(|source| CgroupError::Remove { path: dir, source })?;
        }
    }
    Ok(())
}

fn remove_one(dir: &Path) -> io::Result<()> {
    /// The kernel lets go of a cgroup a moment after its last process is dead; half a second is an age.
    const ATTEMPTS: u32 = 100;
    for _ in 1..ATTEMPTS {
        match std::fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                let _pause = poll(&mut [], PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO));
            }
            Err(error) if is_gone(&error) => return Ok(()),
            done => return done,
        }
    }
    std::fs::remove_dir(dir)
}

/// Kills and removes; what failed is returned as a sentence, for a place that goes on regardless.
pub(crate) fn clear(hierarchies: &Hierarchies, launch: &Launch, within: Duration) -> Option<String> {
    let killed = kill(hierarchies, &launch.cgroup, within);
    let result = killed.and_then(|()| remove_containers(hierarchies, launch));
    result.err().map(|error| chain(&error))
}

fn no_controller() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this host has no such cgroup controller")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::tests::sample;
    use crate::launch::{Blkio, Limits, Tuning};

    const HYBRID: &str = "\
proc /proc proc rw,nosuid 0 0
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/devices cgroup rw,relatime,devices 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
cgroup /var/lib/other/memory cgroup rw,relatime,memory 0 0
";
    const UNIFIED: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n";

    #[test]
    fn a_hybrid_host_counts_as_v1() {
        let host = Hierarchies::parse(HYBRID);
        assert_eq!(host.v2("/g/x"), None);
        assert_eq!(host.v1("cpuacct", "/g/x"), Some("/sys/fs/cgroup/cpu,cpuacct/g/x".into()));
        assert_eq!(host.v1("memory", "/g/x"), Some("/sys/fs/cgroup/memory/g/x".into()));
        assert_eq!(host.v1("pids", "/g/x"), None);
        assert_eq!(host.dirs("/g/x").count(), 5, "also where no controller is, to find every process");
    }

    #[test]
    fn a_container_sees_its_limits_and_no_switches() {
        let shown = vec![
            ("cpu,cpuacct".to_owned(), "/sys/fs/cgroup/cpu,cpuacct/g/x".into()),
            ("memory".to_owned(), "/sys/fs/cgroup/memory/g/x".into()),
        ];
        assert_eq!(Hierarchies::parse(HYBRID).view("/g/x"), CgroupView::Legacy(shown));
        assert_eq!(Hierarchies::parse(UNIFIED).view("/g/x"), CgroupView::Unified);
    }

    #[test]
    fn limits_go_where_the_host_has_them_and_the_rest_are_warnings() {
        let dir = tempfile::tempdir().unwrap();
        let v1 =
            |name: &str| Hierarchy { mount: dir.path().join(name), kind: Kind::V1(vec![name.to_owned()]) };
        let host = Hierarchies(vec![v1("cpu"), v1("pids"), v1("memory")]);
        for file in ["cpu/x/cpu.cfs_period_us", "cpu/x/cpu.cfs_quota_us", "pids/x/pids.max"] {
            std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let limits = Limits { cpu_millis: Some(1500), memory_bytes: Some(1 << 20), pids: None };
        let tuning = Tuning { cpuset: Some("0".to_owned()), ..Tuning::default() };
        let warnings = limit(&host, "/x", &limits, &tuning);
        let wrote = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(wrote("cpu/x/cpu.cfs_quota_us"), "150000");
        assert_eq!(wrote("pids/x/pids.max"), "4096", "no container is without a limit on processes");
        assert!(warnings[0].starts_with("the limit on memory is not in force: "), "{warnings:?}");
        let last = warnings.last().unwrap();
        assert_eq!(last, "the limit on cpuset is not in force: this host has no such cgroup controller");
    }

    #[test]
    fn the_first_of_several_files_that_a_host_has_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let host = Hierarchies(vec![Hierarchy { mount: dir.path().to_owned(), kind: Kind::V2 }]);
        std::fs::create_dir(dir.path().join("x")).unwrap();
        for file in ["pids.max", "io.weight"] {
            std::fs::write(dir.path().join("x").join(file), "").unwrap();
        }
        let blkio = Blkio { weight: Some(10), ..Blkio::default() };
        let tuning = Tuning { blkio, ..Tuning::default() };
        assert_eq!(limit(&host, "/x", &Limits::default(), &tuning), Vec::<String>::new());
        assert_eq!(std::fs::read_to_string(dir.path().join("x/io.weight")).unwrap(), "1");
    }

    #[test]
    fn a_cgroup_that_does_not_exist_is_killed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Hierarchies(vec![Hierarchy { mount: dir.path().to_owned(), kind: Kind::V2 }]);
        let launch = Launch { cgroup: "/never/was".to_owned(), ..sample() };
        assert_eq!(clear(&host, &launch, Duration::from_secs(1)), None);
        assert_eq!(oom_kills(&host, "/never/was"), 0);
    }
}
