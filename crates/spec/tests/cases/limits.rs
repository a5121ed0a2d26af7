use expect_test::expect;

use super::check_web;

#[test]
fn the_older_keys_limit_as_well() {
    check_web(
        "cpus: 1.5\ncpuset: 0-2,4\ncpu_shares: 512\nmem_limit: 1g\nmem_reservation: 512m\nmemswap_limit: 2g\npids_limit: 100\nblkio_config:\n  weight: 300\n  weight_device: [{path: /dev/sda, weight: 400}]\n  device_read_bps: [{path: /dev/sda, rate: 1024k}]\n  device_write_bps: [{path: /dev/sda, rate: 1024}]\n  device_read_iops: [{path: /dev/sda, rate: 100}]\n  device_write_iops: [{path: /dev/sda, rate: \"200\"}]",
        expect![[r#"
        web
          image nginx:latest
          reserved 0 cpus, 512 MiB
          limited to 1.5 cpus, 1 GiB, 100 pids
          cpu shares 512
          cpuset "0-2,4"
          memory reservation 536870912
          memory and swap 2 GiB
          blkio weight 300
          blkio weight /dev/sda 400
          blkio read bytes /dev/sda 1048576
          blkio write bytes /dev/sda 1024
          blkio read operations /dev/sda 100
          blkio write operations /dev/sda 200
    "#]],
    );
    check_web(
        "cpus: 0\nmem_limit: 0\nmem_reservation: 0\nmemswap_limit: -1\npids_limit: -1\ncpu_quota: -1\ncpu_period: 0\ncpu_shares: 0",
        expect![[r#"
        web
          image nginx:latest
          swap unlimited
    "#]],
    );
}

#[test]
fn a_quota_is_a_limit_of_cpus() {
    check_web(
        "cpu_quota: 50000",
        expect![[r#"
        web
          image nginx:latest
          limited to 0.5 cpus
    "#]],
    );
    check_web(
        "cpu_quota: \"50000\"\ncpu_period: 25000\ncpu_shares: 1",
        expect![[r#"
        web
          image nginx:latest
          limited to 2 cpus
          cpu shares 2
    "#]],
    );
    check_web(
        "cpu_period: 50000",
        expect![[r#"
        web
          image nginx:latest
        warning a.yaml:4:17: `cpu_period` limits nothing without `cpu_quota`; write `cpus` alone
    "#]],
    );
    check_web(
        "cpus: 1\ncpu_quota: 50000\ncpu_period: 500",
        expect![[r#"
        error a.yaml:5:16: `cpus` on line 4 says already what `cpu_quota` says; keep `cpus`
        error a.yaml:6:17: `cpu_period` is below a millisecond; write 1000 or more
    "#]],
    );
}

#[test]
fn a_limit_that_cannot_hold_is_refused() {
    check_web(
        "cpu_quota: 500\ncpuset: 2-1\nmem_limit: 1m\npids_limit: -2\ncpu_shares: 300000\nblkio_config: {weight: 5, device_read_bps: [{path: sda, rate: 1}, {path: /dev/sda}, {path: /dev/sda, rate: 0}], wieght: 1}",
        expect![[r#"
        error a.yaml:4:16: the limit is below 0.01, which nothing can run in; write `0.01` or more, or take it out for no limit
        error a.yaml:5:13: `2-1` is not a set of CPUs; write for example 0-2,4
        error a.yaml:6:16: the limit is below 6m, which nothing can run in; write `6m` or more, or take it out for no limit
        error a.yaml:7:17: `pids_limit` must be a whole number from -1 to 4294967295, and this is the number `-2`
        error a.yaml:8:17: `cpu_shares` must be a whole number from 0 to 262144, and this is the number `300000`
        error a.yaml:9:28: `weight` must be a whole number from 10 to 1000, and this is the number `5`
        error a.yaml:9:56: `path` must be an absolute path, and this is `sda`; begin it with `/`
        error a.yaml:9:71: each item of `device_read_bps` needs a `path` and a `rate`; write `{path: /dev/sda, rate: …}`
        error a.yaml:9:112: a `rate` of 0 would be no limit; write what the limit is
        error a.yaml:9:117: unknown key `wieght`; did you mean `weight`?
    "#]],
    );
}

#[test]
fn swap_is_limited_above_memory() {
    check_web(
        "memswap_limit: 1g",
        expect![[r#"
        error a.yaml:4:20: `memswap_limit` needs a `mem_limit`; it is how much memory and swap there are together
    "#]],
    );
    check_web(
        "mem_limit: 1g\nmemswap_limit: 512m",
        expect![[r#"
        error a.yaml:5:20: `memswap_limit` is below the limit of memory on line 4; it is how much memory and swap there are together
    "#]],
    );
    check_web(
        "memswap_limit: 64m\ndeploy: {resources: {limits: {memory: 64m}}}",
        expect![[r#"
        web
          image nginx:latest
          limited to 64 MiB
          memory and swap 64 MiB
    "#]],
    );
}

#[test]
fn twins_agree() {
    check_web(
        "cpus: 0.5\nmem_limit: 64m\nmem_reservation: 32m\npids_limit: 10\nscale: 3\ndeploy:\n  replicas: 3\n  resources:\n    limits: {cpus: \"0.50\", memory: 65536k, pids: 10}\n    reservations: {memory: 32m}",
        expect![[r#"
        web
          image nginx:latest
          replicas 3
          reserved 0 cpus, 32 MiB
          limited to 0.5 cpus, 64 MiB, 10 pids
          memory reservation 33554432
    "#]],
    );
    check_web(
        "cpus: 1\nmem_limit: 64m\nmem_reservation: 16m\npids_limit: -1\nscale: 3\ndeploy:\n  replicas: 2\n  resources:\n    limits: {cpus: 0.5, memory: 128m, pids: 10}\n    reservations: {memory: 32m}",
        expect![[r#"
        error a.yaml:4:11: `cpus` is not what `deploy.resources.limits.cpus` on line 12 is; they mean the same; keep one of them
        error a.yaml:5:16: `mem_limit` is not what `deploy.resources.limits.memory` on line 12 is; they mean the same; keep one of them
        error a.yaml:6:22: `mem_reservation` is not what `deploy.resources.reservations.memory` on line 13 is; they mean the same; keep one of them
        error a.yaml:7:17: `pids_limit` is not what `deploy.resources.limits.pids` on line 12 is; they mean the same; keep one of them
        error a.yaml:8:12: `scale` is not what `deploy.replicas` on line 10 is; they mean the same; keep one of them
    "#]],
    );
    check_web(
        "mem_limit: 64m\nmem_reservation: 128m",
        expect![[r#"
        error a.yaml:5:22: this reserves more memory than the limit on line 4 allows; reserve at most what the limit is
    "#]],
    );
    check_web(
        "scale: 5",
        expect![[r#"
        web
          image nginx:latest
          replicas 5
    "#]],
    );
    check_web(
        "scale: -1",
        expect![[r#"
        error a.yaml:4:12: `scale` must be a whole number from 0 to 100000, and this is the number `-1`
    "#]],
    );
}

#[test]
fn a_pull_policy_says_when() {
    check_web(
        "pull_policy: always",
        expect![[r#"
        web
          image nginx:latest
          pull Always
    "#]],
    );
    check_web(
        "pull_policy: never",
        expect![[r#"
        web
          image nginx:latest
          pull Never
    "#]],
    );
    check_web(
        "pull_policy: missing",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
    check_web(
        "pull_policy: if_not_present",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
    check_web(
        "pull_policy: daily",
        expect![[r#"
        web
          image nginx:latest
          pull After(86400s)
    "#]],
    );
    check_web(
        "pull_policy: weekly",
        expect![[r#"
        web
          image nginx:latest
          pull After(604800s)
    "#]],
    );
    check_web(
        "pull_policy: every_1d12h",
        expect![[r#"
        web
          image nginx:latest
          pull After(129600s)
    "#]],
    );
}

#[test]
fn what_says_no_such_thing_is_no_pull_policy() {
    check_web(
        "pull_policy: build",
        expect![[r#"
        error a.yaml:4:18: gantry does not do `pull_policy: build` yet; build the image beforehand and name it with `image`
    "#]],
    );
    check_web(
        "pull_policy: refresh",
        expect![[r#"
        error a.yaml:4:18: `pull_policy: refresh` does not say how often; write for example every_12h
    "#]],
    );
    check_web(
        "pull_policy: every_day",
        expect![[r#"
        error a.yaml:4:18: `pull_policy` cannot be `every_day`; write always, missing, never, daily, weekly or for example every_12h
    "#]],
    );
    check_web(
        "pull_policy: sometimes",
        expect![[r#"
        error a.yaml:4:18: `pull_policy` cannot be `sometimes`; write always, missing, never, daily, weekly or for example every_12h
    "#]],
    );
}
