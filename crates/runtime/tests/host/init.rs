//! Containers whose first process is gantry's own.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use model::Exit;
use runtime::attach::{self, Frame};
use runtime::launch::Options;
use runtime::logs::Stream;

use super::{Attempt, Bed, Test, cgroups_named, handle, parent};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("an_init_reaps_what_nobody_else_does", an_init_reaps_what_nobody_else_does),
    ("an_init_passes_signals_on_and_ends_as_its_program", an_init_passes_signals_on_and_ends_as_its_program),
    ("an_init_hands_nothing_of_the_shims_out", an_init_hands_nothing_of_the_shims_out),
    ("an_oom_kill_is_seen_through_an_init", an_oom_kill_is_seen_through_an_init),
    ("an_init_may_do_what_its_user_may", an_init_may_do_what_its_user_may),
    ("a_terminal_is_the_programs_and_not_its_inits", a_terminal_is_the_programs_and_not_its_inits),
    ("an_init_that_may_not_do_its_work_ends", an_init_that_may_not_do_its_work_ends),
];

fn with_init(bed: &Bed, number: u64, script: &str) -> Attempt {
    bed.given(number, script, Options { init: true, ..Options::default() })
}

/// Fifty orphans that end at once. They are gone when hardly anything is left but the shell and what it counts with.
const ORPHANS: &str = "i=0; while [ $i -lt 50 ]; do (sleep 0.01 &); i=$((i+1)); done
    n=0; until [ $(ls -d /proc/[0-9]* | wc -l) -lt 20 ]; do
        n=$((n+1)); [ $n -lt 100 ] || break; sleep 0.05
    done
    ls -d /proc/[0-9]* | wc -l";

fn an_init_reaps_what_nobody_else_does(bed: &Bed) {
    let left: u32 = bed.said(&with_init(bed, 1, ORPHANS))[0].parse().unwrap();
    assert!(left < 20, "{left} processes are left");
    // A shell reaps only what it waits for: `exec` makes one that waits for nothing the first process.
    let without = bed.attempt(2, &format!("({ORPHANS}) & exec sleep 10"));
    bed.spawn(&without);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while without.lines(Stream::Stdout).is_empty() {
        assert!(std::time::Instant::now() < deadline, "nothing was counted");
        std::thread::yield_now();
    }
    let left: u32 = without.lines(Stream::Stdout)[0].parse().unwrap();
    assert!(left > 50, "without an init the dead are never buried: {left}");
}

fn an_init_passes_signals_on_and_ends_as_its_program(bed: &Bed) {
    let script = "trap 'echo bye; exit 3' TERM; trap 'echo hello' USR1; echo $$; echo ready; while true; do sleep 0.05; done";
    let attempt = with_init(bed, 1, script);
    bed.spawn(&attempt);
    attempt.hear("ready");
    assert_eq!(attempt.lines(Stream::Stdout)[0], "2", "the program is not the first process");
    handle::signal(&attempt.dir, libc::SIGUSR1).unwrap();
    attempt.hear("hello");
    handle::request_stop(&attempt.dir, libc::SIGTERM, Duration::from_secs(60)).unwrap();
    assert_eq!(attempt.end().exit, Exit::Code(3));

    // SIGRTMIN+3 has no name, and is what some images are stopped by.
    let attempt = with_init(bed, 5, "echo ready; exec sleep 1000");
    bed.spawn(&attempt);
    attempt.hear("ready");
    handle::request_stop(&attempt.dir, 37, Duration::from_secs(60)).unwrap();
    assert_eq!(attempt.end().exit, Exit::Code(128 + 37));

    // What a shell says of a process that a signal ended, as tini does.
    let attempt = with_init(bed, 2, "kill -9 $$");
    assert_eq!(bed.run(&attempt).exit, Exit::Code(137));
    let mut attempt = with_init(bed, 3, "");
    attempt.launch.args = vec!["/nosuch".to_owned()];
    assert!(bed.refusal(&attempt).contains("`/nosuch` is not in the image"));
    // Whoever ignores a stop is killed, with all that is left beside it.
    let attempt = with_init(bed, 4, "trap '' TERM; echo ready; while true; do sleep 0.05; done");
    bed.spawn(&attempt);
    attempt.hear("ready");
    handle::request_stop(&attempt.dir, libc::SIGTERM, Duration::from_millis(100)).unwrap();
    assert_eq!(attempt.end().exit, Exit::Signal { signal: 9, oom: false });
}

fn an_init_hands_nothing_of_the_shims_out(bed: &Bed) {
    let script = "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/comm
        readlink /proc/1/fd/1 || echo no descriptors
        readlink /proc/1/exe || echo no program
        cat /proc/1/environ 2> /dev/null || echo no environment
        grep -E '^(Seccomp|CapEff|CapBnd|NoNewPrivs):' /proc/1/status
        echo ready; sleep 1000";
    let attempt = with_init(bed, 1, script);
    bed.spawn(&attempt);
    attempt.hear("ready");
    let said = attempt.lines(Stream::Stdout);
    assert_eq!(said[0].trim_end(), "gantry-init");
    let expected = [
        "gantry-init",
        "no descriptors",
        "no program",
        "no environment",
        "CapBnd:\t00000000a80405fb",
        "CapEff:\t00000000a80405fb",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
    ];
    for line in expected {
        assert!(said[1..].iter().any(|found| found == line), "{line:?} is not in {said:#?}");
    }
    // From the node it can be seen.
    let init = attempt.running().pid;
    let mut descriptors: Vec<String> = fs::read_dir(format!("/proc/{init}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    descriptors.sort();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let group = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap().to_owned()
    };
    let members = cgroups_named(&attempt.launch.cgroup)
        .iter()
        .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
        .find(|members| members.lines().count() > 1)
        .unwrap();
    let child = members.lines().find(|member| parent(member.parse().unwrap()) == init).unwrap();
    assert_eq!(group(child), child, "the program leads a group of its own");
}

fn an_oom_kill_is_seen_through_an_init(bed: &Bed) {
    let mut attempt = with_init(bed, 1, "exec dd if=/dev/zero of=/dev/null bs=256M count=1");
    attempt.launch.limits.memory_bytes = Some(64 << 20);
    assert_eq!(bed.run(&attempt).exit, Exit::Signal { signal: 9, oom: true });
}

fn an_init_may_do_what_its_user_may(bed: &Bed) {
    // It gives up what it has while its program begins.
    let script = "until grep -q 'CapPrm:.*0000000000000000' /proc/1/status; do sleep 0.05; done
        grep -E '^(Uid|Cap(Inh|Prm|Eff|Bnd|Amb)):' /proc/1/status; echo ready; sleep 1000";
    let mut attempt = with_init(bed, 1, script);
    attempt.launch.user = Some("33".to_owned());
    bed.spawn(&attempt);
    attempt.hear("ready");
    let none = "0000000000000000";
    let sets = [("Inh", none), ("Prm", none), ("Eff", none), ("Bnd", "00000000a80405fb"), ("Amb", none)];
    let expected: Vec<String> = ["Uid:\t33\t33\t33\t33".to_owned()]
        .into_iter()
        .chain(sets.map(|(set, is)| format!("Cap{set}:\t{is}")))
        .collect();
    assert_eq!(attempt.lines(Stream::Stdout)[..expected.len()], expected);
    // It still reaches its program.
    handle::request_stop(&attempt.dir, libc::SIGTERM, Duration::from_secs(60)).unwrap();
    assert_eq!(attempt.end().exit, Exit::Code(128 + 15));
}

fn a_terminal_is_the_programs_and_not_its_inits(bed: &Bed) {
    let script = "trap 'echo interrupted; exit 5' INT; echo ready; while true; do sleep 0.05; done";
    let mut attempt = with_init(bed, 1, script);
    (attempt.launch.terminal, attempt.launch.stdin) = (true, true);
    bed.spawn(&attempt);
    attempt.hear("ready\r");
    let mut stream = attach::attach(&attempt.dir).unwrap().into_stream();
    // Ctrl-C, which the terminal makes a signal of, for who is in its foreground.
    stream.write_all(&Frame::Stdin(vec![3]).encode()).unwrap();
    assert_eq!(attempt.end().exit, Exit::Code(5));
    // After `^C`, which the terminal shows.
    assert!(attempt.lines(Stream::Stdout).last().unwrap().ends_with("interrupted\r"));
}

fn an_init_that_may_not_do_its_work_ends(bed: &Bed) {
    for (number, call) in (1..).zip(["rt_sigtimedwait", "wait4"]) {
        let profile = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["{call}"],"action":"SCMP_ACT_ERRNO"}}]}}"#
        );
        let mut attempt = with_init(bed, number, "exit 3");
        let capabilities = runtime::capability::granted(&attempt.launch.options.privileges).capabilities;
        attempt.launch.seccomp = bed.filters.find(Some(&profile), &capabilities).unwrap();
        assert_eq!(bed.run(&attempt).exit, Exit::Code(126), "{call}");
    }
}
