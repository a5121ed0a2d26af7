//! For tests: the life of a small cluster, in which every command appears and every table keeps a row.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use model::{
    Access, Affinity, Availability, Bind, Blkio, Bytes, Capabilities, Capability, Capacity, ClusterId,
    ContainerSpec, Credential, Desired, Device, Digest, Dns, Ended, Ending, Exit, FailureAction, Health,
    HealthCheck, Hook, Hooks, HostAddress, HostEntry, HttpProbe, JobSpec, LogDriver, LogIndex, Logging,
    MilliCpu, Missed, Mode, Mount, MountKind, Namespaces, NodeId, Overlap, Phase, PlacementPolicy, PortSpec,
    Priority, Privileges, Probe, Propagation, Protocol, Publish, PullPolicy, Readiness, RequestId,
    Reservations, Resources, RestartCondition, RestartPolicy, Role, Schedule, Scope, Seccomp, Secret,
    ServiceId, ServiceSpec, Signal, SpecVersion, Stop, Strategy, Subnet, SwapLimit, TaskId, TaskSpec,
    TaskStatus, TaskVerdict, Timestamp, Tmpfs, Tuning, Ulimit, UlimitRange, UpdateOrder, UpdatePolicy,
    UserScope, Wish,
};
use state::command::Authority;
use state::{Advance, Command, Declared, Outcome, Proposal, RegistryChange, State, Steer};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
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

/// A service that says something in every field that the first version had, and nothing in the others.
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
        placement: PlacementPolicy {
            constraints: vec![
                "node.labels.disk != hdd".parse().unwrap(),
                "node.hostname == n1".parse().unwrap(),
            ],
            ..PlacementPolicy::default()
        },
        container: ContainerSpec::default(),
        health: Health::default(),
        readiness: None,
        pull: PullPolicy::default(),
    };
    let labels = map([("tier".to_owned(), "front".to_owned())]);
    let spec = ServiceSpec { labels, ..ServiceSpec::replicated(2, task) };
    Declared { spec, image: digest(1), keep_replicas: false }
}

/// A service that says something in every field.
pub(crate) fn elaborate(greeting: &str) -> Declared {
    let mut declared = declared(greeting);
    let task = &mut declared.spec.task;
    task.container = container();
    task.health = Health::Check(check());
    task.readiness = Some(readiness());
    task.placement = PlacementPolicy {
        constraints: vec!["node.labels.disk == ssd".parse().unwrap(), "node.id in (n1, n2)".parse().unwrap()],
        spread_over: vec!["node.labels.disk".parse().unwrap(), "node.hostname".parse().unwrap()],
        max_per_node: NonZeroU32::new(9),
        platform: Some("linux/amd64".parse().unwrap()),
        affinities: [(None, Wish::Near), (Some("gone".parse().unwrap()), Wish::Apart)]
            .map(|(stack, wish)| Affinity { stack, service: "db".parse().unwrap(), wish, required: false })
            .into(),
        strategy: Some(Strategy::BinPack),
        priority: Priority(-7),
    };
    task.pull = PullPolicy::After(Duration::from_secs(3_600));
    declared.spec.update = policy(3);
    declared.spec.rollback = policy(4);
    declared.keep_replicas = true;
    declared
}

/// No field of it is the default.
fn policy(parallelism: u32) -> UpdatePolicy {
    UpdatePolicy {
        parallelism,
        delay: Duration::from_secs(1),
        order: UpdateOrder::StartFirst,
        monitor: Duration::from_secs(2),
        min_healthy: Some(Duration::ZERO),
        max_failure_ratio: 300,
        failure_action: FailureAction::Rollback,
        progress_deadline: Duration::from_secs(90),
        canaries: 2,
        promote_after: Some(Duration::from_secs(60)),
    }
}

/// No field of it or of what is in it is the default.
pub(crate) fn container() -> ContainerSpec {
    let limit = |soft, hard| UlimitRange { soft, hard };
    ContainerSpec {
        annotations: map([("team".to_owned(), "shop".to_owned())]),
        hostname: Some("web".to_owned()),
        domainname: Some("example.com".to_owned()),
        hosts: vec![
            HostEntry { name: "db".to_owned(), address: HostAddress::Ip([192u8, 0, 2, 7].into()) },
            HostEntry { name: "node".to_owned(), address: HostAddress::Gateway },
        ],
        dns: Dns {
            servers: vec![[192u8, 0, 2, 53].into(), [0xfdu8; 16].into()],
            search: vec!["example.com".to_owned()],
            options: vec!["ndots:2".to_owned()],
        },
        groups: vec!["video".to_owned(), "44".to_owned()],
        init: true,
        tty: true,
        stdin_open: true,
        read_only: true,
        mounts: mounts(),
        shm_size: Some(Bytes(128 << 20)),
        ulimits: map([
            (Ulimit::Nofile, limit(Some(1_024), Some(4_096))),
            (Ulimit::Core, limit(Some(0), None)),
            (Ulimit::Memlock, limit(None, None)),
        ]),
        sysctls: map([("net.core.somaxconn".to_owned(), "1024".to_owned())]),
        privileges: privileges(),
        devices: vec![Device {
            source: "/dev/ttyUSB0".to_owned(),
            target: "/dev/modem".to_owned(),
            access: Access { read: true, write: false, mknod: true },
        }],
        device_rules: vec!["c 10:200 rwm".parse().unwrap(), "a *:* r".parse().unwrap()],
        namespaces: Namespaces {
            ipc: Scope::Host,
            pid: Scope::Host,
            uts: Scope::Host,
            cgroup: Scope::Host,
            user: UserScope::Own,
        },
        cgroup_parent: Some("/batch".to_owned()),
        oom_score_adj: Some(-500),
        tuning: tuning(),
        storage_size: Some(Bytes(10 << 30)),
        runtime: Some("runsc".to_owned()),
        hooks: Hooks {
            post_start: vec![Hook { command: vec!["warm".to_owned(), "up".to_owned()], ..Hook::default() }],
            pre_stop: vec![Hook {
                command: vec!["flush".to_owned()],
                user: Some("app".to_owned()),
                privileged: true,
                working_dir: Some("/srv".to_owned()),
                environment: map([("HOW".to_owned(), "fast".to_owned())]),
            }],
        },
        stop: Stop { signal: Signal::from_number(3), grace: Duration::from_millis(1_500) },
        logging: Logging {
            driver: LogDriver::Syslog {
                address: "udp://192.0.2.9:514".to_owned(),
                facility: "daemon".to_owned(),
                tag: "web".to_owned(),
            },
            max_size: Bytes(1 << 20),
            max_files: 7,
        },
        hold: true,
    }
}

/// The first is a bind mount.
fn mounts() -> Vec<Mount> {
    let bind = Bind {
        source: "/srv/data".to_owned(),
        create: true,
        propagation: Propagation::Slave,
        recursive: true,
    };
    let tmpfs =
        Tmpfs { size: Some(Bytes(1 << 20)), mode: Some(0o1750), uid: Some(7), gid: Some(8), exec: true };
    vec![
        Mount { target: "/data".to_owned(), read_only: true, kind: MountKind::Bind(bind) },
        Mount { target: "/tmp".to_owned(), read_only: true, kind: MountKind::Tmpfs(tmpfs) },
    ]
}

fn privileges() -> Privileges {
    let capability = |name: &str| name.parse::<Capability>().unwrap();
    Privileges {
        privileged: true,
        add: Capabilities { all: true, named: [capability("NET_ADMIN"), capability("SYS_TIME")].into() },
        drop: Capabilities { all: true, named: [capability("CHOWN")].into() },
        no_new_privileges: true,
        seccomp: Seccomp::Profile(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#.to_owned()),
        apparmor: Some("unconfined".to_owned()),
        unmasked: true,
    }
}

fn tuning() -> Tuning {
    let of_disk = |value| vec![("/dev/sda".to_owned(), value)];
    Tuning {
        cpu_shares: Some(512),
        cpuset: Some("0-2,4".to_owned()),
        memory_reservation: Some(Bytes(32 << 20)),
        swap: Some(SwapLimit::Total(Bytes(1 << 30))),
        blkio: Blkio {
            weight: Some(300),
            weight_device: vec![("/dev/sda".to_owned(), 400)],
            read_bytes: of_disk(1),
            write_bytes: of_disk(2),
            read_operations: of_disk(3),
            write_operations: of_disk(u64::MAX),
        },
    }
}

/// One of each kind.
pub(crate) fn probes() -> [Probe; 4] {
    [
        Probe::Exec(vec!["test".to_owned(), String::new()]),
        Probe::Http(HttpProbe {
            port: 8_080,
            path: "/healthz?full=1".to_owned(),
            tls: true,
            host: Some("shop.example.com".to_owned()),
            headers: vec![
                ("X-Probe".to_owned(), "1".to_owned()),
                ("X-Probe".to_owned(), "a second of the name".to_owned()),
            ],
        }),
        Probe::Tcp { port: 5_432 },
        Probe::Grpc { port: 50_051, service: "shop.Orders".to_owned() },
    ]
}

/// No field is `None`.
pub(crate) fn check() -> HealthCheck {
    let [exec, ..] = probes();
    HealthCheck {
        probe: Some(exec),
        interval: Some(Duration::from_millis(1_100)),
        timeout: Some(Duration::from_millis(1_200)),
        retries: Some(5),
        start_period: Some(Duration::from_millis(1_300)),
        start_interval: Some(Duration::from_millis(1_400)),
    }
}

pub(crate) fn readiness() -> Readiness {
    let [_, http, ..] = probes();
    Readiness {
        probe: http,
        interval: Duration::from_millis(2_100),
        timeout: Duration::from_millis(2_200),
        successes: 2,
        failures: 4,
    }
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
        warnings: Vec::new(),
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
        platform: Some("linux/amd64".parse().unwrap()),
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
        Command::LabelNode {
            node: N1,
            labels: map([("zone".to_owned(), Some("a".to_owned())), ("disk".to_owned(), None)]),
        },
        Command::Configure { strategy: Strategy::BinPack },
    ]
}

fn images() -> Vec<Command> {
    let image = |name: &str, byte| Command::PutImage {
        name: name.parse().unwrap(),
        image: digest(byte),
        size: Bytes(5_000_000),
        holder: N1,
    };
    let pulled = |name: &str, origin: Option<&str>, automatic| Command::NameImage {
        name: name.parse().unwrap(),
        image: digest(3),
        size: Bytes(7),
        origin: origin.map(|origin| origin.parse().unwrap()),
        automatic,
    };
    vec![
        image("hello:1", 1),
        image("old:1", 2),
        Command::KeepCopy { image: digest(1), node: N2 },
        pulled("reg.lan/app:1", Some("reg.lan/app"), true),
        pulled("again:1", None, false),
    ]
}

fn registries() -> Vec<Command> {
    let put = |name: &str, change| Command::PutRegistry { registry: name.parse().unwrap(), change };
    let settings = RegistryChange::Settings {
        mirrors: vec!["mirror.lan".parse().unwrap()],
        ca: vec!["a certificate".to_owned()],
        insecure: true,
    };
    let password = Secret::Password("hunter2".to_owned());
    let log_in = RegistryChange::LogIn(Credential { username: "me".to_owned(), secret: password });
    vec![
        put("reg.lan", settings.clone()),
        put("reg.lan", log_in),
        put("docker.io", settings.clone()),
        put("docker.io", RegistryChange::LogOut),
        put("gone.lan", settings),
        Command::RemoveRegistry { registry: "gone.lan".parse().unwrap() },
    ]
}

fn stacks() -> Vec<Vec<Command>> {
    let deploy = |stack: &str, service: &str, declared: Declared, expected| Command::Deploy {
        stack: stack.parse().unwrap(),
        services: map([(service.parse().unwrap(), declared)]),
        expected,
    };
    vec![
        vec![deploy("shop", "web", elaborate("hi"), None), deploy("gone", "job", declared("hi"), None)],
        vec![deploy("shop", "web", elaborate("hello"), Some(LogIndex(3)))],
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
        run: 0,
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
                    warnings: vec!["no AppArmor here".to_owned(), "no quota of /var".to_owned()],
                    ..status(3, Phase::Exited)
                },
            )],
        },
        Command::Conclude { task: task(2, 2), verdict: TaskVerdict::Ended },
        Command::SetDesired { task: task(3, 3), desired: Desired::Stopped },
        Command::SetLiveness { node: N2, ready: false },
        Command::SetAvailability {
            node: N2,
            availability: Availability::Drain { until: Some(Timestamp(5)) },
        },
    ]
}

/// The second version of the first service is halted, goes on, fails, and is completed all the same; a third takes no other
/// containers; then it goes back, and again back.
fn rollouts() -> Vec<Command> {
    let web = || "shop/web".parse().unwrap();
    let steer = |how| Command::Steer { service: web(), how };
    let advance = |to, how| Command::Advance { service: ServiceId(1), to: SpecVersion(to), how };
    let mut labelled = elaborate("hello");
    labelled.spec.task.labels = map([("kind".to_owned(), "shop".to_owned())]);
    let reason = || "slot 1: exit code 1".to_owned();
    vec![
        steer(Steer::Pause),
        steer(Steer::Resume),
        steer(Steer::Promote),
        advance(2, Advance::Progressed { done: 1, failed: 1 }),
        advance(2, Advance::Promoted),
        advance(2, Advance::Failed { reason: reason() }),
        advance(2, Advance::Completed),
        Command::Deploy {
            stack: "shop".parse().unwrap(),
            services: map([("web".parse().unwrap(), labelled)]),
            expected: None,
        },
        Command::Revise { task: task(1, 1), version: SpecVersion(3) },
        Command::Move { task: task(1, 1) },
        Command::Undo { service: web(), to: None },
        Command::Undo { service: web(), to: Some(SpecVersion(1)) },
        Command::Restart { service: web() },
        advance(4, Advance::RolledBack { to: SpecVersion(2), reason: reason() }),
        steer(Steer::Abort),
    ]
}

/// A job that succeeds, fails, is ended, and goes on.
fn jobs() -> Vec<Command> {
    let tidy = || "chore/tidy".parse().unwrap();
    let end = |run, how| Command::EndRun { service: ServiceId(3), run, how };
    let again = || Command::RunJob { service: tidy() };
    let id = TaskId { service: ServiceId(3), slot: 1, sequence: 1 };
    let mut job = declared("tidy");
    (job.spec.mode, job.image) = (Mode::Global, digest(1));
    job.spec.task.placement.constraints = vec!["node.hostname == n1".parse().unwrap()];
    job.spec.task.ports.clear();
    job.spec.job = Some(JobSpec {
        parallelism: Some(2),
        deadline: Some(Duration::from_secs(60)),
        history: 3,
        schedule: None,
    });
    let mut scheduled = job.clone();
    let times = Schedule::new("* * * * *", "Europe/Berlin", Overlap::Skip, Missed::Run).unwrap();
    scheduled.spec.job.as_mut().unwrap().schedule = Some(times);
    let done = TaskStatus {
        exit: Some(Exit::Code(0)),
        ended: Some(Ended::Completed),
        reason: None,
        warnings: Vec::new(),
        ..status(1, Phase::Exited)
    };
    vec![
        Command::Deploy {
            stack: "chore".parse().unwrap(),
            services: map([("tidy".parse().unwrap(), job)]),
            expected: None,
        },
        Command::CreateTask { task: id, version: SpecVersion(1), run: 1, avoid: None },
        Command::Assign { task: id, node: N1 },
        Command::Report { node: N1, statuses: vec![(id, done)] },
        end(1, Ending::Succeeded),
        again(),
        end(2, Ending::Failed { reason: "slot 1: exit code 1".to_owned() }),
        again(),
        Command::StopJob { service: tidy() },
        again(),
        Command::Deploy {
            stack: "chore".parse().unwrap(),
            services: map([("tidy".parse().unwrap(), scheduled)]),
            expected: None,
        },
    ]
}

fn removals() -> Vec<Command> {
    vec![
        Command::RemoveStack { stack: "gone".parse().unwrap() },
        Command::DropService { service: ServiceId(2) },
        Command::RemoveImage { name: "old:1".parse().unwrap() },
        Command::ReportImages { node: N1, held: vec![digest(1)] },
        Command::DropImage { image: digest(2) },
        Command::RemoveNode { node: N3 },
    ]
}

/// Proposals for the log indexes from 1. All commands of all but the last are accepted, none of the last are.
pub(crate) fn proposals() -> Vec<Proposal> {
    let mut lists = vec![nodes(), [images(), registries()].concat()];
    lists.extend(stacks());
    lists.extend([tasks(), rollouts(), jobs(), removals()]);
    lists.push(vec![
        Command::Assign { task: task(9, 9), node: N1 },
        Command::DropImage { image: digest(1) },
        Command::Due { service: ServiceId(3), at: Timestamp(0) },
    ]);
    let proposal = |(at, commands): (u64, Vec<Command>)| Proposal {
        at: Timestamp(1_000 * at),
        // Every other one has no request.
        request: at.is_multiple_of(2).then_some(RequestId(u128::MAX - u128::from(at))),
        by: at.is_multiple_of(2).then(|| "root on n1".to_owned()),
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
