//! What to do next about one task: a pure function of what is assigned, what is observed, and the time.

use std::time::Duration;

use model::{Desired, Ended, Exit, RestartCondition, RestartPolicy, Timestamp};

/// The first wait before a container is started again, where the spec names none.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest wait between two attempts here, where the spec names none.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Failures in a row, each too soon after its start, after which another node is to try.
const FAILURES_HERE: u32 = 5;

/// What is known of a task on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The latest attempt, from 1; 0 before the first.
    pub attempt: u32,
    pub container: Container,
    /// Attempts in a row that ended before their policy's window had passed.
    pub failures: u32,
    /// Set once the agent is done with the task.
    pub ended: Option<Ended>,
    /// Whether anything of it is left on the host besides its record.
    pub remains: bool,
    /// It is run once, and never again.
    pub once: bool,
}

/// The latest attempt's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// No attempt has been made, or the last one has been taken note of.
    None,
    Running,
    /// It runs, and its health check has given it up.
    Unhealthy,
    /// It ended and that has not been taken note of.
    Exited {
        exit: Exit,
        /// How long it was up: since its start, or since it was first found healthy where that is checked.
        held: Duration,
        /// It was ended because its health check had given it up.
        unhealthy: bool,
    },
    /// It ended, and the next attempt is due after a wait that began at `noted`.
    Resting {
        noted: Timestamp,
    },
}

/// One thing to do to the host. Each can be done again after it was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Prepare and start an attempt.
    Start { attempt: u32 },
    /// Ask the container to end, and insist after its grace period.
    Stop,
    /// Take note of how an attempt ended; it is to be followed by another.
    Rest { failures: u32 },
    /// Take note that there will be no further attempt.
    End(Ended),
    /// Leave nothing on the host.
    Remove,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Do(Effect),
    /// Nothing before `until`, unless something changes.
    Wait {
        until: Timestamp,
    },
    /// Nothing, until something changes.
    Hold(Why),
}

/// Why nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Runs,
    Ended,
}

/// First match wins, from the end of a task's life to its beginning.
pub fn step(desired: Desired, policy: &RestartPolicy, observed: &Observed, now: Timestamp) -> Next {
    match (observed.ended, desired, observed.container) {
        (Some(_), Desired::Removed, _) if observed.remains => Next::Do(Effect::Remove),
        (Some(_), _, _) => Next::Hold(Why::Ended),
        (None, Desired::Stopped | Desired::Removed, Container::Running) | (None, _, Container::Unhealthy) => {
            Next::Do(Effect::Stop)
        }
        (None, Desired::Stopped | Desired::Removed, _) => Next::Do(Effect::End(Ended::Stopped)),
        (None, Desired::Running | Desired::Yielding, Container::Running) => Next::Hold(Why::Runs),
        (None, Desired::Running | Desired::Yielding, Container::Exited { exit, held, unhealthy }) => {
            Next::Do(after(policy, observed, held, (exit, unhealthy)))
        }
        (None, Desired::Running | Desired::Yielding, Container::None) => {
            Next::Do(Effect::Start { attempt: observed.attempt + 1 })
        }
        (None, Desired::Running | Desired::Yielding, Container::Resting { noted }) => {
            let until = noted.plus(delay(policy, observed.failures));
            // A clock that was set back must not hold a container down for as long.
            if until > now && noted <= now {
                Next::Wait { until }
            } else {
                Next::Do(Effect::Start { attempt: observed.attempt + 1 })
            }
        }
    }
}

/// What follows an attempt that ended while it was wanted. One that was unhealthy has failed, however it took its stop: that
/// is Swarm's rule too.
fn after(
    policy: &RestartPolicy,
    observed: &Observed,
    held: Duration,
    (exit, unhealthy): (Exit, bool),
) -> Effect {
    // An attempt that held counts as a fresh start for those after it.
    let failures = if held >= policy.window { 1 } else { observed.failures + 1 };
    // The node or the shim went down under it: that ends no task, whatever the policy says, but one that is run once: nobody
    // knows how far it came.
    if exit == Exit::Unknown && !observed.once {
        return Effect::Rest { failures };
    }
    let wants_restart = match policy.condition {
        RestartCondition::Never => false,
        RestartCondition::OnFailure => unhealthy || !exit.success(),
        RestartCondition::Always => true,
    };
    match policy.max_attempts {
        // Not completed: nobody may take it for a task that did what it was there for. An image that could not be pulled is
        // the usual reason for one that never started.
        _ if !wants_restart && (unhealthy || matches!(exit, Exit::Unknown | Exit::NotStarted)) => {
            Effect::End(Ended::GaveUp)
        }
        _ if !wants_restart => Effect::End(Ended::Completed),
        // The first attempt is not a restart.
        Some(most) if observed.attempt > most => Effect::End(Ended::GaveUp),
        None if failures >= FAILURES_HERE => Effect::End(Ended::Failing),
        Some(_) | None => Effect::Rest { failures },
    }
}

/// How long to wait before the next attempt: doubling with every failure in a row.
pub(crate) fn delay(policy: &RestartPolicy, failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let first = policy.delay.unwrap_or(FIRST_DELAY);
    let longest = LONGEST_DELAY.max(first);
    first.saturating_mul(1 << (failures - 1).min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(100_000);

    fn observed(container: Container) -> Observed {
        Observed { attempt: 1, container, failures: 0, ended: None, remains: true, once: false }
    }

    fn exited(code: u8, held: u64) -> Container {
        Container::Exited { exit: Exit::Code(code), held: Duration::from_secs(held), unhealthy: false }
    }

    fn policy(condition: RestartCondition, max_attempts: Option<u32>) -> RestartPolicy {
        RestartPolicy { condition, max_attempts, ..RestartPolicy::default() }
    }

    const ALWAYS: RestartPolicy = RestartPolicy {
        condition: RestartCondition::Always,
        delay: None,
        max_attempts: None,
        window: RestartPolicy::WINDOW,
    };

    #[test]
    fn a_wanted_task_is_started_and_then_left_alone() {
        let fresh = Observed { attempt: 0, ..observed(Container::None) };
        assert_eq!(step(Desired::Running, &ALWAYS, &fresh, NOW), Next::Do(Effect::Start { attempt: 1 }));
        let runs = observed(Container::Running);
        assert_eq!(step(Desired::Running, &ALWAYS, &runs, NOW), Next::Hold(Why::Runs));
    }

    #[test]
    fn a_task_is_stopped_before_it_ends_and_removed_after() {
        for desired in [Desired::Stopped, Desired::Removed] {
            let runs = observed(Container::Running);
            assert_eq!(step(desired, &ALWAYS, &runs, NOW), Next::Do(Effect::Stop));
            let stopped = observed(exited(0, 1));
            assert_eq!(step(desired, &ALWAYS, &stopped, NOW), Next::Do(Effect::End(Ended::Stopped)));
        }
        let ended = Observed { ended: Some(Ended::Stopped), ..observed(Container::None) };
        assert_eq!(step(Desired::Stopped, &ALWAYS, &ended, NOW), Next::Hold(Why::Ended));
        assert_eq!(step(Desired::Removed, &ALWAYS, &ended, NOW), Next::Do(Effect::Remove));
        let gone = Observed { remains: false, ..ended };
        assert_eq!(step(Desired::Removed, &ALWAYS, &gone, NOW), Next::Hold(Why::Ended));
    }

    #[test]
    fn an_ended_task_never_starts_again() {
        for ended in [Ended::Stopped, Ended::Completed, Ended::GaveUp, Ended::Failing] {
            let over = Observed { ended: Some(ended), ..observed(Container::None) };
            assert_eq!(step(Desired::Running, &ALWAYS, &over, NOW), Next::Hold(Why::Ended));
        }
    }

    #[test]
    fn the_policy_decides_what_follows_an_exit() {
        use RestartCondition::{Always, Never, OnFailure};
        let rest = |failures| Next::Do(Effect::Rest { failures });
        let end = |ended| Next::Do(Effect::End(ended));
        for (policy, code, next) in [
            (policy(Never, None), 1, end(Ended::Completed)),
            (policy(OnFailure, None), 0, end(Ended::Completed)),
            (policy(OnFailure, None), 1, rest(1)),
            (policy(Always, None), 0, rest(1)),
            (policy(Always, Some(0)), 1, end(Ended::GaveUp)),
            (policy(Always, Some(1)), 1, rest(1)),
        ] {
            assert_eq!(
                step(Desired::Running, &policy, &observed(exited(code, 1)), NOW),
                next,
                "{policy:?} {code}"
            );
        }
        let twice = Observed { attempt: 2, ..observed(exited(1, 1)) };
        assert_eq!(step(Desired::Running, &policy(Always, Some(1)), &twice, NOW), end(Ended::GaveUp));
    }

    #[test]
    fn quick_failures_in_a_row_send_the_task_elsewhere_and_a_long_run_forgets_them() {
        let fifth = Observed { failures: 4, ..observed(exited(1, 1)) };
        assert_eq!(step(Desired::Running, &ALWAYS, &fifth, NOW), Next::Do(Effect::End(Ended::Failing)));
        let held = Observed { failures: 4, ..observed(exited(1, 60)) };
        assert_eq!(step(Desired::Running, &ALWAYS, &held, NOW), Next::Do(Effect::Rest { failures: 1 }));
    }

    #[test]
    fn an_unhealthy_container_is_ended_and_its_attempt_has_failed_whatever_its_exit() {
        use RestartCondition::{Always, Never, OnFailure};
        for desired in [Desired::Running, Desired::Stopped, Desired::Removed] {
            let unhealthy = observed(Container::Unhealthy);
            assert_eq!(step(desired, &ALWAYS, &unhealthy, NOW), Next::Do(Effect::Stop));
        }
        let rest = |failures| Effect::Rest { failures };
        for (policy, held, effect) in [
            (policy(Always, None), 1, rest(3)),
            (policy(OnFailure, None), 1, rest(3)),
            (policy(OnFailure, None), 60, rest(1)),
            (policy(OnFailure, Some(0)), 60, Effect::End(Ended::GaveUp)),
            (policy(Never, None), 60, Effect::End(Ended::GaveUp)),
        ] {
            let (exit, held) = (Exit::Code(0), Duration::from_secs(held));
            let ended =
                Observed { failures: 2, ..observed(Container::Exited { exit, held, unhealthy: true }) };
            assert_eq!(step(Desired::Running, &policy, &ended, NOW), Next::Do(effect), "{policy:?} {held:?}");
        }
    }

    #[test]
    fn what_never_started_is_not_complete() {
        use RestartCondition::{Never, OnFailure};
        let exited = Container::Exited { exit: Exit::NotStarted, held: Duration::ZERO, unhealthy: false };
        for (condition, effect) in
            [(Never, Effect::End(Ended::GaveUp)), (OnFailure, Effect::Rest { failures: 1 })]
        {
            let next = step(Desired::Running, &policy(condition, None), &observed(exited), NOW);
            assert_eq!(next, Next::Do(effect), "{condition:?}");
        }
    }

    #[test]
    fn losing_the_machine_ends_no_task() {
        let never = policy(RestartCondition::Never, Some(0));
        let lost =
            observed(Container::Exited { exit: Exit::Unknown, held: Duration::ZERO, unhealthy: false });
        assert_eq!(step(Desired::Running, &never, &lost, NOW), Next::Do(Effect::Rest { failures: 1 }));
        let once = Observed { once: true, ..lost };
        assert_eq!(step(Desired::Running, &never, &once, NOW), Next::Do(Effect::End(Ended::GaveUp)));
    }

    #[test]
    fn the_wait_doubles_and_is_bounded() {
        let seconds = |first, failures| {
            let policy = RestartPolicy { delay: Some(Duration::from_secs(first)), ..ALWAYS };
            delay(&policy, failures).as_secs()
        };
        assert_eq!(
            [seconds(1, 0), seconds(1, 1), seconds(1, 2), seconds(1, 3), seconds(1, 40)],
            [0, 1, 2, 4, 30]
        );
        assert_eq!(seconds(120, 5), 120, "a wait that the user chose is not shortened");
        let resting = Observed { failures: 1, ..observed(Container::Resting { noted: NOW }) };
        let until = NOW.plus(FIRST_DELAY);
        assert_eq!(step(Desired::Running, &ALWAYS, &resting, NOW), Next::Wait { until });
        assert_eq!(step(Desired::Running, &ALWAYS, &resting, until), Next::Do(Effect::Start { attempt: 2 }));
    }
}
