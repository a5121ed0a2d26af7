//! Whole clusters in memory, on a paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use model::{ClusterId, LogIndex, NodeId, RequestId, Subnet, Timestamp};
use state::command::Authority;
use state::{Change, Command, Proposal, State};
use tokio::time::{Instant, sleep};

use crate::engine::{Batch, Engine};
use crate::memory::MemoryEngine;
use crate::record::entry_key;
use crate::{
    Config, HandleError, Leadership, MembershipError, News, ProposeError, RaftRequest, StartError, Store,
    Transport, TransportError,
};

const CLUSTER: ClusterId = ClusterId(7);
const SNAPSHOT_AFTER: u64 = 20;

/// What connects the managers of one test: a millisecond each way, and whoever is cut off hears and says nothing.
#[derive(Clone, Default)]
struct Switch {
    ports: Arc<Mutex<Ports>>,
}

#[derive(Default)]
struct Ports {
    stores: BTreeMap<NodeId, Store>,
    cut: BTreeSet<NodeId>,
}

struct Port {
    switch: Switch,
    node: NodeId,
}

impl Switch {
    /// The way from one manager to another, if there is one now.
    async fn pass(&self, from: NodeId, to: NodeId) -> Result<Store, TransportError> {
        sleep(Duration::from_millis(1)).await;
        let ports = self.ports.lock().unwrap();
        let store = ports.stores.get(&to).filter(|_| !ports.cut.contains(&from) && !ports.cut.contains(&to));
        store.cloned().ok_or_else(|| TransportError::Unreachable { node: to, source: "no way there".into() })
    }

    fn cut(&self, node: NodeId) {
        self.ports.lock().unwrap().cut.insert(node);
    }

    fn heal(&self, node: NodeId) {
        self.ports.lock().unwrap().cut.remove(&node);
    }
}

fn refused(node: NodeId, error: &HandleError) -> TransportError {
    TransportError::Refused { node, reason: error.to_string() }
}

impl Transport for Port {
    fn call(
        &self,
        target: NodeId,
        request: RaftRequest,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let (switch, node) = (self.switch.clone(), self.node);
        Box::pin(async move {
            let store = switch.pass(node, target).await?;
            let answer = store.handle(request).await.map_err(|error| refused(target, &error))?;
            switch.pass(target, node).await?;
            Ok(answer)
        })
    }

    fn snapshot(
        &self,
        target: NodeId,
        header: Vec<u8>,
        records: BoxStream<'static, Vec<u8>>,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let (switch, node) = (self.switch.clone(), self.node);
        Box::pin(async move {
            let store = switch.pass(node, target).await?;
            let records = records.map(Ok).boxed();
            let answer =
                store.handle_snapshot(header, records).await.map_err(|error| refused(target, &error))?;
            switch.pass(target, node).await?;
            Ok(answer)
        })
    }
}

struct Managers {
    switch: Switch,
    engines: BTreeMap<NodeId, MemoryEngine>,
}

fn config(node: NodeId) -> Config {
    Config { snapshot_after: SNAPSHOT_AFTER, ..Config::new(node, CLUSTER, node.0) }
}

impl Managers {
    /// Managers 1 to `count`, all voters.
    async fn found(count: u64) -> Self {
        let mut managers = Self { switch: Switch::default(), engines: BTreeMap::new() };
        for node in (1..=count).map(NodeId) {
            managers.engines.insert(node, MemoryEngine::with_sync_time(Duration::from_millis(2)));
            managers.start(node).await.unwrap();
        }
        managers.store(1).initialize().await.unwrap();
        for node in (2..=count).map(NodeId) {
            managers.store(1).add_voter(node).await.unwrap();
        }
        managers
    }

    async fn start(&mut self, node: NodeId) -> Result<(), StartError> {
        let engine = self.engines[&node].reopen();
        self.engines.insert(node, engine.clone());
        let port = Port { switch: self.switch.clone(), node };
        let store = Store::start(config(node), engine, port).await?;
        self.switch.ports.lock().unwrap().stores.insert(node, store);
        Ok(())
    }

    /// Cuts a manager's power; of what it had not synced, `keep` batches survive.
    async fn crash(&mut self, node: NodeId, keep: impl FnOnce(usize) -> usize) {
        self.engines[&node].crash(keep);
        let store = self.switch.ports.lock().unwrap().stores.remove(&node);
        store.expect("it runs").shutdown().await;
    }

    fn store(&self, node: u64) -> Store {
        self.switch.ports.lock().unwrap().stores[&NodeId(node)].clone()
    }

    fn stores(&self) -> Vec<Store> {
        self.switch.ports.lock().unwrap().stores.values().cloned().collect()
    }

    /// Waits until one of the managers, other than `not`, leads.
    async fn leader(&self, not: Option<NodeId>) -> Store {
        let found = || {
            let mut stores = self.stores().into_iter().filter(|store| Some(store.config().node) != not);
            stores.find(|store| store.leadership().borrow().is_leader())
        };
        until("somebody leads", || found().is_some()).await;
        found().expect("nothing ran since it was found")
    }

    async fn converged(&self) {
        until("all managers are equal", || {
            let states: Vec<State> = self.stores().iter().map(Store::state).collect();
            states.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in 30 s: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A proposal that does nothing but be remembered.
fn mark(number: u64) -> Proposal {
    Proposal {
        at: Timestamp(1),
        request: Some(RequestId(u128::from(number))),
        by: None,
        commands: Vec::new(),
    }
}

fn marked(state: &State, number: u64) -> bool {
    state.recorded(RequestId(u128::from(number))).is_some()
}

fn founding() -> Proposal {
    let range = Subnet { base: [10, 1, 0, 0].into(), prefix: 16 };
    let authority = Authority { certificate_pem: String::new(), key_pem: String::new() };
    let found = Command::Found { cluster: CLUSTER, range, node_prefix: 24, authority };
    Proposal { at: Timestamp(1), request: None, by: None, commands: vec![found] }
}

#[tokio::test(start_paused = true)]
async fn a_manager_whose_log_is_gone_does_not_begin_again_under_its_old_id() {
    let later = Config { first_start: false, ..config(NodeId(1)) };
    let port = || Port { switch: Switch::default(), node: NodeId(1) };
    let engine = MemoryEngine::new();
    let refused = Store::start(later.clone(), engine.clone(), port()).await.unwrap_err();
    assert!(matches!(refused, StartError::Emptied { node: NodeId(1) }), "{refused}");
    let store = Store::start(config(NodeId(1)), engine.clone(), port()).await.unwrap();
    store.shutdown().await;
    Store::start(later, engine.reopen(), port()).await.unwrap().shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_leader_accepts_reaches_every_manager() {
    let managers = Managers::found(3).await;
    let outcomes = managers.store(1).propose(founding()).await.unwrap();
    assert!(outcomes.len() == 1 && outcomes[0].is_ok(), "{outcomes:?}");
    assert!(managers.store(1).state().cluster().is_some(), "an answer came before its effect");
    managers.converged().await;
    assert_eq!(managers.store(3).voters(), BTreeSet::from([1, 2, 3].map(NodeId)));
}

#[tokio::test(start_paused = true)]
async fn a_follower_refuses_and_says_who_leads() {
    let managers = Managers::found(3).await;
    until("the news has spread", || {
        *managers.store(2).leadership().borrow() == Leadership::Follower { leader: Some(NodeId(1)) }
    })
    .await;
    let refusal = managers.store(2).propose(mark(1)).await;
    assert!(matches!(refusal, Err(ProposeError::NotLeader { leader: Some(NodeId(1)) })), "{refusal:?}");
    assert!(managers.store(2).linearize().await.is_err());
    assert!(managers.store(1).linearize().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_when_everyone_loses_power() {
    let mut managers = Managers::found(3).await;
    let leader = managers.leader(None).await;
    // More than a snapshot's worth, so that the restart goes through a snapshot and the log behind it.
    for number in 0..3 * SNAPSHOT_AFTER {
        leader.propose(mark(number)).await.unwrap();
    }
    for node in [1, 2, 3].map(NodeId) {
        managers.crash(node, |_| 0).await;
    }
    for node in [1, 2, 3].map(NodeId) {
        managers.start(node).await.unwrap();
    }
    let state = managers.leader(None).await.linearize().await.unwrap();
    let lost: Vec<u64> = (0..3 * SNAPSHOT_AFTER).filter(|number| !marked(&state, *number)).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are gone");
}

#[tokio::test(start_paused = true)]
async fn another_manager_takes_over_and_the_old_leader_follows_it() {
    let managers = Managers::found(3).await;
    let old = managers.leader(None).await;
    old.propose(mark(1)).await.unwrap();
    let node = old.config().node;
    managers.switch.cut(node);
    let cut_off = Instant::now();
    let new = managers.leader(Some(node)).await;
    new.propose(mark(2)).await.unwrap();
    assert!(cut_off.elapsed() < Duration::from_secs(2), "it took {:?}", cut_off.elapsed());
    until("the old leader knows that it cannot act", || !old.leadership().borrow().is_leader()).await;
    assert!(matches!(
        old.propose(mark(3)).await,
        Err(ProposeError::NotLeader { .. } | ProposeError::Unknown { .. })
    ));
    managers.switch.heal(node);
    managers.converged().await;
    assert!(marked(&old.state(), 1) && marked(&old.state(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_was_away_too_long_for_the_log_gets_a_snapshot() {
    let managers = Managers::found(3).await;
    let leader = managers.leader(None).await;
    let away =
        managers.stores().into_iter().find(|store| store.config().node != leader.config().node).unwrap();
    let mut watch = away.watch();
    assert!(matches!(watch.next().await, News::Resync { .. }));
    managers.switch.cut(away.config().node);
    for number in 0..10 * SNAPSHOT_AFTER {
        leader.propose(mark(number)).await.unwrap();
    }
    until("the log is cut behind it", || leader.health().purged > away.health().last).await;
    managers.switch.heal(away.config().node);
    managers.converged().await;
    until("it has a snapshot", || away.health().snapshot > Some(LogIndex(SNAPSHOT_AFTER))).await;
    assert!(matches!(watch.next().await, News::Resync { .. }));
    leader.propose(founding()).await.unwrap();
    let News::Changes { changes, .. } = watch.next().await else { panic!("another resync") };
    assert_eq!(changes, BTreeSet::from([Change::Cluster]));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_was_received_survives_a_power_cut() {
    let mut managers = Managers::found(3).await;
    let leader = managers.leader(None).await;
    let away = managers
        .stores()
        .into_iter()
        .map(|store| store.config().node)
        .find(|node| *node != leader.config().node);
    let away = away.unwrap();
    managers.switch.cut(away);
    for number in 0..10 * SNAPSHOT_AFTER {
        leader.propose(mark(number)).await.unwrap();
    }
    managers.switch.heal(away);
    managers.converged().await;
    managers.crash(away, |_| 0).await;
    managers.start(away).await.unwrap();
    assert!(marked(&managers.store(away.0).state(), 0), "the snapshot was acknowledged and is gone");
    managers.converged().await;
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_without_waiting_for_a_timeout() {
    let managers = Managers::found(3).await;
    let old = managers.leader(None).await;
    let asked = Instant::now();
    let heir = old.hand_over().await.expect("there are others");
    let new = managers.leader(Some(old.config().node)).await;
    assert_eq!(new.config().node, heir);
    assert!(asked.elapsed() < Duration::from_millis(300), "it took {:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_manager_is_removed_only_if_those_who_stay_can_decide() {
    let managers = Managers::found(3).await;
    let leader = managers.leader(None).await;
    let others: Vec<NodeId> =
        leader.voters().into_iter().filter(|node| *node != leader.config().node).collect();
    managers.switch.cut(others[0]);
    sleep(Duration::from_secs(3)).await;
    let refusal = leader.remove_voter(others[1]).await;
    assert!(matches!(refusal, Err(MembershipError::NoQuorum { voters: 2, reachable: 1, .. })), "{refusal:?}");
    leader.remove_voter(others[0]).await.unwrap();
    leader.remove_voter(others[1]).await.unwrap();
    let refusal = leader.remove_voter(leader.config().node).await;
    assert!(matches!(refusal, Err(MembershipError::LastVoter { .. })), "{refusal:?}");
    leader.propose(mark(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_refuses_to_start() {
    let mut managers = Managers::found(1).await;
    managers.store(1).propose(mark(1)).await.unwrap();
    managers.crash(NodeId(1), |unsynced| unsynced).await;
    let disk = managers.engines[&NodeId(1)].reopen();
    let mut value = disk.read(&entry_key(1)).unwrap().unwrap();
    value[5] ^= 0x40;
    let mut batch = Batch::new();
    batch.put(entry_key(1), value);
    disk.write(batch).unwrap();
    let Err(StartError::Damaged(damage)) = managers.start(NodeId(1)).await else { panic!("it started") };
    assert_eq!(damage.to_string(), "the record l 1 does not match its checksum");
}

#[tokio::test(start_paused = true)]
async fn a_directory_of_another_manager_is_refused() {
    let engine = MemoryEngine::new();
    let port = |node| Port { switch: Switch::default(), node };
    let first = Store::start(config(NodeId(1)), engine.clone(), port(NodeId(1))).await.unwrap();
    first.shutdown().await;
    let Err(error) = Store::start(config(NodeId(2)), engine, port(NodeId(2))).await else {
        panic!("it started")
    };
    assert_eq!(
        error.to_string(),
        "the data directory belongs to manager n1 or to another cluster, and this is n2"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_manager_is_refused() {
    let managers = Managers::found(1).await;
    let forged = RaftRequest::Vote(Vec::new());
    let refusal = managers.store(1).handle(forged).await;
    assert!(matches!(refusal, Err(HandleError::Misdirected { .. })), "{refusal:?}");
    let refusal = managers.store(1).handle(RaftRequest::Append(vec![0xff; 9])).await;
    assert!(matches!(refusal, Err(HandleError::Malformed(_))), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_disk_stops_the_manager() {
    let managers = Managers::found(1).await;
    let store = managers.store(1);
    managers.engines[&NodeId(1)].crash(|_| 0);
    assert!(store.propose(mark(1)).await.is_err());
    assert!(matches!(store.failed().await, crate::Failure::Disk(_)));
}
