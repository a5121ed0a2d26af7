//! `gantry logs` of real containers: what is read from where, when something of it is gone, and when more of it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, until};

/// Dialling takes 5 s at most, and a machine that is busy with three nodes some more.
const SOON: Duration = Duration::from_secs(30);

/// A service of the image `sleeper` that runs a script.
fn service(name: &str, replicas: u32, restart: &str, script: &str) -> String {
    // `$` is Compose's own.
    let script = script.replace('$', "$$");
    format!(
        r#"  {name}:
    image: sleeper
    command: [/bin/busybox, sh, -c, "{script}"]
    deploy: {{replicas: {replicas}, restart_policy: {restart}}}
"#
    )
}

fn deploy(cluster: &Cluster, stack: &str, service: &str, args: &[&str]) {
    let compose = format!("services:\n{service}");
    cluster.user(&[&["deploy", "-f", "-", stack][..], args].concat()).input(compose).end().done();
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect()
}

/// The lines that there are, as objects.
fn logs(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    objects(&cluster.user(&[&["logs", "-o", "json"][..], args].concat()).end().done())
}

fn texts<'a>(lines: &'a [Value], field: &str) -> Vec<&'a str> {
    lines.iter().map(|line| line[field].as_str().expect("it is a text")).collect()
}

fn attempts(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["attempt"].as_u64().expect("it is a number")).collect()
}

/// How many lines each task wrote on each node, by what is shown.
fn counts(lines: &[Value]) -> BTreeMap<(&str, &str), usize> {
    let mut counts = BTreeMap::new();
    for (task, node) in texts(lines, "task").into_iter().zip(texts(lines, "node")) {
        *counts.entry((task, node)).or_default() += 1;
    }
    counts
}

/// A node that does not lead.
fn a_follower(cluster: &Cluster) -> String {
    let nodes: Value =
        serde_json::from_str(&cluster.user(&["node", "ls", "-o", "json"]).end().done()).unwrap();
    let nodes = nodes.as_array().expect("`node ls -o json` is an array");
    let follower = nodes.iter().find(|node| node["leader"] == false).expect("only one leads");
    follower["node"].as_str().expect("it has a name").to_owned()
}

#[test]
fn lines_of_all_nodes_are_in_order_and_a_crashed_node_costs_its_own() {
    const LINES: usize = 100;
    let cluster = Cluster::of("order", 3);
    cluster.import_sleeper();
    let script = format!(
        "trap 'exit 0' TERM; i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; /bin/busybox sleep 1000000 & wait"
    );
    deploy(&cluster, "talk", &service("web", 6, "{condition: any}", &script), &[]);
    until("all to have said it all", || logs(&cluster, &["talk"]).len() == 6 * LINES);
    let before = logs(&cluster, &["talk"]);
    let times = texts(&before, "at");
    assert!(times.is_sorted(), "{times:?}");
    let counted = counts(&before);
    assert!(counted.len() == 6 && counted.values().all(|lines| *lines == LINES), "{counted:?}");
    let nodes: BTreeSet<&str> = counted.keys().map(|(_, node)| *node).collect();
    assert_eq!(nodes.len(), 3, "{counted:?}");
    let last = logs(&cluster, &["talk", "--tail", "2"]);
    assert_eq!(last.len(), 12, "{last:?}");

    let crashed = a_follower(&cluster);
    cluster.dev(&["node", "crash", &crashed]).end().done();
    let asked = Instant::now();
    let ended = cluster.user(&["logs", "talk", "-o", "json"]).end();
    assert!(asked.elapsed() < SOON, "after {:?}: {ended}", asked.elapsed());
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains(&format!("warning: node {crashed} ")), "{ended}");
    let after = objects(&ended.stdout);
    let left = counts(&after);
    for (of, lines) in counted.iter().filter(|((_, node), _)| *node != crashed) {
        assert_eq!(left.get(of), Some(lines), "of {of:?}: {ended}");
    }
}

#[test]
fn every_run_of_a_container_that_kept_failing_is_read_also_when_it_is_over() {
    let cluster = Cluster::up("attempts");
    cluster.import_sleeper();
    let restart = "{condition: any, delay: 100ms, max_attempts: 3}";
    deploy(
        &cluster,
        "loop",
        &service("web", 1, restart, "echo begins; echo ends >&2; exit 1"),
        &["--detach"],
    );
    until("four attempts", || {
        // There is no task for a moment, which is an error.
        let ended = cluster.user(&["logs", "loop"]).end();
        ended.code == Some(0) && ended.stdout.lines().count() == 4 && ended.stderr.lines().count() == 4
    });
    let lines = logs(&cluster, &["loop/web.1"]);
    assert_eq!(attempts(&lines), [1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!(texts(&lines, "line"), ["begins", "ends"].repeat(4));
    assert_eq!(texts(&lines, "stream"), ["stdout", "stderr"].repeat(4));
    let last = logs(&cluster, &["loop", "--tail", "3"]);
    assert_eq!((attempts(&last), texts(&last, "line")), (vec![3, 4, 4], vec!["ends", "begins", "ends"]));
    let times = texts(&lines, "at");
    let third = logs(&cluster, &["loop", "--since", times[4], "--until", times[5]]);
    assert_eq!(attempts(&third), [3, 3]);
    let early = logs(&cluster, &["loop", "--until", times[2], "--tail", "2"]);
    assert_eq!(attempts(&early), [1, 2]);

    let task = texts(&lines, "task")[0];
    let plain = cluster.user(&["logs", task]).end();
    assert_eq!(
        (plain.stdout.as_str(), plain.stderr.as_str()),
        (&*"begins\n".repeat(4), &*"ends\n".repeat(4))
    );
    let followed = cluster.user(&["logs", task, "-f"]).end();
    assert_eq!(followed.done(), "begins\n".repeat(4), "what has ended is not waited for");
}

/// Says its task's name again and again.
const BEATS: &str =
    "trap 'exit 0' TERM; while true; do echo beat of $(/bin/busybox hostname); /bin/busybox sleep 0.1; done";

#[test]
fn what_is_followed_goes_on_with_what_replaces_it() {
    let cluster = Cluster::of("follow", 3);
    cluster.import_sleeper();
    deploy(&cluster, "beats", &service("web", 1, "{condition: any}", BEATS), &[]);
    let following = cluster.user(&["logs", "beats", "-f", "-o", "json"]).start();
    let tasks = || {
        let lines = objects(&following.stdout());
        texts(&lines, "task").into_iter().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    until("the first task's lines", || tasks().len() == 1);
    let first = objects(&following.stdout());
    let node = texts(&first, "node")[0].to_owned();
    cluster.dev(&["node", "partition", &node]).end().done();
    until("the lines of the task in its place", || tasks().len() == 2);
    cluster.dev(&["node", "heal", &node]).end().done();
    // Whichever is the first: the node is asked again, or the task that is not wanted there any more is gone.
    until("a word on the first task", || {
        let said = following.stderr();
        said.contains("answers again") || said.contains("was removed")
    });
    cluster.user(&["scale", "beats/web=3"]).end().done();
    until("the lines of further slots", || {
        let lines = objects(&following.stdout());
        let slots: BTreeSet<u64> = lines.iter().filter_map(|line| line["slot"].as_u64()).collect();
        slots.len() == 3
    });
    let ended = following.interrupt();
    assert_eq!(ended.code, Some(130), "{ended}");
    let lines = objects(&ended.stdout);
    for line in &lines {
        let (text, task) = (line["line"].as_str().unwrap(), line["task"].as_str().unwrap());
        assert_eq!(text, format!("beat of {task}"));
    }
    let mut shown = BTreeSet::new();
    for of in texts(&lines, "task").into_iter().zip(texts(&lines, "at")) {
        assert!(shown.insert(of), "{of:?} is shown twice: {ended}");
    }
}

#[test]
fn what_is_followed_ends_when_it_is_removed() {
    let cluster = Cluster::up("gone");
    cluster.import_sleeper();
    deploy(&cluster, "beats", &service("web", 2, "{condition: any}", BEATS), &[]);
    let following = cluster.user(&["logs", "beats", "-f", "--tail", "1"]).start();
    until("lines of both", || {
        let said = following.stdout();
        said.contains("web.1 | beat of ") && said.contains("web.2 | beat of ")
    });
    cluster.user(&["rm", "beats"]).end().done();
    let ended = following.end();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.ends_with("note: `beats` was removed\n"), "{ended}");
    cluster.user(&["logs", "beats"]).end().refused(4, &["there is no stack, service or task `beats`"]);
}
