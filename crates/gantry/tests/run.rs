//! Containers that are run once and containers that become images, end to end: the real program and real managers. Needs root,
//! and the packages nftables, busybox-static and bsdutils.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "host/cluster.rs"]
mod cluster;

use cluster::{Call, Cluster, PROGRAM, until};
use serde_json::Value;

/// Sleeps until it is told to stop.
const SLEEP: &str = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";

/// Deploys a stack with one service, `box`, which sleeps.
fn deploy(cluster: &Cluster, stack: &str, image: &str) {
    let file = format!(
        "services:\n  box:\n    image: {image}\n    command: [/bin/busybox, sh, -c, \"{SLEEP}\"]\n    \
         environment: {{GREETING: hello}}\n    ports: [\"8080\"]\n"
    );
    cluster.user(&["deploy", "-f", "-", stack]).input(file).end().done();
}

/// `gantry ARGS t/box -- sh -c SCRIPT`.
fn sh(cluster: &Cluster, args: &[&str], script: &str) -> Call {
    cluster.user(&[args, &["t/box", "--", "/bin/busybox", "sh", "-c", script]].concat())
}

fn stacks(cluster: &Cluster) -> Vec<String> {
    let stacks: Value = serde_json::from_str(&cluster.stacks()).unwrap();
    let names = stacks.as_array().unwrap().iter().map(|stack| stack["stack"].as_str().unwrap().to_owned());
    names.collect()
}

/// Nothing but the stack that was deployed is there, or will be in a moment.
#[track_caller]
fn nothing_is_left(cluster: &Cluster) {
    until("what was run to be gone", || stacks(cluster) == ["t"]);
    let tasks: Value =
        serde_json::from_str(&cluster.user(&["ps", "--all", "-o", "json"]).end().done()).unwrap();
    assert_eq!(tasks.as_array().map(Vec::len), Some(1), "{tasks}");
}

#[test]
fn a_command_is_run_once_in_a_container_of_its_own() {
    let cluster = Cluster::up("run");
    cluster.import_sleeper();
    deploy(&cluster, "t", "sleeper");

    let ended = sh(&cluster, &["run"], "echo $GREETING; echo err >&2; exit 7").input("a script's own").end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(7), "hello\n"), "{ended}");
    assert!(ended.stderr.contains("err\n"), "{ended}");
    nothing_is_left(&cluster);

    let args = ["run", "-e", "GREETING=bye", "-u", "33", "-w", "/bin"];
    let told = sh(&cluster, &args, "echo $GREETING; /bin/busybox id -u; pwd").end().done();
    assert_eq!(told, "bye\n33\n/bin\n");
    let entry = ["run", "--entrypoint", "/bin/busybox echo", "t/box", "by", "itself"];
    assert_eq!(cluster.user(&entry).end().done(), "by itself\n");

    // All that is put in comes out, and not before somebody is there for it.
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let cat = ["run", "-i", "t/box", "/bin/busybox", "cat"];
    let back = cluster.user(&cat).input(text.as_str()).end().done();
    assert!(back == text, "{} bytes came back of {}", back.len(), text.len());

    cluster.user(&["run", "t/none", "true"]).end().refused(4, &["`t/none`", "`gantry services`"]);
    cluster.user(&["run", "--name", "t", "t/box", "true"]).end().refused(5, &["`t`"]);
    cluster.user(&["run", "t/box", "/nothing"]).end().refused(1, &["t-run-"]);
    nothing_is_left(&cluster);
}

#[test]
fn who_runs_it_ends_it_and_may_leave_it() {
    let cluster = Cluster::up("run-end");
    cluster.import_sleeper();
    deploy(&cluster, "t", "sleeper");

    let script = "trap 'echo bye; exit 9' TERM; echo up; /bin/busybox sleep 1000000000 & wait";
    let running = sh(&cluster, &["run"], script).start();
    until("it to run", || running.stdout() == "up\n");
    let ended = running.interrupt();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(9), "up\nbye\n"), "{ended}");
    nothing_is_left(&cluster);

    let stack = sh(&cluster, &["run", "-d", "--name", "left"], "echo told; exit 3").end().done();
    assert_eq!(stack, "left\n");
    until("it to say something", || {
        cluster.user(&["logs", "left", "--no-prefix"]).end().stdout.contains("told\n")
    });
    cluster.user(&["rm", "left"]).end().done();

    let kept = sh(&cluster, &["run", "--keep", "--name", "kept"], "echo told; exit 3").end();
    assert_eq!((kept.code, kept.stdout.as_str()), (Some(3), "told\n"), "{kept}");
    assert!(kept.stderr.contains("`gantry rm kept` removes it"), "{kept}");
    assert!(stacks(&cluster).contains(&"kept".to_owned()));
    assert!(cluster.user(&["logs", "kept"]).end().done().contains("told"));
    cluster.user(&["rm", "kept"]).end().done();
    nothing_is_left(&cluster);
}

#[test]
fn from_a_terminal_it_has_one_from_the_first_moment() {
    let cluster = Cluster::up("run-tty");
    cluster.import_sleeper();
    deploy(&cluster, "t", "sleeper");
    let gantry = format!("{PROGRAM} --context {} run t/box -- /bin/busybox", cluster.name);
    let line = format!("stty rows 33 cols 99; {gantry} stty size");
    let size = Call::in_terminal(&line).end();
    assert!(size.stdout.contains("33 99"), "{size}");
    let line = format!("{gantry} sh -c 'echo -n \"name? \"; read name; echo hello $name; exit 4'");
    let asked = Call::in_terminal(&line).input("ada\n").end();
    assert_eq!(asked.code, Some(4), "{asked}");
    assert!(asked.stdout.contains("name? ") && asked.stdout.contains("hello ada"), "{asked}");
    nothing_is_left(&cluster);
}

#[test]
fn what_a_container_has_changed_becomes_an_image() {
    let cluster = Cluster::of("commit", 3);
    cluster.import_sleeper();
    deploy(&cluster, "t", "sleeper");
    let exec = |service: &str, script: &str| {
        cluster.user(&["exec", service, "--", "/bin/busybox", "sh", "-c", script]).end().done()
    };
    exec("t/box", "echo made > /made; echo doomed > /doomed; /bin/busybox mkdir -p /dir/in");
    let committed = cluster.user(&["commit", "-m", "a snapshot", "t/box", "snap:1"]).end().done();
    assert!(committed.starts_with("committed snap:1 (sha256:"), "{committed}");
    assert_eq!(committed.matches(", n").count() + committed.matches("on n").count(), 2, "{committed}");
    // It was paused meanwhile, and goes on.
    assert_eq!(exec("t/box", "/bin/busybox cat /made"), "made\n");

    deploy(&cluster, "u", "snap:1");
    assert_eq!(exec("u/box", "/bin/busybox cat /made /doomed; echo /dir/*"), "made\ndoomed\n/dir/in\n");
    exec("u/box", "/bin/busybox rm /doomed; /bin/busybox rm -r /dir; /bin/busybox mkdir /dir");
    cluster.user(&["commit", "-c", "ENV MORE=1", "--no-pause", "u/box.1", "snap:2"]).end().done();
    deploy(&cluster, "v", "snap:2");
    let look = "/bin/busybox cat /made; /bin/busybox ls -A /dir; echo $MORE; test ! -e /doomed";
    assert_eq!(exec("v/box", look), "made\n1\n");

    // Also one that has ended.
    sh(&cluster, &["run", "--keep", "--name", "once"], "echo left > /left").end().done();
    cluster.user(&["commit", "once/box", "left:1"]).end().done();
    deploy(&cluster, "w", "left:1");
    assert_eq!(exec("w/box", "/bin/busybox cat /left"), "left\n");

    cluster.user(&["commit", "t/none", "x:1"]).end().refused(4, &["`t/none`", "`gantry ps --all`"]);
    cluster.user(&["commit", "-c", "FROM x", "t/box", "x:1"]).end().refused(2, &["FROM"]);
    let images = cluster.user(&["image", "ls", "-o", "json"]).end().done();
    assert!(!images.contains("x:1"), "{images}");
}
