//! On a directory that stands for a container's root. Needs root, as an agent has it: what is unpacked gets an owner.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, open, renameat_with};
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::root::DIRECTORY;
use super::*;

const KEEP_NAMES: Unpack = Unpack { keep_owner: false, rename: false };
const RENAME: Unpack = Unpack { keep_owner: false, rename: true };

/// A root, and beside it what nobody in it may reach.
struct Bed {
    dir: TempDir,
    root: fs::File,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("outside/x"), "secret").unwrap();
        let root = open(dir.path().join("root"), DIRECTORY, Mode::empty()).unwrap().into();
        Self { dir, root }
    }

    /// A path in the root, as this machine has it.
    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    /// Makes a file with its directories.
    fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.path(path)).unwrap();
    }

    /// What comes out, a line each entry.
    fn out(&self, path: &str, follow: bool) -> Result<Vec<String>, String> {
        let mut archive = Vec::new();
        let source = Source::find(&self.root, path, follow).map_err(|error| error.to_string())?;
        source.archive(&mut archive).map_err(|error| error.to_string())?;
        Ok(listed(&archive))
    }

    fn unpack(&self, path: &str, how: Unpack, archive: &[u8]) -> Result<(), String> {
        write::unpack(&self.root, path, how, archive).map_err(|error| error.to_string())
    }

    /// All that is in the root, a line each.
    fn content(&self) -> Vec<String> {
        let mut lines = Vec::new();
        look(&self.path(""), "", &mut lines);
        lines
    }

    #[track_caller]
    fn nothing_got_out(&self) {
        let outside = self.dir.path().join("outside");
        assert_eq!(fs::read_to_string(outside.join("x")).unwrap(), "secret");
        assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
    }
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
        } else if kind.is_file() {
            lines.push(format!("{name}: {}", fs::read_to_string(entry.path()).unwrap()));
        } else {
            lines.push(format!("{name} is special"));
        }
    }
}

fn listed(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    archive.entries().unwrap().map(line).collect()
}

fn line(entry: io::Result<tar::Entry<'_, &[u8]>>) -> String {
    let mut entry = entry.unwrap();
    let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
    match entry.header().entry_type() {
        EntryType::Directory => format!("{name}/"),
        EntryType::Symlink => format!("{name} -> {}", entry.link_name().unwrap().unwrap().display()),
        EntryType::Regular => {
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            format!("{name}: {content}")
        }
        other => format!("{name} is {other:?}"),
    }
}

/// An entry as it may be in an archive that nobody made with good intent.
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

fn link<'a>(name: &'a str, kind: EntryType, link: &'a str) -> Made<'a> {
    Made { name, kind, link, content: "", mode: 0o777 }
}

/// When everything in these archives was last changed, and whose it was.
const TIME: u64 = 1_700_000_000;
const OWNER: u32 = 1234;

fn archive(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Made { name, kind, link, content, mode } in entries {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(OWNER.into());
        header.set_gid(OWNER.into());
        header.set_mtime(TIME);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_tree_comes_out_under_its_own_name() {
    let bed = Bed::new();
    bed.file("srv/app/conf/a", "1");
    bed.file("srv/app/b", "2");
    bed.link("srv/app/l", "/etc/passwd");
    bed.link("current", "srv/app");
    let tree = ["app/", "app/b: 2", "app/conf/", "app/conf/a: 1", "app/l -> /etc/passwd"].map(str::to_owned);
    for path in ["/srv/app", "srv/app/", "/srv/../srv/app/."] {
        assert_eq!(bed.out(path, false).as_deref(), Ok(&tree[..]), "{path}");
    }
    assert_eq!(bed.out("/current", false), Ok(vec!["current -> srv/app".to_owned()]));
    let followed = tree.map(|line| line.replacen("app", "current", 1));
    assert_eq!(bed.out("/current", true).as_deref(), Ok(&followed[..]));
    assert_eq!(bed.out("/current/", false).as_deref(), Ok(&followed[..]), "a slash follows, as everywhere");
    assert_eq!(bed.out("/srv/app/b", false), Ok(vec!["b: 2".to_owned()]));
    let all = bed.out("/", false).unwrap();
    assert_eq!((all[0].as_str(), all[1].as_str()), ("./", "current -> srv/app"), "{all:?}");
    let found = Source::find(&bed.root, "/srv/app/b", false).unwrap().found().clone();
    assert_eq!(found, Found { name: "b".to_owned(), directory: false, size: 1 });
    assert_eq!(bed.out("/srv/none", false), Err("there is no /srv/none in the container".to_owned()));
    assert_eq!(bed.out("/srv/app/b/c", false), Err("there is no /srv/app/b/c in the container".to_owned()));
    assert_eq!(Source::find(&bed.root, "/none", false).unwrap_err().fault(), Fault::NotFound);
}

#[test]
fn what_goes_in_comes_out_the_same() {
    let bed = Bed::new();
    let long = "n".repeat(255);
    let deep = vec!["d"; 100].join("/");
    bed.file(&format!("from/{long}/{long}"), "long");
    bed.file(&format!("from/{deep}/x"), "deep");
    bed.link("from/link", &"../".repeat(60));
    let mut archive = Vec::new();
    Source::find(&bed.root, "/from", false).unwrap().archive(&mut archive).unwrap();
    bed.unpack("/to", RENAME, &archive).unwrap();
    let from = bed.out("/from", false).unwrap();
    let to = bed.out("/to", false).unwrap();
    let renamed: Vec<String> = from.iter().map(|line| line.replacen("from", "to", 1)).collect();
    assert_eq!(to, renamed);
    assert!(from.len() > 100 && from.iter().any(|line| line.ends_with("x: deep")), "{from:?}");
}

#[test]
fn no_path_leads_outside() {
    let bed = Bed::new();
    bed.file("inside", "mine");
    bed.link("up", "../outside");
    bed.link("far", "../../../../../../../../../../etc");
    bed.link("absolute", bed.dir.path().join("outside").to_str().unwrap());
    bed.link("own", "/inside");
    bed.link("round", "/trip");
    bed.link("trip", "/round");
    for path in ["../outside/x", "/../outside/x", "up/x", "absolute/x", "far/passwd", "up/../../outside/x"] {
        let error = bed.out(path, true).unwrap_err();
        assert_eq!(error, format!("there is no {path} in the container"));
        let into = bed.unpack(path, RENAME, &archive(&[file("y", "new")])).unwrap_err();
        assert!(into.starts_with("there is no "), "{path}: {into}");
    }
    assert_eq!(bed.out("/own", true), Ok(vec!["own: mine".to_owned()]), "the root is the container's");
    let endless = "/round in the container leads from link to link without an end";
    assert_eq!(bed.out("/round", true), Err(endless.to_owned()));
    assert_eq!(bed.unpack("/round", KEEP_NAMES, &archive(&[])), Err(endless.to_owned()));
    bed.nothing_got_out();
}

/// Unpacks into a root with a directory `dir`, a file `old` and links to both; what it said, or what was there then.
fn unpacked(path: &str, how: Unpack, archive: &[u8]) -> String {
    let bed = Bed::new();
    bed.file("dir/kept", "k");
    bed.file("old", "o");
    bed.link("to-dir", "dir");
    bed.link("to-old", "/old");
    match bed.unpack(path, how, archive) {
        Ok(()) => {
            let unchanged = ["dir/", "dir/kept: k", "old: o", "to-dir -> dir", "to-old -> /old"];
            let changed = bed.content().into_iter().filter(|line| !unchanged.contains(&line.as_str()));
            changed.collect::<Vec<_>>().join(", ")
        }
        Err(error) => error,
    }
}

#[test]
fn an_archive_goes_where_docker_puts_it() {
    let a_file = archive(&[file("f", "new")]);
    let a_directory = archive(&[directory("d/"), file("d/f", "new")]);
    let content = archive(&[directory("./"), file("f", "new"), directory("e"), file("e/g", "deep")]);
    for (path, archive, expected) in [
        ("/f2", &a_file, "f2: new"),
        ("/none/f2", &a_file, "there is no /none in the container"),
        ("/f2/", &a_file, "there is no /f2 in the container"),
        ("/old", &a_file, "old: new"),
        ("/to-old", &a_file, "old: new"),
        ("/dir", &a_file, "dir/f: new"),
        ("/to-dir", &a_file, "dir/f: new"),
        ("/d2", &a_directory, "d2/, d2/f: new"),
        ("/d2/", &a_directory, "d2/, d2/f: new"),
        ("/old", &a_directory, "/old in the container is not a directory, so none can be copied over it"),
        ("/dir", &a_directory, "dir/d/, dir/d/f: new"),
        ("/", &a_directory, "d/, d/f: new"),
        ("/dir", &content, "dir/e/, dir/e/g: deep, dir/f: new"),
        ("/d2", &content, "d2/, d2/e/, d2/e/g: deep, d2/f: new"),
    ] {
        assert_eq!(unpacked(path, RENAME, archive), expected, "{path}");
    }
    for (path, expected) in [
        ("/dir", "dir/f: new"),
        ("/none", "there is no /none in the container"),
        ("/old", "/old in the container is not a directory"),
    ] {
        assert_eq!(unpacked(path, KEEP_NAMES, &a_file), expected, "{path}");
    }
    let two = archive(&[directory("a"), file("b", "")]);
    assert_eq!(unpacked("/new", RENAME, &two), "the archive has b beside its one file or directory");
    let over = archive(&[file("dir", "")]);
    let refused = "/dir in the container is a directory, so no file can be copied over it";
    assert_eq!(unpacked("/", KEEP_NAMES, &over), refused);
}

#[test]
fn a_hostile_archive_writes_nothing_outside() {
    use EntryType::{Link, Symlink};
    for (entries, said) in [
        (
            vec![file("../outside/y", "")],
            "the archive names ../outside/y, which is outside of where it is unpacked",
        ),
        (vec![file("a/../../outside/y", "")], "the archive names a/../../outside/y"),
        (
            vec![link("l", Symlink, "../../outside"), file("l/y", "")],
            "/dir/l in the container is a link or a file, through which nothing is copied",
        ),
        (vec![link("l", Symlink, "/"), directory("l")], "/dir/l in the container is not a directory"),
        (
            vec![link("l", Symlink, "/outside"), link("m", Link, "l/x")],
            "/dir/l in the container is a link or a file",
        ),
        (vec![link("m", Link, "../../outside/x")], "the archive names ../../outside/x"),
        (vec![link("m", Link, "/")], "the archive cannot be read"),
        (vec![link("m", EntryType::new(b'?'), "")], "the archive cannot be read"),
    ] {
        let bed = Bed::new();
        bed.file("dir/kept", "k");
        let error = bed.unpack("/dir", KEEP_NAMES, &archive(&entries)).unwrap_err();
        assert!(error.starts_with(said), "{error}");
        bed.nothing_got_out();
    }
    // A link in the place of a file is replaced and not written through.
    let bed = Bed::new();
    let through = archive(&[link("l", Symlink, "../outside/x"), file("l", "mine"), file("/abs", "here")]);
    bed.unpack("/", KEEP_NAMES, &through).unwrap();
    assert_eq!(bed.content(), ["abs: here", "l: mine"]);
    bed.nothing_got_out();
}

#[test]
fn an_archive_that_is_cut_or_says_too_much_is_refused() {
    let bed = Bed::new();
    let whole = archive(&[file("f", &"x".repeat(5000))]);
    for length in [100, 600, 3000] {
        let error = bed.unpack("/", KEEP_NAMES, &whole[..length]).unwrap_err();
        assert_eq!(error, "the archive cannot be read", "{length}");
    }
    bed.unpack("/", KEEP_NAMES, &whole).unwrap();
    let long = "n".repeat(9 << 20);
    let endless = archive(&[Made { kind: EntryType::GNULongName, content: &long, ..file("x", "") }]);
    let error = write::unpack(&bed.root, "/", KEEP_NAMES, endless.as_slice()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "what is said of one file is longer than 8 MiB");
}

#[test]
fn owner_mode_and_time_are_as_asked() {
    let entries = archive(&[
        Made { mode: 0o3751, ..directory("d") },
        Made { mode: 0o6755, ..file("d/f", "x") },
        link("d/l", EntryType::Symlink, "f"),
        link("d/h", EntryType::Link, "d/f"),
        link("d/p", EntryType::Fifo, ""),
    ]);
    let seen = |bed: &Bed, path: &str| {
        let about = fs::symlink_metadata(bed.path(path)).unwrap();
        (about.uid(), about.gid(), about.mode() & 0o7777, about.mtime())
    };
    let time = i64::try_from(TIME).unwrap();
    let bed = Bed::new();
    bed.unpack("/", KEEP_NAMES, &entries).unwrap();
    assert_eq!(seen(&bed, "d"), (0, 0, 0o1751, time), "not set-group-id");
    assert_eq!(seen(&bed, "d/f"), (0, 0, 0o755, time), "not set-user-id");
    assert_eq!(seen(&bed, "d/l"), (0, 0, 0o777, time));
    assert!(fs::metadata(bed.path("d/p")).unwrap().file_type().is_fifo());
    let inode = |path: &str| fs::metadata(bed.path(path)).unwrap().ino();
    assert_eq!(inode("d/h"), inode("d/f"));

    let bed = Bed::new();
    let keep = Unpack { keep_owner: true, ..KEEP_NAMES };
    bed.unpack("/", keep, &entries).unwrap();
    assert_eq!(seen(&bed, "d"), (OWNER, OWNER, 0o3751, time));
    assert_eq!(seen(&bed, "d/f"), (OWNER, OWNER, 0o6755, time));
    assert_eq!(seen(&bed, "d/l"), (OWNER, OWNER, 0o777, time));

    let bed = Bed::new();
    bed.file("d/f", "old");
    fs::set_permissions(bed.path("d"), fs::Permissions::from_mode(0o1777)).unwrap();
    bed.unpack("/", KEEP_NAMES, &entries).unwrap();
    assert_eq!(seen(&bed, "d").2, 0o1777, "a directory that was there stays as it was");
    assert_eq!(fs::read_to_string(bed.path("d/f")).unwrap(), "x");
}

#[test]
fn special_files_are_entries_and_sockets_are_left_out() {
    let bed = Bed::new();
    fs::create_dir(bed.path("d")).unwrap();
    let _socket = UnixListener::bind(bed.path("d/socket")).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, bed.path("d/pipe"), FileType::Fifo, mode, 0).unwrap();
    assert_eq!(bed.out("/d", false), Ok(vec!["d/".to_owned(), "d/pipe is Fifo".to_owned()]));
    let socket = "/d/socket in the container is a socket, of which there is nothing to copy";
    assert_eq!(bed.out("/d/socket", false), Err(socket.to_owned()));
}

#[test]
fn a_bottomless_tree_is_given_up() {
    let bed = Bed::new();
    let deep = vec!["d"; DEEPEST + 1].join("/");
    fs::create_dir_all(bed.path(&deep)).unwrap();
    let error = bed.out("/d", false).unwrap_err();
    assert!(error.ends_with("/d is more than 256 directories deep"), "{error}");
}

#[test]
fn big_and_sparse_files_are_read_as_they_are() {
    /// Counts what passes, and keeps the last block that holds something.
    struct Sink(u64, Vec<u8>);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            if bytes.iter().any(|byte| *byte != 0) {
                self.1 = bytes.to_vec();
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    const SIZE: u64 = 256 << 20;
    let bed = Bed::new();
    let hole = fs::File::create(bed.path("hole")).unwrap();
    hole.set_len(SIZE).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&hole, b"end", SIZE - 3).unwrap();
    let mut sink = Sink(0, Vec::new());
    Source::find(&bed.root, "hole", false).unwrap().archive(&mut sink).unwrap();
    // The file between its header and the archive's end.
    assert_eq!(sink.0, 512 + SIZE + 1024);
    assert!(sink.1.ends_with(b"end"));
}

/// Runs `copy` while `swap` is now a directory with a file `x`, and now a link to what is outside.
fn while_swapped(target: &str, mut copy: impl FnMut(&Bed)) {
    let bed = Bed::new();
    bed.file("swap/x", "inside");
    bed.file("swap/sub/x", "inside");
    let target = if target.is_empty() { bed.dir.path().join("outside") } else { target.into() };
    symlink(target, bed.path("other")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (one, other) = (bed.path("swap"), bed.path("other"));
        let done = &done;
        let swapper = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..10_000 {
            copy(&bed);
        }
        done.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
    });
    bed.nothing_got_out();
}

/// What the link leads to; empty is the absolute path of what is outside.
const TARGETS: [&str; 2] = ["../outside", ""];

#[test]
fn a_container_that_swaps_links_has_nothing_of_the_node_read() {
    for target in TARGETS {
        let mut leaked = Vec::new();
        let mut turn = 0;
        while_swapped(target, |bed| {
            turn += 1;
            let path = ["/swap/x", "/swap", "/swap/sub/../x", "/swap/."][turn % 4];
            if let Ok(lines) = bed.out(path, turn % 3 == 0)
                && lines.iter().any(|line| line.contains("secret"))
            {
                leaked.push(path);
            }
        });
        assert!(leaked.is_empty(), "{leaked:?}");
    }
}

#[test]
fn a_container_that_swaps_links_has_nothing_of_the_node_written() {
    let here = archive(&[file("x", "mine")]);
    let below = archive(&[directory("swap"), file("swap/x", "mine")]);
    for target in TARGETS {
        let mut turn = 0;
        while_swapped(target, |bed| {
            turn += 1;
            // Where it comes to nothing, it is refused, which is as good.
            let _refused = match turn % 3 {
                0 => bed.unpack("/swap", KEEP_NAMES, &here),
                1 => bed.unpack("/swap/x", RENAME, &here),
                _ => bed.unpack("/", KEEP_NAMES, &below),
            };
        });
    }
}
