//! What Docker and Swarm are measured by. Both are one dockerd, which is a swarm of one node.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::runtimes::milliseconds;
use super::side;
use crate::cluster::PATIENCE;
use crate::docker::Docker;
use crate::{registry, wait, workload};

/// A hundred tasks take Swarm a good part of a minute.
const SWARMS_PATIENCE: Duration = PATIENCE.saturating_mul(5);
const SERVICE: &str = "bench";

/// Makes a running dockerd fit to be measured.
pub(super) fn prepare(docker: &Docker) -> Result<()> {
    docker.load("busybox")?;
    // An address has to be given; there is no other node to reach it.
    docker.run(["swarm", "init", "--advertise-addr", "127.0.0.1"])?;
    docker.run(["run", "--rm", "busybox", "true"]).map(drop)
}

/// Makes, starts and removes a container whose program ends at once.
fn run(docker: &Docker) -> Result<()> {
    docker.run(["run", "--rm", "busybox", "true"]).map(drop)
}

fn sleeper(docker: &Docker) -> Result<String> {
    docker.run([&["run", "--detach", "busybox"][..], &workload::SLEEPS[..]].concat())
}

/// How long so many `docker run` take, one after the other, in milliseconds each.
pub(super) fn starts(docker: &Docker, count: u32) -> Result<Vec<f64>> {
    (0..count).map(|_| milliseconds(|| run(docker))).collect()
}

/// How long it takes until a container runs that stays, in milliseconds.
pub(super) fn one(docker: &Docker) -> Result<f64> {
    let took = milliseconds(|| sleeper(docker).map(drop))?;
    docker.clear()?;
    Ok(took)
}

/// How long it takes until so many containers run, which stay, in seconds.
pub(super) fn burst(docker: &Docker, count: u32) -> Result<f64> {
    let began = Instant::now();
    side::times(count, |_| sleeper(docker).map(drop))?;
    Ok(began.elapsed().as_secs_f64())
}

/// How many containers a second are run and removed.
pub(super) fn churn(docker: &Docker, length: Duration) -> Result<f64> {
    side::rate(length, |_| run(docker))
}

/// How long it takes to run a program in a container that is there, so many times.
pub(super) fn execs(docker: &Docker, count: u32) -> Result<Vec<f64>> {
    let container = sleeper(docker)?;
    let exec = || docker.run(["exec", container.as_str(), "true"]).map(drop);
    let execs: Vec<f64> = (0..count).map(|_| milliseconds(exec)).collect::<Result<_>>()?;
    docker.clear()?;
    Ok(execs)
}

/// How long it takes from a pull to a running container, in seconds. Nothing of the image is there before and after.
pub(super) fn pull(docker: &Docker, image: &str) -> Result<f64> {
    let reference = registry::reference(image);
    let began = Instant::now();
    docker.run([&["run", "--detach", reference.as_str()][..], &workload::SLEEPS[..]].concat())?;
    let took = began.elapsed().as_secs_f64();
    docker.clear()?;
    docker.run(["rmi", "--force", reference.as_str()])?;
    Ok(took)
}

/// How long it takes until so many tasks of a service run, in seconds. None is there before and after.
pub(super) fn service(docker: &Docker, replicas: u32) -> Result<f64> {
    let count = replicas.to_string();
    let create = ["service", "create", "--detach", "--no-resolve-image", "--name", SERVICE, "--replicas"];
    let began = Instant::now();
    docker.run([&create[..], &[count.as_str(), "busybox"][..], &workload::SLEEPS[..]].concat())?;
    let wanted = format!("{count}/{count}");
    wait::until("Swarm to run all of a service", SWARMS_PATIENCE, || {
        let running = docker.run(["service", "ls", "--format", "{{.Replicas}}"])?;
        Ok((running == wanted).then_some(()))
    })?;
    let took = began.elapsed().as_secs_f64();
    docker.run(["service", "rm", SERVICE])?;
    wait::until("Swarm to remove a service", SWARMS_PATIENCE, || {
        Ok(docker.run(["ps", "--all", "--quiet"])?.is_empty().then_some(()))
    })?;
    Ok(took)
}

/// What each process beside a container weighs, of so many containers, in KiB.
pub(super) fn weights(docker: &Docker, containers: u32) -> Result<Vec<f64>> {
    let shims = docker.shims()?;
    if shims.len() != usize::try_from(containers)? {
        bail!("{containers} containers have {} shims", shims.len());
    }
    super::weights(shims)
}
