//! Layers into directory trees. Needs root and the kernel: owners, devices, overlayfs.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[expect(dead_code, reason = "tests/import.rs uses the rest")]
mod archive;
#[path = "host/arrival.rs"]
mod arrival;
#[path = "host/commit.rs"]
mod commit;
#[path = "host/hostile.rs"]
mod hostile;
#[path = "host/removal.rs"]
mod removal;

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use archive::{Tar, chain, content_of, digest, docker_save};
use image::{IngestLayerError, Store, UnpackError, Unpacked};
use model::{Bytes, Digest};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tar::EntryType;
use tempfile::TempDir;

struct Host {
    root: TempDir,
    store: Store,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        Self { root, store }
    }

    fn import(&self, layers: &[Vec<u8>]) -> Digest {
        self.store.import(docker_save(layers, &[]).as_slice(), &mut |_| {}).unwrap().digest
    }

    fn unpack(&self, layers: &[Vec<u8>]) -> Result<Unpacked, UnpackError> {
        self.store.unpack(&self.import(layers))
    }

    /// The tree of one layer.
    #[track_caller]
    fn tree(&self, layer: Tar) -> PathBuf {
        let unpacked = self.unpack(&[layer.bytes()]);
        unpacked.unwrap_or_else(|error| panic!("{}", chain(&error))).layers.remove(0)
    }

    /// The layer passes import but cannot be unpacked, for this reason, and nothing of it stays.
    #[track_caller]
    fn refused(&self, layer: Tar, says: &str) {
        let before = self.layers();
        let error = self.unpack(&[layer.bytes()]).unwrap_err();
        assert!(chain(&error).contains(says), "{}", chain(&error));
        assert_eq!(self.layers(), before);
    }

    /// A layer from elsewhere, that nothing has looked at before. Where its tree is.
    fn arrive(&self, blob: &[u8], diff_id: &str) -> Result<PathBuf, IngestLayerError> {
        let (name, diff_id): (Digest, Digest) = (digest(blob).parse().unwrap(), diff_id.parse().unwrap());
        let mut ingest = self.store.ingest_layer(&name, Bytes(blob.len() as u64), diff_id)?;
        for piece in blob.chunks(1000) {
            ingest.write(piece)?;
        }
        assert_eq!(ingest.finish()?, Bytes(blob.len() as u64));
        Ok(self.root.path().join(format!("layers/{}/fs", name.hex())))
    }

    /// What there is of layers, finished or not.
    fn layers(&self) -> Vec<String> {
        let all = content_of(self.root.path()).into_iter();
        all.filter(|name| name.starts_with("layers/") || name.starts_with("ingest/")).collect()
    }
}

fn stat(path: impl AsRef<Path>) -> Metadata {
    fs::symlink_metadata(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn is_whiteout(path: PathBuf) -> bool {
    let stat = stat(path);
    stat.file_type().is_char_device() && stat.rdev() == 0
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0_u8; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn a_tree_has_what_the_layer_says() {
    let host = Host::new();
    // CAP_NET_BIND_SERVICE, permitted and effective, in version 2 of the kernel's format.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Tar::new()
        .entry("./", EntryType::Directory, |header| header.set_mode(0o711), b"")
        .entry("etc/", EntryType::Directory, |header| header.set_mode(0o1777), b"")
        .file("etc/file", "content")
        .entry(
            "su",
            EntryType::Regular,
            |header| {
                header.set_mode(0o4755);
                header.set_uid(1000);
                header.set_gid(2000);
            },
            b"",
        )
        .pax(&[
            ("mtime", b"5.5"),
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/elsewhere"),
        ])
        .file("attributes", "")
        .link(EntryType::Symlink, "absolute", "/etc/passwd")
        .link(EntryType::Link, "again", "etc/file")
        .link(EntryType::Link, "link-again", "absolute")
        .entry("fifo", EntryType::Fifo, |_| {}, b"")
        .entry("null", EntryType::Char, device(1, 3), b"")
        .file("made/on/the/way", "x")
        .file("etc/file", "new");
    let tree = host.tree(layer);
    assert_eq!((stat(&tree).mode() & 0o7777, stat(&tree).mtime()), (0o711, 1000));
    assert_eq!((stat(tree.join("etc")).mode() & 0o7777, stat(tree.join("etc")).mtime()), (0o1777, 1000));
    assert_eq!(fs::read_to_string(tree.join("etc/file")).unwrap(), "new", "the last entry of a name counts");
    assert_eq!(fs::read_to_string(tree.join("again")).unwrap(), "content");
    let su = stat(tree.join("su"));
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.mtime()), (0o4755, 1000, 2000, 1000));
    let attributes = tree.join("attributes");
    assert_eq!((stat(&attributes).mtime(), stat(&attributes).mtime_nsec()), (5, 500_000_000));
    assert_eq!(xattr(&attributes, "user.note").as_deref(), Some(&b"a\nb"[..]));
    assert_eq!(xattr(&attributes, "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&attributes, "trusted.overlay.redirect"), None);
    assert_eq!(fs::read_link(tree.join("absolute")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(stat(tree.join("link-again")).ino(), stat(tree.join("absolute")).ino());
    assert!(stat(tree.join("fifo")).file_type().is_fifo());
    assert_eq!(stat(tree.join("null")).rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(stat(tree.join("made/on")).mode() & 0o7777, 0o755);
}

fn device(major: u32, minor: u32) -> impl FnOnce(&mut tar::Header) {
    move |header| {
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
    }
}

#[test]
fn a_sparse_file_keeps_its_holes() {
    let host = Host::new();
    let mut content = b"2\n1048576\n3\n8388608\n0\n".to_vec();
    content.resize(512, 0);
    content.extend_from_slice(b"abc");
    let layer = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"8388608"),
        ])
        .file("GNUSparseFile.0/sparse", content);
    let file = host.tree(layer).join("sparse");
    assert_eq!(stat(&file).len(), 8 << 20);
    assert!(stat(&file).blocks() * 512 < 1 << 20, "the holes are holes");
    let read = fs::read(&file).unwrap();
    assert_eq!(&read[1 << 20..(1 << 20) + 4], b"abc\0");
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
    let host = Host::new();
    let layer = Tar::new()
        .file(".wh.gone", "")
        .file("own", "stays")
        .file(".wh.own", "")
        .file(".wh.late", "")
        .file("late", "stays")
        .file(".wh.before", "")
        .entry("before/", EntryType::Directory, |_| {}, b"")
        .entry("opaque/", EntryType::Directory, |_| {}, b"")
        .file("opaque/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "");
    let tree = host.tree(layer);
    assert!(is_whiteout(tree.join("gone")));
    assert_eq!(fs::read_to_string(tree.join("own")).unwrap(), "stays");
    assert_eq!(fs::read_to_string(tree.join("late")).unwrap(), "stays");
    for opaque in ["before", "opaque"] {
        assert_eq!(
            xattr(&tree.join(opaque), "trusted.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{opaque}"
        );
    }
    let mut names: Vec<_> = fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["before", "gone", "late", "opaque", "own"]);
    for bad in [".wh.", ".wh..", ".wh..."] {
        host.refused(Tar::new().file(bad, bad), "a whiteout has to name what it hides");
    }
}

/// A file system that is unmounted also when the test fails.
struct Mounted(TempDir);

impl Mounted {
    /// The names in a directory of its.
    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join(path)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// These layers, the lowest first, as a container sees them.
fn overlay(layers: &[PathBuf]) -> Mounted {
    let lowest_last: Vec<String> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    let options = format!("lowerdir={}", lowest_last.join(":"));
    let at = tempfile::tempdir().unwrap();
    mount(Some("overlay"), at.path(), Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str())).unwrap();
    Mounted(at)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = umount2(self.0.path(), MntFlags::MNT_DETACH);
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
    }
}

#[test]
fn overlayfs_shows_the_layers_as_one_file_system() {
    let host = Host::new();
    let lower = Tar::new().file("dir/old", "old").file("gone", "x").file("kept", "kept").bytes();
    let middle = Tar::new().file(".wh.gone", "").file("new", "new").bytes();
    let upper = Tar::new().file("dir/.wh..wh..opq", "").file("dir/fresh", "fresh").bytes();
    let Unpacked { layers, config } = host.unpack(&[lower, middle, upper]).unwrap();
    assert_eq!(config.cmd, ["/run"]);
    let mounted = overlay(&layers);
    assert_eq!(mounted.list(""), ["dir", "kept", "new"]);
    assert_eq!(mounted.list("dir"), ["fresh"]);
}

#[test]
fn links_lead_nowhere_but_into_the_layer() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    let target = outside.path().to_str().unwrap();
    let symlink = |to: &str| Tar::new().link(EntryType::Symlink, "out", to);
    // An absolute link leads to a place in the layer that is not there.
    host.refused(
        symlink(target).file("out/victim", "overwritten"),
        "cannot open the directory of entry `out/victim`",
    );
    host.refused(symlink(target).file("out/.wh.victim", ""), "cannot open the directory of");
    host.refused(
        symlink(target).entry("out/new/", EntryType::Directory, |_| {}, b""),
        "cannot open the directory of",
    );
    host.refused(symlink(target).link(EntryType::Link, "stolen", "out/victim"), "is not in the layer");
    host.refused(symlink("/proc/self/root").file("out/x", ""), "cannot open the directory of");
    host.refused(symlink("out").file("out/x", ""), "cannot open the directory of");
    // One that climbs ends at the layer's root.
    let tree = host.tree(symlink("../../../../../../../..").file("out/tmp", "inside"));
    assert_eq!(fs::read_to_string(tree.join("tmp")).unwrap(), "inside");
    // One inside is followed, as in the container.
    let tree = host.tree(
        Tar::new()
            .entry("usr/lib/", EntryType::Directory, |_| {}, b"")
            .link(EntryType::Symlink, "lib", "usr/lib")
            .file("lib/x", "inside"),
    );
    assert_eq!(fs::read_to_string(tree.join("usr/lib/x")).unwrap(), "inside");
    // The last component is replaced and never followed: not for content, owner, mode or time.
    let victim = outside.path().join("victim");
    let before = stat(&victim);
    let tree = host.tree(symlink(victim.to_str().unwrap()).entry(
        "out",
        EntryType::Regular,
        |h| h.set_mode(0o777),
        b"",
    ));
    assert!(stat(tree.join("out")).is_file());
    let tree = host.tree(symlink(victim.to_str().unwrap()).entry("out/", EntryType::Directory, |_| {}, b""));
    assert!(stat(tree.join("out")).is_dir());
    let after = stat(&victim);
    assert_eq!(
        (before.mode(), before.mtime(), before.ctime(), before.nlink()),
        (after.mode(), after.mtime(), after.ctime(), after.nlink())
    );
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn entries_that_make_no_tree_are_refused() {
    let host = Host::new();
    host.refused(Tar::new().link(EntryType::Link, "a", "absent"), "is not in the layer");
    host.refused(
        Tar::new().entry("d/", EntryType::Directory, |_| {}, b"").link(EntryType::Link, "a", "d"),
        "a directory cannot have two names",
    );
    host.refused(
        Tar::new().file("d/x", "").file("d", "now a file"),
        "cannot make entry `d`: Directory not empty",
    );
    host.refused(Tar::new().file("f", "").file("f/x", ""), "cannot open the directory of entry `f/x`");
    // Each link leads to the end of the one before, so that the tree gets deeper than any path in the archive.
    let long = "d/".repeat(150);
    let deep = Tar::new()
        .pax(&[("path", format!("{long}x").as_bytes())])
        .file("x", "")
        .pax(&[("linkpath", long.as_bytes())])
        .link(EntryType::Symlink, "deep", "")
        .pax(&[("path", format!("deep/{long}y").as_bytes())])
        .file("y", "");
    host.refused(deep, "File name too long");
}

#[test]
fn a_layer_is_unpacked_once_whoever_asks() {
    let host = Host::new();
    let layer = (0..200).fold(Tar::new(), |tar, number| tar.file(&format!("file-{number}"), "x")).bytes();
    let image = host.import(&[layer.clone(), layer]);
    let asked: Vec<Unpacked> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| host.store.unpack(&image).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(asked.iter().all(|unpacked| *unpacked == asked[0]));
    assert_eq!(asked[0].layers.len(), 1, "overlayfs refuses a layer that comes twice");
    assert_eq!(fs::read_dir(&asked[0].layers[0]).unwrap().count(), 200);
    assert_eq!(host.layers().len(), 1, "{:?}", host.layers());
}

#[test]
fn removing_an_image_keeps_the_layers_that_others_use() {
    let host = Host::new();
    let base = Tar::new().file("base", "").bytes();
    let first = host.import(&[base.clone(), Tar::new().file("first", "").bytes()]);
    let second = host.import(&[base, Tar::new().file("second", "").bytes()]);
    let (kept, gone) =
        (host.store.unpack(&first).unwrap().layers, host.store.unpack(&second).unwrap().layers);
    assert_eq!(kept[0], gone[0]);
    assert!(host.store.remove(&second).unwrap());
    assert!(kept.iter().all(|layer| layer.is_dir()) && !gone[1].exists());
    assert!(matches!(host.store.unpack(&second), Err(UnpackError::Read(_))));
    assert!(host.store.remove(&first).unwrap());
    assert_eq!(content_of(host.root.path()), Vec::<String>::new());
}
