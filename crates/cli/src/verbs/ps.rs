//! `gantry ps`.

use wire::proto::api::ListRequest;

use crate::cluster::{Effect, Operation, PATIENCE};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::times;
use crate::verbs::scope;

/// List the tasks, of a stack, a service, a node or all
///
/// A slot that has no task is listed with the reason.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry ps
  gantry ps hello/web
  gantry ps n1 --all
  gantry ps hello -o json")]
pub struct Ps {
    /// Only the tasks of this stack or service, or on this node
    #[arg(value_name = "STACK|SERVICE|NODE", value_parser = scope)]
    filter: Option<String>,
    /// Tasks that have ended as well
    #[arg(short, long)]
    all: bool,
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Ps {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let filter = self.filter.unwrap_or_default();
        let operation = Operation { operand: &filter, effect: Effect::Reads, list: "gantry services" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| {
            let request = ListRequest { filter: filter.clone(), all: self.all };
            async move { client.list_tasks(request).await }
        });
        let tasks = reply.await?.tasks;
        let table = |wide| render::tasks::tasks_table(&tasks, wide, times::now());
        session.output.data(render::list(self.output, &render::tasks::rows(&tasks), table))?;
        Ok(())
    }
}
