use expect_test::expect;

use super::check_web;

#[test]
fn a_health_check_is_a_command_with_timings() {
    check_web(
        "healthcheck:\n  test: curl -f http://localhost/\n  interval: 10s\n  timeout: 1s\n  retries: 5\n  start_period: 15s\n  start_interval: 2s",
        expect![[r#"
        web
          image nginx:latest
          health Exec(["/bin/sh", "-c", "curl -f http://localhost/"]), every 10s, within 1s, start 15s, every at start 2s, 5 retries
    "#]],
    );
    check_web(
        "healthcheck: {test: [CMD, curl, -f, \"http://localhost\"]}",
        expect![[r#"
        web
          image nginx:latest
          health Exec(["curl", "-f", "http://localhost"])
    "#]],
    );
    check_web(
        "healthcheck: {test: [CMD-SHELL, \"a || b\"], retries: \"3\"}",
        expect![[r#"
        web
          image nginx:latest
          health Exec(["/bin/sh", "-c", "a || b"]), 3 retries
    "#]],
    );
    check_web(
        "healthcheck: {test: [NONE]}",
        expect![[r#"
        web
          image nginx:latest
          health unchecked
    "#]],
    );
    check_web(
        "healthcheck: {disable: true}",
        expect![[r#"
        web
          image nginx:latest
          health unchecked
    "#]],
    );
    check_web(
        "healthcheck: {interval: 5s}",
        expect![[r#"
        web
          image nginx:latest
          health of the image, every 5s
    "#]],
    );
    check_web(
        "healthcheck: {test: [], interval: 0s, retries: 0, disable: false}",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
    check_web(
        "healthcheck: {test: ''}",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
}

#[test]
fn a_health_check_that_means_something_else_is_told() {
    check_web(
        "healthcheck: {test: [CMD-SHELL, curl, -f]}",
        expect![[r#"
        web
          image nginx:latest
          health Exec(["/bin/sh", "-c", "curl", "-f"])
        warning a.yaml:4:25: of several strings after CMD-SHELL the shell runs the first alone; write the command in one string, or begin the list with CMD
    "#]],
    );
    check_web(
        "healthcheck: {disable: true, test: [CMD, x], interval: 1s}",
        expect![[r#"
        web
          image nginx:latest
          health unchecked
        warning a.yaml:4:34: `disable` on line 4 holds, so `test` means nothing; keep one of them
    "#]],
    );
}

#[test]
fn a_health_check_is_checked() {
    check_web(
        "healthcheck:\n  test: [curl, -f]\n  interval: 5\n  timeout: 10us\n  retries: -1\n  start: 5s",
        expect![[r#"
        error a.yaml:5:13: a `test` cannot begin with `curl`; begin the list with CMD, CMD-SHELL or NONE
        error a.yaml:6:17: `interval`: `5` is not a duration: write for example 10s, 1m30s or 500ms
        error a.yaml:7:16: `timeout` is below a millisecond; write `1ms` or more
        error a.yaml:8:16: `retries` must be a whole number from 0 to 4294967295, and this is the number `-1`
        error a.yaml:9:7: unknown key `start`; it is not in the Compose Specification; keys of your own begin with `x-`
    "#]],
    );
    check_web(
        "healthcheck: {test: [CMD]}",
        expect![[r#"
        error a.yaml:4:25: the `test` has no command; write it behind the first item
    "#]],
    );
    check_web(
        "healthcheck: {test: [CMD, 5]}",
        expect![[r#"
        error a.yaml:4:31: each item of `test` must be a string, and this is the number `5`; put it in quotes
    "#]],
    );
}

#[test]
fn gantry_asks_by_itself() {
    check_web(
        "x-gantry:\n  health:\n    http: {port: 8080, path: \"/healthz?full=1\", scheme: https, host: web.example, headers: {X-Probe: 1, Accept: text/plain}}\n    interval: 5s\n    retries: 2\n  readiness:\n    tcp: {port: 8080}\n    successes: 2",
        expect![[r#"
        web
          image nginx:latest
          health Http(HttpProbe { port: 8080, path: "/healthz?full=1", tls: true, host: Some("web.example"), headers: [("X-Probe", "1"), ("Accept", "text/plain")] }), every 5s, 2 retries
          ready Tcp { port: 8080 }, every 2s, within 1s, 2 up, 3 down
    "#]],
    );
    check_web(
        "x-gantry:\n  health: {grpc: {port: 50051}}\n  readiness: {exec: [pg_isready, -q], interval: 500ms, timeout: 200ms, failures: 5}",
        expect![[r#"
        web
          image nginx:latest
          health Grpc { port: 50051, service: "" }
          ready Exec(["pg_isready", "-q"]), every 500ms, within 200ms, 1 up, 5 down
    "#]],
    );
    check_web(
        "x-gantry:\n  health: {http: {port: 80}}\n  readiness: {exec: test -f /ready}",
        expect![[r#"
        web
          image nginx:latest
          health Http(HttpProbe { port: 80, path: "/", tls: false, host: None, headers: [] })
          ready Exec(["/bin/sh", "-c", "test -f /ready"]), every 2s, within 1s, 1 up, 3 down
    "#]],
    );
    check_web(
        "x-gantry: {health: {grpc: {port: \"50051\", service: shop.Cart}}}",
        expect![[r#"
        web
          image nginx:latest
          health Grpc { port: 50051, service: "shop.Cart" }
    "#]],
    );
}

#[test]
fn a_probe_is_one_of_four() {
    check_web(
        "x-gantry:\n  health: {interval: 5s}\n  readiness: {tcp: {port: 1}, exec: [a], retries: 3, interva: 1s, successes: 0}",
        expect![[r#"
        error a.yaml:5:15: `health` does not say how to ask; give it one of http, tcp, grpc and exec
        error a.yaml:6:35: `readiness` has a probe on line 6 already; keep one of them
        error a.yaml:6:46: unknown key `retries`; there are exec, grpc, http, tcp, interval, timeout, successes, failures
        error a.yaml:6:58: unknown key `interva`; did you mean `interval`?
        error a.yaml:6:82: `successes` must be a whole number from 1 to 4294967295, and this is the number `0`
    "#]],
    );
    check_web(
        "x-gantry:\n  health: {http: {port: 0, path: healthz, scheme: ftp, host: a b, headers: {a b: c, Host: x, X: \"1\\n2\"}, prot: 1}}\n  readiness: {tcp: {}}",
        expect![[r#"
        error a.yaml:5:29: `port` must be a whole number from 1 to 65535, and this is the number `0`
        error a.yaml:5:38: `path` cannot be `healthz`; begin it with `/`; write what is not ASCII as %XX
        error a.yaml:5:55: `scheme` cannot be `ftp`; write http or https
        error a.yaml:5:66: `host` cannot be `a b`; write a host name
        error a.yaml:5:86: `a b` is not the name of a header; write letters, digits and `-`, at most 64
        error a.yaml:5:95: `Host` is not among the headers; write `host` beside `headers`
        error a.yaml:5:101: the header `X` cannot be `1\n2`; write visible ASCII in one line, at most 4096 bytes
        error a.yaml:5:110: unknown key `prot`; did you mean `port`?
        error a.yaml:6:24: the probe has no `port`; name the container's port
    "#]],
    );
    check_web(
        "x-gantry: {readiness: {exec: []}}",
        expect![[r#"
        error a.yaml:4:34: `exec` has no command; write for example `[pg_isready, -q]`
    "#]],
    );
}

#[test]
fn health_is_checked_in_one_way() {
    check_web(
        "healthcheck: {disable: true}\nx-gantry: {health: {tcp: {port: 80}}}",
        expect![[r#"
        error a.yaml:5:16: `healthcheck` on line 4 says already how this is checked; keep one of them
    "#]],
    );
}
