//! Makes calls: to nodes, to a cluster that is to be joined, to the daemon of this machine.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use http::Uri;
use hyper_util::rt::TokioIo;
use model::{Digest, NodeId};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, service_fn};

use crate::tls::{Trust, client_config, mismatch};
use crate::{Credentials, Mismatch, Subject};

/// For TCP and TLS together. One lost SYN is sent again after a second; who needs longer than two is better
/// asked again, or another asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may be silent before it is probed, and a probe unanswered before the connection is
/// given up: a machine that lost its power closes nothing.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls nodes of one's own cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    credentials: watch::Receiver<Arc<Credentials>>,
}

/// Whom one means to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This node and no other, whatever the address says: its address may be another's by now.
    Node(NodeId),
    AnyNode,
}

/// Why one connection could not be made. A channel makes many in its life; this is then in the source chain
/// of the status that a call ends with.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{address} cannot be reached")]
    Tcp {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{address} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout { address: SocketAddr },
    #[error("the TLS handshake with {address} failed")]
    Tls {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{address} is not whom we meant to reach")]
    Mismatch {
        address: SocketAddr,
        #[source]
        source: Mismatch,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("no connection to {address}")]
pub struct ConnectError {
    pub address: SocketAddr,
    /// A [`DialError`] is in its chain.
    #[source]
    pub source: tonic::transport::Error,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection to the daemon of this machine at {}", .path.display())]
pub struct ConnectLocalError {
    pub path: PathBuf,
    #[source]
    pub source: tonic::transport::Error,
}

impl Connector {
    /// Every connection uses the credentials that `credentials` holds when it is made.
    pub fn new(credentials: watch::Receiver<Arc<Credentials>>) -> Self {
        Self { credentials }
    }

    /// With credentials that will not change: for a command that ends before they do.
    pub fn fixed(credentials: Credentials) -> Self {
        let (_, receiver) = watch::channel(Arc::new(credentials));
        Self { credentials: receiver }
    }

    /// Connects now. The channel connects again by itself when the connection breaks, to the same
    /// expectation.
    pub async fn connect(&self, address: SocketAddr, expect: Expect) -> Result<Channel, ConnectError> {
        let dialer = self.dialer(address, expect);
        endpoint().connect_with_connector(dialer).await.map_err(|source| ConnectError { address, source })
    }

    /// Connects with the first call, which fails with `UNAVAILABLE` when that cannot be done. Must be called
    /// within a Tokio runtime.
    pub fn connect_lazily(&self, address: SocketAddr, expect: Expect) -> Channel {
        endpoint().connect_with_connector_lazy(self.dialer(address, expect))
    }

    fn dialer(&self, address: SocketAddr, expect: Expect) -> Dialer {
        Dialer { address, caller: Caller::Member { credentials: self.credentials.clone(), expect } }
    }
}

/// Connects without a certificate to a node whose authority has the given digest
/// ([`crate::JoinToken::authority`]).
///
/// The authority's certificate that the join reply carries must have that digest as well.
pub async fn connect_joining(address: SocketAddr, authority: Digest) -> Result<Channel, ConnectError> {
    let dialer = Dialer { address, caller: Caller::Joining { authority } };
    endpoint().connect_with_connector(dialer).await.map_err(|source| ConnectError { address, source })
}

/// Connects to the daemon of this machine, as root.
pub async fn connect_local(path: &Path) -> Result<Channel, ConnectLocalError> {
    let socket = path.to_owned();
    let dialer = service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let connected = endpoint().connect_with_connector(dialer).await;
    connected.map_err(|source| ConnectLocalError { path: path.to_owned(), source })
}

fn endpoint() -> Endpoint {
    // The address is the dialer's to know. The scheme is what HTTP/2 is told; the dialer does the TLS.
    Endpoint::from_static("http://gantry")
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Who is calling, and whom.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    Member { credentials: watch::Receiver<Arc<Credentials>>, expect: Expect },
    Joining { authority: Digest },
}

/// What tonic asks for a connection whenever it needs one.
#[derive(Clone, Debug)]
struct Dialer {
    address: SocketAddr,
    caller: Caller,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { address, caller } = self.clone();
        async move { dial(address, &caller).await.map(TokioIo::new) }.boxed()
    }
}

pub(crate) async fn dial(address: SocketAddr, caller: &Caller) -> Result<TlsStream<TcpStream>, DialError> {
    let (name, config) = match caller {
        Caller::Member { credentials, expect } => {
            let credentials = credentials.borrow().clone();
            let trust = Trust::Member { ca: credentials.ca().clone(), expect: *expect };
            (server_name(&credentials, *expect), client_config(trust, Some(credentials.identity().clone())))
        }
        Caller::Joining { authority } => {
            ("join.gantry".to_owned(), client_config(Trust::Pinned(*authority), None))
        }
    };
    let name = ServerName::try_from(name).expect("digits, letters and dots make a DNS name");
    timeout(CONNECT_TIMEOUT, handshake(address, name, config))
        .await
        .map_err(|_| DialError::Timeout { address })?
}

/// The client's half of a handshake. In TLS 1.3 it is done before the server has judged the client's
/// certificate; a server that rejects it shows in the first read.
pub(crate) async fn handshake(
    address: SocketAddr,
    name: ServerName<'static>,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>, DialError> {
    let stream = TcpStream::connect(address).await.map_err(|source| DialError::Tcp { address, source })?;
    stream.set_nodelay(true).map_err(|source| DialError::Tcp { address, source })?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    tls.map_err(|source| match mismatch(&source) {
        Some(source) => DialError::Mismatch { address, source },
        None => DialError::Tls { address, source },
    })
}

/// What the handshake announces. It is seen on the wire and by tools; the verifier goes by the certificate's
/// URI.
fn server_name(credentials: &Credentials, expect: Expect) -> String {
    let cluster = credentials.ca().cluster();
    match expect {
        Expect::Node(id) => Subject::Node { id, role: None }.dns_name(cluster).expect("every node has one"),
        Expect::AnyNode => format!("{cluster}.gantry"),
    }
}
