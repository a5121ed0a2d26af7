//! Picks what this run of the one binary is: a container's shim, a process that unpacks a layer, a dev node's holder, the
//! daemon, or a user's command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs containers on a handful of Linux machines as if they were one
#[derive(Debug, Parser)]
#[command(name = "gantry", version)]
struct Gantry {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    User(cli::UserCommand),
    /// A cluster of real nodes on this machine, and its faults
    #[command(subcommand)]
    Dev(dev::Command),
    /// Run this machine's node
    Daemon {
        /// The node's data directory, with its node.json
        #[arg(long)]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    // These are single-threaded from their first instruction: nothing may come before.
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == runtime::binary::SHIM_ARGUMENT => {
            return match rest {
                [dir] => runtime::shim::main(Path::new(dir)),
                _ => ExitCode::from(2),
            };
        }
        Some((first, rest)) if first == image::UNPACK_ARGUMENT => {
            return match rest {
                [dir] => image::unpack_main(Path::new(dir)),
                _ => ExitCode::from(2),
            };
        }
        Some((first, rest)) if first == dev::HOLDER_ARGUMENT => dev::holder_main(rest),
        Some(_) | None => {}
    }
    let Gantry { global, command } = Gantry::parse();
    match command {
        Command::User(command) => cli::run(command, global),
        Command::Dev(command) => dev::run(command),
        Command::Daemon { data } => node::daemon_main(&data),
    }
}
