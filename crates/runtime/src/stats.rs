//! What a running container uses: counters for `stats`, processes for `top`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::cgroup::{self, CgroupError, Hierarchies, usage};
use crate::handle::{self, InspectError, Observed};
use crate::launch::Launch;
use crate::record::LoadError;

/// Counters are since the container began; the rest is now. What the host does not count is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_nanos: u64,
    pub cpu_user_nanos: u64,
    pub cpu_system_nanos: u64,
    /// How long processes were kept from running by the limit on CPU.
    pub throttled_nanos: u64,
    /// As in `docker stats`: without the cache of files that were not used lately.
    pub memory_bytes: u64,
    pub memory_limit: Option<u64>,
    /// The cache of files, a part of which is in `memory_bytes`.
    pub memory_cache: u64,
    pub swap_bytes: u64,
    /// Processes and their threads.
    pub pids: u64,
    pub pids_limit: Option<u64>,
    /// From and to block devices.
    pub read_bytes: u64,
    pub write_bytes: u64,
    /// Through all of its network interfaces but `lo`.
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Processes of it that the kernel killed for its memory limit.
    pub oom_kills: u64,
}

/// One process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// In the container.
    pub pid: u32,
    pub node_pid: u32,
    /// The effective user.
    pub uid: u32,
    /// Since it began.
    pub elapsed: Duration,
    pub cpu: Duration,
    /// Resident, in bytes.
    pub memory: u64,
    /// The command line, as the process has it now, or its beginning; its name in brackets where it has none.
    pub command: String,
}

/// What is read of a command line at most, in bytes: what the kernel itself used to tell of one.
const LONGEST_COMMAND: u64 = 4096;

/// What is read of all of a container's together. A command line may have megabytes, which thousands of processes share,
/// and whoever reads them would have each.
const ALL_COMMANDS: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    #[error("the container in {dir} is not running")]
    NotRunning { dir: PathBuf },
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot read this host's cgroups")]
    Cgroups(#[source] io::Error),
    #[error(transparent)]
    Members(CgroupError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// Reads the counters of the running container of `dir`: a dozen small files of the kernel's.
pub fn read(dir: &Path) -> Result<Stats, StatsError> {
    let Place { hierarchies, cgroup, init } = find(dir)?;
    let counted = usage::read(&hierarchies, &cgroup);
    let network = PathBuf::from(format!("/proc/{init}/net/dev"));
    let (rx_bytes, tx_bytes) = match std::fs::read_to_string(&network) {
        Ok(text) => transferred(&text),
        Err(error) if has_ended(&error) => return Err(StatsError::NotRunning { dir: dir.to_owned() }),
        Err(source) => return Err(StatsError::Read { path: network, source }),
    };
    Ok(Stats {
        cpu_nanos: counted.cpu_nanos,
        cpu_user_nanos: counted.cpu_user_nanos,
        cpu_system_nanos: counted.cpu_system_nanos,
        throttled_nanos: counted.throttled_nanos,
        memory_bytes: counted.memory_bytes,
        memory_limit: counted.memory_limit,
        memory_cache: counted.memory_cache,
        swap_bytes: counted.swap_bytes,
        pids: counted.pids,
        pids_limit: counted.pids_limit,
        read_bytes: counted.read_bytes,
        write_bytes: counted.write_bytes,
        rx_bytes,
        tx_bytes,
        oom_kills: counted.oom_kills,
    })
}

/// The processes of the running container of `dir`, the oldest id first. One that ends meanwhile is left out.
pub fn processes(dir: &Path) -> Result<Vec<ProcessRow>, StatsError> {
    let Place { hierarchies, cgroup, .. } = find(dir)?;
    let path = Path::new("/proc/uptime");
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| StatsError::Read { path: path.to_owned(), source })?;
    let uptime = text.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or(0.0);
    let clock = Clock { uptime: Duration::from_secs_f64(uptime.max(0.0)), ticks: ticks_per_second() };
    let pids = cgroup::members(&hierarchies, &cgroup).map_err(StatsError::Members)?;
    let most = longest_command(pids.len());
    let row = |pid: i32| {
        let path = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let file = |name: &str| std::fs::read(path(name)).ok();
        process(&file("stat")?, &file("status")?, &beginning(&path("cmdline"), most).ok()?, clock)
    };
    Ok(pids.into_iter().filter_map(row).collect())
}

/// What each of so many processes is given of [`ALL_COMMANDS`].
fn longest_command(processes: usize) -> u64 {
    let processes = u64::try_from(processes).unwrap_or(u64::MAX).max(1);
    LONGEST_COMMAND.min(ALL_COMMANDS / processes)
}

/// A file up to so many bytes.
fn beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The memory of this node, in bytes: what a container without a limit may use. 0 where the kernel does not say.
pub fn node_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kilobytes(&text, "MemTotal:")
}

struct Place {
    hierarchies: Hierarchies,
    cgroup: String,
    init: i32,
}

fn find(dir: &Path) -> Result<Place, StatsError> {
    let not_running = || StatsError::NotRunning { dir: dir.to_owned() };
    let Observed::Running(running) = handle::inspect(dir)? else { return Err(not_running()) };
    let launch = Launch::load(dir)?.ok_or_else(not_running)?;
    let hierarchies = Hierarchies::find().map_err(StatsError::Cgroups)?;
    Ok(Place { hierarchies, cgroup: launch.cgroup, init: running.pid })
}

/// A process's files are gone with it, and fail in either way while it goes.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL))
}

/// What all interfaces but `lo` have received and sent, by /proc/PID/net/dev: a name, eight numbers on what was received, the
/// first of them bytes, and eight on what was sent.
fn transferred(text: &str) -> (u64, u64) {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        (name.trim() != "lo").then_some((*numbers.first()?, *numbers.get(8)?))
    };
    let sum = |(rx, tx): (u64, u64), (more_rx, more_tx): (u64, u64)| (rx + more_rx, tx + more_tx);
    text.lines().filter_map(interface).fold((0, 0), sum)
}

/// How the kernel counts time in /proc.
#[derive(Clone, Copy)]
struct Clock {
    uptime: Duration,
    ticks: u64,
}

impl Clock {
    fn time(self, ticks: u64) -> Duration {
        let ticks_per_second = self.ticks.max(1);
        Duration::from_secs(ticks / ticks_per_second)
            + Duration::from_millis(ticks % ticks_per_second * 1000 / ticks_per_second)
    }
}

fn ticks_per_second() -> u64 {
    // 100 on every Linux that we know of; the question costs nothing.
    sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100)
}

/// A process by its files in /proc; `None` if they are not what proc(5) says, as of one that ends just now.
fn process(stat: &[u8], status: &[u8], cmdline: &[u8], clock: Clock) -> Option<ProcessRow> {
    let (stat, status) = (String::from_utf8_lossy(stat), String::from_utf8_lossy(status));
    // The name is in parentheses and may contain any character, those too.
    let (before, after) = stat.rsplit_once(')')?;
    let (pid, name) = before.split_once('(')?;
    // Field 3 of proc(5) is the first one here.
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let pid_in_container = line("NSpid:").and_then(|pids| pids.split_whitespace().next_back());
    let node_pid: u32 = pid.trim().parse().ok()?;
    let words: Vec<String> =
        cmdline.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let words = words.join(" ").trim_end().to_owned();
    Some(ProcessRow {
        pid: pid_in_container.and_then(|pid| pid.parse().ok()).unwrap_or(node_pid),
        node_pid,
        uid: line("Uid:")?.split_whitespace().nth(1)?.parse().ok()?,
        elapsed: clock.uptime.saturating_sub(clock.time(field(22)?)),
        cpu: clock.time(field(14)? + field(15)?),
        memory: kilobytes(&status, "VmRSS:"),
        command: if words.is_empty() { format!("[{name}]") } else { words },
    })
}

/// The value of a line `name  12 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> u64 {
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.map_or(0, |kilobytes: u64| kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn network_traffic_is_that_of_all_interfaces_but_lo() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     999       9    0    0    0     0          0         0      999       9    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0      200       2    0    0    0     0       0          0
  eth1:5       1    0    0    0     0          0         0      7       1    0    0    0     0       0          0
";
        assert_eq!(transferred(text), (1005, 207));
        assert_eq!(transferred(""), (0, 0));
    }

    #[test]
    fn a_process_is_read_as_proc_has_it() {
        let stat = b"4711 (a) (b) S 4700 4711 4711 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 1 0 1000 1000000 80 0 0 0\n";
        let status = b"Name:\ta) (b\nUid:\t1000\t33\t33\t33\nNSpid:\t4711\t7\nVmRSS:\t     320 kB\n";
        let clock = Clock { uptime: Duration::from_secs(70), ticks: 100 };
        let row = process(stat, status, b"sleep\x00100\x00", clock).unwrap();
        expect![[r#"
            ProcessRow {
                pid: 7,
                node_pid: 4711,
                uid: 33,
                elapsed: 60s,
                cpu: 4s,
                memory: 327680,
                command: "sleep 100",
            }
        "#]]
        .assert_eq(&format!("{row:#?}\n"));
        assert_eq!(process(stat, status, b"", clock).unwrap().command, "[a) (b]");
        assert_eq!(process(b"", status, b"", clock), None);
        assert_eq!(process(stat, b"", b"", clock), None);
    }

    #[test]
    fn command_lines_take_little_however_many_and_long_they_are() {
        assert_eq!(longest_command(0), LONGEST_COMMAND);
        assert_eq!(longest_command(30), LONGEST_COMMAND);
        for many in [1000, 4096, 32_768, 5_000_000] {
            assert!(longest_command(many) * many as u64 <= ALL_COMMANDS, "{many}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cmdline");
        std::fs::write(&path, [b'x'; 10_000]).unwrap();
        assert_eq!(beginning(&path, LONGEST_COMMAND).unwrap().len(), 4096);
        assert_eq!(beginning(&path, 20_000).unwrap().len(), 10_000);
    }

    #[test]
    fn a_container_that_does_not_run_has_no_counters() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(StatsError::NotRunning { .. })));
        assert!(matches!(processes(dir.path()), Err(StatsError::NotRunning { .. })));
        assert!(node_memory() > 0);
    }
}
