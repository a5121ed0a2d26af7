//! What a command ends with when it does not do what it was asked, and how that is told.

use std::error::Error;
use std::io;

use crate::Exit;
use crate::cluster::CallError;
use crate::input::InputError;
use crate::render::{lines_for_terminal, plain};
use crate::settle::{NotConverged, Unsuccessful};
use crate::talk::TalkError;
use crate::target::TargetError;
use crate::verbs::{
    CopyError, LoginError, NoTerminalError, NotDrained, RunError, SaveError, StackNameError,
    UndeployableError,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    NotConverged(#[from] NotConverged),
    #[error(transparent)]
    NotDrained(#[from] NotDrained),
    #[error(transparent)]
    Unsuccessful(#[from] Unsuccessful),
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Undeployable(#[from] UndeployableError),
    #[error(transparent)]
    StackName(#[from] StackNameError),
    #[error(transparent)]
    Talk(#[from] TalkError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    NoTerminal(#[from] NoTerminalError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
    #[error("cannot write to stdout")]
    Output(#[from] io::Error),
    #[error("{reference}: the manager's answer cannot be read")]
    Answer {
        reference: String,
        #[source]
        source: serde_json::Error,
    },
}

impl Failure {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Target(error) => error.exit(),
            Self::Call(error) => error.exit(),
            Self::NotConverged(_) | Self::NotDrained(_) => Exit::NotConverged,
            Self::StackName(_) | Self::NoTerminal(_) => Exit::Usage,
            Self::Talk(error) => error.exit(),
            Self::Copy(error) => error.exit(),
            Self::Run(error) => error.exit(),
            Self::Save(error) => error.exit(),
            Self::Login(error) => error.exit(),
            // Whoever reads has seen enough, as with `gantry ps | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Input(_)
            | Self::Undeployable(_)
            | Self::Unsuccessful(_)
            | Self::Terminal(_)
            | Self::Output(_)
            | Self::Answer { .. } => Exit::Failed,
        }
    }

    /// What goes before the error itself, ready to print.
    fn report(&self) -> Option<&str> {
        match self {
            Self::Undeployable(error) => Some(&error.report),
            Self::Target(_)
            | Self::Call(_)
            | Self::NotConverged(_)
            | Self::NotDrained(_)
            | Self::Unsuccessful(_)
            | Self::Input(_)
            | Self::StackName(_)
            | Self::Talk(_)
            | Self::Copy(_)
            | Self::Run(_)
            | Self::Save(_)
            | Self::Login(_)
            | Self::NoTerminal(_)
            | Self::Terminal(_)
            | Self::Output(_)
            | Self::Answer { .. } => None,
        }
    }

    fn details(&self) -> Vec<String> {
        match self {
            Self::NotConverged(error) => error.details(),
            Self::NotDrained(error) => error.details(),
            Self::Unsuccessful(error) => error.details(),
            Self::Run(error) => error.details(),
            Self::Target(_)
            | Self::Call(_)
            | Self::Input(_)
            | Self::Undeployable(_)
            | Self::StackName(_)
            | Self::Talk(_)
            | Self::Copy(_)
            | Self::Save(_)
            | Self::Login(_)
            | Self::NoTerminal(_)
            | Self::Terminal(_)
            | Self::Output(_)
            | Self::Answer { .. } => Vec::new(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Target(error) => error.hint(),
            Self::Call(error) => error.hint(),
            Self::NotConverged(error) => Some(error.hint()),
            Self::NotDrained(error) => Some(error.hint()),
            Self::Unsuccessful(error) => Some(error.hint()),
            Self::Undeployable(error) => error.hint.clone(),
            Self::StackName(_) => Some("name the stack: `gantry deploy -f FILE STACK`".to_owned()),
            Self::Answer { .. } => Some("`gantry version` shows whether versions differ".to_owned()),
            Self::Input(error) => error.hint().map(str::to_owned),
            Self::Talk(error) => error.hint(),
            Self::Copy(error) => error.hint().map(str::to_owned),
            Self::Run(error) => error.hint().map(str::to_owned),
            Self::Save(error) => error.hint().map(str::to_owned),
            Self::Login(error) => error.hint().map(str::to_owned),
            Self::NoTerminal(_) => Some("leave out -t, or call it from a terminal".to_owned()),
            Self::Terminal(_) | Self::Output(_) => None,
        }
    }

    /// The error for people: `error: <operand>: <cause>`, what there is to know, and the next step. Nothing where there is
    /// nobody to tell.
    pub(crate) fn text(&self, colour: bool) -> String {
        if self.exit() == Exit::Done {
            return String::new();
        }
        self.labelled(if colour { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" })
    }

    /// The same for a command that did what it was asked all the same.
    pub(crate) fn note(&self) -> String {
        self.labelled("note")
    }

    fn labelled(&self, label: &str) -> String {
        let said = lines_for_terminal(&chain(self));
        let mut text = match self.report() {
            // Each problem has a label of its own. What follows them is no further one.
            Some(report) => format!("{report}\n\n{said}\n"),
            None => format!("{label}: {said}\n"),
        };
        for detail in self.details() {
            text.push_str(&format!("  {}\n", plain(&detail)));
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("  hint: {}\n", plain(&hint)));
        }
        text
    }
}

/// An error and what caused it. What only says again what stands before it is left out: libraries that we do not own do that.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use expect_test::{Expect, expect};

    use super::*;

    fn check(failure: impl Into<Failure>, expected: &Expect) {
        let failure = failure.into();
        expected.assert_eq(&format!("{}exit {}\n", failure.text(false), failure.exit().code()));
    }

    #[test]
    fn an_error_names_the_operand_the_cause_and_the_next_step() {
        check(
            TargetError::None,
            &expect![[r#"
                error: no cluster found on this machine
                  hint: start one with `gantry dev up`
                exit 6
            "#]],
        );
        check(
            TargetError::Several(vec!["a".to_owned(), "b".to_owned()]),
            &expect![[r#"
                error: several clusters are on this machine: a, b
                  hint: say which one: `--context a`
                exit 2
            "#]],
        );
        check(
            InputError::Read {
                path: PathBuf::from("compose.yaml"),
                source: io::Error::from(io::ErrorKind::NotFound),
            },
            &expect![[r#"
                error: cannot read compose.yaml: entity not found
                  hint: name a file that is there, or `-` for stdin
                exit 1
            "#]],
        );
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        check(
            io::Error::from(io::ErrorKind::BrokenPipe),
            &expect![[r#"
            exit 0
        "#]],
        );
    }

    #[test]
    fn the_cluster_cannot_write_to_the_terminal() {
        let refused = CallError::Refused {
            operand: "x".to_owned(),
            code: tonic::Code::FailedPrecondition,
            message: "\u{1b}[2Jgone".to_owned(),
            list: "gantry stacks",
        };
        check(
            refused,
            &expect![[r#"
            error: x: \u{1b}[2Jgone
            exit 1
        "#]],
        );
    }
}
