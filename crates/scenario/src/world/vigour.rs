//! How containers are when they are asked, and the images' own ways to ask.

use std::time::Duration;

use model::{Digest, HealthCheck, Probe};

/// How one container answers over its life; spells are the age at which one begins and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vigour {
    /// The age from which on it answers at all.
    pub(crate) wakes: Duration,
    /// It does not live.
    pub(crate) ill: Option<(Duration, Duration)>,
    /// It lives and takes no work.
    pub(crate) busy: Option<(Duration, Duration)>,
}

impl Vigour {
    pub(crate) const STEADY: Self = Self { wakes: Duration::from_millis(500), ill: None, busy: None };

    /// Spells are over when the wild time is.
    pub(crate) fn lives(&self, age: Duration, wild: bool) -> bool {
        age >= self.wakes && !(wild && is_within(self.ill, age))
    }

    pub(crate) fn serves(&self, age: Duration, wild: bool) -> bool {
        self.lives(age, wild) && !(wild && is_within(self.busy, age))
    }
}

fn is_within(spell: Option<(Duration, Duration)>, age: Duration) -> bool {
    spell.is_some_and(|(from, lasts)| age >= from && age < from + lasts)
}

/// A quarter of all images have a health check of their own.
pub(crate) fn own_check(image: Digest) -> Option<HealthCheck> {
    (image.0[0] < 64).then(|| HealthCheck {
        probe: Some(Probe::Exec(vec!["own-check".to_owned()])),
        interval: Some(Duration::from_secs(2)),
        timeout: Some(Duration::from_secs(1)),
        start_period: Some(Duration::from_secs(4)),
        start_interval: Some(Duration::from_millis(300)),
        retries: None,
    })
}
