//! `cargo xtask planted`: bugs that are put into a copy of the project, one at a time. The simulation has to find each, or it is
//! blind where it lies.
//!
//! They are the patches in `scenarios/planted/`, each with a text before it that says what is wrong and what should notice. A patch
//! that does not apply any more is an error: the bug has to be planted anew where the code has gone.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{Call, last_lines};
use crate::output::{say, seconds};
use crate::project;

/// Seeds between two looks whether one has failed.
const BATCH: u64 = 50;

/// A batch takes half a minute. What takes so long, in seconds, is not going to end.
const PATIENCE: &str = "600";

/// What `timeout` kills with if that was over: its own group, and so itself.
const KILL: i32 = 9;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only bugs whose name has this in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many seeds may pass before a bug counts as not found
    #[arg(long, default_value_t = 1000, value_name = "N")]
    seeds: u64,
}

struct Bug {
    name: String,
    patch: PathBuf,
    /// The first line of its text.
    what: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let bugs = bugs(options.only.as_deref())?;
    ensure!(!bugs.is_empty(), "no bug has that name: they are in scenarios/planted");
    let copy = Copy::make()?;
    let sound = copy.seek(BATCH).context("without any bug")?;
    ensure!(sound.is_none(), "without any bug, {}", sound.unwrap_or_default());
    let mut missed = Vec::new();
    for bug in &bugs {
        let began = Instant::now();
        copy.apply(bug, &[])?;
        let found = copy.seek(options.seeds).with_context(|| bug.name.clone());
        copy.apply(bug, &["--reverse"])?;
        let took = seconds(began.elapsed());
        say(format_args!("{}: {}", bug.name, bug.what));
        if let Some(said) = found? {
            say(format_args!("    found in {took}: {said}"));
        } else {
            say(format_args!("    NOT FOUND within {} seeds, {took}", options.seeds));
            missed.push(bug.name.as_str());
        }
    }
    say(format_args!("{} of {} bugs were found", bugs.len() - missed.len(), bugs.len()));
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(())
}

fn bugs(only: Option<&str>) -> Result<Vec<Bug>> {
    let dir = project::root().join("scenarios/planted");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut bugs = Vec::new();
    for entry in entries {
        let patch = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_patch = patch.extension().is_some_and(|extension| extension == "patch");
        if !is_patch || only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let text = fs::read_to_string(&patch).with_context(|| format!("cannot read {}", patch.display()))?;
        let what = text.lines().next().unwrap_or_default().to_owned();
        bugs.push(Bug { name, patch, what });
    }
    bugs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(bugs)
}

/// A copy of the project that may be spoilt. What it depends on is built once for both.
struct Copy {
    /// Always the same, so that what one run has built is not built again beside it in the next.
    root: PathBuf,
    target: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // The next run begins with this as well.
        let _left_behind = fs::remove_dir_all(&self.root);
    }
}

impl Copy {
    fn make() -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| project::root().join("target"), |dir| project::root().join(dir));
        let made = Self { root: target.join("planted"), target };
        if made.root.exists() {
            fs::remove_dir_all(&made.root)
                .with_context(|| format!("cannot remove {}", made.root.display()))?;
        }
        let list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
        let files = Call::of("git").args(list).dir(&project::root()).read()?;
        for file in files.split_terminator('\0') {
            copy(&project::root().join(file), &made.root.join(file))?;
        }
        Ok(made)
    }

    fn apply(&self, bug: &Bug, how: &[&str]) -> Result<()> {
        // The copy may be inside the project's own repository, where patches would be for the whole of that.
        let git = Call::of("git").env("GIT_CEILING_DIRECTORIES", &self.target);
        let apply = git.arg("apply").args(how).arg(&bug.patch).dir(&self.root);
        apply.read().with_context(|| format!("the patch of {} is not for this code", bug.name))?;
        Ok(())
    }

    /// What the simulation first finds wrong within so many seeds.
    fn seek(&self, seeds: u64) -> Result<Option<String>> {
        let cargo = project::cargo().dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // As it is built in the project itself, so that what both depend on is the same.
        cargo.args(["build", "--quiet", "--workspace"]).show()?;
        let simulate = self.target.join("debug/simulate");
        let mut from = 0;
        while from < seeds {
            let count = BATCH.min(seeds - from);
            let run = Call::of("timeout")
                .args(["--signal", "KILL", PATIENCE])
                .arg(&simulate)
                .env("RUST_BACKTRACE", "0");
            let range = ["--from", &from.to_string(), "--count", &count.to_string()];
            let heard = run.args(range).hear()?;
            if heard.status.signal() == Some(KILL) {
                return Ok(Some(format!("one of the seeds from {from} does not end")));
            }
            if !heard.status.success() {
                let first = heard.stdout.lines().find(|line| is_finding(line));
                let said = first.map_or_else(
                    || format!("the simulation broke:{}", last_lines(&heard.stderr)),
                    str::to_owned,
                );
                return Ok(Some(said));
            }
            from += count;
        }
        Ok(None)
    }
}

/// Whether the simulation says in this line what is wrong with a seed: `seed 17: …`.
fn is_finding(line: &str) -> bool {
    let number = line.strip_prefix("seed ").and_then(|rest| rest.split_once(": "));
    number.is_some_and(|(seed, _)| seed.parse::<u64>().is_ok())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let Some(dir) = to.parent() else { bail!("{} is in no directory", to.display()) };
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // What is listed and was removed is not there to be copied.
    if from.is_file() {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_from_the_rest_of_what_the_simulation_says() {
        assert!(is_finding("seed 17: task s1-1-1 runs twice"));
        assert!(!is_finding("seed 17 failed; the end of its trace (3 lines before it are not shown):"));
        assert!(!is_finding("17 seeds, 1 failed: [17]"));
    }
}
