//! A netlink route socket: requests in, acknowledgements out.
//!
//! Blocking, because the kernel has answered by the time `send` returns, and because a socket belongs to the network
//! namespace of the thread that opened it: `plane` talks to two namespaces from one thread, with a socket for each.

use std::collections::BTreeMap;
use std::io;

use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_ALIGNTO, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// How many requests go into one datagram: all their answers have to fit in the socket's receive buffer (208 KiB unless
/// configured, about 1 KiB an answer with the kernel's bookkeeping).
const BATCH: usize = 64;

/// A netlink exchange that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot {step} a netlink socket")]
    Socket { step: &'static str, source: io::Error },
    #[error("the kernel refuses to {request}")]
    Refused { request: String, source: io::Error },
    #[error("cannot read the kernel's answer: {0}")]
    Answer(String),
}

impl NetlinkError {
    /// Whether the kernel says that what was named is not there.
    fn is_absent(&self) -> bool {
        match self {
            Self::Refused { source, .. } => is_absent(source),
            Self::Socket { .. } | Self::Answer(_) => false,
        }
    }
}

/// The kernel's words for "there is no such interface" and "there is no such address".
fn is_absent(error: &io::Error) -> bool {
    let absent = [nix::errno::Errno::ENODEV as i32, nix::errno::Errno::EADDRNOTAVAIL as i32];
    error.raw_os_error().is_some_and(|code| absent.contains(&code))
}

/// One change to ask for.
#[derive(Debug)]
pub(crate) struct Request {
    /// What it does, for the error: "create bridge gantry0".
    pub(crate) what: String,
    pub(crate) message: RouteNetlinkMessage,
    /// `NLM_F_*` beyond those that every request has.
    pub(crate) flags: u16,
    /// A deletion: what is gone already is as it should be.
    pub(crate) deletes: bool,
}

/// An interface as the kernel describes it, as far as this crate cares.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) is_bridge: bool,
}

pub(crate) struct Rtnl {
    socket: Socket,
    sequence: u32,
}

impl Rtnl {
    /// A socket to the network namespace that the calling thread is in now, wherever the thread goes later.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let failed = |step| move |source| NetlinkError::Socket { step, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        // Refusals come without the request that they are about, so that a batch's answers are small.
        socket.set_cap_ack(true).map_err(failed("configure"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes these changes in order. Up to [`BATCH`] of them are one system call, which a killed process cannot leave
    /// half-way. A refused one does not keep later ones from being tried; the first refusal is returned.
    pub(crate) fn run(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        let mut outcome = Ok(());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let batch = requests.by_ref().take(BATCH).collect();
            outcome = outcome.and(self.run_batch(batch)?);
        }
        outcome
    }

    /// The outer error is about the socket, the inner one is the first refusal.
    fn run_batch(&mut self, requests: Vec<Request>) -> Result<Result<(), NetlinkError>, NetlinkError> {
        let mut datagram = Vec::new();
        let mut unanswered = BTreeMap::new();
        for Request { what, message, flags, deletes } in requests {
            let sequence = self.append(&mut datagram, message, flags | NLM_F_ACK);
            unanswered.insert(sequence, (what, deletes));
        }
        self.send(&datagram)?;
        let mut outcome = Ok(());
        while !unanswered.is_empty() {
            for answer in self.receive()? {
                let NetlinkPayload::Error(verdict) = answer.payload else { continue };
                let Some((request, deletes)) = unanswered.remove(&answer.header.sequence_number) else {
                    continue;
                };
                let source = verdict.to_io();
                if verdict.code.is_some() && !(deletes && is_absent(&source)) {
                    outcome = outcome.and(Err(NetlinkError::Refused { request, source }));
                }
            }
        }
        Ok(outcome)
    }

    /// The interface of this name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let message = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build());
        match self.ask(&format!("describe interface {name}"), message, NLM_F_ACK) {
            Ok(answers) => Ok(answers.into_iter().find_map(as_link)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces that are ports of this bridge.
    pub(crate) fn ports_of(&mut self, bridge: u32) -> Result<Vec<Link>, NetlinkError> {
        let message = LinkUnspec::new_with_index(0).controller(bridge).build();
        let answers = self.ask("list a bridge's ports", RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(as_link).collect())
    }

    /// The IPv4 addresses of this interface.
    pub(crate) fn addresses_of(&mut self, interface: u32) -> Result<Vec<AddressMessage>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.ask("list addresses", RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == interface => Some(address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Asks until the answer is whole: the kernel marks a list that changed while it was written.
    fn ask(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        loop {
            if let Some(answers) = self.ask_once(what, message.clone(), flags)? {
                return Ok(answers);
            }
        }
    }

    fn ask_once(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let mut datagram = Vec::new();
        let sequence = self.append(&mut datagram, message, flags);
        self.send(&datagram)?;
        let refused = |source| NetlinkError::Refused { request: what.to_owned(), source };
        let (mut answers, mut whole) = (Vec::new(), true);
        loop {
            for answer in self.receive()? {
                if answer.header.sequence_number != sequence {
                    continue;
                }
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Error(verdict) if verdict.code.is_some() => {
                        return Err(refused(verdict.to_io()));
                    }
                    NetlinkPayload::Done(end) if end.code < 0 => {
                        return Err(refused(io::Error::from_raw_os_error(-end.code)));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(whole.then_some(answers)),
                    _ => {}
                }
            }
        }
    }

    /// Appends one request to a datagram and returns the number that its answers will bear.
    fn append(&mut self, datagram: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = datagram.len();
        datagram.resize(start + aligned(message.buffer_len()), 0);
        message.serialize(&mut datagram[start..]);
        self.sequence
    }

    fn send(&self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let sent = self.socket.send(datagram, 0);
        sent.map(drop).map_err(|source| NetlinkError::Socket { step: "send on", source })
    }

    /// The messages of the next datagram.
    fn receive(&self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, NetlinkError> {
        let received = self.socket.recv_from_full();
        let (datagram, _) =
            received.map_err(|source| NetlinkError::Socket { step: "receive from", source })?;
        let mut messages = Vec::new();
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| NetlinkError::Answer(error.to_string()))?;
            // `deserialize` has refused a length that is shorter than a header or longer than what there is.
            let length = aligned(message.header.length as usize).min(rest.len());
            messages.push(message);
            rest = &rest[length..];
        }
        Ok(messages)
    }
}

/// Messages in a datagram begin at multiples of four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(usize::from(NLMSG_ALIGNTO))
}

fn as_link(answer: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(LinkMessage { header, attributes, .. }) = answer else { return None };
    let mut link = Link { index: header.index, name: String::new(), alias: None, is_bridge: false };
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(info) => {
                link.is_bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge))
            }
            _ => {}
        }
    }
    Some(link)
}
