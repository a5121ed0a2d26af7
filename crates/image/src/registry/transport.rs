//! Single exchanges over HTTP: one client for each set of certificates, redirects by our own rules, and nothing that goes
//! on for ever.
//!
//! `reqwest` would follow redirects and wait by itself, but drops credentials by host and not by port, has no say in
//! where a redirect may lead, and counts an upload as silence.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt;
use model::{Bytes, Digest};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use super::address::{self, RefusedAddress, origin, same_origin};
use super::failure::{Cause, RequestError};
use super::settings::{Settings, Timeouts};
use super::tls;
use super::token::Authorization;
use super::{InvalidSettings, RegistryHost};
use crate::store::Store;

/// Registries lead to a blob store in one step, some over a second; what needs more leads in a circle.
pub(super) const REDIRECTS: usize = 5;

/// A registry that has all of a blob may yet have to move it to its place, which takes object stores minutes.
const COMMIT: u32 = 10;

/// What is read from the disk at a time while a blob is sent.
const SENT: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Transport {
    pub(super) settings: Settings,
    authorities: BTreeMap<RegistryHost, Vec<CertificateDer<'static>>>,
    /// Read when first needed: plain http and private authorities work on a machine that has none.
    system: OnceCell<Arc<RootCertStore>>,
    /// As many as there are sets of certificates in the settings, and twice that.
    clients: Mutex<BTreeMap<Trust, reqwest::Client>>,
}

/// What makes one client differ from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trust {
    /// As DER.
    given: Vec<Vec<u8>>,
    is_verified: bool,
    /// Loopback is never reached through a proxy.
    is_local: bool,
}

/// A registry as it is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) host: RegistryHost,
    /// The root of its API, with the scheme that it speaks.
    pub(super) base: Url,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Empty,
    Small(bytes::Bytes),
    /// A blob of the store's. Its length is to be in the headers.
    Blob {
        store: Store,
        digest: Digest,
        size: Bytes,
        sent: Sent,
    },
}

/// How much of a blob has been handed to the network, for whoever watches.
#[derive(Clone)]
pub(super) struct Sent(Arc<dyn Fn(Bytes) + Send + Sync>);

impl Sent {
    pub(super) fn to(watcher: impl Fn(Bytes) + Send + Sync + 'static) -> Self {
        Self(Arc::new(watcher))
    }
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sent")
    }
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(super) struct Answer {
    response: reqwest::Response,
    /// Where it came from in the end.
    pub(super) url: Url,
    host: RegistryHost,
    timeouts: Timeouts,
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Body::Empty }
    }

    pub(super) fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let mut authorities = BTreeMap::new();
        for (host, host_settings) in &settings.hosts {
            let mut all = Vec::new();
            for text in &host_settings.ca {
                let found = tls::certificates(text);
                all.extend(found.map_err(|source| InvalidSettings { host: host.clone(), source })?);
            }
            authorities.insert(host.clone(), all);
        }
        Ok(Self { settings, authorities, system: OnceCell::new(), clients: Mutex::default() })
    }

    /// One exchange, through redirects. The authorization is shown to the server of the URL with which it comes alone, and
    /// not to that one either once another has been asked, which then chose what for.
    pub(super) async fn exchange(
        &self,
        peer: &Peer,
        call: &Call,
        authorization: Option<(&Authorization, &Url)>,
    ) -> Result<Answer, RequestError> {
        let (mut url, mut shown) = (call.url.clone(), authorization);
        for _ in 0..=REDIRECTS {
            shown = shown.filter(|(_, owner)| same_origin(owner, &url));
            let response = self.send(peer, call, &url, shown.map(|(shown, _)| shown)).await?;
            match self.next(peer, call, &url, &response)? {
                Some(next) => url = next,
                None => {
                    let (host, timeouts) = (peer.host.clone(), self.settings.timeouts);
                    return Ok(Answer { response, url, host, timeouts });
                }
            }
        }
        Err(RequestError::Redirects { at: origin(&call.url) })
    }

    /// Where the answer leads, if it leads on and may.
    fn next(
        &self,
        peer: &Peer,
        call: &Call,
        from: &Url,
        response: &reqwest::Response,
    ) -> Result<Option<Url>, RequestError> {
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        // What is sent is sent to whom it was meant for; its sender is told where to, as any other answer.
        if !is_redirect || !matches!(call.method, Method::GET | Method::HEAD) {
            return Ok(None);
        }
        let next = self.location(peer, from, response.headers());
        next.map(Some).map_err(|source| RequestError::Redirect { at: origin(from), source })
    }

    /// The `Location` of an answer from `from`, relative or absolute, if we may go there on behalf of the registry.
    pub(super) fn location(
        &self,
        peer: &Peer,
        from: &Url,
        headers: &HeaderMap,
    ) -> Result<Url, RefusedAddress> {
        let written = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let to = written.and_then(|written| from.join(written).ok()).ok_or(RefusedAddress::Missing)?;
        let marked = |host: Option<RegistryHost>| host.is_some_and(|host| self.settings.is_insecure(&host));
        let may_downgrade = self.settings.is_insecure(&peer.host) || marked(RegistryHost::of(&to));
        address::follow(&peer.base, from, &to, may_downgrade)?;
        Ok(to)
    }

    async fn send(
        &self,
        peer: &Peer,
        call: &Call,
        url: &Url,
        authorization: Option<&Authorization>,
    ) -> Result<reqwest::Response, RequestError> {
        let client = self.client(self.trust(peer, url)).await?;
        let mut request = reqwest::Request::new(call.method.clone(), url.clone());
        request.headers_mut().extend(call.headers.clone());
        // Digests are of what is there, not of what somebody on the way has compressed.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let sent = Arc::new(AtomicU64::new(0));
        let (body, size) = call.body.open(&sent).await.map_err(RequestError::File)?;
        *request.body_mut() = body;
        let request = reqwest::RequestBuilder::from_parts(client, request);
        let request = match authorization {
            Some(Authorization::Basic { username, password }) => request.basic_auth(username, Some(password)),
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
            None => request,
        };
        let idle = self.settings.timeouts.idle;
        let mut sending = pin!(request.send());
        let mut before = 0;
        loop {
            let gone = sent.load(Ordering::Relaxed);
            let patience = if size > 0 && gone == size { idle * COMMIT } else { idle };
            match timeout(patience, &mut sending).await {
                Ok(answer) => {
                    return answer.map_err(|error| RequestError::of(&error, url, &peer.host, patience));
                }
                Err(_) if sent.load(Ordering::Relaxed) > before => before = sent.load(Ordering::Relaxed),
                Err(_) => return Err(RequestError::Silent { at: origin(url), patience }),
            }
        }
    }

    /// What a server has to show, when it is asked on behalf of this registry.
    fn trust(&self, peer: &Peer, url: &Url) -> Trust {
        let own = peer.base.host_str() == url.host_str() && self.settings.is_insecure(&peer.host);
        let there = RegistryHost::of(url);
        let is_insecure = own || there.as_ref().is_some_and(|host| self.settings.is_insecure(host));
        let given = [Some(&peer.host), there.as_ref()].into_iter().flatten();
        let given = given.filter_map(|host| self.authorities.get(host)).flatten();
        let mut given: Vec<Vec<u8>> = given.map(|certificate| certificate.to_vec()).collect();
        given.sort_unstable();
        given.dedup();
        Trust { given, is_verified: !is_insecure, is_local: address::is_loopback(url) }
    }

    async fn client(&self, trust: Trust) -> Result<reqwest::Client, RequestError> {
        if let Some(client) = self.clients().get(&trust) {
            return Ok(client.clone());
        }
        let config = if trust.is_verified {
            let given = trust.given.iter().map(|der| CertificateDer::from(der.clone())).collect();
            let system = self.system().await?;
            tls::verified(&system, given)
        } else {
            tls::unverified()
        };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .redirect(Policy::none())
            .connect_timeout(self.settings.timeouts.connect)
            .user_agent(concat!("gantry/", env!("CARGO_PKG_VERSION")));
        let builder = if trust.is_local { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| RequestError::Client(Cause::of(&error)))?;
        self.clients().insert(trust, client.clone());
        Ok(client)
    }

    async fn system(&self) -> Result<Arc<RootCertStore>, RequestError> {
        let read = || async {
            let read = tokio::task::spawn_blocking(tls::system_roots).await;
            read.map(Arc::new).map_err(|error| RequestError::Client(Cause::of(&error)))
        };
        self.system.get_or_try_init(read).await.cloned()
    }

    /// A panic in another thread leaves the map whole: it changes in single steps.
    fn clients(&self) -> std::sync::MutexGuard<'_, BTreeMap<Trust, reqwest::Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body {
    /// The body to send and, of one that takes its time, the size. `sent` counts what of it has been taken.
    async fn open(&self, sent: &Arc<AtomicU64>) -> io::Result<(Option<reqwest::Body>, u64)> {
        match self {
            Self::Empty => Ok((None, 0)),
            Self::Small(content) => Ok((Some(content.clone().into()), 0)),
            Self::Blob { store, digest, size, sent: Sent(watcher) } => {
                let (store, digest) = (store.clone(), *digest);
                let opened = tokio::task::spawn_blocking(move || store.open_blob(&digest)).await;
                let file = tokio::fs::File::from_std(opened.map_err(io::Error::other)??);
                let (sent, watcher) = (Arc::clone(sent), Arc::clone(watcher));
                let pieces = ReaderStream::with_capacity(file, SENT).inspect_ok(move |piece| {
                    let before = sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    watcher(Bytes(before + piece.len() as u64));
                });
                Ok((Some(reqwest::Body::wrap_stream(pieces)), size.0))
            }
        }
    }
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header that is text.
    pub(super) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// How much is still to come, if that was said.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    pub(super) fn at(&self) -> String {
        origin(&self.url)
    }

    /// The next piece of the body; `None` is its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, RequestError> {
        let patience = self.timeouts.idle;
        match timeout(patience, self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(RequestError::of(&error, &self.url, &self.host, patience)),
            Err(_) => Err(RequestError::Silent { at: self.at(), patience }),
        }
    }

    /// The whole body of an answer that is small.
    pub(super) async fn text(mut self, what: &'static str, limit: Bytes) -> Result<Vec<u8>, RequestError> {
        let (at, patience) = (self.at(), self.timeouts.document);
        let read = async {
            let mut text = Vec::new();
            while let Some(piece) = self.chunk().await? {
                if (text.len() + piece.len()) as u64 > limit.0 {
                    return Err(RequestError::TooLong { at: self.at(), what, limit });
                }
                text.extend_from_slice(&piece);
            }
            Ok(text)
        };
        match timeout(patience, read).await {
            Ok(read) => read,
            Err(_) => Err(RequestError::Slow { at, patience }),
        }
    }
}

#[cfg(test)]
mod tests;
