//! The probes below `x-gantry`: ways to ask a container that need nothing of its image.

use std::ops::RangeInclusive;

use model::{Health, HealthCheck, HttpProbe, Probe, Readiness};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Key, Node};
use crate::{health, keys, typed};

/// What a probe may be; a merge takes a later one for an earlier one of another kind.
pub(crate) const KINDS: [&str; 4] = ["exec", "grpc", "http", "tcp"];

const HEALTH: &[&str] =
    &["exec", "grpc", "http", "tcp", "interval", "timeout", "retries", "start_period", "start_interval"];
const READINESS: &[&str] = &["exec", "grpc", "http", "tcp", "interval", "timeout", "successes", "failures"];
const HTTP: &[&str] = &["port", "path", "scheme", "host", "headers"];
const TCP: &[&str] = &["port"];
const GRPC: &[&str] = &["port", "service"];

const PORTS: RangeInclusive<u16> = 1..=u16::MAX;
/// A path, host or header beyond this is no probe's; servers refuse lines of twice the length.
const MAX_TEXT: usize = 4096;

/// `x-gantry.health`.
pub(crate) fn health(node: &Node, report: &mut Report<'_>) -> Option<Health> {
    let mut check = HealthCheck::default();
    let mut probes = Probes::default();
    for Entry { key, value } in typed::entries(node, "`health`", report) {
        if !probes.read(key, value, report) && !health::timing(key, value, &mut check, report) {
            unknown(key, HEALTH, report);
        }
    }
    check.probe = Some(probes.only("health", node.span, report)?);
    Some(Health::Check(check))
}

/// `x-gantry.readiness`.
pub(crate) fn readiness(node: &Node, report: &mut Report<'_>) -> Option<Readiness> {
    let (mut interval, mut timeout, mut successes, mut failures) = (None, None, None, None);
    let mut probes = Probes::default();
    for Entry { key, value } in typed::entries(node, "`readiness`", report) {
        match key.text.as_str() {
            "interval" => interval = health::time(value, "`interval`", report),
            "timeout" => timeout = health::time(value, "`timeout`", report),
            "successes" => successes = typed::integer(value, "`successes`", 1..=u32::MAX, report),
            "failures" => failures = typed::integer(value, "`failures`", 1..=u32::MAX, report),
            _ if probes.read(key, value, report) => {}
            _ => unknown(key, READINESS, report),
        }
    }
    Some(Readiness {
        probe: probes.only("readiness", node.span, report)?,
        interval: interval.unwrap_or(Readiness::INTERVAL),
        timeout: timeout.unwrap_or(Readiness::TIMEOUT),
        successes: successes.unwrap_or(Readiness::SUCCESSES),
        failures: failures.unwrap_or(Readiness::FAILURES),
    })
}

fn unknown(key: &Key, known: &[&str], report: &mut Report<'_>) {
    keys::unknown(key, known, &format!("there are {}", known.join(", ")), report);
}

/// The probes that are given, of which there has to be one. Inner `None` is one that is no good.
#[derive(Default)]
struct Probes {
    given: Vec<(Span, Option<Probe>)>,
}

impl Probes {
    /// Whether the key was one.
    fn read(&mut self, key: &Key, node: &Node, report: &mut Report<'_>) -> bool {
        let probe = match key.text.as_str() {
            "exec" => exec(node, report),
            "grpc" => grpc(node, report),
            "http" => http(node, report),
            "tcp" => tcp(node, report),
            _ => return false,
        };
        self.given.push((key.span, probe));
        true
    }

    fn only(self, key: &str, span: Span, report: &mut Report<'_>) -> Option<Probe> {
        let mut given = self.given.into_iter();
        let Some((first, probe)) = given.next() else {
            let message = format!("`{key}` does not say how to ask");
            report.error_with(span, message, "give it one of http, tcp, grpc and exec");
            return None;
        };
        for (span, _) in given {
            let message = format!("`{key}` has a probe {} already", first.seen_from(span));
            report.error_with(span, message, "keep one of them");
        }
        probe
    }
}

/// A list of words; or, as in `healthcheck`, a line for the container's shell.
fn exec(node: &Node, report: &mut Report<'_>) -> Option<Probe> {
    let command = match &node.content {
        Content::Sequence(items) => {
            let words = typed::strings(node, "`exec`", report);
            if words.len() < items.len() {
                return None;
            }
            words
        }
        Content::Scalar(_) | Content::Mapping(_) => {
            let line = typed::string(node, "`exec`", report)?;
            if line.is_empty() { Vec::new() } else { health::shell(vec![line.to_owned()]) }
        }
    };
    if command.is_empty() {
        report.error_with(node.span, "`exec` has no command", "write for example `[pg_isready, -q]`");
        return None;
    }
    Some(Probe::Exec(command))
}

fn tcp(node: &Node, report: &mut Report<'_>) -> Option<Probe> {
    let mut port = None;
    for Entry { key, value } in typed::entries(node, "`tcp`", report) {
        match key.text.as_str() {
            "port" => port = Some(typed::integer(value, "`port`", PORTS, report)),
            _ => unknown(key, TCP, report),
        }
    }
    Some(Probe::Tcp { port: demanded(port, node, report)? })
}

fn grpc(node: &Node, report: &mut Report<'_>) -> Option<Probe> {
    let mut port = None;
    let mut service = Some(String::new());
    for Entry { key, value } in typed::entries(node, "`grpc`", report) {
        match key.text.as_str() {
            "port" => port = Some(typed::integer(value, "`port`", PORTS, report)),
            "service" => service = line(value, "`service`", report),
            _ => unknown(key, GRPC, report),
        }
    }
    Some(Probe::Grpc { port: demanded(port, node, report)?, service: service? })
}

fn demanded(port: Option<Option<u16>>, node: &Node, report: &mut Report<'_>) -> Option<u16> {
    if port.is_none() {
        report.error_with(node.span, "the probe has no `port`", "name the container's port");
    }
    port.flatten()
}

fn http(node: &Node, report: &mut Report<'_>) -> Option<Probe> {
    let mut port = None;
    let mut path = Some("/".to_owned());
    let mut tls = Some(false);
    let mut host = None;
    let mut headers = Vec::new();
    for Entry { key, value } in typed::entries(node, "`http`", report) {
        match key.text.as_str() {
            "port" => port = Some(typed::integer(value, "`port`", PORTS, report)),
            "path" => path = self::path(value, report),
            "scheme" => tls = scheme(value, report),
            "host" => host = self::host(value, report),
            "headers" => headers = self::headers(value, report),
            _ => unknown(key, HTTP, report),
        }
    }
    let port = demanded(port, node, report)?;
    Some(Probe::Http(HttpProbe { port, path: path?, tls: tls?, host, headers }))
}

/// As it is sent, its query with it.
fn path(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = line(node, "`path`", report)?;
    if !text.starts_with('/') || !text.bytes().all(|c| c.is_ascii_graphic() && c != b'#') {
        let message = format!("`path` cannot be `{}`", shown(&text));
        report.error_with(node.span, message, "begin it with `/`; write what is not ASCII as %XX");
        return None;
    }
    Some(text)
}

fn scheme(node: &Node, report: &mut Report<'_>) -> Option<bool> {
    match typed::string(node, "`scheme`", report)? {
        "http" => Some(false),
        "https" => Some(true),
        other => {
            let message = format!("`scheme` cannot be `{}`", shown(other));
            report.error_with(node.span, message, "write http or https");
            None
        }
    }
}

fn host(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = line(node, "`host`", report)?;
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_graphic() && c != b'/') {
        report.error_with(node.span, format!("`host` cannot be `{}`", shown(&text)), "write a host name");
        return None;
    }
    Some(text)
}

/// Names are tokens and values visible text (RFC 9110, section 5), so that neither can begin another line.
fn headers(node: &Node, report: &mut Report<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for typed::Pair { key, value, span } in typed::pairs(node, "`headers`", report) {
        let value = value.unwrap_or_default();
        if key.eq_ignore_ascii_case("host") {
            report.error_with(span, "`Host` is not among the headers", "write `host` beside `headers`");
        } else if !is_token(&key) {
            let message = format!("`{}` is not the name of a header", shown(&key));
            report.error_with(span, message, "write letters, digits and `-`, at most 64");
        } else if value.len() > MAX_TEXT || !value.bytes().all(|c| c == b' ' || c.is_ascii_graphic()) {
            let message = format!("the header `{key}` cannot be `{}`", shown(&value));
            report.error_with(span, message, "write visible ASCII in one line, at most 4096 bytes");
        } else {
            headers.push((key, value));
        }
    }
    headers
}

fn is_token(name: &str) -> bool {
    let is_part = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    (1..=64).contains(&name.len()) && name.bytes().all(is_part)
}

fn line(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<String> {
    let text = typed::string(node, subject, report)?;
    if text.len() > MAX_TEXT {
        report.error(node.span, format!("{subject} has {} bytes; it may have {MAX_TEXT}", text.len()));
        return None;
    }
    typed::is_line(text, node.span, subject, report).then(|| text.to_owned())
}
