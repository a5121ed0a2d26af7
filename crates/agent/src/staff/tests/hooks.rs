use model::{Hook, Hooks};
use tokio::time::timeout_at;

use super::*;
use crate::host::fake::Answer;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn hook(command: &str) -> Hook {
    Hook { command: vec![command.to_owned()], ..Hook::default() }
}

fn hooked(desired: Desired) -> Assigned {
    let mut assigned = assigned(desired);
    let post_start = vec![hook("warm"), hook("register")];
    assigned.spec.container.hooks = Hooks { post_start, pre_stop: vec![hook("flush")] };
    assigned
}

/// A host whose containers end with 0 when they are told to.
fn host() -> Arc<FakeHost> {
    let host = Arc::new(FakeHost::default());
    host.lock().exit = Some(Exit::Code(0));
    host
}

/// Everything that is told until so many seconds after `began`, and what was done.
async fn until(staff: &mut Staff<FakeHost>, host: &FakeHost, (began, end): (Instant, u64), expected: Expect) {
    let mut text = String::new();
    while let Ok(news) = timeout_at(began + seconds(end), staff.news()).await {
        text = format!("{text}{}s {}\n", began.elapsed().as_secs(), describe(news));
    }
    let done = std::mem::take(&mut host.lock().done).join(", ");
    expected.assert_eq(&format!("{text}done: {done}\n"));
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_run_after_the_start_and_before_the_stop_is_run_in_order() {
    let (host, began) = (host(), Instant::now());
    let mut staff = staff(&host);
    staff.assign(hooked(Desired::Running));
    until(&mut staff, &host, (began, 5), expect![[""]]).await;
    staff.assign(hooked(Desired::Stopped));
    until(&mut staff, &host, (began, 10), expect![[""]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_after_the_start_that_fails_ends_the_container() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Unhealthy;
    let mut staff = staff(&host);
    staff.assign(hooked(Desired::Running));
    until(&mut staff, &host, (began, 1), expect![[""]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_long_is_seen_and_given_up_with_its_task() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Never;
    let mut staff = staff(&host);
    staff.assign(hooked(Desired::Running));
    until(&mut staff, &host, (began, 5), expect![[""]]).await;
    staff.assign(hooked(Desired::Stopped));
    // The one before the stop has no more than the grace period.
    until(&mut staff, &host, (began, 60), expect![[""]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_meanwhile_has_ended_by_itself() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Ends;
    let mut staff = staff(&host);
    staff.assign(hooked(Desired::Running));
    until(&mut staff, &host, (began, 1), expect![[""]]).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_runs_them_again_where_the_container_was_starting() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Never;
    let mut first = staff(&host);
    first.assign(hooked(Desired::Running));
    until(&mut first, &host, (began, 5), expect![[""]]).await;
    drop(first);
    host.lock().exec = Answer::Healthy;
    let mut second = staff(&host);
    let records = host.lock().records.values().cloned().collect::<Vec<_>>();
    records.into_iter().for_each(|record| second.employ(record));
    until(&mut second, &host, (began, 10), expect![[""]]).await;
}
