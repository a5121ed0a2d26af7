//! `gantry dev …`: what the user types.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use model::Name;

use crate::down;
use crate::failure::{Failure, verb};
use crate::faults::{self, Fault};
use crate::label::{Label, NodeLabel};
use crate::layout::{Layout, NodeNumber, ROOT_VARIABLE};
use crate::output::{Narrator, say};
use crate::record::Record;
use crate::status::{self, Format};
use crate::up::{self, Wanted};

/// The cluster that is meant when none is named.
pub(crate) const DEFAULT: &str = "dev";

/// A cluster of real nodes on this machine.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a cluster, or bring back one that was up before this machine was restarted
    #[command(after_help = "\
Each node is a daemon in namespaces of its own, with an address that this machine reaches.

Examples:
  gantry dev up
  gantry dev up --nodes 5 --managers 3 --label n4:disk=ssd
  gantry dev up --name two --nodes 1")]
    Up(Up),
    /// Remove a cluster and everything that it has on this machine
    #[command(after_help = "\
Examples:
  gantry dev down
  gantry dev down --keep-data     `gantry dev up` brings it back as it was")]
    Down(Down),
    /// Show the nodes: whether their daemons run and their links are up
    #[command(after_help = "\
A daemon is running, paused, killed (the rest of its node is there) or crashed (nothing of its node is there but the
disk). A link is up or down. JSON and YAML have node, role, address, daemon, link, pid (null without a daemon) and disk.

Examples:
  gantry dev status
  gantry dev status -o json")]
    Status(Status),
    /// Print what points the client at a cluster
    #[command(after_help = "\
Example:
  eval \"$(gantry dev env --name two)\"")]
    Env(Which),
    /// Add a node, or let something befall one
    #[command(subcommand)]
    Node(Node),
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct Which {
    /// The cluster's name
    #[arg(long, default_value = DEFAULT)]
    name: Name,
}

#[derive(Debug, Args)]
pub struct Up {
    /// How many nodes [default: 3]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=200))]
    nodes: Option<u8>,
    /// How many of them are managers, the first ones [default: 3, or all if there are fewer nodes]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=9))]
    managers: Option<u8>,
    /// Label a node; may be repeated
    #[arg(long = "label", value_name = "NODE:KEY=VALUE")]
    labels: Vec<NodeLabel>,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub struct Down {
    /// Keep the nodes' disks, so that `up` brings the cluster back
    #[arg(long)]
    keep_data: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub struct Status {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub struct Add {
    /// Join as a manager instead of a worker
    #[arg(long)]
    manager: bool,
    /// Label the node; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    #[command(flatten)]
    which: Which,
}

/// One node of one cluster.
#[derive(Debug, Args)]
pub struct Target {
    /// The node: n1, n2 …
    node: NodeNumber,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Subcommand)]
pub enum Node {
    /// Add the next node
    Add(Add),
    /// Kill -9 the daemon; the containers and the rest of the node stay
    Kill(Target),
    /// Start the daemon again
    Start(Target),
    /// Stop the daemon with SIGSTOP
    Pause(Target),
    /// Let a paused daemon go on
    Resume(Target),
    /// Take the node's link down
    Partition(Target),
    /// Take the node's link up
    Heal(Target),
    /// Kill everything in the node at once; its disk is kept
    Crash(Target),
    /// Crash, then start again from the disk
    Reboot(Target),
}

/// Does what the user typed. Errors are told on stderr; the exit code is the command contract's.
pub fn run(command: Command) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        return Failure::not_root().report();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::no_runtime(&error).report(),
    };
    match runtime.block_on(act(command)) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(),
    }
}

async fn act(command: Command) -> Result<String, Failure> {
    match command {
        Command::Up(Up { nodes, managers, labels, which }) => {
            let (layout, narrator) = (layout(which), Narrator::new());
            let wanted = Wanted { nodes, managers, labels };
            let made = up::up(&layout, &wanted, &narrator).await;
            let record = made.map_err(|error| Failure::of_up(&layout, error))?;
            Ok(welcome(&layout, &record, narrator.elapsed()))
        }
        Command::Down(Down { keep_data, which }) => {
            let layout = layout(which);
            down::down(&layout, keep_data).map_err(|error| Failure::of_down(&layout, error))
        }
        Command::Status(Status { output, which }) => {
            let layout = layout(which);
            let rows = status::rows(&layout).map_err(|error| Failure::of_status(&layout, error))?;
            Ok(status::render(&rows, output))
        }
        Command::Env(which) => {
            let layout = layout(which);
            status::load(&layout).map_err(|error| Failure::of_status(&layout, error))?;
            Ok(format!("export GANTRY_CONTEXT={}", layout.cluster()))
        }
        Command::Node(Node::Add(Add { manager, labels, which })) => {
            let (layout, narrator) = (layout(which), Narrator::new());
            let added = up::add(&layout, manager, &labels, &narrator).await;
            let node = added.map_err(|error| Failure::of_up(&layout, error))?;
            Ok(format!("{node}: added to cluster {} and ready", layout.cluster()))
        }
        Command::Node(Node::Kill(target)) => befall(target, Fault::Kill).await,
        Command::Node(Node::Start(target)) => befall(target, Fault::Start).await,
        Command::Node(Node::Pause(target)) => befall(target, Fault::Pause).await,
        Command::Node(Node::Resume(target)) => befall(target, Fault::Resume).await,
        Command::Node(Node::Partition(target)) => befall(target, Fault::Partition).await,
        Command::Node(Node::Heal(target)) => befall(target, Fault::Heal).await,
        Command::Node(Node::Crash(target)) => befall(target, Fault::Crash).await,
        Command::Node(Node::Reboot(target)) => befall(target, Fault::Reboot).await,
    }
}

async fn befall(Target { node, which }: Target, fault: Fault) -> Result<String, Failure> {
    let layout = layout(which);
    faults::inflict(&layout, node, fault).await.map_err(|error| Failure::of_fault(&layout, error))
}

fn layout(which: Which) -> Layout {
    Layout::new(which.name, std::env::var_os(ROOT_VARIABLE))
}

/// What can be done with a cluster that is up.
fn welcome(layout: &Layout, record: &Record, took: std::time::Duration) -> String {
    let nodes = record.nodes.len();
    let managers = record.managers(None).count();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let mut text = format!(
        "cluster {} is up: {}, {}, in {:.1} s\n",
        layout.cluster(),
        plural(nodes, "node"),
        plural(managers, "manager"),
        took.as_secs_f64()
    );
    let first = record.ip(NodeNumber::FIRST);
    let command = |verb_of: &str| verb(layout, verb_of).trim_matches('`').to_owned();
    let mut next = vec![
        ("gantry node ls".to_owned(), "its nodes"),
        ("gantry deploy -f compose.yaml hello".to_owned(), "run something"),
        (format!("curl http://{first}:PORT"), "ask a published port of a node"),
        (command("node crash n1"), "break something"),
        (command("down"), "remove all of it"),
    ];
    if layout.cluster().as_str() != DEFAULT {
        next.insert(0, (format!("eval \"$({})\"", command("env")), "point this shell at it"));
    }
    for (command, what) in next {
        text.push_str(&format!("  {command:<40}{what}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};
    use expect_test::expect;

    use super::*;

    #[derive(Debug, Parser)]
    struct Gantry {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Command, i32> {
        let words = std::iter::once("dev").chain(line.split_whitespace());
        Gantry::try_parse_from(words).map(|gantry| gantry.command).map_err(|error| error.exit_code())
    }

    #[test]
    fn the_definition_is_sound() {
        Gantry::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_contract_is_there() {
        let lines = [
            "up --nodes 3 --managers 3 --name dev",
            "down",
            "status",
            "env",
            "node add",
            "node add --manager",
        ];
        let faults = ["kill", "start", "pause", "resume", "partition", "heal", "crash", "reboot"];
        let faults = faults.map(|fault| format!("node {fault} n2 --name two"));
        for line in lines.into_iter().chain(faults.iter().map(String::as_str)) {
            parse(line).unwrap_or_else(|code| panic!("`gantry dev {line}` exits with {code}"));
        }
    }

    #[test]
    fn what_is_not_a_name_a_node_or_a_number_is_a_usage_error() {
        for line in [
            "up --name ../etc",
            "up --name A",
            "up --nodes 0",
            "up --nodes -1",
            "up --nodes 201",
            "up --managers 99999999999999999999",
            "up --label disk=ssd",
            "node kill",
            "node kill web",
            "node kill n0",
            "status -o xml",
        ] {
            assert_eq!(parse(line).unwrap_err(), 2, "{line}");
        }
    }

    #[test]
    fn the_welcome_says_what_to_do_next() {
        let layout = Layout::new("two".parse().unwrap(), None);
        let record = Record::new([10, 199, 7, 0].into(), 3, 1).unwrap();
        expect![[r#"
            cluster two is up: 3 nodes, 1 manager, in 2.5 s
              eval "$(gantry dev env --name two)"     point this shell at it
              gantry node ls                          its nodes
              gantry deploy -f compose.yaml hello     run something
              curl http://10.199.7.11:PORT            ask a published port of a node
              gantry dev node crash n1 --name two     break something
              gantry dev down --name two              remove all of it
        "#]]
        .assert_eq(&welcome(&layout, &record, std::time::Duration::from_millis(2500)));
    }
}
