//! Credentials, right and wrong.

use image::registry::{CheckError, Checked, Client, RegistryHost};

use crate::archive::chain;
use crate::server::{Asked, Registry, Reply};
use crate::shared::{client, password};

/// A registry of one user, with this challenge.
async fn guarded(challenge: fn(&Asked) -> String) -> Registry {
    Registry::start(move |asked| {
        let shown = asked.headers.get("authorization").map(String::as_str);
        match (asked.path.as_str(), shown) {
            ("/token?service=reg&account=user", Some("Basic dXNlcjpzZWNyZXQ=")) => {
                Reply::ok(r#"{"token":"good"}"#)
            }
            ("/v2/", Some("Basic dXNlcjpzZWNyZXQ=" | "Bearer good")) => Reply::ok("{}"),
            _ => Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", &challenge(asked)),
        }
    })
    .await
}

async fn refused(client: &Client, host: &RegistryHost, says: &str) {
    let error = client.check(host, &password("wrong")).await.unwrap_err();
    assert!(chain(&error).contains(says), "{}", chain(&error));
}

#[tokio::test]
async fn a_password_is_tried_with_either_kind_of_registry() {
    let basic = guarded(|_| r#"Basic realm="x""#.to_owned()).await;
    let bearer =
        guarded(|asked| format!(r#"Bearer realm="http://{}/token",service="reg""#, asked.address)).await;
    for registry in [basic, bearer] {
        let (client, host) = (client(&[]), registry.host());
        assert_eq!(client.check(&host, &password("secret")).await.unwrap(), Checked::Accepted);
        refused(&client, &host, "does not accept the credentials of user").await;
        assert_eq!(client.check(&host, &password("secret")).await.unwrap(), Checked::Accepted);
    }
}

#[tokio::test]
async fn a_registry_that_is_open_to_all_does_not_look_at_a_password() {
    let open = Registry::start(|_| Reply::ok("{}")).await;
    assert_eq!(client(&[]).check(&open.host(), &password("any")).await.unwrap(), Checked::NotAsked);
}

#[tokio::test]
async fn what_is_no_registry_is_called_so() {
    let other = Registry::start(|_| Reply::of(404)).await;
    let error = client(&[]).check(&other.host(), &password("any")).await.unwrap_err();
    assert!(matches!(error, CheckError::NotARegistry(_)), "{error:?}");
    let page = Registry::start(|_| Reply::ok("<html>")).await;
    let place = format!("http://{}/sign-in", page.address);
    let website = Registry::start(move |_| Reply::redirect(&place)).await;
    let error = client(&[]).check(&website.host(), &password("any")).await.unwrap_err();
    assert!(matches!(error, CheckError::NotARegistry(_)), "{error:?}");
    let host = other.host();
    other.stop().await;
    refused(&client(&[]), &host, "cannot reach http://127.0.0.1").await;
    let limited = Registry::start(|_| Reply::of(429)).await;
    refused(&client(&[]), &limited.host(), "try again later").await;
}
