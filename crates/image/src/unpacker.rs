//! Layers are unpacked by a process that can do nothing else.
//!
//! It is this very program, started as `gantry unpack DIR`: [`unpack_main`] gives up all that it does not need
//! (`confine`), reads the blob from stdin, makes the tree in `DIR` and says on stdout what came of it (`report`).
//! [`Unpacker`] is how to start it, and [`Running`] one of them: fed piece by piece, so that a layer is unpacked while it
//! comes.
//!
//! **Invariant:** no process outlives its [`Running`], nor this program however it ends (`starter`).

mod child;
mod confine;
mod report;
mod starter;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::OFlags;

use crate::layer::{Fault, LayerError, Made};
pub use child::unpack_main;
use starter::Starter;

/// What the program is called with to become an unpacker: `gantry unpack DIR`.
pub const UNPACK_ARGUMENT: &str = "unpack";

/// A process that took no byte for so long is stuck: between two of them it decompresses and writes some tens of
/// megabytes at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// As many times its patience is a process waited for in all: two hours. It has an hour of processor time, and a slow disk
/// takes as long again for the largest layer; but one that took a byte a minute would never be stuck.
const WAITS: u32 = 120;

/// How much is read of what a process says on stderr: a panic's message and place.
const WORDS: u64 = 4 << 10;

const COPY: usize = 128 << 10;

/// How to start a process that unpacks one layer.
pub struct Unpacker {
    program: Box<dyn Fn() -> Command + Send + Sync>,
    patience: Duration,
    starter: Starter,
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackerError {
    #[error("the process that unpacks it cannot be started")]
    Start(#[source] io::Error),
    #[error("the process that unpacks it cannot be waited for")]
    Wait(#[source] io::Error),
    /// What the process said, with all its causes.
    #[error("{text}")]
    Told { fault: Fault, text: String },
    #[error("the process that unpacks it did nothing for {patience:?} and was killed{}", quoted(.words))]
    Stuck { patience: Duration, words: String },
    #[error("the process that unpacks it was waited for for {most:?} in all and was killed{}", quoted(.words))]
    Slow { most: Duration, words: String },
    #[error("the process that unpacks it ended without a result, with {status}{}", quoted(.words))]
    Died { status: ExitStatus, words: String },
    #[error("the process that unpacks it gave a result that is none{}", quoted(.words))]
    Garbled { words: String },
}

impl UnpackerError {
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Told { fault, .. } => *fault,
            Self::Start(_)
            | Self::Wait(_)
            | Self::Stuck { .. }
            | Self::Slow { .. }
            | Self::Died { .. }
            | Self::Garbled { .. } => Fault::Machine,
        }
    }
}

fn quoted(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

impl Unpacker {
    /// `program` gives the command that ends in [`unpack_main`], all but its last argument, the directory. Fails where
    /// no thread can be started.
    pub fn new(program: impl Fn() -> Command + Send + Sync + 'static) -> io::Result<Self> {
        Ok(Self { program: Box::new(program), patience: PATIENCE, starter: Starter::new()? })
    }

    /// Gives up a process that does nothing for so long, instead of a minute. Waiting for more of a blob does not count.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Starts to unpack into the empty directory `into`.
    pub(crate) fn start(self: &Arc<Self>, into: &Path) -> Result<Running, UnpackerError> {
        let mut command = (self.program)();
        command.arg(into).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.starter.start(command).map_err(UnpackerError::Start)?;
        let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((input, report), words) = pipes.expect("all three are piped");
        let running = Running {
            child,
            input: Some(input),
            report,
            words,
            waits: Waits::new(self.patience),
            is_stuck: false,
            _unpacker: Arc::clone(self),
        };
        running.never_block().map_err(UnpackerError::Start)?;
        Ok(running)
    }

    /// Unpacks a blob that is all there.
    pub(crate) fn unpack(self: &Arc<Self>, mut blob: File, into: &Path) -> Result<Made, LayerError> {
        let mut running = self.start(into)?;
        let mut buffer = vec![0; COPY];
        while running.is_listening() {
            match blob.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => running.feed(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Blob(error)),
            }
        }
        running.end().map_err(LayerError::Unpacker)
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// A process that unpacks one layer. Killed and gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// `None` from when the blob is at its end, or nobody reads it any more.
    input: Option<ChildStdin>,
    report: ChildStdout,
    words: ChildStderr,
    waits: Waits,
    is_stuck: bool,
    /// Its thread is the process's parent.
    _unpacker: Arc<Unpacker>,
}

impl Running {
    fn never_block(&self) -> io::Result<()> {
        if let Some(input) = &self.input {
            rustix::fs::fcntl_setfl(input, OFlags::NONBLOCK)?;
        }
        rustix::fs::fcntl_setfl(&self.report, OFlags::NONBLOCK)?;
        rustix::fs::fcntl_setfl(&self.words, OFlags::NONBLOCK)?;
        Ok(())
    }

    /// Whether it makes sense to feed it more.
    pub(crate) fn is_listening(&self) -> bool {
        self.input.is_some()
    }

    /// Hands over the next piece of the blob. Waits while the process is busy with what it has, but not for ever: one
    /// that is stuck is killed, one that has ended is not fed, and [`Running::end`] says why.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) {
        while let Some(input) = &mut self.input
            && !piece.is_empty()
        {
            match input.write(piece) {
                Ok(count) => piece = &piece[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.waits.until(input.as_fd(), PollFlags::POLLOUT) {
                        self.give_up();
                    }
                }
                // It has ended, and says why itself.
                Err(_) => self.end_input(),
            }
        }
    }

    /// There is no more of the blob. The process goes on with what it has while its caller does something else.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// What came of it. The process is gone when this returns.
    pub(crate) fn end(mut self) -> Result<Made, UnpackerError> {
        self.end_input();
        let line = self.line();
        // It has said what it had to say; one that has not ended by itself is not waited for.
        let status = self.kill().map_err(UnpackerError::Wait)?;
        let words = self.words();
        if self.is_stuck {
            return Err(self.waits.over(words));
        }
        match line.strip_suffix(b"\n") {
            Some(line) => report::read(line).unwrap_or(Err(UnpackerError::Garbled { words })),
            None if line.is_empty() => Err(UnpackerError::Died { status, words }),
            // Cut off, or without end.
            None => Err(UnpackerError::Garbled { words }),
        }
    }

    /// All that it says on stdout, of what may be a report.
    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        while !self.is_stuck && line.len() < report::LONGEST {
            let most = (report::LONGEST - line.len()) as u64;
            let read = (&mut self.report).take(most).read_to_end(&mut line);
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.waits.until(self.report.as_fd(), PollFlags::POLLIN) {
                        self.give_up();
                    }
                }
                Ok(_) | Err(_) => break,
            }
        }
        line
    }

    fn give_up(&mut self) {
        self.is_stuck = true;
        self.end_input();
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        // One that is dead already needs no killing.
        let _dead_already = self.child.kill();
        self.child.wait()
    }

    /// The end of its life, in its own words: printable, and no more than there is use for.
    fn words(&mut self) -> String {
        let mut words = Vec::new();
        // Nobody writes to it any more; what could not be read is only a comment.
        let _unread = (&mut self.words).take(WORDS).read_to_end(&mut words);
        report::printable(&String::from_utf8_lossy(&words))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "a process that unpacks a layer was not waited for");
        }
    }
}

/// How long a process may let whoever feeds it wait.
#[derive(Debug)]
struct Waits {
    /// At a time.
    patience: Duration,
    most: Duration,
    /// Of `most`.
    left: Duration,
}

impl Waits {
    fn new(patience: Duration) -> Self {
        let most = patience.saturating_mul(WAITS);
        Self { patience, most, left: most }
    }

    /// Waits until the pipe can be used. False when it took too long, or all of it together did.
    fn until(&mut self, pipe: BorrowedFd<'_>, how: PollFlags) -> bool {
        let began = Instant::now();
        let ready = is_ready(pipe, how, self.patience.min(self.left));
        self.left = self.left.saturating_sub(began.elapsed());
        ready && !self.left.is_zero()
    }

    /// Why it is not waited for any more.
    fn over(&self, words: String) -> UnpackerError {
        if self.left.is_zero() {
            UnpackerError::Slow { most: self.most, words }
        } else {
            UnpackerError::Stuck { patience: self.patience, words }
        }
    }
}

/// Waits until the pipe can be used, or its other end is closed. False after so long.
fn is_ready(pipe: BorrowedFd<'_>, how: PollFlags, patience: Duration) -> bool {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pipe, how)], patience) {
            Err(Errno::EINTR) => {}
            Ok(0) => return false,
            // An error is the next use's to report.
            Ok(_) | Err(_) => return true,
        }
    }
}
