//! How a machine becomes a node.

use std::time::Duration;

use identity::{Authority, JoinToken, Subject};
use model::Role;
use state::{Command, Done};
use tonic::Status;
use wire::proto::api::{CreateTokenRequest, JoinReply, JoinRequest, Manager, TokenReply};

use crate::api::{Api, name};

/// The longest that a token may be valid: a secret that lies around longer is one that leaks.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

fn role(text: &str) -> Result<Role, Status> {
    match text {
        "manager" => Ok(Role::Manager),
        "worker" => Ok(Role::Worker),
        other => Err(Status::invalid_argument(format!("`{other}` is not a role: manager or worker"))),
    }
}

fn authority(api: &Api) -> Result<Authority, Status> {
    let state = api.parts.store.state();
    let cluster =
        state.cluster().ok_or_else(|| Status::unavailable("the cluster is being founded; try again"))?;
    Authority::from_pem(&cluster.authority.certificate_pem, &cluster.authority.key_pem)
        .map_err(|error| Status::internal(format!("the cluster's authority cannot be read: {error}")))
}

pub(super) async fn create_token(api: &Api, request: CreateTokenRequest) -> Result<TokenReply, Status> {
    let role = role(&request.role)?;
    let valid = Duration::from_secs(request.valid_seconds);
    if valid.is_zero() || valid > LONGEST {
        return Err(Status::invalid_argument("a token is valid for between a second and 30 days"));
    }
    let token = JoinToken::mint(role, authority(api)?.certificate().digest())
        .map_err(|error| Status::internal(error.to_string()))?;
    let expires = api.parts.clock.now(&api.parts.store.state()).plus(valid);
    api.propose_one("", Command::PutToken { digest: token.hash().0, role, expires }).await?;
    Ok(TokenReply { token: token.text().expose().to_owned() })
}

pub(super) async fn join(api: &Api, request: JoinRequest) -> Result<JoinReply, Status> {
    let JoinRequest { token, name: node_name, address, public_key } = request;
    // Before anybody is admitted: a node without a certificate would only hold its name.
    let key =
        identity::key_digest(&public_key).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let token: JoinToken =
        token.parse().map_err(|error: identity::InvalidToken| Status::invalid_argument(error.to_string()))?;
    let node_name = name(&node_name)?;
    let address =
        wire::socket_address(&address).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let role = token.role();
    let authority = authority(api)?;
    let state = api.state().await?;
    let cluster =
        state.cluster().ok_or_else(|| Status::unavailable("the cluster is being founded; try again"))?.id;
    let (token, key) = (Some(token.hash().0), Some(key.0));
    let admit = Command::AdmitNode { name: node_name, role, address, token, key };
    // No request id: it would keep a refusal for a day, a row for everybody who can reach the port. The key does as well.
    let node = match api.propose_one("", admit).await? {
        Done::Admitted(node) => node,
        Done::Unchanged | Done::Changed | Done::At(_) => {
            return Err(Status::internal("admitted without an id"));
        }
    };
    let now = api.parts.clock.now(&state);
    let subject = Subject::Node { id: node, role: Some(role) };
    let certificate = authority
        .issue(&public_key, &subject, identity::NODE_LIFETIME, now)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let state = api.parts.store.state();
    let managers = state.nodes().filter(|(_, row)| row.role == Role::Manager);
    Ok(JoinReply {
        cluster: cluster.to_string(),
        node: node.0,
        role: request_role(role),
        certificate_pem: certificate,
        authority_pem: authority.certificate().pem().to_owned(),
        managers: managers
            .map(|(id, row)| Manager { node: id.0, address: row.address.to_string() })
            .collect(),
    })
}

fn request_role(role: Role) -> String {
    match role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    }
    .to_owned()
}
