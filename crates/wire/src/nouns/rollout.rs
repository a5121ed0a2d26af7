//! How services move between versions.

use std::time::Duration;

use model::{SpecVersion, Timestamp};

use super::millis;
use crate::invalid::choices;
use crate::proto::model as proto;
use crate::{Field, Invalid};

choices! {
    UpdateOrder { StopFirst, StartFirst }
    FailureAction { Pause, Continue, Rollback }
    Cause { Create, Deploy, Undo, Restart, Abort, Rollback }
    RolloutPhase { Running, Paused, Failed, Completed }
}

impl From<&model::UpdatePolicy> for proto::UpdatePolicy {
    fn from(policy: &model::UpdatePolicy) -> Self {
        let model::UpdatePolicy {
            parallelism,
            delay,
            order,
            monitor,
            min_healthy,
            max_failure_ratio,
            failure_action,
            progress_deadline,
            canaries,
            promote_after,
        } = policy;
        Self {
            parallelism: *parallelism,
            delay: millis(*delay),
            order: proto::UpdateOrder::from(*order).into(),
            monitor: millis(*monitor),
            min_healthy: min_healthy.map(millis),
            max_failure_ratio: (*max_failure_ratio).into(),
            failure_action: proto::FailureAction::from(*failure_action).into(),
            progress_deadline: millis(*progress_deadline),
            canaries: *canaries,
            promote_after: promote_after.map(millis),
        }
    }
}

impl TryFrom<proto::UpdatePolicy> for model::UpdatePolicy {
    type Error = Invalid;

    fn try_from(policy: proto::UpdatePolicy) -> Result<Self, Invalid> {
        let proto::UpdatePolicy {
            parallelism,
            delay,
            order,
            monitor,
            min_healthy,
            max_failure_ratio,
            failure_action,
            progress_deadline,
            canaries,
            promote_after,
        } = policy;
        let at = |field| Field("UpdatePolicy", field);
        Ok(Self {
            parallelism,
            delay: Duration::from_millis(delay),
            order: at("order").choice::<proto::UpdateOrder, _>(order)?,
            monitor: Duration::from_millis(monitor),
            min_healthy: min_healthy.map(Duration::from_millis),
            max_failure_ratio: at("max_failure_ratio").narrowed(max_failure_ratio)?,
            failure_action: at("failure_action").choice::<proto::FailureAction, _>(failure_action)?,
            progress_deadline: Duration::from_millis(progress_deadline),
            canaries,
            promote_after: promote_after.map(Duration::from_millis),
        })
    }
}

impl From<&model::Rollout> for proto::Rollout {
    fn from(rollout: &model::Rollout) -> Self {
        let model::Rollout { from, to, cause, began, phase, progressed, done, failed, promoted, reason } =
            rollout;
        Self {
            from: from.0,
            to: to.0,
            cause: proto::Cause::from(*cause).into(),
            began: began.0,
            phase: proto::RolloutPhase::from(*phase).into(),
            progressed: progressed.0,
            done: *done,
            failed: *failed,
            promoted: *promoted,
            reason: reason.clone(),
        }
    }
}

impl TryFrom<proto::Rollout> for model::Rollout {
    type Error = Invalid;

    fn try_from(rollout: proto::Rollout) -> Result<Self, Invalid> {
        let proto::Rollout { from, to, cause, began, phase, progressed, done, failed, promoted, reason } =
            rollout;
        let at = |field| Field("Rollout", field);
        Ok(Self {
            from: SpecVersion(from),
            to: SpecVersion(to),
            cause: at("cause").choice::<proto::Cause, _>(cause)?,
            began: Timestamp(began),
            phase: at("phase").choice::<proto::RolloutPhase, _>(phase)?,
            progressed: Timestamp(progressed),
            done,
            failed,
            promoted,
            reason,
        })
    }
}
