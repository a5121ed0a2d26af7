//! `simulate`: runs seeds of the simulated cluster. `cargo xtask simulate` calls it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

/// Runs simulated clusters; every failing seed can be run again.
#[derive(Debug, Parser)]
struct Args {
    /// Run this seed alone, and show all of its trace if it fails.
    #[arg(long, conflicts_with_all = ["from", "count"])]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    count: u64,
    /// Say something of every seed.
    #[arg(long)]
    verbose: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let Args { seed, from, count, verbose } = Args::parse();
    let seeds = match seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => from..from.saturating_add(count),
    };
    let mut out = std::io::stdout().lock();
    let summary = scenario::simulate(seeds, verbose || seed.is_some(), &mut out)?;
    for (what, times) in &summary.counts {
        writeln!(out, "{times:>10} {what}")?;
    }
    writeln!(out, "{} seeds, {} failed: {:?}", summary.runs, summary.failed.len(), summary.failed)?;
    Ok(if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
