//! `gantry version`.

use std::time::Duration;

use wire::proto::api::VersionRequest;

use crate::Exit;
use crate::cluster::{Effect, Operation};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;

/// How long a cluster that may not be there is asked: one election.
const PATIENCE: Duration = Duration::from_secs(3);

/// Show the versions of this program and of the cluster
///
/// Without a cluster, this program's alone.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry version
  gantry version -o json")]
pub struct Version {
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Version {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let answer = ask(session).await;
        let versions = render::version::versions(env!("CARGO_PKG_VERSION"), answer.as_ref().ok());
        let text = |_| render::version::text(&versions);
        session.output.data(render::list(self.output, &versions, text))?;
        match answer {
            Ok(_) => Ok(()),
            // That nobody answers, or not to this user, is worth knowing, and no reason to fail: the question has its answer.
            Err(failure) if failure.exit() != Exit::Usage => {
                session.output.note(failure.note());
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

async fn ask(session: &Session) -> Result<wire::proto::api::VersionReply, Failure> {
    let operation = Operation { operand: "version", effect: Effect::Reads, list: "gantry node ls" };
    let mut cluster = session.cluster()?;
    let reply = cluster
        .call(operation, PATIENCE, |mut client| async move { client.version(VersionRequest {}).await });
    Ok(reply.await?)
}
