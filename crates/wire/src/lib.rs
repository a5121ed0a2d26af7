//! Generated protobuf, and the only conversions between it and the nouns of `model` and `state`.
//!
//! - [`proto`]: the generated messages, clients and servers, one module a file of `proto/`.
//! - `From<&model::X> for proto::…::X` and `TryFrom<proto::…::X> for model::X`: every noun that travels (`nouns`). Both
//!   take the whole value apart, so that a new field does not compile until it has a place on the wire.
//! - [`log`]: a `state::Proposal` as the bytes of a log entry. [`snapshot`]: a `state::State` as records and back.
//! - [`digest`], [`socket_address`] and so on: values that messages carry as text.
//! - [`Invalid`]: what is wrong with a message that was read; [`Field`] is how conversions elsewhere say it, too.
//!
//! **Invariant:** what is written here is read back by every later version. `proto/log.proto` has the rules of change.
//!
//! **Invariant:** bytes from outside lead to an error and never to a panic, a value that `model`'s constructors would
//! refuse, or something skipped without a word.
//!
//! This crate knows no socket, disk or clock, and not what any message is for.

mod generated;
#[cfg(test)]
mod history;
mod invalid;
pub mod log;
mod nouns;
mod secret;
pub mod snapshot;
mod text;

pub use invalid::{Cause, Field, Invalid};
pub use nouns::node::read_availability;
pub use text::{digest, request_id, request_text, socket_address, subnet};

/// The generated code.
pub mod proto {
    pub use crate::generated::agent::v1 as agent;
    pub use crate::generated::api::v1 as api;
    pub use crate::generated::log::v1 as log;
    pub use crate::generated::model::v1 as model;
    pub use crate::generated::raft::v1 as raft;
    pub use crate::generated::stream::v1 as stream;
}

/// Metadata of a refusal that says that nothing of the call has been begun, so that what must not be done twice may be asked
/// for again.
pub const NOT_BEGUN: &str = "gantry-not-begun";

/// All of `proto` as one encoded `google.protobuf.FileDescriptorSet`: for tools that speak the API or read a log
/// without this code.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gantry.descriptors"));
