//! How an exec'd shim becomes a process of its own, with no inherited descriptor, session or parent; and how it splits off
//! others for work that it must not do itself.
#![expect(unsafe_code, reason = "fork, close_range, keyctl, malloc_trim and madvise have no safe form")]

use std::ffi::CStr;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid};

/// Which of the two processes this is after [`split_off`].
#[derive(Debug)]
pub(crate) enum Side {
    /// Started by the agent; it ends as soon as the other has an answer, so that the agent has nothing to reap later.
    Launcher(Launcher),
    /// The shim proper.
    Shim(Ready),
}

#[derive(Debug)]
pub(crate) struct Launcher {
    shim: Pid,
    answer: OwnedFd,
}

/// Says, once, that the container has started or will not.
#[derive(Debug)]
pub(crate) struct Ready(OwnedFd);

/// Closes every descriptor above stderr. The agent's are close-on-exec, but one that is not, in a library, would give a
/// container the agent's files (the class of CVE-2024-21626).
///
/// To be called before anything else is opened.
pub(crate) fn close_inherited() -> io::Result<()> {
    // SAFETY: called first thing in `main` of a single-threaded program, so no value that owns a descriptor exists yet.
    unsafe { close_range(3, u32::MAX) }
}

/// # Safety
///
/// No value that owns one of these descriptors may be used or dropped afterwards.
unsafe fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: nothing but descriptors is concerned, and the caller vouches for those.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Does `work` in a child process of this name, which has of the caller's descriptors the standard ones and `kept`, no
/// blocked signal, and `/` as its working directory. It ends with the work, also by a panic: nothing that the caller
/// would do next, or drop, happens in it a second time. The same holds for what `work` itself clones.
///
/// Memory that the child takes is its own and gone with it.
pub(crate) fn fork_off(name: &CStr, kept: &[RawFd], work: impl FnOnce()) -> io::Result<Pid> {
    // SAFETY: the process has one thread, so the child may do whatever the parent might.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let worked = catch_unwind(AssertUnwindSafe(|| settle(name, kept).map(|()| work())));
            // SAFETY: it ends the process and nothing else; what is registered to happen at exit is the parent's.
            unsafe { libc::_exit(i32::from(!matches!(worked, Ok(Ok(()))))) }
        }
    }
}

/// Makes a forked child what [`fork_off`] says.
fn settle(name: &CStr, kept: &[RawFd]) -> io::Result<()> {
    nix::sys::prctl::set_name(name)?;
    SigSet::empty().thread_set_mask()?;
    nix::unistd::chdir("/")?;
    for (first, last) in others(kept) {
        // SAFETY: the owners of these descriptors are values of the parent's that this process, which ends with `work`,
        // neither uses nor drops.
        unsafe { close_range(first, last) }?;
    }
    Ok(())
}

/// The ranges of descriptors above stderr that `kept` are not in.
fn others(kept: &[RawFd]) -> Vec<(u32, u32)> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut ranges = Vec::new();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            ranges.push((first, fd - 1));
        }
        first = fd + 1;
    }
    ranges.push((first, u32::MAX));
    ranges
}

/// Splits off the shim: a session of its own, adoptive parent of what its container leaves behind, signals that it reads
/// in its loop blocked.
pub(crate) fn split_off() -> io::Result<Side> {
    let (answer, ready) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: the process has one thread, so the child may do whatever the parent might.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Launcher(Launcher { shim: child, answer })),
        ForkResult::Child => {
            nix::unistd::setsid()?;
            own_keyring()?;
            nix::sys::prctl::set_child_subreaper(true)?;
            nix::sys::prctl::set_name(c"gantry-shim")?;
            // What libcontainer makes in a root file system is to have the modes that it asks for.
            umask(Mode::S_IWGRP | Mode::S_IWOTH);
            signals().thread_set_mask()?;
            Ok(Side::Shim(Ready(ready)))
        }
    }
}

/// Gives this process a session keyring of its own, which its container inherits. With the daemon's, all containers of a node would
/// share their keys, as far as their filter of system calls lets them ask for any; runc does the same.
fn own_keyring() -> io::Result<()> {
    /// Of linux/keyctl.h. Without a name it makes a new one.
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: two numbers and no pointer go to the kernel, which touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0_usize) };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // A kernel without keys has none to share; and whose own filter refuses this, its containers' does too.
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Ok(()),
        Some(_) | None => Err(error),
    }
}

/// Gives back what making the container took. A shim does next to nothing from then on, for as long as the container lives.
pub(crate) fn trim_memory() {
    /// A page, and what the calls below may use of the stack.
    const PAGE: usize = 4096;
    const IN_USE: usize = 16 << 10;
    /// More than the stack ever was; below it is nothing for a long way.
    const DEEPEST: usize = 512 << 10;
    let_go_of_code();
    // SAFETY: it concerns memory that nobody has, and the process has one thread.
    unsafe { libc::malloc_trim(0) };
    // A container's init may be on a stack that libcontainer mapped, of the size of this limit, with something else below it.
    if getrlimit(Resource::RLIMIT_STACK).map_or(true, |(soft, _)| soft < 2 * DEEPEST as u64) {
        return;
    }
    let frame = [0_u8; 1];
    let here = std::hint::black_box(&frame).as_ptr().addr();
    let end = (here - IN_USE) / PAGE * PAGE;
    // SAFETY: the stack grows downwards and this thread, the only one, has come back from whatever lay below this frame; a
    // later call finds zeroed pages there. Where nothing is mapped the kernel says so, and has done the rest.
    let _beyond = unsafe {
        libc::madvise(std::ptr::with_exposed_provenance_mut(end - DEEPEST), DEEPEST, libc::MADV_DONTNEED)
    };
}

/// Unmaps the pages of the program's code. Making a container has touched some hundreds of them, and waiting for its end takes a few,
/// which are mapped again when they are called.
fn let_go_of_code() {
    let here = (let_go_of_code as *const ()).addr();
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let code = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (rest.starts_with("r-xp") && (start..end).contains(&here)).then_some((start, end - start))
    });
    let Some((start, length)) = code else { return };
    // SAFETY: nothing is ever written to these pages, so that the file has all of them. This very function's comes back with its
    // next instruction.
    let _kept =
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED) };
}

/// What a shim reads from its signal descriptor.
pub(crate) fn signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set
}

impl Launcher {
    /// Waits until the shim has an answer or is dead. Both are watched, since a shim killed in the middle can leave
    /// children of libcontainer behind that hold the pipe open.
    pub(crate) fn wait(self) -> io::Result<()> {
        let shim = rustix::process::Pid::from_raw(self.shim.as_raw()).expect("fork returned a process id");
        let dead = rustix::process::pidfd_open(shim, rustix::process::PidfdFlags::empty())?;
        let readable = PollFlags::POLLIN;
        let mut fds = [PollFd::new(self.answer.as_fd(), readable), PollFd::new(dead.as_fd(), readable)];
        while let Err(errno) = poll(&mut fds, PollTimeout::NONE) {
            if errno != nix::errno::Errno::EINTR {
                return Err(errno.into());
            }
        }
        if fds[0].any().unwrap_or(true) {
            let mut byte = [0];
            let _end_or_byte = std::fs::File::from(self.answer).read(&mut byte)?;
        }
        Ok(())
    }
}

impl Ready {
    /// The launcher may have been killed; nobody is waiting then.
    pub(crate) fn announce(self) {
        let _unheard = std::fs::File::from(self.0).write_all(b"1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calling thread's session keyring; `None` where keys cannot be asked for.
    fn session_keyring() -> Option<libc::c_long> {
        /// Of linux/keyctl.h: what is asked for, and that it is of the session.
        const GET_KEYRING_ID: libc::c_long = 0;
        const SESSION: libc::c_long = -3;
        // SAFETY: numbers go to the kernel, which touches no memory of ours.
        let id = unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION, 0_usize) };
        (id >= 0).then_some(id)
    }

    #[test]
    fn a_keyring_is_its_own() {
        // A thread's are its own, too, so that the other tests keep theirs.
        let keyrings = std::thread::spawn(|| {
            let before = session_keyring();
            own_keyring().unwrap();
            (before, session_keyring())
        });
        let (before, after) = keyrings.join().unwrap();
        assert!(before.is_none() || before != after, "{before:?}");
    }

    #[test]
    fn what_is_closed_is_all_but_what_is_kept() {
        assert_eq!(others(&[]), [(3, u32::MAX)]);
        assert_eq!(others(&[9, 3, 5, 4]), [(6, 8), (10, u32::MAX)]);
        assert_eq!(others(&[2, 7, 7, -1]), [(3, 6), (8, u32::MAX)]);
    }
}
