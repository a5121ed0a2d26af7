//! Handshakes over loopback, each with its exact outcome on both sides.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::{ClusterId, Digest, NodeId, Role, Timestamp};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connector::{self, Caller, dial};
use crate::key::sha256;
use crate::tls::{Trust, client_config, server_config};
use crate::{
    Acceptor, Authority, Credentials, DialError, Expect, HandshakeError, KeyPair, Mismatch, NODE_LIFETIME,
    Peer, Subject, acceptor,
};

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

fn long_ago() -> Timestamp {
    Timestamp(now().0 - 1000 * NODE_LIFETIME.as_secs() * 2)
}

fn authority(cluster: u128) -> Authority {
    Authority::mint(ClusterId(cluster), long_ago()).unwrap()
}

fn admin() -> Subject {
    Subject::Admin("ops".parse().unwrap())
}

fn node(id: u64) -> Subject {
    Subject::Node { id: NodeId(id), role: Some(Role::Manager) }
}

/// What the other side sees of [`node`].
fn peer(id: u64) -> Peer {
    Peer::from(node(id))
}

/// Credentials that were good at `at`.
fn credentials(authority: &Authority, subject: &Subject, at: Timestamp) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let pem = authority.issue(&key.public_key_der(), subject, NODE_LIFETIME, at).unwrap();
    Credentials::new(authority.certificate().clone(), &pem, &key, at).unwrap()
}

fn server(authority: &Authority, subject: &Subject, at: Timestamp) -> Arc<ServerConfig> {
    credentials(authority, subject, at).server().clone()
}

/// A client that trusts `trusted` and shows `shown`. Only a hostile one's are not of one cluster.
fn client(trusted: &Authority, expect: Expect, shown: &Credentials) -> ClientConfig {
    let trust = Trust::Member { ca: trusted.certificate().clone(), expect };
    client_config(trust, Some(shown.identity().clone()))
}

/// Node 2 of a cluster, calling any node.
fn caller(authority: &Authority) -> ClientConfig {
    client(authority, Expect::AnyNode, &credentials(authority, &node(2), now()))
}

/// The same as a dialer has it.
fn member(authority: &Authority, expect: Expect) -> Caller {
    let (_, credentials) = watch::channel(Arc::new(credentials(authority, &node(2), now())));
    Caller::Member { credentials, expect }
}

fn joining(authority: Digest) -> ClientConfig {
    client_config(Trust::Pinned(authority), None)
}

/// What each side made of one handshake with a server of cluster 1. The client's side includes the answer to
/// a first byte, since a TLS 1.3 client is done before its certificate is judged.
async fn meet(
    server: Arc<ServerConfig>,
    client: ClientConfig,
) -> (Result<Peer, HandshakeError>, Result<(), DialError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = acceptor::handshake(stream, server, ClusterId(1)).await?;
        let mut byte = [0];
        if connection.read_exact(&mut byte).await.is_ok() {
            connection.write_all(&byte).await.unwrap();
            connection.flush().await.unwrap();
        }
        Ok::<Peer, HandshakeError>(connection.peer().clone())
    };
    let call = async {
        let mut stream = connector::handshake(address, "gantry".try_into().unwrap(), client).await?;
        let failed = |source| DialError::Tls { address, source };
        stream.write_all(b"x").await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        stream.read_exact(&mut [0]).await.map_err(failed)?;
        Ok::<(), DialError>(())
    };
    timeout(Duration::from_secs(20), async { tokio::join!(serve, call) }).await.expect("a handshake hung")
}

/// Why rustls refused the other side's certificate.
fn refused(error: &io::Error) -> Option<&CertificateError> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(reason) => Some(reason),
        _ => None,
    }
}

/// Asserts that the server turned the client away for a reason, and that the client noticed.
async fn turned_away(
    server: Arc<ServerConfig>,
    client: ClientConfig,
    reason: impl Fn(&CertificateError) -> bool,
) {
    let (served, called) = meet(server, client).await;
    let Err(HandshakeError::Tls(error)) = &served else { panic!("the server made {served:?} of it") };
    assert!(refused(error).is_some_and(reason), "{error:?}");
    assert!(matches!(called, Err(DialError::Tls { .. })), "{called:?}");
}

/// Asserts that the client turned its back on the server because of its certificate.
async fn not_trusted(
    server: Arc<ServerConfig>,
    client: ClientConfig,
    reason: impl Fn(&CertificateError) -> bool,
) {
    let (served, called) = meet(server, client).await;
    let Err(DialError::Tls { source, .. }) = &called else { panic!("the client made {called:?} of it") };
    assert!(refused(source).is_some_and(reason), "{source:?}");
    assert!(matches!(served, Err(HandshakeError::Tls(_))), "{served:?}");
}

/// Asserts that the client found another machine than it meant, and hands over what it says.
async fn not_meant(server: Arc<ServerConfig>, client: ClientConfig) -> Mismatch {
    let (served, called) = meet(server, client).await;
    assert!(matches!(served, Err(HandshakeError::Tls(_))), "{served:?}");
    match called {
        Err(DialError::Mismatch { source, .. }) => source,
        other => panic!("the client made {other:?} of it"),
    }
}

#[tokio::test]
async fn a_node_reaches_the_node_it_means() {
    let ours = authority(1);
    for expect in [Expect::Node(NodeId(1)), Expect::AnyNode] {
        let client = client(&ours, expect, &credentials(&ours, &node(2), now()));
        let (served, called) = meet(server(&ours, &node(1), now()), client).await;
        assert_eq!(served.unwrap(), peer(2));
        called.unwrap();
    }
}

#[tokio::test]
async fn an_administrator_is_known_by_name() {
    let ours = authority(1);
    let client = client(&ours, Expect::AnyNode, &credentials(&ours, &admin(), now()));
    let (served, called) = meet(server(&ours, &node(1), now()), client).await;
    assert_eq!(served.unwrap(), Peer::Admin { name: "ops".parse().unwrap() });
    called.unwrap();
}

#[tokio::test]
async fn another_node_at_the_address_is_not_talked_to() {
    let ours = authority(1);
    let client = client(&ours, Expect::Node(NodeId(3)), &credentials(&ours, &node(2), now()));
    let mismatch = not_meant(server(&ours, &node(1), now()), client).await;
    assert_eq!(mismatch.to_string(), "it is node n1, not node n3");
}

#[tokio::test]
async fn a_client_of_another_cluster_is_turned_away() {
    let (ours, theirs) = (authority(1), authority(2));
    let client = client(&ours, Expect::AnyNode, &credentials(&theirs, &node(2), now()));
    turned_away(server(&ours, &node(1), now()), client, |r| *r == CertificateError::UnknownIssuer).await;
}

#[tokio::test]
async fn a_server_of_another_cluster_is_not_talked_to() {
    let (ours, theirs) = (authority(1), authority(2));
    let server = server(&theirs, &node(1), now());
    not_trusted(server, caller(&ours), |r| *r == CertificateError::UnknownIssuer).await;
}

#[tokio::test]
async fn an_authority_that_calls_itself_ours_is_not() {
    let (ours, impostor) = (authority(1), authority(1));
    let client = client(&ours, Expect::AnyNode, &credentials(&impostor, &node(2), now()));
    turned_away(server(&ours, &node(1), now()), client, |r| *r == CertificateError::BadSignature).await;
    let server = server(&impostor, &node(1), now());
    not_trusted(server, caller(&ours), |r| *r == CertificateError::BadSignature).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side() {
    let ours = authority(1);
    let expired = |reason: &CertificateError| matches!(reason, CertificateError::ExpiredContext { .. });
    let client = client(&ours, Expect::AnyNode, &credentials(&ours, &node(2), long_ago()));
    turned_away(server(&ours, &node(1), now()), client, expired).await;
    not_trusted(server(&ours, &node(1), long_ago()), caller(&ours), expired).await;
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused() {
    let ours = authority(1);
    let client = client(&ours, Expect::AnyNode, &credentials(&ours, &node(2), now().plus(NODE_LIFETIME)));
    let early = |reason: &CertificateError| matches!(reason, CertificateError::NotValidYetContext { .. });
    turned_away(server(&ours, &node(1), now()), client, early).await;
}

#[tokio::test]
async fn an_administrator_cannot_pose_as_a_server() {
    let ours = authority(1);
    let purpose =
        |reason: &CertificateError| matches!(reason, CertificateError::InvalidPurposeContext { .. });
    not_trusted(server(&ours, &admin(), now()), caller(&ours), purpose).await;
}

#[tokio::test]
async fn a_joining_machine_trusts_the_authority_of_its_token_and_no_other() {
    let (ours, theirs) = (authority(1), authority(2));
    let token = ours.certificate().digest();
    let (served, called) = meet(server(&ours, &node(1), now()), joining(token)).await;
    assert_eq!(served.unwrap(), Peer::Joining);
    called.unwrap();
    let mismatch = not_meant(server(&theirs, &node(1), now()), joining(token)).await;
    assert!(matches!(mismatch, Mismatch::Authority(wanted) if wanted == token), "{mismatch:?}");
}

#[tokio::test]
async fn showing_the_pinned_authority_without_a_certificate_from_it_is_not_enough() {
    let (ours, theirs) = (authority(1), authority(2));
    // Anyone can learn our authority's certificate, and send it along.
    let leaf = credentials(&theirs, &node(1), now()).identity().clone();
    let chain = vec![leaf.cert[0].clone(), ours.certificate().der().clone()];
    let liar = server_config(theirs.certificate(), Arc::new(CertifiedKey::new(chain, leaf.key.clone())));
    let client = joining(ours.certificate().digest());
    not_trusted(Arc::new(liar), client, |r| *r == CertificateError::UnknownIssuer).await;
}

#[tokio::test]
async fn a_certificate_is_not_its_own_authority() {
    let ours = authority(1);
    let shown = credentials(&ours, &node(1), now());
    let leaf = sha256(&shown.identity().cert[0]);
    let mismatch = not_meant(shown.server().clone(), joining(leaf)).await;
    assert!(matches!(mismatch, Mismatch::Authority(_)), "{mismatch:?}");
}

#[tokio::test]
async fn what_is_not_tls_ends_in_an_error() {
    let ours = authority(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = server(&ours, &node(1), now());
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor::handshake(stream, server, ClusterId(1)).await
    };
    let call = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: gantry\r\n\r\n").await.unwrap();
        // Whatever comes back; the point is that it ends.
        stream.read_to_end(&mut Vec::new()).await
    };
    let (served, _) = tokio::join!(serve, call);
    assert!(matches!(served, Err(HandshakeError::Tls(_))), "{served:?}");
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_named_in_the_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = dial(address, &Caller::Joining { authority: Digest([0; 32]) }).await.unwrap_err();
    assert!(matches!(error, DialError::Tcp { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("{address} cannot be reached"));
}

#[tokio::test]
async fn callers_that_say_nothing_hold_up_nobody_and_are_dropped() {
    let ours = authority(1);
    let (_sender, receiver) = watch::channel(Arc::new(credentials(&ours, &node(1), now())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut acceptor = Acceptor::new(listener, receiver);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let caller = member(&ours, Expect::Node(NodeId(1)));
    let meeting = async { tokio::join!(acceptor.accept(), dial(address, &caller)) };
    let (connection, called) =
        timeout(Duration::from_secs(4), meeting).await.expect("held up by silent callers");
    assert_eq!(connection.peer(), &peer(2));
    called.unwrap();

    // The acceptor works while it is polled, as it is by the server.
    let mut byte = [0];
    let dropped = async { silent.remove(0).read(&mut byte).await };
    tokio::select! {
        connection = acceptor.accept() => panic!("{connection:?} was never made"),
        read = timeout(Duration::from_secs(15), dropped) => {
            let read = read.expect("a silent caller was kept");
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
    }
}

#[tokio::test]
async fn the_next_connection_uses_the_renewed_certificate() {
    let ours = authority(1);
    let (sender, receiver) = watch::channel(Arc::new(credentials(&ours, &node(1), long_ago())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut acceptor = Acceptor::new(listener, receiver);
    let mut tasks: JoinSet<()> = JoinSet::new();
    tasks.spawn(async move {
        loop {
            acceptor.accept().await;
        }
    });
    let caller = member(&ours, Expect::AnyNode);
    let expired = dial(address, &caller).await.unwrap_err();
    assert!(matches!(expired, DialError::Tls { .. }), "{expired:?}");
    sender.send_replace(Arc::new(credentials(&ours, &node(1), now())));
    dial(address, &caller).await.unwrap();
}
