//! The files that a container sees as its own, whatever its image says: who is who, and whom to ask.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use model::{Dns, HostAddress, HostEntry};

/// What the node asks for names. Where systemd answers on the node's loopback, which is not a container's, its own list of
/// servers is read in its place, as Docker does.
pub(crate) fn nodes_resolvers() -> String {
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if servers(&own).iter().any(|server| !server.is_loopback()) {
        return own;
    }
    std::fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or(own)
}

/// `/etc/hosts`: gantry's lines, then those that are asked for. `gateway` is the node, as the container reaches it.
pub(crate) fn hosts(
    (hostname, domainname): (&str, Option<&str>),
    address: Ipv4Addr,
    entries: &[HostEntry],
    gateway: Option<Ipv4Addr>,
) -> Result<String, String> {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost\n".to_owned();
    // The full name first: it is what `hostname -f` finds.
    let own = match domainname {
        Some(domainname) => format!("{hostname}.{domainname} {hostname}"),
        None => hostname.to_owned(),
    };
    let mut add = |address: IpAddr, names: &str| {
        writeln!(text, "{address}\t{names}").expect("writing to a string cannot fail");
    };
    add(address.into(), &own);
    for HostEntry { name, address } in entries {
        let address = match address {
            HostAddress::Ip(address) => *address,
            HostAddress::Gateway => {
                let unknown = || format!("`{name}` is to be the node, whose network is not known yet");
                gateway.ok_or_else(unknown)?.into()
            }
        };
        add(address, name);
    }
    Ok(text)
}

/// `/etc/resolv.conf`: what is asked for, and for the rest what the node has. With what has to be said about it.
pub(crate) fn resolvers(dns: &Dns, node: &str) -> (String, Option<String>) {
    let Dns { servers: asked, search, options } = dns;
    let of_node = servers(node);
    let reachable: Vec<IpAddr> = of_node.iter().copied().filter(|server| !server.is_loopback()).collect();
    if *dns == Dns::default() && reachable.len() == of_node.len() && !of_node.is_empty() {
        return (node.to_owned(), None);
    }
    let servers = if asked.is_empty() { &reachable } else { asked };
    let search = match search.as_slice() {
        [] => words(node, &["search", "domain"]),
        // Docker's and Compose's word for none.
        [dot] if dot == "." => Vec::new(),
        search => search.to_vec(),
    };
    let options = if options.is_empty() { words(node, &["options"]) } else { options.clone() };
    let mut text = String::new();
    for (name, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            writeln!(text, "{name} {}", words.join(" ")).expect("writing to a string cannot fail");
        }
    }
    for server in servers {
        writeln!(text, "nameserver {server}").expect("writing to a string cannot fail");
    }
    let warning = servers.is_empty().then(|| {
        "the container can ask no name server: this node has none outside its own loopback; name some under `dns`"
            .to_owned()
    });
    (text, warning)
}

fn servers(text: &str) -> Vec<IpAddr> {
    // An address may have a zone, which is an interface of the node's.
    words(text, &["nameserver"]).iter().filter_map(|server| server.parse().ok()).collect()
}

/// What follows one of these keywords of resolv.conf(5), in all of its lines.
fn words(text: &str, keywords: &[&str]) -> Vec<String> {
    let words = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let is_meant = words.next().is_some_and(|first| keywords.contains(&first.as_str()));
        is_meant.then(|| words.collect::<Vec<String>>())
    };
    text.lines().filter_map(words).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use expect_test::{Expect, expect};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 1);

    #[test]
    fn hosts_are_gantrys_and_then_those_asked_for() {
        let entries = [
            HostEntry { name: "db".to_owned(), address: HostAddress::Ip("fd00::7".parse().unwrap()) },
            HostEntry { name: "node".to_owned(), address: HostAddress::Gateway },
        ];
        let text = hosts(("web", Some("example.org")), ADDRESS, &entries, Some(GATEWAY)).unwrap();
        expect![[r#"
            127.0.0.1	localhost
            ::1	localhost
            10.1.2.3	web.example.org web
            fd00::7	db
            10.1.2.1	node
        "#]]
        .assert_eq(&text);
        assert!(hosts(("web", None), ADDRESS, &[], None).unwrap().ends_with("10.1.2.3\tweb\n"));
        let unknown = hosts(("web", None), ADDRESS, &entries, None).unwrap_err();
        assert_eq!(unknown, "`node` is to be the node, whose network is not known yet");
    }

    fn check(dns: &Dns, node: &str, expected: Expect) {
        let (text, warning) = resolvers(dns, node);
        expected.assert_eq(&format!("{text}{}", warning.map(|w| format!("! {w}\n")).unwrap_or_default()));
    }

    #[test]
    fn resolvers_are_those_asked_for_over_the_nodes() {
        let node = "# a comment\nnameserver 10.0.0.53\nsearch lan\noptions edns0\n";
        check(
            &Dns::default(),
            node,
            expect![[r#"
                # a comment
                nameserver 10.0.0.53
                search lan
                options edns0
            "#]],
        );
        let dns = Dns { servers: vec!["9.9.9.9".parse().unwrap()], ..Dns::default() };
        check(
            &dns,
            node,
            expect![[r#"
                search lan
                options edns0
                nameserver 9.9.9.9
            "#]],
        );
        let dns = Dns { search: vec![".".to_owned()], options: vec!["ndots:2".to_owned()], ..Dns::default() };
        check(
            &dns,
            node,
            expect![[r#"
                options ndots:2
                nameserver 10.0.0.53
            "#]],
        );
    }

    #[test]
    fn the_nodes_loopback_is_not_the_containers() {
        check(
            &Dns::default(),
            "nameserver 127.0.0.53\nnameserver 10.0.0.53\n",
            expect![[r#"
                nameserver 10.0.0.53
            "#]],
        );
        check(
            &Dns::default(),
            "nameserver 127.0.0.53\n",
            expect![[r#"
                ! the container can ask no name server: this node has none outside its own loopback; name some under `dns`
            "#]],
        );
    }
}
