use std::time::Duration;

use model::{Bytes, Desired};
use tokio::time::{Instant, timeout};
use wire::proto::agent::{AssignedImage, Holder, Subnet};

use super::*;
use crate::host::fake::{FakeHost, Fetch, assigned};
use crate::host::{Shelf, Shelved};
use crate::ledger::Record;
use crate::uplink::fake::FakeUplink;

fn agent(uplink: &Arc<FakeUplink>) -> (Agent<FakeHost, FakeUplink>, Heart<FakeUplink>) {
    agent_on(Arc::new(FakeHost::default()), uplink)
}

fn agent_on(
    host: Arc<FakeHost>,
    uplink: &Arc<FakeUplink>,
) -> (Agent<FakeHost, FakeUplink>, Heart<FakeUplink>) {
    let manager = Manager { node: None, address: "192.0.2.1:7000".parse().unwrap() };
    let config = Config {
        address: "192.0.2.2:7000".parse().unwrap(),
        labels: BTreeMap::new(),
        capacity: Capacity::default(),
        platform: "linux/amd64".parse().unwrap(),
        version: "0.0.0".to_owned(),
        managers: BTreeSet::from([manager]),
    };
    let began = Instant::now();
    let clock = Clock::new(move || Timestamp(1000).plus(began.elapsed()));
    Agent::new(config, host, uplink.clone(), clock, mpsc::unbounded_channel().0)
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_cannot_be_read_is_not_asked_for_without_a_pause() {
    let unreadable = Whole { subnet: None, ..Whole::default() };
    let says = vec![FromManager { kind: Some(from_manager::Kind::Whole(unreadable)) }];
    let uplink = Arc::new(FakeUplink { says, ..FakeUplink::default() });
    let (agent, _heart) = agent(&uplink);
    assert!(timeout(Duration::from_secs(10), agent.run()).await.is_err(), "it never gives up");
    // Five waits that double, and then one every second.
    let sessions = uplink.sessions();
    assert!((12..=16).contains(&sessions), "{sessions}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_heart_is_gone_keeps_its_session() {
    let uplink = Arc::new(FakeUplink::default());
    let (agent, heart) = agent(&uplink);
    drop(heart);
    assert!(timeout(Duration::from_secs(10), agent.run()).await.is_err(), "it never gives up");
    assert_eq!(uplink.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn images_are_fetched_until_they_come_also_while_no_manager_is_in_reach() {
    let image = AssignedImage { digest: Digest([3; 32]).to_string(), ..AssignedImage::default() };
    let subnet = Some(Subnet { base: "10.1.0.0".to_owned(), prefix: 24 });
    let whole = Whole { subnet, images: vec![image], ..Whole::default() };
    let says = vec![FromManager { kind: Some(from_manager::Kind::Whole(whole)) }];
    let uplink = Arc::new(FakeUplink { says, most: Some(1), ..FakeUplink::default() });
    let host = Arc::new(FakeHost::default());
    host.lock().fetches = [Fetch::Fails, Fetch::Panics].into();
    let (agent, _heart) = agent_on(host.clone(), &uplink);
    assert!(timeout(Duration::from_secs(30), agent.run()).await.is_err(), "it never gives up");
    assert_eq!(uplink.sessions(), 1);
    assert_eq!(host.lock().done, ["fetch", "fetch", "fetch"]);
}

fn told(images: &[(u8, bool)]) -> FromManager {
    let image = |(number, optional): &(u8, bool)| AssignedImage {
        digest: Digest([*number; 32]).to_string(),
        holders: vec![Holder { node: 9, address: "192.0.2.9:7000".to_owned() }],
        optional: *optional,
        source: None,
    };
    let subnet = Some(Subnet { base: "10.1.0.0".to_owned(), prefix: 24 });
    let whole = Whole { subnet, images: images.iter().map(image).collect(), ..Whole::default() };
    FromManager { kind: Some(from_manager::Kind::Whole(whole)) }
}

fn shelved(number: u8) -> Shelved {
    let digest = Digest([number; 32]);
    Shelved { digest, size: Bytes(1 << 30), used: Timestamp(0), busy: false, whole: true }
}

#[tokio::test(start_paused = true)]
async fn images_that_can_be_had_again_go_when_the_disk_is_full_and_no_others() {
    let says = vec![told(&[(1, true), (2, false), (3, true)])];
    let uplink = Arc::new(FakeUplink { says, ..FakeUplink::default() });
    let host = Arc::new(FakeHost::default());
    // The second is to stay, the seventh is a task's, and of the fourth nothing was said.
    let images = [1, 2, 3, 4, 7].map(shelved).into();
    host.lock().shelf = Shelf { images, free: Bytes(1 << 30), total: Bytes(30 << 30) };
    let (mut agent, _heart) = agent_on(host.clone(), &uplink);
    host.save(&Record::new(assigned(Desired::Running))).unwrap();
    agent.adopt().await.unwrap();
    assert!(timeout(Duration::from_secs(3600), agent.run()).await.is_err(), "it never gives up");
    let done = host.lock().done.clone();
    let gone: Vec<&String> = done.iter().filter(|what| what.starts_with("discard")).collect();
    assert_eq!(gone, ["discard 1", "discard 3"]);
    assert!(done.contains(&"touch 7".to_owned()), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_discarded_before_the_cluster_has_said_what_it_wants() {
    let uplink = Arc::new(FakeUplink::default());
    let host = Arc::new(FakeHost::default());
    host.lock().shelf = Shelf { images: vec![shelved(1)], free: Bytes(0), total: Bytes(30 << 30) };
    let (agent, _heart) = agent_on(host.clone(), &uplink);
    assert!(timeout(Duration::from_secs(3600), agent.run()).await.is_err(), "it never gives up");
    assert!(host.lock().done.is_empty());
}
