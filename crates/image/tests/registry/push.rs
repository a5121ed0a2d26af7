//! Pushes to registries that do not behave.

use std::sync::{Arc, Mutex};

use image::Store;
use image::registry::{Client, Credentials, LayerState, Progress, PushError, Reference};
use model::Digest;
use tokio::sync::watch;

use crate::archive::{chain, digest, docker_save};
use crate::server::{Asked, MANIFEST, Registry, Reply};
use crate::shared::{Shelf, client, credentials, password};

/// A registry that keeps nothing and takes everything, but for what `lie` says.
async fn registry(lie: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Registry {
    Registry::start(move |asked| lie(asked).unwrap_or_else(|| taking(asked))).await
}

fn taking(asked: &Asked) -> Reply {
    match asked.method.as_str() {
        "GET" => Reply::ok("{}"),
        "HEAD" => Reply::of(404),
        "POST" => Reply::of(202).with("Location", "/upload?state=1"),
        _ => Reply::of(201).with("Docker-Content-Digest", &digest(&asked.body)),
    }
}

/// A store with one image of two layers.
fn stocked() -> (Shelf, Digest) {
    let shelf = Shelf::new();
    let layers = ["one", "two"].map(|name| crate::archive::Tar::new().file(name, vec![7; 100_000]).bytes());
    let imported = shelf.store.import(docker_save(&layers, &[]).as_slice(), &mut |_| {}).unwrap();
    (shelf, imported.digest)
}

async fn push(
    client: &Client,
    store: &Store,
    image: &Digest,
    name: &Reference,
) -> Result<Progress, PushError> {
    let progress = watch::Sender::new(Progress::default());
    client.push(store, image, name, &Credentials::anonymous(), &progress).await?;
    Ok(progress.borrow().clone())
}

async fn refused(registry: &Registry, says: &str) {
    let (shelf, image) = stocked();
    let pushed = push(&client(&[]), &shelf.store, &image, &registry.image("app")).await;
    let text = chain(&pushed.unwrap_err());
    assert!(text.contains(says), "{text}");
}

#[tokio::test]
async fn blobs_are_sent_whole_and_the_manifest_last() {
    let (shelf, image) = stocked();
    let registry = registry(|_| None).await;
    let progress = push(&client(&[]), &shelf.store, &image, &registry.image("team/app:v1")).await.unwrap();
    assert_eq!(progress.layers.len(), 2);
    assert!(progress.layers.iter().all(|layer| layer.state == LayerState::Done && layer.done == layer.total));
    let puts: Vec<Asked> = registry.seen().into_iter().filter(|asked| asked.method == "PUT").collect();
    assert_eq!(puts.len(), 4);
    for put in &puts[..3] {
        let expected = format!("/upload?state=1&digest={}", digest(&put.body).replace(':', "%3A"));
        assert_eq!(put.path, expected, "the content is what it is said to be");
        assert_eq!(put.headers["content-length"], put.body.len().to_string());
        assert_eq!(put.headers.get("transfer-encoding"), None);
    }
    assert_eq!(puts[3].path, "/v2/team/app/manifests/v1");
    assert_eq!(puts[3].headers["content-type"], MANIFEST);
    assert_eq!(digest(&puts[3].body), image.to_string());
}

#[tokio::test]
async fn what_a_registry_has_is_not_sent() {
    let (shelf, image) = stocked();
    let registry = registry(|asked| (asked.method == "HEAD").then(|| Reply::of(200))).await;
    let progress = push(&client(&[]), &shelf.store, &image, &registry.image("app")).await.unwrap();
    assert!(progress.layers.iter().all(|layer| layer.state == LayerState::Exists));
    let sent: Vec<String> = registry.log().into_iter().filter(|asked| !asked.starts_with("HEAD")).collect();
    assert_eq!(sent, ["PUT /v2/app/manifests/latest"]);
}

#[tokio::test]
async fn what_a_registry_does_not_say_whether_it_has_is_sent() {
    let store = registry(|_| Some(Reply::of(403))).await;
    let place = format!("http://{}/blob?signature=x", store.address);
    let leading = registry(move |asked| (asked.method == "HEAD").then(|| Reply::redirect(&place))).await;
    let deaf = registry(|asked| (asked.method == "HEAD").then(|| Reply::of(405))).await;
    for silent in [leading, deaf] {
        let (shelf, image) = stocked();
        let progress = push(&client(&[]), &shelf.store, &image, &silent.image("app")).await.unwrap();
        assert!(progress.layers.iter().all(|layer| layer.state == LayerState::Done));
    }
}

#[tokio::test]
async fn an_upload_that_breaks_is_begun_again() {
    let broken = registry(|asked| {
        let is_first = asked.path.starts_with("/upload") && asked.before == 0;
        is_first.then(|| Reply::error(502, "BAD_GATEWAY"))
    })
    .await;
    let (shelf, image) = stocked();
    push(&client(&[]), &shelf.store, &image, &broken.image("app")).await.unwrap();
    let never = registry(|asked| asked.path.starts_with("/upload").then(|| Reply::error(502, "DOWN"))).await;
    refused(&never, "answered with status 502 (it says: DOWN)").await;
}

#[tokio::test]
async fn a_registry_that_took_something_else_is_caught() {
    let other = digest(b"something else");
    let wrong = registry(move |asked| {
        let is_manifest = asked.method == "PUT" && asked.path.contains("/manifests/");
        is_manifest.then(|| Reply::of(201).with("Docker-Content-Digest", &other))
    })
    .await;
    refused(&wrong, "what is there now is not").await;
    // It does not say what it took, and when it is asked, it has nothing.
    let silent = registry(|asked| (asked.method == "PUT").then(|| Reply::of(201))).await;
    refused(&silent, "which it has just taken").await;
    let denied = registry(|asked| (asked.method == "POST").then(|| Reply::error(403, "DENIED"))).await;
    refused(&denied, "repository app does not exist or may not be used without logging in").await;
}

#[tokio::test]
async fn an_upload_elsewhere_gets_the_blob_and_no_credentials() {
    const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";
    let store = registry(|_| None).await;
    let place = format!("http://{}/upload?signature=x", store.address);
    let guarded = registry(move |asked| {
        if asked.headers.get("authorization").is_none_or(|shown| shown != BASIC) {
            return Some(Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", r#"Basic realm="x""#));
        }
        (asked.method == "POST").then(|| Reply::of(202).with("Location", &place))
    })
    .await;
    let (shelf, image) = stocked();
    let mine = credentials(&guarded.host(), password("secret"));
    let progress = watch::Sender::new(Progress::default());
    client(&[]).push(&shelf.store, &image, &guarded.image("app"), &mine, &progress).await.unwrap();
    assert_eq!(store.seen().len(), 3);
    for asked in store.seen() {
        assert_eq!((asked.method.as_str(), asked.headers.get("authorization")), ("PUT", None));
        assert!(asked.path.contains("signature=x&digest="), "{}", asked.path);
    }
}

#[tokio::test]
async fn a_place_that_is_not_to_be_gone_to_is_refused() {
    for place in ["http://169.254.169.254/upload", "file:///tmp/upload"] {
        let registry =
            registry(move |asked| (asked.method == "POST").then(|| Reply::of(202).with("Location", place)))
                .await;
        refused(&registry, "leads to where gantry does not follow").await;
    }
    let nowhere = registry(|asked| (asked.method == "POST").then(|| Reply::of(202))).await;
    refused(&nowhere, "it does not say where to").await;
}

#[tokio::test]
async fn what_is_not_in_the_store_is_not_pushed() {
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let registry = registry(move |_| {
        *count.lock().unwrap() += 1;
        None
    })
    .await;
    let (shelf, _) = stocked();
    let absent: Digest = digest(b"absent").parse().unwrap();
    let error = push(&client(&[]), &shelf.store, &absent, &registry.image("app")).await.unwrap_err();
    assert!(chain(&error).contains("is not on this node"), "{}", chain(&error));
    assert_eq!(*asked.lock().unwrap(), 0, "nobody was asked");
}
