//! What users do with running tasks, end to end: the real program, three real managers, a container on one of them, and calls
//! through each. Needs root, and the packages nftables, busybox-static and bsdutils.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "host/cluster.rs"]
mod cluster;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cluster::{Call, Cluster, PROGRAM, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The node that runs everything here.
const HOME: &str = "n3";

/// Sleeps until it is told to stop.
const SLEEP: &str = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";

/// Brings up a cluster with a stack `t`, whose services run these scripts.
fn cluster(name: &str, scripts: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::of(name, 3);
    cluster.import_sleeper();
    let service = |(name, script): &(&str, &str)| {
        format!(
            "  {name}:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{script}\"]\n    deploy:\n      \
             placement: {{constraints: [\"node.hostname == {HOME}\"]}}\n      \
             restart_policy: {{condition: on-failure, delay: 100ms}}\n"
        )
    };
    let services: String = scripts.iter().map(service).collect();
    cluster.user(&["deploy", "-f", "-", "t"]).input(format!("services:\n{services}")).end().done();
    let tasks = tasks(&cluster);
    assert_eq!(tasks.len(), scripts.len(), "{tasks:?}");
    assert!(tasks.iter().all(|task| task["node"] == HOME && task["phase"] == "running"), "{tasks:?}");
    cluster
}

fn tasks(cluster: &Cluster) -> Vec<Value> {
    let text = cluster.user(&["ps", "t", "-o", "json"]).end().done();
    serde_json::from_str(&text).expect("`ps -o json` is an array")
}

/// A command that asks the manager on this node and no other.
fn at(cluster: &Cluster, node: &str, args: &[&str]) -> Call {
    Call::gantry(args).env("GANTRY_SOCKETS", format!("/run/gantry/{}/{node}/api.sock", cluster.name))
}

/// `gantry exec t/box -- sh -c SCRIPT`.
fn shell(cluster: &Cluster, script: &str) -> Call {
    cluster.user(&["exec", "t/box", "--", "/bin/busybox", "sh", "-c", script])
}

#[test]
fn a_command_runs_in_a_container_as_if_it_ran_here() {
    let cluster = cluster("exec", &[("box", SLEEP)]);
    for node in ["n1", "n2", "n3"] {
        let hello = at(&cluster, node, &["exec", "t/box.1", "/bin/busybox", "echo", "hello", "-n"]);
        assert_eq!(hello.end().done(), "hello -n\n", "through {node}");
    }
    let ended = shell(&cluster, "echo out; echo err >&2; exit 7").end();
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(7), "out\n", "err\n"));
    assert_eq!(shell(&cluster, "kill -9 $$").end().code, Some(137));
    cluster.user(&["exec", "t/box", "--", "/nothing"]).end().refused(127, &["/nothing"]);
    shell(&cluster, "/bin/busybox touch /plain").end().done();
    cluster.user(&["exec", "t/box", "--", "/plain"]).end().refused(126, &["/plain"]);
    cluster.user(&["exec", "t/none", "--", "/bin/busybox"]).end().refused(4, &["`t/none`", "`gantry ps`"]);
    cluster.user(&["exec", "t/box.9", "--", "/bin/busybox"]).end().refused(5, &["has no running task"]);

    let script = "echo $A; /bin/busybox id -u; pwd; /bin/busybox cat";
    let exec = ["exec", "-i", "-e", "A=1", "-u", "33", "-w", "/bin", "t/box", "--"];
    let said = cluster.user(&[&exec[..], &["/bin/busybox", "sh", "-c", script]].concat()).input("typed\n");
    assert_eq!(said.end().done(), "1\n33\n/bin\ntyped\n");
    let deaf = cluster.user(&["exec", "t/box", "--", "/bin/busybox", "cat"]).input("a script's own\n").end();
    assert_eq!(deaf.done(), "", "stdin is not sent unless asked for");
    let zeros = shell(&cluster, "/bin/busybox dd if=/dev/zero bs=65536 count=64 2> /dev/null").end().done();
    assert_eq!(zeros.len(), 64 * 65536);
}

/// The client of this cluster that has this word in its command line.
fn client(cluster: &Cluster, word: &str) -> Option<Pid> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = String::from_utf8(fs::read(entry.path().join("cmdline")).ok()?).ok()?;
        let words: Vec<&str> = line.split('\0').collect();
        let is_it = words[0] == PROGRAM && words.contains(&cluster.name.as_str()) && words.contains(&word);
        is_it.then(|| Pid::from_raw(pid)).flatten()
    })
}

#[test]
fn from_a_terminal_the_command_has_one_and_ours_is_given_back() {
    let cluster = cluster("tty", &[("box", SLEEP)]);
    let gantry = format!("{PROGRAM} --context {} exec", cluster.name);
    let tty = Call::in_terminal(&format!("{gantry} t/box -- /bin/busybox tty")).end().done();
    assert!(tty.contains("/dev/"), "{tty}");
    let none = Call::in_terminal(&format!("{gantry} -T t/box -- /bin/busybox tty")).end();
    assert_eq!((none.code, none.stdout.trim()), (Some(1), "not a tty"), "{none}");
    let size = Call::in_terminal(&format!("stty rows 33 cols 99; {gantry} t/box -- /bin/busybox stty size"))
        .end()
        .done();
    assert_eq!(size.trim(), "33 99");
    let ended = Call::in_terminal(&format!("{gantry} t/box -- /bin/busybox sh -c 'exit 3'")).end();
    assert_eq!(ended.code, Some(3), "{ended}");
    let modes =
        Call::in_terminal(&format!("stty -g; {gantry} t/box -- /bin/busybox true; stty -g")).end().done();
    let modes: Vec<&str> = modes.lines().collect();
    assert_eq!((modes.len(), modes.first()), (2, modes.last()), "{modes:?}");

    // Also where gantry is ended in the middle, which ends the command as well.
    let line = format!("stty -g; {gantry} t/box -- /bin/busybox sleep 98765; stty -g");
    let running = Call::in_terminal(&line).start();
    let is_listed = || cluster.user(&["top", "t/box"]).end().done().contains("sleep 98765");
    until("the command to run", is_listed);
    kill_process(client(&cluster, "98765").expect("it runs"), Signal::TERM).unwrap();
    let ended = running.end();
    until("the command to end", || !is_listed());
    let modes: Vec<&str> = ended.stdout.lines().filter(|line| line.matches(':').count() > 10).collect();
    assert_eq!((modes.len(), modes.first()), (2, modes.last()), "{ended}");
}

#[test]
fn files_are_copied_in_and_out() {
    let cluster = cluster("cp", &[("box", SLEEP)]);
    let here = tempfile::tempdir().unwrap();
    let path = |name: &str| here.path().join(name).display().to_string();
    fs::create_dir_all(path("site/css")).unwrap();
    fs::write(path("site/index"), "hello\n").unwrap();
    fs::write(path("site/css/main"), "x".repeat(300_000)).unwrap();
    symlink("index", path("site/link")).unwrap();
    let cp = |from: &str, to: &str| cluster.user(&["cp", from, to]);

    cp(&path("site/index"), "t/box.1:/one").end().done();
    cp(&path("site"), "t/box:/srv").end().done();
    cp(&path("site"), "t/box:/srv").end().done();
    cp(&path("site/."), "t/box:/srv/site/css").end().done();
    let look = "/bin/busybox cat /one /srv/link /srv/site/css/index; cd /srv; /bin/busybox find . | /bin/busybox sort";
    let listed = [
        "hello",
        "hello",
        "hello",
        ".",
        "./css",
        "./css/main",
        "./index",
        "./link",
        "./site",
        "./site/css",
        "./site/css/css",
        "./site/css/css/main",
        "./site/css/index",
        "./site/css/link",
        "./site/css/main",
        "./site/index",
        "./site/link",
    ];
    assert_eq!(shell(&cluster, look).end().done().lines().collect::<Vec<_>>(), listed);

    let out = at(&cluster, "n2", &["cp", "t/box:/srv", &path("copy")]);
    out.end().done();
    assert_eq!(fs::read_to_string(path("copy/site/css/css/main")).unwrap().len(), 300_000);
    assert_eq!(fs::read_link(path("copy/link")).unwrap(), Path::new("index"));
    let archive = cp("t/box:/srv/css", "-").end().done();
    shell(&cluster, "/bin/busybox mkdir /in").end().done();
    cp("-", "t/box:/in").input(archive).end().done();
    assert_eq!(shell(&cluster, "/bin/busybox wc -c < /in/css/main").end().done().trim(), "300000");

    let none = path("none/x");
    for (from, to, exit, says) in [
        ("t/box:/none", ".", 4, "there is no /none in the container"),
        ("t/box.7:/one", ".", 5, "has no running task"),
        ("t/box:/one", none.as_str(), 1, "cannot write "),
        (none.as_str(), "t/box:/", 1, "cannot read "),
        ("-", "t/box:/one", 1, "/one in the container is not a directory"),
        ("a", "b", 2, "one of SRC and DEST has to be in a container"),
        ("t/box:/a", "t/box:/b", 2, "SRC and DEST are both in containers"),
    ] {
        cp(from, to).end().refused(exit, &[says]);
    }

    // The container's links lead where they lead in the container, and nothing of the node is there.
    fs::write(path("secret"), "the node's").unwrap();
    let lure =
        format!("/bin/busybox ln -s {} /lure; /bin/busybox ln -s ../../../../..{0} /up", path("secret"));
    shell(&cluster, &lure).end().done();
    for link in ["t/box:/lure", "t/box:/up"] {
        cluster.user(&["cp", "-L", link, &path("stolen")]).end().refused(4, &["there is no "]);
        cp(&path("site/index"), link).end().refused(4, &["there is no "]);
    }
    assert_eq!(fs::read_to_string(path("secret")).unwrap(), "the node's");
    assert!(!Path::new(&path("stolen")).exists());
}

#[test]
fn what_a_container_uses_and_changes_is_seen_from_anywhere() {
    let cluster = cluster("seen", &[("box", SLEEP)]);
    shell(&cluster, "echo x > /made").end().done();
    assert!(cluster.user(&["diff", "t/box"]).end().done().lines().any(|line| line == "A /made"));
    for node in ["n1", "n2", "n3"] {
        let stats = at(&cluster, node, &["stats", "t", "--no-stream", "-o", "json"]).end().done();
        let row: Value = serde_json::from_str(stats.trim()).expect("it is one object in one line");
        assert_eq!((&row["name"], &row["node"]), (&"t/box.1".into(), &HOME.into()), "{row}");
        assert!(row["memory_bytes"].as_u64() > Some(0) && row["cpu_percent"].is_number(), "{row}");
    }
    let table = cluster.user(&["stats", "--no-stream"]).end().done();
    assert!(table.starts_with("NAME") && table.contains("t/box.1"), "{table}");
    cluster.user(&["stats", "nothing"]).end().refused(4, &["`nothing`", "`gantry ps`"]);
    let top = cluster.user(&["top", "--once"]).end().done();
    assert!(["n1", "n2", "n3", "t/box.1"].iter().all(|name| top.contains(name)), "{top}");
    assert!(cluster.user(&["top", "t/box.1"]).end().done().contains("sleep 1000000000"));

    let task = tasks(&cluster)[0]["task"].as_str().unwrap().to_owned();
    let document = cluster.user(&["inspect", &task]).end().done();
    let document: Value = serde_json::from_str(&document).unwrap();
    assert!(document["pid"].is_number() && document["paused"] == false, "{document}");
    assert_eq!(document.get("node_details"), None, "{document}");

    cluster.dev(&["node", "kill", HOME]).end().done();
    until("the node to be missed", || {
        let stats = cluster.user(&["stats", "--no-stream"]).end();
        stats.code == Some(0) && stats.stderr.contains(&format!("warning: node {HOME} does not answer"))
    });
    let document = cluster.user(&["inspect", &task]).end();
    assert!(document.stderr.starts_with("note: "), "{document}");
    assert!(document.done().contains("\"node_details\": null"));
}

#[test]
fn a_container_is_paused_and_killed() {
    let cluster = cluster("act", &[("box", SLEEP)]);
    let act = |args: &[&str]| cluster.user(args).end().done();
    assert_eq!(act(&["pause", "t/box"]), "t/box: paused\n");
    shell(&cluster, "true").end().refused(5, &["paused"]);
    assert_eq!(act(&["unpause", "t/box"]), "t/box: goes on\n");
    shell(&cluster, "true").end().done();
    let before = tasks(&cluster)[0]["attempt"].as_u64().unwrap();
    assert_eq!(act(&["kill", "t/box.1"]), "t/box.1: sent SIGKILL\n");
    until("another attempt", || tasks(&cluster)[0]["attempt"].as_u64() > Some(before));
    cluster.user(&["kill", "t/none"]).end().refused(4, &["`t/none`"]);
}

#[test]
fn attach_shows_what_is_written_from_now_on_and_ends_with_the_container() {
    let script = "while [ ! -e /go ]; do echo tick; /bin/busybox sleep 0.05; done; echo told; exit 5";
    let cluster = cluster("attach", &[("box", script)]);
    let attached = cluster.user(&["attach", "t/box"]).start();
    until("something to be written", || attached.stdout().contains("tick\n"));
    shell(&cluster, "/bin/busybox touch /go").end().done();
    let ended = attached.end();
    assert_eq!(ended.code, Some(5), "{ended}");
    assert!(ended.stdout.ends_with("tick\ntold\n"), "{ended}");

    // Whoever leaves does not take the container along, which has been started again.
    until("another attempt", || {
        let task = &tasks(&cluster)[0];
        task["attempt"].as_u64() > Some(1) && task["phase"] == "running"
    });
    let attached = cluster.user(&["attach", "t/box"]).start();
    until("something to be written", || attached.stdout().contains("tick\n"));
    let left = attached.interrupt();
    assert_eq!(left.code, Some(130), "{left}");
    assert!(left.stderr.contains("t/box goes on"), "{left}");
    shell(&cluster, "true").end().done();
}
