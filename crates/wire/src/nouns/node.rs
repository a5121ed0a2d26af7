//! Nodes and their addresses.

use model::{Bytes, MilliCpu, Timestamp};

use crate::invalid::choices;
use crate::proto::model as proto;
use crate::proto::model::liveness::Kind;
use crate::{Cause, Field, Invalid};

choices! {
    Role { Manager, Worker }
}

/// What is wanted of a node, and the time at which a drain's patience ends.
pub(crate) fn availability(availability: model::Availability) -> (proto::Availability, Option<u64>) {
    match availability {
        model::Availability::Active => (proto::Availability::Active, None),
        model::Availability::Pause => (proto::Availability::Pause, None),
        model::Availability::Drain { until } => (proto::Availability::Drain, until.map(|at| at.0)),
    }
}

/// The same, read.
pub fn read_availability(
    at: Field,
    availability: i32,
    until: Option<u64>,
) -> Result<model::Availability, Invalid> {
    match proto::Availability::try_from(availability) {
        Ok(proto::Availability::Active) => Ok(model::Availability::Active),
        Ok(proto::Availability::Pause) => Ok(model::Availability::Pause),
        Ok(proto::Availability::Drain) => Ok(model::Availability::Drain { until: until.map(Timestamp) }),
        Ok(proto::Availability::Unspecified) => Err(at.bad(Cause::Missing)),
        Err(_) => Err(at.bad(Cause::UnknownValue(availability))),
    }
}

impl From<&model::Platform> for proto::Platform {
    fn from(platform: &model::Platform) -> Self {
        let model::Platform { os, arch } = platform;
        Self { os: os.clone(), arch: arch.clone() }
    }
}

impl From<proto::Platform> for model::Platform {
    fn from(platform: proto::Platform) -> Self {
        let proto::Platform { os, arch } = platform;
        Self { os, arch }
    }
}

impl From<&model::Node> for proto::Node {
    fn from(node: &model::Node) -> Self {
        let model::Node {
            name,
            role,
            address,
            labels,
            engine_labels,
            capacity,
            platform,
            availability: wanted,
            liveness,
            subnet,
            version,
        } = node;
        let (wanted, drain_until) = availability(*wanted);
        Self {
            name: name.to_string(),
            role: proto::Role::from(*role).into(),
            address: address.to_string(),
            labels: labels.clone(),
            engine_labels: engine_labels.clone(),
            capacity: Some((*capacity).into()),
            platform: platform.as_ref().map(Into::into),
            availability: wanted.into(),
            drain_until,
            liveness: Some(liveness.into()),
            subnet: Some(subnet.into()),
            version: version.clone(),
        }
    }
}

impl TryFrom<proto::Node> for model::Node {
    type Error = Invalid;

    fn try_from(node: proto::Node) -> Result<Self, Invalid> {
        let proto::Node {
            name,
            role,
            address,
            labels,
            engine_labels,
            capacity,
            platform,
            availability,
            drain_until,
            liveness,
            subnet,
            version,
        } = node;
        let at = |field| Field("Node", field);
        Ok(Self {
            name: at("name").parsed(&name)?,
            role: at("role").choice::<proto::Role, _>(role)?,
            address: at("address").address(&address)?,
            labels,
            engine_labels,
            capacity: at("capacity").present(capacity)?.into(),
            platform: platform.map(Into::into),
            availability: read_availability(at("availability"), availability, drain_until)?,
            liveness: at("liveness").required(liveness)?,
            subnet: at("subnet").required(subnet)?,
            version,
        })
    }
}

impl From<model::Capacity> for proto::Capacity {
    fn from(capacity: model::Capacity) -> Self {
        let model::Capacity { cpu, memory } = capacity;
        Self { milli_cpu: cpu.0, memory: memory.0 }
    }
}

impl From<proto::Capacity> for model::Capacity {
    fn from(capacity: proto::Capacity) -> Self {
        let proto::Capacity { milli_cpu, memory } = capacity;
        Self { cpu: MilliCpu(milli_cpu), memory: Bytes(memory) }
    }
}

impl From<&model::Liveness> for proto::Liveness {
    fn from(liveness: &model::Liveness) -> Self {
        let kind = match liveness {
            model::Liveness::Unknown => Kind::Unknown(proto::Nothing {}),
            model::Liveness::Ready => Kind::Ready(proto::Nothing {}),
            model::Liveness::Down { since } => Kind::DownSince(since.0),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::Liveness> for model::Liveness {
    type Error = Invalid;

    fn try_from(liveness: proto::Liveness) -> Result<Self, Invalid> {
        let proto::Liveness { kind } = liveness;
        Ok(match Field("Liveness", "kind").kind(kind)? {
            Kind::Unknown(proto::Nothing {}) => Self::Unknown,
            Kind::Ready(proto::Nothing {}) => Self::Ready,
            Kind::DownSince(since) => Self::Down { since: Timestamp(since) },
        })
    }
}

impl From<&model::Subnet> for proto::Subnet {
    fn from(subnet: &model::Subnet) -> Self {
        let model::Subnet { base, prefix } = subnet;
        Self { base: base.to_string(), prefix: (*prefix).into() }
    }
}

impl TryFrom<proto::Subnet> for model::Subnet {
    type Error = Invalid;

    fn try_from(subnet: proto::Subnet) -> Result<Self, Invalid> {
        let proto::Subnet { base, prefix } = subnet;
        crate::subnet(&base, prefix)
    }
}
