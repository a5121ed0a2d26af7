//! The processes that a cluster is made of: holders, and the step in which a daemon enters its node.
//!
//! A holder has a network and a mount namespace and does nothing. As long as it sleeps, the namespaces are there, so
//! that a daemon can die and come back to its world. Both halves are here: what the new process does
//! ([`holder_main`], in a fresh and single-threaded program, as unshare(2) and setns(2) want it), and how it is
//! started.
//!
//! **Invariant:** a process that is in no record ends by itself. It waits, before it does anything that lasts, for one
//! byte that is sent when it has been recorded; if the starting command dies first, it reads the end of the pipe.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup::{CgroupError, Hierarchies};
use crate::process::Process;

/// What the program is called with to become a holder: `gantry dev-holder …`.
pub const HOLDER_ARGUMENT: &str = "dev-holder";
/// The first argument after it.
const HOLD: &str = "hold";
const DAEMON: &str = "daemon";
/// What a holder says when its namespaces are there.
const READY: &str = "ready";

#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    #[error("cannot start this program again")]
    Start(#[source] io::Error),
    #[error("a process of the cluster ended before it was set up: {0}")]
    Failed(String),
    #[error("cannot talk to the process that was started")]
    Pipe(#[source] io::Error),
}

/// What goes wrong in the new process.
#[derive(Debug, thiserror::Error)]
enum LifeError {
    #[error("`{}` is for gantry's own use", HOLDER_ARGUMENT)]
    Arguments,
    #[error("cannot {step}")]
    Step { step: &'static str, source: io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("the node's holder {0} is gone")]
    NoHolder(i32),
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> LifeError {
    move |error| LifeError::Step { step, source: error.into() }
}

/// The whole life of such a process. `arguments` are those after [`HOLDER_ARGUMENT`]. To be called first thing in
/// `main`, before there is a second thread or an open file.
pub fn holder_main(arguments: &[OsString]) -> ! {
    let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let ended =
        close_inherited().map_err(step("close inherited files")).and_then(|()| match words.as_slice() {
            [HOLD, cgroup] => hold(cgroup, None),
            [HOLD, cgroup, pins] => hold(cgroup, Some(Path::new(pins))),
            [DAEMON, pid, start, cgroup, data] => match (pid.parse::<i32>(), start.parse::<u64>()) {
                (Ok(pid), Ok(start)) => become_daemon(Process { pid, start }, cgroup, data),
                _ => Err(LifeError::Arguments),
            },
            _ => Err(LifeError::Arguments),
        });
    let Err(error) = ended;
    // A holder's stdout is a pipe to whoever waits for its word, a daemon's is its log.
    let _nobody_listens = writeln!(io::stdout(), "{}", crate::output::chain(&error));
    std::process::exit(1)
}

/// Closes all that a careless caller left open: it would stay open for as long as the cluster lives, a lock included.
fn close_inherited() -> io::Result<()> {
    let open = std::fs::read_dir("/proc/self/fd")?;
    let numbers: Vec<i32> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The descriptor of the listing itself is among them, and closed already.
        let _closed = nix::unistd::close(number);
    }
    Ok(())
}

/// Makes a node's namespaces and keeps them until it is killed.
fn hold(cgroup: &str, pins: Option<&Path>) -> Result<Infallible, LifeError> {
    nix::sys::prctl::set_name(c"gantry-holder").map_err(step("set its name"))?;
    nix::unistd::setsid().map_err(step("start a session"))?;
    nix::unistd::chdir("/").map_err(step("leave the working directory"))?;
    Hierarchies::find()?.enter(cgroup)?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(step("make namespaces"))?;
    // What is mounted in the node stays there; what is unmounted on the machine does not linger in the node.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(step("separate its mounts"))?;
    if let Some(pins) = pins {
        // The folder is the machine's, and what the daemon mounts below it is to be the node's alone.
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), pins, Some("tmpfs"), flags, Some("mode=0700,size=1m"))
            .map_err(step("mount a place for network namespaces"))?;
    }
    writeln!(io::stdout(), "{READY}").map_err(step("say that it is ready"))?;
    await_record()?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(step("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null))
        .map_err(step("let go of its pipes"))?;
    drop(null);
    loop {
        nix::unistd::pause();
    }
}

/// Enters a node's namespaces and becomes its daemon. The process keeps its number and start time.
fn become_daemon(holder: Process, cgroup: &str, data: &str) -> Result<Infallible, LifeError> {
    await_record()?;
    nix::unistd::setsid().map_err(step("start a session"))?;
    Hierarchies::find()?.enter(cgroup)?;
    let enter = step("enter the node's namespaces");
    let entered = namespace(holder, "mnt").and_then(|mounts| {
        let net = namespace(holder, "net")?;
        let (Some(mounts), Some(net)) = (mounts, net) else { return Ok(false) };
        setns(&mounts, CloneFlags::CLONE_NEWNS)?;
        setns(&net, CloneFlags::CLONE_NEWNET)?;
        Ok(true)
    });
    if !entered.map_err(enter)? {
        return Err(LifeError::NoHolder(holder.pid));
    }
    nix::unistd::chdir("/").map_err(step("leave the working directory"))?;
    let null = File::open("/dev/null").map_err(step("open /dev/null"))?;
    nix::unistd::dup2_stdin(&null).map_err(step("let go of its pipe"))?;
    let mut daemon = Command::new("/proc/self/exe");
    let error = daemon.arg0("gantry").args(["daemon", "--data", data]).exec();
    Err(step("start the daemon")(error))
}

/// Waits until the starting command has written down that this process exists. If it died before, so does this one.
fn await_record() -> Result<(), LifeError> {
    let mut byte = [0];
    match io::stdin().read(&mut byte) {
        Ok(1) => Ok(()),
        Ok(_) => std::process::exit(0),
        Err(source) => Err(LifeError::Step { step: "wait for its record", source }),
    }
}

/// A namespace (`net`, `mnt`) of this very process; `None` if it is gone. Opened first and checked then.
pub(crate) fn namespace(holder: Process, kind: &str) -> io::Result<Option<File>> {
    let opened = match File::open(format!("/proc/{}/ns/{kind}", holder.pid)) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(holder.lives()?.then_some(opened))
}

/// A process that was started and waits to be recorded. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Candidate {
    child: Child,
    process: Process,
}

impl Candidate {
    fn start(mut command: Command) -> Result<Self, HolderError> {
        let child = command.stdin(Stdio::piped()).spawn().map_err(HolderError::Start)?;
        let pid =
            i32::try_from(child.id()).expect("the kernel's process ids are positive numbers of 31 bits");
        match Process::find(pid).map_err(HolderError::Start)? {
            Some(process) => Ok(Self { child, process }),
            None => Err(HolderError::Failed("it is gone at once".to_owned())),
        }
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// Lets it go on. To be called when it is recorded.
    pub(crate) fn release(mut self) -> Result<Process, HolderError> {
        let mut pipe = self.child.stdin.take().expect("standard input was piped when it was started");
        pipe.write_all(b"1").map_err(HolderError::Pipe)?;
        Ok(self.process)
    }
}

/// Starts a holder in that cgroup and waits until its namespaces are there. With `pins`, a folder that exists, it has
/// a file system of its own on it.
pub(crate) fn start(cgroup: &str, pins: Option<&Path>) -> Result<Candidate, HolderError> {
    let mut command = this_program();
    command.args([HOLD, cgroup]).args(pins).stdout(Stdio::piped()).stderr(Stdio::null()).env_clear();
    let mut candidate = Candidate::start(command)?;
    let output = candidate.child.stdout.take().expect("standard output was piped above");
    let mut word = String::new();
    BufReader::new(output).read_line(&mut word).map_err(HolderError::Pipe)?;
    match word.trim() {
        READY => Ok(candidate),
        "" => Err(HolderError::Failed("it was killed".to_owned())),
        why => Err(HolderError::Failed(why.to_owned())),
    }
}

/// Starts what will be a node's daemon, in the namespaces of its holder. Its output goes to `log`.
pub(crate) fn start_daemon(
    holder: Process,
    cgroup: &str,
    data: &Path,
    log: File,
) -> Result<Candidate, HolderError> {
    let also = log.try_clone().map_err(HolderError::Start)?;
    let mut command = this_program();
    command.args([DAEMON, &holder.pid.to_string(), &holder.start.to_string(), cgroup]).arg(data);
    command.stdout(log).stderr(also);
    Candidate::start(command)
}

/// The program that runs now, also when the file has been replaced by a newer one meanwhile.
fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("gantry").arg(HOLDER_ARGUMENT);
    command
}
