//! Where a registry may send us, and with what in hand. It is not trusted: what it names is asked by the daemon from inside
//! of the user's network.
//!
//! Only addresses that are written out are judged. What a name resolves to is the business of whoever runs the resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use crate::document::shown;

/// Where cloud machines find their credentials, besides 169.254.169.254: AWS over IPv6, and Alibaba.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedAddress {
    #[error("it does not say where to")]
    Missing,
    #[error("`{0}` is no http or https address")]
    NotHttp(String),
    #[error("`{0}` has a user name in it")]
    User(String),
    #[error("`{0}` is not encrypted, and what led there was")]
    Downgrade(String),
    #[error("`{0}` is neither https nor the registry's own host")]
    Exposed(String),
    #[error("`{0}` is inside of a network that the registry is not in")]
    Inside(String),
}

/// From how far an address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Everywhere,
    Site,
    ThisMachine,
    /// The link, and the cloud's service for its own machines.
    Link,
}

/// Scheme, host and port: what tells servers apart, and all that is shown of a URL, which can have a signature behind it.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// As Docker has it: the hosts that need no encryption.
pub(super) fn is_loopback(url: &Url) -> bool {
    match ip(url) {
        Some(address) => address.is_loopback(),
        None => url.host_str() == Some("localhost"),
    }
}

/// Whether what is at `from` may send us on to `to`, on behalf of the registry at `registry`. Its credentials stay.
pub(super) fn follow(
    registry: &Url,
    from: &Url,
    to: &Url,
    may_downgrade: bool,
) -> Result<(), RefusedAddress> {
    plain(to)?;
    if from.scheme() == "https" && to.scheme() != "https" && !may_downgrade {
        return Err(RefusedAddress::Downgrade(origin(to)));
    }
    match (reach(to), reach(registry)) {
        // A registry with a public name often keeps its blobs on a machine of the same site.
        (Reach::Everywhere | Reach::Site, _) | (Reach::ThisMachine, Reach::ThisMachine) => Ok(()),
        (Reach::Link, Reach::Link) => Ok(()),
        (Reach::ThisMachine | Reach::Link, _) => Err(RefusedAddress::Inside(origin(to))),
    }
}

/// Whether the registry's credentials may go to this token service.
pub(super) fn realm(registry: &Url, realm: &Url) -> Result<(), RefusedAddress> {
    plain(realm)?;
    let is_own = registry.scheme() == "http" && registry.host_str() == realm.host_str();
    if realm.scheme() != "https" && !is_own {
        return Err(RefusedAddress::Exposed(origin(realm)));
    }
    match (reach(realm), reach(registry)) {
        (Reach::Everywhere, _) => Ok(()),
        (Reach::Site, Reach::Site | Reach::ThisMachine) => Ok(()),
        (Reach::ThisMachine, Reach::ThisMachine) | (Reach::Link, Reach::Link) => Ok(()),
        (Reach::Site | Reach::ThisMachine | Reach::Link, _) => Err(RefusedAddress::Inside(origin(realm))),
    }
}

fn plain(url: &Url) -> Result<(), RefusedAddress> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(RefusedAddress::NotHttp(shown(url.as_str())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RefusedAddress::User(origin(url)));
    }
    Ok(())
}

fn ip(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    // The parser has brought every spelling (`0x7f.1`, `2130706433`) into the usual form.
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn reach(url: &Url) -> Reach {
    match ip(url) {
        Some(IpAddr::V4(address)) => reach_v4(address),
        Some(IpAddr::V6(address)) => reach_v6(address),
        None => {
            let name = url.host_str().unwrap_or_default().trim_end_matches('.');
            let is_local = name == "localhost" || name.ends_with(".localhost");
            if is_local { Reach::ThisMachine } else { Reach::Everywhere }
        }
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [first, second, ..] = address.octets();
    if address.is_loopback() || address.is_unspecified() {
        Reach::ThisMachine
    } else if address.is_link_local() || address == METADATA_V4 {
        Reach::Link
    // Carriers' and clouds' shared space (RFC 6598) too.
    } else if address.is_private() || (first == 100 && (64..128).contains(&second)) {
        Reach::Site
    } else if address.is_multicast() || address.is_broadcast() {
        Reach::Link
    } else {
        Reach::Everywhere
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    // IPv4 in the clothes of IPv6: mapped, and translated (RFC 6052).
    if let Some(inner) = address.to_ipv4_mapped() {
        return reach_v4(inner);
    }
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() {
        return reach_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    }
    if address.is_loopback() || address.is_unspecified() {
        Reach::ThisMachine
    } else if address == METADATA_V6 || address.is_unicast_link_local() || address.is_multicast() {
        Reach::Link
    } else if address.is_unique_local() {
        Reach::Site
    } else {
        Reach::Everywhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn word(result: Result<(), RefusedAddress>) -> &'static str {
        match result {
            Ok(()) => "ok",
            Err(RefusedAddress::Missing) => "missing",
            Err(RefusedAddress::NotHttp(_)) => "not http",
            Err(RefusedAddress::User(_)) => "user",
            Err(RefusedAddress::Downgrade(_)) => "downgrade",
            Err(RefusedAddress::Exposed(_)) => "exposed",
            Err(RefusedAddress::Inside(_)) => "inside",
        }
    }

    #[test]
    fn a_redirect_leads_neither_down_nor_inside() {
        let public = "https://reg.example/v2/";
        for (registry, to, expected) in [
            (public, "https://cdn.example/blob", "ok"),
            (public, "https://10.0.0.5:9000/blob", "ok"),
            (public, "http://cdn.example/blob", "downgrade"),
            (public, "http://reg.example/v2/", "downgrade"),
            (public, "ftp://cdn.example/blob", "not http"),
            (public, "file:///etc/passwd", "not http"),
            (public, "https://user:pw@cdn.example/", "user"),
            (public, "https://169.254.169.254/latest", "inside"),
            (public, "https://[fd00:ec2::254]/", "inside"),
            (public, "https://100.100.100.200/", "inside"),
            (public, "https://127.0.0.1/", "inside"),
            (public, "https://2130706433/", "inside"),
            (public, "https://0x7f.1/", "inside"),
            (public, "https://[::ffff:127.0.0.1]/", "inside"),
            (public, "https://[64:ff9b::a9fe:a9fe]/", "inside"),
            (public, "https://localhost./", "inside"),
            (public, "https://0.0.0.0/", "inside"),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:9000/", "ok"),
            ("http://localhost:5000/v2/", "http://127.0.0.1:9000/", "ok"),
            ("http://127.0.0.1:5000/v2/", "http://169.254.169.254/", "inside"),
            ("http://10.0.0.1/v2/", "http://127.0.0.1/", "inside"),
        ] {
            let registry = url(registry);
            assert_eq!(word(follow(&registry, &registry, &url(to), false)), expected, "{registry} to {to}");
        }
    }

    #[test]
    fn a_marked_registry_may_lead_out_of_encryption() {
        let (registry, to) = (url("https://reg.example/"), url("http://cdn.example/"));
        assert_eq!(word(follow(&registry, &registry, &to, true)), "ok");
    }

    #[test]
    fn credentials_go_to_https_or_to_the_registrys_own_host() {
        let (public, inside, local) =
            ("https://reg.example/", "https://10.0.0.1:5000/", "http://127.0.0.1:5000/");
        for (registry, to, expected) in [
            (public, "https://auth.example/token", "ok"),
            (public, "https://reg.example/token", "ok"),
            (public, "http://reg.example/token", "exposed"),
            (public, "http://auth.example/token", "exposed"),
            (public, "https://10.0.0.5/token", "inside"),
            (public, "https://192.168.0.1/token", "inside"),
            (public, "https://100.64.0.1/token", "inside"),
            (public, "https://169.254.169.254/token", "inside"),
            (public, "https://127.0.0.1/token", "inside"),
            (public, "https://[fe80::1]/token", "inside"),
            (public, "https://[fd12::1]/token", "inside"),
            (inside, "https://10.0.0.2/token", "ok"),
            (inside, "https://127.0.0.1/token", "inside"),
            (inside, "https://auth.example/token", "ok"),
            (local, "http://127.0.0.1:5001/token", "ok"),
            (local, "http://127.0.0.2:5001/token", "exposed"),
            (local, "https://192.168.0.1/token", "ok"),
            (local, "https://169.254.169.254/token", "inside"),
            ("http://reg.lan:5000/", "http://reg.lan:5001/token", "ok"),
            ("http://reg.lan:5000/", "http://other.lan/token", "exposed"),
        ] {
            assert_eq!(word(realm(&url(registry), &url(to))), expected, "{registry} to {to}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| same_origin(&url(one), &url(other));
        assert!(same("https://reg.example/a", "https://reg.example:443/b?c"));
        assert!(!same("https://reg.example/", "http://reg.example/"));
        assert!(!same("https://reg.example/", "https://reg.example:5000/"));
        assert!(!same("https://reg.example/", "https://reg.example.evil/"));
        assert_eq!(origin(&url("https://cdn.example/blob?signature=secret")), "https://cdn.example");
    }
}
