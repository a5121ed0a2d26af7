//! `gantry node drain`.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use wire::proto::api::{DrainProgress, DrainTask, DrainedRequest, UpdateNodeRequest};
use wire::proto::model::Availability;

use crate::cluster::{Cluster, Effect, Operation, PATIENCE, is_passing};
use crate::failure::Failure;
use crate::progress::Display;
use crate::session::Session;
use crate::times;
use crate::verbs::{Wait, patience};

/// Between two attempts to open the stream, and how long one may say nothing.
const PAUSE: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_secs(5);

/// Move everything from a node to others, and wait until nothing is left
///
/// Each service moves at the pace of its updates: as many slots at a time as its `parallelism`, the new task first where its order
/// is start-first. What no other node takes stays until one does, and so does a job or `gantry run` that has not come to its
/// end, unless there is a deadline. The node gets nothing new until it is activated.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry node drain n2
  gantry node drain n2 --deadline 10m     stops what is left after ten minutes
  gantry node drain n2 --force            stops everything now
  gantry node activate n2                 ends the drain")]
pub struct Drain {
    /// A node's name
    node: String,
    /// When to stop what is still there
    #[arg(long, value_name = "DURATION", value_parser = patience)]
    deadline: Option<Duration>,
    /// Stop everything now, whether or not it has somewhere else to go
    #[arg(long, conflicts_with = "deadline")]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

/// There still is something on the node.
#[derive(Debug, thiserror::Error)]
#[error("{node}: not drained within {}", times::length(*.waited))]
pub(crate) struct NotDrained {
    node: String,
    waited: Duration,
    left: Vec<DrainTask>,
}

impl NotDrained {
    pub(crate) fn details(&self) -> Vec<String> {
        self.left.iter().map(line).collect()
    }

    pub(crate) fn hint(&self) -> String {
        let node = &self.node;
        format!(
            "the drain goes on; `gantry ps {node}` shows what is left, `gantry node activate {node}` ends it"
        )
    }
}

impl Drain {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { node, deadline, force, wait } = self;
        let begun = Instant::now();
        let deadline = if force { Some(Duration::ZERO) } else { deadline };
        let update = UpdateNodeRequest {
            availability: Availability::Drain.into(),
            deadline: deadline.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            ..super::update(&node)
        };
        let mut cluster = session.cluster()?;
        session.if_interrupted(format!("the change may have been made; `{}` shows it", super::LIST));
        let operation = Operation { operand: &node, effect: Effect::Changes, list: super::LIST };
        let sent = cluster.call(operation, wait.timeout, |mut client| {
            let update = update.clone();
            async move { client.update_node(update).await }
        });
        let index = sent.await?.generation;
        if wait.detach {
            let look = format!("gantry ps {node}");
            session.output.data(format!("{node}: draining; `{look}` shows what is left\n"))?;
            return Ok(());
        }
        session.if_interrupted(format!(
            "the drain goes on; `gantry ps {node}` shows what is left, `gantry node activate {node}` ends it"
        ));
        let mut display = Display::of(session.output, true);
        let mut left = Vec::new();
        let goal = DrainedRequest { node: node.clone(), index };
        let followed = follow(&mut cluster, &goal, |progress| {
            display.lines(&progress.tasks.iter().map(|task| (key(task), line(task))).collect());
            left.clone_from(&progress.tasks);
        });
        let last = timeout_at(begun + wait.timeout, followed).await;
        drop(display);
        let Ok(last) = last else {
            return Err(NotDrained { node, waited: wait.timeout, left }.into());
        };
        let last = last?;
        let took = times::length(begun.elapsed());
        let end = if last.availability == "drain" {
            format!("{node}: drained ({took})\n")
        } else {
            format!("{node}: not drained; somebody made it {} again\n", last.availability)
        };
        session.output.data(end)?;
        Ok(())
    }
}

fn key(task: &DrainTask) -> String {
    format!("{}.{}", task.service, task.slot)
}

fn line(task: &DrainTask) -> String {
    let key = key(task);
    if task.reason.is_empty() {
        format!("{key}  is about to move")
    } else {
        format!("{key}  {}", task.reason)
    }
}

/// Has `look` see every word of how the drain goes, until it is over. Managers may come and go meanwhile.
async fn follow(
    cluster: &mut Cluster,
    goal: &DrainedRequest,
    mut look: impl FnMut(&DrainProgress),
) -> Result<DrainProgress, Failure> {
    let operation = Operation { operand: &goal.node, effect: Effect::Reads, list: super::LIST };
    loop {
        let opened = cluster.call(operation, PATIENCE, |mut client| {
            let goal = goal.clone();
            async move { client.drained(goal).await }
        });
        match opened.await {
            Ok(mut stream) => {
                while let Ok(said) = timeout_at(Instant::now() + QUIET, stream.message()).await {
                    match said {
                        Ok(Some(progress)) => {
                            look(&progress);
                            if progress.tasks.is_empty() || progress.availability != "drain" {
                                return Ok(progress);
                            }
                        }
                        Ok(None) => break,
                        Err(status) if is_passing(&status) => break,
                        Err(status) => return Err(operation.refused(&status).into()),
                    }
                }
                cluster.turn_away();
            }
            Err(error) if error.is_unanswered() => {}
            Err(error) => return Err(error.into()),
        }
        sleep(PAUSE).await;
    }
}
