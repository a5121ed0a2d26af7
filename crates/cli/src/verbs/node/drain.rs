//! `gantry node drain`.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wire::proto::api::{DrainProgress, DrainTask, DrainedRequest, UpdateNodeRequest};
use wire::proto::model::Availability;

use crate::cluster::{Client, Effect, Operation};
use crate::failure::Failure;
use crate::progress::Display;
use crate::session::Session;
use crate::settle::listen;
use crate::times;
use crate::verbs::{Wait, patience};

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
        let ask = |mut client: Client| {
            let goal = goal.clone();
            async move { client.drained(goal).await }
        };
        let operation = Operation { operand: &node, effect: Effect::Reads, list: super::LIST };
        let followed = listen(&mut cluster, operation, ask, async |_, progress: DrainProgress| {
            display.lines(&progress.tasks.iter().map(|task| (key(task), line(task))).collect());
            left.clone_from(&progress.tasks);
            let is_over = progress.tasks.is_empty() || progress.availability != "drain";
            Ok(is_over.then_some(progress))
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
