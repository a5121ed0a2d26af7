//! Something that writes all the time and remembers what it was told, to hold the cluster to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

use super::{CHURN, STACK, qualified};
use crate::cluster::{Cluster, DONE, OUTCOME_UNKNOWN};
use crate::{wait, workload};

/// Stacks that are written in turn, so that each has a history.
const RING: u64 = 8;
/// The most containers that the writer asks for.
const CHURN_MAX: u64 = 4;

/// What was written to each key and what is known of it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    keys: BTreeMap<String, Key>,
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
}

#[derive(Debug, Default)]
struct Key {
    last: Option<u64>,
    /// Nobody said whether these took effect, and they may do so at any time after they were sent.
    possible: BTreeSet<u64>,
}

impl Ledger {
    fn acknowledge(&mut self, key: &str, value: u64) {
        self.acknowledged += 1;
        self.keys.entry(key.to_owned()).or_default().last = Some(value);
    }

    fn doubt(&mut self, key: &str, value: u64) {
        self.unknown += 1;
        self.keys.entry(key.to_owned()).or_default().possible.insert(value);
    }

    /// Says what is wrong with a value that was read after all writes had ended.
    fn judge(&self, key: &str, found: Option<u64>) -> Option<String> {
        let Key { last, possible } = self.keys.get(key)?;
        let fits = found == *last || found.is_some_and(|found| possible.contains(&found));
        let shown =
            |value: Option<u64>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
        (!fits).then(|| {
            format!(
                "{key} holds {}, but {} was acknowledged last (in doubt: {possible:?})",
                shown(found),
                shown(*last)
            )
        })
    }
}

/// Writes one thing after the other, half of them by scaling and half by deploying.
#[derive(Debug)]
pub(super) struct Writer<'c> {
    cluster: &'c Cluster,
    pub(super) ledger: Ledger,
    next: u64,
}

impl<'c> Writer<'c> {
    pub(super) fn new(cluster: &'c Cluster) -> Self {
        Self { cluster, ledger: Ledger::default(), next: 0 }
    }

    /// Returns what was answered and should not have been.
    pub(super) fn write_until(&mut self, stop: &AtomicBool) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        while !stop.load(Ordering::Relaxed) && !wait::is_interrupted() {
            wrong.extend(self.write()?);
        }
        Ok(wrong)
    }

    fn write(&mut self) -> Result<Option<String>> {
        self.next += 1;
        let (key, value, heard) = if self.next.is_multiple_of(2) {
            let replicas = 1 + self.next / 2 % CHURN_MAX;
            let service = qualified(CHURN.0);
            let heard =
                self.cluster.write_scale(&service, u32::try_from(replicas).expect("it is at most four"))?;
            (service, replicas, heard)
        } else {
            let stack = stack(self.next / 2 % RING);
            let heard = self.cluster.write_stack(workload::value(self.next), &stack)?;
            (stack, self.next, heard)
        };
        match heard.status.code() {
            Some(DONE) => self.ledger.acknowledge(&key, value),
            Some(OUTCOME_UNKNOWN) => self.ledger.doubt(&key, value),
            // Ctrl-C reaches the command as well.
            _ if wait::is_interrupted() => self.ledger.doubt(&key, value),
            _ => {
                self.ledger.doubt(&key, value);
                return Ok(Some(format!("writing {value} to {key}: {}", heard.failure())));
            }
        }
        Ok(None)
    }

    /// Reads everything that was written. Returns what is not as it was acknowledged.
    pub(super) fn check(&self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let services = self.cluster.services(STACK)?;
        let churn = qualified(CHURN.0);
        let desired =
            services.iter().find(|service| service.service == churn).map(|service| service.desired.into());
        wrong.extend(self.ledger.judge(&churn, desired));
        for key in self.ledger.keys.keys().filter(|key| **key != churn) {
            wrong.extend(self.ledger.judge(key, self.read(key)?));
        }
        Ok(wrong)
    }

    /// The value that a stack of the ring holds.
    fn read(&self, stack: &str) -> Result<Option<u64>> {
        let service = self.cluster.inspect(&format!("{stack}/v"))?;
        let value =
            service["labels"]["value"].as_str().with_context(|| format!("{stack}/v has no label `value`"))?;
        value.parse().map(Some).with_context(|| format!("the label of {stack}/v is `{value}`"))
    }
}

fn stack(number: u64) -> String {
    format!("ring{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_value_must_be_there_unless_one_in_doubt_is() {
        let mut ledger = Ledger::default();
        ledger.acknowledge("a", 1);
        ledger.acknowledge("a", 3);
        assert_eq!(ledger.judge("a", Some(3)), None);
        let lost = ledger.judge("a", Some(1)).unwrap();
        assert_eq!(lost, "a holds 1, but 3 was acknowledged last (in doubt: {})");
        assert!(ledger.judge("a", None).is_some());

        ledger.doubt("a", 5);
        assert_eq!(ledger.judge("a", Some(5)), None);
        assert_eq!(ledger.judge("a", Some(3)), None);
        assert!(ledger.judge("a", Some(4)).is_some());
    }

    #[test]
    fn a_key_whose_only_write_is_in_doubt_may_hold_nothing() {
        let mut ledger = Ledger::default();
        ledger.doubt("a", 1);
        assert_eq!(ledger.judge("a", None), None);
        assert_eq!(ledger.judge("a", Some(1)), None);
        assert_eq!(ledger.judge("never written", None), None);
    }
}
