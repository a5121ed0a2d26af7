//! Interfaces, addresses and routes of a cluster: the switch, its uplink to the machine, and a link for each node.
//!
//! A network namespace belongs to a thread. Whatever is asked of one is asked on a thread that is started for it,
//! enters it, and ends; no other thread ever leaves the machine's namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::panic::resume_unwind;
use std::thread;

use futures::TryStreamExt as _;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinSet;

use crate::addresses::{self, PREFIX};
use crate::holder::namespace;
use crate::layout::NodeNumber;
use crate::process::Process;

/// The bridge in the switch.
const BRIDGE: &str = "switch0";
/// The switch's end of the link to the machine.
const UPLINK: &str = "uplink";
/// A node's only interface to its neighbours.
const INSIDE: &str = "eth0";

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the process {0} that holds a network namespace is gone")]
    NoHolder(i32),
    #[error("cannot enter the network namespace of process {pid}")]
    Enter { pid: i32, source: io::Error },
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    #[error("the kernel refuses to {request}")]
    Refused { request: String, source: io::Error },
    #[error("no answer from the kernel when asked to {request}")]
    Unanswered { request: String, source: rtnetlink::Error },
    #[error("interface {0} is not there")]
    Absent(String),
}

/// The machine's namespace, or the one that a holder keeps.
#[derive(Clone, Copy, Debug)]
enum Place {
    Machine,
    Held(Process),
}

/// Makes the bridge of a switch, and a link from it to the machine, which gets the last address.
pub(crate) fn build_switch(switch: Process, uplink: &str, network: Ipv4Addr) -> Result<(), LinkError> {
    let netns = net_of(switch)?;
    within(Place::Held(switch), async |netlink| match netlink.find(BRIDGE).await? {
        Some(_) => Ok(()),
        None => netlink.create(&format!("create bridge {BRIDGE}"), LinkBridge::new(BRIDGE).build()).await,
    })?;
    within(Place::Machine, async |netlink| {
        // Of an earlier switch, that the kernel is still about to take down.
        netlink.delete(uplink).await?;
        let peer = LinkUnspec::new_with_name(UPLINK).setns_by_fd(netns.as_raw_fd()).build();
        netlink.create(&format!("create interface {uplink}"), veth(uplink, peer).build()).await?;
        netlink.address(uplink, addresses::machine(network)).await
    })?;
    within(Place::Held(switch), async |netlink| {
        let bridge = netlink.index(BRIDGE).await?;
        let port = LinkUnspec::new_with_name(UPLINK).controller(bridge).up().build();
        netlink.change(&format!("plug interface {UPLINK} in"), port).await
    })
}

/// Takes away the link between machine and switch. Nothing is there afterwards, and may be before.
pub(crate) fn remove_uplink(uplink: &str) -> Result<(), LinkError> {
    within(Place::Machine, async |netlink| netlink.delete(uplink).await)
}

/// Whether the machine has such an interface.
pub(crate) fn has_uplink(uplink: &str) -> Result<bool, LinkError> {
    within(Place::Machine, async |netlink| Ok(netlink.find(uplink).await?.is_some()))
}

/// Plugs a fresh node into the switch and gives it its address and its way out.
pub(crate) fn plug(
    switch: Process,
    holder: Process,
    node: NodeNumber,
    network: Ipv4Addr,
    up: bool,
) -> Result<(), LinkError> {
    let (name, own) = (node.to_string(), addresses::node(network, node));
    let netns = net_of(holder)?;
    within(Place::Held(switch), async |netlink| {
        let bridge = netlink.index(BRIDGE).await?;
        netlink.delete(&name).await?;
        let peer = LinkUnspec::new_with_name(INSIDE).setns_by_fd(netns.as_raw_fd());
        let peer = peer.address(addresses::mac_of(own).to_vec()).build();
        let port = veth(&name, peer).controller(bridge);
        let port = if up { port.up() } else { port };
        netlink.create(&format!("create the link of {name}"), port.build()).await
    })?;
    within(Place::Held(holder), async |netlink| {
        netlink.up("lo").await?;
        netlink.address(INSIDE, own).await?;
        let interface = netlink.index(INSIDE).await?;
        netlink.default_route(interface, addresses::machine(network)).await
    })
}

/// Takes a node's link away, both ends.
pub(crate) fn unplug(switch: Process, node: NodeNumber) -> Result<(), LinkError> {
    within(Place::Held(switch), async |netlink| netlink.delete(&node.to_string()).await)
}

/// Takes a node's link up or down, on the switch's side: the node sees a cable that is pulled.
pub(crate) fn set_link(switch: Process, node: NodeNumber, up: bool) -> Result<(), LinkError> {
    within(Place::Held(switch), async |netlink| {
        let port = LinkUnspec::new_with_name(&node.to_string());
        let (port, word) = if up { (port.up(), "up") } else { (port.down(), "down") };
        netlink.change(&format!("take the link of {node} {word}"), port.build()).await
    })
}

/// The ports of the switch, by name, with whether they are up.
pub(crate) fn ports(switch: Process) -> Result<BTreeMap<String, bool>, LinkError> {
    within(Place::Held(switch), async |netlink| {
        let links: Vec<LinkMessage> =
            netlink.0.link().get().execute().try_collect().await.map_err(refused("list interfaces"))?;
        let port = |link: LinkMessage| {
            let up = link.header.flags.contains(LinkFlags::Up);
            let name = link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            name.map(|name| (name, up))
        };
        Ok(links.into_iter().filter_map(port).collect())
    })
}

fn net_of(holder: Process) -> Result<File, LinkError> {
    let found = namespace(holder, "net").map_err(|source| LinkError::Enter { pid: holder.pid, source })?;
    found.ok_or(LinkError::NoHolder(holder.pid))
}

fn veth(name: &str, peer: LinkMessage) -> LinkMessageBuilder<LinkVeth> {
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .name(name.to_owned())
}

impl Place {
    /// Moves the calling thread there, for good.
    fn enter(self) -> Result<(), LinkError> {
        match self {
            Self::Machine => Ok(()),
            Self::Held(holder) => {
                let netns = net_of(holder)?;
                setns(&netns, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| LinkError::Enter { pid: holder.pid, source: errno.into() })
            }
        }
    }
}

fn within<T: Send>(
    place: Place,
    work: impl AsyncFnOnce(Netlink) -> Result<T, LinkError> + Send,
) -> Result<T, LinkError> {
    let there = move || {
        place.enter()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(LinkError::Socket)?.block_on(async {
            let (connection, handle, _unsolicited) =
                rtnetlink::new_connection().map_err(LinkError::Socket)?;
            let mut connections = JoinSet::new();
            connections.spawn(connection);
            work(Netlink(handle)).await
        })
    };
    thread::scope(|scope| scope.spawn(there).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// A netlink route socket in one network namespace.
struct Netlink(Handle);

impl Netlink {
    async fn create(&self, request: &str, link: LinkMessage) -> Result<(), LinkError> {
        self.0.link().add(link).execute().await.map_err(refused(request))
    }

    async fn change(&self, request: &str, link: LinkMessage) -> Result<(), LinkError> {
        self.0.link().change(link).execute().await.map_err(refused(request))
    }

    async fn up(&self, name: &str) -> Result<(), LinkError> {
        let link = LinkUnspec::new_with_name(name).up().build();
        self.change(&format!("take interface {name} up"), link).await
    }

    /// What is gone already is as it should be.
    async fn delete(&self, name: &str) -> Result<(), LinkError> {
        let named = LinkUnspec::new_with_name(name).build();
        let deleted = self.0.link().del_with_message(named).execute().await;
        or_absent(deleted.map_err(refused(&format!("delete interface {name}")))).map(drop)
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, LinkError> {
        let found = self.0.link().get().match_name(name).execute().try_collect::<Vec<_>>().await;
        let found = or_absent(found.map_err(refused(&format!("describe interface {name}"))))?;
        Ok(found.and_then(|links| links.into_iter().next()))
    }

    async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let found = self.find(name).await?.ok_or_else(|| LinkError::Absent(name.to_owned()))?;
        Ok(found.header.index)
    }

    /// Takes an interface up and gives it its address.
    async fn address(&self, name: &str, address: Ipv4Addr) -> Result<(), LinkError> {
        self.up(name).await?;
        let index = self.index(name).await?;
        let request = self.0.address().add(index, address.into(), PREFIX).replace();
        request.execute().await.map_err(refused(&format!("add address {address}/{PREFIX} to {name}")))
    }

    async fn default_route(&self, interface: u32, gateway: Ipv4Addr) -> Result<(), LinkError> {
        let route =
            RouteMessageBuilder::<Ipv4Addr>::new().output_interface(interface).gateway(gateway).build();
        let request = self.0.route().add(route).replace();
        request.execute().await.map_err(refused(&format!("route through {gateway}")))
    }
}

fn refused(request: &str) -> impl FnOnce(rtnetlink::Error) -> LinkError + use<> {
    let request = request.to_owned();
    move |error| match error {
        rtnetlink::Error::NetlinkError(verdict) => LinkError::Refused { request, source: verdict.to_io() },
        source => LinkError::Unanswered { request, source },
    }
}

/// `None` where the kernel says that there is no such interface.
fn or_absent<T>(outcome: Result<T, LinkError>) -> Result<Option<T>, LinkError> {
    match outcome {
        Err(LinkError::Refused { source, .. }) if source.raw_os_error() == Some(Errno::ENODEV as i32) => {
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}
