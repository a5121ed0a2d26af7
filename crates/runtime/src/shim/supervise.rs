//! From a container's start to its end: one loop over everything that can happen to a shim.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use model::Timestamp;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::process::WaitOptions;

use super::attached::{Attached, MOST_ATTACHED};
use super::client::{Client, Listener, MOST_CLIENTS, Served, tell};
use super::ending::Waiting;
use super::held::Held;
use super::minder::{self, Order, Place};
use super::start::Container;
use super::stdio::{Copied, Input, Output, Streams};
use crate::attach;
use crate::cgroup::{Hierarchies, freezer};
use crate::confine::Confinement;
use crate::detach;
use crate::init;
use crate::launch::Launch;
use crate::logs::{Stream, Writer};
use crate::protocol::{self, Answer, Failed, Failure, Op, Reply};
use crate::record::{self, Durability, ExitForm, Started, chain};

/// How long a container gets when the shim itself is told to end, at a node's shutdown: Docker's default.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How long a container may take to stand still. The log waits meanwhile; a process that is stuck in the kernel must not
/// hold up all else.
const FREEZE_TIME: Duration = Duration::from_secs(2);

/// More processes beside a container's own, at once, are a mistake of somebody's that would fill the node with minders.
const MOST_MINDERS: usize = 128;

/// What is said of a container that is held.
const NOT_STARTED: &str = "its program is not running yet: it starts for the first client that attaches";

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

/// What woke the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Signal,
    Connection,
    Output(Stream),
    /// There is room for more input.
    Input,
    /// Where output is sent to takes more.
    Forward,
    Client(usize),
    Attached(usize),
}

/// The container and where it is, as the shim knows it from its start to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge<'a> {
    pub(super) dir: &'a Path,
    pub(super) launch: &'a Launch,
    pub(super) hierarchies: &'a Hierarchies,
}

struct Supervisor<'a> {
    charge: Charge<'a>,
    init: Pid,
    confinement: Rc<Confinement>,
    signals: SignalFd,
    listener: Listener,
    outputs: Vec<Output>,
    input: Input,
    log: Writer,
    clients: Vec<Client>,
    attached: Vec<Attached>,
    minders: Vec<Pid>,
    paused: bool,
    /// It goes on when no client is left that it is paused for.
    lent: bool,
    /// The container's program waits to be started.
    held: Option<Held>,
    /// When SIGKILL follows an unheeded stop.
    kill_at: Option<Instant>,
    ended: Option<Status>,
}

/// Serves the container until its first process has ended. Errors are the kernel's and leave the container running; the
/// agent buries it.
pub(super) fn until_end(charge: Charge<'_>, container: Container) -> io::Result<(Status, Waiting)> {
    let Container { init, signals, streams, log, listener, confinement, held } = container;
    let Streams { outputs, input } = streams;
    let mut supervisor = Supervisor {
        charge,
        init,
        confinement,
        signals,
        listener,
        outputs,
        input,
        log,
        clients: Vec::new(),
        attached: Vec::new(),
        minders: Vec::new(),
        paused: false,
        lent: false,
        held,
        kill_at: None,
        ended: None,
    };
    loop {
        if let Some(status) = supervisor.ended {
            let Supervisor { outputs, log, clients, attached, minders, .. } = supervisor;
            return Ok((status, Waiting { outputs, log, clients, attached, minders }));
        }
        let events = supervisor.wait()?;
        for event in &events {
            match event {
                Event::Signal => supervisor.on_signals()?,
                Event::Connection => supervisor.clients.extend(supervisor.listener.accept()),
                Event::Output(stream) => supervisor.on_output(*stream),
                Event::Input => supervisor.on_input(),
                Event::Attached(index) => supervisor.on_attached(*index),
                Event::Forward => supervisor.log.flush(SystemTime::now()),
                Event::Client(_) => {}
            }
        }
        // Only now, since the events name them by their place.
        supervisor.see_off(Attached::is_gone);
        if supervisor.input.fd().is_none() {
            // There is no room to wait for any more: what was still to be written is dropped.
            supervisor.on_input();
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
        let is_held_up = self.attached.iter().any(Attached::holds_up);
        for output in self.outputs.iter().filter(|_| !is_held_up) {
            events.push(Event::Output(output.stream()));
            fds.push(PollFd::new(output.as_fd(), readable));
        }
        if self.attached.iter().any(Attached::has_input)
            && let Some(fd) = self.input.fd()
        {
            events.push(Event::Input);
            fds.push(PollFd::new(fd, PollFlags::POLLOUT));
        }
        if let Some((fd, interest)) = self.log.interest() {
            events.push(Event::Forward);
            fds.push(PollFd::new(fd, interest));
        }
        for (index, client) in self.clients.iter().enumerate() {
            events.push(Event::Client(index));
            fds.push(PollFd::new(client.as_fd(), readable));
        }
        for (index, attached) in self.attached.iter().enumerate() {
            if let Some(interest) = attached.interest() {
                events.push(Event::Attached(index));
                fds.push(PollFd::new(attached.as_fd(), interest));
            }
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
        let start_at = self.held.as_ref().map(Held::until);
        match [self.kill_at, start_at, self.log.deadline()].into_iter().flatten().min() {
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
        if self.held.as_ref().is_some_and(|held| held.until() <= now) {
            self.release();
        }
        if self.log.deadline().is_some_and(|at| at <= now) {
            self.log.flush(SystemTime::now());
        }
    }

    /// Starts a container that is held. One that cannot be is ended, with the reason among what it printed.
    fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        if let Err(error) = held.start() {
            let (at, why) =
                (SystemTime::now(), format!("gantry: cannot start the container: {}", chain(&error)));
            self.log.push(at, Stream::Stderr, why.as_bytes(), false);
            self.log.flush(at);
            let frame = attach::output(Stream::Stderr, format!("{why}\n").as_bytes());
            self.attached.iter_mut().for_each(|client| client.send(&frame));
            self.signal(Signal::SIGKILL as i32);
        }
        detach::trim_memory();
    }

    fn on_signals(&mut self) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            if info.ssi_signo != Signal::SIGCHLD as u32 {
                self.stop(self.charge.launch.stop_signal, SHUTDOWN_GRACE);
            }
        }
        self.reap()
    }

    /// Reaps every child, not only the container's first process and minders: as a subreaper the shim is given orphans, and
    /// an unreaped one keeps the container's process namespace from ending.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            // rustix's, because nix's fails for a process that a real-time signal killed.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid.as_raw_pid() == self.init.as_raw() => {
                    let (code, signal) = (status.exit_status(), status.terminating_signal());
                    self.ended = Some(Status { code, signal, at: record::now() });
                }
                Ok(Some((pid, _))) => self.minders.retain(|minder| minder.as_raw() != pid.as_raw_pid()),
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn on_output(&mut self, stream: Stream) {
        let Some(index) = self.outputs.iter().position(|output| output.stream() == stream) else { return };
        if self.outputs[index].copy(&mut self.log, &mut self.attached) == Copied::End {
            let mut output = self.outputs.remove(index);
            output.finish(&mut self.log);
            self.log.flush(SystemTime::now());
        }
    }

    fn on_input(&mut self) {
        for attached in &mut self.attached {
            attached.pump(&mut self.input);
        }
    }

    fn on_attached(&mut self, index: usize) {
        if let Some(attached) = self.attached.get_mut(index) {
            attached.on_ready(&mut self.input);
        }
    }

    fn on_clients(&mut self, events: &[Event]) {
        let clients = std::mem::take(&mut self.clients);
        for (index, mut client) in clients.into_iter().enumerate() {
            if !events.contains(&Event::Client(index)) {
                self.clients.push(client);
                continue;
            }
            match client.serve(|op| self.act(op)) {
                Served::Open => self.clients.push(client),
                Served::Over => {}
                Served::Exec(order) => self.exec(client.into_parts().0, order),
                Served::Attach => self.attach(client),
            }
        }
        if self.lent && !self.clients.iter().any(Client::pauses) {
            // One that cannot be resumed is tried again with the next event.
            self.resume();
        }
    }

    fn act(&mut self, op: Op) -> Option<Reply> {
        match op {
            Op::Signal { signal } => Some(self.signal(signal)),
            Op::Stop { signal, grace_ms } => Some(self.stop(signal, Duration::from_millis(grace_ms))),
            Op::Status => Some(Reply::Running { pid: self.init.as_raw() }),
            Op::Wait => None,
            Op::Pause => {
                // From now on it is paused for good, whoever it was paused for.
                self.lent = false;
                Some(self.pause())
            }
            Op::Resume => Some(self.resume()),
            Op::PauseWhile => {
                let was_paused = self.paused && !self.lent;
                let reply = self.pause();
                self.lent = self.paused && !was_paused;
                Some(reply)
            }
        }
    }

    /// What is frozen cannot heed a signal, so it goes on first, as in Docker. Where there is no program yet, there is nothing
    /// that could heed one, and nothing to be lost.
    fn stop(&mut self, signal: i32, grace: Duration) -> Reply {
        if self.held.is_some() {
            return self.signal(Signal::SIGKILL as i32);
        }
        // A grace that no clock can hold is no limit.
        let at = Instant::now().checked_add(grace);
        self.kill_at = [self.kill_at, at].into_iter().flatten().min();
        self.resume();
        self.signal(signal)
    }

    /// Sends a signal to the container's first process. With SIGKILL the kernel ends all others with it, since it is the
    /// first of their process namespace. Its id cannot have been given to another: nobody but this shim reaps it.
    fn signal(&mut self, signal: i32) -> Reply {
        if self.ended.is_some() {
            return Reply::Done;
        }
        if signal == Signal::SIGKILL as i32 {
            self.held = None;
        } else if self.held.is_some() {
            // It would be lost: the program that it is for takes over no signals from who waits in its place.
            return Reply::Refused { why: NOT_STARTED.to_owned() };
        }
        let sent = crate::signal::send(self.init, signal);
        if signal == Signal::SIGKILL as i32 {
            self.resume();
        }
        match sent {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Refused { why },
        }
    }

    fn pause(&mut self) -> Reply {
        if self.paused || self.ended.is_some() {
            return Reply::Done;
        }
        let Charge { launch, hierarchies, .. } = self.charge;
        let frozen = freezer::freeze(hierarchies, &launch.cgroup, FREEZE_TIME);
        match frozen.and_then(|()| self.record_paused(true)) {
            Ok(()) => {
                self.paused = true;
                Reply::Done
            }
            Err(error) => {
                // Paused without a record of it, it would be taken for hung.
                let _not_frozen = freezer::thaw(hierarchies, &launch.cgroup);
                Reply::Refused { why: format!("the container cannot be paused: {error}") }
            }
        }
    }

    fn resume(&mut self) -> Reply {
        if !self.paused {
            return Reply::Done;
        }
        let thawed = freezer::thaw(self.charge.hierarchies, &self.charge.launch.cgroup);
        match thawed.and_then(|()| self.record_paused(false)) {
            Ok(()) => {
                (self.paused, self.lent) = (false, false);
                Reply::Done
            }
            Err(error) => Reply::Refused { why: format!("the container cannot be resumed: {error}") },
        }
    }

    fn record_paused(&self, paused: bool) -> io::Result<()> {
        let dir = self.charge.dir;
        let started = record::load::<Started>(dir, record::STATE).map_err(io::Error::other)?;
        let started = started.ok_or(io::ErrorKind::NotFound)?;
        record::save(dir, record::STATE, &Started { paused, ..started }, Durability::Cached)
    }

    /// Leaves the connection to a minder, or says why there is none.
    fn exec(&mut self, connection: UnixStream, order: Order) {
        let (ended, held) = (self.ended.is_some(), self.held.is_some());
        if let Some(failed) = refusal(ended, held, self.paused, self.minders.len()) {
            tell(&connection, &Answer::Failed(failed), &[]);
            return;
        }
        let is_long = order.request.len() > protocol::LONGEST;
        let Charge { dir, launch, hierarchies } = self.charge;
        let place = Place { dir, launch, hierarchies, confinement: &self.confinement, init: self.init };
        // It has a copy of its own, and without a process to hold one the connection closes, which is an answer too.
        if let Ok(minder) = minder::split_off(&place, connection, order) {
            self.minders.push(minder);
        }
        if is_long {
            detach::trim_memory();
        }
    }

    fn attach(&mut self, client: Client) {
        let (stream, begun) = client.into_parts();
        if self.attached.len() >= MOST_ATTACHED {
            // Those whose input the container does not read are not listened to, and may have left long ago.
            self.see_off(Attached::has_hung_up);
        }
        if self.attached.len() >= MOST_ATTACHED {
            let why = format!("{MOST_ATTACHED} clients are attached already");
            tell(&stream, &Answer::Refused { why }, &[]);
            return;
        }
        let Launch { terminal, stdin, .. } = self.charge.launch;
        if tell(&stream, &Answer::Attached { terminal: *terminal, stdin: *stdin }, &[]) {
            let mut attached = Attached::new(stream, &begun);
            if self.held.is_some() {
                attached.become_patron();
            }
            attached.pump(&mut self.input);
            self.attached.push(attached);
            self.release();
        }
    }

    /// Drops who has left. The input of a container that was held ends with the client for whom it was, as Docker has it: nobody
    /// else knows of it.
    fn see_off(&mut self, has_left: fn(&Attached) -> bool) {
        let is_orphaned = self.attached.iter().any(|attached| attached.is_patron() && has_left(attached));
        self.attached.retain(|attached| !has_left(attached));
        if is_orphaned {
            self.input.close();
        }
    }
}

/// Why no process can join the container now. One that has ended is reaped, and its number may be another's already: the
/// end and a request can arrive together.
fn refusal(ended: bool, held: bool, paused: bool, minders: usize) -> Option<Failed> {
    if ended {
        return Some(Failed::new(Failure::NotRunning, "the container has ended"));
    }
    if held {
        return Some(Failed::new(Failure::NotRunning, NOT_STARTED));
    }
    if paused {
        return Some(Failed::new(Failure::Paused, "the container is paused"));
    }
    let why = || format!("{MOST_MINDERS} commands run in this container already");
    (minders >= MOST_MINDERS).then(|| Failed::new(Failure::Other, &why()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_joins_a_container_that_has_ended_stands_still_or_is_crowded() {
        let refused = |ended, held, paused, minders| refusal(ended, held, paused, minders);
        let kind = |ended, paused, minders| refused(ended, false, paused, minders).map(|failed| failed.kind);
        assert_eq!(kind(false, false, MOST_MINDERS - 1), None);
        assert_eq!(kind(false, false, MOST_MINDERS), Some(Failure::Other));
        assert_eq!(kind(false, true, 0), Some(Failure::Paused));
        // Whatever else is so: its number is not its own any more.
        assert_eq!(kind(true, true, MOST_MINDERS), Some(Failure::NotRunning));
        assert_eq!(kind(true, false, 0), Some(Failure::NotRunning));
        // What runs in it is not the container's program yet.
        let held = refused(false, true, true, 0).unwrap();
        assert_eq!((held.kind, held.why.as_str()), (Failure::NotRunning, NOT_STARTED));
    }

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
