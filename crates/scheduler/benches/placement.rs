//! How fast placement alone is: `cargo xtask bench scheduler`.
//!
//! A class is one service: its tasks ask the same of a node. What is timed is [`scheduler::place`] and nothing else; the tasks are
//! there before, and every decision is a command that has been judged by `state`'s own `apply`.

#![expect(clippy::unwrap_used, reason = "a bench is no library")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use divan::Bencher;
use divan::counter::ItemsCount;
use model::{
    Bytes, Capacity, ClusterId, ContainerSpec, Digest, Health, LogIndex, MilliCpu, Name, NodeId,
    PlacementPolicy, PullPolicy, Reservations, Resources, RestartPolicy, Role, ServiceId, ServiceSpec,
    SpecVersion, Subnet, TaskId, TaskSpec, Timestamp,
};
use state::command::Authority;
use state::{Command, Declared, Proposal, State};

const IMAGE: Digest = Digest([1; 32]);
const TOKEN: [u8; 32] = [7; 32];
const NODES: u32 = 5_000;
const TASKS: u32 = 100_000;

fn main() {
    divan::main();
}

/// 100,000 tasks on 5,000 nodes, with a constraint that half of them meet and spread over racks; by the number of services.
#[divan::bench(args = [1, 100, 10_000], sample_count = 5, sample_size = 1)]
fn tasks_of_services(bencher: Bencher<'_, '_>, services: u32) {
    let spec = with_demands(TASKS / services, &["node.labels.disk == ssd"], &["node.labels.rack"]);
    places(bencher, &cluster(NODES, services, &spec));
}

/// One task more, by the number of nodes.
#[divan::bench(args = [100, 1_000, 10_000], sample_count = 100, sample_size = 1)]
fn one_task(bencher: Bencher<'_, '_>, nodes: u32) {
    places(bencher, &cluster(nodes, 1, &with_demands(1, &[], &[])));
}

/// The same, of a service that is spread.
#[divan::bench(args = [100, 1_000, 10_000], sample_count = 100, sample_size = 1)]
fn one_task_that_is_spread(bencher: Bencher<'_, '_>, nodes: u32) {
    let spec = with_demands(1, &["node.labels.disk == ssd"], &["node.labels.rack"]);
    places(bencher, &cluster(nodes, 1, &spec));
}

/// Places all that is pending, and looks that nothing is left.
fn places(bencher: Bencher<'_, '_>, before: &State) {
    let pending: Vec<TaskId> = before.unplaced().collect();
    bencher.counter(ItemsCount::new(pending.len())).bench_local(|| {
        let placement = scheduler::place(before, &pending, usize::MAX);
        assert_eq!(placement.commands.len(), pending.len(), "{:?}", placement.unplaced.values().next());
        placement
    });
}

struct World {
    state: State,
    index: u64,
}

impl World {
    fn must(&mut self, commands: Vec<Command>) {
        self.index += 1;
        let proposal = Proposal { at: Timestamp(1_000), request: None, by: None, commands };
        let applied = self.state.apply(LogIndex(self.index), &proposal);
        assert!(applied.outcomes.iter().all(Result::is_ok), "{:?}", applied.outcomes.first());
    }
}

/// So many nodes, half of them with fast disks, in racks of a hundred; and so many services whose tasks have yet to be placed.
fn cluster(nodes: u32, services: u32, spec: &ServiceSpec) -> State {
    let mut world = World { state: State::new(), index: 0 };
    let authority = Authority { certificate_pem: String::new(), key_pem: String::new() };
    let range = Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 8 };
    world.must(vec![
        Command::Found { cluster: ClusterId(1), range, node_prefix: 22, authority },
        Command::PutToken { digest: TOKEN, role: Role::Worker, expires: Timestamp(u64::MAX) },
    ]);
    for number in 1..=nodes {
        let (node, address) =
            (NodeId(number.into()), SocketAddr::from((Ipv4Addr::from(0xc0a8_0000 + number), 7070)));
        let (role, token) = if number == 1 { (Role::Manager, None) } else { (Role::Worker, Some(TOKEN)) };
        let disk = if number.is_multiple_of(2) { "ssd" } else { "hdd" };
        let labels = [("disk", disk.to_owned()), ("rack", format!("r{}", number / 100))];
        world.must(vec![
            Command::AdmitNode { name: name(&format!("n{number}")), role, address, token, key: None },
            Command::DescribeNode {
                node,
                address,
                labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
                capacity: Capacity { cpu: MilliCpu(64_000), memory: Bytes(256 << 30) },
                platform: "linux/amd64".parse().ok(),
                version: String::new(),
            },
            Command::SetLiveness { node, ready: true },
        ]);
    }
    let image = spec.task.image.clone();
    world.must(vec![Command::PutImage { name: image, image: IMAGE, size: Bytes(1), holder: NodeId(1) }]);
    let declared = |at: u32| {
        let declared = Declared { spec: spec.clone(), image: IMAGE, keep_replicas: false };
        (name(&format!("s{at}")), declared)
    };
    let stack = name("load");
    world.must(vec![Command::Deploy {
        stack,
        services: (1..=services).map(declared).collect(),
        expected: None,
    }]);
    let replicas = spec.mode.replicas().unwrap_or_default();
    for service in 1..=services {
        let create = |slot: u32| Command::CreateTask {
            task: TaskId { service: ServiceId(service.into()), slot, sequence: slot.into() },
            version: SpecVersion(1),
            run: 0,
            avoid: None,
        };
        world.must((1..=replicas).map(create).collect());
    }
    world.state
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn with_demands(replicas: u32, constraints: &[&str], spread_over: &[&str]) -> ServiceSpec {
    let task = TaskSpec {
        image: "app".parse().unwrap(),
        entrypoint: None,
        command: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        working_dir: None,
        user: None,
        ports: Vec::new(),
        resources: Resources {
            reservations: Reservations { cpu: MilliCpu(100), memory: Bytes(64 << 20) },
            ..Resources::default()
        },
        restart: RestartPolicy::default(),
        placement: PlacementPolicy {
            constraints: constraints.iter().map(|text| text.parse().unwrap()).collect(),
            spread_over: spread_over.iter().map(|text| text.parse().unwrap()).collect(),
            ..PlacementPolicy::default()
        },
        container: ContainerSpec::default(),
        health: Health::default(),
        readiness: None,
        pull: PullPolicy::default(),
    };
    ServiceSpec::replicated(replicas, task)
}
