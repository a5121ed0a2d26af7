//! The keys of the Compose Specification, to tell what gantry does not do yet from what nobody does.
//!
//! From compose-go's schema of July 2026, which is ahead of the specification's text.

use crate::problem::{Report, shown};
use crate::tree::Key;

pub(crate) const TOP: &[&str] =
    &["version", "name", "include", "services", "models", "networks", "volumes", "secrets", "configs"];

#[rustfmt::skip]
pub(crate) const SERVICE: &[&str] = &[
    "annotations", "attach", "build", "blkio_config", "cap_add", "cap_drop", "cgroup", "cgroup_parent", "command",
    "configs", "container_name", "cpu_count", "cpu_percent", "cpu_shares", "cpu_quota", "cpu_period", "cpu_rt_period",
    "cpu_rt_runtime", "cpus", "cpuset", "credential_spec", "depends_on", "deploy", "develop", "device_cgroup_rules",
    "devices", "dns", "dns_opt", "dns_search", "domainname", "entrypoint", "env_file", "label_file", "environment",
    "expose", "extends", "provider", "external_links", "extra_hosts", "gpus", "group_add", "healthcheck", "hostname",
    "image", "init", "ipc", "isolation", "labels", "links", "logging", "mac_address", "mem_limit", "mem_reservation",
    "mem_swappiness", "memswap_limit", "network_mode", "models", "networks", "oom_kill_disable", "oom_score_adj", "pid",
    "pids_limit", "platform", "ports", "pre_start", "post_start", "pre_stop", "privileged", "profiles", "pull_policy",
    "pull_refresh_after", "read_only", "restart", "runtime", "scale", "security_opt", "shm_size", "secrets", "sysctls",
    "stdin_open", "stop_grace_period", "stop_signal", "storage_opt", "tmpfs", "tty", "ulimits", "use_api_socket", "user",
    "uts", "userns_mode", "volumes", "volumes_from", "working_dir",
];

#[rustfmt::skip]
pub(crate) const DEPLOY: &[&str] = &[
    "mode", "endpoint_mode", "replicas", "labels", "update_config", "rollback_config", "resources", "restart_policy",
    "placement",
];

pub(crate) const RESOURCES: &[&str] = &["limits", "reservations"];
pub(crate) const LIMITS: &[&str] = &["cpus", "memory", "pids"];
pub(crate) const RESERVATIONS: &[&str] = &["cpus", "memory", "generic_resources", "devices"];
pub(crate) const RESTART_POLICY: &[&str] = &["condition", "delay", "max_attempts", "window"];
pub(crate) const UPDATE_CONFIG: &[&str] =
    &["parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"];
pub(crate) const PLACEMENT: &[&str] = &["constraints", "preferences", "max_replicas_per_node"];
pub(crate) const PORT: &[&str] =
    &["name", "mode", "host_ip", "target", "published", "protocol", "app_protocol"];

pub(crate) const ULIMIT: &[&str] = &["soft", "hard"];
pub(crate) const BLKIO: &[&str] = &[
    "device_read_bps",
    "device_read_iops",
    "device_write_bps",
    "device_write_iops",
    "weight",
    "weight_device",
];
pub(crate) const DEVICE: &[&str] = &["source", "target", "permissions"];
pub(crate) const LOGGING: &[&str] = &["driver", "options"];
pub(crate) const HEALTHCHECK: &[&str] =
    &["disable", "interval", "retries", "test", "timeout", "start_period", "start_interval"];
pub(crate) const MOUNT: &[&str] =
    &["type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs", "image"];
pub(crate) const MOUNT_BIND: &[&str] = &["propagation", "create_host_path", "recursive", "selinux"];
pub(crate) const MOUNT_TMPFS: &[&str] = &["size", "mode"];

/// Of keys that one could have meant. None of Compose's is longer.
const MAX_LENGTH: usize = 32;

/// Says of a key that nobody acted on what it is. `known` are Compose's keys in its place.
///
/// Extensions (`x-…`) are their owners' and pass, as Compose has it; `x-gantry` is ours, and does not come here
/// where it means something.
pub(crate) fn refuse(key: &Key, known: &[&str], report: &mut Report<'_>) {
    let name = key.text.as_str();
    if name.starts_with("x-") && name != "x-gantry" {
        return;
    }
    if name == "x-gantry" || known.contains(&name) {
        report.error_with(key.span, format!("gantry does not do `{name}` yet"), instead_of(name));
        return;
    }
    unknown(key, known, "it is not in the Compose Specification; keys of your own begin with `x-`", report);
}

/// Says that there is no such key in its place, and which one was meant; `otherwise` is the hint if none comes
/// close.
pub(crate) fn unknown(key: &Key, known: &[&str], otherwise: &str, report: &mut Report<'_>) {
    let message = format!("unknown key `{}`", shown(&key.text));
    // Working out what was meant is the dearest thing that is done for an error.
    if report.is_full() {
        report.error(key.span, message);
        return;
    }
    match nearest(&key.text, known) {
        Some(meant) => report.error_with(key.span, message, format!("did you mean `{meant}`?")),
        None => report.error_with(key.span, message, otherwise),
    }
}

fn instead_of(name: &str) -> &'static str {
    match name {
        "build" => "build the image beforehand and name it with `image`",
        "env_file" => "list the variables under `environment`",
        "cpu_count" | "cpu_percent" => "write `cpus`",
        "pull_refresh_after" => "write for example `pull_policy: every_12h`",
        "include" | "extends" => "name several files with -f; they are merged",
        _ => "take it out to deploy without it",
    }
}

/// The key that is closest to what was written, if it is close enough to have been meant.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > MAX_LENGTH {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let most = if lower.len() < 5 { 1 } else { 2 };
    known
        .iter()
        .map(|&key| (distance(lower.as_bytes(), key.as_bytes()), key))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, key)| key)
}

/// How many bytes have to be added, removed, replaced or swapped with their neighbour to make `b` of `a`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognised_and_another_word_is_not() {
        for (written, meant) in [
            ("imgae", Some("image")),
            ("Image", Some("image")),
            ("enviroment", Some("environment")),
            ("port", Some("ports")),
            ("depends-on", Some("depends_on")),
            ("frobnicate", None),
            ("", None),
            ("image_image_image_image_image_image", None),
        ] {
            assert_eq!(nearest(written, SERVICE), meant, "{written}");
        }
    }

    #[test]
    fn all_93_keys_of_a_service_are_known_once() {
        let mut keys = SERVICE.to_vec();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((SERVICE.len(), keys.len()), (93, 93));
    }
}
