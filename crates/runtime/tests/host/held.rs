//! Containers whose program waits for the first client that attaches.

use std::time::Duration;

use model::Exit;
use runtime::attach::{self, Frame};
use runtime::exec::{self, Fault, WindowSize};
use runtime::handle::{self, Observed, RequestError};
use runtime::logs::Stream;
use runtime::{Options, stats};

use crate::exec::{says, sh};
use crate::running::Onlooker;
use crate::{Attempt, Bed, Test, cgroups_named};

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "a_held_container_starts_with_its_first_client_who_misses_nothing",
        a_held_container_starts_with_its_first_client_who_misses_nothing,
    ),
    (
        "a_held_container_starts_by_itself_when_nobody_comes",
        a_held_container_starts_by_itself_when_nobody_comes,
    ),
    ("a_held_container_can_be_ended_in_every_way", a_held_container_can_be_ended_in_every_way),
    (
        "a_held_container_that_is_paused_starts_when_it_is_resumed",
        a_held_container_that_is_paused_starts_when_it_is_resumed,
    ),
    (
        "a_client_whom_a_container_was_held_for_is_waited_for",
        a_client_whom_a_container_was_held_for_is_waited_for,
    ),
    (
        "a_held_terminal_has_the_size_of_its_client_from_the_start",
        a_held_terminal_has_the_size_of_its_client_from_the_start,
    ),
];

/// Longer than any of these tests takes.
const HOUR: Duration = Duration::from_secs(3600);

fn attempt(bed: &Bed, number: u64, script: &str, time: Duration) -> Attempt {
    let hold_ms = Some(u64::try_from(time.as_millis()).unwrap());
    let mut attempt = bed.given(number, script, Options { hold_ms, ..Options::default() });
    attempt.launch.stdin = true;
    attempt
}

fn held(bed: &Bed, number: u64, script: &str) -> Attempt {
    let attempt = attempt(bed, number, script, HOUR);
    let observed = bed.spawn(&attempt);
    assert!(matches!(observed, Observed::Running(_)), "to everybody else it runs: {observed:?}");
    attempt
}

fn a_held_container_starts_with_its_first_client_who_misses_nothing(bed: &Bed) {
    let script = "echo first; while read line; do echo got $line; done; echo end; exit 4";
    let attempt = held(bed, 1, script);
    assert_eq!(stats::read(&attempt.dir).unwrap().pids, 1);
    let refused = exec::start(&attempt.dir, &sh("true")).unwrap_err();
    assert_eq!(refused.fault(), Fault::NotRunning, "{refused}");
    match handle::signal(&attempt.dir, libc::SIGUSR1) {
        Err(RequestError::Refused { why, .. }) => assert!(why.contains("is not running yet"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(attempt.lines(Stream::Stdout), Vec::<String>::new());

    let mut patron = Onlooker::of(&attempt);
    patron.send(&Frame::Stdin(b"a\n".to_vec()));
    assert!(patron.read(|seen| seen.stdout == "first\ngot a\n"));
    assert_eq!(says(&attempt, "echo here"), "here\n");
    // Others come and go.
    drop(Onlooker::of(&attempt));
    patron.send(&Frame::Stdin(b"b\n".to_vec()));
    assert!(patron.read(|seen| seen.stdout.ends_with("got b\n")));
    drop(patron);
    assert_eq!(attempt.end().exit, Exit::Code(4), "its input ends with the client for whom it was held");
    assert_eq!(attempt.lines(Stream::Stdout), ["first", "got a", "got b", "end"]);
}

fn a_held_container_starts_by_itself_when_nobody_comes(bed: &Bed) {
    let attempt = attempt(bed, 1, "echo alone", Duration::from_millis(200));
    assert_eq!(bed.said(&attempt), ["alone"]);
}

fn a_held_container_can_be_ended_in_every_way(bed: &Bed) {
    let ends: [fn(&Attempt); 2] = [
        |attempt| handle::request_stop(&attempt.dir, libc::SIGTERM, HOUR).unwrap(),
        |attempt| handle::signal(&attempt.dir, libc::SIGKILL).unwrap(),
    ];
    for (number, end) in (1..).zip(ends) {
        let attempt = held(bed, number, "echo started");
        end(&attempt);
        assert_eq!(attempt.end().exit, Exit::Signal { signal: 9, oom: false });
        assert_eq!(attempt.lines(Stream::Stdout), Vec::<String>::new(), "it never ran");
    }
    let attempt = held(bed, 9, "echo started");
    handle::destroy(&attempt.dir).unwrap();
    assert_eq!(handle::inspect(&attempt.dir).unwrap(), Observed::NotStarted);
    assert!(cgroups_named(&attempt.launch.cgroup).is_empty());
}

fn a_held_container_that_is_paused_starts_when_it_is_resumed(bed: &Bed) {
    let attempt = held(bed, 1, "echo first; exit 3");
    handle::pause(&attempt.dir).unwrap();
    let mut patron = Onlooker::of(&attempt);
    assert_eq!(attempt.lines(Stream::Stdout), Vec::<String>::new());
    assert!(attempt.running().paused);
    handle::resume(&attempt.dir).unwrap();
    assert!(patron.read(|seen| seen.exit.is_some()));
    assert_eq!((patron.stdout.as_str(), patron.exit), ("first\n", Some(Exit::Code(3))));
}

fn a_client_whom_a_container_was_held_for_is_waited_for(bed: &Bed) {
    let attempt = held(bed, 1, "head -c 4000000 /dev/zero; echo all said");
    let mut patron = Onlooker::of(&attempt);
    // One who only looks on does not keep up, and is dropped.
    let _onlooker = Onlooker::of(&attempt);
    assert!(patron.read(|seen| seen.exit.is_some()), "it is told the end");
    assert_eq!(patron.exit, Some(Exit::Code(0)));
    assert_eq!(patron.stdout.len(), 4_000_000 + "all said\n".len());
}

fn a_held_terminal_has_the_size_of_its_client_from_the_start(bed: &Bed) {
    let mut attempt = attempt(bed, 1, "stty size", HOUR);
    attempt.launch.terminal = true;
    bed.spawn(&attempt);
    let size = WindowSize { rows: 40, columns: 120 };
    let mut patron = Onlooker::by(attach::attach_with_size(&attempt.dir, size).unwrap());
    assert!(patron.read(|seen| seen.exit.is_some()));
    assert_eq!(patron.stdout, "40 120\r\n");
}
