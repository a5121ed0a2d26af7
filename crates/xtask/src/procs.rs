//! gantry's processes on this machine, by what proc(5) says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The cgroup of all dev clusters; below it are those of each one's nodes, and below these those of the containers.
pub(crate) const CGROUP: &str = "gantry-dev";

/// A process, and not another one that came to its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// In clock ticks since boot.
    start: u64,
}

/// A process as it is found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) process: Process,
    parent: u32,
    /// Its short name.
    pub(crate) name: String,
    arguments: Vec<String>,
    /// The paths of its cgroups, one a hierarchy.
    cgroups: BTreeSet<String>,
}

/// All processes that live now. One that ends while it is looked at is left out.
pub(crate) fn all() -> Result<Vec<Found>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(find).collect())
}

fn find(pid: u32) -> Option<Found> {
    let dir = format!("/proc/{pid}");
    let Stat { name, parent, start } = parse_stat(&fs::read_to_string(format!("{dir}/stat")).ok()?)?;
    let arguments = fs::read(format!("{dir}/cmdline")).ok()?;
    let arguments = arguments.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let cgroups = fs::read_to_string(format!("{dir}/cgroup")).ok()?;
    let cgroups = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).map(str::to_owned);
    Some(Found {
        process: Process { pid, start },
        parent,
        name,
        arguments: arguments.collect(),
        cgroups: cgroups.collect(),
    })
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    start: u64,
}

/// The name and start time of a zombie are still there, but it is dead: `None`.
fn parse_stat(stat: &str) -> Option<Stat> {
    // The name is in parentheses, and may have any character in it.
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let fields: Vec<&str> = stat.get(close + 1..)?.split_whitespace().collect();
    if fields.first()? == &"Z" {
        return None;
    }
    // The 22nd field, of which the two before the state are cut off.
    let (parent, start) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    Some(Stat { name: stat.get(open + 1..close)?.to_owned(), parent, start })
}

impl Found {
    /// Whether it is a program of gantry's or lives in one of its cgroups.
    pub(crate) fn is_gantrys(&self) -> bool {
        self.name.starts_with("gantry")
            || self.cgroups.iter().any(|path| path.split('/').any(|part| part == CGROUP))
    }

    /// The data directory, of a daemon.
    fn data(&self) -> Option<&Path> {
        if self.arguments.get(1).is_none_or(|verb| verb != "daemon") {
            return None;
        }
        let at = self.arguments.iter().position(|argument| argument == "--data")?;
        self.arguments.get(at + 1).map(Path::new)
    }

    /// The task and its node, of a process in a container of the cluster.
    fn container(&self, cluster: &str) -> Option<(String, String)> {
        if self.name.starts_with("gantry") {
            return None;
        }
        self.cgroups.iter().find_map(|path| container(path, cluster))
    }

    /// Whether it is in the cgroup of a node of the cluster, as all of the node is but what only watches it.
    fn is_on(&self, cluster: &str, node: &str) -> bool {
        self.cgroups.iter().any(|path| {
            let mut parts = path.split('/').skip_while(|part| *part != CGROUP).skip(1);
            parts.next() == Some(cluster) && parts.next() == Some(node)
        })
    }

    fn is_shim(&self, cluster: &str) -> bool {
        let is_cluster = |dir: &String| Path::new(dir).iter().any(|part| part == cluster);
        self.arguments.get(1).is_some_and(|verb| verb == "shim")
            && self.arguments.get(2).is_some_and(is_cluster)
    }
}

/// Node and task by a cgroup's path, `/gantry-dev/<cluster>/<node>/…/<task>-<attempt>…`.
fn container(path: &str, cluster: &str) -> Option<(String, String)> {
    let mut parts = path.split('/').skip_while(|part| *part != CGROUP).skip(1);
    if parts.next()? != cluster {
        return None;
    }
    let node = parts.next()?.to_owned();
    let task = parts.find_map(task)?;
    Some((node, task))
}

/// `s12-3-45` of `s12-3-45-1`, the first attempt of that task.
fn task(name: &str) -> Option<String> {
    let numbers: Vec<&str> = name.strip_prefix('s')?.split('-').collect();
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    match numbers.as_slice() {
        [service, slot, sequence, _attempt] if numbers.iter().all(is_number) => {
            Some(format!("s{service}-{slot}-{sequence}"))
        }
        _ => None,
    }
}

/// The cluster's daemons by their nodes' names.
pub(crate) fn daemons(cluster: &str) -> Result<BTreeMap<String, Process>> {
    let node = |found: Found| {
        let data = found.data()?;
        let node = data.file_name()?.to_str()?.to_owned();
        (data.parent()?.file_name()? == cluster).then_some((node, found.process))
    };
    Ok(all()?.into_iter().filter_map(node).collect())
}

/// The cluster's shims.
pub(crate) fn shims(cluster: &str) -> Result<Vec<Process>> {
    Ok(all()?.into_iter().filter(|found| found.is_shim(cluster)).map(|found| found.process).collect())
}

/// The processes in each of the cluster's containers, by task.
pub(crate) fn containers(cluster: &str) -> Result<BTreeMap<String, BTreeSet<Process>>> {
    let mut containers: BTreeMap<String, BTreeSet<Process>> = BTreeMap::new();
    for found in all()? {
        if let Some((_, task)) = found.container(cluster) {
            containers.entry(task).or_default().insert(found.process);
        }
    }
    Ok(containers)
}

/// The one of them that was there first: in a container, the one that the others come from and go with.
pub(crate) fn first(processes: &BTreeSet<Process>) -> Option<Process> {
    processes.iter().min_by_key(|process| (process.start, process.pid)).copied()
}

/// How many processes and shims a node has in its cgroups besides its daemon and holder.
pub(crate) fn on_node(cluster: &str, node: &str) -> Result<(usize, usize)> {
    let all = all()?;
    let contained = |found: &&Found| found.container(cluster).is_some_and(|(on, _)| on == node);
    let shim = |found: &&Found| {
        found.is_shim(cluster)
            && found.arguments.get(2).is_some_and(|dir| Path::new(dir).iter().any(|part| part == node))
    };
    Ok((all.iter().filter(contained).count(), all.iter().filter(shim).count()))
}

/// Processes of this short name of which an argument is, or begins with, this one.
pub(crate) fn named(name: &str, argument: &str) -> Result<Vec<Process>> {
    let fits = |found: &Found| found.name == name && found.arguments.iter().any(|a| a.starts_with(argument));
    Ok(all()?.into_iter().filter(fits).map(|found| found.process).collect())
}

/// The children of a process.
pub(crate) fn children(parent: u32) -> Result<Vec<Process>> {
    Ok(all()?.into_iter().filter(|found| found.parent == parent).map(|found| found.process).collect())
}

/// The namespaces that the processes of a node are in.
pub(crate) fn namespaces_on(cluster: &str, node: &str) -> Result<BTreeSet<String>> {
    let on_node = all()?.into_iter().filter(|found| found.is_on(cluster, node));
    Ok(on_node.flat_map(|found| namespaces(found.process.pid).into_values()).collect())
}

/// The namespaces of a process by their kind, as `/proc/<pid>/ns` has them; none once it has ended.
pub(crate) fn namespaces(pid: u32) -> BTreeMap<String, String> {
    let links = fs::read_dir(format!("/proc/{pid}/ns")).into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let to = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), to.display().to_string()))
    };
    links.filter_map(link).collect()
}

/// A process's share of memory, in bytes: pages that several processes have count for a part each (proc(5), Pss).
pub(crate) fn pss(process: Process) -> Result<u64> {
    let path = format!("/proc/{}/smaps_rollup", process.pid);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_pss(&text).with_context(|| format!("{path} has no Pss"))
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let kibibytes = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_start_time() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 10";
        let expected = Stat { name: "a) (b c".to_owned(), parent: 1, start: 4242 };
        assert_eq!(parse_stat(stat), Some(expected));
        assert_eq!(parse_stat(&stat.replace(" S ", " Z ")), None, "a zombie is dead");
    }

    #[test]
    fn this_process_is_found() {
        let own = std::process::id();
        assert!(all().unwrap().iter().any(|found| found.process.pid == own));
    }

    #[test]
    fn this_process_is_a_child_of_its_parent_and_has_namespaces() {
        let own = std::process::id();
        let found = find(own).unwrap();
        assert!(children(found.parent).unwrap().contains(&found.process));
        assert_eq!(namespaces(own).get("mnt").map(|link| link.starts_with("mnt:[")), Some(true));
        assert_eq!(namespaces(0).len(), 0);
    }

    #[test]
    fn a_process_is_on_the_node_whose_cgroup_it_is_in() {
        let cgroups = ["/gantry-dev/soak/n1/containers/s1-2-3-4".to_owned(), "/".to_owned()];
        let process = Process { pid: 7, start: 1 };
        let found = Found {
            process,
            parent: 1,
            name: "sh".to_owned(),
            arguments: Vec::new(),
            cgroups: cgroups.into_iter().collect(),
        };
        assert!(found.is_on("soak", "n1"));
        assert!(!found.is_on("soak", "n") && !found.is_on("demo", "n1"));
    }

    #[test]
    fn the_first_process_is_the_oldest_whatever_its_number() {
        let of = |pid, start| Process { pid, start };
        assert_eq!(first(&BTreeSet::from([of(5, 30), of(9, 20), of(10, 20)])), Some(of(9, 20)));
        assert_eq!(first(&BTreeSet::new()), None);
    }

    #[test]
    fn a_container_is_known_by_its_cgroup() {
        let of = |path| container(path, "soak").map(|(node, task)| format!("{node} {task}"));
        assert_eq!(of("/gantry-dev/soak/n1/containers/s1-2-3-4").as_deref(), Some("n1 s1-2-3"));
        assert_eq!(of("/machine/gantry-dev/soak/n2/containers/s1-2-3-4/inner").as_deref(), Some("n2 s1-2-3"));
        for other in [
            "/",
            "/gantry-dev/dev/n1/containers/s1-2-3-4",
            "/gantry-dev/soak/n1/daemon",
            "/gantry-dev/soak/n1/containers/shims",
            "/soak/n1/containers/s1-2-3-4",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_share_of_memory_is_in_bytes() {
        assert_eq!(
            parse_pss("5581-7fff [rollup]\nRss:  9000 kB\nPss:    2048 kB\nPss_Anon: 4 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(parse_pss("Rss: 9000 kB\n"), None);
    }
}
