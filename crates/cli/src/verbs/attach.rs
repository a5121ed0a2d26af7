//! `gantry attach`.

use std::io::{self, IsTerminal as _};

use wire::proto::stream::{self, Begun, begin};

use crate::Exit;
use crate::console::{Console, Ended, converse};
use crate::failure::Failure;
use crate::session::Session;
use crate::talk::{Subject, Times, exit_of, open};
use crate::terminal;
use crate::verbs::exec::has_begun;

/// Join a container's own process: what it writes from now on, and its input
///
/// Input goes to a service that has `stdin_open`. Where that has a terminal as well (`tty`), every key is sent, Ctrl-C with
/// the rest, and Ctrl-P, Ctrl-Q ends this command and not the container; otherwise Ctrl-C does. What was written before is in
/// `gantry logs`.
///
/// Where the container ends meanwhile, the exit code is its own; 128 and the signal's number if a signal ended it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry attach hello/shell
  gantry attach --no-stdin hello/web.2")]
pub struct Attach {
    /// Send nothing
    #[arg(long)]
    no_stdin: bool,
    /// STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE for the first of its tasks that runs
    #[arg(value_name = "REF")]
    reference: String,
}

impl Attach {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let stdin_is_terminal = io::stdin().is_terminal();
        let own_terminal = session.output.stdout_is_terminal || stdin_is_terminal;
        let terminal = terminal::size().filter(|_| own_terminal);
        let what = begin::What::Attach(stream::Attach { stdin: !self.no_stdin, terminal });
        let mut cluster = session.cluster()?;
        let mut talk = open(&mut cluster, Subject::Task(&self.reference), what, Times::Once).await?;
        let begun = has_begun(&mut talk).await?;
        let unknown = talk.ear.unknown_end();
        session.if_interrupted(format!("{} goes on", self.reference));
        let console = console(&begun, !self.no_stdin, stdin_is_terminal);
        match converse(session.output, talk, console).await? {
            Ended::Exited(exit) => exit_of(exit).ok_or_else(|| unknown.into()),
            Ended::Quiet => Err(unknown.into()),
            Ended::Detached => {
                session.output.say(&format!("\ndetached: {} goes on", self.reference));
                Ok(Exit::Done)
            }
        }
    }
}

/// What the container has decides. Its terminal follows ours only if ours is typed at; keys that detach are looked for where
/// somebody may press them.
fn console(begun: &Begun, wanted: bool, stdin_is_terminal: bool) -> Console {
    let stdin = wanted && begun.stdin;
    Console { stdin, terminal: begun.terminal && stdin_is_terminal, detach: stdin && stdin_is_terminal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_taken_only_for_a_container_that_has_one_and_reads_it() {
        let begun = |terminal, stdin| Begun { terminal, stdin, ..Begun::default() };
        let shown = |begun: Begun, wanted, is_terminal| {
            let Console { stdin, terminal, detach } = console(&begun, wanted, is_terminal);
            (stdin, terminal, detach)
        };
        assert_eq!(shown(begun(true, true), true, true), (true, true, true));
        assert_eq!(shown(begun(false, true), true, true), (true, false, true));
        assert_eq!(shown(begun(true, true), true, false), (true, false, false), "a pipe is sent as it is");
        assert_eq!(shown(begun(true, true), false, true), (false, true, false), "its size still follows");
        assert_eq!(shown(begun(true, false), true, true), (false, true, false));
    }
}
