//! Exit codes, which scripts go by.

use std::process::ExitCode;

use tonic::Code;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// What was asked cannot be done: the file is no Compose file, the user is not root.
    Failed,
    /// The command line makes no sense. clap's code as well.
    Usage,
    /// The change was accepted and is not in effect yet.
    NotConverged,
    NotFound,
    /// Something else changed in the meantime, or what is there stands in the way.
    Conflict,
    /// Nobody answered. Whether a change was made may be unknown.
    Unavailable,
    /// What was only looked at would change something, and that was to be told.
    Changes,
    /// By Ctrl-C.
    Interrupted,
    /// By another signal, of this number.
    Signal(u8),
    /// The code of the command that ran in a container. As in a shell it is 127 if there is no such program, 126 if it cannot
    /// be executed, and 128 more than the signal's number for one that a signal ended.
    Command(u8),
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotConverged => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Unavailable => 6,
            Self::Changes => 7,
            Self::Interrupted => 130,
            Self::Signal(number) => number.saturating_add(128),
            Self::Command(code) => code,
        }
    }

    /// Of a signal that asked this process to end.
    pub(crate) fn of_signal(number: u8) -> Self {
        const SIGINT: u8 = 2;
        if number == SIGINT { Self::Interrupted } else { Self::Signal(number) }
    }

    /// Of what a manager answered.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::Aborted | Code::AlreadyExists => Self::Conflict,
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => Self::Unavailable,
            Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
