//! Where tasks go and what is done with nodes, end to end: the real program, three real managers, real containers. Needs root,
//! and the packages nftables and busybox-static.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "host/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, Ended, until};
use serde_json::Value;

/// A service that sleeps; `more` are further lines of it.
fn sleeper(name: &str, more: &str) -> String {
    let sleep = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";
    format!("  {name}:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{sleep}\"]\n{more}")
}

/// A stack `t` of these services.
fn deploy(cluster: &Cluster, services: &[String], more: &[&str]) -> Ended {
    let file = format!("services:\n{}", services.concat());
    cluster.user(&[&["deploy", "-f", "-", "t"], more].concat()).input(file).end()
}

fn list(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    let text = cluster.user(&[args, &["-o", "json"]].concat()).end().done();
    serde_json::from_str(&text).expect("a list as JSON is an array")
}

/// The tasks that run, each with its node.
fn running(cluster: &Cluster) -> BTreeMap<String, String> {
    let tasks = list(cluster, &["ps"]).into_iter().filter(|task| task["phase"] == "running");
    let text = |task: &Value, key: &str| task[key].as_str().unwrap().to_owned();
    tasks.map(|task| (text(&task, "task"), text(&task, "node"))).collect()
}

/// How many of a service's tasks run on each node.
fn spread(cluster: &Cluster, service: &str) -> BTreeMap<String, usize> {
    let mut nodes = BTreeMap::new();
    for task in list(cluster, &["ps", service]).into_iter().filter(|task| task["phase"] == "running") {
        *nodes.entry(task["node"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    nodes
}

/// A node as it is listed; null if it is not.
fn node(cluster: &Cluster, name: &str) -> Value {
    list(cluster, &["node", "ls"]).into_iter().find(|node| node["node"] == name).unwrap_or_default()
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect()
}

#[test]
fn a_drain_moves_everything_and_never_takes_a_service_below_what_it_needs() {
    let cluster = Cluster::of("drain", 3);
    cluster.import_sleeper();
    let check = "    healthcheck: {test: [CMD, /bin/busybox, \"true\"], interval: 200ms}\n";
    let web = format!(
        "{check}    deploy: {{replicas: 6, update_config: {{order: start-first, parallelism: 2}}}}\n"
    );
    let db = "    deploy: {replicas: 3, update_config: {parallelism: 1}}\n";
    deploy(&cluster, &[sleeper("web", &web), sleeper("db", db)], &[]).done();
    assert_eq!(spread(&cluster, "t/web"), counts(&[("n1", 2), ("n2", 2), ("n3", 2)]));

    let draining = cluster.user(&["node", "drain", "n2"]).start();
    let mut least = (6, 3);
    until("the node to be empty", || {
        let services = list(&cluster, &["services", "t"]);
        let ready = |name: &str| {
            let service = services.iter().find(|service| service["service"] == name).unwrap();
            service["ready"].as_u64().unwrap()
        };
        least = (least.0.min(ready("t/web")), least.1.min(ready("t/db")));
        !running(&cluster).values().any(|node| node == "n2")
    });
    let drained = draining.end();
    assert!(drained.stdout.starts_with("n2: drained ("), "{drained}");
    // The one starts its new tasks first, and the other does without one at a time.
    assert_eq!(least.0, 6);
    assert!(least.1 >= 2, "{least:?}");
    assert_eq!(node(&cluster, "n2")["availability"], "drain");
    let moved = running(&cluster);
    assert_eq!(moved.len(), 9);

    // What has moved stays, and what is new may come.
    assert_eq!(cluster.user(&["node", "activate", "n2"]).end().done(), "n2: takes tasks\n");
    assert_eq!(running(&cluster), moved);
    cluster.user(&["scale", "t/db=5"]).end().done();
    assert_eq!(spread(&cluster, "t/db")["n2"], 2);
}

#[test]
fn what_has_nowhere_else_to_go_stays_through_a_drain_until_its_time_is_up() {
    let cluster = Cluster::of("stuck", 3);
    cluster.import_sleeper();
    cluster.user(&["node", "label", "n3", "disk=ssd"]).end().done();
    let tied = "    deploy: {placement: {constraints: [node.labels.disk == ssd]}}\n";
    let job = "    deploy: {mode: replicated-job, placement: {constraints: [node.hostname == n3]}}\n";
    deploy(&cluster, &[sleeper("db", tied), sleeper("job", job)], &["--detach"]).done();
    until("both to run", || running(&cluster).len() == 2);
    let before = running(&cluster);

    let late = cluster.user(&["node", "drain", "n3", "--timeout", "2s"]).end();
    assert_eq!(late.code, Some(3), "{late}");
    for part in [
        "t/db.1  no node fits: node.labels.disk == ssd is not met on 2 nodes",
        "t/job.1  runs to its end",
        "n3: not drained within 2",
        "gantry node activate n3",
    ] {
        assert!(late.stderr.contains(part), "it does not say `{part}`: {late}");
    }
    assert_eq!(running(&cluster), before);

    // Another node that can take it does, at once.
    cluster.user(&["node", "label", "n1", "disk=ssd"]).end().done();
    until("the database to move", || spread(&cluster, "t/db") == counts(&[("n1", 1)]));
    let over = cluster.user(&["node", "drain", "n3", "--deadline", "1s"]).end().done();
    assert!(over.starts_with("n3: drained ("), "{over}");
    assert_eq!(spread(&cluster, "t/job"), counts(&[]));
    cluster.user(&["node", "drain", "none"]).end().refused(4, &["none", "gantry node ls"]);
}

#[test]
fn labels_act_at_once_and_a_paused_node_gets_nothing_new() {
    let cluster = Cluster::of("labels", 3);
    cluster.import_sleeper();
    let labelled = cluster.user(&["node", "label", "n1", "zone=a", "disk=ssd"]).end().done();
    assert_eq!(labelled, "n1: disk=ssd, zone=a\n");
    let ssd = "    deploy: {replicas: 2, placement: {constraints: [node.labels.disk == ssd]}}\n";
    deploy(&cluster, &[sleeper("db", ssd)], &[]).done();
    assert_eq!(spread(&cluster, "t/db"), counts(&[("n1", 2)]));
    cluster.user(&["node", "label", "n2", "disk=ssd"]).end().done();
    cluster.user(&["node", "label", "n1", "--rm", "disk"]).end().done();
    until("them to move", || spread(&cluster, "t/db") == counts(&[("n2", 2)]));
    let labels = node(&cluster, "n1")["labels"].clone();
    assert_eq!((labels.get("zone"), labels.get("disk")), (Some(&"a".into()), None), "{labels}");
    cluster.user(&["node", "label", "n1", "--rm", "disk"]).end().refused(4, &["n1", "no label `disk`"]);
    cluster.user(&["node", "label", "n1", "disk"]).end().refused(2, &["NAME=VALUE"]);

    assert_eq!(cluster.user(&["node", "pause", "n2"]).end().done(), "n2: takes no new tasks\n");
    let waits = cluster.user(&["scale", "t/db=3", "--timeout", "2s"]).end();
    assert_eq!(waits.code, Some(3), "{waits}");
    assert!(waits.stderr.contains("1 node is paused"), "{waits}");
    assert_eq!(spread(&cluster, "t/db"), counts(&[("n2", 2)]));
    cluster.user(&["node", "activate", "n2"]).end().done();
    until("the third to come", || spread(&cluster, "t/db") == counts(&[("n2", 3)]));
}

#[test]
fn a_node_that_is_gone_for_good_is_removed_and_cannot_come_back() {
    let cluster = Cluster::of("gone", 3);
    cluster.import_sleeper();
    deploy(&cluster, &[sleeper("web", "    deploy: {replicas: 3}\n")], &[]).done();
    cluster.user(&["node", "rm", "n3"]).end().refused(5, &["n3", "is up", "gantry node drain"]);
    cluster.dev(&["node", "crash", "n3"]).end().done();
    until("it to be down", || node(&cluster, "n3")["status"] == "down");
    assert_eq!(cluster.user(&["node", "rm", "n3"]).end().done(), "n3: removed\n");
    cluster.user(&["node", "rm", "n3"]).end().refused(4, &["n3", "gantry node ls"]);
    until("what it had to run elsewhere", || running(&cluster).len() == 3);
    assert!(list(&cluster, &["ps", "--all"]).iter().all(|task| task["node"] != "n3"));
    assert_eq!(list(&cluster, &["node", "ls"]).len(), 2);

    // It has no vote any more: with two of two, the loss of one more is the loss of all, and with it back all is well.
    cluster.dev(&["node", "reboot", "n3"]).end();
    deploy(&cluster, &[sleeper("web", "    deploy: {replicas: 4}\n")], &[]).done();
    assert_eq!(list(&cluster, &["node", "ls"]).len(), 2);
    let last = list(&cluster, &["node", "ls"]).into_iter().find(|node| node["leader"] == false).unwrap();
    let last = last["node"].as_str().unwrap().to_owned();
    cluster.dev(&["node", "crash", &last]).end().done();
    let lost = cluster.user(&["node", "rm", &last]).end();
    assert!(matches!(lost.code, Some(5 | 6)), "{lost}");
    cluster.dev(&["node", "reboot", &last]).end().done();
    until("the cluster to decide again", || cluster.user(&["node", "ls"]).end().code == Some(0));
}

#[test]
fn services_say_where_they_had_better_be() {
    let cluster = Cluster::of("where", 3);
    cluster.import_sleeper();
    for (node, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
        cluster.user(&["node", "label", node, &format!("zone={zone}")]).end().done();
    }
    let zones = "    deploy: {replicas: 4, placement: {preferences: [{spread: node.labels.zone}]}}\n";
    let two = "    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}\n";
    let near = "    x-gantry: {placement: {affinity: [db]}}\n";
    let apart = "    deploy: {replicas: 2}\n    x-gantry: {placement: {anti_affinity: [db]}}\n";
    let db = "    deploy: {placement: {constraints: [node.hostname == n3]}}\n";
    let services = [
        sleeper("zones", zones),
        sleeper("one", two),
        sleeper("near", near),
        sleeper("apart", apart),
        sleeper("db", db),
    ];
    deploy(&cluster, &services, &[]).done();
    assert_eq!(spread(&cluster, "t/zones"), counts(&[("n1", 1), ("n2", 1), ("n3", 2)]));
    assert_eq!(spread(&cluster, "t/one"), counts(&[("n1", 1), ("n2", 1), ("n3", 1)]));
    assert_eq!(spread(&cluster, "t/near"), counts(&[("n3", 1)]));
    assert_eq!(spread(&cluster, "t/apart"), counts(&[("n1", 1), ("n2", 1)]));

    // A slip of the keyboard is noticed where it is one, and said where it may be meant.
    let bad = "    deploy: {placement: {constraints: [node.hostnam == n1]}}\n";
    deploy(&cluster, &[sleeper("web", bad)], &[]).refused(1, &["did you mean `node.hostname`?"]);
    let odd = "    deploy: {placement: {constraints: [node.labels.zoen == a]}}\n";
    let waits = deploy(&cluster, &[sleeper("web", odd)], &["--timeout", "2s"]);
    assert_eq!(waits.code, Some(3), "{waits}");
    assert!(waits.stderr.contains("no node has a label `zoen`: there are zone"), "{waits}");
    cluster.user(&["scale", "t/web=0"]).end().done();
}

#[test]
fn what_is_more_important_takes_the_place_of_what_is_less() {
    let cluster = Cluster::up("priority");
    cluster.import_sleeper();
    let capacity = node(&cluster, "n1")["capacity"]["cpu_millis"].as_u64().unwrap();
    let half = |replicas: u32, priority: i32| {
        let cpus = format!("{}.{:03}", capacity / 2 / 1000, capacity / 2 % 1000);
        format!(
            "    deploy: {{replicas: {replicas}, resources: {{reservations: {{cpus: '{cpus}'}}}}}}\n    x-gantry: {{placement: {{priority: {priority}}}}}\n"
        )
    };
    let batch = sleeper("batch", &half(2, -10));
    deploy(&cluster, std::slice::from_ref(&batch), &[]).done();
    let web = sleeper("web", &half(1, 10));
    deploy(&cluster, &[batch, web], &["--detach"]).done();
    until("the important one to run", || spread(&cluster, "t/web").len() == 1);
    assert_eq!(spread(&cluster, "t/batch").values().sum::<usize>(), 1);
    let waiting = list(&cluster, &["ps", "t/batch"]).into_iter().find(|task| task["phase"] == "pending");
    let reason = waiting.as_ref().and_then(|task| task["reason"].as_str()).unwrap();
    assert!(reason.contains("not enough CPU on 1 node"), "{reason}");
    cluster.user(&["scale", "t/web=0"]).end().done();
    until("what made room to be back", || spread(&cluster, "t/batch").values().sum::<usize>() == 2);
}

#[test]
fn what_became_uneven_is_shown_and_moved_when_somebody_says_so() {
    let cluster = Cluster::of("rebalance", 3);
    cluster.import_sleeper();
    let nothing = cluster.user(&["rebalance"]).end().done();
    assert_eq!(nothing, "nothing to move\n");
    cluster.user(&["node", "pause", "n3"]).end().done();
    let first =
        "    deploy: {replicas: 6, update_config: {order: start-first, parallelism: 2, monitor: 0s}}\n";
    let one = "    deploy: {replicas: 4, update_config: {monitor: 0s}}\n";
    deploy(&cluster, &[sleeper("web", first), sleeper("db", one)], &[]).done();
    cluster.user(&["node", "activate", "n3"]).end().done();
    let before = running(&cluster);

    let shown = cluster.user(&["rebalance"]).end().done();
    assert!(shown.contains("3 of it here, and 0 there"), "{shown}");
    assert!(shown.ends_with("nothing was moved; `gantry rebalance --yes` moves them\n"), "{shown}");
    let rows = list(&cluster, &["rebalance"]);
    assert_eq!(rows.len(), 3, "two of web and one of db: {rows:?}");
    assert!(rows.iter().all(|row| row["to"] == "n3"), "{rows:?}");
    assert_eq!(running(&cluster), before);

    let moved = cluster.user(&["rebalance", "--yes"]).end().done();
    assert!(moved.contains("t/db, t/web: converged"), "{moved}");
    assert_eq!(spread(&cluster, "t/web"), counts(&[("n1", 2), ("n2", 2), ("n3", 2)]));
    assert_eq!(spread(&cluster, "t/db")["n3"], 1);
    let after = running(&cluster);
    assert_eq!(before.keys().filter(|task| after.contains_key(*task)).count(), 7, "the others stay");
    assert_eq!(cluster.user(&["rebalance", "--yes"]).end().done(), "nothing to move\n");
}
