use expect_test::expect;
use model::{
    Bind, Bytes, Capabilities, ContainerSpec, Dns, HostEntry, Logging, Namespaces, Privileges, Propagation,
    Stop, Tmpfs, Tuning, UlimitRange,
};
use prost::Message as _;

use super::*;
use crate::history;
use crate::nouns::tests::reads_back;

#[test]
fn a_container_that_says_something_in_every_field_reads_back_as_written() {
    reads_back::<proto::ContainerSpec, _>(&history::container());
}

#[test]
fn a_container_that_says_nothing_is_no_bytes() {
    assert_eq!(proto::ContainerSpec::from(&ContainerSpec::default()).encoded_len(), 0);
    assert_eq!(
        ContainerSpec::try_from(proto::ContainerSpec::default()),
        Ok(ContainerSpec::default()),
        "what is absent is the default"
    );
    let init = ContainerSpec { init: true, ..ContainerSpec::default() };
    assert_eq!(proto::ContainerSpec::from(&init).encoded_len(), 2, "only what is said is written");
}

#[test]
fn every_choice_reads_back_as_written() {
    let stop = |signal, grace| Stop { signal, grace: Duration::from_millis(grace) };
    for stop in (0..=64).map(|number| stop(Signal::from_number(number), number.into())) {
        reads_back::<proto::Stop, _>(&stop);
    }
    for address in
        [HostAddress::Ip([255u8; 4].into()), HostAddress::Ip([9u8; 16].into()), HostAddress::Gateway]
    {
        reads_back::<proto::HostEntry, _>(&HostEntry { name: "db".to_owned(), address });
    }
    for propagation in [Propagation::Private, Propagation::Slave, Propagation::Shared] {
        let bind = Bind { source: "/srv/../data".to_owned(), create: false, propagation, recursive: true };
        reads_back::<proto::Bind, _>(&bind);
    }
    reads_back::<proto::Tmpfs, _>(&Tmpfs::default());
    for seccomp in [Seccomp::Default, Seccomp::Unconfined, Seccomp::Profile(String::new())] {
        reads_back::<proto::Privileges, _>(&Privileges { seccomp, ..Privileges::default() });
    }
    let named = Capability::all().collect();
    reads_back::<proto::Capabilities, _>(&Capabilities { all: false, named });
    for swap in [None, Some(SwapLimit::Unlimited), Some(SwapLimit::Total(Bytes(0)))] {
        reads_back::<proto::Tuning, _>(&Tuning { swap, ..Tuning::default() });
    }
    for driver in [LogDriver::Local, LogDriver::None, LogDriver::Journald { tag: String::new() }] {
        reads_back::<proto::Logging, _>(&Logging { driver, max_size: Bytes(1), max_files: 1 });
    }
    for ulimit in Ulimit::ALL {
        let ulimits = [(ulimit, UlimitRange { soft: Some(0), hard: None })].into();
        reads_back::<proto::ContainerSpec, _>(&ContainerSpec { ulimits, ..ContainerSpec::default() });
    }
    reads_back::<proto::Dns, _>(&Dns { servers: vec![[0u8; 16].into()], ..Dns::default() });
}

#[test]
fn namespaces_are_not_mixed_up() {
    let own = Namespaces::default();
    for namespaces in [
        own,
        Namespaces { ipc: Scope::Host, ..own },
        Namespaces { pid: Scope::Host, ..own },
        Namespaces { uts: Scope::Host, ..own },
        Namespaces { cgroup: Scope::Host, ..own },
        Namespaces { user: UserScope::Own, ..own },
    ] {
        assert_eq!(Namespaces::from(proto::Namespaces::from(&namespaces)), namespaces);
    }
}

/// What is said of a good container in which something was spoilt.
fn complaint(spoil: fn(&mut proto::ContainerSpec)) -> String {
    let mut message = proto::ContainerSpec::from(&history::container());
    spoil(&mut message);
    let invalid = ContainerSpec::try_from(message).unwrap_err();
    format!("{invalid}: {}\n", invalid.cause)
}

fn complaints(spoils: &[fn(&mut proto::ContainerSpec)]) -> String {
    spoils.iter().map(|spoil| complaint(*spoil)).collect()
}

#[test]
fn a_container_that_cannot_be_meant_is_refused() {
    let text = complaints(&[
        |spec| spec.hosts[0].address = None,
        |spec| spec.hosts[0].address = Some(host_entry::Address::Ip("db".to_owned())),
        |spec| spec.dns = Some(proto::Dns { servers: vec!["10.0.0.1:53".to_owned()], ..Default::default() }),
        |spec| spec.shm_size = Some(1 << 63),
        |spec| spec.storage_size = Some(u64::MAX),
        |spec| {
            spec.ulimits.insert("files".to_owned(), proto::UlimitRange::default());
        },
        |spec| {
            let range = proto::UlimitRange { soft: None, hard: Some(1) };
            spec.ulimits.insert("nofile".to_owned(), range);
        },
        |spec| spec.device_rules.push("c 10 rwm".to_owned()),
        |spec| spec.devices[0].access = "x".to_owned(),
        |spec| spec.devices[0].source = "dev/fuse".to_owned(),
        |spec| spec.devices[0].target = "/dev/../etc".to_owned(),
        |spec| spec.cgroup_parent = Some("batch".to_owned()),
        |spec| spec.cgroup_parent = Some("/batch/..".to_owned()),
        |spec| spec.oom_score_adj = Some(-1001),
        |spec| spec.oom_score_adj = Some(1 << 16),
        |spec| spec.stop = Some(proto::Stop { signal: Some(0), grace: 1 }),
        |spec| spec.stop = Some(proto::Stop { signal: Some(65), grace: 1 }),
        |spec| spec.stop = Some(proto::Stop { signal: Some(256 + 15), grace: 1 }),
    ]);
    expect![[r#"
        invalid HostEntry: address: this version of gantry does not know what kind it is, or it has none
        invalid HostEntry: ip: `db` is not an address
        invalid Dns: servers: `10.0.0.1:53` is not an address
        invalid ContainerSpec: shm_size: 9223372036854775808 is out of range
        invalid ContainerSpec: storage_size: 18446744073709551615 is out of range
        invalid ContainerSpec: ulimits: `files` is not a limit that the kernel has
        invalid UlimitRange: soft: it is above `hard`
        invalid ContainerSpec: device_rules: `c 10 rwm` is not a device rule: write for example `c 10:200 rwm` or `a *:* rwm`
        invalid Device: access: `x` is not what may be done with a device: write r, w and m, for example rw
        invalid Device: source: `dev/fuse` is not an absolute path
        invalid Device: target: a path here has no `..`
        invalid ContainerSpec: cgroup_parent: `batch` is not an absolute path
        invalid ContainerSpec: cgroup_parent: a path here has no `..`
        invalid ContainerSpec: oom_score_adj: -1001 is out of range
        invalid ContainerSpec: oom_score_adj: 65536 is out of range
        invalid Stop: signal: 0 is out of range
        invalid Stop: signal: 65 is out of range
        invalid Stop: signal: 271 is out of range
    "#]]
    .assert_eq(&text);
}

fn bind(spec: &mut proto::ContainerSpec) -> &mut proto::Bind {
    match &mut spec.mounts[0].kind {
        Some(mount::Kind::Bind(bind)) => bind,
        other => panic!("{other:?} is no bind mount"),
    }
}

fn with_tmpfs(spec: &mut proto::ContainerSpec, tmpfs: proto::Tmpfs) {
    spec.mounts[0].kind = Some(mount::Kind::Tmpfs(tmpfs));
}

#[test]
fn a_mount_that_cannot_be_meant_is_refused() {
    let text = complaints(&[
        |spec| spec.mounts[0].kind = None,
        |spec| spec.mounts[0].target = "data".to_owned(),
        |spec| spec.mounts[0].target = "/srv/../../data".to_owned(),
        |spec| spec.mounts[0].target = "/srv\0".to_owned(),
        |spec| bind(spec).source = "data".to_owned(),
        |spec| bind(spec).propagation = 0,
        |spec| bind(spec).propagation = 4,
        |spec| with_tmpfs(spec, proto::Tmpfs { size: Some(u64::MAX), ..Default::default() }),
        |spec| with_tmpfs(spec, proto::Tmpfs { mode: Some(0o10000), ..Default::default() }),
        |spec| with_tmpfs(spec, proto::Tmpfs { uid: Some(u32::MAX), ..Default::default() }),
        |spec| with_tmpfs(spec, proto::Tmpfs { gid: Some(u32::MAX), ..Default::default() }),
    ]);
    expect![[r#"
        invalid Mount: kind: this version of gantry does not know what kind it is, or it has none
        invalid Mount: target: `data` is not an absolute path
        invalid Mount: target: a path here has no `..`
        invalid Mount: target: `/srv\0` is not an absolute path
        invalid Bind: source: `data` is not an absolute path
        invalid Bind: propagation: it is missing
        invalid Bind: propagation: this version of gantry does not know the value 4
        invalid Tmpfs: size: 18446744073709551615 is out of range
        invalid Tmpfs: mode: 4096 is out of range
        invalid Tmpfs: uid: 4294967295 is out of range
        invalid Tmpfs: gid: 4294967295 is out of range
    "#]]
    .assert_eq(&text);
}

fn tuning(spec: &mut proto::ContainerSpec) -> &mut proto::Tuning {
    spec.tuning.as_mut().unwrap()
}

fn blkio(spec: &mut proto::ContainerSpec) -> &mut proto::Blkio {
    tuning(spec).blkio.as_mut().unwrap()
}

fn logging(spec: &mut proto::ContainerSpec) -> &mut proto::Logging {
    spec.logging.as_mut().unwrap()
}

#[test]
fn what_the_kernel_or_the_log_would_not_take_is_refused() {
    let text = complaints(&[
        |spec| {
            let add = proto::Capabilities { all: false, named: vec!["CAP_FLY".to_owned()] };
            spec.privileges.as_mut().unwrap().add = Some(add);
        },
        |spec| tuning(spec).memory_reservation = Some(u64::MAX),
        |spec| tuning(spec).swap = Some(tuning::Swap::MemoryAndSwap(u64::MAX)),
        |spec| blkio(spec).weight = Some(9),
        |spec| blkio(spec).weight_device[0].value = 1001,
        |spec| blkio(spec).weight_device[0].value = (1 << 16) + 500,
        |spec| blkio(spec).read_bytes[0].path = "sda".to_owned(),
        |spec| logging(spec).driver = None,
        |spec| logging(spec).max_size = 0,
        |spec| logging(spec).max_size = u64::MAX,
        |spec| logging(spec).max_files = 0,
    ]);
    expect![[r#"
        invalid Capabilities: named: `CAP_FLY` is not a capability: write for example NET_ADMIN
        invalid Tuning: memory_reservation: 18446744073709551615 is out of range
        invalid Tuning: memory_and_swap: 18446744073709551615 is out of range
        invalid Blkio: weight: 9 is out of range
        invalid Blkio: weight_device: 1001 is out of range
        invalid Blkio: weight_device: 66036 is out of range
        invalid Blkio: read_bytes: `sda` is not an absolute path
        invalid Logging: driver: this version of gantry does not know what kind it is, or it has none
        invalid Logging: max_size: it is missing
        invalid Logging: max_size: 18446744073709551615 is out of range
        invalid Logging: max_files: it is missing
    "#]]
    .assert_eq(&text);
}
