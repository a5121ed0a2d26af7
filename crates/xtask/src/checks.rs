//! `cargo xtask test`: all that CI runs, in the order in which failures are cheapest to have.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::output::{complain, say, seconds};
use crate::{packages, project, soak};

/// What came of a step.
enum Outcome {
    Passed,
    Failed,
    /// With the reason.
    LeftOut(&'static str),
}

struct Step {
    name: &'static str,
    run: fn() -> Result<Outcome>,
    /// Whether there is no point in it once something has failed.
    needs_all: bool,
    is_slow: bool,
}

const STEPS: [Step; 7] = [
    Step { name: "system packages", run: packages, needs_all: false, is_slow: false },
    Step { name: "format", run: format, needs_all: false, is_slow: false },
    Step { name: "lints", run: lints, needs_all: false, is_slow: false },
    Step { name: "tests", run: tests, needs_all: false, is_slow: false },
    Step { name: "dependencies", run: dependencies, needs_all: false, is_slow: false },
    Step { name: "documentation", run: documentation, needs_all: false, is_slow: false },
    Step { name: "real clusters", run: real_clusters, needs_all: true, is_slow: true },
];

/// Kill rounds and scale cycles on a real cluster: what a change has to survive before it is merged.
const ROUNDS: u32 = 30;
const CYCLES: u32 = 20;
/// Containers that are started and stopped, and such that another build's daemon has to adopt: less than a minute
/// together, and enough for what each container leaves behind to be seen. Thousands are for a soak by hand.
const STARTS: u32 = 200;
const ADOPT: u32 = 100;

pub(crate) fn run(fast: bool) -> Result<()> {
    let began = Instant::now();
    let mut results: Vec<(&str, Outcome, Duration)> = Vec::new();
    for step in &STEPS {
        let has_failed = results.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed));
        let started = Instant::now();
        let outcome = if fast && step.is_slow {
            Outcome::LeftOut("--fast")
        } else if has_failed && step.needs_all {
            Outcome::LeftOut("something failed before it")
        } else {
            say(format_args!("\n=== {}", step.name));
            (step.run)().unwrap_or_else(|error| {
                complain(&format!("error: {error:#}"));
                Outcome::Failed
            })
        };
        results.push((step.name, outcome, started.elapsed()));
    }
    summarise(&results, began.elapsed())
}

fn summarise(results: &[(&str, Outcome, Duration)], total: Duration) -> Result<()> {
    say("");
    let mut failed = Vec::new();
    for (name, outcome, took) in results {
        let line = match outcome {
            Outcome::Passed => format!("ok      {name:<16} {:>14}", seconds(*took)),
            Outcome::LeftOut(why) => format!("left out {name:<15} ({why})"),
            Outcome::Failed => {
                failed.push(*name);
                format!("FAILED  {name:<16} {:>14}", seconds(*took))
            }
        };
        say(line);
    }
    say(format_args!("all in {}", seconds(total)));
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn packages() -> Result<Outcome> {
    let mut installed = packages::ensure(&packages::ALL)?;
    installed.extend(packages::ensure_unstarted(&packages::TESTS)?);
    let what = if installed.is_empty() {
        "all there".to_owned()
    } else {
        format!("installed {}", installed.join(" "))
    };
    say(what);
    Ok(Outcome::Passed)
}

/// Runs cargo; what it has to say about a failure it has said.
fn cargo(arguments: &[&str]) -> Result<Outcome> {
    project::cargo().args(arguments).show().map(|()| Outcome::Passed)
}

fn format() -> Result<Outcome> {
    cargo(&["fmt", "--all", "--check"])
}

fn lints() -> Result<Outcome> {
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn tests() -> Result<Outcome> {
    if project::cargo().args(["nextest", "--version"]).works() {
        return cargo(&["nextest", "run", "--workspace"]);
    }
    complain("warning: cargo-nextest is not installed, so `cargo test` stands in for it");
    cargo(&["test", "--workspace"])
}

fn dependencies() -> Result<Outcome> {
    if !project::cargo().args(["deny", "--version"]).works() {
        complain("warning: cargo-deny is not installed, so licences, bans and sources are not checked");
        return Ok(Outcome::LeftOut("cargo-deny is not installed"));
    }
    // No advisories: their database is a git repository that is not reachable from everywhere.
    cargo(&["deny", "check", "licenses", "bans", "sources"])
}

fn documentation() -> Result<Outcome> {
    // A crate's front page is its table of contents: it names private modules too, for whoever reads the source.
    let doc = project::cargo().env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    doc.args(["doc", "--workspace", "--no-deps"]).show().map(|()| Outcome::Passed)
}

fn real_clusters() -> Result<Outcome> {
    soak::run(&soak::Options::of(ROUNDS, CYCLES, STARTS, ADOPT)).map(|()| Outcome::Passed)
}
