//! Resource limits and the OOM score: what the kernel lets a process lower freely and raise by privilege only.
//!
//! A limit is set in a process of the container's, by itself and at the last moment. By then it has no privilege left, so the
//! shim raises the ceilings of its own before, which whatever it starts inherits. What it may not raise is a warning.

use model::Ulimit as Kind;
use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use rustix::process::{Pid, Rlimit, prlimit};

use crate::launch::Ulimit;

/// Raises this process's hard limits to what a container is to have, for good. Returns what the kernel refused, in words.
pub(crate) fn raise(asked: &[Ulimit]) -> Vec<String> {
    let mut warnings = Vec::new();
    for ulimit in asked {
        let (resource, wanted) = (resource(ulimit.resource), value(ulimit.hard));
        let raised = getrlimit(resource).and_then(|(soft, hard)| match wanted > hard {
            true => setrlimit(resource, soft, wanted),
            false => Ok(()),
        });
        if let Err(errno) = raised {
            let (name, wanted) = (ulimit.resource.as_str(), shown(wanted));
            let ceiling =
                getrlimit(resource).map_or_else(|_| "what it was".to_owned(), |(_, hard)| shown(hard));
            warnings.push(format!("ulimit {name} stays at {ceiling} in place of {wanted}: {}", errno.desc()));
        }
    }
    warnings
}

/// Sets this process's limits, as far as the ceilings let it.
pub(crate) fn set(asked: &[Ulimit]) -> Result<(), Errno> {
    for ulimit in asked {
        let resource = resource(ulimit.resource);
        let (_, ceiling) = getrlimit(resource)?;
        let hard = value(ulimit.hard).min(ceiling);
        setrlimit(resource, value(ulimit.soft).min(hard), hard)?;
    }
    Ok(())
}

/// Gives the container's first process, which waits to be started, this process's limit on locked memory. Where cgroups are of
/// version 2, libcontainer sets it to 128 MiB on the way, to load the program that decides on devices, and leaves it at that:
/// more than a container is to have, and less than one may have been asked to. Returns what the kernel refused, in words.
pub(crate) fn restore_locked_memory(init: i32) -> Option<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let found = locked_memory(&std::fs::read_to_string(format!("/proc/{init}/limits")).ok()?)?;
    if found == (soft, hard) {
        return None;
    }
    let bound = |value: rlim_t| (value != RLIM_INFINITY).then_some(value);
    let own = Rlimit { current: bound(soft), maximum: bound(hard) };
    let errno = prlimit(Some(Pid::from_raw(init)?), rustix::process::Resource::Memlock, own).err()?;
    let (is, own) = (shown(found.1), shown(hard));
    Some(format!(
        "ulimit memlock is {is} in place of {own}: {}",
        Errno::from_raw(errno.raw_os_error()).desc()
    ))
}

/// The soft and the hard one, of `/proc/PID/limits`.
fn locked_memory(limits: &str) -> Option<(rlim_t, rlim_t)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let limit = |field: &str| if field == "unlimited" { Some(RLIM_INFINITY) } else { field.parse().ok() };
    let mut fields = line.split_whitespace();
    Some((limit(fields.next()?)?, limit(fields.next()?)?))
}

fn value(limit: Option<u64>) -> rlim_t {
    limit.unwrap_or(RLIM_INFINITY)
}

fn shown(value: rlim_t) -> String {
    if value == RLIM_INFINITY { "unlimited".to_owned() } else { value.to_string() }
}

fn resource(kind: Kind) -> Resource {
    match kind {
        Kind::As => Resource::RLIMIT_AS,
        Kind::Core => Resource::RLIMIT_CORE,
        Kind::Cpu => Resource::RLIMIT_CPU,
        Kind::Data => Resource::RLIMIT_DATA,
        Kind::Fsize => Resource::RLIMIT_FSIZE,
        Kind::Locks => Resource::RLIMIT_LOCKS,
        Kind::Memlock => Resource::RLIMIT_MEMLOCK,
        Kind::Msgqueue => Resource::RLIMIT_MSGQUEUE,
        Kind::Nice => Resource::RLIMIT_NICE,
        Kind::Nofile => Resource::RLIMIT_NOFILE,
        Kind::Nproc => Resource::RLIMIT_NPROC,
        Kind::Rss => Resource::RLIMIT_RSS,
        Kind::Rtprio => Resource::RLIMIT_RTPRIO,
        Kind::Rttime => Resource::RLIMIT_RTTIME,
        Kind::Sigpending => Resource::RLIMIT_SIGPENDING,
        Kind::Stack => Resource::RLIMIT_STACK,
    }
}

/// Sets the OOM score of the container's first process, from which its others inherit it. Returns what the kernel refused, in
/// words. The shim keeps its own: it should not be what the kernel ends when a container has taken all memory.
///
/// A daemon that is protected must not pass that on: 0 is what a container has by default. Otherwise a score that nobody asked for
/// is left alone, since lowering one is a privilege that not every host gives.
pub(crate) fn set_oom_score(init: i32, asked: Option<i16>) -> Option<String> {
    let inherited: Option<i16> =
        std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|score| score.trim().parse().ok());
    let score = asked.or_else(|| inherited.is_some_and(|score| score < 0).then_some(0))?;
    let error = std::fs::write(format!("/proc/{init}/oom_score_adj"), score.to_string()).err()?;
    let stays = inherited.map_or_else(|| "what it was".to_owned(), |score| score.to_string());
    Some(format!("oom_score_adj stays at {stays} in place of {score}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_below_the_ceiling_is_set_and_nothing_has_to_be_raised() {
        // What it is already, so that it makes no difference to whatever else this process tests.
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        let asked = [Ulimit { resource: Kind::Core, soft: Some(soft), hard: Some(hard) }];
        assert_eq!(raise(&asked), Vec::<String>::new());
        set(&asked).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (soft, hard));
    }

    #[test]
    fn locked_memory_is_read_as_the_kernel_writes_it() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 4096                 files
Max locked memory         8388608              unlimited            bytes
";
        assert_eq!(locked_memory(limits), Some((8 << 20, RLIM_INFINITY)));
        assert_eq!(locked_memory("Max locked memory\n"), None);
    }

    #[test]
    fn a_limit_on_locked_memory_that_was_changed_on_the_way_is_this_processs_again() {
        const LOWERED: u64 = 32 << 10;
        let own = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        assert!(own.0 > LOWERED, "{own:?}");
        let script = "ulimit -S -l 32 && echo lowered && exec sleep 600";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let init = child.id().cast_signed();
        let limits = || locked_memory(&std::fs::read_to_string(format!("/proc/{init}/limits")).unwrap());
        let before = limits();
        let warnings = [restore_locked_memory(init), restore_locked_memory(init)];
        let after = limits();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((before, after), (Some((LOWERED, own.1)), Some(own)));
        assert_eq!(warnings, [None, None]);
    }

    #[test]
    fn an_oom_score_that_nobody_asked_for_is_left_alone() {
        let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        if !score.starts_with('-') {
            assert_eq!(set_oom_score(0, None), None);
        }
        assert!(set_oom_score(0, Some(5)).is_some_and(|warning| warning.contains("in place of 5")));
    }
}
