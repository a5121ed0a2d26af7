//! Layers that are unpacked as they come.

use std::fs;
use std::process::Command;
use std::time::Duration;

use image::{IngestLayerError, LayerError, Store, Unpacker};
use model::Bytes;

use super::Host;
use super::archive::{Tar, chain, content_of, digest};

pub(super) fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, name).bytes()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_layer_and_its_tree_are_there_when_it_has_come() {
    let host = Host::new();
    let plain = layer("a");
    for blob in [plain.clone(), gzip(&plain)] {
        let tree = host.arrive(&blob, &digest(&plain)).unwrap();
        assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "a");
        assert!(host.store.has_blob(&digest(&blob).parse().unwrap()));
    }
    assert_eq!(content_of(host.root.path()).len(), 4, "two blobs, each with a tree");
}

#[test]
fn an_image_uses_what_was_unpacked_on_the_way() {
    let host = Host::new();
    let layers = [layer("a"), layer("b"), layer("c")];
    let tree = host.arrive(&layers[1], &digest(&layers[1])).unwrap();
    fs::write(tree.join("mark"), "").unwrap();
    let unpacked = host.unpack(&layers).unwrap();
    assert_eq!(unpacked.layers[1], tree);
    assert!(tree.join("mark").exists(), "it was unpacked again");
    for (tree, name) in unpacked.layers.iter().zip(["a", "b", "c"]) {
        assert!(tree.join(name).exists(), "{name}");
    }
}

#[test]
fn several_layers_come_at_once_also_the_same_one() {
    let host = Host::new();
    let layers: Vec<Vec<u8>> = ["a", "b", "a", "c", "b", "a"].map(layer).into();
    let arriving = &host;
    std::thread::scope(|scope| {
        for layer in &layers {
            scope.spawn(move || arriving.arrive(layer, &digest(layer)).unwrap());
        }
    });
    assert_eq!(content_of(host.root.path()).len(), 6, "three blobs and three trees");
}

#[test]
fn what_is_not_what_it_should_be_leaves_neither_blob_nor_tree() {
    let host = Host::new();
    let plain = layer("a");
    let error = host.arrive(&plain, &digest(b"other")).unwrap_err();
    assert!(
        matches!(&error, IngestLayerError::Layer { source: LayerError::DiffId { .. }, .. }),
        "{}",
        chain(&error)
    );
    let asked = digest(b"asked").parse().unwrap();
    let diff_id = digest(&plain).parse().unwrap();
    let mut wrong = host.store.ingest_layer(&asked, Bytes(1 << 20), diff_id).unwrap();
    wrong.write(&plain).unwrap();
    assert!(chain(&wrong.finish().unwrap_err()).contains("what came as blob"));
    let mut long = host.store.ingest_layer(&asked, Bytes(10), diff_id).unwrap();
    assert!(chain(&long.write(&plain).unwrap_err()).contains("is larger than the 10 B"));
    let mut dropped = host.store.ingest_layer(&asked, Bytes(1 << 20), diff_id).unwrap();
    dropped.write(&plain[..600]).unwrap();
    drop((long, dropped));
    assert_eq!(content_of(host.root.path()), Vec::<String>::new());
}

#[test]
fn a_layer_of_no_image_is_gone_when_the_store_is_opened_again() {
    let host = Host::new();
    let plain = layer("a");
    host.arrive(&plain, &digest(&plain)).unwrap();
    let Host { root, store } = host;
    drop(store);
    drop(Store::open(root.path()).unwrap());
    assert_eq!(content_of(root.path()), Vec::<String>::new());
}

/// Layers are unpacked by a shell with this script, called with `arguments` and the directory. It stands for a process that a
/// layer has taken over.
pub(super) fn scripted(script: &'static str, arguments: Vec<String>, patience: Duration) -> Unpacker {
    let shell = move || {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).arg("sh").args(&arguments);
        shell
    };
    Unpacker::new(shell).unwrap().with_patience(patience)
}

/// What the unpacker of this layer says when it is done.
pub(super) fn report(layer: &[u8]) -> String {
    let digest = digest(layer);
    format!(r#"{{"unpacked":{{"diff_id":"{digest}","entries":1,"bytes":1,"skipped_xattrs":0,"opaque":""}}}}"#)
}

#[test]
fn a_layer_that_poses_as_another_one_spoils_its_own_tree_alone() {
    let host = Host::new();
    let (hostile, victim) = (layer("hostile"), layer("victim"));
    let script = r#"cat > /dev/null; touch "$2/spoilt"; printf '%s\n' "$1""#;
    let liar = scripted(script, vec![report(&victim)], Duration::from_secs(60));
    let (blob, diff_id) = (digest(&hostile).parse().unwrap(), digest(&victim).parse().unwrap());
    let store = host.store.clone().with_unpacker(liar);
    let mut ingest = store.ingest_layer(&blob, Bytes(1 << 20), diff_id).unwrap();
    ingest.write(&hostile).unwrap();
    ingest.finish().unwrap();
    let unpacked = host.unpack(&[victim]).unwrap();
    assert!(unpacked.layers[0].join("victim").exists() && !unpacked.layers[0].join("spoilt").exists());
}

#[test]
fn an_unpacker_that_goes_on_talking_is_not_listened_to_for_ever() {
    let host = Host::new();
    let talks = scripted("while printf x; do sleep 0.001; done", Vec::new(), Duration::from_millis(30));
    let plain = layer("a");
    let (blob, diff_id) = (digest(&plain).parse().unwrap(), digest(&plain).parse().unwrap());
    let store = host.store.clone().with_unpacker(talks);
    let mut ingest = store.ingest_layer(&blob, Bytes(1 << 20), diff_id).unwrap();
    ingest.write(&plain).unwrap();
    let text = chain(&ingest.finish().unwrap_err());
    assert!(text.contains("and was killed"), "{text}");
    assert_eq!(content_of(host.root.path()), Vec::<String>::new());
}
