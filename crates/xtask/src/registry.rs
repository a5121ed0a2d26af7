//! Debian's `docker-registry` on the loopback of some network namespace, with what it was once filled with.
//!
//! Each of those who are compared has a loopback of its own, so each gets a registry of its own there: the same program,
//! with the same files.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::command::{Call, last_lines};
use crate::output::complain;
use crate::{images, packages, wait};

const PACKAGES: [&str; 3] = ["docker-registry", "skopeo", "busybox-static"];

/// Where it listens. Whoever pulls from loopback needs no certificate.
const ADDRESS: &str = "127.0.0.1:5000";
const START: Duration = Duration::from_secs(30);

/// A registry that serves, and ends with this.
#[derive(Debug)]
pub(crate) struct Registry {
    process: Child,
    dir: TempDir,
}

impl Registry {
    /// Starts one that keeps its files in `storage`, in the network namespace of the process `beside`.
    pub(crate) fn start(storage: &Path, beside: u32) -> Result<Self> {
        packages::ensure_unstarted(&PACKAGES)?;
        let dir = tempfile::tempdir().context("cannot make a directory")?;
        let (settings, log) = (dir.path().join("config.yml"), dir.path().join("log"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: {ADDRESS}}}\n",
            storage.display()
        );
        fs::write(&settings, text).with_context(|| format!("cannot write {}", settings.display()))?;
        let log = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter", "--net", "--target", &beside.to_string()]);
        command.args(["docker-registry", "serve"]).arg(&settings);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let process = command.spawn().context("cannot run `docker-registry`")?;
        let mut registry = Self { process, dir };
        registry.await_answer(beside)?;
        Ok(registry)
    }

    fn await_answer(&mut self, beside: u32) -> Result<()> {
        let url = format!("http://{ADDRESS}/v2/");
        let answers = wait::until("docker-registry to answer", START, || {
            let ended = self.process.try_wait().context("cannot look after docker-registry")?.is_some();
            let ask = within(beside).args(["busybox", "wget", "-q", "-O", "-", &url]);
            let answers = !ended && ask.works();
            Ok((answers || ended).then_some(answers))
        })?;
        if answers {
            return Ok(());
        }
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        bail!("docker-registry ended as soon as it was started{}", last_lines(&String::from_utf8_lossy(&log)))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if self.process.kill().and_then(|()| self.process.wait()).is_err() {
            complain(&format!("warning: docker-registry (process {}) may still run", self.process.id()));
        }
    }
}

fn within(beside: u32) -> Call {
    Call::of("nsenter").args(["--net", "--target", &beside.to_string()])
}

/// What an image is called that is in a [`Registry`].
pub(crate) fn reference(image: &str) -> String {
    format!("{ADDRESS}/{image}:latest")
}

/// The files of a registry that has this image, its layers compressed; made once, and kept. For a while there is a registry
/// in the network namespace of the process `beside`.
pub(crate) fn stocked(image: &str, beside: u32) -> Result<PathBuf> {
    let archive = images::make(image, false)?.path;
    let cache = images::cache_root()?.join("registry");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    // With the archive's revision in its name.
    let storage = cache.join(archive.file_stem().unwrap_or_default());
    if storage.exists() {
        return Ok(storage);
    }
    // In the same file system, so that what is finished gets its name in one step.
    let draft = tempfile::Builder::new().prefix(".filling-").tempdir_in(&cache);
    let draft = draft.with_context(|| format!("cannot make a directory in {}", cache.display()))?;
    let files = draft.path().join("files");
    let registry = Registry::start(&files, beside)?;
    within(beside)
        // Schema 2 is what Docker itself pushes. What is not compressed is compressed on the way.
        .args([
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--format",
            "v2s2",
            "--dest-tls-verify=false",
        ])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("docker://{}", reference(image)))
        .read()
        .with_context(|| format!("cannot fill a registry with {image}"))?;
    drop(registry);
    fs::rename(&files, &storage).with_context(|| format!("cannot keep {}", storage.display()))?;
    Ok(storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_by_the_registrys_address() {
        assert_eq!(reference("bulk"), "127.0.0.1:5000/bulk:latest");
    }
}
