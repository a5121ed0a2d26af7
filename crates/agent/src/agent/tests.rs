use tokio::time::{Instant, timeout};

use super::*;
use crate::host::fake::FakeHost;
use crate::uplink::fake::FakeUplink;

fn agent(uplink: &Arc<FakeUplink>) -> (Agent<FakeHost, FakeUplink>, Heart<FakeUplink>) {
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
    Agent::new(config, Arc::new(FakeHost::default()), uplink.clone(), clock, mpsc::unbounded_channel().0)
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
