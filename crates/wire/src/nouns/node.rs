//! Nodes and their addresses.

use model::{Bytes, MilliCpu, Timestamp};

use crate::invalid::choices;
use crate::proto::model as proto;
use crate::proto::model::liveness::Kind;
use crate::{Field, Invalid};

choices! {
    Role { Manager, Worker }
    Availability { Active, Pause, Drain }
}

impl From<&model::Node> for proto::Node {
    fn from(node: &model::Node) -> Self {
        let model::Node { name, role, address, labels, capacity, availability, liveness, subnet, version } =
            node;
        Self {
            name: name.to_string(),
            role: proto::Role::from(*role).into(),
            address: address.to_string(),
            labels: labels.clone(),
            capacity: Some((*capacity).into()),
            availability: proto::Availability::from(*availability).into(),
            liveness: Some(liveness.into()),
            subnet: Some(subnet.into()),
            version: version.clone(),
        }
    }
}

impl TryFrom<proto::Node> for model::Node {
    type Error = Invalid;

    fn try_from(node: proto::Node) -> Result<Self, Invalid> {
        let proto::Node { name, role, address, labels, capacity, availability, liveness, subnet, version } =
            node;
        let at = |field| Field("Node", field);
        Ok(Self {
            name: at("name").parsed(&name)?,
            role: at("role").choice::<proto::Role, _>(role)?,
            address: at("address").address(&address)?,
            labels,
            capacity: at("capacity").present(capacity)?.into(),
            availability: at("availability").choice::<proto::Availability, _>(availability)?,
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
