//! What is asked of a cluster's daemons, as any client asks it.

use std::path::Path;

use identity::ConnectLocalError;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::proto::api::cluster_client::ClusterClient;
use wire::proto::api::{CreateTokenRequest, ListRequest, Node};

/// How long a join token is good, in seconds: it is used at once.
const TOKEN_SECONDS: u64 = 600;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(transparent)]
    Connect(#[from] ConnectLocalError),
    #[error("cannot {call}")]
    Refused { call: &'static str, source: Status },
}

impl ClientError {
    /// Whether the same may work in a moment: nobody listens yet, or nobody leads.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Refused { source, .. } => matches!(
                source.code(),
                Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled
            ),
        }
    }
}

/// A token for a machine that is to join in that role.
pub(crate) async fn create_token(socket: &Path, manager: bool) -> Result<String, ClientError> {
    let role = role(manager).to_owned();
    let request = CreateTokenRequest { role, valid_seconds: TOKEN_SECONDS };
    let reply = connect(socket).await?.create_token(request).await;
    let reply = reply.map_err(|source| ClientError::Refused { call: "make a join token", source })?;
    Ok(reply.into_inner().token)
}

pub(crate) async fn nodes(socket: &Path) -> Result<Vec<Node>, ClientError> {
    let request = ListRequest { filter: String::new(), all: false };
    let reply = connect(socket).await?.list_nodes(request).await;
    let reply = reply.map_err(|source| ClientError::Refused { call: "list the nodes", source })?;
    Ok(reply.into_inner().nodes)
}

async fn connect(socket: &Path) -> Result<ClusterClient<Channel>, ClientError> {
    Ok(ClusterClient::new(identity::connect_local(socket).await?))
}

pub(crate) fn role(manager: bool) -> &'static str {
    if manager { "manager" } else { "worker" }
}

/// What is missing until these nodes are members, in their roles and ready, and the cluster is led; `None` if nothing
/// is.
pub(crate) fn missing(seen: &[Node], wanted: &[(String, bool)]) -> Option<String> {
    let mut missing = Vec::new();
    for (name, manager) in wanted {
        match seen.iter().find(|node| node.node == *name) {
            None => missing.push(format!("{name} has not joined")),
            Some(node) if node.role != role(*manager) => {
                missing.push(format!("{name} is a {} and not yet a {}", node.role, role(*manager)));
            }
            Some(node) if node.status != "ready" => missing.push(format!("{name} is {}", node.status)),
            Some(_) => {}
        }
    }
    if missing.is_empty() && !seen.iter().any(|node| node.leader) {
        missing.push("no manager leads".to_owned());
    }
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, role: &str, status: &str, leader: bool) -> Node {
        Node { node: name.into(), role: role.into(), status: status.into(), leader, ..Node::default() }
    }

    #[test]
    fn a_cluster_is_up_when_every_node_is_a_ready_member_in_its_role_and_one_leads() {
        let wanted = [("n1".to_owned(), true), ("n2".to_owned(), false)];
        let n1 = node("n1", "manager", "ready", true);
        let n2 = node("n2", "worker", "ready", false);
        assert_eq!(missing(&[n1.clone(), n2.clone()], &wanted), None);
        let why = |nodes: &[Node]| missing(nodes, &wanted).unwrap();
        assert_eq!(why(&[]), "n1 has not joined, n2 has not joined");
        assert_eq!(why(&[n1.clone(), node("n2", "worker", "unknown", false)]), "n2 is unknown");
        assert_eq!(
            why(&[node("n1", "worker", "ready", false), n2.clone()]),
            "n1 is a worker and not yet a manager"
        );
        assert_eq!(why(&[node("n1", "manager", "ready", false), n2]), "no manager leads");
    }
}
