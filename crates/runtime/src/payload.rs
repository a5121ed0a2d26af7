//! The last steps inside the container: find the program, undo what a Rust process does to its signals, exec.
//!
//! libcontainer's own executor asks for the execute bit of *others*, which a root-only entrypoint does not have, and leaves
//! SIGPIPE ignored, so that `yes | head` would complain in every container.
#![expect(unsafe_code, reason = "resetting a signal's disposition is unsafe in nix")]

use std::ffi::CString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::confine::Confinement;
use crate::init;
use crate::record::chain;

/// Runs `process.args` as it is, confined.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    confinement: Rc<Confinement>,
    /// Stay, as the container's init, and run it beside.
    init: bool,
}

impl Payload {
    pub(crate) fn new(confinement: Confinement) -> Self {
        Self { confinement: Rc::new(confinement), init: false }
    }

    /// The same, beside a process that does the work of an init.
    pub(crate) fn with_init(self, init: bool) -> Self {
        Self { init, ..self }
    }

    /// For who joins the container later.
    pub(crate) fn confinement(&self) -> Rc<Confinement> {
        self.confinement.clone()
    }
}

/// Docker's and the shells' code for a program that is there and cannot be run.
pub(crate) const CANNOT_EXECUTE: i32 = 126;

impl Executor for Payload {
    /// Called as the container's user in the container's root, when a failure can still be told to the shim. The last of
    /// the shim's code that may do more than the container.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let refused = |reason| Err(ExecutorValidationError::ArgValidationError(reason));
        let (program, path) = program_and_path(spec);
        if let Err(error) = find(&program, &path) {
            return refused(error.to_string());
        }
        self.confinement.enter().or_else(|error| refused(chain(&error)))
    }

    /// Called once the shim said "start". There is no one left to report to but the container's own stderr.
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (program, path) = program_and_path(spec);
        let args = spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or(&[]);
        let reason = match find(&program, &path) {
            Ok(found) if self.init => init::stay_beside(|| exec(&found, args, &self.confinement)),
            Ok(found) => exec(&found, args, &self.confinement),
            Err(error) => error.to_string(),
        };
        // If this fails too, the exit code has to do.
        let _unseen = writeln!(std::io::stderr(), "gantry: {reason}");
        std::process::exit(CANNOT_EXECUTE);
    }
}

/// Replaces this process; returns only with the reason why it could not.
pub(crate) fn exec(program: &Path, args: &[String], confinement: &Confinement) -> String {
    // SAFETY: the default disposition is not a handler, so no code of ours can run in a signal's context.
    let reset = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    // The shim keeps its signals blocked, and a mask is inherited.
    let result = reset.and_then(|_| SigSet::empty().thread_set_mask()).map_err(|errno| errno.to_string());
    if let Err(reason) = result {
        return format!("cannot reset signals: {reason}");
    }
    let c_string = |text: &[u8]| CString::new(text).expect("Launch::check and Exec::check refuse NUL bytes");
    let path = c_string(program.as_os_str().as_encoded_bytes());
    let args: Vec<CString> = args.iter().map(|arg| c_string(arg.as_bytes())).collect();
    if let Err(errno) = confinement.limit() {
        return format!("cannot set resource limits: {}", errno.desc());
    }
    // Not `execvp`: it would run a script without `#!` through /bin/sh, which Docker does not.
    match nix::unistd::execv(&path, &args) {
        Ok(never) => match never {},
        Err(errno) => format!("cannot execute {}: {}", program.display(), errno.desc()),
    }
}

pub(crate) fn program_and_path(spec: &Spec) -> (String, String) {
    let process = spec.process().as_ref();
    let args = process.and_then(|process| process.args().as_ref());
    let env = process.and_then(|process| process.env().as_ref()).into_iter().flatten();
    let path = env.filter_map(|entry| entry.strip_prefix("PATH=")).next_back();
    (args.and_then(|args| args.first()).cloned().unwrap_or_default(), path.unwrap_or_default().to_owned())
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRunnable {
    #[error("`{0}` is not in the image")]
    NoSuchFile(String),
    #[error("`{0}` is not in the image's PATH ({1})")]
    NotInPath(String, String),
    #[error("`{0}` is a directory or not executable by the container's user")]
    Permission(PathBuf),
}

/// Finds the program as execvp(3) does. A name with a slash is a path; an empty element of `PATH` is the current directory.
pub(crate) fn find(program: &str, path: &str) -> Result<PathBuf, NotRunnable> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        let dirs = path.split(':').map(|dir| Path::new(if dir.is_empty() { "." } else { dir }));
        dirs.map(|dir| dir.join(program)).collect()
    };
    let mut refused = None;
    for candidate in candidates {
        if is_executable(&candidate) {
            return Ok(candidate);
        }
        if candidate.exists() && refused.is_none() {
            refused = Some(candidate);
        }
    }
    Err(match refused {
        Some(candidate) => NotRunnable::Permission(candidate),
        None if program.contains('/') => NotRunnable::NoSuchFile(program.to_owned()),
        None => NotRunnable::NotInPath(program.to_owned(), path.to_owned()),
    })
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_program_is_found_like_a_shell_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, mode) in [("root-only", 0o700), ("plain", 0o644)] {
            std::fs::write(at(name), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(at("directory")).unwrap();
        let path = format!("/nowhere:{}", dir.path().display());
        assert_eq!(find("root-only", &path), Ok(at("root-only")), "others need not be able to execute it");
        assert_eq!(find("plain", &path), Err(NotRunnable::Permission(at("plain"))));
        assert_eq!(find("directory", &path), Err(NotRunnable::Permission(at("directory"))));
        assert_eq!(find("absent", &path), Err(NotRunnable::NotInPath("absent".to_owned(), path.clone())));
        assert_eq!(find("/absent", &path), Err(NotRunnable::NoSuchFile("/absent".to_owned())));
        assert_eq!(find("", ""), Err(NotRunnable::Permission("./".into())));
    }
}
