//! Snapshots: a [`State`] as records and back.
//!
//! A record is one row, so a snapshot of any size is written, sent and read piece by piece. That all of them arrived,
//! in order and unharmed, is for whoever carries them to know; a row that is missing cannot be told from one that
//! never was.

use prost::Message as _;
use state::{Row, State};

use crate::proto::log as proto;
use crate::{Cause, Field, Invalid};

/// Every row of a state, encoded as it is asked for, in the order in which [`Loader::push`] takes them.
pub fn records(state: &State) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
    state.rows().into_iter().map(|row| proto::Row::from(&row).encode_to_vec())
}

/// Makes a state of records.
#[derive(Debug, Default)]
pub struct Loader {
    rows: Vec<Row>,
}

impl Loader {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record. Fails on one that is damaged or of a kind that this version does not know, and when the
    /// head is not the first or not the only one; the loader is then of no further use.
    pub fn push(&mut self, record: &[u8]) -> Result<(), Invalid> {
        let row = proto::Row::decode(record).map_err(|cause| Invalid::new("Row", "bytes", cause))?;
        let row = Row::try_from(row)?;
        let is_head = matches!(row, Row::Head { .. });
        if is_head != self.rows.is_empty() {
            return Err(Field("Row", "kind").bad(Cause::Head));
        }
        self.rows.push(row);
        Ok(())
    }

    /// The state that the records were made of, indexes included. Fails when there was no record at all.
    pub fn finish(self) -> Result<State, Invalid> {
        if self.rows.is_empty() {
            return Err(Field("Row", "kind").bad(Cause::Head));
        }
        Ok(State::from_rows(self.rows))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::history;

    fn load(records: &[Vec<u8>]) -> Result<State, Invalid> {
        let mut loader = Loader::new();
        for record in records {
            loader.push(record)?;
        }
        loader.finish()
    }

    /// The number that a row has in `proto/log.proto`.
    fn number(row: &Row) -> u32 {
        match row {
            Row::Head { .. } => 1,
            Row::Cluster(_) => 2,
            Row::Token(..) => 3,
            Row::Node(..) => 4,
            Row::Stack(..) => 5,
            Row::Service(..) => 6,
            Row::Task(..) => 7,
            Row::Image(..) => 8,
            Row::Tag(..) => 9,
            Row::Request(..) => 10,
            Row::Registry(..) => 11,
        }
    }

    #[test]
    fn the_history_does_what_it_says() {
        let (state, outcomes) = history::state();
        let (rejected, accepted) = outcomes.split_last().unwrap();
        for outcome in accepted.iter().flatten() {
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        assert!(!rejected.is_empty() && rejected.iter().all(Result::is_err), "{rejected:?}");
        assert_eq!(state.rows().iter().map(number).collect::<BTreeSet<_>>(), (1..=11).collect());
    }

    #[test]
    fn a_snapshot_holds_the_whole_state() {
        let (state, _) = history::state();
        let records: Vec<_> = records(&state).collect();
        let loaded = load(&records).unwrap();
        assert_eq!(loaded.rows(), state.rows());
        assert_eq!(state::invariants::check(&loaded), Vec::<String>::new());
        assert_eq!(super::records(&loaded).collect::<Vec<_>>(), records, "equal states have equal bytes");
    }

    #[test]
    fn a_request_is_answered_from_a_snapshot_as_before() {
        let (state, outcomes) = history::state();
        let mut loaded = load(&records(&state).collect::<Vec<_>>()).unwrap();
        for (proposal, before) in history::proposals().iter().zip(outcomes) {
            if proposal.request.is_some() {
                let again = loaded.apply(model::LogIndex(100), proposal);
                assert_eq!((again.outcomes, again.changes.len()), (before, 0));
            }
        }
    }

    #[test]
    fn a_snapshot_that_is_not_one_is_refused() {
        let (state, _) = history::state();
        let good: Vec<_> = records(&state).collect();
        let head = good[0].clone();
        let with = |more: Vec<u8>| [good.clone(), vec![more]].concat();
        assert!(load(&[]).is_err(), "no records");
        assert!(load(&good[1..]).is_err(), "no head");
        assert!(load(&with(head)).is_err(), "two heads");
        assert!(load(&with(vec![])).is_err(), "a row without a kind");
        assert!(load(&with(vec![0x9a, 0x06, 0])).is_err(), "a row of a kind to come");
        assert!(load(&with(good[1][..good[1].len() - 1].to_vec())).is_err(), "half a row");
    }

    #[test]
    fn damaged_records_never_panic() {
        let (state, _) = history::state();
        let good: Vec<_> = records(&state).collect();
        let mut refused = 0;
        for record in &good {
            for at in 0..record.len() {
                for bits in [0x01, 0x08, 0x80] {
                    let mut damaged = record.clone();
                    damaged[at] ^= bits;
                    let row = proto::Row::decode(damaged.as_slice()).map(Row::try_from);
                    refused += u32::from(!matches!(row, Ok(Ok(_))));
                }
            }
        }
        assert!(refused > 0);
    }
}
