//! Services that run to their end: Swarm's modes `replicated-job` and `global-job`, and `x-gantry`'s `job` and `schedule`.

use std::time::Duration;

use model::{InvalidSchedule, JobSpec, Missed, Overlap, RestartCondition, RestartPolicy, Schedule};

use crate::deploy::Restarts;
use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node};
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
pub(crate) fn of_mode(
    is_job: bool,
    said: Placed<JobSpec>,
    schedule: Placed<Option<Schedule>>,
    report: &mut Report<'_>,
) -> Option<JobSpec> {
    if is_job {
        let schedule = schedule.and_then(|(_, schedule)| schedule);
        return Some(JobSpec { schedule, ..said.map(|(_, job)| job).unwrap_or_default() });
    }
    let spans = said.map(|(span, _)| span).into_iter().chain(schedule.map(|(span, _)| span));
    for span in spans {
        let message = "a service that runs for good is no job";
        report.error_with(span, message, "write `deploy: {mode: replicated-job}` or `global-job`");
    }
    None
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

/// `x-gantry.schedule`: a cron expression, or a mapping that has one.
pub(crate) fn schedule(node: &Node, report: &mut Report<'_>) -> Option<Schedule> {
    if !matches!(node.content, Content::Mapping(_)) {
        let cron = typed::string(node, "`schedule`", report)?;
        return made((node.span, cron), None, (Overlap::default(), Missed::default()), report);
    }
    let (mut cron, mut zone) = (None, None);
    let (mut overlap, mut missed) = (Overlap::default(), Missed::default());
    for Entry { key, value } in typed::entries(node, "`schedule`", report) {
        match key.text.as_str() {
            "cron" => cron = typed::string(value, "`cron`", report).map(|text| (value.span, text)),
            "timezone" => zone = typed::string(value, "`timezone`", report).map(|text| (value.span, text)),
            "overlap" => {
                let choices = [Overlap::Skip, Overlap::Allow, Overlap::Replace].map(|it| (it.as_str(), it));
                overlap = one_of(value, "`overlap`", &choices, report).unwrap_or_default();
            }
            "missed" => {
                let choices = [Missed::Run, Missed::Skip].map(|it| (it.as_str(), it));
                missed = one_of(value, "`missed`", &choices, report).unwrap_or_default();
            }
            _ => keys::unknown(
                key,
                &["cron", "timezone", "overlap", "missed"],
                "there are cron, timezone, overlap and missed",
                report,
            ),
        }
    }
    let Some(cron) = cron else {
        report.error_with(
            node.span,
            "`schedule` does not say when",
            "write for example `cron: \"0 3 * * *\"`",
        );
        return None;
    };
    made(cron, zone, (overlap, missed), report)
}

fn made(
    (at, cron): (Span, &str),
    zone: Placed<&str>,
    (overlap, missed): (Overlap, Missed),
    report: &mut Report<'_>,
) -> Option<Schedule> {
    let name = zone.map_or(Schedule::UTC, |(_, zone)| zone);
    Schedule::new(cron, name, overlap, missed)
        .map_err(|error| match plain(error) {
            error @ (InvalidSchedule::Cron { .. } | InvalidSchedule::Never(_)) => report.error_with(
                at,
                error.to_string(),
                "write minute, hour, day of the month, month and day of the week: `30 3 * * MON-FRI`, or `@daily`",
            ),
            error @ InvalidSchedule::Zone(_) => report.error_with(
                zone.map_or(at, |(span, _)| span),
                error.to_string(),
                "write one of IANA's names, such as `Europe/Berlin`",
            ),
        })
        .ok()
}

/// The operand may be long and strange.
fn plain(error: InvalidSchedule) -> InvalidSchedule {
    match error {
        InvalidSchedule::Cron { cron, why } => InvalidSchedule::Cron { cron: shown(&cron), why: shown(&why) },
        InvalidSchedule::Never(cron) => InvalidSchedule::Never(shown(&cron)),
        InvalidSchedule::Zone(zone) => InvalidSchedule::Zone(shown(&zone)),
    }
}

fn one_of<T: Copy>(node: &Node, what: &str, choices: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
    let text = typed::string(node, what, report)?;
    let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
    if found.is_none() {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        report.error_with(
            node.span,
            format!("{what} cannot be `{}`", shown(text)),
            format!("write {}", words.join(" or ")),
        );
    }
    found
}
