//! Each reason to refuse a command, and that a refused command changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use model::{
    Availability, Bytes, Desired, Digest, Ending, LogIndex, Name, NodeId, Role, ServiceId, SpecVersion,
    Strategy, Subnet, TaskId, TaskVerdict, Timestamp,
};
use state::command::Lacking;
use state::{Advance, Command, RegistryChange, Rejected, Steer};

use crate::fixture::{RANGE, TOKEN, World, address_of, found, image_name, service_name};

/// A command that is refused, and what is said of it.
struct Case {
    world: World,
    command: Command,
    says: String,
}

fn case(world: World, command: Command, says: impl Into<String>) -> Case {
    Case { world, command, says: says.into() }
}

#[test]
fn every_reason_to_refuse_a_command_is_given_and_nothing_changes() {
    let mut given = BTreeSet::new();
    let cases = [
        cluster(),
        nodes(),
        stacks(),
        services(),
        rollouts(),
        tasks(),
        placements(),
        images(),
        registries(),
        jobs(),
    ];
    for Case { mut world, command, says } in cases.into_iter().flatten() {
        let before = world.state.rows();
        let Err(rejected) = world.apply(vec![command.clone()]).remove(0) else {
            panic!("{command:?} was accepted");
        };
        assert_eq!(rejected.to_string(), says, "{command:?}");
        // The first row has the counters, among them the index of this very proposal.
        assert!(world.state.rows()[1..] == before[1..], "{command:?} was refused and changed something");
        given.insert(reason(&rejected));
    }
    assert_eq!(given, BTreeSet::from(REASONS));
}

/// Every name that [`reason`] returns.
const REASONS: [&str; 48] = [
    "already assigned",
    "another generation",
    "bad token",
    "cannot scale",
    "cannot steer",
    "founded",
    "image in use",
    "image kept",
    "is a job",
    "lacks address",
    "lacks any port",
    "lacks cpu",
    "lacks memory",
    "lacks places",
    "lacks port",
    "name taken",
    "no image content",
    "no image",
    "no job",
    "no node",
    "no registry",
    "no run",
    "no service id",
    "no service",
    "no stack",
    "no subnet",
    "no task",
    "no version",
    "node is up",
    "node unavailable",
    "not due",
    "not founded",
    "not in place",
    "not its node",
    "not its rollout",
    "not wanted",
    "nothing to undo",
    "out of sequence",
    "registry too large",
    "removing",
    "run goes on",
    "run not done",
    "run once",
    "still running",
    "too many labels",
    "too many registries",
    "version gone",
    "with tasks",
];

/// A new reason does not compile here until it has a name; put that into [`REASONS`] and make a case of it.
fn reason(rejected: &Rejected) -> &'static str {
    match rejected {
        Rejected::Founded => "founded",
        Rejected::NotFounded => "not founded",
        Rejected::NoStack(_) => "no stack",
        Rejected::NoService(_) => "no service",
        Rejected::NoServiceId(_) => "no service id",
        Rejected::NoTask(_) => "no task",
        Rejected::NoNode(_) => "no node",
        Rejected::NoImage(_) => "no image",
        Rejected::NoImageContent(_) => "no image content",
        Rejected::Changed { .. } => "another generation",
        Rejected::NodeNameTaken(_) => "name taken",
        Rejected::BadToken => "bad token",
        Rejected::NoSubnet => "no subnet",
        Rejected::OutOfSequence(_) => "out of sequence",
        Rejected::Removing(_) => "removing",
        Rejected::NoVersion(..) => "no version",
        Rejected::AlreadyAssigned(_) => "already assigned",
        Rejected::NotWanted(_) => "not wanted",
        Rejected::NodeUnavailable(_) => "node unavailable",
        Rejected::DoesNotFit { lacking, .. } => match lacking {
            Lacking::Cpu => "lacks cpu",
            Lacking::Memory => "lacks memory",
            Lacking::HostPort(_) => "lacks port",
            Lacking::AnyHostPort => "lacks any port",
            Lacking::Address => "lacks address",
            Lacking::Places(_) => "lacks places",
        },
        Rejected::NodeIsUp(_) => "node is up",
        Rejected::TooManyLabels => "too many labels",
        Rejected::NotDue(_) => "not due",
        Rejected::IsJob(_) => "is a job",
        Rejected::NoJob(_) => "no job",
        Rejected::RunGoesOn { .. } => "run goes on",
        Rejected::NoRun(..) => "no run",
        Rejected::RunNotDone(..) => "run not done",
        Rejected::NotItsNode(..) => "not its node",
        Rejected::CannotScale(_) => "cannot scale",
        Rejected::StillRunning(_) => "still running",
        Rejected::HasTasks(_) => "with tasks",
        Rejected::ImageInUse { .. } => "image in use",
        Rejected::ImageKept(_) => "image kept",
        Rejected::NoRegistry(_) => "no registry",
        Rejected::TooManyRegistries => "too many registries",
        Rejected::RegistryTooLarge(_) => "registry too large",
        Rejected::NotInPlace(..) => "not in place",
        Rejected::NotItsRollout(..) => "not its rollout",
        Rejected::CannotSteer { .. } => "cannot steer",
        Rejected::RunOnce(_) => "run once",
        Rejected::NothingToUndo(_) => "nothing to undo",
        Rejected::VersionGone { .. } => "version gone",
    }
}

fn task(slot: u32, sequence: u64) -> TaskId {
    TaskId { service: ServiceId(1), slot, sequence }
}

fn create(task: TaskId, version: u64) -> Command {
    Command::CreateTask { task, version: SpecVersion(version), run: 0, avoid: None }
}

fn assign(task: TaskId, node: u64) -> Command {
    Command::Assign { task, node: NodeId(node) }
}

fn admit(name: &str, role: Role, token: Option<[u8; 32]>) -> Command {
    let name = name.parse().expect("a name");
    Command::AdmitNode { name, role, address: address_of(NodeId(1)), token, key: None }
}

fn stack(name: &str) -> Name {
    name.parse().expect("a name")
}

/// One of a service whose second version is on its way, and what is not done then.
fn rollouts() -> Vec<Case> {
    let web = || service_name("hello/web");
    let first = || World::of("nodes n1\n service hello/web x1\n deploy");
    let second = || {
        let mut world = first();
        world.run("settle\n service hello/web x1 command=two\n deploy");
        world
    };
    let (id, version) = (ServiceId(1), SpecVersion);
    let steer = |how| Command::Steer { service: web(), how };
    let mut paused = second();
    paused.run("pause web");
    let mut completed = second();
    completed.run("settle");
    vec![
        case(
            first(),
            Command::Undo { service: web(), to: None },
            "service `hello/web` was nothing else before; `gantry rollout history hello/web` lists the versions that are kept",
        ),
        case(
            first(),
            Command::Undo { service: web(), to: Some(version(7)) },
            "service `hello/web` keeps no version v7; `gantry rollout history hello/web` lists those that it does",
        ),
        case(
            World::of("nodes n1\n service hello/web once\n deploy"),
            Command::Restart { service: web() },
            "service `hello/web` was run once, and is not rolled out",
        ),
        case(
            first(),
            steer(Steer::Abort),
            "the rollout of service `hello/web` is running: there is nothing before its first version; deploy another, \
             or remove the stack",
        ),
        case(
            paused,
            steer(Steer::Promote),
            "the rollout of service `hello/web` is paused: `gantry rollout resume` it first",
        ),
        case(
            completed,
            steer(Steer::Pause),
            "the rollout of service `hello/web` is completed: `gantry rollout undo` goes back to the version before",
        ),
        case(
            second(),
            Command::Advance { service: id, to: version(1), how: Advance::Completed },
            "the rollout of service s1 to v1 is over, or another has taken its place",
        ),
        case(
            second(),
            Command::Revise { task: task(1, 1), version: version(2) },
            "task s1-1-1 cannot become v2 as it is",
        ),
    ]
}

fn jobs() -> Vec<Case> {
    let name = || service_name("hello/job");
    let running = || World::of("nodes n1\n service hello/job x2 job\n deploy\n settle");
    let mut ended = running();
    ended.run("end job");
    let create = |run| Command::CreateTask { task: task(1, 3), version: SpecVersion(1), run, avoid: None };
    let succeeded = |run| Command::EndRun { service: ServiceId(1), run, how: Ending::Succeeded };
    let over = "run 1 of service s1 is over, or there never was one";
    vec![
        case(
            running(),
            Command::Restart { service: name() },
            "service `hello/job` is a job, and is not rolled out; `gantry job run hello/job` does it again",
        ),
        case(
            World::of("nodes n1\n service hello/job x1\n deploy"),
            Command::RunJob { service: name() },
            "service `hello/job` is no job; `gantry job ls` lists those that there are",
        ),
        case(
            running(),
            Command::RunJob { service: name() },
            "run 1 of `hello/job` still goes on; wait for its end, or `gantry job stop hello/job`",
        ),
        case(ended.clone(), create(1), over),
        case(ended, succeeded(1), over),
        case(running(), create(0), "run 0 of service s1 is over, or there never was one"),
        case(running(), succeeded(1), "run 1 of service s1 has slots that have not succeeded"),
        case(
            running(),
            Command::Due { service: ServiceId(1), at: Timestamp(1_000_000) },
            "the job s1 is not due at this time, or that has been seen to",
        ),
        // A service that runs for good has none.
        case(
            World::of("nodes n1\n service hello/web x1\n deploy"),
            Command::CreateTask { task: task(1, 1), version: SpecVersion(1), run: 1, avoid: None },
            over,
        ),
    ]
}

fn cluster() -> Vec<Case> {
    let crowded = Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 24 };
    let mut full = World::founded(crowded, 25);
    full.run("nodes n1 n2");
    vec![
        case(World::new(), found(RANGE, 24), "the cluster has been founded already"),
        case(World::unfounded(), admit("n1", Role::Manager, None), "the cluster has not been founded"),
        case(
            full,
            admit("n3", Role::Manager, Some(TOKEN)),
            "the cluster's address range has no free subnet left for another node",
        ),
    ]
}

fn nodes() -> Vec<Case> {
    let bad_token = "the join token is unknown, expired, or for another role";
    let one = || World::of("nodes n1");
    let no_node = "there is no node n9";
    let node = NodeId(9);
    let name = image_name("app");
    let too_many = "a node has at most 64 labels, and neither name nor value is longer than 255 bytes";
    let label = |keys: &mut dyn Iterator<Item = String>| {
        let labels = keys.map(|key| (key, Some(String::new()))).collect();
        Command::LabelNode { node: NodeId(1), labels }
    };
    vec![
        case(one(), admit("n1", Role::Manager, Some(TOKEN)), "a node named `n1` is in the cluster already"),
        case(one(), admit("n2", Role::Manager, Some([9; 32])), bad_token),
        case(one(), admit("n2", Role::Worker, Some(TOKEN)), bad_token),
        // Only the founder needs none.
        case(one(), admit("n2", Role::Manager, None), bad_token),
        case(one(), Command::SetLiveness { node, ready: true }, no_node),
        case(one(), Command::Report { node, statuses: Vec::new() }, no_node),
        case(one(), Command::ReportImages { node, held: Vec::new() }, no_node),
        case(
            one(),
            Command::PutImage { name, image: Digest([1; 32]), size: Bytes(1), holder: node },
            no_node,
        ),
        case(
            World::of("nodes n1\n image app on n1"),
            Command::KeepCopy { image: Digest([1; 32]), node },
            no_node,
        ),
        case(World::of("nodes n1\n service hello/web x1\n deploy\n plan"), assign(task(1, 1), 9), no_node),
        case(one(), Command::SetAvailability { node, availability: Availability::Pause }, no_node),
        case(one(), Command::LabelNode { node, labels: BTreeMap::new() }, no_node),
        case(one(), Command::RemoveNode { node }, no_node),
        case(
            World::unfounded(),
            Command::Configure { strategy: Strategy::Spread },
            "the cluster has not been founded",
        ),
        case(
            one(),
            Command::RemoveNode { node: NodeId(1) },
            "node n1 is up: stop its daemon first, or `gantry node drain` it and stop it then",
        ),
        case(one(), label(&mut (0..=64).map(|at| format!("l{at}"))), too_many),
        case(one(), label(&mut ["l".repeat(256)].into_iter()), too_many),
    ]
}

fn stacks() -> Vec<Case> {
    let going = || World::of("nodes n1\n service hello/web x1\n deploy\n settle\n rm hello");
    let gone = || World::of("nodes n1\n service hello/web x1\n deploy\n settle\n rm hello\n settle");
    let running = World::of("nodes n1\n service hello/web x1\n deploy\n settle");
    let generation = running.state.stack(&stack("hello")).expect("it was deployed").generation;
    let stale =
        Command::Deploy { stack: stack("hello"), services: BTreeMap::new(), expected: Some(LogIndex(1)) };
    let says = format!("`hello` has changed meanwhile: it is at generation {generation}, not #1");
    let remove = || Command::RemoveStack { stack: stack("hello") };
    let scale = |expected| Command::Scale { service: service_name("hello/web"), replicas: 2, expected };
    vec![
        case(World::new(), remove(), "there is no stack `hello`"),
        case(going(), remove(), "there is no stack `hello`"),
        case(gone(), remove(), "there is no stack `hello`"),
        case(World::new(), scale(None), "there is no service `hello/web`"),
        case(going(), scale(None), "there is no service `hello/web`"),
        case(running, stale, says),
    ]
}

fn services() -> Vec<Case> {
    let running = || World::of("nodes n1\n service hello/web x1\n deploy\n settle");
    let world = running();
    let id = world.service("web");
    let generation = world.state.service(id).expect("it was just found").generation;
    let stale =
        Command::Scale { service: service_name("hello/web"), replicas: 2, expected: Some(LogIndex(1)) };
    let says = format!("`hello/web` has changed meanwhile: it is at generation {generation}, not #1");
    let going = World::of("nodes n1\n service hello/web x1\n deploy\n settle\n rm hello");
    let forget = || Command::DropService { service: ServiceId(1) };
    vec![
        case(world, stale, says),
        case(World::new(), forget(), "there is no service with the id s1"),
        case(World::new(), create(task(1, 1), 1), "there is no service with the id s1"),
        case(going.clone(), forget(), "service s1 still has tasks"),
        // It has none, but it is not being removed either.
        case(World::of("nodes n1\n service hello/web x0\n deploy"), forget(), "service s1 still has tasks"),
        case(going, create(task(1, 2), 1), "service s1 is being removed"),
        case(running(), create(task(2, 2), 9), "service s1 has no version v9"),
        case(
            World::of("nodes n1\n service hello/web global\n deploy"),
            Command::Scale { service: service_name("hello/web"), replicas: 2, expected: None },
            "service `hello/web` is global: it has a task on every node that may have one, and no number to change",
        ),
    ]
}

fn tasks() -> Vec<Case> {
    let running = || World::of("nodes n1\n service hello/web x1\n deploy\n settle");
    let conclude = |verdict| Command::Conclude { task: task(1, 1), verdict };
    let stop = Command::SetDesired { task: task(7, 7), desired: Desired::Stopped };
    let out_of_sequence = "exists already, or its sequence is not the next one";
    vec![
        case(running(), create(task(1, 1), 1), format!("task s1-1-1 {out_of_sequence}")),
        case(running(), create(task(2, 1), 1), format!("task s1-2-1 {out_of_sequence}")),
        case(running(), create(task(2, 3), 1), format!("task s1-2-3 {out_of_sequence}")),
        // Slots count from one.
        case(running(), create(task(0, 2), 1), format!("task s1-0-2 {out_of_sequence}")),
        case(running(), stop, "there is no task s1-7-7"),
        case(World::new(), conclude(TaskVerdict::Lost), "there is no task s1-1-1"),
        case(World::new(), assign(task(1, 1), 1), "there is no task s1-1-1"),
        case(running(), conclude(TaskVerdict::Ended), "task s1-1-1 may still be running"),
    ]
}

fn placements() -> Vec<Case> {
    let running = || World::of("nodes n1 n2\n service hello/web x1\n deploy\n settle");
    let mut stopped = World::of("nodes n1\n service hello/web x1\n deploy\n plan");
    stopped.must(Command::SetDesired { task: task(1, 1), desired: Desired::Stopped });
    let down = World::of("nodes n1\n service hello/web x1\n deploy\n plan\n down n1");
    let unseen = World::of("nodes n1 unseen\n service hello/web x1\n deploy\n plan");
    // What fits is on the node; one task more waits.
    let full = |capacity: &str, service: &str| {
        World::of(&format!("nodes n1 {capacity}\n service hello/web {service}\n deploy\n plan\n place"))
    };
    let does_not_fit = |task, lacking| format!("task {task} does not fit on node n1: {lacking}");
    vec![
        case(running(), assign(task(1, 1), 1), "task s1-1-1 has a node already"),
        case(running(), assign(task(1, 1), 2), "task s1-1-1 has a node already"),
        case(stopped, assign(task(1, 1), 1), "task s1-1-1 is no longer wanted"),
        case(down, assign(task(1, 1), 1), "node n1 does not take tasks now"),
        case(unseen, assign(task(1, 1), 1), "node n1 does not take tasks now"),
        case(
            World::of("nodes n1 n2\n service hello/web global\n deploy\n plan"),
            assign(task(2, 2), 1),
            "task s1-2-2 is not for node n1",
        ),
        case(full("cpu=1", "x3 cpu=0.5"), assign(task(3, 3), 1), does_not_fit("s1-3-3", "not enough CPU")),
        case(
            full("mem=1g", "x2 mem=513m"),
            assign(task(2, 2), 1),
            does_not_fit("s1-2-2", "not enough memory"),
        ),
        case(
            full("", "x2 port=80 host=8080"),
            assign(task(2, 2), 1),
            does_not_fit("s1-2-2", "host port 8080 is taken"),
        ),
        case(full("", "x3 ports=1000"), assign(task(3, 3), 1), does_not_fit("s1-3-3", "no free host port")),
        case(
            full("", "x2 most-per-node=1"),
            assign(task(2, 2), 1),
            does_not_fit("s1-2-2", "1 of the service are there, which is the most"),
        ),
        case(
            full("", "x254"),
            assign(task(254, 254), 1),
            does_not_fit("s1-254-254", "no free container address"),
        ),
    ]
}

fn images() -> Vec<Case> {
    let (image, name) = (Digest([1; 32]), image_name("app"));
    let content = format!("there is no image {image}");
    let kept = format!("image {image} is still named, used or held");
    let one = || World::of("nodes n1\n image app on n1");
    let in_use = "image `app:latest` is used by service `hello/web`";
    let give_name =
        || Command::NameImage { name: name.clone(), image, size: Bytes(1), origin: None, automatic: false };
    vec![
        case(World::new(), Command::RemoveImage { name: name.clone() }, "there is no image `app:latest`"),
        case(
            World::of("nodes n1\n image app on n1\n service hello/web x0\n deploy"),
            Command::RemoveImage { name: name.clone() },
            in_use,
        ),
        case(World::of("nodes n1"), Command::KeepCopy { image, node: NodeId(1) }, content.clone()),
        case(World::new(), Command::DropImage { image }, content.clone()),
        case(World::new(), give_name(), content.clone()),
        // Its node is dropping it, or will when it is back.
        case(World::of("nodes n1\n image app on n1\n untag app"), give_name(), content),
        case(one(), Command::DropImage { image }, kept.clone()),
        case(World::of("nodes n1\n image app on n1\n untag app"), Command::DropImage { image }, kept),
    ]
}

fn registries() -> Vec<Case> {
    let name = |text: &str| text.parse().expect("the name of a registry");
    let put = |registry: &str, change| Command::PutRegistry { registry: name(registry), change };
    let insecure = || RegistryChange::Settings { mirrors: Vec::new(), ca: Vec::new(), insecure: true };
    let large = RegistryChange::Settings {
        mirrors: Vec::new(),
        ca: vec!["x".repeat(64 << 10), "x".to_owned()],
        insecure: false,
    };
    let mut full = World::new();
    full.must_all((0..64).map(|number| put(&format!("r{number}.lan"), insecure())).collect());
    let nothing = "the cluster keeps nothing of registry reg.lan";
    vec![
        case(World::new(), put("reg.lan", RegistryChange::LogOut), nothing),
        case(World::new(), Command::RemoveRegistry { registry: name("reg.lan") }, nothing),
        case(
            full,
            put("reg.lan", insecure()),
            "the cluster keeps the settings of 64 registries already, which is all that it does",
        ),
        case(
            World::new(),
            put("reg.lan", large),
            "the settings of registry reg.lan are larger than the 64 KiB that the cluster keeps of one",
        ),
    ]
}
