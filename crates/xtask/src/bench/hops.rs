//! Where the time goes: what daemons say of each step between a command and a running container (`GANTRY_LOG=hop=debug`),
//! read from their logs and put beside the clock of the command.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// What daemons are to log besides what they always do.
pub(super) const LOG: &str = "info,openraft=warn,hop=debug";

/// The steps in their order, as daemons call them, and for people.
const STEPS: [(&str, &str); 15] = [
    ("asked", "the leader has the call"),
    ("accepted", "commit 1: the change"),
    ("planned", "planned and placed"),
    ("assigned", "commit 2: tasks with their places"),
    ("sent", "told to nodes"),
    ("received", "a node has its task"),
    ("prepared", "the image is there"),
    ("attached", "namespace, interface, address"),
    ("started", "the shim's container runs"),
    ("published", "packet filter"),
    ("running", "the agent says so"),
    ("reported", "the leader hears so"),
    ("recorded", "commit 3: status"),
    ("told", "the client hears so"),
    ("done", "the command ends"),
];

const DAY: f64 = 86_400.0;

/// A step at its times, in seconds since the command began.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hop {
    name: &'static str,
    what: &'static str,
    times: Vec<f64>,
}

/// Runs a command, and says when each step of what follows was taken.
pub(super) fn of(cluster: &Cluster, command: impl FnOnce() -> Result<()>) -> Result<Vec<Hop>> {
    let (mut began, mut done) = (0.0, 0.0);
    let lines = logged(cluster, || {
        began = now()?;
        command()?;
        done = now()?;
        Ok(())
    })?;
    let mut steps: Vec<(String, f64)> = lines.lines().filter_map(step).collect();
    steps.push(("done".to_owned(), done));
    Ok(hops(&steps, began))
}

/// Runs a command, and says of each task that came to a node then how long it took from one of its steps to another, in
/// seconds.
pub(super) fn between(
    cluster: &Cluster,
    [from, to]: [&str; 2],
    command: impl FnOnce() -> Result<()>,
) -> Result<Vec<f64>> {
    let lines = logged(cluster, command)?;
    Ok(spans(&lines, [from, to]))
}

/// What the daemons log while a command runs.
fn logged(cluster: &Cluster, command: impl FnOnce() -> Result<()>) -> Result<String> {
    let before: Vec<usize> = cluster.logs().iter().map(String::len).collect();
    command()?;
    let logs = cluster.logs();
    Ok(logs.iter().zip(before).filter_map(|(log, length)| log.get(length..)).collect())
}

fn spans(lines: &str, [from, to]: [&str; 2]) -> Vec<f64> {
    let mut begun: BTreeMap<&str, f64> = BTreeMap::new();
    let mut spans = Vec::new();
    for line in lines.lines() {
        let (Some((name, at)), Some(task)) = (step(line), task(line)) else { continue };
        if name == from {
            begun.insert(task, at);
        } else if name == to
            && let Some(began) = begun.remove(task)
        {
            spans.push((at - began).rem_euclid(DAY));
        }
    }
    spans
}

/// The task that a line of a daemon's log is about.
fn task(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(" task=")?;
    rest.split_whitespace().next()
}

fn hops(steps: &[(String, f64)], began: f64) -> Vec<Hop> {
    let hop = |(name, what): &(&'static str, &'static str)| {
        let mut times: Vec<f64> = steps
            .iter()
            .filter(|(step, _)| step == name)
            // A command that began before midnight may end after it.
            .map(|(_, at)| (at - began).rem_euclid(DAY))
            .collect();
        times.sort_by(f64::total_cmp);
        (!times.is_empty()).then_some(Hop { name, what, times })
    };
    STEPS.iter().filter_map(hop).collect()
}

/// A step and its second of the day, if this line of a daemon's log is about one.
fn step(line: &str) -> Option<(String, f64)> {
    let (_, rest) = line.split_once(" hop=\"")?;
    let (name, _) = rest.split_once('"')?;
    // 2026-11-25T22:07:01.123456Z
    let (_, time) = line.split_once('T')?;
    let (time, _) = time.split_once('Z')?;
    let mut parts = time.split(':').map(str::parse::<f64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some((name.to_owned(), (hours * 60.0 + minutes) * 60.0 + seconds))
}

fn now() -> Result<f64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(since.as_secs_f64() % DAY)
}

/// A table for people: when each step was first, mostly and last taken.
pub(super) fn render(title: &str, hops: &[Hop]) -> String {
    let mut text = format!("{title}: milliseconds since the command began\n");
    let what = hops.iter().map(|hop| hop.what.chars().count()).max().unwrap_or(0);
    let line = format!("  {:<what$} {:>8} {:>8} {:>8} {:>6}\n", "", "first", "median", "last", "times");
    text.push_str(&line);
    for hop in hops {
        let [first, median, last] = hop.summary().map(|seconds| seconds * 1000.0);
        let count = hop.times.len();
        writeln!(text, "  {:<what$} {first:>8.1} {median:>8.1} {last:>8.1} {count:>6}", hop.what)
            .expect("writing to a string cannot fail");
    }
    text
}

pub(super) fn json(title: &str, hops: &[Hop]) -> Value {
    let hop = |hop: &Hop| {
        let [first, median, last] = hop.summary();
        json!({"step": hop.name, "first": first, "median": median, "last": last, "times": hop.times.len()})
    };
    json!({"command": title, "unit": "seconds", "steps": hops.iter().map(hop).collect::<Vec<_>>()})
}

impl Hop {
    fn summary(&self) -> [f64; 3] {
        let last = self.times.len() - 1;
        [self.times[0], self.times[last / 2], self.times[last]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_from_one_step_of_a_task_to_another_of_the_same() {
        let log = "\
2026-11-25T10:00:00.100000Z DEBUG hop=\"received\" task=s1-1-1
2026-11-25T10:00:00.101000Z DEBUG hop=\"received\" task=s1-2-1
2026-11-25T10:00:00.112000Z DEBUG hop=\"started\" task=s1-1-1
2026-11-25T10:00:00.113000Z DEBUG hop=\"running\" task=s1-1-1
2026-11-25T10:00:00.121000Z DEBUG hop=\"started\" task=s1-2-1 attempt=1
2026-11-25T10:00:00.900000Z DEBUG hop=\"started\" task=s1-2-1 attempt=2
";
        let spans = |to| -> Vec<u32> {
            spans(log, ["received", to]).into_iter().map(|s| (s * 1000.0).round() as u32).collect()
        };
        assert_eq!(spans("started"), [12, 20]);
        assert_eq!(spans("running"), [13]);
    }

    #[test]
    fn steps_are_found_in_a_log_and_counted_from_the_commands_begin() {
        let log = "\
2026-11-25T23:59:59.900000Z DEBUG hop=\"asked\"
2026-11-25T23:59:59.900100Z  INFO session open node=n1
2026-11-26T00:00:00.100000Z DEBUG hop=\"started\" task=s1-1-1
2026-11-26T00:00:00.300000Z DEBUG hop=\"started\" task=s1-2-1
2026-11-26T00:00:00.300000Z DEBUG hop=\"of a later version\"
";
        let steps: Vec<(String, f64)> = log.lines().filter_map(step).collect();
        assert_eq!(steps.len(), 4);
        let shown = render("scale", &hops(&steps, DAY - 0.2));
        let expected = "\
scale: milliseconds since the command began
                               first   median     last  times
  the leader has the call      100.0    100.0    100.0      1
  the shim's container runs    300.0    300.0    500.0      2
";
        assert_eq!(shown, expected);
    }
}
