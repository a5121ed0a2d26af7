//! Containers are started and stopped, very many in the end, and whatever a start leaves behind adds up: mounts, cgroups,
//! namespaces, descriptors, processes, interfaces, rules, files.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{NAME, Tally, WAVE, leftovers, qualified};
use crate::cluster::Cluster;
use crate::output::{say, seconds};

/// So many are started at once, and then stopped, on all nodes together.
const AT_ONCE: u32 = 20;
/// After so many starts it is looked at what is left.
const BETWEEN_LOOKS: u32 = 1000;

pub(super) fn run(cluster: &Cluster, starts: u32, tally: &mut Tally) -> Result<()> {
    if starts == 0 {
        return Ok(());
    }
    // Each node fetches the image the first time, and keeps it.
    wave(cluster, AT_ONCE).context("in the first starts, which are not counted")?;
    let baseline = leftovers::settled(cluster, NAME)?;
    let mut began = Instant::now();
    let mut looked = 0;
    while tally.starts < starts {
        let count = AT_ONCE.min(starts - tally.starts);
        wave(cluster, count).with_context(|| format!("after {} starts", tally.starts))?;
        tally.starts += count;
        if tally.starts < starts && tally.starts - looked < BETWEEN_LOOKS {
            continue;
        }
        let different = leftovers::differences(cluster, NAME, &baseline)?;
        let after = tally.starts;
        tally.violations.extend(different.into_iter().map(|what| format!("after {after} starts: {what}")));
        say(format_args!(
            "{:>8}  {after} containers started and stopped, {} violations",
            seconds(began.elapsed()),
            tally.violations.len()
        ));
        (looked, began) = (after, Instant::now());
    }
    Ok(())
}

/// Begins and ends with none.
fn wave(cluster: &Cluster, count: u32) -> Result<()> {
    let service = qualified(WAVE.0);
    for replicas in [count, 0] {
        cluster.scale(&service, replicas)?;
        cluster.await_tasks(&service, usize::try_from(replicas)?)?;
    }
    Ok(())
}
