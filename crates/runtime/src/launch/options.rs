//! What a container is given beyond the program that it runs: [`model::ContainerSpec`] in the form in which an agent hands it to
//! a shim, with what only the node knows filled in.
//!
//! A default value is what Docker does where nothing is said, so that what an older agent did not write reads as it was meant.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use model::Capability;
use serde::{Deserialize, Serialize};

use super::{InvalidLaunch, is_plain_absolute};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub domainname: Option<String>,
    /// Beyond those of the user: names of the container's `/etc/group`, or numbers.
    pub groups: Vec<String>,
    /// The container's first process is gantry's, which reaps and passes signals on.
    pub init: bool,
    /// The root file system; mounts are as each says.
    pub read_only: bool,
    pub mounts: Vec<Mount>,
    /// Gantry's own directories on the node. No bind hands them out, nor anything above or below them.
    pub reserved: Vec<PathBuf>,
    /// Of `/dev/shm`.
    pub shm_bytes: Option<u64>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub privileges: Privileges,
    pub devices: Vec<Device>,
    pub device_rules: Vec<DeviceRule>,
    pub shared: Shared,
    /// The cgroup in which the container's is, absolute in the hierarchy. It is made where it is missing, and goes with the last
    /// container in it. `None` if others look after it.
    pub cgroup_parent: Option<String>,
    pub oom_score_adj: Option<i16>,
    pub tuning: Tuning,
    /// How large the writable layer may grow.
    pub storage_bytes: Option<u64>,
    pub output: Output,
    /// For how many milliseconds the program waits for the first client that attaches. `None` starts it at once.
    pub hold_ms: Option<u64>,
}

/// Something mounted into the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where the container sees it: absolute, without `..`.
    pub target: PathBuf,
    pub read_only: bool,
    pub kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    Bind(Bind),
    Tmpfs(Tmpfs),
}

/// A file or directory of the node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    pub source: PathBuf,
    /// Make a directory where there is nothing.
    pub create: bool,
    pub propagation: Propagation,
    /// With what is mounted below it.
    pub recursive: bool,
}

/// Whether later mounts on one side show on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    #[default]
    Private,
    /// The node's show in the container.
    Slave,
    /// And the container's on the node.
    Shared,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tmpfs {
    pub bytes: Option<u64>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub exec: bool,
}

/// `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    #[serde(with = "resource")]
    pub resource: model::Ulimit,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Privileges {
    pub privileged: bool,
    pub add: Capabilities,
    pub drop: Capabilities,
    pub no_new_privileges: bool,
    /// There is no filter of system calls. Said and not only left out, so that a filter that is forgotten starts nothing.
    pub unfiltered: bool,
    /// A profile that has to be loaded on the node; `None` confines by none.
    pub apparmor: Option<String>,
    /// Nothing of `/proc` and `/sys` is masked or made read-only.
    pub unmasked: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    pub all: bool,
    #[serde(with = "names")]
    pub named: BTreeSet<Capability>,
}

/// A device node of the node's; a directory stands for those in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub source: PathBuf,
    /// Below `/dev`.
    pub target: PathBuf,
    #[serde(with = "text")]
    pub access: model::Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceRule(#[serde(with = "text")] pub model::DeviceRule);

/// Which of the node's namespaces the container is in, in place of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shared {
    pub ipc: bool,
    pub pid: bool,
    pub uts: bool,
    pub cgroup: bool,
}

/// How the kernel shares out what it has. `None` leaves a value at the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuning {
    /// Relative to 1024.
    pub cpu_shares: Option<u64>,
    pub cpuset: Option<String>,
    /// Bytes.
    pub memory_reservation: Option<u64>,
    pub swap: Option<Swap>,
    pub blkio: Blkio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    Unlimited,
    /// Bytes of memory and swap together.
    Total(u64),
}

/// By the path of a block device; the others are a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blkio {
    /// 10 to 1000.
    pub weight: Option<u16>,
    pub weight_device: Vec<(PathBuf, u64)>,
    pub read_bytes: Vec<(PathBuf, u64)>,
    pub write_bytes: Vec<(PathBuf, u64)>,
    pub read_operations: Vec<(PathBuf, u64)>,
    pub write_operations: Vec<(PathBuf, u64)>,
}

/// Where what a container prints goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Files in the task directory.
    #[default]
    Files,
    /// Nowhere.
    Discard,
    /// Files, and a syslog server.
    Syslog(Syslog),
    /// Files, and the node's journal.
    Journal(Journal),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    pub server: Server,
    /// 0 to 23, as RFC 5424 counts them.
    pub facility: u8,
    pub tag: String,
    /// The node's, since that is what a person looks for in a log of many machines.
    pub hostname: String,
}

/// By address and not by name: a shim looks nothing up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    pub socket: PathBuf,
    pub tag: String,
    /// Further fields of every entry, by names of the journal's.
    pub fields: BTreeMap<String, String>,
}

impl Journal {
    /// Where systemd's journal listens.
    pub const SOCKET: &str = "/run/systemd/journal/socket";
}

impl Options {
    /// What of it no node could carry out. `cgroup` is the container's.
    pub(super) fn check(&self, cgroup: &str) -> Result<(), InvalidLaunch> {
        if let Some(name) = self.domainname.as_ref().filter(|name| name.len() > 64) {
            return Err(InvalidLaunch::Domainname(name.clone()));
        }
        if let Some(bad) = self.texts().find(|text| text.contains('\0')) {
            return Err(InvalidLaunch::Nul(bad.escape_debug().to_string()));
        }
        for (name, value) in &self.sysctls {
            if let Some(why) = sysctl_refusal(name, value, self.shared) {
                return Err(InvalidLaunch::Sysctl { name: name.escape_debug().to_string(), why });
            }
        }
        let targets = self.mounts.iter().map(|mount| &mount.target);
        if let Some(bad) = targets.chain(&self.reserved).find(|path| !is_plain_absolute(path)) {
            return Err(InvalidLaunch::Path(bad.display().to_string()));
        }
        let misplaced = |device: &&Device| {
            !is_plain_absolute(&device.target)
                || !device.target.starts_with("/dev")
                || device.target == Path::new("/dev")
        };
        if let Some(device) = self.devices.iter().find(misplaced) {
            return Err(InvalidLaunch::DeviceTarget(device.target.clone()));
        }
        let Some(parent) = &self.cgroup_parent else { return Ok(()) };
        if !is_plain_absolute(Path::new(parent)) {
            return Err(InvalidLaunch::Path(parent.clone()));
        }
        if !Path::new(cgroup).starts_with(parent) {
            return Err(InvalidLaunch::CgroupParent { cgroup: cgroup.to_owned(), parent: parent.clone() });
        }
        Ok(())
    }

    /// What is handed to the kernel as text.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let paths = self.mounts.iter().flat_map(|mount| {
            let source = match &mount.kind {
                MountKind::Bind(bind) => Some(&bind.source),
                MountKind::Tmpfs(_) => None,
            };
            source.into_iter().chain([&mount.target])
        });
        let devices = self.devices.iter().flat_map(|device| [&device.source, &device.target]);
        let paths = paths.chain(devices).filter_map(|path| path.to_str());
        let texts = [&self.domainname, &self.privileges.apparmor, &self.cgroup_parent, &self.tuning.cpuset];
        texts.into_iter().flatten().map(String::as_str).chain(paths)
    }
}

/// Why a container may not set this value; `None` if it may. Those that belong to a namespace of the container's own, as
/// Docker has the list, and nothing that could be read as a second value or another name (the class of CVE-2022-0811).
fn sysctl_refusal(name: &str, value: &str, shared: Shared) -> Option<&'static str> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.chars().all(plain) || name.split('.').any(str::is_empty) {
        return Some("its name is not one of letters, digits and dots");
    }
    if value.chars().any(char::is_control) {
        return Some("its value has a control character in it");
    }
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return shared.ipc.then_some("the container has no IPC namespace of its own");
    }
    if name.starts_with("net.") {
        return None;
    }
    Some("it is the whole node's")
}

impl From<&model::Mount> for Mount {
    fn from(mount: &model::Mount) -> Self {
        let model::Mount { target, read_only, kind } = mount;
        let kind = match kind {
            model::MountKind::Bind(bind) => MountKind::Bind(bind.into()),
            model::MountKind::Tmpfs(tmpfs) => MountKind::Tmpfs(tmpfs.into()),
        };
        Self { target: target.into(), read_only: *read_only, kind }
    }
}

impl From<&model::Bind> for Bind {
    fn from(bind: &model::Bind) -> Self {
        let model::Bind { source, create, propagation, recursive } = bind;
        let propagation = match propagation {
            model::Propagation::Private => Propagation::Private,
            model::Propagation::Slave => Propagation::Slave,
            model::Propagation::Shared => Propagation::Shared,
        };
        Self { source: source.into(), create: *create, propagation, recursive: *recursive }
    }
}

impl From<&model::Tmpfs> for Tmpfs {
    fn from(tmpfs: &model::Tmpfs) -> Self {
        let model::Tmpfs { size, mode, uid, gid, exec } = *tmpfs;
        Self { bytes: size.map(|size| size.0), mode, uid, gid, exec }
    }
}

impl From<&model::Capabilities> for Capabilities {
    fn from(capabilities: &model::Capabilities) -> Self {
        let model::Capabilities { all, named } = capabilities;
        Self { all: *all, named: named.clone() }
    }
}

impl From<&model::Device> for Device {
    fn from(device: &model::Device) -> Self {
        let model::Device { source, target, access } = device;
        Self { source: source.into(), target: target.into(), access: *access }
    }
}

impl From<&model::Tuning> for Tuning {
    fn from(tuning: &model::Tuning) -> Self {
        let model::Tuning { cpu_shares, cpuset, memory_reservation, swap, blkio } = tuning;
        let swap = swap.map(|swap| match swap {
            model::SwapLimit::Unlimited => Swap::Unlimited,
            model::SwapLimit::Total(bytes) => Swap::Total(bytes.0),
        });
        Self {
            cpu_shares: *cpu_shares,
            cpuset: cpuset.clone(),
            memory_reservation: memory_reservation.map(|bytes| bytes.0),
            swap,
            blkio: blkio.into(),
        }
    }
}

impl From<&model::Blkio> for Blkio {
    fn from(blkio: &model::Blkio) -> Self {
        let model::Blkio {
            weight,
            weight_device,
            read_bytes,
            write_bytes,
            read_operations,
            write_operations,
        } = blkio;
        let rates = |rates: &Vec<(String, u64)>| {
            rates.iter().map(|(device, rate)| (PathBuf::from(device), *rate)).collect()
        };
        let weights = weight_device.iter();
        Self {
            weight: *weight,
            weight_device: weights.map(|(device, weight)| (device.into(), u64::from(*weight))).collect(),
            read_bytes: rates(read_bytes),
            write_bytes: rates(write_bytes),
            read_operations: rates(read_operations),
            write_operations: rates(write_operations),
        }
    }
}

/// A value as it is shown.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Capabilities by their names.
mod names {
    use std::collections::BTreeSet;

    use model::Capability;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        named: &BTreeSet<Capability>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(named.iter().map(|capability| capability.as_str()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<Capability>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse::<Capability>().map_err(D::Error::custom)).collect()
    }
}

/// A resource limit by its name.
mod resource {
    use model::Ulimit;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(resource: &Ulimit, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(resource.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ulimit, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Ulimit::ALL.into_iter().find(|known| known.as_str() == name);
        known.ok_or_else(|| D::Error::custom(format!("`{name}` is not a resource limit")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: &Options) -> String {
        options.check("/g/x").unwrap_err().to_string()
    }

    #[test]
    fn options_read_back_and_what_was_not_written_is_dockers_default() {
        let options = Options {
            mounts: vec![Mount {
                target: "/data".into(),
                read_only: true,
                kind: MountKind::Bind(Bind {
                    source: "/srv/data".into(),
                    create: true,
                    propagation: Propagation::Slave,
                    recursive: true,
                }),
            }],
            ulimits: vec![Ulimit { resource: model::Ulimit::Nofile, soft: Some(1024), hard: None }],
            privileges: Privileges {
                add: Capabilities { all: false, named: ["NET_ADMIN".parse().unwrap()].into() },
                ..Privileges::default()
            },
            devices: vec![Device {
                source: "/dev/fuse".into(),
                target: "/dev/fuse".into(),
                access: "rw".parse().unwrap(),
            }],
            device_rules: vec![DeviceRule("c 10:200 rwm".parse().unwrap())],
            output: Output::Syslog(Syslog {
                server: Server::Udp("10.0.0.1:514".parse().unwrap()),
                facility: 3,
                tag: "web".to_owned(),
                hostname: "n1".to_owned(),
            }),
            ..Options::default()
        };
        let written = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&written).unwrap(), options);
        for part in ["\"nofile\"", "\"CAP_NET_ADMIN\"", "\"access\":\"rw\"", "[\"c 10:200 rwm\"]"] {
            assert!(written.contains(part), "{part} is not in {written}");
        }
        assert_eq!(serde_json::from_str::<Options>("{}").unwrap(), Options::default());
        assert!(serde_json::from_str::<Options>("{\"unknown\":1}").is_err());
    }

    #[test]
    fn a_sysctl_is_the_containers_own_or_refused() {
        let refusal = |name: &str, value: &str| sysctl_refusal(name, value, Shared::default());
        for name in ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max", "kernel.sem"] {
            assert_eq!(refusal(name, "250 32000"), None, "{name}");
        }
        for name in
            ["kernel.panic", "vm.swappiness", "fs.file-max", "kernel.hostname", "user.max_mnt_namespaces"]
        {
            assert_eq!(refusal(name, "1"), Some("it is the whole node's"), "{name}");
        }
        for name in
            ["net.core.x=1+kernel.panic", "net/../kernel/panic", "net..x", "", "net.core.x\nkernel.panic"]
        {
            assert_eq!(refusal(name, "1"), Some("its name is not one of letters, digits and dots"), "{name}");
        }
        assert_eq!(refusal("net.core.somaxconn", "1\n2"), Some("its value has a control character in it"));
        let shared = Shared { ipc: true, ..Shared::default() };
        assert!(sysctl_refusal("kernel.shmmax", "1", shared).is_some());
        assert_eq!(sysctl_refusal("net.core.somaxconn", "1", shared), None);
    }

    #[test]
    fn what_no_node_could_carry_out_is_refused() {
        assert_eq!(Options::default().check("/g/x"), Ok(()));
        let tmpfs = |target: &str| Mount {
            target: target.into(),
            read_only: false,
            kind: MountKind::Tmpfs(Tmpfs::default()),
        };
        for bad in ["/", "data", "/data/../etc"] {
            let options = Options { mounts: vec![tmpfs(bad)], ..Options::default() };
            assert_eq!(refused(&options), format!("`{bad}` is not an absolute path without `..`"));
        }
        for bad in ["/dev", "/etc/fuse", "/dev/../etc"] {
            let device =
                Device { source: "/dev/fuse".into(), target: bad.into(), access: model::Access::ALL };
            let options = Options { devices: vec![device], ..Options::default() };
            assert_eq!(refused(&options), format!("a device cannot be at `{bad}`: it has to be below /dev"));
        }
        let options = Options { cgroup_parent: Some("/elsewhere".to_owned()), ..Options::default() };
        assert_eq!(refused(&options), "cgroup /g/x is not in its parent /elsewhere");
        let options = Options { domainname: Some("x".repeat(65)), ..Options::default() };
        assert!(refused(&options).contains("more than the 64 bytes"));
    }
}
