//! For tests: a whole manager that needs no others, in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use identity::Authority;
use model::{
    Bytes, ClusterId, ContainerSpec, Digest, Health, NodeId, PullPolicy, Resources, RestartPolicy, Role,
    ServiceSpec, Subnet, TaskSpec, Timestamp,
};
use state::{Command, Proposal, State};
use store::memory::MemoryEngine;
use store::{Config, RaftRequest, Store, Transport, TransportError};
use tokio::task::JoinSet;
use tonic::Request;
use wire::proto::agent::Hello;
use wire::proto::api::DeployRequest;
use wire::proto::api::cluster_server::Cluster as _;

use crate::api::Api;
use crate::dispatch::{Dispatcher, Session};
use crate::{Control, Parts, WallClock};

pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000);
const CLUSTER: ClusterId = ClusterId(7);
const TOKEN: [u8; 32] = [7; 32];

/// There is nobody to carry anything to.
struct Nowhere;

fn nowhere(node: NodeId, after: Duration) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
    std::future::ready(Err(TransportError::TimedOut { node, after })).boxed()
}

impl Transport for Nowhere {
    fn call(
        &self,
        target: NodeId,
        _request: RaftRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        nowhere(target, deadline)
    }

    fn snapshot(
        &self,
        target: NodeId,
        _header: Vec<u8>,
        _records: BoxStream<'static, Vec<u8>>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        nowhere(target, deadline)
    }
}

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(node).expect("a handful of nodes")], 7000))
}

/// A manager that leads, without its loops: node 1 of a cluster that has the image `app` and a worker, node 2.
pub(crate) async fn manager() -> Parts {
    let config = Config::new(NodeId(1), CLUSTER, 1);
    let store =
        Store::start(config, MemoryEngine::new(), Nowhere).await.expect("an empty disk is a good one");
    store.initialize().await.expect("it needs nobody's vote");
    let authority = Authority::mint(CLUSTER, NOW).expect("a day like any other");
    let found = Command::Found {
        cluster: CLUSTER,
        range: Subnet { base: [10, 1, 0, 0].into(), prefix: 16 },
        node_prefix: 24,
        authority: state::command::Authority {
            certificate_pem: authority.certificate().pem().to_owned(),
            key_pem: authority.key_pem().expose().to_owned(),
        },
    };
    let admit = |node: u64, role, token| {
        let name = format!("n{node}").parse().expect("a name");
        Command::AdmitNode { name, role, address: address(node), token, key: None }
    };
    let name = "app".parse().expect("the name of an image");
    let commands = vec![
        found,
        admit(1, Role::Manager, None),
        Command::PutToken { digest: TOKEN, role: Role::Worker, expires: Timestamp(u64::MAX) },
        admit(2, Role::Worker, Some(TOKEN)),
        Command::PutImage { name, image: Digest([1; 32]), size: Bytes(1), holder: NodeId(1) },
    ];
    let outcomes =
        store.propose(Proposal { at: NOW, request: None, by: None, commands }).await.expect("it leads");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    Parts { node: NodeId(1), store, clock: WallClock::new(|| NOW), version: "0.0.0" }
}

/// What the tests deploy: so many replicas of something small.
pub(crate) fn service(replicas: u32) -> ServiceSpec {
    let task = TaskSpec {
        image: "app".parse().expect("the name of an image"),
        entrypoint: None,
        command: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        working_dir: None,
        user: None,
        ports: Vec::new(),
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: model::PlacementPolicy::default(),
        container: ContainerSpec::default(),
        health: Health::default(),
        readiness: None,
        pull: PullPolicy::default(),
    };
    ServiceSpec::replicated(replicas, task)
}

/// The stack `hello`, in which the service is called `web`. `request` is empty or 32 hex digits.
pub(crate) fn deployment(request: &str, service: &ServiceSpec) -> DeployRequest {
    DeployRequest {
        request: request.to_owned(),
        stack: "hello".to_owned(),
        services: BTreeMap::from([("web".to_owned(), service.into())]),
        expected: None,
        keep_replicas: Vec::new(),
    }
}

/// The same with its loops. They end with it.
pub(crate) struct Alone {
    pub(crate) api: Api,
    pub(crate) dispatcher: Dispatcher,
    store: Store,
    _loops: JoinSet<()>,
}

impl Alone {
    pub(crate) async fn found() -> Self {
        let parts = manager().await;
        let control = Control::new(parts.clone());
        let (api, dispatcher) = (control.api(), control.dispatcher());
        let mut loops = JoinSet::new();
        loops.spawn(control.run());
        Self { api, dispatcher, store: parts.store, _loops: loops }
    }

    /// A session with a node that does nothing of what it is told.
    pub(crate) async fn connect(&self, node: u64) -> Session {
        let hello = Hello { address: address(node).to_string(), ..Hello::default() };
        self.dispatcher.open(NodeId(node), hello).await.expect("this manager leads")
    }

    pub(crate) async fn deploy(&self, service: &ServiceSpec) {
        let deployed = self.api.deploy(Request::new(deployment("", service))).await;
        deployed.expect("there is nothing against it");
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let mut watch = self.store.watch();
        let wait = async {
            while !holds(&self.store.state()) {
                watch.next().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        assert!(waited.is_ok(), "not within a minute: {what}");
    }
}
