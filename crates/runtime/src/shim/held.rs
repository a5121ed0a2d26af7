//! A container that is made and waits: its program is started for the first client that attaches, so that this one sees all
//! that it prints, or when none has come for long enough.

use std::time::{Duration, Instant};

use libcontainer::container::Container;
use libcontainer::error::LibcontainerError;

const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Until it is started, its first process is libcontainer's: confined already, and blocked on a socket that nobody else knows.
#[derive(Debug)]
pub(super) struct Held {
    container: Container,
    until: Instant,
}

impl Held {
    /// `time` is from now on. One that no clock can hold is a year.
    pub(super) fn new(container: Container, time: Duration) -> Self {
        let now = Instant::now();
        Self { container, until: now.checked_add(time).unwrap_or_else(|| now + YEAR) }
    }

    /// When it is not to be held any longer.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Starts it. One that is paused starts when it is resumed.
    pub(super) fn start(self) -> Result<(), Box<LibcontainerError>> {
        let Self { mut container, until: _ } = self;
        container.start().map_err(Box::new)
    }
}
