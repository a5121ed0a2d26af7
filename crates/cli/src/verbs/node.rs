//! `gantry node`.

mod drain;

use std::collections::BTreeMap;
use std::str::FromStr;

use model::MAX_LABEL;
use wire::proto::api::{InspectRequest, ListRequest, NodeRequest, UpdateNodeRequest};
use wire::proto::model::Availability;

use crate::cluster::{Effect, Operation, PATIENCE, request};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;

pub(crate) use drain::NotDrained;

const LIST: &str = "gantry node ls";

/// The machines of the cluster
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Node {
    Ls(Ls),
    Inspect(Inspect),
    Drain(drain::Drain),
    Pause(Pause),
    Activate(Activate),
    Label(Label),
    Rm(Rm),
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

/// Show all that is known of a node
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry node inspect n1
  gantry node inspect n1 -o yaml")]
pub struct Inspect {
    /// A node's name
    node: String,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t = Format::Json)]
    output: Format,
}

/// Give a node no new tasks; those that it has stay
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry node pause n2
  gantry node activate n2       undoes it")]
pub struct Pause {
    /// A node's name
    node: String,
}

/// Let a node have tasks again that was drained or paused
///
/// What was moved away stays where it is.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry node activate n2")]
pub struct Activate {
    /// A node's name
    node: String,
}

/// Give a node labels, or take some away
///
/// It acts at once: tasks whose constraints the node does not meet any more move elsewhere, each service at the pace of its
/// updates. A label that the node has from its own configuration is given another value here, and is not taken away.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry node label n1 disk=ssd zone=a
  gantry node label n1 --rm zone")]
pub struct Label {
    /// A node's name
    node: String,
    #[arg(value_name = "NAME=VALUE", required_unless_present = "remove")]
    labels: Vec<Pair>,
    /// A label to take away
    #[arg(long = "rm", value_name = "NAME")]
    remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidPair {
    #[error("write it as NAME=VALUE, for example disk=ssd")]
    NoValue,
    #[error("the name of a label has letters, digits, `.`, `-`, `_` and `/`")]
    Name,
    #[error("neither name nor value is longer than {MAX_LABEL} bytes")]
    Long,
}

impl FromStr for Pair {
    type Err = InvalidPair;

    fn from_str(text: &str) -> Result<Self, InvalidPair> {
        let (name, value) = text.split_once('=').ok_or(InvalidPair::NoValue)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) || value.chars().any(char::is_control) {
            return Err(InvalidPair::Name);
        }
        if name.len() > MAX_LABEL || value.len() > MAX_LABEL {
            return Err(InvalidPair::Long);
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// Forget a node that is gone for good
///
/// It has to be down. What it had is made anew elsewhere; its name is free, and the machine cannot come back but by joining
/// again. A machine that may still be running its containers must be switched off first: nobody stops them any more.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry node rm n3")]
pub struct Rm {
    /// A node's name
    node: String,
}

impl Node {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Ls(command) => command.run(session).await,
            Self::Inspect(command) => command.run(session).await,
            Self::Drain(command) => command.run(session).await,
            Self::Pause(Pause { node }) => {
                let update = UpdateNodeRequest { availability: Availability::Pause.into(), ..update(&node) };
                said(session, update, "takes no new tasks", "takes no new tasks already").await
            }
            Self::Activate(Activate { node }) => {
                let update = UpdateNodeRequest { availability: Availability::Active.into(), ..update(&node) };
                said(session, update, "takes tasks", "takes tasks already").await
            }
            Self::Label(Label { node, labels, remove }) => {
                let set: BTreeMap<String, String> =
                    labels.into_iter().map(|Pair { name, value }| (name, value)).collect();
                let words = set.iter().map(|(name, value)| format!("{name}={value}"));
                let gone = remove.iter().map(|name| format!("no {name}"));
                let text = words.chain(gone).collect::<Vec<_>>().join(", ");
                let update = UpdateNodeRequest { set_labels: set, remove_labels: remove, ..update(&node) };
                said(session, update, &text, &format!("{text} already")).await
            }
            Self::Rm(command) => command.run(session).await,
        }
    }
}

fn update(node: &str) -> UpdateNodeRequest {
    UpdateNodeRequest { request: request(), node: node.to_owned(), ..UpdateNodeRequest::default() }
}

/// Changes a node, and says what it is now.
async fn said(
    session: &Session,
    update: UpdateNodeRequest,
    changed: &str,
    unchanged: &str,
) -> Result<(), Failure> {
    let node = update.node.clone();
    let mut cluster = session.cluster()?;
    session.if_interrupted(format!("the change may have been made; `{LIST}` shows it"));
    let operation = Operation { operand: &node, effect: Effect::Changes, list: LIST };
    let sent = cluster.call(operation, PATIENCE, |mut client| {
        let update = update.clone();
        async move { client.update_node(update).await }
    });
    let words = if sent.await?.changed { changed } else { unchanged };
    session.output.data(format!("{node}: {words}\n"))?;
    Ok(())
}

impl Ls {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operation = Operation { operand: "", effect: Effect::Reads, list: LIST };
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

impl Inspect {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { node, output } = self;
        let operation = Operation { operand: &node, effect: Effect::Reads, list: LIST };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| {
            let ask = InspectRequest { reference: node.clone() };
            async move { client.inspect_node(ask).await }
        });
        let document = serde_json::from_str(&reply.await?.json)
            .map_err(|source| Failure::Answer { reference: node.clone(), source })?;
        let document = render::document::with_times(document);
        let table = |_| render::fields::fields_table(&document);
        session.output.data(render::list(output, &document, table))?;
        Ok(())
    }
}

impl Rm {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { node } = self;
        let mut cluster = session.cluster()?;
        session.if_interrupted(format!("the change may have been made; `{LIST}` shows it"));
        let remove = NodeRequest { request: request(), node: node.clone() };
        let operation = Operation { operand: &node, effect: Effect::Changes, list: LIST };
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let remove = remove.clone();
            async move { client.remove_node(remove).await }
        });
        sent.await?;
        session.output.data(format!("{node}: removed\n"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_name_and_a_value() {
        let pair: Pair = "disk=ssd=fast".parse().unwrap();
        assert_eq!((pair.name.as_str(), pair.value.as_str()), ("disk", "ssd=fast"));
        assert_eq!("empty=".parse::<Pair>().unwrap().value, "");
        for bad in ["disk", "=ssd", "a b=c", "a=\u{7}", &format!("{}=x", "a".repeat(256))] {
            assert!(bad.parse::<Pair>().is_err(), "{bad:?} was accepted");
        }
    }
}
