//! What a service asks for beyond its program, as the shim is told it: with what only this node knows filled in, and what it
//! cannot do refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{ContainerSpec, LogDriver, Namespaces, Scope, Seccomp, UserScope};
use runtime::Options;
use runtime::launch::{DeviceRule, Journal, Output, Privileges, Server, Shared, Syslog, Ulimit};

use crate::host::Failure;
use crate::ledger::Assigned;

/// Names of OCI runtimes that promise what gantry's own does. Docker's default and what containerd calls it; the others are what a
/// user of them gets from here, too.
const SAME_RUNTIME: [&str; 5] = ["gantry", "runc", "io.containerd.runc.v2", "crun", "youki"];

/// How long a name server may take for the address of a syslog server. A container does not wait longer for its log.
const RESOLVE_TIME: Duration = Duration::from_secs(5);

/// Of RFC 5424, in their order.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

/// Docker's: `daemon`.
const FACILITY: u8 = 3;

/// The options of a container. `reserved` are gantry's own directories, and `cgroup_parent` and where output goes are added by the
/// caller, as are the files that it sees.
pub(crate) fn options(container: &ContainerSpec, reserved: Vec<PathBuf>) -> Result<Options, Failure> {
    let ContainerSpec {
        annotations: _,
        hostname: _,
        domainname,
        hosts: _,
        dns: _,
        groups,
        init,
        tty: _,
        stdin_open: _,
        read_only,
        mounts,
        shm_size,
        ulimits,
        sysctls,
        privileges,
        devices,
        device_rules,
        namespaces,
        cgroup_parent: _,
        oom_score_adj,
        tuning,
        storage_size,
        runtime,
        stop: _,
        logging: _,
        // The agent runs them.
        hooks: _,
        hold,
    } = container;
    if let Some(other) = runtime.as_ref().filter(|name| !SAME_RUNTIME.contains(&name.as_str())) {
        return Err(Failure(format!(
            "`runtime: {other}` is not done yet: gantry runs containers with its own"
        )));
    }
    let ulimits = ulimits.iter().map(|(resource, range)| {
        let model::UlimitRange { soft, hard } = *range;
        Ulimit { resource: *resource, soft, hard }
    });
    Ok(Options {
        domainname: domainname.clone(),
        groups: groups.clone(),
        init: *init,
        read_only: *read_only,
        mounts: mounts.iter().map(Into::into).collect(),
        reserved,
        shm_bytes: shm_size.map(|size| size.0),
        ulimits: ulimits.collect(),
        sysctls: sysctls.clone(),
        privileges: privileges_of(privileges),
        devices: devices.iter().map(Into::into).collect(),
        device_rules: device_rules.iter().copied().map(DeviceRule).collect(),
        shared: shared(*namespaces)?,
        cgroup_parent: None,
        oom_score_adj: *oom_score_adj,
        tuning: tuning.into(),
        storage_bytes: storage_size.map(|size| size.0),
        output: Output::Files,
        hold_ms: hold.then(|| u64::try_from(ContainerSpec::HELD.as_millis()).unwrap_or(u64::MAX)),
    })
}

fn privileges_of(privileges: &model::Privileges) -> Privileges {
    let model::Privileges { privileged, add, drop, no_new_privileges, seccomp, apparmor, unmasked } =
        privileges;
    let unfiltered = match seccomp {
        // As in Docker, a privileged container is filtered by what it is explicitly given only.
        Seccomp::Default => *privileged,
        Seccomp::Unconfined => true,
        Seccomp::Profile(_) => false,
    };
    Privileges {
        privileged: *privileged,
        add: add.into(),
        drop: drop.into(),
        no_new_privileges: *no_new_privileges,
        unfiltered,
        apparmor: apparmor.clone(),
        unmasked: *unmasked,
    }
}

fn shared(namespaces: Namespaces) -> Result<Shared, Failure> {
    let Namespaces { ipc, pid, uts, cgroup, user } = namespaces;
    let is_host = |scope: Scope| match scope {
        Scope::Own => false,
        Scope::Host => true,
    };
    match user {
        UserScope::Host => {}
        UserScope::Own => {
            return Err(Failure(
                "not done yet: a container with user ids of its own (`userns_mode`); leave it out, or say `host`"
                    .to_owned(),
            ));
        }
    }
    Ok(Shared { ipc: is_host(ipc), pid: is_host(pid), uts: is_host(uts), cgroup: is_host(cgroup) })
}

/// The seccomp profile that a service brings.
pub(crate) fn profile(container: &ContainerSpec) -> Option<String> {
    match &container.privileges.seccomp {
        Seccomp::Profile(text) => Some(text.clone()),
        Seccomp::Default | Seccomp::Unconfined => None,
    }
}

/// Where a container's cgroup is, and the parent that has to be made for it and taken away, if any. `node` is the prefix of all
/// that this node makes.
pub(crate) fn cgroup(parent: Option<&str>, node: &str, task: &str, attempt: u32) -> (String, Option<String>) {
    let Some(parent) = parent else {
        // Not `tasks`: cgroup v1 has a file of that name in every directory.
        return (format!("{node}/containers/{task}-{attempt}"), None);
    };
    let parent = parent.trim_end_matches('/');
    let parent = match parent.starts_with('/') || parent.is_empty() {
        true => parent.to_owned(),
        false => format!("{node}/{parent}"),
    };
    // Others may have their cgroups there, other nodes on this machine among them.
    let node = node.trim_matches('/').replace('/', "-");
    (format!("{parent}/{node}-{task}-{attempt}"), (!parent.is_empty()).then_some(parent))
}

/// Where what a container prints goes besides its files, with what has to be said about it: a log that cannot be sent somewhere
/// does not keep a container from running.
pub(crate) async fn output(assigned: &Assigned) -> (Output, Option<String>) {
    let task = assigned.id.to_string();
    let tag_or_task = |tag: &str| if tag.is_empty() { task.clone() } else { tag.to_owned() };
    let only_files =
        |why: String| (Output::Files, Some(format!("output goes to the node's files only: {why}")));
    match &assigned.spec.container.logging.driver {
        LogDriver::Local => (Output::Files, None),
        LogDriver::None => (Output::Discard, None),
        LogDriver::Journald { tag } => {
            let socket = PathBuf::from(Journal::SOCKET);
            if !socket.exists() {
                return only_files("this node has no journal".to_owned());
            }
            let fields = [
                ("CONTAINER_NAME", &task),
                ("CONTAINER_TAG", tag),
                ("GANTRY_SERVICE", &assigned.service),
                ("IMAGE_NAME", &assigned.spec.image.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value.clone()));
            (Output::Journal(Journal { socket, tag: tag_or_task(tag), fields: fields.into() }), None)
        }
        LogDriver::Syslog { address, facility, tag } => {
            let Some(facility) = facility_of(facility) else {
                return only_files(format!("`{facility}` is no facility of syslog"));
            };
            match server(address).await {
                Ok(server) => {
                    let (tag, hostname) = (tag_or_task(tag), hostname());
                    (Output::Syslog(Syslog { server, facility, tag, hostname }), None)
                }
                Err(why) => only_files(why),
            }
        }
    }
}

/// A facility by its name or number.
fn facility_of(text: &str) -> Option<u8> {
    if text.is_empty() {
        return Some(FACILITY);
    }
    let by_name = FACILITIES.iter().position(|name| *name == text);
    let number = by_name.or_else(|| text.parse().ok()).filter(|number| *number < FACILITIES.len());
    number.and_then(|number| u8::try_from(number).ok())
}

/// A syslog server as it is written, before its name is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Unix(PathBuf),
    Udp(String, u16),
    Tcp(String, u16),
}

/// As Docker's `syslog-address` has it.
fn endpoint(address: &str) -> Result<Endpoint, String> {
    /// Docker's, for either protocol.
    const PORT: u16 = 514;
    let malformed =
        || format!("`{address}` is no syslog server: write for example udp://logs.example.org:514");
    let (scheme, rest) = address.split_once("://").ok_or_else(malformed)?;
    if matches!(scheme, "unix" | "unixgram") {
        return if rest.starts_with('/') { Ok(Endpoint::Unix(rest.into())) } else { Err(malformed()) };
    }
    let (host, port) = match rest.rsplit_once(':') {
        // What has more colons than one is an IPv6 address, in brackets if there is a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| malformed())?)
        }
        Some(_) | None => (rest, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match scheme {
        _ if host.is_empty() => Err(malformed()),
        "udp" => Ok(Endpoint::Udp(host, port)),
        "tcp" => Ok(Endpoint::Tcp(host, port)),
        _ => Err(malformed()),
    }
}

async fn server(address: &str) -> Result<Server, String> {
    match endpoint(address)? {
        Endpoint::Unix(path) => Ok(Server::Unix(path)),
        Endpoint::Udp(host, port) => Ok(Server::Udp(resolve(&host, port).await?)),
        Endpoint::Tcp(host, port) => Ok(Server::Tcp(resolve(&host, port).await?)),
    }
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = tokio::time::timeout(RESOLVE_TIME, tokio::net::lookup_host((host, port))).await;
    let mut found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("the syslog server {host} has no address: {error}")),
        Err(_) => return Err(format!("the address of the syslog server {host} was not found in time")),
    };
    found.next().ok_or_else(|| format!("the syslog server {host} has no address"))
}

/// The node's own name.
pub(crate) fn hostname() -> String {
    let name = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_not_this_one_is_refused() {
        let with = |runtime: &str| {
            let container = ContainerSpec { runtime: Some(runtime.to_owned()), ..ContainerSpec::default() };
            options(&container, Vec::new()).map(drop)
        };
        assert_eq!(with("runc"), Ok(()));
        let Err(Failure(why)) = with("runsc") else { panic!("it is another one") };
        assert_eq!(why, "`runtime: runsc` is not done yet: gantry runs containers with its own");
    }

    #[test]
    fn a_privileged_container_is_filtered_by_its_own_profile_only() {
        let unfiltered = |privileged, seccomp| {
            privileges_of(&model::Privileges { privileged, seccomp, ..model::Privileges::default() })
                .unfiltered
        };
        assert!(!unfiltered(false, Seccomp::Default) && unfiltered(true, Seccomp::Default));
        assert!(unfiltered(false, Seccomp::Unconfined));
        assert!(!unfiltered(true, Seccomp::Profile("{}".to_owned())));
    }

    #[test]
    fn a_cgroup_is_the_nodes_or_where_it_was_asked_to_be() {
        let cgroup = |parent| cgroup(parent, "/gantry/dev/n1", "s1-2-3", 4);
        assert_eq!(cgroup(None), ("/gantry/dev/n1/containers/s1-2-3-4".to_owned(), None));
        for (asked, parent) in [("/batch/", "/batch"), ("slow/jobs", "/gantry/dev/n1/slow/jobs")] {
            let expected = (format!("{parent}/gantry-dev-n1-s1-2-3-4"), Some(parent.to_owned()));
            assert_eq!(cgroup(Some(asked)), expected);
        }
        assert_eq!(cgroup(Some("/")), ("/gantry-dev-n1-s1-2-3-4".to_owned(), None));
    }

    #[test]
    fn a_syslog_server_is_read_as_docker_writes_it() {
        let udp = |host: &str, port| Ok(Endpoint::Udp(host.to_owned(), port));
        assert_eq!(endpoint("unix:///dev/log"), Ok(Endpoint::Unix("/dev/log".into())));
        assert_eq!(endpoint("udp://logs:1514"), udp("logs", 1514));
        assert_eq!(endpoint("udp://logs"), udp("logs", 514));
        assert_eq!(endpoint("udp://[fd00::1]:1514"), udp("fd00::1", 1514));
        assert_eq!(endpoint("udp://[fd00::1]"), udp("fd00::1", 514));
        assert_eq!(endpoint("tcp://10.0.0.1:601"), Ok(Endpoint::Tcp("10.0.0.1".to_owned(), 601)));
        for bad in ["", "logs:514", "udp://", "udp://logs:x", "http://logs", "unix://log"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        assert_eq!(facility_of(""), Some(3));
        assert_eq!(facility_of("local7"), Some(23));
        assert_eq!(facility_of("16"), Some(16));
        for bad in ["24", "-1", "nonsense"] {
            assert_eq!(facility_of(bad), None, "{bad}");
        }
    }
}
