//! What this machine has.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use model::{Bytes, MilliCpu, Timestamp};

pub(crate) fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// All of the machine's processors and memory.
pub(crate) fn capacity() -> model::Capacity {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    model::Capacity {
        cpu: MilliCpu(u64::try_from(processors).unwrap_or(u64::MAX).saturating_mul(1000)),
        memory: memory(Path::new("/proc/meminfo")).unwrap_or_default(),
    }
}

/// What images have to be made for to run here.
pub(crate) fn platform() -> model::Platform {
    let arch = model::Platform::plain_arch(std::env::consts::ARCH);
    model::Platform { os: std::env::consts::OS.to_owned(), arch: arch.to_owned() }
}

/// `MemTotal: 24 kB`, see proc(5).
fn memory(meminfo: &Path) -> Option<Bytes> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kilobytes.saturating_mul(1024)))
}
