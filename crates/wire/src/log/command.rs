//! Commands.

use std::collections::BTreeMap;

use model::{
    Bytes, ClusterId, Digest, Generation, LogIndex, Name, NodeId, RegistryName, ServiceId, SpecVersion,
    Subnet, Timestamp,
};
use state::command::{Advance, Authority, Command, Declared, RegistryChange, Steer};

use crate::invalid::list;
use crate::nouns::node::{availability, read_availability};
use crate::proto::log as proto;
use crate::proto::log::command::advance::{How, Progressed, RolledBack};
use crate::proto::log::command::put_registry::{Change, Settings};
use crate::proto::log::command::{self as of, Kind};
use crate::proto::model as nouns;
use crate::{Cause, Field, Invalid};

impl From<&Command> for proto::Command {
    fn from(command: &Command) -> Self {
        Self { kind: Some(kind_of(command)) }
    }
}

/// One arm a command and no decisions: the length is the number of commands.
fn kind_of(command: &Command) -> Kind {
    match command {
        Command::Found { cluster, range, node_prefix, authority } => {
            Kind::Found(found(*cluster, range, *node_prefix, authority))
        }
        Command::PutToken { digest, role, expires } => Kind::PutToken(of::PutToken {
            digest: digest.to_vec(),
            role: nouns::Role::from(*role).into(),
            expires: expires.0,
        }),
        Command::AdmitNode { name, role, address, token, key } => Kind::AdmitNode(of::AdmitNode {
            name: name.to_string(),
            role: nouns::Role::from(*role).into(),
            address: address.to_string(),
            token: token.map(|digest| digest.to_vec()),
            key: key.map(|digest| digest.to_vec()),
        }),
        Command::DescribeNode { node, address, labels, capacity, platform, version } => {
            Kind::DescribeNode(of::DescribeNode {
                node: node.0,
                address: address.to_string(),
                labels: labels.clone(),
                capacity: Some((*capacity).into()),
                platform: platform.as_ref().map(Into::into),
                version: version.clone(),
            })
        }
        Command::SetAvailability { node, availability: wanted } => {
            let (availability, drain_until) = availability(*wanted);
            Kind::SetAvailability(of::SetAvailability {
                node: node.0,
                availability: availability.into(),
                drain_until,
            })
        }
        Command::LabelNode { node, labels } => Kind::LabelNode(label_node(*node, labels)),
        Command::RemoveNode { node } => Kind::RemoveNode(of::RemoveNode { node: node.0 }),
        Command::Configure { strategy } => {
            Kind::Configure(of::Configure { strategy: nouns::Strategy::from(*strategy).into() })
        }
        Command::SetLiveness { node, ready } => {
            Kind::SetLiveness(of::SetLiveness { node: node.0, ready: *ready })
        }
        Command::Deploy { stack, services, expected } => Kind::Deploy(deploy(stack, services, *expected)),
        Command::RemoveStack { stack } => Kind::RemoveStack(of::RemoveStack { stack: stack.to_string() }),
        Command::Scale { service, replicas, expected } => Kind::Scale(of::Scale {
            service: service.to_string(),
            replicas: *replicas,
            expected: expected.map(|index| index.0),
        }),
        Command::Undo { service, to } => {
            Kind::Undo(of::Undo { service: service.to_string(), to: to.map(|version| version.0) })
        }
        Command::Restart { service } => Kind::Restart(of::Restart { service: service.to_string() }),
        Command::Steer { service, how } => {
            Kind::Steer(of::Steer { service: service.to_string(), how: proto::SteerHow::from(*how).into() })
        }
        Command::Advance { service, to, how } => {
            Kind::Advance(of::Advance { service: service.0, to: to.0, how: Some(how.into()) })
        }
        Command::Revise { task, version } => {
            Kind::Revise(of::Revise { task: Some(task.into()), version: version.0 })
        }
        Command::Move { task } => Kind::Move(of::Move { task: Some(task.into()) }),
        Command::RunJob { service } => Kind::RunJob(of::RunJob { service: service.to_string() }),
        Command::StopJob { service } => Kind::StopJob(of::StopJob { service: service.to_string() }),
        Command::Due { service, at } => Kind::Due(of::Due { service: service.0, at: at.0 }),
        Command::EndRun { service, run, how } => {
            Kind::EndRun(of::EndRun { service: service.0, run: *run, how: Some(how.into()) })
        }
        Command::DropService { service } => Kind::DropService(of::DropService { service: service.0 }),
        Command::CreateTask { task, version, run, avoid } => Kind::CreateTask(of::CreateTask {
            task: Some(task.into()),
            version: version.0,
            run: *run,
            avoid: avoid.map(|node| node.0),
        }),
        Command::Assign { task, node } => Kind::Assign(of::Assign { task: Some(task.into()), node: node.0 }),
        Command::SetDesired { task, desired } => Kind::SetDesired(of::SetDesired {
            task: Some(task.into()),
            desired: nouns::Desired::from(*desired).into(),
        }),
        Command::Conclude { task, verdict } => Kind::Conclude(of::Conclude {
            task: Some(task.into()),
            verdict: nouns::TaskVerdict::from(*verdict).into(),
        }),
        Command::Report { node, statuses } => {
            Kind::Report(of::Report { node: node.0, statuses: statuses.iter().map(Into::into).collect() })
        }
        Command::PutImage { name, image, size, holder } => Kind::PutImage(of::PutImage {
            name: name.to_string(),
            image: image.to_string(),
            size: size.0,
            holder: holder.0,
        }),
        Command::RemoveImage { name } => Kind::RemoveImage(of::RemoveImage { name: name.to_string() }),
        Command::KeepCopy { image, node } => {
            Kind::KeepCopy(of::KeepCopy { image: image.to_string(), node: node.0 })
        }
        Command::ReportImages { node, held } => Kind::ReportImages(of::ReportImages {
            node: node.0,
            held: held.iter().map(ToString::to_string).collect(),
        }),
        Command::DropImage { image } => Kind::DropImage(of::DropImage { image: image.to_string() }),
        Command::NameImage { name, image, size, origin, automatic } => Kind::NameImage(of::NameImage {
            name: name.to_string(),
            image: image.to_string(),
            size: size.0,
            origin: origin.as_ref().map(ToString::to_string),
            automatic: *automatic,
        }),
        Command::PutRegistry { registry, change } => {
            Kind::PutRegistry(of::PutRegistry { registry: registry.to_string(), change: Some(change.into()) })
        }
        Command::RemoveRegistry { registry } => {
            Kind::RemoveRegistry(of::RemoveRegistry { registry: registry.to_string() })
        }
    }
}

fn label_node(node: NodeId, labels: &BTreeMap<String, Option<String>>) -> of::LabelNode {
    let set = labels.iter().filter_map(|(key, value)| value.clone().map(|value| (key.clone(), value)));
    let remove = labels.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| key.clone());
    of::LabelNode { node: node.0, set: set.collect(), remove: remove.collect() }
}

fn found(cluster: ClusterId, range: &Subnet, node_prefix: u8, authority: &Authority) -> of::Found {
    of::Found {
        cluster: cluster.to_string(),
        range: Some(range.into()),
        node_prefix: node_prefix.into(),
        authority: Some(authority.into()),
    }
}

fn deploy(stack: &Name, services: &BTreeMap<Name, Declared>, expected: Option<Generation>) -> of::Deploy {
    of::Deploy {
        stack: stack.to_string(),
        services: services.iter().map(|(name, declared)| (name.to_string(), declared.into())).collect(),
        expected: expected.map(|index| index.0),
    }
}

impl TryFrom<proto::Command> for Command {
    type Error = Invalid;

    fn try_from(command: proto::Command) -> Result<Self, Invalid> {
        let proto::Command { kind } = command;
        match Field("Command", "kind").kind(kind)? {
            Kind::Found(found) => found.try_into(),
            Kind::PutToken(token) => token.try_into(),
            Kind::AdmitNode(node) => node.try_into(),
            Kind::DescribeNode(node) => node.try_into(),
            Kind::SetAvailability(of::SetAvailability { node, availability, drain_until }) => {
                let at = Field("SetAvailability", "availability");
                let availability = read_availability(at, availability, drain_until)?;
                Ok(Self::SetAvailability { node: NodeId(node), availability })
            }
            Kind::LabelNode(of::LabelNode { node, set, remove }) => {
                let set = set.into_iter().map(|(key, value)| (key, Some(value)));
                let labels = set.chain(remove.into_iter().map(|key| (key, None))).collect();
                Ok(Self::LabelNode { node: NodeId(node), labels })
            }
            Kind::RemoveNode(of::RemoveNode { node }) => Ok(Self::RemoveNode { node: NodeId(node) }),
            Kind::Configure(of::Configure { strategy }) => Ok(Self::Configure {
                strategy: Field("Configure", "strategy").choice::<nouns::Strategy, _>(strategy)?,
            }),
            Kind::SetLiveness(of::SetLiveness { node, ready }) => {
                Ok(Self::SetLiveness { node: NodeId(node), ready })
            }
            Kind::Deploy(deploy) => deploy.try_into(),
            Kind::RemoveStack(of::RemoveStack { stack }) => {
                Ok(Self::RemoveStack { stack: Field("RemoveStack", "stack").parsed(&stack)? })
            }
            Kind::Scale(scale) => scale.try_into(),
            Kind::Undo(of::Undo { service, to }) => Ok(Self::Undo {
                service: Field("Undo", "service").parsed(&service)?,
                to: to.map(SpecVersion),
            }),
            Kind::Restart(of::Restart { service }) => {
                Ok(Self::Restart { service: Field("Restart", "service").parsed(&service)? })
            }
            Kind::Steer(of::Steer { service, how }) => {
                let at = |field| Field("Steer", field);
                let how = at("how").choice::<proto::SteerHow, _>(how)?;
                Ok(Self::Steer { service: at("service").parsed(&service)?, how })
            }
            Kind::Advance(of::Advance { service, to, how }) => {
                let how = Field("Advance", "how").kind(how)?.into();
                Ok(Self::Advance { service: ServiceId(service), to: SpecVersion(to), how })
            }
            Kind::RunJob(of::RunJob { service }) => {
                Ok(Self::RunJob { service: Field("RunJob", "service").parsed(&service)? })
            }
            Kind::StopJob(of::StopJob { service }) => {
                Ok(Self::StopJob { service: Field("StopJob", "service").parsed(&service)? })
            }
            Kind::Due(of::Due { service, at }) => {
                Ok(Self::Due { service: ServiceId(service), at: Timestamp(at) })
            }
            Kind::EndRun(of::EndRun { service, run, how }) => {
                let how = Field("EndRun", "how").required(how)?;
                Ok(Self::EndRun { service: ServiceId(service), run, how })
            }
            Kind::Revise(of::Revise { task, version }) => {
                let task = Field("Revise", "task").required(task)?;
                Ok(Self::Revise { task, version: SpecVersion(version) })
            }
            Kind::Move(of::Move { task }) => Ok(Self::Move { task: Field("Move", "task").required(task)? }),
            Kind::DropService(of::DropService { service }) => {
                Ok(Self::DropService { service: ServiceId(service) })
            }
            Kind::CreateTask(task) => task.try_into(),
            Kind::Assign(of::Assign { task, node }) => {
                Ok(Self::Assign { task: Field("Assign", "task").required(task)?, node: NodeId(node) })
            }
            Kind::SetDesired(desired) => desired.try_into(),
            Kind::Conclude(conclude) => conclude.try_into(),
            Kind::Report(of::Report { node, statuses }) => {
                Ok(Self::Report { node: NodeId(node), statuses: list(statuses)? })
            }
            Kind::PutImage(image) => image.try_into(),
            Kind::RemoveImage(of::RemoveImage { name }) => {
                Ok(Self::RemoveImage { name: Field("RemoveImage", "name").parsed(&name)? })
            }
            Kind::KeepCopy(of::KeepCopy { image, node }) => {
                Ok(Self::KeepCopy { image: Field("KeepCopy", "image").parsed(&image)?, node: NodeId(node) })
            }
            Kind::ReportImages(images) => images.try_into(),
            Kind::DropImage(of::DropImage { image }) => {
                Ok(Self::DropImage { image: Field("DropImage", "image").parsed(&image)? })
            }
            Kind::NameImage(image) => image.try_into(),
            Kind::PutRegistry(of::PutRegistry { registry, change }) => {
                let at = |field| Field("PutRegistry", field);
                let change = at("change").kind(change)?.try_into()?;
                Ok(Self::PutRegistry { registry: at("registry").parsed(&registry)?, change })
            }
            Kind::RemoveRegistry(of::RemoveRegistry { registry }) => {
                Ok(Self::RemoveRegistry { registry: Field("RemoveRegistry", "registry").parsed(&registry)? })
            }
        }
    }
}

impl TryFrom<of::Found> for Command {
    type Error = Invalid;

    fn try_from(found: of::Found) -> Result<Self, Invalid> {
        let of::Found { cluster, range, node_prefix, authority } = found;
        let at = |field| Field("Found", field);
        let range = at("range").required(range)?;
        Ok(Self::Found {
            cluster: ClusterId(at("cluster").hex(&cluster)?),
            range,
            node_prefix: node_prefix_of(at("node_prefix"), range, node_prefix)?,
            authority: at("authority").required(authority)?,
        })
    }
}

/// The prefix length of a node's part of the cluster's range: `state` divides the range by it without looking back.
pub(super) fn node_prefix_of(at: Field, range: Subnet, prefix: u32) -> Result<u8, Invalid> {
    if !(u32::from(range.prefix)..=30).contains(&prefix) {
        return Err(at.bad(Cause::OutOfRange(prefix.into())));
    }
    at.narrowed(prefix)
}

impl TryFrom<of::PutToken> for Command {
    type Error = Invalid;

    fn try_from(token: of::PutToken) -> Result<Self, Invalid> {
        let of::PutToken { digest, role, expires } = token;
        let at = |field| Field("PutToken", field);
        Ok(Self::PutToken {
            digest: at("digest").hash(digest)?,
            role: at("role").choice::<nouns::Role, _>(role)?,
            expires: Timestamp(expires),
        })
    }
}

impl TryFrom<of::AdmitNode> for Command {
    type Error = Invalid;

    fn try_from(node: of::AdmitNode) -> Result<Self, Invalid> {
        let of::AdmitNode { name, role, address, token, key } = node;
        let at = |field| Field("AdmitNode", field);
        Ok(Self::AdmitNode {
            name: at("name").parsed(&name)?,
            role: at("role").choice::<nouns::Role, _>(role)?,
            address: at("address").address(&address)?,
            token: token.map(|digest| at("token").hash(digest)).transpose()?,
            key: key.map(|digest| at("key").hash(digest)).transpose()?,
        })
    }
}

impl TryFrom<of::DescribeNode> for Command {
    type Error = Invalid;

    fn try_from(described: of::DescribeNode) -> Result<Self, Invalid> {
        let of::DescribeNode { node, address, labels, capacity, platform, version } = described;
        let at = |field| Field("DescribeNode", field);
        Ok(Self::DescribeNode {
            node: NodeId(node),
            address: at("address").address(&address)?,
            labels,
            capacity: at("capacity").present(capacity)?.into(),
            platform: platform.map(Into::into),
            version,
        })
    }
}

impl TryFrom<of::Deploy> for Command {
    type Error = Invalid;

    fn try_from(deploy: of::Deploy) -> Result<Self, Invalid> {
        let of::Deploy { stack, services, expected } = deploy;
        let at = |field| Field("Deploy", field);
        let mut declared = BTreeMap::new();
        for (name, service) in services {
            let name: Name = at("services").parsed(&name)?;
            declared.insert(name, Declared::try_from(service)?);
        }
        Ok(Self::Deploy {
            stack: at("stack").parsed(&stack)?,
            services: declared,
            expected: generation(expected),
        })
    }
}

impl TryFrom<of::Scale> for Command {
    type Error = Invalid;

    fn try_from(scale: of::Scale) -> Result<Self, Invalid> {
        let of::Scale { service, replicas, expected } = scale;
        let service = Field("Scale", "service").parsed(&service)?;
        Ok(Self::Scale { service, replicas, expected: generation(expected) })
    }
}

impl TryFrom<of::CreateTask> for Command {
    type Error = Invalid;

    fn try_from(create: of::CreateTask) -> Result<Self, Invalid> {
        let of::CreateTask { task, version, run, avoid } = create;
        let task = Field("CreateTask", "task").required(task)?;
        Ok(Self::CreateTask { task, version: SpecVersion(version), run, avoid: avoid.map(NodeId) })
    }
}

impl TryFrom<of::SetDesired> for Command {
    type Error = Invalid;

    fn try_from(set: of::SetDesired) -> Result<Self, Invalid> {
        let of::SetDesired { task, desired } = set;
        let at = |field| Field("SetDesired", field);
        Ok(Self::SetDesired {
            task: at("task").required(task)?,
            desired: at("desired").choice::<nouns::Desired, _>(desired)?,
        })
    }
}

impl TryFrom<of::Conclude> for Command {
    type Error = Invalid;

    fn try_from(conclude: of::Conclude) -> Result<Self, Invalid> {
        let of::Conclude { task, verdict } = conclude;
        let at = |field| Field("Conclude", field);
        Ok(Self::Conclude {
            task: at("task").required(task)?,
            verdict: at("verdict").choice::<nouns::TaskVerdict, _>(verdict)?,
        })
    }
}

impl TryFrom<of::PutImage> for Command {
    type Error = Invalid;

    fn try_from(put: of::PutImage) -> Result<Self, Invalid> {
        let of::PutImage { name, image, size, holder } = put;
        let at = |field| Field("PutImage", field);
        Ok(Self::PutImage {
            name: at("name").parsed(&name)?,
            image: at("image").parsed(&image)?,
            size: Bytes(size),
            holder: NodeId(holder),
        })
    }
}

impl TryFrom<of::NameImage> for Command {
    type Error = Invalid;

    fn try_from(named: of::NameImage) -> Result<Self, Invalid> {
        let of::NameImage { name, image, size, origin, automatic } = named;
        let at = |field| Field("NameImage", field);
        Ok(Self::NameImage {
            name: at("name").parsed(&name)?,
            image: at("image").parsed(&image)?,
            size: Bytes(size),
            origin: origin.map(|origin| at("origin").parsed(&origin)).transpose()?,
            automatic,
        })
    }
}

impl From<Steer> for proto::SteerHow {
    fn from(how: Steer) -> Self {
        match how {
            Steer::Pause => Self::Pause,
            Steer::Resume => Self::Resume,
            Steer::Abort => Self::Abort,
            Steer::Promote => Self::Promote,
        }
    }
}

impl TryFrom<proto::SteerHow> for Steer {
    type Error = Invalid;

    fn try_from(how: proto::SteerHow) -> Result<Self, Invalid> {
        match how {
            proto::SteerHow::Unspecified => Err(Field("SteerHow", "value").bad(Cause::Missing)),
            proto::SteerHow::Pause => Ok(Self::Pause),
            proto::SteerHow::Resume => Ok(Self::Resume),
            proto::SteerHow::Abort => Ok(Self::Abort),
            proto::SteerHow::Promote => Ok(Self::Promote),
        }
    }
}

impl From<&Advance> for How {
    fn from(how: &Advance) -> Self {
        match how {
            Advance::Progressed { done, failed } => {
                Self::Progressed(Progressed { done: *done, failed: *failed })
            }
            Advance::Promoted => Self::Promoted(nouns::Nothing {}),
            Advance::Completed => Self::Completed(nouns::Nothing {}),
            Advance::Failed { reason } => Self::Failed(reason.clone()),
            Advance::RolledBack { to, reason } => {
                Self::RolledBack(RolledBack { to: to.0, reason: reason.clone() })
            }
        }
    }
}

impl From<How> for Advance {
    fn from(how: How) -> Self {
        match how {
            How::Progressed(Progressed { done, failed }) => Self::Progressed { done, failed },
            How::Promoted(nouns::Nothing {}) => Self::Promoted,
            How::Completed(nouns::Nothing {}) => Self::Completed,
            How::Failed(reason) => Self::Failed { reason },
            How::RolledBack(RolledBack { to, reason }) => Self::RolledBack { to: SpecVersion(to), reason },
        }
    }
}

impl From<&RegistryChange> for Change {
    fn from(change: &RegistryChange) -> Self {
        match change {
            RegistryChange::Settings { mirrors, ca, insecure } => Self::Settings(Settings {
                mirrors: mirrors.iter().map(ToString::to_string).collect(),
                ca: ca.clone(),
                insecure: *insecure,
            }),
            RegistryChange::LogIn(credential) => Self::LogIn(credential.into()),
            RegistryChange::LogOut => Self::LogOut(nouns::Nothing {}),
        }
    }
}

impl TryFrom<Change> for RegistryChange {
    type Error = Invalid;

    fn try_from(change: Change) -> Result<Self, Invalid> {
        let at = Field("PutRegistry.Settings", "mirrors");
        Ok(match change {
            Change::Settings(Settings { mirrors, ca, insecure }) => {
                let mirrors = mirrors.iter().map(|mirror| at.parsed::<RegistryName>(mirror));
                Self::Settings { mirrors: mirrors.collect::<Result<_, _>>()?, ca, insecure }
            }
            Change::LogIn(credential) => Self::LogIn(credential.try_into()?),
            Change::LogOut(nouns::Nothing {}) => Self::LogOut,
        })
    }
}

impl TryFrom<of::ReportImages> for Command {
    type Error = Invalid;

    fn try_from(report: of::ReportImages) -> Result<Self, Invalid> {
        let of::ReportImages { node, held } = report;
        let at = Field("ReportImages", "held");
        let held = held.iter().map(|digest| at.parsed::<Digest>(digest)).collect::<Result<_, _>>()?;
        Ok(Self::ReportImages { node: NodeId(node), held })
    }
}

fn generation(expected: Option<u64>) -> Option<Generation> {
    expected.map(LogIndex)
}

impl From<&Declared> for proto::Declared {
    fn from(declared: &Declared) -> Self {
        let Declared { spec, image, keep_replicas } = declared;
        Self { spec: Some(spec.into()), image: image.to_string(), keep_replicas: *keep_replicas }
    }
}

impl TryFrom<proto::Declared> for Declared {
    type Error = Invalid;

    fn try_from(declared: proto::Declared) -> Result<Self, Invalid> {
        let proto::Declared { spec, image, keep_replicas } = declared;
        let at = |field| Field("Declared", field);
        Ok(Self { spec: at("spec").required(spec)?, image: at("image").parsed(&image)?, keep_replicas })
    }
}

impl From<&Authority> for proto::Authority {
    fn from(authority: &Authority) -> Self {
        let Authority { certificate_pem, key_pem } = authority;
        Self { certificate_pem: certificate_pem.clone(), key_pem: key_pem.clone() }
    }
}

impl TryFrom<proto::Authority> for Authority {
    type Error = Invalid;

    fn try_from(authority: proto::Authority) -> Result<Self, Invalid> {
        let proto::Authority { certificate_pem, key_pem } = authority;
        Ok(Self { certificate_pem, key_pem })
    }
}
