//! How services change, end to end: the real program, three real managers, real containers. Needs root, and the packages
//! nftables and busybox-static.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "host/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::fs;

use cluster::{Cluster, Ended, until};
use serde_json::Value;

/// Serves until it is told to stop.
const SERVE: &str = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";

/// A stack `t` with one service, whose containers run this script; `more` are further lines of it.
fn deploy(cluster: &Cluster, script: &str, more: &str) -> Ended {
    let file = format!(
        "services:\n  web:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{script}\"]\n{more}"
    );
    cluster.user(&["deploy", "-f", "-", "t"]).input(file).end()
}

fn list(cluster: &Cluster, args: &[&str]) -> Vec<Value> {
    let text = cluster.user(&[args, &["-o", "json"]].concat()).end().done();
    serde_json::from_str(&text).expect("a list as JSON is an array")
}

/// The tasks of the service that run, by slot.
fn running(cluster: &Cluster) -> BTreeMap<u64, String> {
    let tasks = list(cluster, &["ps", "t"]).into_iter().filter(|task| task["phase"] == "running");
    tasks.map(|task| (task["slot"].as_u64().unwrap(), task["task"].as_str().unwrap().to_owned())).collect()
}

fn rollout(cluster: &Cluster) -> Value {
    list(cluster, &["rollout", "status", "t/web"]).remove(0)
}

/// The first process of a task's container.
fn pid(cluster: &Cluster, task: &str) -> u64 {
    let document = cluster.user(&["inspect", task, "-o", "json"]).end().done();
    let document: Value = serde_json::from_str(&document).unwrap();
    document["pid"].as_u64().unwrap_or_else(|| panic!("{document}"))
}

/// The memory limit of the cgroup that a process is in, on this node's v1 or v2.
fn memory_limit(pid: u64) -> u64 {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |controller: &str| {
        cgroups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
        })
    };
    let v1 = of("memory").map(|path| format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"));
    let file = v1.or_else(|| of("").map(|path| format!("/sys/fs/cgroup{path}/memory.max"))).unwrap();
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().parse().unwrap()
}

#[test]
fn a_version_that_does_not_work_is_taken_back_and_says_why() {
    let cluster = Cluster::of("undone", 3);
    cluster.import_sleeper();
    let policy = "    deploy:\n      replicas: 3\n      update_config: {failure_action: rollback, monitor: 1s}\n      \
                  restart_policy: {condition: on-failure, delay: 100ms, max_attempts: 1}\n";
    deploy(&cluster, SERVE, policy).done();
    let before = running(&cluster);
    assert_eq!(before.len(), 3, "{before:?}");
    until("the first version to have served", || rollout(&cluster)["phase"] == "completed");

    let bad = deploy(&cluster, "echo no database >&2; exit 3", policy);
    assert_eq!(bad.code, Some(1), "{bad}");
    for part in
        ["error: t/web: ", "the rollout to v2 failed and went back to v1", "exit code 3", "no database"]
    {
        assert!(bad.stderr.contains(part), "it does not say `{part}`: {bad}");
    }
    until("the first version to run again", || running(&cluster).len() == 3);
    let after = running(&cluster);
    let untouched = before.iter().filter(|(slot, task)| after.get(slot) == Some(task)).count();
    assert_eq!(untouched, 2, "one slot was tried: {before:?} {after:?}");
    until("the way back to be over", || rollout(&cluster)["phase"] == "completed");
    let status = rollout(&cluster);
    assert_eq!(
        (&status["cause"], &status["from"], &status["to"]),
        (&"rollback".into(), &2.into(), &1.into())
    );
    assert!(status["reason"].as_str().unwrap().contains("no database"), "{status}");

    // What failed is kept, and what it changed.
    let history = list(&cluster, &["rollout", "history", "t/web"]);
    assert_eq!(history.len(), 2, "{history:?}");
    assert_eq!((&history[0]["version"], &history[0]["current"]), (&2.into(), &false.into()));
    assert!(history[0]["by"].as_str().unwrap().starts_with("root on n"), "{history:?}");
    assert_eq!(history[0]["changes"][0]["path"], "command");
    cluster.user(&["rollout", "undo", "t/web", "--to", "9"]).end().refused(4, &["v9", "rollout history"]);
    cluster.user(&["rollout", "status", "t/none"]).end().refused(4, &["t/none"]);
}

#[test]
fn a_rollout_goes_on_when_its_leader_is_killed_and_is_undone_by_a_word() {
    let cluster = Cluster::of("led", 3);
    cluster.import_sleeper();
    let policy = "    deploy:\n      replicas: 12\n      update_config: {parallelism: 2, order: start-first}\n    \
                  x-gantry: {rollout: {min_healthy: 200ms}}\n";
    deploy(&cluster, SERVE, policy).done();
    let old = running(&cluster);
    let file = format!(
        "services:\n  web:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{SERVE}\"]\n    \
         environment: {{V: 2}}\n{policy}"
    );
    let written = tempfile::NamedTempFile::new().unwrap();
    fs::write(written.path(), file).unwrap();
    let path = written.path().to_str().unwrap();
    let deploying = cluster.user(&["deploy", "-f", path, "t"]).start();
    until("a part of it to be done", || {
        let done = rollout(&cluster)["done"].as_u64().unwrap();
        (2..12).contains(&done)
    });
    let nodes = list(&cluster, &["node", "ls"]);
    let leader =
        nodes.iter().find(|node| node["leader"] == true).unwrap()["node"].as_str().unwrap().to_owned();
    cluster.dev(&["node", "kill", &leader]).end().done();
    let ended = deploying.end();
    assert_eq!(ended.code, Some(0), "{ended}");
    cluster.dev(&["node", "start", &leader]).end().done();
    assert_eq!(rollout(&cluster)["phase"], "completed");
    // The node that was taken for lost learns what of it is not wanted any more.
    until("twelve new containers, and none of the old ones", || {
        let tasks = list(&cluster, &["ps", "t"]);
        let is_old = |task: &Value| old.values().any(|old| task["task"] == **old);
        tasks.len() == 12 && !tasks.iter().any(is_old) && running(&cluster).len() == 12
    });

    cluster.user(&["rollout", "undo", "t/web"]).end().done();
    let status = rollout(&cluster);
    assert_eq!(
        (&status["cause"], &status["to"], &status["phase"]),
        (&"undo".into(), &1.into(), &"completed".into())
    );
}

#[test]
fn what_a_running_container_can_be_changed_to_takes_no_other_one() {
    let cluster = Cluster::up("revised");
    cluster.import_sleeper();
    let with = |memory: &str, label: &str| {
        format!(
            "    labels: {{tier: {label}}}\n    deploy: {{resources: {{limits: {{memory: {memory}}}}}}}\n"
        )
    };
    deploy(&cluster, SERVE, &with("32m", "front")).done();
    let task = running(&cluster).remove(&1).unwrap();
    let process = pid(&cluster, &task);
    assert_eq!(memory_limit(process), 32 << 20);
    deploy(&cluster, SERVE, &with("64m", "back")).done();
    assert_eq!(running(&cluster).remove(&1), Some(task.clone()));
    assert_eq!(pid(&cluster, &task), process);
    until("the limit to be in force", || memory_limit(process) == 64 << 20);
    let nothing = deploy(&cluster, SERVE, &with("64m", "back"));
    assert!(nothing.stderr.contains("t: nothing to change"), "{nothing}");

    // Less memory may be in use already.
    deploy(&cluster, SERVE, &with("48m", "back")).done();
    assert_ne!(running(&cluster).remove(&1), Some(task));
}

#[test]
fn canaries_wait_to_be_promoted_and_a_pause_holds() {
    let cluster = Cluster::up("canary");
    cluster.import_sleeper();
    let policy =
        "    deploy: {replicas: 3, update_config: {monitor: 0s}}\n    x-gantry: {rollout: {canaries: 1}}\n";
    deploy(&cluster, SERVE, policy).done();
    let old = running(&cluster);
    let changed = format!("    environment: {{V: 2}}\n{policy}");
    deploy(&cluster, SERVE, &changed).done();
    let differ =
        |now: &BTreeMap<u64, String>| old.iter().filter(|(slot, task)| now.get(slot) != Some(task)).count();
    assert_eq!(differ(&running(&cluster)), 1);
    assert_eq!(rollout(&cluster)["promoted"], false);
    // What is scaled meanwhile comes as the others are.
    cluster.user(&["rollout", "pause", "t/web"]).end().done();
    cluster.user(&["rollout", "promote", "t/web"]).end().refused(5, &["paused", "rollout resume"]);
    cluster.user(&["rollout", "resume", "t/web"]).end().done();
    cluster.user(&["rollout", "promote", "t/web"]).end().done();
    assert_eq!(differ(&running(&cluster)), 3);
    assert_eq!(rollout(&cluster)["phase"], "completed");

    // A file that names no number of replicas keeps the one that there is.
    cluster.user(&["scale", "t/web=4"]).end().done();
    deploy(&cluster, SERVE, "    environment: {V: 3}\n").done();
    assert_eq!(running(&cluster).len(), 4);
    let index = list(&cluster, &["stacks"])[0]["generation"].as_u64().unwrap().to_string();
    cluster.user(&["scale", "t/web=2"]).end().done();
    let late = cluster.user(&["deploy", "-f", "-", "--check-index", &index, "t"]);
    late.input("services: {web: {image: sleeper}}").end().refused(5, &["`t` has changed meanwhile"]);
}

#[test]
fn a_plan_says_what_a_deployment_then_does() {
    let cluster = Cluster::of("planned", 3);
    cluster.import_sleeper();
    let file = |replicas: u32, version: u32| {
        format!(
            "services:\n  web:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{SERVE}\"]\n    \
             environment: {{V: {version}}}\n    deploy: {{replicas: {replicas}, update_config: {{monitor: 0s}}}}\n"
        )
    };
    let plan = |text: String| {
        cluster.user(&["plan", "-f", "-", "t", "-o", "json", "--detailed-exitcode"]).input(text).end()
    };
    let document = |ended: &Ended| -> Value { serde_json::from_str(&ended.stdout).unwrap() };
    let planned = plan(file(3, 1));
    assert_eq!(planned.code, Some(7), "{planned}");
    assert_eq!(document(&planned)["services"][0]["action"], "create");
    assert_eq!(list(&cluster, &["ps"]).len(), 0, "a plan does nothing");

    cluster.user(&["deploy", "-f", "-", "t", "--check-index", "0"]).input(file(3, 1)).end().done();
    let unchanged = plan(file(3, 1));
    assert_eq!(
        (unchanged.code, &document(&unchanged)["services"][0]["action"]),
        (Some(0), &"unchanged".into())
    );

    let planned = plan(file(4, 2));
    let service = document(&planned)["services"][0].clone();
    assert_eq!(service["action"], "replace", "{planned}");
    let index = document(&planned)["index"].as_u64().unwrap().to_string();
    let deploy = ["deploy", "-f", "-", "t", "--check-index", &index];
    cluster.user(&deploy).input(file(4, 2)).end().done();
    let where_they_are: BTreeMap<u64, Value> = list(&cluster, &["ps", "t"])
        .into_iter()
        .map(|task| (task["slot"].as_u64().unwrap(), task["node"].clone()))
        .collect();
    let where_planned: BTreeMap<u64, Value> = service["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| (task["slot"].as_u64().unwrap(), task["to_node"].clone()))
        .collect();
    assert_eq!(where_they_are, where_planned);
    cluster.user(&deploy).input(file(2, 3)).end().refused(5, &["`t` has changed meanwhile"]);
}
