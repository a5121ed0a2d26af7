//! Which slots a service has, end to end: the real program, three real managers, real containers. Needs root, and the packages
//! nftables and busybox-static.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "host/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, Ended, until};
use serde_json::Value;

/// A stack `t` with one service, which sleeps; `more` are further lines of it.
fn deploy(cluster: &Cluster, more: &str) -> Ended {
    let sleep = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";
    let file = format!(
        "services:\n  web:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{sleep}\"]\n{more}"
    );
    cluster.user(&["deploy", "-f", "-", "t"]).input(file).end()
}

fn list(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    let text = cluster.user(&[args, &["-o", "json"]].concat()).end().done();
    serde_json::from_str(&text).expect("a list as JSON is an array")
}

/// The tasks that run, by their nodes.
fn running(cluster: &Cluster) -> BTreeMap<String, String> {
    let tasks = list(cluster, &["ps", "t"]).into_iter().filter(|task| task["phase"] == "running");
    let text = |task: &Value, key: &str| task[key].as_str().unwrap().to_owned();
    tasks.map(|task| (text(&task, "node"), text(&task, "task"))).collect()
}

#[test]
fn a_global_service_is_on_every_node_that_may_have_it() {
    let cluster = Cluster::of("global", 3);
    cluster.import_sleeper();
    let global = "    deploy:\n      mode: global\n";
    deploy(&cluster, &format!("{global}      placement: {{constraints: [node.hostname != n2]}}\n")).done();
    let first = running(&cluster);
    assert_eq!(first.keys().collect::<Vec<_>>(), ["n1", "n3"]);

    // Where it may be now it comes, and where it is it stays.
    deploy(&cluster, global).done();
    let all = running(&cluster);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    assert!(first.iter().all(|(node, task)| all.get(node) == Some(task)), "{first:?} {all:?}");
    let service = list(&cluster, &["services", "t"]).remove(0);
    assert_eq!((&service["mode"], &service["desired"]), (&"global".into(), &3.into()), "{service}");
    cluster.user(&["scale", "t/web=2"]).end().refused(1, &["t/web", "global"]);

    // What is on a node that is gone is not made up for elsewhere, and a new version does not wait for it.
    cluster.dev(&["node", "crash", "n2"]).end().done();
    until("the node to be down", || list(&cluster, &["services", "t"])[0]["desired"] == 2);
    deploy(&cluster, &format!("    environment: {{V: 2}}\n{global}")).done();
    let two = running(&cluster);
    assert_eq!(two.keys().collect::<Vec<_>>(), ["n1", "n3"]);
    assert!(two.iter().all(|(node, task)| all.get(node) != Some(task)), "{two:?} {all:?}");
    cluster.dev(&["node", "reboot", "n2"]).end().done();
    until("the node that returned to have the new version", || {
        let now = running(&cluster);
        now.len() == 3 && now.get("n2") != all.get("n2")
    });
    assert!(two.iter().all(|(node, task)| running(&cluster).get(node) == Some(task)));
}

#[test]
fn a_service_that_changes_its_mode_is_made_anew() {
    let cluster = Cluster::of("remade", 3);
    cluster.import_sleeper();
    deploy(&cluster, "    deploy: {replicas: 2}\n").done();
    let before = running(&cluster);
    deploy(&cluster, "    deploy: {mode: global}\n").done();
    let after = running(&cluster);
    assert_eq!(after.len(), 3, "{after:?}");
    assert!(before.values().all(|task| after.values().all(|other| other != task)), "{before:?} {after:?}");
    deploy(&cluster, "    deploy: {replicas: 1}\n").done();
    assert_eq!(running(&cluster).len(), 1);
    assert_eq!(list(&cluster, &["services", "t"])[0]["mode"], "replicated");
}
