//! A cluster of real nodes for a test, and the program as users call it. Each program of tests here has it as its own.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// The longest that anything here takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What is tested.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry");

/// Whom the system has for who owns nothing: `nobody`, `nogroup`.
const NOBODY: u32 = 65534;

/// How much of the daemon's log a failing test shows.
const LAST_LINES: usize = 30;

/// Two clusters that are made at the same moment would choose the same network. Between processes the runner sees to it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A dev cluster, which is gone when this is dropped, also by a failing test.
pub(crate) struct Cluster {
    pub(crate) name: String,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// One node, which is a manager.
    pub(crate) fn up(name: &str) -> Self {
        Self::of(name, 1)
    }

    /// So many nodes, all of them managers. The name is this process's own: other tests run beside it.
    pub(crate) fn of(name: &str, nodes: u8) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Self { name: format!("{name}-{}", std::process::id()), _alone: alone };
        let nodes = nodes.to_string();
        cluster.dev(&["up", "--nodes", &nodes, "--managers", &nodes]).end().done();
        cluster
    }

    /// A user's command for this cluster.
    pub(crate) fn user(&self, args: &[&str]) -> Call {
        Call::gantry([&["--context", self.name.as_str()][..], args].concat())
    }

    /// `gantry dev …` for this cluster.
    pub(crate) fn dev(&self, args: &[&str]) -> Call {
        Call::gantry([&["dev"][..], args, &["--name", self.name.as_str()][..]].concat())
    }

    /// The data directory of the first node.
    pub(crate) fn disk(&self) -> PathBuf {
        let root = std::env::var_os("GANTRY_DEV_ROOT").filter(|root| !root.is_empty());
        root.map_or_else(|| PathBuf::from("/var/lib/gantry-dev"), PathBuf::from).join(&self.name).join("n1")
    }

    pub(crate) fn stacks(&self) -> String {
        self.user(&["stacks", "-o", "json"]).end().done()
    }

    /// All that a command could leave behind.
    pub(crate) fn content(&self) -> [String; 2] {
        [self.stacks(), self.user(&["image", "ls", "-o", "json"]).end().done()]
    }

    /// Brings in the image `sleeper`, which has a shell and nothing else.
    pub(crate) fn import_sleeper(&self) {
        let busybox = fs::read("/bin/busybox").expect("the package busybox-static is installed");
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(busybox.len() as u64);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
        let archive = archive.into_inner().unwrap();
        self.user(&["image", "import", "-", "sleeper"]).input(archive).end().done();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            // It goes with the cluster.
            let log = fs::read_to_string(self.disk().join("daemon.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            let _reader_gone = writeln!(io::stderr(), "the end of the daemon's log:\n{last}");
        }
        let down = self.dev(&["down"]).command.stdin(Stdio::null()).output();
        let is_down = down.is_ok_and(|down| down.status.success());
        // A second panic would hide the first.
        assert!(is_down || thread::panicking(), "cluster {} was left behind", self.name);
    }
}

/// One run of a program.
pub(crate) struct Call {
    command: Command,
    input: Vec<u8>,
    keeps_input: bool,
    memory: Option<u64>,
}

impl Call {
    pub(crate) fn gantry(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::of(Path::new(PROGRAM), args)
    }

    /// A program that is gantry, without what whoever runs the tests has set for it.
    pub(crate) fn of(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(program);
        command.args(args).env("NO_COLOR", "1").current_dir("/");
        for variable in ["GANTRY_CONTEXT", "GANTRY_SOCKETS", "GANTRY_LOG"] {
            command.env_remove(variable);
        }
        Self { command, input: Vec::new(), keeps_input: false, memory: None }
    }

    /// A command line in a terminal of its own, on which nobody hangs up while it runs: the end of its own input is what
    /// `script` would type, and the terminal echo among what the line prints.
    pub(crate) fn in_terminal(line: &str) -> Self {
        Self { keeps_input: true, ..Self::of(Path::new("script"), ["-qec", line, "/dev/null"]) }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads from stdin.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// It may have so many bytes of memory of its own (`RLIMIT_DATA`); more, and it aborts. In force before it has its
    /// first byte from stdin.
    pub(crate) fn within(mut self, memory: u64) -> Self {
        self.memory = Some(memory);
        self
    }

    pub(crate) fn run_by_nobody(mut self) -> Self {
        self.command.uid(NOBODY).gid(NOBODY);
        self
    }

    pub(crate) fn end(mut self) -> Ended {
        let shown = format!("{:?}", self.command);
        let pipes = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let pid = Pid::from_child(&child);
        if let Some(bytes) = self.memory {
            let most = Rlimit { current: Some(bytes), maximum: Some(bytes) };
            prlimit(Some(pid), Resource::Data, most).unwrap();
        }
        let mut stdin = child.stdin.take().expect("it is piped");
        match stdin.write_all(&self.input) {
            // It was refused before it was read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => panic!("{shown}: {error}"),
            Ok(()) | Err(_) => {}
        }
        let _kept = self.keeps_input.then_some(stdin);
        let (ended, end) = mpsc::channel();
        let output = thread::scope(|scope| {
            scope.spawn(move || ended.send(child.wait_with_output()));
            if let Ok(output) = end.recv_timeout(PATIENCE) {
                return output.unwrap();
            }
            kill_process(pid, Signal::KILL).unwrap();
            panic!("{shown} did not end within {PATIENCE:?}");
        });
        let text = |bytes| String::from_utf8(bytes).expect("gantry writes UTF-8");
        Ended { shown, code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Lets it run beside the test, with nothing to read on stdin.
    pub(crate) fn start(mut self) -> Running {
        let shown = format!("{:?}", self.command);
        let outputs = tempfile::tempdir().unwrap();
        let output = |name: &str| fs::File::create(outputs.path().join(name)).unwrap();
        let input = if self.keeps_input { Stdio::piped() } else { Stdio::null() };
        let mut child =
            self.command.stdin(input).stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap();
        let kept = child.stdin.take();
        let pid = Pid::from_child(&child);
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(child.wait().unwrap()));
        Running { shown, pid, end, is_over: Cell::new(false), outputs, _kept: kept }
    }
}

/// A run that goes on. It ends with this at the latest.
pub(crate) struct Running {
    shown: String,
    pid: Pid,
    end: mpsc::Receiver<ExitStatus>,
    is_over: Cell<bool>,
    outputs: tempfile::TempDir,
    _kept: Option<ChildStdin>,
}

impl Running {
    /// What it has on stdout by now, without a line that has no end yet.
    pub(crate) fn stdout(&self) -> String {
        let mut text = self.output("stdout");
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    pub(crate) fn stderr(&self) -> String {
        self.output("stderr")
    }

    fn output(&self, name: &str) -> String {
        fs::read_to_string(self.outputs.path().join(name)).expect("gantry writes UTF-8")
    }

    /// As by Ctrl-C.
    pub(crate) fn interrupt(&self) -> Ended {
        kill_process(self.pid, Signal::INT).unwrap();
        self.end()
    }

    pub(crate) fn end(&self) -> Ended {
        let status = self.end.recv_timeout(PATIENCE);
        let status = status.unwrap_or_else(|_| panic!("{} did not end within {PATIENCE:?}", self.shown));
        self.is_over.set(true);
        let (stdout, stderr) = (self.output("stdout"), self.output("stderr"));
        Ended { shown: self.shown.clone(), code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its number is another's once it has been waited for.
        if !self.is_over.get() && self.end.try_recv().is_err() {
            let _it_ends_just_now = kill_process(self.pid, Signal::KILL);
        }
    }
}

/// What came of one run.
pub(crate) struct Ended {
    shown: String,
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it has on stdout, having done what it was asked.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// It said no: one error, with these parts, and no data.
    #[track_caller]
    pub(crate) fn refused(&self, exit: i32, says: &[&str]) {
        assert_eq!(self.code, Some(exit), "{self}");
        assert_eq!(self.stdout, "", "{self}");
        let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{self}");
        for part in says {
            assert!(self.stderr.contains(part), "it does not say `{part}`: {self}");
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, code, stdout, stderr } = self;
        write!(f, "{shown}\nexit code {code:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

/// Looks until it is so. A look is a process of its own, which is pause enough.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "after {PATIENCE:?} still waiting for {what}");
    }
}
