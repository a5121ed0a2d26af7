//! Where the processors' time goes, by `perf`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command::Call;
use crate::output::complain;
use crate::{images, packages, wait};

const PACKAGES: [&str; 1] = ["linux-perf"];
const START: Duration = Duration::from_secs(20);
/// More lines than that are about less than a hundredth each.
const LINES: usize = 30;

/// A record of all that this machine's processors do, until this ends.
#[derive(Debug)]
pub(super) struct Profile {
    perf: Child,
    data: PathBuf,
}

impl Profile {
    pub(super) fn begin() -> Result<Self> {
        packages::ensure(&PACKAGES)?;
        let data = images::cache_root()?.join("perf.data");
        // Its being there says that `perf` records.
        let _none_yet = std::fs::remove_file(&data);
        let mut perf = Command::new("perf");
        perf.args(["record", "--all-cpus", "-g", "--quiet", "--output"]).arg(&data);
        let perf = perf.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot run `perf`")?;
        let profile = Self { perf, data };
        wait::until("perf to record", START, || Ok(profile.data.exists().then_some(())))?;
        Ok(profile)
    }

    /// Ends the record, and returns what it has of the symbols that took the most time, and where it is kept.
    pub(super) fn end(mut self) -> Result<String> {
        // `perf` writes its last on SIGINT.
        Call::of("kill").args(["-INT", &self.perf.id().to_string()]).read()?;
        self.perf.wait().context("cannot wait for `perf`")?;
        let report = ["report", "--stdio", "--no-children", "--call-graph", "none"];
        let text = Call::of("perf")
            .args(report)
            .args(["--sort", "comm,dso,symbol", "--input"])
            .arg(&self.data)
            .read()?;
        let top: String = top(&text).into_iter().map(|line| format!("  {line}\n")).collect();
        Ok(format!("{top}the record is in {}", self.data.display()))
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // It ended, or was not heard of again.
        let is_over = self.perf.try_wait().is_ok_and(|ended| ended.is_some());
        if !is_over && self.perf.kill().and_then(|()| self.perf.wait()).is_err() {
            complain(&format!("warning: perf (process {}) may still run", self.perf.id()));
        }
    }
}

/// The first lines of a report that are no comments, without the space and the dashes of its empty columns.
fn top(report: &str) -> Vec<String> {
    let lines = report.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        while words.last() == Some(&"-") {
            words.pop();
        }
        words.join(" ")
    };
    lines.map(line).take(LINES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_report_has_no_comments_and_no_empty_columns() {
        let report = "\
# Samples: 7
#
# Overhead  Command

    40.00%  shim  [k] clone   -      -

    20.00%  a     [.] f
";
        assert_eq!(top(report), ["40.00% shim [k] clone", "20.00% a [.] f"]);
    }
}
