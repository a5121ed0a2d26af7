//! `gantry node`.

use wire::proto::api::ListRequest;

use crate::cluster::{Effect, Operation, PATIENCE};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;

/// The machines of the cluster
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Node {
    Ls(Ls),
}

/// List the nodes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry node ls
  gantry node ls -o wide")]
pub struct Ls {
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Node {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Ls(command) => command.run(session).await,
        }
    }
}

impl Ls {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operation = Operation { operand: "", effect: Effect::Reads, list: "gantry node ls" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| async move {
            client.list_nodes(ListRequest::default()).await
        });
        let nodes = reply.await?.nodes;
        let table = |wide| render::nodes::nodes_table(&nodes, wide);
        session.output.data(render::list(self.output, &render::nodes::rows(&nodes), table))?;
        Ok(())
    }
}
