//! One repository of one registry, as one caller may use it.

use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};

use super::address::same_origin;
use super::challenge::{self, Challenge};
use super::failure::{ERROR, RequestError, Said, when};
use super::settings::Credential;
use super::token::{Authorization, Purpose};
use super::transport::{Answer, Call, Peer};
use super::{Client, RegistryHost};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) client: &'a Client,
    pub(super) peer: Peer,
    repository: String,
    purpose: Purpose,
}

impl<'a> Session<'a> {
    /// Asks the host how it speaks, where that is open.
    pub(super) async fn new(
        client: &'a Client,
        host: &RegistryHost,
        repository: &str,
        access: Access,
        credential: Option<&Credential>,
    ) -> Result<Self, RequestError> {
        let rights = match access {
            Access::Read => "pull",
            Access::Write => "pull,push",
        };
        let purpose = Purpose {
            host: host.clone(),
            scope: Some(format!("repository:{repository}:{rights}")),
            credential: credential.cloned(),
        };
        let peer = client.peer(host).await?;
        Ok(Self { client, peer, repository: repository.to_owned(), purpose })
    }

    /// Something of the repository: `blobs/…`, `manifests/…`.
    pub(super) fn url(&self, path: &str) -> Url {
        let path = format!("v2/{}/{path}", self.repository);
        self.peer.base.join(&path).expect("names, tags and digests have only what may stand in a path")
    }

    pub(super) async fn send(&self, call: &Call) -> Result<Answer, RequestError> {
        exchange(self.client, &self.peer, &self.purpose, call).await
    }

    /// The answer if it has this status; else why not, with `what` for what was asked for.
    pub(super) async fn expect(
        &self,
        answer: Answer,
        status: StatusCode,
        what: &str,
    ) -> Result<Answer, RequestError> {
        if answer.status() == status { Ok(answer) } else { Err(self.refusal(answer, what).await) }
    }

    /// Why an answer is not the one that was hoped for.
    pub(super) async fn refusal(&self, answer: Answer, what: &str) -> RequestError {
        let (status, at, headers) = (answer.status(), answer.at(), answer.headers().clone());
        let is_own = same_origin(&answer.url, &self.peer.base);
        // What cannot be read says nothing; the status counts.
        let text = answer.text("an error", ERROR).await.unwrap_or_default();
        let said = Said::read(&text);
        if !is_own {
            return elsewhere(status, at, &headers, said);
        }
        let host = self.peer.host.clone();
        let user = self.purpose.credential.as_ref().map(|credential| credential.username.clone());
        let repository = || format!("repository {}", self.repository);
        // With a password, the password is what was refused; a token's rights are looked at after it was given out.
        let wants_password = challenge::read(&headers) == Some(Challenge::Basic);
        match (status, user) {
            (StatusCode::UNAUTHORIZED, Some(user)) if wants_password => {
                RequestError::Credentials { host, user, said }
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
                RequestError::LoginNeeded { host, what: repository(), said }
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(user)) => {
                RequestError::Denied { host, what: repository(), user, said }
            }
            (StatusCode::NOT_FOUND, _) => RequestError::Absent { host, what: what.to_owned(), said },
            (status, _) => elsewhere(status, at, &headers, said),
        }
    }
}

/// What any server's answer says, whatever was asked.
fn elsewhere(status: StatusCode, at: String, headers: &HeaderMap, said: Said) -> RequestError {
    if status == StatusCode::TOO_MANY_REQUESTS {
        RequestError::RateLimited { at, when: when(headers), said }
    } else {
        RequestError::Status { at, status: status.as_u16(), said }
    }
}

/// One exchange, shown with what was accepted before, and once more with what the answer demands.
pub(super) async fn exchange(
    client: &Client,
    peer: &Peer,
    purpose: &Purpose,
    call: &Call,
) -> Result<Answer, RequestError> {
    let known = client.tokens.get(purpose);
    let answer = with(client, peer, call, known.as_ref()).await?;
    // Of another server's demands there is nothing to be made: it gets no credentials of the registry's.
    if answer.status() != StatusCode::UNAUTHORIZED || !same_origin(&answer.url, &peer.base) {
        return Ok(answer);
    }
    client.tokens.forget(purpose);
    let Some(challenge) = challenge::read(answer.headers()) else { return Ok(answer) };
    let demanded = client.tokens.answer(&client.transport, peer, purpose, &challenge).await?;
    // The same once more would be refused once more.
    let Some(fresh) = demanded.filter(|fresh| known.as_ref() != Some(fresh)) else { return Ok(answer) };
    drop(answer);
    let answer = with(client, peer, call, Some(&fresh)).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        client.tokens.forget(purpose);
    }
    Ok(answer)
}

async fn with(
    client: &Client,
    peer: &Peer,
    call: &Call,
    authorization: Option<&Authorization>,
) -> Result<Answer, RequestError> {
    client.transport.exchange(peer, call, authorization.map(|shown| (shown, &peer.base))).await
}
