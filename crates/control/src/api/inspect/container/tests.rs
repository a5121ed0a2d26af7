use std::collections::{BTreeMap, BTreeSet};

use model::{Access, DeviceKind, DeviceRule, Hooks, Signal, Ulimit};

use super::*;

fn bind() -> Mount {
    let bind = Bind {
        source: "/srv/data".to_owned(),
        create: false,
        propagation: Propagation::Slave,
        recursive: true,
    };
    Mount { target: "/data".to_owned(), read_only: true, kind: MountKind::Bind(bind) }
}

fn tmpfs() -> Mount {
    let tmpfs = Tmpfs { size: Some(Bytes(1 << 20)), mode: Some(0o750), uid: Some(7), gid: None, exec: true };
    Mount { target: "/run".to_owned(), read_only: false, kind: MountKind::Tmpfs(tmpfs) }
}

fn capability(name: &str) -> BTreeSet<model::Capability> {
    BTreeSet::from([name.parse().unwrap()])
}

fn privileges() -> Privileges {
    Privileges {
        privileged: false,
        add: Capabilities { all: false, named: capability("NET_ADMIN") },
        drop: Capabilities { all: true, named: BTreeSet::new() },
        no_new_privileges: true,
        seccomp: Seccomp::Profile("{\"defaultAction\":\"SCMP_ACT_ALLOW\"}".to_owned()),
        apparmor: Some("unconfined".to_owned()),
        unmasked: true,
    }
}

fn tuned() -> Tuning {
    Tuning {
        cpu_shares: Some(512),
        cpuset: Some("0-1".to_owned()),
        memory_reservation: Some(Bytes(1024)),
        swap: Some(SwapLimit::Unlimited),
        blkio: Blkio {
            weight: Some(300),
            read_bytes: vec![("/dev/sda".to_owned(), 4096)],
            ..Blkio::default()
        },
    }
}

/// Everything that can be said, is.
fn full() -> ContainerSpec {
    let text = |text: &str| Some(text.to_owned());
    let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let access = Access { read: true, write: false, mknod: false };
    ContainerSpec {
        annotations: pair("a", "b"),
        hostname: text("web"),
        domainname: text("example.org"),
        hosts: vec![HostEntry { name: "db".to_owned(), address: HostAddress::Gateway }],
        dns: Dns { servers: vec!["10.0.0.1".parse().unwrap()], ..Dns::default() },
        groups: vec!["audio".to_owned()],
        init: true,
        tty: true,
        stdin_open: true,
        read_only: true,
        mounts: vec![bind(), tmpfs()],
        shm_size: Some(Bytes(5)),
        ulimits: BTreeMap::from([(Ulimit::Nofile, UlimitRange { soft: Some(1024), hard: None })]),
        sysctls: pair("net.core.somaxconn", "1024"),
        privileges: privileges(),
        devices: vec![Device { source: "/dev/fuse".to_owned(), target: "/dev/fuse".to_owned(), access }],
        device_rules: vec![DeviceRule { kind: DeviceKind::Character, major: Some(10), minor: None, access }],
        namespaces: Namespaces { ipc: Scope::Host, user: UserScope::Own, ..Namespaces::default() },
        cgroup_parent: text("/batch"),
        oom_score_adj: Some(0),
        tuning: tuned(),
        storage_size: Some(Bytes(6)),
        runtime: text("crun"),
        hooks: Hooks {
            post_start: vec![Hook { command: vec!["warm".to_owned()], ..Hook::default() }],
            pre_stop: vec![Hook {
                command: vec!["flush".to_owned(), "all".to_owned()],
                user: Some("app".to_owned()),
                privileged: true,
                working_dir: Some("/srv".to_owned()),
                environment: BTreeMap::from([("HOW".to_owned(), "fast".to_owned())]),
            }],
        },
        stop: Stop { signal: Signal::from_number(2), grace: Duration::from_millis(1500) },
        hold: true,
        logging: Logging { driver: LogDriver::Journald { tag: String::new() }, ..Logging::default() },
    }
}

#[test]
fn of_what_nobody_declared_only_the_end_and_the_log_are_said() {
    let said = container(&ContainerSpec::default());
    let expected = json!({
        "stop": { "signal": null, "grace_ms": 10_000 },
        "logging": { "driver": "local", "max_size_bytes": 16_777_216, "max_files": 3 },
    });
    assert_eq!(said, expected);
}

#[test]
fn all_that_was_declared_is_said() {
    let expected = json!({
        "annotations": { "a": "b" },
        "hostname": "web",
        "domainname": "example.org",
        "extra_hosts": ["db=host-gateway"],
        "dns": { "servers": ["10.0.0.1"] },
        "groups": ["audio"],
        "init": true,
        "tty": true,
        "stdin_open": true,
        "read_only": true,
        "mounts": [
            {
                "type": "bind",
                "source": "/srv/data",
                "target": "/data",
                "read_only": true,
                "create_host_path": false,
                "propagation": "rslave",
                "recursive": true,
            },
            {
                "type": "tmpfs",
                "target": "/run",
                "read_only": false,
                "size_bytes": 1_048_576,
                "mode": "0750",
                "uid": 7,
                "gid": null,
                "exec": true,
            },
        ],
        "shm_size_bytes": 5,
        "ulimits": { "nofile": { "soft": 1024, "hard": -1 } },
        "sysctls": { "net.core.somaxconn": "1024" },
        "privileges": {
            "cap_add": ["CAP_NET_ADMIN"],
            "cap_drop": ["ALL"],
            "no_new_privileges": true,
            "seccomp": { "defaultAction": "SCMP_ACT_ALLOW" },
            "apparmor": "unconfined",
            "unmasked": true,
        },
        "devices": [{ "source": "/dev/fuse", "target": "/dev/fuse", "permissions": "r" }],
        "device_rules": ["c 10:* r"],
        "namespaces": { "ipc": "host", "user": "own" },
        "cgroup_parent": "/batch",
        "oom_score_adj": 0,
        "tuning": {
            "cpu_shares": 512,
            "cpuset": "0-1",
            "memory_reservation_bytes": 1024,
            "memory_and_swap_bytes": -1,
            "blkio": { "weight": 300, "device_read_bps": [{ "path": "/dev/sda", "rate": 4096 }] },
        },
        "storage_size_bytes": 6,
        "runtime": "crun",
        "stop": { "signal": "SIGINT", "grace_ms": 1500 },
        "post_start": [{ "command": ["warm"] }],
        "pre_stop": [{
            "command": ["flush", "all"],
            "user": "app",
            "privileged": true,
            "working_dir": "/srv",
            "environment": { "HOW": "fast" },
        }],
        "hold": true,
        "logging": { "driver": "journald", "max_size_bytes": 16_777_216, "max_files": 3 },
    });
    assert_eq!(container(&full()), expected);
}

#[test]
fn a_log_says_where_it_goes() {
    let driver = LogDriver::Syslog {
        address: "udp://log.example:514".to_owned(),
        facility: "daemon".to_owned(),
        tag: "web".to_owned(),
    };
    let said = logging(&Logging { driver, max_size: Bytes(10), max_files: 1 });
    let expected = json!({
        "driver": "syslog",
        "max_size_bytes": 10,
        "max_files": 1,
        "address": "udp://log.example:514",
        "facility": "daemon",
        "tag": "web",
    });
    assert_eq!(said, expected);
}

#[test]
fn a_health_check_is_the_images_or_none_or_what_the_service_says() {
    assert_eq!(health(&Health::Image), json!({ "check": "image" }));
    assert_eq!(health(&Health::Disabled), json!({ "check": "disabled" }));
    let check = HealthCheck {
        probe: Some(Probe::Exec(vec!["pg_isready".to_owned()])),
        interval: Some(Duration::from_secs(5)),
        retries: Some(4),
        ..HealthCheck::default()
    };
    let expected = json!({
        "check": "service",
        "probe": { "exec": ["pg_isready"] },
        "interval_ms": 5000,
        "timeout_ms": null,
        "retries": 4,
        "start_period_ms": null,
        "start_interval_ms": null,
    });
    assert_eq!(health(&Health::Check(check)), expected);
}

#[test]
fn a_probe_is_what_is_written_below_x_gantry() {
    let http = HttpProbe {
        port: 8080,
        path: "/healthz".to_owned(),
        tls: true,
        host: None,
        headers: vec![("X-Probe".to_owned(), "yes".to_owned())],
    };
    let ready = Readiness {
        probe: Probe::Http(http),
        interval: Duration::from_secs(2),
        timeout: Duration::from_millis(500),
        successes: 1,
        failures: 3,
    };
    let expected = json!({
        "probe": {
            "http": {
                "port": 8080,
                "path": "/healthz",
                "scheme": "https",
                "host": null,
                "headers": ["X-Probe=yes"],
            },
        },
        "interval_ms": 2000,
        "timeout_ms": 500,
        "successes": 1,
        "failures": 3,
    });
    assert_eq!(readiness(&ready), expected);
    assert_eq!(probe(&Probe::Tcp { port: 80 }), json!({ "tcp": { "port": 80 } }));
    let grpc = Probe::Grpc { port: 80, service: "shop".to_owned() };
    assert_eq!(probe(&grpc), json!({ "grpc": { "port": 80, "service": "shop" } }));
}

#[test]
fn a_pull_policy_is_composes_word() {
    let words = [
        PullPolicy::Missing,
        PullPolicy::Always,
        PullPolicy::Never,
        PullPolicy::After(Duration::from_secs(43_200)),
    ]
    .map(pull_policy);
    assert_eq!(words, ["missing", "always", "never", "every_43200s"]);
}
