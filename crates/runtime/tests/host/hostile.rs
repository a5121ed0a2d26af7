//! Containers, images and neighbours that mean harm: shared/reference/reliability.md, section 5.2, H01 to H13 as far as they are
//! the runtime's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::Exit;
use nix::mount::MsFlags;
use runtime::launch::{Options, Privileges};
use runtime::logs::Stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::mounts::{Mounted, bind, directory, mounted, tmpfs};
use super::{Bed, Test, cgroups_named, handle, parent};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("the_nodes_program_is_not_the_containers_to_change", the_nodes_program_is_not_the_containers_to_change),
    (
        "a_links_target_on_the_node_is_out_of_reach_of_a_mount",
        a_links_target_on_the_node_is_out_of_reach_of_a_mount,
    ),
    ("a_volume_that_is_changed_meanwhile_leads_nowhere", a_volume_that_is_changed_meanwhile_leads_nowhere),
    ("what_the_kernel_says_is_not_mounted_over", what_the_kernel_says_is_not_mounted_over),
    ("gantrys_own_directories_are_not_handed_out", gantrys_own_directories_are_not_handed_out),
    ("a_fork_bomb_is_stopped_and_leaves_nothing", a_fork_bomb_is_stopped_and_leaves_nothing),
    ("no_socket_of_a_shim_can_be_reached_by_name", no_socket_of_a_shim_can_be_reached_by_name),
    (
        "a_working_directory_that_is_a_descriptor_leads_nowhere",
        a_working_directory_that_is_a_descriptor_leads_nowhere,
    ),
    ("what_a_container_has_nested_is_removed", what_a_container_has_nested_is_removed),
    ("what_is_mounted_in_a_tree_is_not_removed_with_it", what_is_mounted_in_a_tree_is_not_removed_with_it),
];

/// H01: CVE-2019-5736.
fn the_nodes_program_is_not_the_containers_to_change(bed: &Bed) {
    let program = std::env::current_exe().unwrap();
    let before = fs::read(&program).unwrap();
    let entry = bed.dir.join("busybox/entry");
    fs::write(&entry, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o755)).unwrap();
    for (number, args) in (1..).zip([vec!["/entry"], vec!["/proc/self/exe", "--list"]]) {
        let mut attempt = bed.attempt(number, "");
        attempt.launch.args = args.into_iter().map(str::to_owned).collect();
        // Whatever becomes of it. It gets to see the program, if that, and no further.
        bed.run(&attempt);
    }
    // Beside an init, whose program is the shim's for as long as it lives. The last is given what it takes to look at it.
    let script = "for way in /proc/1/exe /proc/self/exe; do
            (echo overwritten > $way) 2> /dev/null && echo wrote to $way
            chmod 777 $way 2> /dev/null && echo changed $way
        done; true";
    let ptrace = Privileges {
        add: runtime::launch::Capabilities { all: false, named: ["SYS_PTRACE".parse().unwrap()].into() },
        ..Privileges::default()
    };
    for (number, privileges) in (3..).zip([Privileges::default(), ptrace]) {
        let attempt = bed.given(number, script, Options { init: true, privileges, ..Options::default() });
        let said = bed.said(&attempt);
        assert!(!said.iter().any(|line| line.contains("/proc/1/exe")), "{said:?}");
    }
    assert!(fs::read(&program).unwrap() == before, "the program is what it was");
}

/// H03: a mount whose place the image's author chose.
fn a_links_target_on_the_node_is_out_of_reach_of_a_mount(bed: &Bed) {
    let outside = bed.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    let data = directory(bed, "data");
    let up = "../../../../../../../../../..";
    for (name, to) in [
        ("absolute", outside.display().to_string()),
        ("relative", format!("{up}{}", outside.display())),
        ("config", format!("{up}/etc")),
    ] {
        symlink(to, bed.dir.join("busybox").join(name)).unwrap();
    }
    let mounts = vec![
        bind(&data, "/absolute/made"),
        bind(&data.join("file"), "/relative/file"),
        tmpfs("/config/made"),
    ];
    let script = "cat /absolute/made/file /relative/file; ls -d /etc/made";
    assert_eq!(bed.said(&mounted(bed, 1, script, mounts)), ["data", "data", "/etc/made"]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made on the node");
    assert!(!PathBuf::from("/etc/made").exists());
}

/// Ends the neighbour, also when a test fails that it disturbs.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// H05: CVE-2021-30465. Another container swaps the place of a mount for a link while the mount is made.
fn a_volume_that_is_changed_meanwhile_leads_nowhere(bed: &Bed) {
    const ROUNDS: u64 = 15;
    let (volume, inner) = (directory(bed, "volume"), directory(bed, "inner"));
    let outside = bed.dir.join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (place, aside) = (volume.join("place"), volume.join("aside"));
            while !stop.load(Ordering::Relaxed) {
                let _absent = fs::remove_file(&place);
                let _absent = fs::create_dir_all(place.join("deep"));
                let _renamed = fs::rename(&place, &aside);
                let _there = symlink("/bin", &place);
                let _there = fs::remove_file(&place);
                let _there = symlink(&outside, &place);
                let _removed = fs::remove_dir_all(&aside);
            }
        });
        let _stops = Stops(&stop);
        for number in 1..=ROUNDS {
            let mounts = vec![bind(&volume, "/volume"), bind(&inner, "/volume/place/deep")];
            // Neither over the container's own files nor on the node: where it was asked for, or nowhere.
            let script = "! [ -e /bin/deep ] && ! [ -e /deep/file ] && echo fine";
            let attempt = mounted(bed, number, script, mounts);
            let exited = bed.run(&attempt);
            match exited.exit {
                Exit::Code(0) => assert_eq!(attempt.lines(Stream::Stdout), ["fine"]),
                other => {
                    assert_eq!(other, Exit::NotStarted);
                    let reason = exited.reason.unwrap();
                    assert!(reason.contains("it is within the mount at /volume"), "{reason}");
                }
            }
        }
    });
    assert!(!PathBuf::from("/bin/deep").exists(), "nothing was made on the node");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was made on the node");
    assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 0);

    // At rest: a link is not followed, wherever it leads.
    let _old = fs::remove_file(volume.join("place"));
    let _old = fs::remove_dir_all(volume.join("place"));
    symlink("..", volume.join("place")).unwrap();
    let mounts = vec![bind(&volume, "/volume"), bind(&inner, "/volume/place/deep")];
    let refusal = bed.refusal(&mounted(bed, 90, "true", mounts));
    assert!(refusal.contains("where no link is followed"), "{refusal}");
}

/// H04: CVE-2019-16884, CVE-2025-52881.
fn what_the_kernel_says_is_not_mounted_over(bed: &Bed) {
    let data = directory(bed, "data");
    symlink("/proc", bed.dir.join("busybox/sneaky")).unwrap();
    for (number, target) in (1..).zip(["/proc", "/proc/self/attr", "/proc/sys", "/sneaky/self/attr", "/dev"])
    {
        let mut options = Options { mounts: vec![bind(&data, target)], ..Options::default() };
        // Not even where all else is allowed.
        options.privileges.privileged = number % 2 == 0;
        options.privileges.unfiltered = options.privileges.privileged;
        let refusal = bed.refusal(&bed.given(number, "true", options));
        assert!(refusal.contains("cannot mount over"), "{refusal}");
    }
    let attempt = mounted(bed, 9, "cat /proc/uptime", vec![bind(&data.join("file"), "/proc/uptime")]);
    assert_eq!(bed.said(&attempt), ["data"], "a container's own view of the machine");
}

/// G08.
fn gantrys_own_directories_are_not_handed_out(bed: &Bed) {
    let own = bed.dir.join("own");
    fs::create_dir_all(own.join("tasks")).unwrap();
    symlink(&own, bed.dir.join("link")).unwrap();
    let with = |number: u64, source: PathBuf, privileged: bool| {
        let privileges = Privileges { privileged, unfiltered: privileged, ..Privileges::default() };
        let reserved = vec![own.clone()];
        let mounts = vec![bind(&source, "/data")];
        bed.given(number, "ls /data", Options { mounts, reserved, privileges, ..Options::default() })
    };
    for (number, source) in
        (1..).zip([PathBuf::from("/"), bed.dir.clone(), own.clone(), bed.dir.join("link/tasks")])
    {
        let refusal = bed.refusal(&with(number, source, false));
        assert!(
            refusal.contains("which is gantry's own; only a privileged container may have that"),
            "{refusal}"
        );
    }
    assert_eq!(bed.said(&with(9, own.clone(), true)), ["tasks"]);
}

/// H13.
fn a_fork_bomb_is_stopped_and_leaves_nothing(bed: &Bed) {
    let mut attempt =
        bed.attempt(1, "echo ready; bomb() { bomb | bomb & }; bomb; while true; do sleep 1; done");
    attempt.launch.limits.pids = Some(40);
    bed.spawn(&attempt);
    attempt.hear("ready");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let stopped = || attempt.lines(Stream::Stderr).iter().any(|line| line.contains("can't fork"));
    while !stopped() {
        assert!(std::time::Instant::now() < deadline, "the limit was never met");
        std::thread::yield_now();
    }
    let count: usize = cgroups_named(&attempt.launch.cgroup)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .map(|members| members.lines().count())
        .max()
        .unwrap_or(0);
    assert!(count <= 40, "{count} processes");
    // The shell that could not fork may have ended by itself.
    let _asked = handle::request_stop(&attempt.dir, libc::SIGKILL, Duration::ZERO);
    assert!(matches!(attempt.end().exit, Exit::Signal { signal: 9, .. } | Exit::Code(_)));
    assert_eq!(cgroups_named(&attempt.launch.cgroup), Vec::<PathBuf>::new());
}

/// H11: CVE-2020-15257.
fn no_socket_of_a_shim_can_be_reached_by_name(bed: &Bed) {
    let attempt = bed.attempt(1, "sleep 1000");
    bed.spawn(&attempt);
    let shim = parent(attempt.running().pid);
    let names: Vec<String> = fs::read_dir(format!("/proc/{shim}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!names.is_empty(), "it listens on one");
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    for line in sockets.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_shims = fields.get(6).is_some_and(|inode| names.iter().any(|name| name == inode));
        // An abstract name is shown with an `@` in front.
        assert!(!is_shims || fields.get(7).is_none_or(|name| name.starts_with('/')), "{line}");
    }
    let mode = fs::metadata(attempt.dir.join("shim.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// H02: CVE-2024-21626.
fn a_working_directory_that_is_a_descriptor_leads_nowhere(bed: &Bed) {
    for number in 3..20 {
        let mut attempt = bed.attempt(number, "pwd; ls ../../../../../.. 2> /dev/null; ls /proc/self/fd");
        attempt.launch.cwd = format!("/proc/self/fd/{number}");
        let exited = bed.run(&attempt);
        let said = attempt.lines(Stream::Stdout);
        let nodes = fs::read_dir("/").unwrap().any(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            !["bin", "dev", "etc", "proc", "sys"].contains(&name.as_str()) && said.contains(&name)
        });
        assert!(exited.exit == Exit::NotStarted || !nodes, "{exited:?} {said:?}");
    }
}

/// Puts the limit on descriptors back, also when a test fails.
struct FewDescriptors(Rlimit);

impl FewDescriptors {
    /// No more than this process may have, and few enough that one for each level would not do.
    fn set() -> Self {
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit { current: Some(256), ..before };
        setrlimit(Resource::Nofile, few).unwrap();
        Self(before)
    }
}

impl Drop for FewDescriptors {
    fn drop(&mut self) {
        let _as_it_was = setrlimit(Resource::Nofile, self.0);
    }
}

fn what_a_container_has_nested_is_removed(bed: &Bed) {
    // Five times 512 directories: more than a path may name.
    let script = "p=d; for i in 1 2 3 4 5 6 7 8 9; do p=$p/$p; done
        for i in 1 2 3 4 5; do mkdir -p $p && cd -P $p || exit 1; done 2> /dev/null
        echo nested; sleep 1000";
    let (over, running) = (bed.attempt(1, script), bed.attempt(2, script));
    for attempt in [&over, &running] {
        bed.spawn(attempt);
        attempt.hear("nested");
    }
    handle::signal(&over.dir, libc::SIGKILL).unwrap();
    over.end();
    let _few = FewDescriptors::set();
    handle::shed(&over.dir).unwrap();
    assert!(!over.dir.join("upper").exists());
    handle::destroy(&running.dir).unwrap();
    assert!(!running.dir.exists());
}

fn what_is_mounted_in_a_tree_is_not_removed_with_it(bed: &Bed) {
    let (tree, inner) = (bed.dir.join("tree"), bed.dir.join("tree/deep/inner"));
    {
        let _mounted = Mounted::at(inner.clone(), MsFlags::MS_PRIVATE);
        fs::write(inner.join("kept"), "").unwrap();
        assert!(runtime::removal::remove(&tree).is_err());
        assert!(inner.join("kept").exists());
    }
    runtime::removal::remove(&tree).unwrap();
    assert!(!tree.exists());
}
