//! How a process gives up all that unpacking a layer does not take.
//!
//! What is left when a layer has taken the process over: its own memory, the blob, one line to who asked, and the layer's
//! directory, which is all that it can name. It owns what is in there and may make devices in it, but not open them. It
//! is root by number alone.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use caps::{CapSet, Capability};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use nix::libc::{EPERM, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, PROT_EXEC};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{Resource, Rlimit, chroot, fchdir, getrlimit, pivot_root, setrlimit};

use crate::limits;

/// What it takes to make files that belong to others, with their modes, devices and capabilities.
const CAPABILITIES: [Capability; 6] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
];

/// All that it takes to read, decompress and make files. Whatever is not here fails, also what the kernel may yet learn.
/// Among it: other programs, threads, sockets, mounts, namespaces, and signals to other processes, which root by number may
/// send to all others.
const CALLS: [&str; 42] = [
    // The blob and the report.
    "read",
    "readv",
    "write",
    "writev",
    // The tree; `fcntl` has conditions.
    "close",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "fsetxattr",
    "fstat",
    "ftruncate",
    "getdents64",
    "linkat",
    "lseek",
    "mkdirat",
    "mknodat",
    "newfstatat",
    "openat",
    "openat2",
    "pwrite64",
    "readlinkat",
    "statx",
    "symlinkat",
    "unlinkat",
    "utimensat",
    // Memory; `mmap` and `mprotect` have conditions.
    "brk",
    "madvise",
    "mremap",
    "munmap",
    // The C library and Rust's: locks, a panic, the end.
    "clock_gettime",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
];

/// What `fcntl` may do: look at a descriptor, and duplicate it. Not have a signal sent when it can be read (`F_SETOWN`,
/// `F_SETSIG` and `O_ASYNC`): SIGKILL to any process would do, since the kernel asks for the sender's number there, which is
/// root's, and not for a capability.
const FCNTL: [i32; 3] = [F_DUPFD_CLOEXEC, F_GETFD, F_GETFL];

/// Memory beyond what the program maps by itself: 128 MiB of window for zstd (`decompress`), some 250 MiB for the names of
/// a million directories (`limits`), and room.
const MEMORY: u64 = 512 << 20;

/// Five are the most that are open at a time.
const FILES: u64 = 64;

/// The processor time for the largest layer is some minutes on a slow machine; links within links can ask for days.
const SECONDS: u64 = 3600;

/// An unpacking can be done again: it goes before anything else when memory runs out.
const FIRST_TO_GO: &str = "1000";

#[derive(Debug, thiserror::Error)]
pub(super) enum ConfineError {
    #[error("the process that unpacks it cannot {act}")]
    Step {
        act: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the process that unpacks it cannot give up capabilities")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("the process that unpacks it still has {0:?} capabilities that it gave up")]
    Kept(CapSet),
    #[error("the process that unpacks it cannot limit its system calls")]
    Calls(#[from] SeccompError),
    #[error("the directory to unpack it into is not empty")]
    Occupied,
}

fn failed<E: Into<io::Error>>(act: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::Step { act, source: source.into() }
}

/// Confines the calling process to `directory`, for good: it is `/` from now on. The process has to have one thread.
pub(super) fn confine(directory: &Path) -> Result<(), ConfineError> {
    close_inherited().map_err(failed("close the files of who started it"))?;
    limit().map_err(failed("limit itself"))?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .map_err(failed("make namespaces"))?;
    enter(directory).map_err(failed("make the layer's directory its root"))?;
    let mut content = fs::read_dir("/").map_err(failed("look into the layer's directory"))?;
    // A mistake of whoever calls it by hand is not to cost them a directory.
    if content.next().is_some() {
        return Err(ConfineError::Occupied);
    }
    drop(content);
    give_up_capabilities()?;
    // Any change of rights undoes it, so it comes after them.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("end with who started it"))?;
    nix::sys::prctl::set_no_new_privs().map_err(failed("do without new rights"))?;
    limit_calls()?;
    Ok(())
}

/// Closes every descriptor above stderr. All of the daemon's are close-on-exec, but a library's may not be.
fn close_inherited() -> io::Result<()> {
    let listed = fs::read_dir("/proc/self/fd")?;
    let open: Vec<i32> = listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        match nix::unistd::close(descriptor) {
            // One of them was the listing's own.
            Ok(()) | Err(Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn limit() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", FIRST_TO_GO)?;
    for (resource, most) in [
        (Resource::Fsize, limits::LAYER.0),
        (Resource::Nofile, FILES),
        (Resource::Core, 0),
        (Resource::Cpu, SECONDS),
        (Resource::As, mapped()? + MEMORY),
    ] {
        // More than there may be already is not ours to ask for.
        let most = getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// What the program takes of addresses before it does anything: itself and its libraries.
fn mapped() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.and_then(|size| size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    size.map(|kib| kib << 10).ok_or_else(|| io::Error::other("/proc/self/status does not tell a VmSize"))
}

/// Makes the directory the only thing that can be named. A device in it cannot be opened, since whoever may make one could
/// make that of the disk; nor can a program in it be run.
fn enter(directory: &Path) -> rustix::io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let tree = open_tree(CWD, directory, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    move_mount(&tree, "", CWD, directory, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(&tree)?;
    mount_remount(".", MountFlags::BIND | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC, "")?;
    match pivot_root(".", ".") {
        // The old root is now mounted over the new one.
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // Where the root is the kernel's first file system, nothing can take its place.
        Err(rustix::io::Errno::INVAL) => chroot(".")?,
        Err(error) => return Err(error),
    }
    rustix::process::chdir("/")
}

fn give_up_capabilities() -> Result<(), ConfineError> {
    let kept = HashSet::from(CAPABILITIES);
    for excess in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *excess)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    // Effective first: it has to stay a part of what is permitted. Without one of them some layers cannot be unpacked, and
    // the step that fails says so.
    for set in [CapSet::Effective, CapSet::Permitted] {
        let kept: HashSet<Capability> = caps::read(None, set)?.intersection(&kept).copied().collect();
        caps::set(None, set, &kept)?;
    }
    for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient]
    {
        if !caps::read(None, set)?.is_subset(&kept) {
            return Err(ConfineError::Kept(set));
        }
    }
    Ok(())
}

fn limit_calls() -> Result<(), SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(EPERM))?;
    for call in CALLS {
        filter.add_rule(ScmpAction::Allow, ScmpSyscall::from_name(call)?)?;
    }
    for command in FCNTL {
        let command = ScmpArgCompare::new(1, ScmpCompareOp::Equal, command as u64);
        filter.add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name("fcntl")?, &[command])?;
    }
    // No memory ever becomes a program.
    let data = ScmpArgCompare::new(2, ScmpCompareOp::MaskedEqual(PROT_EXEC as u64), 0);
    for call in ["mmap", "mprotect"] {
        filter.add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name(call)?, &[data])?;
    }
    // `abort` is a signal to itself.
    let itself = ScmpArgCompare::new(0, ScmpCompareOp::Equal, u64::from(std::process::id()));
    filter.add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name("tgkill")?, &[itself])?;
    filter.load()
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    #[test]
    fn a_descriptor_is_duplicated_and_sends_nobody_a_signal() {
        // A filter is of the thread that loads it, and ends with it.
        let asked = std::thread::spawn(|| {
            let (reader, writer) = io::pipe().unwrap();
            let before = fcntl(&reader, FcntlArg::F_GETFL).unwrap();
            limit_calls().unwrap();
            let signals = OFlag::from_bits_retain(before) | OFlag::O_ASYNC;
            let refused =
                [FcntlArg::F_SETFL(signals), FcntlArg::F_SETPIPE_SZ(1 << 20)].map(|arg| fcntl(&reader, arg));
            let allowed = writer.try_clone().is_ok() && fcntl(&reader, FcntlArg::F_GETFL) == Ok(before);
            (refused, allowed)
        });
        assert_eq!(asked.join().unwrap(), ([Err(Errno::EPERM); 2], true));
    }
}
