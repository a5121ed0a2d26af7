//! How much of everything each node has, seen from outside of it, and whether it is as much as before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::command::Call;
use crate::inventory::{cgroups, dev_root, files, interfaces, mounts};
use crate::{procs, wait};

/// How many there are of each kind.
pub(super) type Leftovers = BTreeMap<&'static str, usize>;

/// The same of each node.
pub(super) type OfNodes = BTreeMap<String, Leftovers>;

/// A stopped container's last things go after it is seen stopped.
const SETTLING: Duration = Duration::from_secs(15);

/// The sockets of a daemon: connections to other nodes and clients come and go.
const SOCKETS: &str = "sockets";
/// How many of them may come before it is taken for a leak. One that is left behind by each container would be more.
const SOCKETS_MORE: usize = 16;

pub(super) fn take(cluster: &Cluster, name: &str) -> Result<OfNodes> {
    let nodes = cluster.nodes()?.into_iter().map(|node| node.node);
    nodes.map(|node| of(name, &node).map(|left| (node, left))).collect()
}

/// What nodes have once they have stopped changing: the same twice, a second apart.
pub(super) fn settled(cluster: &Cluster, name: &str) -> Result<OfNodes> {
    let mut last = take(cluster, name)?;
    wait::until("nodes to come to rest", SETTLING, || {
        wait::pause(Duration::from_secs(1))?;
        let now = take(cluster, name)?;
        let is_same = compare(&last, &now).is_empty();
        last = now;
        Ok(is_same.then(|| last.clone()))
    })
}

/// What a node has more or less of than it had, once it has had time to tidy up.
pub(super) fn differences(cluster: &Cluster, name: &str, before: &OfNodes) -> Result<Vec<String>> {
    let mut different = Vec::new();
    let equal = wait::until("nodes to be as before", SETTLING, || {
        different = compare(before, &take(cluster, name)?);
        Ok(different.is_empty().then_some(()))
    });
    match equal {
        Ok(()) => Ok(Vec::new()),
        Err(error) if different.is_empty() => Err(error),
        Err(_) => Ok(different),
    }
}

fn compare(before: &OfNodes, after: &OfNodes) -> Vec<String> {
    let mut different = Vec::new();
    for (node, had) in before {
        for (kind, count) in had {
            let now = after.get(node).and_then(|has| has.get(kind)).copied().unwrap_or(0);
            let is_same = if *kind == SOCKETS { now <= count + SOCKETS_MORE } else { now == *count };
            if !is_same {
                different.push(format!("{node} has {now} {kind} and had {count}"));
            }
        }
    }
    different
}

fn of(cluster: &str, node: &str) -> Result<Leftovers> {
    let daemons = procs::daemons(cluster)?;
    let daemon = daemons.get(node).with_context(|| format!("{node} has no daemon"))?.pid;
    let (processes, shims) = procs::on_node(cluster, node)?;
    let disk = dev_root().join(cluster).join(node);
    let (sockets, descriptors) = descriptors(daemon)?;
    Ok(Leftovers::from([
        ("contained processes", processes),
        ("shims", shims),
        ("namespaces", procs::namespaces_on(cluster, node)?.len()),
        ("cgroups", cgroups(&format!("{}/{cluster}/{node}", procs::CGROUP))?.len()),
        ("interfaces", interfaces(&format!("/proc/{daemon}/net/dev"))?.len()),
        ("mounts", mounts(&format!("/proc/{daemon}/mountinfo"))?.len()),
        ("rules", rules(daemon)?),
        (SOCKETS, sockets),
        ("other descriptors of the daemon", descriptors),
        ("files in /run", files(&Path::new("/run/gantry").join(cluster).join(node), &|_| true).len()),
        ("files on disk", files(&disk, &is_countable).len()),
    ]))
}

/// RocksDB makes and drops files as it sees fit; a directory of its has a file `CURRENT`.
fn is_countable(dir: &Path) -> bool {
    !dir.join("CURRENT").exists()
}

/// How many sockets a process has, and how much else: namespaces, pipes, processes, timers, files.
fn descriptors(pid: u32) -> Result<(usize, usize)> {
    let dir = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))?;
    // One may be closed while they are looked at.
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let links = links.filter(|to| to.parent().is_none_or(is_countable));
    let (sockets, others): (Vec<_>, Vec<_>) =
        links.partition(|to| to.to_string_lossy().starts_with("socket:"));
    Ok((sockets.len(), others.len()))
}

/// Rules, sets and their elements in the packet filter of a process's network namespace.
fn rules(pid: u32) -> Result<usize> {
    let target = pid.to_string();
    let text = Call::of("nsenter").args(["--net", "--target", &target, "nft", "list", "ruleset"]).read()?;
    // nft puts several elements of a set on a line.
    Ok(text.lines().count() + text.matches(',').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n1(left: &[(&'static str, usize)]) -> OfNodes {
        OfNodes::from([("n1".to_owned(), left.iter().copied().collect())])
    }

    #[test]
    fn a_database_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("raft")).unwrap();
        assert!(is_countable(&dir.path().join("raft")));
        std::fs::write(dir.path().join("raft/CURRENT"), "MANIFEST-000001\n").unwrap();
        assert!(!is_countable(&dir.path().join("raft")));
    }

    #[test]
    fn more_and_less_are_both_differences() {
        let of = |mounts, shims| n1(&[("mounts", mounts), ("shims", shims)]);
        assert_eq!(compare(&of(7, 2), &of(7, 2)), [""; 0]);
        assert_eq!(compare(&of(7, 2), &of(8, 1)), ["n1 has 8 mounts and had 7", "n1 has 1 shims and had 2"]);
        assert_eq!(compare(&of(1, 1), &OfNodes::new()).len(), 2, "a node that is not there has nothing");
    }

    #[test]
    fn connections_come_and_go_and_a_leak_of_them_is_seen() {
        let of = |sockets| n1(&[(SOCKETS, sockets)]);
        for fine in [0, 40, 40 + SOCKETS_MORE] {
            assert_eq!(compare(&of(40), &of(fine)), [""; 0], "{fine}");
        }
        assert_eq!(compare(&of(40), &of(240)), ["n1 has 240 sockets and had 40"]);
    }

    #[test]
    fn a_process_has_descriptors() {
        let (file, _socket) = (
            std::fs::File::open("/proc/self/status").unwrap(),
            std::os::unix::net::UnixDatagram::unbound().unwrap(),
        );
        let (sockets, others) = descriptors(std::process::id()).unwrap();
        assert!(sockets >= 1 && others >= 1, "{sockets} {others} {file:?}");
    }
}
