//! The wait for a change to be in effect.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Response, Status, Streaming};
use wire::proto::api::{ConvergeRequest, Progress};

use crate::cluster::{Client, Cluster, Effect, Operation, PATIENCE, is_passing};
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

/// The change was accepted, and does not come to what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{service}: {why}")]
pub(crate) struct Unsuccessful {
    service: String,
    why: String,
    /// It is a job, and this failed run of it.
    run: u32,
    progress: Progress,
}

impl Unsuccessful {
    pub(crate) fn of(progress: &Progress) -> Option<Self> {
        let failed = progress.services.iter().find(|service| !service.failed.is_empty())?;
        let (service, why, run) = (failed.service.clone(), failed.failed.clone(), failed.run);
        Some(Self { service, why, run, progress: progress.clone() })
    }

    pub(crate) fn details(&self) -> Vec<String> {
        let others = |progress: &Progress| Progress {
            services: progress
                .services
                .iter()
                .filter(|other| other.service != self.service)
                .cloned()
                .collect(),
            ..progress.clone()
        };
        render::progress::missing(&others(&self.progress))
    }

    pub(crate) fn hint(&self) -> String {
        let service = &self.service;
        let look = if self.run == 0 { "rollout status" } else { "job history" };
        format!("`gantry {look} {service}` shows how it stands, `gantry logs {service}` what its tasks say")
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
    let followed = follow(cluster, &goal, &mut last, async |_, progress| {
        display.show(progress);
        if let Some(unsuccessful) = Unsuccessful::of(progress) {
            return Err(unsuccessful.into());
        }
        Ok(progress.converged.then_some(()))
    });
    let waited = timeout_at(deadline, followed).await;
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

/// Has `look` see every word of how a change goes, until it finds what it looks for. `last` is the latest that a manager said.
pub(crate) async fn follow<T>(
    cluster: &mut Cluster,
    goal: &ConvergeRequest,
    last: &mut Option<Progress>,
    mut look: impl AsyncFnMut(&mut Cluster, &Progress) -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let operand = goal.targets.join(", ");
    let operation = Operation { operand: &operand, effect: Effect::Reads, list: "gantry services" };
    let ask = |mut client: Client| {
        let goal = goal.clone();
        async move { client.converge(goal).await }
    };
    listen(cluster, operation, ask, async |cluster, progress| {
        let found = look(cluster, &progress).await?;
        *last = Some(progress);
        Ok(found)
    })
    .await
}

/// Has `look` hear every word of what `ask` opens, until it finds what it looks for. Managers may come and go meanwhile.
pub(crate) async fn listen<T, P, F, Fut>(
    cluster: &mut Cluster,
    operation: Operation<'_>,
    ask: F,
    mut look: impl AsyncFnMut(&mut Cluster, P) -> Result<Option<T>, Failure>,
) -> Result<T, Failure>
where
    F: Fn(Client) -> Fut,
    Fut: Future<Output = Result<Response<Streaming<P>>, Status>>,
{
    loop {
        match cluster.call(operation, PATIENCE, &ask).await {
            Ok(mut stream) => {
                while let Some(said) = next(&mut stream, operation).await? {
                    if let Some(found) = look(cluster, said).await? {
                        return Ok(found);
                    }
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

/// What the stream says next; `None` where it is to be opened again.
async fn next<P>(stream: &mut Streaming<P>, operation: Operation<'_>) -> Result<Option<P>, Failure> {
    match timeout_at(Instant::now() + QUIET, stream.message()).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(status)) if is_passing(&status) => Ok(None),
        Ok(Err(status)) => Err(operation.refused(&status).into()),
        Err(_) => Ok(None),
    }
}
