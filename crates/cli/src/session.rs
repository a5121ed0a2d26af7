//! One command, from its arguments to its exit code.

use std::cell::RefCell;
use std::future::poll_fn;
use std::path::Path;
use std::process::ExitCode;
use std::task::Poll;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

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
    /// Where a command hears of signals that has taken them over.
    taken: RefCell<Option<mpsc::UnboundedSender<u8>>>,
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

    /// From now on, and as long as the receiver is there, a signal does not end the command: its number comes here.
    pub(crate) fn take_signals(&self) -> mpsc::UnboundedReceiver<u8> {
        let (taken, signals) = mpsc::unbounded_channel();
        self.taken.replace(Some(taken));
        signals
    }

    /// Whether the command sees to the signal.
    fn is_taken(&self, number: u8) -> bool {
        self.taken.borrow().as_ref().is_some_and(|taken| taken.send(number).is_ok())
    }
}

/// Runs one command on a runtime of its own. It has printed everything when it returns.
pub fn run(command: UserCommand, global: Global) -> ExitCode {
    let (output, interrupted, taken) = (Output::of_this_process(), RefCell::default(), RefCell::default());
    let session = Session { output, global, interrupted, taken };
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
    let mut signals = Signals::listen();
    let mut running = Box::pin(command.run(session));
    loop {
        let number = tokio::select! {
            done = &mut running => return report(session.output, done),
            number = signals.next() => number,
        };
        if session.is_taken(number) {
            continue;
        }
        // Whatever the command holds it gives back as it is dropped, the terminal above all.
        drop(running);
        if let Some(text) = session.interrupted.take() {
            session.output.say(&format!("interrupted: {text}"));
        }
        return Exit::of_signal(number);
    }
}

/// The signals by which this process is asked to end, with their numbers.
struct Signals(Vec<(Signal, u8)>);

impl Signals {
    /// One that whoever started us has made us ignore (as nohup does) stays ignored; and a process that cannot listen for it
    /// dies of it, which serves as well.
    fn listen() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let asking =
            [SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit(), SignalKind::terminate()];
        let heard = asking.into_iter().filter_map(|kind| {
            let number = kind.as_raw_value();
            let signals = (!is_ignored(&status, number)).then(|| signal(kind).ok()).flatten()?;
            Some((signals, u8::try_from(number).ok()?))
        });
        Self(heard.collect())
    }

    async fn next(&mut self) -> u8 {
        poll_fn(|context| {
            let mut all = self.0.iter_mut();
            let received = all.find_map(|(one, number)| one.poll_recv(context).is_ready().then_some(*number));
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
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
