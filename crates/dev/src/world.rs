//! The cluster's world without its daemons: the switch, and nodes that are a holder and a link each.
//!
//! Every function states what has to be, may be repeated, and leaves a record from which the next one goes on: the
//! record is written before a process is let go on, and everything else is found by its name.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use network::{Nft, Ruleset as _, RulesetError};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::addresses::PREFIX;
use crate::cgroup::{CgroupError, Hierarchies};
use crate::holder::{self, HolderError};
use crate::layout::{CGROUP, Layout, NodeNumber};
use crate::links::{self, LinkError};
use crate::process::Process;
use crate::record::{NodeRecord, Record, RecordError};

/// How long killed processes may take to be dead. They are in an instant, unless one waits for a device.
const DEATH: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error("cannot make the holder of {who}")]
    Holder { who: String, source: HolderError },
    #[error("cannot connect {who}")]
    Link { who: String, source: LinkError },
    #[error("the switch between the nodes is gone")]
    NoSwitch,
    #[error("{0} is not a node of this cluster")]
    NoNode(NodeNumber),
    #[error("cannot look after process {pid}")]
    Process { pid: i32, source: io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("cannot make folder {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot change the rules of table {table} on this machine")]
    Rules { table: String, source: RulesetError },
}

/// Makes the switch, unless it is there, and its link to the machine.
pub fn raise_switch(layout: &Layout, record: &mut Record) -> Result<(), WorldError> {
    let switch = match living(record.switch)? {
        Some(switch) => switch,
        None => {
            let failed = |source| WorldError::Holder { who: "the switch".to_owned(), source };
            let candidate = holder::start(&layout.switch_cgroup(), None).map_err(failed)?;
            record.switch = Some(candidate.process());
            record.save(layout)?;
            candidate.release().map_err(failed)?
        }
    };
    links::build_switch(switch, &layout.uplink(), record.network)
        .map_err(|source| WorldError::Link { who: "the switch".to_owned(), source })
}

/// Lets nodes reach what the machine reaches, where the machine forwards at all. That is not switched on here:
/// whether a laptop is a router is its owner's choice.
pub fn raise_masquerade(layout: &Layout, record: &mut Record) -> Result<(), WorldError> {
    let path = Path::new("/proc/sys/net/ipv4/ip_forward");
    let forwards = fs::read_to_string(path);
    let forwards = forwards.map_err(|source| WorldError::Read { path: path.to_owned(), source })?;
    if forwards.trim() == "1" {
        record.masquerade = true;
        record.save(layout)?;
        let script = masquerade(&layout.table(), record);
        Nft.apply(&script).map_err(|source| WorldError::Rules { table: layout.table(), source })?;
    }
    Ok(())
}

/// The table as a script that may be loaded again.
fn masquerade(table: &str, record: &Record) -> String {
    let network = format!("{}/{PREFIX}", record.network);
    format!(
        "{removal}table ip {table} {{
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {network} ip daddr != {network} masquerade
	}}
}}
",
        removal = removal(table)
    )
}

/// Declared first, so that it can be deleted where it is not there.
fn removal(table: &str) -> String {
    format!("table ip {table}\ndelete table ip {table}\n")
}

/// Makes a node's folders and its holder, unless they are there, and its link.
pub fn raise_node(layout: &Layout, record: &mut Record, node: NodeNumber) -> Result<(), WorldError> {
    let NodeRecord { holder, partitioned, .. } = *find(record, node)?;
    let switch = living(record.switch)?.ok_or(WorldError::NoSwitch)?;
    let holder = match living(holder)? {
        Some(holder) => holder,
        None => raise_holder(layout, record, node)?,
    };
    links::plug(switch, holder, node, record.network, !partitioned)
        .map_err(|source| WorldError::Link { who: node.to_string(), source })
}

fn raise_holder(layout: &Layout, record: &mut Record, node: NodeNumber) -> Result<Process, WorldError> {
    let pins = layout.pins(node);
    make_dir(&layout.data(node))?;
    make_dir(&pins)?;
    let failed = |source| WorldError::Holder { who: node.to_string(), source };
    let cgroup = format!("{}/holder", layout.node_cgroup(node));
    let candidate = holder::start(&cgroup, Some(&pins)).map_err(failed)?;
    find(record, node)?.holder = Some(candidate.process());
    record.save(layout)?;
    candidate.release().map_err(failed)
}

/// Ends everything in a node at once, and keeps its disk. A node that is down already stays so.
pub fn fell_node(layout: &Layout, record: &mut Record, node: NodeNumber) -> Result<(), WorldError> {
    find(record, node)?;
    let (hierarchies, cgroup) = (Hierarchies::find()?, layout.node_cgroup(node));
    hierarchies.kill(&cgroup, DEATH)?;
    find(record, node)?.holder = None;
    if let Some(switch) = living(record.switch)? {
        links::unplug(switch, node).map_err(|source| WorldError::Link { who: node.to_string(), source })?;
    }
    hierarchies.remove(&cgroup)?;
    remove_dir(&layout.run(node))?;
    record.save(layout)?;
    Ok(())
}

/// Takes a node's link up or down. It stays so over a reboot of the node.
pub fn set_link(layout: &Layout, record: &mut Record, node: NodeNumber, up: bool) -> Result<(), WorldError> {
    find(record, node)?.partitioned = !up;
    record.save(layout)?;
    let switch = living(record.switch)?.ok_or(WorldError::NoSwitch)?;
    links::set_link(switch, node, up).map_err(|source| WorldError::Link { who: node.to_string(), source })
}

/// Ends everything of the cluster and leaves its disks alone. True if there was anything. It needs no record: what
/// there is, is found by name.
pub fn fell_cluster(layout: &Layout) -> Result<bool, WorldError> {
    let (hierarchies, cgroup, uplink) = (Hierarchies::find()?, layout.cgroup(), layout.uplink());
    let failed = |source| WorldError::Link { who: "the switch".to_owned(), source };
    let record = Record::load(layout).ok().flatten();
    let known = record.as_ref().is_some_and(|record| record.switch.is_some() || record.masquerade);
    let there = known
        || hierarchies.have(&cgroup)
        || layout.run_dir().exists()
        || links::has_uplink(&uplink).map_err(failed)?;
    if !there {
        return Ok(false);
    }
    hierarchies.kill(&cgroup, DEATH)?;
    links::remove_uplink(&uplink).map_err(failed)?;
    // Without a record nobody knows, and to look is as much work as to remove.
    if record.as_ref().is_none_or(|record| record.masquerade) {
        let table = layout.table();
        Nft.apply(&removal(&table)).map_err(|source| WorldError::Rules { table, source })?;
    }
    hierarchies.remove(&cgroup)?;
    hierarchies.remove_if_empty(CGROUP);
    remove_dir(&layout.run_dir())?;
    remove_if_empty(Layout::run_root());
    if let Some(mut record) = record {
        record.forget_processes();
        record.masquerade = false;
        record.save(layout)?;
    }
    Ok(true)
}

/// Removes a cluster's disks, its record and its folder. True if there were any.
pub fn remove_disks(layout: &Layout) -> Result<bool, WorldError> {
    let there = layout.dir().exists();
    clear_disks(layout)?;
    remove_dir(&layout.dir())?;
    remove_if_empty(layout.root());
    Ok(there)
}

/// Empties a cluster's folder, and leaves it there for who has its lock. The record goes last: while there is one,
/// what is left is known to be a cluster's.
pub(crate) fn clear_disks(layout: &Layout) -> Result<(), WorldError> {
    let dir = layout.dir();
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    for entry in entries.map_err(|source| WorldError::Read { path: dir.clone(), source })? {
        if entry.path().is_dir() {
            remove_dir(&entry.path())?;
        }
    }
    match fs::remove_file(layout.record()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(WorldError::Remove { path: layout.record(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a folder and all below it, whatever containers made of it, and first whatever a daemon that was run by hand,
/// outside of its node, mounted there.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), WorldError> {
    let failed = |source| WorldError::Remove { path: dir.to_owned(), source };
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    for mount in mounts_below(&mounts, dir).into_iter().rev() {
        match umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(WorldError::Remove { path: mount, source: errno.into() }),
        }
    }
    node::remove_disk(dir).map_err(failed)
}

/// Mount points at or below a folder, in the order in which they were made. `mountinfo` is as in
/// proc_pid_mountinfo(5); names with spaces, which none of ours have, stay escaped and match nothing.
fn mounts_below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

/// A folder that clusters share.
fn remove_if_empty(dir: &Path) {
    let _in_use_or_gone = fs::remove_dir(dir);
}

/// For root alone: a node's disk holds keys.
pub(crate) fn make_dir(path: &Path) -> Result<(), WorldError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| WorldError::Make { path: path.to_owned(), source })
}

/// The process, if it lives.
pub(crate) fn living(process: Option<Process>) -> Result<Option<Process>, WorldError> {
    let Some(process) = process else { return Ok(None) };
    let lives = process.lives().map_err(|source| WorldError::Process { pid: process.pid, source })?;
    Ok(lives.then_some(process))
}

fn find(record: &mut Record, node: NodeNumber) -> Result<&mut NodeRecord, WorldError> {
    record.nodes.get_mut(&node).ok_or(WorldError::NoNode(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, mkdirat, openat};

    #[test]
    fn only_what_leaves_the_cluster_is_masqueraded() {
        let record = Record::new([10, 199, 7, 0].into(), 1, 1).unwrap();
        expect_test::expect![[r#"
            table ip gantry_dev_my-dev
            delete table ip gantry_dev_my-dev
            table ip gantry_dev_my-dev {
            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr 10.199.7.0/24 ip daddr != 10.199.7.0/24 masquerade
            	}
            }
        "#]]
        .assert_eq(&masquerade("gantry_dev_my-dev", &record));
    }

    #[test]
    fn what_containers_have_nested_goes_with_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("n1");
        std::fs::create_dir(&folder).unwrap();
        let mut at = std::fs::File::open(&folder).unwrap();
        let enter = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for _ in 0..10_000 {
            mkdirat(&at, "nest", Mode::RWXU).unwrap();
            at = openat(&at, "nest", enter, Mode::empty()).unwrap().into();
        }
        remove_dir(&folder).unwrap();
        remove_dir(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn mounts_of_a_folder_are_found_and_those_of_its_neighbours_are_not() {
        let mountinfo = "\
22 1 254:0 / / rw - ext4 /dev/vda rw
31 22 0:30 / /run/gantry/dev/n1/netns rw - tmpfs tmpfs rw
32 31 0:4 net:[1] /run/gantry/dev/n1/netns/s1-1-1 rw - nsfs nsfs rw
33 22 0:31 / /run/gantry/dev2/n1/netns rw - tmpfs tmpfs rw
";
        let expected = ["/run/gantry/dev/n1/netns", "/run/gantry/dev/n1/netns/s1-1-1"].map(PathBuf::from);
        assert_eq!(mounts_below(mountinfo, Path::new("/run/gantry/dev")), expected);
    }
}
