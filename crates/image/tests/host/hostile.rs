//! Layers that mean harm, and what becomes of each: it is refused and leaves nothing, or it is contained.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tar::EntryType;
use tempfile::TempDir;

use super::archive::{Tar, chain, content_of, digest};
use super::{Host, device, stat, xattr};

const OPAQUE: &str = "trusted.overlay.opaque";

/// A file that no layer has any business with.
struct Outside {
    root: TempDir,
    before: (u32, u32, i64, i64, u64),
}

impl Outside {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("victim"), "untouched").unwrap();
        let before = state(&root.path().join("victim"));
        Self { root, before }
    }

    fn path(&self) -> &str {
        self.root.path().to_str().unwrap()
    }

    fn victim(&self) -> String {
        format!("{}/victim", self.path())
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let victim = self.root.path().join("victim");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(state(&victim), self.before);
        assert_eq!(xattr(&victim, "user.note"), None);
        assert_eq!(names(self.root.path()), ["victim"]);
    }
}

/// The time of the last change to the inode tells of every other one.
fn state(path: &Path) -> (u32, u32, i64, i64, u64) {
    let stat = stat(path);
    (stat.mode(), stat.uid(), stat.ctime(), stat.ctime_nsec(), stat.nlink())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn contained(host: &Host, layer: Tar) -> PathBuf {
    let blob = layer.bytes();
    host.arrive(&blob, &digest(&blob)).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

#[track_caller]
fn refused_blob(host: &Host, blob: &[u8], diff_id: &str, says: &str) {
    let before = content_of(host.root.path());
    let error = host.arrive(blob, diff_id).unwrap_err();
    assert!(chain(&error).contains(says), "{}", chain(&error));
    assert_eq!(content_of(host.root.path()), before);
}

#[track_caller]
fn refused(host: &Host, layer: Tar, says: &str) {
    let blob = layer.bytes();
    refused_blob(host, &blob, &digest(&blob), says);
}

fn symlink(to: &str) -> Tar {
    Tar::new().link(EntryType::Symlink, "out", to)
}

#[test]
fn a_path_that_leads_upwards_is_refused_and_an_absolute_one_stays_inside() {
    let host = Host::new();
    for path in ["../escape", "a/../../escape", "/../escape", "a/..", ".."] {
        refused(&host, Tar::new().file(path, "x"), "it leads out of the root with `..`");
    }
    let name = format!("gantry-escape-{}", std::process::id());
    let tree = contained(&host, Tar::new().file(&format!("/etc/{name}"), "x"));
    assert_eq!(names(&tree.join("etc")), std::slice::from_ref(&name));
    assert!(!Path::new("/etc").join(name).exists());
}

#[test]
fn a_hard_link_is_to_the_layers_own_files_only() {
    let host = Host::new();
    let outside = Outside::new();
    let link = |target: &str| Tar::new().link(EntryType::Link, "stolen", target);
    refused(&host, link(&outside.victim()), "is not in the layer");
    refused(&host, link("../../etc/passwd"), "it leads out of the root with `..`");
    // The link itself gets the second name, and is replaced by what comes for that name.
    let tree = contained(
        &host,
        symlink(&outside.victim()).link(EntryType::Link, "again", "out").file("again", "inside"),
    );
    assert!(stat(tree.join("out")).is_symlink());
    assert_eq!(fs::read_to_string(tree.join("again")).unwrap(), "inside");
    outside.assert_untouched();
}

#[test]
fn nothing_is_done_to_what_a_link_leads_to() {
    let host = Host::new();
    let outside = Outside::new();
    let change = |header: &mut tar::Header| {
        header.set_mode(0o4777);
        header.set_uid(1000);
    };
    let noted: &[(&str, &[u8])] = &[("path", b"out"), ("SCHILY.xattr.user.note", b"x")];
    let replaced = symlink(&outside.victim()).pax(noted).entry("out", EntryType::Regular, change, b"");
    let tree = contained(&host, replaced);
    assert_eq!(xattr(&tree.join("out"), "user.note").as_deref(), Some(&b"x"[..]));
    assert_eq!(stat(tree.join("out")).uid(), 1000);
    // A whiteout does not hide its own layer's link, nor what that leads to.
    let tree = contained(&host, symlink(&outside.victim()).file(".wh.out", ""));
    assert!(stat(tree.join("out")).is_symlink());
    for kind in [EntryType::Fifo, EntryType::Char] {
        let tree = contained(&host, symlink(&outside.victim()).entry("out", kind, device(1, 3), b""));
        assert!(!stat(tree.join("out")).is_symlink());
    }
    refused(
        &host,
        symlink(outside.path()).file("out/.wh..wh..opq", ""),
        "cannot open the directory of entry `out/.wh..wh..opq`",
    );
    outside.assert_untouched();
}

#[test]
fn a_way_through_links_has_an_end() {
    let host = Host::new();
    // A directory, links of which each leads to the next one and the last one to the directory, and a file behind them.
    let layer = |links: usize| {
        let directory = Tar::new().entry(&format!("l{links}/"), EntryType::Directory, |_| {}, b"");
        let linked = (0..links).fold(directory, |tar, number| {
            tar.link(EntryType::Symlink, &format!("l{number}"), &format!("l{}", number + 1))
        });
        linked.file("l0/file", "x")
    };
    let tree = contained(&host, layer(40));
    assert_eq!(fs::read_to_string(tree.join("l40/file")).unwrap(), "x");
    refused(&host, layer(41), "Too many levels of symbolic links");
}

#[test]
fn devices_are_there_and_nobody_else_gets_near_them() {
    let host = Host::new();
    let layer = Tar::new().entry("memory", EntryType::Char, device(1, 1), b"").entry(
        "disk",
        EntryType::Block,
        device(254, 0),
        b"",
    );
    let tree = contained(&host, layer);
    assert!(stat(tree.join("disk")).file_type().is_block_device());
    assert_eq!(stat(tree.join("memory")).rdev(), rustix::fs::makedev(1, 1));
    assert_eq!(stat(host.root.path().join("layers")).mode() & 0o7777, 0o700);
}

#[test]
fn attributes_that_steer_the_kernel_are_left_out() {
    let host = Host::new();
    let steering = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.note",
        "user.overlay.opaque",
        "security.selinux",
        "security.ima",
        "system.posix_acl_access",
    ];
    let records: Vec<String> = steering.iter().map(|name| format!("SCHILY.xattr.{name}")).collect();
    let mut records: Vec<(&str, &[u8])> = records.iter().map(|name| (name.as_str(), &b"y"[..])).collect();
    records.push(("SCHILY.xattr.user.kept", b"y"));
    let layer = Tar::new().pax(&records).file("file", "").pax(&records).entry(
        "directory/",
        EntryType::Directory,
        |_| {},
        b"",
    );
    let tree = contained(&host, layer);
    for path in [tree.join("file"), tree.join("directory")] {
        assert_eq!(xattr(&path, "user.kept").as_deref(), Some(&b"y"[..]));
        for name in steering {
            assert_eq!(xattr(&path, name), None, "{name}");
        }
    }
}

#[test]
fn the_mark_of_an_opaque_directory_is_set_where_its_entry_leads_and_nowhere_else() {
    let host = Host::new();
    let layer = Tar::new()
        .file("usr/lib/kept", "")
        .file("usr/share/kept", "")
        .link(EntryType::Symlink, "lib", "usr/lib")
        .link(EntryType::Symlink, "share", "/usr/share")
        .file("lib/.wh..wh..opq", "with content")
        .link(EntryType::Symlink, "share/.wh..wh..opq", "/etc")
        .entry("dir/.wh..wh..opq/", EntryType::Directory, |_| {}, b"")
        .file("file/.wh..wh..opq", "")
        .file("file", "no directory any more");
    let tree = contained(&host, layer);
    for (path, is_opaque) in
        [("usr/lib", true), ("usr/share", true), ("dir", true), ("usr", false), ("", false), ("file", false)]
    {
        assert_eq!(xattr(&tree.join(path), OPAQUE).is_some(), is_opaque, "{path}");
    }
    assert_eq!(names(&tree.join("usr/lib")), ["kept"]);
    assert_eq!(names(&tree.join("usr/share")), ["kept"]);
    assert_eq!(names(&tree.join("dir")), Vec::<String>::new());
    let tree = contained(&host, Tar::new().file(".wh..wh..opq", ""));
    assert_eq!(xattr(&tree, OPAQUE).as_deref(), Some(&b"y"[..]));
}

#[test]
fn of_several_entries_of_one_name_the_last_one_counts() {
    let host = Host::new();
    let layer = Tar::new()
        .entry("dir/", EntryType::Directory, |header| header.set_mode(0o777), b"")
        .file("dir/kept", "kept")
        .entry("dir/", EntryType::Directory, |header| header.set_mode(0o700), b"")
        .link(EntryType::Symlink, "name", "/etc/passwd")
        .entry("name", EntryType::Char, device(1, 3), b"")
        .file("name", "file")
        .link(EntryType::Link, "other", "name")
        .link(EntryType::Link, "other", "name");
    let tree = contained(&host, layer);
    assert_eq!(stat(tree.join("dir")).mode() & 0o7777, 0o700);
    assert_eq!(fs::read_to_string(tree.join("dir/kept")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(tree.join("other")).unwrap(), "file");
    assert_eq!(stat(tree.join("name")).nlink(), 2);
    let swapped = Tar::new().file("dir/x", "").link(EntryType::Symlink, "dir", "/etc").file("dir/passwd", "");
    refused(&host, swapped, "cannot make entry `dir`: Directory not empty");
    // To Linux these are different names, and so they are here.
    let alike = ["a", "A", "\u{e9}", "e\u{301}"];
    let tree = contained(&host, alike.iter().fold(Tar::new(), |tar, name| tar.file(name, "")));
    assert_eq!(names(&tree).len(), 4);
}

#[test]
fn a_size_is_what_its_pax_record_says_in_either_direction() {
    let host = Host::new();
    let hidden = Tar::new().file("hidden", "").bytes();
    let length = hidden.len().to_string();
    let larger =
        Tar::new().pax(&[("size", length.as_bytes())]).entry("outer", EntryType::Regular, |_| {}, &hidden);
    let tree = contained(&host, larger);
    assert_eq!(names(&tree), ["outer"]);
    assert_eq!(fs::read(tree.join("outer")).unwrap(), hidden);
    let size = |header: &mut tar::Header| header.set_size(hidden.len() as u64);
    let smaller = Tar::new().pax(&[("size", b"0")]).entry("outer", EntryType::Regular, size, &hidden);
    let tree = contained(&host, smaller);
    assert_eq!(names(&tree), ["hidden", "outer"]);
    assert_eq!(stat(tree.join("outer")).len(), 0);
    let lie = Tar::new().pax(&[("size", b"1000000")]).file("outer", "short");
    refused(&host, lie, "cannot make entry `outer`: unexpected end of file");
}

#[test]
fn a_bomb_is_given_up_before_it_has_gone_off() {
    let host = Host::new();
    let zeroes = Tar::new().file("zeroes", vec![0_u8; 80 << 20]).bytes();
    let zstd = zstd::stream::encode_all(zeroes.as_slice(), 3).unwrap();
    assert!(zstd.len() * 10_000 < zeroes.len(), "{}", zstd.len());
    for bomb in [gzip(&zeroes), zstd] {
        refused_blob(&host, &bomb, &digest(&zeroes), "it grows more than 200-fold when uncompressed");
    }
    // A window of 2 GiB.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0];
    refused_blob(&host, &window, &digest(b""), "too much memory");
    let sparse = |size: &str| {
        let map = Tar::new().pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ]);
        map.file("sparse", [&b"0\n"[..], &[0; 510]].concat())
    };
    refused(&host, sparse(&(11_u64 << 30).to_string()), "its files have more than 10 GiB together");
    let hole = contained(&host, sparse("1073741824"));
    let hole = stat(hole.join("sparse"));
    assert_eq!(hole.len(), 1 << 30);
    assert!(hole.blocks() * 512 < 1 << 20, "a hole takes no room");
}

#[test]
fn a_name_is_as_long_as_a_name_can_be() {
    let host = Host::new();
    let long = "x".repeat(64 << 10);
    let pax = Tar::new().pax(&[("path", long.as_bytes())]).file("x", "");
    refused(&host, pax, "it is longer than 4096 bytes");
    let size = |header: &mut tar::Header| header.set_size(64 << 10);
    let gnu = Tar::new().entry("long", EntryType::GNULongName, size, long.as_bytes()).file("x", "");
    refused(&host, gnu, "it is longer than 4096 bytes");
    let target = Tar::new().pax(&[("linkpath", long.as_bytes())]).link(EntryType::Symlink, "x", "");
    refused(&host, target, "File name too long");
    let component = Tar::new().pax(&[("path", &long.as_bytes()[..300])]).file("x", "");
    refused(&host, component, "File name too long");
}

#[test]
fn what_comes_behind_the_end_is_not_unpacked_but_counted() {
    let host = Host::new();
    let (first, second) = (Tar::new().file("first", "").bytes(), Tar::new().file("second", "").bytes());
    let both = [first.clone(), second].concat();
    refused_blob(&host, &both, &digest(&first), "its uncompressed content is");
    let tree = host.arrive(&both, &digest(&both)).unwrap();
    assert_eq!(names(&tree), ["first"]);
    let members = [gzip(&first[..700]), gzip(&first[700..])].concat();
    let tree = host.arrive(&members, &digest(&first)).unwrap();
    assert_eq!(names(&tree), ["first"]);
    let followed = [gzip(&first), b"no member".to_vec()].concat();
    refused_blob(&host, &followed, &digest(&both[1..]), "");
}

#[test]
fn a_layer_that_is_cut_off_anywhere_is_refused_and_leaves_nothing() {
    let host = Host::new();
    let plain = Tar::new().file("dir/file", "content").link(EntryType::Symlink, "link", "dir").bytes();
    for packed in [gzip(&plain), zstd::stream::encode_all(plain.as_slice(), 3).unwrap()] {
        for cut in 0..packed.len() {
            refused_blob(&host, &packed[..cut], &digest(&plain), "");
        }
    }
}
