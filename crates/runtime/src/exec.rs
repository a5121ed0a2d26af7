//! Another process in a running container.
//!
//! [`start`] asks the container's shim, which forks a *minder* for it: a process that puts the new one into the container,
//! confined like the container's first process, waits for it, and tells how it ended. The connection to the minder is the
//! [`Process`]: whoever drops it, or dies, kills the process with its process group. Docker leaves such a process behind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Exit;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use crate::handle::{self, Observed, START_TIME};
use crate::passing;
use crate::protocol::{
    self, Answer, Failed, Failure, LONGEST, LONGEST_EXEC, Request, Takeover, UNKNOWN, VERSION,
};
use crate::terminal;

/// What is to be run. Everything that it does not say is as for the container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program, looked up in the container's `PATH`, and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`, added to the container's own, or instead of one of them.
    pub env: Vec<String>,
    /// In the container, absolute. `None` is the container's own.
    pub cwd: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the container's files as they are now. `None` is who the
    /// container's first process was started as, with all its groups.
    pub user: Option<String>,
    /// A terminal of this size instead of pipes.
    pub terminal: Option<WindowSize>,
    /// Whether it is given input; otherwise its stdin is at its end. A terminal can always be written to.
    pub stdin: bool,
    /// With all capabilities, as Docker does it: under the container's own filter of system calls.
    pub privileged: bool,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// A process that runs, and what it can be talked to by.
#[derive(Debug)]
pub struct Session {
    pub io: Io,
    pub process: Process,
}

/// Descriptors that wait (none is O_NONBLOCK).
#[derive(Debug)]
pub enum Io {
    Pipes {
        /// Closed, it is the end of the process's input.
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The master. Reading fails with EIO when nobody has the other end any more.
    Terminal(OwnedFd),
}

/// The process. Dropping this kills it.
#[derive(Debug)]
pub struct Process {
    stream: UnixStream,
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the container in {dir} is not running")]
    NotRunning { dir: PathBuf },
    #[error("the container in {dir} is paused; resume it first")]
    Paused { dir: PathBuf },
    #[error("{why}")]
    NoProgram { why: String },
    #[error("{why}")]
    NotExecutable { why: String },
    #[error("{why}")]
    NoSuchUser { why: String },
    #[error("{why}")]
    WorkingDir { why: String },
    #[error(
        "the container in {dir} was started by an older gantry and cannot exec; replace its task to be able to"
    )]
    Older { dir: PathBuf },
    #[error("there is nothing to run")]
    NothingToRun,
    #[error("`{0}` contains a NUL byte, which no process can be given")]
    Nul(String),
    #[error("the command and its environment are longer than {max} bytes", max = LONGEST_EXEC)]
    TooLong,
    #[error("cannot make the command's pipes")]
    Pipes(#[source] io::Error),
    #[error("the shim in {dir} did not answer")]
    NoAnswer { dir: PathBuf, source: io::Error },
    #[error("the shim's answer is not understood")]
    Garbled(#[source] serde_json::Error),
    #[error("the command was not started: {why}")]
    Failed { why: String },
    #[error("the connection to the command's minder failed")]
    Connection(#[source] io::Error),
    #[error("the command's minder is gone, and with it word of how the command ended")]
    Lost,
}

/// What a client's exit code depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 127 in Docker and in shells.
    NoProgram,
    /// 126.
    NotExecutable,
    NotRunning,
    Other,
}

impl ExecError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoProgram { .. } => Fault::NoProgram,
            Self::NotExecutable { .. } => Fault::NotExecutable,
            Self::NotRunning { .. } | Self::Paused { .. } => Fault::NotRunning,
            Self::NoSuchUser { .. }
            | Self::WorkingDir { .. }
            | Self::Older { .. }
            | Self::NothingToRun
            | Self::Nul(_)
            | Self::TooLong
            | Self::Pipes(_)
            | Self::NoAnswer { .. }
            | Self::Garbled(_)
            | Self::Failed { .. }
            | Self::Connection(_)
            | Self::Lost => Fault::Other,
        }
    }

    fn of(Failed { kind, why }: Failed, dir: &Path) -> Self {
        match kind {
            Failure::NoProgram => Self::NoProgram { why },
            Failure::NotExecutable => Self::NotExecutable { why },
            Failure::NoSuchUser => Self::NoSuchUser { why },
            Failure::WorkingDir => Self::WorkingDir { why },
            Failure::Paused => Self::Paused { dir: dir.to_owned() },
            Failure::NotRunning => Self::NotRunning { dir: dir.to_owned() },
            Failure::Other => Self::Failed { why },
        }
    }
}

impl Exec {
    /// Whether it can be carried out anywhere. [`start`] asks, and the minder once more.
    pub(crate) fn check(&self) -> Result<(), ExecError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(ExecError::NothingToRun);
        }
        let mut given = self.args.iter().chain(&self.env).chain(&self.cwd).chain(&self.user);
        match given.find(|text| text.contains('\0')) {
            Some(bad) => Err(ExecError::Nul(bad.escape_debug().to_string())),
            None => Ok(()),
        }
    }
}

/// Starts a process in the running container of `dir`, and returns when its program has been executed. Blocks for the tens
/// of milliseconds that this takes, and at most [`START_TIME`].
pub fn start(dir: &Path, exec: &Exec) -> Result<Session, ExecError> {
    start_within(dir, exec, START_TIME)
}

/// The same, for who asks again and again and has other things to do: a container can hold up what is about to join it, by a
/// SIGSTOP. What was begun is given up after `most`.
pub fn start_within(dir: &Path, exec: &Exec, most: Duration) -> Result<Session, ExecError> {
    exec.check()?;
    let request = protocol::line(&Request { v: VERSION, op: Takeover::Exec(exec.clone()) });
    if request.len() > LONGEST_EXEC {
        return Err(ExecError::TooLong);
    }
    let (ours, theirs) = ends(exec).map_err(ExecError::Pipes)?;
    let stream = connect(dir, most)?;
    let (line, mut fds) = match ask(&stream, &request, theirs) {
        Ok(Some(answered)) => answered,
        Err(source) if !passing::is_hung_up(&source) => {
            return Err(ExecError::NoAnswer { dir: dir.to_owned(), source });
        }
        Ok(None) | Err(_) => return Err(silence(dir, request.len())),
    };
    let answer: Answer = serde_json::from_slice(&line).map_err(ExecError::Garbled)?;
    match answer {
        Answer::Started { .. } => {
            let io = match ours {
                Ends::Pipes { stdin, stdout, stderr } => Io::Pipes { stdin, stdout, stderr },
                Ends::Terminal => Io::Terminal(fds.pop().ok_or_else(|| without("its terminal"))?),
            };
            Ok(Session { io, process: Process { stream } })
        }
        Answer::Failed(failed) => Err(ExecError::of(failed, dir)),
        Answer::Refused { why } if why.starts_with(UNKNOWN) => Err(ExecError::Older { dir: dir.to_owned() }),
        Answer::Refused { why } => Err(ExecError::Failed { why }),
        Answer::Attached { .. } | Answer::Ended { .. } => Err(without("word that it runs")),
    }
}

/// Passes the process's ends, which must be its alone, or its output never ends.
fn ask(
    stream: &UnixStream,
    request: &[u8],
    theirs: Vec<OwnedFd>,
) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let passed: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
    passing::send_all(stream, request, &passed)?;
    drop(passed);
    drop(theirs);
    passing::read_line(stream)
}

fn without(what: &str) -> ExecError {
    ExecError::Failed { why: format!("the shim answered without {what}") }
}

/// What the caller keeps.
enum Ends {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal,
}

/// Makes both ends of the process's input and output: the caller's, and the process's in the order of their numbers.
fn ends(exec: &Exec) -> io::Result<(Ends, Vec<OwnedFd>)> {
    if exec.terminal.is_some() {
        return Ok((Ends::Terminal, Vec::new()));
    }
    let mut theirs = Vec::new();
    let mut stdin = None;
    if exec.stdin {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        theirs.push(read);
        stdin = Some(write);
    }
    let (stdout, write) = pipe2(OFlag::O_CLOEXEC)?;
    theirs.push(write);
    let (stderr, write) = pipe2(OFlag::O_CLOEXEC)?;
    theirs.push(write);
    Ok((Ends::Pipes { stdin, stdout, stderr }, theirs))
}

fn connect(dir: &Path, most: Duration) -> Result<UnixStream, ExecError> {
    /// No time at all would be no limit.
    const LEAST: Duration = Duration::from_millis(1);
    let stream = match handle::connect(dir) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(ExecError::NotRunning { dir: dir.to_owned() });
        }
        Err(source) => return Err(ExecError::NoAnswer { dir: dir.to_owned(), source }),
    };
    let most = Some(most.max(LEAST));
    let patient = stream.set_read_timeout(most).and_then(|()| stream.set_write_timeout(most));
    patient.map_err(|source| ExecError::NoAnswer { dir: dir.to_owned(), source })?;
    Ok(stream)
}

/// What it means that the shim hung up without a word: it has ended with its container; or the minder was killed; or it is
/// a shim of before, which gives up on a request that is longer than any it knows.
fn silence(dir: &Path, length: usize) -> ExecError {
    // While it tidies up it looks as if it ran, and has no ear any more.
    if let Err(error @ ExecError::NotRunning { .. }) = connect(dir, START_TIME) {
        return error;
    }
    if !matches!(handle::inspect(dir), Ok(Observed::Running(_))) {
        return ExecError::NotRunning { dir: dir.to_owned() };
    }
    if length > LONGEST && is_unknown(dir).unwrap_or(false) {
        return ExecError::Older { dir: dir.to_owned() };
    }
    ExecError::Lost
}

/// Asks for the shortest exec, which starts nothing, to see whether the shim knows what that is.
fn is_unknown(dir: &Path) -> io::Result<bool> {
    let stream = handle::connect(dir)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = protocol::line(&Request { v: VERSION, op: Takeover::Exec(Exec::default()) });
    passing::send_all(&stream, &request, &[])?;
    let answer: Option<Answer> =
        passing::read_line(&stream)?.and_then(|(line, _)| serde_json::from_slice(&line).ok());
    Ok(matches!(answer, Some(Answer::Refused { why }) if why.starts_with(UNKNOWN)))
}

impl Process {
    /// The connection to the minder: readable when the process has ended, for [`exit_from`]. Nothing is to be written to it,
    /// and closing it, or shutting it down, kills the process.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Waits until the process has ended. What it wrote may still be in its pipes, and a child of its may still write.
    pub fn wait(self) -> Result<Exit, ExecError> {
        exit_from(self.stream)
    }
}

/// How the process ended of which this is the connection ([`Process::into_stream`]). Waits for it if it has not.
pub fn exit_from(stream: UnixStream) -> Result<Exit, ExecError> {
    let waits = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(None));
    waits.map_err(ExecError::Connection)?;
    let line = match passing::read_line(&stream) {
        Ok(Some((line, _))) => line,
        Ok(None) => return Err(ExecError::Lost),
        Err(error) if passing::is_hung_up(&error) => return Err(ExecError::Lost),
        Err(error) => return Err(ExecError::Connection(error)),
    };
    let answer: Answer = serde_json::from_slice(&line).map_err(ExecError::Garbled)?;
    match answer {
        Answer::Ended { exit } => Ok(exit.into()),
        Answer::Started { .. } | Answer::Failed(_) | Answer::Refused { .. } | Answer::Attached { .. } => {
            Err(ExecError::Lost)
        }
    }
}

/// Tells the programs in a terminal its size. `terminal` is the master that [`start`] returned.
pub fn resize(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    terminal::resize(terminal, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ExitForm;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_no_process_can_be_given_is_refused_before_anyone_is_asked() {
        let dir = Path::new("/nowhere");
        let refused = |exec: Exec| start(dir, &exec).unwrap_err().to_string();
        assert_eq!(refused(Exec::default()), "there is nothing to run");
        assert_eq!(refused(Exec { args: vec![String::new()], ..Exec::default() }), "there is nothing to run");
        let nul = Exec { args: words("true"), cwd: Some("/a\0".to_owned()), ..Exec::default() };
        assert_eq!(refused(nul), "`/a\\0` contains a NUL byte, which no process can be given");
        let long = Exec { args: vec!["x".repeat(LONGEST_EXEC)], ..Exec::default() };
        assert_eq!(refused(long), "the command and its environment are longer than 1048576 bytes");
    }

    #[test]
    fn without_a_shim_the_container_is_not_running() {
        let dir = tempfile::tempdir().unwrap();
        let error = start(dir.path(), &Exec { args: words("true"), ..Exec::default() }).unwrap_err();
        assert!(matches!(error, ExecError::NotRunning { .. }), "{error}");
        assert_eq!(error.fault(), Fault::NotRunning);
    }

    #[test]
    fn who_has_little_time_does_not_wait_for_a_container_that_holds_up_its_commands() {
        let dir = tempfile::tempdir().unwrap();
        // It takes the request, and never says a word.
        let _shim = std::os::unix::net::UnixListener::bind(dir.path().join(crate::record::SOCKET)).unwrap();
        for most in [Duration::ZERO, Duration::from_millis(20)] {
            let exec = Exec { args: words("true"), ..Exec::default() };
            let error = start_within(dir.path(), &exec, most).unwrap_err();
            assert!(matches!(error, ExecError::NoAnswer { .. }), "{error}");
        }
    }

    /// Answers one request in `dir` with `answer`, and returns what was asked.
    fn answering(dir: &Path, answer: &str) -> std::thread::JoinHandle<String> {
        let listener = std::os::unix::net::UnixListener::bind(dir.join(crate::record::SOCKET)).unwrap();
        let answer = answer.to_owned();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let (line, fds) = passing::read_line(&stream).unwrap().unwrap();
            passing::send_all(&stream, answer.as_bytes(), &[]).unwrap();
            format!("{} descriptors with {}", fds.len(), String::from_utf8(line).unwrap())
        })
    }

    #[test]
    fn an_answer_is_the_error_that_it_means() {
        let answers = [
            ("{\"reply\":\"refused\",\"why\":\"not a request: unknown variant `exec`\"}\n", "older gantry"),
            (
                "{\"reply\":\"failed\",\"kind\":\"no_program\",\"why\":\"`x` is not there\"}\n",
                "`x` is not there",
            ),
            ("{\"reply\":\"failed\",\"kind\":\"paused\",\"why\":\"\"}\n", "is paused; resume it first"),
            ("{\"reply\":\"failed\",\"kind\":\"other\",\"why\":\"no\"}\n", "the command was not started: no"),
            ("{\"reply\":\"attached\",\"terminal\":true,\"stdin\":true}\n", "without word that it runs"),
            ("{}\n", "not understood"),
        ];
        for (answer, expected) in answers {
            let dir = tempfile::tempdir().unwrap();
            let shim = answering(dir.path(), answer);
            let error =
                start(dir.path(), &Exec { args: words("x"), stdin: true, ..Exec::default() }).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            let asked = shim.join().unwrap();
            assert!(
                asked.starts_with("3 descriptors with {\"v\":1,\"op\":\"exec\",\"args\":[\"x\"]"),
                "{asked}"
            );
        }
    }

    #[test]
    fn an_exit_is_read_from_the_connection_also_by_who_did_not_wait_on_it() {
        let (stream, minder) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let ended = Answer::Ended { exit: ExitForm::Signal { signal: 9, oom: true } };
        passing::send_all(&minder, &protocol::line(&ended), &[]).unwrap();
        assert_eq!(exit_from(stream).unwrap(), Exit::Signal { signal: 9, oom: true });

        let (stream, minder) = UnixStream::pair().unwrap();
        drop(minder);
        assert!(matches!(Process { stream }.wait(), Err(ExecError::Lost)));
    }
}
