//! What is seen of a running container and done to it: pause, counters, attach, changes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use model::Exit;
use runtime::Limits;
use runtime::attach::{self, Attached, Frame, Frames};
use runtime::changes::changes;
use runtime::exec::WindowSize;
use runtime::handle::{self, Observed};
use runtime::launch::{Options, Output, Server, Syslog};
use runtime::logs::Stream;
use runtime::stats::{self, StatsError};

use crate::exec::{says, waiting};
use crate::{Attempt, Bed, Test, cgroups_named, until};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_paused_container_stands_still", a_paused_container_stands_still),
    ("a_paused_container_can_be_stopped", a_paused_container_can_be_stopped),
    ("a_paused_container_can_be_killed", a_paused_container_can_be_killed),
    ("a_paused_container_can_be_destroyed", a_paused_container_can_be_destroyed),
    (
        "a_container_that_is_paused_for_somebody_goes_on_without_them",
        a_container_that_is_paused_for_somebody_goes_on_without_them,
    ),
    ("counters_and_processes_are_the_containers", counters_and_processes_are_the_containers),
    ("who_is_attached_sees_output_and_gives_input", who_is_attached_sees_output_and_gives_input),
    ("who_does_not_keep_up_is_dropped", who_does_not_keep_up_is_dropped),
    ("who_is_attached_sees_output_wherever_it_goes", who_is_attached_sees_output_wherever_it_goes),
    ("a_container_with_a_terminal_is_used_through_it", a_container_with_a_terminal_is_used_through_it),
    ("changes_are_what_the_container_did", changes_are_what_the_container_did),
];

/// What the kernel says of the container's cgroup.
fn is_frozen(attempt: &Attempt) -> bool {
    let cgroups = cgroups_named(&attempt.launch.cgroup);
    let says = |file: &str, text: &str| {
        cgroups.iter().any(|dir| fs::read_to_string(dir.join(file)).is_ok_and(|found| found.trim() == text))
    };
    says("freezer.state", "FROZEN") || says("cgroup.freeze", "1")
}

fn a_paused_container_stands_still(bed: &Bed) {
    let attempt = bed.attempt(1, "trap 'echo asked' USR1; echo ready; while true; do sleep 0.05; done");
    bed.spawn(&attempt);
    attempt.hear("ready");
    assert!(!attempt.running().paused && !is_frozen(&attempt));
    handle::pause(&attempt.dir).unwrap();
    handle::pause(&attempt.dir).unwrap();
    assert!(attempt.running().paused && is_frozen(&attempt));
    // It arrives and is not acted on.
    handle::signal(&attempt.dir, libc::SIGUSR1).unwrap();
    assert_eq!(attempt.lines(Stream::Stdout), ["ready"]);
    assert!(stats::read(&attempt.dir).unwrap().pids > 0, "it can be looked at");
    handle::resume(&attempt.dir).unwrap();
    handle::resume(&attempt.dir).unwrap();
    assert!(!attempt.running().paused && !is_frozen(&attempt));
    attempt.hear("asked");
}

fn a_paused_container_can_be_stopped(bed: &Bed) {
    let attempt = bed.attempt(1, "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.05; done");
    bed.spawn(&attempt);
    attempt.hear("ready");
    handle::pause(&attempt.dir).unwrap();
    handle::request_stop(&attempt.dir, libc::SIGTERM, Duration::from_secs(60)).unwrap();
    assert_eq!(attempt.end().exit, Exit::Code(3));
    assert_eq!(attempt.lines(Stream::Stdout), ["ready", "bye"]);
}

fn a_paused_container_can_be_killed(bed: &Bed) {
    let attempt = waiting(bed);
    handle::pause(&attempt.dir).unwrap();
    handle::signal(&attempt.dir, libc::SIGKILL).unwrap();
    assert_eq!(attempt.end().exit, Exit::Signal { signal: 9, oom: false });
}

fn a_paused_container_can_be_destroyed(bed: &Bed) {
    let attempt = waiting(bed);
    handle::pause(&attempt.dir).unwrap();
    handle::destroy(&attempt.dir).unwrap();
    assert_eq!(handle::inspect(&attempt.dir).unwrap(), Observed::NotStarted);
    assert!(cgroups_named(&attempt.launch.cgroup).is_empty());
}

fn a_container_that_is_paused_for_somebody_goes_on_without_them(bed: &Bed) {
    let attempt = waiting(bed);
    let stands = || attempt.running().paused && is_frozen(&attempt);
    // Which is nothing to the container. When it is answered, the shim has seen who hung up before.
    let heard = || handle::signal(&attempt.dir, libc::SIGCHLD).unwrap();
    let one = handle::pause_while(&attempt.dir).unwrap();
    let other = handle::pause_while(&attempt.dir).unwrap();
    assert!(stands());
    drop(one);
    heard();
    assert!(stands(), "for the other one");
    drop(other);
    until("it goes on", || !attempt.running().paused && !is_frozen(&attempt));
    // What was paused before stays so.
    handle::pause(&attempt.dir).unwrap();
    drop(handle::pause_while(&attempt.dir).unwrap());
    heard();
    assert!(stands());
    handle::resume(&attempt.dir).unwrap();
    // And so does what somebody pauses meanwhile.
    let meanwhile = handle::pause_while(&attempt.dir).unwrap();
    handle::pause(&attempt.dir).unwrap();
    drop(meanwhile);
    heard();
    assert!(stands());
}

fn counters_and_processes_are_the_containers(bed: &Bed) {
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; echo counted; sleep 1000; true";
    let mut attempt = bed.attempt(1, script);
    attempt.launch.user = Some("33".to_owned());
    attempt.launch.limits = Limits { cpu_millis: None, memory_bytes: Some(64 << 20), pids: Some(50) };
    bed.spawn(&attempt);
    attempt.hear("counted");
    let is_child = |row: &stats::ProcessRow| row.command == "sleep 1000";
    until("its child runs, and is what it is to be", || {
        stats::processes(&attempt.dir).unwrap().iter().any(is_child)
    });
    let used = stats::read(&attempt.dir).unwrap();
    assert_eq!((used.memory_limit, used.pids_limit), (Some(64 << 20), Some(50)));
    assert!(used.cpu_nanos > 1_000_000, "{used:?}");
    assert!(used.cpu_user_nanos + used.cpu_system_nanos > 0, "{used:?}");
    assert!(used.memory_bytes > 0 && used.memory_bytes < 64 << 20, "{used:?}");
    assert_eq!((used.rx_bytes, used.tx_bytes, used.oom_kills), (0, 0, 0), "it has no network");

    let rows = stats::processes(&attempt.dir).unwrap();
    let shown: Vec<(u32, &str)> = rows.iter().map(|row| (row.uid, row.command.as_str())).collect();
    assert_eq!(shown, [(33, format!("sh -c {script}").as_str()), (33, "sleep 1000")]);
    assert_eq!((rows[0].pid, rows[0].node_pid), (1, attempt.running().pid.cast_unsigned()));
    assert!(rows[0].memory > 0 && rows[0].elapsed < Duration::from_secs(600), "{rows:?}");

    handle::signal(&attempt.dir, libc::SIGKILL).unwrap();
    attempt.end();
    assert!(matches!(stats::read(&attempt.dir), Err(StatsError::NotRunning { .. })));
}

/// One who is attached.
pub(crate) struct Onlooker {
    stream: UnixStream,
    frames: Frames,
    pub(crate) stdout: String,
    stderr: String,
    pub(crate) exit: Option<Exit>,
}

impl Onlooker {
    pub(crate) fn of(attempt: &Attempt) -> Self {
        Self::by(attach::attach(&attempt.dir).unwrap())
    }

    pub(crate) fn by(attached: Attached) -> Self {
        let stream = attached.into_stream();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (stdout, stderr) = (String::new(), String::new());
        Self { stream, frames: Frames::default(), stdout, stderr, exit: None }
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.encode()).unwrap();
    }

    /// Reads until `is_enough`, or the end; true in the former case.
    pub(crate) fn read(&mut self, is_enough: impl Fn(&Self) -> bool) -> bool {
        while !is_enough(self) {
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            if count == 0 {
                return false;
            }
            for frame in self.frames.feed(&bytes[..count]).unwrap() {
                match frame {
                    Frame::Stdout(text) => self.stdout.push_str(&String::from_utf8(text).unwrap()),
                    Frame::Stderr(text) => self.stderr.push_str(&String::from_utf8(text).unwrap()),
                    Frame::Exit(exit) => self.exit = Some(exit),
                    other => panic!("{other:?}"),
                }
            }
        }
        true
    }
}

fn who_is_attached_sees_output_and_gives_input(bed: &Bed) {
    let script =
        "echo before; while read line; do echo got $line; echo err $line >&2; done; echo end; exit 4";
    let mut attempt = bed.attempt(1, script);
    attempt.launch.stdin = true;
    bed.spawn(&attempt);
    attempt.hear("before");
    let attached = attach::attach(&attempt.dir).unwrap();
    assert!(attached.takes_input() && !attached.is_terminal());
    drop(attached);
    let (mut one, mut other) = (Onlooker::of(&attempt), Onlooker::of(&attempt));
    one.send(&Frame::Stdin(b"first\nsec".to_vec()));
    one.send(&Frame::Stdin(b"ond\n".to_vec()));
    assert!(one.read(|seen| seen.stdout.ends_with("got second\n")));
    other.send(&Frame::Stdin(b"third\n".to_vec()));
    assert!(other.read(|seen| seen.stdout.ends_with("got third\n")));
    other.send(&Frame::CloseStdin);
    for onlooker in [&mut one, &mut other] {
        assert!(onlooker.read(|seen| seen.exit.is_some()));
        assert_eq!(onlooker.stdout, "got first\ngot second\ngot third\nend\n", "and nothing from before");
        assert_eq!(onlooker.stderr, "err first\nerr second\nerr third\n");
        assert_eq!(onlooker.exit, Some(Exit::Code(4)));
    }
    assert_eq!(attempt.end().exit, Exit::Code(4));
    let logged = ["before", "got first", "got second", "got third", "end"];
    assert_eq!(attempt.lines(Stream::Stdout), logged, "the log has it too");
    assert!(matches!(attach::attach(&attempt.dir), Err(attach::AttachError::NotRunning { .. })));
}

fn who_does_not_keep_up_is_dropped(bed: &Bed) {
    let script = "while [ ! -e /go ]; do sleep 0.05; done
        echo on it goes; head -c 4000000 /dev/zero; echo; echo all said";
    let attempt = bed.attempt(1, script);
    bed.spawn(&attempt);
    let mut sleeper = Onlooker::of(&attempt);
    assert!(!attach::attach(&attempt.dir).unwrap().takes_input());
    says(&attempt, ": > /go");
    assert_eq!(attempt.end().exit, Exit::Code(0), "it is held up by nobody");
    assert_eq!(attempt.lines(Stream::Stdout).last().unwrap(), "all said");
    assert!(!sleeper.read(|seen| seen.exit.is_some()), "it is not told an end of which it missed a part");
    assert!(sleeper.stdout.starts_with("on it goes\n\0"), "and has what came before");
}

fn who_is_attached_sees_output_wherever_it_goes(bed: &Bed) {
    let socket = bed.dir.join("syslog");
    let server = UnixDatagram::bind(&socket).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (tag, hostname) = ("web".to_owned(), "n1".to_owned());
    let syslog = Syslog { server: Server::Unix(socket), facility: 3, tag, hostname };
    for (number, output) in (1..).zip([Output::Discard, Output::Syslog(syslog)]) {
        let is_logged = output != Output::Discard;
        let script = "while read line; do echo got $line; done; exit 4";
        let mut attempt = bed.given(number, script, Options { output, ..Options::default() });
        attempt.launch.stdin = true;
        bed.spawn(&attempt);
        let mut onlooker = Onlooker::of(&attempt);
        onlooker.send(&Frame::Stdin(b"it\n".to_vec()));
        assert!(onlooker.read(|seen| seen.stdout == "got it\n"));
        onlooker.send(&Frame::CloseStdin);
        assert!(onlooker.read(|seen| seen.exit == Some(Exit::Code(4))));
        attempt.end();
        assert_eq!(attempt.dir.join("log").exists(), is_logged);
    }
    let mut message = [0; 512];
    let length = server.recv(&mut message).unwrap();
    assert!(message[..length].ends_with(b" n1 web - - - got it\n"));
}

fn a_container_with_a_terminal_is_used_through_it(bed: &Bed) {
    let script = "tty; echo $TERM; read line; stty size; echo got $line; echo by name > /dev/console; \
                  echo err >&2; echo done > $(tty); exit 6";
    let mut attempt = bed.attempt(1, script);
    attempt.launch.user = Some("0".to_owned());
    attempt.launch.terminal = true;
    attempt.launch.stdin = true;
    bed.spawn(&attempt);
    attempt.hear("xterm\r");
    let mut onlooker = Onlooker::of(&attempt);
    assert!(attach::attach(&attempt.dir).unwrap().is_terminal());
    onlooker.send(&Frame::Resize(WindowSize { rows: 40, columns: 120 }));
    onlooker.send(&Frame::Stdin(b"hello\n".to_vec()));
    assert!(onlooker.read(|seen| seen.exit.is_some()));
    let seen = "hello\r\n40 120\r\ngot hello\r\nby name\r\nerr\r\ndone\r\n";
    assert_eq!((onlooker.stdout.as_str(), onlooker.stderr.as_str()), (seen, ""));
    assert_eq!(onlooker.exit, Some(Exit::Code(6)));
    attempt.end();
    let said = attempt.lines(Stream::Stdout);
    assert_eq!(said[..2], ["/dev/pts/0\r", "xterm\r"]);
    assert_eq!(said.last().unwrap(), "done\r");
}

fn changes_are_what_the_container_did(bed: &Bed) {
    for name in ["which", "kept", "var/log/old", "var/log/both"] {
        let path = bed.dir.join("busybox").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let script = "rm /which; echo more >> /kept; mkdir /made; echo x > /made/file; cat /var/log/both > /made/copy
        rm -r /var/log; mkdir /var/log; echo new > /var/log/both; ln -s /etc/shadow /link; echo done; sleep 1000";
    let mut attempt = bed.attempt(1, script);
    attempt.launch.files = BTreeMap::from([("/etc/hosts".into(), "10.0.0.1 box\n".to_owned())]);
    bed.spawn(&attempt);
    attempt.hear("done");
    let shown = |dir: &Path| -> Vec<String> {
        let changes = changes(dir).unwrap();
        changes.iter().map(|change| format!("{:?} {}", change.kind, change.path.display())).collect()
    };
    let expected = [
        "Changed /kept",
        "Added /link",
        "Added /made",
        "Added /made/copy",
        "Added /made/file",
        "Changed /var",
        "Changed /var/log",
        "Changed /var/log/both",
        "Deleted /var/log/old",
        "Deleted /which",
    ];
    assert_eq!(shown(&attempt.dir), expected);
    handle::signal(&attempt.dir, libc::SIGKILL).unwrap();
    attempt.end();
    assert_eq!(shown(&attempt.dir), expected, "also when it has ended");
}
