//! The local socket, which answers root only: these tests are run as root.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::{Request, Response};
use identity::{LocalListener, Peer, connect_local};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Server;
use tower::{ServiceExt, service_fn};

async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let peer = request.extensions().get::<Peer>().map(Peer::to_string);
    Ok(Status::already_exists(peer.unwrap_or_default()).into_http())
}

#[tokio::test]
async fn root_is_known_on_the_local_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gantry.sock");
    let mut listener = LocalListener::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let meeting = async { tokio::join!(listener.accept(), UnixStream::connect(&path)) };
    let (connection, called) =
        timeout(Duration::from_secs(10), meeting).await.expect("root was not answered");
    assert_eq!(connection.peer(), &Peer::Local);
    called.unwrap();
}

#[tokio::test]
async fn a_call_on_the_local_socket_arrives_as_root_and_the_socket_goes_with_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gantry.sock");
    let incoming = LocalListener::bind(&path).unwrap().incoming();
    let mut server = JoinSet::new();
    server.spawn(async move {
        Server::builder().serve_with_incoming(service_fn(answer), incoming).await.unwrap()
    });
    let channel = connect_local(&path).await.unwrap();
    let request = Request::post("http://gantry/gantry.api.v1.Cluster/Version").body(Body::default()).unwrap();
    let response =
        timeout(Duration::from_secs(10), channel.oneshot(request)).await.expect("the call hung").unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.message(), "root on the local socket");

    server.shutdown().await;
    assert!(!path.exists(), "the socket was left behind");
    let error = connect_local(&path).await.unwrap_err();
    assert!(error.to_string().contains("gantry.sock"), "{error}");
}
