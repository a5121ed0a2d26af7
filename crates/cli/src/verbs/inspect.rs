//! `gantry inspect`.

use serde_json::Value;
use wire::proto::api::InspectRequest;

use crate::cluster::{Effect, Operation, PATIENCE};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;

/// Show all that is known of a stack, service, task, node or image
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry inspect hello/web
  gantry inspect s1-2-3 -o yaml
  gantry inspect nginx:1.22")]
pub struct Inspect {
    /// A stack, STACK/SERVICE, a task's id, a node or an image
    #[arg(value_name = "REF")]
    reference: String,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t = Format::Json)]
    output: Format,
}

impl Inspect {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { reference, output } = self;
        let operation = Operation { operand: &reference, effect: Effect::Reads, list: "gantry services" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| {
            let request = InspectRequest { reference: reference.clone() };
            async move { client.inspect(request).await }
        });
        let json = reply.await?.json;
        let document: Value = serde_json::from_str(&json)
            .map_err(|source| Failure::Answer { reference: reference.clone(), source })?;
        let document = render::document::with_times(document);
        let table = |_| render::fields::fields_table(&document);
        session.output.data(render::list(output, &document, table))?;
        Ok(())
    }
}
