//! Tasks.

use model::{NodeId, SpecVersion, Timestamp};

use crate::invalid::{choices, list, optional};
use crate::proto::model as proto;
use crate::proto::model::exit::{Kind, Signal};
use crate::{Field, Invalid};

choices! {
    Desired { Running, Yielding, Stopped, Removed }
    Phase { Preparing, Created, Starting, Running, Stopping, Exited }
    Ended { Stopped, Completed, GaveUp, Failing }
    TaskVerdict { Ended, Lost }
}

impl From<&model::Task> for proto::Task {
    fn from(task: &model::Task) -> Self {
        let model::Task { version, run, created, desired, avoid, leaves, placement, status, verdict } = task;
        Self {
            version: version.0,
            run: *run,
            created: created.0,
            desired: proto::Desired::from(*desired).into(),
            avoid: avoid.map(|node| node.0),
            leaves: *leaves,
            placement: placement.as_ref().map(Into::into),
            status: status.as_ref().map(Into::into),
            verdict: verdict.map(|verdict| proto::TaskVerdict::from(verdict).into()),
        }
    }
}

impl TryFrom<proto::Task> for model::Task {
    type Error = Invalid;

    fn try_from(task: proto::Task) -> Result<Self, Invalid> {
        let proto::Task { version, run, created, desired, avoid, leaves, placement, status, verdict } = task;
        let at = |field| Field("Task", field);
        Ok(Self {
            version: SpecVersion(version),
            run,
            created: Timestamp(created),
            desired: at("desired").choice::<proto::Desired, _>(desired)?,
            avoid: avoid.map(NodeId),
            leaves,
            placement: optional(placement)?,
            status: optional(status)?,
            verdict: verdict.map(|value| at("verdict").choice::<proto::TaskVerdict, _>(value)).transpose()?,
        })
    }
}

impl From<&model::Placement> for proto::Placement {
    fn from(placement: &model::Placement) -> Self {
        let model::Placement { node, at, address, ports } = placement;
        Self {
            node: node.0,
            at: at.0,
            address: address.to_string(),
            ports: ports.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Placement> for model::Placement {
    type Error = Invalid;

    fn try_from(placement: proto::Placement) -> Result<Self, Invalid> {
        let proto::Placement { node, at, address, ports } = placement;
        Ok(Self {
            node: NodeId(node),
            at: Timestamp(at),
            address: Field("Placement", "address").address(&address)?,
            ports: list(ports)?,
        })
    }
}

impl From<&model::PublishedPort> for proto::PublishedPort {
    fn from(port: &model::PublishedPort) -> Self {
        let model::PublishedPort { host, target, protocol } = port;
        Self {
            host: (*host).into(),
            target: (*target).into(),
            protocol: proto::Protocol::from(*protocol).into(),
        }
    }
}

impl TryFrom<proto::PublishedPort> for model::PublishedPort {
    type Error = Invalid;

    fn try_from(port: proto::PublishedPort) -> Result<Self, Invalid> {
        let proto::PublishedPort { host, target, protocol } = port;
        let at = |field| Field("PublishedPort", field);
        Ok(Self {
            host: at("host").narrowed(host)?,
            target: at("target").narrowed(target)?,
            protocol: at("protocol").choice::<proto::Protocol, _>(protocol)?,
        })
    }
}

impl From<&(model::TaskId, model::TaskStatus)> for proto::ObservedTask {
    fn from((id, status): &(model::TaskId, model::TaskStatus)) -> Self {
        Self { id: Some(id.into()), status: Some(status.into()) }
    }
}

impl From<(model::TaskId, model::TaskStatus)> for proto::ObservedTask {
    fn from(observed: (model::TaskId, model::TaskStatus)) -> Self {
        (&observed).into()
    }
}

impl TryFrom<proto::ObservedTask> for (model::TaskId, model::TaskStatus) {
    type Error = Invalid;

    fn try_from(observed: proto::ObservedTask) -> Result<Self, Invalid> {
        let proto::ObservedTask { id, status } = observed;
        let at = |field| Field("ObservedTask", field);
        Ok((at("id").required(id)?, at("status").required(status)?))
    }
}

impl From<&model::TaskStatus> for proto::TaskStatus {
    fn from(status: &model::TaskStatus) -> Self {
        let model::TaskStatus { attempt, phase, seq, ready, at, exit, ended, reason, warnings } = status;
        Self {
            attempt: *attempt,
            phase: proto::Phase::from(*phase).into(),
            seq: *seq,
            ready: *ready,
            at: at.0,
            exit: exit.as_ref().map(Into::into),
            ended: ended.map(|ended| proto::Ended::from(ended).into()),
            reason: reason.clone(),
            warnings: warnings.clone(),
        }
    }
}

impl TryFrom<proto::TaskStatus> for model::TaskStatus {
    type Error = Invalid;

    fn try_from(status: proto::TaskStatus) -> Result<Self, Invalid> {
        let proto::TaskStatus { attempt, phase, seq, ready, at: said, exit, ended, reason, warnings } =
            status;
        let at = |field| Field("TaskStatus", field);
        Ok(Self {
            attempt,
            phase: at("phase").choice::<proto::Phase, _>(phase)?,
            seq,
            ready,
            at: Timestamp(said),
            exit: optional(exit)?,
            ended: ended.map(|value| at("ended").choice::<proto::Ended, _>(value)).transpose()?,
            reason,
            warnings,
        })
    }
}

impl From<&model::Exit> for proto::Exit {
    fn from(exit: &model::Exit) -> Self {
        let kind = match exit {
            model::Exit::Code(code) => Kind::Code((*code).into()),
            model::Exit::Signal { signal, oom } => {
                Kind::Signal(Signal { signal: (*signal).into(), oom: *oom })
            }
            model::Exit::Unknown => Kind::Unknown(proto::Nothing {}),
            model::Exit::NotStarted => Kind::NotStarted(proto::Nothing {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::Exit> for model::Exit {
    type Error = Invalid;

    fn try_from(exit: proto::Exit) -> Result<Self, Invalid> {
        let proto::Exit { kind } = exit;
        let at = |field| Field("Exit", field);
        Ok(match at("kind").kind(kind)? {
            Kind::Code(code) => Self::Code(at("code").narrowed(code)?),
            Kind::Signal(Signal { signal, oom }) => {
                Self::Signal { signal: at("signal").narrowed(signal)?, oom }
            }
            Kind::Unknown(proto::Nothing {}) => Self::Unknown,
            Kind::NotStarted(proto::Nothing {}) => Self::NotStarted,
        })
    }
}
