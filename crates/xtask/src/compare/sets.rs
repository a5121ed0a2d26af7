//! What containers are given, in Docker's words and in Compose's.

/// The same options twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Of `docker run`.
    pub(super) docker: &'static [&'static str],
    /// Keys of a service, at its depth.
    pub(super) compose: &'static str,
}

pub(super) static SETS: [Set; 22] = [
    Set { name: "defaults", docker: &[], compose: "" },
    Set {
        name: "user",
        docker: &["--user", "1000:1001", "--group-add", "2000"],
        compose: "user: '1000:1001'\ngroup_add: [2000]",
    },
    Set {
        name: "environment",
        docker: &["--env", "COLOUR=blue", "--workdir", "/tmp"],
        compose: "environment: {COLOUR: blue}\nworking_dir: /tmp",
    },
    Set {
        name: "capabilities",
        docker: &["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE", "--cap-add", "CHOWN"],
        compose: "cap_drop: [ALL]\ncap_add: [NET_BIND_SERVICE, CHOWN]",
    },
    Set {
        name: "more-capabilities",
        docker: &["--cap-add", "SYS_ADMIN", "--cap-drop", "MKNOD"],
        compose: "cap_add: [SYS_ADMIN]\ncap_drop: [MKNOD]",
    },
    Set { name: "privileged", docker: &["--privileged"], compose: "privileged: true" },
    Set {
        name: "read-only",
        docker: &["--read-only", "--tmpfs", "/scratch:size=16m,mode=1770"],
        compose: "read_only: true\ntmpfs: ['/scratch:size=16m,mode=1770']",
    },
    Set {
        name: "binds",
        docker: &["--volume", "/usr:/machine/usr:ro", "--volume", "/srv:/machine/srv"],
        compose: "volumes: ['/usr:/machine/usr:ro', '/srv:/machine/srv']",
    },
    Set {
        name: "ulimits",
        docker: &["--ulimit", "nofile=1024:2048", "--ulimit", "nproc=512", "--ulimit", "core=0"],
        compose: "ulimits: {nofile: {soft: 1024, hard: 2048}, nproc: 512, core: 0}",
    },
    Set {
        name: "sysctls",
        docker: &["--sysctl", "net.core.somaxconn=256", "--sysctl", "kernel.shm_rmid_forced=1"],
        compose: "sysctls: {net.core.somaxconn: 256, kernel.shm_rmid_forced: 1}",
    },
    Set { name: "init", docker: &["--init"], compose: "init: true" },
    Set {
        name: "memory",
        docker: &["--memory", "64m", "--memory-reservation", "32m", "--memory-swap", "128m"],
        compose: "mem_limit: 64m\nmem_reservation: 32m\nmemswap_limit: 128m",
    },
    Set {
        name: "processors",
        docker: &["--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0"],
        compose: "cpus: 0.5\ncpu_shares: 512\ncpuset: '0'",
    },
    Set { name: "pids", docker: &["--pids-limit", "64"], compose: "pids_limit: 64" },
    Set { name: "shm-size", docker: &["--shm-size", "32m"], compose: "shm_size: 32m" },
    Set {
        name: "no-new-privileges",
        docker: &["--security-opt", "no-new-privileges"],
        compose: "security_opt: ['no-new-privileges:true']",
    },
    Set {
        name: "seccomp-unconfined",
        docker: &["--security-opt", "seccomp=unconfined"],
        compose: "security_opt: ['seccomp=unconfined']",
    },
    Set {
        name: "devices",
        docker: &["--device", "/dev/full:/dev/extra:rw", "--device-cgroup-rule", "c 42:* rmw"],
        compose: "devices: ['/dev/full:/dev/extra:rw']\ndevice_cgroup_rules: ['c 42:* rmw']",
    },
    Set {
        name: "names",
        docker: &[
            "--hostname",
            "box",
            "--domainname",
            "example.org",
            "--add-host",
            "db:10.1.2.3",
            "--dns",
            "10.9.9.9",
            "--dns-search",
            "example.test",
            "--dns-option",
            "ndots:2",
        ],
        compose: "hostname: box\ndomainname: example.org\nextra_hosts: ['db:10.1.2.3']\ndns: 10.9.9.9\n\
                  dns_search: example.test\ndns_opt: ['ndots:2']",
    },
    Set { name: "ipc-host", docker: &["--ipc", "host"], compose: "ipc: host" },
    Set { name: "pid-host", docker: &["--pid", "host"], compose: "pid: host" },
    Set {
        name: "uts-host",
        docker: &["--uts", "host", "--oom-score-adj", "500"],
        compose: "uts: host\noom_score_adj: 500",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_a_name_of_its_own_that_may_be_a_stacks() {
        let mut names: Vec<&str> = SETS.iter().map(|set| set.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SETS.len());
        assert!(names.iter().all(|name| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'-')));
    }
}
