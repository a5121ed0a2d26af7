//! `cargo xtask soak`: a real cluster is hurt again and again while something writes to it, and is looked at for what it
//! lost, what it stopped, and what it left behind.
//!
//! - [`rounds`]: daemons are killed with -9 and started again. Every acknowledged write is still there, no container was
//!   touched, and the cluster comes to rest.
//! - [`cycles`]: a service goes from one replica to thirty and back. Each node has as much of everything as before.
//! - Around both, the machine's inventory: equal before the cluster came and after it went.

mod cycles;
mod leftovers;
mod rounds;
mod writes;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::chance::{self, Chance};
use crate::cluster::Cluster;
use crate::output::{complain, say, seconds};
use crate::{inventory, packages, project, wait, workload};

const NAME: &str = "soak";
const STACK: &str = "soak";
/// Never changed, so its containers have no reason to.
const STEADY: (&str, u32) = ("steady", 6);
/// What the writer scales.
const CHURN: (&str, u32) = ("churn", 1);
/// What the cycles scale.
const WAVE: (&str, u32) = ("wave", 1);

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// How often daemons are killed
    #[arg(long, default_value_t = 30, value_name = "N")]
    rounds: u32,
    /// How often a service is scaled up and down
    #[arg(long, default_value_t = 20, value_name = "N")]
    cycles: u32,
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Draw the same faults as an earlier run
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// If something is wrong, leave the cluster up to be looked at
    #[arg(long)]
    keep: bool,
}

impl Options {
    pub(crate) fn of(rounds: u32, cycles: u32) -> Self {
        Self { rounds, cycles, nodes: 3, seed: None, keep: false }
    }
}

/// What was done, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rounds: u32,
    kills: u32,
    cycles: u32,
    acknowledged: u64,
    unknown: u64,
    /// Tasks that found their place taken when their node came back: it was away for too long.
    replaced: usize,
    violations: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::demand_root("a soak")?;
    wait::heed_signals()?;
    let seed = options.seed.unwrap_or_else(chance::new_seed);
    say(format_args!(
        "soak: {} kill rounds and {} scale cycles on {} nodes, seed {seed}",
        options.rounds, options.cycles, options.nodes
    ));
    packages::ensure(&packages::ALL)?;
    let gantry = project::build()?;
    let began = Instant::now();
    // What a killed run left is no standard to be measured by.
    Cluster::clear(&gantry, NAME)?;
    let before = inventory::take(NAME)?;
    let cluster = Cluster::up(&gantry, NAME, options.nodes)?;
    let mut tally = Tally::default();
    if let Err(error) = hurt(&cluster, options, seed, &mut tally) {
        if wait::is_interrupted() {
            return Err(error);
        }
        tally.violations.push(format!("{error:#}"));
    }
    if !tally.violations.is_empty() && options.keep {
        complain(&format!("the cluster {NAME} stays up: `export GANTRY_CONTEXT={NAME}`"));
        cluster.keep();
    } else if tally.violations.is_empty() {
        cluster.down()?;
        if let Err(error) = inventory::demand_equal(NAME, &before) {
            tally.violations.push(format!("{error:#}"));
        }
    } else {
        // With the daemons' last words.
        drop(cluster);
    }
    conclude(&tally, seed, &before, began)
}

fn hurt(cluster: &Cluster, options: &Options, seed: u64, tally: &mut Tally) -> Result<()> {
    cluster.await_nodes(options.nodes.into())?;
    cluster.import("busybox")?;
    cluster.deploy_text(workload::sleepers(&[STEADY, CHURN, WAVE]), STACK)?;
    rounds::run(cluster, &mut Chance::seeded(seed), options.rounds, tally)?;
    cycles::run(cluster, options.cycles, tally)
}

fn conclude(tally: &Tally, seed: u64, before: &inventory::Inventory, began: Instant) -> Result<()> {
    say("");
    for (what, count) in [
        ("kill rounds", u64::from(tally.rounds)),
        ("daemons killed", u64::from(tally.kills)),
        ("writes acknowledged", tally.acknowledged),
        ("writes of unknown outcome", tally.unknown),
        ("tasks replaced while their node was away", tally.replaced as u64),
        ("scale cycles", u64::from(tally.cycles)),
        ("things compared before and after", before.count() as u64),
        ("violations", tally.violations.len() as u64),
    ] {
        say(format_args!("{what:<42} {count:>8}"));
    }
    say(format_args!("{:<42} {:>8}", "time", seconds(began.elapsed())));
    if tally.violations.is_empty() {
        return Ok(());
    }
    for violation in &tally.violations {
        complain(&format!("violation: {violation}"));
    }
    bail!("{} violations; `cargo xtask soak --seed {seed}` draws the same faults", tally.violations.len())
}

fn qualified(service: &str) -> String {
    format!("{STACK}/{service}")
}
