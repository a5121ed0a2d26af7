//! Stopping all of a cgroup where it is, and letting it go on.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

use super::{Hierarchies, PAUSE, is_gone, no_controller, with_descendants, write};

/// Freezes the cgroup and what is below it, and waits until it stands still. On failure nothing is left frozen.
pub(crate) fn freeze(hierarchies: &Hierarchies, path: &str, within: Duration) -> io::Result<()> {
    let deadline = Instant::now() + within;
    let frozen = match hierarchies.v2(path) {
        Some(dir) => freeze_v2(&dir, deadline),
        None => match hierarchies.v1("freezer", path) {
            Some(dir) => freeze_v1(&dir, deadline),
            None => Err(no_controller()),
        },
    };
    if frozen.is_err() {
        let _not_frozen = thaw(hierarchies, path);
    }
    frozen
}

fn freeze_v2(dir: &Path, deadline: Instant) -> io::Result<()> {
    write(dir, "cgroup.freeze", "1")?;
    until(deadline, || {
        let events = std::fs::read_to_string(dir.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "frozen 1"))
    })
}

fn freeze_v1(dir: &Path, deadline: Instant) -> io::Result<()> {
    until(deadline, || {
        // Each time anew: it is how the kernel is told to look for processes that came up meanwhile.
        write(dir, "freezer.state", "FROZEN")?;
        Ok(std::fs::read_to_string(dir.join("freezer.state"))?.trim() == "FROZEN")
    })
}

fn until(deadline: Instant, mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    while !done()? {
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a process of it cannot be frozen"));
        }
        let _pause = poll(&mut [], PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO));
    }
    Ok(())
}

/// Lets all of the cgroup go on, also what is frozen below it by itself. One that is not frozen, or not there, stays so.
pub(crate) fn thaw(hierarchies: &Hierarchies, path: &str) -> io::Result<()> {
    let (root, file, value) = match hierarchies.v2(path) {
        Some(dir) => (dir, "cgroup.freeze", "0"),
        None => match hierarchies.v1("freezer", path) {
            Some(dir) => (dir, "freezer.state", "THAWED"),
            // Nothing can be frozen here.
            None => return Ok(()),
        },
    };
    for dir in with_descendants(root)? {
        match write(&dir, file, value) {
            Err(error) if !is_gone(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Hierarchy, Kind};
    use super::*;

    fn host(dir: &Path, kind: Kind) -> Hierarchies {
        Hierarchies(vec![Hierarchy { mount: dir.to_owned(), kind }])
    }

    #[test]
    fn version_one_is_frozen_through_its_controller() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), Kind::V1(vec!["freezer".to_owned()]));
        let state = dir.path().join("x/freezer.state");
        std::fs::create_dir(dir.path().join("x")).unwrap();
        // As a file, it says at once what is written to it.
        std::fs::write(&state, "").unwrap();
        freeze(&host, "/x", Duration::ZERO).unwrap();
        assert_eq!(std::fs::read_to_string(&state).unwrap(), "FROZEN");
        std::fs::write(&state, "").unwrap();
        thaw(&host, "/x").unwrap();
        assert_eq!(std::fs::read_to_string(&state).unwrap(), "THAWED");
    }

    #[test]
    fn version_two_stands_still_when_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), Kind::V2);
        let at = |name: &str| dir.path().join("x").join(name);
        std::fs::create_dir(dir.path().join("x")).unwrap();
        std::fs::write(at("cgroup.freeze"), "0").unwrap();
        std::fs::write(at("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let error = freeze(&host, "/x", Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(std::fs::read_to_string(at("cgroup.freeze")).unwrap(), "0", "it is not left half frozen");

        std::fs::write(at("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        freeze(&host, "/x", Duration::ZERO).unwrap();
        assert_eq!(std::fs::read_to_string(at("cgroup.freeze")).unwrap(), "1");
    }

    #[test]
    fn a_host_without_a_freezer_says_so_and_has_nothing_to_thaw() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), Kind::V1(vec!["pids".to_owned()]));
        let error = freeze(&host, "/x", Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        thaw(&host, "/x").unwrap();
    }
}
