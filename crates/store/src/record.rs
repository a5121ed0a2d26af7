//! Records on disk: which key holds what, and a checksum around every value.
//!
//! ```text
//! i                         whose directory this is
//! v  c  p                   the vote; the last entry known committed; the last entry purged
//! l INDEX                   one log entry
//! r GENERATION NUMBER       one record of a snapshot
//! s                         which generation of those is the snapshot
//! ```
//!
//! Numbers are eight bytes, big-endian, so that they sort. A value is the CRC-32 of its key and body, four bytes, and
//! then the body. The key is part of it so that a value that turns up under another key is damage too.

use bytes::Bytes;
use prost::Message;

use crate::convert::Malformed;
use crate::engine::{Batch, Engine, EngineError};

pub(crate) const IDENTITY: &[u8] = b"i";
pub(crate) const VOTE: &[u8] = b"v";
pub(crate) const COMMITTED: &[u8] = b"c";
pub(crate) const PURGED: &[u8] = b"p";
pub(crate) const SNAPSHOT: &[u8] = b"s";
/// Just past every log entry.
pub(crate) const LOG_END: &[u8] = b"m";

pub(crate) fn entry_key(index: u64) -> Vec<u8> {
    [b"l".as_slice(), &index.to_be_bytes()].concat()
}

pub(crate) fn snapshot_key(generation: u64, number: u64) -> Vec<u8> {
    [b"r".as_slice(), &generation.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// What is wrong with a data directory. None of it mends itself, and none may be skipped: a manager that forgot a vote
/// or an entry could undo what the cluster has acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("the record {key} does not match its checksum")]
    Checksum { key: String },
    #[error("the record {key} cannot be read")]
    Unreadable {
        key: String,
        #[source]
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("log entry {index} is missing")]
    MissingEntry { index: u64 },
    #[error("log entry {index} is stored under another number")]
    MisplacedEntry { index: u64 },
    #[error("the log begins after entry {purged}, but there is no snapshot of what came before")]
    MissingSnapshot { purged: u64 },
    #[error("the snapshot ends at entry {snapshot}, but the log begins after {purged}")]
    OldSnapshot { snapshot: u64, purged: u64 },
    #[error("the snapshot has {found} of its {expected} records")]
    CutSnapshot { found: u64, expected: u64 },
    #[error("there is data in it, but no record of whose it is")]
    NoIdentity,
    #[error("it cannot be read")]
    Engine(#[from] EngineError),
}

/// A key as a person can look it up: its letter, and the numbers after it.
fn shown(key: &[u8]) -> String {
    let Some((letter, numbers)) = key.split_first() else { return String::new() };
    let mut text = char::from(*letter).to_string();
    for number in numbers.chunks(8) {
        let value = number.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
        text.push_str(&format!(" {value}"));
    }
    text
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(body);
    crc.finalize()
}

/// The value to store `body` under `key`.
pub(crate) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + body.len());
    value.extend_from_slice(&checksum(key, body).to_be_bytes());
    value.extend_from_slice(body);
    value
}

/// The body that was stored under `key`.
pub(crate) fn unseal(key: &[u8], value: Vec<u8>) -> Result<Bytes, Damage> {
    let mut value = Bytes::from(value);
    if value.len() >= 4 {
        let body = value.split_off(4);
        if *value == checksum(key, &body).to_be_bytes() {
            return Ok(body);
        }
    }
    Err(Damage::Checksum { key: shown(key) })
}

pub(crate) fn put(batch: &mut Batch, key: &[u8], message: &impl Message) {
    batch.put(key, seal(key, &message.encode_to_vec()));
}

pub(crate) fn parse<M: Message + Default>(key: &[u8], value: Vec<u8>) -> Result<M, Damage> {
    M::decode(unseal(key, value)?).map_err(|error| unreadable(key, error))
}

pub(crate) fn get<M: Message + Default>(engine: &dyn Engine, key: &[u8]) -> Result<Option<M>, Damage> {
    engine.read(key)?.map(|value| parse(key, value)).transpose()
}

pub(crate) fn unreadable(key: &[u8], reason: impl Into<Malformed>) -> Damage {
    Damage::Unreadable { key: shown(key), reason: Box::new(reason.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let key = entry_key(7);
        let sealed = seal(&key, b"body");
        assert_eq!(unseal(&key, sealed.clone()).unwrap(), b"body".as_slice());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(unseal(&key, flipped), Err(Damage::Checksum { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_value_under_another_key_is_damage() {
        let sealed = seal(&entry_key(7), b"body");
        let error = unseal(&entry_key(8), sealed).unwrap_err();
        assert_eq!(error.to_string(), "the record l 8 does not match its checksum");
        assert!(unseal(&entry_key(7), b"abc".to_vec()).is_err());
    }

    #[test]
    fn keys_sort_as_their_numbers_do_and_keep_to_their_ranges() {
        assert!(entry_key(255) < entry_key(256));
        assert!(entry_key(u64::MAX).as_slice() < LOG_END);
        assert!(snapshot_key(1, u64::MAX) < snapshot_key(2, 0));
        assert!(snapshot_key(u64::MAX, u64::MAX).as_slice() < SNAPSHOT);
    }
}
