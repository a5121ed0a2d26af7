//! A machine with more to do than it can: slow is not lost.

use std::collections::BTreeSet;
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, PATIENCE};
use crate::output::{say, seconds};
use crate::wait;

/// As many as `stress-ng --cpu 4` would have.
const THREADS: usize = 4;
/// A node that is taken for lost stays so for longer.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Keeps the machine's processors busy for this long. Returns how many tasks were replaced and how often a look found a
/// node that is not ready.
pub(super) fn evictions(cluster: &Cluster, service: &str, length: Duration) -> Result<f64> {
    say(format_args!("keeping {THREADS} threads busy for {}", seconds(length)));
    let tasks = tasks(cluster, service)?;
    let stop = AtomicBool::new(false);
    let lost = thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let lost = watch(cluster, length);
        stop.store(true, Ordering::Relaxed);
        lost
    })?;
    let after = self::tasks(cluster, service)?;
    let replaced = u32::try_from(tasks.difference(&after).count())?;
    Ok(f64::from(lost + replaced))
}

fn watch(cluster: &Cluster, length: Duration) -> Result<u32> {
    let until = Instant::now() + length;
    let mut lost = 0;
    while Instant::now() < until {
        // A client that is not served in time says nothing about nodes.
        let nodes = wait::until("a list of nodes", PATIENCE, || cluster.nodes().map(Some))?;
        lost += u32::try_from(nodes.iter().filter(|node| !node.is_ready()).count())?;
        wait::pause(BETWEEN_LOOKS)?;
    }
    Ok(lost)
}

fn tasks(cluster: &Cluster, service: &str) -> Result<BTreeSet<String>> {
    Ok(cluster.tasks(service)?.into_iter().filter_map(|task| task.task).collect())
}
