//! Waiting: for a predicate with a deadline, and never past Ctrl-C.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};

/// Between two looks. A look is mostly a process of some ten milliseconds, so this adds little to what is measured.
const PAUSE: Duration = Duration::from_millis(5);

/// Signals are the process's, so what came of them is too.
static INTERRUPTED: Mutex<bool> = Mutex::new(false);
static WOKEN: Condvar = Condvar::new();

/// Someone pressed Ctrl-C, or asked this process to end in another way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

fn interrupted() -> MutexGuard<'static, bool> {
    INTERRUPTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP do not end this process; [`until`] and [`pause`] return early, so that the caller
/// can take down what it has put up.
pub(crate) fn heed_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot wait for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        // Registered before this returns, and not when the thread comes to it.
        let _within = runtime.enter();
        let listen = |kind| signal(kind).context("cannot wait for signals");
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        *interrupted() = true;
        WOKEN.notify_all();
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("cannot wait for signals")?;
    Ok(())
}

pub(crate) fn is_interrupted() -> bool {
    *interrupted()
}

/// Lets time pass.
pub(crate) fn pause(time: Duration) -> Result<(), Interrupted> {
    let (flag, _timeout) =
        WOKEN.wait_timeout_while(interrupted(), time, |flag| !*flag).unwrap_or_else(PoisonError::into_inner);
    if *flag { Err(Interrupted) } else { Ok(()) }
}

/// Looks until there is something to see. A look that fails counts as one that saw nothing: what is looked at may be in
/// the middle of a failure of its own; the last such error is the deadline's cause.
pub(crate) fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let failed = match look() {
            Ok(Some(seen)) => return Ok(seen),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let late = format!("after {} s still waiting for {what}", within.as_secs());
            return Err(match failed {
                Some(error) => error.context(late),
                None => anyhow!(late),
            });
        }
        pause(PAUSE)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_sees_something_ends_the_wait_and_a_failing_one_does_not() {
        let mut looks = 0;
        let seen = until("a third look", Duration::from_secs(60), || {
            looks += 1;
            if looks == 1 { Err(anyhow!("too early")) } else { Ok((looks == 3).then_some(looks)) }
        });
        assert_eq!(seen.unwrap(), 3);
    }

    #[test]
    fn a_deadline_says_what_was_waited_for_and_why_it_was_not_seen() {
        let never = until::<()>("godot", Duration::ZERO, || Err(anyhow!("he is not here")));
        assert_eq!(format!("{:#}", never.unwrap_err()), "after 0 s still waiting for godot: he is not here");
    }
}
