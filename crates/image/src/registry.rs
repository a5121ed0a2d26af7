//! Images from and to registries, over the OCI distribution specification 1.1 (Docker's Registry HTTP API V2 before it)
//! and Docker's token authentication.
//!
//! Start at [`Client`]: [`Client::resolve`] pins a name to a digest, [`Client::pull`] and [`Client::push`] move an image
//! between a registry and a [`Store`](crate::Store), [`Client::check`] tries a credential. Everything that comes from a
//! registry is hostile until shown otherwise; `DESIGN.md` beside this crate says what that means here.
//!
//! It does not know where credentials and settings are kept, nor who may use them: both are its caller's.
//!
//! In reading order: `reference` (what is where), `settings`, `known` (those of a cluster), `address` (where a registry may
//! send us), `challenge` and `token` (what it is shown), `tls`, `transport` (one exchange), `session` (one repository),
//! `failure` (why not), and on top `resolve`, `blob`, `pull`, `push`, `login`, `progress`.
//!
//! `oci-client` is not used: it reads manifests and tokens of any length into memory, and sends credentials to whatever
//! token service a registry names.

mod address;
mod blob;
mod challenge;
mod failure;
mod known;
mod login;
mod progress;
mod pull;
mod push;
mod reference;
mod resolve;
mod session;
mod settings;
mod tls;
mod token;
mod transport;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use model::Digest;
use reqwest::Url;
use tokio::time::Instant;

pub use address::RefusedAddress;
pub use blob::BlobError;
pub use failure::{Cause, RequestError, Said};
pub use known::known;
pub use login::{CheckError, Checked};
pub use progress::{LayerProgress, LayerState, Progress};
pub use pull::{PullError, Pulled};
pub use push::PushError;
pub use reference::{InvalidRegistryHost, Reference, RegistryHost, Target};
pub use resolve::{ResolveError, Resolved};
pub use settings::{Credential, Credentials, HostSettings, Secret, Settings, Timeouts};
pub use tls::InvalidCa;

use token::Tokens;
use transport::{Call, Peer, Transport};

/// How long an insecure registry is taken to speak what it spoke.
const SCHEME_LIFE: Duration = Duration::from_secs(300);

/// Speaks with registries on behalf of this process. One is enough for all registries, users and tasks: it keeps
/// connections and tokens.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    tokens: Tokens,
    /// What insecure registries speak, and when they were asked.
    schemes: Mutex<BTreeMap<RegistryHost, (Url, Instant)>>,
    turns: Turns,
}

#[derive(Debug, thiserror::Error)]
#[error("the `ca` of registry {host} is not acceptable")]
pub struct InvalidSettings {
    pub host: RegistryHost,
    pub source: InvalidCa,
}

impl Client {
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        Ok(Self {
            transport: Transport::new(settings)?,
            tokens: Tokens::default(),
            schemes: Mutex::default(),
            turns: Turns::default(),
        })
    }

    /// How to speak with a registry. Whether an insecure one speaks https is found out by asking, as Docker does.
    async fn peer(&self, host: &RegistryHost) -> Result<Peer, RequestError> {
        let https = Peer { host: host.clone(), base: host.url("https") };
        if !self.transport.settings.is_insecure(host) {
            return Ok(https);
        }
        if let Some(base) = self.scheme(host) {
            return Ok(Peer { base, ..https });
        }
        let peer = match self.ask(&https).await {
            Ok(()) => https,
            Err(error) if speaks(&error) => https,
            Err(_) => {
                let http = Peer { base: host.url("http"), ..https };
                // If this does not work either, this is the error to hear of: it is the same, or says more.
                match self.ask(&http).await {
                    Err(error) if !speaks(&error) => return Err(error),
                    Ok(()) | Err(_) => http,
                }
            }
        };
        let mut schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        schemes.insert(host.clone(), (peer.base.clone(), Instant::now()));
        drop(schemes);
        Ok(peer)
    }

    async fn ask(&self, peer: &Peer) -> Result<(), RequestError> {
        let root = peer.base.join("v2/").expect("this is a path");
        self.transport.exchange(peer, &Call::get(root), None).await.map(drop)
    }

    fn scheme(&self, host: &RegistryHost) -> Option<Url> {
        let schemes = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        let (base, asked) = schemes.get(host)?;
        (asked.elapsed() < SCHEME_LIFE).then(|| base.clone())
    }
}

/// Whether a server that did not answer as it should has spoken at all.
fn speaks(error: &RequestError) -> bool {
    matches!(error, RequestError::Redirect { .. } | RequestError::Redirects { .. })
}

/// The right to download a blob for images of one registry: they share layers, and two pulls at once need not bring one twice.
/// Not across registries: one that gives a byte a minute could name anybody's layers, and nobody else would get them.
// A std mutex around the map: it is held for one map operation and never across an await.
#[derive(Debug, Default)]
struct Turns(Mutex<BTreeMap<(RegistryHost, Digest), Weak<Turn>>>);

/// Held by who downloads.
type Turn = tokio::sync::Mutex<()>;

impl Turns {
    fn of(&self, registry: &RegistryHost, blob: Digest) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let key = (registry.clone(), blob);
        if let Some(turn) = turns.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(key, Arc::downgrade(&turn));
        turn
    }
}
