//! Containers through their shims.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use image::Unpacked;
use model::{Digest, Exit, HostAddress, TaskId, Timestamp};
use runtime::handle::{self, Observed};
use runtime::launch::Privileges;
use runtime::seccomp::Filters;
use runtime::skeleton::Skeleton;
use runtime::{Launch, Limits, LogPolicy, Options, ShimBinary, capability};
use tokio::sync::{OnceCell, Semaphore};

use crate::host::{Failure, Found};
use crate::ledger::Assigned;
use crate::real::disk::{Disk, make_dir};
use crate::real::{blocking, failure, files, options};

/// Containers that are being started at once. A start is mostly system time; more than this only makes each one slower.
const STARTS: usize = 4;

/// How much longer than its grace period a container may take to be seen ended before it is destroyed.
const MARGIN: Duration = Duration::from_secs(5);

/// How often a shim that is still making its container is looked at. Only an agent that came back in the middle of a
/// start waits for one.
const LOOK: Duration = Duration::from_millis(20);

/// How many attempts are kept whole, the current one included, so that one can look at what the one before left.
const ATTEMPTS_KEPT: u32 = 2;

/// How many attempts are kept with what they printed, so that `logs` can tell of them: as many as fail in a row before
/// another node is to try.
const LOGS_KEPT: u32 = 5;

const SIGTERM: i32 = 15;

#[derive(Debug)]
pub(crate) struct Containers {
    disk: Disk,
    run: PathBuf,
    cgroup: String,
    images: image::Store,
    shim: Arc<ShimBinary>,
    starts: Semaphore,
    supplies: OnceCell<Supplies>,
}

/// What all containers of this node have in common.
#[derive(Debug)]
struct Supplies {
    skeleton: Skeleton,
    /// The compiled filters of system calls.
    filters: Arc<Filters>,
}

impl Supplies {
    fn make(skeleton: PathBuf, run: PathBuf) -> Result<Self, Failure> {
        std::fs::create_dir_all(&run)
            .map_err(|error| failure(&format!("cannot make {}", run.display()), &error))?;
        let made = Skeleton::make(skeleton);
        let skeleton = made.map_err(|error| failure("cannot make the containers' mount points", &error))?;
        let supplies = Self { skeleton, filters: Arc::new(Filters::new(run)) };
        // What nearly all containers have, so that not even the first one waits for it.
        filter(&supplies.filters, &Privileges::default(), None)?;
        Ok(supplies)
    }
}

/// The filter of a container with these privileges; none where there is none to be.
fn filter(filters: &Filters, privileges: &Privileges, profile: Option<&str>) -> Result<PathBuf, Failure> {
    if privileges.unfiltered {
        return Ok(PathBuf::new());
    }
    let found = filters.find(profile, &capability::granted(privileges).capabilities);
    found.map_err(|error| failure("the container cannot be confined", &error))
}

fn limits(limits: &model::Limits) -> Limits {
    Limits {
        cpu_millis: limits.cpu.map(|cpu| cpu.0),
        memory_bytes: limits.memory.map(|memory| memory.0),
        pids: limits.pids,
    }
}

/// A launch that lacks nothing but its filter.
struct Order {
    launch: Launch,
    /// The seccomp profile that the service brings.
    profile: Option<String>,
    /// What of it this node does otherwise than it was asked.
    warnings: Vec<String>,
}

impl Containers {
    pub(crate) fn new(
        disk: Disk,
        run: PathBuf,
        cgroup: String,
        images: image::Store,
        shim: Arc<ShimBinary>,
    ) -> Self {
        let starts = Semaphore::new(STARTS);
        Self { disk, run, cgroup, images, shim, starts, supplies: OnceCell::new() }
    }

    async fn supplies(&self) -> Result<&Supplies, Failure> {
        let make = || {
            let (skeleton, run) = (self.disk.skeleton(), self.run.clone());
            blocking(move || Supplies::make(skeleton, run))
        };
        self.supplies.get_or_try_init(make).await
    }

    pub(crate) async fn unpack(&self, image: Digest) -> Result<Unpacked, Failure> {
        let images = self.images.clone();
        blocking(move || images.unpack(&image).map_err(|error| failure("cannot unpack the image", &error)))
            .await
    }

    /// Starts an attempt, and returns once its process runs or has run, with what this node does otherwise than it was asked.
    pub(crate) async fn run(
        &self,
        assigned: &Assigned,
        attempt: u32,
        image: Unpacked,
        netns: PathBuf,
    ) -> Result<Vec<String>, Failure> {
        let supplies = self.supplies().await?;
        let Order { mut launch, profile, mut warnings } =
            self.order(supplies, assigned, attempt, image, netns).await?;
        // Not while others wait to start: a container may have left behind what takes minutes to remove.
        let (disk, id) = (self.disk.clone(), assigned.id);
        blocking(move || make_way(disk.attempts(id), attempt)).await?;
        let _start = self.starts.acquire().await.map_err(|error| failure("the agent is stopping", &error))?;
        let (dir, shim, filters) =
            (self.disk.attempt(id, attempt), self.shim.clone(), supplies.filters.clone());
        let degraded = blocking(move || {
            launch.seccomp = filter(&filters, &launch.options.privileges, profile.as_deref())?;
            let made = make_dir(&dir).and_then(|()| launch.save(&dir));
            made.map_err(|error| failure(&format!("cannot write {}", dir.display()), &error))?;
            let observed =
                handle::spawn(&dir, &shim).map_err(|error| failure("cannot start a shim", &error))?;
            started(observed)
        })
        .await?;
        warnings.extend(degraded);
        for warning in &warnings {
            tracing::warn!(task = %assigned.id, "{warning}");
        }
        Ok(warnings)
    }

    async fn order(
        &self,
        supplies: &Supplies,
        assigned: &Assigned,
        attempt: u32,
        image: Unpacked,
        netns: PathBuf,
    ) -> Result<Order, Failure> {
        let Unpacked { layers, config } = image;
        let (spec, container) = (&assigned.spec, &assigned.spec.container);
        let args = runtime::args_of(
            &config.entrypoint,
            &config.cmd,
            spec.entrypoint.as_deref(),
            spec.command.as_deref(),
        )
        .map_err(|error| Failure(error.to_string()))?;
        let mut env = config.env;
        env.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}")));
        let mut options = options::options(container, vec![self.disk.data().to_owned(), self.run.clone()])?;
        let task = assigned.id.to_string();
        let (cgroup, parent) =
            options::cgroup(container.cgroup_parent.as_deref(), &self.cgroup, &task, attempt);
        let (output, unsent) = options::output(assigned).await;
        (options.cgroup_parent, options.output) = (parent, output);
        let hostname = match (options.shared.uts, &container.hostname) {
            (true, _) => options::hostname(),
            (false, Some(hostname)) => hostname.clone(),
            (false, None) => task.clone(),
        };
        let (files, unresolved) = self.files(assigned, &hostname, &options)?;
        // An annotation that is also a label is what the annotation says.
        let labels = spec.labels.clone().into_iter().chain(container.annotations.clone()).collect();
        let signal = container.stop.signal.map(model::Signal::number).or(config.stop_signal);
        let launch = Launch {
            version: Launch::VERSION,
            task,
            attempt,
            files,
            hostname,
            terminal: spec.container.tty,
            stdin: spec.container.stdin_open,
            layers: supplies.skeleton.over(layers),
            args,
            env,
            cwd: spec.working_dir.clone().unwrap_or(config.working_dir),
            user: spec.user.clone().or(config.user),
            netns: Some(netns),
            cgroup,
            shim_cgroup: Some(format!("{}/shims", self.cgroup)),
            limits: limits(&spec.resources.limits),
            labels,
            seccomp: PathBuf::new(),
            stop_signal: signal.map_or(SIGTERM, i32::from),
            log: LogPolicy { max_bytes: container.logging.max_size.0, files: container.logging.max_files },
            options,
        };
        let warnings = unsent.into_iter().chain(unresolved).collect();
        Ok(Order { launch, profile: options::profile(container), warnings })
    }

    /// Holds an attempt that runs to what is assigned now.
    pub(crate) async fn relimit(&self, task: Arc<Assigned>, attempt: u32) -> Result<Vec<String>, Failure> {
        let dir = self.disk.attempt(task.id, attempt);
        blocking(move || {
            let limits = limits(&task.spec.resources.limits);
            handle::relimit(&dir, &limits).map_err(|error| failure("cannot change the limits", &error))
        })
        .await
    }

    /// The files that every container sees as its own, whatever its image says, with what has to be said about them.
    fn files(
        &self,
        assigned: &Assigned,
        hostname: &str,
        options: &Options,
    ) -> Result<(BTreeMap<PathBuf, String>, Option<String>), Failure> {
        let container = &assigned.spec.container;
        let needs_gateway = container.hosts.iter().any(|entry| entry.address == HostAddress::Gateway);
        let subnet = if needs_gateway { self.disk.subnet()? } else { None };
        let hosts = files::hosts(
            (hostname, options.domainname.as_deref()),
            assigned.placement.address,
            &container.hosts,
            subnet.map(|subnet| subnet.gateway()),
        )
        .map_err(Failure)?;
        // The node's own resolvers: there is no name service of the cluster's yet.
        let (resolv, unresolved) = files::resolvers(&container.dns, &files::nodes_resolvers());
        let files = BTreeMap::from([
            (PathBuf::from("/etc/hosts"), hosts),
            (PathBuf::from("/etc/hostname"), format!("{hostname}\n")),
            (PathBuf::from("/etc/resolv.conf"), resolv),
        ]);
        Ok((files, unresolved))
    }

    fn latest(&self, task: TaskId) -> Option<PathBuf> {
        self.disk.attempts(task).pop().map(|(_, dir)| dir)
    }

    pub(crate) async fn find(&self, task: TaskId, attempt: u32) -> Found {
        let dir = self.disk.attempt(task, attempt);
        if !dir.exists() {
            return Found::Nothing;
        }
        match tokio::time::timeout(handle::START_TIME, self.find_in(task, dir.clone())).await {
            Ok(found) => found,
            Err(_) => self.give_up(task, dir).await,
        }
    }

    /// Ends a start that is stuck and whose agent is gone.
    async fn give_up(&self, task: TaskId, dir: PathBuf) -> Found {
        tracing::warn!(%task, "a start that an agent before this one began is stuck, and is given up");
        match blocking(move || end(&dir)).await {
            Ok(()) => Found::Nothing,
            Err(failure) => {
                tracing::warn!(%task, %failure, "a stuck start could not be ended");
                Found::Running { ran: Duration::ZERO }
            }
        }
    }

    async fn find_in(&self, task: TaskId, dir: PathBuf) -> Found {
        loop {
            let at = dir.clone();
            let found = blocking(move || look(&at)).await;
            match found {
                Ok(Some(found)) => return found,
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(failure) => {
                    // In doubt it holds: a container that cannot be looked at is taken for running, and looked at again.
                    tracing::warn!(%task, %failure, "cannot look at a container");
                    return Found::Running { ran: Duration::ZERO };
                }
            }
        }
    }

    pub(crate) async fn ended(&self, task: TaskId) {
        let Some(dir) = self.latest(task) else { return };
        loop {
            // A shim that is not reached is gone, or is clearing up and about to say how it ended: the look tells which.
            if let Ok(stream) = blocking_watch(dir.clone()).await {
                let _ = stream.readable().await;
            }
            let at = dir.clone();
            match blocking(move || look(&at)).await {
                Ok(Some(Found::Running { .. })) | Ok(None) | Err(_) => tokio::time::sleep(LOOK).await,
                Ok(Some(Found::Nothing | Found::Exited { .. })) => return,
            }
        }
    }

    pub(crate) async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), Failure> {
        let Some(dir) = self.latest(task) else { return Ok(()) };
        let at = dir.clone();
        let asked = blocking(move || {
            let launch =
                Launch::load(&at).map_err(|error| failure("cannot read how it was launched", &error))?;
            let signal = launch.map_or(SIGTERM, |launch| launch.stop_signal);
            handle::request_stop(&at, signal, grace)
                .map_err(|error| failure("the shim was not reached", &error))
        })
        .await;
        if let Err(failure) = &asked {
            // It may have ended meanwhile; if not, the wait below runs out.
            tracing::debug!(%task, %failure, "could not ask a container to stop");
        }
        let wait = if asked.is_ok() { grace + MARGIN } else { MARGIN };
        let ended = tokio::time::timeout(wait, self.ended(task)).await;
        if ended.is_ok() && !matches!(self.find_in(task, dir.clone()).await, Found::Running { .. }) {
            return Ok(());
        }
        blocking(move || end(&dir)).await
    }

    /// Makes sure that nothing of a task runs; what it wrote stays.
    pub(crate) async fn end(&self, task: TaskId) -> Result<(), Failure> {
        let attempts = self.disk.attempts(task);
        blocking(move || attempts.iter().try_for_each(|(_, dir)| end(dir))).await
    }

    pub(crate) async fn remove(&self, task: TaskId) -> Result<(), Failure> {
        let attempts = self.disk.attempts(task);
        blocking(move || {
            for (_, dir) in attempts {
                handle::destroy(&dir).map_err(|error| failure("cannot remove the container", &error))?;
            }
            Ok(())
        })
        .await
    }
}

/// What stays of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Whole,
    /// How it was launched, how it ended, and what it printed.
    Log,
    Nothing,
}

/// What stays of the attempt `old` when `new` begins.
fn kept(old: u32, new: u32) -> Kept {
    match new.checked_sub(old) {
        // One of this number or a later one is of a life that a power cut took from the ledger.
        None | Some(0) => Kept::Nothing,
        Some(age) if age < ATTEMPTS_KEPT => Kept::Whole,
        Some(age) if age < LOGS_KEPT => Kept::Log,
        Some(_) => Kept::Nothing,
    }
}

/// Takes away what of a task's attempts is not kept when `new` begins.
fn make_way(attempts: Vec<(u32, PathBuf)>, new: u32) -> Result<(), Failure> {
    for (old, dir) in attempts {
        let made_way = match kept(old, new) {
            Kept::Whole => Ok(()),
            Kept::Log => handle::shed(&dir),
            Kept::Nothing => handle::destroy(&dir),
        };
        made_way.map_err(|error| failure("cannot remove an old attempt", &error))?;
    }
    Ok(())
}

/// What the shim says that the node does otherwise than it was asked.
fn started(observed: Observed) -> Result<Vec<String>, Failure> {
    match observed {
        Observed::Running(running) => Ok(running.warnings),
        Observed::Exited(exited) if exited.exit == Exit::NotStarted => {
            Err(Failure(exited.reason.unwrap_or_else(|| "the container did not start".to_owned())))
        }
        // It ran, however briefly.
        Observed::Exited(_) => Ok(Vec::new()),
        Observed::NotStarted | Observed::Starting | Observed::Vanished => {
            Err(Failure("the shim ended before the container ran".to_owned()))
        }
    }
}

/// What is there; `None` while a shim is still making its container.
fn look(dir: &Path) -> Result<Option<Found>, Failure> {
    let inspected = handle::inspect(dir).map_err(|error| failure("cannot inspect a container", &error))?;
    Ok(match inspected {
        Observed::NotStarted => Some(Found::Nothing),
        Observed::Starting => None,
        Observed::Running(running) => Some(Found::Running { ran: age(running.since) }),
        Observed::Exited(exited) => Some(found(dir, &exited)),
        Observed::Vanished => {
            let exited =
                handle::bury(dir).map_err(|error| failure("cannot clear up after a dead shim", &error))?;
            Some(found(dir, &exited))
        }
    })
}

fn found(dir: &Path, exited: &handle::Exited) -> Found {
    Found::Exited { exit: exited.exit, ran: exited.at.since(handle::started_at(dir).unwrap_or(exited.at)) }
}

/// How long ago that was, by this node's clock.
fn age(since: Timestamp) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(since.0))
}

/// Makes sure that nothing of an attempt runs, or ever will.
fn end(dir: &Path) -> Result<(), Failure> {
    match look(dir)? {
        Some(Found::Exited { .. }) => Ok(()),
        // Where no shim is seen, one may be on its way that its launcher did not live to see begin. Without its directory
        // it gets nowhere.
        Some(Found::Nothing | Found::Running { .. }) | None => {
            handle::destroy(dir).map_err(|error| failure("cannot end the container", &error))
        }
    }
}

async fn blocking_watch(dir: PathBuf) -> Result<tokio::net::UnixStream, Failure> {
    let stream = blocking(move || {
        let stream = handle::watch(&dir).map_err(|error| failure("no shim", &error))?;
        stream.set_nonblocking(true).map_err(|error| failure("cannot watch a shim", &error))?;
        Ok(stream)
    })
    .await?;
    tokio::net::UnixStream::from_std(stream).map_err(|error| failure("cannot watch a shim", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_container_ran_is_counted_from_its_start_however_often_it_was_paused() {
        let dir = tempfile::tempdir().unwrap();
        let exited = |at| handle::Exited { exit: Exit::Code(1), at: Timestamp(at), reason: None };
        let ran = |at| match found(dir.path(), &exited(at)) {
            Found::Exited { ran, .. } => ran.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ran(61_000), 0, "it never began");
        let state = r#"{"pid":1,"at_ms":1000,"warnings":[],"paused":false}"#;
        std::fs::write(dir.path().join("state.json"), state).unwrap();
        assert_eq!(ran(61_000), 60);
    }

    #[test]
    fn older_attempts_are_kept_for_their_logs() {
        let kept: Vec<Kept> = (1..=8).map(|old| kept(old, 7)).collect();
        let (log, nothing) = (Kept::Log, Kept::Nothing);
        assert_eq!(kept, [nothing, nothing, log, log, log, Kept::Whole, nothing, nothing]);
    }
}
