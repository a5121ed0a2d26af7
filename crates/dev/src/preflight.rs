//! What this machine must have before a cluster is made on it, all of it looked at, so that it is said at once.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cgroup::{CgroupError, Hierarchies};
use crate::process::open_pidfd;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PreflightError {
    #[error("this machine lacks {}", .0.join("; "))]
    Lacks(Vec<&'static str>),
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
}

/// `path` is the environment's `PATH`.
pub(crate) fn check(path: Option<OsString>) -> Result<(), PreflightError> {
    let own =
        i32::try_from(std::process::id()).expect("the kernel's process ids are positive numbers of 31 bits");
    let needs = [
        (Path::new("/proc/self/ns/net").exists(), "network namespaces (kernel option NET_NS)"),
        (Path::new("/proc/self/ns/mnt").exists(), "mount namespaces"),
        (open_pidfd(own).is_ok(), "pidfd_open (Linux 5.3 or newer)"),
        (
            Hierarchies::find()?.are_usable(),
            "cgroups at /sys/fs/cgroup with the pids controller (mount cgroup2, or the v1 controllers)",
        ),
        (has_program(path, "nft"), "the program `nft` (package nftables)"),
    ];
    let lacks: Vec<_> = needs.into_iter().filter(|(there, _)| !there).map(|(_, what)| what).collect();
    if lacks.is_empty() { Ok(()) } else { Err(PreflightError::Lacks(lacks)) }
}

fn has_program(path: Option<OsString>, program: &str) -> bool {
    let executable = |file: std::path::PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    path.is_some_and(|path| std::env::split_paths(&path).any(|dir| executable(dir.join(program))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_an_executable_file_in_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nft");
        let path = || Some(format!("/nowhere:{}", dir.path().display()).into());
        assert!(!has_program(path(), "nft") && !has_program(None, "nft"));
        std::fs::write(&file, "").unwrap();
        assert!(!has_program(path(), "nft"), "a file that cannot be executed");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(has_program(path(), "nft"));
    }

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let error = PreflightError::Lacks(vec!["one thing", "another"]);
        assert_eq!(error.to_string(), "this machine lacks one thing; another");
    }
}
