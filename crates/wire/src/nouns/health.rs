//! How it is told whether a container does its work.

use std::time::Duration;

use crate::invalid::optional;
use crate::nouns::millis;
use crate::proto::model as proto;
use crate::proto::model::health::Kind;
use crate::proto::model::probe::Kind as ProbeKind;
use crate::{Cause, Field, Invalid};

impl From<&model::Health> for proto::Health {
    fn from(health: &model::Health) -> Self {
        let kind = match health {
            model::Health::Image => Kind::Image(proto::Nothing {}),
            model::Health::Disabled => Kind::Disabled(proto::Nothing {}),
            model::Health::Check(check) => Kind::Check(check.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::Health> for model::Health {
    type Error = Invalid;

    fn try_from(health: proto::Health) -> Result<Self, Invalid> {
        let proto::Health { kind } = health;
        Ok(match Field("Health", "kind").kind(kind)? {
            Kind::Image(proto::Nothing {}) => Self::Image,
            Kind::Disabled(proto::Nothing {}) => Self::Disabled,
            Kind::Check(check) => Self::Check(model::HealthCheck::try_from(check)?),
        })
    }
}

impl From<&model::HealthCheck> for proto::HealthCheck {
    fn from(check: &model::HealthCheck) -> Self {
        let model::HealthCheck { probe, interval, timeout, retries, start_period, start_interval } = check;
        Self {
            probe: probe.as_ref().map(Into::into),
            interval: interval.map(millis),
            timeout: timeout.map(millis),
            retries: *retries,
            start_period: start_period.map(millis),
            start_interval: start_interval.map(millis),
        }
    }
}

impl TryFrom<proto::HealthCheck> for model::HealthCheck {
    type Error = Invalid;

    fn try_from(check: proto::HealthCheck) -> Result<Self, Invalid> {
        let proto::HealthCheck { probe, interval, timeout, retries, start_period, start_interval } = check;
        let at = |field| Field("HealthCheck", field);
        let time = |field, millis: Option<u64>| millis.map(|millis| some_time(at(field), millis)).transpose();
        Ok(Self {
            probe: optional(probe)?,
            interval: time("interval", interval)?,
            timeout: time("timeout", timeout)?,
            retries: retries.map(|count| at_least_one(at("retries"), count)).transpose()?,
            start_period: start_period.map(Duration::from_millis),
            start_interval: time("start_interval", start_interval)?,
        })
    }
}

impl From<&model::Readiness> for proto::Readiness {
    fn from(readiness: &model::Readiness) -> Self {
        let model::Readiness { probe, interval, timeout, successes, failures } = readiness;
        Self {
            probe: Some(probe.into()),
            interval: millis(*interval),
            timeout: millis(*timeout),
            successes: *successes,
            failures: *failures,
        }
    }
}

impl TryFrom<proto::Readiness> for model::Readiness {
    type Error = Invalid;

    fn try_from(readiness: proto::Readiness) -> Result<Self, Invalid> {
        let proto::Readiness { probe, interval, timeout, successes, failures } = readiness;
        let at = |field| Field("Readiness", field);
        Ok(Self {
            probe: at("probe").required(probe)?,
            interval: some_time(at("interval"), interval)?,
            timeout: some_time(at("timeout"), timeout)?,
            successes: at_least_one(at("successes"), successes)?,
            failures: at_least_one(at("failures"), failures)?,
        })
    }
}

/// A time that passes: probes without a pause between them would be all that a node does, and one that may take no time
/// always fails.
fn some_time(at: Field, millis: u64) -> Result<Duration, Invalid> {
    if millis == 0 {
        return Err(at.bad(Cause::OutOfRange(0)));
    }
    Ok(Duration::from_millis(millis))
}

/// So many in a row: after none there is nothing to go by.
fn at_least_one(at: Field, count: u32) -> Result<u32, Invalid> {
    if count == 0 {
        return Err(at.bad(Cause::OutOfRange(0)));
    }
    Ok(count)
}

impl From<&model::Probe> for proto::Probe {
    fn from(probe: &model::Probe) -> Self {
        let kind = match probe {
            model::Probe::Exec(words) => ProbeKind::Exec(proto::Words { words: words.clone() }),
            model::Probe::Http(http) => ProbeKind::Http(http.into()),
            model::Probe::Tcp { port } => ProbeKind::Tcp((*port).into()),
            model::Probe::Grpc { port, service } => {
                ProbeKind::Grpc(proto::GrpcProbe { port: (*port).into(), service: service.clone() })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::Probe> for model::Probe {
    type Error = Invalid;

    fn try_from(probe: proto::Probe) -> Result<Self, Invalid> {
        let proto::Probe { kind } = probe;
        let at = |field| Field("Probe", field);
        Ok(match at("kind").kind(kind)? {
            ProbeKind::Exec(proto::Words { words }) => {
                if words.is_empty() {
                    return Err(at("exec").bad(Cause::Missing));
                }
                Self::Exec(words)
            }
            ProbeKind::Http(http) => Self::Http(model::HttpProbe::try_from(http)?),
            ProbeKind::Tcp(number) => Self::Tcp { port: port(at("tcp"), number)? },
            ProbeKind::Grpc(proto::GrpcProbe { port: number, service }) => {
                let at = |field| Field("GrpcProbe", field);
                Self::Grpc { port: port(at("port"), number)?, service: line(at("service"), service)? }
            }
        })
    }
}

impl From<&model::HttpProbe> for proto::HttpProbe {
    fn from(probe: &model::HttpProbe) -> Self {
        let model::HttpProbe { port, path, tls, host, headers } = probe;
        let header =
            |(name, value): &(String, String)| proto::Header { name: name.clone(), value: value.clone() };
        Self {
            port: (*port).into(),
            path: path.clone(),
            tls: *tls,
            host: host.clone(),
            headers: headers.iter().map(header).collect(),
        }
    }
}

impl TryFrom<proto::HttpProbe> for model::HttpProbe {
    type Error = Invalid;

    fn try_from(probe: proto::HttpProbe) -> Result<Self, Invalid> {
        let proto::HttpProbe { port: number, path, tls, host, headers } = probe;
        let at = |field| Field("HttpProbe", field);
        Ok(Self {
            port: port(at("port"), number)?,
            path: at("path").absolute(line(at("path"), path)?)?,
            tls,
            host: host.map(|host| line(at("host"), host)).transpose()?,
            headers: headers.into_iter().map(header).collect::<Result<_, _>>()?,
        })
    }
}

/// A header's name and value.
fn header(header: proto::Header) -> Result<(String, String), Invalid> {
    let proto::Header { name, value } = header;
    let at = |field| Field("Header", field);
    // A token of RFC 9110, section 5.6.2.
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(at("name").bad("it is not the name of a header"));
    }
    Ok((name, line(at("value"), value)?))
}

fn port(at: Field, number: u32) -> Result<u16, Invalid> {
    if number == 0 {
        return Err(at.bad(Cause::OutOfRange(0)));
    }
    at.narrowed(number)
}

/// Text that becomes part of a line of a request, and must not begin another.
fn line(at: Field, text: String) -> Result<String, Invalid> {
    if text.chars().any(char::is_control) {
        return Err(at.bad("it has a control character in it"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use expect_test::expect;
    use model::{Health, HealthCheck, Probe, Readiness};

    use super::*;
    use crate::history;
    use crate::nouns::tests::reads_back;

    #[test]
    fn every_way_to_ask_reads_back_as_written() {
        for probe in history::probes() {
            reads_back::<proto::Probe, _>(&probe);
            reads_back::<proto::Readiness, _>(&Readiness { probe, ..history::readiness() });
        }
        let check = history::check();
        let some = |probe| Health::Check(HealthCheck { probe, ..check.clone() });
        for health in [
            Health::Image,
            Health::Disabled,
            Health::Check(HealthCheck::default()),
            some(None),
            some(Some(Probe::Tcp { port: 1 })),
            some(check.probe.clone()),
        ] {
            reads_back::<proto::Health, _>(&health);
        }
    }

    /// Everything that is said of messages that are wrong.
    fn complaints<M, P>(messages: impl IntoIterator<Item = P>) -> String
    where
        M: Debug + TryFrom<P, Error = Invalid>,
    {
        let complaint = |message: P| {
            let invalid = M::try_from(message).unwrap_err();
            format!("{invalid}: {}\n", invalid.cause)
        };
        messages.into_iter().map(complaint).collect()
    }

    fn http(spoil: fn(&mut proto::HttpProbe)) -> ProbeKind {
        let header = proto::Header { name: "X-Probe".to_owned(), value: "1".to_owned() };
        let mut http = proto::HttpProbe {
            port: 80,
            path: "/".to_owned(),
            tls: false,
            host: Some("shop".to_owned()),
            headers: vec![header],
        };
        spoil(&mut http);
        ProbeKind::Http(http)
    }

    #[test]
    fn a_probe_that_cannot_be_made_is_refused() {
        let grpc =
            |port, service: &str| ProbeKind::Grpc(proto::GrpcProbe { port, service: service.to_owned() });
        let kinds = [
            ProbeKind::Exec(proto::Words { words: Vec::new() }),
            ProbeKind::Tcp(0),
            ProbeKind::Tcp(65_536),
            grpc(0, ""),
            grpc(80, "shop\n"),
            http(|http| http.port = 0),
            http(|http| http.path = "healthz".to_owned()),
            http(|http| http.path = "/\r\nHost: other".to_owned()),
            http(|http| http.host = Some("shop\n".to_owned())),
            http(|http| http.headers[0].name = String::new()),
            http(|http| http.headers[0].name = "X Probe".to_owned()),
            http(|http| http.headers[0].value = "1\r\n".to_owned()),
        ];
        assert!(Probe::try_from(proto::Probe { kind: Some(http(|_| ())) }).is_ok());
        let probes = kinds.map(|kind| proto::Probe { kind: Some(kind) });
        expect![[r#"
            invalid Probe: kind: this version of gantry does not know what kind it is, or it has none
            invalid Probe: exec: it is missing
            invalid Probe: tcp: 0 is out of range
            invalid Probe: tcp: 65536 is out of range
            invalid GrpcProbe: port: 0 is out of range
            invalid GrpcProbe: service: it has a control character in it
            invalid HttpProbe: port: 0 is out of range
            invalid HttpProbe: path: `healthz` is not an absolute path
            invalid HttpProbe: path: it has a control character in it
            invalid HttpProbe: host: it has a control character in it
            invalid Header: name: it is not the name of a header
            invalid Header: name: it is not the name of a header
            invalid Header: value: it has a control character in it
        "#]]
        .assert_eq(&complaints::<Probe, _>([proto::Probe { kind: None }].into_iter().chain(probes)));
    }

    #[test]
    fn what_would_never_or_always_be_asked_is_refused() {
        let ready = || proto::Readiness::from(&history::readiness());
        let readiness = [
            proto::Readiness { probe: None, ..ready() },
            proto::Readiness { interval: 0, ..ready() },
            proto::Readiness { timeout: 0, ..ready() },
            proto::Readiness { successes: 0, ..ready() },
            proto::Readiness { failures: 0, ..ready() },
        ];
        let checked = || proto::HealthCheck::from(&history::check());
        let checks = [
            proto::HealthCheck { interval: Some(0), ..checked() },
            proto::HealthCheck { timeout: Some(0), ..checked() },
            proto::HealthCheck { retries: Some(0), ..checked() },
            proto::HealthCheck { start_interval: Some(0), ..checked() },
        ];
        assert!(HealthCheck::try_from(proto::HealthCheck { start_period: Some(0), ..checked() }).is_ok());
        let text = complaints::<Readiness, _>(readiness)
            + &complaints::<HealthCheck, _>(checks)
            + &complaints::<Health, _>([proto::Health { kind: None }]);
        expect![[r#"
            invalid Readiness: probe: it is missing
            invalid Readiness: interval: 0 is out of range
            invalid Readiness: timeout: 0 is out of range
            invalid Readiness: successes: 0 is out of range
            invalid Readiness: failures: 0 is out of range
            invalid HealthCheck: interval: 0 is out of range
            invalid HealthCheck: timeout: 0 is out of range
            invalid HealthCheck: retries: 0 is out of range
            invalid HealthCheck: start_interval: 0 is out of range
            invalid Health: kind: this version of gantry does not know what kind it is, or it has none
        "#]]
        .assert_eq(&text);
    }
}
