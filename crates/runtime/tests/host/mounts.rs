//! What is mounted into a container, from the node and in memory.

use std::fs;
use std::path::{Path, PathBuf};

use model::Exit;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use runtime::launch::{
    Bind, Capabilities, Mount, MountKind, Options, Output, Privileges, Propagation, Server, Shared, Syslog,
    Tmpfs,
};
use runtime::logs::Stream;

use super::{Attempt, Bed, Test};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_read_only_root_is_read_only_and_memory_is_not", a_read_only_root_is_read_only_and_memory_is_not),
    ("files_and_directories_of_the_node_are_bound", files_and_directories_of_the_node_are_bound),
    ("mounts_are_within_mounts_in_whatever_order", mounts_are_within_mounts_in_whatever_order),
    ("what_is_read_only_is_so_to_its_depth", what_is_read_only_is_so_to_its_depth),
    ("later_mounts_show_where_they_are_to", later_mounts_show_where_they_are_to),
    ("what_is_not_there_is_a_reason", what_is_not_there_is_a_reason),
    ("shared_memory_has_its_size", shared_memory_has_its_size),
    ("gantrys_files_are_over_a_users_directory", gantrys_files_are_over_a_users_directory),
    ("output_goes_where_it_is_sent", output_goes_where_it_is_sent),
];

pub(crate) fn bind(source: &Path, target: &str) -> Mount {
    let bind =
        Bind { source: source.to_owned(), create: false, propagation: Propagation::Private, recursive: true };
    Mount { target: target.into(), read_only: false, kind: MountKind::Bind(bind) }
}

fn changed(mut mount: Mount, change: impl FnOnce(&mut Bind)) -> Mount {
    if let MountKind::Bind(bind) = &mut mount.kind {
        change(bind);
    }
    mount
}

pub(crate) fn tmpfs(target: &str) -> Mount {
    Mount { target: target.into(), read_only: false, kind: MountKind::Tmpfs(Tmpfs::default()) }
}

pub(crate) fn mounted(bed: &Bed, number: u64, script: &str, mounts: Vec<Mount>) -> Attempt {
    bed.given(number, script, Options { mounts, ..Options::default() })
}

/// A directory of the node's with a file in it.
pub(crate) fn directory(bed: &Bed, name: &str) -> PathBuf {
    let dir = bed.dir.join(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), format!("{name}\n")).unwrap();
    dir
}

/// A file system on the node, for as long as a test takes.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn at(path: PathBuf, propagation: MsFlags) -> Self {
        const NONE: Option<&str> = None;
        fs::create_dir_all(&path).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), NONE).unwrap();
        let mounted = Self(path);
        mount(NONE, &mounted.0, NONE, propagation, NONE).unwrap();
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // With what is mounted within it.
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn a_read_only_root_is_read_only_and_memory_is_not(bed: &Bed) {
    let scratch =
        Tmpfs { bytes: Some(1 << 20), mode: Some(0o750), uid: Some(33), gid: Some(34), exec: false };
    let programs = Tmpfs { exec: true, ..Tmpfs::default() };
    let memory = |target: &str, tmpfs, read_only| Mount {
        target: target.into(),
        read_only,
        kind: MountKind::Tmpfs(tmpfs),
    };
    let mounts = vec![
        memory("/scratch", scratch, false),
        memory("/programs", programs, false),
        memory("/empty", Tmpfs::default(), true),
    ];
    let script = "
        for dir in / /scratch /empty /etc; do
            (echo x > $dir/file) 2> /dev/null && echo $dir is writable || echo $dir is read-only
        done
        (echo x > /etc/hosts) 2> /dev/null || echo and so is what gantry put there
        stat -c '%a %u %g' /scratch; stat -c %a /programs
        for dir in /scratch /programs; do
            cp=$dir/true; cat /bin/busybox > $cp 2> /dev/null; chmod 755 $cp; $cp 2> /dev/null && echo $dir executes
        done
        grep -E ' /(scratch|programs) ' /proc/mounts";
    let mut attempt = bed.given(1, script, Options { read_only: true, mounts, ..Options::default() });
    attempt.launch.files = [("/etc/hosts".into(), "10.0.0.1 box\n".to_owned())].into();
    fs::create_dir(bed.dir.join("busybox/etc")).unwrap();
    let said = bed.said(&attempt);
    let expected = [
        "/ is read-only",
        "/scratch is writable",
        "/empty is read-only",
        "/etc is read-only",
        "and so is what gantry put there",
        "750 33 34",
        "1777",
        "/programs executes",
    ];
    assert_eq!(said[..expected.len()], expected);
    let (scratch, programs) = (&said[expected.len()], &said[expected.len() + 1]);
    for flag in ["rw", "nosuid", "nodev", "noexec", "size=1024k"] {
        assert!(scratch.contains(flag), "{scratch}");
    }
    assert!(programs.contains("nosuid") && !programs.contains("noexec"), "{programs}");
}

fn files_and_directories_of_the_node_are_bound(bed: &Bed) {
    let (data, other) = (directory(bed, "data"), directory(bed, "other"));
    let read_only = |mount: Mount| Mount { read_only: true, ..mount };
    let made = bed.dir.join("made/deep");
    let mounts = vec![
        read_only(bind(&data, "/data")),
        read_only(bind(&other.join("file"), "/srv/app.conf")),
        changed(bind(&made, "/made"), |bind| bind.create = true),
        bind(Path::new("/dev/zero"), "/dev/nothing"),
    ];
    let script = "cat /data/file /srv/app.conf
        (echo x > /data/file) 2> /dev/null || echo read-only
        (echo x > /srv/app.conf) 2> /dev/null || echo read-only
        echo by the container > /made/file
        head -c 3 /dev/nothing | wc -c; pwd";
    let mut attempt = mounted(bed, 1, script, mounts);
    attempt.launch.cwd = "/made/work".to_owned();
    assert_eq!(bed.said(&attempt), ["data", "other", "read-only", "read-only", "3", "/made/work"]);
    assert_eq!(fs::read_to_string(made.join("file")).unwrap(), "by the container\n");
    assert!(made.join("work").is_dir(), "the working directory is made where it is");
}

fn mounts_are_within_mounts_in_whatever_order(bed: &Bed) {
    let (outer, inner) = (directory(bed, "outer"), directory(bed, "inner"));
    // Through a link of the image's, which leads where it leads in the container.
    std::os::unix::fs::symlink("/run", bed.dir.join("busybox/var")).unwrap();
    let mounts = vec![
        bind(&inner.join("file"), "/data/a/b/file"),
        tmpfs("/data/a/b"),
        bind(&outer, "/data"),
        bind(&inner, "/run/inner"),
        bind(&inner, "/var/again"),
        tmpfs("/run"),
    ];
    let script = "cat /data/file /data/a/b/file /run/inner/file /run/again/file; ls /run; grep -c ' /data/a/b ' /proc/mounts";
    assert_eq!(
        bed.said(&mounted(bed, 1, script, mounts)),
        ["outer", "inner", "inner", "inner", "again", "inner", "1"]
    );
    assert!(outer.join("a/b").is_dir(), "the place for it is made in what it is in, as Docker does");

    let refusal = bed.refusal(&mounted(bed, 2, "true", vec![tmpfs("/run/x"), bind(&inner, "/var/x")]));
    assert!(refusal.contains("two mounts are at /var/x"), "{refusal}");
}

fn what_is_read_only_is_so_to_its_depth(bed: &Bed) {
    let data = directory(bed, "data");
    let _below = Mounted::at(data.join("below"), MsFlags::MS_PRIVATE);
    let script = "(echo x > /data/below/x) 2> /dev/null && echo writable || echo read-only; grep -c ' /data/below ' /proc/mounts";
    let deep = Mount { read_only: true, ..bind(&data, "/data") };
    let flat = changed(bind(&data, "/data"), |bind| bind.recursive = false);
    assert_eq!(bed.said(&mounted(bed, 1, script, vec![deep])), ["read-only", "1"]);
    // grep counts, and says by its code that there was none.
    let attempt = mounted(bed, 2, &format!("{script}; true"), vec![flat]);
    assert_eq!(bed.said(&attempt), ["writable", "0"]);
    assert!(!data.join("below/x").exists(), "it was written below the mount");
}

fn later_mounts_show_where_they_are_to(bed: &Bed) {
    let with = |propagation| move |bind: &mut Bind| bind.propagation = propagation;
    let source = Mounted::at(bed.dir.join("shared"), MsFlags::MS_SHARED);
    for name in ["theirs", "ours"] {
        fs::create_dir(source.0.join(name)).unwrap();
    }
    let mounts = vec![
        changed(bind(&source.0, "/shared"), with(Propagation::Shared)),
        changed(bind(&source.0, "/slave"), with(Propagation::Slave)),
        bind(&source.0, "/private"),
    ];
    let add = Capabilities { all: false, named: ["SYS_ADMIN".parse().unwrap()].into() };
    let privileges = Privileges { add, ..Privileges::default() };
    let script = "mount -t tmpfs none /shared/theirs && echo mounted
        until [ -e /slave/ours/seen ]; do sleep 0.05; done; echo seen
        [ -e /private/ours/seen ] || echo not seen; sleep 1000";
    let attempt = bed.given(1, script, Options { mounts, privileges, ..Options::default() });
    assert_eq!(bed.warnings(&attempt), Vec::<String>::new());
    attempt.hear("mounted");
    let is_mounted = |name: &str| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(&format!(" {} ", source.0.join(name).display()))
    };
    assert!(is_mounted("theirs"), "the container's shows on the node");
    let ours = Mounted::at(source.0.join("ours"), MsFlags::MS_PRIVATE);
    fs::write(ours.0.join("seen"), "").unwrap();
    attempt.hear("seen");
    attempt.hear("not seen");
    super::handle::signal(&attempt.dir, libc::SIGKILL).unwrap();
    attempt.end();
    assert!(
        is_mounted("ours") && is_mounted("theirs"),
        "the end of a container unmounts nothing on the node"
    );

    let unshared = Mounted::at(bed.dir.join("unshared"), MsFlags::MS_PRIVATE);
    let shared = changed(bind(&unshared.0, "/shared"), with(Propagation::Shared));
    let refusal = bed.refusal(&mounted(bed, 2, "true", vec![shared]));
    assert!(refusal.contains("it is not on a mount that this node shares"), "{refusal}");
    let slave = changed(bind(&unshared.0, "/slave"), with(Propagation::Slave));
    let warnings = bed.warnings(&mounted(bed, 3, "sleep 1000", vec![slave]));
    assert!(warnings[0].contains("will not show in the container"), "{warnings:?}");
}

fn what_is_not_there_is_a_reason(bed: &Bed) {
    let absent = bed.dir.join("absent");
    let refusal = bed.refusal(&mounted(bed, 1, "true", vec![bind(&absent, "/data")]));
    assert!(refusal.contains("absent: there is nothing of that name on this node"), "{refusal}");
    assert!(!absent.exists());
}

fn shared_memory_has_its_size(bed: &Bed) {
    let options = Options { shm_bytes: Some(1 << 20), ..Options::default() };
    let script = "grep ' /dev/shm ' /proc/mounts; dd if=/dev/zero of=/dev/shm/x bs=1M count=2 2> /dev/null || echo full";
    let said = bed.said(&bed.given(1, script, options));
    assert!(said[0].contains("size=1024k") && said[1] == "full", "{said:?}");
    // A user's own mount is in its place.
    let mounts = vec![tmpfs("/dev/shm")];
    let shared = Shared { ipc: true, ..Shared::default() };
    let attempt =
        bed.given(2, "grep -c ' /dev/shm ' /proc/mounts", Options { mounts, shared, ..Options::default() });
    assert_eq!(bed.said(&attempt), ["1"]);
}

fn gantrys_files_are_over_a_users_directory(bed: &Bed) {
    let (etc, own) = (directory(bed, "etc"), directory(bed, "own"));
    let mut mounts = vec![bind(&etc, "/etc"), bind(&own.join("file"), "/etc/hostname")];
    let files = |attempt: &mut Attempt| {
        attempt.launch.files = [("/etc/hosts", "of gantry\n"), ("/etc/hostname", "of gantry\n")]
            .map(|(path, text)| (path.into(), text.to_owned()))
            .into();
    };
    let mut attempt = mounted(bed, 1, "cat /etc/hosts /etc/hostname /etc/file", mounts.clone());
    files(&mut attempt);
    assert_eq!(bed.said(&attempt), ["of gantry", "own", "etc"]);
    // A link in the way is not followed, and the container is told what it has in place of the file.
    fs::remove_file(etc.join("hosts")).unwrap();
    std::os::unix::fs::symlink("../srv/hosts", etc.join("hosts")).unwrap();
    mounts.truncate(1);
    let mut attempt = mounted(bed, 2, "sleep 1000", mounts);
    files(&mut attempt);
    let warnings = bed.warnings(&attempt);
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("/etc/hosts is what the mount at /etc has"),
        "{warnings:?}"
    );
}

fn output_goes_where_it_is_sent(bed: &Bed) {
    let attempt = bed.given(1, "echo unheard", Options { output: Output::Discard, ..Options::default() });
    assert_eq!(bed.run(&attempt).exit, Exit::Code(0));
    assert!(attempt.lines(Stream::Stdout).is_empty() && !attempt.dir.join("log").exists());

    let socket = bed.dir.join("syslog");
    let server = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let syslog = Syslog {
        server: Server::Unix(socket),
        facility: 3,
        tag: "web".to_owned(),
        hostname: "n1".to_owned(),
    };
    let options = Options { output: Output::Syslog(syslog), ..Options::default() };
    assert_eq!(bed.said(&bed.given(2, "echo heard; echo oh >&2", options)), ["heard"]);
    server.set_nonblocking(true).unwrap();
    let mut messages = Vec::new();
    let mut bytes = [0; 512];
    while let Ok(count) = server.recv(&mut bytes) {
        messages.push(String::from_utf8(bytes[..count].to_vec()).unwrap());
    }
    messages.sort();
    assert_eq!(messages.len(), 2);
    for (message, (priority, text)) in messages.iter().zip([("<27>1 ", "oh"), ("<30>1 ", "heard")]) {
        assert!(message.starts_with(priority), "{message}");
        assert!(message.ends_with(&format!(" n1 web - - - {text}\n")), "{message}");
    }
}
