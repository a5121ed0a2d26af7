//! `gantry token`.

use std::time::Duration;

use wire::proto::api::CreateTokenRequest;

use crate::cluster::{Effect, Operation, PATIENCE};
use crate::failure::Failure;
use crate::session::Session;
use crate::verbs::patience;

/// The secrets with which machines join the cluster
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Token {
    Create(Create),
}

/// Make a token and print it
///
/// Whoever has it can join the cluster in its role until it expires.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry token create --role worker
  gantry token create --role manager --valid 10m")]
pub struct Create {
    /// What a machine becomes that joins with it
    #[arg(long, value_enum)]
    role: Role,
    /// How long it can be used
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1h",
        value_parser = patience,
        allow_hyphen_values = true
    )]
    valid: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Manager,
    Worker,
}

impl Token {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.run(session).await,
        }
    }
}

impl Create {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let role = match self.role {
            Role::Manager => "manager",
            Role::Worker => "worker",
        };
        // A token that nobody saw cannot be used, so asking again does no harm and nothing is unknown.
        let operation = Operation { operand: "token", effect: Effect::Reads, list: "gantry node ls" };
        let valid_seconds = self.valid.as_secs() + u64::from(self.valid.subsec_nanos() > 0);
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| {
            let request = CreateTokenRequest { role: role.to_owned(), valid_seconds };
            async move { client.create_token(request).await }
        });
        let token = reply.await?.token;
        session.output.data(format!("{token}\n"))?;
        Ok(())
    }
}
