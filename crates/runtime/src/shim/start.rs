//! From an order to a running container.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::client::Listener;
use super::stdio::{self, Streams};
use crate::cgroup::{self, Hierarchies};
use crate::confine::Confinement;
use crate::detach;
use crate::launch::{InvalidLaunch, Launch};
use crate::logs::Writer;
use crate::oci;
use crate::payload::Payload;
use crate::record::{self, Durability, LoadError, Started};
use crate::rootfs::{self, RootfsError};
use crate::seccomp::FilterError;
use crate::user::Identity;

#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("{0} has no launch.json")]
    NoLaunch(PathBuf),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Invalid(#[from] InvalidLaunch),
    #[error("cannot read where this host has its cgroups")]
    Cgroups(#[source] io::Error),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot confine the container")]
    Filter(#[source] FilterError),
    #[error("cannot make the container's pipes")]
    Pipes(#[source] io::Error),
    #[error("cannot get at the container's terminal")]
    Terminal(#[source] io::Error),
    #[error("cannot listen on {path}")]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot make the container")]
    Create(#[source] Box<LibcontainerError>),
    #[error("the container has no process")]
    NoProcess,
    #[error("cannot start the container")]
    Start(#[source] Box<LibcontainerError>),
}

/// A container that runs, and what its shim holds of it.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) init: Pid,
    pub(super) signals: SignalFd,
    pub(super) streams: Streams,
    pub(super) log: Writer,
    pub(super) listener: Listener,
    /// For processes that join it later: what its first one is confined by, whatever becomes of the filter's file.
    pub(super) confinement: Rc<Confinement>,
}

pub(super) fn start(dir: &Path, launch: &Launch, hierarchies: &Hierarchies) -> Result<Container, StartError> {
    let mut warnings = match &launch.shim_cgroup {
        Some(path) => cgroup::enter(hierarchies, path),
        None => Vec::new(),
    };
    let (bundle, identity) = prepare(dir, launch, hierarchies)?;
    let confinement = Confinement::of(launch).map_err(StartError::Filter)?;
    let unwritten = |name: &str, source| StartError::Write { path: dir.join(name), source };
    let log = Writer::create(dir, launch.log).map_err(|source| unwritten(record::LOG, source))?;
    let listener = Listener::bind(dir);
    let listener =
        listener.map_err(|source| StartError::Listen { path: dir.join(record::SOCKET), source })?;
    let signals = SignalFd::with_flags(&detach::signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.map_err(|errno| StartError::Pipes(errno.into()))?;

    // SyscallType's default is libcontainer's test double when a crate is built for its tests.
    let builder = ContainerBuilder::new(launch.container(), SyscallType::Linux)
        .validate_id()
        .and_then(|builder| builder.with_root_path(bundle.join(record::RUN)))
        .map_err(|error| StartError::Create(Box::new(error)))?;
    let (builder, offered) = stdio::offer(builder, launch, &identity, &bundle).map_err(StartError::Pipes)?;
    let payload = Payload::new(confinement);
    let confinement = payload.confinement();
    let mut container = builder
        .with_executor(payload)
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| StartError::Create(Box::new(error)))?;
    let init = container.pid().map(|pid| Pid::from_raw(pid.as_raw())).ok_or(StartError::NoProcess)?;
    let streams = offered.taken(launch, &identity).map_err(StartError::Terminal)?;
    // It waits for `start`, so it has done nothing yet that a limit should have stopped.
    warnings.extend(cgroup::limit(hierarchies, &launch.cgroup, &launch.limits));
    container.start().map_err(|error| StartError::Start(Box::new(error)))?;
    let started = Started { pid: init.as_raw(), at_ms: record::now().0, warnings, paused: false };
    let saved = record::save(dir, record::STATE, &started, Durability::Cached);
    saved.map_err(|source| unwritten(record::STATE, source))?;
    Ok(Container { init, signals, streams, log, listener, confinement })
}

/// Everything that has to be there before there is a process.
fn prepare(
    dir: &Path,
    launch: &Launch,
    hierarchies: &Hierarchies,
) -> Result<(PathBuf, Identity), StartError> {
    rootfs::enter_own_mounts()?;
    let bundle = rootfs::mount_bundle(dir)?;
    let root = rootfs::mount_overlay(dir, &bundle, &launch.layers)?;
    rootfs::check_mount_points(&root)?;
    let identity = rootfs::identity(&root, launch.user.as_deref())?;
    rootfs::make_working_dir(&root, oci::working_dir(launch))?;
    rootfs::write_files(&bundle, launch.files.values())?;
    let config =
        oci::config(&bundle, launch, &identity, &hierarchies.view(&launch.cgroup), raised_oom_score());
    let saved = record::save(&bundle, record::CONFIG, &config, Durability::Cached);
    saved.map_err(|source| StartError::Write { path: bundle.join(record::CONFIG), source })?;
    Ok((bundle, identity))
}

/// A daemon that is protected from the OOM killer must not pass that on; 0 is what a container has by default. Left alone
/// otherwise, since lowering a score is a privilege that not every host gives.
fn raised_oom_score() -> Option<i32> {
    let score: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
    (score < 0).then_some(0)
}
