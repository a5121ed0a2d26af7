//! Images that are removed while one is unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{ReadError, Store, UnpackError};
use model::Digest;

use super::Host;
use super::archive::{chain, content_of};
use super::arrival::{layer, report, scripted};

/// A store with an image whose layer is not unpacked before there is a gate.
struct Slow {
    host: Host,
    store: Store,
    image: Digest,
    gate: PathBuf,
}

impl Slow {
    fn new() -> Self {
        let (host, layer) = (Host::new(), layer("slow"));
        let gate = host.root.path().join("gate");
        let script = r#"cat > /dev/null; until [ -e "$1" ]; do sleep 0.01; done; printf '%s\n' "$2""#;
        let arguments = vec![gate.display().to_string(), report(&layer)];
        let unpacker = scripted(script, arguments, Duration::from_secs(20));
        let store = host.store.clone().with_unpacker(unpacker);
        let image = host.import(&[layer]);
        Self { host, store, image, gate }
    }

    fn has_begun(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.host.layers().is_empty() {
            assert!(Instant::now() < deadline, "nothing is unpacked");
            std::thread::yield_now();
        }
    }
}

fn open(gate: &Path) {
    fs::write(gate, "").unwrap();
}

#[test]
fn an_image_is_removed_while_another_one_is_unpacked() {
    let slow = Slow::new();
    let other = slow.host.import(&[layer("other")]);
    std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| slow.store.unpack(&slow.image));
        slow.has_begun();
        assert!(slow.host.store.remove(&other).unwrap());
        assert_eq!(slow.host.store.complete(&slow.image).unwrap(), []);
        open(&slow.gate);
        unpacking.join().unwrap().unwrap_or_else(|error| panic!("{}", chain(&error)));
    });
}

#[test]
fn an_image_that_is_removed_while_it_is_unpacked_leaves_nothing() {
    let slow = Slow::new();
    std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| slow.store.unpack(&slow.image));
        slow.has_begun();
        assert!(slow.host.store.remove(&slow.image).unwrap());
        open(&slow.gate);
        let error = unpacking.join().unwrap().unwrap_err();
        assert!(matches!(error, UnpackError::Read(ReadError::Absent(_))), "{}", chain(&error));
    });
    assert_eq!(content_of(slow.host.root.path()), Vec::<String>::new());
}
