//! What the kernel is asked to hold a container to, or to let it do, and what becomes of it where the kernel does not.

use std::fs;
use std::path::{Path, PathBuf};

use model::Exit;
use runtime::launch::{
    Blkio, Capabilities, Device, DeviceRule, Options, Privileges, Shared, Swap, Tuning, Ulimit,
};
use runtime::logs::Stream;

use super::{Attempt, Bed, Test, cgroups_named, handle, parent, until};

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "a_container_has_the_names_and_groups_that_it_is_given",
        a_container_has_the_names_and_groups_that_it_is_given,
    ),
    (
        "resource_limits_are_lowered_and_raised_as_far_as_they_go",
        resource_limits_are_lowered_and_raised_as_far_as_they_go,
    ),
    ("locked_memory_is_limited_as_on_the_node", locked_memory_is_limited_as_on_the_node),
    ("sysctls_are_the_containers_own_or_refused", sysctls_are_the_containers_own_or_refused),
    ("an_oom_score_is_the_containers_and_not_its_shims", an_oom_score_is_the_containers_and_not_its_shims),
    ("capabilities_are_what_is_left_of_them", capabilities_are_what_is_left_of_them),
    ("a_capability_opens_the_calls_that_it_is_for", a_capability_opens_the_calls_that_it_is_for),
    ("a_profile_of_the_services_own_is_in_force", a_profile_of_the_services_own_is_in_force),
    ("a_profile_that_lies_leaves_no_capability", a_profile_that_lies_leaves_no_capability),
    ("a_privileged_container_has_what_the_node_has", a_privileged_container_has_what_the_node_has),
    ("a_device_is_given_with_what_may_be_done_with_it", a_device_is_given_with_what_may_be_done_with_it),
    ("namespaces_of_the_nodes_are_shared", namespaces_of_the_nodes_are_shared),
    ("a_parent_cgroup_goes_with_its_last_container", a_parent_cgroup_goes_with_its_last_container),
    ("tuning_is_in_force_or_told", tuning_is_in_force_or_told),
    ("a_limit_on_storage_is_in_force_or_refused", a_limit_on_storage_is_in_force_or_refused),
    (
        "confinement_that_the_node_does_not_have_is_refused",
        confinement_that_the_node_does_not_have_is_refused,
    ),
];

fn named(names: &str) -> Capabilities {
    let (all, named) = match names.split_once("ALL") {
        Some((_, rest)) => (true, rest),
        None => (false, names),
    };
    Capabilities { all, named: named.split_whitespace().map(|name| name.parse().unwrap()).collect() }
}

/// A line of this process's own status, which is the node's.
fn own_status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

fn a_container_has_the_names_and_groups_that_it_is_given(bed: &Bed) {
    let options = Options {
        domainname: Some("example.org".to_owned()),
        groups: vec!["ssl".to_owned(), "7".to_owned()],
        ..Options::default()
    };
    let mut attempt = bed.given(1, "hostname; cat /proc/sys/kernel/domainname; id -G", options);
    fs::create_dir(bed.dir.join("busybox/etc")).unwrap();
    fs::write(bed.dir.join("busybox/etc/group"), "ssl:x:51:\n").unwrap();
    attempt.launch.user = Some("33:34".to_owned());
    assert_eq!(bed.said(&attempt), ["box", "example.org", "34 7 51"]);

    let options = Options { groups: vec!["nosuch".to_owned()], ..Options::default() };
    let refusal = bed.refusal(&bed.given(2, "true", options));
    assert!(refusal.contains("group `nosuch` is not in the image's /etc/group"), "{refusal}");
}

fn resource_limits_are_lowered_and_raised_as_far_as_they_go(bed: &Bed) {
    let own = |resource| nix::sys::resource::getrlimit(resource).unwrap();
    let (_, files) = own(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let ulimits = vec![
        Ulimit { resource: model::Ulimit::Nofile, soft: Some(64), hard: Some(files + 1) },
        Ulimit { resource: model::Ulimit::Core, soft: Some(0), hard: Some(0) },
        Ulimit { resource: model::Ulimit::Fsize, soft: Some(4096), hard: Some(8192) },
    ];
    let script = "grep -E 'open files|core file|file size' /proc/self/limits; echo started; sleep 1000";
    let attempt = bed.given(1, script, Options { ulimits, ..Options::default() });
    let warnings = bed.warnings(&attempt);
    attempt.hear("started");
    let said: Vec<Vec<String>> = attempt
        .lines(Stream::Stdout)
        .iter()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect();
    let has = |name: &str, soft: u64, hard: u64| {
        let (soft, hard) = (soft.to_string(), hard.to_string());
        said.iter().any(|line| line[1] == name && line.contains(&soft) && line.contains(&hard))
    };
    assert!(has("core", 0, 0) && has("file", 4096, 8192), "{said:?}");
    // Raising a ceiling is a privilege that this machine may not give.
    match warnings.as_slice() {
        [] => assert!(has("open", 64, files + 1), "{said:?}"),
        [warning] => {
            assert!(
                warning.starts_with(&format!("ulimit nofile stays at {files} in place of {}", files + 1))
            );
            assert!(has("open", 64, files), "{said:?}");
        }
        more => panic!("{more:?}"),
    }
    assert_eq!(own(nix::sys::resource::Resource::RLIMIT_NOFILE).1, files);
}

/// Where cgroups are of version 2, libcontainer changes it on the way.
fn locked_memory_is_limited_as_on_the_node(bed: &Bed) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let own = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap().trim_end();
    let attempt = bed.attempt(1, "grep 'locked memory' /proc/self/limits; sleep 1000");
    assert_eq!(bed.warnings(&attempt), Vec::<String>::new());
    until("it has said so", || !attempt.lines(Stream::Stdout).is_empty());
    assert_eq!(attempt.lines(Stream::Stdout)[0].trim_end(), own);
}

fn sysctls_are_the_containers_own_or_refused(bed: &Bed) {
    let sysctls = |name: &str, value: &str| Options {
        sysctls: [(name.to_owned(), value.to_owned())].into(),
        ..Options::default()
    };
    let attempt = bed.given(1, "cat /proc/sys/net/core/somaxconn", sysctls("net.core.somaxconn", "321"));
    assert_eq!(bed.said(&attempt), ["321"]);
    let attempt = bed.given(2, "cat /proc/sys/kernel/msgmax", sysctls("kernel.msgmax", "4321"));
    assert_eq!(bed.said(&attempt), ["4321"]);
    for (number, name, value, why) in [
        (3, "kernel.panic", "1", "it is the whole node's"),
        (4, "net.core.x=1+kernel.panic", "1", "its name is not one of letters, digits and dots"),
        (5, "net.core.somaxconn", "1\n2", "its value has a control character in it"),
        (6, "net.core.nosuch", "1", "nosuch"),
    ] {
        let refusal = bed.refusal(&bed.given(number, "true", sysctls(name, value)));
        assert!(number == 6 || refusal.contains(why), "{refusal}");
    }
}

fn an_oom_score_is_the_containers_and_not_its_shims(bed: &Bed) {
    let score = |score| Options { oom_score_adj: Some(score), ..Options::default() };
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let attempt = bed.given(1, "cat /proc/self/oom_score_adj; sleep 1000", score(321));
    assert_eq!(bed.warnings(&attempt), Vec::<String>::new());
    attempt.hear("321");
    let shim = parent(attempt.running().pid);
    assert_eq!(fs::read_to_string(format!("/proc/{shim}/oom_score_adj")).unwrap(), own);

    let attempt = bed.given(2, "cat /proc/self/oom_score_adj; sleep 1000", score(-321));
    match bed.warnings(&attempt).as_slice() {
        [] => attempt.hear("-321"),
        [warning] => {
            assert!(
                warning.contains("oom_score_adj stays at") && warning.contains("in place of -321"),
                "{warning}"
            );
            attempt.hear(own.trim());
        }
        more => panic!("{more:?}"),
    }
}

fn capability_sets(bed: &Bed, number: u64, privileges: Privileges) -> (Vec<String>, Attempt) {
    let script = "grep -E '^Cap' /proc/self/status";
    let attempt = bed.given(number, script, Options { privileges, ..Options::default() });
    let sets =
        bed.said(&attempt).iter().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
    (sets, attempt)
}

fn capabilities_are_what_is_left_of_them(bed: &Bed) {
    let none = "0000000000000000";
    let check = |number, add: &str, drop: &str, left: &str| {
        let privileges = Privileges { add: named(add), drop: named(drop), ..Privileges::default() };
        let (sets, _) = capability_sets(bed, number, privileges);
        // In the kernel's order: inheritable, permitted, effective, bounding, ambient.
        assert_eq!(sets, [none, left, left, left, none], "{add} {drop}");
    };
    check(1, "", "ALL", none);
    check(2, "NET_ADMIN", "ALL", "0000000000001000");
    check(3, "NET_RAW", "CHOWN", "00000000a80425fa");
    let all = u64::from_str_radix(&own_status("CapPrm"), 16).unwrap();
    check(4, "ALL", "SYS_ADMIN SETPCAP", &format!("{:016x}", all & !(1 << 21) & !(1 << 8)));

    let privileges =
        Privileges { add: named("SYS_RESOURCE"), no_new_privileges: true, ..Privileges::default() };
    let attempt = bed.given(
        5,
        "grep NoNewPrivs /proc/self/status; sleep 1000",
        Options { privileges, ..Options::default() },
    );
    let warnings = bed.warnings(&attempt);
    let has = all & (1 << 24) != 0;
    let missing = "CAP_SYS_RESOURCE is not this node's to give".to_owned();
    assert_eq!(warnings, if has { Vec::new() } else { vec![missing] });
    attempt.hear("NoNewPrivs:\t1");
}

fn a_capability_opens_the_calls_that_it_is_for(bed: &Bed) {
    let script = "mkdir /at; mount -t tmpfs none /at 2> /dev/null && echo mounted || echo refused";
    assert_eq!(bed.said(&bed.attempt(1, script)), ["refused"]);
    let privileges = Privileges { add: named("SYS_ADMIN"), ..Privileges::default() };
    let attempt = bed.given(2, script, Options { privileges, ..Options::default() });
    assert_eq!(bed.said(&attempt), ["mounted"]);
    // Without the call that it is for, the capability is of no use, and with neither filter nor capability it is refused too.
    let privileges = Privileges { unfiltered: true, ..Privileges::default() };
    let script = format!("{script}; grep Seccomp: /proc/self/status");
    let attempt = bed.given(3, &script, Options { privileges, ..Options::default() });
    assert_eq!(bed.said(&attempt), ["refused", "Seccomp:\t0"]);
}

fn a_profile_of_the_services_own_is_in_force(bed: &Bed) {
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "comment": "for a test"}]
    }"#;
    let mut attempt = bed.attempt(1, "mkdir /made 2>&1 || grep Seccomp: /proc/self/status");
    let capabilities = runtime::capability::granted(&attempt.launch.options.privileges).capabilities;
    attempt.launch.seccomp = bed.filters.find(Some(profile), &capabilities).unwrap();
    assert_eq!(
        bed.said(&attempt),
        ["mkdir: can't create directory '/made': Function not implemented", "Seccomp:\t2"]
    );
}

fn a_profile_that_lies_leaves_no_capability(bed: &Bed) {
    // To who gives capabilities up it says that all is done and none is there.
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["prctl", "capset", "capget"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}]
    }"#;
    let mut attempt = bed.attempt(1, "grep -E '^Cap(Prm|Eff|Bnd):' /proc/self/status");
    let capabilities = runtime::capability::granted(&attempt.launch.options.privileges).capabilities;
    attempt.launch.seccomp = bed.filters.find(Some(profile), &capabilities).unwrap();
    let usual = "00000000a80405fb";
    assert_eq!(bed.said(&attempt), ["CapPrm", "CapEff", "CapBnd"].map(|set| format!("{set}:\t{usual}")));
}

fn a_privileged_container_has_what_the_node_has(bed: &Bed) {
    let privileges = Privileges { privileged: true, unfiltered: true, ..Privileges::default() };
    let script = "grep -E '^(CapEff|Seccomp):' /proc/self/status
        ls /dev/kmsg
        echo box-2 > /proc/sys/kernel/hostname && hostname
        dir=/sys/fs/cgroup; [ ! -d $dir/memory ] || dir=$dir/memory
        mkdir $dir/inner && echo a cgroup of its own";
    let attempt = bed.given(1, script, Options { privileges, ..Options::default() });
    let said = bed.said(&attempt);
    let expected =
        [format!("CapEff:\t{}", own_status("CapPrm")), "Seccomp:\t0".to_owned(), "/dev/kmsg".to_owned()];
    assert_eq!(said[..3], expected);
    assert!(
        said.contains(&"box-2".to_owned()) && said.contains(&"a cgroup of its own".to_owned()),
        "{said:?}"
    );
}

fn a_device_is_given_with_what_may_be_done_with_it(bed: &Bed) {
    let (fuse, number) = (Path::new("/dev/fuse"), "c 10 229");
    assert!(fuse.exists(), "{} is missing: modprobe fuse", fuse.display());
    let script = "stat -c '%F %t:%T' /dev/given
        (: < /dev/given) 2> /dev/null && echo read; (: > /dev/given) 2> /dev/null || echo not written";
    let device =
        |source: PathBuf| Device { source, target: "/dev/given".into(), access: "r".parse().unwrap() };
    let options = Options { devices: vec![device(fuse.to_owned())], ..Options::default() };
    assert_eq!(
        bed.said(&bed.given(1, script, options)),
        ["character special file a:e5", "read", "not written"]
    );

    let script = format!("mknod /made {number} && (: < /made) 2> /dev/null && echo used || echo refused");
    assert_eq!(bed.said(&bed.attempt(2, &script)), ["refused"]);
    let device_rules = vec![DeviceRule("c 10:229 rw".parse().unwrap())];
    let attempt = bed.given(3, &script, Options { device_rules, ..Options::default() });
    assert_eq!(bed.said(&attempt), ["used"]);

    let file = bed.dir.join("file");
    fs::write(&file, "").unwrap();
    let refusal =
        bed.refusal(&bed.given(4, "true", Options { devices: vec![device(file)], ..Options::default() }));
    assert!(refusal.contains("neither a device nor a directory of devices"), "{refusal}");
}

fn namespaces_of_the_nodes_are_shared(bed: &Bed) {
    let kinds = ["cgroup", "ipc", "pid", "uts"];
    let script =
        "for kind in cgroup ipc pid uts; do readlink /proc/self/ns/$kind; done; sleep 1000 & echo done";
    let nodes =
        kinds.map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string());
    let own = bed.said(&bed.attempt(1, script));
    assert!(nodes.iter().all(|name| !own.contains(name)), "{own:?}");

    let shared = Shared { ipc: true, pid: true, uts: true, cgroup: true };
    let attempt = bed.given(2, script, Options { shared, ..Options::default() });
    let said = bed.said(&attempt);
    assert_eq!(said[..4], nodes);
    // In the node's process namespace nothing ends with the first process by itself.
    assert_eq!(cgroups_named(&attempt.launch.cgroup), Vec::<PathBuf>::new());

    fs::write("/dev/shm/gantry-runtime-test", "of the node's").unwrap();
    let shared = Shared { ipc: true, ..Shared::default() };
    let attempt = bed.given(3, "cat /dev/shm/gantry-runtime-test", Options { shared, ..Options::default() });
    let exited = bed.run(&attempt);
    fs::remove_file("/dev/shm/gantry-runtime-test").unwrap();
    assert_eq!(
        (exited.exit, attempt.lines(Stream::Stdout)),
        (Exit::Code(0), vec!["of the node's".to_owned()])
    );
}

fn a_parent_cgroup_goes_with_its_last_container(bed: &Bed) {
    let parent = format!("{}-parent/inner", bed.cgroup);
    let in_parent = |number: u64, script: &str| {
        let options = Options { cgroup_parent: Some(parent.clone()), ..Options::default() };
        let mut attempt = bed.given(number, script, options);
        attempt.launch.cgroup = format!("{parent}/s1-1-{number}.1");
        attempt
    };
    let (first, second) = (in_parent(1, "true"), in_parent(2, "sleep 1000"));
    bed.spawn(&second);
    assert!(!cgroups_named(&second.launch.cgroup).is_empty());
    assert_eq!(bed.run(&first).exit, Exit::Code(0));
    assert!(!cgroups_named(&parent).is_empty(), "another container is in it");
    handle::signal(&second.dir, libc::SIGKILL).unwrap();
    second.end();
    assert_eq!(cgroups_named(&format!("{}-parent", bed.cgroup)), Vec::<PathBuf>::new());

    // One that was there before is not gantry's to take away.
    for hierarchy in hierarchies() {
        fs::create_dir_all(hierarchy.join(parent.trim_start_matches('/'))).unwrap();
    }
    assert_eq!(bed.run(&in_parent(3, "true")).exit, Exit::Code(0));
    assert!(!cgroups_named(&parent).is_empty());
    handle::remove_cgroup(&format!("{}-parent", bed.cgroup)).unwrap();
}

/// The roots of cgroups: of v2, or of each of v1.
fn hierarchies() -> Vec<PathBuf> {
    let is_root = |dir: &PathBuf| dir.join("cgroup.procs").exists();
    let root = PathBuf::from("/sys/fs/cgroup");
    if is_root(&root) {
        return vec![root];
    }
    fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(is_root).collect()
}

fn tuning_is_in_force_or_told(bed: &Bed) {
    let disk = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().file_name()).next().unwrap();
    let disk = Path::new("/dev").join(disk);
    let tuning = Tuning {
        cpu_shares: Some(512),
        cpuset: Some("0".to_owned()),
        memory_reservation: Some(16 << 20),
        swap: Some(Swap::Total(64 << 20)),
        blkio: Blkio {
            weight: Some(500),
            read_bytes: vec![(disk, 1 << 20), ("/dev/null".into(), 1)],
            ..Blkio::default()
        },
    };
    let mut attempt = bed.given(1, "sleep 1000", Options { tuning, ..Options::default() });
    attempt.launch.limits.memory_bytes = Some(32 << 20);
    let warnings = bed.warnings(&attempt);
    let told = "the limit on reading from /dev/null is not in force: /dev/null is no block device";
    assert!(warnings.iter().any(|warning| warning == told), "{warnings:?}");
    let dirs = cgroups_named(&attempt.launch.cgroup);
    let settings: [(&[&str], &[&str], &str); 4] = [
        (&["cpu.shares", "cpu.weight"], &["512", "59"], "cpu shares"),
        (&["cpuset.cpus"], &["0"], "cpuset"),
        (&["memory.soft_limit_in_bytes", "memory.low"], &["16777216"], "memory reservation"),
        (
            &["blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight"],
            &["500", "default 500", "default 4950"],
            "blkio weight",
        ),
    ];
    for (files, values, what) in settings {
        let files = dirs.iter().flat_map(|dir| files.iter().map(move |file| dir.join(file)));
        let found: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        let in_force = found.iter().any(|text| values.contains(&text.trim()));
        let told = format!("the limit on {what} is not in force");
        let told = warnings.iter().any(|warning| warning.starts_with(&told));
        assert!(in_force != told, "{what}: {found:?} {warnings:?}");
    }
}

fn a_limit_on_storage_is_in_force_or_refused(bed: &Bed) {
    let script = "dd if=/dev/zero of=/big bs=1M count=64 2> /dev/null && echo written || echo full";
    let attempt = bed.given(1, script, Options { storage_bytes: Some(16 << 20), ..Options::default() });
    let exited = bed.run(&attempt);
    match exited.exit {
        Exit::Code(0) => assert_eq!(attempt.lines(Stream::Stdout), ["full"]),
        other => {
            assert_eq!(other, Exit::NotStarted);
            let reason = exited.reason.unwrap();
            assert!(reason.contains("cannot limit how large the container grows"), "{reason}");
        }
    }
}

fn confinement_that_the_node_does_not_have_is_refused(bed: &Bed) {
    let asked = |number: u64, profile: &str| {
        let privileges = Privileges { apparmor: Some(profile.to_owned()), ..Privileges::default() };
        bed.given(number, "true", Options { privileges, ..Options::default() })
    };
    assert_eq!(bed.run(&asked(1, "unconfined")).exit, Exit::Code(0));
    let refusal = bed.refusal(&asked(2, "gantry-no-such-profile"));
    assert!(refusal.to_lowercase().contains("apparmor"), "{refusal}");
}
