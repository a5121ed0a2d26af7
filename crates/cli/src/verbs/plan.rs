//! `gantry plan`.

use std::path::PathBuf;
use std::time::Duration;

use model::Name;

use crate::Exit;
use crate::cluster::{Effect, Operation};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::verbs::deploy::deployment;

/// Registries may have to be asked what names stand for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Show what deploying these files would do, and do nothing
///
/// It is found out by the code that would do it, on a copy of the cluster's state: what would be made, replaced, changed in
/// place, stopped, and where it would run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry plan -f compose.yaml hello
  gantry plan -f compose.yaml hello -o wide
  gantry plan -f compose.yaml hello --detailed-exitcode && echo nothing to do")]
pub struct Plan {
    /// A Compose file, or `-` for stdin; a later one is merged over the earlier ones
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What the stack is called
    stack: Option<Name>,
    /// Exit with 7 if there is something to do, and with 0 if not
    #[arg(long)]
    detailed_exitcode: bool,
    /// How to write it; `wide` has a line for each slot
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Plan {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let (stack, deploy) = deployment(session, &self.files, self.stack).await?;
        let operand = stack.to_string();
        let operation = Operation { operand: &operand, effect: Effect::Reads, list: "gantry image ls" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call_patiently(operation, PATIENCE, |mut client| {
            let deploy = deploy.clone();
            async move { client.plan(deploy).await }
        });
        let plan = reply.await?;
        for warning in &plan.warnings {
            session.output.say(&format!("warning: {}", render::plain(warning)));
        }
        let document = render::plans::document(&stack, &plan);
        let text = |wide| render::plans::text(&stack, &plan, wide);
        session.output.data(render::list(self.output, &document, text))?;
        let is_something = plan.services.iter().any(|service| service.action != "unchanged");
        Ok(if self.detailed_exitcode && is_something { Exit::Changes } else { Exit::Done })
    }
}
