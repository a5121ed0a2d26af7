//! Differences that are meant, each with the reason. Whatever is not here is a defect of one of the two.

/// A difference that is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// Which facts differ; one `*` stands for anything.
    pub(super) fact: &'static str,
    /// Whether they do with these options only; all if none is named.
    sets: &'static [&'static str],
    pub(super) why: &'static str,
}

pub(super) static EXPECTED: [Expected; 26] = [
    Expected {
        fact: "Cap* NET_RAW",
        sets: &[],
        why: "left out on purpose: with it a container forges packets of others. ping works without, by ping_group_range",
    },
    Expected {
        fact: "namespace cgroup",
        sets: &[],
        why: "on cgroup v1 Docker shares the machine's by default; gantry's containers have their own, as Docker's on v2",
    },
    Expected {
        fact: "mount /proc/interrupts *",
        sets: &[],
        why: "hidden by Docker as well since version 28: it tells keystrokes apart by their timing",
    },
    Expected {
        fact: "mount /sys/devices/virtual/powercap *",
        sets: &[],
        why: "hidden by Docker as well since version 20.10.27: it tells secrets apart by the power that they take",
    },
    Expected {
        fact: "mount /sys/devices/system/cpu/cpu*",
        sets: &[],
        why: "thermal_throttle of each processor is hidden by Docker as well since version 28, with /proc/interrupts",
    },
    Expected {
        fact: "mount /etc/hosts type",
        sets: &[],
        why: "gantry writes it for each start, into memory; Docker keeps it on its disk",
    },
    Expected { fact: "mount /etc/hostname type", sets: &[], why: "as /etc/hosts" },
    Expected { fact: "mount /etc/resolv.conf type", sets: &[], why: "as /etc/hosts" },
    Expected { fact: "mount /etc/* data", sets: &[], why: "of the file systems that these files are on" },
    Expected {
        fact: "mount /sys/fs/cgroup data",
        sets: &[],
        why: "gantry's holds nothing but mount points and is bounded; Docker's may take half of the machine's memory",
    },
    Expected {
        fact: "hosts ::1",
        sets: &[],
        why: "Docker adds the names ip6-localhost and ip6-loopback; gantry's network is IPv4, and localhost is enough",
    },
    Expected {
        fact: "hosts f*",
        sets: &[],
        why: "names of IPv6 multicast groups, which gantry's network has not",
    },
    Expected {
        fact: "sysctl net/ipv6/conf/all/disable_ipv6",
        sets: &[],
        why: "Docker switches IPv6 off in a container whose network has none; in gantry's, the loopback's ::1 works",
    },
    Expected {
        fact: "variable HOSTNAME",
        sets: &["uts-host"],
        why: "Docker's is the machine's name, and gantry's the task's, by which its logs are found",
    },
    Expected {
        fact: "mount /sys/fs/cgroup/devices *",
        sets: &[],
        why: "of cgroup v1 a container is shown what limits it and what it uses, and nothing to switch devices with",
    },
    Expected {
        fact: "mount /sys/fs/cgroup/freezer *",
        sets: &[],
        why: "as /sys/fs/cgroup/devices: nothing to stop processes with",
    },
    Expected {
        fact: "mount /sys/fs/cgroup/systemd *",
        sets: &[],
        why: "as /sys/fs/cgroup/devices: it is the node's service manager's",
    },
    Expected {
        fact: "cgroup devices/devices.list",
        sets: &[],
        why: "not shown (above); what a container can open by its rules is for the tests of the runtime",
    },
    Expected {
        fact: "cgroup pids/pids.max",
        sets: &[],
        why: "4096 where nothing is asked for: a fork bomb takes no node down",
    },
    Expected {
        fact: "mount /etc/hosts options",
        sets: &[],
        why: "there is no reason for a device, a program or a set-user-ID bit in it",
    },
    Expected { fact: "mount /etc/hostname options", sets: &[], why: "as /etc/hosts" },
    Expected { fact: "mount /etc/resolv.conf options", sets: &[], why: "as /etc/hosts" },
    Expected {
        fact: "mount /bin/docker-init *",
        sets: &[],
        why: "Docker binds its init into the container; gantry's first process is one without a file",
    },
    Expected {
        fact: "hostname",
        sets: &["uts-host"],
        why: "/etc/hostname: Docker writes the container's id, though the name that counts there is the machine's",
    },
    Expected { fact: "hosts <address>", sets: &["uts-host"], why: "as /etc/hostname" },
    Expected {
        fact: "status SigIgn",
        sets: &[],
        why: "the two signals that the C library keeps for itself (32 and 33) are as whoever started the daemon had them; \
              Docker's runtime, in Go, has a use of its own for 33",
    },
];

/// The number of the first that fits a difference, in [`EXPECTED`].
pub(super) fn explain(set: &str, fact: &str) -> Option<usize> {
    EXPECTED.iter().position(|expected| {
        matches(expected.fact, fact) && (expected.sets.is_empty() || expected.sets.contains(&set))
    })
}

fn matches(pattern: &str, fact: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => {
            fact.len() >= begin.len() + end.len() && fact.starts_with(begin) && fact.ends_with(end)
        }
        None => pattern == fact,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::SETS;
    use super::*;

    #[test]
    fn one_star_stands_for_anything() {
        for (pattern, fact, fits) in [
            ("Cap* NET_RAW", "CapBnd NET_RAW", true),
            ("Cap* NET_RAW", "CapBnd NET_ADMIN", false),
            ("hosts f*", "hosts fe00::0", true),
            ("mount /a *", "mount /a", false),
            ("namespace cgroup", "namespace cgroup", true),
            ("namespace cgroup", "namespace cgroups", false),
        ] {
            assert_eq!(matches(pattern, fact), fits, "{pattern} {fact}");
        }
    }

    #[test]
    fn a_difference_may_be_meant_with_some_options_only() {
        assert!(explain("uts-host", "variable HOSTNAME").is_some());
        assert_eq!(explain("defaults", "variable HOSTNAME"), None);
        assert_eq!(explain("privileged", "CapEff NET_RAW"), Some(0));
    }

    #[test]
    fn what_is_meant_names_sets_that_there_are_and_has_a_reason() {
        for expected in &EXPECTED {
            assert!(!expected.why.is_empty());
            assert!(expected.sets.iter().all(|name| SETS.iter().any(|set| set.name == *name)));
        }
    }
}
