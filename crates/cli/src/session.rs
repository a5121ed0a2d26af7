//! One command, from its arguments to its exit code.

use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime;

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
        // A process that cannot listen for Ctrl-C dies of it, which serves as well.
        Ok(()) = tokio::signal::ctrl_c() => {
            if let Some(text) = session.interrupted.take() {
                session.output.say(&format!("interrupted: {text}"));
            }
            Exit::Interrupted
        }
    }
}

fn report(output: Output, done: Result<(), Failure>) -> Exit {
    match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            output.note(failure.text(output.colour));
            failure.exit()
        }
    }
}
