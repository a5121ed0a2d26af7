//! Debian's Docker, started beside gantry to be compared with it.
//!
//! It has network, mount and process namespaces of its own: its packet filter's rules, of which one drops what is
//! forwarded, are nobody else's; its mounts go with it; and there is one process whose end is the end of all. What it
//! keeps is in a directory and a cgroup of its own. A Docker that the machine has is not touched.
//!
//! **Invariant:** a [`Docker`] that goes out of scope has ended, with all its containers, and left nothing.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::command::{Call, last_lines};
use crate::output::complain;
use crate::procs::{self, Process};
use crate::{images, inventory, packages, wait};

/// What it is made of. Its `docker` is called by its path: another one may be first on the PATH, of another version.
const PACKAGES: [&str; 1] = ["docker.io"];
const CLIENT: &str = "/usr/bin/docker";

/// Where the overlay file system can have its layers, as it cannot in a /tmp that is in memory.
const ROOT: &str = "/var/lib";
const PREFIX: &str = "gantry-docker-";

/// It takes a second or two.
const START: Duration = Duration::from_secs(60);

/// What becomes the first process of Docker's own world; `$0` is its directory, `$1` its cgroup. What Docker would leave
/// elsewhere (its shims' sockets, a key, directories for plugins) is put into memory. It waits for whatever ends, as a
/// first process has to.
const WORLD: &str = r#"
set -e
for dir in /run /opt /etc/docker; do
    if [ -d $dir ]; then mount -t tmpfs none $dir; fi
done
ip link set lo up
dockerd --config-file "$0/daemon.json" --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" \
    --host "unix://$0/docker.sock" --cgroup-parent "/$1" --exec-opt native.cgroupdriver=cgroupfs \
    --storage-driver overlay2 --log-level warn &
wait
"#;

#[derive(Debug)]
pub(crate) struct Docker {
    /// `unshare`, whose only child is the first process of the world. It ends when that has.
    world: Child,
    dir: TempDir,
    /// The cgroup of its containers, in every hierarchy.
    cgroup: String,
}

impl Docker {
    pub(crate) fn start() -> Result<Self> {
        packages::ensure_unstarted(&PACKAGES)?;
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(ROOT);
        let dir = dir.with_context(|| format!("cannot make a directory in {ROOT}"))?;
        let cgroup = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Not what the machine's Docker is configured with.
        fs::write(dir.path().join("daemon.json"), "{}\n").context("cannot write Docker's configuration")?;
        let log = File::create(dir.path().join("log")).context("cannot make Docker's log")?;
        let errors = log.try_clone().context("cannot make Docker's log")?;
        // It ends with us, however we end, and not by a Ctrl-C of which we are still to make something.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork"]);
        command.args(["--kill-child", "--mount-proc", "sh", "-c", WORLD]).arg(dir.path()).arg(&cgroup);
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let world = command.spawn().context("cannot run `setpriv`")?;
        let mut docker = Self { world, dir, cgroup };
        docker.await_answer()?;
        Ok(docker)
    }

    fn await_answer(&mut self) -> Result<()> {
        let answered = wait::until("dockerd to answer", START, || {
            let ended = self.world.try_wait().context("cannot look after dockerd")?.is_some();
            let answers = !ended && self.call(["version"]).works();
            Ok((answers || ended).then_some(answers))
        });
        match answered {
            Ok(true) => Ok(()),
            Ok(false) => bail!("dockerd ended as soon as it was started{}", self.last_words()),
            Err(error) => Err(error.context(format!("dockerd does not come up{}", self.last_words()))),
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&log))
    }

    /// A command of the client's.
    pub(crate) fn call<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Call {
        let dir = self.dir.path();
        Call::of(CLIENT)
            .env("DOCKER_HOST", format!("unix://{}", dir.join("docker.sock").display()))
            .env("DOCKER_CONFIG", dir.join("client"))
            .without("DOCKER_CONTEXT")
            .args(arguments)
    }

    /// The same, which has to end well. Returns what it says.
    pub(crate) fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.call(arguments).read().map(|text| text.trim().to_owned())
    }

    /// Makes the image if need be and loads it under its name.
    pub(crate) fn load(&self, image: &str) -> Result<()> {
        let made = images::make(image, false)?;
        self.call(["load", "--quiet", "--input"]).arg(made.path).read().map(drop)
    }

    /// Removes all containers that there are.
    pub(crate) fn clear(&self) -> Result<()> {
        let containers = self.run(["ps", "--all", "--quiet"])?;
        let containers: Vec<&str> = containers.split_whitespace().collect();
        if containers.is_empty() {
            return Ok(());
        }
        self.call(["rm", "--force", "--volumes"]).args(containers).read().map(drop)
    }

    pub(crate) fn version(&self) -> Result<String> {
        self.run(["version", "--format", "{{.Server.Version}}"])
    }

    /// The daemon, whose namespaces are what its containers have for "the host's".
    pub(crate) fn daemon(&self) -> Result<Process> {
        let data = self.dir.path().join("data").display().to_string();
        procs::named("dockerd", &data)?.first().copied().context("dockerd does not run")
    }

    /// The processes that stand beside its containers, one for each.
    pub(crate) fn shims(&self) -> Result<Vec<Process>> {
        // The kernel has but the first 15 bytes of a name.
        procs::named("containerd-shim", &self.dir.path().join("exec").display().to_string())
    }

    /// Ends every process of its world, and returns when they have ended.
    fn end(&mut self) -> Result<()> {
        // `unshare` waits for its child, and the kernel lets the first process of a world end last.
        let first = procs::children(self.world.id())?;
        if first.is_empty() {
            self.world.kill().context("cannot kill `unshare`")?;
        }
        for process in first {
            Call::of("kill").args(["-KILL", &process.pid.to_string()]).read()?;
        }
        self.world.wait().context("cannot wait for `unshare`")?;
        Ok(())
    }

    fn sweep(&self) -> Result<()> {
        for cgroup in inventory::cgroups(&self.cgroup)?.iter().rev() {
            fs::remove_dir(cgroup).with_context(|| format!("cannot remove the cgroup {cgroup}"))?;
        }
        let dir = self.dir.path();
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Err(error) = self.end().and_then(|()| self.sweep()) {
            complain(&format!("warning: something of Docker was left behind: {error:#}"));
        }
    }
}
