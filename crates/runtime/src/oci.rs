//! A container as the OCI runtime specification has it. Pure: what goes in decides what comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::confine;
use crate::launch::Launch;
use crate::record;
use crate::user::Identity;

/// What an image that sets no `PATH` gets, as in Docker.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process with a terminal gets that has no `TERM`, as in Docker.
pub(crate) const TERM: &str = "xterm";

/// Docker's default capabilities less NET_RAW: with it, a container could forge packets of its neighbours. `ping` works
/// without, through `ping_group_range`.
pub(crate) const CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// moby's `oci/defaults.go`. Paths that a kernel does not have are skipped by the runtime.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How the container sees its own cgroup, always read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupView {
    /// cgroup v2: one mount.
    Unified,
    /// cgroup v1 and hybrid: each controller's name and the container's own directory in it. Bound one by one, because
    /// libcontainer mounts v1 hierarchies writable whatever the mount says, which would let root in a container lift its
    /// own limits.
    Legacy(Vec<(String, PathBuf)>),
}

/// `config.json` for this launch. `bundle` is where it lies; `oom_score_adj` is written only when it is given.
pub(crate) fn config(
    bundle: &Path,
    launch: &Launch,
    identity: &Identity,
    cgroups: &CgroupView,
    oom_score_adj: Option<i32>,
) -> Value {
    // [`crate::confine`] gives the last one up, before anything of the image runs.
    let capabilities: Vec<&str> = CAPABILITIES.into_iter().chain([confine::LOADS_FILTERS]).collect();
    let mut process = json!({
        "terminal": launch.terminal,
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups },
        "args": launch.args,
        "env": environment(launch, identity),
        "cwd": working_dir(launch),
        // Inheritable and ambient stay empty: CVE-2022-24769, CVE-2022-29162.
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            "inheritable": [], "ambient": [],
        },
    });
    if let Some(score) = oom_score_adj {
        process["oomScoreAdj"] = json!(score);
    }
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": record::ROOTFS, "readonly": false },
        "hostname": launch.hostname,
        "annotations": launch.labels,
        "process": process,
        "mounts": mounts(bundle, launch, cgroups),
        "linux": {
            "cgroupsPath": launch.cgroup,
            // Everything but devices is set by `cgroup::limit`, where one limit that the host refuses is a warning and not
            // the end of the container. libcontainer adds its list of harmless devices to this rule.
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces(launch),
            "sysctl": {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647",
            },
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn namespaces(launch: &Launch) -> Value {
    let network = match &launch.netns {
        Some(path) => json!({ "type": "network", "path": path }),
        None => json!({ "type": "network" }),
    };
    json!([{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "cgroup" }, network])
}

/// `HOME` is always there, and never empty: libcontainer would otherwise ask libc for it inside the image, which can load code
/// from there (the class of CVE-2019-14271), at a moment when the process is not confined yet.
fn environment(launch: &Launch, identity: &Identity) -> Vec<String> {
    let mut variables = BTreeMap::from([
        ("PATH", PATH),
        ("HOME", identity.home.as_str()),
        ("HOSTNAME", launch.hostname.as_str()),
    ]);
    if launch.terminal {
        variables.insert("TERM", TERM);
    }
    // What has no `=` is not a variable, in Docker neither.
    variables.extend(
        launch.env.iter().filter_map(|entry| entry.split_once('=')).filter(|(name, _)| !name.is_empty()),
    );
    if variables["HOME"].is_empty() {
        variables.insert("HOME", identity.home.as_str());
    }
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

pub(crate) fn working_dir(launch: &Launch) -> &str {
    if launch.cwd.is_empty() { "/" } else { &launch.cwd }
}

fn mounts(bundle: &Path, launch: &Launch, cgroups: &CgroupView) -> Vec<Value> {
    let system = |kind: &str, to: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        system("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        system("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system(
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        system("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        system("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        system("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ];
    match cgroups {
        CgroupView::Unified => {
            mounts.push(system("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
        }
        CgroupView::Legacy(controllers) => {
            mounts.push(system(
                "tmpfs",
                "/sys/fs/cgroup",
                &["nosuid", "noexec", "nodev", "mode=755", "size=64k"],
            ));
            mounts.extend(controllers.iter().map(|(name, source)| {
                json!({
                    "destination": format!("/sys/fs/cgroup/{name}"), "type": "bind", "source": source,
                    "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
                })
            }));
        }
    }
    let files = bundle.join(record::FILES);
    mounts.extend(launch.files.keys().enumerate().map(|(index, target)| {
        json!({ "destination": target, "type": "bind", "source": files.join(index.to_string()), "options": ["bind"] })
    }));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::tests::sample;
    use expect_test::{Expect, expect};
    use libcontainer::oci_spec::runtime::Spec;

    fn web() -> Identity {
        Identity { uid: 33, gid: 34, groups: vec![34, 50], home: "/var/www".to_owned() }
    }

    fn built(launch: &Launch, cgroups: &CgroupView) -> Value {
        config(Path::new("/task"), launch, &web(), cgroups, None)
    }

    /// With its keys in order, which serde_json keeps or not as some other crate's features have it.
    fn canonical(value: &Value) -> String {
        match value {
            Value::Array(values) => {
                format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(","))
            }
            Value::Object(fields) => {
                let fields: BTreeMap<&String, String> =
                    fields.iter().map(|(name, v)| (name, canonical(v))).collect();
                let fields: Vec<String> =
                    fields.iter().map(|(name, text)| format!("{name}: {text}")).collect();
                format!("{{{}}}", fields.join(", "))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        }
    }

    fn check(value: &Value, expected: Expect) {
        let lines: Vec<String> = match value {
            Value::Array(values) => values.iter().map(canonical).collect(),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                vec![canonical(value).replace("], ", "],\n")]
            }
        };
        expected.assert_eq(&format!("{}\n", lines.join("\n")));
    }

    #[test]
    fn it_is_a_specification_that_libcontainer_reads() {
        let views = [CgroupView::Unified, CgroupView::Legacy(vec![("pids".to_owned(), "/x".into())])];
        for view in views {
            let spec: Spec = serde_json::from_value(built(&sample(), &view)).unwrap();
            let linux = spec.linux().as_ref().unwrap();
            assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
            assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), None);
            let capabilities = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
            let given_up = 1;
            assert_eq!(capabilities.bounding().as_ref().unwrap().len(), CAPABILITIES.len() + given_up);
        }
    }

    #[test]
    fn an_image_cannot_have_libc_asked_for_its_home() {
        for env in [vec!["HOME=".to_owned()], vec!["HOME".to_owned()], Vec::new()] {
            let process = built(&Launch { env, ..sample() }, &CgroupView::Unified)["process"].clone();
            let home = process["env"].as_array().unwrap().iter().find(|entry| {
                entry.as_str().unwrap().strip_prefix("HOME=").is_some_and(|home| !home.is_empty())
            });
            assert!(home.is_some(), "{}", process["env"]);
        }
    }

    #[test]
    fn the_process_is_what_the_launch_and_the_images_users_say() {
        let mut process = built(&sample(), &CgroupView::Unified)["process"].clone();
        process["capabilities"].take();
        check(
            &process,
            expect![[r#"
                {args: ["nginx","-g","daemon off;"],
                capabilities: null, cwd: "/srv", env: ["COLOUR=blue","HOME=/var/www","HOSTNAME=web-2","PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                terminal: false, user: {additionalGids: [34,50],
                gid: 34, uid: 33}}
            "#]],
        );
    }

    #[test]
    fn a_terminal_has_a_name() {
        let process = |env: &[&str]| {
            let env = env.iter().map(|entry| (*entry).to_owned()).collect();
            built(&Launch { terminal: true, env, ..sample() }, &CgroupView::Unified)["process"].clone()
        };
        let has = |process: &Value, entry: &str| process["env"].as_array().unwrap().contains(&json!(entry));
        assert_eq!(process(&[])["terminal"], json!(true));
        assert!(has(&process(&[]), "TERM=xterm"));
        assert!(has(&process(&["TERM=vt100"]), "TERM=vt100"));
    }

    #[test]
    fn namespaces_are_new_but_for_the_network_that_is_given() {
        check(
            &built(&sample(), &CgroupView::Unified)["linux"]["namespaces"],
            expect![[r#"
                {type: "pid"}
                {type: "mount"}
                {type: "ipc"}
                {type: "uts"}
                {type: "cgroup"}
                {path: "/run/gantry/netns/s1-2-3", type: "network"}
            "#]],
        );
    }

    #[test]
    fn mounts_are_dockers_and_cgroups_are_read_only() {
        let view = CgroupView::Legacy(vec![(
            "memory".to_owned(),
            "/sys/fs/cgroup/memory/gantry/n1/s1-2-3.1".into(),
        )]);
        check(
            &built(&sample(), &view)["mounts"],
            expect![[r#"
                {destination: "/proc", options: ["nosuid","noexec","nodev"], source: "proc", type: "proc"}
                {destination: "/dev", options: ["nosuid","strictatime","mode=755","size=65536k"], source: "tmpfs", type: "tmpfs"}
                {destination: "/dev/pts", options: ["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"], source: "devpts", type: "devpts"}
                {destination: "/sys", options: ["nosuid","noexec","nodev","ro"], source: "sysfs", type: "sysfs"}
                {destination: "/dev/mqueue", options: ["nosuid","noexec","nodev"], source: "mqueue", type: "mqueue"}
                {destination: "/dev/shm", options: ["nosuid","noexec","nodev","mode=1777","size=65536k"], source: "tmpfs", type: "tmpfs"}
                {destination: "/sys/fs/cgroup", options: ["nosuid","noexec","nodev","mode=755","size=64k"], source: "tmpfs", type: "tmpfs"}
                {destination: "/sys/fs/cgroup/memory", options: ["bind","nosuid","noexec","nodev","ro"], source: "/sys/fs/cgroup/memory/gantry/n1/s1-2-3.1", type: "bind"}
                {destination: "/etc/hosts", options: ["bind"], source: "/task/files/0", type: "bind"}
            "#]],
        );
    }
}
