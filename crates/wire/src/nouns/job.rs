//! Jobs and their runs.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{SpecVersion, Timestamp};

use super::millis;
use crate::invalid::{Cause, choices, optional};
use crate::proto::model as proto;
use crate::proto::model::ending::Kind;
use crate::{Field, Invalid};

choices! {
    RunCause { Deploy, Asked }
}

impl From<&model::JobSpec> for proto::JobSpec {
    fn from(spec: &model::JobSpec) -> Self {
        let model::JobSpec { parallelism, deadline, history } = spec;
        Self { parallelism: *parallelism, deadline: deadline.map(millis), history: *history }
    }
}

impl TryFrom<proto::JobSpec> for model::JobSpec {
    type Error = Invalid;

    fn try_from(spec: proto::JobSpec) -> Result<Self, Invalid> {
        let proto::JobSpec { parallelism, deadline, history } = spec;
        if parallelism == Some(0) {
            let cause = Cause::Other("a job of which nothing is done at once is never done");
            return Err(Invalid::new("JobSpec", "parallelism", cause));
        }
        if history > Self::MAX_HISTORY {
            return Err(Invalid::new("JobSpec", "history", Cause::OutOfRange(history.into())));
        }
        Ok(Self { parallelism, deadline: deadline.map(Duration::from_millis), history })
    }
}

impl From<&model::Job> for proto::Job {
    fn from(job: &model::Job) -> Self {
        let model::Job { last, runs } = job;
        Self { last: *last, runs: runs.iter().map(|(number, run)| (*number, run.into())).collect() }
    }
}

impl TryFrom<proto::Job> for model::Job {
    type Error = Invalid;

    fn try_from(job: proto::Job) -> Result<Self, Invalid> {
        let proto::Job { last, runs } = job;
        let runs = runs.into_iter().map(|(number, run)| Ok((number, run.try_into()?)));
        let runs: BTreeMap<u32, model::Run> = runs.collect::<Result<_, Invalid>>()?;
        Ok(Self { last, runs })
    }
}

impl From<&model::Run> for proto::Run {
    fn from(run: &model::Run) -> Self {
        let model::Run { version, cause, by, began, end } = run;
        Self {
            version: version.0,
            cause: proto::RunCause::from(*cause).into(),
            by: by.clone(),
            began: began.0,
            end: end.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Run> for model::Run {
    type Error = Invalid;

    fn try_from(run: proto::Run) -> Result<Self, Invalid> {
        let proto::Run { version, cause, by, began, end } = run;
        Ok(Self {
            version: SpecVersion(version),
            cause: Field("Run", "cause").choice::<proto::RunCause, _>(cause)?,
            by,
            began: Timestamp(began),
            end: optional(end)?,
        })
    }
}

impl From<&model::RunEnd> for proto::RunEnd {
    fn from(end: &model::RunEnd) -> Self {
        let model::RunEnd { at, done, how } = end;
        Self { at: at.0, done: *done, how: Some(how.into()) }
    }
}

impl TryFrom<proto::RunEnd> for model::RunEnd {
    type Error = Invalid;

    fn try_from(end: proto::RunEnd) -> Result<Self, Invalid> {
        let proto::RunEnd { at, done, how } = end;
        Ok(Self { at: Timestamp(at), done, how: Field("RunEnd", "how").required(how)? })
    }
}

impl From<&model::Ending> for proto::Ending {
    fn from(how: &model::Ending) -> Self {
        let kind = match how {
            model::Ending::Succeeded => Kind::Succeeded(proto::Nothing {}),
            model::Ending::Failed { reason } => Kind::Failed(reason.clone()),
            model::Ending::Stopped { reason } => Kind::Stopped(reason.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::Ending> for model::Ending {
    type Error = Invalid;

    fn try_from(how: proto::Ending) -> Result<Self, Invalid> {
        let proto::Ending { kind } = how;
        Ok(match Field("Ending", "kind").kind(kind)? {
            Kind::Succeeded(proto::Nothing {}) => Self::Succeeded,
            Kind::Failed(reason) => Self::Failed { reason },
            Kind::Stopped(reason) => Self::Stopped { reason },
        })
    }
}
