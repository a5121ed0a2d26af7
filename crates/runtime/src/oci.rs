//! A container as the OCI runtime specification has it. Pure: what goes in decides what comes out.
//!
//! Not in it, because libcontainer would do them where a failure is the end of the container, or for the shim as well: limits of
//! the cgroup ([`crate::cgroup`]), resource limits and the OOM score ([`crate::ulimit`]), the filter of system calls
//! ([`crate::confine`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use model::{Capability, DeviceKind};
use serde_json::{Value, json};

use crate::confine;
use crate::device::Device;
use crate::launch::{Launch, Shared};
use crate::masked;
use crate::record;
use crate::stage::Staged;
use crate::user::Identity;

/// What an image that sets no `PATH` gets, as in Docker.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process with a terminal gets that has no `TERM`, as in Docker.
pub(crate) const TERM: &str = "xterm";

/// Docker's size of `/dev/shm`.
const SHM: u64 = 64 << 20;

/// How the container sees its own cgroup: read-only, unless it is privileged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupView {
    /// cgroup v2: one mount.
    Unified,
    /// cgroup v1 and hybrid: each controller's name and the container's own directory in it. Bound one by one, because
    /// libcontainer mounts v1 hierarchies writable whatever the mount says, which would let root in a container lift its
    /// own limits.
    Legacy(Vec<(String, PathBuf)>),
}

/// What a node and an image make of a launch.
#[derive(Clone, Debug)]
pub(crate) struct Given<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) cgroups: &'a CgroupView,
    pub(crate) capabilities: &'a BTreeSet<Capability>,
    pub(crate) mounts: &'a [Staged],
    /// Something that the container mounts shows on the node.
    pub(crate) shows_mounts: bool,
    /// The launch's files, by their number in the bundle.
    pub(crate) files: &'a [(usize, PathBuf)],
    pub(crate) devices: &'a [Device],
    pub(crate) apparmor: Option<&'a str>,
    /// What of this node's is not shown to containers.
    pub(crate) masked: &'a [String],
}

/// `config.json` for this launch. `bundle` is where it lies.
pub(crate) fn config(bundle: &Path, launch: &Launch, given: &Given<'_>) -> Value {
    let options = &launch.options;
    let mut process = json!({
        "terminal": launch.terminal,
        "user": {
            "uid": given.identity.uid, "gid": given.identity.gid, "additionalGids": given.identity.groups,
        },
        "args": launch.args,
        "env": environment(launch, given.identity),
        "cwd": working_dir(launch),
        "capabilities": capabilities(launch, given.capabilities),
    });
    if options.privileges.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    if let Some(profile) = given.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": record::ROOTFS, "readonly": options.read_only },
        "annotations": launch.labels,
        "process": process,
        "mounts": mounts(bundle, launch, given),
        "linux": linux(launch, given),
    });
    // Without a namespace of its own they would be the node's.
    if !options.shared.uts {
        config["hostname"] = json!(launch.hostname);
        if let Some(domainname) = &options.domainname {
            config["domainname"] = json!(domainname);
        }
    }
    config
}

fn linux(launch: &Launch, given: &Given<'_>) -> Value {
    let privileges = &launch.options.privileges;
    let (masked, read_only): (&[String], &[&str]) = match privileges.privileged || privileges.unmasked {
        true => (&[], &[]),
        false => (given.masked, &masked::READ_ONLY),
    };
    let mut sysctls = BTreeMap::from([
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
    ]);
    sysctls.extend(launch.options.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut linux = json!({
        "cgroupsPath": launch.cgroup,
        "resources": { "devices": device_rules(launch, given.devices) },
        "devices": given.devices.iter().map(device).collect::<Vec<_>>(),
        "namespaces": namespaces(launch),
        "sysctl": sysctls,
        "maskedPaths": masked,
        "readonlyPaths": read_only,
    });
    // libcontainer makes all of a container's mounts slaves of the node's otherwise.
    if given.shows_mounts {
        linux["rootfsPropagation"] = json!("shared");
    }
    linux
}

/// Inheritable and ambient stay empty: CVE-2022-24769, CVE-2022-29162.
fn capabilities(launch: &Launch, granted: &BTreeSet<Capability>) -> Value {
    let mut names: BTreeSet<&str> = granted.iter().map(|capability| capability.as_str()).collect();
    if !launch.options.privileges.unfiltered {
        // [`crate::confine`] gives back those that are not the container's, before anything of the image runs.
        names.extend(confine::BORROWED);
    }
    json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [] })
}

/// What may be done with device nodes, first of all nothing. libcontainer adds its list of harmless devices after these.
fn device_rules(launch: &Launch, devices: &[Device]) -> Vec<Value> {
    if launch.options.privileges.privileged {
        return vec![json!({ "allow": true, "access": "rwm" })];
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(devices.iter().map(|device| {
        json!({
            "allow": true, "type": kind(device.kind), "major": device.major, "minor": device.minor,
            "access": device.access.to_string(),
        })
    }));
    rules.extend(launch.options.device_rules.iter().flat_map(|rule| device_rule(rule.0)));
    rules
}

/// One that is for devices of all kinds is two, unless it allows everything: of such a one the kernel, and libcontainer where it
/// is a program, take neither the numbers nor what may be done for said.
fn device_rule(rule: model::DeviceRule) -> Vec<Value> {
    let model::DeviceRule { kind: of, major, minor, access } = rule;
    let is_everything = major.is_none() && minor.is_none() && access == model::Access::ALL;
    let kinds = match of {
        DeviceKind::Any if !is_everything => vec![DeviceKind::Block, DeviceKind::Character],
        DeviceKind::Any | DeviceKind::Block | DeviceKind::Character => vec![of],
    };
    let written = |of| {
        let mut written = json!({ "allow": true, "type": kind(of), "access": access.to_string() });
        for (name, number) in [("major", major), ("minor", minor)] {
            if let Some(number) = number {
                written[name] = json!(number);
            }
        }
        written
    };
    kinds.into_iter().map(written).collect()
}

fn device(device: &Device) -> Value {
    json!({
        "path": device.path, "type": kind(device.kind), "major": device.major, "minor": device.minor,
        "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
    })
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Any => "a",
        DeviceKind::Block => "b",
        DeviceKind::Character => "c",
    }
}

fn namespaces(launch: &Launch) -> Value {
    let Shared { ipc, pid, uts, cgroup } = launch.options.shared;
    let own = [("pid", !pid), ("mount", true), ("ipc", !ipc), ("uts", !uts), ("cgroup", !cgroup)];
    let own = own.into_iter().filter(|(_, is_own)| *is_own).map(|(kind, _)| json!({ "type": kind }));
    let network = match &launch.netns {
        Some(path) => json!({ "type": "network", "path": path }),
        None => json!({ "type": "network" }),
    };
    Value::Array(own.chain([network]).collect())
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

fn mounts(bundle: &Path, launch: &Launch, given: &Given<'_>) -> Vec<Value> {
    let mut mounts = system_mounts(launch, given.cgroups);
    // What is mounted over would not be seen.
    let is_seen = |mount: &(PathBuf, Value)| !given.mounts.iter().any(|own| mount.0.starts_with(&own.target));
    mounts.retain(is_seen);
    let mut mounts: Vec<Value> = mounts.into_iter().map(|(_, mount)| mount).collect();
    let files = bundle.join(record::FILES);
    // As Docker has it: with a read-only root, nothing of gantry's is to be written either.
    let options: &[&str] = if launch.options.read_only { &["bind", "ro"] } else { &["bind"] };
    mounts.extend(given.files.iter().map(|(number, target)| {
        let source = files.join(number.to_string());
        json!({ "destination": target, "type": "bind", "source": source, "options": options })
    }));
    // With their flags, and with what is mounted within them.
    mounts.extend(given.mounts.iter().map(|Staged { tree, target }| {
        json!({ "destination": target, "type": "bind", "source": tree, "options": ["rbind"] })
    }));
    mounts
}

/// What every container has, by where it is.
fn system_mounts(launch: &Launch, cgroups: &CgroupView) -> Vec<(PathBuf, Value)> {
    let system = |kind: &str, to: &str, options: &[&str]| {
        let mount = json!({ "destination": to, "type": kind, "source": kind, "options": options });
        (PathBuf::from(to), mount)
    };
    // A privileged container may set what `/sys` has, and make cgroups of its own.
    let fixed: &[&str] = if launch.options.privileges.privileged { &[] } else { &["ro"] };
    let with = |options: &[&'static str]| [options, fixed].concat();
    let shm = format!("size={}k", launch.options.shm_bytes.unwrap_or(SHM).div_ceil(1024));
    let mut mounts = vec![
        system("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        system("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        system(
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        system("sysfs", "/sys", &with(&["nosuid", "noexec", "nodev"])),
        system("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        system("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", shm.as_str()]),
    ];
    match cgroups {
        CgroupView::Unified => {
            let options = with(&["nosuid", "noexec", "nodev", "relatime"]);
            mounts.push(system("cgroup", "/sys/fs/cgroup", &options));
        }
        CgroupView::Legacy(controllers) => {
            mounts.push(system(
                "tmpfs",
                "/sys/fs/cgroup",
                &["nosuid", "noexec", "nodev", "mode=755", "size=64k"],
            ));
            mounts.extend(controllers.iter().map(|(name, source)| {
                let to = format!("/sys/fs/cgroup/{name}");
                let options = with(&["bind", "nosuid", "noexec", "nodev"]);
                let mount =
                    json!({ "destination": to, "type": "bind", "source": source, "options": options });
                (PathBuf::from(to), mount)
            }));
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::tests::sample;
    use crate::launch::{DeviceRule, Options, Privileges};
    use expect_test::{Expect, expect};
    use libcontainer::oci_spec::runtime::Spec;

    fn web() -> Identity {
        Identity { uid: 33, gid: 34, groups: vec![34, 50], home: "/var/www".to_owned() }
    }

    fn built(launch: &Launch, cgroups: &CgroupView) -> Value {
        let files: Vec<(usize, PathBuf)> = launch.files.keys().cloned().enumerate().collect();
        let given = Given {
            identity: &web(),
            cgroups,
            capabilities: &BTreeSet::from(["CHOWN".parse().unwrap()]),
            mounts: &[],
            shows_mounts: false,
            files: &files,
            devices: &[],
            apparmor: None,
            masked: &["/proc/kcore".to_owned()],
        };
        config(Path::new("/task"), launch, &given)
    }

    fn with(options: Options) -> Value {
        built(&Launch { options, ..sample() }, &CgroupView::Unified)
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
            assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 1 + confine::BORROWED.len());
            assert_eq!(capabilities.inheritable().as_ref().unwrap().len(), 0);
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
    #[test]
    fn what_is_mounted_comes_last_and_hides_what_it_covers() {
        let mounts = [
            ("/task/mounts/0", "/sys/fs/cgroup"),
            ("/task/mounts/1", "/dev/shm"),
            ("/task/mounts/2", "/data"),
        ]
        .map(|(tree, target)| Staged { tree: tree.into(), target: target.into() });
        let given = Given {
            identity: &web(),
            cgroups: &CgroupView::Legacy(vec![("memory".to_owned(), "/x".into())]),
            capabilities: &BTreeSet::new(),
            mounts: &mounts,
            shows_mounts: true,
            files: &[(1, "/etc/hosts".into())],
            devices: &[],
            apparmor: Some("web"),
            masked: &[],
        };
        let mut launch = sample();
        launch.options.read_only = true;
        let config = config(Path::new("/task"), &launch, &given);
        let last: Vec<Value> = config["mounts"].as_array().unwrap().iter().skip(3).cloned().collect();
        check(
            &Value::Array(last),
            expect![[r#"
                {destination: "/sys", options: ["nosuid","noexec","nodev","ro"], source: "sysfs", type: "sysfs"}
                {destination: "/dev/mqueue", options: ["nosuid","noexec","nodev"], source: "mqueue", type: "mqueue"}
                {destination: "/etc/hosts", options: ["bind","ro"], source: "/task/files/1", type: "bind"}
                {destination: "/sys/fs/cgroup", options: ["rbind"], source: "/task/mounts/0", type: "bind"}
                {destination: "/dev/shm", options: ["rbind"], source: "/task/mounts/1", type: "bind"}
                {destination: "/data", options: ["rbind"], source: "/task/mounts/2", type: "bind"}
            "#]],
        );
        assert_eq!(config["linux"]["rootfsPropagation"], json!("shared"));
        assert_eq!(config["process"]["apparmorProfile"], json!("web"));
        assert_eq!(config["root"]["readonly"], json!(true));
        serde_json::from_value::<Spec>(config).unwrap();
    }

    #[test]
    fn namespaces_that_are_shared_are_not_made_and_take_no_name() {
        let shared = Shared { ipc: true, pid: true, uts: true, cgroup: true };
        let config =
            with(Options { shared, domainname: Some("example.org".to_owned()), ..Options::default() });
        check(
            &config["linux"]["namespaces"],
            expect![[r#"
                {type: "mount"}
                {path: "/run/gantry/netns/s1-2-3", type: "network"}
            "#]],
        );
        assert_eq!((&config["hostname"], &config["domainname"]), (&Value::Null, &Value::Null));
        let config = with(Options { domainname: Some("example.org".to_owned()), ..Options::default() });
        assert_eq!((&config["hostname"], &config["domainname"]), (&json!("web-2"), &json!("example.org")));
    }

    #[test]
    fn what_the_node_hides_is_masked_and_the_rest_of_the_kernels_is_read_only() {
        let linux = built(&sample(), &CgroupView::Unified)["linux"].clone();
        assert_eq!(linux["maskedPaths"], json!(["/proc/kcore"]));
        let read_only = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
        assert_eq!(linux["readonlyPaths"], json!(read_only));
    }

    #[test]
    fn a_privileged_container_is_held_back_by_nothing() {
        let privileges = Privileges { privileged: true, unfiltered: true, ..Privileges::default() };
        let config = with(Options { privileges, ..Options::default() });
        let linux = &config["linux"];
        assert_eq!((&linux["maskedPaths"], &linux["readonlyPaths"]), (&json!([]), &json!([])));
        check(
            &linux["resources"]["devices"],
            expect![[r#"
            {access: "rwm", allow: true}
        "#]],
        );
        for mount in config["mounts"].as_array().unwrap() {
            assert!(!mount["options"].as_array().unwrap().contains(&json!("ro")), "{mount}");
        }
        assert_eq!(
            config["process"]["capabilities"]["bounding"],
            json!(["CAP_CHOWN"]),
            "nothing is borrowed"
        );
        let unmasked = Privileges { unmasked: true, no_new_privileges: true, ..Privileges::default() };
        let config = with(Options { privileges: unmasked, ..Options::default() });
        assert_eq!(config["linux"]["maskedPaths"], json!([]));
        assert_eq!(config["process"]["noNewPrivileges"], json!(true));
    }

    #[test]
    fn devices_are_made_and_allowed_and_rules_are_added() {
        let fuse = Device {
            path: "/dev/fuse".into(),
            kind: DeviceKind::Character,
            major: 10,
            minor: 229,
            mode: 0o666,
            uid: 0,
            gid: 6,
            access: "rw".parse().unwrap(),
        };
        let mut launch = sample();
        launch.options.device_rules =
            ["b 8:* r", "a *:* m", "a 1:5 rwm"].map(|rule| DeviceRule(rule.parse().unwrap())).to_vec();
        check(
            &Value::Array(device_rules(&launch, std::slice::from_ref(&fuse))),
            expect![[r#"
                {access: "rwm", allow: false}
                {access: "rw", allow: true, major: 10, minor: 229, type: "c"}
                {access: "r", allow: true, major: 8, type: "b"}
                {access: "m", allow: true, type: "b"}
                {access: "m", allow: true, type: "c"}
                {access: "rwm", allow: true, major: 1, minor: 5, type: "b"}
                {access: "rwm", allow: true, major: 1, minor: 5, type: "c"}
            "#]],
        );
        check(
            &Value::Array(device_rule("a *:* rwm".parse().unwrap())),
            expect![[r#"
            {access: "rwm", allow: true, type: "a"}
        "#]],
        );
        check(
            &Value::Array(vec![device(&fuse)]),
            expect![[r#"
            {fileMode: 438, gid: 6, major: 10, minor: 229, path: "/dev/fuse", type: "c", uid: 0}
        "#]],
        );
    }

    #[test]
    fn sysctls_and_shared_memory_are_as_they_are_asked_for() {
        let sysctls = BTreeMap::from([
            ("net.core.somaxconn".to_owned(), "512".to_owned()),
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned()),
        ]);
        let config = with(Options { sysctls, shm_bytes: Some(1 << 20), ..Options::default() });
        check(
            &config["linux"]["sysctl"],
            expect![[r#"
                {net.core.somaxconn: "512", net.ipv4.ip_unprivileged_port_start: "1024", net.ipv4.ping_group_range: "0 2147483647"}
            "#]],
        );
        let mounts = config["mounts"].as_array().unwrap();
        let shm = mounts.iter().find(|mount| mount["destination"] == "/dev/shm").unwrap();
        assert!(shm["options"].as_array().unwrap().contains(&json!("size=1024k")), "{shm}");
    }
}
