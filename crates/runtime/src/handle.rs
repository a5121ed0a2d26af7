//! The agent's side of a shim. Everything here works by the task directory alone, so that an agent that was started again
//! knows as much as the one before it.
//!
//! An attempt goes through these states, and only forward:
//!
//! ```text
//! NotStarted ── spawn ──▶ Starting ──▶ Running ──▶ Exited ── destroy ──▶ (no directory)
//!                             └──────────┴── kill -9 of the shim, reboot ──▶ Vanished ── bury ──▶ Exited(Unknown)
//! ```
//!
//! All of it blocks: [`spawn`] for the tens of milliseconds that a container takes to be made (at most [`START_TIME`]),
//! [`bury`] and [`destroy`] for as long as processes take to die, the rest for a few system calls.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use model::{Exit, Timestamp};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::binary::ShimBinary;
use crate::cgroup::{self, CgroupError, Hierarchies};
use crate::launch::{Launch, Limits};
use crate::protocol::{self, Op, Reply, Request};
use crate::record::{self, Durability, Ended, ExitForm, LoadError, Started};
use crate::removal;
use crate::rootfs::short_path;

/// How long a start may take. It is tens of milliseconds, and some seconds on a machine whose disk is busy with everything
/// else; what takes a minute is stuck, and holds up those that wait behind it.
pub const START_TIME: Duration = Duration::from_secs(60);

/// How long SIGKILL may take. What it does not end in this time waits for a disk, and is worth telling someone.
const KILL_TIME: Duration = Duration::from_secs(10);

/// How long a shim may take to answer, or to end once its container has. It does nothing slow but writing its log.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What has become of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// No shim was ever there. [`spawn`] may be called.
    NotStarted,
    /// A shim is making the container. [`spawn`] was called by an agent that has not heard the answer.
    Starting,
    Running(Running),
    Exited(Exited),
    /// The shim is gone and has not said how the container ended, which may even be alive. Call [`bury`].
    Vanished,
}

/// A container that runs, or has ended so recently that its shim is still tidying up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its first process, on this node.
    pub pid: i32,
    pub since: Timestamp,
    /// What was asked for and this host does not do.
    pub warnings: Vec<String>,
    /// All of it stands still: [`pause`].
    pub paused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exited {
    pub exit: Exit,
    /// When it ended; for [`Exit::Unknown`], when that was found.
    pub at: Timestamp,
    /// Why it did not start, or what of it could not be removed.
    pub reason: Option<String>,
}

impl From<Ended> for Exited {
    fn from(Ended { exit, at_ms, reason }: Ended) -> Self {
        Self { exit: exit.into(), at: Timestamp(at_ms), reason }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot tell whether {dir} has a shim")]
    Lock { dir: PathBuf, source: io::Error },
}

/// Looks what has become of the attempt in `dir`, changing nothing. A directory that is not there is `NotStarted`.
pub fn inspect(dir: &Path) -> Result<Observed, InspectError> {
    if let Some(ended) = record::load::<Ended>(dir, record::EXIT)? {
        return Ok(Observed::Exited(ended.into()));
    }
    let started: Option<Started> = record::load_unsynced(dir, record::STATE)?;
    let shim =
        record::lock_holder(dir).map_err(|source| InspectError::Lock { dir: dir.to_owned(), source })?;
    match (shim, started) {
        (Some(_), Some(Started { pid, at_ms, warnings, paused })) => {
            Ok(Observed::Running(Running { pid, since: Timestamp(at_ms), warnings, paused }))
        }
        (Some(_), None) => Ok(Observed::Starting),
        (None, started) => {
            // Between the two looks the shim may have recorded the end and gone.
            if let Some(ended) = record::load::<Ended>(dir, record::EXIT)? {
                return Ok(Observed::Exited(ended.into()));
            }
            let was_there = started.is_some() || dir.join(record::LOCK).exists();
            Ok(if was_there { Observed::Vanished } else { Observed::NotStarted })
        }
    }
}

/// When the container of `dir` began to run. `None` if it never did, or if nobody can tell any more.
pub fn started_at(dir: &Path) -> Option<Timestamp> {
    let started: Option<Started> = record::load_unsynced(dir, record::STATE).ok()?;
    started.map(|started| Timestamp(started.at_ms))
}

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{dir} has no launch.json to start from")]
    NoLaunch { dir: PathBuf },
    #[error("cannot write {path}")]
    Output { path: PathBuf, source: io::Error },
    #[error("cannot run a shim for {dir}")]
    Exec { dir: PathBuf, source: io::Error },
    #[error("the shim for {dir} died before it had a container: {said}")]
    Died { dir: PathBuf, said: String },
    #[error("the shim for {dir} is stuck: it had no container after {time:?}")]
    Stuck { dir: PathBuf, time: Duration },
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

/// Starts the attempt that [`Launch::save`] put into `dir`, and returns what it came to: `Running`, or `Exited` with
/// [`Exit::NotStarted`] and the reason, or already with something else.
///
/// Make the directory for root only (0700): it holds the container's files and its log.
///
/// The shim is nobody's child afterwards: it outlives the caller, who has nothing to reap. Calling this for a directory
/// that has a shim starts no second one. Returns within [`START_TIME`]; a shim that is [`SpawnError::Stuck`] is still there,
/// for [`destroy`] to end.
pub fn spawn(dir: &Path, binary: &ShimBinary) -> Result<Observed, SpawnError> {
    if !dir.join(record::LAUNCH).exists() {
        return Err(SpawnError::NoLaunch { dir: dir.to_owned() });
    }
    // The shim has another working directory.
    let dir = &std::path::absolute(dir).map_err(|source| SpawnError::Exec { dir: dir.to_owned(), source })?;
    let path = dir.join(record::STDERR);
    let errors = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let errors = errors.map_err(|source| SpawnError::Output { path: path.clone(), source })?;
    let launcher = binary.command(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
    let launcher = launcher.map_err(|source| SpawnError::Exec { dir: dir.to_owned(), source })?;
    await_launcher(dir, launcher, START_TIME)?;
    match inspect(dir)? {
        Observed::NotStarted => {
            let said = std::fs::read_to_string(&path).unwrap_or_default();
            Err(SpawnError::Died { dir: dir.to_owned(), said: said.trim().to_owned() })
        }
        observed => Ok(observed),
    }
}

/// Waits until the launcher has ended, and reaps it. One that does not end in `time` is killed.
fn await_launcher(dir: &Path, mut launcher: Child, time: Duration) -> Result<(), SpawnError> {
    let failed = |source| SpawnError::Exec { dir: dir.to_owned(), source };
    // Nobody else reaps it, so its id is its own.
    let process = pidfd_open(Pid::from_child(&launcher), PidfdFlags::empty()).map_err(io::Error::from);
    let in_time = process.and_then(|process| is_dead_within(&process, time));
    if !matches!(in_time, Ok(true)) {
        let _dead_already = launcher.kill();
    }
    launcher.wait().map_err(failed)?;
    match in_time {
        Ok(true) => Ok(()),
        Ok(false) => Err(SpawnError::Stuck { dir: dir.to_owned(), time }),
        Err(source) => Err(failed(source)),
    }
}

/// Waits for a process to die; false if it lives longer than `time`.
fn is_dead_within(process: &OwnedFd, time: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("no shim answers in {dir}")]
    NoShim { dir: PathBuf, source: io::Error },
    #[error("the shim in {dir} did not answer")]
    NoAnswer { dir: PathBuf, source: io::Error },
    #[error("the answer of the shim in {dir} is not understood")]
    Garbled { dir: PathBuf, source: serde_json::Error },
    #[error("the shim in {dir} refused: {why}")]
    Refused { dir: PathBuf, why: String },
    #[error(
        "the container in {dir} was started by an older gantry, which cannot do this; replace its task to be able to"
    )]
    Older { dir: PathBuf },
}

/// Asks the shim to stop the container: `signal` to its first process, and SIGKILL to all of it after `grace`. Returns
/// when the shim has the request, not when the container has ended. Asking again can only bring the end forward.
pub fn request_stop(dir: &Path, signal: i32, grace: Duration) -> Result<(), RequestError> {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    request(dir, Op::Stop { signal, grace_ms })
}

/// Sends the container's first process a signal. SIGKILL resumes a container that is paused, as in Docker; another signal
/// arrives when it is resumed.
pub fn signal(dir: &Path, signal: i32) -> Result<(), RequestError> {
    request(dir, Op::Signal { signal })
}

/// Stops all processes of the container where they are, until [`resume`], or a request to stop. Returns when they stand
/// still. Once more changes nothing.
pub fn pause(dir: &Path) -> Result<(), RequestError> {
    request(dir, Op::Pause)
}

/// Lets a paused container go on. One that is not paused stays as it is.
pub fn resume(dir: &Path) -> Result<(), RequestError> {
    request(dir, Op::Resume)
}

/// A container that is paused for as long as this is there, and not longer: whoever holds it may be killed.
#[derive(Debug)]
pub struct Pause {
    _connection: UnixStream,
}

/// Stops all processes of the container where they are until the answer is dropped. One that was paused already stays so then.
pub fn pause_while(dir: &Path) -> Result<Pause, RequestError> {
    Ok(Pause { _connection: request_on(dir, Op::PauseWhile)? })
}

fn request(dir: &Path, op: Op) -> Result<(), RequestError> {
    request_on(dir, op).map(drop)
}

/// Asks, and returns the connection when that is done.
fn request_on(dir: &Path, op: Op) -> Result<UnixStream, RequestError> {
    let no_answer = |source| RequestError::NoAnswer { dir: dir.to_owned(), source };
    let stream = ask(dir, op)?;
    stream.set_read_timeout(Some(ANSWER_TIME)).map_err(no_answer)?;
    let mut line = String::new();
    let count = BufReader::new(&stream).read_line(&mut line).map_err(no_answer)?;
    if count == 0 {
        // It ended with the container, which is as good an answer as any: there is nothing left to signal.
        return Ok(stream);
    }
    match serde_json::from_str(&line) {
        Ok(Reply::Done | Reply::Running { .. } | Reply::Exited(_)) => Ok(stream),
        Ok(Reply::Refused { why }) if why.starts_with(protocol::UNKNOWN) => {
            Err(RequestError::Older { dir: dir.to_owned() })
        }
        Ok(Reply::Refused { why }) => Err(RequestError::Refused { dir: dir.to_owned(), why }),
        Err(source) => Err(RequestError::Garbled { dir: dir.to_owned(), source }),
    }
}

/// A connection to the shim.
pub(crate) fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (_dir, path) = short_path(dir, record::SOCKET)?;
    UnixStream::connect(path)
}

fn ask(dir: &Path, op: Op) -> Result<UnixStream, RequestError> {
    let no_shim = |source| RequestError::NoShim { dir: dir.to_owned(), source };
    let mut stream = connect(dir).map_err(no_shim)?;
    stream.write_all(&protocol::line(&Request { v: protocol::VERSION, op })).map_err(no_shim)?;
    Ok(stream)
}

/// A connection that becomes readable when the container has ended, or its shim has died: then [`inspect`] knows. What is
/// read from it does not matter. `NoShim` means that the container has ended already; its shim may still be tidying up.
///
/// This is how an agent waits for thousands of containers without a thread or a timer for each.
pub fn watch(dir: &Path) -> Result<UnixStream, RequestError> {
    ask(dir, Op::Wait)
}

#[derive(Debug, thiserror::Error)]
pub enum BuryError {
    #[error("{dir} has a living shim, process {pid}")]
    Alive { dir: PathBuf, pid: i32 },
    #[error("cannot read this host's cgroups")]
    Cgroups(#[source] io::Error),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("the container in {dir} is not gone")]
    Cgroup { dir: PathBuf, source: CgroupError },
    #[error("cannot record the end of {dir}")]
    Record { dir: PathBuf, source: io::Error },
}

/// Ends an attempt whose shim is gone: kills what is left of the container and records [`Exit::Unknown`]. An attempt that
/// has an end already keeps it.
pub fn bury(dir: &Path) -> Result<Exited, BuryError> {
    let lock = |source| InspectError::Lock { dir: dir.to_owned(), source };
    if let Some(pid) = record::lock_holder(dir).map_err(lock)? {
        return Err(BuryError::Alive { dir: dir.to_owned(), pid });
    }
    if let Some(ended) = record::load::<Ended>(dir, record::EXIT).map_err(InspectError::from)? {
        return Ok(ended.into());
    }
    let launch: Option<Launch> = record::load_unsynced(dir, record::LAUNCH).map_err(InspectError::from)?;
    if let Some(launch) = launch {
        let hierarchies = Hierarchies::find().map_err(BuryError::Cgroups)?;
        let killed = cgroup::kill(&hierarchies, &launch.cgroup, KILL_TIME);
        let removed = killed.and_then(|()| cgroup::remove_containers(&hierarchies, &launch));
        removed.map_err(|source| BuryError::Cgroup { dir: dir.to_owned(), source })?;
    }
    let ended = Ended { exit: ExitForm::Unknown, at_ms: record::now().0, reason: None };
    let saved = record::save(dir, record::EXIT, &ended, Durability::Synced);
    saved.map_err(|source| BuryError::Record { dir: dir.to_owned(), source })?;
    Ok(ended.into())
}

#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    #[error("cannot read this host's cgroups")]
    Cgroups(#[source] io::Error),
    #[error(transparent)]
    Inspect(#[from] InspectError),
    #[error("cannot end the shim of {dir}, process {pid}")]
    Shim { dir: PathBuf, pid: i32, source: io::Error },
    #[error("the container in {dir} is not gone")]
    Cgroup { dir: PathBuf, source: CgroupError },
    #[error("cannot remove {dir}")]
    Remove { dir: PathBuf, source: io::Error },
}

/// Removes every trace of the attempt, whatever state it is in: processes, cgroup, shim, directory. What was done before
/// is not done again, so it may be repeated after any failure, and for a directory that is not there.
pub fn destroy(dir: &Path) -> Result<(), DestroyError> {
    let launch: Option<Launch> = record::load_unsynced(dir, record::LAUNCH).map_err(InspectError::from)?;
    match launch {
        None => end_shim(dir)?,
        Some(launch) => {
            let hierarchies = Hierarchies::find().map_err(DestroyError::Cgroups)?;
            let failed = |source| DestroyError::Cgroup { dir: dir.to_owned(), source };
            // Once the container is dead its shim ends by itself, with everything in order. One that had no container yet
            // may make it now, hence the second look when nobody is left to make another.
            cgroup::kill(&hierarchies, &launch.cgroup, KILL_TIME).map_err(failed)?;
            end_shim(dir)?;
            let killed = cgroup::kill(&hierarchies, &launch.cgroup, KILL_TIME);
            killed.and_then(|()| cgroup::remove_containers(&hierarchies, &launch)).map_err(failed)?;
        }
    }
    let failed = |source| DestroyError::Remove { dir: dir.to_owned(), source };
    // The bundle was the shim's alone and went with it, unless someone entered its namespace and mounted it elsewhere.
    let _not_mounted = umount2(&dir.join(record::BUNDLE), MntFlags::MNT_DETACH);
    removal::remove(dir).map_err(failed)
}

/// Leaves of an attempt that is over what is known of it and what it printed; its writable layer goes. May be repeated.
pub fn shed(dir: &Path) -> Result<(), DestroyError> {
    [record::UPPER, record::WORK].into_iter().try_for_each(|layer| {
        let dir = dir.join(layer);
        removal::remove(&dir).map_err(|source| DestroyError::Remove { dir, source })
    })
}

/// Waits for the shim to end; kills it if it does not.
fn end_shim(dir: &Path) -> Result<(), DestroyError> {
    let holder = || {
        let holder = record::lock_holder(dir);
        holder.map_err(|source| InspectError::Lock { dir: dir.to_owned(), source })
    };
    let Some(pid) = holder()? else { return Ok(()) };
    let failed = |source: io::Error| DestroyError::Shim { dir: dir.to_owned(), pid, source };
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    let process = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(failed(errno.into())),
    };
    // Only if it still holds the lock is the descriptor certainly the shim's, and not of whoever got its number.
    if holder()? != Some(pid) {
        return Ok(());
    }
    if is_dead_within(&process, ANSWER_TIME).map_err(failed)? {
        return Ok(());
    }
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL)
        .map_err(|errno| failed(errno.into()))?;
    match is_dead_within(&process, KILL_TIME).map_err(failed)? {
        true => Ok(()),
        false => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

/// Holds a container that runs to other limits than it was launched with. What the host does not do is returned, in words; so is
/// that there is no such container.
pub fn relimit(dir: &Path, limits: &Limits) -> Result<Vec<String>, RelimitError> {
    let launch = Launch::load(dir)?.ok_or_else(|| RelimitError::NotLaunched { dir: dir.to_owned() })?;
    let hierarchies = Hierarchies::find().map_err(RelimitError::Mounts)?;
    let set = || cgroup::limit(&hierarchies, &launch.cgroup, limits, &launch.options.tuning);
    // Where memory is counted with swap and without, the larger of two limits has to be raised first, and what was refused
    // for that is accepted the second time.
    Ok(if set().is_empty() { Vec::new() } else { set() })
}

#[derive(Debug, thiserror::Error)]
pub enum RelimitError {
    #[error(transparent)]
    Launch(#[from] LoadError),
    #[error("nothing was launched in {dir}")]
    NotLaunched { dir: PathBuf },
    #[error("cannot read this host's mounts")]
    Mounts(#[source] io::Error),
}

/// Removes a cgroup with all that is below it, killing what lives there: the shims' own, or a whole node's prefix when the
/// node is taken away. `path` is absolute in the hierarchy.
pub fn remove_cgroup(path: &str) -> Result<(), CgroupError> {
    let hierarchies = Hierarchies::find().map_err(CgroupError::Mounts)?;
    cgroup::kill(&hierarchies, path, KILL_TIME)?;
    cgroup::remove(&hierarchies, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::tests::sample;
    use crate::removal::tests::nest;

    #[test]
    fn an_attempt_is_what_its_directory_says() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(inspect(&dir.join("absent")).unwrap(), Observed::NotStarted);
        assert_eq!(started_at(&dir.join("absent")), None);
        sample().save(dir).unwrap();
        assert_eq!(inspect(dir).unwrap(), Observed::NotStarted);

        std::fs::write(dir.join(record::LOCK), "").unwrap();
        assert_eq!(inspect(dir).unwrap(), Observed::Vanished, "a shim was there and is not any more");
        let started = Started { pid: 1, at_ms: 7, warnings: Vec::new(), paused: false };
        record::save(dir, record::STATE, &started, Durability::Cached).unwrap();
        assert_eq!(inspect(dir).unwrap(), Observed::Vanished, "process 1 lives, and is not believed");
        assert_eq!(started_at(dir), Some(Timestamp(7)));
        record::save(dir, record::STATE, &Started { paused: true, ..started }, Durability::Cached).unwrap();
        assert_eq!(started_at(dir), Some(Timestamp(7)), "a pause does not make it younger");

        let ended = Ended { exit: ExitForm::Code(3), at_ms: 9, reason: None };
        record::save(dir, record::EXIT, &ended, Durability::Synced).unwrap();
        let exited = Exited { exit: Exit::Code(3), at: Timestamp(9), reason: None };
        assert_eq!(inspect(dir).unwrap(), Observed::Exited(exited.clone()));
        assert_eq!(bury(dir).unwrap(), exited, "an end is never replaced");

        std::fs::create_dir_all(dir.join(record::UPPER).join("var")).unwrap();
        // As a container may leave it.
        nest(&dir.join(record::UPPER), 10_000);
        std::fs::write(dir.join(record::LOG), "kept").unwrap();
        // The second time there is nothing to do.
        for _ in 0..2 {
            shed(dir).unwrap();
            assert_eq!(inspect(dir).unwrap(), Observed::Exited(exited.clone()));
            assert!(!dir.join(record::UPPER).exists());
            assert_eq!(std::fs::read(dir.join(record::LOG)).unwrap(), b"kept");
        }
    }

    #[test]
    fn nobody_answers_where_there_is_no_shim() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(watch(dir.path()), Err(RequestError::NoShim { .. })));
        assert!(matches!(signal(&dir.path().join("absent"), 15), Err(RequestError::NoShim { .. })));
        assert!(matches!(pause(dir.path()), Err(RequestError::NoShim { .. })));
        let spawned = spawn(dir.path(), &ShimBinary::at("/bin/true"));
        assert!(matches!(spawned, Err(SpawnError::NoLaunch { .. })));
    }

    #[test]
    fn a_shim_that_does_not_know_what_is_asked_is_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join(record::SOCKET)).unwrap();
        let shim = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let refused = b"{\"reply\":\"refused\",\"why\":\"not a request: unknown variant `pause`\"}\n";
            stream.write_all(refused).unwrap();
            BufReader::new(stream).read_line(&mut String::new()).unwrap();
        });
        assert!(matches!(pause(dir.path()), Err(RequestError::Older { .. })));
        shim.join().unwrap();
    }

    #[test]
    fn a_launcher_that_does_not_end_is_killed_and_reaped() {
        let dir = Path::new("/tasks/s1-1-1/1");
        let quick = std::process::Command::new("true").spawn().unwrap();
        assert!(await_launcher(dir, quick, START_TIME).is_ok());

        let stuck = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", stuck.id()));
        let error = await_launcher(dir, stuck, Duration::from_millis(10)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the shim for /tasks/s1-1-1/1 is stuck: it had no container after 10ms"
        );
        assert!(!process.exists(), "it is not even a zombie");
    }

    #[test]
    fn a_directory_without_a_container_is_destroyed_and_may_be_destroyed_again() {
        let dir = tempfile::tempdir().unwrap();
        let task = dir.path().join("task");
        std::fs::create_dir(&task).unwrap();
        let launch = Launch { cgroup: "/gantry-unit-test/never/was".to_owned(), ..sample() };
        launch.save(&task).unwrap();
        nest(&task, 10_000);
        destroy(&task).unwrap();
        assert!(!task.exists());
        destroy(&task).unwrap();
    }
}
