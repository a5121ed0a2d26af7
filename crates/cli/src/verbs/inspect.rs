//! `gantry inspect`.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use wire::proto::api::InspectRequest;
use wire::proto::stream::{AskDetails, Details, begin, piece};

use crate::cluster::{Cluster, Effect, Operation, PATIENCE};
use crate::failure::{Failure, chain};
use crate::render::{self, Format};
use crate::session::Session;
use crate::talk::{Subject, TalkError, Times, open};

/// How long a task's node may take to tell what only it knows. The rest is worth reading without.
const DETAILS: Duration = Duration::from_secs(1);

/// Show all that is known of a stack, service, task, node or image
///
/// Of a task also what only its node knows: the last health checks and lines of its log, its process. Where the node does not
/// answer within a second, `node_details` is null in their place.
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
        let reply = reply.await?;
        let document: Value = serde_json::from_str(&reply.json)
            .map_err(|source| Failure::Answer { reference: reference.clone(), source })?;
        let mut document = render::document::with_times(document);
        if reply.kind == "task" {
            let more = details(session, &mut cluster, &document).await;
            merge(&mut document, more);
        }
        let table = |_| render::fields::fields_table(&document);
        session.output.data(render::list(output, &document, table))?;
        Ok(())
    }
}

/// What only the node of the task in `document` knows; `None` after a note why there is nothing, if there could be.
async fn details(session: &Session, cluster: &mut Cluster, document: &Value) -> Option<Details> {
    let task = document["task"].as_str()?;
    // Without a node there is nobody to ask.
    document["node"].as_str()?;
    let why = match timeout(DETAILS, ask(cluster, task)).await {
        Ok(Ok(details)) => return Some(details),
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("{task}: its node did not answer"),
    };
    session.output.say(&format!("note: {}", render::plain(&why)));
    None
}

async fn ask(cluster: &mut Cluster, task: &str) -> Result<Details, TalkError> {
    let what = begin::What::Details(AskDetails {});
    let mut talk = open(cluster, Subject::Task(task), what, Times::Any).await?;
    while let Some(kind) = talk.ear.hear().await? {
        if let piece::Kind::Details(details) = kind {
            return Ok(details);
        }
    }
    Err(talk.ear.unfinished())
}

/// Puts what the node knows beside what the manager said, which keeps its word where both have one.
fn merge(document: &mut Value, details: Option<Details>) {
    let Value::Object(fields) = document else { return };
    let Some(details) = details else {
        fields.insert("node_details".to_owned(), Value::Null);
        return;
    };
    let more = serde_json::to_value(render::details::document(&details)).expect("rows have text for keys");
    if let Value::Object(more) = more {
        for (name, value) in more {
            fields.entry(name).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_node_knows_stands_beside_what_the_manager_knows() {
        let mut document = json!({ "task": "s1-2-3", "paused": "the manager's" });
        merge(&mut document, Some(Details { pid: Some(7), failures: 2, ..Details::default() }));
        assert_eq!((&document["pid"], &document["failures_in_a_row"]), (&json!(7), &json!(2)));
        assert_eq!(document["paused"], "the manager's");
        assert_eq!(document.get("node_details"), None);
        let mut document = json!({ "task": "s1-2-3" });
        merge(&mut document, None);
        assert_eq!(document, json!({ "task": "s1-2-3", "node_details": null }));
    }
}
