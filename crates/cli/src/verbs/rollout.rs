//! `gantry rollout …`.

use model::ServiceName;
use tokio::time::Instant;
use wire::proto::api::{
    ChangeReply, ConvergeRequest, RestartRequest, RolloutRequest, SteerRequest, UndoRequest,
};

use crate::cluster::{Effect, Operation, PATIENCE, request};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::settle::{Accepted, settle};
use crate::times;
use crate::verbs::{Wait, scope};

/// See and steer how services move from one version to another
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Rollout {
    Status(RolloutStatus),
    History(History),
    Undo(Undo),
    Pause(Pause),
    Resume(Resume),
    Abort(Abort),
    Promote(Promote),
    Restart(Restart),
}

/// Show how a service moves, or has moved, to the version that it has
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout status hello/web
  gantry rollout status hello -o json")]
pub struct RolloutStatus {
    /// A service, as STACK/SERVICE, or a stack for all of its services
    #[arg(value_name = "SERVICE", value_parser = scope)]
    target: String,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// List the versions that a service keeps, and what each of them changed
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout history hello/web
  gantry rollout history hello/web -o wide")]
pub struct History {
    /// A service, as STACK/SERVICE
    service: ServiceName,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Go back to an earlier version
///
/// Without --to, that is the version which last served before this one. Scaling and what else is not of the tasks stay.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout undo hello/web
  gantry rollout undo hello/web --to 3")]
pub struct Undo {
    /// A service, as STACK/SERVICE
    service: ServiceName,
    /// A version that `gantry rollout history` lists
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

/// Replace nothing more until the rollout is resumed
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout pause hello/web")]
pub struct Pause {
    /// A service, as STACK/SERVICE
    service: ServiceName,
}

/// Go on with a rollout that is paused or has failed
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout resume hello/web")]
pub struct Resume {
    /// A service, as STACK/SERVICE
    service: ServiceName,
    #[command(flatten)]
    wait: Wait,
}

/// End a rollout, and go back to the version that it came from
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout abort hello/web")]
pub struct Abort {
    /// A service, as STACK/SERVICE
    service: ServiceName,
    #[command(flatten)]
    wait: Wait,
}

/// Give the version that the canaries have to all slots
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout promote hello/web")]
pub struct Promote {
    /// A service, as STACK/SERVICE
    service: ServiceName,
    #[command(flatten)]
    wait: Wait,
}

/// Replace every container of a service by a new one of the same version, at the pace of its updates
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rollout restart hello/web")]
pub struct Restart {
    /// A service, as STACK/SERVICE
    service: ServiceName,
    #[command(flatten)]
    wait: Wait,
}

impl Rollout {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Status(command) => command.run(session).await,
            Self::History(command) => command.run(session).await,
            Self::Undo(Undo { service, to, wait }) => {
                change(session, &service, Change::Undo(to), Some(wait)).await
            }
            Self::Pause(Pause { service }) => change(session, &service, Change::Steer("pause"), None).await,
            Self::Resume(Resume { service, wait }) => {
                change(session, &service, Change::Steer("resume"), Some(wait)).await
            }
            Self::Abort(Abort { service, wait }) => {
                change(session, &service, Change::Steer("abort"), Some(wait)).await
            }
            Self::Promote(Promote { service, wait }) => {
                change(session, &service, Change::Steer("promote"), Some(wait)).await
            }
            Self::Restart(Restart { service, wait }) => {
                change(session, &service, Change::Restart, Some(wait)).await
            }
        }
    }
}

impl RolloutStatus {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operation = Operation { operand: &self.target, effect: Effect::Reads, list: "gantry services" };
        let mut cluster = session.cluster()?;
        let ask = RolloutRequest { target: self.target.clone() };
        let reply = cluster.call(operation, PATIENCE, |mut client| {
            let ask = ask.clone();
            async move { client.rollout_status(ask).await }
        });
        let rollouts = reply.await?.rollouts;
        let table = |wide| render::rollouts::status_table(&rollouts, wide, times::now());
        session.output.data(render::list(self.output, &render::rollouts::rows(&rollouts), table))?;
        Ok(())
    }
}

impl History {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operand = self.service.to_string();
        let operation = Operation { operand: &operand, effect: Effect::Reads, list: "gantry services" };
        let mut cluster = session.cluster()?;
        let ask = RolloutRequest { target: operand.clone() };
        let reply = cluster.call(operation, PATIENCE, |mut client| {
            let ask = ask.clone();
            async move { client.rollout_history(ask).await }
        });
        let releases = reply.await?.releases;
        let table = |wide| render::rollouts::history_table(&releases, wide, times::now());
        session.output.data(render::list(self.output, &render::rollouts::history(&releases), table))?;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Change {
    Undo(Option<u64>),
    Restart,
    Steer(&'static str),
}

/// Makes a change and, if there is something to wait for, waits until it is in effect.
async fn change(
    session: &Session,
    service: &ServiceName,
    change: Change,
    wait: Option<Wait>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let operand = service.to_string();
    let look = format!("gantry rollout status {operand}");
    let mut cluster = session.cluster()?;
    session.if_interrupted(format!("the change may have been made; `{look}` shows it"));
    let operation = Operation { operand: &operand, effect: Effect::Changes, list: "gantry services" };
    let (request, patience) = (request(), wait.map_or(PATIENCE, |wait| wait.timeout));
    let sent = cluster.call(operation, patience, |mut client| {
        let (request, service) = (request.clone(), operand.clone());
        async move {
            match change {
                Change::Undo(to) => client.undo(UndoRequest { request, service, to }).await,
                Change::Restart => client.restart(RestartRequest { request, service }).await,
                Change::Steer(how) => {
                    client.steer(SteerRequest { request, service, how: how.to_owned() }).await
                }
            }
        }
    });
    let ChangeReply { generation, changed, .. } = sent.await?;
    let Some(wait) = wait else {
        let said = if changed { "paused" } else { "is paused already" };
        session.output.data(format!("{operand}: {said}\n"))?;
        return Ok(());
    };
    if !changed {
        session.output.say(&format!("{operand}: nothing to change"));
    }
    let goal = ConvergeRequest { targets: vec![operand.clone()], gone: false, generation };
    settle(session, &mut cluster, Accepted { operand, look, goal }, wait, begun).await
}
