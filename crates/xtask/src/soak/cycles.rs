//! A service goes up and down, and each node has to have as much of everything afterwards as before.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{NAME, Tally, WAVE, leftovers, qualified};
use crate::cluster::Cluster;
use crate::output::{say, seconds};

const HIGH: u32 = 30;
const REPORTED: u32 = 10;

pub(super) fn run(cluster: &Cluster, cycles: u32, tally: &mut Tally) -> Result<()> {
    if cycles == 0 {
        return Ok(());
    }
    // The first time round each node fetches the image, and keeps it.
    wave(cluster).context("in the first scale cycle, which is not counted")?;
    let baseline = leftovers::settled(cluster, NAME)?;
    let mut began = Instant::now();
    for cycle in 1..=cycles {
        wave(cluster).with_context(|| format!("in scale cycle {cycle}"))?;
        let different = leftovers::differences(cluster, NAME, &baseline)?;
        tally.violations.extend(different.into_iter().map(|what| format!("scale cycle {cycle}: {what}")));
        tally.cycles = cycle;
        if cycle.is_multiple_of(REPORTED) || cycle == cycles {
            say(format_args!(
                "{:>8}  scale cycle {cycle}: 1 → {HIGH} → 1, {} violations",
                seconds(began.elapsed()),
                tally.violations.len()
            ));
            began = Instant::now();
        }
    }
    Ok(())
}

fn wave(cluster: &Cluster) -> Result<()> {
    let service = qualified(WAVE.0);
    for replicas in [HIGH, 1] {
        cluster.scale(&service, replicas)?;
        cluster.await_tasks(&service, usize::try_from(replicas)?)?;
    }
    Ok(())
}
