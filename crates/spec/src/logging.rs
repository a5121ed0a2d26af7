//! `logging`: Docker's drivers and options, as far as gantry has them.

use std::collections::BTreeMap;

use model::{Bytes, LogDriver, Logging};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Key, Node};
use crate::{keys, typed};

/// Of syslog, RFC 5424 table 1; Docker takes those that have a name by their name or number.
const FACILITIES: [(u32, &str); 20] = [
    (0, "kern"),
    (1, "user"),
    (2, "mail"),
    (3, "daemon"),
    (4, "auth"),
    (5, "syslog"),
    (6, "lpr"),
    (7, "news"),
    (8, "uucp"),
    (9, "cron"),
    (10, "authpriv"),
    (11, "ftp"),
    (16, "local0"),
    (17, "local1"),
    (18, "local2"),
    (19, "local3"),
    (20, "local4"),
    (21, "local5"),
    (22, "local6"),
    (23, "local7"),
];
const DEFAULT_FACILITY: &str = "daemon";
/// Where a syslog of the node's listens.
const DEFAULT_ADDRESS: &str = "unix:///dev/log";
/// RFC 3164's, which Docker also takes for TCP.
const DEFAULT_PORT: u16 = 514;
const MAX_FILES: u32 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Local,
    None,
    Syslog,
    Journald,
}

pub(crate) fn logging(node: &Node, report: &mut Report<'_>) -> Logging {
    let mut driver = Some(Driver::Local);
    let mut options = Options::default();
    for Entry { key, value } in typed::entries(node, "`logging`", report) {
        match key.text.as_str() {
            "driver" => driver = self::driver(value, report),
            "options" => options = Options::read(value, report),
            _ => keys::refuse(key, keys::LOGGING, report),
        }
    }
    // Of a driver that there is not, nobody can say which options it has.
    match driver {
        Some(driver) => options.for_driver(driver, report),
        None => Logging::default(),
    }
}

fn driver(node: &Node, report: &mut Report<'_>) -> Option<Driver> {
    match typed::string(node, "`driver`", report)? {
        // `json-file` is Docker's default. What the files look like is the node's own business in either.
        "" | "json-file" | "local" => Some(Driver::Local),
        "none" => Some(Driver::None),
        "syslog" => Some(Driver::Syslog),
        "journald" => Some(Driver::Journald),
        other => {
            let message = format!("gantry does not do the log driver `{}`", shown(other));
            let hint = "write local, json-file, syslog, journald or none, which a collector can read from";
            report.error_with(node.span, message, hint);
            None
        }
    }
}

/// What is set of each option, by its name.
#[derive(Default)]
struct Options<'n> {
    given: BTreeMap<&'n str, (&'n Key, &'n Node)>,
}

impl<'n> Options<'n> {
    fn read(node: &'n Node, report: &mut Report<'_>) -> Self {
        let entries = typed::entries(node, "`options`", report);
        Self { given: entries.iter().map(|Entry { key, value }| (key.text.as_str(), (key, value))).collect() }
    }

    fn for_driver(mut self, driver: Driver, report: &mut Report<'_>) -> Logging {
        let default = Logging::default();
        let (mut max_size, mut max_files) = (default.max_size, default.max_files);
        if driver != Driver::None {
            max_size = self.take("max-size").and_then(|node| size(node, report)).unwrap_or(max_size);
            max_files = self.take("max-file").and_then(|node| files(node, report)).unwrap_or(max_files);
        }
        let driver = match driver {
            Driver::Local => LogDriver::Local,
            Driver::None => LogDriver::None,
            Driver::Journald => LogDriver::Journald { tag: self.tag(report) },
            Driver::Syslog => {
                let address = self.take("syslog-address").and_then(|node| address(node, report));
                let facility = self.take("syslog-facility").and_then(|node| facility(node, report));
                LogDriver::Syslog {
                    address: address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
                    facility: facility.unwrap_or(DEFAULT_FACILITY).to_owned(),
                    tag: self.tag(report),
                }
            }
        };
        for (key, _) in self.given.into_values() {
            let message = format!("gantry does not do the option `{}` of this log driver", shown(&key.text));
            report.warning(key.span, message, "take it out; the log goes on without it");
        }
        Logging { driver, max_size, max_files }
    }

    fn take(&mut self, name: &str) -> Option<&'n Node> {
        self.given.remove(name).map(|(_, node)| node)
    }

    /// What marks the lines of a container; empty is the node's choice.
    fn tag(&mut self, report: &mut Report<'_>) -> String {
        let tag = self.take("tag").and_then(|node| Some((text(node, "`tag`", report)?, node.span)));
        let Some((tag, span)) = tag else { return String::new() };
        if typed::is_template(&tag, span, report) { String::new() } else { tag }
    }
}

/// A string or a number in one line. Empty is as if it were not there.
fn text(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<String> {
    let Content::Scalar(scalar) = &node.content else {
        let message = format!("{subject} must be a string or a number, and this is {}", node.describe());
        report.error(node.span, message);
        return None;
    };
    let text = scalar.printed().filter(|text| !text.is_empty())?;
    typed::is_line(&text, node.span, subject, report).then_some(text)
}

/// In powers of 1024, as all other sizes of a Compose file; Docker takes these alone in powers of 1000.
fn size(node: &Node, report: &mut Report<'_>) -> Option<Bytes> {
    let size = typed::quantity(node, "`max-size`", Bytes::parse, report)?;
    if size.0 == 0 {
        report.error_with(node.span, "`max-size` cannot be 0", "write for example 10m");
        return None;
    }
    Some(size)
}

fn files(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    typed::integer(node, "`max-file`", 1..=MAX_FILES, report)
}

fn facility(node: &Node, report: &mut Report<'_>) -> Option<&'static str> {
    let text = text(node, "`syslog-facility`", report)?;
    let number = text.parse::<u32>().ok();
    let known = FACILITIES.into_iter().find(|(code, name)| *name == text || number == Some(*code));
    if known.is_none() {
        let message = format!("`{}` is not a facility of syslog", shown(&text));
        report.error_with(node.span, message, "write for example daemon, user or local0");
    }
    known.map(|(_, name)| name)
}

fn address(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = text(node, "`syslog-address`", report)?;
    let address = normal(&text);
    if address.is_none() {
        tell(&text, node.span, report);
    }
    address
}

fn tell(text: &str, span: Span, report: &mut Report<'_>) {
    let message = if text.starts_with("tcp+tls:") {
        "gantry does not do syslog over TLS yet".to_owned()
    } else {
        format!("`{}` is not the address of a syslog", shown(text))
    };
    let hint = "write udp://HOST:514, tcp://HOST:601 or unix:///dev/log";
    report.error_with(span, message, hint);
}

/// With a port, and `unix` for every socket in the file system: which kind it is shows when it is opened.
fn normal(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        "unix" | "unixgram" => rest.starts_with('/').then(|| format!("unix://{rest}")),
        "udp" | "tcp" => {
            let (host, port) = host_and_port(rest.strip_suffix('/').unwrap_or(rest))?;
            Some(format!("{scheme}://{host}:{port}"))
        }
        _ => None,
    }
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    // An IPv6 address stands in brackets, which stay.
    let end = match text.strip_prefix('[') {
        Some(inside) => inside.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let is_part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
            !host.is_empty() && host.bytes().all(is_part)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().ok().filter(|port| *port > 0 && !digits.starts_with('+'))?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return None,
    };
    is_host.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_syslog_has_a_port_in_the_end() {
        for (written, address) in [
            ("udp://log.example", "udp://log.example:514"),
            ("tcp://10.0.0.1:601/", "tcp://10.0.0.1:601"),
            ("udp://[fd00::1]", "udp://[fd00::1]:514"),
            ("tcp://[fd00::1]:1514", "tcp://[fd00::1]:1514"),
            ("unixgram:///run/log", "unix:///run/log"),
        ] {
            assert_eq!(normal(written).as_deref(), Some(address), "{written}");
        }
        for bad in [
            "",
            "log.example",
            "udp://",
            "udp://:514",
            "udp://a:0",
            "udp://a:+1",
            "udp://a:b",
            "udp://[a]:1",
            "udp://[::1",
            "udp://a/b",
            "udp://a b",
            "unix://dev/log",
            "http://a",
        ] {
            assert_eq!(normal(bad), None, "{bad}");
        }
    }

    #[test]
    fn facilities_are_in_order() {
        assert!(FACILITIES.is_sorted());
    }
}
