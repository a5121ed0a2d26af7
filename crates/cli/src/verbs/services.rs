//! `gantry services`.

use wire::proto::api::ListRequest;

use crate::cluster::{Effect, Operation, PATIENCE};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::verbs::scope;

/// List the services, of a stack or of all
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry services
  gantry services hello -o json")]
pub struct Services {
    /// Only this stack's, or only this service
    #[arg(value_name = "STACK", value_parser = scope)]
    filter: Option<String>,
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Services {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let filter = self.filter.unwrap_or_default();
        let operation = Operation { operand: &filter, effect: Effect::Reads, list: "gantry stacks" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| {
            let request = ListRequest { filter: filter.clone(), all: false };
            async move { client.list_services(request).await }
        });
        let services = reply.await?.services;
        let table = |wide| render::services::services_table(&services, wide);
        session.output.data(render::list(self.output, &render::services::rows(&services), table))?;
        Ok(())
    }
}
