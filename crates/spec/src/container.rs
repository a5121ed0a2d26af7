//! The keys that say what a service's containers are given beyond their program.

use std::collections::BTreeMap;

use model::{
    Bytes, ContainerSpec, Device, DeviceRule, Dns, Hooks, HostEntry, Logging, Mount, Signal, Stop, Tuning,
    Ulimit, UlimitRange, UnknownSignal,
};

use crate::problem::{Report, Span, shown};
use crate::sysctls::Sysctl;
use crate::tree::{Content, Entry, Node, Scalar};
use crate::typed::{self, Placed};
use crate::yaml::Value;
use crate::{
    devices, duration, hooks, isolation, logging, mounts, naming, paths, service, sysctls, tmpfs, ulimits,
};

/// What the keys said, before they are compared with each other.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    annotations: BTreeMap<String, String>,
    hostname: Placed<String>,
    domainname: Placed<String>,
    hosts: Vec<HostEntry>,
    dns: Dns,
    groups: Vec<String>,
    init: bool,
    tty: bool,
    stdin_open: bool,
    read_only: Option<bool>,
    volumes: Vec<(Span, Mount)>,
    tmpfs: Vec<(Span, Mount)>,
    shm_size: Placed<Bytes>,
    ulimits: BTreeMap<Ulimit, UlimitRange>,
    sysctls: Vec<Sysctl>,
    isolation: isolation::Draft,
    devices: Vec<Device>,
    device_rules: Vec<DeviceRule>,
    cgroup_parent: Option<String>,
    oom_score_adj: Option<i16>,
    storage_size: Option<Bytes>,
    runtime: Option<String>,
    stop: Stop,
    hooks: Hooks,
    logging: Logging,
}

impl Draft {
    /// Whether the key was one of these.
    pub(crate) fn read(&mut self, entry: &Entry, report: &mut Report<'_>) -> bool {
        self.read_process(entry, report)
            || self.read_surroundings(entry, report)
            || self.isolation.read(entry, report)
    }

    /// How the container's program runs and ends.
    fn read_process(&mut self, Entry { key, value }: &Entry, report: &mut Report<'_>) -> bool {
        match key.text.as_str() {
            "annotations" => self.annotations = service::annotations(value, report),
            "group_add" => self.groups = groups(value, report),
            "init" => self.init = typed::boolean(value, "`init`", report).unwrap_or_default(),
            "tty" => self.tty = typed::boolean(value, "`tty`", report).unwrap_or_default(),
            "stdin_open" => {
                self.stdin_open = typed::boolean(value, "`stdin_open`", report).unwrap_or_default();
            }
            "ulimits" => self.ulimits = ulimits::ulimits(value, report),
            "oom_score_adj" => {
                self.oom_score_adj = typed::integer(value, "`oom_score_adj`", -1000..=1000, report);
            }
            "runtime" => self.runtime = runtime(value, report),
            "stop_signal" => self.stop.signal = signal(value, report),
            "stop_grace_period" => {
                let grace = typed::quantity(value, "`stop_grace_period`", duration::parse_duration, report);
                self.stop.grace = grace.unwrap_or(self.stop.grace);
            }
            "post_start" => self.hooks.post_start = hooks::hooks(value, "`post_start`", report),
            "pre_stop" => self.hooks.pre_stop = hooks::hooks(value, "`pre_stop`", report),
            "logging" => self.logging = logging::logging(value, report),
            _ => return false,
        }
        true
    }

    /// What the container finds around itself.
    fn read_surroundings(&mut self, Entry { key, value }: &Entry, report: &mut Report<'_>) -> bool {
        match key.text.as_str() {
            "hostname" => {
                self.hostname = naming::host_name(value, "`hostname`", report).map(|text| (key.span, text));
            }
            "domainname" => {
                self.domainname =
                    naming::host_name(value, "`domainname`", report).map(|text| (key.span, text));
            }
            "extra_hosts" => self.hosts = naming::extra_hosts(value, report),
            "dns" => self.dns.servers = naming::servers(value, report),
            "dns_search" => self.dns.search = naming::search(value, report),
            "dns_opt" => self.dns.options = naming::options(value, report),
            "read_only" => self.read_only = typed::boolean(value, "`read_only`", report),
            "volumes" => self.volumes = mounts::volumes(value, report),
            "tmpfs" => self.tmpfs = tmpfs::tmpfs(value, report),
            "shm_size" => {
                let size = typed::quantity(value, "`shm_size`", Bytes::parse, report);
                self.shm_size = size.filter(|size| size.0 > 0).map(|size| (key.span, size));
            }
            "sysctls" => self.sysctls = sysctls::sysctls(value, report),
            "devices" => self.devices = devices::devices(value, report),
            "device_cgroup_rules" => self.device_rules = devices::rules(value, report),
            "cgroup_parent" => self.cgroup_parent = cgroup_parent(value, report),
            "storage_opt" => self.storage_size = storage_size(value, report),
            _ => return false,
        }
        true
    }

    pub(crate) fn finish(mut self, tuning: Tuning, hardened: bool, report: &mut Report<'_>) -> ContainerSpec {
        self.compare_with_namespaces(report);
        let (privileges, namespaces) = self.isolation.finish(hardened, report);
        ContainerSpec {
            annotations: self.annotations,
            hostname: self.hostname.map(|(_, name)| name),
            domainname: self.domainname.map(|(_, name)| name),
            hosts: self.hosts,
            dns: self.dns,
            groups: self.groups,
            init: self.init,
            tty: self.tty,
            stdin_open: self.stdin_open,
            read_only: self.read_only.unwrap_or(hardened),
            mounts: mounts::together(self.volumes, self.tmpfs, report),
            shm_size: self.shm_size.map(|(_, size)| size),
            ulimits: self.ulimits,
            sysctls: self.sysctls.into_iter().map(|Sysctl { name, value, .. }| (name, value)).collect(),
            privileges,
            devices: self.devices,
            device_rules: self.device_rules,
            namespaces,
            cgroup_parent: self.cgroup_parent,
            oom_score_adj: self.oom_score_adj,
            tuning,
            storage_size: self.storage_size,
            runtime: self.runtime,
            stop: self.stop,
            hooks: self.hooks,
            logging: self.logging,
            // Not a service's to ask for: nobody attaches to most of them.
            hold: false,
        }
    }

    /// What a namespace of the node's has cannot be set for one container.
    fn compare_with_namespaces(&mut self, report: &mut Report<'_>) {
        const HINT: &str = "take one of them out";
        if self.isolation.is_uts_of_the_node() {
            for (key, name) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
                if let Some((span, _)) = name {
                    let message = format!("`{key}` would be the node's, since `uts` is host");
                    report.error_with(*span, message, HINT);
                }
            }
        }
        if self.isolation.is_ipc_of_the_node() {
            for sysctl in self.sysctls.iter().filter(|sysctl| sysctl.is_of_ipc()) {
                let message = format!("`{}` would be the node's, since `ipc` is host", shown(&sysctl.name));
                report.error_with(sysctl.span, message, HINT);
            }
            if let Some((span, _)) = self.shm_size.take() {
                report.warning(
                    span,
                    "`ipc: host` has the node's `/dev/shm`, so `shm_size` means nothing",
                    HINT,
                );
            }
        }
    }
}

/// Names, or numbers with or without quotes.
fn groups(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    let mut groups = Vec::new();
    for item in typed::items(node, "`group_add`", report) {
        let text = match &item.content {
            Content::Scalar(Scalar { value: Value::Int(number), .. }) => number.to_string(),
            Content::Scalar(Scalar { value: Value::Text, text }) => text.clone(),
            Content::Scalar(_) | Content::Sequence(_) | Content::Mapping(_) => String::new(),
        };
        if is_group(&text) {
            groups.push(text);
        } else {
            let message = format!("a group must be a name or a number, and this is {}", item.describe());
            report.error_with(item.span, message, "write for example audio or 1000");
        }
    }
    typed::distinct(groups)
}

/// A line of `/etc/group` is made of parts with colons between them.
fn is_group(text: &str) -> bool {
    /// Of shadow-utils' GROUP_NAME_MAX_LENGTH, and longer than any number.
    const MAX_NAME: usize = 32;
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text.parse::<u32>().is_ok();
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | ',');
    (1..=MAX_NAME).contains(&text.len()) && !text.starts_with('-') && !text.contains(strange)
}

/// An OCI runtime's program: a path, or a name that nodes look up in their PATH.
fn runtime(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = typed::string(node, "`runtime`", report).filter(|text| !text.is_empty())?;
    if text.starts_with('/') {
        return paths::absolute(text, node.span, "`runtime`", report);
    }
    if text.starts_with("io.containerd.") {
        let message = format!("`{}` is a shim of containerd's, and gantry has its own", shown(text));
        report.error_with(node.span, message, "name an OCI runtime, such as runc or /usr/bin/crun");
        return None;
    }
    let is_part = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if !text.bytes().all(is_part) || text.starts_with(['.', '-']) {
        let message = format!("`runtime` cannot be `{}`", shown(text));
        report.error_with(node.span, message, "name an OCI runtime, such as runc or /usr/bin/crun");
        return None;
    }
    Some(text.to_owned())
}

/// Empty is the image's.
fn signal(node: &Node, report: &mut Report<'_>) -> Option<Signal> {
    let text = typed::string(node, "`stop_signal`", report).filter(|text| !text.is_empty())?;
    text.parse()
        .map_err(|_: UnknownSignal| {
            let hint = "write for example SIGTERM, TERM, 15 or SIGRTMIN+3";
            report.error_with(node.span, format!("`{}` is not a signal", shown(text)), hint);
        })
        .ok()
}

/// A relative one begins at the hierarchy's root as well, so that `/a` and `a` are one.
fn cgroup_parent(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = typed::string(node, "`cgroup_parent`", report).filter(|text| !text.is_empty())?;
    let path = paths::absolute(&format!("/{text}"), node.span, "`cgroup_parent`", report)?;
    if path == "/" {
        report.error_with(node.span, "`cgroup_parent` names no cgroup", "write for example /batch");
        return None;
    }
    Some(path)
}

fn storage_size(node: &Node, report: &mut Report<'_>) -> Option<Bytes> {
    let mut size = None;
    for Entry { key, value } in typed::entries(node, "`storage_opt`", report) {
        if key.text == "size" {
            size = typed::quantity(value, "`size`", Bytes::parse, report).filter(|size| size.0 > 0);
        } else {
            let message = format!("gantry does not do the storage option `{}`", shown(&key.text));
            report.error_with(key.span, message, "`size` is what there is");
        }
    }
    size
}
