//! One command, from its arguments to its exit code.

use std::cell::RefCell;
use std::future::pending;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::Exit;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::output::Output;
use crate::target::{self, TargetError};
use crate::verbs::UserCommand;

/// What every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// The cluster, by its name; needed only where several run on this machine
    #[arg(long, global = true, env = "GANTRY_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
}

/// What a command works with while it runs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) output: Output,
    global: Global,
    /// What the user has to know who presses Ctrl-C now.
    interrupted: RefCell<Option<String>>,
}

impl Session {
    /// The cluster that the arguments and the environment mean. Nothing is sent yet.
    pub(crate) fn cluster(&self) -> Result<Cluster, TargetError> {
        let sockets = std::env::var_os("GANTRY_SOCKETS");
        let target =
            target::find(self.global.context.as_deref(), sockets.as_deref(), Path::new(target::RUN))?;
        Ok(Cluster::new(target))
    }

    /// From now on, this is what an interruption leaves behind.
    pub(crate) fn if_interrupted(&self, text: impl Into<String>) {
        self.interrupted.replace(Some(text.into()));
    }
}

/// Runs one command on a runtime of its own. It has printed everything when it returns.
pub fn run(command: UserCommand, global: Global) -> ExitCode {
    let session = Session { output: Output::of_this_process(), global, interrupted: RefCell::default() };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            session.output.say(&format!("error: gantry cannot start: {error}"));
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(until_interrupted(&session, command));
    // A read of stdin may still hang on a thread; nobody waits for it any more.
    runtime.shutdown_background();
    exit.into()
}

async fn until_interrupted(session: &Session, command: UserCommand) -> Exit {
    tokio::select! {
        done = command.run(session) => report(session.output, done),
        // Whatever the command holds it gives back as it is dropped, the terminal above all.
        exit = interrupted() => {
            if let Some(text) = session.interrupted.take() {
                session.output.say(&format!("interrupted: {text}"));
            }
            exit
        }
    }
}

async fn interrupted() -> Exit {
    tokio::select! {
        () = received(SignalKind::interrupt()) => Exit::Interrupted,
        () = received(SignalKind::hangup()) => Exit::Signal(1),
        () = received(SignalKind::quit()) => Exit::Signal(3),
        () = received(SignalKind::terminate()) => Exit::Signal(15),
    }
}

/// Waits for a signal. One that whoever started us has made us ignore (as nohup does) stays ignored; and a process that
/// cannot listen for it dies of it, which serves as well.
async fn received(kind: SignalKind) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match signal(kind) {
        Ok(mut signals) if !is_ignored(&status, kind.as_raw_value()) => {
            signals.recv().await;
        }
        Ok(_) | Err(_) => pending().await,
    }
}

/// Whether a process ignores a signal, by its /proc/PID/status before it listened for any.
fn is_ignored(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(number - 1).ok().and_then(|at| 1u64.checked_shl(at));
    bit.is_some_and(|bit| mask & bit != 0)
}

fn report(output: Output, done: Result<Exit, Failure>) -> Exit {
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            output.note(failure.text(output.colour));
            failure.exit()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_ignored_stays_so() {
        let status = "Name:\tgantry\nSigIgn:\t0000000000000003\nSigCgt:\t0000000000004000\n";
        assert!(is_ignored(status, 1) && is_ignored(status, 2));
        assert!(!is_ignored(status, 15) && !is_ignored(status, 0) && !is_ignored("", 1));
    }
}
