//! Bad input and bad circumstances, end to end: the real program, a real node, and what its user reads. Needs root, and
//! the packages nftables and busybox-static.
//!
//! Of each case: one error with the operand, its place where there is one, the cause and the next step; the exit code of
//! the command contract; nothing on stdout, and nothing left behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "host/cluster.rs"]
mod cluster;
#[path = "host/logs.rs"]
mod logs;
#[path = "host/unpack.rs"]
mod unpack;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use cluster::{Call, Cluster, Ended, PROGRAM, until};
use serde_json::Value;

/// Ample for a file of 10 MB, which is read whole before it is refused, and nothing to an anchor bomb.
const MEMORY: u64 = 256 << 20;

/// A Compose file that is read from stdin as stack `bad`, the exit code, and parts of what is said.
const FILES: &[(&str, i32, &[&str])] = &[
    (
        "services:\n  web: [\n",
        1,
        &["error: this is not YAML: unclosed bracket '['", "--> <stdin>:2:8", "check brackets, quotes and"],
    ),
    (
        "services:\n  web:\n    image: nginx\n    usr: a\n",
        1,
        &["error: unknown key `usr`", "--> <stdin>:4:5", "did you mean `user`?"],
    ),
    (
        "services:\n  web:\n    image: nginx\n    ports: 5\n",
        1,
        &["error: `ports` must be a list, and this is the number `5`", "--> <stdin>:4:12"],
    ),
    (
        "services:\n  web:\n    image: nginx\n    image: httpd\n",
        1,
        &["error: the key `image` is already on line 3", "--> <stdin>:4:5", "keep one of them"],
    ),
    (
        "services:\n  my_app:\n    image: nginx\n",
        1,
        &["error: `my_app` is not a DNS label: use a-z", "--> <stdin>:2:3", "call it `my-app`"],
    ),
    (
        "services:\n  web:\n    image: nginx\n    deploy: {replicas: -1}\n",
        1,
        &["error: `replicas` must be a whole number from 0 to 100000, and this is the number `-1`", ":4:24"],
    ),
    (
        "services:\n  web:\n    image: nginx\n    deploy: {replicas: 99999999999999999999}\n",
        1,
        &["must be a whole number from 0 to 100000, and this is the number `99999999999999999999`", ":4:24"],
    ),
    (
        "services:\n  web:\n    image: nginx\n    deploy: {resources: {limits: {memory: 99999999t}}}\n",
        1,
        &["error: `memory`: `99999999t` is too large", "--> <stdin>:4:43"],
    ),
    (
        "services:\n  web:\n    image: nginx\n    ports: [70000]\n",
        1,
        &[
            "error: `70000` is not a port of a container",
            "--> <stdin>:4:13",
            "write a number from 1 to 65535",
        ],
    ),
    (
        "services:\n  web:\n    image: nginx\n    ports:\n      - {target: 80, published: 8080, mode: host}\n      \
         - {target: 81, published: 8080, mode: host}\n",
        1,
        &[
            "error: the host port 8080/tcp is already taken on line 5",
            "--> <stdin>:6:9",
            "publish another one",
        ],
    ),
    ("services: {}\n", 1, &["error: there are no services here", "--> <stdin>:1:11", "write `services:`"]),
    (
        "services:\n  web:\n    image: absent:1\n    pull_policy: never\n",
        4,
        &[
            "error: bad: service `web`: the cluster has no image `absent:1`, and by its pull policy no registry is asked for \
             it; bring it in with `gantry image import FILE absent:1`",
            "hint: `gantry image ls` lists what there is",
        ],
    ),
    (
        // Nobody listens there, wherever the manager is.
        "services:\n  web:\n    image: 127.0.0.1:1/absent:1\n",
        1,
        &[
            "error: bad: service `web`: image `127.0.0.1:1/absent:1`: cannot look up 127.0.0.1:1/absent:1: cannot reach ",
            "bring it in with `gantry image import FILE 127.0.0.1:1/absent:1`",
        ],
    ),
];

/// Arguments of a user's command, its exit code, and parts of what is said.
const COMMANDS: &[(&[&str], i32, &[&str])] = &[
    (
        &["deploy", "-f", "-", "My_Stack"],
        2,
        &[
            "error: invalid value 'My_Stack' for '[STACK]': `My_Stack` is not a DNS label: use a-z, 0-9 and `-`",
        ],
    ),
    (&["rm", "../etc"], 2, &["error: invalid value '../etc' for '<STACK>': `../etc` is not a DNS label"]),
    (&["ps", "Hello"], 2, &["error: invalid value 'Hello'", "`Hello` is not a DNS label"]),
    (&["scale", "web=1"], 2, &["error: invalid value 'web=1'", "write it as STACK/SERVICE"]),
    (
        &["scale", "hello/web=-1"],
        2,
        &["error: invalid value 'hello/web=-1'", "`-1` is not a number of replicas"],
    ),
    (
        &["scale", "hello/web=99999999999999999999"],
        2,
        &["error: invalid value 'hello/web=99999999999999999999'", "a service has 100000 replicas at most"],
    ),
    (
        &["deploy", "-f", "-", "bad", "--timeout", "-5s"],
        2,
        &[
            "error: invalid value '-5s' for '--timeout <DURATION>'",
            "`-5s` is not a duration: write for example 10s",
        ],
    ),
    (
        &["rm", "hello", "--timeout", "99999h"],
        2,
        &["error: invalid value '99999h' for '--timeout <DURATION>'", "it is longer than a year"],
    ),
    (&["logs", "hello", "--tail", "-1"], 2, &["error: invalid value '-1' for '--tail <N>'"]),
    (
        &["deploy", "-f", "/nowhere/compose.yaml", "bad"],
        1,
        &[
            "error: cannot read /nowhere/compose.yaml: No such file or directory",
            "hint: name a file that is there",
        ],
    ),
    (&["deploy", "-f", "/", "bad"], 1, &["error: / is a directory, not a file", "hint: name a file in it"]),
    (
        &["image", "import", "/nowhere/image.tar", "bad"],
        1,
        &[
            "error: cannot read /nowhere/image.tar: No such file or directory",
            "hint: name a file that is there",
        ],
    ),
    (
        &["image", "import", "-", "bad"],
        1,
        &["error: <stdin>: cannot import the archive: the archive is empty"],
    ),
    (
        &["image", "rm", "absent:1"],
        4,
        &["error: there is no image `absent:1`", "hint: `gantry image ls` lists what there is"],
    ),
    (
        &["rm", "absent"],
        4,
        &["error: there is no stack `absent`", "hint: `gantry stacks` lists what there is"],
    ),
    (
        &["scale", "absent/web=1"],
        4,
        &["error: there is no service `absent/web`", "hint: `gantry services` lists what there is"],
    ),
    (
        &["ps", "absent"],
        4,
        &[
            "error: there is no stack, service or node `absent`",
            "hint: `gantry services` lists what there is",
        ],
    ),
    (
        &["inspect", "../../etc"],
        4,
        &["error: there is no stack, service, task, node or image `../../etc`", "hint: `gantry services`"],
    ),
    (
        &["logs", "absent"],
        4,
        &["error: there is no stack, service or task `absent`", "hint: `gantry services`"],
    ),
];

/// The same of `gantry dev`, for the cluster that is there.
const DEV_COMMANDS: &[(&[&str], i32, &[&str])] = &[
    (&["up", "--nodes", "-1"], 2, &["error: invalid value '-1' for '--nodes <NODES>': -1 is not in 1..=200"]),
    (
        &["up", "--nodes", "201"],
        2,
        &["error: invalid value '201' for '--nodes <NODES>': 201 is not in 1..=200"],
    ),
    (
        &["up", "--nodes", "1", "--managers", "3"],
        2,
        &["error: 3 managers do not fit on 1 nodes", "hint: ask for fewer --managers or more --nodes"],
    ),
    (
        &["up"],
        5,
        &["error: cluster refused-", " is up already", "hint: look at it with `gantry dev status --name"],
    ),
    (&["node", "kill", "web"], 2, &["error: invalid value 'web' for '<NODE>': `web` is not a dev node"]),
    (
        &["node", "kill", "n9"],
        4,
        &["error: there is no node n9", "has n1", "hint: look with `gantry dev status"],
    ),
];

#[test]
fn what_cannot_be_meant_is_refused_with_one_error_and_leaves_nothing() {
    let cluster = Cluster::up("refused");
    let before = cluster.content();
    let check = |call: Call, exit: i32, says: &[&str]| {
        let ended = call.within(MEMORY).end();
        ended.refused(exit, says);
        assert_eq!(cluster.content(), before, "{ended}");
    };
    for (yaml, exit, says) in FILES {
        check(cluster.user(&["deploy", "-f", "-", "bad"]).input(*yaml), *exit, says);
    }
    for (args, exit, says) in COMMANDS {
        check(cluster.user(args), *exit, says);
    }
    for (args, exit, says) in DEV_COMMANDS {
        check(cluster.dev(args), *exit, says);
    }
    let named = |name: &str| Call::gantry(["stacks", "--context", name]);
    check(
        named("../etc"),
        2,
        &["error: --context: `../etc` is not a DNS label", "hint: give the cluster's name"],
    );
    let absent = format!("absent-{}", std::process::id());
    let missing = format!("error: cluster `{absent}` is not on this machine");
    check(named(&absent), 6, &[&missing, &format!("hint: start it with `gantry dev up --name {absent}`")]);
}

#[test]
fn a_hostile_file_is_refused_in_little_memory_and_leaves_nothing() {
    let cluster = Cluster::up("hostile");
    let before = cluster.content();
    let ten_times = |level: usize| vec![format!("*a{level}"); 10].join(", ");
    let bomb = (1..20).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        text + &format!("a{level}: &a{level} [{}]\n", ten_times(level - 1))
    });
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), ["*a"; 200].join(", "));
    let deep = "[".repeat(1_000_000);
    let (ten, twenty) = ("#\n".repeat(5 << 20), "#\n".repeat(10 << 20));
    let expanded = "error: with its aliases expanded the file is too large";
    for (yaml, says) in [
        (bomb, [expanded, "--> <stdin>:", "use fewer aliases of anchors that contain aliases"]),
        (long, [expanded, "--> <stdin>:2:", "use fewer aliases of anchors that contain aliases"]),
        (
            deep,
            [
                "error: the file is nested more than 64 levels deep here",
                "--> <stdin>:1:",
                "nothing in Compose",
            ],
        ),
        (
            ten,
            [
                "error: the file has 10485760 bytes; a Compose file has 1048576 at most",
                "--> <stdin>:1:1",
                "check that this is the file that you mean",
            ],
        ),
        (
            twenty,
            ["error: <stdin> is larger than 16 MiB", "hint:", "check that this is the file that you mean"],
        ),
    ] {
        let ended = cluster.user(&["deploy", "-f", "-", "bad"]).input(yaml).within(MEMORY).end();
        ended.refused(1, &says);
        assert!(ended.stderr.len() < 4096, "{} bytes are said", ended.stderr.len());
        assert_eq!(cluster.content(), before, "{ended}");
    }
}

/// A service that sleeps until it is told to stop, behind a port of its node.
fn sleeper(name: &str, port: u16, replicas: u32) -> String {
    format!(
        r#"  {name}:
    image: sleeper
    command: [/bin/busybox, sh, -c, "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait"]
    ports: [{{target: 80, published: {port}, mode: host}}]
    deploy: {{replicas: {replicas}}}
"#
    )
}

fn tasks(cluster: &Cluster, stack: &str) -> Vec<Value> {
    let text = cluster.user(&["ps", stack, "-o", "json"]).end().done();
    serde_json::from_str(&text).expect("`ps -o json` is an array")
}

/// Of two tasks that want one port of the one node, one runs; the other waits, and whoever asks is told why.
fn one_of_two_waits(cluster: &Cluster, stack: &str, port: u16, services: &str) {
    let why = format!("no node fits: host port {port} is taken on 1 node");
    let compose = format!("services:\n{services}");
    let deploy = cluster.user(&["deploy", "-f", "-", stack, "--timeout", "3s"]).input(compose).end();
    let late = format!("error: {stack}: not converged within 3 s");
    let look = format!("hint: the change is accepted and goes on; `gantry ps {stack}` shows it");
    deploy.refused(3, &[&late, &format!("waiting: {why}"), &look]);
    until("one of the two to run", || tasks(cluster, stack).iter().any(|task| task["phase"] == "running"));
    let tasks = tasks(cluster, stack);
    let waiting: Vec<&Value> = tasks.iter().filter(|task| task["phase"] == "pending").collect();
    assert_eq!((tasks.len(), waiting.len()), (2, 1), "{tasks:?}");
    assert_eq!((waiting[0]["reason"].as_str(), &waiting[0]["node"]), (Some(why.as_str()), &Value::Null));
    let table = cluster.user(&["ps", stack]).end().done();
    assert!(table.contains(&why), "{table}");
    cluster.user(&["rm", stack, "--timeout", "60s"]).end().done();
}

#[test]
fn a_host_port_that_two_want_leaves_one_waiting_and_ps_says_why() {
    let cluster = Cluster::up("ports");
    cluster.import_sleeper();
    let before = cluster.content();
    one_of_two_waits(&cluster, "clash", 18_080, &(sleeper("one", 18_080, 1) + &sleeper("two", 18_080, 1)));
    one_of_two_waits(&cluster, "pair", 18_081, &sleeper("web", 18_081, 2));
    assert_eq!(cluster.content(), before);
}

/// The write-ahead log that is being written.
fn newest_log(raft: &Path) -> PathBuf {
    let files = fs::read_dir(raft).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|file| file.extension().is_some_and(|extension| extension == "log"));
    logs.max().expect("a manager has a log")
}

/// Stacks that run nothing; the second one's record stands behind the first one's.
fn deploy_two_stacks(cluster: &Cluster) {
    cluster.import_sleeper();
    for stack in ["keepsake", "later"] {
        let compose = "services:\n  web:\n    image: sleeper\n    deploy: {replicas: 0}\n";
        cluster.user(&["deploy", "-f", "-", stack]).input(compose).end().done();
    }
}

#[test]
fn a_second_daemon_is_kept_off_a_data_directory() {
    let cluster = Cluster::up("second");
    let before = cluster.content();
    let disk = cluster.disk().display().to_string();
    let second = Call::gantry(["daemon", "--data", &disk]).end();
    let held = format!("error: {disk} is in use by another gantry daemon");
    second.refused(5, &[&held, "hint: a data directory has one daemon: stop the other one first"]);
    let nowhere = Call::gantry(["daemon", "--data", "/nowhere"]).end();
    nowhere.refused(
        1,
        &["error: cannot read /nowhere/node.json: No such file", "hint: give --data the directory"],
    );
    assert_eq!(cluster.content(), before, "the first one goes on");
}

#[test]
fn a_cluster_that_does_not_answer_is_given_up_and_nothing_is_changed() {
    let cluster = Cluster::up("silent");
    deploy_two_stacks(&cluster);
    let before = cluster.stacks();
    cluster.dev(&["node", "kill", "n1"]).end().done();
    let calls = [
        cluster.user(&["stacks"]),
        cluster.user(&["scale", "keepsake/web=1"]),
        Call::gantry(["stacks"]).env("GANTRY_SOCKETS", "/nowhere/api.sock"),
    ];
    // Each of them is patient.
    let ended: Vec<Ended> = thread::scope(|scope| {
        let calls = calls.map(|call| scope.spawn(move || call.end()));
        calls.map(|call| call.join().unwrap()).into()
    });
    let name = &cluster.name;
    let silent = format!("error: cluster `{name}`: no manager answered within 10 s: ");
    let look = format!("hint: `gantry dev status --name {name}` shows which nodes of a dev cluster are up");
    for ended in &ended[..2] {
        ended.refused(6, &[&silent, "/n1/api.sock", "Connection refused", &look]);
    }
    ended[2].refused(
        6,
        &[
            "error: cluster `/nowhere/api.sock`: no manager answered within 10 s",
            "No such file or directory",
            "hint: check that GANTRY_SOCKETS names sockets",
        ],
    );
    cluster.dev(&["node", "start", "n1"]).end().done();
    until("the stacks as they were", || cluster.user(&["stacks", "-o", "json"]).end().stdout == before);
    cluster.dev(&["node", "crash", "n1"]).end().done();
    let crashed = format!("error: cluster `{name}` has no daemon running on this machine");
    cluster
        .user(&["stacks"])
        .end()
        .refused(6, &[&crashed, &format!("hint: `gantry dev status --name {name}`")]);
}

#[test]
fn a_damaged_data_directory_is_refused_and_stays_as_it_is() {
    let cluster = Cluster::up("damaged");
    deploy_two_stacks(&cluster);
    let before = cluster.stacks();
    cluster.dev(&["node", "kill", "n1"]).end().done();
    let raft = cluster.disk().join("raft");
    let log = newest_log(&raft);
    let whole = fs::read(&log).unwrap();
    // Inside of a record and not of its header: what is wrong with a length looks like a tail that was torn off, which is
    // no damage. And not in the last record.
    let at = whole.windows(8).position(|bytes| bytes == b"keepsake").expect("the stack's name is in the log");
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    fs::write(&log, &damaged).unwrap();
    let died = "error: the daemon of n1 ended as soon as it was started";
    let why = format!("log: error: {} is damaged", raft.display());
    // Whoever tries again is told so again.
    for _ in 0..2 {
        let start = cluster.dev(&["node", "start", "n1"]).end();
        start.refused(1, &[died, &why, "clear the directory and join again", "checksum mismatch", "hint: "]);
        assert!(fs::read(&log).unwrap() == damaged, "the damaged file was written to");
    }
    fs::write(&log, &whole).unwrap();
    cluster.dev(&["node", "start", "n1"]).end().done();
    until("the stacks as they were", || cluster.user(&["stacks", "-o", "json"]).end().stdout == before);

    cluster.dev(&["node", "kill", "n1"]).end().done();
    let config = cluster.disk().join("node.json");
    let kept = fs::read(&config).unwrap();
    fs::write(&config, "{").unwrap();
    let unread = format!("log: error: {} is not a node's configuration: ", config.display());
    cluster
        .dev(&["node", "start", "n1"])
        .end()
        .refused(1, &[died, &unread, "line 1 column", "mend the file"]);
    fs::write(&config, kept).unwrap();
    cluster.dev(&["node", "start", "n1"]).end().done();
    until("the stacks as they were", || cluster.user(&["stacks", "-o", "json"]).end().stdout == before);
}

#[test]
fn logs_are_all_that_was_written_also_by_attempts_that_have_ended() {
    /// Too much for the buffers between a shim and its reader.
    const LINES: usize = 3000;
    let cluster = Cluster::up("logs");
    cluster.import_sleeper();
    let script = format!("i=0; while [ $$i -lt {LINES} ]; do echo line $$i; i=$$((i+1)); done; echo over");
    let file = format!(
        "services:\n  talk:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, '{script}']\n    deploy:\n      \
         replicas: 2\n      restart_policy: {{condition: none}}\n"
    );
    cluster.user(&["deploy", "-f", "-", "talk"]).input(file).end().done();
    let count = |args: &[&str]| {
        let shown = cluster.user(&[&["logs"][..], args].concat()).end().done();
        (shown.lines().filter(|line| line.contains("line ")).count(), shown.matches("over").count())
    };
    until("both to have said it all", || count(&["talk"]).1 == 2);
    assert_eq!(count(&["talk"]), (2 * LINES, 2));
    assert_eq!(count(&["talk/talk.2"]), (LINES, 1));
    assert_eq!(count(&["talk", "--tail", "5"]), (8, 2));
    assert_eq!(count(&["talk", "--tail", "0"]), (0, 0));
}

#[test]
fn whoever_is_not_root_is_told_so_by_every_verb() {
    let cluster = Cluster::up("nobody");
    let before = cluster.content();
    // Where everybody can reach it, which a checkout below /root is not.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("gantry");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let nobody = |args: &[&str]| Call::of(&program, args).run_by_nobody();
    let name = cluster.name.as_str();
    let run = format!("error: cannot read /run/gantry/{name}: Permission denied");
    let compose = "services:\n  web:\n    image: nginx\n";
    for args in [
        &["stacks"][..],
        &["services"],
        &["ps"],
        &["inspect", "hello"],
        &["logs", "hello"],
        &["node", "ls"],
        &["image", "ls"],
        &["image", "rm", "nginx"],
        &["image", "import", "-", "nginx"],
        &["token", "create", "--role", "worker"],
        &["scale", "hello/web=1"],
        &["rm", "hello"],
        &["deploy", "-f", "-", "hello"],
    ] {
        let ended = nobody(&[&["--context", name][..], args].concat()).input(compose).end();
        ended.refused(1, &[&run, "hint: run gantry as root"]);
    }
    let socket = format!("/run/gantry/{name}/n1/api.sock");
    let kept_off = nobody(&["stacks"]).env("GANTRY_SOCKETS", &socket).end();
    kept_off.refused(
        1,
        &["its sockets are for root alone: ", &socket, "Permission denied", "run gantry as root"],
    );
    let version = nobody(&["--context", name, "version"]).end();
    assert_eq!(version.code, Some(0), "{version}");
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert!(version.stderr.starts_with("note: cannot read /run/gantry/"), "{version}");
    for args in [
        &["up"][..],
        &["down"],
        &["status"],
        &["env"],
        &["node", "add"],
        &["node", "kill", "n1"],
        &["node", "reboot", "n1"],
    ] {
        let ended = nobody(&[&["dev"][..], args, &["--name", name][..]].concat()).end();
        ended.refused(1, &["error: gantry dev needs root", "hint: run it with sudo"]);
    }
    let daemon = nobody(&["daemon", "--data", "/nowhere"]).end();
    daemon.refused(1, &["error: the daemon has to run as root", "hint: run it with sudo"]);
    assert_eq!(cluster.content(), before);
}
