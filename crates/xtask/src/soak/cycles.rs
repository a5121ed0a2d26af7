//! A service goes up and down, and each node has to have as much of everything afterwards as before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::leftovers::{self, Leftovers};
use super::{NAME, Tally, WAVE, qualified};
use crate::cluster::Cluster;
use crate::output::{say, seconds};
use crate::wait;

const HIGH: u32 = 30;
const REPORTED: u32 = 10;
/// A stopped container's last things go after it is seen stopped.
const SETTLING: Duration = Duration::from_secs(15);

pub(super) fn run(cluster: &Cluster, cycles: u32, tally: &mut Tally) -> Result<()> {
    if cycles == 0 {
        return Ok(());
    }
    // The first time round each node fetches the image, and keeps it.
    wave(cluster).context("in the first scale cycle, which is not counted")?;
    let baseline = settled(&take(cluster)?)?;
    let mut began = Instant::now();
    for cycle in 1..=cycles {
        wave(cluster).with_context(|| format!("in scale cycle {cycle}"))?;
        tally.violations.extend(
            differences(cluster, &baseline)?.into_iter().map(|what| format!("scale cycle {cycle}: {what}")),
        );
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

type OfNodes = BTreeMap<String, Leftovers>;

fn take(cluster: &Cluster) -> Result<OfNodes> {
    let nodes = cluster.nodes()?.into_iter().map(|node| node.node);
    nodes.map(|node| leftovers::of(NAME, &node).map(|left| (node, left))).collect()
}

/// What a node has once it has stopped changing: the same twice, a second apart.
fn settled(first: &OfNodes) -> Result<OfNodes> {
    let mut last = first.clone();
    wait::until("nodes to come to rest", SETTLING, || {
        wait::pause(Duration::from_secs(1))?;
        let names: Vec<String> = last.keys().cloned().collect();
        let now: OfNodes = names
            .into_iter()
            .map(|node| leftovers::of(NAME, &node).map(|left| (node, left)))
            .collect::<Result<_>>()?;
        let is_same = now == last;
        last = now;
        Ok(is_same.then(|| last.clone()))
    })
}

/// What a node has more or less of than it had, once it has had time to tidy up.
fn differences(cluster: &Cluster, baseline: &OfNodes) -> Result<Vec<String>> {
    let mut different = Vec::new();
    let equal = wait::until("nodes to be as before", SETTLING, || {
        different = compare(baseline, &take(cluster)?);
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
            if now != *count {
                different.push(format!("{node} has {now} {kind} and had {count}"));
            }
        }
    }
    different
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_and_less_are_both_differences() {
        let of = |mounts, shims| {
            let left: Leftovers = [("mounts", mounts), ("shims", shims)].into_iter().collect();
            OfNodes::from([("n1".to_owned(), left)])
        };
        assert_eq!(compare(&of(7, 2), &of(7, 2)), [""; 0]);
        assert_eq!(compare(&of(7, 2), &of(8, 1)), ["n1 has 8 mounts and had 7", "n1 has 1 shims and had 2"]);
        assert_eq!(compare(&of(1, 1), &OfNodes::new()).len(), 2, "a node that is not there has nothing");
    }
}
