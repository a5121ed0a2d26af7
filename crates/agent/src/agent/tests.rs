use std::time::Duration;

use tokio::time::{Instant, timeout};
use wire::proto::agent::{AssignedImage, Subnet};

use super::*;
use crate::host::fake::{FakeHost, Fetch};
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
    let image = AssignedImage { digest: Digest([3; 32]).to_string(), holders: Vec::new() };
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
