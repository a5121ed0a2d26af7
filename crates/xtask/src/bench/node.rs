//! `cargo xtask bench node`: what a container costs on one machine, beside what it costs others: `runc run`, `crun run`,
//! `docker run` and Swarm, all from Debian's packages and all in this run.
//!
//! A round measures gantry and each peer, one after the other; every second round goes the other way, so that what drifts
//! favours nobody ([`figure`], [`plan`]). Docker has namespaces of its own ([`crate::docker`]), so nothing of this machine
//! is changed.
//!
//! - [`gantry`], [`docker`], [`runtimes`]: how each is measured. [`side`]: the same again and again.
//! - [`profile`]: where the time of a hundred starts at once goes.

mod docker;
mod gantry;
mod plan;
mod profile;
mod runtimes;
mod side;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::figure::{self, Figure, Who};
use super::hops;
use crate::cluster::Cluster;
use crate::docker::Docker;
use crate::output::{complain, say, seconds};
use crate::procs::{self, Process};
use crate::registry::{self, Registry};
use crate::{images, packages, project, wait};
use plan::{AT_ONCE, CHURNED, ENTERED, EXECUTED, ONE, PULLED, READY, SHIM_OF_MANY, SHIM_OF_SOME};
use runtimes::Runtime;

const NAME: &str = "bench";
const STACK: &str = "load";

/// The peers; what Docker is made of is its own affair.
const PACKAGES: [&str; 2] = ["runc", "crun"];

/// How often in a round a container is started alone. A hundredth of what three rounds have is still more than one.
const STARTS: u32 = 40;
/// The same of peers, which are slower and vary less.
const PEERS_STARTS: u32 = 15;
const EXECS: u32 = 20;
const BURST: u32 = 100;
const CHURN: Duration = Duration::from_secs(20);
/// How many containers there are when what is beside them is weighed. One node has 253 addresses for containers.
const SOME: u32 = 200;
const MANY: u32 = 500;
/// What a container may take with its shim and all that the kernel keeps of it, before so many are not tried.
const ROOM_FOR_ONE: u64 = 12 << 20;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Part {
    /// From assignment to exec, one container at a time
    Starts,
    /// From a command to one running container
    One,
    /// A hundred containers at once
    Burst,
    /// Starts and stops a second
    Churn,
    /// A program in a running container
    Exec,
    /// What is beside each container
    Weight,
    /// From a pull of 500 MB to a running container
    Pull,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many rounds there are
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Measure only this; may be repeated
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Also record what the processors do while a hundred containers start, and show the top symbols
    #[arg(long)]
    profile: bool,
    /// Write the figures to a file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::demand_root("a bench")?;
    wait::heed_signals()?;
    packages::ensure(&packages::ALL)?;
    packages::ensure_unstarted(&PACKAGES)?;
    let gantry = project::build()?;
    let peers = Peers::start()?;
    let stolen = Stolen::begin()?;
    let mut book = Book::new();
    one_node(&gantry, &peers, options, &mut book)?;
    three_nodes(&gantry, &peers, options, &mut book)?;
    pulls(&gantry, &peers, options, &mut book)?;
    let figures = book.figures();
    say(figure::render(&figures));
    let machine = machine(&peers, &stolen)?;
    say(&machine);
    let Some(path) = &options.json else { return Ok(()) };
    let text = serde_json::json!({"machine": machine, "figures": figure::json(&figures)});
    let text = serde_json::to_string_pretty(&text).context("figures are JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// Whom gantry is compared with. They end with this.
struct Peers {
    docker: Docker,
    runc: Runtime,
    /// With what it says if this machine is not to its liking.
    crun: Result<Runtime, String>,
    _work: TempDir,
}

impl Peers {
    fn start() -> Result<Self> {
        let docker = Docker::start()?;
        docker::prepare(&docker)?;
        let work = tempfile::tempdir().context("cannot make a directory")?;
        let root = work.path().join("root");
        images::unpack("busybox", &root)?;
        let runc = Runtime::new("runc", &root, work.path())?;
        runc.run(0)?;
        let crun = Runtime::new("crun", &root, work.path())?;
        let tried = crun.run(0).map_err(|error| last_line(&error));
        Ok(Self { docker, runc, crun: tried.map(|()| crun), _work: work })
    }

    fn runtime(&self, who: Who) -> Result<&Runtime, String> {
        if who == Who::Crun { self.crun.as_ref().map_err(Clone::clone) } else { Ok(&self.runc) }
    }
}

/// The figures of all parts, while they are being taken.
struct Book(BTreeMap<&'static str, Figure>);

/// One who is measured, for a round's order.
type Turn<'t> = (Who, Box<dyn Fn() -> Result<Vec<f64>> + 't>);

impl Book {
    fn new() -> Self {
        Self(plan::all().into_iter().map(|figure| (figure.name, figure)).collect())
    }

    /// Lets each have its turn, in this order or the other. What gantry fails at is an error; a peer that fails is left
    /// out.
    fn round(&mut self, name: &'static str, number: u32, mut turns: Vec<Turn<'_>>) -> Result<()> {
        let figure = self.0.get_mut(name).with_context(|| format!("there is no figure `{name}`"))?;
        if number.is_multiple_of(2) {
            turns.reverse();
        }
        for (who, measure) in turns {
            if figure.is_left_out(who) {
                continue;
            }
            match measure() {
                Ok(samples) => figure.add(who, samples),
                Err(error) if who == Who::Gantry || wait::is_interrupted() => {
                    return Err(error.context(format!("{name}, round {number}")));
                }
                Err(error) => {
                    complain(&format!("warning: {name}: {error:#}"));
                    figure.leave_out(who, last_line(&error));
                }
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, name: &'static str, who: Who, why: &str) {
        if let Some(figure) = self.0.get_mut(name) {
            figure.leave_out(who, why.to_owned());
        }
    }

    fn add(&mut self, name: &'static str, who: Who, samples: Vec<f64>) {
        if let Some(figure) = self.0.get_mut(name) {
            figure.add(who, samples);
        }
    }

    /// In the order of the plan.
    fn figures(mut self) -> Vec<Figure> {
        plan::all().iter().filter_map(|planned| self.0.remove(planned.name)).collect()
    }
}

/// What is compared machine by machine.
fn one_node(gantry: &Path, peers: &Peers, options: &Options, book: &mut Book) -> Result<()> {
    let parts = [Part::Starts, Part::One, Part::Burst, Part::Exec, Part::Weight];
    if !options.profile && !parts.iter().any(|part| options.wants(*part)) {
        return Ok(());
    }
    let cluster = Cluster::up_logging(gantry, NAME, 1, Some(hops::LOG))?;
    gantry::warm_up(&cluster, 1)?;
    let has_exec = cluster.has(&["exec"]);
    if !has_exec {
        book.leave_out(ENTERED, Who::Gantry, "there is no `gantry exec` yet");
    }
    for number in 1..=options.samples {
        let began = Instant::now();
        if options.wants(Part::Starts) {
            starts(&cluster, peers, number, book)?;
        }
        if options.wants(Part::One) {
            one(&cluster, peers, number, book)?;
        }
        if options.wants(Part::Burst) || options.wants(Part::Weight) {
            let weights = burst(&cluster, peers, number, book)?;
            if options.wants(Part::Weight) && !weights.is_empty() {
                book.add(SHIM_OF_SOME, Who::Docker, weights);
            }
        }
        if options.wants(Part::Exec) {
            execs(&cluster, peers, number, book)?;
        }
        say(format_args!("round {number} of {} took {}", options.samples, seconds(began.elapsed())));
    }
    if options.wants(Part::Weight) {
        book.add(SHIM_OF_SOME, Who::Gantry, gantry::weights(&cluster, SOME)?);
    }
    if options.profile {
        let profile = profile::Profile::begin()?;
        gantry::burst(&cluster, BURST)?;
        say(format_args!("a hundred containers at once, and their end:\n{}\n", profile.end()?));
    }
    cluster.down()
}

fn starts(cluster: &Cluster, peers: &Peers, number: u32, book: &mut Book) -> Result<()> {
    let ready = RefCell::new(Vec::new());
    let own = || {
        let [started, running] = gantry::starts(cluster, STARTS)?;
        ready.replace(running);
        anyhow::Ok(started)
    };
    let mut turns: Vec<Turn<'_>> = vec![(Who::Gantry, Box::new(own))];
    for who in [Who::Runc, Who::Crun] {
        turns.push((who, Box::new(move || runtime(peers, who)?.starts(PEERS_STARTS))));
    }
    turns.push((Who::Docker, Box::new(|| docker::starts(&peers.docker, PEERS_STARTS))));
    book.round(EXECUTED, number, turns)?;
    book.add(READY, Who::Gantry, ready.into_inner());
    Ok(())
}

fn one(cluster: &Cluster, peers: &Peers, number: u32, book: &mut Book) -> Result<()> {
    let of = |took: Result<f64>| took.map(|seconds| vec![seconds * 1000.0]);
    let turns: Vec<Turn<'_>> = vec![
        (Who::Gantry, Box::new(move || of(gantry::burst(cluster, 1)))),
        (Who::Docker, Box::new(|| docker::one(&peers.docker).map(|took| vec![took]))),
        (Who::Swarm, Box::new(move || of(docker::service(&peers.docker, 1)))),
    ];
    book.round(ONE, number, turns)
}

/// A hundred at once. Returns what is beside each of Docker's, which are weighed before they go; none if there were none.
fn burst(cluster: &Cluster, peers: &Peers, number: u32, book: &mut Book) -> Result<Vec<f64>> {
    let weights = RefCell::new(Vec::new());
    let dockers = || {
        let took = docker::burst(&peers.docker, BURST)?;
        weights.borrow_mut().extend(docker::weights(&peers.docker, BURST)?);
        peers.docker.clear()?;
        anyhow::Ok(vec![took])
    };
    let turns: Vec<Turn<'_>> = vec![
        (Who::Gantry, Box::new(|| gantry::burst(cluster, BURST).map(|took| vec![took]))),
        (Who::Docker, Box::new(dockers)),
        (Who::Swarm, Box::new(|| docker::service(&peers.docker, BURST).map(|took| vec![took]))),
    ];
    book.round(AT_ONCE, number, turns)?;
    gantry::rest()?;
    Ok(weights.into_inner())
}

fn execs(cluster: &Cluster, peers: &Peers, number: u32, book: &mut Book) -> Result<()> {
    let mut turns: Vec<Turn<'_>> = vec![(Who::Gantry, Box::new(|| gantry::execs(cluster, EXECS)))];
    for who in [Who::Runc, Who::Crun] {
        turns.push((who, Box::new(move || runtime(peers, who)?.execs(EXECS))));
    }
    turns.push((Who::Docker, Box::new(|| docker::execs(&peers.docker, EXECS))));
    book.round(ENTERED, number, turns)
}

fn runtime(peers: &Peers, who: Who) -> Result<&Runtime> {
    peers.runtime(who).map_err(anyhow::Error::msg)
}

/// What goes through a whole cluster, and what is more than one node has addresses for.
fn three_nodes(gantry: &Path, peers: &Peers, options: &Options, book: &mut Book) -> Result<()> {
    if !options.wants(Part::Churn) && !options.wants(Part::Weight) {
        return Ok(());
    }
    let cluster = Cluster::up(gantry, NAME, 3)?;
    gantry::warm_up(&cluster, 3)?;
    if options.wants(Part::Churn) {
        for number in 1..=options.samples {
            let mut turns: Vec<Turn<'_>> =
                vec![(Who::Gantry, Box::new(|| gantry::churn(&cluster, CHURN).map(|rate| vec![rate])))];
            for who in [Who::Runc, Who::Crun] {
                let churn = move || runtime(peers, who)?.churn(CHURN).map(|rate| vec![rate]);
                turns.push((who, Box::new(churn)));
            }
            turns
                .push((Who::Docker, Box::new(|| docker::churn(&peers.docker, CHURN).map(|rate| vec![rate]))));
            book.round(CHURNED, number, turns)?;
        }
    }
    if options.wants(Part::Weight) {
        if available_memory()? > u64::from(MANY) * ROOM_FOR_ONE {
            book.add(SHIM_OF_MANY, Who::Gantry, gantry::weights(&cluster, MANY)?);
        } else {
            book.leave_out(SHIM_OF_MANY, Who::Gantry, "this machine has too little free memory");
        }
    }
    cluster.down()
}

/// What begins at a registry, which each finds on its own loopback.
fn pulls(gantry: &Path, peers: &Peers, options: &Options, book: &mut Book) -> Result<()> {
    const IMAGE: &str = "bulk";
    if !options.wants(Part::Pull) {
        return Ok(());
    }
    let docker_at = peers.docker.daemon()?.pid;
    let stock = registry::stocked(IMAGE, docker_at)?;
    let of_gantry = || {
        // A new one each time: nothing of the image is to be there, and nothing of an earlier one's is.
        let cluster = Cluster::up(gantry, NAME, 1)?;
        cluster.await_nodes(1)?;
        let _registry = Registry::start(&stock, gantry::daemon()?)?;
        let took = gantry::pull(&cluster, IMAGE)?;
        cluster.down()?;
        anyhow::Ok(vec![took])
    };
    let of_docker = || {
        let _registry = Registry::start(&stock, docker_at)?;
        docker::pull(&peers.docker, IMAGE).map(|took| vec![took])
    };
    let can_pull = {
        let cluster = Cluster::up(gantry, NAME, 1)?;
        let can_pull = cluster.has(&["image", "pull"]);
        cluster.down()?;
        can_pull
    };
    if !can_pull {
        book.leave_out(PULLED, Who::Gantry, "there is no `gantry image pull` yet");
    }
    for number in 1..=options.samples {
        let turns: Vec<Turn<'_>> =
            vec![(Who::Gantry, Box::new(of_gantry)), (Who::Docker, Box::new(of_docker))];
        book.round(PULLED, number, turns)?;
    }
    Ok(())
}

/// What each process weighs, in KiB.
fn weights(processes: Vec<Process>) -> Result<Vec<f64>> {
    let kibibytes = |process| procs::pss(process).map(|bytes| bytes as f64 / 1024.0);
    processes.into_iter().map(kibibytes).collect()
}

/// The last thing that an error says, without what is around it.
fn last_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next_back().unwrap_or_default().trim().to_owned()
}

/// The bytes of memory that can be had without swapping (proc(5), MemAvailable).
fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kibibytes.context("/proc/meminfo has no MemAvailable")? * 1024)
}

/// The processors' time when the bench began: all of it, and what other machines on the same hardware were given.
struct Stolen([u64; 2]);

impl Stolen {
    fn begin() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        processor_time(&text).map(Self).context("/proc/stat has no processors' time")
    }

    /// The part that was stolen since, in percent.
    fn since(&self) -> Result<f64> {
        let Self([all, stolen]) = Self::begin()?;
        let Self([all_then, stolen_then]) = self;
        Ok((stolen - stolen_then) as f64 * 100.0 / (all - all_then).max(1) as f64)
    }
}

/// All of the processors' time and what was stolen of it, in ticks (proc(5): the first line, in which guests' time is
/// counted twice).
fn processor_time(stat: &str) -> Option<[u64; 2]> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line.split_whitespace().take(8).map_while(|time| time.parse().ok()).collect();
    Some([times.iter().sum(), *times.get(7)?])
}

/// What these figures are of.
fn machine(peers: &Peers, stolen: &Stolen) -> Result<String> {
    let processors = std::thread::available_parallelism().context("cannot count processors")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!(
        "{processors} processors, Linux {}, Docker {}; {:.1} % of the processors' time went to other machines. × is how \
         many times as good as the peer gantry is, round by round (95 % of draws).",
        kernel.trim(),
        peers.docker.version()?,
        stolen.since()?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_of_the_first_line() {
        let stat = "cpu  100 1 20 800 5 0 3 71 9 9\ncpu0 1 2 3\n";
        assert_eq!(processor_time(stat), Some([1000, 71]));
        assert_eq!(processor_time("cpu  1 2 3\n"), None);
        assert_eq!(processor_time(""), None);
    }

    #[test]
    fn a_peer_that_fails_is_left_out_with_the_last_that_it_said() {
        let mut book = Book::new();
        for number in 1..=2 {
            let turns: Vec<Turn<'_>> = vec![
                (Who::Gantry, Box::new(|| Ok(vec![1.0]))),
                (Who::Docker, Box::new(|| anyhow::bail!("`docker run` failed\n    no such image"))),
            ];
            book.round(ONE, number, turns).unwrap();
        }
        let figure = &book.0[ONE];
        assert!(figure.is_left_out(Who::Docker) && !figure.is_left_out(Who::Gantry));
        assert!(figure::render(&book.figures()).contains("left out, no such image\n"));
    }

    #[test]
    fn what_gantry_fails_at_is_an_error() {
        let turns: Vec<Turn<'_>> = vec![(Who::Gantry, Box::new(|| anyhow::bail!("no")))];
        let error = Book::new().round(ONE, 1, turns).unwrap_err();
        assert_eq!(format!("{error:#}"), "command → one container runs, round 1: no");
    }
}
