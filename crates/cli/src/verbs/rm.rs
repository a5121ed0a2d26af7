//! `gantry rm`.

use model::Name;
use tokio::time::Instant;
use wire::proto::api::{ConvergeRequest, RemoveStackRequest};

use crate::cluster::{Effect, Operation, request};
use crate::failure::Failure;
use crate::session::Session;
use crate::settle::{Accepted, settle};
use crate::verbs::Wait;

/// Remove a stack, and wait until nothing of it runs
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rm hello
  gantry rm hello --detach")]
pub struct Rm {
    /// The stack to remove
    stack: Name,
    #[command(flatten)]
    wait: Wait,
}

impl Rm {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let begun = Instant::now();
        let operand = self.stack.to_string();
        let look = format!("gantry ps {operand}");
        let mut cluster = session.cluster()?;
        session.if_interrupted(format!("the change may have been made; `{look}` shows it"));
        let remove = RemoveStackRequest { request: request(), stack: operand.clone() };
        let operation = Operation { operand: &operand, effect: Effect::Changes, list: "gantry stacks" };
        let sent = cluster.call(operation, self.wait.timeout, |mut client| {
            let remove = remove.clone();
            async move { client.remove_stack(remove).await }
        });
        let reply = sent.await?;
        let goal =
            ConvergeRequest { targets: vec![operand.clone()], gone: true, generation: reply.generation };
        settle(session, &mut cluster, Accepted { operand, look, goal }, self.wait, begun).await
    }
}
