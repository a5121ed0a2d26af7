//! Services that run to their end: Swarm's modes `replicated-job` and `global-job`, and `x-gantry`'s `job`.

use std::time::Duration;

use model::{JobSpec, RestartCondition, RestartPolicy};

use crate::deploy::Restarts;
use crate::problem::{Report, Span};
use crate::tree::{Entry, Node};
use crate::typed::{self, Placed};
use crate::{duration, keys};

/// What `x-gantry.job` says.
pub(crate) fn job(node: &Node, report: &mut Report<'_>) -> JobSpec {
    let mut job = JobSpec::default();
    for Entry { key, value } in typed::entries(node, "`job`", report) {
        match key.text.as_str() {
            "parallelism" => {
                job.parallelism = typed::integer(value, "`parallelism`", 1..=u32::MAX, report);
            }
            "deadline" => {
                job.deadline = typed::quantity(value, "`deadline`", duration::parse_duration, report)
                    .filter(|deadline| is_some_time(*deadline, value.span, report));
            }
            "history" => {
                let history = typed::integer(value, "`history`", 1..=JobSpec::MAX_HISTORY, report);
                job.history = history.unwrap_or(job.history);
            }
            _ => keys::unknown(
                key,
                &["parallelism", "deadline", "history"],
                "there are parallelism, deadline and history",
                report,
            ),
        }
    }
    job
}

fn is_some_time(deadline: Duration, span: Span, report: &mut Report<'_>) -> bool {
    if deadline.is_zero() {
        report.error_with(span, "no job is done within no time", "write for example `10m`");
    }
    !deadline.is_zero()
}

/// A job from the mode that the service has and from what is said of it as one.
pub(crate) fn of_mode(is_job: bool, said: Placed<JobSpec>, report: &mut Report<'_>) -> Option<JobSpec> {
    match (is_job, said) {
        (true, said) => Some(said.map(|(_, job)| job).unwrap_or_default()),
        (false, None) => None,
        (false, Some((span, _))) => {
            let message = "a service that runs for good is no job";
            report.error_with(span, message, "write `deploy: {mode: replicated-job}` or `global-job`");
            None
        }
    }
}

/// A job's restart policy: on failure, unless the file says otherwise; and that a container ran for a while before it failed
/// does not make the failure its first.
pub(crate) fn restart(said: Restarts, report: &mut Report<'_>) -> RestartPolicy {
    let condition = match said.condition {
        None => RestartCondition::OnFailure,
        Some((span, RestartCondition::Always)) => {
            let message = "a job is not started again once it has succeeded";
            report.error_with(span, message, "let it be restarted on-failure, or not at all");
            RestartCondition::OnFailure
        }
        Some((_, condition @ (RestartCondition::Never | RestartCondition::OnFailure))) => condition,
    };
    let window = said.window.unwrap_or(RestartPolicy::NEVER_HELD);
    RestartPolicy { condition, window, ..said.policy() }
}
