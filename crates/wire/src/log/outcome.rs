//! Verdicts on commands that were applied. The rejections have a file of their own.

use model::{LogIndex, NodeId};
use state::{Done, Outcome, Rejected};

use crate::proto::log as proto;
use crate::proto::log::done::Kind;
use crate::proto::log::outcome::Verdict;
use crate::proto::model::Nothing;
use crate::{Field, Invalid};

impl From<&Outcome> for proto::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let verdict = match outcome {
            Ok(done) => Verdict::Done(done.into()),
            Err(rejected) => Verdict::Rejected(rejected.into()),
        };
        Self { verdict: Some(verdict) }
    }
}

/// The outcome that a message stands for. No `TryFrom`: an outcome is a `Result`, and a function reads better than a
/// result of a result.
pub(super) fn outcome(outcome: proto::Outcome) -> Result<Outcome, Invalid> {
    let proto::Outcome { verdict } = outcome;
    Ok(match Field("Outcome", "verdict").kind(verdict)? {
        Verdict::Done(done) => Ok(Done::try_from(done)?),
        Verdict::Rejected(rejected) => Err(Rejected::try_from(rejected)?),
    })
}

impl From<&Done> for proto::Done {
    fn from(done: &Done) -> Self {
        let kind = match done {
            Done::Unchanged => Kind::Unchanged(Nothing {}),
            Done::Changed => Kind::Changed(Nothing {}),
            Done::At(generation) => Kind::At(generation.0),
            Done::Admitted(node) => Kind::Admitted(node.0),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<proto::Done> for Done {
    type Error = Invalid;

    fn try_from(done: proto::Done) -> Result<Self, Invalid> {
        let proto::Done { kind } = done;
        Ok(match Field("Done", "kind").kind(kind)? {
            Kind::Unchanged(Nothing {}) => Self::Unchanged,
            Kind::Changed(Nothing {}) => Self::Changed,
            Kind::At(generation) => Self::At(LogIndex(generation)),
            Kind::Admitted(node) => Self::Admitted(NodeId(node)),
        })
    }
}
