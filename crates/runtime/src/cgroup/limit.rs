//! What the kernel holds a container's cgroup to: which value goes into which file, and what the host does not do.

use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::{Hierarchies, no_controller};
use crate::launch::{Blkio, Limits, Swap, Tuning};

/// The length of the interval in which a CPU quota counts: the kernel's default, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// The kernel refuses quotas below this, in microseconds.
const CPU_QUOTA_MIN: u64 = 1_000;

/// One limit: files to write, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// As it is named to the user: `the limit on … is not in force`.
    what: String,
    /// The v1 controller that has the files.
    controller: &'static str,
    /// The first whose first file the host has. They differ by kernel.
    choices: Vec<Vec<(&'static str, String)>>,
    /// It holds without being set where there is no swap.
    only_with_swap: bool,
}

impl Setting {
    fn new(what: &str, controller: &'static str, files: &[(&'static str, String)]) -> Self {
        Self { what: what.to_owned(), controller, choices: vec![files.to_vec()], only_with_swap: false }
    }
}

/// Which interface the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn choose<T>(self, v1: T, v2: T) -> T {
        match self {
            Self::V1 => v1,
            Self::V2 => v2,
        }
    }
}

/// Sets the limits of a cgroup that exists. What the host cannot do is returned, in words.
pub(crate) fn limit(hierarchies: &Hierarchies, path: &str, limits: &Limits, tuning: &Tuning) -> Vec<String> {
    let version = if hierarchies.v2(path).is_some() { Version::V2 } else { Version::V1 };
    let mut plan = Plan { version, settings: Vec::new(), refused: Vec::new() };
    plan.limits(limits, tuning);
    plan.tuning(tuning);
    plan.blkio(&tuning.blkio, device_number);
    let Plan { settings, refused, .. } = plan;
    let mut warnings: Vec<String> = refused
        .into_iter()
        .map(|(what, why)| format!("the limit on {what} is not in force: {why}"))
        .collect();
    for setting in settings {
        if let Err(error) = set(hierarchies, path, &setting)
            && (!setting.only_with_swap || has_swap())
        {
            warnings.push(format!("the limit on {} is not in force: {error}", setting.what));
        }
    }
    warnings
}

fn set(hierarchies: &Hierarchies, path: &str, setting: &Setting) -> io::Result<()> {
    let dir = hierarchies.v2(path).or_else(|| hierarchies.v1(setting.controller, path));
    let dir = dir.ok_or_else(no_controller)?;
    let there =
        |files: &&Vec<(&'static str, String)>| files.first().is_some_and(|(file, _)| dir.join(file).exists());
    let files = setting.choices.iter().find(there).or_else(|| setting.choices.last());
    files.into_iter().flatten().try_for_each(|(file, value)| write(&dir, file, value))
}

/// Opened without O_CREAT, so that a controller that is not there is "not found".
pub(super) fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(dir.join(file))?.write_all(value.as_bytes())
}

/// The first line is a heading. Many hosts have neither swap nor its accounting, and nothing to warn of.
fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

/// What is to be set, and what cannot be whatever the host is like, with the reason.
struct Plan {
    version: Version,
    settings: Vec<Setting>,
    refused: Vec<(String, String)>,
}

impl Plan {
    fn set(
        &mut self,
        what: &str,
        controller: &'static str,
        v1: &'static str,
        v2: &'static str,
        value: String,
    ) {
        let file = self.version.choose(v1, v2);
        self.settings.push(Setting::new(what, controller, &[(file, value)]));
    }

    fn limits(&mut self, limits: &Limits, tuning: &Tuning) {
        let pids = match limits.pids {
            None => Limits::PIDS.to_string(),
            Some(pids) if pids == 0 || pids >= Limits::MOST_PIDS => "max".to_owned(),
            Some(pids) => pids.to_string(),
        };
        self.set("pids", "pids", "pids.max", "pids.max", pids);
        if let Some(millis) = limits.cpu_millis {
            let quota = millis.saturating_mul(CPU_PERIOD / 1000).max(CPU_QUOTA_MIN);
            let files = match self.version {
                Version::V1 => vec![
                    ("cpu.cfs_period_us", CPU_PERIOD.to_string()),
                    ("cpu.cfs_quota_us", quota.to_string()),
                ],
                Version::V2 => vec![("cpu.max", format!("{quota} {CPU_PERIOD}"))],
            };
            self.settings.push(Setting::new("cpu", "cpu", &files));
        }
        if let Some(bytes) = limits.memory_bytes {
            let (v1, v2) = ("memory.limit_in_bytes", "memory.max");
            self.set("memory", "memory", v1, v2, bytes.to_string());
        }
        self.swap(limits.memory_bytes, tuning.swap);
    }

    /// v1 counts memory and swap together, v2 swap alone: runc's `ConvertMemorySwapToCgroupV2Value`.
    fn swap(&mut self, memory: Option<u64>, swap: Option<Swap>) {
        let (together, alone) = match (memory, swap) {
            (None, None) => return,
            (Some(memory), None) => (memory.to_string(), "0".to_owned()),
            (_, Some(Swap::Unlimited)) => ("-1".to_owned(), "max".to_owned()),
            (Some(memory), Some(Swap::Total(total))) => {
                (total.to_string(), total.saturating_sub(memory).to_string())
            }
            (None, Some(Swap::Total(_))) => {
                return self.refused.push(("swap".to_owned(), "it takes a limit on memory".to_owned()));
            }
        };
        let file = self.version.choose(("memory.memsw.limit_in_bytes", together), ("memory.swap.max", alone));
        self.settings.push(Setting { only_with_swap: true, ..Setting::new("swap", "memory", &[file]) });
    }

    fn tuning(&mut self, tuning: &Tuning) {
        let Tuning { cpu_shares, cpuset, memory_reservation, swap: _, blkio: _ } = tuning;
        if let Some(shares) = *cpu_shares {
            let value = self.version.choose(shares, weight_of_shares(shares));
            self.set("cpu shares", "cpu", "cpu.shares", "cpu.weight", value.to_string());
        }
        if let Some(cpus) = cpuset {
            self.set("cpuset", "cpuset", "cpuset.cpus", "cpuset.cpus", cpus.clone());
        }
        if let Some(bytes) = memory_reservation {
            let (v1, v2) = ("memory.soft_limit_in_bytes", "memory.low");
            self.set("memory reservation", "memory", v1, v2, bytes.to_string());
        }
    }

    /// `number` gives a block device's number, as the kernel writes it.
    fn blkio(&mut self, blkio: &Blkio, number: impl Fn(&Path) -> Result<String, String>) {
        let Blkio { weight, weight_device, read_bytes, write_bytes, read_operations, write_operations } =
            blkio;
        let bfq = self.version.choose("blkio.bfq.weight", "io.bfq.weight");
        let plain = self.version.choose("blkio.weight", "io.weight");
        let weights = |what: String, device: Option<&str>, weight: u64| {
            let line = |weight: u64| match device {
                Some(device) => format!("{device} {weight}"),
                None => weight.to_string(),
            };
            let converted = match plain {
                "io.weight" => weight_of_blkio(weight),
                _ => weight,
            };
            let choices = vec![vec![(bfq, line(weight))], vec![(plain, line(converted))]];
            Setting { what, controller: "blkio", choices, only_with_swap: false }
        };
        if let Some(weight) = weight {
            self.settings.push(weights("blkio weight".to_owned(), None, u64::from(*weight)));
        }
        for (path, weight) in weight_device {
            let what = format!("the blkio weight of {}", path.display());
            match number(path) {
                Ok(device) => self.settings.push(weights(what, Some(&device), *weight)),
                Err(why) => self.refused.push((what, why)),
            }
        }
        for (rates, doing, v1, v2) in [
            (read_bytes, "reading from", "blkio.throttle.read_bps_device", "rbps"),
            (write_bytes, "writing to", "blkio.throttle.write_bps_device", "wbps"),
            (read_operations, "reads from", "blkio.throttle.read_iops_device", "riops"),
            (write_operations, "writes to", "blkio.throttle.write_iops_device", "wiops"),
        ] {
            for (path, rate) in rates {
                let what = format!("{doing} {}", path.display());
                match number(path) {
                    Ok(device) => {
                        let file = match self.version {
                            Version::V1 => (v1, format!("{device} {rate}")),
                            Version::V2 => ("io.max", format!("{device} {v2}={rate}")),
                        };
                        self.settings.push(Setting::new(&what, "blkio", &[file]));
                    }
                    Err(why) => self.refused.push((what, why)),
                }
            }
        }
    }
}

/// Docker's shares (2 to 262144, usually 1024) as v2's weight (1 to 10000, usually 100): the curve of runc 1.3.2
/// (`ConvertCPUSharesToCgroupV2Value`), which keeps the usual value the usual one.
fn weight_of_shares(shares: u64) -> u64 {
    const LEAST: u64 = 2;
    const MOST: u64 = 262_144;
    match shares {
        0..=LEAST => 1,
        MOST.. => 10_000,
        shares => {
            let doublings = (shares as f64).log2();
            let exponent = (doublings * doublings + 125.0 * doublings) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// 10 to 1000 onto 1 to 10000, as runc's `ConvertBlkIOToIOWeightValue`.
fn weight_of_blkio(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

fn device_number(path: &Path) -> Result<String, String> {
    let about = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !about.file_type().is_block_device() {
        return Err(format!("{} is no block device", path.display()));
    }
    let number = about.rdev();
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    use expect_test::{Expect, expect};

    /// What would be written for these, on either kind of host.
    fn check(limits: &Limits, tuning: &Tuning, v1: Expect, v2: Expect) {
        for (version, expected) in [(Version::V1, v1), (Version::V2, v2)] {
            let mut plan = Plan { version, settings: Vec::new(), refused: Vec::new() };
            plan.limits(limits, tuning);
            plan.tuning(tuning);
            plan.blkio(&tuning.blkio, |path| match path.to_str() {
                Some("/dev/vda") => Ok("254:0".to_owned()),
                _ => Err("no such device".to_owned()),
            });
            let choice = |files: &Vec<(&str, String)>| {
                let files: Vec<String> =
                    files.iter().map(|(file, value)| format!("{file} = {value}")).collect();
                files.join(", ")
            };
            let mut lines: Vec<String> = Vec::new();
            for setting in &plan.settings {
                let choices: Vec<String> = setting.choices.iter().map(choice).collect();
                lines.push(format!("{} [{}]: {}", setting.what, setting.controller, choices.join(" or ")));
            }
            lines.extend(plan.refused.iter().map(|(what, why)| format!("{what}: refused, {why}")));
            expected.assert_eq(&format!("{}\n", lines.join("\n")));
        }
    }

    #[test]
    fn a_container_has_its_limits_in_the_terms_of_either_version() {
        check(
            &Limits { cpu_millis: Some(1500), memory_bytes: Some(64 << 20), pids: Some(100) },
            &Tuning::default(),
            expect![[r#"
                pids [pids]: pids.max = 100
                cpu [cpu]: cpu.cfs_period_us = 100000, cpu.cfs_quota_us = 150000
                memory [memory]: memory.limit_in_bytes = 67108864
                swap [memory]: memory.memsw.limit_in_bytes = 67108864
            "#]],
            expect![[r#"
                pids [pids]: pids.max = 100
                cpu [cpu]: cpu.max = 150000 100000
                memory [memory]: memory.max = 67108864
                swap [memory]: memory.swap.max = 0
            "#]],
        );
    }

    #[test]
    fn tuning_is_converted_as_runc_does() {
        let tuning = Tuning {
            cpu_shares: Some(512),
            cpuset: Some("0-1".to_owned()),
            memory_reservation: Some(1 << 20),
            swap: Some(Swap::Total(96 << 20)),
            blkio: Blkio {
                weight: Some(300),
                weight_device: vec![(PathBuf::from("/dev/vda"), 500), (PathBuf::from("/dev/absent"), 10)],
                read_bytes: vec![(PathBuf::from("/dev/vda"), 1 << 20)],
                write_operations: vec![(PathBuf::from("/dev/vda"), 50)],
                ..Blkio::default()
            },
        };
        check(
            &Limits { cpu_millis: None, memory_bytes: Some(64 << 20), pids: Some(0) },
            &tuning,
            expect![[r#"
                pids [pids]: pids.max = max
                memory [memory]: memory.limit_in_bytes = 67108864
                swap [memory]: memory.memsw.limit_in_bytes = 100663296
                cpu shares [cpu]: cpu.shares = 512
                cpuset [cpuset]: cpuset.cpus = 0-1
                memory reservation [memory]: memory.soft_limit_in_bytes = 1048576
                blkio weight [blkio]: blkio.bfq.weight = 300 or blkio.weight = 300
                the blkio weight of /dev/vda [blkio]: blkio.bfq.weight = 254:0 500 or blkio.weight = 254:0 500
                reading from /dev/vda [blkio]: blkio.throttle.read_bps_device = 254:0 1048576
                writes to /dev/vda [blkio]: blkio.throttle.write_iops_device = 254:0 50
                the blkio weight of /dev/absent: refused, no such device
            "#]],
            expect![[r#"
                pids [pids]: pids.max = max
                memory [memory]: memory.max = 67108864
                swap [memory]: memory.swap.max = 33554432
                cpu shares [cpu]: cpu.weight = 59
                cpuset [cpuset]: cpuset.cpus = 0-1
                memory reservation [memory]: memory.low = 1048576
                blkio weight [blkio]: io.bfq.weight = 300 or io.weight = 2930
                the blkio weight of /dev/vda [blkio]: io.bfq.weight = 254:0 500 or io.weight = 254:0 4950
                reading from /dev/vda [blkio]: io.max = 254:0 rbps=1048576
                writes to /dev/vda [blkio]: io.max = 254:0 wiops=50
                the blkio weight of /dev/absent: refused, no such device
            "#]],
        );
    }

    #[test]
    fn swap_without_a_limit_on_memory_is_unlimited_or_refused() {
        let tuning = |swap| Tuning { swap: Some(swap), ..Tuning::default() };
        check(
            &Limits::default(),
            &tuning(Swap::Unlimited),
            expect![[r#"
                pids [pids]: pids.max = 4096
                swap [memory]: memory.memsw.limit_in_bytes = -1
            "#]],
            expect![[r#"
                pids [pids]: pids.max = 4096
                swap [memory]: memory.swap.max = max
            "#]],
        );
        check(
            &Limits::default(),
            &tuning(Swap::Total(1)),
            expect![[r#"
                pids [pids]: pids.max = 4096
                swap: refused, it takes a limit on memory
            "#]],
            expect![[r#"
                pids [pids]: pids.max = 4096
                swap: refused, it takes a limit on memory
            "#]],
        );
    }

    #[test]
    fn usual_shares_are_the_usual_weight() {
        let weights = [0, 2, 1024, 262_144, u64::MAX].map(weight_of_shares);
        assert_eq!(weights, [1, 1, 100, 10_000, 10_000]);
        assert_eq!([10, 1000].map(weight_of_blkio), [1, 10_000]);
    }

    #[test]
    fn what_is_no_block_device_has_no_number() {
        assert!(device_number(Path::new("/dev/null")).unwrap_err().ends_with("/dev/null is no block device"));
        assert!(device_number(Path::new("/dev/absent")).is_err());
    }
}
