use expect_test::expect;

use super::check_web;

#[test]
fn what_a_container_is_given_reaches_the_model() {
    check_web(
        "annotations: {io.example.a: b, io.example.doc: \"one\\ntwo\"}\nhostname: web-1.example\ndomainname: example.org\ngroup_add: [audio, 1000, \"44\", audio]\ninit: true\ntty: true\nstdin_open: true\nread_only: true\nshm_size: 128m\noom_score_adj: -500\ncgroup_parent: batch/low\nstorage_opt: {size: 20G}\nruntime: crun\nstop_signal: SIGINT\nstop_grace_period: 1m30s",
        expect![[r#"
        web
          image nginx:latest
          annotation io.example.a = "b"
          annotation io.example.doc = "one\ntwo"
          hostname "web-1.example"
          domainname "example.org"
          group audio
          group 1000
          group 44
          init
          tty
          stdin
          read-only
          shm 134217728
          cgroup parent "/batch/low"
          oom score -500
          storage 21474836480
          runtime "crun"
          stop by SIGINT within 90s
    "#]],
    );
}

#[test]
fn what_is_empty_is_as_if_it_were_not_there() {
    check_web(
        "hostname: ''\ndomainname: ''\ndns: ''\ncgroup_parent: ''\ncpuset: ''\nruntime: ''\nstop_signal: ''\npull_policy: ''\nuserns_mode: ''\nshm_size: 0\nstorage_opt: {size: 0}\nulimits:\nsysctls:\nvolumes:\ntmpfs:\ndevices:\nextra_hosts:\nsecurity_opt:\nlogging:\nhealthcheck:\nblkio_config:\nx-gantry:",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
}

#[test]
fn a_boolean_may_be_in_quotes_or_of_yaml_1_1() {
    check_web(
        "init: \"true\"\ntty: yes\nstdin_open: OFF",
        expect![[r#"
        web
          image nginx:latest
          init
          tty
        warning a.yaml:5:10: `tty` is true here, but this word is no boolean since YAML 1.2; write `true`
        warning a.yaml:6:17: `stdin_open` is false here, but this word is no boolean since YAML 1.2; write `false`
    "#]],
    );
    check_web(
        "read_only: maybe\nprivileged: ~\ninit: 1\ntty: [true]",
        expect![[r#"
        error a.yaml:4:16: `read_only` must be true or false, and this is the string `maybe`
        error a.yaml:5:17: `privileged` must be true or false, and this is empty
        error a.yaml:6:11: `init` must be true or false, and this is the number `1`
        error a.yaml:7:10: `tty` must be true or false, and this is a list
    "#]],
    );
}

#[test]
fn a_host_name_is_of_rfc_1123_or_has_underscores() {
    check_web(
        "hostname: my host\ndomainname: -x.example",
        expect![[r#"
        error a.yaml:4:15: `hostname` cannot be `my host`; write letters, digits, `-` and `_`, at most 63 between two dots and 64 in all
        error a.yaml:5:17: `domainname` cannot be `-x.example`; write letters, digits, `-` and `_`, at most 63 between two dots and 64 in all
    "#]],
    );
    check_web(
        "hostname: \"a\\nb\"\ndomainname: 5",
        expect![[r#"
        error a.yaml:4:15: `hostname` cannot be `a\nb`; write letters, digits, `-` and `_`, at most 63 between two dots and 64 in all
        error a.yaml:5:17: `domainname` must be a string, and this is the number `5`; put it in quotes
    "#]],
    );
    check_web(
        "hostname: \"{{.Node.Hostname}}\"",
        expect![[r#"
        error a.yaml:4:15: templates are not done yet; Docker Swarm would fill in `{{…}}`; write what it stands for
    "#]],
    );
}

#[test]
fn a_host_name_has_63_bytes_between_dots_and_64_in_all() {
    let label = "a".repeat(63);
    let load = |name: &str| {
        let text = super::web(&format!("hostname: \"{name}\""));
        spec::load(&super::sources(&[&text]), &super::variables())
    };
    for good in [label.as_str(), "a", "7", "a-b.C.d", "my_host", "_a_.b"] {
        assert!(load(good).is_ok(), "{good}");
    }
    for bad in ["a..b", ".a", "a.", "-a", "a-", "a b", "é", &format!("{label}a"), &format!("{label}.a")] {
        assert!(load(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_host_has_addresses_in_any_of_dockers_forms() {
    check_web(
        "extra_hosts:\n- db=10.0.0.5\n- old:10.0.0.6\n- v6:fd00::1\n- six=[::1]\n- many=10.0.0.1,10.0.0.2\n- node=host-gateway\n- my_host:127.0.0.1\n- db=10.0.0.5",
        expect![[r#"
        web
          image nginx:latest
          host db = 10.0.0.5
          host old = 10.0.0.6
          host v6 = fd00::1
          host six = ::1
          host many = 10.0.0.1
          host many = 10.0.0.2
          host node = the node
          host my_host = 127.0.0.1
    "#]],
    );
    check_web(
        "extra_hosts:\n  db: 10.0.0.5\n  six: \"[fd00::2]\"\n  many: [10.0.0.1, \"::1\"]\n  node: host-gateway",
        expect![[r#"
        web
          image nginx:latest
          host db = 10.0.0.5
          host six = fd00::2
          host many = 10.0.0.1
          host many = ::1
          host node = the node
    "#]],
    );
}

#[test]
fn what_would_spoil_etc_hosts_is_refused() {
    check_web(
        "extra_hosts:\n- db\n- \"=10.0.0.5\"\n- a b=10.0.0.5\n- db=10.0.0.256\n- db=10.0.0.5,\n- 5\n- \"a\\nb=::1\"\n- \"a=::1\\n\"",
        expect![[r#"
        error a.yaml:5:7: `db` gives a host no address; write for example `db=10.0.0.5`
        error a.yaml:6:7: `` cannot be a host in `/etc/hosts`; write letters, digits, `-`, `_` and `.`
        error a.yaml:7:7: `a b` cannot be a host in `/etc/hosts`; write letters, digits, `-`, `_` and `.`
        error a.yaml:8:7: `10.0.0.256` is not an address of the host `db`; write an IPv4 or IPv6 address, or host-gateway
        error a.yaml:9:7: `` is not an address of the host `db`; write an IPv4 or IPv6 address, or host-gateway
        error a.yaml:10:7: each item of `extra_hosts` must be a string, and this is the number `5`; put it in quotes
        error a.yaml:11:7: `a\nb` cannot be a host in `/etc/hosts`; write letters, digits, `-`, `_` and `.`
        error a.yaml:12:7: `::1\n` is not an address of the host `a`; write an IPv4 or IPv6 address, or host-gateway
    "#]],
    );
    check_web(
        "extra_hosts: {db: ~, x: 5}",
        expect![[r#"
        error a.yaml:4:19: the host `db` has no address; write one behind it
        error a.yaml:4:29: `x` must be a list, and this is the number `5`
    "#]],
    );
}

#[test]
fn name_servers_are_one_or_several() {
    check_web(
        "dns: [1.1.1.1, \"2606:4700::1111\", 1.1.1.1]\ndns_search: [corp.example., _tcp.corp.example, .]\ndns_opt: [\"ndots:2\", use-vc]",
        expect![[r#"
        web
          image nginx:latest
          dns 1.1.1.1
          dns 2606:4700::1111
          dns search corp.example.
          dns search _tcp.corp.example
          dns search .
          dns option ndots:2
          dns option use-vc
    "#]],
    );
    check_web(
        "dns: 9.9.9.9\ndns_search: example.org\ndns_opt: \"timeout:3\"",
        expect![[r#"
        web
          image nginx:latest
          dns 9.9.9.9
          dns search example.org
          dns option timeout:3
    "#]],
    );
    check_web(
        "dns: [dns.example, 8]\ndns_search: \"a b\"\ndns_opt: [\"a b\", \"x\\ny\", \"\"]",
        expect![[r#"
        error a.yaml:4:11: `dns.example` is not the address of a DNS server; write an IPv4 or IPv6 address
        error a.yaml:4:24: each item of `dns` must be a string, and this is the number `8`; put it in quotes
        error a.yaml:5:17: `dns_search` cannot be `a b`; write a domain, for example shop.example
        error a.yaml:6:15: `dns_opt` cannot be `a b`; write an option of resolv.conf, for example ndots:2
        error a.yaml:6:22: `dns_opt` cannot be `x\ny`; write an option of resolv.conf, for example ndots:2
        error a.yaml:6:30: `dns_opt` cannot be ``; write an option of resolv.conf, for example ndots:2
    "#]],
    );
}

#[test]
fn a_group_is_a_name_or_a_number() {
    check_web(
        "group_add: [-1, a b, 4294967296, 1.5, [a], \"\", \"a:b\"]",
        expect![[r#"
        error a.yaml:4:17: a group must be a name or a number, and this is the number `-1`; write for example audio or 1000
        error a.yaml:4:21: a group must be a name or a number, and this is the string `a b`; write for example audio or 1000
        error a.yaml:4:26: a group must be a name or a number, and this is the number `4294967296`; write for example audio or 1000
        error a.yaml:4:38: a group must be a name or a number, and this is the number `1.5`; write for example audio or 1000
        error a.yaml:4:43: a group must be a name or a number, and this is a list; write for example audio or 1000
        error a.yaml:4:48: a group must be a name or a number, and this is the string ``; write for example audio or 1000
        error a.yaml:4:52: a group must be a name or a number, and this is the string `a:b`; write for example audio or 1000
    "#]],
    );
}

#[test]
fn a_label_is_one_line_and_an_annotation_may_be_a_document() {
    check_web(
        "labels: {a: \"x\\ny\", \"b\\n\": c}\nannotations: {\"d\\te\": f, g: \"h\\ni\"}",
        expect![[r#"
        error a.yaml:4:17: `a` contains a control character, such as a new line; keep it on one line; YAML's `>-` leaves no new line at its end
        error a.yaml:4:32: a label's name contains a control character, such as a new line; keep it on one line; YAML's `>-` leaves no new line at its end
        error a.yaml:5:27: an annotation's name contains a control character, such as a new line; keep it on one line; YAML's `>-` leaves no new line at its end
    "#]],
    );
    check_web(
        "deploy:\n  labels: [\"a=1\\t2\"]",
        expect![[r#"
        error a.yaml:5:16: `a` contains a control character, such as a new line; keep it on one line; YAML's `>-` leaves no new line at its end
    "#]],
    );
}

#[test]
fn a_runtime_is_a_name_or_a_path() {
    check_web(
        "runtime: /usr/local/bin//crun",
        expect![[r#"
        web
          image nginx:latest
          runtime "/usr/local/bin/crun"
    "#]],
    );
    check_web(
        "runtime: io.containerd.wasmedge.v1",
        expect![[r#"
        error a.yaml:4:14: `io.containerd.wasmedge.v1` is a shim of containerd's, and gantry has its own; name an OCI runtime, such as runc or /usr/bin/crun
    "#]],
    );
    check_web(
        "runtime: a b",
        expect![[r#"
        error a.yaml:4:14: `runtime` cannot be `a b`; name an OCI runtime, such as runc or /usr/bin/crun
    "#]],
    );
    check_web(
        "runtime: ../crun",
        expect![[r#"
        error a.yaml:4:14: `runtime` cannot be `../crun`; name an OCI runtime, such as runc or /usr/bin/crun
    "#]],
    );
    check_web(
        "runtime: /usr/../crun",
        expect![[r#"
        error a.yaml:4:14: `runtime` must not have `..` in it, and this is `/usr/../crun`; write where it leads
    "#]],
    );
}

#[test]
fn stopping_takes_a_signal_and_a_time() {
    check_web(
        "stop_signal: \"15\"\nstop_grace_period: 0s",
        expect![[r#"
        web
          image nginx:latest
          stop by SIGTERM within 0ns
    "#]],
    );
    check_web(
        "stop_grace_period: 500ms",
        expect![[r#"
        web
          image nginx:latest
          stop by its signal within 500ms
    "#]],
    );
    check_web(
        "stop_signal: SIGNOPE\nstop_grace_period: soon",
        expect![[r#"
        error a.yaml:4:18: `SIGNOPE` is not a signal; write for example SIGTERM, TERM, 15 or SIGRTMIN+3
        error a.yaml:5:24: `stop_grace_period`: `soon` is not a duration: write for example 10s, 1m30s or 500ms
    "#]],
    );
    check_web(
        "stop_signal: 9\nstop_grace_period: 10",
        expect![[r#"
        error a.yaml:4:18: `stop_signal` must be a string, and this is the number `9`; put it in quotes
        error a.yaml:5:24: `stop_grace_period`: `10` is not a duration: write for example 10s, 1m30s or 500ms
    "#]],
    );
}

#[test]
fn what_is_out_of_range_is_refused() {
    check_web(
        "oom_score_adj: 1001\ncgroup_parent: a/../b\nstorage_opt: {size: 1x, dm.basesize: 5}\nshm_size: -1",
        expect![[r#"
        error a.yaml:4:20: `oom_score_adj` must be a whole number from -1000 to 1000, and this is the number `1001`
        error a.yaml:5:20: `cgroup_parent` must not have `..` in it, and this is `/a/../b`; write where it leads
        error a.yaml:6:25: `size`: `1x` is not a size: write for example 64m, 1gb or 1048576
        error a.yaml:6:29: gantry does not do the storage option `dm.basesize`; `size` is what there is
        error a.yaml:7:15: `shm_size`: `-1` is not a size: write for example 64m, 1gb or 1048576
    "#]],
    );
    check_web(
        "cgroup_parent: /",
        expect![[r#"
        error a.yaml:4:20: `cgroup_parent` names no cgroup; write for example /batch
    "#]],
    );
}

#[test]
fn a_ulimit_is_one_number_or_two() {
    check_web(
        "ulimits:\n  nofile: {soft: 20000, hard: 40000}\n  nproc: 65535\n  memlock: -1\n  core: \"0\"\n  stack: {soft: 8388608, hard: -1}",
        expect![[r#"
        web
          image nginx:latest
          ulimit core 0:0
          ulimit memlock unlimited:unlimited
          ulimit nofile 20000:40000
          ulimit nproc 65535:65535
          ulimit stack 8388608:unlimited
    "#]],
    );
    check_web(
        "ulimits:\n  nofle: 1\n  nproc: {soft: 2, hard: 1}\n  core: {soft: 1}\n  cpu: -2\n  data: {soft: -1, hard: 5}\n  rss: {soft: 1, hard: 1, medium: 1}\n  frobs: 1",
        expect![[r#"
        error a.yaml:5:7: unknown key `nofle`; did you mean `nofile`?
        error a.yaml:6:14: the soft limit of `nproc` is above the hard one; no process could have it; raise `hard` or lower `soft`
        error a.yaml:7:13: `core` needs both `soft` and `hard`; write one number if they are the same
        error a.yaml:8:12: `cpu` must be a whole number from -1 to 9223372036854775807, and this is the number `-2`
        error a.yaml:9:13: the soft limit of `data` is above the hard one; no process could have it; raise `hard` or lower `soft`
        error a.yaml:10:31: unknown key `medium`; it is not in the Compose Specification; keys of your own begin with `x-`
        error a.yaml:11:7: unknown key `frobs`; there are as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack
    "#]],
    );
}

#[test]
fn a_sysctl_is_the_containers_own() {
    check_web(
        "sysctls:\n  net.core.somaxconn: 1024\n  net.ipv4.ip_local_port_range: \"1024 65000\"\n  kernel.sem: 250 32000 100 128\n  fs.mqueue.msg_max: 100",
        expect![[r#"
        web
          image nginx:latest
          sysctl fs.mqueue.msg_max = "100"
          sysctl kernel.sem = "250 32000 100 128"
          sysctl net.core.somaxconn = "1024"
          sysctl net.ipv4.ip_local_port_range = "1024 65000"
    "#]],
    );
    check_web(
        "sysctls: [net.core.somaxconn=1, net.core.somaxconn=2]",
        expect![[r#"
        web
          image nginx:latest
          sysctl net.core.somaxconn = "2"
        warning a.yaml:4:37: the same name stands above, and this value replaces that; keep one of them
    "#]],
    );
}

#[test]
fn a_sysctl_of_the_node_or_with_another_behind_it_is_refused() {
    check_web(
        "sysctls:\n  kernel.core_pattern: \"|/bin/x\"\n  vm.swappiness: 10\n  kernel.shm_rmid_forced: 1+kernel.core_pattern=|/x\n  net.core.somaxconn: \"1\\n2\"\n  net../../kernel/core_pattern: x\n  net.ipv4.tcp_syncookies: ~\n  kernel.hostname: x\n  net..x: 1",
        expect![[r#"
        error a.yaml:5:28: `kernel.core_pattern` is not a parameter that a container has of its own; it would be changed for the whole node; there are net.…, fs.mqueue.…, kernel.msg…, kernel.sem and kernel.shm…
        error a.yaml:6:22: `vm.swappiness` is not a parameter that a container has of its own; it would be changed for the whole node; there are net.…, fs.mqueue.…, kernel.msg…, kernel.sem and kernel.shm…
        error a.yaml:7:31: the value of `kernel.shm_rmid_forced` contains what no value of a parameter does; write it on one line, without `+` and `=`
        error a.yaml:8:27: the value of `net.core.somaxconn` contains what no value of a parameter does; write it on one line, without `+` and `=`
        error a.yaml:9:37: `net../../kernel/core_pattern` is not a parameter that a container has of its own; it would be changed for the whole node; there are net.…, fs.mqueue.…, kernel.msg…, kernel.sem and kernel.shm…
        error a.yaml:10:7: `net.ipv4.tcp_syncookies` has no value; write for example net.core.somaxconn: 1024
        error a.yaml:11:24: `kernel.hostname` is what another key of the service sets; write `hostname` or `domainname`
        error a.yaml:12:15: `net..x` is not a parameter that a container has of its own; it would be changed for the whole node; there are net.…, fs.mqueue.…, kernel.msg…, kernel.sem and kernel.shm…
    "#]],
    );
    check_web(
        "sysctls: [\"kernel.shmmax=1=net.x=2\"]",
        expect![[r#"
        error a.yaml:4:15: the value of `kernel.shmmax` contains what no value of a parameter does; write it on one line, without `+` and `=`
    "#]],
    );
}

#[test]
fn a_device_has_a_source_and_perhaps_more() {
    check_web(
        "devices:\n- /dev/fuse\n- /dev/sda:/dev/xvda:r\n- /dev/kvm:rw\n- {source: /dev/snd, target: /dev/sound, permissions: rwm}\n- source: /dev/null\ndevice_cgroup_rules: [\"c 1:3 mr\", \"a 7:* rmw\"]",
        expect![[r#"
        web
          image nginx:latest
          device /dev/fuse at /dev/fuse rwm
          device /dev/sda at /dev/xvda r
          device /dev/kvm at /dev/kvm rw
          device /dev/snd at /dev/sound rwm
          device /dev/null at /dev/null rwm
          device rule c 1:3 rm
          device rule a 7:* rwm
    "#]],
    );
    check_web(
        "devices:\n- fuse\n- /dev/a:/dev/b:rx\n- a:b:c:d\n- vendor.com/gpu=all\n- {target: /dev/x}\n- 5\n- /dev/../x\n- /dev/c:/dev/d\n- /dev/e:/dev/d\n- {source: /dev/f, sauce: x}\ndevice_cgroup_rules: [c 1 r]",
        expect![[r#"
        error a.yaml:5:7: a node's device must be an absolute path, and this is `fuse`; begin it with `/`
        error a.yaml:6:7: `rx` is not what may be done with a device: write r, w and m, for example rw
        error a.yaml:7:7: `a:b:c:d` is not a device; write for example `/dev/fuse` or `/dev/sda:/dev/xvda:r`
        error a.yaml:8:7: gantry does not do CDI devices such as `vendor.com/gpu=all` yet; name device files, such as `/dev/fuse`
        error a.yaml:9:7: this device has no `source`; name the node's device
        error a.yaml:10:7: a device must be a string or a mapping, and this is the number `5`; write for example `/dev/fuse`
        error a.yaml:11:7: a node's device must not have `..` in it, and this is `/dev/../x`; write where it leads
        error a.yaml:14:24: unknown key `sauce`; did you mean `source`?
        error a.yaml:15:27: `c 1 r` is not a device rule: write for example `c 10:200 rwm` or `a *:* rwm`
        warning a.yaml:13:7: there is a device `/dev/d` on line 12, and this replaces it; keep one of them
    "#]],
    );
}
