//! `gantry job ls` and `gantry job history`.

use std::time::Duration;

use serde::Serialize;
use wire::proto::api::{self, JobRun};

use crate::render::table::table;
use crate::times;

/// A job with its latest run.
#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    service: &'a str,
    /// `replicated-job | global-job`
    mode: &'a str,
    image: &'a str,
    /// A cron expression, and its time zone where that is not UTC; null where it is done when it is deployed.
    schedule: Option<&'a str>,
    next: Option<String>,
    /// When it was last due and not begun, and why.
    skipped: Option<String>,
    skip_reason: Option<&'a str>,
    /// The latest; null if there has been none.
    run: Option<Run<'a>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Run<'a> {
    service: &'a str,
    run: u32,
    version: u64,
    /// `deploy | asked | schedule`
    cause: &'a str,
    by: Option<&'a str>,
    /// `running | succeeded | failed | stopped`
    status: &'a str,
    /// Slots that have succeeded.
    done: u32,
    /// Slots that are to; null when it is over.
    slots: Option<u32>,
    began: Option<String>,
    /// Null while it goes on.
    ended: Option<String>,
    reason: Option<&'a str>,
    waiting: &'a [String],
}

pub(crate) fn rows(jobs: &[api::Job]) -> Vec<Row<'_>> {
    jobs.iter().map(row).collect()
}

fn row(job: &api::Job) -> Row<'_> {
    let api::Job { service, mode, image, runs, schedule, next, skipped, skip_reason } = job;
    Row {
        service,
        mode,
        image,
        schedule: (!schedule.is_empty()).then_some(schedule),
        next: times::rfc3339(*next),
        skipped: times::rfc3339(*skipped),
        skip_reason: (!skip_reason.is_empty()).then_some(skip_reason),
        run: runs.first().map(|run| run_of(job, run)),
    }
}

pub(crate) fn history<'a>(runs: &[(&'a api::Job, &'a JobRun)]) -> Vec<Run<'a>> {
    runs.iter().map(|(job, run)| run_of(job, run)).collect()
}

fn run_of<'a>(job: &'a api::Job, of: &'a JobRun) -> Run<'a> {
    let JobRun { run, version, cause, by, status, done, slots, began, ended, reason, waiting } = of;
    Run {
        service: &job.service,
        run: *run,
        version: *version,
        cause,
        by: (!by.is_empty()).then_some(by),
        status,
        done: *done,
        slots: (*ended == 0).then_some(*slots),
        began: times::rfc3339(*began),
        ended: times::rfc3339(*ended),
        reason: (!reason.is_empty()).then_some(reason),
        waiting,
    }
}

/// `now` is in milliseconds since the epoch.
pub(crate) fn table_of(jobs: &[api::Job], wide: bool, now: u64) -> String {
    let mut header = vec!["JOB", "MODE", "SCHEDULE", "NEXT", "RUN", "STATUS", "DONE", "BEGAN", "TOOK"];
    if wide {
        header.push("IMAGE");
    }
    header.push("REASON");
    let cells = |job: &api::Job| {
        let run = job.runs.first();
        let mut cells = vec![job.service.clone(), job.mode.clone(), job.schedule.clone()];
        cells.push(times::until(now, job.next));
        cells.push(run.map(|run| run.run.to_string()).unwrap_or_default());
        cells.extend(run.map_or_else(|| vec![String::new(); 4], |run| stands(run, now)));
        if wide {
            cells.push(job.image.clone());
        }
        cells.push(said_of(job, now));
        cells
    };
    table(&header, &jobs.iter().map(cells).collect::<Vec<_>>())
}

pub(crate) fn history_table(runs: &[(&api::Job, &JobRun)], wide: bool, now: u64) -> String {
    let mut header = vec!["RUN", "VERSION", "CAUSE", "STATUS", "DONE", "BEGAN", "TOOK"];
    if wide {
        header.push("BY");
    }
    header.push("REASON");
    let cells = |(_, run): &(&api::Job, &JobRun)| {
        let mut cells = vec![run.run.to_string(), format!("v{}", run.version), run.cause.clone()];
        cells.extend(stands(run, now));
        if wide {
            cells.push(run.by.clone());
        }
        cells.push(reason(run));
        cells
    };
    table(&header, &runs.iter().map(cells).collect::<Vec<_>>())
}

/// Status, slots done, when it began and how long it took.
fn stands(run: &JobRun, now: u64) -> Vec<String> {
    let goes_on = run.ended == 0;
    let done = if goes_on { format!("{}/{}", run.done, run.slots) } else { run.done.to_string() };
    let until = if goes_on { now } else { run.ended };
    let took = times::length(Duration::from_millis(until.saturating_sub(run.began)));
    vec![run.status.clone(), done, times::ago(now, run.began), took]
}

/// Why the latest run is as it is; or that a time since it began was skipped.
fn said_of(job: &api::Job, now: u64) -> String {
    let began = job.runs.first().map_or(0, |run| run.began);
    let mut parts: Vec<String> =
        job.runs.first().map(reason).filter(|reason| !reason.is_empty()).into_iter().collect();
    if job.skipped > began {
        parts.push(format!("skipped {}: {}", times::ago(now, job.skipped), job.skip_reason));
    }
    parts.join("; ")
}

fn reason(run: &JobRun) -> String {
    if run.reason.is_empty() { run.waiting.join("; ") } else { run.reason.clone() }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn job() -> api::Job {
        let goes_on = JobRun {
            run: 2,
            version: 3,
            cause: "asked".to_owned(),
            by: "root on n1".to_owned(),
            status: "running".to_owned(),
            done: 1,
            slots: 3,
            began: 1_700_000_050_000,
            waiting: vec!["slot 3 waits until one of the others is done".to_owned()],
            ..JobRun::default()
        };
        let failed = JobRun {
            run: 1,
            version: 2,
            cause: "deploy".to_owned(),
            by: String::new(),
            status: "failed".to_owned(),
            slots: 0,
            began: 1_700_000_000_000,
            ended: 1_700_000_003_500,
            reason: "slot 1: exit code 1".to_owned(),
            ..JobRun::default()
        };
        api::Job {
            service: "hello/backup".to_owned(),
            mode: "replicated-job".to_owned(),
            image: "tools:1".to_owned(),
            runs: vec![goes_on, failed],
            ..api::Job::default()
        }
    }

    #[test]
    fn a_job_is_shown_with_its_latest_run_and_the_runs_each() {
        let job = job();
        let new = api::Job { runs: Vec::new(), ..job.clone() };
        let now = 1_700_000_060_000;
        let new = api::Job { schedule: "30 3 * * * Europe/Berlin".to_owned(), next: now + 7_300_000, ..new };
        let late = api::Job {
            skipped: now - 5_000,
            skip_reason: "the run before it still went on".to_owned(),
            ..api::Job { runs: job.runs.clone(), ..new.clone() }
        };
        expect![[r#"
            JOB           MODE            SCHEDULE                  NEXT   RUN  STATUS   DONE  BEGAN    TOOK  IMAGE    REASON
            hello/backup  replicated-job  -                         -      2    running  1/3   10s ago  10 s  tools:1  slot 3 waits until one of the others is done
            hello/backup  replicated-job  30 3 * * * Europe/Berlin  in 2h  -    -        -     -        -     tools:1
            hello/backup  replicated-job  30 3 * * * Europe/Berlin  in 2h  2    running  1/3   10s ago  10 s  tools:1  slot 3 waits until one of the others is done; skipped 5s ago: the run before it still went on
        "#]].assert_eq(&table_of(&[job.clone(), new, late], true, now));
        let runs: Vec<_> = job.runs.iter().map(|run| (&job, run)).collect();
        expect![[r#"
            RUN  VERSION  CAUSE   STATUS   DONE  BEGAN    TOOK    BY          REASON
            2    v3       asked   running  1/3   10s ago  10 s    root on n1  slot 3 waits until one of the others is done
            1    v2       deploy  failed   0     1m ago   3.50 s  -           slot 1: exit code 1
        "#]].assert_eq(&history_table(&runs, true, now));
    }

    #[test]
    fn what_is_unknown_is_null() {
        let job = job();
        let rows = serde_json::to_value(rows(&[job.clone(), api::Job { runs: Vec::new(), ..job }])).unwrap();
        assert_eq!(rows[0]["run"]["ended"], serde_json::Value::Null);
        assert_eq!(
            (&rows[0]["run"]["slots"], &rows[0]["run"]["reason"]),
            (&3.into(), &serde_json::Value::Null)
        );
        assert_eq!(rows[1]["run"], serde_json::Value::Null);
    }
}
