//! The process beside each one that joined the container: it makes it, waits for it, and tells how it ended.
//!
//! The shim forks it, with the client's connection and what came on it, and has nothing more to do than to reap it. So
//! making a process can be slow, or fail in whichever way, without the container's output or its end having to wait; and
//! the memory that it takes is gone with it. It is the process's parent, and kills it when the client has closed the
//! connection. Killed itself, it takes the process along; the shim adopts and reaps that one.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Pid, Uid, fchown, getpid, pipe2};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::retry_on_intr;
use rustix::process::{
    PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitpid,
};
use serde_json::Value;

use super::client::tell;
use super::tenant::{self, Entrant, Entry, has_ended};
use crate::cgroup::{self, Hierarchies};
use crate::confine::Confinement;
use crate::detach;
use crate::exec::Exec;
use crate::launch::Launch;
use crate::protocol::{Answer, Failed, Failure, Request, Takeover};
use crate::record::{self, Durability, ExitForm, chain};
use crate::removal;
use crate::rootfs;
use crate::terminal::Console;
use crate::ulimit;

/// A request for a process as it came: not read yet, with its descriptors.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) request: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// The container that a process joins.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) launch: &'a Launch,
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) confinement: &'a Rc<Confinement>,
    pub(super) init: Pid,
}

/// Splits off a minder that carries out the order. The caller's ends of the connection and of what came with the order are
/// closed.
pub(super) fn split_off(place: &Place<'_>, connection: UnixStream, order: Order) -> std::io::Result<Pid> {
    let Order { request, fds } = order;
    // Nobody reaps the container's first process meanwhile, so this is it, and stays it whatever its number becomes.
    let init = process(place.init.as_raw())?;
    let mut kept: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    kept.extend([connection.as_raw_fd(), init.as_raw_fd()]);
    detach::fork_off(c"gantry-exec", &kept, move || mind(place, &connection, &request, fds, init))
}

fn process(pid: i32) -> std::io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A process that runs in the container, as this one's child.
struct Tenant {
    pid: rustix::process::Pid,
    process: OwnedFd,
    master: Option<OwnedFd>,
}

fn mind(place: &Place<'_>, connection: &UnixStream, request: &[u8], fds: Vec<OwnedFd>, init: OwnedFd) {
    // What it makes inherits from it, and it is the shim's child. What the kernel refuses was said of the container already.
    let _refused = ulimit::set_oom_score(getpid().as_raw(), place.launch.options.oom_score_adj);
    let oom_kills = || cgroup::oom_kills(place.hierarchies, &place.launch.cgroup);
    let before = oom_kills();
    let Tenant { pid, process, master } = match begin(place, request, fds, init) {
        Ok(tenant) => tenant,
        Err(failed) => {
            tell(connection, &Answer::Failed(failed), &[]);
            return;
        }
    };
    let passed: Vec<BorrowedFd<'_>> = master.iter().map(AsFd::as_fd).collect();
    // A client that has gone already is noticed below.
    tell(connection, &Answer::Started { pid: pid.as_raw_pid() }, &passed);
    drop(passed);
    drop(master);
    let Ok(Some((_, status))) = wait(connection, &process, pid) else { return };
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    let exit = match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => {
            let oom = signal == libc::SIGKILL && oom_kills() > before;
            ExitForm::Signal { signal: byte(signal), oom }
        }
        (Some(code), None) => ExitForm::Code(byte(code)),
        (None, None) => ExitForm::Unknown,
    };
    tell(connection, &Answer::Ended { exit }, &[]);
}

type Waited = rustix::io::Result<Option<(rustix::process::Pid, rustix::process::WaitStatus)>>;

/// Waits until the process has ended, or its client has gone, which ends it.
fn wait(connection: &UnixStream, process: &OwnedFd, pid: rustix::process::Pid) -> Waited {
    // Without a flag it wakes when the other side has closed, and for nothing that it might send.
    let mut fds = [
        PollFd::new(process.as_fd(), PollFlags::POLLIN),
        PollFd::new(connection.as_fd(), PollFlags::empty()),
    ];
    while let Err(Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {}
    if !fds[0].any().unwrap_or(true) {
        // It is not reaped, so its number is its own. It leads a session and so a group, which a shell's pipeline is in too.
        let _gone = kill_process_group(pid, Signal::KILL);
        // Itself it may have joined another group.
        let _gone = pidfd_send_signal(process, Signal::KILL);
    }
    retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))
}

fn other(error: &dyn std::error::Error) -> Failed {
    Failed::new(Failure::Other, &chain(error))
}

/// Makes the process. What libcontainer is given and leaves is in a directory that is taken away.
fn begin(place: &Place<'_>, request: &[u8], fds: Vec<OwnedFd>, init: OwnedFd) -> Result<Tenant, Failed> {
    let request: Request<Takeover> = serde_json::from_slice(request).map_err(|error| other(&error))?;
    let Takeover::Exec(exec) = request.op else {
        return Err(Failed::new(Failure::Other, "this is no exec"));
    };
    exec.check().map_err(|error| other(&error))?;
    let config = place.dir.join(record::BUNDLE).join(record::CONFIG);
    let config = fs::read(config).map_err(|error| other(&error))?;
    let config: Value = serde_json::from_slice(&config).map_err(|error| other(&error))?;
    if tenant::has_users_of_its_own(&config) {
        let why = "gantry cannot run a command in a container with a user namespace";
        return Err(Failed::new(Failure::Other, why));
    }
    let process = settle(place, &exec, &config, &init)?;
    let work = place.dir.join(record::BUNDLE).join(record::EXECS).join(getpid().to_string());
    // A minder of this number may have been killed before it took its own away.
    let _none = removal::remove(&work);
    let made = prepare(place, &work, &config, &process).and_then(|()| {
        let making = Making { place, exec: &exec, process: &process, work: &work };
        making.make(fds, init)
    });
    // Not by a value that is dropped: what libcontainer clones would do it too, in another mount namespace.
    let _left_to_the_bundle = removal::remove(&work);
    made
}

/// Who and where the process is to be, by the container's files as they are now.
fn settle(place: &Place<'_>, exec: &Exec, config: &Value, init: &OwnedFd) -> Result<Value, Failed> {
    let root = PathBuf::from(format!("/proc/{}/root", place.init));
    let opened = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    // Only if it still lives is that certainly the container's root.
    if has_ended(init) {
        return Err(Failed::new(Failure::NotRunning, "the container has ended"));
    }
    let root = opened.map_err(|errno| other(&errno))?;
    let asked = exec.user.as_deref().filter(|user| !user.is_empty());
    let identity =
        asked.map(|user| rootfs::identity(&root, Some(user), &place.launch.options.groups)).transpose();
    let identity = identity.map_err(|error| Failed::new(Failure::NoSuchUser, &chain(&error)))?;
    let all = tenant::all_capabilities();
    let process = tenant::process(&config["process"], place.launch, exec, identity.as_ref(), &all);
    check_working_dir(&root, process["cwd"].as_str().unwrap_or("/"))?;
    Ok(process)
}

/// A working directory has to be in the container by every name: not through `/proc/self/fd` and the like, by which a process
/// would be put wherever some descriptor of its maker's leads (CVE-2024-21626). libcontainer looks once more when it is there.
fn check_working_dir(root: &OwnedFd, path: &str) -> Result<(), Failed> {
    let refused =
        |why: &str| Err(Failed::new(Failure::WorkingDir, &format!("the working directory `{path}` {why}")));
    if !path.starts_with('/') {
        return refused("is not an absolute path");
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(_directory) => Ok(()),
        Err(rustix::io::Errno::NOENT) => refused("does not exist in the container"),
        Err(rustix::io::Errno::NOTDIR) => refused("is not a directory"),
        Err(rustix::io::Errno::LOOP) => refused("leads to where another process has something open"),
        Err(errno) => refused(&format!("cannot be entered: {errno}")),
    }
}

const STATE: &str = "state.json";
const PROCESS: &str = "process.json";

/// Lays out for libcontainer: its own record of the container, changed to name this as the bundle; and in it only what there
/// is to be known to join.
fn prepare(place: &Place<'_>, work: &Path, config: &Value, process: &Value) -> Result<(), Failed> {
    let bundle = place.dir.join(record::BUNDLE);
    let id = place.launch.container();
    let failed = |error: std::io::Error| other(&error);
    let state = fs::read(bundle.join(record::RUN).join(&id).join(STATE)).map_err(failed)?;
    let mut state: Value = serde_json::from_slice(&state).map_err(|error| other(&error))?;
    state["bundle"] = serde_json::json!(work);
    let config = tenant::config(config, &bundle.join(record::ROOTFS), process);
    let run = work.join(id);
    fs::create_dir_all(&run).map_err(failed)?;
    for (dir, name, value) in
        [(run.as_path(), STATE, &state), (work, record::CONFIG, &config), (work, PROCESS, process)]
    {
        record::save(dir, name, value, Durability::Cached).map_err(failed)?;
    }
    Ok(())
}

/// What goes into making one process.
struct Making<'a> {
    place: &'a Place<'a>,
    exec: &'a Exec,
    process: &'a Value,
    work: &'a Path,
}

impl Making<'_> {
    fn make(&self, fds: Vec<OwnedFd>, init: OwnedFd) -> Result<Tenant, Failed> {
        let io = |error: std::io::Error| other(&error);
        let (failures, failures_end) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|errno| io(errno.into()))?;
        let alive = init.try_clone().map_err(io)?;
        let entrant = Entrant::new(Entry {
            confinement: self.place.confinement.clone(),
            privileged: self.exec.privileged,
            terminal: self.exec.terminal,
            init: alive,
            failures: failures_end,
        });
        let console = self.exec.terminal.map(|_| Console::in_dir(self.work)).transpose().map_err(io)?;
        let built = self.build(entrant, console.as_ref(), fds)?;
        // It has failed where it stands, or libcontainer has on the way there.
        let failed = read_failure(failures);
        let pid = match built {
            Ok(pid) => pid,
            Err(_) if has_ended(&init) => {
                return Err(Failed::new(Failure::NotRunning, "the container has ended"));
            }
            Err(error) => return Err(failed.unwrap_or_else(|| other(&error))),
        };
        let process = process(pid).map_err(io)?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or_else(|| other(&Errno::ESRCH))?;
        if let Some(failed) = failed {
            let _reaped = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
            return Err(failed);
        }
        let master = console.map(|console| console.master()).transpose();
        // A process without its terminal goes with this one.
        Ok(Tenant { pid, process, master: master.map_err(io)? })
    }

    /// The process's id on the node. `Err` is for what is wrong with what goes in, and the inner one libcontainer's.
    fn build(
        &self,
        entrant: Entrant,
        console: Option<&Console>,
        fds: Vec<OwnedFd>,
    ) -> Result<Result<i32, LibcontainerError>, Failed> {
        let builder = ContainerBuilder::new(self.place.launch.container(), SyscallType::Linux)
            .with_root_path(self.work)
            .map_err(|error| other(&error))?
            .with_executor(entrant);
        let builder = match console {
            Some(console) => builder.with_console_socket(Some(console.path().to_owned())),
            None => {
                let [stdin, stdout, stderr] = self.streams(fds)?;
                builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr)
            }
        };
        let built = builder.as_tenant().with_process(Some(self.work.join(PROCESS))).with_detach(true).build();
        Ok(built.map(|pid| pid.as_raw()))
    }

    /// The process's own ends of what the client made.
    fn streams(&self, fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], Failed> {
        let mut given = fds;
        if !self.exec.stdin {
            // At its end. The node's `/dev/null` would be the node's file in the container's hands.
            let (empty, _closed) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| other(&errno))?;
            given.insert(0, empty);
        }
        let streams = <[OwnedFd; 3]>::try_from(given);
        let streams = streams.map_err(|given| {
            let why = format!("{} descriptors came with an exec that needs others", given.len());
            Failed::new(Failure::Other, &why)
        })?;
        // As at the container's start, for those who open `/dev/stdout`.
        let id = |name: &str| self.process["user"][name].as_u64().and_then(|id| u32::try_from(id).ok());
        for fd in &streams {
            fchown(fd, id("uid").map(Uid::from_raw), id("gid").map(Gid::from_raw))
                .map_err(|errno| other(&errno))?;
        }
        Ok(streams)
    }
}

/// What the process has said before it became its program; `None` if it had nothing to say.
fn read_failure(failures: OwnedFd) -> Option<Failed> {
    let mut line = vec![0; 8 << 10];
    let count = File::from(failures).read(&mut line).ok()?;
    serde_json::from_slice(&line[..count]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn refused(root: &Path, path: &str) -> String {
        let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        match check_working_dir(&root, path) {
            Ok(()) => String::new(),
            Err(failed) => failed.why,
        }
    }

    #[test]
    fn a_working_directory_is_in_the_container_by_every_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("srv/app")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        symlink("/srv", dir.path().join("link")).unwrap();
        for fine in ["/", "/srv/app", "/link/app", "/srv/../srv", "/../../srv"] {
            assert_eq!(refused(dir.path(), fine), "", "{fine}");
        }
        for (bad, why) in [
            ("srv", "is not an absolute path"),
            ("", "is not an absolute path"),
            ("/nowhere", "does not exist in the container"),
            ("/file", "is not a directory"),
        ] {
            assert_eq!(refused(dir.path(), bad), format!("the working directory `{bad}` {why}"));
        }
    }

    #[test]
    fn a_working_directory_leads_through_no_descriptor() {
        let elsewhere = tempfile::tempdir().unwrap();
        let directory = File::open(elsewhere.path()).unwrap();
        // Here even /proc/self is ours, as in a container that shares the node's process ids.
        for path in [
            format!("/proc/self/fd/{}", directory.as_raw_fd()),
            "/proc/self/cwd".to_owned(),
            format!("/proc/{}/root", std::process::id()),
        ] {
            let why = refused(Path::new("/"), &path);
            assert!(why.ends_with("leads to where another process has something open"), "{why}");
        }
    }

    #[test]
    fn an_order_is_for_as_many_streams_as_came_with_it() {
        let hierarchies = Hierarchies::find().unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("seccomp"), [0; 8]).unwrap();
        let launch = Launch { seccomp: dir.path().join("seccomp"), ..crate::launch::tests::sample() };
        let confinement = Rc::new(Confinement::of(&launch).unwrap());
        let place = Place {
            dir: dir.path(),
            launch: &launch,
            hierarchies: &hierarchies,
            confinement: &confinement,
            init: Pid::this(),
        };
        let process = serde_json::json!({});
        let streams = |stdin: bool, count: usize| {
            let exec = Exec { stdin, ..Exec::default() };
            let making = Making { place: &place, exec: &exec, process: &process, work: dir.path() };
            let fds: Vec<OwnedFd> =
                (0..count).map(|_| OwnedFd::from(File::open("/dev/null").unwrap())).collect();
            making.streams(fds).is_ok()
        };
        assert!(streams(false, 2) && streams(true, 3));
        assert!(!streams(false, 3) && !streams(true, 2) && !streams(true, 0));
    }
}
