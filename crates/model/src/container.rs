//! What a container is given beyond the program that it runs. Docker calls most of it the host configuration.
//!
//! A default value is what Docker does where nothing is said. What a node's kernel or an image's content makes of a value is
//! the node's business; here is checked what can be told from the value alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::{Bytes, Signal};

/// How a container is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    pub annotations: BTreeMap<String, String>,
    /// `None` is the task's id.
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// Lines of `/etc/hosts`, in this order after gantry's own.
    pub hosts: Vec<HostEntry>,
    pub dns: Dns,
    /// Groups beyond those that `/etc/group` gives the user: names looked up in the container, or numbers.
    pub groups: Vec<String>,
    /// A process of gantry's that reaps orphans and passes signals on is the container's first.
    pub init: bool,
    pub tty: bool,
    pub stdin_open: bool,
    /// The root file system; mounts are as each says.
    pub read_only: bool,
    pub mounts: Vec<Mount>,
    /// Of `/dev/shm`; `None` is Docker's 64 MiB.
    pub shm_size: Option<Bytes>,
    pub ulimits: BTreeMap<Ulimit, UlimitRange>,
    /// Of the container's own namespaces; names with dots.
    pub sysctls: BTreeMap<String, String>,
    pub privileges: Privileges,
    pub devices: Vec<Device>,
    pub device_rules: Vec<DeviceRule>,
    pub namespaces: Namespaces,
    /// A cgroup to make the container's in, absolute in the hierarchy; `None` is the node's for containers.
    pub cgroup_parent: Option<String>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i16>,
    pub tuning: Tuning,
    /// How large the writable layer may grow.
    pub storage_size: Option<Bytes>,
    /// An OCI runtime's program in place of gantry's own.
    pub runtime: Option<String>,
    pub stop: Stop,
    pub hooks: Hooks,
    pub logging: Logging,
    /// Its program is started when the first client attaches, or after [`ContainerSpec::HELD`] without one, so that who runs it
    /// sees all that it prints. The input of a container that was started for a client ends with that client.
    pub hold: bool,
}

/// Commands that are run in a container beside its own. Each list is run in order, and one that fails ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Once it runs, before it counts as up. One that fails ends the container. Where the agent is started again meanwhile, they are
    /// run again from the first.
    pub post_start: Vec<Hook>,
    /// Before it is told to stop, within its grace period. That one fails is only noted.
    pub pre_stop: Vec<Hook>,
}

/// What is not said is the container's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    /// The program, looked up in the container's `PATH`, and its arguments: at least the program.
    pub command: Vec<String>,
    pub user: Option<String>,
    /// With all capabilities.
    pub privileged: bool,
    /// Absolute.
    pub working_dir: Option<String>,
    /// Added to the container's, replacing equal names.
    pub environment: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// Longer than it takes to attach on a busy cluster, and short enough that a container whose client died is not forgotten.
    pub const HELD: Duration = Duration::from_secs(30);
}

/// A name in `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    pub name: String,
    pub address: HostAddress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    Ip(IpAddr),
    /// Docker's `host-gateway`: the node, as the container reaches it.
    Gateway,
}

/// What is written into `/etc/resolv.conf`. Empty parts are the node's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where the container sees it: an absolute path without `..`.
    pub target: String,
    pub read_only: bool,
    pub kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    Bind(Bind),
    Tmpfs(Tmpfs),
}

/// A path of the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Absolute.
    pub source: String,
    /// Make a directory where there is nothing, as Docker does for the short form.
    pub create: bool,
    pub propagation: Propagation,
    /// With what is mounted below it.
    pub recursive: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Mounts on neither side show on the other.
    #[default]
    Private,
    /// Later mounts of the node show in the container.
    Slave,
    /// And the other way round.
    Shared,
}

/// Memory that is gone with the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tmpfs {
    /// `None` is the kernel's: half of the memory.
    pub size: Option<Bytes>,
    /// Permission bits; `None` is 01777.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Docker mounts it so that nothing on it can be executed.
    pub exec: bool,
}

/// A resource limit of processes, by the kernel's names in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ulimit {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Ulimit {
    pub const ALL: [Self; 16] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Data,
        Self::Fsize,
        Self::Locks,
        Self::Memlock,
        Self::Msgqueue,
        Self::Nice,
        Self::Nofile,
        Self::Nproc,
        Self::Rss,
        Self::Rtprio,
        Self::Rttime,
        Self::Sigpending,
        Self::Stack,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }
}

/// `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UlimitRange {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// What a container may do beyond, or less than, Docker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// All capabilities and devices, and no filter of system calls.
    pub privileged: bool,
    pub add: Capabilities,
    pub drop: Capabilities,
    /// `execve` gives no process more than it has: setuid programs and file capabilities do nothing.
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// A profile that the node has loaded, or `unconfined`; `None` is the node's default.
    pub apparmor: Option<String>,
    /// Docker's `systempaths=unconfined`: nothing of `/proc` and `/sys` is masked.
    pub unmasked: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's profile.
    #[default]
    Default,
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// A set of capabilities, perhaps of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub all: bool,
    pub named: BTreeSet<Capability>,
}

/// A capability by its kernel name, `CAP_NET_ADMIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(&'static str);

/// Of capabilities(7), Linux 6.12.
const CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

impl Capability {
    pub fn all() -> impl Iterator<Item = Self> {
        CAPABILITIES.into_iter().map(Self)
    }

    /// With `CAP_`.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a capability: write for example NET_ADMIN")]
pub struct UnknownCapability(String);

/// In either case, with or without `CAP_`, as Docker takes it.
impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Self, UnknownCapability> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let known = CAPABILITIES.into_iter().find(|known| known.strip_prefix("CAP_") == Some(name));
        known.map(Self).ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

/// A device node of the node's that the container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// A path of the node's; a directory stands for the devices in it.
    pub source: String,
    pub target: String,
    pub access: Access,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl Access {
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (may, letter) in [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')] {
            if may {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDevice {
    #[error("`{0}` is not what may be done with a device: write r, w and m, for example rw")]
    Access(String),
    #[error("`{0}` is not a device rule: write for example `c 10:200 rwm` or `a *:* rwm`")]
    Rule(String),
}

impl FromStr for Access {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let known = !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter));
        if !known || text.len() > 3 {
            return Err(InvalidDevice::Access(text.to_owned()));
        }
        let has = |letter| text.contains(letter);
        Ok(Self { read: has('r'), write: has('w'), mknod: has('m') })
    }
}

/// Which device nodes the container may use once it has them. `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Any,
    Block,
    Character,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Any => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

/// As cgroup v1 has it, and Docker's `device_cgroup_rules`: `c 10:200 rwm`.
impl FromStr for DeviceRule {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let bad = || InvalidDevice::Rule(text.to_owned());
        let mut words = text.split(' ');
        let (Some(kind), Some(numbers), Some(access), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad());
        };
        let kind = match kind {
            "a" => DeviceKind::Any,
            "b" => DeviceKind::Block,
            "c" => DeviceKind::Character,
            _ => return Err(bad()),
        };
        let number = |text: &str| match text {
            "*" => Ok(None),
            digits => digits.parse::<u32>().map(Some).map_err(|_| bad()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
        let access = access.parse().map_err(|_| bad())?;
        Ok(Self { kind, major: number(major)?, minor: number(minor)?, access })
    }
}

/// Which namespaces the container shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub ipc: Scope,
    pub pid: Scope,
    pub uts: Scope,
    pub cgroup: Scope,
    pub user: UserScope,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// One of the container's own.
    #[default]
    Own,
    /// The node's.
    Host,
}

/// Whose user ids the container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserScope {
    /// The node's, as Docker has it by default: root in the container is root on the node, less what it may not do.
    #[default]
    Host,
    /// Of its own: root in the container is nobody on the node.
    Own,
}

/// How the kernel shares out what it has. `None` leaves a value at the kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Relative to 1024.
    pub cpu_shares: Option<u64>,
    /// CPUs to run on, as the kernel writes them: `0-2,4`.
    pub cpuset: Option<String>,
    /// Memory that the kernel tries to leave to the container when there is little.
    pub memory_reservation: Option<Bytes>,
    pub swap: Option<SwapLimit>,
    pub blkio: Blkio,
}

/// Docker's `memswap_limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapLimit {
    Unlimited,
    /// Of memory and swap together.
    Total(Bytes),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blkio {
    /// 10 to 1000.
    pub weight: Option<u16>,
    pub weight_device: Vec<(String, u16)>,
    /// By device path: bytes or operations a second.
    pub read_bytes: Vec<(String, u64)>,
    pub write_bytes: Vec<(String, u64)>,
    pub read_operations: Vec<(String, u64)>,
    pub write_operations: Vec<(String, u64)>,
}

/// How a container is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// `None` is the image's, or SIGTERM.
    pub signal: Option<Signal>,
    /// How long it may take before it is killed.
    pub grace: Duration,
}

impl Stop {
    /// Compose's default.
    pub const GRACE: Duration = Duration::from_secs(10);
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: None, grace: Self::GRACE }
    }
}

/// Where a container's output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    pub driver: LogDriver,
    /// A file of the node's log is rotated before it grows beyond this.
    pub max_size: Bytes,
    /// Kept at most, the current one included. At least 1.
    pub max_files: u32,
}

impl Logging {
    /// 48 MiB a container: enough to see what happened, and little on a node with a hundred of them.
    pub const MAX_SIZE: Bytes = Bytes(16 << 20);
    pub const MAX_FILES: u32 = 3;
}

impl Default for Logging {
    fn default() -> Self {
        Self { driver: LogDriver::Local, max_size: Self::MAX_SIZE, max_files: Self::MAX_FILES }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogDriver {
    /// Files on the node, which `gantry logs` reads.
    #[default]
    Local,
    /// It is thrown away.
    None,
    /// Files, and also to the syslog at `address`: `udp://host:514`, `tcp://host:601`, `unix:///dev/log`.
    Syslog { address: String, facility: String, tag: String },
    /// Files, and also to the node's journal.
    Journald { tag: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_read_in_any_of_dockers_forms() {
        for written in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(written.parse::<Capability>().map(Capability::as_str), Ok("CAP_NET_ADMIN"));
        }
        assert_eq!(
            "CAP_CAP_KILL".parse::<Capability>().unwrap_err().to_string(),
            "`CAP_CAP_KILL` is not a capability: write for example NET_ADMIN"
        );
        assert!(CAPABILITIES.is_sorted(), "so that a set of them reads well");
    }

    #[test]
    fn a_device_rule_is_written_as_it_is_read() {
        for rule in ["c 10:200 rwm", "a *:* rwm", "b 8:* r", "c *:1 wm"] {
            assert_eq!(rule.parse::<DeviceRule>().unwrap().to_string(), rule);
        }
        for bad in ["", "c", "c 10 rwm", "c 10:200", "d 1:1 r", "c 1:1 x", "c 1:1 r extra", "c 1:-1 r"] {
            assert!(bad.parse::<DeviceRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_ulimit_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Ulimit::ALL.into_iter().map(Ulimit::as_str).collect();
        assert_eq!(names.len(), Ulimit::ALL.len());
    }
}
