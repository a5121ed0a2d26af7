//! Calls of users that reach a manager which does not lead: passed on to the one that does, as they are.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use identity::{Connector, Expect, Peer};
use model::NodeId;
use store::{Leadership, Store};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tower::{Layer, Service, ServiceExt as _};

use crate::actor;

/// Marks a call that was passed on already, so that two managers that each take the other for the leader do not send it
/// round in circles.
const PASSED_ON: &str = "gantry-passed-on";

/// How long a call waits for a leader: an election takes less than a second, and the caller would only try again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The API of users: what is passed on. Agents are redirected instead, and Raft's calls are meant for this manager.
const API: &str = "/gantry.api.v1.Cluster/";

/// Those of its calls that stream, either way. What one of them has sent and nobody reads yet takes room that all calls of
/// its connection share: a few readers that have stopped would stop every call that this manager passes on.
const STREAMS: [&str; 9] = [
    "Converge",
    "Drained",
    "Logs",
    "Open",
    "ImportImage",
    "PullImage",
    "PushImage",
    "SaveImage",
    "CommitTask",
];

/// The layer in front of a manager's services.
#[derive(Clone, Debug)]
pub struct Forward {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: NodeId,
    store: Store,
    connector: Connector,
    channels: Channels,
}

/// The ways to leaders. Calls that stream have a connection each, which ends with the call; the others share one.
#[derive(Debug, Default)]
// A std mutex: it is held for one map operation and never across an await.
struct Channels(Mutex<BTreeMap<NodeId, Channel>>);

/// A service behind [`Forward`].
#[derive(Clone, Debug)]
pub struct Forwarding<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl Forward {
    pub fn new(node: NodeId, store: Store, connector: Connector) -> Self {
        Self { shared: Arc::new(Shared { node, store, connector, channels: Channels::default() }) }
    }
}

impl<S> Layer<S> for Forward {
    type Service = Forwarding<S>;

    fn layer(&self, inner: S) -> Forwarding<S> {
        Forwarding { inner, shared: self.shared.clone() }
    }
}

impl<S> Service<Request<Body>> for Forwarding<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone stays for the next call; the service that said it is ready takes this one.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        if !request.uri().path().starts_with(API) {
            return Box::pin(inner.call(request));
        }
        let shared = self.shared.clone();
        Box::pin(async move {
            match shared.leader().await {
                Some(leader) if leader == shared.node => inner.call(request).await,
                Some(leader) => Ok(shared.pass_on(leader, request).await),
                None => Ok(not_begun("the managers have no leader now; try again")),
            }
        })
    }
}

impl Shared {
    async fn leader(&self) -> Option<NodeId> {
        let mut leadership = self.store.leadership();
        let known = leadership.wait_for(|now| leader(self.node, now).is_some());
        let known = tokio::time::timeout(PATIENCE, known).await.ok()?.ok()?;
        leader(self.node, &known)
    }

    async fn pass_on(&self, leader: NodeId, mut request: Request<Body>) -> Response<Body> {
        if request.headers().contains_key(PASSED_ON) {
            return not_begun("the leader is changing; try again");
        }
        request.headers_mut().insert(PASSED_ON, http::HeaderValue::from_static("1"));
        self.say_whose(&mut request);
        let streams = is_stream(request.uri().path());
        let Some(mut channel) = self.channel(leader, streams) else {
            return not_begun(format!("the leader, {leader}, is not known here yet; try again"));
        };
        let call = async {
            match channel.ready().await {
                Ok(ready) => ready.call(request).await,
                Err(error) => Err(error),
            }
        };
        let why = tokio::select! {
            biased;
            answered = call => match answered {
                Ok(response) => return response,
                Err(error) => format!("the leader, {leader}, cannot be reached: {error}"),
            },
            // One that is cut off says nothing until its connection is given up, and that takes longer than an election.
            () = succeeded(self.node, leader, self.store.leadership()) => {
                format!("{leader} does not lead any more; try again")
            }
        };
        if !streams {
            self.channels.forget(leader);
        }
        Status::unavailable(why).into_http()
    }

    /// Whatever the caller says of that itself is taken out.
    fn say_whose(&self, request: &mut Request<Body>) {
        let state = self.store.state();
        let here = state.node(self.node).map_or("this node", |node| node.name.as_str());
        let by = actor::header(actor::actor(request.extensions().get::<Peer>(), None, here));
        request.headers_mut().remove(actor::BY);
        if let Some(by) = by {
            request.headers_mut().insert(actor::BY, by);
        }
    }

    fn channel(&self, leader: NodeId, streams: bool) -> Option<Channel> {
        let address = self.store.state().node(leader)?.address;
        let connect = || self.connector.connect_lazily(address, Expect::Node(leader));
        Some(self.channels.to(leader, streams, connect))
    }
}

impl Channels {
    fn to(&self, leader: NodeId, streams: bool, connect: impl FnOnce() -> Channel) -> Channel {
        if streams {
            // It lasts as long as the call has something to send or to read, whoever holds it.
            return connect();
        }
        self.lock().entry(leader).or_insert_with(connect).clone()
    }

    fn forget(&self, leader: NodeId) {
        self.lock().remove(&leader);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_stream(path: &str) -> bool {
    path.strip_prefix(API).is_some_and(|call| STREAMS.contains(&call))
}

/// Of a call that went nowhere.
fn not_begun(why: impl Into<String>) -> Response<Body> {
    let mut status = Status::unavailable(why);
    status.metadata_mut().insert(wire::NOT_BEGUN, MetadataValue::from_static("1"));
    status.into_http()
}

/// Returns when another node than `old` is known to lead. That nobody is known says nothing: the call may be answered yet.
async fn succeeded(own: NodeId, old: NodeId, mut leadership: watch::Receiver<Leadership>) {
    let other = |now: &Leadership| leader(own, now).is_some_and(|known| known != old);
    if leadership.wait_for(other).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn leader(own: NodeId, leadership: &Leadership) -> Option<NodeId> {
    match leadership {
        Leadership::Leader { .. } => Some(own),
        Leadership::Follower { leader } => *leader,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tonic::transport::Endpoint;

    use super::*;

    #[test]
    fn each_call_that_streams_is_known_to() {
        let api = include_str!("../../../proto/api.proto");
        let calls = api.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
        let mut count = 0;
        for call in calls {
            let (name, rest) = call.split_once('(').unwrap();
            assert_eq!(is_stream(&format!("{API}{name}")), rest.contains("stream "), "{call}");
            count += 1;
        }
        assert!(count > STREAMS.len() && !is_stream("/gantry.raft.v1.Raft/Open"));
    }

    #[tokio::test]
    async fn a_call_that_streams_shares_its_connection_with_no_other() {
        const LEADER: NodeId = NodeId(1);
        let channels = Channels::default();
        let connections = |calls: [bool; 3]| {
            let mut made = 0;
            for streams in calls {
                channels.to(LEADER, streams, || {
                    made += 1;
                    Endpoint::from_static("http://gantry").connect_lazy()
                });
            }
            made
        };
        assert_eq!(connections([true, true, true]), 3);
        assert_eq!(connections([false, true, false]), 2, "the others share theirs");
        assert_eq!(connections([false, false, false]), 0);
        channels.forget(LEADER);
        assert_eq!(connections([false, false, false]), 1, "one that failed is made anew");
    }

    #[test]
    fn a_call_is_given_up_when_another_node_leads_and_not_before() {
        const OWN: NodeId = NodeId(1);
        const OLD: NodeId = NodeId(2);
        let (published, leadership) = watch::channel(Leadership::Follower { leader: Some(OLD) });
        let given_up = |now| {
            published.send_replace(now);
            succeeded(OWN, OLD, leadership.clone()).now_or_never().is_some()
        };
        assert!(!given_up(Leadership::Follower { leader: Some(OLD) }));
        assert!(!given_up(Leadership::Follower { leader: None }));
        assert!(given_up(Leadership::Follower { leader: Some(NodeId(3)) }));
        assert!(given_up(Leadership::Leader { term: 4 }), "this one leads itself");
        assert!(!given_up(Leadership::Follower { leader: Some(OLD) }));
        drop(published);
        assert!(succeeded(OWN, OLD, leadership).now_or_never().is_none(), "the store has stopped");
    }
}
