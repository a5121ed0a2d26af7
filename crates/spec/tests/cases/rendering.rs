//! The model as text: what is not at its default, one thing a line.

use std::collections::BTreeMap;
use std::fmt::Debug;

use model::{
    Affinity, Blkio, ContainerSpec, Device, Dns, Health, HealthCheck, HostAddress, HostEntry, Limits,
    LogDriver, Logging, Mode, Mount, MountKind, Namespaces, PlacementPolicy, PortSpec, Priority, Privileges,
    Propagation, Publish, PullPolicy, Readiness, Reservations, RestartPolicy, Scope, Seccomp, ServiceSpec,
    Stop, SwapLimit, TaskSpec, Tuning, UpdatePolicy, UserScope,
};
use spec::{Loaded, Problem, Problems, Project};

pub(crate) fn outcome(result: &Result<Loaded, Problems>) -> String {
    match result {
        Ok(Loaded { project, warnings }) => project_text(project) + &problem_lines("warning", warnings),
        Err(problems) => {
            let mut text = problem_lines("error", problems.as_slice());
            if problems.omitted() > 0 {
                text += &format!("and {} more\n", problems.omitted());
            }
            text + &problem_lines("warning", problems.warnings())
        }
    }
}

fn problem_lines(level: &str, problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{level} {problem}\n")).collect()
}

fn project_text(Project { name, services, unscaled: _ }: &Project) -> String {
    let mut text = String::new();
    if let Some(name) = name {
        text += &format!("project {name}\n");
    }
    for (name, spec) in services {
        text += &format!("{name}\n");
        for line in service_lines(spec) {
            text += &format!("  {line}\n");
        }
    }
    text
}

fn service_lines(
    ServiceSpec { mode, labels, task, update, rollback, job, depends_on }: &ServiceSpec,
) -> Vec<String> {
    let TaskSpec {
        image,
        entrypoint,
        command,
        environment,
        labels: container_labels,
        working_dir,
        user,
        ports,
        resources,
        restart,
        placement,
        container,
        health,
        readiness,
        pull,
    } = task;
    let mut lines = vec![format!("image {image}")];
    match mode {
        Mode::Replicated { replicas: 1 } => {}
        Mode::Replicated { replicas } => lines.push(format!("replicas {replicas}")),
        Mode::Global => lines.push("on every node".to_owned()),
    }
    for (name, condition) in depends_on {
        lines.push(format!("once {name} {}", condition.as_str()));
    }
    if let Some(job) = job {
        lines.push(format!("to its end {job:?}"));
    }
    lines.extend(labels.iter().map(|(key, value)| format!("service label {key} = {value:?}")));
    optional(&mut lines, "entrypoint", entrypoint);
    optional(&mut lines, "command", command);
    lines.extend(pairs("env", environment));
    lines.extend(pairs("label", container_labels));
    optional(&mut lines, "working_dir", working_dir);
    optional(&mut lines, "user", user);
    lines.extend(ports.iter().map(port_line));
    lines.extend(reservation_line(resources.reservations));
    lines.extend(limit_line(resources.limits));
    if *restart != RestartPolicy::default() {
        let RestartPolicy { condition, delay, max_attempts, window } = restart;
        lines.push(format!("restart {condition:?} delay={delay:?} max={max_attempts:?} window={window:?}"));
    }
    lines.extend(placement_lines(placement));
    lines.extend(container_lines(container));
    lines.extend(health_line(health));
    lines.extend(readiness.as_ref().map(readiness_line));
    if *pull != PullPolicy::default() {
        lines.push(format!("pull {pull:?}"));
    }
    lines.extend([("update", update), ("rollback", rollback)].into_iter().filter_map(policy_line));
    lines
}

fn placement_lines(placement: &PlacementPolicy) -> Vec<String> {
    let PlacementPolicy { constraints, spread_over, max_per_node, platform, affinities, strategy, priority } =
        placement;
    let mut lines: Vec<String> = constraints.iter().map(|constraint| format!("where {constraint}")).collect();
    lines.extend(spread_over.iter().map(|attribute| format!("spread over {attribute}")));
    lines.extend(max_per_node.map(|most| format!("at most {most} a node")));
    lines.extend(platform.as_ref().map(|platform| format!("for {platform}")));
    for Affinity { stack, service, wish, required } in affinities {
        let stack = stack.as_ref().map(|stack| format!("{stack}/")).unwrap_or_default();
        lines.push(format!("{wish:?} {stack}{service}{}", if *required { "" } else { ", rather" }));
    }
    lines.extend(strategy.map(|strategy| format!("strategy {}", strategy.as_str())));
    if *priority != Priority::default() {
        lines.push(format!("priority {}", priority.0));
    }
    lines
}

fn policy_line((name, policy): (&str, &UpdatePolicy)) -> Option<String> {
    let plain = UpdatePolicy::default();
    let UpdatePolicy {
        parallelism,
        delay,
        order,
        monitor,
        min_healthy,
        max_failure_ratio,
        failure_action,
        progress_deadline,
        canaries,
        promote_after,
    } = policy;
    let mut line = name.to_owned();
    let mut say = |is_said: bool, text: String| {
        if is_said {
            line += &format!(" {text}");
        }
    };
    say(*parallelism != plain.parallelism, format!("parallelism={parallelism}"));
    say(*delay != plain.delay, format!("delay={delay:?}"));
    say(*order != plain.order, format!("{order:?}"));
    say(*monitor != plain.monitor, format!("monitor={monitor:?}"));
    say(min_healthy.is_some(), format!("min_healthy={min_healthy:?}"));
    say(*max_failure_ratio != plain.max_failure_ratio, format!("ratio={max_failure_ratio}/1000"));
    say(*failure_action != plain.failure_action, format!("{failure_action:?}"));
    say(*progress_deadline != plain.progress_deadline, format!("deadline={progress_deadline:?}"));
    say(*canaries != plain.canaries, format!("canaries={canaries}"));
    say(promote_after.is_some(), format!("promote_after={promote_after:?}"));
    (*policy != plain).then_some(line)
}

fn container_lines(container: &ContainerSpec) -> Vec<String> {
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
    let mut lines = pairs("annotation", annotations);
    optional(&mut lines, "hostname", hostname);
    optional(&mut lines, "domainname", domainname);
    lines.extend(hosts.iter().map(host_line));
    lines.extend(dns_lines(dns));
    lines.extend(groups.iter().map(|group| format!("group {group}")));
    let flags =
        [(init, "init"), (tty, "tty"), (stdin_open, "stdin"), (read_only, "read-only"), (hold, "hold")];
    for (is, flag) in flags {
        lines.extend(is.then(|| flag.to_owned()));
    }
    lines.extend(mounts.iter().map(mount_line));
    optional(&mut lines, "shm", &shm_size.map(|size| size.0));
    lines.extend(ulimits.iter().map(|(name, range)| {
        let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |l| l.to_string());
        format!("ulimit {} {}:{}", name.as_str(), shown(range.soft), shown(range.hard))
    }));
    lines.extend(pairs("sysctl", sysctls));
    lines.extend(privilege_lines(privileges));
    lines.extend(
        devices
            .iter()
            .map(|Device { source, target, access }| format!("device {source} at {target} {access}")),
    );
    lines.extend(device_rules.iter().map(|rule| format!("device rule {rule}")));
    lines.extend(namespace_lines(*namespaces));
    optional(&mut lines, "cgroup parent", cgroup_parent);
    optional(&mut lines, "oom score", oom_score_adj);
    lines.extend(tuning_lines(tuning));
    optional(&mut lines, "storage", &storage_size.map(|size| size.0));
    optional(&mut lines, "runtime", runtime);
    let named = [("after start", &hooks.post_start), ("before stop", &hooks.pre_stop)];
    lines.extend(
        named.iter().flat_map(|(when, hooks)| hooks.iter().map(move |hook| format!("{when} {hook:?}"))),
    );
    if *stop != Stop::default() {
        let signal = stop.signal.map_or_else(|| "its signal".to_owned(), |signal| signal.to_string());
        lines.push(format!("stop by {signal} within {:?}", stop.grace));
    }
    if *logging != Logging::default() {
        lines.push(logging_line(logging));
    }
    lines
}

fn host_line(HostEntry { name, address }: &HostEntry) -> String {
    match address {
        HostAddress::Ip(ip) => format!("host {name} = {ip}"),
        HostAddress::Gateway => format!("host {name} = the node"),
    }
}

fn dns_lines(Dns { servers, search, options }: &Dns) -> Vec<String> {
    let servers = servers.iter().map(|server| format!("dns {server}"));
    let search = search.iter().map(|domain| format!("dns search {domain}"));
    servers.chain(search).chain(options.iter().map(|option| format!("dns option {option}"))).collect()
}

fn mount_line(Mount { target, read_only, kind }: &Mount) -> String {
    let mut line = match kind {
        MountKind::Bind(bind) => {
            let mut line = format!("bind {} at {target}", bind.source);
            line += if bind.create { "" } else { ", there already" };
            line += if bind.recursive { "" } else { ", alone" };
            line += match bind.propagation {
                Propagation::Private => "",
                Propagation::Slave => ", slave",
                Propagation::Shared => ", shared",
            };
            line
        }
        MountKind::Tmpfs(tmpfs) => {
            let mut line = format!("tmpfs at {target}");
            let numbers = [("uid", tmpfs.uid), ("gid", tmpfs.gid)];
            line += &tmpfs.size.map_or_else(String::new, |size| format!(", {size}"));
            line += &tmpfs.mode.map_or_else(String::new, |mode| format!(", mode {mode:o}"));
            for (name, number) in numbers {
                line += &number.map_or_else(String::new, |number| format!(", {name} {number}"));
            }
            line += if tmpfs.exec { ", exec" } else { "" };
            line
        }
    };
    line += if *read_only { ", read-only" } else { "" };
    line
}

fn privilege_lines(privileges: &Privileges) -> Vec<String> {
    let Privileges { privileged, add, drop, no_new_privileges, seccomp, apparmor, unmasked } = privileges;
    let mut lines = Vec::new();
    lines.extend(privileged.then(|| "privileged".to_owned()));
    for (what, capabilities) in [("add", add), ("drop", drop)] {
        lines.extend(capabilities.all.then(|| format!("{what} all")));
        lines.extend(capabilities.named.iter().map(|named| format!("{what} {}", named.as_str())));
    }
    lines.extend(no_new_privileges.then(|| "no new privileges".to_owned()));
    match seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => lines.push("seccomp unconfined".to_owned()),
        Seccomp::Profile(text) => lines.push(format!("seccomp {text}")),
    }
    optional(&mut lines, "apparmor", apparmor);
    lines.extend(unmasked.then(|| "unmasked".to_owned()));
    lines
}

fn namespace_lines(Namespaces { ipc, pid, uts, cgroup, user }: Namespaces) -> Vec<String> {
    let scopes = [("ipc", ipc), ("pid", pid), ("uts", uts), ("cgroup", cgroup)].into_iter();
    let shared = scopes.filter(|(_, scope)| *scope == Scope::Host);
    let mut lines: Vec<String> = shared.map(|(name, _)| format!("{name} of the node")).collect();
    lines.extend((user == UserScope::Own).then(|| "users of its own".to_owned()));
    lines
}

fn tuning_lines(tuning: &Tuning) -> Vec<String> {
    let Tuning { cpu_shares, cpuset, memory_reservation, swap, blkio } = tuning;
    let mut lines = Vec::new();
    optional(&mut lines, "cpu shares", cpu_shares);
    optional(&mut lines, "cpuset", cpuset);
    optional(&mut lines, "memory reservation", &memory_reservation.map(|size| size.0));
    lines.extend(swap.map(|swap| match swap {
        SwapLimit::Unlimited => "swap unlimited".to_owned(),
        SwapLimit::Total(total) => format!("memory and swap {total}"),
    }));
    let Blkio { weight, weight_device, read_bytes, write_bytes, read_operations, write_operations } = blkio;
    optional(&mut lines, "blkio weight", weight);
    lines.extend(weight_device.iter().map(|(path, weight)| format!("blkio weight {path} {weight}")));
    for (what, rates) in [
        ("read bytes", read_bytes),
        ("write bytes", write_bytes),
        ("read operations", read_operations),
        ("write operations", write_operations),
    ] {
        lines.extend(rates.iter().map(|(path, rate)| format!("blkio {what} {path} {rate}")));
    }
    lines
}

fn logging_line(Logging { driver, max_size, max_files }: &Logging) -> String {
    let driver = match driver {
        LogDriver::Local => "local".to_owned(),
        LogDriver::None => "none".to_owned(),
        LogDriver::Syslog { address, facility, tag } => format!("syslog {address} {facility} {tag:?}"),
        LogDriver::Journald { tag } => format!("journald {tag:?}"),
    };
    format!("logging {driver}, {max_files} files of {max_size}")
}

fn health_line(health: &Health) -> Option<String> {
    let check = match health {
        Health::Image => return None,
        Health::Disabled => return Some("health unchecked".to_owned()),
        Health::Check(check) => check,
    };
    let HealthCheck { probe, interval, timeout, retries, start_period, start_interval } = check;
    let mut line = match probe {
        Some(probe) => format!("health {probe:?}"),
        None => "health of the image".to_owned(),
    };
    let times = [
        ("every", interval),
        ("within", timeout),
        ("start", start_period),
        ("every at start", start_interval),
    ];
    for (name, time) in times {
        line += &time.map_or_else(String::new, |time| format!(", {name} {time:?}"));
    }
    line += &retries.map_or_else(String::new, |retries| format!(", {retries} retries"));
    Some(line)
}

fn readiness_line(readiness: &Readiness) -> String {
    let Readiness { probe, interval, timeout, successes, failures } = readiness;
    format!("ready {probe:?}, every {interval:?}, within {timeout:?}, {successes} up, {failures} down")
}

fn optional(lines: &mut Vec<String>, name: &str, value: &Option<impl Debug>) {
    if let Some(value) = value {
        lines.push(format!("{name} {value:?}"));
    }
}

fn pairs(name: &str, pairs: &BTreeMap<String, String>) -> Vec<String> {
    pairs.iter().map(|(key, value)| format!("{name} {key} = {value:?}")).collect()
}

fn port_line(PortSpec { target, protocol, publish }: &PortSpec) -> String {
    let host = match publish {
        Publish::AnyHostPort => "any".to_owned(),
        Publish::HostPort(port) => port.to_string(),
    };
    format!("port {target}/{} at {host}", protocol.as_str())
}

fn reservation_line(Reservations { cpu, memory }: Reservations) -> Option<String> {
    (cpu.0 > 0 || memory.0 > 0).then(|| format!("reserved {cpu} cpus, {memory}"))
}

fn limit_line(Limits { cpu, memory, pids }: Limits) -> Option<String> {
    let parts: Vec<String> = [
        cpu.map(|cpu| format!("{cpu} cpus")),
        memory.map(|memory| memory.to_string()),
        pids.map(|pids| format!("{pids} pids")),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| format!("limited to {}", parts.join(", ")))
}
