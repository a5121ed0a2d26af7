//! `cargo xtask soak`: a real cluster is hurt again and again while something writes to it, and is looked at for what it
//! lost, what it stopped, and what it left behind.
//!
//! - [`rounds`]: daemons are killed with -9 and started again. Every acknowledged write is still there, no container was
//!   touched, and the cluster comes to rest.
//! - [`cycles`]: a service goes from one replica to thirty and back. Each node has as much of everything as before.
//! - [`starts`]: the same of very many containers, and of what only many of them make visible.
//! - [`adoption`]: a node full of containers loses its daemon and gets one of another build. A worker reboots while there
//!   is no manager.
//! - Around each cluster, the machine's inventory: equal before the cluster came and after it went.

mod adoption;
mod cycles;
mod leftovers;
mod rounds;
mod starts;
mod writes;

use std::path::Path;
use std::time::{Duration, Instant};

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
    /// How many containers are started and stopped, twenty at a time
    #[arg(long, default_value_t = 200, value_name = "N")]
    starts: u32,
    /// How many containers run on one node while its daemon is killed and replaced by another build; with 0, no node is
    /// rebooted without managers either
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=200))]
    adopt: u32,
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
    pub(crate) fn of(rounds: u32, cycles: u32, starts: u32, adopt: u32) -> Self {
        Self { rounds, cycles, starts, adopt, nodes: 3, seed: None, keep: false }
    }
}

/// What was done, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rounds: u32,
    kills: u32,
    cycles: u32,
    starts: u32,
    acknowledged: u64,
    unknown: u64,
    /// Tasks that found their place taken when their node came back: it was away for too long.
    replaced: usize,
    /// Containers that a daemon of another build took over, and how long that took.
    adopted: usize,
    adoption: Duration,
    /// Containers that ran again on a worker that was rebooted without managers.
    revived: usize,
    /// Things of the machine that were compared before and after a cluster.
    compared: usize,
    violations: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::demand_root("a soak")?;
    wait::heed_signals()?;
    let seed = options.seed.unwrap_or_else(chance::new_seed);
    say(format_args!(
        "soak: {} kill rounds, {} scale cycles and {} starts on {} nodes, {} containers to adopt, seed {seed}",
        options.rounds, options.cycles, options.starts, options.nodes, options.adopt
    ));
    packages::ensure(&packages::ALL)?;
    let gantry = project::build()?;
    let began = Instant::now();
    let mut tally = Tally::default();
    let ground = Ground { gantry: &gantry, keep: options.keep };
    if [options.rounds, options.cycles, options.starts].iter().any(|count| *count > 0) {
        let up = || Cluster::up(&gantry, NAME, options.nodes);
        ground.work(up, &mut tally, |cluster, tally| hurt(cluster, options, seed, tally))?;
    }
    if options.adopt > 0 && ground.is_free(&tally) {
        // It outlives the cluster that it runs.
        let (_folder, build) = adoption::another_build(&gantry)?;
        let up = || Cluster::up(&gantry, NAME, 1);
        ground.work(up, &mut tally, |cluster, tally| {
            adoption::by_another_build(cluster, &build, options.adopt, tally)
        })?;
    }
    if options.adopt > 0 && ground.is_free(&tally) {
        let up = || Cluster::up_with_workers(&gantry, NAME, 2);
        ground.work(up, &mut tally, |cluster, tally| adoption::after_a_reboot(cluster, tally))?;
    }
    conclude(&tally, seed, began)
}

/// Where clusters come up, one after the other.
struct Ground<'g> {
    gantry: &'g Path,
    keep: bool,
}

impl Ground<'_> {
    /// Whether the next cluster has the place for itself.
    fn is_free(&self, tally: &Tally) -> bool {
        !self.keep || tally.violations.is_empty()
    }

    /// Brings a cluster up, has something done to it, takes it down, and looks for what it left. A failure of what is done
    /// is a violation; only an interruption is an error.
    fn work(
        &self,
        up: impl FnOnce() -> Result<Cluster>,
        tally: &mut Tally,
        work: impl FnOnce(&mut Cluster, &mut Tally) -> Result<()>,
    ) -> Result<()> {
        // What a killed run left is no standard to be measured by.
        Cluster::clear(self.gantry, NAME)?;
        let before = inventory::take(NAME)?;
        tally.compared += before.count();
        let mut cluster = up()?;
        if let Err(error) = work(&mut cluster, tally) {
            if wait::is_interrupted() {
                return Err(error);
            }
            tally.violations.push(format!("{error:#}"));
        }
        if !tally.violations.is_empty() && self.keep {
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
        Ok(())
    }
}

fn hurt(cluster: &Cluster, options: &Options, seed: u64, tally: &mut Tally) -> Result<()> {
    cluster.await_nodes(options.nodes.into())?;
    cluster.import("busybox")?;
    cluster.deploy_text(workload::sleepers(&[STEADY, CHURN, WAVE]), STACK)?;
    rounds::run(cluster, &mut Chance::seeded(seed), options.rounds, tally)?;
    cycles::run(cluster, options.cycles, tally)?;
    starts::run(cluster, options.starts, tally)
}

fn conclude(tally: &Tally, seed: u64, began: Instant) -> Result<()> {
    say("");
    for (what, count) in [
        ("kill rounds", u64::from(tally.rounds)),
        ("daemons killed", u64::from(tally.kills)),
        ("writes acknowledged", tally.acknowledged),
        ("writes of unknown outcome", tally.unknown),
        ("tasks replaced while their node was away", tally.replaced as u64),
        ("scale cycles", u64::from(tally.cycles)),
        ("containers started and stopped", u64::from(tally.starts)),
        ("containers adopted by another build", tally.adopted as u64),
        ("containers revived without managers", tally.revived as u64),
        ("things compared before and after", tally.compared as u64),
        ("violations", tally.violations.len() as u64),
    ] {
        say(format_args!("{what:<42} {count:>8}"));
    }
    if tally.adopted > 0 {
        say(format_args!("{:<42} {:>8}", "time until all were adopted", seconds(tally.adoption)));
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
