//! What the edge makes of an error: the exit code of the command contract, and what to do next.

use std::error::Error;
use std::process::ExitCode;

use crate::down::DownError;
use crate::faults::FaultError;
use crate::join::JoinError;
use crate::layout::{Layout, NodeNumber};
use crate::output::{chain, complain};
use crate::preflight::PreflightError;
use crate::record::RecordError;
use crate::status::StatusError;
use crate::up::UpError;
use crate::world::WorldError;

/// The exit codes that `gantry dev` uses, of those that all commands share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Code {
    Failed = 1,
    Usage = 2,
    NotInTime = 3,
    NotFound = 4,
    Conflict = 5,
    Interrupted = 130,
}

/// An error that ends the command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    text: String,
    /// The last lines of the log that may tell more.
    log: String,
    hint: Option<String>,
}

impl Failure {
    fn new(code: Code, error: &dyn Error, hint: String) -> Self {
        Self { code, text: chain(error), log: String::new(), hint: Some(hint) }
    }

    pub(crate) fn report(self) -> ExitCode {
        complain(&self.text, &self.log, self.hint.as_deref());
        ExitCode::from(self.code as u8)
    }

    pub(crate) fn not_root() -> Self {
        let hint = "run it with sudo".to_owned();
        Self {
            code: Code::Failed,
            text: "gantry dev needs root".to_owned(),
            log: String::new(),
            hint: Some(hint),
        }
    }

    pub(crate) fn no_runtime(error: &std::io::Error) -> Self {
        let text = format!("cannot start: {error}");
        Self { code: Code::Failed, text, log: String::new(), hint: None }
    }

    pub(crate) fn of_up(layout: &Layout, error: UpError) -> Self {
        let make = format!("make one with {}", verb(layout, "up"));
        let (code, hint) = match &error {
            UpError::Managers { .. } => (Code::Usage, "ask for fewer --managers or more --nodes".to_owned()),
            UpError::LabelOf { .. } => {
                (Code::Usage, "ask for more --nodes, or label another node".to_owned())
            }
            UpError::Settled { .. } => (
                Code::Conflict,
                format!(
                    "bring it back without that option, or remove it first with {}",
                    verb(layout, "down")
                ),
            ),
            UpError::Exists(_) => (
                Code::Conflict,
                format!(
                    "look at it with {}, or remove it with {}",
                    verb(layout, "status"),
                    verb(layout, "down")
                ),
            ),
            UpError::Absent(_) => (Code::NotFound, make),
            UpError::NotUp(_) => (Code::Conflict, format!("bring it up with {}", verb(layout, "up"))),
            UpError::Full(_) => (Code::Conflict, "make another cluster, with another --name".to_owned()),
            UpError::Interrupted => {
                (Code::Interrupted, "what this command had made is taken down again".to_owned())
            }
            UpError::NoNetwork => {
                (Code::Conflict, "remove a cluster or a route that is not needed".to_owned())
            }
            UpError::Preflight(PreflightError::Lacks(_)) => {
                (Code::Failed, "on Debian: apt-get install nftables; the rest is up to the kernel".to_owned())
            }
            UpError::Join(JoinError::Late { .. }) => {
                (Code::NotInTime, "the machine may be too busy: try again, or with fewer --nodes".to_owned())
            }
            UpError::Preflight(_) | UpError::Lock(_) | UpError::Read { .. } | UpError::Join(_) => {
                (Code::Failed, retry(layout))
            }
            UpError::Record(record) => (Code::Failed, of_record(layout, record)),
            UpError::World(world) => (Code::Failed, of_world(layout, world)),
        };
        let mut failure = Self::new(code, &error, hint);
        if let UpError::Join(JoinError::Died { log, .. } | JoinError::Late { log, .. }) = error {
            failure.log = log;
        }
        failure
    }

    pub(crate) fn of_fault(layout: &Layout, error: FaultError) -> Self {
        let node = |command: &str, node: &NodeNumber| verb(layout, &format!("node {command} {node}"));
        let (code, hint) = match &error {
            FaultError::NoCluster(_) => (Code::NotFound, format!("make one with {}", verb(layout, "up"))),
            FaultError::NotUp(_) => (Code::Conflict, format!("bring it up with {}", verb(layout, "up"))),
            FaultError::NoNode { .. } => (Code::NotFound, format!("look with {}", verb(layout, "status"))),
            FaultError::Crashed(crashed) => {
                (Code::Conflict, format!("bring it back with {}", node("reboot", crashed)))
            }
            FaultError::NoDaemon(idle) => (Code::Conflict, format!("start it with {}", node("start", idle))),
            FaultError::Paused(paused) => {
                (Code::Conflict, format!("let it go on with {}", node("resume", paused)))
            }
            FaultError::Died { node, .. } => {
                (Code::Failed, format!("all of its log is in {}", layout.log(*node).display()))
            }
            FaultError::Signal { .. } | FaultError::Lock(_) | FaultError::Daemon(_) | FaultError::Join(_) => {
                (Code::Failed, retry(layout))
            }
            FaultError::Record(record) => (Code::Failed, of_record(layout, record)),
            FaultError::World(world) => (Code::Failed, of_world(layout, world)),
        };
        let mut failure = Self::new(code, &error, hint);
        if let FaultError::Died { log, .. } = error {
            failure.log = log;
        }
        failure
    }

    pub(crate) fn of_status(layout: &Layout, error: StatusError) -> Self {
        let (code, hint) = match &error {
            StatusError::NoCluster(_) => (Code::NotFound, format!("make one with {}", verb(layout, "up"))),
            StatusError::Daemon(_) | StatusError::Links { .. } => (Code::Failed, retry(layout)),
            StatusError::Record(record) => (Code::Failed, of_record(layout, record)),
            StatusError::World(world) => (Code::Failed, of_world(layout, world)),
        };
        Self::new(code, &error, hint)
    }

    pub(crate) fn of_down(layout: &Layout, error: DownError) -> Self {
        let again =
            || format!("repeat {} when the cause is gone; it goes on where it stopped", verb(layout, "down"));
        let (code, hint) = match &error {
            DownError::NothingToKeep(_) => {
                (Code::Conflict, format!("remove it with {}", verb(layout, "down")))
            }
            DownError::Record(record @ RecordError::Version { .. }) => {
                (Code::Failed, of_record(layout, record))
            }
            DownError::Record(_) | DownError::Lock(_) | DownError::World(_) => (Code::Failed, again()),
        };
        Self::new(code, &error, hint)
    }
}

/// A command about this cluster, as the user would type it.
pub(crate) fn verb(layout: &Layout, command: &str) -> String {
    match layout.cluster().as_str() {
        crate::command::DEFAULT => format!("`gantry dev {command}`"),
        name => format!("`gantry dev {command} --name {name}`"),
    }
}

fn of_record(layout: &Layout, error: &RecordError) -> String {
    match error {
        RecordError::Damaged { .. } => format!("{} removes the cluster by its name", verb(layout, "down")),
        RecordError::Version { .. } => "use the gantry that made the cluster to remove it".to_owned(),
        RecordError::Read { .. } | RecordError::Write { .. } => retry(layout),
    }
}

fn of_world(layout: &Layout, error: &WorldError) -> String {
    match error {
        WorldError::NoSwitch => format!("start over with {}", verb(layout, "down")),
        WorldError::NoNode(_) => format!("look with {}", verb(layout, "status")),
        WorldError::Link { .. } => "the kernel needs bridges and veth (modules bridge and veth)".to_owned(),
        WorldError::Rules { .. } => {
            "the kernel needs nf_tables with NAT (modules nf_tables and nft_masq)".to_owned()
        }
        WorldError::Record(record) => of_record(layout, record),
        WorldError::Holder { .. }
        | WorldError::Process { .. }
        | WorldError::Cgroup(_)
        | WorldError::Make { .. }
        | WorldError::Remove { .. }
        | WorldError::Read { .. } => retry(layout),
    }
}

fn retry(layout: &Layout) -> String {
    format!("try again when the cause is gone, or start over with {}", verb(layout, "down"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(cluster: &str) -> Layout {
        Layout::new(cluster.parse().unwrap(), None)
    }

    #[test]
    fn exit_codes_are_the_contracts() {
        let cluster = || "dev".parse().unwrap();
        let up = |error| Failure::of_up(&layout("dev"), error).code as u8;
        assert_eq!(up(UpError::Managers { managers: 3, nodes: 1 }), 2);
        assert_eq!(
            up(UpError::Join(JoinError::Late {
                why: "".into(),
                within: crate::join::PATIENCE,
                log: "".into()
            })),
            3
        );
        assert_eq!(up(UpError::Absent(cluster())), 4);
        assert_eq!(up(UpError::Exists(cluster())), 5);
        assert_eq!(up(UpError::Interrupted), 130);
        assert_eq!(up(UpError::Preflight(PreflightError::Lacks(vec!["x"]))), 1);
    }

    #[test]
    fn hints_name_the_cluster_unless_it_is_the_usual_one() {
        let hint = |name: &str| Failure::of_fault(&layout(name), FaultError::Crashed(NodeNumber::FIRST)).hint;
        assert_eq!(hint("dev").as_deref(), Some("bring it back with `gantry dev node reboot n1`"));
        assert_eq!(hint("two").as_deref(), Some("bring it back with `gantry dev node reboot n1 --name two`"));
    }
}
