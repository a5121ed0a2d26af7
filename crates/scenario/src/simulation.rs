//! One run: a cluster is founded, disturbed, and left in peace.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::runtime::{Builder, RngSeed, UnhandledPanic};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::{Belief, Importer, Operator, User};
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::faults::Mischief;
use crate::quiet;
use crate::trace::Trace;

/// openraft's futures are deep, and a debug build's stack frames wide.
const STACK: usize = 16 << 20;

/// No run takes as long, in virtual time, unless something waits for what never comes.
const LONGEST: Duration = Duration::from_secs(1800);

/// How to run a seed. Whatever is changed here makes it another run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long, in virtual time, things go wrong.
    pub disturbed: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { disturbed: Duration::from_secs(40) }
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    /// Of everything that happened, in hex. Equal for equal seeds, options and code.
    pub trace_hash: String,
    /// What happened, one line each, beginning with the virtual time in seconds.
    pub trace: Vec<String>,
    /// What was not as it has to be; empty when all went well.
    pub failures: Vec<String>,
    /// How often what occurred: what no run of many meets is not tested.
    pub counts: BTreeMap<&'static str, u64>,
    /// How long it took in virtual time.
    pub elapsed: Duration,
}

/// Runs one seed, on a thread of its own.
///
/// # Panics
/// When the machine cannot give it a thread or a runtime. A panic inside the run is one of its failures.
pub fn run(seed: u64, options: &Options) -> Report {
    let options = options.clone();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK);
    let running = thread.spawn(move || run_here(seed, &options)).expect("a thread can be started");
    running.join().expect("panics of the run are caught in it")
}

fn run_here(seed: u64, options: &Options) -> Report {
    let trace = Trace::new();
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_be_bytes()))
        // Otherwise a loop that panicked would merely be missing.
        .unhandled_panic(UnhandledPanic::ShutdownRuntime)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    let life = AssertUnwindSafe(|| {
        let finished = runtime.block_on(async {
            trace.begin();
            let lived = timeout(LONGEST, live(seed, options, &trace)).await;
            let lived = lived.unwrap_or_else(|_late| Err(anyhow!("it was not over after {LONGEST:?}")));
            (lived, trace.elapsed())
        });
        drop(runtime);
        finished
    });
    let elapsed = match std::panic::catch_unwind(life) {
        Ok((lived, elapsed)) => {
            if let Err(error) = lived {
                trace.broken(format_args!("{error:#}"));
            }
            elapsed
        }
        Err(_panic) => {
            trace.broken("a part of it panicked; the message is on stderr");
            Duration::ZERO
        }
    };
    let recorded = trace.finish();
    Report {
        seed,
        trace_hash: recorded.hash,
        trace: recorded.lines,
        failures: recorded.failures,
        counts: recorded.counts,
        elapsed,
    }
}

async fn live(seed: u64, options: &Options, trace: &Trace) -> Result<()> {
    let dice = Dice::new(seed, "run");
    let workers = if dice.chance(30) { 2 } else { 0 };
    let wild = dice.chance(60);
    let mut cluster = Cluster::found(seed, workers, wild, trace.clone()).await?;
    let importer = Importer::new(seed, &cluster);
    importer.begin().await;
    trace.line("founded");

    let until = Instant::now() + options.disturbed;
    let mut users = JoinSet::new();
    for number in 1..=2 + dice.below(2) {
        users.spawn(User::new(seed, number, &cluster).run(until));
    }
    let mut importing = JoinSet::new();
    importing.spawn(importer.run(until));
    importing.spawn(Operator::new(seed, &cluster).run(until));
    Mischief::new(seed).run(&mut cluster, until).await?;

    trace.line("peace");
    cluster.world.calm();
    let beliefs = finished(users).await?;
    importing.join_all().await;
    quiet::demand(&cluster, &beliefs).await;
    cluster.end().await;
    Ok(())
}

/// Waits until every user has an answer to what it asked last.
async fn finished(mut users: JoinSet<Belief>) -> Result<Vec<Belief>> {
    let mut beliefs = Vec::new();
    while let Some(belief) = users.join_next().await {
        beliefs.push(belief.map_err(|error| anyhow!("a user did not finish: {error}"))?);
    }
    Ok(beliefs)
}
