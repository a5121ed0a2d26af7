//! The agent's record of what it was last told about each task and of what it made of it.
//!
//! A record is written before the kernel is touched. It has to survive the agent, and for that the page cache is enough:
//! when the machine itself goes down, its containers are gone too, and the whole assignment is told again. Only a task's
//! end is synced, since others are given what it held.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Desired, Digest, HealthCheck, NodeId, Placement, Probe, Registry, RegistryName, TaskId, TaskSpec,
    TaskStatus,
};
use prost::Message as _;
use wire::{Field, proto};

use crate::host::{ImageSource, PullFrom};

/// One task as it is assigned to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub id: TaskId,
    /// `stack/service`.
    pub service: String,
    pub desired: Desired,
    pub spec: TaskSpec,
    pub placement: Placement,
    pub image: Digest,
    /// Who held the image when this was sent.
    pub holders: Vec<(NodeId, SocketAddr)>,
    /// Which registry has it. It is not in the ledger: there are credentials in it, and it is told with every session.
    pub pull: Option<Arc<PullFrom>>,
}

impl Assigned {
    pub fn source(&self) -> ImageSource {
        ImageSource { digest: self.image, holders: self.holders.clone(), pull: self.pull.clone() }
    }
}

/// What the ledger holds of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub assigned: Assigned,
    /// The last status that was made known, if any.
    pub status: Option<TaskStatus>,
    pub failures: u32,
    /// Whether anything of it may be on the host besides this record.
    pub remains: bool,
    /// The image's own health check, as it was when the image was prepared: a later agent goes on with it, also where the
    /// image cannot be read any more.
    pub image_check: Option<HealthCheck>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecordMessage {
    #[prost(message, optional, tag = "1")]
    assigned: Option<proto::agent::AssignedTask>,
    #[prost(message, optional, tag = "2")]
    observed: Option<proto::model::ObservedTask>,
    #[prost(uint32, tag = "3")]
    failures: u32,
    #[prost(bool, tag = "4")]
    remains: bool,
    #[prost(message, optional, tag = "5")]
    image_check: Option<ImageCheckMessage>,
}

/// An image's check is always a command. Times are in nanoseconds; what is 0 or empty is not said.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageCheckMessage {
    #[prost(string, repeated, tag = "1")]
    exec: Vec<String>,
    #[prost(uint64, tag = "2")]
    interval: u64,
    #[prost(uint64, tag = "3")]
    timeout: u64,
    #[prost(uint32, tag = "4")]
    retries: u32,
    #[prost(uint64, tag = "5")]
    start_period: u64,
    #[prost(uint64, tag = "6")]
    start_interval: u64,
}

impl From<&HealthCheck> for ImageCheckMessage {
    fn from(check: &HealthCheck) -> Self {
        let HealthCheck { probe, interval, timeout, retries, start_period, start_interval } = check;
        let nanos = |time: &Option<Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        Self {
            exec: match probe {
                Some(Probe::Exec(args)) => args.clone(),
                // No image says so.
                Some(Probe::Http(_) | Probe::Tcp { .. } | Probe::Grpc { .. }) | None => Vec::new(),
            },
            interval: nanos(interval),
            timeout: nanos(timeout),
            retries: retries.unwrap_or(0),
            start_period: nanos(start_period),
            start_interval: nanos(start_interval),
        }
    }
}

impl From<ImageCheckMessage> for HealthCheck {
    fn from(message: ImageCheckMessage) -> Self {
        let ImageCheckMessage { exec, interval, timeout, retries, start_period, start_interval } = message;
        let time = |nanos: u64| (nanos > 0).then(|| Duration::from_nanos(nanos));
        Self {
            probe: (!exec.is_empty()).then_some(Probe::Exec(exec)),
            interval: time(interval),
            timeout: time(timeout),
            retries: (retries > 0).then_some(retries),
            start_period: time(start_period),
            start_interval: time(start_interval),
        }
    }
}

impl Record {
    /// Of a task of which nothing was done yet.
    pub fn new(assigned: Assigned) -> Self {
        Self { assigned, status: None, failures: 0, remains: false, image_check: None }
    }

    pub fn encode(&self) -> Vec<u8> {
        let Self { assigned, status, failures, remains, image_check } = self;
        let observed = status.clone().map(|status| (assigned.id, status).into());
        let message = RecordMessage {
            assigned: Some(assigned.into()),
            observed,
            failures: *failures,
            remains: *remains,
            image_check: image_check.as_ref().map(Into::into),
        };
        message.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, wire::Invalid> {
        let message =
            RecordMessage::decode(bytes).map_err(|cause| wire::Invalid::new("Record", "", cause))?;
        let RecordMessage { assigned, observed, failures, remains, image_check } = message;
        let assigned = assigned.ok_or_else(|| wire::Invalid::new("Record", "assigned", "missing"))?;
        let observed = observed.map(<(TaskId, TaskStatus)>::try_from).transpose()?;
        Ok(Self {
            assigned: assigned.try_into()?,
            status: observed.map(|(_, status)| status),
            failures,
            remains,
            image_check: image_check.map(Into::into),
        })
    }
}

impl From<&Assigned> for proto::agent::AssignedTask {
    fn from(assigned: &Assigned) -> Self {
        let Assigned { id, service, desired, spec, placement, image, holders, pull: _ } = assigned;
        Self {
            id: Some((*id).into()),
            service: service.clone(),
            desired: proto::model::Desired::from(*desired).into(),
            spec: Some(spec.into()),
            placement: Some(placement.into()),
            image: Some(proto::agent::AssignedImage {
                digest: image.to_string(),
                holders: holders
                    .iter()
                    .map(|(node, address)| proto::agent::Holder {
                        node: node.0,
                        address: address.to_string(),
                    })
                    .collect(),
                optional: false,
                source: None,
            }),
        }
    }
}

impl TryFrom<proto::agent::AssignedTask> for Assigned {
    type Error = wire::Invalid;

    fn try_from(message: proto::agent::AssignedTask) -> Result<Self, wire::Invalid> {
        let missing = |field| move || wire::Invalid::new("AssignedTask", field, "missing");
        let desired = message.desired().try_into()?;
        let proto::agent::AssignedTask { id, service, desired: _, spec, placement, image } = message;
        let source = image_source(image.ok_or_else(missing("image"))?)?;
        Ok(Self {
            id: id.ok_or_else(missing("id"))?.try_into()?,
            service,
            desired,
            spec: spec.ok_or_else(missing("spec"))?.try_into()?,
            placement: placement.ok_or_else(missing("placement"))?.try_into()?,
            image: source.digest,
            holders: source.holders,
            pull: source.pull,
        })
    }
}

/// Reads an image and who has it.
pub(crate) fn image_source(message: proto::agent::AssignedImage) -> Result<ImageSource, wire::Invalid> {
    let proto::agent::AssignedImage { digest, holders, optional: _, source } = message;
    Ok(ImageSource {
        digest: wire::digest(&digest)?,
        holders: holders.iter().map(holder).collect::<Result<_, _>>()?,
        pull: source.map(|source| pull_from(source).map(Arc::new)).transpose()?,
    })
}

fn pull_from(message: proto::agent::PullSource) -> Result<PullFrom, wire::Invalid> {
    let proto::agent::PullSource { origin, registries } = message;
    Ok(PullFrom {
        origin: Field("PullSource", "origin").parsed(&origin)?,
        registries: registries_of(registries)?,
    })
}

pub(crate) fn registries_of(
    messages: BTreeMap<String, proto::model::Registry>,
) -> Result<BTreeMap<RegistryName, Registry>, wire::Invalid> {
    let at = Field("PullSource", "registries");
    let read = |(name, registry): (String, proto::model::Registry)| -> Result<_, wire::Invalid> {
        Ok((at.parsed::<RegistryName>(&name)?, Registry::try_from(registry)?))
    };
    messages.into_iter().map(read).collect()
}

pub(crate) fn holder(message: &proto::agent::Holder) -> Result<(NodeId, SocketAddr), wire::Invalid> {
    Ok((NodeId(message.node), wire::socket_address(&message.address)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::assigned;

    #[test]
    fn an_images_health_check_is_read_back() {
        let full = HealthCheck {
            probe: Some(Probe::Exec(vec!["/bin/sh".to_owned(), "-c".to_owned(), "exit 0".to_owned()])),
            interval: Some(Duration::from_nanos(1_500_000)),
            timeout: Some(Duration::from_secs(2)),
            retries: Some(4),
            start_period: Some(Duration::from_secs(3)),
            start_interval: Some(Duration::from_nanos(i64::MAX.unsigned_abs())),
        };
        for image_check in [None, Some(HealthCheck::default()), Some(full)] {
            let record = Record { image_check, ..Record::new(assigned(Desired::Running)) };
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn no_password_is_in_the_ledger() {
        let credential = proto::model::RegistryCredential {
            username: "me".to_owned(),
            secret: Some(proto::model::registry_credential::Secret::Password("hunter2".to_owned())),
        };
        let registry = proto::model::Registry { credential: Some(credential), ..Default::default() };
        let source = proto::agent::PullSource {
            origin: "docker.io/library/app".to_owned(),
            registries: [("docker.io".to_owned(), registry)].into(),
        };
        let mut message = proto::agent::AssignedTask::from(&assigned(Desired::Running));
        message.image.as_mut().unwrap().source = Some(source);
        let told = Assigned::try_from(message).unwrap();
        let registries = &told.pull.as_ref().unwrap().registries;
        assert!(registries.values().all(|registry| registry.credential.is_some()));
        let written = Record::new(told.clone()).encode();
        assert!(!written.windows(7).any(|bytes| bytes == b"hunter2"));
        assert_eq!(Record::decode(&written), Ok(Record::new(Assigned { pull: None, ..told })));
    }
}
