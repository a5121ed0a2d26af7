//! Images that are made over images.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[expect(dead_code, reason = "tests/import.rs uses the rest")]
mod archive;

use std::io::{Read as _, Write};
use std::time::{Duration, SystemTime};

use archive::{Tar, chain, content_of, digest, docker_save};
use image::{Change, CommitError, Edits, LayerFailure, Store};
use model::Digest;
use serde_json::Value;
use tempfile::TempDir;

fn fresh() -> (TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn import(store: &Store, layers: &[Vec<u8>]) -> Digest {
    store.import(docker_save(layers, &["web"]).as_slice(), &mut |_| {}).unwrap().digest
}

fn layer(path: &str) -> Vec<u8> {
    Tar::new().file(path, path).bytes()
}

fn written(layer: &[u8]) -> impl FnOnce(&mut dyn Write) -> Result<(), LayerFailure> {
    move |sink: &mut dyn Write| sink.write_all(layer).map_err(LayerFailure::from)
}

fn edits(changes: &[&str]) -> Edits {
    Edits {
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_366_400),
        author: None,
        message: Some("a snapshot".to_owned()),
        changes: changes.iter().map(|change| Change::parse(change).unwrap()).collect(),
    }
}

fn json(store: &Store, blob: &Digest) -> Value {
    let mut text = String::new();
    store.open_blob(blob).unwrap().read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn an_image_has_the_layers_of_the_one_below_and_one_more() {
    let (root, store) = fresh();
    let (below, above) = (layer("a"), layer("b"));
    let base = import(&store, std::slice::from_ref(&below));
    let committed = store.commit(&base, written(&above), &edits(&["CMD [\"/new\"]"])).unwrap();
    assert!(store.contains(&base) && store.contains(&committed.digest));
    let blobs: Vec<Digest> =
        store.blobs(&committed.digest).unwrap().into_iter().map(|blob| blob.digest).collect();
    assert_eq!(blobs.len(), 4, "manifest, configuration, two layers");
    assert_eq!((blobs[0], blobs[2].to_string()), (committed.digest, digest(&below)));

    let config = json(&store, &blobs[1]);
    assert_eq!(config["rootfs"]["diff_ids"], Value::from(vec![digest(&below), digest(&above)]));
    assert_eq!(config["config"].to_string(), r#"{"Cmd":["/new"],"Env":["A=b"]}"#);
    assert_eq!(config["created"], "2026-03-01T12:00:00Z");
    assert_eq!(config["history"][1]["comment"], "a snapshot");
    let manifest = json(&store, &blobs[0]);
    let layers: Vec<&Value> =
        manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["mediaType"]).collect();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    assert_eq!(layers, [kind, &format!("{kind}+gzip")]);
    let size: u64 = manifest["layers"][0]["size"].as_u64().unwrap()
        + manifest["layers"][1]["size"].as_u64().unwrap()
        + manifest["config"]["size"].as_u64().unwrap();
    assert_eq!(committed.size.0, size);

    drop(store);
    let store = Store::open(root.path()).unwrap();
    assert!(store.contains(&committed.digest), "it lasts");
    assert!(store.remove(&base).unwrap());
    assert!(store.contains(&committed.digest), "and needs the one below no more");
}

#[test]
fn the_same_commit_is_the_same_image() {
    let (_root, store) = fresh();
    let base = import(&store, &[layer("a")]);
    let commit = |changes: &[&str]| store.commit(&base, written(&layer("b")), &edits(changes)).unwrap();
    assert_eq!(commit(&[]), commit(&[]));
    assert_ne!(commit(&[]).digest, commit(&["USER app"]).digest);
}

/// The commit is refused with an error that says this, and the store is as it was.
#[track_caller]
fn refused(
    base: impl FnOnce(&Store) -> Digest,
    layer: impl FnOnce(&mut dyn Write) -> Result<(), LayerFailure>,
    changes: &[&str],
    says: &str,
) -> CommitError {
    let (root, store) = fresh();
    let base = base(&store);
    let before = content_of(root.path());
    let error = store.commit(&base, layer, &edits(changes)).unwrap_err();
    assert!(chain(&error).contains(says), "{}", chain(&error));
    assert_eq!(content_of(root.path()), before);
    error
}

#[test]
fn what_cannot_be_committed_leaves_nothing() {
    let plain = |store: &Store| import(store, &[layer("a")]);
    refused(|_| Digest([9; 32]), written(&layer("b")), &[], "is not on this node");
    let fails = |sink: &mut dyn Write| -> Result<(), LayerFailure> {
        sink.write_all(&layer("b"))?;
        Err("the container has changed it meanwhile".into())
    };
    refused(plain, fails, &[], "the layer cannot be made: the container has changed it meanwhile");
    refused(plain, written(&layer("b")), &["USER -app"], "its User `-app` is not acceptable");
    refused(plain, written(&layer("b")), &["STOPSIGNAL SIGNOTHING"], "there is no such signal");
    let full = |store: &Store| {
        let layers: Vec<Vec<u8>> = (0..127).map(|number| layer(&number.to_string())).collect();
        import(store, &layers)
    };
    let error = refused(full, written(&layer("b")), &[], "has 127 layers");
    assert!(matches!(error, CommitError::TooManyLayers(_)), "{error}");
}
