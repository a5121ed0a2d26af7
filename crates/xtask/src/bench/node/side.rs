//! Doing the same thing over and over, several side by side.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::wait::{self, Interrupted};

/// As many as gantry's agent starts at once, which a peer's user would have to think of.
const SIDE_BY_SIDE: u32 = 4;

/// Does something so many times, each with a number of its own, from 0. The first failure is the last thing done.
pub(super) fn times(count: u32, work: impl Fn(u32) -> Result<()> + Sync) -> Result<()> {
    until(|number| number >= count, work).map(drop)
}

/// Does something for so long. Returns how often that was a second.
pub(super) fn rate(length: Duration, work: impl Fn(u32) -> Result<()> + Sync) -> Result<f64> {
    let began = Instant::now();
    let done = until(|_| began.elapsed() >= length, work)?;
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}

/// Returns how often it was done.
fn until(is_over: impl Fn(u32) -> bool + Sync, work: impl Fn(u32) -> Result<()> + Sync) -> Result<u32> {
    let (next, done, failures) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let turns = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if is_over(number) || failures.load(Ordering::Relaxed) > 0 {
                return Ok(());
            }
            if wait::is_interrupted() {
                return Err(Interrupted.into());
            }
            if let Err(error) = work(number) {
                failures.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(turns)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    Ok(done.into_inner())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_time_has_a_number_of_its_own() {
        let seen = Mutex::new(BTreeSet::new());
        times(50, |number| {
            seen.lock().unwrap().insert(number);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.into_inner().unwrap(), (0..50).collect());
    }

    #[test]
    fn a_failure_ends_it() {
        let failed = times(u32::MAX, |number| if number == 7 { Err(anyhow!("no")) } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }

    #[test]
    fn a_rate_is_by_the_second() {
        let rate = rate(Duration::from_millis(20), |_| Ok(())).unwrap();
        assert!(rate > 0.0, "{rate}");
    }
}
