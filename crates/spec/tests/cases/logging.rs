use expect_test::expect;

use super::check_web;

#[test]
fn a_log_has_a_driver_and_options() {
    check_web(
        "logging: {driver: json-file, options: {max-size: 10m, max-file: \"5\"}}",
        expect![[r#"
        web
          image nginx:latest
          logging local, 5 files of 10 MiB
    "#]],
    );
    check_web(
        "logging: {options: {max-size: 1m}}",
        expect![[r#"
        web
          image nginx:latest
          logging local, 3 files of 1 MiB
    "#]],
    );
    check_web(
        "logging: {driver: local}",
        expect![[r#"
        web
          image nginx:latest
    "#]],
    );
    check_web(
        "logging: {driver: none}",
        expect![[r#"
        web
          image nginx:latest
          logging none, 3 files of 16 MiB
    "#]],
    );
    check_web(
        "logging: {driver: syslog, options: {syslog-address: \"udp://log.example\", syslog-facility: 16, tag: web}}",
        expect![[r#"
        web
          image nginx:latest
          logging syslog udp://log.example:514 local0 "web", 3 files of 16 MiB
    "#]],
    );
    check_web(
        "logging: {driver: syslog}",
        expect![[r#"
        web
          image nginx:latest
          logging syslog unix:///dev/log daemon "", 3 files of 16 MiB
    "#]],
    );
    check_web(
        "logging: {driver: journald, options: {tag: web, max-file: 2}}",
        expect![[r#"
        web
          image nginx:latest
          logging journald "web", 2 files of 16 MiB
    "#]],
    );
}

#[test]
fn an_option_that_is_not_done_is_named() {
    check_web(
        "logging: {driver: local, options: {compress: \"true\", labels: a, max-file: 2}}",
        expect![[r#"
        web
          image nginx:latest
          logging local, 2 files of 16 MiB
        warning a.yaml:4:40: gantry does not do the option `compress` of this log driver; take it out; the log goes on without it
        warning a.yaml:4:58: gantry does not do the option `labels` of this log driver; take it out; the log goes on without it
    "#]],
    );
    check_web(
        "logging: {driver: none, options: {max-size: 1m}}",
        expect![[r#"
        web
          image nginx:latest
          logging none, 3 files of 16 MiB
        warning a.yaml:4:39: gantry does not do the option `max-size` of this log driver; take it out; the log goes on without it
    "#]],
    );
}

#[test]
fn a_driver_that_there_is_not_is_refused() {
    check_web(
        "logging:\n  driver: fluentd\n  options: {fluentd-address: x}\n  opts: {}",
        expect![[r#"
        error a.yaml:5:15: gantry does not do the log driver `fluentd`; write local, json-file, syslog, journald or none, which a collector can read from
        error a.yaml:7:7: unknown key `opts`; it is not in the Compose Specification; keys of your own begin with `x-`
    "#]],
    );
    check_web(
        "logging: {driver: syslog, options: {syslog-address: \"tcp+tls://a:1\", syslog-facility: kernel, tag: \"{{.Name}}\", max-size: 0, max-file: 0}}",
        expect![[r#"
        error a.yaml:4:57: gantry does not do syslog over TLS yet; write udp://HOST:514, tcp://HOST:601 or unix:///dev/log
        error a.yaml:4:91: `kernel` is not a facility of syslog; write for example daemon, user or local0
        error a.yaml:4:104: templates are not done yet; Docker Swarm would fill in `{{…}}`; write what it stands for
        error a.yaml:4:127: `max-size` cannot be 0; write for example 10m
        error a.yaml:4:140: `max-file` must be a whole number from 1 to 10000, and this is the number `0`
    "#]],
    );
    check_web(
        "logging: {driver: syslog, options: {syslog-address: log.example, tag: \"a\\nb\"}}",
        expect![[r#"
        error a.yaml:4:57: `log.example` is not the address of a syslog; write udp://HOST:514, tcp://HOST:601 or unix:///dev/log
        error a.yaml:4:75: `tag` contains a control character, such as a new line; keep it on one line; YAML's `>-` leaves no new line at its end
    "#]],
    );
}
