//! From a container's start to its end: one loop over everything that can happen to a shim.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use model::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::process::WaitOptions;

use super::client::{Client, Listener, MOST_CLIENTS};
use super::start::Container;
use crate::init;
use crate::launch::Launch;
use crate::logs::{Splitter, Stream, Writer};
use crate::protocol::{Op, Reply};
use crate::record::{self, Ended, ExitForm};

/// How long a container gets when the shim itself is told to end, at a node's shutdown: Docker's default.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// What is read from a pipe at once. A quarter of a pipe; more would be memory that every shim has.
const READ: usize = 16 << 10;

/// How the container's first process ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) at: Timestamp,
}

impl Status {
    /// How the container's program ended, where an init told it by its own exit code. A program may also say the same of itself.
    pub(super) fn seen_through_init(self) -> Self {
        match self.code {
            Some(code) if init::was_killed(code) => Self { code: None, signal: Some(libc::SIGKILL), ..self },
            Some(_) | None => self,
        }
    }

    pub(super) fn exit(self, oom: bool) -> ExitForm {
        let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        match (self.code, self.signal) {
            (_, Some(signal)) => ExitForm::Signal { signal: byte(signal), oom },
            (Some(code), None) => ExitForm::Code(byte(code)),
            (None, None) => ExitForm::Unknown,
        }
    }
}

/// What is left when the container has ended: output in the pipes, and who waits to be told.
#[derive(Debug)]
pub(super) struct Waiting {
    outputs: Vec<Output>,
    log: Writer,
    clients: Vec<Client>,
}

/// The same, once all output is in the log.
#[derive(Debug)]
pub(super) struct Drained(Vec<Client>);

impl Waiting {
    /// Reads the pipes empty and finishes the log. To be called when everything that could write to them is dead; a pipe
    /// that some other process still holds is left at what it has.
    pub(super) fn drain(mut self) -> Drained {
        for output in &mut self.outputs {
            while output.copy(&mut self.log) == Copied::Some {}
            output.finish(&mut self.log);
        }
        self.log.finish(SystemTime::now());
        Drained(self.clients)
    }
}

impl Drained {
    pub(super) fn answer(self, ended: &Ended) {
        let reply = Reply::Exited(ended.clone());
        for mut client in self.0.into_iter().filter(Client::waits) {
            // Who is gone does not wait.
            client.answer(&reply);
        }
    }
}

/// One of the container's output streams.
#[derive(Debug)]
struct Output {
    stream: Stream,
    pipe: File,
    splitter: Splitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    Some,
    NothingYet,
    End,
}

impl Output {
    fn new(stream: Stream, pipe: File) -> Self {
        Self { stream, pipe, splitter: Splitter::default() }
    }

    /// Copies what one read gives.
    fn copy(&mut self, log: &mut Writer) -> Copied {
        let mut bytes = [0; READ];
        match self.pipe.read(&mut bytes) {
            Ok(0) => Copied::End,
            Ok(count) => {
                let at = SystemTime::now();
                let stream = self.stream;
                self.splitter.feed(&bytes[..count], |text, partial| log.push(at, stream, text, partial));
                log.flush(at);
                Copied::Some
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Copied::NothingYet,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Copied::Some,
            // A pipe has no other errors; one that has is as good as closed.
            Err(_) => Copied::End,
        }
    }

    fn finish(&mut self, log: &mut Writer) {
        let (at, stream) = (SystemTime::now(), self.stream);
        self.splitter.finish(|text, partial| log.push(at, stream, text, partial));
    }
}

/// What woke the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Signal,
    Connection,
    Output(Stream),
    /// Where output is sent to takes more.
    Forward,
    Client(usize),
}

struct Supervisor<'a> {
    launch: &'a Launch,
    init: Pid,
    signals: SignalFd,
    listener: Listener,
    outputs: Vec<Output>,
    log: Writer,
    clients: Vec<Client>,
    /// When SIGKILL follows an unheeded stop.
    kill_at: Option<Instant>,
    ended: Option<Status>,
}

/// Serves the container until its first process has ended. Errors are the kernel's and leave the container running; the
/// agent buries it.
pub(super) fn until_end(launch: &Launch, container: Container) -> io::Result<(Status, Waiting)> {
    let Container { init, signals, stdout, stderr, log, listener } = container;
    let outputs = vec![Output::new(Stream::Stdout, stdout), Output::new(Stream::Stderr, stderr)];
    let mut supervisor = Supervisor {
        launch,
        init,
        signals,
        listener,
        outputs,
        log,
        clients: Vec::new(),
        kill_at: None,
        ended: None,
    };
    loop {
        if let Some(status) = supervisor.ended {
            let Supervisor { outputs, log, clients, .. } = supervisor;
            return Ok((status, Waiting { outputs, log, clients }));
        }
        let events = supervisor.wait()?;
        for event in &events {
            match event {
                Event::Signal => supervisor.on_signals()?,
                Event::Connection => supervisor.clients.extend(supervisor.listener.accept()),
                Event::Output(stream) => supervisor.on_output(*stream),
                Event::Forward => supervisor.log.flush(SystemTime::now()),
                Event::Client(_) => {}
            }
        }
        supervisor.on_clients(&events);
        supervisor.on_time(Instant::now());
    }
}

impl Supervisor<'_> {
    fn wait(&self) -> io::Result<Vec<Event>> {
        let readable = PollFlags::POLLIN;
        let mut events = vec![Event::Signal];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), readable)];
        if self.clients.len() < MOST_CLIENTS {
            events.push(Event::Connection);
            fds.push(PollFd::new(self.listener.as_fd(), readable));
        }
        for output in &self.outputs {
            events.push(Event::Output(output.stream));
            fds.push(PollFd::new(output.pipe.as_fd(), readable));
        }
        if let Some((fd, interest)) = self.log.interest() {
            events.push(Event::Forward);
            fds.push(PollFd::new(fd, interest));
        }
        for (index, client) in self.clients.iter().enumerate() {
            events.push(Event::Client(index));
            fds.push(PollFd::new(client.as_fd(), readable));
        }
        match poll(&mut fds, self.patience(Instant::now())) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let ready = events.into_iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(true));
        Ok(ready.map(|(event, _)| event).collect())
    }

    /// Until the next thing that happens by time alone. Rounded up, or the loop would spin for the last millisecond.
    fn patience(&self, now: Instant) -> PollTimeout {
        match [self.kill_at, self.log.deadline()].into_iter().flatten().min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(now) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.signal(Signal::SIGKILL as i32);
        }
        if self.log.deadline().is_some_and(|at| at <= now) {
            self.log.flush(SystemTime::now());
        }
    }

    fn on_signals(&mut self) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            if info.ssi_signo != Signal::SIGCHLD as u32 {
                self.stop(self.launch.stop_signal, SHUTDOWN_GRACE);
            }
        }
        self.reap()
    }

    /// Reaps every child, not only the container's first process: as a subreaper the shim is given orphans, and an
    /// unreaped one keeps the container's process namespace from ending.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            // rustix's, because nix's fails for a process that a real-time signal killed.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid.as_raw_pid() == self.init.as_raw() => {
                    let (code, signal) = (status.exit_status(), status.terminating_signal());
                    self.ended = Some(Status { code, signal, at: record::now() });
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn on_output(&mut self, stream: Stream) {
        let Some(index) = self.outputs.iter().position(|output| output.stream == stream) else { return };
        if self.outputs[index].copy(&mut self.log) == Copied::End {
            let mut output = self.outputs.remove(index);
            output.finish(&mut self.log);
            self.log.flush(SystemTime::now());
        }
    }

    fn on_clients(&mut self, events: &[Event]) {
        let clients = std::mem::take(&mut self.clients);
        for (index, mut client) in clients.into_iter().enumerate() {
            let keep = !events.contains(&Event::Client(index)) || client.serve(|op| self.act(op));
            if keep {
                self.clients.push(client);
            }
        }
    }

    fn act(&mut self, op: Op) -> Option<Reply> {
        match op {
            Op::Signal { signal } => Some(self.signal(signal)),
            Op::Stop { signal, grace_ms } => Some(self.stop(signal, Duration::from_millis(grace_ms))),
            Op::Status => Some(Reply::Running { pid: self.init.as_raw() }),
            Op::Wait => None,
        }
    }

    fn stop(&mut self, signal: i32, grace: Duration) -> Reply {
        // A grace that no clock can hold is no limit.
        let at = Instant::now().checked_add(grace);
        self.kill_at = [self.kill_at, at].into_iter().flatten().min();
        self.signal(signal)
    }

    /// Sends a signal to the container's first process. With SIGKILL the kernel ends all others with it, since it is the
    /// first of their process namespace. Its id cannot have been given to another: nobody but this shim reaps it.
    fn signal(&self, signal: i32) -> Reply {
        if self.ended.is_some() {
            return Reply::Done;
        }
        let known = Signal::try_from(signal).map_err(|_| format!("{signal} is not a signal"));
        match known.and_then(|signal| kill(self.init, signal).map_err(|errno| errno.desc().to_owned())) {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Refused { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_what_wait_said() {
        let status = |code, signal| Status { code, signal, at: Timestamp(0) };
        assert_eq!(status(Some(7), None).exit(false), ExitForm::Code(7));
        assert_eq!(status(None, Some(9)).exit(true), ExitForm::Signal { signal: 9, oom: true });
        assert_eq!(status(None, None).exit(false), ExitForm::Unknown);
        assert_eq!(status(Some(137), None).seen_through_init().signal, Some(9));
        assert_eq!(status(Some(136), None).seen_through_init().code, Some(136));
    }
}
