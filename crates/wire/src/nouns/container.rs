//! What a container is given beyond the program that it runs.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use model::{
    Capability, DeviceRule, HostAddress, LogDriver, MountKind, Scope, Seccomp, Signal, SwapLimit, Ulimit,
    UserScope,
};

use super::{bytes, millis, or_default, unless_default};
use crate::invalid::{choices, list, shown};
use crate::proto::model as proto;
use crate::proto::model::{host_entry, logging, mount, privileges, tuning};
use crate::{Cause, Field, Invalid};

choices! {
    Propagation { Private, Slave, Shared }
}

impl From<&model::Hooks> for proto::Hooks {
    fn from(hooks: &model::Hooks) -> Self {
        let model::Hooks { post_start, pre_stop } = hooks;
        let list = |hooks: &[model::Hook]| hooks.iter().map(Into::into).collect();
        Self { post_start: list(post_start), pre_stop: list(pre_stop) }
    }
}

impl TryFrom<proto::Hooks> for model::Hooks {
    type Error = Invalid;

    fn try_from(hooks: proto::Hooks) -> Result<Self, Invalid> {
        let proto::Hooks { post_start, pre_stop } = hooks;
        Ok(Self { post_start: list(post_start)?, pre_stop: list(pre_stop)? })
    }
}

impl From<&model::Hook> for proto::Hook {
    fn from(hook: &model::Hook) -> Self {
        let model::Hook { command, user, privileged, working_dir, environment } = hook;
        Self {
            command: command.clone(),
            user: user.clone(),
            privileged: *privileged,
            working_dir: working_dir.clone(),
            environment: environment.clone(),
        }
    }
}

impl TryFrom<proto::Hook> for model::Hook {
    type Error = Invalid;

    fn try_from(hook: proto::Hook) -> Result<Self, Invalid> {
        let proto::Hook { command, user, privileged, working_dir, environment } = hook;
        if command.is_empty() {
            return Err(Field("Hook", "command").bad(Cause::Missing));
        }
        Ok(Self { command, user, privileged, working_dir, environment })
    }
}

impl From<&model::ContainerSpec> for proto::ContainerSpec {
    fn from(spec: &model::ContainerSpec) -> Self {
        let model::ContainerSpec {
            annotations,
            hostname,
            domainname,
            hosts,
            dns,
            groups,
            init,
            tty,
            stdin_open,
            read_only,
            mounts,
            shm_size,
            ulimits,
            sysctls,
            privileges,
            devices,
            device_rules,
            namespaces,
            cgroup_parent,
            oom_score_adj,
            tuning,
            storage_size,
            runtime,
            stop,
            hooks,
            logging,
            hold,
        } = spec;
        Self {
            annotations: annotations.clone(),
            hostname: hostname.clone(),
            domainname: domainname.clone(),
            hosts: hosts.iter().map(Into::into).collect(),
            dns: unless_default(dns),
            groups: groups.clone(),
            init: *init,
            tty: *tty,
            stdin_open: *stdin_open,
            read_only: *read_only,
            mounts: mounts.iter().map(Into::into).collect(),
            shm_size: shm_size.map(|size| size.0),
            ulimits: ulimits.iter().map(|(name, range)| (name.as_str().to_owned(), range.into())).collect(),
            sysctls: sysctls.clone(),
            privileges: unless_default(privileges),
            devices: devices.iter().map(Into::into).collect(),
            device_rules: device_rules.iter().map(ToString::to_string).collect(),
            namespaces: unless_default(namespaces),
            cgroup_parent: cgroup_parent.clone(),
            oom_score_adj: oom_score_adj.map(i32::from),
            tuning: unless_default(tuning),
            storage_size: storage_size.map(|size| size.0),
            runtime: runtime.clone(),
            stop: unless_default(stop),
            hooks: unless_default(hooks),
            logging: unless_default(logging),
            hold: *hold,
        }
    }
}

impl TryFrom<proto::ContainerSpec> for model::ContainerSpec {
    type Error = Invalid;

    fn try_from(spec: proto::ContainerSpec) -> Result<Self, Invalid> {
        let proto::ContainerSpec {
            annotations,
            hostname,
            domainname,
            hosts,
            dns,
            groups,
            init,
            tty,
            stdin_open,
            read_only,
            mounts,
            shm_size,
            ulimits,
            sysctls,
            privileges,
            devices,
            device_rules,
            namespaces,
            cgroup_parent,
            oom_score_adj,
            tuning,
            storage_size,
            runtime,
            stop,
            hooks,
            logging,
            hold,
        } = spec;
        let at = |field| Field("ContainerSpec", field);
        Ok(Self {
            annotations,
            hostname,
            domainname,
            hosts: list(hosts)?,
            dns: or_default(dns)?,
            groups,
            init,
            tty,
            stdin_open,
            read_only,
            mounts: list(mounts)?,
            shm_size: shm_size.map(|size| bytes(at("shm_size"), size)).transpose()?,
            ulimits: ulimits_of(at("ulimits"), ulimits)?,
            sysctls,
            privileges: or_default(privileges)?,
            devices: list(devices)?,
            device_rules: each(&device_rules, |rule| at("device_rules").parsed::<DeviceRule>(rule))?,
            namespaces: namespaces.map(Into::into).unwrap_or_default(),
            cgroup_parent: cgroup_parent.map(|path| inside(at("cgroup_parent"), path)).transpose()?,
            oom_score_adj: oom_score_adj.map(|score| oom_score(at("oom_score_adj"), score)).transpose()?,
            tuning: or_default(tuning)?,
            storage_size: storage_size.map(|size| bytes(at("storage_size"), size)).transpose()?,
            runtime,
            stop: or_default(stop)?,
            hooks: or_default(hooks)?,
            logging: or_default(logging)?,
            hold,
        })
    }
}

/// Every one of a list of texts, read.
fn each<T>(texts: &[String], read: impl Fn(&str) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
    texts.iter().map(|text| read(text)).collect()
}

/// A path that does not lead out of where it begins.
fn inside(at: Field, path: String) -> Result<String, Invalid> {
    if path.split('/').any(|part| part == "..") {
        return Err(at.bad("a path here has no `..`"));
    }
    at.absolute(path)
}

/// The kernel's range for `oom_score_adj`, of proc_pid_oom_score_adj(5).
fn oom_score(at: Field, score: i32) -> Result<i16, Invalid> {
    let known = i16::try_from(score).ok().filter(|score| (-1000..=1000).contains(score));
    known.ok_or_else(|| at.bad(Cause::OutOfRange(score.into())))
}

fn ulimits_of(
    at: Field,
    ulimits: BTreeMap<String, proto::UlimitRange>,
) -> Result<BTreeMap<Ulimit, model::UlimitRange>, Invalid> {
    let mut known = BTreeMap::new();
    for (name, range) in ulimits {
        let ulimit = Ulimit::ALL.into_iter().find(|ulimit| ulimit.as_str() == name);
        let ulimit = ulimit.ok_or_else(|| at.bad(Cause::Ulimit(shown(&name))))?;
        known.insert(ulimit, model::UlimitRange::try_from(range)?);
    }
    Ok(known)
}

impl From<&model::UlimitRange> for proto::UlimitRange {
    fn from(range: &model::UlimitRange) -> Self {
        let model::UlimitRange { soft, hard } = range;
        Self { soft: *soft, hard: *hard }
    }
}

impl TryFrom<proto::UlimitRange> for model::UlimitRange {
    type Error = Invalid;

    fn try_from(range: proto::UlimitRange) -> Result<Self, Invalid> {
        let proto::UlimitRange { soft, hard } = range;
        // setrlimit(2) refuses it, at a time when nobody listens.
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(Field("UlimitRange", "soft").bad("it is above `hard`"));
        }
        Ok(Self { soft, hard })
    }
}

impl From<&model::HostEntry> for proto::HostEntry {
    fn from(entry: &model::HostEntry) -> Self {
        let model::HostEntry { name, address } = entry;
        let address = match address {
            HostAddress::Ip(ip) => host_entry::Address::Ip(ip.to_string()),
            HostAddress::Gateway => host_entry::Address::Gateway(proto::Nothing {}),
        };
        Self { name: name.clone(), address: Some(address) }
    }
}

impl TryFrom<proto::HostEntry> for model::HostEntry {
    type Error = Invalid;

    fn try_from(entry: proto::HostEntry) -> Result<Self, Invalid> {
        let proto::HostEntry { name, address } = entry;
        let at = |field| Field("HostEntry", field);
        let address = match at("address").kind(address)? {
            host_entry::Address::Ip(ip) => HostAddress::Ip(at("ip").address(&ip)?),
            host_entry::Address::Gateway(proto::Nothing {}) => HostAddress::Gateway,
        };
        Ok(Self { name, address })
    }
}

impl From<&model::Dns> for proto::Dns {
    fn from(dns: &model::Dns) -> Self {
        let model::Dns { servers, search, options } = dns;
        Self {
            servers: servers.iter().map(ToString::to_string).collect(),
            search: search.clone(),
            options: options.clone(),
        }
    }
}

impl TryFrom<proto::Dns> for model::Dns {
    type Error = Invalid;

    fn try_from(dns: proto::Dns) -> Result<Self, Invalid> {
        let proto::Dns { servers, search, options } = dns;
        let servers = each(&servers, |server| Field("Dns", "servers").address(server))?;
        Ok(Self { servers, search, options })
    }
}

impl From<&model::Mount> for proto::Mount {
    fn from(mount: &model::Mount) -> Self {
        let model::Mount { target, read_only, kind } = mount;
        let kind = match kind {
            MountKind::Bind(bind) => mount::Kind::Bind(bind.into()),
            MountKind::Tmpfs(tmpfs) => mount::Kind::Tmpfs(tmpfs.into()),
        };
        Self { target: target.clone(), read_only: *read_only, kind: Some(kind) }
    }
}

impl TryFrom<proto::Mount> for model::Mount {
    type Error = Invalid;

    fn try_from(mount: proto::Mount) -> Result<Self, Invalid> {
        let proto::Mount { target, read_only, kind } = mount;
        let at = |field| Field("Mount", field);
        let kind = match at("kind").kind(kind)? {
            mount::Kind::Bind(bind) => MountKind::Bind(model::Bind::try_from(bind)?),
            mount::Kind::Tmpfs(tmpfs) => MountKind::Tmpfs(model::Tmpfs::try_from(tmpfs)?),
        };
        Ok(Self { target: inside(at("target"), target)?, read_only, kind })
    }
}

impl From<&model::Bind> for proto::Bind {
    fn from(bind: &model::Bind) -> Self {
        let model::Bind { source, create, propagation, recursive } = bind;
        Self {
            source: source.clone(),
            create: *create,
            propagation: proto::Propagation::from(*propagation).into(),
            recursive: *recursive,
        }
    }
}

impl TryFrom<proto::Bind> for model::Bind {
    type Error = Invalid;

    fn try_from(bind: proto::Bind) -> Result<Self, Invalid> {
        let proto::Bind { source, create, propagation, recursive } = bind;
        let at = |field| Field("Bind", field);
        let propagation = at("propagation").choice::<proto::Propagation, _>(propagation)?;
        Ok(Self { source: at("source").absolute(source)?, create, propagation, recursive })
    }
}

impl From<&model::Tmpfs> for proto::Tmpfs {
    fn from(tmpfs: &model::Tmpfs) -> Self {
        let model::Tmpfs { size, mode, uid, gid, exec } = tmpfs;
        Self { size: size.map(|size| size.0), mode: *mode, uid: *uid, gid: *gid, exec: *exec }
    }
}

impl TryFrom<proto::Tmpfs> for model::Tmpfs {
    type Error = Invalid;

    fn try_from(tmpfs: proto::Tmpfs) -> Result<Self, Invalid> {
        let proto::Tmpfs { size, mode, uid, gid, exec } = tmpfs;
        let at = |field| Field("Tmpfs", field);
        let size = size.map(|size| bytes(at("size"), size)).transpose()?;
        Ok(Self {
            size,
            mode: mode.map(|mode| up_to(at("mode"), mode, 0o7777)).transpose()?,
            uid: uid.map(|id| up_to(at("uid"), id, LARGEST_ID)).transpose()?,
            gid: gid.map(|id| up_to(at("gid"), id, LARGEST_ID)).transpose()?,
            exec,
        })
    }
}

/// The next one, -1 in C, stands for no user or group at all: chown(2).
const LARGEST_ID: u32 = u32::MAX - 1;

fn up_to(at: Field, value: u32, largest: u32) -> Result<u32, Invalid> {
    if value > largest {
        return Err(at.bad(Cause::OutOfRange(value.into())));
    }
    Ok(value)
}

impl From<&model::Privileges> for proto::Privileges {
    fn from(granted: &model::Privileges) -> Self {
        let model::Privileges { privileged, add, drop, no_new_privileges, seccomp, apparmor, unmasked } =
            granted;
        let seccomp = match seccomp {
            Seccomp::Default => None,
            Seccomp::Unconfined => Some(privileges::Seccomp::Unconfined(proto::Nothing {})),
            Seccomp::Profile(json) => Some(privileges::Seccomp::Profile(json.clone())),
        };
        Self {
            privileged: *privileged,
            add: unless_default(add),
            drop: unless_default(drop),
            no_new_privileges: *no_new_privileges,
            seccomp,
            apparmor: apparmor.clone(),
            unmasked: *unmasked,
        }
    }
}

impl TryFrom<proto::Privileges> for model::Privileges {
    type Error = Invalid;

    fn try_from(granted: proto::Privileges) -> Result<Self, Invalid> {
        let proto::Privileges { privileged, add, drop, no_new_privileges, seccomp, apparmor, unmasked } =
            granted;
        let seccomp = match seccomp {
            None => Seccomp::Default,
            Some(privileges::Seccomp::Unconfined(proto::Nothing {})) => Seccomp::Unconfined,
            Some(privileges::Seccomp::Profile(json)) => Seccomp::Profile(json),
        };
        Ok(Self {
            privileged,
            add: or_default(add)?,
            drop: or_default(drop)?,
            no_new_privileges,
            seccomp,
            apparmor,
            unmasked,
        })
    }
}

impl From<&model::Capabilities> for proto::Capabilities {
    fn from(capabilities: &model::Capabilities) -> Self {
        let model::Capabilities { all, named } = capabilities;
        Self { all: *all, named: named.iter().map(|one| one.as_str().to_owned()).collect() }
    }
}

impl TryFrom<proto::Capabilities> for model::Capabilities {
    type Error = Invalid;

    fn try_from(capabilities: proto::Capabilities) -> Result<Self, Invalid> {
        let proto::Capabilities { all, named } = capabilities;
        let named = each(&named, |name| Field("Capabilities", "named").parsed::<Capability>(name))?;
        Ok(Self { all, named: named.into_iter().collect() })
    }
}

impl From<&model::Device> for proto::Device {
    fn from(device: &model::Device) -> Self {
        let model::Device { source, target, access } = device;
        Self { source: source.clone(), target: target.clone(), access: access.to_string() }
    }
}

impl TryFrom<proto::Device> for model::Device {
    type Error = Invalid;

    fn try_from(device: proto::Device) -> Result<Self, Invalid> {
        let proto::Device { source, target, access } = device;
        let at = |field| Field("Device", field);
        Ok(Self {
            source: at("source").absolute(source)?,
            target: inside(at("target"), target)?,
            access: at("access").parsed(&access)?,
        })
    }
}

impl From<&model::Namespaces> for proto::Namespaces {
    fn from(namespaces: &model::Namespaces) -> Self {
        let model::Namespaces { ipc, pid, uts, cgroup, user } = namespaces;
        let is_host = |scope: &Scope| match scope {
            Scope::Own => false,
            Scope::Host => true,
        };
        let own_users = match user {
            UserScope::Host => false,
            UserScope::Own => true,
        };
        Self {
            host_ipc: is_host(ipc),
            host_pid: is_host(pid),
            host_uts: is_host(uts),
            host_cgroup: is_host(cgroup),
            own_users,
        }
    }
}

impl From<proto::Namespaces> for model::Namespaces {
    fn from(namespaces: proto::Namespaces) -> Self {
        let proto::Namespaces { host_ipc, host_pid, host_uts, host_cgroup, own_users } = namespaces;
        let scope = |host| if host { Scope::Host } else { Scope::Own };
        Self {
            ipc: scope(host_ipc),
            pid: scope(host_pid),
            uts: scope(host_uts),
            cgroup: scope(host_cgroup),
            user: if own_users { UserScope::Own } else { UserScope::Host },
        }
    }
}

impl From<&model::Tuning> for proto::Tuning {
    fn from(tuning: &model::Tuning) -> Self {
        let model::Tuning { cpu_shares, cpuset, memory_reservation, swap, blkio } = tuning;
        let swap = swap.map(|limit| match limit {
            SwapLimit::Unlimited => tuning::Swap::UnlimitedSwap(proto::Nothing {}),
            SwapLimit::Total(size) => tuning::Swap::MemoryAndSwap(size.0),
        });
        Self {
            cpu_shares: *cpu_shares,
            cpuset: cpuset.clone(),
            memory_reservation: memory_reservation.map(|size| size.0),
            swap,
            blkio: unless_default(blkio),
        }
    }
}

impl TryFrom<proto::Tuning> for model::Tuning {
    type Error = Invalid;

    fn try_from(tuning: proto::Tuning) -> Result<Self, Invalid> {
        let proto::Tuning { cpu_shares, cpuset, memory_reservation, swap, blkio } = tuning;
        let at = |field| Field("Tuning", field);
        let swap = match swap {
            None => None,
            Some(tuning::Swap::UnlimitedSwap(proto::Nothing {})) => Some(SwapLimit::Unlimited),
            Some(tuning::Swap::MemoryAndSwap(size)) => {
                Some(SwapLimit::Total(bytes(at("memory_and_swap"), size)?))
            }
        };
        Ok(Self {
            cpu_shares,
            cpuset,
            memory_reservation: memory_reservation
                .map(|size| bytes(at("memory_reservation"), size))
                .transpose()?,
            swap,
            blkio: or_default(blkio)?,
        })
    }
}

impl From<&model::Blkio> for proto::Blkio {
    fn from(blkio: &model::Blkio) -> Self {
        let model::Blkio {
            weight,
            weight_device,
            read_bytes,
            write_bytes,
            read_operations,
            write_operations,
        } = blkio;
        Self {
            weight: weight.map(u32::from),
            weight_device: device_values(weight_device),
            read_bytes: device_values(read_bytes),
            write_bytes: device_values(write_bytes),
            read_operations: device_values(read_operations),
            write_operations: device_values(write_operations),
        }
    }
}

impl TryFrom<proto::Blkio> for model::Blkio {
    type Error = Invalid;

    fn try_from(blkio: proto::Blkio) -> Result<Self, Invalid> {
        let proto::Blkio {
            weight,
            weight_device,
            read_bytes,
            write_bytes,
            read_operations,
            write_operations,
        } = blkio;
        let at = |field| Field("Blkio", field);
        let rate = |_: Field, rate: u64| Ok::<u64, Invalid>(rate);
        Ok(Self {
            weight: weight.map(|weight| weight_of(at("weight"), weight.into())).transpose()?,
            weight_device: by_device(at("weight_device"), weight_device, weight_of)?,
            read_bytes: by_device(at("read_bytes"), read_bytes, rate)?,
            write_bytes: by_device(at("write_bytes"), write_bytes, rate)?,
            read_operations: by_device(at("read_operations"), read_operations, rate)?,
            write_operations: by_device(at("write_operations"), write_operations, rate)?,
        })
    }
}

fn device_values<T: Copy + Into<u64>>(values: &[(String, T)]) -> Vec<proto::DeviceValue> {
    let value =
        |(path, value): &(String, T)| proto::DeviceValue { path: path.clone(), value: (*value).into() };
    values.iter().map(value).collect()
}

fn by_device<T>(
    at: Field,
    values: Vec<proto::DeviceValue>,
    read: impl Fn(Field, u64) -> Result<T, Invalid>,
) -> Result<Vec<(String, T)>, Invalid> {
    let pair = |proto::DeviceValue { path, value }| -> Result<(String, T), Invalid> {
        Ok((at.absolute(path)?, read(at, value)?))
    };
    values.into_iter().map(pair).collect()
}

/// The range that Docker takes.
fn weight_of(at: Field, weight: u64) -> Result<u16, Invalid> {
    let known = u16::try_from(weight).ok().filter(|weight| (10..=1000).contains(weight));
    known.ok_or_else(|| at.bad(Cause::OutOfRange(weight.into())))
}

impl From<&model::Stop> for proto::Stop {
    fn from(stop: &model::Stop) -> Self {
        let model::Stop { signal, grace } = stop;
        Self { signal: signal.map(|signal| signal.number().into()), grace: millis(*grace) }
    }
}

impl TryFrom<proto::Stop> for model::Stop {
    type Error = Invalid;

    fn try_from(stop: proto::Stop) -> Result<Self, Invalid> {
        let proto::Stop { signal, grace } = stop;
        let signal = signal.map(|number| signal_of(Field("Stop", "signal"), number)).transpose()?;
        Ok(Self { signal, grace: Duration::from_millis(grace) })
    }
}

fn signal_of(at: Field, number: u32) -> Result<Signal, Invalid> {
    Signal::from_number(at.narrowed(number)?).ok_or_else(|| at.bad(Cause::OutOfRange(number.into())))
}

impl From<&model::Logging> for proto::Logging {
    fn from(logging: &model::Logging) -> Self {
        let model::Logging { driver, max_size, max_files } = logging;
        let driver = match driver {
            LogDriver::Local => logging::Driver::Local(proto::Nothing {}),
            LogDriver::None => logging::Driver::None(proto::Nothing {}),
            LogDriver::Syslog { address, facility, tag } => logging::Driver::Syslog(proto::Syslog {
                address: address.clone(),
                facility: facility.clone(),
                tag: tag.clone(),
            }),
            LogDriver::Journald { tag } => logging::Driver::Journald(proto::Journald { tag: tag.clone() }),
        };
        Self { driver: Some(driver), max_size: max_size.0, max_files: *max_files }
    }
}

impl TryFrom<proto::Logging> for model::Logging {
    type Error = Invalid;

    fn try_from(logging: proto::Logging) -> Result<Self, Invalid> {
        let proto::Logging { driver, max_size, max_files } = logging;
        let at = |field| Field("Logging", field);
        let driver = match at("driver").kind(driver)? {
            logging::Driver::Local(proto::Nothing {}) => LogDriver::Local,
            logging::Driver::None(proto::Nothing {}) => LogDriver::None,
            logging::Driver::Syslog(proto::Syslog { address, facility, tag }) => {
                LogDriver::Syslog { address, facility, tag }
            }
            logging::Driver::Journald(proto::Journald { tag }) => LogDriver::Journald { tag },
        };
        // Zero is what an absent number reads as, and a log of no bytes or no files keeps nothing: that is driver `none`.
        if max_size == 0 {
            return Err(at("max_size").bad(Cause::Missing));
        }
        if max_files == 0 {
            return Err(at("max_files").bad(Cause::Missing));
        }
        Ok(Self { driver, max_size: bytes(at("max_size"), max_size)?, max_files })
    }
}
