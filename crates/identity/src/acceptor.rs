//! Takes calls from the network. Tonic's own TLS can neither change its certificate nor bound a handshake.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use model::ClusterId;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::subject::read_leaf;
use crate::{Connection, Credentials, InvalidCertificate, Peer};

/// A handshake takes two round trips. Who needs longer than this holds one of the places below for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes under way at once, some 30 KiB each. More callers wait in the kernel's queue.
const MAX_PENDING: usize = 256;

/// How long not to accept after accepting failed. It fails for want of file descriptors or memory, which
/// trying again at once would not cure.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A TCP listener that yields connections whose TLS handshake is done.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    credentials: watch::Receiver<Arc<Credentials>>,
    pending: JoinSet<Handshake>,
}

type Handshake = (SocketAddr, Result<Connection<TlsStream<TcpStream>>, HandshakeError>);

/// Why a caller was turned away before it could ask for anything.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the TLS handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the caller's certificate is from our authority and yet cannot be used")]
    Certificate(#[source] InvalidCertificate),
    #[error("the caller's certificate is for cluster {found}, this is {expected}")]
    Cluster { expected: ClusterId, found: ClusterId },
}

impl Acceptor {
    pub fn new(listener: TcpListener, credentials: watch::Receiver<Arc<Credentials>>) -> Self {
        Self { listener, credentials, pending: JoinSet::new() }
    }

    /// The next caller. Callers that fail are logged and dropped; a slow one holds up nobody. Nothing is lost
    /// when the future is dropped.
    pub async fn accept(&mut self) -> Connection<TlsStream<TcpStream>> {
        loop {
            tokio::select! {
                Some(done) = self.pending.join_next() => match done {
                    Ok((_, Ok(connection))) => return connection,
                    Ok((from, Err(error))) => {
                        let error: &(dyn std::error::Error + 'static) = &error;
                        tracing::info!(%from, error, "a caller was turned away");
                    }
                    Err(error) => tracing::error!(%error, "a handshake did not finish"),
                },
                accepted = self.listener.accept(), if self.pending.len() < MAX_PENDING => match accepted {
                    Ok((stream, from)) => {
                        let credentials = self.credentials.borrow().clone();
                        let (config, cluster) = (credentials.server().clone(), credentials.ca().cluster());
                        self.pending.spawn(async move { (from, handshake(stream, config, cluster).await) });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// For tonic's `serve_with_incoming`. It does not end by itself.
    pub fn incoming(self) -> impl Stream<Item = Result<Connection<TlsStream<TcpStream>>, Infallible>> + Send {
        unfold(self, |mut acceptor| async move {
            let connection = acceptor.accept().await;
            Some((Ok::<_, Infallible>(connection), acceptor))
        })
    }
}

/// The server's half of a handshake in `cluster`, and who the client turned out to be.
pub(crate) async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    cluster: ClusterId,
) -> Result<Connection<TlsStream<TcpStream>>, HandshakeError> {
    // Messages are small and each is waited for. A socket that refuses this works all the same.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let tls = TlsAcceptor::from(config).accept(stream);
    let tls = timeout(HANDSHAKE_TIMEOUT, tls)
        .await
        .map_err(|_| HandshakeError::Timeout)?
        .map_err(HandshakeError::Tls)?;
    let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = match shown {
        None => Peer::Joining,
        Some(leaf) => {
            let facts = read_leaf(leaf).map_err(HandshakeError::Certificate)?;
            if facts.cluster != cluster {
                return Err(HandshakeError::Cluster { expected: cluster, found: facts.cluster });
            }
            Peer::from(facts.subject)
        }
    };
    Ok(Connection::new(tls, peer))
}
