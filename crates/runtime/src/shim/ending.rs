//! What a shim still has to do when its container's first process has ended.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use rustix::io::retry_on_intr;
use rustix::process::{PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use super::attached::Attached;
use super::client::Client;
use super::stdio::{Copied, Output};
use crate::attach::Frame;
use crate::cgroup::{self, Hierarchies};
use crate::logs::Writer;
use crate::protocol::Reply;
use crate::record::Ended;

/// How long a minder may take to notice that its process is dead, and to say so.
const MINDER_TIME: Duration = Duration::from_secs(2);

/// How long all who are attached together may take to read what was printed last.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// The same for the client for whom the container was held. What was printed last is often what it was run for, and goes by way
/// of a manager to a user's pipe; the end is on disk meanwhile, and nobody else waits.
const PATRON_TIME: Duration = Duration::from_secs(60);

/// What is left: output in the pipes, who waits to be told, and who minds processes that have gone with the first one.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) outputs: Vec<Output>,
    pub(super) log: Writer,
    pub(super) clients: Vec<Client>,
    pub(super) attached: Vec<Attached>,
    pub(super) minders: Vec<Pid>,
}

/// The same, once all output is in the log.
#[derive(Debug)]
pub(super) struct Drained {
    clients: Vec<Client>,
    attached: Vec<Attached>,
}

impl Waiting {
    /// Sees all minders off. One that is making a process just now would put it into the container's cgroup, and make that
    /// again for it, so this comes before the cgroup is removed.
    pub(super) fn see_off_minders(&mut self, hierarchies: &Hierarchies, cgroup: &str) {
        if self.minders.is_empty() {
            return;
        }
        // What shares the node's process ids has not ended with the first one. What is left now is said by who removes it.
        let _remains = cgroup::kill(hierarchies, cgroup, MINDER_TIME);
        let deadline = Instant::now() + MINDER_TIME;
        for minder in
            self.minders.drain(..).filter_map(|minder| rustix::process::Pid::from_raw(minder.as_raw()))
        {
            // Nobody else reaps it, so its id is its own.
            if !ends_by(minder, deadline) {
                let _gone = kill_process(minder, Signal::KILL);
            }
            let _reaped = retry_on_intr(|| waitpid(Some(minder), WaitOptions::empty()));
        }
    }

    /// Reads the pipes empty and finishes the log. To be called when everything that could write to them is dead; a pipe
    /// that some other process still holds is left at what it has.
    pub(super) fn drain(mut self) -> Drained {
        for output in &mut self.outputs {
            while output.copy(&mut self.log, &mut self.attached) == Copied::Some {}
            output.finish(&mut self.log);
        }
        self.log.finish(SystemTime::now());
        Drained { clients: self.clients, attached: self.attached }
    }
}

fn ends_by(process: rustix::process::Pid, deadline: Instant) -> bool {
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return false };
    let left = deadline.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)), Ok(1..))
}

impl Drained {
    pub(super) fn answer(self, ended: &Ended) {
        let reply = Reply::Exited(ended.clone());
        for mut client in self.clients.into_iter().filter(Client::waits) {
            // Who is gone does not wait.
            client.answer(&reply);
        }
        let last = Frame::Exit(ended.exit.into()).encode();
        let there = self.attached.into_iter().filter(|attached| !attached.is_gone());
        let (patrons, others): (Vec<Attached>, Vec<Attached>) = there.partition(Attached::is_patron);
        let deadline = Instant::now() + FAREWELL_TIME;
        others.into_iter().for_each(|attached| attached.end(&last, deadline));
        let deadline = Instant::now() + PATRON_TIME;
        patrons.into_iter().for_each(|attached| attached.end(&last, deadline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_minder_that_does_not_end_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = Writer::create(dir.path(), crate::launch::LogPolicy::default()).unwrap();
        let children = ["0", "600"].map(|time| Command::new("sleep").arg(time).spawn().unwrap());
        let minders = children.iter().map(|child| Pid::from_raw(child.id().cast_signed())).collect();
        let (outputs, clients, attached) = (Vec::new(), Vec::new(), Vec::new());
        let mut waiting = Waiting { outputs, log, clients, attached, minders };
        let hierarchies = Hierarchies::find().unwrap();
        waiting.see_off_minders(&hierarchies, "/gantry-unit-test/never/was");
        assert!(waiting.minders.is_empty());
        for mut child in children {
            assert!(child.wait().is_err(), "nobody is left to be waited for");
        }
    }
}
