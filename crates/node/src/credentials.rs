//! Who this node is: a key, a certificate, and what it was told when it came into the cluster. Made once and kept.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use identity::{Authority, CaCertificate, Credentials, JoinToken, KeyPair, NODE_LIFETIME, Subject};
use model::{ClusterId, NodeId, Role, Timestamp};
use serde::{Deserialize, Serialize};
use wire::proto::api::cluster_client::ClusterClient;
use wire::proto::api::{JoinReply, JoinRequest, Manager};

use crate::config::{Config, Start};

/// How long to wait before the managers are asked again.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a manager has to admit this node.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node that knows who it is.
pub(crate) struct Identified {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) credentials: Credentials,
    /// The managers that there were when it joined.
    pub(crate) managers: BTreeMap<NodeId, SocketAddr>,
    /// The cluster's authority, until the cluster that this node founds has it.
    pub(crate) founding: Option<Authority>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    cluster: String,
    node: u64,
    manager: bool,
    managers: BTreeMap<u64, SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentifyError {
    #[error("cannot read or write {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is damaged")]
    Damaged { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot make this node's identity")]
    Make(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the join token is not one")]
    Token(#[from] identity::InvalidToken),
    #[error("the cluster refused this node: {0}")]
    Refused(String),
    #[error("the cluster's answer is not acceptable: {0}")]
    Answer(String),
}

fn made(error: impl std::error::Error + Send + Sync + 'static) -> IdentifyError {
    IdentifyError::Make(Box::new(error))
}

struct Files {
    dir: PathBuf,
}

impl Files {
    fn new(data: &Path) -> Self {
        Self { dir: data.join("identity") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), IdentifyError> {
        let path = self.path(name);
        let dir = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        dir.and_then(|()| write_private(&path, content))
            .map_err(|source| IdentifyError::File { path, source })
    }

    fn read(&self, name: &str) -> Result<Option<String>, IdentifyError> {
        let path = self.path(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentifyError::File { path, source }),
        }
    }

    fn required(&self, name: &str) -> Result<String, IdentifyError> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.read(name)?.ok_or_else(|| IdentifyError::File { path: self.path(name), source: missing() })
    }

    fn damaged(&self, name: &str, error: impl std::error::Error + Send + Sync + 'static) -> IdentifyError {
        IdentifyError::Damaged { path: self.path(name), source: Box::new(error) }
    }
}

const KEY: &str = "node.key";
const CERTIFICATE: &str = "node.pem";
const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
/// Written last of all: with it, the node has its identity.
const SAVED: &str = "identity.json";

/// The identity that is there, or the one that the configuration says how to come by. Asks for ever while no manager
/// answers; a refusal is final.
pub(crate) async fn identify(
    data: &Path,
    config: &Config,
    now: Timestamp,
) -> Result<Identified, IdentifyError> {
    let files = Files::new(data);
    if let Some(saved) = files.read(SAVED)? {
        return load(&files, &saved, now);
    }
    match &config.start {
        Start::Found { .. } => found(&files, now)?,
        Start::Join { token, managers } => join(&files, config, &token.parse()?, managers).await?,
    }
    load(&files, &files.required(SAVED)?, now)
}

/// The authority is in the replicated state from here on.
pub(crate) fn founded(data: &Path) -> Result<(), IdentifyError> {
    let path = Files::new(data).path(AUTHORITY_KEY);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(IdentifyError::File { path, source: error })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn load(files: &Files, saved: &str, now: Timestamp) -> Result<Identified, IdentifyError> {
    let Saved { cluster, node, manager, managers } =
        serde_json::from_str(saved).map_err(|error| files.damaged(SAVED, error))?;
    let cluster = cluster.parse().map_err(|error| files.damaged(SAVED, error))?;
    let key = KeyPair::from_pem(&files.required(KEY)?).map_err(|error| files.damaged(KEY, error))?;
    let authority_pem = files.required(AUTHORITY)?;
    let authority =
        CaCertificate::from_pem(&authority_pem).map_err(|error| files.damaged(AUTHORITY, error))?;
    let credentials = Credentials::new(authority, &files.required(CERTIFICATE)?, &key, now)
        .map_err(|error| files.damaged(CERTIFICATE, error))?;
    let founding = match files.read(AUTHORITY_KEY)? {
        Some(key) => Some(
            Authority::from_pem(&authority_pem, &key).map_err(|error| files.damaged(AUTHORITY_KEY, error))?,
        ),
        None => None,
    };
    Ok(Identified {
        cluster,
        node: NodeId(node),
        role: if manager { Role::Manager } else { Role::Worker },
        credentials,
        managers: managers.into_iter().map(|(node, address)| (NodeId(node), address)).collect(),
        founding,
    })
}

fn key(files: &Files) -> Result<KeyPair, IdentifyError> {
    // A key from an attempt that was cut short is used again: the request that was made with it may have been granted,
    // and the cluster knows by the key that it was.
    if let Some(text) = files.read(KEY)? {
        return KeyPair::from_pem(&text).map_err(|error| files.damaged(KEY, error));
    }
    let key = KeyPair::generate().map_err(made)?;
    files.write(KEY, key.to_pem().expose().as_bytes())?;
    Ok(key)
}

fn found(files: &Files, now: Timestamp) -> Result<(), IdentifyError> {
    let cluster = ClusterId(rand::random());
    let node = NodeId(1);
    let authority = Authority::mint(cluster, now).map_err(made)?;
    let key = key(files)?;
    let subject = Subject::Node { id: node, role: Some(Role::Manager) };
    let certificate = authority.issue(&key.public_key_der(), &subject, NODE_LIFETIME, now).map_err(made)?;
    files.write(AUTHORITY_KEY, authority.key_pem().expose().as_bytes())?;
    files.write(AUTHORITY, authority.certificate().pem().as_bytes())?;
    files.write(CERTIFICATE, certificate.as_bytes())?;
    let saved =
        Saved { cluster: cluster.to_string(), node: node.0, manager: true, managers: BTreeMap::new() };
    files.write(SAVED, &serde_json::to_vec_pretty(&saved).expect("an identity is plain data"))
}

async fn join(
    files: &Files,
    config: &Config,
    token: &JoinToken,
    managers: &[SocketAddr],
) -> Result<(), IdentifyError> {
    let key = key(files)?;
    let request = JoinRequest {
        token: token.text().expose().to_owned(),
        name: config.name.clone(),
        address: config.listen.to_string(),
        public_key: key.public_key_der(),
    };
    let reply = ask(token, managers, &request).await?;
    let JoinReply { cluster, node, role, certificate_pem, authority_pem, managers } = reply;
    let authority = CaCertificate::from_pem(&authority_pem).map_err(made)?;
    if authority.digest() != token.authority() {
        return Err(IdentifyError::Answer("its authority is not the one that the token names".to_owned()));
    }
    let address = |manager: &Manager| match manager.address.parse() {
        Ok(address) => Ok((manager.node, address)),
        Err(_) => Err(IdentifyError::Answer(format!("`{}` is not an address", manager.address))),
    };
    let saved = Saved {
        cluster,
        node,
        manager: role == "manager",
        managers: managers.iter().map(address).collect::<Result<_, _>>()?,
    };
    files.write(AUTHORITY, authority_pem.as_bytes())?;
    files.write(CERTIFICATE, certificate_pem.as_bytes())?;
    files.write(SAVED, &serde_json::to_vec_pretty(&saved).expect("an identity is plain data"))
}

async fn ask(
    token: &JoinToken,
    managers: &[SocketAddr],
    request: &JoinRequest,
) -> Result<JoinReply, IdentifyError> {
    loop {
        for address in managers {
            let attempt = async {
                let channel = identity::connect_joining(*address, token.authority()).await;
                let channel = channel.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
                ClusterClient::new(channel).join(request.clone()).await
            };
            match tokio::time::timeout(PATIENCE, attempt).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if is_final(status.code()) => {
                    return Err(IdentifyError::Refused(status.message().to_owned()));
                }
                Ok(Err(status)) => tracing::info!(%address, "not admitted yet: {}", status.message()),
                Err(_) => tracing::info!(%address, "not admitted yet: no answer"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_final(code: tonic::Code) -> bool {
    use tonic::Code::{Aborted, FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated};
    matches!(code, InvalidArgument | PermissionDenied | Unauthenticated | Aborted | FailedPrecondition)
}

/// Replaces a file that only root may read, durably and at once.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
