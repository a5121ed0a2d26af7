//! A container's first process where its service asks for one that does the work of an init: it reaps what nobody else does, and
//! passes signals on. What Docker's `--init` starts (tini, without `-g`), from the memory that the shim's code is in anyway.
//!
//! It is the process that libcontainer made, already in the container, confined and without the capabilities that the
//! container does not have. It forks once, the child becomes the container's program, and the parent stays and does no more
//! than is in this file. What it must not do is to hand the container something of the shim's:
//!
//! - it closes every descriptor but its standard streams, so that its `/proc/1/fd` has what the program's has;
//! - it is not dumpable, as libcontainer made it, so that its memory, a copy of what the shim had, can be read by nobody without
//!   CAP_SYS_PTRACE, nor its program's file be reached through `/proc/1/exe`. Who is given that capability finds there the
//!   container's own order ([`crate::launch`]) and nothing of any other, since a shim reads nothing else; and the file is
//!   read-only ([`crate::binary`]);
//! - its arguments, which anybody may read, are overwritten;
//! - it has the capabilities that a program of its user has, which are none unless that is root.
#![expect(unsafe_code, reason = "fork, signals by number, and overwriting the arguments have no safe form")]

use std::io;
use std::ptr;

use caps::CapSet;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, fork, geteuid, isatty, setpgid};
use rustix::process::WaitOptions;

use crate::detach;

/// As it is listed in the container.
const NAME: &[u8] = b"gantry-init";

/// What a shell, and tini, add to the number of the signal that ended a process to make an exit code.
const SIGNALLED: i32 = 128;

/// The exit code where a service's own filter of system calls keeps the init from its work: what a shell says of a program that
/// cannot be run.
const UNABLE: i32 = 126;

/// By these a process is told of a fault of its own. Blocked, the fault would end it without a trace, or not at all.
const FAULTS: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Runs `program`, which replaces the process it is called in, in a child of this one. Returns in the child alone, with what
/// `program` returned because it could not, or else with the reason why there is no child.
pub(crate) fn stay_beside(program: impl FnOnce() -> String) -> String {
    // From before there is a child, so that its end and what is meant for it are not missed. The first process of a namespace is
    // not sent what it neither handles nor blocks; blocked, everything arrives.
    let passed = passed_on();
    if let Err(errno) = passed.thread_set_mask() {
        return format!("cannot block signals: {}", errno.desc());
    }
    // SAFETY: the process has one thread, so the child may do whatever the parent might.
    match unsafe { fork() } {
        Err(errno) => format!("cannot start a process beside the container's init: {}", errno.desc()),
        Ok(ForkResult::Child) => {
            lead();
            // It resets the mask.
            program()
        }
        Ok(ForkResult::Parent { child }) => {
            settle();
            serve(child, &passed)
        }
    }
}

fn passed_on() -> SigSet {
    let mut set = SigSet::all();
    for fault in FAULTS {
        set.remove(fault);
    }
    set
}

/// Makes this process the leader of a group of its own, and of what is in the foreground if there is a terminal, so that what is
/// typed there reaches it and not its init. Without a terminal there is nothing to take.
fn lead() {
    let own = Pid::from_raw(0);
    if setpgid(own, own).is_ok() && isatty(io::stdin()).unwrap_or(false) {
        // SIGTTOU, which this would otherwise stop us with, is blocked.
        // SAFETY: the call touches no memory.
        let _taken = unsafe { libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpid()) };
    }
}

/// Gives away all that an init does not need.
fn settle() {
    // SAFETY: no value that owns one of these descriptors is used or dropped any more: what this process goes on with is `serve`,
    // which has none and does not return.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // None of these can fail in a way that anyone could act on; a container is not ended for the looks of its init.
    let _inherited = nix::sys::prctl::set_dumpable(false);
    let _named = nix::sys::prctl::set_name(c"gantry-init");
    // In the node's process namespace it is not the first, and orphans would go to the shim.
    let _adopts = nix::sys::prctl::set_child_subreaper(true);
    overwrite_arguments();
    // A program that another user than root executes has none, and this one was executed by the node's root. Nor does it need any:
    // whom it sends signals to is that user.
    if !geteuid().is_root() {
        let _kept = caps::clear(None, CapSet::Permitted);
    }
    detach::trim_memory();
}

/// Reaps and passes signals on until `child` ends, and ends as it did. The kernel then ends what is left in the namespace.
fn serve(child: Pid, passed: &SigSet) -> ! {
    loop {
        // SAFETY: the set lives through the call, and a null pointer means that nobody wants to know more than the number.
        let signal = unsafe { libc::sigwaitinfo(passed.as_ref(), ptr::null_mut()) };
        let ended = match signal {
            libc::SIGCHLD => reap(child),
            1.. => {
                // By number: a real-time signal has no name here. The child may have ended this very moment.
                // SAFETY: the call touches no memory.
                let _sent = unsafe { libc::kill(child.as_raw(), signal) };
                None
            }
            // Anything but an interruption would come again and again.
            _ => (Errno::last() != Errno::EINTR).then_some(UNABLE),
        };
        if let Some(code) = ended {
            // SAFETY: it ends the process, without running what the shim has registered for its own end.
            unsafe { libc::_exit(code) };
        }
    }
}

/// Reaps whoever has ended. Returns the exit code, if `child` was among them.
fn reap(child: Pid) -> Option<i32> {
    let mut ended = None;
    loop {
        // rustix's, because nix's fails for a process that a real-time signal killed.
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == child.as_raw() => {
                ended = code(status.exit_status(), status.terminating_signal()).or(ended);
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return ended,
            Err(_) => return ended.or(Some(UNABLE)),
        }
    }
}

fn code(exit: Option<i32>, signal: Option<i32>) -> Option<i32> {
    exit.or_else(|| signal.map(|signal| SIGNALLED + signal))
}

/// Puts [`NAME`] in place of the arguments that the shim was started with, among them a path of the node's.
fn overwrite_arguments() {
    let Some((start, length)) = arguments() else { return };
    if length <= NAME.len() {
        return;
    }
    let at = ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel says that the process's arguments are there, which are `length` bytes on its stack that may be written.
    // What refers to them is the C library's and std's list of them, which nobody reads any more.
    unsafe {
        ptr::write_bytes(at, 0, length);
        ptr::copy_nonoverlapping(NAME.as_ptr(), at, NAME.len());
    }
}

/// Where this process's arguments are: an address and a length. Of proc_pid_stat(5), fields 48 and 49.
fn arguments() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets, which may have anything in it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(48 - 3);
    let (start, end): (usize, usize) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (start != 0).then_some((start, end.checked_sub(start)?))
}

/// Whether an exit code of an init says that the container's program was killed.
pub(crate) fn was_killed(code: i32) -> bool {
    code == SIGNALLED + libc::SIGKILL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_the_programs_or_tells_its_signal() {
        assert_eq!(code(Some(7), None), Some(7));
        assert_eq!(code(None, Some(15)), Some(143));
        assert_eq!(code(None, None), None);
        assert!(was_killed(137) && !was_killed(9));
    }

    #[test]
    fn all_signals_are_passed_on_but_those_of_its_own_faults() {
        let passed = passed_on();
        for signal in [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGWINCH] {
            assert!(passed.contains(signal), "{signal}");
        }
        assert!(!passed.contains(Signal::SIGSEGV));
    }

    #[test]
    fn the_kernel_says_where_a_processs_arguments_are() {
        let (start, length) = arguments().unwrap();
        let first = std::env::args_os().next().unwrap();
        assert!(start > 0 && length > first.len());
    }
}
