//! Why commands had no effect: part of the answer that a repeated request gets, so it is kept with the answer.

use model::{LogIndex, NodeId, ServiceId, SpecVersion, TaskId};
use state::Rejected;
use state::command::Lacking;

use crate::proto::log as proto;
use crate::proto::log::lacking::Kind as LackingKind;
use crate::proto::log::rejected::{self as of, Kind};
use crate::proto::model::{self as nouns, Nothing};
use crate::{Field, Invalid};

impl From<&Rejected> for proto::Rejected {
    fn from(rejected: &Rejected) -> Self {
        Self { kind: Some(kind_of(rejected)) }
    }
}

/// One arm a reason and no decisions: the length is the number of reasons.
fn kind_of(rejected: &Rejected) -> Kind {
    match rejected {
        Rejected::Founded => Kind::Founded(Nothing {}),
        Rejected::NotFounded => Kind::NotFounded(Nothing {}),
        Rejected::NoStack(name) => Kind::NoStack(name.to_string()),
        Rejected::NoService(name) => Kind::NoService(name.to_string()),
        Rejected::NoServiceId(service) => Kind::NoServiceId(service.0),
        Rejected::NoTask(task) => Kind::NoTask(task.into()),
        Rejected::NoNode(node) => Kind::NoNode(node.0),
        Rejected::NoImage(name) => Kind::NoImage(name.to_string()),
        Rejected::NoImageContent(image) => Kind::NoImageContent(image.to_string()),
        Rejected::Changed { name, expected, actual } => {
            Kind::Changed(of::Changed { name: name.clone(), expected: expected.0, actual: actual.0 })
        }
        Rejected::NodeNameTaken(name) => Kind::NodeNameTaken(name.to_string()),
        Rejected::BadToken => Kind::BadToken(Nothing {}),
        Rejected::NoSubnet => Kind::NoSubnet(Nothing {}),
        Rejected::OutOfSequence(task) => Kind::OutOfSequence(task.into()),
        Rejected::Removing(service) => Kind::Removing(service.0),
        Rejected::NoVersion(service, version) => {
            Kind::NoVersion(of::NoVersion { service: service.0, version: version.0 })
        }
        Rejected::AlreadyAssigned(task) => Kind::AlreadyAssigned(task.into()),
        Rejected::NotWanted(task) => Kind::NotWanted(task.into()),
        Rejected::NodeUnavailable(node) => Kind::NodeUnavailable(node.0),
        Rejected::DoesNotFit { task, node, lacking } => Kind::DoesNotFit(of::DoesNotFit {
            task: Some(task.into()),
            node: node.0,
            lacking: Some(lacking.into()),
        }),
        Rejected::StillRunning(task) => Kind::StillRunning(task.into()),
        Rejected::HasTasks(service) => Kind::HasTasks(service.0),
        Rejected::ImageInUse { name, service } => {
            Kind::ImageInUse(of::ImageInUse { name: name.to_string(), service: service.to_string() })
        }
        Rejected::ImageKept(image) => Kind::ImageKept(image.to_string()),
        Rejected::NoRegistry(registry) => Kind::NoRegistry(registry.to_string()),
        Rejected::TooManyRegistries => Kind::TooManyRegistries(Nothing {}),
        Rejected::RegistryTooLarge(registry) => Kind::RegistryTooLarge(registry.to_string()),
        Rejected::NotInPlace(task, version) => {
            Kind::NotInPlace(of::NotInPlace { task: Some(task.into()), version: version.0 })
        }
        Rejected::NotItsRollout(service, version) => {
            Kind::NotItsRollout(of::NoVersion { service: service.0, version: version.0 })
        }
        Rejected::CannotSteer { service, phase, hint } => Kind::CannotSteer(of::CannotSteer {
            service: service.to_string(),
            phase: nouns::RolloutPhase::from(*phase).into(),
            hint: hint.clone(),
        }),
        Rejected::NotItsNode(task, node) => {
            Kind::NotItsNode(of::NotItsNode { task: Some(task.into()), node: node.0 })
        }
        Rejected::NodeIsUp(name) => Kind::NodeIsUp(name.to_string()),
        Rejected::TooManyLabels => Kind::TooManyLabels(Nothing {}),
        Rejected::IsJob(service) => Kind::IsJob(service.to_string()),
        Rejected::NoJob(service) => Kind::NoJob(service.to_string()),
        Rejected::RunGoesOn { service, run } => {
            Kind::RunGoesOn(of::RunGoesOn { service: service.to_string(), run: *run })
        }
        Rejected::NoRun(service, run) => Kind::NoRun(of::Run { service: service.0, run: *run }),
        Rejected::NotDue(service) => Kind::NotDue(service.0),
        Rejected::RunNotDone(service, run) => Kind::RunNotDone(of::Run { service: service.0, run: *run }),
        Rejected::CannotScale(service) => Kind::CannotScale(service.to_string()),
        Rejected::RunOnce(service) => Kind::RunOnce(service.to_string()),
        Rejected::NothingToUndo(service) => Kind::NothingToUndo(service.to_string()),
        Rejected::VersionGone { service, version } => {
            Kind::VersionGone(of::VersionGone { service: service.to_string(), version: version.0 })
        }
    }
}

impl TryFrom<proto::Rejected> for Rejected {
    type Error = Invalid;

    fn try_from(rejected: proto::Rejected) -> Result<Self, Invalid> {
        let proto::Rejected { kind } = rejected;
        let at = |field| Field("Rejected", field);
        Ok(match at("kind").kind(kind)? {
            Kind::Founded(Nothing {}) => Self::Founded,
            Kind::NotFounded(Nothing {}) => Self::NotFounded,
            Kind::NoStack(name) => Self::NoStack(at("no_stack").parsed(&name)?),
            Kind::NoService(name) => Self::NoService(at("no_service").parsed(&name)?),
            Kind::NoServiceId(service) => Self::NoServiceId(ServiceId(service)),
            Kind::NoTask(task) => Self::NoTask(TaskId::try_from(task)?),
            Kind::NoNode(node) => Self::NoNode(NodeId(node)),
            Kind::NoImage(name) => Self::NoImage(at("no_image").parsed(&name)?),
            Kind::NoImageContent(image) => Self::NoImageContent(at("no_image_content").parsed(&image)?),
            Kind::Changed(of::Changed { name, expected, actual }) => {
                Self::Changed { name, expected: LogIndex(expected), actual: LogIndex(actual) }
            }
            Kind::NodeNameTaken(name) => Self::NodeNameTaken(at("node_name_taken").parsed(&name)?),
            Kind::BadToken(Nothing {}) => Self::BadToken,
            Kind::NoSubnet(Nothing {}) => Self::NoSubnet,
            Kind::OutOfSequence(task) => Self::OutOfSequence(TaskId::try_from(task)?),
            Kind::Removing(service) => Self::Removing(ServiceId(service)),
            Kind::NoVersion(of::NoVersion { service, version }) => {
                Self::NoVersion(ServiceId(service), SpecVersion(version))
            }
            Kind::AlreadyAssigned(task) => Self::AlreadyAssigned(TaskId::try_from(task)?),
            Kind::NotWanted(task) => Self::NotWanted(TaskId::try_from(task)?),
            Kind::NodeUnavailable(node) => Self::NodeUnavailable(NodeId(node)),
            Kind::DoesNotFit(does_not_fit) => Self::try_from(does_not_fit)?,
            Kind::StillRunning(task) => Self::StillRunning(TaskId::try_from(task)?),
            Kind::HasTasks(service) => Self::HasTasks(ServiceId(service)),
            Kind::ImageInUse(image_in_use) => Self::try_from(image_in_use)?,
            Kind::ImageKept(image) => Self::ImageKept(at("image_kept").parsed(&image)?),
            Kind::NoRegistry(registry) => Self::NoRegistry(at("no_registry").parsed(&registry)?),
            Kind::TooManyRegistries(Nothing {}) => Self::TooManyRegistries,
            Kind::RegistryTooLarge(registry) => {
                Self::RegistryTooLarge(at("registry_too_large").parsed(&registry)?)
            }
            Kind::NotInPlace(of::NotInPlace { task, version }) => {
                Self::NotInPlace(Field("NotInPlace", "task").required(task)?, SpecVersion(version))
            }
            Kind::NotItsRollout(of::NoVersion { service, version }) => {
                Self::NotItsRollout(ServiceId(service), SpecVersion(version))
            }
            Kind::CannotSteer(of::CannotSteer { service, phase, hint }) => {
                let at = |field| Field("CannotSteer", field);
                let phase = at("phase").choice::<nouns::RolloutPhase, _>(phase)?;
                Self::CannotSteer { service: at("service").parsed(&service)?, phase, hint }
            }
            Kind::NotItsNode(of::NotItsNode { task, node }) => {
                Self::NotItsNode(Field("NotItsNode", "task").required(task)?, NodeId(node))
            }
            Kind::NodeIsUp(name) => Self::NodeIsUp(at("node_is_up").parsed(&name)?),
            Kind::TooManyLabels(Nothing {}) => Self::TooManyLabels,
            Kind::IsJob(name) => Self::IsJob(at("is_job").parsed(&name)?),
            Kind::NoJob(name) => Self::NoJob(at("no_job").parsed(&name)?),
            Kind::RunGoesOn(of::RunGoesOn { service, run }) => {
                Self::RunGoesOn { service: Field("RunGoesOn", "service").parsed(&service)?, run }
            }
            Kind::NoRun(of::Run { service, run }) => Self::NoRun(ServiceId(service), run),
            Kind::NotDue(service) => Self::NotDue(ServiceId(service)),
            Kind::RunNotDone(of::Run { service, run }) => Self::RunNotDone(ServiceId(service), run),
            Kind::CannotScale(name) => Self::CannotScale(at("cannot_scale").parsed(&name)?),
            Kind::RunOnce(name) => Self::RunOnce(at("run_once").parsed(&name)?),
            Kind::NothingToUndo(name) => Self::NothingToUndo(at("nothing_to_undo").parsed(&name)?),
            Kind::VersionGone(of::VersionGone { service, version }) => Self::VersionGone {
                service: Field("VersionGone", "service").parsed(&service)?,
                version: SpecVersion(version),
            },
        })
    }
}

impl TryFrom<of::DoesNotFit> for Rejected {
    type Error = Invalid;

    fn try_from(does_not_fit: of::DoesNotFit) -> Result<Self, Invalid> {
        let of::DoesNotFit { task, node, lacking } = does_not_fit;
        let at = |field| Field("DoesNotFit", field);
        Ok(Self::DoesNotFit {
            task: at("task").required(task)?,
            node: NodeId(node),
            lacking: at("lacking").required(lacking)?,
        })
    }
}

impl TryFrom<of::ImageInUse> for Rejected {
    type Error = Invalid;

    fn try_from(image_in_use: of::ImageInUse) -> Result<Self, Invalid> {
        let of::ImageInUse { name, service } = image_in_use;
        let at = |field| Field("ImageInUse", field);
        Ok(Self::ImageInUse { name: at("name").parsed(&name)?, service: at("service").parsed(&service)? })
    }
}

impl From<&Lacking> for proto::Lacking {
    fn from(lacking: &Lacking) -> Self {
        let kind = match lacking {
            Lacking::Cpu => LackingKind::Cpu(Nothing {}),
            Lacking::Memory => LackingKind::Memory(Nothing {}),
            Lacking::HostPort(port) => LackingKind::HostPort((*port).into()),
            Lacking::AnyHostPort => LackingKind::AnyHostPort(Nothing {}),
            Lacking::Address => LackingKind::Address(Nothing {}),
            Lacking::Places(most) => LackingKind::Places(*most),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::Lacking> for Lacking {
    type Error = Invalid;

    fn try_from(lacking: proto::Lacking) -> Result<Self, Invalid> {
        let proto::Lacking { kind } = lacking;
        let at = |field| Field("Lacking", field);
        Ok(match at("kind").kind(kind)? {
            LackingKind::Cpu(Nothing {}) => Self::Cpu,
            LackingKind::Memory(Nothing {}) => Self::Memory,
            LackingKind::HostPort(port) => Self::HostPort(at("host_port").narrowed(port)?),
            LackingKind::AnyHostPort(Nothing {}) => Self::AnyHostPort,
            LackingKind::Address(Nothing {}) => Self::Address,
            LackingKind::Places(most) => Self::Places(most),
        })
    }
}
