//! What is told when the daemon does not start, or ends: the error, its causes, the next step, and the exit code.

use std::error::Error as _;

use agent::real::image_store;
use store::rocks;

use crate::config::LoadConfigError;
use crate::credentials::IdentifyError;
use crate::daemon::DaemonError;
use crate::server::ServeError;

/// Of the exit codes that all commands share.
const FAILED: u8 = 1;
const CONFLICT: u8 = 5;

/// The daemon's last words, as lines: `error: <operand>: <cause>`, and what to do about it.
pub(crate) fn told(error: &DaemonError) -> String {
    let mut text = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text.push('\n');
    if let Some(hint) = hint(error) {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    text
}

pub(crate) fn exit(error: &DaemonError) -> u8 {
    let is_held = matches!(
        error,
        DaemonError::Locked { .. }
            | DaemonError::Disk(rocks::OpenError::Locked { .. })
            | DaemonError::Images(image_store::OpenError::InUse(_))
    );
    if is_held { CONFLICT } else { FAILED }
}

/// Nothing where the error itself says what to do, or where there is no telling.
fn hint(error: &DaemonError) -> Option<&'static str> {
    match error {
        DaemonError::NotRoot => Some("run it with sudo"),
        DaemonError::Config(LoadConfigError::Read { .. }) => {
            Some("give --data the directory that holds the node's node.json")
        }
        DaemonError::Config(LoadConfigError::Parse { .. }) => {
            Some("mend the file; nothing else was read or written")
        }
        DaemonError::Locked { .. } => Some("a data directory has one daemon: stop the other one first"),
        DaemonError::Lock { .. } | DaemonError::Begin { .. } => {
            Some("give the daemon a directory that it can write to")
        }
        DaemonError::Identify(error) => of_identity(error),
        DaemonError::Serve(ServeError::Listen { .. }) => {
            Some("`listen` in node.json has to be an address of this machine on which nothing else listens")
        }
        DaemonError::Ended(_) => Some("start the daemon again; the log says above what went wrong"),
        DaemonError::Failed(_) => Some("look after the disk, then start the daemon again"),
        DaemonError::Store(store::StartError::Emptied { .. }) => Some(
            "put the directory `raft` back as it was; if it is lost, clear the data directory and join again as a new node",
        ),
        DaemonError::Serve(ServeError::Local(_) | ServeError::Run { .. } | ServeError::Ended(_))
        | DaemonError::Threads(_)
        | DaemonError::Disk(_)
        | DaemonError::Store(_)
        | DaemonError::Found(_)
        | DaemonError::Images(_)
        | DaemonError::Shim(_)
        | DaemonError::Agent(_) => None,
    }
}

fn of_identity(error: &IdentifyError) -> Option<&'static str> {
    match error {
        IdentifyError::Damaged { .. } => Some("clear the data directory and join again as a new node"),
        IdentifyError::Token(_) | IdentifyError::Refused(_) => {
            Some("make a token with `gantry token create`, and join with that")
        }
        IdentifyError::Answer(_) => Some("join with a token of the cluster that the addresses are of"),
        IdentifyError::File { .. } | IdentifyError::Make(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_last_words_name_the_operand_the_cause_and_the_next_step() {
        let locked = DaemonError::Locked { path: "/data".into() };
        assert_eq!(
            told(&locked),
            "error: /data is in use by another gantry daemon\n  \
             hint: a data directory has one daemon: stop the other one first\n"
        );
        assert_eq!(exit(&locked), 5);
        let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
        let unread = LoadConfigError::Read { path: "/data/node.json".into(), source: absent };
        assert_eq!(
            told(&unread.into()),
            "error: cannot read /data/node.json: entity not found\n  \
             hint: give --data the directory that holds the node's node.json\n"
        );
        assert_eq!(exit(&DaemonError::NotRoot), 1);
    }

    #[test]
    fn what_is_damaged_is_named_before_what_to_do_about_it() {
        let source = serde_json::from_str::<u64>("x").unwrap_err();
        let damaged = IdentifyError::Damaged { path: "/data/identity.json".into(), source: Box::new(source) };
        assert_eq!(
            told(&damaged.into()),
            "error: /data/identity.json is damaged: expected value at line 1 column 1\n  \
             hint: clear the data directory and join again as a new node\n"
        );
    }
}
