//! The process that unpacks a layer: what it is left with, and that nothing of it stays whatever happens to it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, Metadata};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use image::{Fault, IngestLayer, IngestLayerError, Store, UNPACK_ARGUMENT, Unpacker};
use model::{Bytes, Digest};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::cluster::{Call, PROGRAM, until};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP.
const CAPABILITIES: &str = "000000008800001b";
const NONE: &str = "0000000000000000";

/// A layer under construction. Of all entries: owner 7:8, time 1000.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        // Past the builder's own checks.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        let is_file = kind == EntryType::Regular;
        header.set_size(if is_file { content.len() as u64 } else { 0 });
        if is_file {
            header.set_cksum();
            self.0.append(&header, content).unwrap();
        } else {
            // What a link leads to; of other kinds there is nothing to say here.
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
            if kind == EntryType::Char {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            header.set_cksum();
            self.0.append(&header, &b""[..]).unwrap();
        }
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, 0o644, content)
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn digest(content: &[u8]) -> Digest {
    Digest(Sha256::digest(content).into())
}

/// A store whose layers are unpacked by the program under test.
struct Images {
    root: TempDir,
    store: Store,
}

impl Images {
    fn new() -> Self {
        Self::patient(Duration::from_secs(60))
    }

    fn patient(patience: Duration) -> Self {
        let program = || {
            let mut program = Command::new(PROGRAM);
            program.arg(UNPACK_ARGUMENT).env_clear().current_dir("/");
            program
        };
        let unpacker = Unpacker::new(program).unwrap().with_patience(patience);
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap().with_unpacker(unpacker);
        Self { root, store }
    }

    /// As they would be unpacked by the daemon itself.
    fn without_unpacker() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        Self { root, store }
    }

    fn begin(&self, layer: &[u8]) -> IngestLayer {
        self.store.ingest_layer(&digest(layer), Bytes(layer.len() as u64), digest(layer)).unwrap()
    }

    /// The tree of a layer that comes in pieces.
    fn arrive(&self, layer: &[u8]) -> Result<PathBuf, IngestLayerError> {
        let mut ingest = self.begin(layer);
        for piece in layer.chunks(1000) {
            ingest.write(piece)?;
        }
        ingest.finish()?;
        Ok(self.root.path().join(format!("layers/{}/fs", digest(layer).hex())))
    }

    /// The one process that unpacks into this store.
    fn process(&self) -> Pid {
        let mut found = Vec::new();
        until("the process to be there", || {
            found = naming(self.root.path());
            !found.is_empty()
        });
        assert_eq!(found.len(), 1);
        found[0]
    }

    /// No blob, no tree, finished or not, and no process.
    #[track_caller]
    fn assert_empty(&self) {
        for directory in ["ingest", "blobs/sha256", "layers"] {
            let left: Vec<_> = fs::read_dir(self.root.path().join(directory)).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        }
        assert_eq!(naming(self.root.path()), []);
    }
}

/// The living processes that have this path among their arguments.
fn naming(path: &Path) -> Vec<Pid> {
    let path = path.to_str().unwrap();
    let all = fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
    let names = |pid: &Pid| fs::read_to_string(of(*pid, "cmdline")).is_ok_and(|line| line.contains(path));
    all.filter(names).collect()
}

fn of(pid: Pid, file: &str) -> String {
    format!("/proc/{}/{file}", pid.as_raw_nonzero())
}

/// A line of a process's status; empty when it is gone.
fn status(pid: Pid, field: &str) -> String {
    let status = fs::read_to_string(of(pid, "status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Not even a zombie is left of it.
fn is_gone(pid: Pid) -> bool {
    !Path::new(&of(pid, "status")).exists()
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Gone also when the test fails.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _dead_already = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn start(directory: &Path) -> Guarded {
    let mut program = Command::new(PROGRAM);
    program.arg(UNPACK_ARGUMENT).arg(directory).env_clear();
    let pipes = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Guarded(pipes.spawn().unwrap())
}

/// Which file it is, whatever it is called.
fn which(path: impl AsRef<Path>) -> (u64, u64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.dev(), metadata.ino())
}

#[test]
fn an_unpacker_is_left_with_what_unpacking_takes_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    // Not close-on-exec, as a careless library would have it.
    let leaked = rustix::fs::open("/etc/passwd", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut unpacker = start(directory.path());
    drop(leaked);
    let pid = Pid::from_child(&unpacker.0);
    until("it to be confined", || status(pid, "Seccomp") == "2");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(pid, set), CAPABILITIES, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(pid, set), NONE, "{set}");
    }
    assert_eq!((status(pid, "NoNewPrivs"), status(pid, "Threads")), ("1".to_owned(), "1".to_owned()));
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let file = format!("ns/{namespace}");
        let ours = fs::read_link(format!("/proc/self/{file}")).unwrap();
        assert_ne!(fs::read_link(of(pid, &file)).unwrap(), ours);
    }
    assert_eq!(which(of(pid, "root")), which(&directory));
    assert_eq!(which(of(pid, "cwd")), which(&directory));
    let mounts = fs::read_to_string(of(pid, "mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / rw,nosuid,nodev,noexec"), "{mounts}");
    let open = || {
        let open = fs::read_dir(of(pid, "fd")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut open: Vec<String> = open.map(|name| name.into_string().unwrap()).collect();
        open.sort();
        open
    };
    until("it to have its pipes and the directory open", || open() == ["0", "1", "2", "3"]);
    assert_eq!(which(of(pid, "fd/3")), which(&directory));
    let limits = fs::read_to_string(of(pid, "limits")).unwrap();
    for (limit, most) in [("Max core file size", "0"), ("Max open files", "64"), ("Max cpu time", "3600")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [most, most], "{limit}");
    }
    assert_eq!(fs::read_to_string(of(pid, "oom_score_adj")).unwrap().trim(), "1000");

    let layer = Layer::new().file("file", b"content").bytes();
    let mut input = unpacker.0.stdin.take().unwrap();
    input.write_all(&layer).unwrap();
    drop(input);
    let said = std::io::read_to_string(unpacker.0.stdout.take().unwrap()).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["unpacked"]["diff_id"], digest(&layer).to_string());
    assert_eq!(said["unpacked"]["entries"], 1);
    assert_eq!(said["unpacked"]["bytes"], 7);
    assert!(unpacker.0.wait().unwrap().success());
    assert_eq!(fs::read_to_string(directory.path().join("file")).unwrap(), "content");
}

#[test]
fn an_unpacker_that_is_called_by_hand_spoils_nothing() {
    let ended = Call::gantry([UNPACK_ARGUMENT]).end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended}");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("mine"), "mine").unwrap();
    let layer = Layer::new().file("mine", b"not yours").bytes();
    let ended = Call::gantry([Path::new(UNPACK_ARGUMENT), directory.path()]).input(layer).end();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.stdout.contains("is not empty"), "{ended}");
    assert_eq!(fs::read_to_string(directory.path().join("mine")).unwrap(), "mine");
}

/// Every file beneath with all that can be told of it.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut tree = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        tree.insert(path.strip_prefix(root).unwrap().to_owned(), told(&path, &metadata));
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    tree
}

fn told(path: &Path, metadata: &Metadata) -> String {
    let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
    let content = if metadata.is_symlink() {
        format!("{:?}", fs::read_link(path).unwrap())
    } else if metadata.is_file() {
        format!("{:?}", fs::read(path).unwrap())
    } else {
        String::new()
    };
    let attributes = ["user.note", "security.capability", "trusted.overlay.opaque"].map(|name| {
        let mut value = [0_u8; 64];
        rustix::fs::lgetxattr(path, name, &mut value).ok().map(|length| value[..length].to_vec())
    });
    // What has no entry of its own is of the moment at which it was made.
    let has_its_time = metadata.mtime() == 1000;
    let (device, links) = (metadata.rdev(), metadata.nlink());
    format!("{mode:o} {owner:?} {has_its_time} {device} {links} {content} {attributes:?}")
}

#[test]
fn an_unpacker_makes_the_tree_that_the_daemon_would_make() {
    // CAP_NET_BIND_SERVICE, permitted and effective, in version 2 of the kernel's format.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::new()
        .entry("./", EntryType::Directory, 0o711, b"")
        .entry("usr/lib/", EntryType::Directory, 0o1777, b"")
        .entry("lib", EntryType::Symlink, 0o777, b"usr/lib")
        .file("lib/through-a-link", b"x")
        .entry("su", EntryType::Regular, 0o4755, b"setuid")
        .entry("su-again", EntryType::Link, 0, b"su")
        .pax(&[
            ("SCHILY.xattr.user.note", b"a note"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("attributes", b"")
        .entry("null", EntryType::Char, 0o666, b"")
        .entry("fifo", EntryType::Fifo, 0o600, b"")
        .file(".wh.gone", b"")
        .file("lib/.wh..wh..opq", b"")
        .file("made/on/the/way", b"x")
        .file("large", &vec![7; 3 << 20])
        .bytes();
    let (confined, own) = (Images::new(), Images::without_unpacker());
    let confined = tree(&confined.arrive(&layer).unwrap_or_else(|error| panic!("{}", chain(&error))));
    assert_eq!(confined, tree(&own.arrive(&layer).unwrap()));
    assert!(confined[Path::new("usr/lib")].contains("Some([121])"), "{confined:?}");
    assert!(!confined[Path::new("attributes")].contains("Some([121])"), "{confined:?}");
}

#[test]
fn a_layer_that_an_unpacker_refuses_leaves_nothing_and_the_reason_is_told() {
    let images = Images::new();
    let whole = Layer::new().file("file", &[7; 5000]).bytes();
    for (layer, says) in [
        (Layer::new().file("../escape", b"x").bytes(), "it leads out of the root with `..`"),
        (Layer::new().entry("x", EntryType::Link, 0, b"etc/passwd").bytes(), "is not in the layer"),
        (whole[..3000].to_vec(), "cannot make entry `file`: unexpected end of file"),
        (vec![0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0], "too much memory"),
        (b"no tar at all".repeat(1000), "there is no tar header at byte 0"),
        // Made to be read by whoever looks at the error.
        (Layer::new().file("\u{1b}[2J/../x", b"").bytes(), "`\\u{1b}[2J/../x`"),
    ] {
        let error = images.arrive(&layer).unwrap_err();
        let text = chain(&error);
        assert!(text.starts_with("cannot unpack layer sha256:") && text.contains(says), "{text}");
        let IngestLayerError::Layer { source, .. } = error else { panic!("{text}") };
        assert_eq!(source.fault(), Fault::Layer, "{text}");
        images.assert_empty();
    }
}

#[test]
fn a_blob_that_is_not_the_one_that_was_asked_for_takes_its_tree_along() {
    let images = Images::new();
    let layer = Layer::new().file("file", b"content").bytes();
    let asked = digest(b"another");
    let mut ingest = images.store.ingest_layer(&asked, Bytes(1 << 20), digest(&layer)).unwrap();
    let pid = images.process();
    ingest.write(&layer).unwrap();
    let error = ingest.finish().unwrap_err();
    assert!(matches!(error, IngestLayerError::Blob(_)), "{}", chain(&error));
    assert!(is_gone(pid));
    images.assert_empty();
}

#[test]
fn an_unpacker_that_is_killed_in_the_middle_leaves_nothing_and_the_download_goes_on() {
    let images = Images::new();
    let layer = Layer::new().file("first", b"x").file("large", &vec![7; 3 << 20]).bytes();
    let mut ingest = images.begin(&layer);
    let pid = images.process();
    let (half, rest) = layer.split_at(layer.len() / 2);
    ingest.write(half).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    ingest.write(rest).unwrap();
    let text = chain(&ingest.finish().unwrap_err());
    assert!(text.contains("ended without a result, with signal: 9 (SIGKILL)"), "{text}");
    assert!(is_gone(pid));
    images.assert_empty();
    images.arrive(&layer).unwrap();
}

#[test]
fn an_unpacker_that_is_stuck_is_given_up() {
    let images = Images::patient(Duration::from_millis(100));
    // One that a pipe has room for, so that only its end is waited for, and one that it has not.
    for size in [1000, 1 << 20] {
        let layer = Layer::new().file("file", &vec![7; size]).bytes();
        let mut ingest = images.begin(&layer);
        let pid = images.process();
        kill_process(pid, Signal::STOP).unwrap();
        until("it to be stopped", || status(pid, "State").starts_with('T'));
        ingest.write(&layer).unwrap();
        let error = ingest.finish().unwrap_err();
        let text = chain(&error);
        assert!(text.contains("did nothing for 100ms and was killed"), "{text}");
        let IngestLayerError::Layer { source, .. } = error else { panic!("{text}") };
        assert_eq!(source.fault(), Fault::Machine, "{text}");
        assert!(is_gone(pid));
        images.assert_empty();
    }
}

#[test]
fn an_unpacker_is_gone_when_nobody_waits_for_it_any_more() {
    let images = Images::new();
    let layer = Layer::new().file("first", b"x").file("large", &vec![7; 1 << 20]).bytes();
    let mut ingest = images.begin(&layer);
    let pid = images.process();
    ingest.write(&layer[..100_000]).unwrap();
    drop(ingest);
    assert!(is_gone(pid));
    images.assert_empty();
}

#[test]
fn an_unpacker_does_not_outlive_who_started_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#""$0" "$1" "$2"; exit 1"#, PROGRAM, UNPACK_ARGUMENT]).arg(directory.path());
    let shell = Guarded(shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let parent = Pid::from_child(&shell.0);
    let child = || {
        let mut named = naming(directory.path()).into_iter();
        named.find(|pid| *pid != parent && status(*pid, "Seccomp") == "2")
    };
    until("the unpacker to be confined", || child().is_some());
    let pid = child().unwrap();
    kill_process(parent, Signal::KILL).unwrap();
    // Its stdin stays open, so that it is not for want of input that it ends.
    until("it to be gone", || is_gone(pid) || status(pid, "State").starts_with('Z'));
    drop(shell);
}
