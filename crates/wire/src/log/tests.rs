use std::collections::BTreeSet;

use expect_test::expect;
use model::{LogIndex, NodeId, RequestId, RolloutPhase, ServiceId, SpecVersion};
use state::command::Lacking;
use state::{Command, Done, Outcome, Rejected};

use super::*;
use crate::history::{self, declared, digest, task};

/// The number that a command has in `proto/log.proto`.
fn number(command: &Command) -> u32 {
    match command {
        Command::Found { .. } => 1,
        Command::PutToken { .. } => 2,
        Command::AdmitNode { .. } => 3,
        Command::DescribeNode { .. } => 4,
        Command::SetLiveness { .. } => 5,
        Command::Deploy { .. } => 6,
        Command::RemoveStack { .. } => 7,
        Command::Scale { .. } => 8,
        Command::DropService { .. } => 9,
        Command::CreateTask { .. } => 10,
        Command::Assign { .. } => 11,
        Command::SetDesired { .. } => 12,
        Command::Conclude { .. } => 13,
        Command::Report { .. } => 14,
        Command::PutImage { .. } => 15,
        Command::RemoveImage { .. } => 16,
        Command::KeepCopy { .. } => 17,
        Command::ReportImages { .. } => 18,
        Command::DropImage { .. } => 19,
        Command::NameImage { .. } => 20,
        Command::PutRegistry { .. } => 21,
        Command::RemoveRegistry { .. } => 22,
        Command::Undo { .. } => 27,
        Command::Restart { .. } => 28,
        Command::Steer { .. } => 29,
        Command::Advance { .. } => 33,
        Command::RunJob { .. } => 34,
        Command::StopJob { .. } => 35,
        Command::EndRun { .. } => 36,
        Command::Due { .. } => 37,
        Command::Revise { .. } => 39,
        Command::SetAvailability { .. } => 40,
        Command::LabelNode { .. } => 41,
        Command::RemoveNode { .. } => 42,
        Command::Configure { .. } => 43,
        Command::Move { .. } => 44,
    }
}

#[test]
fn every_command_reads_back_as_written() {
    let mut seen = BTreeSet::new();
    for proposal in history::proposals() {
        assert_eq!(decode(&encode(&proposal)).as_ref(), Ok(&proposal));
        seen.extend(proposal.commands.iter().map(number));
    }
    assert_eq!(seen, (1..=22).chain([27, 28, 29]).chain(33..=37).chain(39..=44).collect());
}

/// The number that a rejection has in `proto/log.proto`.
fn reason(rejected: &Rejected) -> u32 {
    match rejected {
        Rejected::Founded => 1,
        Rejected::NotFounded => 2,
        Rejected::NoStack(_) => 3,
        Rejected::NoService(_) => 4,
        Rejected::NoServiceId(_) => 5,
        Rejected::NoTask(_) => 6,
        Rejected::NoNode(_) => 7,
        Rejected::NoImage(_) => 8,
        Rejected::NoImageContent(_) => 9,
        Rejected::Changed { .. } => 10,
        Rejected::NodeNameTaken(_) => 11,
        Rejected::BadToken => 12,
        Rejected::NoSubnet => 13,
        Rejected::OutOfSequence(_) => 14,
        Rejected::Removing(_) => 15,
        Rejected::NoVersion(..) => 16,
        Rejected::AlreadyAssigned(_) => 17,
        Rejected::NotWanted(_) => 18,
        Rejected::NodeUnavailable(_) => 19,
        Rejected::DoesNotFit { .. } => 20,
        Rejected::StillRunning(_) => 21,
        Rejected::HasTasks(_) => 22,
        Rejected::ImageInUse { .. } => 23,
        Rejected::ImageKept(_) => 24,
        Rejected::NoRegistry(_) => 25,
        Rejected::TooManyRegistries => 26,
        Rejected::RegistryTooLarge(_) => 27,
        Rejected::NotInPlace(..) => 28,
        Rejected::NotItsRollout(..) => 30,
        Rejected::CannotSteer { .. } => 31,
        Rejected::NothingToUndo(_) => 32,
        Rejected::VersionGone { .. } => 33,
        Rejected::NotItsNode(..) => 29,
        Rejected::CannotScale(_) => 34,
        Rejected::IsJob(_) => 35,
        Rejected::NoJob(_) => 36,
        Rejected::RunGoesOn { .. } => 37,
        Rejected::NoRun(..) => 38,
        Rejected::RunNotDone(..) => 39,
        Rejected::NotDue(_) => 40,
        Rejected::NodeIsUp(_) => 41,
        Rejected::RunOnce(_) => 42,
        Rejected::TooManyLabels => 43,
    }
}

fn rejections() -> Vec<Rejected> {
    let lacking = [
        Lacking::Cpu,
        Lacking::Memory,
        Lacking::HostPort(80),
        Lacking::AnyHostPort,
        Lacking::Address,
        Lacking::Places(2),
    ];
    let does_not_fit = |lacking| Rejected::DoesNotFit { task: task(1, 2), node: NodeId(3), lacking };
    let mut all: Vec<Rejected> = lacking.map(does_not_fit).into();
    all.extend([
        Rejected::Founded,
        Rejected::NotFounded,
        Rejected::NoStack("shop".parse().unwrap()),
        Rejected::NoService("shop/web".parse().unwrap()),
        Rejected::NoServiceId(ServiceId(4)),
        Rejected::NoTask(task(1, 2)),
        Rejected::NoNode(NodeId(0)),
        Rejected::NoImage("hello:1".parse().unwrap()),
        Rejected::NoImageContent(digest(1)),
        Rejected::Changed { name: "shop/web".to_owned(), expected: LogIndex(0), actual: LogIndex(7) },
        Rejected::NodeNameTaken("n1".parse().unwrap()),
        Rejected::BadToken,
        Rejected::NodeIsUp("n1".parse().unwrap()),
        Rejected::TooManyLabels,
        Rejected::NoSubnet,
        Rejected::OutOfSequence(task(1, 2)),
        Rejected::Removing(ServiceId(4)),
        Rejected::NoVersion(ServiceId(4), SpecVersion(5)),
        Rejected::AlreadyAssigned(task(1, 2)),
        Rejected::NotWanted(task(1, 2)),
        Rejected::NodeUnavailable(NodeId(3)),
        Rejected::StillRunning(task(1, 2)),
        Rejected::HasTasks(ServiceId(4)),
        Rejected::ImageInUse { name: "hello:1".parse().unwrap(), service: "shop/web".parse().unwrap() },
        Rejected::ImageKept(digest(1)),
        Rejected::NoRegistry("registry.example:5000".parse().unwrap()),
        Rejected::TooManyRegistries,
        Rejected::RegistryTooLarge("docker.io".parse().unwrap()),
        Rejected::NotInPlace(task(1, 2), SpecVersion(5)),
        Rejected::NotItsRollout(ServiceId(4), SpecVersion(5)),
        Rejected::CannotSteer {
            service: "shop/web".parse().unwrap(),
            phase: RolloutPhase::Failed,
            hint: "resume it".to_owned(),
        },
        Rejected::NothingToUndo("shop/web".parse().unwrap()),
        Rejected::VersionGone { service: "shop/web".parse().unwrap(), version: SpecVersion(5) },
        Rejected::NotItsNode(task(1, 2), NodeId(3)),
        Rejected::CannotScale("shop/web".parse().unwrap()),
        Rejected::IsJob("shop/web".parse().unwrap()),
        Rejected::NoJob("shop/web".parse().unwrap()),
        Rejected::RunGoesOn { service: "shop/web".parse().unwrap(), run: 3 },
        Rejected::NoRun(ServiceId(4), 3),
        Rejected::RunNotDone(ServiceId(4), 3),
        Rejected::NotDue(ServiceId(4)),
        Rejected::RunOnce("shop/web".parse().unwrap()),
    ]);
    all
}

#[test]
fn every_outcome_reads_back_as_written() {
    let rejections = rejections();
    let known = 1..=43;
    assert_eq!(rejections.iter().map(reason).collect::<BTreeSet<_>>(), known.collect());
    let done = [Done::Unchanged, Done::Changed, Done::At(LogIndex(0)), Done::Admitted(NodeId(2))];
    let outcomes: Vec<Outcome> = done.into_iter().map(Ok).chain(rejections.into_iter().map(Err)).collect();
    for written in outcomes {
        let message = proto::Outcome::from(&written);
        let read = proto::Outcome::decode(message.encode_to_vec().as_slice()).unwrap();
        assert_eq!(outcome::outcome(read), Ok(written));
    }
}

/// Bytes in hex, 32 a line.
fn dump(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| hex::encode(line) + "\n").collect()
}

#[test]
fn the_bytes_on_disk_stay_what_they_are() {
    let proposal = Proposal {
        at: Timestamp(1_700_000_000_123),
        request: Some(RequestId(0xfeed)),
        by: None,
        commands: vec![
            Command::SetLiveness { node: NodeId(1), ready: false },
            Command::CreateTask {
                task: task(2, 300),
                version: SpecVersion(4),
                run: 0,
                avoid: Some(NodeId(0)),
            },
            Command::Deploy {
                stack: "shop".parse().unwrap(),
                services: [("web".parse().unwrap(), declared("hi"))].into(),
                expected: None,
            },
        ],
    };
    // A different dump here means that the logs of every running cluster have become unreadable.
    expect![[r#"
        080110fbd095ffbc311a20303030303030303030303030303030303030303030
        303030303030306665656422042a020801220f520d0a070801100218ac021004
        1800229e02329b020a0473686f701292020a03776562128a020abe010802120d
        0a0474696572120566726f6e741aaa010a0768656c6c6f3a3112001a090a0573
        657276650a0022070a05454d505459220e0a084752454554494e47120268692a
        0b0a046b696e64120377656232042f7372763a09313030303a31303030420708
        50100120903f4206083510021a004a110a0808fa011080808020120508dc0b18
        64520908021000180320fc2a5a176e6f64652e6c6162656c732e6469736b2021
        3d206864645a136e6f64652e686f73746e616d65203d3d206e31124773686132
        35363a3031303130313031303130313031303130313031303130313031303130
        3130313031303130313031303130313031303130313031303130313031303130
        313031
    "#]]
    .assert_eq(&dump(&encode(&proposal)));
}

#[test]
fn a_command_that_this_version_does_not_know_is_not_skipped() {
    // format 1, and a command of number 99 with nothing in it.
    let unknown = decode(&[0x08, 1, 0x22, 3, 0x9a, 0x06, 0]);
    assert_eq!(unknown, Err(Field("Command", "kind").bad(Cause::UnknownKind)));
}

#[test]
fn an_entry_of_a_later_format_is_refused() {
    let mut message = proto::Proposal::from(&history::proposals()[0]);
    for found in [0, FORMAT + 1] {
        message.format = found;
        let cause = Cause::Format { found, known: FORMAT };
        assert_eq!(decode(&message.encode_to_vec()), Err(Field("Proposal", "format").bad(cause)));
    }
}

#[test]
fn damaged_bytes_never_panic_and_what_is_read_of_them_can_be_written() {
    let check = |bytes: &[u8]| {
        if let Ok(read) = decode(bytes) {
            assert_eq!(decode(&encode(&read)).as_ref(), Ok(&read));
        }
    };
    for proposal in history::proposals() {
        let bytes = encode(&proposal);
        for at in 0..bytes.len() {
            check(&bytes[..at]);
            for bits in [0x01, 0x02, 0x08, 0x20, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= bits;
                check(&damaged);
            }
        }
    }
}
