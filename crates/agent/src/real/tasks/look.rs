//! What there is to see of one task, asked once.

use std::path::{Path, PathBuf};

use model::TaskId;
use runtime::changes::{self, ChangeKind};
use runtime::handle::{self, Observed};
use runtime::logs::Reader;
use runtime::stats;
use wire::proto::stream::{self, change, piece};

use crate::details::{Checked, TaskDetails};
use crate::health::Standing;
use crate::real::talk::Mouth;
use crate::real::tasks::{Cut, Tasks};
use crate::real::{blocking, failure};

/// Changes go out in messages of at most so many: some hundred kilobytes.
const CHANGES: usize = 1000;

pub(super) async fn changes(dir: PathBuf, mouth: &Mouth) -> Result<(), Cut> {
    let changes = blocking(move || {
        changes::changes(&dir).map_err(|error| failure("cannot read what the container changed", &error))
    })
    .await?;
    for some in changes.chunks(CHANGES) {
        let changes = some.iter().map(|changed| stream::Change {
            kind: match changed.kind {
                ChangeKind::Added => change::Kind::Added,
                ChangeKind::Changed => change::Kind::Changed,
                ChangeKind::Deleted => change::Kind::Deleted,
            }
            .into(),
            path: changed.path.to_string_lossy().into_owned(),
        });
        mouth.say(piece::Kind::Changes(stream::Changes { changes: changes.collect() })).await?;
    }
    Ok(mouth.say(piece::Kind::End(true)).await?)
}

pub(super) async fn processes(dir: PathBuf, mouth: &Mouth) -> Result<(), Cut> {
    let rows = blocking(move || {
        stats::processes(&dir).map_err(|error| failure("cannot list the container's processes", &error))
    })
    .await?;
    let processes = rows.into_iter().map(|row| stream::Process {
        pid: row.pid,
        node_pid: row.node_pid,
        uid: row.uid,
        elapsed_ms: millis(row.elapsed),
        cpu_ms: millis(row.cpu),
        memory: row.memory,
        command: row.command,
    });
    mouth.say(piece::Kind::Processes(stream::Processes { processes: processes.collect() })).await?;
    Ok(mouth.say(piece::Kind::End(true)).await?)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Lines of the log that are told with the rest.
const LINES: usize = 10;

pub(super) async fn details(tasks: &Tasks, task: TaskId, mouth: &Mouth) -> Result<(), Cut> {
    let known = tasks.details.of(task).unwrap_or_default();
    let dir = tasks.latest(task).ok();
    let (running, last_lines) = blocking(move || {
        let Some(dir) = dir else { return Ok((None, Vec::new())) };
        let running =
            match handle::inspect(&dir).map_err(|error| failure("cannot inspect the container", &error))? {
                Observed::Running(running) => Some(running),
                Observed::NotStarted | Observed::Starting | Observed::Exited(_) | Observed::Vanished => None,
            };
        Ok((running, last_lines(&dir)))
    })
    .await?;
    let TaskDetails { health, readiness, next_attempt } = known;
    let mut results: Vec<stream::HealthResult> = Vec::new();
    let (mut failures, mut healthy) = (0, None);
    if let Some(health) = health {
        failures = health.failures;
        healthy = match health.standing {
            Standing::Starting => None,
            Standing::Healthy => Some(true),
            Standing::Unhealthy => Some(false),
        };
        results.extend(health.results.into_iter().map(|checked| result(checked, false)));
    }
    results.extend(readiness.map(|readiness| result(readiness.last, true)));
    let details = stream::Details {
        health: results,
        failures,
        next_attempt: next_attempt.map(|at| at.0),
        last_lines,
        pid: running.as_ref().and_then(|running| u32::try_from(running.pid).ok()),
        paused: running.is_some_and(|running| running.paused),
        healthy,
    };
    mouth.say(piece::Kind::Details(details)).await?;
    Ok(mouth.say(piece::Kind::End(true)).await?)
}

fn result(checked: Checked, readiness: bool) -> stream::HealthResult {
    let Checked { attempt: _, at, took, healthy, output } = checked;
    stream::HealthResult { at: at.0, took_ms: millis(took), healthy, output, readiness }
}

/// What the container wrote last. A log that cannot be read has no lines: the rest is worth telling without them.
fn last_lines(dir: &Path) -> Vec<String> {
    let Ok(log) = Reader::open(dir, None, Some(LINES)) else { return Vec::new() };
    let text = |line: runtime::logs::Line| String::from_utf8_lossy(&line.text).into_owned();
    log.map_while(Result::ok).map(text).collect()
}
