//! Many seeds, each in a runtime of its own, on as many threads as there are cores.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::simulation::{Options, Report, run};

/// Lines of a failing run's trace that are shown.
const SHOWN: usize = 60;
/// A line is written each time that so many seeds are done.
const REPORTED: u64 = 100;

/// What became of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub runs: u64,
    /// The seeds that failed, in order.
    pub failed: Vec<u64>,
    /// How often what occurred, over all runs.
    pub counts: BTreeMap<&'static str, u64>,
}

/// Runs `seeds`, and writes each failing one with its reasons, the end of its trace and how to run it
/// again. With `verbose`, writes a line for every other seed as well, and all of a failing one's trace.
///
/// # Errors
/// `out` cannot be written to.
pub fn simulate(seeds: Range<u64>, verbose: bool, out: &mut dyn Write) -> io::Result<Summary> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(seeds.start);
    let (sender, reports) = mpsc::channel();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, end) = (sender.clone(), &next, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // The receiver is gone when nothing can be written any more.
                    if seed >= end || sender.send(run(seed, &Options::default())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in reports {
            summary.take_in(&report);
            show(&report, verbose, out)?;
            if summary.runs.is_multiple_of(REPORTED) {
                writeln!(out, "{} seeds, {} failed", summary.runs, summary.failed.len())?;
            }
        }
        Ok::<(), io::Error>(())
    })?;
    summary.failed.sort_unstable();
    Ok(summary)
}

impl Summary {
    fn take_in(&mut self, report: &Report) {
        self.runs += 1;
        if !report.failures.is_empty() {
            self.failed.push(report.seed);
        }
        for (what, times) in &report.counts {
            *self.counts.entry(*what).or_default() += times;
        }
    }
}

fn show(report: &Report, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
    let Report { seed, trace_hash, trace, failures, counts: _, elapsed } = report;
    if failures.is_empty() {
        if verbose {
            writeln!(
                out,
                "seed {seed}: converged after {elapsed:.1?} of virtual time; trace {}",
                &trace_hash[..16]
            )?;
        }
        return Ok(());
    }
    let hidden = if verbose { 0 } else { trace.len().saturating_sub(SHOWN) };
    writeln!(out, "seed {seed} failed; the end of its trace ({hidden} lines before it are not shown):")?;
    for line in &trace[hidden..] {
        writeln!(out, "  {line}")?;
    }
    for failure in failures {
        writeln!(out, "seed {seed}: {failure}")?;
    }
    writeln!(out, "run it again with: cargo xtask simulate --seed {seed}")
}
