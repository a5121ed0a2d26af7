//! From an order to a running container.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::client::Listener;
use super::held::Held;
use super::stdio::{self, Streams};
use crate::apparmor::{self, NoAppArmor};
use crate::capability;
use crate::cgroup::{self, Hierarchies};
use crate::confine::Confinement;
use crate::detach;
use crate::device::{self, DeviceError};
use crate::launch::{InvalidLaunch, Launch};
use crate::logs::Writer;
use crate::masked;
use crate::oci::{self, Given};
use crate::payload::Payload;
use crate::record::{self, Durability, LoadError, Started};
use crate::rootfs::{self, RootfsError};
use crate::seccomp::FilterError;
use crate::stage::{self, SourceError, Stage, StageError};
use crate::ulimit;
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
    #[error("cannot make the cgroup {path} for the container's")]
    Parent { path: String, source: io::Error },
    #[error(transparent)]
    AppArmor(#[from] NoAppArmor),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Device(#[from] DeviceError),
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
    /// Its program waits to be started.
    pub(super) held: Option<Held>,
}

pub(super) fn start(dir: &Path, launch: &Launch, hierarchies: &Hierarchies) -> Result<Container, StartError> {
    let mut warnings = match &launch.shim_cgroup {
        Some(path) => cgroup::enter(hierarchies, path),
        None => Vec::new(),
    };
    let (bundle, identity) = prepare(dir, launch, hierarchies, &mut warnings)?;
    let confinement = Confinement::of(launch).map_err(StartError::Filter)?;
    let unwritten = |name: &str, source| StartError::Write { path: dir.join(name), source };
    let log = Writer::begin(dir, launch.log, &launch.options);
    let log = log.map_err(|source| unwritten(record::LOG, source))?;
    let listener = Listener::bind(dir);
    let listener =
        listener.map_err(|source| StartError::Listen { path: dir.join(record::SOCKET), source })?;
    let signals = SignalFd::with_flags(&detach::signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.map_err(|errno| StartError::Pipes(errno.into()))?;

    if let Some(parent) = &launch.options.cgroup_parent {
        let made = cgroup::make_parent(hierarchies, parent, &launch.cgroup);
        made.map_err(|source| StartError::Parent { path: parent.clone(), source })?;
    }
    warnings.extend(ulimit::raise(&launch.options.ulimits));
    // SyscallType's default is libcontainer's test double when a crate is built for its tests.
    let builder = ContainerBuilder::new(launch.container(), SyscallType::Linux)
        .validate_id()
        .and_then(|builder| builder.with_root_path(bundle.join(record::RUN)))
        .map_err(|error| StartError::Create(Box::new(error)))?;
    let (builder, offered) = stdio::offer(builder, launch, &identity, &bundle).map_err(StartError::Pipes)?;
    let payload = Payload::new(confinement).with_init(launch.options.init);
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
    warnings.extend(cgroup::limit(hierarchies, &launch.cgroup, &launch.limits, &launch.options.tuning));
    warnings.extend(ulimit::restore_locked_memory(init.as_raw()));
    warnings.extend(ulimit::set_oom_score(init.as_raw(), launch.options.oom_score_adj));
    let held = match launch.options.hold_ms {
        Some(time) => Some(Held::new(container, Duration::from_millis(time))),
        None => {
            container.start().map_err(|error| StartError::Start(Box::new(error)))?;
            None
        }
    };
    let started = Started { pid: init.as_raw(), at_ms: record::now().0, warnings, paused: false };
    let saved = record::save(dir, record::STATE, &started, Durability::Cached);
    saved.map_err(|source| unwritten(record::STATE, source))?;
    Ok(Container { init, signals, streams, log, listener, confinement, held })
}

/// Everything that has to be there before there is a process.
fn prepare(
    dir: &Path,
    launch: &Launch,
    hierarchies: &Hierarchies,
    warnings: &mut Vec<String>,
) -> Result<(PathBuf, Identity), StartError> {
    let options = &launch.options;
    let apparmor = apparmor::profile(&options.privileges)?;
    let sources = stage::open(options, warnings)?;
    rootfs::enter_own_mounts()?;
    let bundle = rootfs::mount_bundle(dir)?;
    let root = rootfs::mount_overlay(dir, &bundle, &launch.layers, options.storage_bytes)?;
    rootfs::check_mount_points(&root)?;
    let identity = rootfs::identity(&root, launch.user.as_deref(), &options.groups)?;
    let stage = Stage::set(&bundle, &root, sources)?;
    let cwd = oci::working_dir(launch);
    if !stage.make_dir(&root, Path::new(cwd)) {
        rootfs::make_working_dir(&root, cwd)?;
    }
    rootfs::write_files(&bundle, launch.files.values())?;
    let (files, unplaced) = stage.place_files(&bundle, &root, launch.files.keys());
    warnings.extend(unplaced);
    let granted = capability::granted(&options.privileges);
    let missing = granted.missing.iter();
    warnings.extend(missing.map(|named| format!("{} is not this node's to give", named.as_str())));
    let (cgroups, devices) = (hierarchies.view(&launch.cgroup), device::find(options, &stage)?);
    let masked = masked::of_node();
    let given = Given {
        identity: &identity,
        cgroups: &cgroups,
        capabilities: &granted.capabilities,
        mounts: stage.staged(),
        shows_mounts: stage.is_shared(),
        files: &files,
        devices: &devices,
        apparmor,
        masked: &masked,
    };
    let saved =
        record::save(&bundle, record::CONFIG, &oci::config(&bundle, launch, &given), Durability::Cached);
    saved.map_err(|source| StartError::Write { path: bundle.join(record::CONFIG), source })?;
    Ok((bundle, identity))
}
