//! The packet filter's rules as text for `nft -f -`: pure functions of the desired table.
//!
//! A script is one transaction. It declares tables and chains (a no-op where they exist), replaces every rule, and, when
//! it publishes, replaces every element. So it repairs a table that someone else flushed, and a chain that stays is
//! never unhooked in between. Lookups are in maps and sets: the number of rules does not grow with the containers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use model::{Protocol, TaskId};

use crate::table::{BridgeSpec, Member, mac_of, port_name};

/// Declares what elements and rules go into.
///
/// The output hook's priority is a number because nft 1.0.6 knows the name `dstnat` in prerouting only.
const DECLARATIONS: &str = "\
table ip gantry {
	map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
	chain prerouting { type nat hook prerouting priority dstnat; policy accept; }
	chain output { type nat hook output priority -100; policy accept; }
	chain postrouting { type nat hook postrouting priority srcnat; policy accept; }
	chain forward { type filter hook forward priority filter; policy accept; }
}
table bridge gantry {
	set members { type ifname; }
	set sources { type ifname . ether_addr . ipv4_addr; }
	chain prerouting { type filter hook prerouting priority dstnat; policy accept; }
}
flush table ip gantry
flush table bridge gantry
";

/// Takes everything away; succeeds where there is nothing.
pub(crate) const REMOVAL: &str = "\
table ip gantry
delete table ip gantry
table bridge gantry
delete table bridge gantry
";

/// Two members want one port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) first: TaskId,
    pub(crate) second: TaskId,
}

/// The rules alone. What is published stays published.
///
/// - Ports are translated for whoever asks one of the node's own addresses, also from the node and from its containers.
///   Not for 127.0.0.0/8: a packet from there cannot leave by the bridge while `route_localnet` is 0, and it stays 0,
///   since a neighbouring machine could otherwise reach the node's loopback services (CVE-2020-8558).
/// - Containers leave under the node's address. A container that asks for a port of its own node is masqueraded too, or
///   the answer would go straight to it and come from an address it never asked.
/// - From elsewhere a container is reached through published ports only, whatever routes the neighbours have.
/// - A member's port carries IPv4 and ARP from the member's own addresses and nothing else. Ports that the table does
///   not know yet are left alone: a task is attached before it is published.
pub(crate) fn rules(bridge: &BridgeSpec) -> String {
    let (name, subnet) = (&bridge.name, bridge.subnet());
    format!(
        "{DECLARATIONS}\
table ip gantry {{
	chain prerouting {{
		fib daddr type local dnat ip to meta l4proto . th dport map @ports
	}}
	chain output {{
		ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @ports
	}}
	chain postrouting {{
		ip saddr {subnet} oifname != \"{name}\" masquerade
		ip saddr {subnet} oifname \"{name}\" ct status dnat masquerade
	}}
	chain forward {{
		iifname \"{name}\" accept
		oifname != \"{name}\" accept
		ct state established,related accept
		ct status dnat accept
		drop
	}}
}}
table bridge gantry {{
	chain prerouting {{
		iifname != @members accept
		ether type ip iifname . ether saddr . ip saddr @sources accept
		ether type arp iifname . arp saddr ether . arp saddr ip @sources accept
		drop
	}}
}}
"
    )
}

/// The rules, and exactly these members' ports and addresses in place of all that were there.
pub(crate) fn publication(
    bridge: &BridgeSpec,
    members: &BTreeMap<TaskId, Member>,
) -> Result<String, Conflict> {
    let ports = published(members)?.into_iter().map(|((protocol, host), (_, address, target))| {
        format!("{} . {host} : {address} . {target}", protocol.as_str())
    });
    let names = members.keys().map(|task| format!("\"{}\"", port_name(*task)));
    let sources = members.iter().map(|(task, member)| {
        let [a, b, c, d, e, f] = mac_of(member.address);
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        format!("\"{}\" . {mac} . {}", port_name(*task), member.address)
    });
    let mut script = rules(bridge);
    replace(&mut script, "map ip gantry ports", ports);
    replace(&mut script, "set bridge gantry members", names);
    replace(&mut script, "set bridge gantry sources", sources);
    Ok(script)
}

/// Node ports with the member and the port that answers, in order.
type Published = BTreeMap<(Protocol, u16), (TaskId, Ipv4Addr, u16)>;

fn published(members: &BTreeMap<TaskId, Member>) -> Result<Published, Conflict> {
    let mut published = Published::new();
    for (task, member) in members {
        for port in &member.ports {
            let answer = (*task, member.address, port.target);
            let before = published.insert((port.protocol, port.host), answer);
            if let Some((first, ..)) = before.filter(|before| *before != answer) {
                return Err(Conflict { port: port.host, protocol: port.protocol, first, second: *task });
            }
        }
    }
    Ok(published)
}

/// Appends the replacement of a set's or map's elements; `{}` with nothing in it is a syntax error to nft.
fn replace(script: &mut String, object: &str, elements: impl Iterator<Item = String>) {
    let elements: Vec<String> = elements.collect();
    writeln!(script, "flush {object}").expect("writing to a string does not fail");
    if let Some((_, place)) = object.split_once(' ').filter(|_| !elements.is_empty()) {
        writeln!(script, "add element {place} {{ {} }}", elements.join(", "))
            .expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests;
