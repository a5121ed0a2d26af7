//! What a cgroup has used since it was made, and what it may use. A counter that the host does not keep is 0.

use std::path::Path;

use super::Hierarchies;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_nanos: u64,
    pub(crate) cpu_user_nanos: u64,
    pub(crate) cpu_system_nanos: u64,
    pub(crate) throttled_nanos: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) memory_cache: u64,
    pub(crate) swap_bytes: u64,
    pub(crate) pids: u64,
    pub(crate) pids_limit: Option<u64>,
    pub(crate) read_bytes: u64,
    pub(crate) write_bytes: u64,
    pub(crate) oom_kills: u64,
}

/// v1's "no limit" is the largest number of whole pages, which depends on their size. No machine has a quarter of it.
const NO_LIMIT: u64 = u64::MAX / 8;

pub(crate) fn read(hierarchies: &Hierarchies, path: &str) -> Usage {
    if let Some(dir) = hierarchies.v2(path) {
        return of_v2(|file| text(&dir.join(file)));
    }
    of_v1(|controller, file| match hierarchies.v1(controller, path) {
        Some(dir) => text(&dir.join(file)),
        None => String::new(),
    })
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn of_v2(text: impl Fn(&str) -> String) -> Usage {
    let (cpu, memory, io) = (text("cpu.stat"), text("memory.stat"), text("io.stat"));
    let nanos = |name: &str| field(&cpu, name).saturating_mul(1000);
    let transferred = |name: &str| -> u64 {
        io.split_whitespace().filter_map(|word| word.strip_prefix(name)).map(number).sum()
    };
    Usage {
        cpu_nanos: nanos("usage_usec"),
        cpu_user_nanos: nanos("user_usec"),
        cpu_system_nanos: nanos("system_usec"),
        throttled_nanos: nanos("throttled_usec"),
        memory_bytes: in_use(number(&text("memory.current")), field(&memory, "inactive_file")),
        memory_limit: limit(&text("memory.max")),
        memory_cache: field(&memory, "file"),
        swap_bytes: number(&text("memory.swap.current")),
        pids: number(&text("pids.current")),
        pids_limit: limit(&text("pids.max")),
        read_bytes: transferred("rbytes="),
        write_bytes: transferred("wbytes="),
        oom_kills: field(&text("memory.events"), "oom_kill"),
    }
}

fn of_v1(text: impl Fn(&str, &str) -> String) -> Usage {
    let memory = text("memory", "memory.stat");
    let mut transfers = text("blkio", "blkio.throttle.io_service_bytes_recursive");
    if transfers.is_empty() {
        transfers = text("blkio", "blkio.throttle.io_service_bytes");
    }
    // `8:0 Read 4096`, a device a line.
    let transferred = |way: &str| -> u64 {
        let fields = transfers.lines().filter_map(|line| line.split_once(' ')?.1.split_once(' '));
        fields.filter(|(name, _)| *name == way).map(|(_, count)| number(count)).sum()
    };
    Usage {
        cpu_nanos: number(&text("cpuacct", "cpuacct.usage")),
        cpu_user_nanos: number(&text("cpuacct", "cpuacct.usage_user")),
        cpu_system_nanos: number(&text("cpuacct", "cpuacct.usage_sys")),
        throttled_nanos: field(&text("cpu", "cpu.stat"), "throttled_time"),
        memory_bytes: in_use(
            number(&text("memory", "memory.usage_in_bytes")),
            field(&memory, "total_inactive_file"),
        ),
        memory_limit: limit(&text("memory", "memory.limit_in_bytes")),
        memory_cache: field(&memory, "total_cache"),
        swap_bytes: field(&memory, "total_swap"),
        pids: number(&text("pids", "pids.current")),
        pids_limit: limit(&text("pids", "pids.max")),
        read_bytes: transferred("Read"),
        write_bytes: transferred("Write"),
        oom_kills: field(&text("memory", "memory.oom_control"), "oom_kill"),
    }
}

/// What `docker stats` calls memory usage: without the cache of files that nobody has asked for lately.
fn in_use(total: u64, inactive_file: u64) -> u64 {
    if inactive_file < total { total - inactive_file } else { total }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// `max` is no limit, and so is what is not there.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
}

/// The value of a line `name value`.
fn field(text: &str, name: &str) -> u64 {
    let mut fields = text.lines().filter_map(|line| line.split_once(' '));
    fields.find(|(found, _)| *found == name).map_or(0, |(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(usage: &Usage, expected: Expect) {
        expected.assert_eq(&format!("{usage:#?}\n"));
    }

    fn v2(file: &str) -> String {
        let text = match file {
            "cpu.stat" => {
                "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 2\n\
                 throttled_usec 300000\n"
            }
            "memory.current" => "10485760\n",
            "memory.stat" => "anon 6291456\nfile 4194304\nactive_file 1048576\ninactive_file 3145728\n",
            "memory.max" => "67108864\n",
            "memory.swap.current" => "4096\n",
            "memory.events" => "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n",
            "pids.current" => "3\n",
            "pids.max" => "max\n",
            "io.stat" => {
                "254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n8:16 rbytes=100 wbytes=0 rios=1 wios=0\n"
            }
            _ => "",
        };
        text.to_owned()
    }

    #[test]
    fn counters_are_read_from_version_two() {
        check(
            &of_v2(v2),
            expect![[r#"
                Usage {
                    cpu_nanos: 2500000000,
                    cpu_user_nanos: 2000000000,
                    cpu_system_nanos: 500000000,
                    throttled_nanos: 300000000,
                    memory_bytes: 7340032,
                    memory_limit: Some(
                        67108864,
                    ),
                    memory_cache: 4194304,
                    swap_bytes: 4096,
                    pids: 3,
                    pids_limit: None,
                    read_bytes: 8292,
                    write_bytes: 4096,
                    oom_kills: 1,
                }
            "#]],
        );
    }

    fn v1(controller: &str, file: &str) -> String {
        let text = match (controller, file) {
            ("cpuacct", "cpuacct.usage") => "2500000123\n",
            ("cpuacct", "cpuacct.usage_user") => "2000000000\n",
            ("cpuacct", "cpuacct.usage_sys") => "500000123\n",
            ("cpu", "cpu.stat") => "nr_periods 10\nnr_throttled 2\nthrottled_time 300000000\n",
            ("memory", "memory.usage_in_bytes") => "10485760\n",
            ("memory", "memory.limit_in_bytes") => "9223372036854771712\n",
            ("memory", "memory.stat") => {
                "cache 1\ninactive_file 1\ntotal_cache 4194304\ntotal_swap 4096\ntotal_inactive_file 3145728\n"
            }
            ("memory", "memory.oom_control") => "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ("pids", "pids.current") => "3\n",
            ("pids", "pids.max") => "4096\n",
            ("blkio", "blkio.throttle.io_service_bytes_recursive") => {
                "254:0 Read 8192\n254:0 Write 4096\n254:0 Sync 12288\n254:0 Total 12288\n8:16 Read 100\nTotal 12388\n"
            }
            _ => "",
        };
        text.to_owned()
    }

    #[test]
    fn counters_are_read_from_version_one() {
        check(
            &of_v1(v1),
            expect![[r#"
                Usage {
                    cpu_nanos: 2500000123,
                    cpu_user_nanos: 2000000000,
                    cpu_system_nanos: 500000123,
                    throttled_nanos: 300000000,
                    memory_bytes: 7340032,
                    memory_limit: None,
                    memory_cache: 4194304,
                    swap_bytes: 4096,
                    pids: 3,
                    pids_limit: Some(
                        4096,
                    ),
                    read_bytes: 8292,
                    write_bytes: 4096,
                    oom_kills: 2,
                }
            "#]],
        );
    }

    #[test]
    fn what_the_host_does_not_count_is_nothing() {
        assert_eq!(of_v1(|_, _| String::new()), Usage::default());
        assert_eq!(of_v2(|_| String::new()), Usage::default());
        assert_eq!(in_use(10, 30), 10, "counters that are read one after the other need not fit each other");
    }
}
