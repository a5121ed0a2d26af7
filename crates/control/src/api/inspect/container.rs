//! What was declared of a service's tasks, as a part of its document.
//!
//! Of what a container is given beyond its program there is what differs from Docker's defaults; how it ends, where its output
//! goes and how it is checked are always there. Times are in milliseconds and sizes in bytes, as their names say.

use std::time::Duration;

use model::{
    Bind, Blkio, Bytes, Capabilities, ContainerSpec, Device, Dns, Health, HealthCheck, Hook, HostAddress,
    HostEntry, HttpProbe, Limits, LogDriver, Logging, Mount, MountKind, Namespaces, PlacementPolicy,
    PortSpec, Privileges, Probe, Propagation, Publish, PullPolicy, Readiness, Reservations, Resources,
    RestartCondition, RestartPolicy, Scope, Seccomp, Stop, SwapLimit, TaskSpec, Tmpfs, Tuning, UlimitRange,
    UserScope, Wish,
};
use serde_json::{Value, json};

/// What each task of a service is made from.
pub(super) fn task(task: &TaskSpec) -> Value {
    let TaskSpec {
        image,
        entrypoint,
        command,
        environment,
        labels,
        working_dir,
        user,
        ports,
        resources: Resources { reservations, limits },
        restart,
        placement,
        container,
        health,
        readiness,
        pull,
    } = task;
    let Reservations { cpu, memory } = reservations;
    let Limits { cpu: cpu_limit, memory: memory_limit, pids } = limits;
    json!({
        "image": image.as_str(),
        "pull_policy": pull_policy(*pull),
        "entrypoint": entrypoint,
        "command": command,
        "environment": environment,
        "labels": labels,
        "working_dir": working_dir,
        "user": user,
        "ports": ports.iter().map(port).collect::<Value>(),
        "constraints": placement.constraints.iter().map(ToString::to_string).collect::<Value>(),
        "placement": self::placement(placement),
        "reservations": { "cpu_millis": cpu.0, "memory_bytes": memory.0 },
        "limits": {
            "cpu_millis": cpu_limit.map(|cpu| cpu.0),
            "memory_bytes": bytes(*memory_limit),
            "pids": pids,
        },
        "restart": self::restart(restart),
        "container": self::container(container),
        "health": self::health(health),
        "readiness": readiness.as_ref().map(self::readiness),
    })
}

/// What is said beside the constraints.
fn placement(policy: &PlacementPolicy) -> Value {
    let PlacementPolicy {
        constraints: _,
        spread_over,
        max_per_node,
        platform,
        affinities,
        strategy,
        priority,
    } = policy;
    let wished = |wish: Wish| {
        let its = affinities.iter().filter(|affinity| affinity.wish == wish);
        its.map(|affinity| {
            let stack = affinity.stack.as_ref().map(|stack| format!("{stack}/")).unwrap_or_default();
            json!({ "service": format!("{stack}{}", affinity.service), "required": affinity.required })
        })
        .collect::<Value>()
    };
    said([
        ("spread_over", spread_over.iter().map(ToString::to_string).collect()),
        ("max_per_node", max_per_node.map_or(Value::Null, |most| most.get().into())),
        ("platform", platform.as_ref().map_or(Value::Null, |platform| platform.to_string().into())),
        ("affinity", wished(Wish::Near)),
        ("anti_affinity", wished(Wish::Apart)),
        ("strategy", strategy.map_or(Value::Null, |strategy| strategy.as_str().into())),
        ("priority", if priority.0 == 0 { Value::Null } else { priority.0.into() }),
    ])
}

/// The fields that say something: what is null, false or empty is what Docker does where nothing is said.
fn said<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let says_something = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => true,
    };
    let fields = fields.into_iter().filter(|(_, value)| says_something(value));
    fields.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn bytes(size: Option<Bytes>) -> Option<u64> {
    size.map(|Bytes(size)| size)
}

fn port(PortSpec { target, protocol, publish }: &PortSpec) -> Value {
    let host = match publish {
        Publish::AnyHostPort => None,
        Publish::HostPort(host) => Some(*host),
    };
    json!({ "target": target, "host": host, "protocol": protocol.as_str() })
}

fn restart(RestartPolicy { condition, delay, max_attempts, window }: &RestartPolicy) -> Value {
    let condition = match condition {
        RestartCondition::Never => "none",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Always => "any",
    };
    json!({
        "condition": condition,
        "delay_ms": delay.map(millis),
        "max_attempts": max_attempts,
        "window_ms": millis(*window),
    })
}

/// Compose's word for it.
fn pull_policy(pull: PullPolicy) -> String {
    match pull {
        PullPolicy::Missing => "missing".to_owned(),
        PullPolicy::Always => "always".to_owned(),
        PullPolicy::Never => "never".to_owned(),
        PullPolicy::After(time) => format!("every_{}s", time.as_secs()),
    }
}

fn hook(hook: &Hook) -> Value {
    let Hook { command, user, privileged, working_dir, environment } = hook;
    said([
        ("command", json!(command)),
        ("user", json!(user)),
        ("privileged", json!(privileged)),
        ("working_dir", json!(working_dir)),
        ("environment", json!(environment)),
    ])
}

fn container(container: &ContainerSpec) -> Value {
    let ContainerSpec {
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
    } = container;
    let ulimits = ulimits.iter().map(|(name, range)| (name.as_str(), ulimit(*range)));
    said([
        ("annotations", json!(annotations)),
        ("hostname", json!(hostname)),
        ("domainname", json!(domainname)),
        ("extra_hosts", hosts.iter().map(host).collect()),
        ("dns", self::dns(dns)),
        ("post_start", hooks.post_start.iter().map(hook).collect()),
        ("pre_stop", hooks.pre_stop.iter().map(hook).collect()),
        ("groups", json!(groups)),
        ("init", json!(init)),
        ("tty", json!(tty)),
        ("stdin_open", json!(stdin_open)),
        ("read_only", json!(read_only)),
        ("mounts", mounts.iter().map(mount).collect()),
        ("shm_size_bytes", json!(bytes(*shm_size))),
        ("ulimits", ulimits.collect()),
        ("sysctls", json!(sysctls)),
        ("privileges", self::privileges(privileges)),
        ("devices", devices.iter().map(device).collect()),
        ("device_rules", device_rules.iter().map(ToString::to_string).collect()),
        ("namespaces", self::namespaces(*namespaces)),
        ("cgroup_parent", json!(cgroup_parent)),
        ("oom_score_adj", json!(oom_score_adj)),
        ("tuning", self::tuning(tuning)),
        ("storage_size_bytes", json!(bytes(*storage_size))),
        ("runtime", json!(runtime)),
        ("stop", self::stop(*stop)),
        ("logging", self::logging(logging)),
        ("hold", json!(hold)),
    ])
}

/// A line of `/etc/hosts`, as Compose writes it.
fn host(HostEntry { name, address }: &HostEntry) -> String {
    match address {
        HostAddress::Ip(ip) => format!("{name}={ip}"),
        HostAddress::Gateway => format!("{name}=host-gateway"),
    }
}

fn dns(Dns { servers, search, options }: &Dns) -> Value {
    said([
        ("servers", servers.iter().map(ToString::to_string).collect()),
        ("search", json!(search)),
        ("options", json!(options)),
    ])
}

fn mount(Mount { target, read_only, kind }: &Mount) -> Value {
    match kind {
        MountKind::Bind(Bind { source, create, propagation, recursive }) => {
            let propagation = match propagation {
                Propagation::Private => "rprivate",
                Propagation::Slave => "rslave",
                Propagation::Shared => "rshared",
            };
            json!({
                "type": "bind",
                "source": source,
                "target": target,
                "read_only": read_only,
                "create_host_path": create,
                "propagation": propagation,
                "recursive": recursive,
            })
        }
        MountKind::Tmpfs(Tmpfs { size, mode, uid, gid, exec }) => json!({
            "type": "tmpfs",
            "target": target,
            "read_only": read_only,
            "size_bytes": bytes(*size),
            // In octal, as everybody reads it.
            "mode": mode.map(|mode| format!("{mode:04o}")),
            "uid": uid,
            "gid": gid,
            "exec": exec,
        }),
    }
}

/// -1 is unlimited, as in Compose.
fn ulimit(UlimitRange { soft, hard }: UlimitRange) -> Value {
    let limit = |limit: Option<u64>| limit.map_or_else(|| json!(-1), |limit| json!(limit));
    json!({ "soft": limit(soft), "hard": limit(hard) })
}

fn privileges(privileges: &Privileges) -> Value {
    let Privileges { privileged, add, drop, no_new_privileges, seccomp, apparmor, unmasked } = privileges;
    let seccomp = match seccomp {
        Seccomp::Default => Value::Null,
        Seccomp::Unconfined => "unconfined".into(),
        // It was JSON when it was declared.
        Seccomp::Profile(profile) => serde_json::from_str(profile).unwrap_or_else(|_| json!(profile)),
    };
    said([
        ("privileged", json!(privileged)),
        ("cap_add", capabilities(add)),
        ("cap_drop", capabilities(drop)),
        ("no_new_privileges", json!(no_new_privileges)),
        ("seccomp", seccomp),
        ("apparmor", json!(apparmor)),
        ("unmasked", json!(unmasked)),
    ])
}

fn capabilities(Capabilities { all, named }: &Capabilities) -> Value {
    all.then_some("ALL").into_iter().chain(named.iter().map(|named| named.as_str())).collect()
}

fn device(Device { source, target, access }: &Device) -> Value {
    json!({ "source": source, "target": target, "permissions": access.to_string() })
}

fn namespaces(Namespaces { ipc, pid, uts, cgroup, user }: Namespaces) -> Value {
    let scope = |scope: Scope| match scope {
        Scope::Own => Value::Null,
        Scope::Host => "host".into(),
    };
    let user = match user {
        UserScope::Host => Value::Null,
        UserScope::Own => "own".into(),
    };
    said([
        ("ipc", scope(ipc)),
        ("pid", scope(pid)),
        ("uts", scope(uts)),
        ("cgroup", scope(cgroup)),
        ("user", user),
    ])
}

fn tuning(tuning: &Tuning) -> Value {
    let Tuning { cpu_shares, cpuset, memory_reservation, swap, blkio } = tuning;
    // Of memory and swap together, as Docker counts.
    let swap = swap.map(|swap| match swap {
        SwapLimit::Unlimited => json!(-1),
        SwapLimit::Total(Bytes(total)) => json!(total),
    });
    said([
        ("cpu_shares", json!(cpu_shares)),
        ("cpuset", json!(cpuset)),
        ("memory_reservation_bytes", json!(bytes(*memory_reservation))),
        ("memory_and_swap_bytes", json!(swap)),
        ("blkio", self::blkio(blkio)),
    ])
}

fn blkio(blkio: &Blkio) -> Value {
    let Blkio { weight, weight_device, read_bytes, write_bytes, read_operations, write_operations } = blkio;
    let weights = weight_device.iter().map(|(path, weight)| json!({ "path": path, "weight": weight }));
    let rates = |rates: &[(String, u64)]| {
        rates.iter().map(|(path, rate)| json!({ "path": path, "rate": rate })).collect::<Value>()
    };
    said([
        ("weight", json!(weight)),
        ("weight_device", weights.collect()),
        ("device_read_bps", rates(read_bytes)),
        ("device_write_bps", rates(write_bytes)),
        ("device_read_iops", rates(read_operations)),
        ("device_write_iops", rates(write_operations)),
    ])
}

/// Without a signal it is the image's.
fn stop(Stop { signal, grace }: Stop) -> Value {
    json!({ "signal": signal.map(|signal| signal.to_string()), "grace_ms": millis(grace) })
}

fn logging(Logging { driver, max_size, max_files }: &Logging) -> Value {
    let (driver, address, facility, tag) = match driver {
        LogDriver::Local => ("local", None, None, None),
        LogDriver::None => ("none", None, None, None),
        LogDriver::Syslog { address, facility, tag } => ("syslog", Some(address), Some(facility), Some(tag)),
        LogDriver::Journald { tag } => ("journald", None, None, Some(tag)),
    };
    said([
        ("driver", json!(driver)),
        ("max_size_bytes", json!(max_size.0)),
        ("max_files", json!(max_files)),
        ("address", json!(address)),
        ("facility", json!(facility)),
        // Empty is the node's choice.
        ("tag", json!(tag.filter(|tag| !tag.is_empty()))),
    ])
}

/// Where the check comes from, and what the service says of it. A time or probe that it does not name is the image's, or else
/// Docker's.
fn health(health: &Health) -> Value {
    let check = match health {
        Health::Image => return json!({ "check": "image" }),
        Health::Disabled => return json!({ "check": "disabled" }),
        Health::Check(check) => check,
    };
    let HealthCheck { probe, interval, timeout, retries, start_period, start_interval } = check;
    json!({
        "check": "service",
        "probe": probe.as_ref().map(self::probe),
        "interval_ms": interval.map(millis),
        "timeout_ms": timeout.map(millis),
        "retries": retries,
        "start_period_ms": start_period.map(millis),
        "start_interval_ms": start_interval.map(millis),
    })
}

fn readiness(Readiness { probe, interval, timeout, successes, failures }: &Readiness) -> Value {
    json!({
        "probe": self::probe(probe),
        "interval_ms": millis(*interval),
        "timeout_ms": millis(*timeout),
        "successes": successes,
        "failures": failures,
    })
}

/// As it is written below `x-gantry`.
fn probe(probe: &Probe) -> Value {
    match probe {
        Probe::Exec(args) => json!({ "exec": args }),
        Probe::Http(HttpProbe { port, path, tls, host, headers }) => {
            let headers = headers.iter().map(|(name, value)| format!("{name}={value}"));
            let scheme = if *tls { "https" } else { "http" };
            let headers: Value = headers.collect();
            json!({
                "http": { "port": port, "path": path, "scheme": scheme, "host": host, "headers": headers },
            })
        }
        Probe::Tcp { port } => json!({ "tcp": { "port": port } }),
        Probe::Grpc { port, service } => json!({ "grpc": { "port": port, "service": service } }),
    }
}

#[cfg(test)]
mod tests;
