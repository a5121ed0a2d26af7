use expect_test::{Expect, expect};
use model::HttpProbe;

use super::*;

/// How long every probe takes.
const TOOK: Duration = Duration::from_secs(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn exec(word: &str) -> Probe {
    Probe::Exec(vec![word.to_owned()])
}

fn check() -> Check {
    Check {
        probe: exec("check"),
        interval: seconds(30),
        timeout: seconds(30),
        retries: 3,
        start_period: Duration::ZERO,
        start_interval: seconds(5),
    }
}

/// Asks whenever it is time, with these results: `o` is healthy, `x` is not, and `-` says nothing.
fn lives(mut living: Living, results: &str, expected: Expect) {
    let mut text = String::new();
    for result in results.chars() {
        let began = living.next();
        match result {
            '-' => living.pass_over(began + TOOK),
            _ => {
                living.judge(Probed { began, ended: began + TOOK, healthy: result == 'o' });
            }
        }
        let standing = living.standing();
        let failures = living.failures();
        text = format!("{text}{}s {result} {} {failures}\n", began.as_secs(), standing.as_str());
    }
    expected.assert_eq(&text);
}

fn serves(mut serving: Serving, results: &str, expected: Expect) {
    let mut text = String::new();
    for result in results.chars() {
        let began = serving.next();
        let told = serving.judge(Probed { began, ended: began + TOOK, healthy: result == 'o' });
        let word = match (told, serving.ready()) {
            (false, _) => "",
            (true, true) => " ready",
            (true, false) => " not ready",
        };
        text = format!("{text}{}s {result}{word}\n", began.as_secs());
    }
    expected.assert_eq(&text);
}

#[test]
fn the_interval_is_counted_from_the_end_of_a_probe_and_the_first_comes_after_one() {
    let expected = expect![[r#"
        30s o healthy 0
        61s o healthy 0
    "#]];
    lives(Living::new(check(), Duration::ZERO, false), "oo", expected);
}

#[test]
fn as_many_failures_in_a_row_as_there_are_retries_make_it_unhealthy() {
    let expected = expect![[r#"
        30s x starting 1
        61s x starting 2
        92s o healthy 0
        123s x healthy 1
        154s x healthy 2
        185s o healthy 0
        216s x healthy 1
        247s x healthy 2
        278s x unhealthy 3
    "#]];
    lives(Living::new(check(), Duration::ZERO, false), "xxoxxoxxx", expected);
}

#[test]
fn failures_in_the_start_period_do_not_count_until_the_first_success() {
    let slow = Check { start_period: seconds(20), ..check() };
    let expected = expect![[r#"
        5s x starting 0
        11s x starting 0
        17s x starting 0
        23s x starting 1
        54s x starting 2
        85s x unhealthy 3
    "#]];
    lives(Living::new(slow.clone(), Duration::ZERO, false), "xxxxxx", expected);
    let expected = expect![[r#"
        5s o healthy 0
        36s x healthy 1
        67s x healthy 2
        98s x unhealthy 3
    "#]];
    lives(Living::new(Check { start_period: seconds(600), ..slow }, Duration::ZERO, false), "oxxx", expected);
}

#[test]
fn what_a_paused_container_answers_counts_neither_way() {
    let expected = expect![[r#"
        30s x starting 1
        61s - starting 1
        92s x starting 2
        123s - starting 2
        154s o healthy 0
        185s - healthy 0
    "#]];
    lives(Living::new(check(), Duration::ZERO, false), "x-x-o-", expected);
    let slow = Check { start_period: seconds(20), ..check() };
    let expected = expect![[r#"
        5s - starting 0
        11s - starting 0
        17s - starting 0
        23s - starting 0
        54s o healthy 0
    "#]];
    lives(Living::new(slow, Duration::ZERO, false), "----o", expected);
}

#[test]
fn one_retry_ends_it_at_the_first_failure() {
    let strict = Check { retries: 1, interval: seconds(2), ..check() };
    let expected = expect![[r#"
        2s x unhealthy 1
    "#]];
    lives(Living::new(strict, Duration::ZERO, false), "x", expected);
}

#[test]
fn what_was_healthy_before_stays_so_until_its_probes_say_otherwise() {
    let expected = expect![[r#"
        1030s x healthy 1
        1061s x healthy 2
        1092s x unhealthy 3
    "#]];
    lives(Living::new(check(), seconds(1000), true), "xxx", expected);
}

#[test]
fn what_was_starting_before_goes_on_from_its_real_start() {
    let slow = Check { start_period: seconds(60), ..check() };
    let expected = expect![[r#"
        50s x starting 0
        56s x starting 0
        62s x starting 1
        93s o healthy 0
    "#]];
    lives(Living::new(slow.clone(), seconds(50), false), "xxxo", expected);
    let expected = expect![[r#"
        5s x starting 0
    "#]];
    lives(Living::new(slow, seconds(2), false), "x", expected);
}

#[test]
fn what_nobody_says_is_dockers() {
    let image =
        HealthCheck { probe: Some(exec("image")), interval: Some(seconds(7)), ..HealthCheck::default() };
    let resolved = Check::resolve(&Health::Image, Some(&image)).unwrap();
    assert_eq!(resolved, Check { probe: exec("image"), interval: seconds(7), ..check() });

    let tcp = Probe::Tcp { port: 80 };
    let wanted = HealthCheck {
        probe: Some(tcp.clone()),
        timeout: Some(seconds(2)),
        retries: Some(0),
        interval: Some(Duration::ZERO),
        ..HealthCheck::default()
    };
    let resolved = Check::resolve(&Health::Check(wanted), Some(&image)).unwrap();
    assert_eq!(resolved, Check { probe: tcp, interval: seconds(7), timeout: seconds(2), ..check() });

    let timings = HealthCheck { retries: Some(9), ..HealthCheck::default() };
    let resolved = Check::resolve(&Health::Check(timings.clone()), Some(&image)).unwrap();
    assert_eq!((resolved.probe, resolved.retries), (exec("image"), 9));

    assert_eq!(Check::resolve(&Health::Check(timings), None), None);
    assert_eq!(Check::resolve(&Health::Image, None), None);
    assert_eq!(Check::resolve(&Health::Disabled, Some(&image)), None);
}

#[test]
fn a_check_is_never_made_without_a_pause() {
    let hostile = HealthCheck {
        probe: Some(exec("image")),
        interval: Some(Duration::from_nanos(1)),
        timeout: Some(Duration::from_nanos(1)),
        start_interval: Some(Duration::from_nanos(1)),
        start_period: Some(Duration::MAX),
        ..HealthCheck::default()
    };
    let resolved = Check::resolve(&Health::Image, Some(&hostile)).unwrap();
    assert_eq!((resolved.interval, resolved.timeout, resolved.start_interval), (LEAST, LEAST, LEAST));
    let mut living = Living::new(Check { interval: Duration::MAX, ..resolved }, Duration::MAX, true);
    living.judge(Probed { began: Duration::MAX, ended: Duration::MAX, healthy: false });
    assert_eq!(living.next(), Duration::MAX, "and what is too long does not wrap");
}

fn readiness(interval: Duration, successes: u32, failures: u32) -> Readiness {
    let http = HttpProbe { port: 80, path: "/".to_owned(), tls: false, host: None, headers: Vec::new() };
    Readiness { probe: Probe::Http(http), interval, timeout: Readiness::TIMEOUT, successes, failures }
}

#[test]
fn readiness_takes_results_in_a_row_either_way() {
    let expected = expect![[r#"
        5s x
        17s o
        29s x
        41s o
        53s o ready
        65s x
        77s x
        89s o
        101s x
        113s x
        125s x not ready
        137s o
        149s o ready
    "#]];
    let serving = Serving::new(readiness(seconds(11), 2, 3), seconds(5), false);
    serves(serving, "xoxooxxoxxxoo", expected);
}

#[test]
fn a_container_that_flaps_has_to_wait_longer_each_time() {
    let expected = expect![[r#"
        0s o ready
        3s x not ready
        6s o
        9s o ready
        12s x not ready
        15s o
        18s o
        21s o ready
        24s x not ready
        27s o
        30s o
        33s o
        36s o
        39s o
        42s o ready
        45s o
        48s o
        51s o
        54s o
        57s o
        60s o
        63s o
        66s o
        69s o
        72s x not ready
        75s o ready
    "#]];
    let serving = Serving::new(readiness(seconds(2), 1, 1), Duration::ZERO, false);
    serves(serving, "oxooxoooxoooooooooooooooxo", expected);
}

#[test]
fn readiness_changes_at_most_once_a_second_however_often_it_is_asked() {
    let quick = readiness(Duration::from_millis(100), 1, 1);
    let mut serving = Serving::new(quick, Duration::ZERO, false);
    let mut changes: Vec<Duration> = Vec::new();
    for at in 0..3000u64 {
        let began = serving.next();
        let probed = Probed { began, ended: began, healthy: at.is_multiple_of(2) };
        if serving.judge(probed) {
            changes.push(began);
        }
    }
    assert!(changes.windows(2).all(|pair| pair[1] - pair[0] >= LEAST_BETWEEN), "{changes:?}");
    assert!(changes.len() > 4, "it does change: {changes:?}");
    assert!(changes.len() < 40, "in 5 minutes: {changes:?}");
}

#[test]
fn what_was_ready_before_stays_so_until_its_probes_say_otherwise() {
    let expected = expect![[r#"
        502s x
        505s x
        508s x not ready
    "#]];
    serves(Serving::new(readiness(seconds(2), 1, 3), seconds(500), true), "xxx", expected);
}
