use expect_test::{Expect, expect};
use model::{Desired, Exit, NodeId, Phase, RestartCondition, TaskStatus, Timestamp};
use tokio::time::{Instant, timeout};

use super::*;
use crate::host::fake::{FakeHost, assigned};

mod health;
mod hooks;

/// Longer than any wait of a loop.
const LONG: Duration = Duration::from_secs(60);

fn staff(host: &Arc<FakeHost>) -> Staff<FakeHost> {
    let began = Instant::now();
    Staff::new(host.clone(), Clock::new(move || Timestamp(1000).plus(began.elapsed())))
}

/// A task whose latest attempt was last seen in this phase.
fn seen(attempt: u32, phase: Phase, exit: Option<Exit>) -> Record {
    let status = TaskStatus {
        attempt,
        phase,
        seq: 0,
        ready: false,
        at: Timestamp(0),
        exit,
        ended: None,
        reason: None,
        warnings: Vec::new(),
    };
    Record { status: Some(status), remains: true, ..Record::new(assigned(Desired::Running)) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A host whose containers end with 0 when they are told to.
fn host() -> Arc<FakeHost> {
    let host = Arc::new(FakeHost::default());
    host.lock().exit = Some(Exit::Code(0));
    host
}

fn describe(news: News) -> String {
    let News::Said(Said { status, .. }) = news else { return "over".to_owned() };
    let mut text = format!("{:?} {}", status.phase, status.attempt);
    if status.phase == Phase::Running && !status.ready {
        text += ", not ready";
    }
    let ended = status.ended.map(|ended| format!("ended: {ended:?}"));
    let exit = status.exit.map(|exit| format!("exit: {exit:?}"));
    let reason = status.reason.map(|reason| format!("reason: {reason}"));
    let warnings = status.warnings.into_iter().map(|warning| format!("warning: {warning}"));
    for more in [ended, exit, reason].into_iter().flatten().chain(warnings) {
        text = format!("{text}, {more}");
    }
    text
}

/// Everything that is told until nothing more happens, and then what was done to the host.
async fn check(staff: &mut Staff<FakeHost>, host: &FakeHost, expected: Expect) {
    let mut text = String::new();
    while let Ok(news) = timeout(LONG, staff.news()).await {
        text = format!("{text}{}\n", describe(news));
    }
    let done = std::mem::take(&mut host.lock().done);
    let done = if done.is_empty() { "nothing".to_owned() } else { done.join(", ") };
    expected.assert_eq(&format!("{text}done: {done}\n"));
}

#[tokio::test(start_paused = true)]
async fn a_quick_start_is_not_worth_saying() {
    let host = Arc::new(FakeHost::default());
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn how_far_an_image_is_is_said_now_and_then() {
    let host = Arc::new(FakeHost::default());
    host.lock().rate = Some(25_000_000);
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Preparing 1
        Preparing 1, reason: pulling shop:latest: 25 of 100 MB
        Preparing 1, reason: pulling shop:latest: 75 of 100 MB
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heeded_while_an_image_is_still_on_its_way() {
    let host = Arc::new(FakeHost::default());
    host.lock().out_of_reach = true;
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Preparing 1
        done: prepare
    "#]];
    check(&mut staff, &host, expected).await;

    let elsewhere = vec![(NodeId(2), "192.0.2.2:7000".parse().unwrap())];
    staff.assign(Assigned { holders: elsewhere, ..assigned(Desired::Running) });
    // The fetch goes on.
    let expected = expect![[r#"
        done: nothing
    "#]];
    check(&mut staff, &host, expected).await;

    staff.assign(assigned(Desired::Stopped));
    let expected = expect![[r#"
        Exited 1, ended: Stopped
        done: nothing
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_only_being_prepared_is_made_again_under_its_number() {
    for (record, expected) in [
        (
            Record { remains: false, ..seen(1, Phase::Preparing, None) },
            expect![[r#"
                Running 1
                done: prepare, start 1
            "#]],
        ),
        (
            seen(2, Phase::Preparing, Some(Exit::Code(1))),
            expect![[r#"
                Running 2, exit: Code(1)
                done: prepare, start 2
            "#]],
        ),
    ] {
        let host = Arc::new(FakeHost::default());
        let mut staff = staff(&host);
        staff.employ(record);
        check(&mut staff, &host, expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_to_be_had_counts_once_a_manager_has_said_who_has_it() {
    let mut once = assigned(Desired::Running);
    once.spec.restart.condition = RestartCondition::Never;
    let left = || {
        let record = seen(1, Phase::Preparing, None);
        Record { remains: false, assigned: once.clone(), ..record }
    };
    let host = Arc::new(FakeHost::default());
    host.lock().lacking = 2;
    let mut heard_nothing = staff(&host);
    heard_nothing.employ(left());
    let expected = expect![[r#"
        Preparing 1, reason: nobody has it
        Running 1
        done: prepare, prepare, prepare, start 1
    "#]];
    check(&mut heard_nothing, &host, expected).await;

    let host = Arc::new(FakeHost::default());
    host.lock().lacking = 2;
    let mut told = staff(&host);
    told.employ(left());
    told.assign(once.clone());
    let expected = expect![[r#"
        Exited 1, ended: GaveUp, exit: NotStarted, reason: nobody has it
        done: prepare
    "#]];
    check(&mut told, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_begun_and_of_which_nothing_is_left_counts() {
    let host = Arc::new(FakeHost::default());
    let mut staff = staff(&host);
    staff.employ(seen(1, Phase::Starting, None));
    let expected = expect![[r#"
        Exited 1, exit: Unknown, reason: ended unobserved
        Running 2, exit: Unknown
        done: release, prepare, start 2
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_started() {
    let host = Arc::new(FakeHost::default());
    // The new task's record, the intent twice, and between them the status that says why.
    host.lock().full = 4;
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Preparing 1, reason: the disk is full
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    let record = host.record(assigned(Desired::Running).id).unwrap().unwrap();
    assert!(record.remains);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_no_container() {
    let host = Arc::new(FakeHost::default());
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    host.lock().full = u32::MAX;
    staff.assign(Assigned { service: "shop/renamed".to_owned(), ..assigned(Desired::Running) });
    let expected = expect![[r#"
        done: nothing
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panics_is_followed_by_another_that_heeds_the_newest_order() {
    let host = Arc::new(FakeHost::default());
    let record = seen(1, Phase::Running, None);
    let id = record.assigned.id;
    host.lock().records.insert(id, record.clone());
    host.lock().running.insert(id, 1);
    host.lock().broken = 2;
    let mut staff = staff(&host);
    staff.employ(record);
    assert!(timeout(EMPLOY_AGAIN / 2, staff.news()).await.is_err(), "it is left alone at first");
    staff.assign(assigned(Desired::Stopped));
    let expected = expect![[r#"
        Running 1
        Stopping 1
        Exited 1, ended: Stopped, exit: Unknown, reason: ended unobserved
        done: relimit 1, stop within 10s, release
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_loop_panics_and_that_has_no_record_is_made_anew() {
    let host = Arc::new(FakeHost::default());
    host.lock().broken = 1;
    let mut staff = staff(&host);
    staff.employ(seen(1, Phase::Running, None));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    assert_eq!(staff.known().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_loop_panics_and_that_is_to_be_forgotten_is_not_made_anew() {
    let host = Arc::new(FakeHost::default());
    host.lock().broken = 1;
    let mut staff = staff(&host);
    staff.employ(seen(1, Phase::Running, None));
    staff.forget(assigned(Desired::Running).id);
    let expected = expect![[r#"
        over
        done: nothing
    "#]];
    check(&mut staff, &host, expected).await;
    assert_eq!(staff.known().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_container_of_a_forgotten_task_may_end_in_order() {
    let host = Arc::new(FakeHost::default());
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    staff.forget(assigned(Desired::Running).id);
    let expected = expect![[r#"
        over
        done: stop within 10s, forget
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_has_as_long_to_end_as_its_service_says() {
    let host = Arc::new(FakeHost::default());
    let mut staff = staff(&host);
    let patient = |desired| {
        let mut assigned = assigned(desired);
        assigned.spec.container.stop.grace = Duration::from_secs(90);
        assigned
    };
    staff.assign(patient(Desired::Running));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    staff.assign(patient(Desired::Stopped));
    let expected = expect![[r#"
        Stopping 1
        Exited 1, ended: Stopped, exit: Unknown, reason: ended unobserved
        done: stop within 90s, release
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_keeps_failing_is_said_once() {
    let host = Arc::new(FakeHost::default());
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    host.lock().stuck = 3;
    staff.assign(assigned(Desired::Stopped));
    let expected = expect![[r#"
        Stopping 1
        Exited 1, ended: Stopped, exit: Unknown, reason: ended unobserved
        done: stop within 10s, release
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_once_it_is_recorded() {
    let host = Arc::new(FakeHost::default());
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    // The order, the status that says that it stops, and the end twice.
    host.lock().full = 4;
    let began = Instant::now();
    staff.assign(assigned(Desired::Stopped));
    let id = assigned(Desired::Stopped).id;
    let mut told = Vec::new();
    while let Ok(News::Said(Said { status, .. })) = timeout(LONG, staff.news()).await {
        let recorded = host.record(id).unwrap().and_then(|record| record.status);
        told.push((status.phase, status.ended, recorded == Some(status), began.elapsed().as_secs()));
    }
    let stopped = Some(model::Ended::Stopped);
    assert_eq!(told, [(Phase::Stopping, None, false, 0), (Phase::Exited, stopped, true, 2)]);
    let expected = ["stop within 10s", "release", "release", "release"];
    assert_eq!(host.lock().done, expected);
}

#[tokio::test(start_paused = true)]
async fn an_exit_is_told_with_what_the_container_said_last_unless_nobody_asks() {
    let host = Arc::new(FakeHost::default());
    host.lock().exit = Some(Exit::Code(1));
    host.lock().last_words = Some("cannot connect to database".to_owned());
    let mut staff = staff(&host);
    staff.assign(assigned(Desired::Running));
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    host.end(assigned(Desired::Running).id);
    let expected = expect![[r#"
        Exited 1, exit: Code(1), reason: exit code 1: cannot connect to database
        Running 2, exit: Code(1)
        done: release, prepare, start 2
    "#]];
    check(&mut staff, &host, expected).await;
    staff.assign(assigned(Desired::Stopped));
    let expected = expect![[r#"
        Stopping 2
        Exited 2, ended: Stopped, exit: Code(1), reason: exit code 1
        done: stop within 10s, release
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_memory_limit_that_killed_a_container_is_named() {
    let host = Arc::new(FakeHost::default());
    host.lock().exit = Some(Exit::Signal { signal: 9, oom: true });
    let mut staff = staff(&host);
    let mut once = assigned(Desired::Running);
    once.spec.restart.max_attempts = Some(0);
    let id = once.id;
    staff.assign(once);
    let expected = expect![[r#"
        Running 1
        done: prepare, start 1
    "#]];
    check(&mut staff, &host, expected).await;
    host.end(id);
    let expected = expect![[r#"
        Exited 1, ended: GaveUp, exit: Signal { signal: 9, oom: true }, reason: killed for its memory limit (signal 9)
        done: release
    "#]];
    check(&mut staff, &host, expected).await;
}
