//! A service's `ports`. What they have in common is that a fixed port is a port of the node (`mode: host`): a
//! port that the whole cluster answers on is not done yet, so Compose's `8080:80` is refused rather than read
//! as something else.

use std::collections::BTreeMap;

use model::{PortSpec, Protocol, Publish};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node, Scalar};
use crate::yaml::Value;
use crate::{keys, typed};

/// Types a list of ports, in the file's order and without repetitions.
pub(crate) fn ports(node: &Node, report: &mut Report<'_>) -> Vec<PortSpec> {
    let mut ports = Ports::default();
    for item in typed::items(node, "`ports`", report) {
        if let Some(port) = port(item, report) {
            ports.add(port, item.span, report);
        }
    }
    ports.list
}

#[derive(Default)]
struct Ports {
    list: Vec<PortSpec>,
    held: BTreeMap<Held, (Span, PortSpec)>,
}

/// What a service can have once only.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Host(Protocol, u16),
    Target(Protocol, u16),
}

impl Ports {
    fn add(&mut self, port: PortSpec, span: Span, report: &mut Report<'_>) {
        let (held, taken) = match port.publish {
            Publish::HostPort(host) => (Held::Host(port.protocol, host), Some(host)),
            Publish::AnyHostPort => (Held::Target(port.protocol, port.target), None),
        };
        let Some((first, earlier)) = self.held.get(&held) else {
            self.held.insert(held, (span, port.clone()));
            self.list.push(port);
            return;
        };
        // A later file may say again what an earlier one said.
        if first.file != span.file && *earlier == port {
            return;
        }
        match taken {
            Some(host) => report.error_with(
                span,
                format!(
                    "the host port {host}/{} is already taken {}",
                    port.protocol.as_str(),
                    first.seen_from(span)
                ),
                "publish another one, or leave `published` out for a free one",
            ),
            None => report.warning(
                span,
                format!(
                    "the port {}/{} is already {}",
                    port.target,
                    port.protocol.as_str(),
                    first.seen_from(span)
                ),
                "once is enough",
            ),
        }
    }
}

fn port(node: &Node, report: &mut Report<'_>) -> Option<PortSpec> {
    let text = match &node.content {
        Content::Mapping(entries) => return long(node, entries, report),
        Content::Scalar(Scalar { value: Value::Int(number), .. }) => number.to_string(),
        Content::Scalar(Scalar { value: Value::Text, text }) => text.clone(),
        Content::Scalar(_) | Content::Sequence(_) => {
            let message =
                format!("a port must be a number, a string or a mapping, and this is {}", node.describe());
            report.error_with(node.span, message, "write for example `80` or `{target: 80}`");
            return None;
        }
    };
    short(&text).map_err(|error| report.error_with(node.span, error.to_string(), error.hint())).ok()
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidPort {
    #[error("`{0}` is not a port of a container")]
    Malformed(String),
    #[error("a fixed port needs `mode: host`: gantry does not publish ports of the whole cluster yet")]
    Published { target: u16, published: u16, protocol: Protocol },
    #[error("gantry does not do ranges of ports yet")]
    Range,
    #[error("gantry does not do `host_ip` yet")]
    HostIp,
    #[error("gantry does not do sctp yet")]
    Sctp,
    #[error("`{0}` is not a protocol")]
    Protocol(String),
}

impl InvalidPort {
    fn hint(&self) -> String {
        match self {
            Self::Malformed(_) => "write a number from 1 to 65535, such as `80` or `53/udp`".to_owned(),
            Self::Published { target, published, protocol } => {
                let protocol = match protocol {
                    Protocol::Tcp => "",
                    Protocol::Udp => ", protocol: udp",
                };
                format!(
                    "write `{{target: {target}, published: {published}{protocol}, mode: host}}`, or the target \
                     alone for a free port of the node"
                )
            }
            Self::Range => "write each port".to_owned(),
            Self::HostIp => "a published port is reached on all addresses of its node".to_owned(),
            Self::Sctp | Self::Protocol(_) => "write tcp or udp".to_owned(),
        }
    }
}

/// `[[host_ip:]published:]target[/protocol]`.
fn short(text: &str) -> Result<PortSpec, InvalidPort> {
    let malformed = || InvalidPort::Malformed(shown(text));
    let (numbers, protocol) = match text.split_once('/') {
        Some((numbers, name)) => (numbers, protocol(name)?),
        None => (text, Protocol::Tcp),
    };
    let (published, target) = match numbers.rsplit_once(':') {
        Some((published, target)) => (Some(published), target),
        None => (None, numbers),
    };
    if published.is_some_and(|published| published.contains(':')) {
        return Err(InvalidPort::HostIp);
    }
    if is_range(target) || published.is_some_and(is_range) {
        return Err(InvalidPort::Range);
    }
    let target = number(target).ok_or_else(malformed)?;
    match published {
        None => Ok(PortSpec { target, protocol, publish: Publish::AnyHostPort }),
        Some(published) => {
            let published = number(published).ok_or_else(malformed)?;
            Err(InvalidPort::Published { target, published, protocol })
        }
    }
}

fn protocol(name: &str) -> Result<Protocol, InvalidPort> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Err(InvalidPort::Sctp),
        _ => Err(InvalidPort::Protocol(shown(name))),
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    text.parse::<u16>().ok().filter(|&port| digits && port > 0)
}

fn is_range(text: &str) -> bool {
    text.split_once('-').is_some_and(|(first, last)| number(first).is_some() && number(last).is_some())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Host,
    Ingress,
}

fn long(node: &Node, entries: &[Entry], report: &mut Report<'_>) -> Option<PortSpec> {
    let mut target = None;
    let mut published = None;
    let mut protocol = Protocol::Tcp;
    let mut mode = None;
    for Entry { key, value } in entries {
        match key.text.as_str() {
            "target" => target = Some(typed::integer(value, "`target`", 1..=u16::MAX, report)),
            "published" => published = self::published(value, report).map(|port| (value.span, port)),
            "protocol" => protocol = self::protocol_of(value, report),
            "mode" => mode = Some((value.span, self::mode(value, report))),
            _ => keys::refuse(key, keys::PORT, report),
        }
    }
    let Some(target) = target else {
        report.error_with(node.span, "this port has no `target`", "write `target: 80`, the container's port");
        return None;
    };
    let publish = publish(target?, protocol, published, mode, report)?;
    Some(PortSpec { target: target?, protocol, publish })
}

fn published(node: &Node, report: &mut Report<'_>) -> Option<u16> {
    if node.as_text().is_some_and(is_range) {
        report.error_with(node.span, InvalidPort::Range.to_string(), InvalidPort::Range.hint());
        return None;
    }
    typed::integer(node, "`published`", 1..=u16::MAX, report)
}

fn protocol_of(node: &Node, report: &mut Report<'_>) -> Protocol {
    let Some(name) = typed::string(node, "`protocol`", report) else { return Protocol::Tcp };
    protocol(name).unwrap_or_else(|error| {
        report.error_with(node.span, error.to_string(), error.hint());
        Protocol::Tcp
    })
}

/// What is no mode is reported and counts as `host`, so that nothing is said of what follows from it.
fn mode(node: &Node, report: &mut Report<'_>) -> Mode {
    match typed::string(node, "`mode`", report) {
        Some("host") | None => Mode::Host,
        Some("ingress") => Mode::Ingress,
        Some(other) => {
            let message = format!("`{}` is not a mode of a port", shown(other));
            report.error_with(node.span, message, "write `mode: host`");
            Mode::Host
        }
    }
}

fn publish(
    target: u16,
    protocol: Protocol,
    published: Option<(Span, u16)>,
    mode: Option<(Span, Mode)>,
    report: &mut Report<'_>,
) -> Option<Publish> {
    match (published, mode) {
        (None, None | Some((_, Mode::Host))) => Some(Publish::AnyHostPort),
        (Some((_, port)), Some((_, Mode::Host))) => Some(Publish::HostPort(port)),
        (_, Some((span, Mode::Ingress))) => {
            let hint = "write `mode: host`";
            report.error_with(span, "gantry does not do `mode: ingress` yet", hint);
            None
        }
        (Some((span, published)), None) => {
            let error = InvalidPort::Published { target, published, protocol };
            report.error_with(span, error.to_string(), error.hint());
            None
        }
    }
}
