//! Which /24 a cluster gets, and who has which address in it. Pure.

use std::net::Ipv4Addr;

use crate::layout::NodeNumber;

/// The prefix length of a cluster's network.
pub(crate) const PREFIX: u8 = 24;
/// The machine's own address: nodes' way out, and from where they are reached.
const MACHINE: u8 = 254;
/// `n1` is .11.
const BEFORE_FIRST: u8 = 10;
/// Where daemons listen.
pub(crate) const PORT: u16 = 7430;

/// A network that this machine has a route to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) base: Ipv4Addr,
    pub(crate) prefix: u8,
}

/// How badly a candidate clashes with what the machine can reach now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Clash {
    None,
    /// It is a part of a larger network, of which 256 addresses would be out of reach. A VPN that routes all of
    /// 10.0.0.0/8 is common, and no reason to give up.
    Shadows,
    /// Something is reached by the very addresses.
    Taken,
}

pub(crate) fn node(network: Ipv4Addr, node: NodeNumber) -> Ipv4Addr {
    host(network, BEFORE_FIRST + node.get())
}

pub(crate) fn machine(network: Ipv4Addr) -> Ipv4Addr {
    host(network, MACHINE)
}

fn host(network: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = network.octets();
    Ipv4Addr::new(a, b, c, last)
}

/// A hardware address that follows from the address, so that a node that is rebooted is found in its neighbours'
/// tables as it was, and is not out of reach until they notice. Locally administered: the second bit of the first
/// byte.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x64, a, b, c, d]
}

/// The base of a free 10.199.k.0/24: the same cluster gets the same one where it can. `None` if all 256 are taken.
pub(crate) fn choose(hash: u64, routes: &[Route]) -> Option<Ipv4Addr> {
    let candidates = (0..=255u8).map(|step| {
        let [.., low] = hash.to_be_bytes();
        Ipv4Addr::new(10, 199, low.wrapping_add(step), 0)
    });
    // The first of the least bad, as `min_by_key` promises.
    let rated = candidates.map(|network| (clash(network, routes), network)).min_by_key(|(clash, _)| *clash);
    rated.filter(|(clash, _)| *clash < Clash::Taken).map(|(_, network)| network)
}

fn clash(network: Ipv4Addr, routes: &[Route]) -> Clash {
    let each = routes.iter().map(|route| match route.prefix {
        0 => Clash::None,
        prefix if !same(network, route.base, prefix.min(PREFIX)) => Clash::None,
        prefix if prefix < PREFIX => Clash::Shadows,
        _inside => Clash::Taken,
    });
    each.max().unwrap_or(Clash::None)
}

/// Whether two addresses agree in their first `prefix` bits, which are at least one.
fn same(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    (u32::from(one) ^ u32::from(other)) >> (32 - u32::from(prefix)) == 0
}

/// Reads `/proc/net/route`: the main table, one route a line, addresses as the hexadecimal of a number whose bytes in
/// memory are the address. Lines of another form are skipped: they are no IPv4 networks.
pub(crate) fn parse_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let number = |field: Option<&str>| u32::from_str_radix(field?, 16).ok();
        let base = number(fields.next())?;
        // Gateway, flags, use count, users and metric stand before the mask.
        let mask = number(fields.nth(5))?;
        let prefix = u8::try_from(mask.count_ones()).ok()?;
        Some(Route { base: Ipv4Addr::from(base.to_ne_bytes()), prefix })
    };
    text.lines().skip(1).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        let (base, prefix) = text.split_once('/').unwrap();
        Route { base: base.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    fn chosen(hash: u64, routes: &[&str]) -> Option<String> {
        let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
        choose(hash, &routes).map(|network| network.to_string())
    }

    #[test]
    fn the_hash_decides_where_nothing_is_in_the_way() {
        assert_eq!(chosen(7, &[]).as_deref(), Some("10.199.7.0"));
        assert_eq!(chosen(0x1_0007, &["0.0.0.0/0", "192.168.1.0/24"]).as_deref(), Some("10.199.7.0"));
    }

    #[test]
    fn what_is_taken_is_passed_over() {
        assert_eq!(chosen(7, &["10.199.7.0/24"]).as_deref(), Some("10.199.8.0"));
        assert_eq!(chosen(7, &["10.199.7.128/25", "10.199.8.1/32"]).as_deref(), Some("10.199.9.0"));
        assert_eq!(chosen(255, &["10.199.255.0/24"]).as_deref(), Some("10.199.0.0"), "it goes round");
    }

    #[test]
    fn a_part_of_a_larger_network_is_taken_only_when_nothing_else_is_left() {
        assert_eq!(chosen(7, &["10.199.0.0/17"]).as_deref(), Some("10.199.128.0"));
        assert_eq!(chosen(7, &["10.0.0.0/8"]).as_deref(), Some("10.199.7.0"));
        assert_eq!(chosen(7, &["10.0.0.0/8", "10.199.7.0/24"]).as_deref(), Some("10.199.8.0"));
        let all: Vec<String> = (0..=255).map(|k| format!("10.199.{k}.0/24")).collect();
        assert_eq!(chosen(7, &all.iter().map(String::as_str).collect::<Vec<_>>()), None);
    }

    #[test]
    fn every_node_has_an_address_of_its_own_and_none_is_the_machines() {
        let network = Ipv4Addr::new(10, 199, 7, 0);
        assert_eq!(node(network, NodeNumber::FIRST), Ipv4Addr::new(10, 199, 7, 11));
        assert_eq!(node(network, NodeNumber::LAST), Ipv4Addr::new(10, 199, 7, 210));
        assert_eq!(machine(network), Ipv4Addr::new(10, 199, 7, 254));
        assert_eq!(mac_of(Ipv4Addr::new(10, 199, 7, 11)), [0x02, 0x64, 10, 199, 7, 11]);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_route_table_is_read() {
        let text = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
gdev-dev\t0007C70A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
odd line
";
        assert_eq!(parse_routes(text), [route("0.0.0.0/0"), route("10.199.7.0/24")]);
    }
}
