//! Which slots a service has, for how long and from when on, end to end: the real program, three real managers, real containers. Needs root, and the packages
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
    let tasks = list(cluster, &["ps"]).into_iter().filter(|task| task["phase"] == "running");
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

/// A stack `t` with one service, `job`, of which each container runs this script; `more` are further lines of it.
fn deploy_job(cluster: &Cluster, script: &str, more: &str) -> Ended {
    let file = format!(
        "services:\n  job:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{script}\"]\n{more}"
    );
    cluster.user(&["deploy", "-f", "-", "t"]).input(file).end()
}

fn runs(cluster: &Cluster) -> Vec<Value> {
    list(cluster, &["job", "history", "t/job"])
}

#[test]
fn a_job_is_done_when_every_slot_has_succeeded_and_again_when_somebody_asks() {
    let cluster = Cluster::of("job", 3);
    cluster.import_sleeper();
    let three = "    deploy: {mode: replicated-job, replicas: 3}\n    x-gantry: {job: {parallelism: 2}}\n";
    let deployed = deploy_job(&cluster, "echo tidy", three);
    assert!(deployed.done().contains("t/job: run 1, 3/3 done"));
    let run = runs(&cluster).remove(0);
    assert_eq!(
        (&run["run"], &run["status"], &run["done"], &run["cause"]),
        (&1.into(), &"succeeded".into(), &3.into(), &"deploy".into()),
        "{run}"
    );
    let service = list(&cluster, &["services", "t"]).remove(0);
    assert_eq!((&service["mode"], &service["desired"]), (&"replicated-job".into(), &0.into()), "{service}");
    let logs = cluster.user(&["logs", "t/job"]).end().done();
    assert_eq!(logs.matches("tidy").count(), 3, "{logs}");

    // The same file again does nothing, and a word does.
    let again = deploy_job(&cluster, "echo tidy", three);
    assert!(again.stderr.contains("t: nothing to change"), "{again}");
    let asked = cluster.user(&["job", "run", "t/job"]).end().done();
    assert!(asked.contains("t/job: run 2, 3/3 done"), "{asked}");
    assert_eq!(runs(&cluster).len(), 2);
    assert!(runs(&cluster)[0]["by"].as_str().unwrap().starts_with("root on n"));
    cluster.user(&["rollout", "restart", "t/job"]).end().refused(1, &["t/job", "gantry job run t/job"]);
    cluster.user(&["job", "run", "t/none"]).end().refused(4, &["t/none", "gantry job ls"]);
}

#[test]
fn a_job_that_fails_says_why_and_one_that_takes_too_long_is_stopped() {
    let cluster = Cluster::up("badjob");
    cluster.import_sleeper();
    let once = "    deploy: {mode: replicated-job, restart_policy: {condition: none}}\n";
    let failed = deploy_job(&cluster, "echo no database >&2; exit 3", once);
    assert_eq!(failed.code, Some(1), "{failed}");
    for part in ["t/job: run 1 failed", "exit code 3", "no database", "gantry job history t/job"] {
        assert!(failed.stderr.contains(part), "it does not say `{part}`: {failed}");
    }
    let sleep = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";
    let slow = deploy_job(&cluster, sleep, &format!("{once}    x-gantry: {{job: {{deadline: 2s}}}}\n"));
    assert_eq!(slow.code, Some(1), "{slow}");
    assert!(slow.stderr.contains("not done within its deadline of 2 s"), "{slow}");
    until("its container to be stopped", || running(&cluster).is_empty());

    // One that goes on is not begun again, and is ended by a word.
    let again = cluster.user(&["job", "run", "t/job", "--detach"]).end().done();
    assert!(again.contains("gantry job history t/job"), "{again}");
    cluster.user(&["job", "run", "t/job"]).end().refused(5, &["run 3", "gantry job stop t/job"]);
    assert!(cluster.user(&["job", "stop", "t/job"]).end().done().contains("t/job: stopped"));
    assert!(cluster.user(&["job", "stop", "t/job"]).end().done().contains("no run goes on"));
    let runs = runs(&cluster);
    let status: Vec<&str> = runs.iter().map(|run| run["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["stopped", "failed", "failed"], "{runs:?}");
}

#[test]
fn a_job_with_times_of_its_own_is_done_at_the_next_and_when_somebody_asks() {
    let cluster = Cluster::up("cron");
    cluster.import_sleeper();
    let minutely = "    deploy: {mode: replicated-job}\n    x-gantry: {schedule: \"* * * * *\"}\n";
    let deployed = deploy_job(&cluster, "echo tidy", minutely).done();
    assert!(deployed.contains("t/job: is done next at 20"), "{deployed}");
    let job = list(&cluster, &["job", "ls"]).remove(0);
    assert_eq!((&job["schedule"], &job["run"]), (&"* * * * *".into(), &Value::Null), "{job}");
    assert!(job["next"].as_str().unwrap().ends_with(":00.000Z"), "{job}");
    assert!(cluster.user(&["job", "run", "t/job"]).end().done().contains("run 1, 1/1 done"));
    until("the minute to be over and the job to be done", || {
        runs(&cluster).iter().any(|run| run["cause"] == "schedule" && run["status"] == "succeeded")
    });
    let logs = cluster.user(&["logs", "t/job"]).end().done();
    assert!(logs.matches("tidy").count() >= 2, "{logs}");
}

#[test]
fn what_a_lost_node_was_doing_is_done_elsewhere() {
    let cluster = Cluster::of("lostjob", 3);
    cluster.import_sleeper();
    let script = "trap 'exit 1' TERM; /bin/busybox sleep 5 & wait";
    let job = "    deploy: {mode: replicated-job}\n";
    let file = format!(
        "services:\n  job:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"{script}\"]\n{job}"
    );
    let written = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(written.path(), file).unwrap();
    let deploying = cluster.user(&["deploy", "-f", written.path().to_str().unwrap(), "t"]).start();
    until("it to be begun", || !running(&cluster).is_empty());
    let node = running(&cluster).into_keys().next().unwrap();
    cluster.dev(&["node", "crash", &node]).end().done();
    let ended = deploying.end();
    assert_eq!(ended.code, Some(0), "{ended}");
    let run = runs(&cluster).remove(0);
    assert_eq!((&run["status"], &run["done"]), (&"succeeded".into(), &1.into()), "{run}");
    let tasks = list(&cluster, &["ps", "t", "--all"]);
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    cluster.dev(&["node", "reboot", &node]).end().done();
    until("the node to be back and nothing to run twice", || {
        list(&cluster, &["node", "ls"]).iter().all(|node| node["status"] == "ready")
            && running(&cluster).is_empty()
    });
    assert_eq!(runs(&cluster).len(), 1);
}

#[test]
fn services_are_begun_in_the_order_that_they_need() {
    let cluster = Cluster::up("order");
    cluster.import_sleeper();
    let service = |name: &str, script: &str, more: &str| {
        format!(
            "  {name}:\n    image: sleeper\n    command: [/bin/busybox, sh, -c, \"echo {name} begins; {script}\"]\n{more}"
        )
    };
    let serve = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";
    let check =
        "    healthcheck: {test: [CMD, /bin/busybox, test, -f, /ready], interval: 100ms, retries: 100}\n";
    let needs = |what: &str| format!("    depends_on: {{{what}}}\n");
    let database = format!("/bin/busybox sleep 1; echo db is ready; echo > /ready; {serve}");
    let file = |migration: &str| {
        let web = needs("migrate: {condition: service_completed_successfully}, db: ");
        let once = "    deploy: {mode: replicated-job, restart_policy: {condition: none}}\n";
        let migrate = needs("db: {condition: service_healthy}") + once;
        let web = service("web", serve, &web);
        let migrate = service("migrate", migration, &migrate);
        format!("services:\n{web}{migrate}{}", service("db", &database, check))
    };
    let deploy = |text: String| cluster.user(&["deploy", "-f", "-", "t"]).input(text).end();
    let deployed = deploy(file("/bin/busybox sleep 1; echo migrate ends"));
    assert!(deployed.stderr.contains("waiting: slot 1 waits until db is healthy"), "{deployed}");
    assert!(deployed.done().contains("t/migrate: run 1, 1/1 done"));
    let order = ["db begins", "db is ready", "migrate begins", "migrate ends", "web begins"];
    let logs = cluster.user(&["logs", "t"]).end().done();
    let places: Vec<_> = order.iter().map(|line| logs.find(line)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{logs}");

    // A new version waits for what it needs as well; where that fails, the old one serves on.
    let before = list(&cluster, &["ps", "t/web"])[0]["task"].clone();
    let anew = |migration: &str| file(migration).replace("echo web begins", "echo web begins anew");
    let failed = deploy(anew("exit 3"));
    assert_eq!(failed.code, Some(1), "{failed}");
    assert!(failed.stderr.contains("t/migrate: run 2 failed"), "{failed}");
    let tasks = list(&cluster, &["ps", "t/web"]);
    assert_eq!((tasks.len(), &tasks[0]["task"]), (1, &before), "{tasks:?}");
    let status = list(&cluster, &["rollout", "status", "t/web"]).remove(0);
    assert_eq!((&status["phase"], &status["done"]), (&"running".into(), &0.into()), "{status}");
    let waiting = status["waiting"][0].as_str().unwrap();
    assert!(waiting.contains("until migrate has completed successfully"), "{status}");
    deploy(anew("echo migrate ends")).done();
    assert!(cluster.user(&["logs", "t/web"]).end().done().contains("web begins anew"));
}

#[test]
fn what_belongs_to_a_start_and_a_stop_is_run_in_the_container() {
    let cluster = Cluster::up("hooks");
    cluster.import_sleeper();
    let serve = "echo serves; trap 'echo told to stop; exit 0' TERM; /bin/busybox sleep 1000000000 & wait";
    let file = |warm: &str| {
        format!(
            "services:
  web:
    image: sleeper
    command: [/bin/busybox, sh, -c, \"{serve}\"]
    post_start:
      - command: [/bin/busybox, sh, -c, \"{warm}\"]
        environment: {{HOW: fast}}
        working_dir: /bin
    pre_stop:
      - command: [/bin/busybox, sh, -c, \"echo flushed > /proc/1/fd/1\"]
    deploy: {{restart_policy: {{max_attempts: 1, delay: 100ms}}}}
"
        )
    };
    let deploy = |text: String| cluster.user(&["deploy", "-f", "-", "t"]).input(text).end();
    deploy(file("echo warm $$HOW in $$PWD > /proc/1/fd/1")).done();
    let logs = cluster.user(&["logs", "t/web"]).end().done();
    assert!(logs.contains("warm fast in /bin"), "{logs}");
    cluster.user(&["scale", "t/web=0"]).end().done();

    // One that fails is the end of its container, and is said.
    let failed = deploy(
        file("echo no cache >&2; exit 7")
            .replace("image: sleeper", "image: sleeper\n    stop_grace_period: 2s"),
    );
    cluster.user(&["scale", "t/web=1", "--timeout", "20s"]).end();
    let reason = || {
        let tasks = list(&cluster, &["ps", "t", "--all"]);
        tasks.iter().map(|task| task["reason"].to_string()).collect::<Vec<_>>().join("; ")
    };
    until("the failure to be said", || reason().contains("post_start"));
    assert!(reason().contains("no cache"), "{} {failed}", reason());
}
