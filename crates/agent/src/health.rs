//! Whether a container lives, and whether it is to be sent work: two machines over the results of its probes.
//!
//! Pure: a time is the container's age, and when to ask next is a value. Rules and constants are Docker's (`daemon/health.go`
//! and the Dockerfile reference on HEALTHCHECK), except that a container that is found unhealthy is ended by whoever
//! watches it, as Swarm does.

use std::time::Duration;

use model::{Health, HealthCheck, Probe, Readiness};

/// No check is made more often, nor does one have less time. Docker refuses what is shorter; from an image it may come
/// unasked.
const LEAST: Duration = Duration::from_millis(1);

/// How soon after one change of `ready` the next may follow. Each is a write of the cluster's.
const LEAST_BETWEEN: Duration = Duration::from_secs(1);

/// A container that stayed ready for this long does not flap. It is also the longest that one which does has to wait
/// until it is ready again.
const STEADY: Duration = Duration::from_secs(30);

/// A health check with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub probe: Probe,
    /// From the end of one probe to the next.
    pub interval: Duration,
    pub timeout: Duration,
    /// So many failures in a row make it unhealthy; at least 1.
    pub retries: u32,
    pub start_period: Duration,
    pub start_interval: Duration,
}

impl Check {
    /// What the service says, over what its image says, over Docker's constants; zero is what is not said. `None` if there
    /// is nothing to ask.
    pub fn resolve(wanted: &Health, image: Option<&HealthCheck>) -> Option<Self> {
        let unsaid = HealthCheck::default();
        let image = image.unwrap_or(&unsaid);
        let wanted = match wanted {
            Health::Disabled => return None,
            Health::Image => &unsaid,
            Health::Check(check) => check,
        };
        let time = |wanted: Option<Duration>, image: Option<Duration>, constant: Duration| {
            let said = |time: &Duration| !time.is_zero();
            wanted.filter(said).or_else(|| image.filter(said)).unwrap_or(constant)
        };
        let said = |retries: &u32| *retries > 0;
        let retries = wanted.retries.filter(said).or_else(|| image.retries.filter(said));
        Some(Self {
            probe: wanted.probe.clone().or_else(|| image.probe.clone())?,
            interval: time(wanted.interval, image.interval, HealthCheck::INTERVAL).max(LEAST),
            timeout: time(wanted.timeout, image.timeout, HealthCheck::TIMEOUT).max(LEAST),
            retries: retries.unwrap_or(HealthCheck::RETRIES),
            start_period: time(wanted.start_period, image.start_period, HealthCheck::START_PERIOD),
            start_interval: time(wanted.start_interval, image.start_interval, HealthCheck::START_INTERVAL)
                .max(LEAST),
        })
    }
}

/// A probe that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The container's age when it began, and when it ended.
    pub began: Duration,
    pub ended: Duration,
    pub healthy: bool,
}

/// What the results so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not been found healthy yet.
    Starting,
    Healthy,
    /// It is to be ended.
    Unhealthy,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Whether a container lives.
#[derive(Clone, Debug)]
pub struct Living {
    check: Check,
    standing: Standing,
    /// In a row, and only those that count.
    failures: u32,
    next: Duration,
}

impl Living {
    /// A container of this age, of which no result is known; `healthy` is what was made of the results before.
    pub fn new(check: Check, age: Duration, healthy: bool) -> Self {
        let standing = if healthy { Standing::Healthy } else { Standing::Starting };
        let mut living = Self { check, standing, failures: 0, next: Duration::ZERO };
        living.next = match standing {
            // What is late is made up for at once: somebody waits for it.
            Standing::Starting => living.wait(Duration::ZERO).max(age),
            Standing::Healthy | Standing::Unhealthy => age.saturating_add(living.wait(age)),
        };
        living
    }

    pub fn check(&self) -> &Check {
        &self.check
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The age at which to ask next.
    pub fn next(&self) -> Duration {
        self.next
    }

    pub fn judge(&mut self, probed: Probed) -> Standing {
        let counts = self.standing != Standing::Starting || probed.began >= self.check.start_period;
        if probed.healthy {
            self.failures = 0;
            self.standing = Standing::Healthy;
        } else if counts {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.check.retries {
                self.standing = Standing::Unhealthy;
            }
        }
        self.pass_over(probed.ended);
        self.standing
    }

    /// Asks again after a wait from this age. For a probe that says nothing, that is all that comes of it.
    pub fn pass_over(&mut self, ended: Duration) {
        self.next = ended.saturating_add(self.wait(ended));
    }

    /// From this age to the next probe.
    fn wait(&self, age: Duration) -> Duration {
        let starting = self.standing == Standing::Starting && age < self.check.start_period;
        if starting { self.check.start_interval } else { self.check.interval }
    }
}

/// Whether a container that lives is to be sent work.
///
/// A change of `ready` is made at the end of a probe only, so there is at most one an interval; besides, at most one a second.
/// A container that keeps losing its readiness has to wait for it twice as long each time, up to half a minute.
#[derive(Clone, Debug)]
pub struct Serving {
    rule: Readiness,
    ready: bool,
    /// Results in a row that speak against `ready`.
    against: u32,
    next: Duration,
    /// The age at which `ready` last changed; `None` if it has not.
    changed: Option<Duration>,
    /// How long it stays not ready at least, once it is.
    wait: Duration,
}

impl Serving {
    /// A container of this age; `ready` is what was made of the results before.
    pub fn new(rule: Readiness, age: Duration, ready: bool) -> Self {
        let interval = if rule.interval.is_zero() { Readiness::INTERVAL } else { rule.interval };
        let timeout = if rule.timeout.is_zero() { Readiness::TIMEOUT } else { rule.timeout };
        let (successes, failures) = (rule.successes.max(1), rule.failures.max(1));
        let rule = Readiness { interval, timeout, successes, failures, ..rule };
        let next = if ready { age.saturating_add(interval) } else { age };
        Self { wait: interval.max(LEAST_BETWEEN), rule, ready, against: 0, next, changed: None }
    }

    pub fn rule(&self) -> &Readiness {
        &self.rule
    }

    pub fn ready(&self) -> bool {
        self.ready
    }

    /// Results in a row that speak against what is so.
    pub fn against(&self) -> u32 {
        self.against
    }

    /// The age at which to ask next.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// Whether it changes what is to be told.
    pub fn judge(&mut self, probed: Probed) -> bool {
        let now = probed.ended;
        self.next = now.saturating_add(self.rule.interval);
        if probed.healthy == self.ready {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let (needed, pause) =
            if self.ready { (self.rule.failures, LEAST_BETWEEN) } else { (self.rule.successes, self.wait) };
        let since = self.changed.map(|changed| now.saturating_sub(changed));
        if self.against < needed || since.is_some_and(|since| since < pause) {
            return false;
        }
        if self.ready {
            let least = self.rule.interval.max(LEAST_BETWEEN);
            let steady = since.is_none_or(|since| since >= STEADY);
            self.wait = if steady { least } else { self.wait.saturating_mul(2).min(STEADY.max(least)) };
        }
        self.ready = !self.ready;
        self.against = 0;
        self.changed = Some(now);
        true
    }
}

#[cfg(test)]
mod tests;
