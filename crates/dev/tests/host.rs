//! The world of a cluster on the real kernel: a switch and nodes without daemons, their links, their end. Needs
//! root, and the package nftables.
//!
//! A program of its own instead of the usual harness, because holders are made of the program that starts them.

#![expect(clippy::unwrap_used, reason = "this is a test, though not in a `#[test]` function")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dev::{HOLDER_ARGUMENT, Layout, NodeNumber, Record, holder_main, world};
use nix::sched::{CloneFlags, setns};

/// The longest that anything here takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

const FACTS: [(&str, fn()); 5] = [
    ("nodes_and_the_machine_reach_each_other", nodes_and_the_machine_reach_each_other),
    ("a_partitioned_node_is_alone_until_it_is_healed", a_partitioned_node_is_alone_until_it_is_healed),
    (
        "a_partition_outlives_a_crash_and_the_disk_does_too",
        a_partition_outlives_a_crash_and_the_disk_does_too,
    ),
    ("a_nodes_mounts_are_its_own", a_nodes_mounts_are_its_own),
    (
        "nothing_is_left_of_a_cluster_with_or_without_its_record",
        nothing_is_left_of_a_cluster_with_or_without_its_record,
    ),
];

/// The part of libtest's command line that cargo, nextest and people use: `--list`, `--exact`, a filter.
fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some((_, rest)) = arguments.split_first().filter(|(first, _)| *first == HOLDER_ARGUMENT) {
        holder_main(rest);
    }
    let words: Vec<String> = arguments.into_iter().filter_map(|word| word.into_string().ok()).collect();
    let has = |flag: &str| words.iter().any(|word| word == flag);
    let filter = words.iter().find(|word| !word.starts_with('-') && *word != "terse");
    let chosen = FACTS.iter().filter(|(name, _)| match filter {
        Some(filter) if has("--exact") => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    });
    // Nothing here is ignored.
    if has("--ignored") {
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    let mut out = io::stdout();
    for (name, fact) in chosen {
        if has("--list") {
            writeln!(out, "{name}: test").unwrap();
            continue;
        }
        let passed = catch_unwind(*fact).is_ok();
        writeln!(out, "test {name} ... {}", if passed { "ok" } else { "FAILED" }).unwrap();
        failed += u8::from(!passed);
    }
    ExitCode::from(failed)
}

/// Runs a test on a cluster of that many nodes, which is gone afterwards, also when the test fails. Names and
/// addresses are this process's own: other tests run beside it.
fn on_a_cluster(name: &str, nodes: u8, test: impl FnOnce(&Layout, &mut Record)) {
    let disks = tempfile::tempdir().unwrap();
    let name = format!("{name}-{}", std::process::id());
    let layout = Layout::new(name.parse().unwrap(), Some(disks.path().into()));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        fs::create_dir(layout.dir()).unwrap();
        let mut record = fresh_record(nodes);
        world::raise_switch(&layout, &mut record).unwrap();
        for number in 1..=nodes {
            world::raise_node(&layout, &mut record, node(number)).unwrap();
        }
        test(&layout, &mut record);
    }));
    world::fell_cluster(&layout).unwrap();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    assert!(!world::fell_cluster(&layout).unwrap(), "there was something to take down a second time");
    world::remove_disks(&layout).unwrap();
    assert_eq!(traces(&layout), BTreeSet::new());
}

/// In the range for benchmarks (RFC 2544), which no machine has a route to.
fn fresh_record(nodes: u8) -> Record {
    let [.., low] = std::process::id().to_be_bytes();
    Record::new([198, 18, low, 0].into(), nodes, nodes).unwrap()
}

/// What there is of a cluster on the machine.
fn traces(layout: &Layout) -> BTreeSet<String> {
    let cluster = layout.cluster().as_str();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let cgroups = points.iter().filter(|path| path.starts_with("/sys/fs/cgroup"));
    let folders = cgroups.map(|path| format!("{path}{}", layout.cgroup()));
    let folders = folders.chain([layout.run_dir(), layout.dir()].map(|dir| dir.display().to_string()));
    let mut traces: BTreeSet<String> = folders.filter(|folder| Path::new(folder).exists()).collect();
    traces.extend(points.iter().filter(|path| path.contains(cluster)).map(|path| (*path).to_owned()));
    traces.extend(names("/sys/class/net").into_iter().filter(|name| *name == layout.uplink()));
    traces.extend(
        names("/proc").into_iter().filter(|pid| is_holder(pid) && command_line(pid).contains(cluster)),
    );
    traces
}

/// Words end with NUL; a zombie has none.
fn command_line(pid: &str) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}

fn is_holder(pid: &str) -> bool {
    command_line(pid).split('\0').nth(1) == Some(HOLDER_ARGUMENT)
}

fn names(dir: impl AsRef<Path>) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn node(number: u8) -> NodeNumber {
    NodeNumber::new(number).unwrap()
}

/// The process that holds a node, as its cgroup has it.
fn holder(layout: &Layout, number: u8) -> String {
    let cgroup = format!("{}/holder/cgroup.procs", layout.node_cgroup(node(number)));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let roots = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| path.starts_with("/sys/fs/cgroup"));
    let pids = roots.filter_map(|root| fs::read_to_string(format!("{root}{cgroup}")).ok());
    pids.flat_map(|pids| pids.lines().map(str::to_owned).collect::<Vec<_>>())
        .next()
        .expect("the node has a holder")
}

/// Runs `work` on a thread inside of a node.
fn inside<T: Send>(layout: &Layout, number: u8, work: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(format!("/proc/{}/ns/net", holder(layout, number))).unwrap();
    let entered = || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn listen(layout: &Layout, record: &Record, number: u8) -> TcpListener {
    let address = record.address(node(number));
    inside(layout, number, || TcpListener::bind(address).unwrap())
}

/// Connects from one node to a listener of another, and returns whom the listener sees.
fn seen(layout: &Layout, from: u8, listener: &TcpListener) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let _client = inside(layout, from, || TcpStream::connect_timeout(&address, PATIENCE).unwrap());
    listener.accept().unwrap().1
}

/// Whether a connection from one node to an address can be made within a time that is ample where there is a link.
fn reaches(layout: &Layout, from: u8, address: SocketAddr) -> bool {
    inside(layout, from, || TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok())
}

fn nodes_and_the_machine_reach_each_other() {
    on_a_cluster("reach", 2, |layout, record| {
        let server = listen(layout, record, 1);
        assert_eq!(seen(layout, 2, &server).ip(), record.address(node(2)).ip());
        let _client = TcpStream::connect_timeout(&server.local_addr().unwrap(), PATIENCE).unwrap();
        let machine = server.accept().unwrap().1.ip();
        assert!(machine.to_string().ends_with(".254"), "{machine}");
        let on_machine = TcpListener::bind((machine, 0)).unwrap();
        assert_eq!(seen(layout, 2, &on_machine).ip(), record.address(node(2)).ip());
        assert_eq!(seen(layout, 1, &server).ip(), record.address(node(1)).ip(), "its own address, over lo");
    });
}

fn a_partitioned_node_is_alone_until_it_is_healed() {
    on_a_cluster("part", 3, |layout, record| {
        let servers = [1, 2].map(|number| listen(layout, record, number));
        let addresses = servers.each_ref().map(|server| server.local_addr().unwrap());
        for _ in 0..2 {
            world::set_link(layout, record, node(1), false).unwrap();
            assert!(!reaches(layout, 1, addresses[1]) && !reaches(layout, 2, addresses[0]));
            assert!(reaches(layout, 1, addresses[0]), "it still has itself");
            servers[0].accept().unwrap();
            assert!(reaches(layout, 3, addresses[1]), "the others have each other");
            world::set_link(layout, record, node(1), true).unwrap();
            assert_eq!(seen(layout, 2, &servers[0]).ip(), record.address(node(2)).ip());
        }
    });
}

fn a_partition_outlives_a_crash_and_the_disk_does_too() {
    on_a_cluster("crash", 2, |layout, record| {
        fs::write(layout.data(node(1)).join("kept"), "").unwrap();
        fs::write(layout.run(node(1)).join("lost"), "").unwrap();
        let before = holder(layout, 1);
        world::set_link(layout, record, node(1), false).unwrap();
        for _ in 0..2 {
            world::fell_node(layout, record, node(1)).unwrap();
            assert!(!layout.run(node(1)).exists() && layout.data(node(1)).join("kept").exists());
            assert!(!is_holder(&before));
        }
        world::raise_node(layout, record, node(1)).unwrap();
        assert_ne!(holder(layout, 1), before);
        let server = listen(layout, record, 1);
        let address = server.local_addr().unwrap();
        assert!(!reaches(layout, 2, address), "the link was down before the crash");
        world::set_link(layout, record, node(1), true).unwrap();
        assert_eq!(seen(layout, 2, &server).ip(), record.address(node(2)).ip());
        assert_eq!(Record::load(layout).unwrap().as_ref(), Some(&*record), "all of it is on disk");
    });
}

fn a_nodes_mounts_are_its_own() {
    on_a_cluster("mount", 1, |layout, _record| {
        let pins = layout.run(node(1)).join("netns");
        let has = |process: &str| {
            let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
            mounts.lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(pins.as_path()))
        };
        assert!(has(&holder(layout, 1)) && !has("self"));
        // The machine sees the folder and what the node puts beside it, as a client sees the daemon's socket.
        assert!(pins.is_dir());
    });
}

fn nothing_is_left_of_a_cluster_with_or_without_its_record() {
    on_a_cluster("gone", 2, |layout, record| {
        let uplink = layout.uplink();
        assert!(names("/sys/class/net").contains(&uplink) && layout.run_dir().exists());
        let holders = [1, 2].map(|number| holder(layout, number));
        fs::remove_file(layout.dir().join("cluster.json")).unwrap();
        assert!(world::fell_cluster(layout).unwrap());
        assert!(!names("/sys/class/net").contains(&uplink) && !layout.run_dir().exists());
        assert!(holders.iter().all(|pid| !is_holder(pid)));
        assert!(layout.data(node(2)).exists(), "disks are not part of the world");
        // `on_a_cluster` takes down what the test leaves: nothing. With a record there has to be something again.
        *record = fresh_record(1);
        world::raise_switch(layout, record).unwrap();
        world::raise_node(layout, record, node(1)).unwrap();
    });
}
