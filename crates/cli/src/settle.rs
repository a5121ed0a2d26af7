//! The wait for a change to be in effect.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::Streaming;
use wire::proto::api::{ConvergeRequest, Progress};

use crate::cluster::{Cluster, Effect, Operation, PATIENCE, is_passing};
use crate::failure::Failure;
use crate::progress::Display;
use crate::render;
use crate::session::Session;
use crate::times;
use crate::verbs::Wait;

/// A stream that says nothing for so long is opened again: the manager at its other end may have lost its place and not know.
/// What is told twice is shown once.
const QUIET: Duration = Duration::from_secs(5);

/// Between two attempts to open the stream.
const PAUSE: Duration = Duration::from_millis(100);

/// A change that was acknowledged, and what it takes for it to be in effect.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// What the user named.
    pub(crate) operand: String,
    /// The command that shows how it goes.
    pub(crate) look: String,
    pub(crate) goal: ConvergeRequest,
}

#[derive(Debug, thiserror::Error)]
#[error("{operand}: not {} within {}", goal_name(*.gone), times::length(*.waited))]
pub(crate) struct NotConverged {
    operand: String,
    look: String,
    gone: bool,
    waited: Duration,
    /// The last that was heard.
    progress: Option<Progress>,
}

fn goal_name(gone: bool) -> &'static str {
    if gone { "gone" } else { "converged" }
}

impl NotConverged {
    /// What is missing and why, a line each.
    pub(crate) fn details(&self) -> Vec<String> {
        match &self.progress {
            Some(progress) => render::progress::missing(progress),
            None => vec!["no manager has said how far it is".to_owned()],
        }
    }

    pub(crate) fn hint(&self) -> String {
        format!("the change is accepted and goes on; `{}` shows it", self.look)
    }
}

/// Shows how the change goes and returns when it is in effect; with `--detach` says that it was accepted. `begun` is when the
/// command was: its timeout and the time it reports count from there.
pub(crate) async fn settle(
    session: &Session,
    cluster: &mut Cluster,
    accepted: Accepted,
    wait: Wait,
    begun: Instant,
) -> Result<(), Failure> {
    let Accepted { operand, look, goal } = accepted;
    if wait.detach {
        session.output.data(format!("{operand}: accepted; `{look}` shows how it goes\n"))?;
        return Ok(());
    }
    session.if_interrupted(format!("the change is accepted and goes on; `{look}` shows it"));
    let mut display = Display::of(session.output, goal.gone);
    let mut last = None;
    let deadline = begun + wait.timeout;
    let waited = timeout_at(deadline, follow(cluster, &goal, &mut display, &mut last)).await;
    drop(display);
    match waited {
        Ok(converged) => converged?,
        Err(_) => {
            let (gone, waited) = (goal.gone, wait.timeout);
            return Err(NotConverged { operand, look, gone, waited, progress: last }.into());
        }
    }
    let end = render::progress::end(&operand, last.as_ref(), goal.gone, begun.elapsed());
    session.output.data(end)?;
    Ok(())
}

/// Returns when the goal is reached. Managers may come and go meanwhile; `last` is the latest that one of them said.
async fn follow(
    cluster: &mut Cluster,
    goal: &ConvergeRequest,
    display: &mut Display,
    last: &mut Option<Progress>,
) -> Result<(), Failure> {
    let operand = goal.targets.join(", ");
    let operation = Operation { operand: &operand, effect: Effect::Reads, list: "gantry services" };
    loop {
        let opened = cluster.call(operation, PATIENCE, |mut client| {
            let goal = goal.clone();
            async move { client.converge(goal).await }
        });
        match opened.await {
            Ok(stream) => {
                if read(stream, operation, display, last).await? {
                    return Ok(());
                }
                cluster.turn_away();
            }
            // The change is made; how long to wait for word of it is for `--timeout` to say.
            Err(error) if error.is_unanswered() => {}
            Err(error) => return Err(error.into()),
        }
        sleep(PAUSE).await;
    }
}

/// Reads one stream to its end: whether the goal is reached.
async fn read(
    mut stream: Streaming<Progress>,
    operation: Operation<'_>,
    display: &mut Display,
    last: &mut Option<Progress>,
) -> Result<bool, Failure> {
    loop {
        let message = match timeout_at(Instant::now() + QUIET, stream.message()).await {
            Ok(Ok(message)) => message,
            Ok(Err(status)) if is_passing(&status) => return Ok(false),
            Ok(Err(status)) => return Err(operation.refused(&status).into()),
            Err(_) => return Ok(false),
        };
        let Some(progress) = message else { return Ok(false) };
        display.show(&progress);
        let is_converged = progress.converged;
        *last = Some(progress);
        if is_converged {
            return Ok(true);
        }
    }
}
