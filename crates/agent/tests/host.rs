//! What of the agent takes root and overlayfs.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use image::{Change, Edits, LayerFailure, Store};
use runtime::{Launch, Limits, LogPolicy, Options, layer};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, mknodat, setxattr};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// The directory of a container's attempt, as far as its writable layer is concerned.
fn attempt(dir: &Path, layers: Vec<PathBuf>) {
    fs::create_dir_all(dir.join("upper")).unwrap();
    fs::set_permissions(dir.join("upper"), Permissions::from_mode(0o755)).unwrap();
    let launch = Launch {
        version: Launch::VERSION,
        task: "s1-1-1".to_owned(),
        attempt: 1,
        hostname: "box".to_owned(),
        layers,
        args: vec!["true".to_owned()],
        env: Vec::new(),
        cwd: String::new(),
        user: None,
        netns: None,
        cgroup: "/never".to_owned(),
        shim_cgroup: None,
        limits: Limits::default(),
        labels: BTreeMap::new(),
        seccomp: PathBuf::new(),
        stop_signal: 15,
        log: LogPolicy::default(),
        files: BTreeMap::from([("/etc/hosts".into(), String::new())]),
        terminal: false,
        stdin: false,
        options: Options::default(),
    };
    launch.save(dir).unwrap();
}

/// A root file system that is unmounted also when the test fails.
struct Mounted(TempDir);

impl Mounted {
    /// `layers` are the lowest first; `upper` is what a container writes to, if it may.
    fn of(layers: &[PathBuf], upper: Option<&Path>) -> Self {
        let at = tempfile::tempdir().unwrap();
        let lower: Vec<String> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some(dir) = upper {
            fs::create_dir_all(dir.join("work")).unwrap();
            let dir = dir.display();
            options += &format!(",upperdir={dir}/upper,workdir={dir}/work");
        }
        let options = CString::new(options).unwrap();
        mount("overlay", at.path(), "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(at)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Everything in it, a line each.
    fn listing(&self) -> String {
        let (mut lines, mut links) = (String::new(), BTreeMap::new());
        let mut ahead = vec![PathBuf::new()];
        while let Some(path) = ahead.pop() {
            lines += &self.line(&path, &mut links);
            let here = self.0.path().join(&path);
            if fs::symlink_metadata(&here).unwrap().is_dir() {
                let mut below: Vec<PathBuf> =
                    fs::read_dir(here).unwrap().map(|entry| path.join(entry.unwrap().file_name())).collect();
                below.sort();
                below.reverse();
                ahead.extend(below);
            }
        }
        lines
    }

    fn line(&self, path: &Path, links: &mut BTreeMap<u64, PathBuf>) -> String {
        let here = self.0.path().join(path);
        let about = fs::symlink_metadata(&here).unwrap();
        let (mode, uid, gid) = (about.mode(), about.uid(), about.gid());
        let mut line = format!("/{} {mode:o} {uid}:{gid}", path.display());
        line += &format!(" {}.{:09}", about.mtime(), about.mtime_nsec());
        if about.is_symlink() {
            line += &format!(" -> {}", fs::read_link(&here).unwrap().display());
        }
        if about.is_file() {
            let content = fs::read(&here).unwrap();
            let sum = content.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
            line += &format!(" {} bytes, {sum:x}", content.len());
            let mut note = [0; 100];
            if let Ok(length) = lgetxattr(&here, "user.note", &mut note[..]) {
                line += &format!(" note {:?}", String::from_utf8_lossy(&note[..length]));
            }
            if about.nlink() > 1 {
                let first = links.entry(about.ino()).or_insert_with(|| path.to_owned());
                line += &format!(" = /{}", first.display());
            }
        }
        line + "\n"
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = unmount(self.0.path(), UnmountFlags::DETACH);
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
    }
}

fn write(path: PathBuf, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// What a container might do to its files.
fn change(root: &Mounted) {
    write(root.at("etc/new"), "new");
    write(root.at("etc/kept"), "changed");
    fs::remove_file(root.at("etc/gone")).unwrap();
    fs::set_permissions(root.at("bin/tool"), Permissions::from_mode(0o4711)).unwrap();
    chown(root.at("etc/new"), Some(1000), Some(3_000_000)).unwrap();
    fs::remove_dir_all(root.at("app")).unwrap();
    write(root.at("app/fresh"), "after the other one");
    fs::remove_dir_all(root.at("lib")).unwrap();
    write(root.at("lib"), "a file in place of a directory");
    fs::remove_file(root.at("was-a-file")).unwrap();
    write(root.at("was-a-file/in-it"), "and the other way round");
    fs::rename(root.at("etc/from"), root.at("etc/to")).unwrap();
    fs::hard_link(root.at("etc/new"), root.at("bin/again")).unwrap();
    symlink("../etc//new", root.at("bin/link")).unwrap();
    mknodat(CWD, root.at("run-pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    let sparse = File::create(root.at("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 3 << 20).unwrap();
    setxattr(root.at("bin/tool"), "user.note", b"a b", XattrFlags::empty()).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::open(root.at("etc/kept")).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
    let deep = "d/".repeat(60) + "deep";
    write(root.at(&deep), "below");
    // What gantry mounts over is not the container's.
    write(root.at("etc/hosts"), "");
    fs::remove_file(root.at("etc/hosts")).unwrap();
}

#[test]
fn a_committed_container_has_the_files_that_it_had() {
    let bed = tempfile::tempdir().unwrap();
    let store = Store::open(&bed.path().join("images")).unwrap();
    let base = bed.path().join("base");
    attempt(&base, Vec::new());
    for path in
        ["etc/kept", "etc/gone", "etc/from", "etc/same", "bin/tool", "app/old/file", "lib/x", "was-a-file"]
    {
        write(base.join("upper").join(path), path);
    }
    let mut archive = Vec::new();
    layer::write(&base, &mut archive).unwrap();
    let image = store.import(archive.as_slice(), &mut |_| {}).unwrap().digest;
    let layers = store.unpack(&image).unwrap().layers;

    let dir = bed.path().join("task");
    attempt(&dir, layers.clone());
    let seen = {
        let root = Mounted::of(&layers, Some(&dir));
        change(&root);
        root.listing()
    };
    let edits = Edits {
        created: SystemTime::now(),
        author: None,
        message: None,
        changes: vec![Change::parse("CMD [\"/bin/tool\"]").unwrap()],
    };
    let written = |sink: &mut dyn Write| layer::write(&dir, sink).map_err(LayerFailure::from);
    let committed = store.commit(&image, written, &edits).unwrap();
    let unpacked = store.unpack(&committed.digest).unwrap();
    assert_eq!(unpacked.config.cmd, ["/bin/tool"]);
    let found = Mounted::of(&unpacked.layers, None).listing();
    assert!(found.contains("/etc/same ") && !found.contains("/etc/gone "), "{found}");
    assert_eq!(found, seen);
}
