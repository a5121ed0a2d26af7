//! `gantry stacks`.

use wire::proto::api::ListRequest;

use crate::cluster::{Effect, Operation, PATIENCE};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::times;

/// List the stacks
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry stacks
  gantry stacks -o json")]
pub struct Stacks {
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Stacks {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let operation = Operation { operand: "", effect: Effect::Reads, list: "gantry stacks" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| async move {
            client.list_stacks(ListRequest::default()).await
        });
        let stacks = reply.await?.stacks;
        let table = |wide| render::stacks::stacks_table(&stacks, wide, times::now());
        session.output.data(render::list(self.output, &render::stacks::rows(&stacks), table))?;
        Ok(())
    }
}
