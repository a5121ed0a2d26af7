use model::{Health, HealthCheck, Probe, Readiness};
use tokio::time::timeout_at;

use super::*;
use crate::details::TaskDetails;
use crate::health::Standing;
use crate::host::fake::Answer;

/// A command every ten seconds that may fail three times.
fn command() -> HealthCheck {
    HealthCheck {
        probe: Some(Probe::Exec(vec!["check".to_owned()])),
        interval: Some(seconds(10)),
        timeout: Some(seconds(3)),
        retries: Some(3),
        ..HealthCheck::default()
    }
}

fn checked(check: HealthCheck) -> Assigned {
    let mut assigned = assigned(Desired::Running);
    assigned.spec.health = Health::Check(check);
    assigned
}

fn readiness() -> Readiness {
    let probe = Probe::Tcp { port: 80 };
    Readiness { probe, interval: seconds(2), timeout: seconds(1), successes: 1, failures: 1 }
}

/// Everything that is told until so many seconds after `began`, with the second in which it is.
async fn until(staff: &mut Staff<FakeHost>, began: Instant, end: u64, expected: Expect) {
    let mut text = String::new();
    while let Ok(news) = timeout_at(began + seconds(end), staff.news()).await {
        text = format!("{text}{}s {}\n", began.elapsed().as_secs(), describe(news));
    }
    expected.assert_eq(&text);
}

fn done(host: &FakeHost, expected: Expect) {
    expected.assert_eq(&std::mem::take(&mut host.lock().done).join(", "));
}

fn details(staff: &Staff<FakeHost>) -> TaskDetails {
    staff.details().of(assigned(Desired::Running).id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_container_is_starting_until_it_is_healthy() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Unhealthy;
    let mut staff = staff(&host);
    staff.assign(checked(command()));
    let expected = expect![[r#"
        0s Starting 1
        10s Starting 1, reason: not healthy yet: connection refused
    "#]];
    until(&mut staff, began, 25, expected).await;
    let health = details(&staff).health.unwrap();
    assert_eq!((health.standing, health.failures, health.results.len()), (Standing::Starting, 2, 2));

    host.lock().exec = Answer::Healthy;
    let expected = expect![[r#"
        30s Running 1
    "#]];
    until(&mut staff, began, 500, expected).await;
    done(&host, expect!["prepare, start 1"]);
    let health = details(&staff).health.unwrap();
    assert_eq!((health.standing, health.failures, health.results.len()), (Standing::Healthy, 0, 5));
    assert!(health.results.iter().all(|result| result.healthy && result.output == "fine"));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_healthy_at_once_is_said_once() {
    let (host, began) = (host(), Instant::now());
    let mut staff = staff(&host);
    let quick = Some(Duration::from_millis(100));
    staff.assign(checked(HealthCheck { start_period: Some(seconds(9)), start_interval: quick, ..command() }));
    let expected = expect![[r#"
        0s Running 1
    "#]];
    until(&mut staff, began, 60, expected).await;
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_container_is_ended_and_started_again() {
    let (host, began) = (host(), Instant::now());
    let mut staff = staff(&host);
    staff.assign(checked(command()));
    let expected = expect![[r#"
        0s Starting 1
        10s Running 1
    "#]];
    until(&mut staff, began, 25, expected).await;
    host.lock().exec = Answer::Unhealthy;
    let expected = expect![[r#"
        50s Stopping 1, reason: unhealthy: 3 checks in a row failed; the last: connection refused
        50s Exited 1, exit: Code(0), reason: unhealthy: 3 checks in a row failed; the last: connection refused
        50s Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: 3 checks in a row failed; the last: connection refused
        60s Starting 2, exit: Code(0), reason: not healthy yet: connection refused
    "#]];
    until(&mut staff, began, 65, expected).await;
    done(&host, expect!["prepare, start 1, stop within 10s, release, prepare, start 2"]);
    let health = details(&staff).health.unwrap();
    let attempts: Vec<u32> = health.results.iter().map(|result| result.attempt).collect();
    assert_eq!((health.failures, attempts), (1, vec![1, 1, 1, 1, 2]));
    host.lock().exec = Answer::Healthy;
    let expected = expect![[r#"
        70s Running 2, exit: Code(0)
    "#]];
    until(&mut staff, began, 100, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_takes_too_long_has_failed() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Never;
    let mut staff = staff(&host);
    staff.assign(checked(command()));
    let expected = expect![[r#"
        0s Starting 1
        13s Starting 1, reason: not healthy yet: no answer within 3s
        39s Stopping 1, reason: unhealthy: 3 checks in a row failed; the last: no answer within 3s
        39s Exited 1, exit: Code(0), reason: unhealthy: 3 checks in a row failed; the last: no answer within 3s
        39s Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: 3 checks in a row failed; the last: no answer within 3s
    "#]];
    until(&mut staff, began, 40, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_paused_is_not_ended_for_it() {
    let (host, began) = (host(), Instant::now());
    let mut staff = staff(&host);
    staff.assign(checked(command()));
    let expected = expect![[r#"
        0s Starting 1
        10s Running 1
    "#]];
    until(&mut staff, began, 15, expected).await;
    host.lock().exec = Answer::Paused;
    until(&mut staff, began, 505, expect![""]).await;
    let health = details(&staff).health.unwrap();
    assert_eq!((health.standing, health.failures), (Standing::Healthy, 0));
    assert!(health.results.iter().all(|result| result.healthy));
    host.lock().exec = Answer::Unhealthy;
    let expected = expect![[r#"
        530s Stopping 1, reason: unhealthy: 3 checks in a row failed; the last: connection refused
        530s Exited 1, exit: Code(0), reason: unhealthy: 3 checks in a row failed; the last: connection refused
        530s Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: 3 checks in a row failed; the last: connection refused
    "#]];
    until(&mut staff, began, 535, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_paused_takes_no_work() {
    let (host, began) = (host(), Instant::now());
    let mut staff = staff(&host);
    let mut asked = assigned(Desired::Running);
    asked.spec.readiness = Some(readiness());
    staff.assign(asked);
    let expected = expect![[r#"
        0s Running 1, not ready
        0s Running 1
    "#]];
    until(&mut staff, began, 5, expected).await;
    host.lock().other = Answer::Paused;
    let expected = expect![[r#"
        6s Running 1, not ready, reason: not ready: the container is paused
    "#]];
    until(&mut staff, began, 15, expected).await;
    host.lock().other = Answer::Healthy;
    let expected = expect![[r#"
        16s Running 1
    "#]];
    until(&mut staff, began, 25, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_gets_healthy_is_left_to_another_node() {
    let host = host();
    host.lock().exec = Answer::Unhealthy;
    let mut staff = staff(&host);
    // Each attempt runs for longer than a container has to run to count as started: it does not, as it was never healthy.
    staff.assign(checked(HealthCheck { retries: Some(1), ..command() }));
    let expected = expect![[r#"
        Starting 1
        Stopping 1, reason: unhealthy: a check failed: connection refused
        Exited 1, exit: Code(0), reason: unhealthy: a check failed: connection refused
        Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: a check failed: connection refused
        Stopping 2, reason: unhealthy: a check failed: connection refused
        Exited 2, exit: Code(0), reason: unhealthy: a check failed: connection refused
        Starting 3, exit: Code(0), reason: after attempt 2: unhealthy: a check failed: connection refused
        Stopping 3, reason: unhealthy: a check failed: connection refused
        Exited 3, exit: Code(0), reason: unhealthy: a check failed: connection refused
        Starting 4, exit: Code(0), reason: after attempt 3: unhealthy: a check failed: connection refused
        Stopping 4, reason: unhealthy: a check failed: connection refused
        Exited 4, exit: Code(0), reason: unhealthy: a check failed: connection refused
        Starting 5, exit: Code(0), reason: after attempt 4: unhealthy: a check failed: connection refused
        Stopping 5, reason: unhealthy: a check failed: connection refused
        Exited 5, ended: Failing, exit: Code(0), reason: unhealthy: a check failed: connection refused
        done: prepare, start 1, stop within 10s, release, prepare, start 2, stop within 10s, release, prepare, start 3, stop within 10s, release, prepare, start 4, stop within 10s, release, prepare, start 5, stop within 10s, release
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_container_that_is_not_to_be_restarted_has_failed() {
    let host = host();
    host.lock().exec = Answer::Unhealthy;
    let mut staff = staff(&host);
    let mut once = checked(HealthCheck { retries: Some(1), ..command() });
    once.spec.restart.condition = model::RestartCondition::Never;
    staff.assign(once);
    let expected = expect![[r#"
        Starting 1
        Stopping 1, reason: unhealthy: a check failed: connection refused
        Exited 1, ended: GaveUp, exit: Code(0), reason: unhealthy: a check failed: connection refused
        done: prepare, start 1, stop within 10s, release
    "#]];
    check(&mut staff, &host, expected).await;
}

#[tokio::test(start_paused = true)]
async fn readiness_comes_and_goes_without_a_restart_and_ever_more_seldom() {
    let (host, began) = (host(), Instant::now());
    host.lock().other = Answer::Turns;
    let mut staff = staff(&host);
    let mut flapping = assigned(Desired::Running);
    flapping.spec.readiness = Some(readiness());
    staff.assign(flapping);
    let expected = expect![[r#"
        0s Running 1, not ready
        0s Running 1
        2s Running 1, not ready, reason: not ready: connection refused
        8s Running 1
        10s Running 1, not ready, reason: not ready: connection refused
        20s Running 1
        22s Running 1, not ready, reason: not ready: connection refused
        40s Running 1
        42s Running 1, not ready, reason: not ready: connection refused
    "#]];
    until(&mut staff, began, 60, expected).await;
    done(&host, expect!["prepare, start 1"]);
    let readiness = details(&staff).readiness.unwrap();
    assert!(!readiness.ready);
}

#[tokio::test(start_paused = true)]
async fn why_a_container_never_gets_ready_is_said_once() {
    let (host, began) = (host(), Instant::now());
    host.lock().other = Answer::Unhealthy;
    let mut staff = staff(&host);
    let mut never = assigned(Desired::Running);
    never.spec.readiness = Some(readiness());
    staff.assign(never);
    let expected = expect![[r#"
        0s Running 1, not ready
        0s Running 1, not ready, reason: not ready: connection refused
    "#]];
    until(&mut staff, began, 600, expected).await;
    assert!(!details(&staff).readiness.unwrap().ready && host.lock().probes > 100);
}

#[tokio::test(start_paused = true)]
async fn a_container_is_asked_whether_it_is_ready_once_it_is_healthy() {
    let (host, began) = (host(), Instant::now());
    host.lock().other = Answer::Unhealthy;
    let mut staff = staff(&host);
    let mut both = checked(command());
    both.spec.readiness = Some(readiness());
    staff.assign(both);
    let expected = expect![[r#"
        0s Starting 1
        10s Running 1, not ready
        10s Running 1, not ready, reason: not ready: connection refused
    "#]];
    until(&mut staff, began, 15, expected).await;
    host.lock().other = Answer::Healthy;
    let expected = expect![[r#"
        16s Running 1
    "#]];
    until(&mut staff, began, 25, expected).await;
    // The last time that it is asked, it is still ready; that it does not live ends it all the same.
    host.lock().exec = Answer::Unhealthy;
    let expected = expect![[r#"
        50s Stopping 1, reason: unhealthy: 3 checks in a row failed; the last: connection refused
        50s Exited 1, exit: Code(0), reason: unhealthy: 3 checks in a row failed; the last: connection refused
        50s Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: 3 checks in a row failed; the last: connection refused
    "#]];
    until(&mut staff, began, 55, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_probe() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Never;
    let mut staff = staff(&host);
    let slow = HealthCheck { timeout: Some(seconds(3600)), ..command() };
    staff.assign(checked(slow.clone()));
    let expected = expect![[r#"
        0s Starting 1
    "#]];
    until(&mut staff, began, 20, expected).await;
    staff.assign(Assigned { desired: Desired::Stopped, ..checked(slow) });
    let expected = expect![[r#"
        20s Stopping 1
        20s Exited 1, ended: Stopped, exit: Code(0), reason: exit code 0
    "#]];
    until(&mut staff, began, 21, expected).await;
    done(&host, expect!["prepare, start 1, probe given up, stop within 10s, release"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_is_asked_nothing_more() {
    let (host, began) = (host(), Instant::now());
    host.lock().exec = Answer::Never;
    let mut staff = staff(&host);
    staff.assign(checked(HealthCheck { timeout: Some(seconds(3600)), ..command() }));
    let expected = expect![[r#"
        0s Starting 1
    "#]];
    until(&mut staff, began, 20, expected).await;
    host.end(assigned(Desired::Running).id);
    let expected = expect![[r#"
        20s Exited 1, exit: Code(0), reason: exit code 0
        20s Starting 2, exit: Code(0), reason: after attempt 1: exit code 0
    "#]];
    until(&mut staff, began, 21, expected).await;
    done(&host, expect!["prepare, start 1, probe given up, release, prepare, start 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_by_itself_while_it_is_asked_was_not_unhealthy() {
    let host = host();
    host.lock().exec = Answer::Ends;
    let mut staff = staff(&host);
    let mut job = checked(HealthCheck { retries: Some(1), ..command() });
    job.spec.restart.condition = model::RestartCondition::OnFailure;
    staff.assign(job);
    let expected = expect![[r#"
        Starting 1
        Exited 1, ended: Completed, exit: Code(0), reason: exit code 0
        done: prepare, start 1, release
    "#]];
    check(&mut staff, &host, expected).await;
}

/// A record of a container that began to run so long ago and is still there.
async fn left_behind(host: &FakeHost, record: &Record, ago: Duration) {
    let id = record.assigned.id;
    host.lock().running.insert(id, 1);
    host.lock().since.insert(id, Instant::now());
    tokio::time::advance(ago).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_healthy_stays_so_under_the_next_agent_until_its_probes_say_otherwise() {
    let host = host();
    host.lock().exec = Answer::Unhealthy;
    host.lock().image_check = Some(command());
    let mut record = Record { image_check: Some(command()), ..seen(1, Phase::Running, None) };
    if let Some(status) = &mut record.status {
        status.ready = true;
    }
    left_behind(&host, &record, seconds(1000)).await;
    let (mut staff, began) = (staff(&host), Instant::now());
    staff.employ(record);
    until(&mut staff, began, 29, expect![""]).await;
    let expected = expect![[r#"
        30s Stopping 1, reason: unhealthy: 3 checks in a row failed; the last: connection refused
        30s Exited 1, exit: Code(0), reason: unhealthy: 3 checks in a row failed; the last: connection refused
        30s Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: 3 checks in a row failed; the last: connection refused
    "#]];
    until(&mut staff, began, 31, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_ready_stays_so_under_the_next_agent() {
    let host = host();
    host.lock().other = Answer::Unhealthy;
    let mut record = seen(1, Phase::Running, None);
    record.assigned.spec.readiness = Some(Readiness { failures: 3, ..readiness() });
    if let Some(status) = &mut record.status {
        status.ready = true;
    }
    left_behind(&host, &record, seconds(1000)).await;
    let (mut staff, began) = (staff(&host), Instant::now());
    staff.employ(record);
    let expected = expect![[r#"
        6s Running 1, not ready, reason: not ready: connection refused
    "#]];
    until(&mut staff, began, 60, expected).await;
}

#[tokio::test(start_paused = true)]
async fn the_start_period_is_counted_from_the_containers_start_also_by_the_next_agent() {
    let host = host();
    host.lock().exec = Answer::Unhealthy;
    let check = HealthCheck {
        retries: Some(2),
        start_period: Some(seconds(60)),
        start_interval: Some(seconds(5)),
        ..command()
    };
    let record = Record { assigned: checked(check), ..seen(1, Phase::Starting, None) };
    left_behind(&host, &record, seconds(50)).await;
    let (mut staff, began) = (staff(&host), Instant::now());
    staff.employ(record);
    let expected = expect![[r#"
        0s Starting 1, reason: not healthy yet: connection refused
        20s Stopping 1, reason: unhealthy: 2 checks in a row failed; the last: connection refused
        20s Exited 1, exit: Code(0), reason: unhealthy: 2 checks in a row failed; the last: connection refused
        20s Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: 2 checks in a row failed; the last: connection refused
    "#]];
    until(&mut staff, began, 21, expected).await;
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_was_ending_when_it_died_is_ended_by_the_next() {
    for (runs, expected) in [
        (true, expect!["stop within 10s, release, prepare, start 2"]),
        (false, expect!["release, prepare, start 2"]),
    ] {
        let host = host();
        let mut record = Record { assigned: checked(command()), ..seen(1, Phase::Stopping, None) };
        record.assigned.spec.restart.condition = model::RestartCondition::OnFailure;
        if let Some(status) = &mut record.status {
            status.reason = Some("unhealthy: a check failed: no".to_owned());
        }
        left_behind(&host, &record, seconds(50)).await;
        if !runs {
            host.lock().running.clear();
        }
        let (mut staff, began) = (staff(&host), Instant::now());
        staff.employ(record);
        let told = expect![[r#"
            0s Exited 1, exit: Code(0), reason: unhealthy: a check failed: no
            0s Starting 2, exit: Code(0), reason: after attempt 1: unhealthy: a check failed: no
        "#]];
        until(&mut staff, began, 1, told).await;
        done(&host, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_does_not_do_is_told_with_every_status_of_the_attempt() {
    let (host, began) = (host(), Instant::now());
    host.lock().warnings = vec!["no swap limit:\n this kernel has none".to_owned()];
    let mut staff = staff(&host);
    staff.assign(checked(command()));
    let expected = expect![[r#"
        0s Starting 1, warning: no swap limit: this kernel has none
        10s Running 1, warning: no swap limit: this kernel has none
    "#]];
    until(&mut staff, began, 15, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_check_without_a_test_is_none_and_a_warning() {
    let (host, began) = (host(), Instant::now());
    let mut staff = staff(&host);
    staff.assign(checked(HealthCheck { probe: None, ..command() }));
    let expected = expect![[r#"
        0s Running 1, warning: the health check has no test, and neither has the image's
    "#]];
    until(&mut staff, began, 100, expected).await;
    assert_eq!(host.lock().probes, 0);
}

#[tokio::test(start_paused = true)]
async fn when_the_next_attempt_is_due_is_known_while_a_task_rests() {
    let (host, began) = (host(), Instant::now());
    let mut staff = staff(&host);
    let mut rests = assigned(Desired::Running);
    rests.spec.restart.delay = Some(seconds(100));
    staff.assign(rests);
    let expected = expect![[r#"
        0s Running 1
    "#]];
    until(&mut staff, began, 10, expected).await;
    host.end(assigned(Desired::Running).id);
    let expected = expect![[r#"
        10s Exited 1, exit: Code(0), reason: exit code 0
    "#]];
    until(&mut staff, began, 20, expected).await;
    let due = details(&staff).next_attempt.unwrap();
    assert_eq!(due.since(Timestamp(1000)).as_secs(), 110);
    let expected = expect![[r#"
        110s Running 2, exit: Code(0)
    "#]];
    until(&mut staff, began, 120, expected).await;
    assert_eq!(details(&staff).next_attempt, None);
    staff.forget(assigned(Desired::Running).id);
    let expected = expect![[r#"
        120s over
    "#]];
    until(&mut staff, began, 130, expected).await;
    assert_eq!(staff.details().of(assigned(Desired::Running).id), None);
}
