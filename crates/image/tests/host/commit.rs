//! Images that were made over images, as containers see them.

use std::fs;
use std::io::Write;
use std::time::SystemTime;

use image::{Edits, LayerFailure};
use model::Digest;
use tar::EntryType;

use crate::archive::Tar;
use crate::{Host, overlay};

fn commit(host: &Host, base: &Digest, layer: &[u8]) -> Digest {
    let edits = Edits { created: SystemTime::UNIX_EPOCH, author: None, message: None, changes: Vec::new() };
    let written = |sink: &mut dyn Write| sink.write_all(layer).map_err(LayerFailure::from);
    host.store.commit(base, written, &edits).unwrap().digest
}

#[test]
fn what_was_committed_is_seen_over_what_is_below() {
    let host = Host::new();
    let base =
        host.import(&[Tar::new().file("dir/old", "old").file("gone", "x").file("kept", "kept").bytes()]);
    let layer = Tar::new()
        .file(".wh.gone", "")
        .entry("dir/", EntryType::Directory, |_| {}, b"")
        .file("dir/.wh..wh..opq", "")
        .file("dir/fresh", "fresh")
        .file("new", "new")
        .link(EntryType::Link, "same", "new");
    let committed = commit(&host, &base, &layer.bytes());
    let mounted = overlay(&host.store.unpack(&committed).unwrap().layers);
    assert_eq!(mounted.list(""), ["dir", "kept", "new", "same"]);
    assert_eq!(mounted.list("dir"), ["fresh"]);
    // And once more over that.
    let again = commit(&host, &committed, &Tar::new().file(".wh.new", "").file("gone", "back").bytes());
    let mounted = overlay(&host.store.unpack(&again).unwrap().layers);
    assert_eq!(mounted.list(""), ["dir", "gone", "kept", "same"]);
}

#[test]
fn a_layer_of_next_to_nothing_but_zeroes_can_be_unpacked_again() {
    let host = Host::new();
    let base = host.import(&[Tar::new().file("a", "one").bytes()]);
    let committed = commit(&host, &base, &Tar::new().file("zeroes", vec![0; 150 << 20]).bytes());
    let layers = host.store.unpack(&committed).unwrap().layers;
    assert_eq!(fs::metadata(layers[1].join("zeroes")).unwrap().len(), 150 << 20);
}
