//! Whether a credential is right.

use reqwest::StatusCode;

use super::address::same_origin;
use super::failure::{ERROR, RequestError, Said, when};
use super::session;
use super::settings::Credential;
use super::token::Purpose;
use super::transport::{Answer, Call};
use super::{Client, RegistryHost};

/// What came of trying a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The registry accepts it.
    Accepted,
    /// The registry lets everybody in, and has not looked at it.
    NotAsked,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{0} is no registry: it has no `/v2/`")]
    NotARegistry(RegistryHost),
    #[error("cannot log in to registry {host}")]
    Request { host: RegistryHost, source: Box<RequestError> },
}

impl Client {
    /// Shows the credential to the registry and says whether it is accepted. Nothing is kept but the token that may
    /// come of it.
    pub async fn check(&self, host: &RegistryHost, credential: &Credential) -> Result<Checked, CheckError> {
        let failed = |source| CheckError::Request { host: host.clone(), source: Box::new(source) };
        let peer = self.peer(host).await.map_err(failed)?;
        let root = Call::get(peer.base.join("v2/").expect("this is a path"));
        let open = self.transport.exchange(&peer, &root, None).await.map_err(failed)?;
        // A page that everybody is sent to, to log in perhaps, is none of the registry's.
        let is_own = |answer: &Answer| same_origin(&answer.url, &peer.base);
        match open.status() {
            StatusCode::OK if is_own(&open) => return Ok(Checked::NotAsked),
            StatusCode::OK | StatusCode::NOT_FOUND => return Err(CheckError::NotARegistry(host.clone())),
            // What it demands comes again with the next answer.
            _ => drop(open),
        }
        let purpose = Purpose { host: host.clone(), scope: None, credential: Some(credential.clone()) };
        // A password that was right a while ago is not what is asked for.
        self.tokens.forget(&purpose);
        let answer = session::exchange(self, &peer, &purpose, &root).await.map_err(failed)?;
        match answer.status() {
            StatusCode::OK if is_own(&answer) => Ok(Checked::Accepted),
            StatusCode::OK => Err(CheckError::NotARegistry(host.clone())),
            _ => Err(failed(refusal(host, credential, answer).await)),
        }
    }
}

async fn refusal(host: &RegistryHost, credential: &Credential, answer: Answer) -> RequestError {
    let (status, at, headers) = (answer.status(), answer.at(), answer.headers().clone());
    let text = answer.text("an error", ERROR).await.unwrap_or_default();
    let said = Said::read(&text);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RequestError::Credentials { host: host.clone(), user: credential.username.clone(), said }
        }
        StatusCode::TOO_MANY_REQUESTS => RequestError::RateLimited { at, when: when(&headers), said },
        status => RequestError::Status { at, status: status.as_u16(), said },
    }
}
