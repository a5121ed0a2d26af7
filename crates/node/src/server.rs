//! The daemon's two doors: mTLS for nodes and clients, and a socket that only root on this machine may open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::real::content;
use control::dispatch;
use control::forward::Forward;
use control::{api, peers};
use identity::{Acceptor, Authorise, LocalListener, Membership};
use tonic::transport::Server;
use wire::proto::agent::content_server::ContentServer;
use wire::proto::agent::dispatcher_server::DispatcherServer;
use wire::proto::api::cluster_server::ClusterServer;
use wire::proto::raft::raft_server::RaftServer;

/// The largest message: an append of a proposal of the greatest size, with room to spare.
const MESSAGE: usize = 64 << 20;
/// Finds a peer that is gone without a word; a call that nobody waits for any more is work for nothing.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A manager's services.
#[derive(Clone, Debug)]
pub(crate) struct ManagerServices {
    pub(crate) api: api::Api,
    pub(crate) dispatcher: dispatch::Grpc,
    pub(crate) raft: peers::Grpc,
    pub(crate) forward: Forward,
}

pub(crate) struct Doors {
    pub(crate) acceptor: Acceptor,
    pub(crate) local: Option<LocalListener>,
    pub(crate) membership: Arc<dyn Membership>,
    pub(crate) content: content::Service,
    pub(crate) manager: Option<ManagerServices>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("cannot listen on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot serve clients on this machine")]
    Local(#[from] identity::BindError),
    #[error("cannot make {path}")]
    Run { path: PathBuf, source: std::io::Error },
    #[error("a server ended")]
    Ended(#[from] tonic::transport::Error),
}

/// Serves until one of the doors breaks.
pub(crate) async fn serve(doors: Doors) -> Result<(), ServeError> {
    let Doors { acceptor, local, membership, content, manager } = doors;
    match manager {
        None => {
            let server = Server::builder().http2_keepalive_interval(Some(KEEPALIVE));
            let mut server = server.layer(Authorise::new(membership));
            server.add_service(ContentServer::new(content)).serve_with_incoming(acceptor.incoming()).await?;
        }
        Some(services) => {
            let ManagerServices { api, dispatcher, raft, forward } = services;
            let router = || {
                let server = Server::builder().http2_keepalive_interval(Some(KEEPALIVE));
                let mut server = server.layer(Authorise::new(membership.clone())).layer(forward.clone());
                server
                    .add_service(RaftServer::new(raft.clone()).max_decoding_message_size(MESSAGE))
                    .add_service(DispatcherServer::new(dispatcher.clone()).max_decoding_message_size(MESSAGE))
                    .add_service(ClusterServer::new(api.clone()).max_decoding_message_size(MESSAGE))
                    .add_service(ContentServer::new(content.clone()))
            };
            let remote = router().serve_with_incoming(acceptor.incoming());
            match local {
                Some(local) => {
                    let local = router().serve_with_incoming(local.incoming());
                    tokio::try_join!(remote, local)?;
                }
                None => remote.await?,
            }
        }
    }
    Ok(())
}
