//! The nouns of `model` as messages and back. One file for each of `model`'s.

mod container;
mod health;
mod ids;
mod image;
mod job;
pub(crate) mod node;
mod placement;
mod registry;
mod rollout;
mod service;
mod task;

use std::time::Duration;

use model::Bytes;

use crate::invalid::optional;
use crate::{Cause, Field, Invalid};

/// A value as a message, absent where the value is the default: most are, and every spec is kept in rows and sent to nodes.
fn unless_default<M, P>(value: &M) -> Option<P>
where
    M: Default + PartialEq,
    P: for<'a> From<&'a M>,
{
    (*value != M::default()).then(|| P::from(value))
}

/// What [`unless_default`] wrote, read.
fn or_default<P, M>(value: Option<P>) -> Result<M, Invalid>
where
    M: TryFrom<P, Error = Invalid> + Default,
{
    Ok(optional::<P, M>(value)?.unwrap_or_default())
}

/// Whole milliseconds, rounded up so that a wait that was asked for does not vanish.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A size that the kernel can count to: it has signed numbers.
fn bytes(at: Field, size: u64) -> Result<Bytes, Invalid> {
    if i64::try_from(size).is_err() {
        return Err(at.bad(Cause::OutOfRange(size.into())));
    }
    Ok(Bytes(size))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use prost::Message;

    use super::*;

    /// Through bytes, as a message of type `P`.
    pub(super) fn reads_back<P, M>(written: &M)
    where
        P: Message + Default + for<'a> From<&'a M>,
        M: TryFrom<P, Error = Invalid> + PartialEq + Debug,
    {
        let message = P::decode(P::from(written).encode_to_vec().as_slice()).unwrap();
        assert_eq!(M::try_from(message).as_ref(), Ok(written));
    }

    #[test]
    fn a_wait_shorter_than_a_millisecond_does_not_vanish() {
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_millis(7)), 7);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
