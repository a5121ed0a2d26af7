//! Log entries: a [`Proposal`] as bytes.
//!
//! What a proposal, a command or a verdict is made of has its conversions in the files below; the rows of a snapshot,
//! which hold verdicts too, stand beside them.

mod command;
mod outcome;
mod rejected;
mod row;
#[cfg(test)]
mod tests;

use model::Timestamp;
use prost::Message as _;
use state::Proposal;

use crate::invalid::list;
use crate::proto::log as proto;
use crate::{Cause, Field, Invalid, request_id, request_text};

/// The format that is written. `proto/log.proto` says when it is raised.
const FORMAT: u32 = 1;

/// A log entry. Equal proposals have equal bytes.
pub fn encode(proposal: &Proposal) -> Vec<u8> {
    proto::Proposal::from(proposal).encode_to_vec()
}

/// The proposal that [`encode`] was given, to the last field: whoever applies a proposal may do so before or after it
/// went through here. Fails on bytes that are damaged, and on a command or format that this version does not know: a
/// manager that skipped it would come to other tables than the rest.
///
/// Waits in a spec are kept in whole milliseconds; every spec comes from a message that has no smaller unit.
pub fn decode(bytes: &[u8]) -> Result<Proposal, Invalid> {
    let proposal =
        proto::Proposal::decode(bytes).map_err(|cause| Invalid::new("Proposal", "bytes", cause))?;
    Proposal::try_from(proposal)
}

/// Refuses what was written in a format that this version does not know.
fn readable(format: u32, at: Field) -> Result<(), Invalid> {
    if (1..=FORMAT).contains(&format) {
        return Ok(());
    }
    Err(at.bad(Cause::Format { found: format, known: FORMAT }))
}

impl From<&Proposal> for proto::Proposal {
    fn from(proposal: &Proposal) -> Self {
        let Proposal { at, request, by, commands } = proposal;
        Self {
            format: FORMAT,
            at: at.0,
            request: request.map(request_text),
            by: by.clone(),
            commands: commands.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Proposal> for Proposal {
    type Error = Invalid;

    fn try_from(proposal: proto::Proposal) -> Result<Self, Invalid> {
        let proto::Proposal { format, at, request, by, commands } = proposal;
        readable(format, Field("Proposal", "format"))?;
        let request = request.map(|text| request_id(&text)).transpose()?;
        Ok(Self { at: Timestamp(at), request, by, commands: list(commands)? })
    }
}
