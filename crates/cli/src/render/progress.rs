//! How far a change is.

use std::time::Duration;

use wire::proto::api::{Progress, Rollout, ServiceProgress};

use crate::render::plain;
use crate::times;

/// `hello/web  7/9 ready  1 leaving  waiting: …`; of services that are to vanish, how many tasks are left.
pub(crate) fn line(service: &ServiceProgress, gone: bool) -> String {
    let ServiceProgress {
        service: name,
        desired,
        running: _,
        ready,
        current,
        leaving,
        waiting,
        rollout,
        failed,
        run,
        rests: _,
    } = service;
    let mut parts = vec![name.clone()];
    if gone && *leaving == 0 {
        parts.push("stopping".to_owned());
    } else if !gone {
        parts.push(reached(service));
        // All are ready, but some have yet to be replaced.
        if current < ready {
            parts.push(format!("{current}/{desired} updated"));
        }
    }
    if *leaving > 0 && *run == 0 {
        parts.push(format!("{leaving} leaving"));
    }
    if let Some(rollout) = rollout.as_ref().filter(|rollout| rollout.from != rollout.to && !gone) {
        parts.push(change(rollout));
    }
    if !failed.is_empty() {
        parts.push(failed.clone());
    } else if !waiting.is_empty() {
        parts.push(format!("waiting: {}", waiting.join("; ")));
    }
    plain(&parts.join("  "))
}

/// `7/9 ready`, and of a job `run 2, 1/3 done`.
fn reached(service: &ServiceProgress) -> String {
    let ServiceProgress { run, ready, desired, rests, .. } = service;
    match run {
        0 if !rests.is_empty() => rests.clone(),
        0 => format!("{ready}/{desired} ready"),
        run => format!("run {run}, {ready}/{desired} done"),
    }
}

/// `v1 -> v2, 3/9 done`, and how it stands where it is not simply going on.
fn change(rollout: &Rollout) -> String {
    let Rollout { from, to, slots, done, phase, promoted, .. } = rollout;
    let stands = match phase.as_str() {
        "running" if !promoted => ", canaries",
        "running" if done == slots => ", on trial",
        "completed" => ", completed",
        _ => "",
    };
    format!("v{from} -> v{to}, {done}/{slots} done{stands}")
}

/// What a change that is in effect ends with: a line each service and the time it took, as lines.
pub(crate) fn end(operand: &str, last: Option<&Progress>, gone: bool, took: Duration) -> String {
    let took = times::length(took);
    if gone {
        return format!("{operand}: removed in {took}\n");
    }
    let services = last.map_or(&[][..], |progress| progress.services.as_slice());
    let lines = services.iter().map(|s| format!("{}: {}\n", plain(&s.service), plain(&reached(s))));
    lines.chain([format!("{operand}: converged in {took}\n")]).collect()
}

/// What is not in effect yet and why: a line each service that is on its way.
pub(crate) fn missing(progress: &Progress) -> Vec<String> {
    let unfinished = progress.services.iter().filter(|s| {
        let is_on_its_way = s.ready < s.desired || s.current < s.desired || s.leaving > 0;
        is_on_its_way || !s.waiting.is_empty() || !s.failed.is_empty()
    });
    unfinished.map(|service| line(service, false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ServiceProgress {
        ServiceProgress {
            service: "hello/web".to_owned(),
            desired: 9,
            running: 8,
            ready: 7,
            current: 7,
            leaving: 0,
            waiting: vec!["no node has 4 CPUs free".to_owned(), "slot 3: cannot pull".to_owned()],
            rollout: None,
            run: 0,
            rests: String::new(),
            failed: String::new(),
        }
    }

    #[test]
    fn a_rollout_shows_its_versions_and_how_it_stands() {
        let rollout = Rollout {
            from: 1,
            to: 2,
            slots: 9,
            done: 9,
            phase: "running".to_owned(),
            promoted: true,
            ..Rollout::default()
        };
        let on_trial = ServiceProgress { rollout: Some(rollout.clone()), ..done() };
        assert_eq!(line(&on_trial, false), "hello/web  9/9 ready  v1 -> v2, 9/9 done, on trial");
        let failed = ServiceProgress {
            rollout: Some(Rollout { done: 1, phase: "failed".to_owned(), ..rollout }),
            failed: "the rollout to v2 failed: slot 1: exit code 1".to_owned(),
            ..web()
        };
        assert_eq!(
            line(&failed, false),
            "hello/web  7/9 ready  v1 -> v2, 1/9 done  the rollout to v2 failed: slot 1: exit code 1"
        );
    }

    fn done() -> ServiceProgress {
        ServiceProgress { ready: 9, current: 9, waiting: Vec::new(), ..web() }
    }

    #[test]
    fn a_line_says_what_is_missing_and_why() {
        assert_eq!(
            line(&web(), false),
            "hello/web  7/9 ready  waiting: no node has 4 CPUs free; slot 3: cannot pull"
        );
        assert_eq!(line(&done(), false), "hello/web  9/9 ready");
        let updating = ServiceProgress { current: 2, leaving: 1, ..done() };
        assert_eq!(line(&updating, false), "hello/web  9/9 ready  2/9 updated  1 leaving");
    }

    #[test]
    fn a_job_says_how_far_its_run_is_or_that_there_is_none() {
        let rests = ServiceProgress {
            desired: 0,
            ready: 0,
            current: 0,
            rests: "is not done anew".to_owned(),
            ..done()
        };
        assert_eq!(line(&rests, false), "hello/web  is not done anew");
        let job = ServiceProgress { run: 3, ..web() };
        assert!(line(&job, false).starts_with("hello/web  run 3, 7/9 done"), "{}", line(&job, false));
    }

    #[test]
    fn what_is_to_vanish_counts_what_is_left() {
        let leaving = ServiceProgress { desired: 0, ready: 0, current: 0, leaving: 3, ..done() };
        assert_eq!(line(&leaving, true), "hello/web  3 leaving");
        assert_eq!(line(&ServiceProgress { leaving: 0, ..leaving }, true), "hello/web  stopping");
    }

    #[test]
    fn the_end_has_every_service_and_the_time() {
        let progress = Progress { services: vec![done()], converged: true };
        let took = Duration::from_millis(1240);
        assert_eq!(
            end("hello", Some(&progress), false, took),
            "hello/web: 9/9 ready\nhello: converged in 1.24 s\n"
        );
        assert_eq!(end("hello", Some(&Progress::default()), true, took), "hello: removed in 1.24 s\n");
    }

    #[test]
    fn what_is_in_effect_is_not_missing() {
        let progress = Progress { services: vec![done(), web()], converged: false };
        assert_eq!(missing(&progress), [line(&web(), false)]);
    }
}
