//! `gantry exec`.

use std::io::{self, IsTerminal as _};

use wire::proto::stream::{self, begin, piece};

use crate::Exit;
use crate::console::{Console, Ended, converse};
use crate::failure::Failure;
use crate::session::Session;
use crate::talk::{Subject, Talk, Times, exit_of, open};
use crate::terminal;

/// Run a command in a running container
///
/// Everything after REF is the command, with `--` before it or without. From a terminal the command gets a terminal, as with
/// Compose; otherwise it gets pipes, and no stdin unless -i is given. Ctrl-C without a terminal ends the command as well.
///
/// The exit code is the command's own: 128 and the signal's number if a signal ended it, 127 if there is no such program, 126
/// if it cannot be executed. Where there was no command, it is gantry's: 1 failed, 2 usage, 4 not found, 5 the container does
/// not run, 6 unavailable.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry exec hello/web sh
  gantry exec hello/web.2 -- ls -l /etc
  gantry exec -i hello/db -- psql < dump.sql
  gantry exec -u 0 -e DEBUG=1 -w /srv s1-2-3 ./check")]
pub struct Exec {
    #[command(flatten)]
    wanted: Wanted,
    /// Run it as this user of the container's: a name or id, and a group after a `:`
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Run it in this directory of the container's
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set a variable for it; a name alone takes the value that the variable has here
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<String>,
    /// Give it all capabilities
    #[arg(long)]
    privileged: bool,
    /// STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE for the first of its tasks that runs
    #[arg(value_name = "REF")]
    reference: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// What the user wants a command in a container to have of this one's.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Wanted {
    /// Send it this command's stdin
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long, conflicts_with = "no_tty")]
    tty: bool,
    /// Give it no terminal, also when called from one
    #[arg(short = 'T', long)]
    no_tty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a terminal with input was asked for, and stdin is no terminal")]
pub(crate) struct NoTerminalError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as NAME=VALUE, or NAME for the value that it has here")]
pub(super) struct InvalidVariable;

pub(super) fn variable(text: &str) -> Result<String, InvalidVariable> {
    if text.is_empty() || text.starts_with('=') { Err(InvalidVariable) } else { Ok(text.to_owned()) }
}

/// What the command's stdin, stdout and stderr are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) terminal: bool,
    pub(super) stdin: bool,
}

impl Exec {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let Streams { terminal, stdin } =
            self.wanted.streams(io::stdin().is_terminal(), session.output.stdout_is_terminal)?;
        let what = begin::What::Exec(stream::Exec {
            args: self.command,
            env: environment(&self.env, |name| std::env::var(name).ok()),
            working_dir: self.workdir,
            user: self.user,
            terminal: terminal.then(terminal::size_or_usual),
            stdin,
            privileged: self.privileged,
        });
        let mut cluster = session.cluster()?;
        let mut talk = open(&mut cluster, Subject::Task(&self.reference), what, Times::Once).await?;
        has_begun(&mut talk).await?;
        let unknown = talk.ear.unknown_end();
        let is_ours = io::stdin().is_terminal();
        let console = Console { stdin, terminal: terminal && is_ours, detach: false };
        match converse(session.output, talk, console).await? {
            Ended::Exited(exit) => exit_of(exit).ok_or_else(|| unknown.into()),
            Ended::Quiet | Ended::Detached => Err(unknown.into()),
        }
    }
}

impl Wanted {
    /// As Compose's `exec`, a terminal where there is one; but `-i` alone is Docker's `-i`: a pipe.
    pub(super) fn streams(
        self,
        stdin_is_terminal: bool,
        stdout_is_terminal: bool,
    ) -> Result<Streams, NoTerminalError> {
        let has_terminal = stdin_is_terminal && stdout_is_terminal;
        let terminal = !self.no_tty && (self.tty || has_terminal && !self.interactive);
        if self.tty && self.interactive && !stdin_is_terminal {
            return Err(NoTerminalError);
        }
        // A terminal is there to be typed at. What else stdin is, a script's own text say, is left alone unless asked for.
        Ok(Streams { terminal, stdin: self.interactive || terminal && stdin_is_terminal })
    }

    /// The same for a command that is not waited for: what was asked for, whatever there is here.
    pub(super) fn asked(self) -> Streams {
        Streams { terminal: self.tty, stdin: self.interactive }
    }
}

/// Waits until what was asked for has begun.
pub(super) async fn has_begun(talk: &mut Talk) -> Result<stream::Begun, Failure> {
    while let Some(kind) = talk.ear.hear().await? {
        if let piece::Kind::Begun(begun) = kind {
            return Ok(begun);
        }
    }
    Err(talk.ear.unfinished().into())
}

/// Variables as they are sent. One that is named without a value and has none here is left out, as Docker does.
pub(super) fn environment(given: &[String], own: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let set = |variable: &String| match variable.contains('=') {
        true => Some(variable.clone()),
        false => own(variable).map(|value| format!("{variable}={value}")),
    };
    given.iter().filter_map(set).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        exec: Exec,
    }

    fn parsed(line: &str) -> Exec {
        Line::try_parse_from(["exec"].into_iter().chain(line.split_whitespace())).unwrap().exec
    }

    #[test]
    fn all_after_the_reference_is_the_command() {
        for (line, command) in [
            ("web ls", &["ls"][..]),
            ("web -- ls", &["ls"]),
            ("web ls -la --user x", &["ls", "-la", "--user", "x"]),
            ("-u root web -- ls -l -- -x", &["ls", "-l", "--", "-x"]),
            ("-it web sh -c x -- y", &["sh", "-c", "x", "--", "y"]),
        ] {
            let exec = parsed(line);
            assert_eq!(
                (exec.reference.as_str(), exec.command.as_slice()),
                ("web", &words(command)[..]),
                "{line}"
            );
        }
        assert!(Line::try_parse_from(["exec", "web"]).is_err(), "there is nothing to run");
        assert!(Line::try_parse_from(["exec", "-t", "-T", "web", "ls"]).is_err());
        assert!(Line::try_parse_from(["exec", "-e", "=x", "web", "ls"]).is_err());
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_terminal_is_given_where_there_is_one_and_a_script_keeps_its_stdin() {
        let streams = |line: &str, stdin, stdout| {
            let streams = parsed(line).wanted.streams(stdin, stdout).map(|it| (it.terminal, it.stdin));
            streams.map_err(|error| error.to_string())
        };
        for (line, stdin, stdout, expected) in [
            ("web ls", true, true, (true, true)),
            ("web ls", true, false, (false, false)),
            ("web ls", false, true, (false, false)),
            ("-T web ls", true, true, (false, false)),
            ("-T -i web ls", true, true, (false, true)),
            ("-i web ls", true, true, (false, true)),
            ("-i web ls", false, false, (false, true)),
            ("-it web ls", true, false, (true, true)),
            ("-t web ls", false, false, (true, false)),
            ("-t web ls", true, false, (true, true)),
        ] {
            assert_eq!(streams(line, stdin, stdout), Ok(expected), "{line} {stdin} {stdout}");
        }
        assert!(streams("-it web ls", false, true).is_err());
    }

    #[test]
    fn a_variable_without_a_value_has_the_one_that_it_has_here() {
        let given = words(&["A=1", "HOME", "NONE", "B="]);
        let own = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        assert_eq!(environment(&given, own), ["A=1", "HOME=/root", "B="]);
    }
}
