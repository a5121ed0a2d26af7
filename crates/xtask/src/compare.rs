//! `cargo xtask compare docker`: the same options for a container of Docker's and one of gantry's, and what a program
//! finds in both.
//!
//! - [`sets`]: the options. [`facts`]: what the program finds, as what can be compared. [`expected`]: differences that are
//!   meant, each with the reason. Any other is an error.
//!
//! Docker is Debian's ([`crate::docker`]). Both have the image from the same file.

mod expected;
mod facts;
mod sets;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cluster::{Cluster, DONE, Task};
use crate::docker::Docker;
use crate::output::{complain, say};
use crate::{packages, procs, project, wait};
use expected::EXPECTED;
use facts::{END, Facts, PROBE};
use sets::{SETS, Set};

const NAME: &str = "compare";
/// How long a container may take to look around and end.
const PATIENCE: Duration = Duration::from_secs(20);
/// So much of a value is shown.
const SHOWN: usize = 60;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only with these options; may be repeated
    #[arg(long, value_name = "SET")]
    only: Vec<String>,
    /// Show the differences that are meant as well
    #[arg(long)]
    all: bool,
}

/// A fact that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    fact: String,
    docker: Option<String>,
    gantry: Option<String>,
    /// Its number among those that are meant.
    meant: Option<usize>,
}

/// What came of one set.
enum Compared {
    Both {
        facts: usize,
        differences: Vec<Difference>,
    },
    /// Docker makes no such container on this machine, whose kernel or whose root may not do all that it asks for.
    NothingToCompare(String),
    /// gantry made no container, or could not be heard out.
    Failed(String),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    packages::demand_root("a comparison with Docker")?;
    wait::heed_signals()?;
    packages::ensure(&packages::ALL)?;
    let sets = chosen(&options.only)?;
    let gantry = project::build()?;
    let docker = Docker::start()?;
    docker.load("busybox")?;
    let cluster = Cluster::up(&gantry, NAME, 1)?;
    cluster.await_nodes(1)?;
    cluster.import("busybox")?;
    say(format_args!("gantry beside Docker {}: {} sets of options", docker.version()?, sets.len()));
    let (mut unexplained, mut comparisons, mut seen) = (0, 0, BTreeSet::new());
    for set in &sets {
        let compared = compare(&docker, &cluster, set)?;
        let (text, count) = render(set.name, &compared, options.all);
        say(text.trim_end());
        unexplained += count;
        if let Compared::Both { differences, .. } = compared {
            comparisons += 1;
            seen.extend(differences.into_iter().filter_map(|difference| difference.meant));
        }
    }
    cluster.down()?;
    if options.only.is_empty() {
        for (_, never) in EXPECTED.iter().enumerate().filter(|(number, _)| !seen.contains(number)) {
            complain(&format!("note: meant to differ, and the same here: {}", never.fact));
        }
    }
    if comparisons == 0 && unexplained == 0 {
        bail!("nothing was compared: Docker makes no container on this machine");
    }
    if unexplained > 0 {
        bail!("{unexplained} differences are not explained");
    }
    say(format_args!("{comparisons} sets compared; every difference is explained"));
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<Set>> {
    let find = |name: &String| {
        let all = || SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", ");
        let found = SETS.iter().find(|set| set.name == name);
        found.copied().ok_or_else(|| anyhow!("there is no set `{name}`, only {}", all()))
    };
    if names.is_empty() { Ok(SETS.to_vec()) } else { names.iter().map(find).collect() }
}

fn compare(docker: &Docker, cluster: &Cluster, set: &Set) -> Result<Compared> {
    let of_docker = match in_docker(docker, set) {
        Ok(facts) => facts,
        Err(error) if wait::is_interrupted() => return Err(error),
        Err(error) => return Ok(Compared::NothingToCompare(format!("{error:#}"))),
    };
    let of_gantry = match in_gantry(cluster, set) {
        Ok(facts) => facts,
        Err(error) if wait::is_interrupted() => return Err(error),
        Err(error) => return Ok(Compared::Failed(format!("{error:#}"))),
    };
    let facts = of_docker.keys().chain(of_gantry.keys()).collect::<BTreeSet<_>>().len();
    Ok(Compared::Both { facts, differences: differences(set.name, &of_docker, &of_gantry) })
}

fn in_docker(docker: &Docker, set: &Set) -> Result<Facts> {
    let host = procs::namespaces(docker.daemon()?.pid);
    let run = docker.call(["run", "--rm"]).args(set.docker).args(["busybox", "sh", "-c", PROBE]);
    let heard = run.hear()?;
    if !heard.status.success() {
        // Without the call, which has the whole probe in it.
        bail!("{}", heard.stderr.trim());
    }
    if !heard.stdout.contains(END) {
        bail!("the probe did not come to its end");
    }
    Ok(facts::read(&heard.stdout, &host))
}

fn in_gantry(cluster: &Cluster, set: &Set) -> Result<Facts> {
    let daemon = procs::daemons(NAME)?.into_values().next().context("no daemon runs")?;
    let host = procs::namespaces(daemon.pid);
    let heard = cluster.write_stack(compose(set), set.name)?;
    if heard.status.code() != Some(DONE) {
        bail!("{}", heard.failure());
    }
    let found = wait::until("the probe to come to its end", PATIENCE, || {
        let printed = cluster.printed(set.name)?;
        Ok(printed.contains(END).then_some(printed))
    });
    let found = found.map_err(|error| match reasons(cluster, set.name) {
        Some(reasons) => error.context(reasons),
        None => error,
    });
    cluster.remove(set.name)?;
    Ok(facts::read(&found?, &host))
}

/// Why tasks do not run.
fn reasons(cluster: &Cluster, stack: &str) -> Option<String> {
    let tasks = cluster.all_tasks(stack).ok()?;
    let reason = |task: &Task| task.reason.clone().filter(|reason| !reason.is_empty());
    let reasons: Vec<String> = tasks.iter().filter_map(reason).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// A stack of one service that runs the probe once.
fn compose(set: &Set) -> String {
    // A JSON string is one of YAML's; `$` is Compose's own.
    let probe = serde_json::Value::from(PROBE.replace('$', "$$"));
    let options: String = set.compose.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "services:\n  probe:\n    image: busybox\n    restart: 'no'\n    command: [sh, -c, {probe}]\n{options}"
    )
}

fn differences(set: &str, docker: &Facts, gantry: &Facts) -> Vec<Difference> {
    let facts: BTreeSet<&String> = docker.keys().chain(gantry.keys()).collect();
    let different = facts.into_iter().filter(|fact| docker.get(*fact) != gantry.get(*fact));
    let difference = |fact: &String| Difference {
        fact: fact.clone(),
        docker: docker.get(fact).cloned(),
        gantry: gantry.get(fact).cloned(),
        meant: expected::explain(set, fact),
    };
    different.map(difference).collect()
}

/// A table for people, and how many differences are not explained.
fn render(set: &str, compared: &Compared, all: bool) -> (String, usize) {
    let (facts, differences) = match compared {
        Compared::Both { facts, differences } => (facts, differences),
        Compared::NothingToCompare(why) => {
            return (format!("{set}: left out, Docker makes no such container on this machine: {why}\n"), 0);
        }
        Compared::Failed(why) => return (format!("{set}: gantry makes no such container: {why}\n"), 1),
    };
    let (meant, unexplained): (Vec<&Difference>, Vec<&Difference>) =
        differences.iter().partition(|difference| difference.meant.is_some());
    let mut text = format!(
        "{set}: {facts} facts, {} differ as they are meant to, {} differ and nothing explains it\n",
        meant.len(),
        unexplained.len()
    );
    let mut lines: Vec<[String; 4]> = Vec::new();
    let shown = |value: &Option<String>| value.as_ref().map_or_else(|| "-".to_owned(), |value| cut(value));
    let meant = meant.into_iter().filter(|_| all);
    for difference in unexplained.iter().copied().chain(meant) {
        let Difference { fact, docker, gantry, meant } = difference;
        let why =
            meant.and_then(|number| EXPECTED.get(number)).map_or("UNEXPLAINED", |expected| expected.why);
        lines.push([fact.clone(), shown(docker), shown(gantry), why.to_owned()]);
    }
    if !lines.is_empty() {
        lines.insert(0, ["fact", "docker", "gantry", ""].map(str::to_owned));
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    for [fact, docker, gantry, why] in &lines {
        let [a, b, c] = widths;
        let line = format!("  {fact:<a$}  {docker:<b$}  {gantry:<c$}  {why}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    (text, unexplained.len())
}

fn cut(value: &str) -> String {
    if value.chars().count() <= SHOWN {
        return value.to_owned();
    }
    let begin: String = value.chars().take(SHOWN - 1).collect();
    format!("{begin}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(facts: &[(&str, &str)]) -> Facts {
        facts.iter().map(|(what, is)| ((*what).to_owned(), (*is).to_owned())).collect()
    }

    #[test]
    fn what_differs_is_explained_or_not() {
        let docker =
            facts(&[("CapBnd NET_RAW", "yes"), ("status Seccomp", "2"), ("limit Max open files", "1 2")]);
        let gantry = facts(&[("status Seccomp", "0"), ("limit Max open files", "1 2")]);
        let differences = differences("defaults", &docker, &gantry);
        let compared = Compared::Both { facts: 3, differences };
        let (text, unexplained) = render("defaults", &compared, false);
        assert_eq!(unexplained, 1);
        let expected = "\
defaults: 3 facts, 1 differ as they are meant to, 1 differ and nothing explains it
  fact            docker  gantry
  status Seccomp  2       0       UNEXPLAINED
";
        assert_eq!(text, expected);
        let (text, _) = render("defaults", &compared, true);
        assert!(text.contains("CapBnd NET_RAW  yes     -       left out on purpose"), "{text}");
    }

    #[test]
    fn what_gantry_does_not_make_is_a_difference_and_what_docker_does_not_is_none() {
        let (text, count) = render("init", &Compared::Failed("no".to_owned()), false);
        assert_eq!((text.as_str(), count), ("init: gantry makes no such container: no\n", 1));
        let (text, count) = render("init", &Compared::NothingToCompare("no".to_owned()), false);
        assert!(text.starts_with("init: left out, "), "{text}");
        assert_eq!(count, 0);
    }

    #[test]
    fn a_stack_runs_the_probe_with_its_options() {
        let set = SETS.iter().find(|set| set.name == "pids").unwrap();
        let text = compose(set);
        assert!(text.starts_with("services:\n  probe:\n    image: busybox\n"), "{text}");
        assert!(text.ends_with("\n    pids_limit: 64\n"), "{text}");
        assert!(text.contains("$$") && !text.replace("$$", "").contains('$'), "{text}");
    }

    #[test]
    fn an_unknown_set_is_refused_with_those_that_are_known() {
        let error = chosen(&["none".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("there is no set `none`, only defaults, user, "), "{error}");
        assert_eq!(chosen(&[]).unwrap().len(), SETS.len());
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(100)).chars().count(), SHOWN);
    }
}
