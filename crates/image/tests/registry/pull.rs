//! Pulls from registries that do not behave.

use std::time::Duration;

use image::registry::{Credentials, HostSettings, LayerState, Progress};
use model::{Bytes, Digest};
use tokio::sync::watch;

use crate::archive::{ARCHITECTURE, Blobs, chain, digest};
use crate::server::{Asked, INDEX, MANIFEST, Registry, Reply, document, honest};
use crate::shared::{Shelf, client, credentials, image, large, manifest_digest, password, patient};

/// A registry that is honest but for what `lie` says.
async fn registry(image: Blobs, lie: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Registry {
    Registry::start(move |asked| lie(asked).unwrap_or_else(|| honest(&image, asked))).await
}

/// A registry that is honest but for what it answers to questions for the image's large layer.
async fn layer(lie: impl Fn(&Asked, &[u8]) -> Option<Reply> + Send + Sync + 'static) -> Registry {
    let image = image();
    let (digest, content) = large(&image);
    registry(image, move |asked| if asked.path.ends_with(&digest) { lie(asked, &content) } else { None })
        .await
}

/// A registry that answers every question for a manifest in this way, with the true one at hand.
async fn manifest(answer: impl Fn(&Asked, &[u8]) -> Reply + Send + Sync + 'static) -> Registry {
    let (image, text) = (image(), image().manifest);
    registry(image, move |asked| asked.path.contains("/manifests/").then(|| answer(asked, &text))).await
}

/// A registry that answers everything in this way but for the question how it speaks.
async fn any(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Registry {
    Registry::start(move |asked| if asked.path == "/v2/" { Reply::ok("{}") } else { answer(asked) }).await
}

/// Nothing can be pulled from there, and this is said.
async fn refused(registry: Registry, says: &str) {
    Shelf::new().refused(&client(&[]), &registry.image("app"), says).await;
}

#[tokio::test]
async fn an_image_is_pulled_whole_and_only_once() {
    let (shelf, client, image) = (Shelf::new(), client(&[]), image());
    let expected = manifest_digest(&image);
    let registry = registry(image, |_| None).await;
    let progress = watch::Sender::new(Progress::default());
    let name = registry.image("team/app:v1");
    let nobody = Credentials::anonymous();
    let pulled = client.pull(&shelf.store, &name, &nobody, &progress).await.unwrap();
    assert_eq!((pulled.manifest, pulled.index), (expected, None));
    assert!(shelf.store.contains(&expected));
    let layers = progress.borrow().layers.clone();
    assert_eq!(layers.len(), 2);
    assert!(layers.iter().all(|layer| layer.state == LayerState::Done && layer.done == layer.total));
    assert!(layers[1].total > Bytes(1 << 20), "the lowest layer is the first");
    assert_eq!(registry.log().len(), 4, "manifest, configuration and layers: {:?}", registry.log());

    client.pull(&shelf.store, &name, &nobody, &progress).await.unwrap();
    assert!(progress.borrow().layers.iter().all(|layer| layer.state == LayerState::Exists));
    assert_eq!(registry.log().len(), 5, "a tag may have moved, so it is looked up");
    client.pull(&shelf.store, &name.pinned(expected), &nobody, &progress).await.unwrap();
    assert_eq!(registry.log().len(), 5, "what a digest names is known");
}

#[tokio::test]
async fn an_image_that_is_here_needs_no_registry() {
    let (shelf, client, image) = (Shelf::new(), client(&[]), image());
    let expected = manifest_digest(&image);
    let registry = registry(image, |_| None).await;
    let name = registry.image("app").pinned(expected);
    shelf.pull(&client, &name).await.unwrap();
    registry.stop().await;
    assert_eq!(shelf.pull(&client, &name).await.unwrap().manifest, expected);
    let gone = Shelf::new().pull(&client, &name).await.unwrap_err();
    assert!(chain(&gone).contains("cannot reach http://127.0.0.1"), "{}", chain(&gone));
}

#[tokio::test]
async fn two_pulls_at_once_bring_a_layer_once() {
    let (client, registry) = (client(&[]), registry(image(), |_| None).await);
    let shelf = Shelf::new();
    let (one, other) = (registry.image("one"), registry.image("other"));
    let (first, second) = tokio::join!(shelf.pull(&client, &one), shelf.pull(&client, &other));
    assert_eq!(first.unwrap(), second.unwrap());
    let blobs = registry.log().iter().filter(|asked| asked.contains("/blobs/")).count();
    assert_eq!(blobs, 3, "{:?}", registry.log());
}

#[tokio::test]
async fn a_registry_that_gives_a_layer_slowly_keeps_it_from_no_other() {
    let (client, shelf) = (patient(&[], Duration::from_secs(600)), Shelf::new());
    let slow = layer(|_, content| Some(Reply::stalled(content, 500_000))).await;
    let quick = registry(image(), |_| None).await;
    let (digest, _) = large(&image());
    let (one, other) = (slow.image("app"), quick.image("app"));
    let pulled = async {
        while !slow.log().iter().any(|asked| asked.ends_with(&digest)) {
            tokio::task::yield_now().await;
        }
        shelf.pull(&client, &other).await
    };
    tokio::select! {
        stalled = shelf.pull(&client, &one) => panic!("{stalled:?}"),
        pulled = pulled => assert_eq!(pulled.unwrap().manifest, manifest_digest(&image())),
    }
}

#[tokio::test]
async fn a_blob_that_is_not_what_it_should_be_is_refused() {
    let long = |content: &[u8]| [content, b"more"].concat();
    let other = |content: &[u8]| content.iter().map(|byte| !byte).collect::<Vec<u8>>();
    let short = layer(|_, content| Some(Reply::unannounced(&content[..1000]))).await;
    refused(short, "is truncated").await;
    let cut = layer(|_, content| Some(Reply::cut(content, 1000))).await;
    refused(cut, "the connection to http://127.0.0.1").await;
    let appended = layer(move |_, content| Some(Reply::ok(long(content)))).await;
    refused(appended, "gives more than the").await;
    let appended = layer(move |_, content| Some(Reply::unannounced(long(content)))).await;
    refused(appended, "gives more than the").await;
    refused(layer(|_, _| Some(Reply::endless())).await, "gives more than the").await;
    let smaller = layer(|_, content| Some(Reply::ok(&content[..1000]))).await;
    refused(smaller, "announces 1000 B of blob").await;
    let changed = layer(move |_, content| Some(Reply::ok(other(content)))).await;
    refused(changed, "what came as blob sha256:").await;
    let absent = layer(|_, _| Some(Reply::error(404, "BLOB_UNKNOWN"))).await;
    refused(absent, "has no blob sha256:").await;
    let broken = layer(|_, _| Some(Reply::error(500, "UNKNOWN"))).await;
    refused(broken, "answered with status 500 (it says: UNKNOWN)").await;
}

#[tokio::test]
async fn a_download_that_breaks_is_taken_up_where_it_ended() {
    const FIRST: usize = 300_000;
    let first = |asked: &Asked, content: &[u8]| (asked.before == 0).then(|| Reply::cut(content, FIRST));
    let once = layer(first).await;
    Shelf::new().pull(&client(&[]), &once.image("app")).await.unwrap();
    let seen = once.seen();
    let ranges: Vec<&String> = seen.iter().filter_map(|asked| asked.headers.get("range")).collect();
    assert_eq!(ranges, [&format!("bytes={FIRST}-")]);

    let ignorant =
        layer(move |asked, content| first(asked, content).or_else(|| Some(Reply::ok(content)))).await;
    Shelf::new().pull(&client(&[]), &ignorant.image("app")).await.unwrap();
    let tries = ignorant.seen().iter().filter(|asked| asked.path.contains("/blobs/")).count();
    assert_eq!(tries, 4, "configuration, small layer, and the large one twice");

    let wrong = || Some(Reply::of(206).with("Content-Range", "bytes 0-9/10"));
    let wrong = layer(move |asked, content| first(asked, content).or_else(wrong)).await;
    refused(wrong, "gives another part of blob").await;
}

#[tokio::test]
async fn a_download_goes_on_as_long_as_it_gets_on() {
    // Six tries, where three that bring nothing would be the last.
    let layers = [crate::archive::Tar::new().file("large", vec![7; 11 << 20]).bytes()];
    let image = crate::archive::blobs(&crate::archive::config(&layers), &layers);
    let (digest, content) = large(&image);
    let breaking = registry(image, move |asked| {
        let from = asked.begins_at().unwrap_or(0);
        let rest = content.get(from..).filter(|_| asked.path.ends_with(&digest))?;
        let reply = Reply::cut(rest, rest.len().min(2 << 20));
        Some(if from > 0 { reply.rest(from, content.len()) } else { reply })
    })
    .await;
    Shelf::new().pull(&client(&[]), &breaking.image("app")).await.unwrap();
    let tries = breaking.seen().iter().filter(|asked| asked.begins_at().is_some()).count();
    assert_eq!(tries, 5, "{:?}", breaking.log());
}

#[tokio::test]
async fn a_manifest_that_is_not_what_it_should_be_is_refused() {
    let with = |text: &[u8], from: &str, to: &str| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1).into_bytes()
    };
    refused(manifest(|_, _| Reply::endless()).await, "gave more than 4 MiB as a manifest").await;
    let both = manifest(move |_, text| document(MANIFEST, &with(text, "{", r#"{"manifests":[],"#))).await;
    refused(both, "it is manifest and index at once").await;
    let index = manifest(|_, text| document(INDEX, text)).await;
    refused(index, "it came as `application/vnd.oci.image.index.v1+json`, but is a manifest").await;
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    refused(manifest(move |_, text| document(docker, text)).await, "it came as `application/vnd.docker.")
        .await;
    let page = manifest(|_, _| document("text/html; charset=utf-8", b"<html>")).await;
    refused(page, "it came as `text/html`, which is neither a manifest nor an index").await;
    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    refused(manifest(move |_, _| document(old, b"{}")).await, "it is of Docker's schema 1").await;
    let layer = r#"{"mediaType":"application/vnd.oci.image.layer"#;
    let urls = r#"{"urls":["http://169.254.169.254/"],"mediaType":"application/vnd.oci.image.layer"#;
    let foreign = manifest(move |_, text| document(MANIFEST, &with(text, layer, urls))).await;
    refused(foreign, "(a foreign layer)").await;
    let absent = manifest(|_, _| Reply::error(404, "MANIFEST_UNKNOWN")).await;
    refused(absent, "has no app:latest (it says: MANIFEST_UNKNOWN)").await;
}

#[tokio::test]
async fn a_digest_that_does_not_hold_is_refused() {
    let nothing = digest(b"nothing");
    let header = manifest(move |_, text| {
        Reply::ok(text).with("Content-Type", MANIFEST).with("Docker-Content-Digest", &nothing)
    });
    refused(header.await, "does not keep its word on").await;
    let always = manifest(|_, text| document(MANIFEST, text)).await;
    let name = always.image("app").pinned(digest(b"another").parse().unwrap());
    Shelf::new().refused(&client(&[]), &name, "does not keep its word on").await;
}

#[tokio::test]
async fn an_image_for_another_machine_is_refused_before_its_layers_come() {
    let layers = [b"layer".to_vec()];
    let foreign = crate::archive::config(&layers).replace(ARCHITECTURE, "s390x");
    let registry = registry(crate::archive::blobs(&foreign, &layers), |_| None).await;
    let shelf = Shelf::new();
    shelf.refused(&client(&[]), &registry.image("app"), "it is for linux/s390x, and this machine runs").await;
    assert_eq!(registry.log().len(), 2, "manifest and configuration: {:?}", registry.log());
}

#[tokio::test]
async fn nothing_is_waited_for_without_end() {
    let client = patient(&[], Duration::from_millis(500));
    for (registry, says) in [
        (manifest(|_, _| Reply::silence()).await, "nothing came from http://127.0.0.1"),
        (manifest(|_, _| Reply::drip()).await, "for a small answer"),
        (layer(|_, content| Some(Reply::stalled(content, 1000))).await, "nothing came from http://127.0.0.1"),
    ] {
        Shelf::new().refused(&client, &registry.image("app"), says).await;
    }
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing_but_whole_blobs() {
    let (shelf, client) = (Shelf::new(), client(&[]));
    let (digest, _) = large(&image());
    let registry = layer(|_, content| Some(Reply::stalled(content, 500_000))).await;
    let name = registry.image("app");
    let has_begun = async {
        while !registry.log().iter().any(|asked| asked.ends_with(&digest)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        pulled = shelf.pull(&client, &name) => panic!("{pulled:?}"),
        () = has_begun => {}
    }
    shelf.has_only_whole_blobs().await;
}

#[tokio::test]
async fn redirects_have_an_end_and_limits() {
    refused(manifest(|asked, _| Reply::redirect(&asked.path)).await, "leads on and on, more than 5 times")
        .await;
    for to in
        ["http://169.254.169.254/", "https://169.254.169.254/", "file:///etc/passwd", "http://u:p@127.0.0.1/"]
    {
        let registry = manifest(move |_, _| Reply::redirect(to)).await;
        refused(registry, "leads to where gantry does not follow").await;
    }
    refused(manifest(|_, _| Reply::of(302)).await, "it does not say where to").await;
}

#[tokio::test]
async fn who_is_asked_too_much_says_when_to_come_again() {
    let limited = manifest(|_, _| Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "30")).await;
    refused(limited, "try again in 30 seconds (it says: TOOMANYREQUESTS)").await;
}

/// An index of these images, each for an architecture.
fn index(images: &[(&str, &Blobs)]) -> Vec<u8> {
    let entries = images.iter().map(|(architecture, image)| {
        let (digest, size) = (digest(&image.manifest), image.manifest.len());
        format!(
            r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        )
    });
    let entries = entries.collect::<Vec<_>>().join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#).into_bytes()
}

/// A registry whose tags lead to this index.
async fn multi(image: Blobs, index: Vec<u8>) -> Registry {
    let name = digest(&index);
    let leads = move |asked: &Asked| asked.path.ends_with("/latest") || asked.path.ends_with(&name);
    registry(image, move |asked| leads(asked).then(|| document(INDEX, &index))).await
}

#[tokio::test]
async fn an_index_leads_to_the_manifest_for_this_machine() {
    let (ours, theirs) = (image(), crate::archive::blobs("{}", &[]));
    let (manifest, index) = (manifest_digest(&ours), index(&[("s390x", &theirs), (ARCHITECTURE, &ours)]));
    let size = ours.manifest.len() as u64;
    let index_digest: Digest = digest(&index).parse().unwrap();
    let registry = multi(ours, index).await;
    let (client, name) = (client(&[]), registry.image("app"));
    let resolved = client.resolve(&name, &Credentials::anonymous()).await.unwrap();
    assert_eq!((resolved.manifest, resolved.index), (manifest, Some(index_digest)));
    assert_eq!((resolved.size, resolved.media_type.as_str()), (Bytes(size), MANIFEST));
    let shelf = Shelf::new();
    let pulled = shelf.pull(&client, &name).await.unwrap();
    assert_eq!((pulled.manifest, pulled.index), (manifest, Some(index_digest)));
    let pinned = client.resolve(&name.pinned(index_digest), &Credentials::anonymous()).await.unwrap();
    assert_eq!(pinned, resolved);
}

#[tokio::test]
async fn an_index_names_no_manifest_that_is_larger_than_manifests_are() {
    let ours = image();
    let index = String::from_utf8(index(&[(ARCHITECTURE, &ours)])).unwrap();
    let size = format!("\"size\":{}", ours.manifest.len());
    let huge = index.replacen(&size, &format!("\"size\":{}", u64::MAX), 1);
    assert_ne!(huge, index);
    let registry = multi(ours, huge.into_bytes()).await;
    let error = client(&[]).resolve(&registry.image("app"), &Credentials::anonymous()).await.unwrap_err();
    assert!(chain(&error).contains("more than the 4 MiB that it may have"), "{}", chain(&error));
}

#[tokio::test]
async fn an_index_without_this_platform_says_which_there_are() {
    let (ours, theirs) = (image(), image());
    let registry = multi(ours, index(&[("s390x", &theirs), ("riscv64", &theirs)])).await;
    refused(registry, "there is linux/riscv64, linux/s390x").await;
}

#[tokio::test]
async fn a_name_is_resolved_without_reading_more_than_is_needed() {
    let image = image();
    let expected = manifest_digest(&image);
    let registry = registry(image, |_| None).await;
    let client = client(&[]);
    let resolved = client.resolve(&registry.image("app"), &Credentials::anonymous()).await.unwrap();
    assert_eq!((resolved.manifest, resolved.index), (expected, None));
    assert_eq!(registry.log(), ["HEAD /v2/app/manifests/latest"]);

    let deaf = manifest(|asked, text| match asked.method.as_str() {
        "HEAD" => Reply::of(405),
        _ => document(MANIFEST, text),
    })
    .await;
    // The length of what it sends with HEAD, and not of what it would send with GET.
    let literal = manifest(|asked, text| match asked.method.as_str() {
        "HEAD" => Reply::ok("").with("Content-Type", MANIFEST).with("Docker-Content-Digest", &digest(text)),
        _ => document(MANIFEST, text),
    })
    .await;
    for registry in [deaf, literal] {
        let resolved = client.resolve(&registry.image("app"), &Credentials::anonymous()).await.unwrap();
        assert_eq!(resolved.manifest, expected);
        assert!(resolved.size > Bytes(0));
        assert_eq!(registry.log(), ["HEAD /v2/app/manifests/latest", "GET /v2/app/manifests/latest"]);
    }
}

#[tokio::test]
async fn a_tag_that_moves_while_it_is_looked_up_leads_to_one_image_or_to_none() {
    let (old, new) = (image(), crate::archive::blobs("{}", &[]));
    let expected = manifest_digest(&old);
    let (first, second) = (index(&[(ARCHITECTURE, &old)]), index(&[(ARCHITECTURE, &new)]));
    let (by_digest, index): (_, Digest) = (digest(&first), digest(&first).parse().unwrap());
    let (one, other) = (first.clone(), second.clone());
    let moving = any(move |asked| {
        let is_old = asked.method == "HEAD" || asked.path.ends_with(&by_digest);
        document(INDEX, if is_old { &one } else { &other })
    })
    .await;
    let client = client(&[]);
    let resolved = client.resolve(&moving.image("app"), &Credentials::anonymous()).await.unwrap();
    assert_eq!((resolved.manifest, resolved.index), (expected, Some(index)));

    let lying =
        any(move |asked| document(INDEX, if asked.method == "HEAD" { &first } else { &second })).await;
    let error = client.resolve(&lying.image("app"), &Credentials::anonymous()).await.unwrap_err();
    assert!(chain(&error).contains("does not keep its word on"), "{}", chain(&error));
}

#[tokio::test]
async fn mirrors_are_asked_first_and_missed_by_nobody() {
    let gone = registry(image(), |_| None).await;
    let dead = gone.host();
    gone.stop().await;
    let empty = any(|_| Reply::error(404, "NAME_UNKNOWN")).await;
    let corrupt = layer(|_, content| Some(Reply::ok(vec![0; content.len()]))).await;
    let hung = any(|_| Reply::silence()).await;
    let good = registry(image(), |_| None).await;
    for (mirror, asked_of_own) in
        [(good.host(), 0), (corrupt.host(), 1), (empty.host(), 4), (dead, 4), (hung.host(), 4)]
    {
        let own = registry(image(), |_| None).await;
        let settings = HostSettings { mirrors: vec![mirror.clone()], ..HostSettings::default() };
        let client = client(&[(own.host(), settings)]);
        Shelf::new().pull(&client, &own.image("app")).await.unwrap();
        assert_eq!(own.log().len(), asked_of_own, "with {mirror}: {:?}", own.log());
    }
}

const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

/// The challenge of a registry that wants a token of its own making.
fn bearer(asked: &Asked) -> String {
    format!(r#"Bearer realm="http://{}/token",service="reg""#, asked.address)
}

fn unauthorised(challenge: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge)
}

/// The reply to a question that is not shown this, with this challenge.
fn unless_shown(asked: &Asked, authorization: &str, challenge: &str) -> Option<Reply> {
    let is_shown = asked.headers.get("authorization").is_some_and(|shown| shown == authorization);
    (!is_shown).then(|| unauthorised(challenge))
}

#[tokio::test]
async fn a_token_is_fetched_once_and_for_its_user_alone() {
    let registry = registry(image(), |asked| {
        if asked.path.starts_with("/token") {
            let granted = Reply::ok(r#"{"token":"good"}"#);
            return unless_shown(asked, BASIC, r#"Basic realm="x""#).or(Some(granted));
        }
        unless_shown(asked, "Bearer good", &bearer(asked))
    })
    .await;
    let (client, name, shelf) = (client(&[]), registry.image("team/app"), Shelf::new());
    let mine = credentials(name.host(), password("secret"));
    shelf.pull_as(&client, &name, &mine).await.unwrap();
    let tokens = registry.log().into_iter().filter(|asked| asked.contains("/token")).collect::<Vec<_>>();
    assert_eq!(tokens, ["GET /token?service=reg&scope=repository%3Ateam%2Fapp%3Apull&account=user"]);
    for (credentials, says) in [
        (
            Credentials::anonymous(),
            "repository team/app does not exist or may not be used without logging in",
        ),
        (credentials(name.host(), password("wrong")), "does not accept the credentials of user"),
    ] {
        let error = Shelf::new().pull_as(&client, &name, &credentials).await.unwrap_err();
        assert!(chain(&error).contains(says), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_password_is_shown_to_its_registry_and_to_no_other_server() {
    let image = image();
    let (digest, content) = large(&image);
    let store = any(move |_| Reply::ok(content.clone())).await;
    let greedy = any(|_| unauthorised(r#"Basic realm="mine""#)).await;
    let places = [store.address, greedy.address].map(|address| format!("http://{address}/blob"));
    let registry = registry(image, move |asked| {
        let refused = unless_shown(asked, BASIC, r#"Basic realm="x""#);
        let place = if asked.path.contains("/greedy/") { &places[1] } else { &places[0] };
        refused.or_else(|| asked.path.ends_with(&digest).then(|| Reply::redirect(place)))
    })
    .await;
    let client = client(&[]);
    let mine = credentials(&registry.host(), password("secret"));
    Shelf::new().pull_as(&client, &registry.image("app"), &mine).await.unwrap();
    let error = Shelf::new().pull_as(&client, &registry.image("greedy/app"), &mine).await.unwrap_err();
    assert!(chain(&error).contains("answered with status 401"), "{}", chain(&error));
    for asked in store.seen().into_iter().chain(greedy.seen()) {
        assert_eq!(asked.headers.get("authorization"), None, "{asked:?}");
    }
    let seen = registry.seen();
    let unshown = seen.iter().filter(|asked| !asked.headers.contains_key("authorization")).count();
    assert_eq!(unshown, 2, "only the first question for each repository is refused: {:?}", registry.log());
}

#[tokio::test]
async fn a_password_is_not_shown_on_a_way_that_another_server_chose() {
    let image = image();
    let (digest, _) = large(&image);
    let detour = any(|asked| Reply::redirect(asked.path.split_once('?').map_or("", |(_, back)| back))).await;
    let place = format!("http://{}/detour", detour.address);
    let registry = registry(image, move |asked| {
        if asked.path == "/private" {
            return Some(Reply::ok("what only its owner may see"));
        }
        let refused = unless_shown(asked, BASIC, r#"Basic realm="x""#);
        let leads = || format!("{place}?http://{}/private", asked.address);
        refused.or_else(|| asked.path.ends_with(&digest).then(|| Reply::redirect(&leads())))
    })
    .await;
    let mine = credentials(&registry.host(), password("secret"));
    Shelf::new().pull_as(&client(&[]), &registry.image("app"), &mine).await.unwrap_err();
    let seen = registry.seen();
    let back: Vec<&Asked> = seen.iter().filter(|asked| asked.path == "/private").collect();
    assert_eq!(back.len(), 1, "{:?}", registry.log());
    assert_eq!(back[0].headers.get("authorization"), None);
}

#[tokio::test]
async fn a_token_service_that_is_not_to_be_trusted_gets_nothing() {
    for realm in [
        "http://169.254.169.254/token",
        "https://169.254.169.254/token",
        "http://reg.example/token",
        "ftp://127.0.0.1/token",
        "token",
    ] {
        let registry = any(move |_| unauthorised(&format!(r#"Bearer realm="{realm}""#))).await;
        refused(registry, "sends for a token to where its credentials do not go").await;
    }
}

#[tokio::test]
async fn a_token_service_that_does_not_behave_is_refused() {
    let service = |token: fn() -> Reply| {
        any(
            move |asked| {
                if asked.path.starts_with("/token") { token() } else { unauthorised(&bearer(asked)) }
            },
        )
    };
    refused(service(Reply::endless).await, "gave more than 4 MiB as a token").await;
    refused(service(|| Reply::ok("{}")).await, "gives no usable token").await;
    refused(service(|| Reply::ok("<html>")).await, "gives no usable token").await;
    refused(service(|| Reply::error(503, "DOWN")).await, "answered with status 503 (it says: DOWN)").await;
    let looping = service(|| Reply::ok(r#"{"token":"unwanted"}"#)).await;
    let shelf = Shelf::new();
    shelf.refused(&client(&[]), &looping.image("app"), "may not be used without logging in").await;
    assert_eq!(looping.log().len(), 3, "refused, a token, refused: {:?}", looping.log());
}
