//! What containers use: counters, once or again and again.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::TaskId;
use runtime::handle::{self, Observed};
use runtime::stats::{self, Stats};
use tokio::time::MissedTickBehavior;
use wire::proto::stream::{NodeStats, TaskStats, WatchStats, piece};

use crate::real::talk::{Ear, Mouth};
use crate::real::tasks::{Cut, Tasks};
use crate::real::{blocking, failure};

/// Nobody reads faster, and every look costs the node some system calls a container.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) async fn answer(
    tasks: &Tasks,
    task: Option<TaskId>,
    WatchStats { interval }: WatchStats,
    ear: &mut Ear<'_>,
    mouth: &Mouth,
) -> Result<(), Cut> {
    if let Some(task) = task {
        tasks.running(task).await?;
    }
    if interval == 0 {
        mouth.say(piece::Kind::Stats(read(tasks, task).await?)).await?;
        return Ok(mouth.say(piece::Kind::End(true)).await?);
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(interval).max(SHORTEST));
    // A client that was slow wants to know how it is now, and not how it was.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let tell = async {
        loop {
            ticks.tick().await;
            mouth.say(piece::Kind::Stats(read(tasks, task).await?)).await?;
        }
    };
    tokio::select! {
        told = tell => told,
        () = ear.hung_up() => Ok(()),
    }
}

async fn read(tasks: &Tasks, task: Option<TaskId>) -> Result<NodeStats, Cut> {
    let disk = tasks.disk.clone();
    let stats = blocking(move || {
        let wanted = match task {
            Some(task) => vec![task],
            None => disk.records()?.into_iter().map(|record| record.assigned.id).collect(),
        };
        let latest = |task: TaskId| disk.attempts(task).pop().map(|(_, dir)| (task, dir));
        let tasks = wanted.into_iter().filter_map(latest).filter_map(of).collect();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let cpus = std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX));
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        Ok(NodeStats { at, tasks, cpus, memory: stats::node_memory() })
    });
    Ok(stats.await?)
}

/// `None` for a container that does not run; it may have ended since it was looked for.
fn of((task, dir): (TaskId, PathBuf)) -> Option<TaskStats> {
    let Ok(Observed::Running(_)) = handle::inspect(&dir) else { return None };
    let read = stats::read(&dir).map_err(|error| failure("cannot read what a container uses", &error));
    match read {
        Ok(stats) => Some(form(task, stats)),
        Err(failure) => {
            tracing::debug!(%task, %failure, "no counters");
            None
        }
    }
}

fn form(task: TaskId, stats: Stats) -> TaskStats {
    TaskStats {
        task: Some(task.into()),
        cpu_nanos: stats.cpu_nanos,
        memory: stats.memory_bytes,
        memory_limit: stats.memory_limit,
        pids: stats.pids,
        pids_limit: stats.pids_limit,
        read_bytes: stats.read_bytes,
        write_bytes: stats.write_bytes,
        received_bytes: stats.rx_bytes,
        sent_bytes: stats.tx_bytes,
        throttled_nanos: stats.throttled_nanos,
        oom_kills: stats.oom_kills,
    }
}
