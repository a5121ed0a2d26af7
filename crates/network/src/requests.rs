//! The changes this crate asks of the kernel, as data.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use model::TaskId;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::rtnl::Request;
use crate::table::{BridgeSpec, mac_of, port_name};

/// The bridge's alias, by which gantry knows it for its own.
pub(crate) const OWNER: &str = "gantry";

/// A container's interface, inside.
pub(crate) const INSIDE: &str = "eth0";

/// The loopback interface is the first of every namespace (the kernel's `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// A bridge that is up and marked as gantry's. Its hardware address is set, because a bridge without one takes over the
/// lowest of its ports' and so changes under its neighbours as containers come and go.
pub(crate) fn create_bridge(bridge: &BridgeSpec) -> Vec<Request> {
    let name = &bridge.name;
    let link = LinkBridge::new(name).address(mac_of(bridge.gateway).to_vec()).build();
    let mark = LinkUnspec::new_with_name(name).alias(OWNER).build();
    vec![create(format!("create bridge {name}"), link), change(format!("mark bridge {name}"), mark)]
}

/// Gives an interface its address and takes it up.
pub(crate) fn address(interface: u32, address: Ipv4Addr, prefix: u8) -> Vec<Request> {
    let message = AddressMessageBuilder::<Ipv4Addr>::new().index(interface).address(address, prefix).build();
    let add = Request {
        what: format!("add address {address}/{prefix}"),
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        deletes: false,
    };
    vec![up(interface), add]
}

/// Whether an address that the kernel lists is the bridge's own.
pub(crate) fn is_address(listed: &AddressMessage, bridge: &BridgeSpec) -> bool {
    listed.header.prefix_len == bridge.prefix
        && listed.attributes.contains(&AddressAttribute::Local(bridge.gateway.into()))
}

pub(crate) fn remove_address(address: AddressMessage) -> Request {
    Request {
        what: "remove an address".to_owned(),
        message: RouteNetlinkMessage::DelAddress(address),
        flags: 0,
        deletes: true,
    }
}

/// A veth pair between the bridge and a task's namespace. The alias names the task.
///
/// In hairpin mode, since with `bridge-nf-call-iptables` (on by default where the kernel has it) a container that asks
/// for its own published port is answered through the bridge port that it asked by.
pub(crate) fn create_pair(
    task: TaskId,
    address: Ipv4Addr,
    bridge: u32,
    netns: BorrowedFd<'_>,
) -> Vec<Request> {
    let name = port_name(task);
    let mac = mac_of(address).to_vec();
    let peer = LinkUnspec::new_with_name(INSIDE).address(mac).setns_by_fd(netns.as_raw_fd()).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .name(name.clone())
        .controller(bridge)
        .up()
        .build();
    let mark = LinkBridgePort::new(0).hairpin(true).name(name.clone()).alias(task.to_string()).build();
    vec![
        create(format!("create interface {name} of {task}"), pair),
        change(format!("mark interface {name}"), mark),
    ]
}

/// Everything inside a task's namespace.
pub(crate) fn configure_inside(interface: u32, own: Ipv4Addr, bridge: &BridgeSpec) -> Vec<Request> {
    let gateway = bridge.gateway;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(interface).gateway(gateway).build();
    let mut requests = vec![up(LOOPBACK)];
    requests.extend(address(interface, own, bridge.prefix));
    requests.push(Request {
        what: format!("route through {gateway}"),
        message: RouteNetlinkMessage::NewRoute(route),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
        deletes: false,
    });
    requests
}

pub(crate) fn delete_link(index: u32, name: &str) -> Request {
    Request {
        what: format!("delete interface {name}"),
        message: RouteNetlinkMessage::DelLink(LinkUnspec::new_with_index(index).build()),
        flags: 0,
        deletes: true,
    }
}

fn up(interface: u32) -> Request {
    change(format!("take interface {interface} up"), LinkUnspec::new_with_index(interface).up().build())
}

fn create(what: String, link: LinkMessage) -> Request {
    Request {
        what,
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        deletes: false,
    }
}

/// RTM_NEWLINK without `NLM_F_CREATE`: unlike RTM_SETLINK it takes a bridge port's settings too.
fn change(what: String, link: LinkMessage) -> Request {
    Request { what, message: RouteNetlinkMessage::NewLink(link), flags: 0, deletes: false }
}
