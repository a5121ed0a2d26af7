//! One file a command.

mod attach;
mod cluster;
mod commit;
mod cp;
mod deploy;
mod diff;
mod exec;
mod image;
mod import;
mod inspect;
mod job;
mod kill;
mod logs;
mod node;
mod pause;
mod plan;
mod ps;
mod rebalance;
mod registry;
mod rm;
mod rollout;
mod run;
mod scale;
mod services;
mod stacks;
mod stats;
mod token;
mod top;
mod transfer;
mod version;

use std::time::Duration;

use model::{InvalidName, Name, ServiceName};

use crate::Exit;
use crate::failure::Failure;
use crate::session::Session;

pub(crate) use cp::CopyError;
pub(crate) use deploy::{StackNameError, UndeployableError};
pub(crate) use exec::NoTerminalError;
pub(crate) use node::NotDrained;
pub(crate) use registry::LoginError;
pub(crate) use run::RunError;
pub(crate) use transfer::SaveError;

/// What a user asks of a cluster.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum UserCommand {
    Deploy(deploy::Deploy),
    Plan(plan::Plan),
    Rm(rm::Rm),
    Scale(scale::Scale),
    Rebalance(rebalance::Rebalance),
    Stacks(stacks::Stacks),
    Services(services::Services),
    Ps(ps::Ps),
    Inspect(inspect::Inspect),
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    #[command(subcommand)]
    Job(job::Job),
    Logs(logs::Logs),
    Run(run::Run),
    Exec(exec::Exec),
    Attach(attach::Attach),
    Cp(cp::Cp),
    Stats(stats::Stats),
    Top(top::Top),
    Kill(kill::Kill),
    Pause(pause::Pause),
    #[command(visible_alias = "resume")]
    Unpause(pause::Unpause),
    Diff(diff::Diff),
    Commit(commit::Commit),
    #[command(subcommand)]
    Node(node::Node),
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    #[command(subcommand)]
    Image(image::Image),
    #[command(subcommand)]
    Registry(registry::Registry),
    #[command(subcommand)]
    Token(token::Token),
    Version(version::Version),
}

impl UserCommand {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let done = match self {
            Self::Plan(command) => return command.run(session).await,
            Self::Run(command) => return command.run(session).await,
            Self::Exec(command) => return command.run(session).await,
            Self::Attach(command) => return command.run(session).await,
            Self::Deploy(command) => command.run(session).await,
            Self::Rm(command) => command.run(session).await,
            Self::Scale(command) => command.run(session).await,
            Self::Rebalance(command) => command.run(session).await,
            Self::Stacks(command) => command.run(session).await,
            Self::Services(command) => command.run(session).await,
            Self::Ps(command) => command.run(session).await,
            Self::Inspect(command) => command.run(session).await,
            Self::Rollout(command) => command.run(session).await,
            Self::Job(command) => command.run(session).await,
            Self::Logs(command) => command.run(session).await,
            Self::Cp(command) => command.run(session).await,
            Self::Stats(command) => command.run(session).await,
            Self::Top(command) => command.run(session).await,
            Self::Kill(command) => command.run(session).await,
            Self::Pause(command) => command.run(session).await,
            Self::Unpause(command) => command.run(session).await,
            Self::Diff(command) => command.run(session).await,
            Self::Commit(command) => command.run(session).await,
            Self::Node(command) => command.run(session).await,
            Self::Cluster(command) => command.run(session).await,
            Self::Image(command) => command.run(session).await,
            Self::Registry(command) => command.run(session).await,
            Self::Token(command) => command.run(session).await,
            Self::Version(command) => command.run(session).await,
        };
        done.map(|()| Exit::Done)
    }
}

/// How a change is waited for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Wait {
    /// Return once the change is accepted, and not when it is in effect
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long the command may take in all
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5m",
        value_parser = patience,
        allow_hyphen_values = true
    )]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidPatience {
    #[error(transparent)]
    Duration(#[from] model::InvalidQuantity),
    #[error("it must be longer than no time at all")]
    Zero,
    #[error("it is longer than a year")]
    Absurd,
}

/// Nobody waits longer, and a deadline in some thousand years overflows.
const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

fn patience(text: &str) -> Result<Duration, InvalidPatience> {
    let duration = spec::parse_duration(text)?;
    if duration.is_zero() {
        return Err(InvalidPatience::Zero);
    }
    if duration > YEAR { Err(InvalidPatience::Absurd) } else { Ok(duration) }
}

/// What lists can be narrowed to: `STACK` (or a node) or `STACK/SERVICE`.
fn scope(text: &str) -> Result<String, InvalidName> {
    if text.contains('/') {
        text.parse::<ServiceName>().map(|name| name.to_string())
    } else {
        text.parse::<Name>().map(|name| name.to_string())
    }
}

#[cfg(test)]
mod tests;
