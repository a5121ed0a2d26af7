//! What of the kernel's own a container does not see or may not change: Docker's lists, which are of what tells about others on
//! the node, and of what changes the node. A path that a kernel does not have is skipped by libcontainer.

use std::fs;
use std::path::Path;

/// moby's `daemon/pkg/oci/defaults.go`.
const MASKED: [&str; 12] = [
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
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

pub(crate) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The processors that the node may come to have.
const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// What containers of this node do not see. How often a processor was too hot says what its others do on it, and each
/// processor says it for itself (GHSA-6fw5-f8r9-fgfm).
pub(crate) fn of_node() -> Vec<String> {
    let possible = fs::read_to_string(POSSIBLE).unwrap_or_default();
    let heat = processors(&possible).into_iter().map(heat).filter(|path| Path::new(path).exists());
    MASKED.into_iter().map(str::to_owned).chain(heat).collect()
}

fn heat(processor: u32) -> String {
    format!("/sys/devices/system/cpu/cpu{processor}/thermal_throttle")
}

/// `list` is as the kernel writes one: `0-3,8`.
fn processors(list: &str) -> Vec<u32> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_keeps_its_heat_to_itself() {
        assert_eq!(processors("0\n"), [0]);
        assert_eq!(processors("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert!(processors("").is_empty());
        assert_eq!(heat(7), "/sys/devices/system/cpu/cpu7/thermal_throttle");
        let masked = of_node();
        for entry in fs::read_dir("/sys/devices/system/cpu").unwrap() {
            let path = entry.unwrap().path().join("thermal_throttle");
            let is_masked = masked.iter().any(|masked| Path::new(masked) == path);
            assert_eq!(is_masked, path.exists(), "{}", path.display());
        }
        assert!(masked.iter().any(|path| path == "/proc/kcore"));
    }
}
