use expect_test::{Expect, expect};
use model::{PublishedPort, ServiceId};

use super::*;

fn bridge() -> BridgeSpec {
    BridgeSpec { name: "gantry0".to_owned(), gateway: Ipv4Addr::new(10, 1, 2, 1), prefix: 24 }
}

fn task(slot: u32) -> TaskId {
    TaskId { service: ServiceId(1), slot, sequence: 7 }
}

fn member(last: u8, ports: &[(Protocol, u16, u16)]) -> Member {
    let ports =
        ports.iter().map(|&(protocol, host, target)| PublishedPort { host, target, protocol }).collect();
    Member { address: Ipv4Addr::new(10, 1, 2, last), ports }
}

/// What a publication adds to the rules.
fn check(members: &[(u32, Member)], expected: Expect) {
    let members = members.iter().map(|(slot, member)| (task(*slot), member.clone())).collect();
    let script = publication(&bridge(), &members).unwrap();
    expected.assert_eq(script.strip_prefix(&rules(&bridge())).unwrap());
}

#[test]
fn rules_name_the_bridge_and_its_subnet_and_flush_no_elements() {
    let rules = rules(&bridge());
    assert!(!rules.contains("flush map") && !rules.contains("flush set"));
    expect![[r#"
        table ip gantry {
        	chain prerouting {
        		fib daddr type local dnat ip to meta l4proto . th dport map @ports
        	}
        	chain output {
        		ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @ports
        	}
        	chain postrouting {
        		ip saddr 10.1.2.0/24 oifname != "gantry0" masquerade
        		ip saddr 10.1.2.0/24 oifname "gantry0" ct status dnat masquerade
        	}
        	chain forward {
        		iifname "gantry0" accept
        		oifname != "gantry0" accept
        		ct state established,related accept
        		ct status dnat accept
        		drop
        	}
        }
        table bridge gantry {
        	chain prerouting {
        		iifname != @members accept
        		ether type ip iifname . ether saddr . ip saddr @sources accept
        		ether type arp iifname . arp saddr ether . arp saddr ip @sources accept
        		drop
        	}
        }
    "#]]
    .assert_eq(rules.strip_prefix(DECLARATIONS).unwrap());
}

#[test]
fn nothing_published_empties_every_set() {
    check(
        &[],
        expect![[r#"
            flush map ip gantry ports
            flush set bridge gantry members
            flush set bridge gantry sources
        "#]],
    );
}

#[test]
fn a_member_without_ports_is_guarded_all_the_same() {
    check(
        &[(1, member(3, &[]))],
        expect![[r#"
            flush map ip gantry ports
            flush set bridge gantry members
            add element bridge gantry members { "gteca6165098fa1" }
            flush set bridge gantry sources
            add element bridge gantry sources { "gteca6165098fa1" . 02:67:0a:01:02:03 . 10.1.2.3 }
        "#]],
    );
}

#[test]
fn ports_of_all_members_are_one_map() {
    check(
        &[
            (1, member(3, &[(Protocol::Udp, 53, 53), (Protocol::Tcp, 8080, 80)])),
            (2, member(254, &[(Protocol::Tcp, 53, 5353)])),
        ],
        expect![[r#"
            flush map ip gantry ports
            add element ip gantry ports { tcp . 53 : 10.1.2.254 . 5353, tcp . 8080 : 10.1.2.3 . 80, udp . 53 : 10.1.2.3 . 53 }
            flush set bridge gantry members
            add element bridge gantry members { "gteca6165098fa1", "gtdcb09884d2b8e" }
            flush set bridge gantry sources
            add element bridge gantry sources { "gteca6165098fa1" . 02:67:0a:01:02:03 . 10.1.2.3, "gtdcb09884d2b8e" . 02:67:0a:01:02:fe . 10.1.2.254 }
        "#]],
    );
}

#[test]
fn one_port_for_two_members_is_a_conflict_that_names_both() {
    let members: BTreeMap<_, _> = [
        (task(1), member(3, &[(Protocol::Tcp, 80, 80), (Protocol::Tcp, 80, 80)])),
        (task(2), member(4, &[(Protocol::Udp, 80, 80), (Protocol::Tcp, 80, 8080)])),
    ]
    .into();
    assert_eq!(
        publication(&bridge(), &members),
        Err(Conflict { port: 80, protocol: Protocol::Tcp, first: task(1), second: task(2) })
    );
}
