//! `cargo xtask …`: what is done to the project rather than with it.
//!
//! It knows gantry as its users do, as a program that is called, and imports none of its crates. In reading order:
//!
//! - [`checks`] (`test`: all that CI runs), [`demo`], [`soak`], [`mod@bench`], [`compare`], [`simulate`], [`planted`], [`mod@vm`],
//!   [`images`]: one module a command;
//! - [`cluster`]: a dev cluster of one's own, which is gone when the command is, whatever happened. [`workload`]: what
//!   runs on it;
//! - [`inventory`]: what there is of gantry on this machine, to compare before and after. [`procs`]: its processes;
//! - [`docker`], [`etcd`], [`registry`]: peers from Debian's packages, which are gone when the command is. Nothing that CI runs
//!   needs them;
//! - [`command`] (other programs), [`wait`] (predicates, deadlines, Ctrl-C), [`packages`], [`project`], [`http`],
//!   [`chance`], [`output`].

mod bench;
mod chance;
mod checks;
mod cluster;
mod command;
mod compare;
mod demo;
mod docker;
mod etcd;
mod http;
mod images;
mod inventory;
mod output;
mod packages;
mod planted;
mod procs;
mod project;
mod registry;
mod simulate;
mod soak;
mod vm;
mod wait;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Work on gantry: checks, demo, soaks, benches, images"
)]
struct Xtask {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run all that CI runs, and say how long each part took
    Test {
        /// Leave out the kill rounds and scale cycles on a real cluster
        #[arg(long)]
        fast: bool,
    },
    /// Show gantry at work on this machine: three nodes, a web server, a lost node, a lost leader
    Demo {
        /// Leave the cluster up, and say how to use it
        #[arg(long)]
        keep: bool,
    },
    /// Kill daemons while something writes, start and stop containers, and look for what was lost or left behind
    Soak(soak::Options),
    /// Measure
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Compare what containers are given with what others give them
    Compare {
        #[command(subcommand)]
        with: Compare,
    },
    /// Run simulated clusters
    Simulate(simulate::Options),
    /// Plant bugs in a copy of the project, one at a time, and see that the simulation finds each
    #[command(after_help = "Examples:
  cargo xtask planted
  cargo xtask planted --only disk --seeds 200")]
    Planted(planted::Options),
    /// Run containers and a cluster in a virtual machine whose cgroups are v2 alone
    Vm,
    /// Make images from Debian's packages, for machines that reach no registry
    Images {
        /// Which; all if none is named
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Make them again if they are there
        #[arg(long)]
        fresh: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// A three-node cluster: from a command to running containers, from a fault to its repair, and memory
    Cluster(bench::Options),
    /// One machine: starts, stops, memory and pulls, beside runc, crun, Docker and Swarm, which are installed for it
    #[command(after_help = "\
Whoever is measured has all processors. For two of a larger machine's: taskset -c 0,1 cargo xtask bench node

Examples:
  cargo xtask bench node --samples 1
  cargo xtask bench node --only churn --only exec --json out.json
  cargo xtask bench node --only burst --profile")]
    Node(bench::node::Options),
    /// Placement alone: tasks a second on thousands of nodes, and what one more task costs
    Scheduler,
    /// One write: how long a deployment takes to be acknowledged, and how many are a second, beside etcd's puts
    #[command(after_help = "\
Three managers and three servers of etcd, which is installed for it, run on the same disk and are written to in turn.

Examples:
  cargo xtask bench write
  cargo xtask bench write --samples 1 --writes 500
  cargo xtask bench write --json out.json")]
    Write(bench::write::Options),
}

#[derive(Debug, Subcommand)]
enum Compare {
    /// With Docker, which is installed for it: capabilities, filters, limits, mounts, devices, namespaces, files
    #[command(after_help = "\
The same options are given to `docker run` and in a Compose file, and the same program looks around in both containers. A
difference that nothing explains is an error.

Examples:
  cargo xtask compare docker
  cargo xtask compare docker --only privileged --only sysctls --all")]
    Docker(compare::Options),
}

fn main() -> ExitCode {
    let Xtask { task } = Xtask::parse();
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever failed then failed for that.
        Err(_) if wait::is_interrupted() => {
            output::complain("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Test { fast } => checks::run(fast),
        Task::Demo { keep } => demo::run(keep),
        Task::Soak(options) => soak::run(&options),
        Task::Bench { what: Bench::Cluster(options) } => bench::run(&options),
        Task::Bench { what: Bench::Node(options) } => bench::node::run(&options),
        Task::Bench { what: Bench::Scheduler } => bench::scheduler(),
        Task::Bench { what: Bench::Write(options) } => bench::write::run(&options),
        Task::Compare { with: Compare::Docker(options) } => compare::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Planted(options) => planted::run(&options),
        Task::Vm => vm::run(),
        Task::Images { names, fresh } => images::run(&names, fresh),
    }
}
