//! The whole path: a dialled channel, the acceptor, the policy, and what a caller is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use identity::{
    Acceptor, Authorise, Authority, Connector, Credentials, Expect, KeyPair, Membership, NODE_LIFETIME, Peer,
    Subject, connect_joining,
};
use model::{ClusterId, NodeId, Role, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tower::{ServiceExt, service_fn};

/// Nodes 1 and 2 are a manager and a worker; node 3 was removed; later ones have not been heard of.
struct Members;

impl Membership for Members {
    fn role(&self, node: NodeId, certified: Option<Role>) -> Option<Role> {
        match node.0 {
            1 => Some(Role::Manager),
            2 => Some(Role::Worker),
            3 => None,
            _ => certified,
        }
    }
}

/// A node whose certificate has no role in it.
fn node(id: u64) -> Subject {
    Subject::Node { id: NodeId(id), role: None }
}

/// A server of node 1, and what it takes to call it. The server ends with this.
struct Cluster {
    authority: Authority,
    address: SocketAddr,
    _server: JoinSet<()>,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

fn credentials(authority: &Authority, subject: Subject) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let pem = authority.issue(&key.public_key_der(), &subject, NODE_LIFETIME, now()).unwrap();
    Credentials::new(authority.certificate().clone(), &pem, &key, now()).unwrap()
}

/// Answers every call that gets through with the name of its caller.
async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let peer = request.extensions().get::<Peer>().map(Peer::to_string);
    Ok(Status::already_exists(peer.unwrap_or_default()).into_http())
}

async fn cluster() -> Cluster {
    let authority = Authority::mint(ClusterId(1), now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_, receiver) = watch::channel(Arc::new(credentials(&authority, node(1))));
    let incoming = Acceptor::new(listener, receiver).incoming();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let layered = Server::builder().layer(Authorise::new(Arc::new(Members)));
        layered.serve_with_incoming(service_fn(answer), incoming).await.unwrap();
    });
    Cluster { authority, address, _server: server }
}

impl Cluster {
    async fn channel(&self, subject: Subject) -> Channel {
        let connector = Connector::fixed(credentials(&self.authority, subject));
        connector.connect(self.address, Expect::Node(NodeId(1))).await.unwrap()
    }
}

/// The status that a call ends with: its code and its message.
async fn call(channel: Channel, method: &str) -> (Code, String) {
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://gantry{method}"))
        .header("content-type", "application/grpc")
        .body(Body::default())
        .unwrap();
    let response =
        timeout(Duration::from_secs(20), channel.oneshot(request)).await.expect("the call hung").unwrap();
    let status = Status::from_header_map(response.headers()).expect("the answer has a status");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn a_call_that_is_allowed_arrives_with_the_name_of_its_caller() {
    let cluster = cluster().await;
    let raft = "/gantry.raft.v1.Raft/Call";
    let scale = "/gantry.api.v1.Cluster/Scale";
    let manager = cluster.channel(node(1)).await;
    assert_eq!(call(manager, raft).await, (Code::AlreadyExists, "node n1".to_owned()));
    let admin = cluster.channel(Subject::Admin("ops".parse().unwrap())).await;
    assert_eq!(call(admin, scale).await, (Code::AlreadyExists, "administrator ops".to_owned()));
}

#[tokio::test]
async fn a_call_that_is_denied_does_not_arrive() {
    let cluster = cluster().await;
    let cases = [
        (2, "/gantry.raft.v1.Raft/Call", "node n2 may not call /gantry.raft.v1.Raft/Call"),
        (2, "/gantry.api.v1.Cluster/Deploy", "node n2 may not call /gantry.api.v1.Cluster/Deploy"),
        (3, "/gantry.agent.v1.Dispatcher/Session", "node n3 is not a member of this cluster, or no longer"),
        (
            1,
            "/gantry.api.v1.Cluster/Unheard",
            "/gantry.api.v1.Cluster/Unheard is not a method that anyone may call",
        ),
    ];
    for (id, method, message) in cases {
        let channel = cluster.channel(node(id)).await;
        assert_eq!(call(channel, method).await, (Code::PermissionDenied, message.to_owned()));
    }
}

#[tokio::test]
async fn a_node_that_was_admitted_later_is_what_its_certificate_says() {
    let cluster = cluster().await;
    let raft = "/gantry.raft.v1.Raft/Call";
    for (role, code) in [
        (Some(Role::Manager), Code::AlreadyExists),
        (Some(Role::Worker), Code::PermissionDenied),
        (None, Code::PermissionDenied),
    ] {
        let channel = cluster.channel(Subject::Node { id: NodeId(4), role }).await;
        assert_eq!(call(channel, raft).await.0, code, "{role:?}");
    }
    let removed = cluster.channel(Subject::Node { id: NodeId(3), role: Some(Role::Manager) }).await;
    assert_eq!(call(removed, raft).await.0, Code::PermissionDenied);
}

#[tokio::test]
async fn a_joining_machine_may_join_and_nothing_else() {
    let cluster = cluster().await;
    let channel = connect_joining(cluster.address, cluster.authority.certificate().digest()).await.unwrap();
    let (code, caller) = call(channel.clone(), "/gantry.api.v1.Cluster/Join").await;
    assert_eq!((code, caller.as_str()), (Code::AlreadyExists, "a caller without a certificate"));
    let (code, _) = call(channel, "/gantry.api.v1.Cluster/CreateToken").await;
    assert_eq!(code, Code::Unauthenticated);
}

#[tokio::test]
async fn the_reason_of_a_failed_connection_is_in_the_chain() {
    let cluster = cluster().await;
    let connector = Connector::fixed(credentials(&cluster.authority, node(2)));
    let error = connector.connect(cluster.address, Expect::Node(NodeId(9))).await.unwrap_err();
    let mut chain = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    assert_eq!(chain.first(), Some(&format!("no connection to {}", cluster.address)));
    assert_eq!(chain.last().map(String::as_str), Some("it is node n1, not node n9"), "{chain:?}");
}
