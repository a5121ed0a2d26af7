//! Daemons are killed and started again, while a writer writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::writes::Writer;
use super::{CHURN, NAME, STACK, STEADY, Tally, WAVE, qualified};
use crate::chance::Chance;
use crate::cluster::{Cluster, PATIENCE};
use crate::output::{say, seconds};
use crate::procs::{self, Process};
use crate::wait;

/// The longest that a daemon stays away: less than the two seconds after which its node counts as down, so that mostly
/// nothing has to be replaced, and so that what runs has no excuse to change.
const AWAY_MAX_MS: u64 = 1000;
/// The longest that the writer goes on after the daemons are back.
const AFTER_MAX_MS: u64 = 500;
const REPORTED: u32 = 10;

/// The processes of each steady task.
type Containers = BTreeMap<String, BTreeSet<Process>>;

pub(super) fn run(cluster: &Cluster, chance: &mut Chance, rounds: u32, tally: &mut Tally) -> Result<()> {
    let mut writer = Writer::new(cluster);
    let mut began = Instant::now();
    for round in 1..=rounds {
        let wrong =
            one(cluster, chance, &mut writer, tally).with_context(|| format!("in kill round {round}"))?;
        tally.violations.extend(wrong.into_iter().map(|what| format!("kill round {round}: {what}")));
        tally.rounds = round;
        (tally.acknowledged, tally.unknown) = (writer.ledger.acknowledged, writer.ledger.unknown);
        if round.is_multiple_of(REPORTED) || round == rounds {
            say(format_args!(
                "{:>8}  kill round {round}: {} daemons killed, {} writes acknowledged, {} in doubt, {} violations",
                seconds(began.elapsed()),
                tally.kills,
                tally.acknowledged,
                tally.unknown,
                tally.violations.len()
            ));
            began = Instant::now();
        }
    }
    Ok(())
}

/// One round. Returns what was wrong; an error means that it cannot go on.
fn one(
    cluster: &Cluster,
    chance: &mut Chance,
    writer: &mut Writer<'_>,
    tally: &mut Tally,
) -> Result<Vec<String>> {
    let nodes = cluster.nodes()?.len();
    let before = steady(cluster)?;
    let stop = AtomicBool::new(false);
    let (hit, written) = thread::scope(|scope| {
        let writing = scope.spawn(|| writer.write_until(&stop));
        let hit = hit(cluster, chance, &before, tally);
        stop.store(true, Ordering::Relaxed);
        (hit, writing.join())
    });
    let mut wrong = hit?;
    wrong.extend(written.map_err(|_| anyhow!("the writer panicked"))??);
    settle(cluster, nodes)?;
    wrong.extend(writer.check()?);

    let after = steady(cluster)?;
    for (task, processes) in &before {
        match after.get(task) {
            None => tally.replaced += 1,
            Some(now) if processes.is_subset(now) => {}
            Some(_) => {
                wrong.push(format!("the container of {task} was restarted, though only daemons were killed"))
            }
        }
    }
    Ok(wrong)
}

/// Kills, waits, starts. Returns what was wrong meanwhile.
fn hit(
    cluster: &Cluster,
    chance: &mut Chance,
    before: &Containers,
    tally: &mut Tally,
) -> Result<Vec<String>> {
    let victims = victims(cluster, chance)?;
    // Somewhere in the middle of a write, and not always of its beginning.
    wait::pause(Duration::from_millis(chance.below(100)))?;
    for victim in &victims {
        cluster.fault("kill", victim)?;
        tally.kills += 1;
    }
    let mut wrong = Vec::new();
    let alive = procs::containers(NAME)?;
    for (task, processes) in before {
        if !alive.get(task).is_some_and(|now| processes.is_subset(now)) {
            wrong.push(format!("killing the daemons of {victims:?} stopped {task}"));
        }
    }
    wait::pause(Duration::from_millis(chance.below(AWAY_MAX_MS)))?;
    for victim in &victims {
        cluster.fault("start", victim)?;
    }
    wait::pause(Duration::from_millis(chance.below(AFTER_MAX_MS)))?;
    Ok(wrong)
}

/// Mostly one node, every fifth time the leader on purpose, every fifth time all.
fn victims(cluster: &Cluster, chance: &mut Chance) -> Result<Vec<String>> {
    let names: Vec<String> = cluster.nodes()?.into_iter().map(|node| node.node).collect();
    Ok(match chance.below(5) {
        0 => vec![cluster.leader()?],
        1 => names,
        _ => chance.one_of(&names).cloned().into_iter().collect(),
    })
}

/// Waits until the cluster is whole again and runs what it should.
fn settle(cluster: &Cluster, nodes: usize) -> Result<()> {
    cluster.await_nodes(nodes)?;
    wait::until("every service to be as declared", PATIENCE, || {
        let services = cluster.services(STACK)?;
        let tasks = cluster.tasks(STACK)?;
        let desired: u32 = services.iter().map(|service| service.desired).sum();
        let all_ready = services.iter().all(|service| service.ready == service.desired);
        let none_else = tasks.len() == usize::try_from(desired)? && tasks.iter().all(|task| task.is_up());
        let complete = [STEADY, CHURN, WAVE].iter().all(|(name, _)| {
            let name = qualified(name);
            services.iter().any(|service| service.service == name)
        });
        Ok((complete && all_ready && none_else).then_some(()))
    })
}

/// The containers that nothing but a fault could change.
fn steady(cluster: &Cluster) -> Result<Containers> {
    let tasks = cluster.await_tasks(&qualified(STEADY.0), usize::try_from(STEADY.1)?)?;
    let containers = procs::containers(NAME)?;
    let of = |task: String| containers.get(&task).cloned().map(|processes| (task, processes));
    Ok(tasks.into_iter().filter_map(|task| task.task).filter_map(of).collect())
}
