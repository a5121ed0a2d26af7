//! How much of everything one node has, seen from outside of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::command::Call;
use crate::inventory::{cgroups, dev_root, files, interfaces, mounts};
use crate::procs;

/// How many there are of each kind.
pub(super) type Leftovers = BTreeMap<&'static str, usize>;

pub(super) fn of(cluster: &str, node: &str) -> Result<Leftovers> {
    let daemons = procs::daemons(cluster)?;
    let daemon = daemons.get(node).with_context(|| format!("{node} has no daemon"))?.pid;
    let (processes, shims) = procs::on_node(cluster, node)?;
    let disk = dev_root().join(cluster).join(node);
    Ok(Leftovers::from([
        ("contained processes", processes),
        ("shims", shims),
        ("cgroups", cgroups(&format!("{}/{cluster}/{node}", procs::CGROUP))?.len()),
        ("interfaces", interfaces(&format!("/proc/{daemon}/net/dev"))?.len()),
        ("mounts", mounts(&format!("/proc/{daemon}/mountinfo"))?.len()),
        ("rules", rules(daemon)?),
        ("files in /run", files(&Path::new("/run/gantry").join(cluster).join(node), &|_| true).len()),
        ("files on disk", files(&disk, &is_countable).len()),
    ]))
}

/// RocksDB makes and drops files as it sees fit; a directory of its has a file `CURRENT`.
fn is_countable(dir: &Path) -> bool {
    !dir.join("CURRENT").exists()
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

    #[test]
    fn a_database_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("raft")).unwrap();
        assert!(is_countable(&dir.path().join("raft")));
        std::fs::write(dir.path().join("raft/CURRENT"), "MANIFEST-000001\n").unwrap();
        assert!(!is_countable(&dir.path().join("raft")));
    }
}
