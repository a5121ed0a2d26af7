//! What a registry is shown: a password, or a token that was given out for one (Docker's "Token Authentication
//! Specification" and "OAuth2 Token Authentication").

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::RegistryHost;
use super::address::{self, RefusedAddress};
use super::challenge::Challenge;
use super::failure::{RequestError, Said, when};
use super::settings::{Credential, Secret};
use super::transport::{Body, Call, Peer, Transport};
use crate::limits;

/// A token is good for a minute where the answer does not say for how long (the specification's own default).
const LIFE: u64 = 60;

/// Nothing that anybody gives out is good for longer.
const LONGEST_LIFE: u64 = 24 * 60 * 60;

/// Tokens with a long list of rights have some 10 KiB; no server takes larger headers than this.
const TOKEN: usize = 64 << 10;

/// Registries name one scope or two. More would only make the request longer.
const SCOPES: usize = 16;

/// A repository's name has 255 characters at most, and some words go with it.
const SCOPE: usize = 1024;

/// One for each repository and user in use; beyond that, some are asked for anew.
const KEPT: usize = 1024;

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    Basic { username: String, password: String },
    Bearer(String),
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, password: _ } => write!(f, "Basic({username}, …)"),
            Self::Bearer(_) => f.write_str("Bearer(…)"),
        }
    }
}

/// For what an authorization was had. The credential is part of it: nobody uses what another is allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Purpose {
    pub(super) host: RegistryHost,
    /// In the token service's words; `None` is only to show that the credential is right.
    pub(super) scope: Option<String>,
    pub(super) credential: Option<Credential>,
}

/// What was accepted lately, so that not every request is refused first.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<BTreeMap<Purpose, Kept>>);

#[derive(Clone, Debug)]
struct Kept {
    authorization: Authorization,
    /// `None` is for good.
    until: Option<Instant>,
}

impl Tokens {
    pub(super) fn get(&self, purpose: &Purpose) -> Option<Authorization> {
        let now = Instant::now();
        self.kept().get(purpose).filter(|kept| kept.is_good(now)).map(|kept| kept.authorization.clone())
    }

    pub(super) fn forget(&self, purpose: &Purpose) {
        self.kept().remove(purpose);
    }

    fn keep(&self, purpose: &Purpose, authorization: &Authorization, life: Option<Duration>) {
        let now = Instant::now();
        let mut all = self.kept();
        if all.len() >= KEPT {
            all.retain(|_, kept| kept.is_good(now));
        }
        if all.len() >= KEPT {
            all.clear();
        }
        let until = life.map(|life| now + life);
        all.insert(purpose.clone(), Kept { authorization: authorization.clone(), until });
    }

    /// A panic in another thread leaves the map whole: it changes in single steps.
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Purpose, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the challenge demands, and remembers what came of it. `None`: there is nothing more to show than was
    /// shown.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        peer: &Peer,
        purpose: &Purpose,
        challenge: &Challenge,
    ) -> Result<Option<Authorization>, RequestError> {
        let (authorization, life) = match (challenge, &purpose.credential) {
            (Challenge::Basic, None) => return Ok(None),
            (Challenge::Basic, Some(Credential { username, secret: Secret::Password(password) })) => {
                (Authorization::Basic { username: username.clone(), password: password.clone() }, None)
            }
            (Challenge::Basic, Some(Credential { username: _, secret: Secret::IdentityToken(_) })) => {
                return Err(RequestError::NeedsPassword { host: purpose.host.clone() });
            }
            (Challenge::Bearer { realm, service, scope }, _) => {
                let request =
                    Request { realm, service: service.as_deref(), scopes: scopes(purpose, scope.as_deref()) };
                let (token, life) = fetch(transport, peer, purpose, &request).await?;
                (Authorization::Bearer(token), Some(life))
            }
        };
        self.keep(purpose, &authorization, life);
        Ok(Some(authorization))
    }
}

impl Kept {
    fn is_good(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// What the registry asks for, and what we know that we need: a registry asks for less than a push needs as long as the
/// push only looks.
fn scopes(purpose: &Purpose, asked: Option<&str>) -> Vec<String> {
    let mut scopes: Vec<String> = purpose.scope.iter().cloned().collect();
    let asked = asked.unwrap_or_default().split_ascii_whitespace().filter(|scope| scope.len() <= SCOPE);
    for scope in asked.take(SCOPES) {
        if !scopes.iter().any(|known| known == scope) {
            scopes.push(scope.to_owned());
        }
    }
    scopes
}

struct Request<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scopes: Vec<String>,
}

async fn fetch(
    transport: &Transport,
    peer: &Peer,
    purpose: &Purpose,
    request: &Request<'_>,
) -> Result<(String, Duration), RequestError> {
    let host = &purpose.host;
    let refused = |source| RequestError::Realm { host: host.clone(), source };
    let realm = Url::parse(request.realm).map_err(|_| refused(RefusedAddress::Missing))?;
    // Also without credentials: the answer is shown to the registry, and a stranger would have it fetched.
    address::realm(&peer.base, &realm).map_err(refused)?;
    let (call, authorization) = call(&realm, request, purpose.credential.as_ref());
    let shown = authorization.as_ref().map(|authorization| (authorization, &realm));
    let answer = transport.exchange(peer, &call, shown).await?;
    let (status, at, headers) = (answer.status(), answer.at(), answer.headers().clone());
    let text = answer.text("a token", limits::DOCUMENT).await?;
    let user = purpose.credential.as_ref().map(|credential| credential.username.clone());
    match (status, user) {
        (StatusCode::OK, _) => {
            read(&text).map_err(|problem| RequestError::Token { host: host.clone(), problem })
        }
        (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(user)) => {
            Err(RequestError::Credentials { host: host.clone(), user, said: Said::read(&text) })
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
            let what = purpose.scope.as_deref().map_or_else(|| "anything here".to_owned(), named);
            Err(RequestError::LoginNeeded { host: host.clone(), what, said: Said::read(&text) })
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => {
            Err(RequestError::RateLimited { at, when: when(&headers), said: Said::read(&text) })
        }
        (status, _) => Err(RequestError::Status { at, status: status.as_u16(), said: Said::read(&text) }),
    }
}

/// The repository of a scope of ours, `repository:team/app:pull`.
fn named(scope: &str) -> String {
    format!("repository {}", scope.split(':').nth(1).unwrap_or(scope))
}

/// The request for a token, and what to show with it.
fn call(
    realm: &Url,
    request: &Request<'_>,
    credential: Option<&Credential>,
) -> (Call, Option<Authorization>) {
    let mut url = realm.clone();
    if let Some(Credential { username: _, secret: Secret::IdentityToken(token) }) = credential {
        let scopes = request.scopes.join(" ");
        let mut form =
            vec![("grant_type", "refresh_token"), ("refresh_token", token.as_str()), ("client_id", "gantry")];
        form.extend(request.service.map(|service| ("service", service)));
        form.push(("scope", scopes.as_str()));
        let call = Call { body: Body::Small(encoded(&form)), ..Call::new(Method::POST, url) };
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        return (call.with(CONTENT_TYPE, kind), None);
    }
    let mut pairs: Vec<(&str, &str)> =
        request.service.map(|service| ("service", service)).into_iter().collect();
    pairs.extend(request.scopes.iter().map(|scope| ("scope", scope.as_str())));
    pairs.extend(credential.map(|credential| ("account", credential.username.as_str())));
    append(&mut url, &pairs);
    let authorization = credential.and_then(|Credential { username, secret }| match secret {
        Secret::Password(password) => {
            Some(Authorization::Basic { username: username.clone(), password: password.clone() })
        }
        Secret::IdentityToken(_) => None,
    });
    (Call::get(url), authorization)
}

fn append(url: &mut Url, pairs: &[(&str, &str)]) {
    let mut query = url.query_pairs_mut();
    for (key, value) in pairs {
        query.append_pair(key, value);
    }
}

/// A form, which is written as a URL's query is.
fn encoded(form: &[(&str, &str)]) -> bytes::Bytes {
    let mut url = Url::parse("http://form/").expect("this is a URL");
    append(&mut url, form);
    bytes::Bytes::copy_from_slice(url.query().unwrap_or_default().as_bytes())
}

/// The token, and how long it is good for.
fn read(text: &[u8]) -> Result<(String, Duration), &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        /// Some have fractions, and some have passed already.
        expires_in: Option<f64>,
    }
    let Answer { token, access_token, expires_in } =
        serde_json::from_slice(text).map_err(|_| "its answer is not the JSON that it should be")?;
    let mut tokens = [token, access_token].into_iter().flatten();
    let token = tokens.find(|token| !token.is_empty()).ok_or("there is none in its answer")?;
    if token.len() > TOKEN || !token.bytes().all(|c| c.is_ascii_graphic()) {
        return Err("it cannot stand in a header");
    }
    // Docker's own service once said less than it meant, so that less than a minute is taken for one.
    let life = expires_in.map_or(LIFE, |seconds| seconds as u64).clamp(LIFE, LONGEST_LIFE);
    // Some of it goes by on the way.
    Ok((token, Duration::from_secs(life) * 9 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(secret: Secret) -> Credential {
        Credential { username: "me".to_owned(), secret }
    }

    fn purpose(scope: Option<&str>) -> Purpose {
        let host = RegistryHost::docker_hub();
        Purpose { host, scope: scope.map(str::to_owned), credential: None }
    }

    fn request(realm: &str) -> Request<'_> {
        let scopes = vec!["repository:a/b:pull".to_owned()];
        Request { realm, service: Some("reg ex"), scopes }
    }

    #[test]
    fn a_password_asks_with_get_and_an_identity_token_with_post() {
        let realm = Url::parse("https://auth.example/token?x=1").unwrap();
        let (anonymous, shown) = call(&realm, &request("r"), None);
        let asked = "https://auth.example/token?x=1&service=reg+ex&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!((anonymous.url.as_str(), anonymous.method, shown), (asked, Method::GET, None));

        let (get, shown) = call(&realm, &request("r"), Some(&credential(Secret::Password("pw".to_owned()))));
        assert_eq!(get.url.as_str(), format!("{asked}&account=me"));
        let basic = Authorization::Basic { username: "me".to_owned(), password: "pw".to_owned() };
        assert_eq!(shown, Some(basic));

        let token = credential(Secret::IdentityToken("t&k".to_owned()));
        let (post, shown) = call(&realm, &request("r"), Some(&token));
        assert_eq!((post.url.as_str(), post.method, shown), (realm.as_str(), Method::POST, None));
        let Body::Small(body) = post.body else { panic!("the body is no form") };
        assert_eq!(
            String::from_utf8(body.to_vec()).unwrap(),
            "grant_type=refresh_token&refresh_token=t%26k&client_id=gantry&service=reg+ex&scope=repository%3Aa%2Fb%3Apull",
        );
    }

    #[test]
    fn an_answer_has_a_token_and_a_life() {
        let seconds = |text: &str| read(text.as_bytes()).map(|(token, life)| (token, life.as_secs()));
        assert_eq!(seconds(r#"{"token":"a"}"#), Ok(("a".to_owned(), 54)));
        assert_eq!(seconds(r#"{"access_token":"b","expires_in":300}"#), Ok(("b".to_owned(), 270)));
        assert_eq!(seconds(r#"{"token":"a","expires_in":1}"#), Ok(("a".to_owned(), 54)));
        assert_eq!(seconds(r#"{"token":"","access_token":"b"}"#), Ok(("b".to_owned(), 54)));
        assert_eq!(seconds(r#"{"token":"a","expires_in":-5}"#), Ok(("a".to_owned(), 54)));
        assert_eq!(seconds(r#"{"token":"a","expires_in":300.5}"#), Ok(("a".to_owned(), 270)));
        let longest = format!(r#"{{"token":"a","expires_in":{}}}"#, u64::MAX);
        assert_eq!(seconds(&longest), Ok(("a".to_owned(), LONGEST_LIFE * 9 / 10)));
        for bad in ["", "{}", r#"{"token":""}"#, r#"{"token":"a b"}"#, r#"{"token":"a\nX: y"}"#, "[]"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(read(format!(r#"{{"token":"{}"}}"#, "x".repeat(TOKEN + 1)).as_bytes()).is_err());
    }

    #[test]
    fn what_is_needed_is_asked_for_besides_what_the_registry_names() {
        let push = purpose(Some("repository:a:pull,push"));
        assert_eq!(scopes(&push, Some("repository:a:pull")), ["repository:a:pull,push", "repository:a:pull"]);
        assert_eq!(scopes(&push, Some("repository:a:pull,push")), ["repository:a:pull,push"]);
        assert_eq!(scopes(&push, None), ["repository:a:pull,push"]);
        assert_eq!(scopes(&purpose(None), Some("a b")), ["a", "b"]);
        let many: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
        assert_eq!(scopes(&push, Some(&many.join(" "))).len(), 1 + SCOPES);
        assert_eq!(scopes(&push, Some(&"a".repeat(400_000))), ["repository:a:pull,push"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_kept_for_its_life_and_its_user() {
        let tokens = Tokens::default();
        let (mine, bearer) = (purpose(Some("s")), Authorization::Bearer("t".to_owned()));
        tokens.keep(&mine, &bearer, Some(Duration::from_secs(60)));
        assert_eq!(tokens.get(&mine), Some(bearer.clone()));
        let other =
            Purpose { credential: Some(credential(Secret::Password("pw".to_owned()))), ..mine.clone() };
        assert_eq!(tokens.get(&other), None, "not for somebody else");
        assert_eq!(tokens.get(&purpose(Some("other"))), None, "not for something else");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(tokens.get(&mine), None, "not for longer");
        tokens.keep(&mine, &bearer, None);
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(tokens.get(&mine), Some(bearer));
        tokens.forget(&mine);
        assert_eq!(tokens.get(&mine), None);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let tokens = Tokens::default();
        for n in 0..3 * KEPT {
            tokens.keep(&purpose(Some(&n.to_string())), &Authorization::Bearer("t".to_owned()), None);
        }
        assert!(tokens.kept().len() <= KEPT);
    }
}
