//! For tests: the life of a small cluster, in which every command appears and every table keeps a row.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::{
    Bytes, Capacity, ClusterId, Desired, Digest, Ended, Exit, LogIndex, MilliCpu, NodeId, Phase, PortSpec,
    Protocol, Publish, RequestId, Reservations, Resources, RestartCondition, RestartPolicy, Role, ServiceId,
    ServiceSpec, SpecVersion, Subnet, TaskId, TaskSpec, TaskStatus, TaskVerdict, Timestamp,
};
use state::command::Authority;
use state::{Command, Declared, Outcome, Proposal, State};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const TOKEN: [u8; 32] = [9; 32];

pub(crate) fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

/// The task of the given slot and sequence of the first service.
pub(crate) fn task(slot: u32, sequence: u64) -> TaskId {
    TaskId { service: ServiceId(1), slot, sequence }
}

fn map<K: Ord, V>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    pairs.into_iter().collect()
}

/// A service that says something in every field.
pub(crate) fn declared(greeting: &str) -> Declared {
    let task = TaskSpec {
        image: "hello:1".parse().unwrap(),
        entrypoint: Some(vec![]),
        command: Some(vec!["serve".to_owned(), String::new()]),
        environment: map([("EMPTY".to_owned(), String::new()), ("GREETING".to_owned(), greeting.to_owned())]),
        labels: map([("kind".to_owned(), "web".to_owned())]),
        working_dir: Some("/srv".to_owned()),
        user: Some("1000:1000".to_owned()),
        ports: vec![
            PortSpec { target: 80, protocol: Protocol::Tcp, publish: Publish::HostPort(8080) },
            PortSpec { target: 53, protocol: Protocol::Udp, publish: Publish::AnyHostPort },
        ],
        resources: Resources {
            reservations: Reservations { cpu: MilliCpu(250), memory: Bytes(64 << 20) },
            limits: model::Limits { cpu: Some(MilliCpu(1500)), memory: None, pids: Some(100) },
        },
        restart: RestartPolicy {
            condition: RestartCondition::OnFailure,
            delay: Some(Duration::ZERO),
            max_attempts: Some(3),
            window: Duration::from_millis(5_500),
        },
        constraints: vec!["node.labels.disk != hdd".parse().unwrap(), "node.hostname == n1".parse().unwrap()],
    };
    let spec = ServiceSpec { replicas: 2, labels: map([("tier".to_owned(), "front".to_owned())]), task };
    Declared { spec, image: digest(1) }
}

fn status(attempt: u32, phase: Phase) -> TaskStatus {
    TaskStatus {
        attempt,
        phase,
        seq: 2,
        ready: true,
        at: Timestamp(7_000),
        exit: None,
        ended: None,
        reason: None,
    }
}

fn nodes() -> Vec<Command> {
    let range = Subnet { base: [10, 64, 0, 0].into(), prefix: 16 };
    let authority = Authority { certificate_pem: "certificate".to_owned(), key_pem: "key".to_owned() };
    let address = |node: u8| SocketAddr::from(([192, 0, 2, node], 7700));
    let describe = |node: NodeId, last| Command::DescribeNode {
        node,
        address: address(last),
        labels: map([("disk".to_owned(), "ssd".to_owned())]),
        capacity: Capacity { cpu: MilliCpu(4_000), memory: Bytes(8 << 30) },
        version: "0.1.0".to_owned(),
    };
    vec![
        Command::Found { cluster: ClusterId(0xabc), range, node_prefix: 24, authority },
        Command::AdmitNode {
            name: "n1".parse().unwrap(),
            role: Role::Manager,
            address: address(1),
            token: None,
            key: None,
        },
        Command::PutToken { digest: TOKEN, role: Role::Worker, expires: Timestamp(10_000_000) },
        Command::AdmitNode {
            name: "n2".parse().unwrap(),
            role: Role::Worker,
            address: address(2),
            token: Some(TOKEN),
            key: Some([4; 32]),
        },
        Command::AdmitNode {
            name: "n3".parse().unwrap(),
            role: Role::Worker,
            address: address(3),
            token: Some(TOKEN),
            key: None,
        },
        describe(N1, 1),
        describe(N2, 2),
        Command::SetLiveness { node: N1, ready: true },
        Command::SetLiveness { node: N2, ready: true },
    ]
}

fn images() -> Vec<Command> {
    let image = |name: &str, byte| Command::PutImage {
        name: name.parse().unwrap(),
        image: digest(byte),
        size: Bytes(5_000_000),
        holder: N1,
    };
    vec![image("hello:1", 1), image("old:1", 2), Command::KeepCopy { image: digest(1), node: N2 }]
}

fn stacks() -> Vec<Vec<Command>> {
    let deploy = |stack: &str, service: &str, greeting: &str, expected| Command::Deploy {
        stack: stack.parse().unwrap(),
        services: map([(service.parse().unwrap(), declared(greeting))]),
        expected,
    };
    vec![
        vec![deploy("shop", "web", "hi", None), deploy("gone", "job", "hi", None)],
        vec![deploy("shop", "web", "hello", Some(LogIndex(3)))],
        vec![Command::Scale {
            service: "shop/web".parse().unwrap(),
            replicas: 3,
            expected: Some(LogIndex(4)),
        }],
    ]
}

fn tasks() -> Vec<Command> {
    let create = |slot, sequence, avoid| Command::CreateTask {
        task: task(slot, sequence),
        version: SpecVersion(2),
        avoid,
    };
    vec![
        create(1, 1, None),
        create(2, 2, None),
        create(3, 3, None),
        create(3, 4, Some(N2)),
        Command::Assign { task: task(1, 1), node: N1 },
        Command::Assign { task: task(2, 2), node: N2 },
        Command::Report { node: N1, statuses: vec![(task(1, 1), status(1, Phase::Running))] },
        Command::Report {
            node: N2,
            statuses: vec![(
                task(2, 2),
                TaskStatus {
                    exit: Some(Exit::Signal { signal: 9, oom: true }),
                    ended: Some(Ended::GaveUp),
                    reason: Some("killed for its memory limit".to_owned()),
                    ..status(3, Phase::Exited)
                },
            )],
        },
        Command::Conclude { task: task(2, 2), verdict: TaskVerdict::Ended },
        Command::SetDesired { task: task(3, 3), desired: Desired::Stopped },
        Command::SetLiveness { node: N2, ready: false },
    ]
}

fn removals() -> Vec<Command> {
    vec![
        Command::RemoveStack { stack: "gone".parse().unwrap() },
        Command::DropService { service: ServiceId(2) },
        Command::RemoveImage { name: "old:1".parse().unwrap() },
        Command::ReportImages { node: N1, held: vec![digest(1)] },
        Command::DropImage { image: digest(2) },
    ]
}

/// Proposals for the log indexes from 1. All commands of all but the last are accepted, none of the last are.
pub(crate) fn proposals() -> Vec<Proposal> {
    let mut lists = vec![nodes(), images()];
    lists.extend(stacks());
    lists.extend([tasks(), removals()]);
    lists.push(vec![Command::Assign { task: task(9, 9), node: N1 }, Command::DropImage { image: digest(1) }]);
    let proposal = |(at, commands): (u64, Vec<Command>)| Proposal {
        at: Timestamp(1_000 * at),
        // Every other one has no request.
        request: at.is_multiple_of(2).then_some(RequestId(u128::MAX - u128::from(at))),
        commands,
    };
    (1..).zip(lists).map(proposal).collect()
}

/// The state after all of [`proposals`], and what each came to.
pub(crate) fn state() -> (State, Vec<Vec<Outcome>>) {
    let mut state = State::new();
    let outcomes =
        (1..).zip(proposals()).map(|(at, proposal)| state.apply(LogIndex(at), &proposal).outcomes).collect();
    (state, outcomes)
}
