//! A machine with more to do than it can: slow is not lost.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cluster::{Cluster, PATIENCE};
use crate::command::Call;
use crate::output::{complain, say, seconds};
use crate::{packages, wait};

/// Twice as many workers as this machine has processors.
const WORKERS: &str = "4";
/// A node that is taken for lost stays so for longer.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
const REPORTED: Duration = Duration::from_secs(60);

/// Debian's `stress-ng`, which ends with its owner.
struct Stress(Child);

impl Stress {
    fn begin(length: Duration) -> Result<Self> {
        packages::ensure(&["stress-ng"])?;
        let length = format!("{}s", length.as_secs());
        let mut command = Command::new("stress-ng");
        command.args(["--cpu", WORKERS, "--timeout", &length, "--quiet"]).stdin(Stdio::null());
        command.spawn().map(Self).context("cannot run `stress-ng`")
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        // Not with SIGKILL, which would leave its workers.
        let ended = Call::of("kill").arg(self.0.id().to_string()).read().is_ok() && self.0.wait().is_ok();
        if !ended {
            complain(&format!("warning: stress-ng (process {}) may still run", self.0.id()));
        }
    }
}

/// Keeps the machine's processors busy for this long. Returns how many tasks were replaced and how often a look found a
/// node that is not ready.
pub(super) fn evictions(cluster: &Cluster, service: &str, length: Duration) -> Result<f64> {
    say(format_args!("`stress-ng --cpu {WORKERS}` for {}", seconds(length)));
    let before = tasks(cluster, service)?;
    let lost = {
        let mut stress = Stress::begin(length + PATIENCE)?;
        let lost = watch(cluster, length)?;
        if let Some(ended) = stress.0.try_wait().context("cannot look after `stress-ng`")? {
            bail!("`stress-ng` ended before its time ({ended})");
        }
        lost
    };
    let replaced = u32::try_from(before.difference(&tasks(cluster, service)?).count())?;
    Ok(f64::from(lost + replaced))
}

fn watch(cluster: &Cluster, length: Duration) -> Result<u32> {
    let began = Instant::now();
    let mut reported = began;
    let mut lost = 0;
    while began.elapsed() < length {
        // A client that is not served in time says nothing about nodes.
        let nodes = wait::until("a list of nodes", PATIENCE, || cluster.nodes().map(Some))?;
        lost += u32::try_from(nodes.iter().filter(|node| !node.is_ready()).count())?;
        if reported.elapsed() >= REPORTED {
            reported = Instant::now();
            say(format_args!("{:>8}  {lost} nodes seen not ready", seconds(began.elapsed())));
        }
        wait::pause(BETWEEN_LOOKS)?;
    }
    Ok(lost)
}

fn tasks(cluster: &Cluster, service: &str) -> Result<BTreeSet<String>> {
    Ok(cluster.tasks(service)?.into_iter().filter_map(|task| task.task).collect())
}
