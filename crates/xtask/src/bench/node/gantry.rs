//! What gantry is measured by: dev clusters, of one node where a machine is compared with a machine, of three where it is
//! the whole way through a cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::runtimes::milliseconds;
use super::{NAME, STACK};
use crate::bench::hops;
use crate::cluster::Cluster;
use crate::{procs, registry, wait, workload};

const SERVICE: &str = "load/web";
/// So many containers go up and down together: enough for commits and reports to be shared, as few as three nodes start in
/// under a second.
const WAVE: u32 = 60;

/// Brings a cluster to no replica of a service whose image every node has.
pub(super) fn warm_up(cluster: &Cluster, nodes: u8) -> Result<()> {
    cluster.await_nodes(nodes.into())?;
    cluster.import("busybox")?;
    cluster.deploy_text(workload::sleepers(&[("web", 1)]), STACK)?;
    // Each node fetches and unpacks the image once, which is not what is measured.
    cluster.scale(SERVICE, 10 * u32::from(nodes))?;
    cluster.scale(SERVICE, 0)
}

/// How long it takes, from a node's being told of a task, until its container runs and until its ports are published as
/// well and the agent says so: so many starts, one after the other, in milliseconds each.
pub(super) fn starts(cluster: &Cluster, count: u32) -> Result<[Vec<f64>; 2]> {
    let one_by_one = || (1..=count).try_for_each(|replicas| cluster.scale(SERVICE, replicas));
    let started = hops::between(cluster, ["received", "started"], one_by_one)?;
    cluster.scale(SERVICE, 0)?;
    let running = hops::between(cluster, ["received", "running"], one_by_one)?;
    cluster.scale(SERVICE, 0)?;
    if started.len() != usize::try_from(count)? || running.len() != started.len() {
        bail!("of {count} starts, the daemons' logs show {} and {}", started.len(), running.len());
    }
    Ok([started, running].map(|times| times.into_iter().map(|seconds| seconds * 1000.0).collect()))
}

/// How long it takes from a command until a poll shows so many containers running, in seconds. None is there before and
/// after.
pub(super) fn burst(cluster: &Cluster, count: u32) -> Result<f64> {
    let began = Instant::now();
    cluster.deploy_text(workload::sleepers(&[("web", count)]), "burst")?;
    cluster.await_tasks("burst", usize::try_from(count)?)?;
    let took = began.elapsed().as_secs_f64();
    cluster.remove("burst")?;
    Ok(took)
}

/// How many containers a second are started and stopped, by a command for each wave of them.
pub(super) fn churn(cluster: &Cluster, length: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < length {
        cluster.scale(SERVICE, WAVE)?;
        cluster.scale(SERVICE, 0)?;
        count += WAVE;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// How long it takes to run a program in a container that is there, so many times, in milliseconds each.
pub(super) fn execs(cluster: &Cluster, count: u32) -> Result<Vec<f64>> {
    cluster.scale(SERVICE, 1)?;
    let tasks = cluster.await_tasks(SERVICE, 1)?;
    let task = tasks.into_iter().find_map(|task| task.task).context("the task has no id")?;
    let exec = || cluster.call(["exec", task.as_str(), "--", "true"]).read().map(drop);
    let execs: Vec<f64> = (0..count).map(|_| milliseconds(exec)).collect::<Result<_>>()?;
    cluster.scale(SERVICE, 0)?;
    Ok(execs)
}

/// What each shim weighs beside so many containers, in KiB.
pub(super) fn weights(cluster: &Cluster, containers: u32) -> Result<Vec<f64>> {
    cluster.scale(SERVICE, containers)?;
    let shims = procs::shims(NAME)?;
    if shims.len() != usize::try_from(containers)? {
        bail!("{containers} containers have {} shims", shims.len());
    }
    let weights = super::weights(shims)?;
    cluster.scale(SERVICE, 0)?;
    Ok(weights)
}

/// How long it takes from a deploy to a running container of an image that is in a registry and not on the node, in
/// seconds.
pub(super) fn pull(cluster: &Cluster, image: &str) -> Result<f64> {
    let began = Instant::now();
    cluster.deploy_text(workload::sleeper_of(&registry::reference(image)), "pull")?;
    Ok(began.elapsed().as_secs_f64())
}

/// The daemon of the cluster's one node.
pub(super) fn daemon() -> Result<u32> {
    let daemon = procs::daemons(NAME)?.into_values().next();
    daemon.map(|daemon| daemon.pid).context("no daemon runs")
}

/// Lets a cluster come to rest, so that it does not disturb the next that is measured.
pub(super) fn rest() -> Result<()> {
    Ok(wait::pause(Duration::from_secs(1))?)
}
