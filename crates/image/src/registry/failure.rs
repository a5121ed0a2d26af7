//! Why a registry did not give what was asked for, in words that lead on.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::time::Duration;

use model::Bytes;
use reqwest::Url;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use rustls::{CertificateError, InvalidMessage};
use serde::Deserialize;

use super::RegistryHost;
use super::address::{RefusedAddress, origin};
use super::transport::REDIRECTS;
use crate::document::{printable, shown};

/// What is read of an answer that is an error: a few sentences.
pub(super) const ERROR: Bytes = Bytes(64 << 10);

/// A certificate that is for other names is told with all of them.
const CAUSE: usize = 300;

/// One exchange with a registry that failed. `at` is the server that was asked, which can be another than the registry.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("cannot reach {at}")]
    Unreachable { at: String, source: Cause },
    #[error(
        "nobody whom this machine trusts vouches for {at}: if its certificate is of your own authority, give that \
         authority's certificate as `ca` of registry {host}"
    )]
    Untrusted { at: String, host: RegistryHost, source: Cause },
    #[error(
        "the certificate of {at} does not hold: renew it, or mark registry {host} as `insecure` to go without"
    )]
    Certificate { at: String, host: RegistryHost, source: Cause },
    #[error(
        "{at} does not speak https: if it speaks http only, and that is meant so, mark registry {host} as `insecure`"
    )]
    PlainHttp { at: String, host: RegistryHost },
    #[error("nothing came from {at} in {patience:?}")]
    Silent { at: String, patience: Duration },
    #[error("{at} took more than {patience:?} for a small answer")]
    Slow { at: String, patience: Duration },
    #[error("the connection to {at} broke")]
    Broken { at: String, source: Cause },
    #[error("{at} gave more than {limit} as {what}")]
    TooLong { at: String, what: &'static str, limit: Bytes },
    #[error("{at} leads to where gantry does not follow")]
    Redirect { at: String, source: RefusedAddress },
    #[error("{at} leads on and on, more than {most} times", most = REDIRECTS)]
    Redirects { at: String },
    #[error("registry {host} sends for a token to where its credentials do not go")]
    Realm { host: RegistryHost, source: RefusedAddress },
    #[error("the token service of registry {host} gives no usable token: {problem}")]
    Token { host: RegistryHost, problem: &'static str },
    #[error(
        "registry {host} wants a user name and password, and takes no identity token: `gantry registry login {host}`"
    )]
    NeedsPassword { host: RegistryHost },
    #[error(
        "registry {host} does not accept the credentials of {user}{said}: `gantry registry login {host}`"
    )]
    Credentials { host: RegistryHost, user: String, said: Said },
    #[error(
        "registry {host} says that {what} does not exist or may not be used without logging in{said}: \
         `gantry registry login {host}`"
    )]
    LoginNeeded { host: RegistryHost, what: String, said: Said },
    #[error("registry {host} says that {what} does not exist or may not be used by {user}{said}")]
    Denied { host: RegistryHost, what: String, user: String, said: Said },
    #[error("registry {host} has no {what}{said}")]
    Absent { host: RegistryHost, what: String, said: Said },
    #[error("{at} has had too many requests: try again {when}{said}. Who is logged in is often allowed more")]
    RateLimited { at: String, when: String, said: Said },
    #[error("{at} answered with status {status}{said}")]
    Status { at: String, status: u16, said: Said },
    #[error("the file to be sent cannot be read")]
    File(#[source] io::Error),
    #[error("the HTTP client cannot be set up")]
    Client(#[source] Cause),
}

/// The innermost of an HTTP library's causes: what the system or TLS had to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

/// A server's own words, in parentheses, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (it says: {})", self.0) }
    }
}

impl Said {
    /// From the body of an error (OCI distribution specification, "Error Codes"); anything else says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            message: Option<String>,
            code: Option<String>,
        }
        let Ok(Errors { errors }) = serde_json::from_slice(body) else { return Self::default() };
        let said = errors
            .into_iter()
            .next()
            .and_then(|Entry { message, code }| message.filter(|message| !message.is_empty()).or(code));
        Self(shown(&said.unwrap_or_default()))
    }
}

impl Cause {
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        Self(printable(&chain(error).last().map(ToString::to_string).unwrap_or_default(), CAUSE))
    }
}

impl RequestError {
    /// What the HTTP library failed with on the way to `at`, on behalf of `host`.
    pub(super) fn of(error: &reqwest::Error, at: &Url, host: &RegistryHost, patience: Duration) -> Self {
        let (at, host, source) = (origin(at), host.clone(), Cause::of(error));
        let tls = chain(error).find_map(|error| error.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(problem)) if is_lapsed(problem) => {
                Self::Certificate { at, host, source }
            }
            Some(rustls::Error::InvalidCertificate(_)) => Self::Untrusted { at, host, source },
            // Whatever begins with a letter is no TLS; it is most likely `HTTP/1.1 400 Bad Request`.
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                Self::PlainHttp { at, host }
            }
            Some(_) | None if error.is_connect() => Self::Unreachable { at, source },
            Some(_) | None if error.is_builder() => Self::Client(source),
            Some(_) | None if error.is_timeout() => Self::Silent { at, patience },
            Some(_) | None => Self::Broken { at, source },
        }
    }

    /// Whether the same request may well succeed a moment later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Untrusted { .. }
            | Self::Certificate { .. }
            | Self::PlainHttp { .. }
            | Self::Slow { .. }
            | Self::TooLong { .. }
            | Self::Redirect { .. }
            | Self::Redirects { .. }
            | Self::Realm { .. }
            | Self::Token { .. }
            | Self::NeedsPassword { .. }
            | Self::Credentials { .. }
            | Self::LoginNeeded { .. }
            | Self::Denied { .. }
            | Self::Absent { .. }
            | Self::RateLimited { .. }
            | Self::File(_)
            | Self::Client(_) => false,
        }
    }
}

/// The error and its causes. An I/O error hides the error that it is made of: its source is that one's source.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// Whether a certificate fails by itself, whoever vouches for it.
fn is_lapsed(problem: &CertificateError) -> bool {
    matches!(
        problem,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }
            | CertificateError::Revoked
    )
}

/// When a server that has had enough wants to be asked again (RFC 9110, `Retry-After`: seconds, or a date).
pub(super) fn when(headers: &HeaderMap) -> String {
    let written = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    match written {
        None | Some("") => "later".to_owned(),
        Some(text) => match text.parse::<u64>() {
            Ok(seconds) => format!("in {seconds} seconds"),
            Err(_) => format!("after {}", shown(text)),
        },
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_registrys_words_are_found_and_made_harmless() {
        let said = |body: &str| Said::read(body.as_bytes()).to_string();
        let known =
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(said(known), " (it says: manifest unknown)");
        assert_eq!(said(r#"{"errors":[{"code":"DENIED","message":""}]}"#), " (it says: DENIED)");
        assert_eq!(said(r#"{"errors":[{"message":"\u001b[31mred\n"}]}"#), r" (it says: \u{1b}[31mred\n)");
        for nothing in ["", "{}", "<html>", r#"{"errors":[]}"#, r#"{"errors":{}}"#] {
            assert_eq!(said(nothing), "", "{nothing}");
        }
        let long = format!(r#"{{"errors":[{{"message":"{}"}}]}}"#, "x".repeat(10_000));
        assert!(said(&long).len() < 200);
    }

    #[test]
    fn when_to_come_again_is_told() {
        let told = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(RETRY_AFTER, value.parse().unwrap());
            }
            when(&headers)
        };
        assert_eq!(told(None), "later");
        assert_eq!(told(Some("120")), "in 120 seconds");
        assert_eq!(told(Some("Wed, 21 Oct 2026 07:28:00 GMT")), "after Wed, 21 Oct 2026 07:28:00 GMT");
    }

    #[test]
    fn the_innermost_cause_is_found_behind_errors_of_input_and_output() {
        let refused = io::Error::from_raw_os_error(111);
        let error = io::Error::other(io::Error::other(refused));
        assert_eq!(Cause::of(&error), Cause("Connection refused (os error 111)".to_owned()));
        let tls = io::Error::other(rustls::Error::General("odd".to_owned()));
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, tls);
        assert!(chain(&wrapped).any(|error| error.is::<rustls::Error>()));
        let hostile = io::Error::other("\u{1b}[31m\n".repeat(10_000));
        assert_eq!(Cause::of(&hostile).0.chars().filter(|c| !c.is_control()).count(), CAUSE);
    }

    #[test]
    fn an_error_says_what_to_do() {
        let host = RegistryHost::docker_hub();
        let what = "repository team/app".to_owned();
        let login = RequestError::LoginNeeded { host: host.clone(), what, said: Said::default() };
        expect!["registry docker.io says that repository team/app does not exist or may not be used without logging in: `gantry registry login docker.io`"]
            .assert_eq(&login.to_string());
        let limited = RequestError::RateLimited {
            at: "https://registry-1.docker.io".to_owned(),
            when: "in 60 seconds".to_owned(),
            said: Said("toomanyrequests".to_owned()),
        };
        expect!["https://registry-1.docker.io has had too many requests: try again in 60 seconds (it says: toomanyrequests). Who is logged in is often allowed more"]
            .assert_eq(&limited.to_string());
        let plain = RequestError::PlainHttp { at: "https://reg.lan:5000".to_owned(), host };
        expect!["https://reg.lan:5000 does not speak https: if it speaks http only, and that is meant so, mark registry docker.io as `insecure`"]
            .assert_eq(&plain.to_string());
    }
}
