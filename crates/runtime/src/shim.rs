//! The small process beside each container: it makes the container, holds its stdio, and records its end.
//!
//! Its life, each step in the order in which it may fail:
//!
//! 1. It drops what it inherited, splits off the process that the agent waits for, and takes the directory's lock.
//! 2. It moves to a cgroup and a mount namespace of its own ([`start`]), mounts the root file system there, checks it,
//!    writes `config.json`, and has libcontainer make the container; then it sets the limits, and starts it. One that is to
//!    be held ([`held`]) is started later, and counts as running all the same.
//! 3. `state.json` is written and the agent let go. What goes wrong before that is an `exit.json` that says why.
//! 4. It copies output to the log and to who is attached ([`attached`]), answers its socket and reaps ([`supervise`]) until
//!    the container's first process ends. A process that is to join the container it leaves to one that it forks
//!    ([`minder`]).
//! 5. It sees those off, kills what is left in the cgroup, drains the output, removes cgroup and mount, and only then writes
//!    `exit.json` ([`ending`]): who reads it knows that nothing is left but the directory.
//!
//! Killed at any point, it leaves at most a cgroup with processes in it, which is for [`crate::handle::bury`].

mod attached;
mod client;
mod ending;
mod held;
mod minder;
mod start;
mod stdio;
mod supervise;
mod tenant;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::cgroup::{self, Hierarchies};
use crate::detach::{self, Ready, Side};
use crate::launch::Launch;
use crate::record::{self, Durability, Ended, ExitForm, chain};
use crate::rootfs;
use start::{Container, StartError};
use supervise::Charge;

/// How long SIGKILL may take to empty a cgroup before the shim reports what is left and goes on.
const KILL_TIME: Duration = Duration::from_secs(5);

/// Becomes the shim of `dir`. To be called first thing in `main`, before there is a thread or an open file.
pub fn main(dir: &Path) -> ExitCode {
    match run(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Into `shim.err`; the agent quotes it. Without stderr there is nowhere to complain.
            let _unheard = writeln!(std::io::stderr(), "{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("cannot become a shim")]
    Detach(#[source] std::io::Error),
    #[error("cannot enter the task directory {0}")]
    Directory(std::path::PathBuf, #[source] std::io::Error),
    #[error("another shim already has {0}")]
    Taken(std::path::PathBuf),
    #[error("cannot record the end of the container")]
    Record(#[source] std::io::Error),
    #[error("lost sight of the container")]
    Supervise(#[source] std::io::Error),
}

fn run(dir: &Path) -> Result<(), ShimError> {
    detach::close_inherited().map_err(ShimError::Detach)?;
    match detach::split_off().map_err(ShimError::Detach)? {
        Side::Launcher(launcher) => launcher.wait().map_err(ShimError::Detach),
        Side::Shim(ready) => serve(dir, ready),
    }
}

fn serve(dir: &Path, ready: Ready) -> Result<(), ShimError> {
    let failed = |source| ShimError::Directory(dir.to_owned(), source);
    let dir = &dir.canonicalize().map_err(failed)?;
    // Held until the process ends; see `record::lock`.
    let Some(_lock) = record::lock(dir).map_err(failed)? else {
        return Err(ShimError::Taken(dir.clone()));
    };
    let (launch, hierarchies, container) = match begin(dir) {
        Ok(begun) => begun,
        Err(error) => {
            let ended =
                Ended { exit: ExitForm::NotStarted, at_ms: record::now().0, reason: Some(chain(&error)) };
            record::save(dir, record::EXIT, &ended, Durability::Synced).map_err(ShimError::Record)?;
            ready.announce();
            return Ok(());
        }
    };
    ready.announce();
    detach::trim_memory();
    let charge = Charge { dir, launch: &launch, hierarchies: &hierarchies };
    let (status, mut waiting) = supervise::until_end(charge, container).map_err(ShimError::Supervise)?;
    let killed = if launch.options.init { status.seen_through_init() } else { status };
    let oom = killed.signal == Some(libc::SIGKILL) && cgroup::oom_kills(&hierarchies, &launch.cgroup) > 0;
    let status = if oom { killed } else { status };
    waiting.see_off_minders(&hierarchies, &launch.cgroup);
    let remains = clean(dir, &launch, &hierarchies);
    let drained = waiting.drain();
    let ended = Ended { exit: status.exit(oom), at_ms: status.at.0, reason: remains };
    record::save(dir, record::EXIT, &ended, Durability::Synced).map_err(ShimError::Record)?;
    drained.answer(&ended);
    Ok(())
}

fn begin(dir: &Path) -> Result<(Launch, Hierarchies, Container), StartError> {
    let launch = Launch::load(dir)?.ok_or_else(|| StartError::NoLaunch(dir.to_owned()))?;
    launch.check()?;
    let hierarchies = Hierarchies::find().map_err(StartError::Cgroups)?;
    match start::start(dir, &launch, &hierarchies) {
        Ok(container) => Ok((launch.settled(), hierarchies, container)),
        Err(error) => {
            // The reason for the failure is what the user has to see; what could not be cleaned, `destroy` finds.
            let _remains = clean(dir, &launch, &hierarchies);
            Err(error)
        }
    }
}

/// Takes away all of the container that is not in the directory. Returns what could not be.
fn clean(dir: &Path, launch: &Launch, hierarchies: &Hierarchies) -> Option<String> {
    let cgroup = cgroup::clear(hierarchies, launch, KILL_TIME);
    let mount =
        rootfs::unmount(dir).err().map(|error| format!("cannot unmount the root file system: {error}"));
    let remains: Vec<String> = [cgroup, mount].into_iter().flatten().collect();
    (!remains.is_empty()).then(|| remains.join("; "))
}
