//! Copies on this machine's side, with archives in memory in the place of a node.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;

/// An entry as it may come from a node that is not ours any more.
struct Made<'a> {
    name: &'a str,
    kind: EntryType,
    link: &'a str,
    content: &'a str,
    mode: u32,
}

fn file<'a>(name: &'a str, content: &'a str) -> Made<'a> {
    Made { name, kind: EntryType::Regular, link: "", content, mode: 0o644 }
}

fn directory(name: &str) -> Made<'_> {
    Made { name, kind: EntryType::Directory, link: "", content: "", mode: 0o755 }
}

fn special<'a>(name: &'a str, kind: EntryType, link: &'a str) -> Made<'a> {
    Made { name, kind, link, content: "", mode: 0o777 }
}

const TIME: u64 = 1_700_000_000;

fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Made { name, kind, link, content, mode } in entries {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(1234);
        header.set_gid(1234);
        header.set_mtime(TIME);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Paths in a directory, a line each.
fn content(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    look(dir, "", &mut lines);
    lines
}

fn look(dir: &Path, prefix: &str, lines: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            lines.push(format!("{name}/"));
            look(&entry.path(), &format!("{name}/"), lines);
        } else if kind.is_symlink() {
            lines.push(format!("{name} -> {}", fs::read_link(entry.path()).unwrap().display()));
        } else {
            lines.push(format!("{name}: {}", fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// A place with a directory `dir`, a file `old`, and a link to each.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let path = place.path();
    fs::create_dir(path.join("dir")).unwrap();
    fs::write(path.join("dir/kept"), "k").unwrap();
    fs::write(path.join("old"), "o").unwrap();
    symlink("dir", path.join("to-dir")).unwrap();
    symlink("old", path.join("to-old")).unwrap();
    place
}

/// Copies what a node calls `name` to a path in a fresh place: what is there then and was not before, or why not.
fn copied(to: &str, name: &str, is_directory: bool, content_only: bool, archive: &[u8]) -> String {
    let place = place();
    let here = place.path().display().to_string();
    let begun = Begun { name: name.to_owned(), directory: is_directory, ..Begun::default() };
    let target = Target::choose(&place.path().join(to), &begun, content_only);
    let done = target.and_then(|target| unpack::unpack(target, name, false, archive));
    match done {
        Ok(_) => {
            let unchanged = ["dir/", "dir/kept: k", "old: o", "to-dir -> dir", "to-old -> old"];
            let changed =
                content(place.path()).into_iter().filter(|line| !unchanged.contains(&line.as_str()));
            changed.collect::<Vec<_>>().join(", ")
        }
        Err(error) => error.to_string().replace(&format!("{here}/"), ""),
    }
}

#[test]
fn a_copy_goes_where_docker_puts_it() {
    let a_file = archive(&[file("f", "new")]);
    for (to, expected) in [
        ("f2", "f2: new"),
        ("f2/", "f2/ is not a directory"),
        ("none/f2", "cannot write none"),
        ("old", "old: new"),
        ("to-old", "old: new"),
        ("dir", "dir/f: new"),
        ("dir/", "dir/f: new"),
        ("to-dir", "dir/f: new"),
        ("old/", "old/ is not a directory"),
    ] {
        assert_eq!(copied(to, "f", false, false, &a_file), expected, "{to}");
    }
    let a_directory = archive(&[directory("d"), file("d/f", "new"), directory("d/e")]);
    for (to, content_only, expected) in [
        ("d2", false, "d2/, d2/e/, d2/f: new"),
        ("d2/", false, "d2/, d2/e/, d2/f: new"),
        ("d2", true, "d2/, d2/e/, d2/f: new"),
        ("none/d2", false, "cannot write none"),
        ("old", false, "old is a file, over which no directory can be copied"),
        ("dir", false, "dir/d/, dir/d/e/, dir/d/f: new"),
        ("to-dir", false, "dir/d/, dir/d/e/, dir/d/f: new"),
        ("dir", true, "dir/e/, dir/f: new"),
    ] {
        assert_eq!(copied(to, "d", true, content_only, &a_directory), expected, "{to} {content_only}");
    }
    let root = archive(&[directory("."), file("f", "new"), directory("e")]);
    assert_eq!(copied("dir", ".", true, false, &root), "dir/e/, dir/f: new");
    assert_eq!(copied("d2", ".", true, false, &root), "d2/, d2/e/, d2/f: new");
}

#[test]
fn what_is_there_is_replaced_or_merged_and_never_both() {
    let a_file = archive(&[file("old", "new")]);
    assert_eq!(copied("", "old", false, false, &a_file), "old: new");
    let over = archive(&[file("dir", "new")]);
    assert_eq!(
        copied("", "dir", false, false, &over),
        "dir is a directory, over which no file can be copied"
    );
    let merged = archive(&[directory("dir"), file("dir/f", "new")]);
    assert_eq!(copied("", "dir", true, false, &merged), "dir/f: new");
    for name in ["old", "to-dir", "to-old"] {
        let over = archive(&[directory(name)]);
        let refused = format!("{name} is a file, over which no directory can be copied");
        assert_eq!(copied("", name, true, false, &over), refused);
    }
}

#[test]
fn a_socket_pipe_or_device_is_never_replaced() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let _socket = UnixListener::bind(&path).unwrap();
    let begun = Begun { name: "s".to_owned(), ..Begun::default() };
    symlink("s", place.path().join("to-s")).unwrap();
    for to in ["s", "to-s"] {
        let refused = Target::choose(&place.path().join(to), &begun, false).unwrap_err();
        assert!(matches!(refused, CopyError::OverSpecial(_)), "{refused}");
    }
    let refused = Target::choose(Path::new("/dev/null"), &begun, false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "/dev/null is a socket, a pipe or a device, over which nothing is copied"
    );
    for entry in [file("s", "x"), special("s", EntryType::Symlink, "x")] {
        let target = Target::choose(place.path(), &begun, false).unwrap();
        let refused = unpack::unpack(target, "s", false, archive(&[entry]).as_slice()).unwrap_err();
        assert!(matches!(refused, CopyError::OverSpecial(_)), "{refused}");
    }
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

#[test]
fn a_hostile_archive_writes_nothing_outside() {
    use EntryType::{Link, Symlink};
    for (entries, said) in [
        (vec![directory("d"), file("d/../../x", "")], "what the node sends names d/../../x"),
        (vec![directory("d"), file("/x", "")], "what the node sends names /x"),
        (vec![directory("d"), file("x", "")], "what the node sends names x"),
        (vec![directory("d"), file("..", "")], "what the node sends names .."),
        (
            vec![directory("d"), special("d/l", Symlink, "../.."), file("d/l/x", "")],
            "d/l is a link or a file, through which nothing is copied",
        ),
        (vec![special("d", Symlink, "/"), file("d/x", "")], "d is a link or a file"),
        (vec![special("d", Symlink, ".."), directory("d"), file("d/x", "")], "d is a file"),
        (vec![directory("d"), special("d/h", Link, "old")], "what the node sends cannot be read"),
        (vec![directory("d"), file("d/e/x", "")], "cannot write d/e"),
    ] {
        let refused = copied("", "d", true, false, &archive(&entries));
        assert!(refused.starts_with(said), "{refused}");
    }
    for name in ["..", "a/b", "/etc", "", "./x", "a/", "../x"] {
        let begun = Begun { name: name.to_owned(), directory: true, ..Begun::default() };
        let refused = Target::choose(Path::new("/tmp"), &begun, false).unwrap_err();
        assert!(matches!(refused, CopyError::Outside(_)), "{name:?}: {refused}");
    }
    // The user's own link in the way of a directory is not followed either, and one in the way of a file is replaced.
    let through = archive(&[directory("to-dir"), file("to-dir/x", "new")]);
    assert!(copied("", "to-dir", true, false, &through).contains("no directory can be copied"));
    let over = archive(&[file("to-old", "new")]);
    assert_eq!(copied("", "to-old", false, false, &over), "to-old: new");
}

#[test]
fn modes_and_times_come_along_and_dangerous_ones_do_not() {
    let place = tempfile::tempdir().unwrap();
    let entries = archive(&[
        Made { mode: 0o2750, ..directory("d") },
        Made { mode: 0o6755, ..file("d/f", "x") },
        special("d/pipe", EntryType::Fifo, ""),
        special("d/disk", EntryType::Block, ""),
        special("d/l", EntryType::Symlink, "/etc/passwd"),
    ]);
    let begun = Begun { name: "d".to_owned(), directory: true, ..Begun::default() };
    let target = Target::choose(place.path(), &begun, false).unwrap();
    let done = unpack::unpack(target, "d", false, entries.as_slice()).unwrap();
    assert_eq!((done.files, done.bytes, done.skipped.len()), (1, 1, 2));
    assert_eq!(done.skipped[0], (place.path().join("d/pipe"), "it is a pipe or a device"));
    assert_eq!(content(place.path()), ["d/", "d/f: x", "d/l -> /etc/passwd"]);
    let seen = |path: &str| {
        let about = fs::metadata(place.path().join(path)).unwrap();
        (about.mode() & 0o7777, about.mtime())
    };
    let time = i64::try_from(TIME).unwrap();
    assert_eq!(seen("d"), (0o750, time));
    assert_eq!(seen("d/f"), (0o755, time));
    assert_ne!(fs::metadata(place.path().join("d/f")).unwrap().uid(), 1234);
}

#[test]
fn a_directory_is_done_when_it_is_left_and_not_kept_in_mind() {
    let place = tempfile::tempdir().unwrap();
    let entries = archive(&[
        directory("d"),
        Made { mode: 0o500, ..directory("d/a") },
        Made { mode: 0o500, ..directory("d/a/b") },
        file("d/a/b/x", "x"),
        file("d/a/y", "y"),
        Made { mode: 0o500, ..directory("d/ab") },
        file("d/z", "z"),
    ]);
    let begun = Begun { name: "d".to_owned(), directory: true, ..Begun::default() };
    let target = Target::choose(place.path(), &begun, false).unwrap();
    unpack::unpack(target, "d", false, entries.as_slice()).unwrap();
    let made = ["d/", "d/a/", "d/a/b/", "d/a/b/x: x", "d/a/y: y", "d/ab/", "d/z: z"];
    assert_eq!(content(place.path()), made);
    let time = i64::try_from(TIME).unwrap();
    for (path, mode) in [("d", 0o755), ("d/a", 0o500), ("d/a/b", 0o500), ("d/ab", 0o500)] {
        let path = place.path().join(path);
        let about = fs::metadata(&path).unwrap();
        assert_eq!((about.mode() & 0o7777, about.mtime()), (mode, time), "{}", path.display());
        // So that the place can be cleared up by whoever runs this.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_name_without_an_end_does_not_fill_the_memory() {
    let place = tempfile::tempdir().unwrap();
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1 << 40);
        header.set_cksum();
        let begun = Begun { name: "f".to_owned(), ..Begun::default() };
        let target = Target::choose(place.path(), &begun, false).unwrap();
        let endless = io::Read::chain(header.as_bytes().as_slice(), io::repeat(b'x'));
        let endless = io::Read::take(endless, 64 << 20);
        let error = unpack::unpack(target, "f", false, endless).unwrap_err();
        let said = "what is said of one file is longer than 1 MiB";
        assert!(
            matches!(&error, CopyError::Archive(source) if source.to_string() == said),
            "{kind:?}: {error:?}"
        );
    }
}

#[test]
fn an_archive_that_is_cut_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let whole = archive(&[file("f", &"x".repeat(3000))]);
    for length in [300, 600, 2000] {
        let begun = Begun { name: "f".to_owned(), ..Begun::default() };
        let target = Target::choose(place.path(), &begun, false).unwrap();
        let error = unpack::unpack(target, "f", false, &whole[..length]).unwrap_err();
        assert!(matches!(error, CopyError::Archive(_)), "{length}: {error}");
    }
}

/// What is sent of a path, a line each entry.
fn packed(path: &Path, follow: bool) -> Result<(Vec<String>, Copied), String> {
    let source = Source::find(path, follow).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let copied = pack::pack(&source, &mut bytes).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        lines.push(match entry.header().entry_type() {
            EntryType::Directory => format!("{name}/"),
            EntryType::Symlink => format!("{name} -> {}", entry.link_name().unwrap().unwrap().display()),
            _ => format!("{name} has {}", entry.size()),
        });
    }
    Ok((lines, copied))
}

#[test]
fn what_is_sent_is_named_as_the_path_ends() {
    let place = place();
    let _socket = UnixListener::bind(place.path().join("dir/socket")).unwrap();
    symlink("/etc/passwd", place.path().join("dir/link")).unwrap();
    let lines = |path: &str, follow| packed(&place.path().join(path), follow).map(|(lines, _)| lines);
    let tree = ["dir/", "dir/kept has 1", "dir/link -> /etc/passwd"];
    let under = |name: &str| tree.map(|line| line.replacen("dir", name, 1)).to_vec();
    assert_eq!(lines("dir", false), Ok(under("dir")));
    assert_eq!(lines("dir/", false), Ok(under("dir")));
    assert_eq!(lines("to-dir", true), Ok(under("to-dir")));
    assert_eq!(lines("to-dir/", false), Ok(under("to-dir")), "a slash follows, as everywhere");
    assert_eq!(lines("to-dir", false), Ok(vec!["to-dir -> dir".to_owned()]));
    let content = ["./", "kept has 1", "link -> /etc/passwd"].map(str::to_owned).to_vec();
    assert_eq!(lines("dir/.", false), Ok(content));
    assert_eq!(lines("dir/../old", false), Ok(vec!["old has 1".to_owned()]));
    assert_eq!(lines("to-old", true), Ok(vec!["to-old has 1".to_owned()]));
    assert!(lines("none", false).unwrap_err().starts_with("cannot read "));
    assert!(lines("dir/socket", false).unwrap_err().ends_with("which is not copied"));
    let (_, copied) = packed(&place.path().join("dir"), false).unwrap();
    assert_eq!((copied.files, copied.bytes), (1, 1));
    assert_eq!(copied.skipped, [(place.path().join("dir/socket"), "it is a socket, a pipe or a device")]);
}

#[test]
fn what_is_sent_arrives_the_same() {
    let place = place();
    let long = "n".repeat(200);
    fs::create_dir_all(place.path().join("dir").join(&long).join(&long)).unwrap();
    fs::write(place.path().join("dir").join(&long).join("x"), "y".repeat(100_000)).unwrap();
    fs::set_permissions(place.path().join("dir/kept"), fs::Permissions::from_mode(0o640)).unwrap();
    let source = Source::find(&place.path().join("dir"), false).unwrap();
    let mut bytes = Vec::new();
    pack::pack(&source, &mut bytes).unwrap();
    let begun = Begun { name: "dir".to_owned(), directory: true, ..Begun::default() };
    let target = Target::choose(&place.path().join("copy"), &begun, false).unwrap();
    let done = unpack::unpack(target, "dir", false, bytes.as_slice()).unwrap();
    assert_eq!((done.files, done.bytes), (2, 100_001));
    assert_eq!(content(&place.path().join("copy")), content(&place.path().join("dir")));
    let mode = fs::metadata(place.path().join("copy/kept")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn a_compressed_archive_is_told_by_how_it_begins() {
    assert_eq!(compression(&[0x1f, 0x8b, 8, 0]), Some("gzip"));
    assert_eq!(compression(&[0x28, 0xb5, 0x2f, 0xfd]), Some("zstd"));
    assert_eq!(compression(b"BZh9"), Some("bzip2"));
    assert_eq!(compression(&archive(&[file("f", "")])), None);
    assert_eq!(compression(b""), None);
}

#[test]
fn of_much_that_was_left_out_some_is_named() {
    let mut copied = Copied::default();
    for at in 0..12 {
        copied.skip(Path::new(&format!("/p{at}")), GONE);
    }
    assert_eq!(copied.skipped.len(), NAMED, "a container may have any number");
    let notes = notes(&copied);
    assert_eq!(notes.len(), 11);
    assert_eq!(notes[0], "note: /p0 is left out: it is gone");
    assert_eq!(notes[10], "note: 2 more are left out");
}

const GONE: &str = "it is gone";

#[test]
fn what_cannot_be_meant_is_a_question_of_usage() {
    for (error, code) in [
        (CopyError::NoContainer, 2),
        (CopyError::TwoContainers, 2),
        (CopyError::Terminal, 2),
        (CopyError::Compressed("gzip"), 1),
        (CopyError::NotADirectory("x".into()), 1),
    ] {
        assert_eq!(error.exit().code(), code, "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
    let hung_up = CopyError::Send { path: "x".into(), source: io::ErrorKind::BrokenPipe.into() };
    assert!(hung_up.is_hung_up() && !CopyError::Special("x".into()).is_hung_up());
}
