//! The record of a run: what happened and when, what was violated, how often what occurred.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::digest::{Context, SHA256};
use tokio::time::Instant;

/// Violations that are kept. The first is what matters; what follows from it would only fill the screen.
const FAILURES: usize = 20;

/// A handle on a run's record. It outlives the run, also one that panics.
#[derive(Clone)]
pub(crate) struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    began: Option<Instant>,
    hash: Context,
    lines: Vec<String>,
    failures: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// What is left of a record when the run is over.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Of everything that was recorded, in hex.
    pub(crate) hash: String,
    pub(crate) lines: Vec<String>,
    pub(crate) failures: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trace")
    }
}

impl Trace {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            began: None,
            hash: Context::new(&SHA256),
            lines: Vec::new(),
            failures: Vec::new(),
            counts: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Starts the run's clock. Called on the runtime whose clock is paused.
    pub(crate) fn begin(&self) {
        self.lock().began = Some(Instant::now());
    }

    /// Since the run began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.lock().elapsed()
    }

    /// Records what happened.
    pub(crate) fn line(&self, what: impl Display) {
        self.lock().line(&what.to_string());
    }

    /// Records what happens too often to be read: it is in the hash only.
    pub(crate) fn note(&self, what: impl Display) {
        let mut inner = self.lock();
        let text = inner.stamped(&what.to_string());
        inner.hash.update(text.as_bytes());
    }

    /// Counts something that must not stay untested over many seeds.
    pub(crate) fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    /// Records that something is not as it has to be.
    pub(crate) fn broken(&self, what: impl Display) {
        let mut inner = self.lock();
        let text = inner.stamped(&what.to_string());
        inner.line(&format!("BROKEN {what}"));
        if inner.failures.len() < FAILURES {
            inner.failures.push(text);
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        !self.lock().failures.is_empty()
    }

    pub(crate) fn finish(&self) -> Recorded {
        let mut inner = self.lock();
        let digest = inner.hash.clone().finish();
        Recorded {
            hash: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            lines: std::mem::take(&mut inner.lines),
            failures: std::mem::take(&mut inner.failures),
            counts: std::mem::take(&mut inner.counts),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A run that panicked still has a record to be read.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    fn stamped(&self, what: &str) -> String {
        let at = self.elapsed();
        format!("{:>4}.{:03} {what}", at.as_secs(), at.subsec_millis())
    }

    fn line(&mut self, what: &str) {
        let text = self.stamped(what);
        self.hash.update(text.as_bytes());
        self.lines.push(text);
    }
}
