//! Daemons go and come back, of another build or after a reboot, and find what is to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{NAME, STACK, Tally, qualified};
use crate::cluster::{Cluster, PATIENCE, Task};
use crate::command::Call;
use crate::output::{say, seconds};
use crate::procs::{self, Process};
use crate::{wait, workload};

/// Containers that end while there is no daemon.
const BRIEF: u32 = 10;
/// How long a daemon may take until everything of its node is known again. As long as that takes, its cluster knows less
/// than its containers do.
const SOON: Duration = Duration::from_secs(5);
/// How much the clock has to have counted before, without and after the daemon.
const TICKS: u64 = 10;

/// On a worker that is rebooted.
const REVIVED: u32 = 5;
const MANAGER: &str = "n1";
const WORKER: &str = "n2";

/// The processes of each task.
type Containers = BTreeMap<String, BTreeSet<Process>>;

/// The one node of a cluster runs `count` containers and some that end while its daemon is dead. The next daemon is another
/// build. It touches no container, and knows of each, of how some have ended, and of all that was printed.
pub(super) fn by_another_build(
    cluster: &mut Cluster,
    build: &Path,
    count: u32,
    tally: &mut Tally,
) -> Result<()> {
    cluster.await_nodes(1)?;
    cluster.import("busybox")?;
    cluster.deploy_text(workload::survivors(count, BRIEF), STACK)?;
    let brief = ids(&cluster.await_tasks(&qualified("brief"), usize::try_from(BRIEF)?)?);
    let steady = cluster.await_tasks(&qualified("steady"), usize::try_from(count)?)?.len() + 1;
    await_ticks(cluster, TICKS)?;
    let (passing, lasting): (Containers, Containers) =
        procs::containers(NAME)?.into_iter().partition(|(task, _)| brief.contains(task));

    cluster.fault("kill", MANAGER)?;
    tally.kills += 1;
    tally.violations.extend(touched(&lasting, "killing its daemon")?);
    end(&passing)?;
    // So that the clock has something to say that no daemon hears.
    wait::pause(Duration::from_secs(1))?;

    cluster.upgrade(build);
    let began = Instant::now();
    cluster.fault("start", MANAGER)?;
    wait::until("every container to be known again", PATIENCE, || {
        Ok(is_known(&cluster.all_tasks(STACK)?, &brief, steady).then_some(()))
    })?;
    (tally.adopted, tally.adoption) = (steady, began.elapsed());
    say(format_args!(
        "{:>8}  {steady} containers adopted by another build, with the ends of {BRIEF} others",
        seconds(tally.adoption)
    ));
    if tally.adoption > SOON {
        let took = seconds(tally.adoption);
        tally.violations.push(format!("it took {took} until {steady} containers were adopted, not 5 s"));
    }
    if !runs(build)? {
        tally.violations.push(format!("the daemon that was started is not {}", build.display()));
    }
    tally.violations.extend(touched(&lasting, "the start of another build")?);
    tally.violations.extend(unheard(cluster, &brief)?);
    // What was adopted can be stopped.
    cluster.remove(STACK)?;
    wait::until("the shims of what was removed to end", PATIENCE, || {
        Ok(procs::shims(NAME)?.is_empty().then_some(()))
    })
}

/// A worker is rebooted while the only manager is dead. What ran on it runs again, and is what it was once there is a
/// manager.
pub(super) fn after_a_reboot(cluster: &Cluster, tally: &mut Tally) -> Result<()> {
    cluster.await_nodes(2)?;
    cluster.import("busybox")?;
    cluster.deploy_text(workload::sleepers_on(WORKER, REVIVED), STACK)?;
    let count = usize::try_from(REVIVED)?;
    let tasks = ids(&cluster.await_tasks(STACK, count)?);
    let before = procs::containers(NAME)?;
    cluster.fault("kill", MANAGER)?;
    tally.kills += 1;
    let began = Instant::now();
    cluster.fault("reboot", WORKER)?;
    let revived = wait::until("the rebooted worker to run what it ran", PATIENCE, || {
        let now = procs::containers(NAME)?;
        Ok((now.len() == count).then_some(now))
    })?;
    say(format_args!(
        "{:>8}  {count} containers run again on a worker that was rebooted without managers",
        seconds(began.elapsed())
    ));
    tally.revived = count;
    for (task, processes) in &revived {
        match before.get(task) {
            None => tally.violations.push(format!("{task} runs after a reboot and did not before")),
            Some(old) if old.is_disjoint(processes) => {}
            Some(_) => tally.violations.push(format!("a process of {task} has outlived a reboot")),
        }
    }
    cluster.fault("start", MANAGER)?;
    cluster.await_nodes(2)?;
    let after = ids(&cluster.await_tasks(STACK, count)?);
    if after != tasks {
        tally.violations.push(format!("a reboot made other tasks of {tasks:?}: {after:?}"));
    }
    Ok(())
}

fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().filter_map(|task| task.task.clone()).collect()
}

/// Which of these containers have lost their first process, and by what.
fn touched(containers: &Containers, by: &str) -> Result<Vec<String>> {
    let now = procs::containers(NAME)?;
    // Others come and go: the programs that a shell starts.
    let is_gone = |task: &String, own: &BTreeSet<Process>| {
        now.get(task).is_none_or(|now| own.intersection(now).next().is_none())
    };
    let gone = containers.iter().filter(|(task, own)| is_gone(task, own));
    Ok(gone.map(|(task, _)| format!("{by} touched the container of {task}")).collect())
}

/// Tells these containers to end, and waits until they have.
fn end(containers: &Containers) -> Result<()> {
    // The first process alone: a shell whose program ends before it has heard anything ends as if all were well.
    let firsts = containers.values().filter_map(procs::first);
    let pids: Vec<String> = firsts.map(|process| process.pid.to_string()).collect();
    Call::of("kill").arg("-TERM").args(&pids).read()?;
    wait::until("containers to end without a daemon", PATIENCE, || {
        let now = procs::containers(NAME)?;
        Ok(containers.keys().all(|task| !now.contains_key(task)).then_some(()))
    })
}

/// A program that does the same, and is another file with another digest.
pub(super) fn another_build(gantry: &Path) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().context("cannot make a directory")?;
    let build = folder.path().join("gantry");
    let made = fs::copy(gantry, &build).and_then(|_| {
        // Behind its last section, where nobody looks.
        OpenOptions::new().append(true).open(&build)?.write_all(b"another build\n")
    });
    made.with_context(|| format!("cannot copy {} to {}", gantry.display(), build.display()))?;
    Ok((folder, build))
}

/// Whether the manager's daemon is this program.
fn runs(program: &Path) -> Result<bool> {
    let daemon = *procs::daemons(NAME)?.get(MANAGER).with_context(|| format!("{MANAGER} has no daemon"))?;
    let runs = fs::read_link(format!("/proc/{}/exe", daemon.pid)).context("the daemon has ended")?;
    Ok(runs == program)
}

/// Whether all that should run is known to do so, and all that has ended is known for how.
fn is_known(tasks: &[Task], brief: &BTreeSet<String>, steady: usize) -> bool {
    let is_brief = |task: &&Task| task.task.as_ref().is_some_and(|id| brief.contains(id));
    let has_ended =
        |task: &Task| !task.is_up() && task.reason.as_ref().is_some_and(|reason| reason.contains("code 7"));
    let ended = tasks.iter().filter(is_brief).filter(|task| has_ended(task)).count();
    let up = tasks.iter().filter(|task| !is_brief(task) && task.is_up()).count();
    (ended, up) == (brief.len(), steady)
}

/// What of the containers' output is missing.
fn unheard(cluster: &Cluster, brief: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for task in brief {
        let printed = cluster.printed(task)?;
        if printed != "first words\nlast words\n" {
            missing.push(format!("the logs of {task} are {printed:?}"));
        }
    }
    let counted = ticks(&cluster.printed(&qualified("clock"))?);
    await_ticks(cluster, counted.iter().max().copied().unwrap_or(0) + TICKS)?;
    let counted = ticks(&cluster.printed(&qualified("clock"))?);
    let expected: Vec<u64> = (1..).take(counted.len()).collect();
    if counted != expected {
        missing.push(format!("the clock's logs have a gap: {counted:?}"));
    }
    Ok(missing)
}

fn await_ticks(cluster: &Cluster, at_least: u64) -> Result<()> {
    wait::until(&format!("the clock to count to {at_least}"), PATIENCE, || {
        let counted = ticks(&cluster.printed(&qualified("clock"))?);
        Ok(counted.last().is_some_and(|last| *last >= at_least).then_some(()))
    })
}

fn ticks(printed: &str) -> Vec<u64> {
    printed.lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(task: &str, phase: &str, reason: &str) -> Task {
        let ready = phase == "running";
        let row = serde_json::json!({
            "slot": 1, "task": task, "node": "n1", "phase": phase, "ready": ready, "node_address": null,
            "reason": reason,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_node_is_known_again_when_what_runs_and_what_has_ended_is() {
        let brief = BTreeSet::from(["s1-1-1".to_owned()]);
        let ended = || row("s1-1-1", "failed", "exit code 7");
        let up = || row("s2-1-1", "running", "");
        assert!(is_known(&[ended(), up()], &brief, 1));
        assert!(!is_known(&[row("s1-1-1", "running", ""), up()], &brief, 1), "its end is not known");
        assert!(!is_known(&[row("s1-1-1", "exited", "ended unobserved"), up()], &brief, 1));
        assert!(!is_known(&[ended(), row("s2-1-1", "starting", "")], &brief, 1));
        assert!(!is_known(&[ended()], &brief, 1));
    }

    #[test]
    fn ticks_are_read_in_their_order() {
        assert_eq!(ticks("tick 1\ntick 2\nother\ntick 4\n"), [1, 2, 4]);
        assert_eq!(ticks(""), [0_u64; 0]);
    }

    #[test]
    fn another_build_is_another_file_that_may_run() {
        let (_folder, build) = another_build(Path::new("/bin/true")).unwrap();
        let (one, other) = (fs::read("/bin/true").unwrap(), fs::read(&build).unwrap());
        assert!(other.starts_with(&one) && other.len() > one.len());
        assert_eq!(
            fs::metadata(&build).unwrap().permissions(),
            fs::metadata("/bin/true").unwrap().permissions()
        );
    }
}
