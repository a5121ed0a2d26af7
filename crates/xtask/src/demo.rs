//! `cargo xtask demo`: what gantry does, shown on this machine with what it measured.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cluster::{self, Cluster, Task, busiest_follower};
use crate::output::{Story, mebibytes, say, seconds};
use crate::{http, images, inventory, packages, procs, project, wait};

const NAME: &str = "demo";
const NODES: u8 = 3;
const STACK: &str = "hello";
const SERVICE: &str = "hello/web";
/// As `scenarios/hello/compose.yaml` says, and where the demo scales it to.
const REPLICAS: usize = 3;
const SCALED: u32 = 9;

pub(crate) fn run(keep: bool) -> Result<()> {
    packages::demand_root("the demo")?;
    wait::heed_signals()?;
    cluster::demand_absent(NAME)?;
    let story = Story::begin("gantry: three nodes on this machine, a web server, and what can go wrong");
    let gantry = prepare(&story)?;
    let before = inventory::take(NAME)?;

    let began = Instant::now();
    let demo = Demo { cluster: Cluster::up(&gantry, NAME, NODES)?, story };
    demo.cluster.await_nodes(NODES.into())?;
    demo.story.tell(format_args!(
        "three nodes are up, each a manager and a worker, after {}",
        seconds(began.elapsed())
    ));
    demo.deploy()?;
    demo.scale()?;
    demo.lose_a_node()?;
    demo.lose_the_leader()?;

    let Demo { cluster, story } = demo;
    if keep {
        cluster.keep();
        story.tell("all done; the cluster stays up");
        explain(&gantry);
        return Ok(());
    }
    let began = Instant::now();
    cluster.down()?;
    story.tell(format_args!("the cluster is down after {}", seconds(began.elapsed())));
    inventory::demand_equal(NAME, &before)?;
    story.tell("nothing is left: no process, mount, cgroup, namespace, interface, rule or file that was not there before");
    Ok(())
}

/// Packages, program and images; no cluster yet.
fn prepare(story: &Story) -> Result<PathBuf> {
    let installed = packages::ensure(&packages::ALL)?;
    match installed.as_slice() {
        [] => story.tell("system packages: all there"),
        some => story.tell(format_args!("system packages: installed {}", some.join(", "))),
    }
    story.tell("building gantry (a first build takes 30 to 40 minutes on two cores, most of it RocksDB)");
    let gantry = project::build()?;
    story.tell(format_args!("built {}", gantry.display()));
    for name in ["busybox", "nginx"] {
        let made = images::make(name, false)?;
        let how = made.took.map_or_else(
            || "was there".to_owned(),
            |took| format!("made from Debian packages in {}", seconds(took)),
        );
        story.tell(format_args!("image {name}: {}, {how}", mebibytes(made.bytes)));
    }
    Ok(gantry)
}

struct Demo {
    cluster: Cluster,
    story: Story,
}

impl Demo {
    fn deploy(&self) -> Result<()> {
        let Self { cluster, story } = self;
        for image in ["busybox", "nginx"] {
            let began = Instant::now();
            cluster.import(image)?;
            story
                .tell(format_args!("imported {image}: two nodes hold it after {}", seconds(began.elapsed())));
        }
        let began = Instant::now();
        cluster.deploy(&compose(), STACK)?;
        story.tell(format_args!(
            "deployed scenarios/hello/compose.yaml: {REPLICAS} web servers run after {}",
            seconds(began.elapsed())
        ));
        for task in cluster.await_tasks(SERVICE, REPLICAS)? {
            story.detail(ask(&task)?);
        }
        Ok(())
    }

    fn scale(&self) -> Result<()> {
        let Self { cluster, story } = self;
        let began = Instant::now();
        cluster.scale(SERVICE, SCALED)?;
        story.tell(format_args!("scaled from {REPLICAS} to {SCALED} in {}", seconds(began.elapsed())));
        let tasks = cluster.await_tasks(SERVICE, replicas())?;
        story.detail(spread(&tasks));
        Ok(())
    }

    /// A machine dies, and comes back.
    fn lose_a_node(&self) -> Result<()> {
        let Self { cluster, story } = self;
        let (nodes, tasks) = (cluster.nodes()?, cluster.tasks(SERVICE)?);
        let lost = busiest_follower(&nodes, &tasks).context("there is no node but the leader")?;
        let there = tasks.iter().filter(|task| task.is_on(lost)).count();
        let began = Instant::now();
        cluster.fault("crash", lost)?;
        story.tell(format_args!("{lost} crashed, and with it {there} web servers"));
        let tasks = cluster.await_tasks_elsewhere(SERVICE, replicas(), lost)?;
        story.tell(format_args!("{there} others run elsewhere {} after the crash", seconds(began.elapsed())));
        story.detail(spread(&tasks));
        for task in &tasks {
            ask(task)?;
        }
        story.detail("all nine answer over HTTP");

        let began = Instant::now();
        cluster.fault("reboot", lost)?;
        cluster.await_nodes(NODES.into())?;
        story.tell(format_args!(
            "{lost} is back, as itself and without what it had run, after {}",
            seconds(began.elapsed())
        ));
        let tasks = cluster.await_tasks(SERVICE, replicas())?;
        story.detail(format_args!("{} web servers, none of them twice", tasks.len()));
        Ok(())
    }

    /// The leader's daemon is killed, its containers are not.
    fn lose_the_leader(&self) -> Result<()> {
        let Self { cluster, story } = self;
        let leader = cluster.leader()?;
        let before = procs::containers(NAME)?;
        let began = Instant::now();
        cluster.fault("kill", &leader)?;
        story.tell(format_args!("{leader}, the leader, is killed with -9"));
        cluster.deploy(&compose(), "again")?;
        let took = began.elapsed();
        let next = cluster.leader()?;
        story.tell(format_args!(
            "a deploy went through and its {REPLICAS} web servers run {} after that; {next} leads",
            seconds(took)
        ));

        let after = procs::containers(NAME)?;
        let stopped: Vec<&String> = before
            .iter()
            .filter(|(task, own)| after.get(*task) != Some(*own))
            .map(|(task, _)| task)
            .collect();
        if !stopped.is_empty() {
            bail!("killing {leader}'s daemon touched the containers of {stopped:?}");
        }
        story.detail(format_args!(
            "no container noticed: the same {} processes still run",
            before.values().map(|own| own.len()).sum::<usize>()
        ));

        cluster.fault("start", &leader)?;
        cluster.await_nodes(NODES.into())?;
        cluster.await_tasks(SERVICE, replicas())?;
        cluster.await_tasks("again/web", REPLICAS)?;
        story.tell(format_args!("{leader} is started again, and all is as declared"));
        Ok(())
    }
}

fn compose() -> PathBuf {
    project::root().join("scenarios/hello/compose.yaml")
}

fn replicas() -> usize {
    usize::try_from(SCALED).expect("nine fits")
}

/// Asks a web server, which may have a moment between its start and its first answer.
fn ask(task: &Task) -> Result<String> {
    let address =
        task.published(80).with_context(|| format!("web.{} has no published port 80", task.slot))?;
    let answer = wait::until("an answer", Duration::from_secs(10), || http::get(address).map(Some))?;
    if answer.status != 200 {
        bail!("http://{address}/ answers {}", answer.status);
    }
    let host = answer.header("x-task").unwrap_or("nobody in particular");
    Ok(format!(
        "http://{address}/ on {}: \"{}\", says {host}",
        task.node.as_deref().unwrap_or("?"),
        answer.body.trim()
    ))
}

/// How many tasks each node has.
fn spread(tasks: &[Task]) -> String {
    let mut nodes: Vec<&str> = tasks.iter().filter_map(|task| task.node.as_deref()).collect();
    nodes.sort_unstable();
    let on = |chunk: &[&str]| format!("{} on {}", chunk.len(), chunk[0]);
    nodes.chunk_by(|a, b| a == b).map(on).collect::<Vec<_>>().join(", ")
}

fn explain(gantry: &Path) {
    let dir = gantry.parent().unwrap_or_else(|| Path::new("."));
    say(format_args!("\n  export PATH={}:$PATH GANTRY_CONTEXT={NAME}", dir.display()));
    say("  gantry ps                            what runs where, and at which address");
    say("  gantry scale hello/web=30            more of it");
    say("  gantry logs hello -f                 what it prints; `curl` one of the addresses meanwhile");
    say("  gantry dev node crash n2             pull a plug, then look at `gantry ps` and `gantry node ls`");
    say("  gantry dev node reboot n2");
    say(format_args!("  gantry dev down --name {NAME}          the end\n"));
    say("Other faults: kill start, pause resume, partition heal.");
}
