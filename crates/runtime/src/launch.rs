//! What is to be run: the agent's order to a shim.

mod options;

pub use options::{
    Bind, Blkio, Capabilities, Device, DeviceRule, Journal, Mount, MountKind, Options, Output, Privileges,
    Propagation, Server, Shared, Swap, Syslog, Tmpfs, Tuning, Ulimit,
};

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use model::TaskId;
use serde::{Deserialize, Serialize};

use crate::record::{self, Durability, LoadError};

/// One container run, complete: a shim reads nothing else. Paths are the node's unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// [`Launch::VERSION`]; a shim refuses any other, since it must not ignore what it does not know.
    pub version: u32,
    /// A [`TaskId`] as it is written.
    pub task: String,
    pub attempt: u32,
    pub hostname: String,
    /// Unpacked layers, the lowest first. Never written to; containers share them.
    pub layers: Vec<PathBuf>,
    /// The command line; see [`args_of`].
    pub args: Vec<String>,
    /// `NAME=value`, a later one replacing an earlier one. `PATH`, `HOME` and `HOSTNAME` are added where missing.
    pub env: Vec<String>,
    /// In the container, absolute; empty is `/`. Made if the image lacks it, as Docker does.
    pub cwd: String,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the container's files. `None` is root.
    pub user: Option<String>,
    /// The network namespace to join; `None` is a new one with nothing in it.
    pub netns: Option<PathBuf>,
    /// Where the container's cgroup is made, absolute in the hierarchy. Nothing else may live in it.
    pub cgroup: String,
    /// Where the shim moves, so that stopping the daemon's unit does not stop it. Best effort.
    pub shim_cgroup: Option<String>,
    pub limits: Limits,
    /// Become the container's annotations.
    pub labels: BTreeMap<String, String>,
    /// The compiled filter of system calls: [`crate::seccomp::Filters::find`] makes it. Missing in what version 1 wrote, which an
    /// agent still has to read to end such a container; a shim refuses it. Not read where the options say that there is none.
    #[serde(default)]
    pub seccomp: PathBuf,
    /// What a shim that is itself told to end sends the container, ten seconds before SIGKILL.
    pub stop_signal: i32,
    pub log: LogPolicy,
    /// Files that the container sees in place of its image's, by path in the container: `/etc/hosts` and the like.
    pub files: BTreeMap<PathBuf, String>,
    /// Its standard streams are a terminal, and what it prints there is logged as its stdout.
    #[serde(default)]
    pub terminal: bool,
    /// Its stdin waits for input from who attaches ([`crate::attach`]); otherwise there is nothing to be read from it.
    #[serde(default)]
    pub stdin: bool,
    /// Missing in what versions 1 and 2 wrote.
    #[serde(default)]
    pub options: Options,
}

/// What the kernel holds the container to. A limit that the host cannot enforce is a warning on the running container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Thousandths of one CPU.
    pub cpu_millis: Option<u64>,
    /// Of memory and swap together: a container that is over its limit is killed, not swapped.
    pub memory_bytes: Option<u64>,
    /// `None` is [`Limits::PIDS`]: nobody means to allow a fork bomb. 0, and more than the kernel can count, is no limit.
    pub pids: Option<u32>,
}

impl Limits {
    /// Enough for any service we have met, and a small part of a kernel's 32,768.
    pub const PIDS: u32 = 4096;
    /// No kernel has more processes than this (`PID_MAX_LIMIT`).
    pub const MOST_PIDS: u32 = 4 << 20;
}

/// How much of what a container prints is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPolicy {
    /// A file that would grow beyond this is rotated.
    pub max_bytes: u64,
    /// Files kept, the current one included; 0 counts as 1.
    pub files: u32,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { max_bytes: 16 << 20, files: 3 }
    }
}

/// Neither the image nor the service says what to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is nothing to run: neither the image nor the service has an entrypoint or a command")]
pub struct NothingToRun;

/// The command line, by Docker's rules: the service's entrypoint replaces the image's and drops the image's command; the
/// service's command replaces the image's. Empty clears.
///
/// Source: "Understand how CMD and ENTRYPOINT interact" in the Dockerfile reference, and Compose's `entrypoint`.
pub fn args_of(
    image_entrypoint: &[String],
    image_command: &[String],
    entrypoint: Option<&[String]>,
    command: Option<&[String]>,
) -> Result<Vec<String>, NothingToRun> {
    let command = match (command, entrypoint) {
        (Some(command), _) => command,
        (None, Some(_)) => &[],
        (None, None) => image_command,
    };
    let args = [entrypoint.unwrap_or(image_entrypoint), command].concat();
    // `--entrypoint ""` and `entrypoint: [""]` are how people clear one.
    let args: Vec<String> = args.into_iter().skip_while(String::is_empty).collect();
    if args.is_empty() { Err(NothingToRun) } else { Ok(args) }
}

/// Why a launch cannot be carried out whatever the host is like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLaunch {
    #[error("launch has version {0}; this shim knows version {version}", version = Launch::VERSION)]
    Version(u32),
    #[error("`{0}` is not a task id")]
    Task(String),
    #[error("{0} has no layers")]
    NoLayers(String),
    #[error("{0} has nothing to run")]
    NothingToRun(String),
    #[error("`{0}` contains a NUL byte, which no process can be given")]
    Nul(String),
    #[error("`{0}` is not an absolute path without `..`")]
    Path(String),
    #[error("hostname `{0}` has more than the 64 bytes that the kernel keeps")]
    Hostname(String),
    #[error("domain name `{0}` has more than the 64 bytes that the kernel keeps")]
    Domainname(String),
    #[error("sysctl `{name}` cannot be set for a container: {why}")]
    Sysctl { name: String, why: &'static str },
    #[error("a device cannot be at `{path}`: it has to be below /dev", path = .0.display())]
    DeviceTarget(PathBuf),
    #[error("cgroup {cgroup} is not in its parent {parent}")]
    CgroupParent { cgroup: String, parent: String },
}

impl Launch {
    pub const VERSION: u32 = 3;

    /// Writes the order into the task directory.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        record::save(dir, record::LAUNCH, self, Durability::Cached)
    }

    /// Reads it back; `None` if there is none.
    pub fn load(dir: &Path) -> Result<Option<Self>, LoadError> {
        record::load(dir, record::LAUNCH)
    }

    /// What a shim still needs once the container is made, which may run for years. The rest is in the file that it was read from.
    pub(crate) fn settled(self) -> Self {
        Self { layers: Vec::new(), args: Vec::new(), labels: BTreeMap::new(), files: BTreeMap::new(), ..self }
    }

    /// The container's name to libcontainer.
    pub(crate) fn container(&self) -> String {
        format!("{}.{}", self.task, self.attempt)
    }

    /// Whether it makes sense. An agent may ask before it writes it; a shim asks before it acts.
    pub fn check(&self) -> Result<(), InvalidLaunch> {
        if self.version != Self::VERSION {
            return Err(InvalidLaunch::Version(self.version));
        }
        // It becomes file names.
        self.task.parse::<TaskId>().map_err(|_| InvalidLaunch::Task(self.task.clone()))?;
        if self.layers.is_empty() {
            return Err(InvalidLaunch::NoLayers(self.task.clone()));
        }
        if self.args.first().is_none_or(String::is_empty) {
            return Err(InvalidLaunch::NothingToRun(self.task.clone()));
        }
        if self.hostname.len() > 64 {
            return Err(InvalidLaunch::Hostname(self.hostname.clone()));
        }
        let mut given =
            self.args.iter().chain(&self.env).chain([&self.cwd, &self.hostname]).chain(&self.user);
        if let Some(bad) = given.find(|text| text.contains('\0')) {
            return Err(InvalidLaunch::Nul(bad.escape_debug().to_string()));
        }
        let cgroups = [Some(&self.cgroup), self.shim_cgroup.as_ref()].into_iter().flatten().map(Path::new);
        match cgroups.chain(self.files.keys().map(PathBuf::as_path)).find(|path| !is_plain_absolute(path)) {
            Some(bad) => Err(InvalidLaunch::Path(bad.display().to_string())),
            None => self.options.check(&self.cgroup),
        }
    }
}

/// Absolute, below the root, and the same whichever way it is resolved.
fn is_plain_absolute(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Launch {
        Launch {
            version: Launch::VERSION,
            task: "s1-2-3".to_owned(),
            attempt: 1,
            hostname: "web-2".to_owned(),
            layers: vec!["/layers/base".into(), "/layers/app".into()],
            args: vec!["nginx".to_owned(), "-g".to_owned(), "daemon off;".to_owned()],
            env: vec!["COLOUR=red".to_owned(), "COLOUR=blue".to_owned()],
            cwd: "/srv".to_owned(),
            user: Some("www-data".to_owned()),
            netns: Some("/run/gantry/netns/s1-2-3".into()),
            cgroup: "/gantry/n1/s1-2-3.1".to_owned(),
            shim_cgroup: Some("/gantry/n1/shims".to_owned()),
            limits: Limits { cpu_millis: Some(500), memory_bytes: Some(64 << 20), pids: None },
            labels: BTreeMap::from([("com.example.tier".to_owned(), "front".to_owned())]),
            seccomp: "/run/gantry/seccomp".into(),
            stop_signal: 15,
            log: LogPolicy::default(),
            files: BTreeMap::from([("/etc/hosts".into(), "127.0.0.1 localhost\n".to_owned())]),
            terminal: false,
            stdin: false,
            options: Options::default(),
        }
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn args(
        image: (&str, &str),
        entrypoint: Option<&str>,
        command: Option<&str>,
    ) -> Result<String, NothingToRun> {
        let (entrypoint, command) = (entrypoint.map(words), command.map(words));
        args_of(&words(image.0), &words(image.1), entrypoint.as_deref(), command.as_deref())
            .map(|args| args.join(" "))
    }

    #[test]
    fn the_command_line_follows_dockers_rules() {
        let image = ("/entry.sh", "nginx -g off");
        assert_eq!(args(image, None, None), Ok("/entry.sh nginx -g off".to_owned()));
        assert_eq!(args(image, None, Some("bash")), Ok("/entry.sh bash".to_owned()));
        assert_eq!(
            args(image, Some("/mine"), None),
            Ok("/mine".to_owned()),
            "the image's command is dropped"
        );
        assert_eq!(args(image, Some("/mine"), Some("-v")), Ok("/mine -v".to_owned()));
        assert_eq!(args(image, Some(""), Some("sh")), Ok("sh".to_owned()), "empty clears the entrypoint");
        assert_eq!(args(image, None, Some("")), Ok("/entry.sh".to_owned()), "empty clears the command");
        assert_eq!(args(image, Some(""), None), Err(NothingToRun));
        assert_eq!(args(("", ""), None, None), Err(NothingToRun));
        assert_eq!(args_of(&[], &words("sh"), Some(&[String::new()]), Some(&words("ls"))), Ok(words("ls")));
    }

    #[test]
    fn a_launch_that_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut Launch)| {
            let mut launch = sample();
            change(&mut launch);
            launch.check().unwrap_err().to_string()
        };
        assert_eq!(sample().check(), Ok(()));
        assert_eq!(refused(|l| l.version = 1), "launch has version 1; this shim knows version 3");
        assert_eq!(refused(|l| l.task = "../x".to_owned()), "`../x` is not a task id");
        assert_eq!(refused(|l| l.layers.clear()), "s1-2-3 has no layers");
        assert_eq!(refused(|l| l.args.clear()), "s1-2-3 has nothing to run");
        assert_eq!(
            refused(|l| l.env = vec!["A=\0".to_owned()]),
            "`A=\\0` contains a NUL byte, which no process can be given"
        );
        for bad in ["", "/", "gantry", "/gantry/../system.slice"] {
            let launch = Launch { cgroup: bad.to_owned(), ..sample() };
            assert_eq!(launch.check(), Err(InvalidLaunch::Path(bad.to_owned())));
        }
    }

    #[test]
    fn a_launch_reads_back_and_an_unknown_field_is_not_ignored() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Launch::load(dir.path()).unwrap(), None);
        sample().save(dir.path()).unwrap();
        assert_eq!(Launch::load(dir.path()).unwrap(), Some(sample()));
        let text = std::fs::read_to_string(dir.path().join(record::LAUNCH)).unwrap();
        std::fs::write(dir.path().join(record::LAUNCH), text.replacen('{', "{\"privileged\":true,", 1))
            .unwrap();
        assert!(Launch::load(dir.path()).is_err());
    }

    #[test]
    fn what_version_two_wrote_is_read_so_that_its_container_can_be_ended() {
        let launch = Launch { version: 2, ..sample() };
        let mut written = serde_json::to_value(&launch).unwrap();
        let fields = written.as_object_mut().unwrap();
        for later in ["options", "terminal", "stdin"] {
            fields.remove(later).unwrap();
        }
        assert_eq!(serde_json::from_value::<Launch>(written).unwrap(), launch);
        assert_eq!(launch.check(), Err(InvalidLaunch::Version(2)));
    }
}
