//! How a registry wants to be convinced (RFC 7235; Docker's "Token Authentication Specification").

use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        /// Where tokens are given out.
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The challenge to answer: for a token if there is one, since a password then travels less; else for a password.
pub(super) fn read(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    // What comes before an error in the syntax counts.
    let challenges = values.flat_map(|value| ChallengeParser::new(value).map_while(Result::ok));
    let mut basic = None;
    for challenge in challenges {
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        } else if challenge.scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameter(&challenge, "realm")
        {
            let (service, scope) = (parameter(&challenge, "service"), parameter(&challenge, "scope"));
            return Some(Challenge::Bearer { realm, service, scope });
        }
    }
    basic
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.to_unescaped())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        read(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#;
        let (realm, service, scope) =
            ("https://auth.docker.io/token", "registry.docker.io", "repository:library/nginx:pull");
        assert_eq!(challenge(&[hub]), bearer(realm, Some(service), Some(scope)));
        assert_eq!(challenge(&[r#"Basic realm="Registry Realm""#]), Some(Challenge::Basic));
        assert_eq!(challenge(&[r#"BASIC realm="x""#]), Some(Challenge::Basic));
        assert_eq!(challenge(&[r#"bearer realm="https://a/t""#]), bearer("https://a/t", None, None));
        let scopes = r#"Bearer realm="https://a/t",scope="repository:a:pull repository:b:pull",error="insufficient_scope""#;
        let both = Some("repository:a:pull repository:b:pull");
        assert_eq!(challenge(&[scopes]), bearer("https://a/t", None, both));
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let expected = bearer("https://a/t", None, None);
        assert_eq!(challenge(&[r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#]), expected);
        assert_eq!(challenge(&[r#"Basic realm="x", Bearer realm="https://a/t""#]), expected);
    }

    #[test]
    fn what_is_no_challenge_is_none() {
        for bad in ["", "Negotiate", "Bearer", r#"Bearer service="s""#, "=", r#"Bearer realm="unclosed"#] {
            assert_eq!(challenge(&[bad]), None, "{bad:?}");
        }
        assert_eq!(challenge(&[]), None);
        assert_eq!(challenge(&[r#"Basic realm="x", Bearer realm="unclosed"#]), Some(Challenge::Basic));
    }
}
