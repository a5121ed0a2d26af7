//! A process, by more than its number: numbers are reused, and a fault must never hit a stranger.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// One process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
    pub(crate) start: u64,
}

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vitals {
    Running,
    /// By SIGSTOP.
    Stopped,
    /// Ended, or a zombie that nobody has reaped yet.
    Gone,
}

impl Process {
    /// Whoever has this number now, if anybody.
    pub(crate) fn find(pid: i32) -> io::Result<Option<Self>> {
        Ok(stat(pid)?.map(|stat| Self { pid, start: stat.start }))
    }

    pub(crate) fn vitals(self) -> io::Result<Vitals> {
        Ok(match stat(self.pid)? {
            Some(Stat { start, .. }) if start != self.start => Vitals::Gone,
            Some(Stat { state: b'Z' | b'X', .. }) | None => Vitals::Gone,
            Some(Stat { state: b'T' | b't', .. }) => Vitals::Stopped,
            Some(_) => Vitals::Running,
        })
    }

    pub(crate) fn lives(self) -> io::Result<bool> {
        Ok(self.vitals()? != Vitals::Gone)
    }

    /// Sends a signal to this very process. False if it is gone.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<bool> {
        match self.open()? {
            Some(fd) => deliver(&fd, signal),
            None => Ok(false),
        }
    }

    /// Kills it and waits until it is dead. False if it was gone before.
    pub(crate) fn kill(self, within: Duration) -> io::Result<bool> {
        let Some(fd) = self.open()? else { return Ok(false) };
        let was_there = deliver(&fd, Signal::KILL)?;
        if !wait_for_any(std::slice::from_ref(&fd), within)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it outlived SIGKILL"));
        }
        reap(self.pid);
        Ok(was_there)
    }

    /// A descriptor that stands for this process and no other; `None` if it is gone. Opened first and checked then: if
    /// the start time is right afterwards, the number did not change hands in between.
    fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(fd) = open_pidfd(self.pid)? else { return Ok(None) };
        Ok(self.lives()?.then_some(fd))
    }
}

/// Takes the exit status of a dead process where it is a child of this one. Otherwise there is nothing to take.
pub(crate) fn reap(pid: i32) {
    let _not_ours = waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// `None` if there is no such process.
pub(crate) fn open_pidfd(pid: i32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// False if the process is gone.
pub(crate) fn deliver(process: &OwnedFd, signal: Signal) -> io::Result<bool> {
    match pidfd_send_signal(process, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until one of these processes is dead; false if none is in time. Without any it just waits.
pub(crate) fn wait_for_any(processes: &[OwnedFd], within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    let mut fds: Vec<PollFd<'_>> =
        processes.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    start: u64,
}

fn stat(pid: i32) -> io::Result<Option<Stat>> {
    let text = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        // ESRCH: it ended between opening and reading.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::ESRCH as i32) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let stat = parse_stat(&text);
    stat.map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is odd")))
}

/// The second field is the program's name in parentheses, which may itself hold parentheses, spaces and line ends; no
/// later field holds a parenthesis.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&text[name_end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // That was field 3; field 22 is wanted.
    let start = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_start_are_read_behind_any_name() {
        let rest = "S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 8675309 1 2";
        for name in ["cat", "a b", ") R 9 (", "x)\n(y"] {
            let line = format!("12 ({name}) {rest}");
            assert_eq!(parse_stat(line.as_bytes()), Some(Stat { state: b'S', start: 8_675_309 }), "{name:?}");
        }
        for bad in ["", "12 (cat", "12 (cat) S 1 2", "12 (cat) S 1 12 12 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 x"] {
            assert_eq!(parse_stat(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_number_that_changed_hands_is_nobody() {
        let own = Process::find(i32::try_from(std::process::id()).unwrap()).unwrap().unwrap();
        assert_eq!(own.vitals().unwrap(), Vitals::Running);
        let other = Process { start: own.start + 1, ..own };
        assert_eq!(other.vitals().unwrap(), Vitals::Gone);
        // If this hit the process of that number, the test would end here.
        assert!(!other.signal(Signal::KILL).unwrap());
        assert!(!other.kill(Duration::from_secs(1)).unwrap());
    }

    #[test]
    fn a_child_is_stopped_continued_and_killed() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap().unwrap();
        assert!(process.signal(Signal::STOP).unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.vitals().unwrap() != Vitals::Stopped {
            assert!(Instant::now() < deadline, "SIGSTOP had no effect");
            wait_for_any(&[], Duration::from_millis(1)).unwrap();
        }
        assert!(process.kill(Duration::from_secs(10)).unwrap());
        assert_eq!(process.vitals().unwrap(), Vitals::Gone);
        assert!(!process.kill(Duration::from_secs(10)).unwrap(), "killing again is no error");
        // Reaped already: `kill` waits for what is this process's child.
        assert!(child.wait().is_err());
    }
}
