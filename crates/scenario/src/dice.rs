//! Chance, from the run's seed and nothing else.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ring::digest::{SHA256, digest};

/// One stream of chance. Each part of the simulation draws from its own, so that one that draws more often
/// than before does not change what happens to the others.
#[derive(Clone)]
pub(crate) struct Dice {
    rng: Arc<Mutex<StdRng>>,
}

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice")
    }
}

impl Dice {
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, format!("{seed} {purpose}").as_bytes()).as_ref());
        Self { rng: Arc::new(Mutex::new(StdRng::from_seed(key))) }
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.draw(|rng| rng.random_range(0..bound))
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A duration from `least` to `most` milliseconds, in steps of 100 microseconds.
    pub(crate) fn millis(&self, least: u64, most: u64) -> Duration {
        let steps = self.draw(|rng| rng.random_range(least * 10..=most * 10));
        Duration::from_micros(steps * 100)
    }

    /// One of `from`, which is not empty.
    pub(crate) fn pick<T: Clone>(&self, from: &[T]) -> T {
        let at = self.below(u64::try_from(from.len()).expect("a slice's length is a u64"));
        from[usize::try_from(at).expect("it is below a length")].clone()
    }

    /// The id of a request.
    pub(crate) fn id(&self) -> u128 {
        self.draw(|rng| rng.random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64, purpose: &str) -> Vec<u64> {
        let dice = Dice::new(seed, purpose);
        (0..20).map(|_| dice.below(1000)).collect()
    }

    #[test]
    fn equal_seeds_draw_equal_numbers_and_others_do_not() {
        assert_eq!(drawn(7, "net"), drawn(7, "net"));
        assert_ne!(drawn(7, "net"), drawn(8, "net"));
        assert_ne!(drawn(7, "net"), drawn(7, "world"));
    }

    #[test]
    fn a_duration_is_within_its_bounds() {
        let dice = Dice::new(1, "bounds");
        for _ in 0..200 {
            let drawn = dice.millis(2, 5);
            assert!(drawn >= Duration::from_millis(2) && drawn <= Duration::from_millis(5), "{drawn:?}");
        }
    }
}
