//! What a container is called and how it finds others: its host name, `/etc/hosts` and `/etc/resolv.conf`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::{HostAddress, HostEntry};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node};
use crate::typed;

/// Linux's HOST_NAME_MAX, in bytes, which holds for the domain name as well.
const MAX_NAME: usize = 64;
/// Between two dots (RFC 1123, after RFC 952).
const MAX_LABEL: usize = 63;
/// Of a domain as DNS has it (RFC 1035).
const MAX_DOMAIN: usize = 253;

/// `hostname` or `domainname`: labels of letters, digits and `-` (RFC 1123), and of `_`, which Docker passes on and people
/// use. Empty is as if it were not there.
pub(crate) fn host_name(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<String> {
    let text = typed::string(node, subject, report)?;
    if text.is_empty() || typed::is_template(text, node.span, report) {
        return None;
    }
    let is_part = |part: &str| is_label(&part.replace('_', "x"));
    if text.len() > MAX_NAME || !text.split('.').all(is_part) {
        let message = format!("{subject} cannot be `{}`", shown(text));
        let hint = "write letters, digits, `-` and `_`, at most 63 between two dots and 64 in all";
        report.error_with(node.span, message, hint);
        return None;
    }
    Some(text.to_owned())
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// One address of a host, before it is known whether either is any good.
struct Written<'n> {
    name: &'n str,
    address: &'n str,
    span: Span,
}

/// `extra_hosts`: a mapping of names to one address or several, or a list of `NAME=ADDRESS` or `NAME:ADDRESS`,
/// where commas separate addresses. What is there twice counts once.
pub(crate) fn extra_hosts(node: &Node, report: &mut Report<'_>) -> Vec<HostEntry> {
    let written = match &node.content {
        Content::Mapping(entries) => mapped(entries, report),
        Content::Scalar(_) | Content::Sequence(_) => listed(node, report),
    };
    let mut known = BTreeSet::new();
    let mut hosts = Vec::new();
    for Written { name, address, span } in written {
        let Some(address) = host_address(address) else {
            let message = format!("`{}` is not an address of the host `{}`", shown(address), shown(name));
            report.error_with(span, message, "write an IPv4 or IPv6 address, or host-gateway");
            continue;
        };
        if !is_host(name) {
            let message = format!("`{}` cannot be a host in `/etc/hosts`", shown(name));
            report.error_with(span, message, "write letters, digits, `-`, `_` and `.`");
            continue;
        }
        let ip = match address {
            HostAddress::Ip(ip) => Some(ip),
            HostAddress::Gateway => None,
        };
        if known.insert((name, ip)) {
            hosts.push(HostEntry { name: name.to_owned(), address });
        }
    }
    hosts
}

fn mapped<'n>(entries: &'n [Entry], report: &mut Report<'_>) -> Vec<Written<'n>> {
    let mut written = Vec::new();
    for Entry { key, value } in entries {
        let subject = format!("`{}`", shown(&key.text));
        let addresses = typed::string_or_list(value, &subject, report);
        if addresses.is_empty() && value.is_null() {
            report.error_with(key.span, format!("the host {subject} has no address"), "write one behind it");
        }
        written.extend(addresses.into_iter().map(|(span, address)| Written {
            name: &key.text,
            address,
            span,
        }));
    }
    written
}

fn listed<'n>(node: &'n Node, report: &mut Report<'_>) -> Vec<Written<'n>> {
    let mut written = Vec::new();
    for (span, text) in typed::placed_strings(node, "`extra_hosts`", report) {
        // Colons are in IPv6 addresses too, so `=` goes first.
        let Some((name, addresses)) = text.split_once('=').or_else(|| text.split_once(':')) else {
            let message = format!("`{}` gives a host no address", shown(text));
            report.error_with(span, message, "write for example `db=10.0.0.5`");
            continue;
        };
        written.extend(addresses.split(',').map(|address| Written { name, address, span }));
    }
    written
}

/// Brackets may stand around an address, as Docker takes them.
fn host_address(text: &str) -> Option<HostAddress> {
    if text == "host-gateway" {
        return Some(HostAddress::Gateway);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(HostAddress::Ip)
}

/// Wider than a host name: people name machines with underscores.
fn is_host(name: &str) -> bool {
    (1..=MAX_DOMAIN).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// `dns`. An empty string is none, since Compose takes `dns: ${DNS}` where that is not set.
pub(crate) fn servers(node: &Node, report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for (span, text) in typed::string_or_list(node, "`dns`", report) {
        match text.parse::<IpAddr>() {
            Ok(address) => servers.push(address),
            Err(_) if text.is_empty() => {}
            Err(_) => {
                let message = format!("`{}` is not the address of a DNS server", shown(text));
                report.error_with(span, message, "write an IPv4 or IPv6 address");
            }
        }
    }
    typed::distinct(servers)
}

pub(crate) fn search(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    words(node, "`dns_search`", (is_search_domain, "write a domain, for example shop.example"), report)
}

pub(crate) fn options(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    words(node, "`dns_opt`", (is_option, "write an option of resolv.conf, for example ndots:2"), report)
}

fn words(
    node: &Node,
    subject: &str,
    (may_be, hint): (fn(&str) -> bool, &str),
    report: &mut Report<'_>,
) -> Vec<String> {
    let mut words = Vec::new();
    for (span, text) in typed::string_or_list(node, subject, report) {
        if may_be(text) {
            words.push(text.to_owned());
        } else {
            report.error_with(span, format!("{subject} cannot be `{}`", shown(text)), hint);
        }
    }
    typed::distinct(words)
}

/// A domain, perhaps with a dot at its end, or `.` for none at all. Names of services begin with `_`.
fn is_search_domain(text: &str) -> bool {
    let is_part = |part: &str| is_label(part) || part.strip_prefix('_').is_some_and(is_label);
    text == "." || text.len() <= MAX_DOMAIN && text.strip_suffix('.').unwrap_or(text).split('.').all(is_part)
}

/// One word of resolv.conf(5): `ndots:2`, `use-vc`.
fn is_option(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic() && c != b'#' && c != b';')
}
