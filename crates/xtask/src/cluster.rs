//! A dev cluster of one's own, driven as its users do: by calling `gantry`.
//!
//! **Invariant:** a [`Cluster`] that goes out of scope is taken down, whether its owner has succeeded, failed or been
//! interrupted, unless it was told to [`Cluster::keep`].

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command::{Call, Heard, last_lines};
use crate::output::complain;
use crate::{images, inventory, wait};

/// How long a cluster of this size may take for anything that is not measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// gantry's exit codes that a caller tells apart.
pub(crate) const DONE: i32 = 0;
pub(crate) const OUTCOME_UNKNOWN: i32 = 6;

#[derive(Debug)]
pub(crate) struct Cluster {
    gantry: PathBuf,
    name: &'static str,
    ends: bool,
}

/// A row of `gantry ps`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Task {
    pub(crate) slot: u32,
    /// `None` for a slot that waits for one.
    pub(crate) task: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) phase: String,
    pub(crate) ready: bool,
    /// Why it is not running.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    pub(crate) node_address: Option<IpAddr>,
    #[serde(default)]
    pub(crate) ports: Vec<Port>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Port {
    host: u16,
    target: u16,
}

impl Task {
    pub(crate) fn is_up(&self) -> bool {
        self.phase == "running" && self.ready
    }

    pub(crate) fn is_on(&self, node: &str) -> bool {
        self.node.as_deref() == Some(node)
    }

    /// Where this port of the container is reached from outside.
    pub(crate) fn published(&self, target: u16) -> Option<SocketAddr> {
        let port = self.ports.iter().find(|port| port.target == target)?;
        Some(SocketAddr::new(self.node_address?, port.host))
    }
}

/// A row of `gantry services`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) service: String,
    pub(crate) desired: u32,
    pub(crate) ready: u32,
}

/// A row of `gantry node ls`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) node: String,
    pub(crate) leader: bool,
    status: String,
}

impl Node {
    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

impl Cluster {
    /// Brings up a cluster. `name` is the caller's alone: what an earlier, killed run left of it is taken down first.
    pub(crate) fn up(gantry: &Path, name: &'static str, nodes: u8) -> Result<Self> {
        Self::up_logging(gantry, name, nodes, None)
    }

    /// The same, with another filter for what daemons log (`GANTRY_LOG`).
    pub(crate) fn up_logging(
        gantry: &Path,
        name: &'static str,
        nodes: u8,
        filter: Option<&str>,
    ) -> Result<Self> {
        let shape = ["--nodes", &nodes.to_string()];
        Self::up_as(gantry, name, &shape, |up| {
            filter.into_iter().fold(up, |up, filter| up.env("GANTRY_LOG", filter))
        })
    }

    /// A cluster whose first node alone manages; the others are workers.
    pub(crate) fn up_with_workers(gantry: &Path, name: &'static str, nodes: u8) -> Result<Self> {
        let shape = ["--nodes", &nodes.to_string(), "--managers", "1"];
        Self::up_as(gantry, name, &shape, |up| up)
    }

    fn up_as(
        gantry: &Path,
        name: &'static str,
        shape: &[&str],
        with: impl FnOnce(Call) -> Call,
    ) -> Result<Self> {
        Self::clear(gantry, name)?;
        let cluster = Self { gantry: gantry.to_owned(), name, ends: true };
        with(cluster.dev(&[&["up"][..], shape].concat())).read()?;
        Ok(cluster)
    }

    /// From now on, what is started is this program: another build of gantry.
    pub(crate) fn upgrade(&mut self, gantry: &Path) {
        self.gantry = gantry.to_owned();
    }

    /// Takes down what an earlier run left of a cluster, if it left anything.
    pub(crate) fn clear(gantry: &Path, name: &'static str) -> Result<()> {
        if !exists(name) {
            return Ok(());
        }
        Self { gantry: gantry.to_owned(), name, ends: true }.down()
    }

    /// A command of gantry's for this cluster.
    pub(crate) fn call<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Call {
        Call::of(&self.gantry).env("GANTRY_CONTEXT", self.name).env("NO_COLOR", "1").args(arguments)
    }

    fn dev(&self, arguments: &[&str]) -> Call {
        self.call(["dev"]).args(arguments).args(["--name", self.name])
    }

    /// Whether gantry has this command; "not yet" is an answer.
    pub(crate) fn has(&self, command: &[&str]) -> bool {
        self.call(command.iter().copied()).arg("--help").works()
    }

    /// One of `gantry dev node`'s verbs on a node.
    pub(crate) fn fault(&self, verb: &str, node: &str) -> Result<()> {
        self.dev(&["node", verb, node]).read().map(drop)
    }

    /// Makes the image if need be and imports it.
    pub(crate) fn import(&self, image: &str) -> Result<()> {
        let made = images::make(image, false)?;
        self.call(["image", "import"]).arg(made.path).arg(image).read().map(drop)
    }

    /// Deploys a file and waits until it runs.
    pub(crate) fn deploy(&self, file: &Path, stack: &str) -> Result<()> {
        self.call(["deploy", "-f"]).arg(file).arg(stack).read().map(drop)
    }

    /// Deploys what is written here and waits until it runs.
    pub(crate) fn deploy_text(&self, compose: impl Into<String>, stack: &str) -> Result<()> {
        self.call(["deploy", "-f", "-", stack]).input(compose).read().map(drop)
    }

    pub(crate) fn remove(&self, stack: &str) -> Result<()> {
        self.call(["rm", stack]).read().map(drop)
    }

    /// Scales and waits until it is so.
    pub(crate) fn scale(&self, service: &str, replicas: u32) -> Result<()> {
        self.call(["scale", &format!("{service}={replicas}")]).read().map(drop)
    }

    /// Has a change recorded, without waiting for its effect. Any outcome is an answer.
    pub(crate) fn write_scale(&self, service: &str, replicas: u32) -> Result<Heard> {
        self.call(["scale", "--detach", "--timeout", "30s", &format!("{service}={replicas}")]).hear()
    }

    /// As [`Cluster::write_scale`], of a stack.
    pub(crate) fn write_stack(&self, compose: impl Into<String>, stack: &str) -> Result<Heard> {
        self.call(["deploy", "--detach", "--timeout", "30s", "-f", "-", stack]).input(compose).hear()
    }

    /// The tasks of a stack or service.
    pub(crate) fn tasks(&self, of: &str) -> Result<Vec<Task>> {
        self.list(&["ps", of])
    }

    /// The same, with those that have ended.
    pub(crate) fn all_tasks(&self, of: &str) -> Result<Vec<Task>> {
        self.list(&["ps", of, "--all"])
    }

    /// What the containers of a stack, service or task wrote to stdout.
    pub(crate) fn printed(&self, of: &str) -> Result<String> {
        self.call(["logs", "--no-prefix", of]).read()
    }

    pub(crate) fn services(&self, stack: &str) -> Result<Vec<Service>> {
        self.list(&["services", stack])
    }

    pub(crate) fn nodes(&self) -> Result<Vec<Node>> {
        self.list(&["node", "ls"])
    }

    fn list<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<Vec<T>> {
        let text = self.call(arguments.iter().copied()).args(["-o", "json"]).read()?;
        serde_json::from_str(&text)
            .with_context(|| format!("`gantry {}` is not what it should be", arguments.join(" ")))
    }

    pub(crate) fn inspect(&self, reference: &str) -> Result<Value> {
        let text = self.call(["inspect", reference]).read()?;
        serde_json::from_str(&text).with_context(|| format!("`gantry inspect {reference}` is no JSON"))
    }

    pub(crate) fn leader(&self) -> Result<String> {
        let leader = self.nodes()?.into_iter().find(|node| node.leader);
        leader.map(|node| node.node).context("no node leads")
    }

    /// The socket on which a node's daemon answers root.
    pub(crate) fn socket(&self, node: &str) -> PathBuf {
        Path::new("/run/gantry").join(self.name).join(node).join("api.sock")
    }

    /// Waits until all nodes are ready and one of them leads.
    pub(crate) fn await_nodes(&self, nodes: usize) -> Result<()> {
        wait::until("all nodes to be ready", PATIENCE, || {
            let rows = self.nodes()?;
            let ready = rows.iter().filter(|node| node.is_ready()).count();
            let leaders = rows.iter().filter(|node| node.leader).count();
            Ok((ready == nodes && leaders == 1).then_some(()))
        })
    }

    /// Waits until each of the first `replicas` slots has one running, ready task, and no task is anything else.
    /// Returns them.
    pub(crate) fn await_tasks(&self, of: &str, replicas: usize) -> Result<Vec<Task>> {
        wait::until(&format!("{replicas} tasks of {of}"), PATIENCE, || {
            let tasks = self.tasks(of)?;
            let slots: BTreeSet<u32> =
                tasks.iter().filter(|task| task.is_up()).map(|task| task.slot).collect();
            Ok((slots.len() == replicas && tasks.len() == replicas).then_some(tasks))
        })
    }

    /// Waits until `replicas` slots have a running, ready task on a node other than `lost`. Returns those.
    pub(crate) fn await_tasks_elsewhere(&self, of: &str, replicas: usize, lost: &str) -> Result<Vec<Task>> {
        wait::until(&format!("{replicas} tasks of {of} on other nodes than {lost}"), PATIENCE, || {
            let tasks = self.tasks(of)?.into_iter().filter(|task| task.is_up() && !task.is_on(lost));
            let tasks: Vec<Task> = tasks.collect();
            let slots: BTreeSet<u32> = tasks.iter().map(|task| task.slot).collect();
            Ok((slots.len() == replicas).then_some(tasks))
        })
    }

    /// Leaves the cluster up.
    pub(crate) fn keep(mut self) {
        self.ends = false;
    }

    /// Takes the cluster down; an error where dropping it could only complain.
    pub(crate) fn down(mut self) -> Result<()> {
        self.ends = false;
        self.down_now()
    }

    fn down_now(&self) -> Result<()> {
        self.dev(&["down"]).sheltered().read().map(drop)
    }

    /// What each daemon has logged, in the order of their nodes.
    pub(crate) fn logs(&self) -> Vec<String> {
        self.read_logs().into_iter().map(|(_, text)| text).collect()
    }

    fn read_logs(&self) -> Vec<(PathBuf, String)> {
        let nodes = fs::read_dir(inventory::dev_root().join(self.name)).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = nodes.map(|node| node.path().join("daemon.log")).collect();
        logs.sort();
        let read = |path: PathBuf| {
            fs::read(&path).ok().map(|text| (path, String::from_utf8_lossy(&text).into_owned()))
        };
        logs.into_iter().filter_map(read).collect()
    }

    /// The end of each daemon's log. They go with the cluster, so this is the last chance to see them.
    fn last_words(&self) -> String {
        let logs = self.read_logs().into_iter();
        logs.map(|(path, text)| format!("the end of {}:{}\n", path.display(), last_lines(&text))).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.ends {
            return;
        }
        let words = self.last_words();
        if !wait::is_interrupted() && !words.is_empty() {
            complain(words.trim_end());
        }
        complain(&format!("taking the cluster {} down", self.name));
        if let Err(error) = self.down_now() {
            complain(&format!("error: {error:#}"));
        }
    }
}

/// Whether there is such a cluster, or something left of it.
fn exists(name: &str) -> bool {
    inventory::dev_root().join(name).exists()
}

/// Fails if someone has a use for a cluster of this name.
pub(crate) fn demand_absent(name: &str) -> Result<()> {
    if exists(name) {
        bail!("there is a cluster {name} already: take it down with `gantry dev down --name {name}`");
    }
    Ok(())
}

/// The node, not the leader, that has the most of these tasks.
pub(crate) fn busiest_follower<'n>(nodes: &'n [Node], tasks: &[Task]) -> Option<&'n str> {
    let followers = nodes.iter().filter(|node| !node.leader && node.is_ready());
    followers
        .map(|node| node.node.as_str())
        .max_by_key(|node| tasks.iter().filter(|task| task.is_on(node)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(text: &str) -> Task {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_row_of_ps_is_read_with_what_is_unknown() {
        let waiting = task(
            r#"{"service":"hello/web","slot":2,"task":null,"node":null,"phase":"waiting","ready":false,
                "node_address":null,"ports":[],"reason":"no node has room"}"#,
        );
        assert!(!waiting.is_up() && !waiting.is_on("n1") && waiting.published(80).is_none());
        let up = task(
            r#"{"service":"hello/web","slot":1,"task":"s1-1-1","node":"n1","phase":"running","ready":true,
                "node_address":"10.199.1.11","ports":[{"host":30001,"target":80,"protocol":"tcp"}]}"#,
        );
        assert!(up.is_up() && up.is_on("n1"));
        assert_eq!(up.published(80), Some("10.199.1.11:30001".parse().unwrap()));
        assert_eq!(up.published(81), None);
    }

    #[test]
    fn the_busiest_follower_does_not_lead() {
        let node = |name: &str, leader, status: &str| Node {
            node: name.to_owned(),
            leader,
            status: status.to_owned(),
        };
        let on = |node: &str| {
            task(&format!(
                r#"{{"slot":1,"task":"t","node":"{node}","phase":"running","ready":true,"node_address":null}}"#
            ))
        };
        let nodes = [
            node("n1", true, "ready"),
            node("n2", false, "ready"),
            node("n3", false, "ready"),
            node("n4", false, "down"),
        ];
        let tasks = [on("n1"), on("n1"), on("n3"), on("n4"), on("n4")];
        assert_eq!(busiest_follower(&nodes, &tasks), Some("n3"));
        assert_eq!(busiest_follower(&nodes[..1], &tasks), None);
    }
}
