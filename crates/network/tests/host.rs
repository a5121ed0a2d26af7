//! The real kernel and the real `nft`. Each test is a node of its own: a thread in a new network and a new mount
//! namespace, so that the machine's are never touched and all is gone with the thread, also when the test fails.
//!
//! Needs root, and the packages nftables and iproute2.

#![expect(clippy::unwrap_used, reason = "what these tests share stands outside of `#[test]` functions")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use model::{Protocol, PublishedPort, ServiceId, TaskId};
use network::{AttachError, BridgeSpec, Member, Network, OpenError, PublishError, Ruleset, RulesetError};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::task::JoinSet;

/// Where the tests' nodes pin namespaces; `/run` is a tmpfs of the test's own.
const PINS: &str = "/run/gantry/netns";
/// The network namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";
/// The node's, for a thread that [`inside`] starts on it.
const NODE: &str = OWN;
/// Another machine: 192.168.9.2, beside the node's 192.168.9.1.
const CLIENT: &str = "/run/client";
/// The node as its neighbours know it.
const NODE_ADDRESS: [u8; 4] = [192, 168, 9, 1];
/// The longest that anything here takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

fn on_a_node<Test: Future<Output = ()>>(test: impl FnOnce() -> Test + Send + 'static) {
    let node = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests run as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        ip("link set lo up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = node.join() {
        resume_unwind(panic);
    }
}

fn ip(arguments: &str) -> String {
    let output =
        Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `work` on a thread in that network namespace.
fn inside<T: Send>(netns: impl AsRef<Path> + Send, work: impl FnOnce() -> T + Send) -> T {
    let entered = || {
        setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Puts another machine beside the node. It has a route to the containers, as a hostile neighbour would.
fn add_client() {
    File::create(CLIENT).unwrap();
    let pin = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        mount(Some(OWN), CLIENT, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    };
    thread::scope(|scope| scope.spawn(pin).join()).unwrap();
    ip(&format!("link add up0 type veth peer name eth0 netns {CLIENT}"));
    ip("addr add 192.168.9.1/24 dev up0");
    ip("link set up0 up");
    inside(CLIENT, || {
        ip("link set eth0 up");
        ip("addr add 192.168.9.2/24 dev eth0");
        ip("route add 10.1.2.0/24 via 192.168.9.1");
    });
}

fn bridge() -> BridgeSpec {
    BridgeSpec { name: "gantry0".to_owned(), gateway: Ipv4Addr::new(10, 1, 2, 1), prefix: 24 }
}

async fn open() -> Network {
    Network::open(bridge(), PINS.into()).await.unwrap()
}

fn task(slot: u32) -> TaskId {
    TaskId { service: ServiceId(1), slot, sequence: 1 }
}

fn member(last: u8, ports: &[(Protocol, u16, u16)]) -> Member {
    let ports =
        ports.iter().map(|&(protocol, host, target)| PublishedPort { host, target, protocol }).collect();
    Member { address: Ipv4Addr::new(10, 1, 2, last), ports }
}

fn listen(netns: impl AsRef<Path> + Send, port: u16) -> TcpListener {
    inside(netns, || TcpListener::bind(("0.0.0.0", port)).unwrap())
}

fn connect(
    netns: impl AsRef<Path> + Send,
    address: [u8; 4],
    port: u16,
    patience: Duration,
) -> io::Result<TcpStream> {
    inside(netns, || TcpStream::connect_timeout(&SocketAddr::from((address, port)), patience))
}

/// Connects from one namespace to a listener in another and returns the address that the listener sees.
fn seen_by(listener: &TcpListener, netns: impl AsRef<Path> + Send, address: [u8; 4], port: u16) -> IpAddr {
    let _client = connect(netns, address, port, PATIENCE).unwrap();
    listener.accept().unwrap().1.ip()
}

fn udp(netns: impl AsRef<Path> + Send, address: [u8; 4], port: u16) -> UdpSocket {
    let socket = inside(netns, || UdpSocket::bind((Ipv4Addr::from(address), port)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..length].to_vec(), from)
}

/// The names of the node's interfaces.
fn interfaces() -> BTreeSet<String> {
    let lines = ip("-brief link");
    lines.lines().filter_map(|line| line.split(['@', ' ']).next()).map(str::to_owned).collect()
}

/// The containers' interfaces among them.
fn ports() -> Vec<String> {
    interfaces().into_iter().filter(|name| name.starts_with("gt")).collect()
}

fn mounts_below_run() -> usize {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains(" /run/gantry")).count()
}

fn rules() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nftables is installed");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn members_reach_each_other_and_the_node_and_the_node_reaches_them() {
    on_a_node(|| async {
        let network = open().await;
        let (first, second) = (member(2, &[]), member(3, &[]));
        let one = network.attach(task(1), &first).await.unwrap();
        let two = network.attach(task(2), &second).await.unwrap();
        network.publish(&[(task(1), first), (task(2), second)].into()).await.unwrap();

        let (in_two, on_node) = (listen(&two, 80), listen(NODE, 81));
        assert_eq!(seen_by(&in_two, &one, [10, 1, 2, 3], 80), IpAddr::from([10, 1, 2, 2]));
        assert_eq!(seen_by(&in_two, NODE, [10, 1, 2, 3], 80), IpAddr::from([10, 1, 2, 1]));
        assert_eq!(seen_by(&on_node, &one, [10, 1, 2, 1], 81), IpAddr::from([10, 1, 2, 2]));
        let looped = listen(&one, 82);
        assert_eq!(seen_by(&looped, &one, [127, 0, 0, 1], 82), IpAddr::from([127, 0, 0, 1]));
    });
}

#[test]
fn a_namespace_has_the_members_address_and_no_ipv6() {
    on_a_node(|| async {
        let one = open().await.attach(task(1), &member(2, &[])).await.unwrap();
        assert_eq!(one, Path::new(PINS).join("s1-1-1"));
        let (addresses, link) =
            inside(&one, || (ip("-brief addr show dev eth0"), ip("-brief link show dev eth0")));
        assert_eq!(addresses.split_whitespace().skip(2).collect::<Vec<_>>(), ["10.1.2.2/24"]);
        assert!(link.contains("02:67:0a:01:02:02"), "{link}");
        assert_eq!(
            inside(&one, || ip("route show default")).trim(),
            "default via 10.1.2.1 dev eth0 proto static"
        );
    });
}

#[test]
fn a_published_port_answers_neighbours_the_node_and_its_containers() {
    on_a_node(|| async {
        add_client();
        let network = open().await;
        let web = member(2, &[(Protocol::Tcp, 8080, 80), (Protocol::Udp, 5353, 53)]);
        let other = member(3, &[]);
        let one = network.attach(task(1), &web).await.unwrap();
        let two = network.attach(task(2), &other).await.unwrap();
        network.publish(&[(task(1), web), (task(2), other)].into()).await.unwrap();

        let server = listen(&one, 80);
        assert_eq!(
            seen_by(&server, CLIENT, NODE_ADDRESS, 8080),
            IpAddr::from([192, 168, 9, 2]),
            "address kept"
        );
        assert_eq!(seen_by(&server, NODE, NODE_ADDRESS, 8080), IpAddr::from(NODE_ADDRESS));
        assert_eq!(seen_by(&server, &two, NODE_ADDRESS, 8080), IpAddr::from([10, 1, 2, 1]), "masqueraded");
        assert_eq!(seen_by(&server, &one, NODE_ADDRESS, 8080), IpAddr::from([10, 1, 2, 1]), "its own port");

        let (resolver, asker) = (udp(&one, [0, 0, 0, 0], 53), udp(CLIENT, [0, 0, 0, 0], 0));
        asker.send_to(b"?", (Ipv4Addr::from(NODE_ADDRESS), 5353)).unwrap();
        let (question, from) = receive(&resolver);
        assert_eq!((question.as_slice(), from.ip()), (b"?".as_slice(), IpAddr::from([192, 168, 9, 2])));
        resolver.send_to(b"!", from).unwrap();
        assert_eq!(receive(&asker), (b"!".to_vec(), SocketAddr::from((NODE_ADDRESS, 5353))));
    });
}

#[test]
fn a_container_leaves_under_the_nodes_address() {
    on_a_node(|| async {
        add_client();
        let one = open().await.attach(task(1), &member(2, &[])).await.unwrap();
        let server = listen(CLIENT, 80);
        assert_eq!(seen_by(&server, &one, [192, 168, 9, 2], 80), IpAddr::from(NODE_ADDRESS));
    });
}

#[test]
fn what_is_not_published_is_closed_to_neighbours() {
    on_a_node(|| async {
        add_client();
        let network = open().await;
        let web = member(2, &[(Protocol::Tcp, 8080, 80)]);
        let one = network.attach(task(1), &web).await.unwrap();
        let server = listen(&one, 80);
        network.publish(&[(task(1), web)].into()).await.unwrap();
        seen_by(&server, CLIENT, NODE_ADDRESS, 8080);

        let direct = connect(CLIENT, [10, 1, 2, 2], 80, Duration::from_millis(300)).unwrap_err();
        assert_eq!(direct.kind(), ErrorKind::TimedOut, "a route to the container is not enough");
        let loopback = connect(NODE, [127, 0, 0, 1], 8080, PATIENCE).unwrap_err();
        assert_eq!(loopback.kind(), ErrorKind::ConnectionRefused, "ports are not on 127.0.0.1");
        network.publish(&BTreeMap::new()).await.unwrap();
        let unpublished = connect(CLIENT, NODE_ADDRESS, 8080, PATIENCE).unwrap_err();
        assert_eq!(unpublished.kind(), ErrorKind::ConnectionRefused, "the table is replaced, not added to");
    });
}

#[test]
fn a_member_speaks_from_its_own_address_only() {
    on_a_node(|| async {
        let network = open().await;
        let (first, second) = (member(2, &[]), member(3, &[]));
        let one = network.attach(task(1), &first).await.unwrap();
        let two = network.attach(task(2), &second).await.unwrap();
        network.publish(&[(task(1), first), (task(2), second)].into()).await.unwrap();

        inside(&one, || ip("addr add 10.1.2.99/24 dev eth0"));
        let (honest, forged) = (udp(&one, [10, 1, 2, 2], 0), udp(&one, [10, 1, 2, 99], 0));
        let server = udp(&two, [10, 1, 2, 3], 53);
        // The first makes the neighbours known; the last shows that the one before it was dropped and not late.
        for (socket, text) in [(&honest, "first"), (&forged, "forged"), (&honest, "last")] {
            socket.send_to(text.as_bytes(), "10.1.2.3:53").unwrap();
            if text == "first" {
                assert_eq!(receive(&server).0, b"first");
            }
        }
        assert_eq!(receive(&server).0, b"last");
    });
}

#[test]
fn a_port_wanted_twice_is_refused_and_what_was_published_stays() {
    on_a_node(|| async {
        let network = open().await;
        let web = member(2, &[(Protocol::Tcp, 8080, 80)]);
        let one = network.attach(task(1), &web).await.unwrap();
        let server = listen(&one, 80);
        let mut members: BTreeMap<_, _> = [(task(1), web)].into();
        network.publish(&members).await.unwrap();

        members.insert(task(2), member(3, &[(Protocol::Tcp, 8080, 80)]));
        let refused = network.publish(&members).await.unwrap_err();
        assert!(matches!(refused, PublishError::Conflict { port: 8080, .. }), "{refused}");
        seen_by(&server, NODE, [10, 1, 2, 1], 8080);
    });
}

#[test]
fn detaching_leaves_nothing_of_the_task() {
    on_a_node(|| async {
        let network = open().await;
        let before = (interfaces(), mounts_below_run());
        network.attach(task(1), &member(2, &[])).await.unwrap();
        assert_eq!((ports().len(), mounts_below_run()), (1, before.1 + 1));
        network.detach(task(1)).await.unwrap();
        network.detach(task(1)).await.expect("once more is no error");
        assert_eq!((interfaces(), mounts_below_run()), before);
        assert_eq!(fs::read_dir(PINS).unwrap().count(), 0);
        assert_eq!(network.adopt().await.unwrap(), BTreeSet::new());
    });
}

#[test]
fn a_daemon_that_comes_back_finds_its_tasks_and_their_ports_open() {
    on_a_node(|| async {
        let network = open().await;
        let web = member(2, &[(Protocol::Tcp, 8080, 80)]);
        let one = network.attach(task(1), &web).await.unwrap();
        network.publish(&[(task(1), web.clone())].into()).await.unwrap();
        let server = listen(&one, 80);
        let established = connect(NODE, [10, 1, 2, 1], 8080, PATIENCE).unwrap();
        drop(network);

        // A namespace without an interface is how a daemon that is killed while it attaches leaves things.
        fs::write(Path::new(PINS).join(task(2).to_string()), "").unwrap();
        let network = open().await;
        assert_eq!(network.adopt().await.unwrap(), [task(1), task(2)].into());
        assert_eq!(server.accept().unwrap().1, established.local_addr().unwrap());
        seen_by(&server, NODE, [10, 1, 2, 1], 8080);
        assert_eq!(network.attach(task(1), &web).await.unwrap(), one, "attaching again keeps the namespace");
        seen_by(&server, NODE, [10, 1, 2, 2], 80);
        let two = network.attach(task(2), &member(3, &[])).await.unwrap();
        seen_by(&server, two, [10, 1, 2, 2], 80);
    });
}

#[test]
fn attaching_again_repairs_a_lost_interface_and_a_lost_pin() {
    on_a_node(|| async {
        let network = open().await;
        let web = member(2, &[]);
        let one = network.attach(task(1), &web).await.unwrap();
        ip(&format!("link delete {}", ports()[0]));
        assert_eq!(network.attach(task(1), &web).await.unwrap(), one);
        seen_by(&listen(&one, 80), NODE, [10, 1, 2, 2], 80);

        umount2(&one, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(network.attach(task(1), &web).await.unwrap(), one);
        seen_by(&listen(&one, 80), NODE, [10, 1, 2, 2], 80);
        assert_eq!(ports().len(), 1);
    });
}

#[test]
fn rules_that_someone_flushed_come_back_with_the_next_publication() {
    on_a_node(|| async {
        let network = open().await;
        let web = member(2, &[(Protocol::Tcp, 8080, 80)]);
        let one = network.attach(task(1), &web).await.unwrap();
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        network.publish(&[(task(1), web)].into()).await.unwrap();
        seen_by(&listen(&one, 80), NODE, [10, 1, 2, 1], 8080);
    });
}

#[test]
fn destroying_leaves_the_node_as_it_was_and_may_be_repeated() {
    on_a_node(|| async {
        let before = interfaces();
        let network = open().await;
        let members: BTreeMap<_, _> = (1..=3)
            .map(|n| (task(n), member(1 + n as u8, &[(Protocol::Tcp, 8000 + n as u16, 80)])))
            .collect();
        for (task, member) in &members {
            network.attach(*task, member).await.unwrap();
        }
        network.publish(&members).await.unwrap();
        for _ in 0..2 {
            network.destroy().await.unwrap();
            assert_eq!(interfaces(), before);
            assert_eq!(mounts_below_run(), 0);
            assert!(!Path::new(PINS).exists());
            assert_eq!(rules(), "");
        }
        assert_eq!(network.adopt().await.unwrap(), BTreeSet::new());
        let refused = network.attach(task(1), &member(2, &[])).await.unwrap_err();
        assert!(matches!(refused, AttachError::NoBridge { .. }), "{refused}");
    });
}

#[test]
fn an_address_outside_the_subnet_is_refused_before_anything_is_made() {
    on_a_node(|| async {
        let network = open().await;
        for address in [[10, 1, 2, 1], [10, 1, 2, 255], [10, 1, 3, 2]] {
            let refused =
                network.attach(task(1), &Member { address: address.into(), ports: Vec::new() }).await;
            assert!(matches!(refused, Err(AttachError::Address { .. })), "{address:?}");
        }
        assert_eq!(network.adopt().await.unwrap(), BTreeSet::new());
    });
}

#[test]
fn a_bridge_that_is_not_gantrys_is_not_touched() {
    on_a_node(|| async {
        ip("link add gantry0 type bridge");
        let refused = Network::open(bridge(), PINS.into()).await.unwrap_err();
        assert!(matches!(&refused, OpenError::Foreign(name) if name == "gantry0"), "{refused}");
        assert!(!ip("addr show dev gantry0").contains("10.1.2.1"));
    });
}

#[test]
fn a_node_that_got_another_subnet_drops_its_old_gateway() {
    on_a_node(|| async {
        open().await;
        let moved = BridgeSpec { gateway: Ipv4Addr::new(10, 9, 0, 1), ..bridge() };
        Network::open(moved, PINS.into()).await.unwrap();
        let addresses = ip("-brief -4 addr show dev gantry0");
        assert_eq!(addresses.split_whitespace().skip(2).collect::<Vec<_>>(), ["10.9.0.1/24"]);
    });
}

/// Keeps the scripts instead of loading them.
#[derive(Clone, Debug, Default)]
struct Recorded(Arc<Mutex<Vec<String>>>);

impl Ruleset for Recorded {
    fn apply(&self, script: &str) -> Result<(), RulesetError> {
        self.0.lock().unwrap().push(script.to_owned());
        Ok(())
    }
}

#[test]
fn thirty_tasks_attach_at_once_and_load_no_rules() {
    on_a_node(|| async {
        let recorded = Recorded::default();
        let network = Network::open_with(bridge(), PINS.into(), Box::new(recorded.clone())).await.unwrap();
        let mut attaching = JoinSet::new();
        for n in 1..=30 {
            let network = network.clone();
            attaching.spawn(async move { network.attach(task(n), &member(1 + n as u8, &[])).await });
        }
        let paths: BTreeSet<_> = attaching.join_all().await.into_iter().map(Result::unwrap).collect();
        assert_eq!(paths.len(), 30);
        assert_eq!(network.adopt().await.unwrap(), (1..=30).map(task).collect());
        assert_eq!(recorded.0.lock().unwrap().len(), 1, "the one of `open`");
        for path in &paths {
            seen_by(&listen(path, 80), NODE, inside(path, own_address), 80);
        }
    });
}

fn own_address() -> [u8; 4] {
    let line = ip("-brief -4 addr show dev eth0");
    let address = line.split_whitespace().nth(2).and_then(|text| text.split('/').next()).unwrap();
    address.parse::<Ipv4Addr>().unwrap().octets()
}
