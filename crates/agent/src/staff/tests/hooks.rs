use model::{Hook, Hooks};
use tokio::time::timeout_at;

use super::*;
use crate::host::fake::Answer;

fn hook(command: &str) -> Hook {
    Hook { command: vec![command.to_owned()], ..Hook::default() }
}

fn hooked(desired: Desired) -> Assigned {
    let mut assigned = assigned(desired);
    let post_start = vec![hook("warm"), hook("register")];
    assigned.spec.container.hooks = Hooks { post_start, pre_stop: vec![hook("flush")] };
    assigned
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
    until(
        &mut staff,
        &host,
        (began, 5),
        expect![[r#"
        0s Running 1
        done: prepare, start 1, hook warm, hook register
    "#]],
    )
    .await;
    staff.assign(hooked(Desired::Stopped));
    until(
        &mut staff,
        &host,
        (began, 10),
        expect![[r#"
        5s Stopping 1
        5s Exited 1, ended: Stopped, exit: Code(0), reason: exit code 0
        done: hook flush, stop within 10s, release
    "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_command_after_the_start_that_fails_ends_the_container() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Unhealthy;
    let mut staff = staff(&host);
    staff.assign(hooked(Desired::Running));
    until(&mut staff, &host, (began, 1), expect![[r#"
        0s Stopping 1, reason: post_start `warm` failed: exit code 1
        0s Exited 1, exit: Code(0), reason: post_start `warm` failed: exit code 1, warning: pre_stop `flush` failed: exit code 1
        0s Stopping 2, reason: post_start `warm` failed: exit code 1
        0s Exited 2, exit: Code(0), reason: post_start `warm` failed: exit code 1, warning: pre_stop `flush` failed: exit code 1
        0s Stopping 3, reason: post_start `warm` failed: exit code 1
        0s Exited 3, exit: Code(0), reason: post_start `warm` failed: exit code 1, warning: pre_stop `flush` failed: exit code 1
        done: prepare, start 1, hook warm, hook flush, stop within 10s, release, prepare, start 2, hook warm, hook flush, stop within 10s, release, prepare, start 3, hook warm, hook flush, stop within 10s, release
    "#]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_long_is_seen_and_given_up_with_its_task() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Never;
    let mut staff = staff(&host);
    staff.assign(hooked(Desired::Running));
    until(
        &mut staff,
        &host,
        (began, 5),
        expect![[r#"
        0s Starting 1, reason: post_start 1 of 2: warm
        done: prepare, start 1, hook warm
    "#]],
    )
    .await;
    staff.assign(hooked(Desired::Stopped));
    // The one before the stop has no more than the grace period.
    until(&mut staff, &host, (began, 60), expect![[r#"
        5s Stopping 1
        15s Exited 1, ended: Stopped, exit: Code(0), reason: exit code 0, warning: pre_stop `flush` failed: no answer within 10s
        done: hook flush, stop within 1s, release
    "#]]).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_meanwhile_has_ended_by_itself() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Ends;
    let mut staff = staff(&host);
    staff.assign(hooked(Desired::Running));
    until(&mut staff, &host, (began, 1), expect![[r#"
        0s Exited 1, exit: Code(0), reason: exit code 0
        0s Exited 2, exit: Code(0), reason: exit code 0
        0s Exited 3, exit: Code(0), reason: exit code 0
        done: prepare, start 1, hook warm, release, prepare, start 2, hook warm, release, prepare, start 3, hook warm, release
    "#]]).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_runs_them_again_where_the_container_was_starting() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Never;
    let mut first = staff(&host);
    first.assign(hooked(Desired::Running));
    until(
        &mut first,
        &host,
        (began, 5),
        expect![[r#"
        0s Starting 1, reason: post_start 1 of 2: warm
        done: prepare, start 1, hook warm
    "#]],
    )
    .await;
    drop(first);
    host.lock().exec = Answer::Healthy;
    let mut second = staff(&host);
    let records = host.lock().records.values().cloned().collect::<Vec<_>>();
    records.into_iter().for_each(|record| second.employ(record));
    until(
        &mut second,
        &host,
        (began, 10),
        expect![[r#"
        5s Running 1
        done: hook warm, hook register, relimit 1
    "#]],
    )
    .await;
}
