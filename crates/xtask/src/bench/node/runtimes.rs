//! `runc` and `crun`, as they are run by hand: with the configuration that they make up themselves, which has no filter of
//! system calls, no address and no limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::side;
use crate::command::Call;
use crate::output::complain;

/// A container that waits to be entered.
const STILL: &str = "gantry-bench-still";

/// One of them, with a bundle for what ends at once and one for what stays.
#[derive(Debug)]
pub(super) struct Runtime {
    program: &'static str,
    state: PathBuf,
    brief: PathBuf,
    still: PathBuf,
}

impl Runtime {
    /// `root` is the containers' root file system, which is read only. What the runtime keeps is put into `work`.
    pub(super) fn new(program: &'static str, root: &Path, work: &Path) -> Result<Self> {
        let bundle = |name: &str, args: &[&str]| {
            let bundle = work.join(format!("{program}-{name}"));
            fs::create_dir_all(&bundle).with_context(|| format!("cannot make {}", bundle.display()))?;
            Call::of(program).arg("spec").dir(&bundle).read()?;
            let path = bundle.join("config.json");
            let made =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut config: Value = serde_json::from_str(&made).context("a specification is JSON")?;
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(args);
            config["root"]["path"] = json!(root);
            fs::write(&path, config.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(bundle)
        };
        let state = work.join(format!("{program}-state"));
        let (brief, still) = (bundle("brief", &["true"])?, bundle("still", &["sleep", "1000000000"])?);
        Ok(Self { program, state, brief, still })
    }

    fn call(&self) -> Call {
        Call::of(self.program).arg("--root").arg(&self.state)
    }

    /// Makes, starts and deletes a container whose program ends at once. `number` is not that of another at the same time.
    pub(super) fn run(&self, number: u32) -> Result<()> {
        let name = format!("gantry-bench-{number}");
        self.call().args(["run", "--bundle"]).arg(&self.brief).arg(name).read().map(drop)
    }

    /// How long so many runs take, one after the other, in milliseconds each.
    pub(super) fn starts(&self, count: u32) -> Result<Vec<f64>> {
        (0..count).map(|number| milliseconds(|| self.run(number))).collect()
    }

    /// How many containers a second are run, side by side.
    pub(super) fn churn(&self, length: Duration) -> Result<f64> {
        side::rate(length, |number| self.run(number))
    }

    /// How long it takes to run a program in a container that is there, so many times.
    pub(super) fn execs(&self, count: u32) -> Result<Vec<f64>> {
        let still = Still::begin(self)?;
        let exec = || self.call().args(["exec", STILL, "true"]).read().map(drop);
        let execs = (0..count).map(|_| milliseconds(exec)).collect();
        drop(still);
        execs
    }
}

/// A container that is deleted with this.
struct Still<'r>(&'r Runtime);

impl<'r> Still<'r> {
    fn begin(runtime: &'r Runtime) -> Result<Self> {
        let still = Self(runtime);
        // Without a pipe of ours, whose end it would keep open for as long as it lives.
        let mut run = Command::new(runtime.program);
        run.arg("--root").arg(&runtime.state).args(["run", "--detach", "--bundle"]);
        run.arg(&runtime.still).arg(STILL);
        let status = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot run `{}`", runtime.program))?;
        if !status.success() {
            bail!("`{} run --detach` failed ({status})", runtime.program);
        }
        Ok(still)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.call().args(["delete", "--force", STILL]).read() {
            complain(&format!("warning: {STILL} may be left behind: {error:#}"));
        }
    }
}

/// How long it takes, in milliseconds.
pub(super) fn milliseconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}
