//! What runs on a node, in the order in which it is started.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::real::{Fetcher, Layout, RealHost, content, image_store, streams};
use agent::uplink::{self, Manager};
use agent::{Agent, Clock};
use control::forward::Forward;
use control::peers::{self, Peers};
use control::{Control, Members, Parts, WallClock};
use identity::{Acceptor, Connector, LocalListener, Membership};
use model::{NodeId, Role};
use runtime::ShimBinary;
use state::{Command, Done, Proposal};
use store::Store;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::config::{Config, LoadConfigError, Start};
use crate::credentials::{self, IdentifyError};
use crate::host::{capacity, platform, wall_clock};
use crate::server::{Doors, ManagerServices, ServeError, serve};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Threads for everything but Raft and heartbeats.
const WORKERS: usize = 2;

/// How long what is still being done may take when the daemon ends.
const CUT_SHORT: Duration = Duration::from_secs(2);
/// How long the store may take to hand over and close.
const CLOSING: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("the daemon has to run as root: it makes namespaces, mounts and cgroups")]
    NotRoot,
    #[error(transparent)]
    Config(#[from] LoadConfigError),
    #[error("{path} is in use by another gantry daemon")]
    Locked { path: PathBuf },
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    #[error(transparent)]
    Identify(#[from] IdentifyError),
    #[error(transparent)]
    Disk(#[from] store::rocks::OpenError),
    #[error(transparent)]
    Store(#[from] store::StartError),
    #[error("cannot write {path}")]
    Begin { path: PathBuf, source: io::Error },
    #[error("cannot found the cluster: {0}")]
    Found(String),
    #[error("cannot open the image store")]
    Images(#[from] image_store::OpenError),
    #[error("cannot make the program that containers are started with")]
    Shim(#[from] runtime::binary::SealError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("this manager's store has failed")]
    Failed(#[from] store::Failure),
    #[error("{0} have ended, which they never should")]
    Ended(&'static str),
    #[error("the agent cannot start")]
    Agent(#[from] agent::host::Failure),
}

/// Runs until SIGTERM or SIGINT. Containers stay.
pub(crate) fn run(data: &Path) -> Result<(), DaemonError> {
    if !is_root() {
        return Err(DaemonError::NotRoot);
    }
    let config = Config::load(data)?;
    let _lock = lock(data)?;
    runtime::heap::keep_together();
    let threads = Threads::start()?;
    let ended = threads.main.block_on(live(data, config, &threads));
    // Effects that are cut short here are repeated by the next daemon; waiting for one that hangs would only keep it out.
    let Threads { main, raft, heart } = threads;
    heart.shutdown_background();
    main.shutdown_timeout(CUT_SHORT);
    raft.shutdown_timeout(CUT_SHORT);
    ended
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// Raft and heartbeats have threads of their own, so that no other work delays them into an election or an eviction.
struct Threads {
    main: Runtime,
    raft: Runtime,
    heart: Runtime,
}

impl Threads {
    fn start() -> Result<Self, DaemonError> {
        let start = |name: &str, workers| {
            let mut builder = Builder::new_multi_thread();
            builder
                .worker_threads(workers)
                .thread_name(name)
                .enable_all()
                .build()
                .map_err(DaemonError::Threads)
        };
        Ok(Self {
            main: start("gantry", WORKERS)?,
            raft: start("gantry-raft", 1)?,
            heart: start("gantry-heart", 1)?,
        })
    }
}

fn lock(data: &Path) -> Result<File, DaemonError> {
    let path = data.join("lock");
    let file = File::create(&path).map_err(|source| DaemonError::Lock { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(DaemonError::Locked { path: data.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(DaemonError::Lock { path, source }),
    }
}

/// How often memory is given back that nobody uses: a burst of starts leaves megabytes of it.
const THRIFT: Duration = Duration::from_secs(5);

async fn thrift() -> Infallible {
    loop {
        tokio::time::sleep(THRIFT).await;
        let _given = tokio::task::spawn_blocking(runtime::heap::give_back).await;
    }
}

async fn live(data: &Path, config: Config, threads: &Threads) -> Result<(), DaemonError> {
    let mut identified = credentials::identify(data, &config, wall_clock()).await?;
    let founding = identified.founding.take();
    let (node, role, told) = (identified.node, identified.role, identified.managers.clone());
    tracing::info!(name = config.name, %node, cluster = %identified.cluster, version = VERSION, "starting");
    let (credentials, current) = watch::channel(Arc::new(identified.credentials));
    let connector = Connector::new(current.clone());
    let program = Arc::new(ShimBinary::seal()?);
    let images = image_store::Store::open(&data.join("images"))?.with_unpacker(unpacker(&program)?);
    let fetcher = Arc::new(Fetcher::new(images.clone(), connector.clone()));
    let (opens, opened) = tokio::sync::mpsc::unbounded_channel();
    let (mut agent, heart) = Agent::new(
        agent_config(&config, node, &told),
        Arc::new(RealHost::new(layout(data, &config), images.clone(), program, fetcher.clone())),
        Arc::new(uplink::grpc::Grpc::new(connector.clone())),
        Clock::new(wall_clock),
        opens,
    );
    // Before this node votes, and before it listens: a daemon that is there is one that knows what runs here.
    agent.adopt().await?;
    let members = Members::new(told.clone());
    let manager = match role {
        Role::Manager => {
            let cluster = identified.cluster;
            let parts = manager(data, node, cluster, &connector, &members, threads).await?;
            if let Some(authority) = founding {
                found(data, &config, &parts, &authority).await?;
            }
            Some(parts)
        }
        Role::Worker => None,
    };
    let control = manager.clone().map(Control::new);
    let doors =
        doors(&config, current, &connector, &members, control.as_ref().zip(manager.as_ref()), &images)
            .await?;
    let streams = streams::Server::new(data.to_owned(), fetcher, agent.details(), connector);
    // Each ends with this function: what outlives the daemon are the containers, and those are not its children.
    let mut heartbeats = tokio::task::JoinSet::new();
    heartbeats.spawn_on(heart.run(), threads.heart.handle());
    let store = manager.as_ref().map(|parts| parts.store.clone());
    let leading = async {
        match control {
            Some(control) => control.run().await,
            None => std::future::pending().await,
        }
    };
    let failed = async {
        match &store {
            Some(store) => store.failed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = serve(doors) => served?,
        failure = failed => return Err(failure.into()),
        never = agent.run() => match never {},
        never = thrift() => match never {},
        () = streams.run(opened) => {}
        () = leading => return Err(DaemonError::Ended("the leader's loops")),
        _ = heartbeats.join_next() => return Err(DaemonError::Ended("this node's heartbeats")),
        () = told_to_stop() => {}
    }
    if let Some(store) = store {
        // Handing over spares the cluster an election.
        let close = async {
            let _ = store.hand_over().await;
            store.shutdown().await;
        };
        if tokio::time::timeout(CLOSING, close).await.is_err() {
            tracing::warn!("the store did not close in time");
        }
    }
    drop(credentials);
    tracing::info!("stopped");
    Ok(())
}

/// Layers are unpacked by this very program, as a process that can do nothing else.
fn unpacker(program: &Arc<ShimBinary>) -> Result<image_store::Unpacker, DaemonError> {
    let program = program.clone();
    let run = move || program.run_as("gantry-unpack", image_store::UNPACK_ARGUMENT);
    image_store::Unpacker::new(run).map_err(DaemonError::Threads)
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn manager(
    data: &Path,
    node: NodeId,
    cluster: model::ClusterId,
    connector: &Connector,
    members: &Members,
    threads: &Threads,
) -> Result<Parts, DaemonError> {
    let path = data.join("raft");
    let begun = data.join("raft.begun");
    let first_start = !begun.exists();
    let config = store::Config { first_start, ..store::Config::new(node, cluster, rand::random()) };
    let transport = Peers::new(connector.clone(), members.clone());
    // Started on Raft's own thread, where its tasks stay.
    let started = threads.raft.spawn(async move {
        let engine = store::rocks::RocksEngine::open(path)?;
        Ok::<Store, DaemonError>(Store::start(config, engine, transport).await?)
    });
    let store = started.await.map_err(|error| DaemonError::Threads(io::Error::other(error)))??;
    // From now on, an empty log is a lost one.
    let noted =
        File::create(&begun).and_then(|file| file.sync_all()).and_then(|()| File::open(data)?.sync_all());
    noted.map_err(|source| DaemonError::Begin { path: begun, source })?;
    members.follow(&store);
    Ok(Parts { node, store, clock: WallClock::new(wall_clock), version: VERSION })
}

/// Founds the cluster, or goes on where an earlier attempt was cut short.
async fn found(
    data: &Path,
    config: &Config,
    parts: &Parts,
    authority: &identity::Authority,
) -> Result<(), DaemonError> {
    let failed = |why: String| DaemonError::Found(why);
    let Start::Found { range, node_prefix } = &config.start else {
        return Err(failed("node.json says to join one".to_owned()));
    };
    let (base, prefix) = range.split_once('/').ok_or_else(|| failed(format!("`{range}` is not a range")))?;
    let prefix = prefix.parse().map_err(|_| failed(format!("`{range}` is not a range")))?;
    let range = wire::subnet(base, prefix).map_err(|error| failed(error.to_string()))?;
    let name = config.name.parse().map_err(|error: model::InvalidName| failed(error.to_string()))?;
    match parts.store.initialize().await {
        Ok(()) | Err(store::FoundError::Founded) => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    let certificate = authority.certificate();
    let commands = vec![
        Command::Found {
            cluster: certificate.cluster(),
            range,
            node_prefix: *node_prefix,
            authority: state::command::Authority {
                certificate_pem: certificate.pem().to_owned(),
                key_pem: authority.key_pem().expose().to_owned(),
            },
        },
        Command::AdmitNode { name, role: Role::Manager, address: config.listen, token: None, key: None },
    ];
    // With others in the cluster already, this node may come back and find that it does not lead: it was founded then.
    if parts.store.state().cluster().is_none() {
        let proposal = Proposal { at: wall_clock(), request: None, by: None, commands };
        let outcomes = parts.store.propose(proposal).await.map_err(|error| failed(error.to_string()))?;
        match outcomes.as_slice() {
            [Ok(_), Ok(Done::Admitted(id))] if *id == parts.node => {}
            other => return Err(failed(format!("unexpected outcomes {other:?}"))),
        }
    }
    Ok(credentials::founded(data)?)
}

async fn doors(
    config: &Config,
    current: watch::Receiver<Arc<identity::Credentials>>,
    connector: &Connector,
    members: &Members,
    manager: Option<(&Control, &Parts)>,
    images: &image_store::Store,
) -> Result<Doors, DaemonError> {
    let address = config.listen;
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
    std::fs::create_dir_all(&config.run)
        .map_err(|source| ServeError::Run { path: config.run.clone(), source })?;
    let services = manager.map(|(control, parts)| ManagerServices {
        api: control.api(),
        dispatcher: control.dispatcher_service(),
        raft: peers::Grpc::new(parts.node, parts.store.clone()),
        forward: Forward::new(parts.node, parts.store.clone(), connector.clone()),
    });
    let membership: Arc<dyn Membership> = match &services {
        Some(_) => Arc::new(members.clone()),
        None => Arc::new(AnyNode),
    };
    let local = match &services {
        Some(_) => Some(LocalListener::bind(&config.run.join("api.sock")).map_err(ServeError::Local)?),
        None => None,
    };
    Ok(Doors {
        acceptor: Acceptor::new(listener, current),
        local,
        membership,
        content: content::Service::new(images.clone()),
        manager: services,
    })
}

/// A worker has no replicated state to ask. All that it serves is image content, to whoever has the cluster's
/// certificate.
#[derive(Debug)]
struct AnyNode;

impl Membership for AnyNode {
    fn role(&self, _: NodeId, _: Option<Role>) -> Option<Role> {
        Some(Role::Worker)
    }
}

fn layout(data: &Path, config: &Config) -> Layout {
    Layout {
        data: data.to_owned(),
        run: config.run.clone(),
        cgroup: config.cgroup.clone(),
        bridge: config.bridge.clone(),
    }
}

fn agent_config(config: &Config, node: NodeId, told: &BTreeMap<NodeId, SocketAddr>) -> agent::Config {
    let own = Manager { node: Some(node), address: config.listen };
    let told = told.iter().map(|(node, address)| Manager { node: Some(*node), address: *address });
    agent::Config {
        address: config.listen,
        labels: config.labels.clone(),
        capacity: config.capacity.map_or_else(capacity, |capacity| model::Capacity {
            cpu: model::MilliCpu(capacity.cpu_millis),
            memory: model::Bytes(capacity.memory_bytes),
        }),
        platform: platform(),
        version: VERSION.to_owned(),
        managers: told.chain([own]).collect(),
    }
}
