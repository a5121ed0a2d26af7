//! Jobs and their runs.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{LogIndex, SpecVersion, Timestamp};

use super::millis;
use crate::invalid::{Cause, choices, optional};
use crate::proto::model as proto;
use crate::proto::model::ending::Kind;
use crate::proto::model::run_cause::Kind as CauseKind;
use crate::{Field, Invalid};

choices! {
    Overlap { Skip, Allow, Replace }
    Missed { Run, Skip }
    SkipReason { Overlap, Missed }
}

impl From<&model::JobSpec> for proto::JobSpec {
    fn from(spec: &model::JobSpec) -> Self {
        let model::JobSpec { parallelism, deadline, history, schedule } = spec;
        Self {
            parallelism: *parallelism,
            deadline: deadline.map(millis),
            history: *history,
            schedule: schedule.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::JobSpec> for model::JobSpec {
    type Error = Invalid;

    fn try_from(spec: proto::JobSpec) -> Result<Self, Invalid> {
        let proto::JobSpec { parallelism, deadline, history, schedule } = spec;
        if parallelism == Some(0) {
            let cause = Cause::Other("a job of which nothing is done at once is never done");
            return Err(Invalid::new("JobSpec", "parallelism", cause));
        }
        if history > Self::MAX_HISTORY {
            return Err(Invalid::new("JobSpec", "history", Cause::OutOfRange(history.into())));
        }
        let schedule = optional(schedule)?;
        Ok(Self { parallelism, deadline: deadline.map(Duration::from_millis), history, schedule })
    }
}

impl From<&model::Schedule> for proto::Schedule {
    fn from(schedule: &model::Schedule) -> Self {
        Self {
            cron: schedule.cron().to_owned(),
            zone: schedule.zone().to_owned(),
            overlap: proto::Overlap::from(schedule.overlap).into(),
            missed: proto::Missed::from(schedule.missed).into(),
        }
    }
}

impl TryFrom<proto::Schedule> for model::Schedule {
    type Error = Invalid;

    fn try_from(schedule: proto::Schedule) -> Result<Self, Invalid> {
        let proto::Schedule { cron, zone, overlap, missed } = schedule;
        let at = |field| Field("Schedule", field);
        let overlap = at("overlap").choice::<proto::Overlap, _>(overlap)?;
        let missed = at("missed").choice::<proto::Missed, _>(missed)?;
        Self::new(&cron, &zone, overlap, missed).map_err(|error| Invalid::new("Schedule", "cron", error))
    }
}

impl From<&model::Job> for proto::Job {
    fn from(job: &model::Job) -> Self {
        let model::Job { last, runs, considered, skipped } = job;
        let skip = |skipped: &model::Skipped| proto::Skipped {
            at: skipped.at.0,
            why: proto::SkipReason::from(skipped.why).into(),
        };
        Self {
            last: *last,
            runs: runs.iter().map(|(number, run)| (*number, run.into())).collect(),
            considered: considered.0,
            skipped: skipped.as_ref().map(skip),
        }
    }
}

impl TryFrom<proto::Skipped> for model::Skipped {
    type Error = Invalid;

    fn try_from(skipped: proto::Skipped) -> Result<Self, Invalid> {
        let proto::Skipped { at, why } = skipped;
        let why = Field("Skipped", "why").choice::<proto::SkipReason, _>(why)?;
        Ok(Self { at: Timestamp(at), why })
    }
}

impl TryFrom<proto::Job> for model::Job {
    type Error = Invalid;

    fn try_from(job: proto::Job) -> Result<Self, Invalid> {
        let proto::Job { last, runs, considered, skipped } = job;
        let runs = runs.into_iter().map(|(number, run)| Ok((number, run.try_into()?)));
        let runs: BTreeMap<u32, model::Run> = runs.collect::<Result<_, Invalid>>()?;
        Ok(Self { last, runs, considered: Timestamp(considered), skipped: optional(skipped)? })
    }
}

impl From<&model::Run> for proto::Run {
    fn from(run: &model::Run) -> Self {
        let model::Run { version, cause, by, began, generation, end } = run;
        let cause = match cause {
            model::RunCause::Deploy => CauseKind::Deploy(proto::Nothing {}),
            model::RunCause::Asked => CauseKind::Asked(proto::Nothing {}),
            model::RunCause::Schedule(at) => CauseKind::Schedule(at.0),
        };
        Self {
            version: version.0,
            cause: Some(proto::RunCause { kind: Some(cause) }),
            by: by.clone(),
            began: began.0,
            generation: generation.0,
            end: end.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Run> for model::Run {
    type Error = Invalid;

    fn try_from(run: proto::Run) -> Result<Self, Invalid> {
        let proto::Run { version, cause, by, began, generation, end } = run;
        let proto::RunCause { kind } = cause.unwrap_or_default();
        let cause = match Field("RunCause", "kind").kind(kind)? {
            CauseKind::Deploy(proto::Nothing {}) => model::RunCause::Deploy,
            CauseKind::Asked(proto::Nothing {}) => model::RunCause::Asked,
            CauseKind::Schedule(at) => model::RunCause::Schedule(Timestamp(at)),
        };
        Ok(Self {
            version: SpecVersion(version),
            cause,
            by,
            began: Timestamp(began),
            generation: LogIndex(generation),
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

#[cfg(test)]
mod tests {
    use model::{Ending, Missed, Overlap, Run, RunCause, RunEnd, Schedule, SkipReason, Skipped};

    use super::*;

    #[test]
    fn a_job_that_says_something_in_every_field_reads_back_as_written() {
        let causes = [RunCause::Deploy, RunCause::Asked, RunCause::Schedule(Timestamp(60_000))];
        let ends = [
            Ending::Succeeded,
            Ending::Failed { reason: "exit code 1".to_owned() },
            Ending::Stopped { reason: "by hand".to_owned() },
        ];
        let run = |(cause, how)| Run {
            version: SpecVersion(2),
            cause,
            by: Some("root on n1".to_owned()),
            began: Timestamp(3),
            generation: LogIndex(4),
            end: Some(RunEnd { at: Timestamp(5), done: 6, how }),
        };
        let runs = (1..).zip(causes.into_iter().zip(ends).map(run)).collect();
        let skipped = Some(Skipped { at: Timestamp(7), why: SkipReason::Overlap });
        let written = model::Job { last: 3, runs, considered: Timestamp(8), skipped };
        assert_eq!(model::Job::try_from(proto::Job::from(&written)), Ok(written));
    }

    #[test]
    fn a_schedule_reads_back_as_written_and_one_that_is_none_is_refused() {
        let written = Schedule::new("0 3 * * MON", "Europe/Berlin", Overlap::Replace, Missed::Skip).unwrap();
        let message = proto::Schedule::from(&written);
        assert_eq!(model::Schedule::try_from(message.clone()), Ok(written));
        let bad = [
            proto::Schedule { cron: "0 3 * *".to_owned(), ..message.clone() },
            proto::Schedule { zone: "Mars".to_owned(), ..message.clone() },
            proto::Schedule { overlap: 0, ..message.clone() },
            proto::Schedule { missed: 9, ..message },
        ];
        for bad in bad {
            assert!(model::Schedule::try_from(bad.clone()).is_err(), "{bad:?} was accepted");
        }
    }
}
