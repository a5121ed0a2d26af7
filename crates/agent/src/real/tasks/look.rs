//! What there is to see of one task, asked once.

use std::path::PathBuf;

use model::TaskId;
use runtime::changes::{self, ChangeKind};
use runtime::stats;
use wire::proto::stream::{self, change, piece};

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

pub(super) async fn details(tasks: &Tasks, task: TaskId, mouth: &Mouth) -> Result<(), Cut> {
    let details = tasks.details.of(task);
    let _ = details;
    Ok(mouth.say(piece::Kind::End(true)).await?)
}
