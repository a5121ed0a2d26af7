//! `cargo xtask bench cluster`: how fast a three-node cluster on this machine does what it is told, how fast it recovers, and
//! what it weighs.
//!
//! A time runs from the start of the command (or of the fault) until a poll has seen the outcome, so each holds at least
//! two starts of the client. Each is taken several times on one cluster, and the median is what counts. What a time is made
//! of is then looked at on another cluster, whose daemons log each step. Each sample begins after a minute's rest.
//!
//! [`node`] is `cargo xtask bench node`, of one machine beside its peers. [`mod@write`] is `cargo xtask bench write`, of one
//! write beside etcd's.

mod figure;
mod hops;
pub(crate) mod node;
mod stress;
mod table;
pub(crate) mod write;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cluster::{Cluster, DONE, OUTCOME_UNKNOWN, PATIENCE, busiest_follower};
use crate::output::{say, seconds};
use crate::{packages, procs, project, wait, workload};
use table::{Row, Unit};

const NAME: &str = "bench";
const NODES: u8 = 3;
const STACK: &str = "load";
const SERVICE: &str = "load/web";
/// How many tasks there are when a fault strikes and when memory is measured.
const LOAD: u32 = 30;
const HEAVY: u32 = 90;
/// Before each sample. An ext4 without a journal gives out no inode again within a minute of its removal, and looks at each such
/// inode for each new one: what the sample before has removed would be paid for by this one (`crates/runtime/DESIGN.md`).
const REST: Duration = Duration::from_secs(61);
/// Before memory is looked at.
const AT_REST: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each thing is measured
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Also run `stress-ng --cpu 4` for so long, and see that no node is taken for lost
    #[arg(long, default_value_t = 0, value_name = "MINUTES")]
    stress: u64,
    /// Write the figures to a file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The samples of everything that is measured.
#[derive(Debug, Default)]
struct Figures {
    write: Vec<f64>,
    create: Vec<f64>,
    up_to_load: Vec<f64>,
    up_to_heavy: Vec<f64>,
    node_lost: Vec<f64>,
    leader_killed: Vec<f64>,
    daemon: Vec<f64>,
    shim: Vec<f64>,
    evictions: Option<f64>,
}

/// The bench of the crate itself, optimised as what users run is.
pub(crate) fn scheduler() -> Result<()> {
    project::cargo().args(["bench", "-p", "scheduler", "--bench", "placement"]).show()
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::demand_root("a bench")?;
    wait::heed_signals()?;
    packages::ensure(&packages::ALL)?;
    let gantry = project::build()?;
    let cluster = Cluster::up(&gantry, NAME, NODES)?;
    let mut figures = Figures::default();
    measure(&cluster, options, &mut figures)?;
    cluster.down()?;
    let rows = figures.rows();
    say(table::render(&rows));
    say(
        "Swarm's figures are issue 2's (dockerd 20.10, three nodes in namespaces, 2 cores), not measured in this run.\n",
    );
    let steps = steps(&gantry)?;
    for (title, hops) in &steps {
        say(hops::render(title, hops));
    }
    options.json.as_deref().map_or(Ok(()), |path| write(path, &rows, &steps))
}

type Steps = Vec<(&'static str, Vec<hops::Hop>)>;

fn write(path: &Path, rows: &[Row], steps: &Steps) -> Result<()> {
    let steps: Vec<_> = steps.iter().map(|(title, hops)| hops::json(title, hops)).collect();
    let figures = serde_json::json!({"figures": table::json(rows), "steps": steps});
    let text = serde_json::to_string_pretty(&figures).context("figures are JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// What some commands' times are made of.
fn steps(gantry: &Path) -> Result<Steps> {
    let cluster = Cluster::up_logging(gantry, NAME, NODES, Some(hops::LOG))?;
    warm_up(&cluster)?;
    let create = hops::of(&cluster, || cluster.deploy_text(workload::sleepers(&[("web", 1)]), "one"))?;
    let load = hops::of(&cluster, || cluster.scale(SERVICE, LOAD))?;
    let heavy = hops::of(&cluster, || cluster.scale(SERVICE, HEAVY))?;
    cluster.down()?;
    Ok(vec![("create one → running", create), ("1 → 30", load), ("30 → 90", heavy)])
}

/// Brings a cluster to one replica of a service whose image every node has.
fn warm_up(cluster: &Cluster) -> Result<()> {
    cluster.await_nodes(NODES.into())?;
    cluster.import("busybox")?;
    cluster.deploy_text(workload::sleepers(&[("web", 1)]), STACK)?;
    // Each node fetches the image once, which is not what is measured.
    cluster.scale(SERVICE, LOAD)?;
    cluster.scale(SERVICE, 1)
}

fn measure(cluster: &Cluster, options: &Options, figures: &mut Figures) -> Result<()> {
    warm_up(cluster)?;
    for sample in 1..=options.samples {
        wait::pause(REST)?;
        // What has not run for a minute has left the processors' caches, and one task more or less is not what is waited for.
        cluster.deploy_text(workload::sleepers(&[("web", 1)]), "first")?;
        cluster.remove("first")?;
        let began = Instant::now();
        figures.scaling(cluster, sample)?;
        figures.faults(cluster)?;
        say(format_args!("sample {sample} of {} took {}", options.samples, seconds(began.elapsed())));
    }
    if options.stress > 0 {
        let length = Duration::from_secs(60 * options.stress);
        cluster.scale(SERVICE, LOAD)?;
        figures.evictions = Some(stress::evictions(cluster, SERVICE, length)?);
    }
    Ok(())
}

/// How long it takes until `outcome` has returned, which has to be a poll.
fn timed<T>(outcome: impl FnOnce() -> Result<T>) -> Result<f64> {
    let began = Instant::now();
    outcome()?;
    Ok(began.elapsed().as_secs_f64())
}

impl Figures {
    /// From one replica to many, and memory on the way. Begins and ends with one.
    fn scaling(&mut self, cluster: &Cluster, sample: u32) -> Result<()> {
        let one = format!("one{sample}");
        self.create.push(timed(|| {
            cluster.deploy_text(workload::sleepers(&[("web", 1)]), &one)?;
            cluster.await_tasks(&one, 1)
        })?);
        cluster.remove(&one)?;
        self.write.push(timed(|| accepted(cluster, 2))?);
        cluster.scale(SERVICE, 1)?;
        self.up_to_load.push(scale(cluster, LOAD)?);
        // A daemon gives back what a burst has left within five seconds, and has its tasks for much longer.
        wait::pause(AT_REST)?;
        self.weigh(cluster)?;
        self.up_to_heavy.push(scale(cluster, HEAVY)?);
        scale(cluster, 1).map(drop)
    }

    fn weigh(&mut self, cluster: &Cluster) -> Result<()> {
        let mebibytes = |process| procs::pss(process).map(|bytes| bytes as f64 / f64::from(1 << 20));
        for daemon in procs::daemons(NAME)?.into_values() {
            self.daemon.push(mebibytes(daemon)?);
        }
        let shims = procs::shims(NAME)?;
        let tasks = cluster.tasks(SERVICE)?.len();
        if shims.len() != tasks {
            bail!("{tasks} tasks have {} shims", shims.len());
        }
        for shim in shims {
            self.shim.push(mebibytes(shim)?);
        }
        Ok(())
    }

    /// Loses a node and a leader, each at full load. Begins and ends with one replica.
    fn faults(&mut self, cluster: &Cluster) -> Result<()> {
        scale(cluster, LOAD)?;
        let (nodes, tasks) = (cluster.nodes()?, cluster.tasks(SERVICE)?);
        let lost = busiest_follower(&nodes, &tasks).context("there is no node but the leader")?;
        self.node_lost.push(timed(|| {
            cluster.fault("crash", lost)?;
            cluster.await_tasks_elsewhere(SERVICE, usize::try_from(LOAD)?, lost)
        })?);
        cluster.fault("reboot", lost)?;
        cluster.await_nodes(NODES.into())?;
        cluster.await_tasks(SERVICE, usize::try_from(LOAD)?)?;

        let leader = cluster.leader()?;
        self.leader_killed.push(timed(|| {
            cluster.fault("kill", &leader)?;
            accepted(cluster, LOAD + 1)
        })?);
        cluster.fault("start", &leader)?;
        cluster.await_nodes(NODES.into())?;
        scale(cluster, 1).map(drop)
    }

    fn rows(&self) -> Vec<Row> {
        let row = |name, unit, samples: &[f64], swarm, first_bar, moonshot| Row {
            name,
            unit,
            samples: samples.to_vec(),
            swarm,
            first_bar,
            moonshot,
        };
        let mut rows = vec![
            row("a write is accepted", Unit::Seconds, &self.write, None, None, None),
            row("create one → running", Unit::Seconds, &self.create, Some("0.69"), Some(0.10), Some(0.03)),
            row("1 → 30", Unit::Seconds, &self.up_to_load, Some("5.3"), Some(1.0), Some(0.3)),
            row("30 → 90", Unit::Seconds, &self.up_to_heavy, Some("11.0"), Some(2.0), Some(0.6)),
            row("node lost → replaced", Unit::Seconds, &self.node_lost, Some("16.2"), Some(3.0), Some(1.5)),
            row(
                "leader killed → write accepted",
                Unit::Seconds,
                &self.leader_killed,
                Some("10-17.5"),
                Some(2.0),
                Some(0.6),
            ),
            row(
                "PSS of a daemon at 30 tasks",
                Unit::Mebibytes,
                &self.daemon,
                Some("113"),
                Some(40.0),
                Some(24.0),
            ),
            row("PSS of a shim", Unit::Mebibytes, &self.shim, Some("3.6"), Some(1.0), Some(0.1)),
        ];
        if let Some(evictions) = self.evictions {
            rows.push(row("false evictions under load", Unit::Count, &[evictions], None, Some(0.0), None));
        }
        rows
    }
}

/// How long scaling takes until a poll shows all of it.
fn scale(cluster: &Cluster, replicas: u32) -> Result<f64> {
    timed(|| {
        cluster.scale(SERVICE, replicas)?;
        cluster.await_tasks(SERVICE, usize::try_from(replicas)?)
    })
}

/// Asks for so many replicas until someone says yes.
fn accepted(cluster: &Cluster, replicas: u32) -> Result<()> {
    wait::until("a write to be accepted", PATIENCE, || {
        let heard = cluster.write_scale(SERVICE, replicas)?;
        match heard.status.code() {
            Some(DONE) => Ok(Some(())),
            Some(OUTCOME_UNKNOWN) => Ok(None),
            _ => bail!("{}", heard.failure()),
        }
    })
}
