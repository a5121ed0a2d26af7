//! Other processes in a running container.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::Duration;

use model::Exit;
use runtime::exec::{self, Exec, ExecError, Fault, Io, Session, WindowSize};
use runtime::handle::{self, Observed};
use runtime::launch::{Capabilities, Options, Privileges, Shared, Ulimit};
use runtime::stats;

use crate::{Attempt, Bed, Test, cgroups_named, is_dead, kill, parent, until};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("exec_prints_and_passes_its_exit_on", exec_prints_and_passes_its_exit_on),
    ("a_command_that_cannot_be_run_is_told_apart", a_command_that_cannot_be_run_is_told_apart),
    ("a_command_is_who_and_where_it_is_asked_to_be", a_command_is_who_and_where_it_is_asked_to_be),
    (
        "a_command_has_no_user_or_place_that_the_container_has_not",
        a_command_has_no_user_or_place_that_the_container_has_not,
    ),
    ("a_command_is_confined_like_its_container", a_command_is_confined_like_its_container),
    ("a_command_has_what_its_container_was_given", a_command_has_what_its_container_was_given),
    ("a_command_is_where_its_container_is", a_command_is_where_its_container_is),
    ("a_command_in_a_terminal_is_resized", a_command_in_a_terminal_is_resized),
    ("a_terminal_belongs_to_its_user", a_terminal_belongs_to_its_user),
    ("input_reaches_a_command_to_its_end", input_reaches_a_command_to_its_end),
    ("a_command_goes_with_its_client", a_command_goes_with_its_client),
    ("a_command_goes_with_its_minder", a_command_goes_with_its_minder),
    ("twenty_commands_leave_nothing", twenty_commands_leave_nothing),
    ("a_long_command_line_arrives", a_long_command_line_arrives),
    ("a_command_goes_with_its_container", a_command_goes_with_its_container),
    ("a_paused_container_takes_no_command", a_paused_container_takes_no_command),
    ("a_container_that_replaces_its_files_gains_nothing", a_container_that_replaces_its_files_gains_nothing),
];

/// A container that waits.
pub(crate) fn waiting(bed: &Bed) -> Attempt {
    let attempt = bed.attempt(1, "exec sleep 1000");
    assert!(matches!(bed.spawn(&attempt), Observed::Running(_)));
    attempt
}

pub(crate) fn sh(script: &str) -> Exec {
    Exec { args: ["sh", "-c", script].map(str::to_owned).to_vec(), ..Exec::default() }
}

fn text(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

/// Runs it to its end: how it ended, and what it printed.
pub(crate) fn ran(attempt: &Attempt, exec: &Exec) -> (Exit, String, String) {
    let Session { io, process } = exec::start(&attempt.dir, exec).unwrap();
    let Io::Pipes { stdin, stdout, stderr } = io else { panic!("{io:?}") };
    drop(stdin);
    let (stdout, stderr) = (text(stdout), text(stderr));
    (process.wait().unwrap(), stdout, stderr)
}

pub(crate) fn says(attempt: &Attempt, script: &str) -> String {
    let (exit, stdout, stderr) = ran(attempt, &sh(script));
    assert_eq!((exit, stderr.as_str()), (Exit::Code(0), ""), "{stdout}");
    stdout
}

fn refused(attempt: &Attempt, exec: &Exec) -> ExecError {
    exec::start(&attempt.dir, exec).unwrap_err()
}

fn exec_prints_and_passes_its_exit_on(bed: &Bed) {
    let attempt = waiting(bed);
    let (exit, stdout, stderr) = ran(&attempt, &sh("echo out; echo err >&2; exit 7"));
    assert_eq!((exit, stdout.as_str(), stderr.as_str()), (Exit::Code(7), "out\n", "err\n"));
    let (exit, ..) = ran(&attempt, &sh("kill -9 $$"));
    assert_eq!(exit, Exit::Signal { signal: 9, oom: false });
    assert_eq!(
        attempt.lines(runtime::logs::Stream::Stdout),
        Vec::<String>::new(),
        "the log is the container's"
    );
}

fn a_command_that_cannot_be_run_is_told_apart(bed: &Bed) {
    for (name, mode, content) in [("plain", 0o644, "#!/bin/sh\n"), ("no-program", 0o755, "neither\n")] {
        let path = bed.dir.join("busybox").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let attempt = waiting(bed);
    for (program, fault, why) in [
        ("nosuch", Fault::NoProgram, "`nosuch` is not in the image's PATH"),
        ("/bin/nosuch", Fault::NoProgram, "`/bin/nosuch` is not in the image"),
        ("/plain", Fault::NotExecutable, "`/plain` is a directory or not executable"),
        ("/bin", Fault::NotExecutable, "`/bin` is a directory or not executable"),
        ("/no-program", Fault::NotExecutable, "cannot execute /no-program"),
    ] {
        let error = refused(&attempt, &Exec { args: vec![program.to_owned()], ..Exec::default() });
        assert_eq!(error.fault(), fault, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(says(&attempt, "echo still there"), "still there\n");
}

fn a_command_is_who_and_where_it_is_asked_to_be(bed: &Bed) {
    fs::create_dir(bed.dir.join("busybox/etc")).unwrap();
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n";
    fs::write(bed.dir.join("busybox/etc/passwd"), passwd).unwrap();
    fs::write(bed.dir.join("busybox/etc/group"), "logs:x:50:web\n").unwrap();
    let mut attempt = bed.attempt(1, "sleep 1000");
    attempt.launch.user = Some("web".to_owned());
    attempt.launch.cwd = "/srv/data".to_owned();
    attempt.launch.env = vec!["COLOUR=blue".to_owned(), "PATH=/bin:/opt".to_owned()];
    bed.spawn(&attempt);

    let who =
        "id -u; id -G; pwd; echo $HOME $COLOUR $SIZE $PATH $HOSTNAME; echo through a name > /dev/stdout";
    let own = "33\n34 50\n/srv/data\n/var/www blue /bin:/opt box\nthrough a name\n";
    assert_eq!(says(&attempt, who), own, "like the container's first process");
    let asked = Exec {
        user: Some("root".to_owned()),
        cwd: Some("/bin".to_owned()),
        env: vec!["COLOUR=red".to_owned(), "SIZE=10".to_owned()],
        ..sh(who)
    };
    let (exit, stdout, stderr) = ran(&attempt, &asked);
    assert_eq!((exit, stderr.as_str()), (Exit::Code(0), ""));
    assert_eq!(stdout, "0\n0\n/bin\n/root red 10 /bin:/opt box\nthrough a name\n");
    let (_, stdout, _) = ran(&attempt, &Exec { user: Some("7:8".to_owned()), ..sh("id -u; id -g") });
    assert_eq!(stdout, "7\n8\n");
}

fn a_command_has_no_user_or_place_that_the_container_has_not(bed: &Bed) {
    let attempt = waiting(bed);
    let error = refused(&attempt, &Exec { user: Some("nosuch".to_owned()), ..sh("true") });
    assert!(matches!(error, ExecError::NoSuchUser { .. }), "{error}");
    assert_eq!(error.to_string(), "user `nosuch` is not in the image's /etc/passwd");
    // CVE-2024-21626, as it is written and as the container can hide it.
    says(&attempt, "ln -s /proc/self/fd/3 /away; ln -s /proc/1/cwd /there");
    let mut places =
        ["/nowhere", "bin", "/bin/sh", "/away", "/there", "/proc/self/cwd"].map(str::to_owned).to_vec();
    places.extend((0..12).map(|fd| format!("/proc/self/fd/{fd}")));
    for place in places {
        let error = refused(&attempt, &Exec { cwd: Some(place.clone()), ..sh("pwd") });
        assert!(matches!(error, ExecError::WorkingDir { .. }), "{place}: {error}");
        assert!(error.to_string().contains(&place), "{error}");
    }
}

/// What of a process's status is to be the same as in the container's first one.
const CONFINED: &str = "^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Seccomp_filters|SigBlk):";

fn a_command_is_confined_like_its_container(bed: &Bed) {
    let attempt = waiting(bed);
    let status = |of: &str| says(&attempt, &format!("grep -E '{CONFINED}' /proc/{of}/status"));
    assert_eq!(status("self"), status("1"));
    assert!(status("self").contains("CapEff:\t00000000a80405fb"), "{}", status("self"));
    let places = |of: &str| {
        let links = format!("for n in mnt pid net uts ipc cgroup; do readlink /proc/{of}/ns/$n; done");
        says(&attempt, &format!("{links}; cat /proc/{of}/cgroup"))
    };
    assert_eq!(places("self"), places("1"));
    assert_eq!(places("self").matches('[').count(), 6);
    assert_eq!(
        says(&attempt, "ls /proc/self/fd"),
        "0\n1\n2\n3\n",
        "the fourth is the directory that is being listed"
    );
    assert_eq!(
        says(&attempt, "unshare -m true 2> /dev/null || echo no new namespaces"),
        "no new namespaces\n"
    );

    let web =
        Exec { user: Some("33".to_owned()), ..sh("grep -E '^(CapPrm|CapEff|Seccomp):' /proc/self/status") };
    let none = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nSeccomp:\t2\n";
    assert_eq!(ran(&attempt, &web).1, none);

    let (_, status, _) = ran(&attempt, &Exec { privileged: true, ..sh("cat /proc/self/status") });
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let shims = fs::read_to_string(format!("/proc/{}/status", parent(attempt.running().pid))).unwrap();
    let all = shims.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim();
    assert_eq!((field("CapEff:").as_str(), field("CapBnd:").as_str()), (all, all));
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2", "as in Docker, no filter is lifted");
}

fn a_command_has_what_its_container_was_given(bed: &Bed) {
    let named = |name: &str| Capabilities { all: false, named: [name.parse().unwrap()].into() };
    let limit = |resource, soft| Ulimit { resource, soft: Some(soft), hard: Some(2 * soft) };
    let options = Options {
        init: true,
        read_only: true,
        groups: vec!["7".to_owned()],
        oom_score_adj: Some(321),
        ulimits: vec![
            limit(model::Ulimit::Nofile, 64),
            limit(model::Ulimit::Fsize, 4096),
            limit(model::Ulimit::Core, 0),
        ],
        privileges: Privileges {
            add: named("NET_ADMIN"),
            drop: named("CHOWN"),
            no_new_privileges: true,
            ..Privileges::default()
        },
        ..Options::default()
    };
    let attempt = bed.given(1, "echo ready; exec sleep 1000", options);
    bed.spawn(&attempt);
    attempt.hear("ready");
    // The second process is the program; the first is its init.
    for file in ["limits", "oom_score_adj"] {
        let own = says(&attempt, &format!("cat /proc/self/{file}"));
        assert_eq!(own, says(&attempt, &format!("cat /proc/2/{file}")), "{file}");
    }
    let status = |of: &str| says(&attempt, &format!("grep -E '{CONFINED}' /proc/{of}/status"));
    assert_eq!(status("self"), status("2"));
    let status = status("self");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("CapEff:\t00000000a80415fa"), "{status}");
    assert_eq!(says(&attempt, "cat /proc/self/oom_score_adj; id -G"), "321\n0 7\n");
    assert_eq!(says(&attempt, "(: > /file) 2> /dev/null || echo read-only"), "read-only\n");
    // As another user it is in the container's further groups, too.
    let (_, stdout, _) = ran(&attempt, &Exec { user: Some("33:34".to_owned()), ..sh("id -G") });
    assert_eq!(stdout, "34 7\n");
}

fn a_command_is_where_its_container_is(bed: &Bed) {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let nodes =
        kinds.map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string());
    let script = format!("for kind in {}; do readlink /proc/self/ns/$kind; done", kinds.join(" "));
    let shared = Shared { ipc: true, pid: true, uts: true, cgroup: true };
    let attempt = bed.given(1, "exec sleep 1000", Options { shared, ..Options::default() });
    bed.spawn(&attempt);
    let said = says(&attempt, &script);
    let is_nodes: Vec<bool> = said.lines().zip(&nodes).map(|(own, nodes)| own == nodes).collect();
    assert_eq!(is_nodes, [true, true, false, false, true, true], "{said}");
    // Nothing ends with the first process by itself there.
    let Session { process, io: _io } = exec::start(&attempt.dir, &sh("exec sleep 77")).unwrap();
    let command = one_named(&attempt, "sleep 77");
    handle::signal(&attempt.dir, libc::SIGKILL).unwrap();
    assert_eq!(process.wait().unwrap(), Exit::Signal { signal: 9, oom: false });
    attempt.end();
    assert!(is_dead(command));
    assert_eq!(cgroups_named(&attempt.launch.cgroup), Vec::<PathBuf>::new());
}

/// Reads from a terminal until it has said something; all that it said.
fn hear(master: &mut File, text: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(text) {
        let mut bytes = [0; 256];
        match master.read(&mut bytes) {
            Ok(count) => heard.push_str(&String::from_utf8_lossy(&bytes[..count])),
            Err(error) => panic!("{error} instead of {text:?} after {heard:?}"),
        }
    }
    heard
}

fn in_terminal(attempt: &Attempt, exec: Exec) -> (File, exec::Process) {
    let exec = Exec { terminal: Some(WindowSize { rows: 24, columns: 80 }), ..exec };
    let Session { io, process } = exec::start(&attempt.dir, &exec).unwrap();
    let Io::Terminal(master) = io else { panic!("{io:?}") };
    (File::from(master), process)
}

fn a_command_in_a_terminal_is_resized(bed: &Bed) {
    let attempt = waiting(bed);
    let script = "tty; stty size; echo $TERM; read line; stty size; echo got $line; exit 5";
    let (mut master, process) = in_terminal(&attempt, sh(script));
    assert_eq!(hear(&mut master, "xterm\r\n"), "/dev/pts/0\r\n24 80\r\nxterm\r\n");
    exec::resize(master.as_fd(), WindowSize { rows: 50, columns: 132 }).unwrap();
    master.write_all(b"hello\n").unwrap();
    assert_eq!(hear(&mut master, "got hello\r\n"), "hello\r\n50 132\r\ngot hello\r\n");
    assert_eq!(process.wait().unwrap(), Exit::Code(5));
    // Ctrl-C is the terminal's to deliver.
    let (mut master, process) = in_terminal(&attempt, sh("echo ready; sleep 1000"));
    hear(&mut master, "ready");
    master.write_all(&[3]).unwrap();
    assert_eq!(process.wait().unwrap(), Exit::Signal { signal: 2, oom: false });
}

fn a_terminal_belongs_to_its_user(bed: &Bed) {
    let attempt = waiting(bed);
    let exec = Exec { user: Some("33".to_owned()), ..sh("echo by its name > $(tty); echo done") };
    let (mut master, process) = in_terminal(&attempt, exec);
    assert_eq!(hear(&mut master, "done\r\n"), "by its name\r\ndone\r\n");
    assert_eq!(process.wait().unwrap(), Exit::Code(0));
}

fn input_reaches_a_command_to_its_end(bed: &Bed) {
    let attempt = waiting(bed);
    let cat = Exec { args: vec!["cat".to_owned()], stdin: true, ..Exec::default() };
    let Session { io, process } = exec::start(&attempt.dir, &cat).unwrap();
    let Io::Pipes { stdin: Some(stdin), stdout, .. } = io else { panic!("{io:?}") };
    let much = "0123456789abcdef".repeat(64 << 10);
    let sent = much.clone();
    let writer = std::thread::spawn(move || File::from(stdin).write_all(sent.as_bytes()).unwrap());
    assert!(text(stdout) == much);
    writer.join().unwrap();
    assert_eq!(process.wait().unwrap(), Exit::Code(0));
    // Without input there is none to wait for.
    let (exit, stdout, _) = ran(&attempt, &Exec { stdin: false, ..cat });
    assert_eq!((exit, stdout.as_str()), (Exit::Code(0), ""));
}

/// The process of this command line, when it is there.
fn one_named(attempt: &Attempt, command: &str) -> i32 {
    until(&format!("{command} runs"), || !named(attempt, command).is_empty());
    named(attempt, command)[0]
}

/// The processes of a container by their command lines, as their ids on the node.
fn named(attempt: &Attempt, command: &str) -> Vec<i32> {
    let rows = stats::processes(&attempt.dir).unwrap().into_iter();
    rows.filter(|row| row.command == command).map(|row| row.node_pid.cast_signed()).collect()
}

fn a_command_goes_with_its_client(bed: &Bed) {
    let attempt = waiting(bed);
    // A pipeline is one group of processes, and goes as one.
    let session = exec::start(&attempt.dir, &sh("sleep 77 | sleep 78")).unwrap();
    let (one, other) = (one_named(&attempt, "sleep 77"), one_named(&attempt, "sleep 78"));
    drop(session);
    until("both are dead", || is_dead(one) && is_dead(other));
    assert_eq!(says(&attempt, "echo still there"), "still there\n");
}

fn a_command_goes_with_its_minder(bed: &Bed) {
    let attempt = waiting(bed);
    let Session { process, io: _io } = exec::start(&attempt.dir, &sh("exec sleep 77")).unwrap();
    let command = one_named(&attempt, "sleep 77");
    let minder = parent(command);
    assert_eq!(parent(minder), parent(attempt.running().pid), "the shim has forked it");
    kill(minder);
    assert!(matches!(process.wait(), Err(ExecError::Lost)));
    until("the command is dead", || is_dead(command));
}

/// What a shim holds: its children, its descriptors, and what it has laid out for commands.
fn holdings(attempt: &Attempt) -> (BTreeSet<String>, usize, usize) {
    let shim = parent(attempt.running().pid);
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let count = |path: PathBuf| fs::read_dir(path).map_or(0, Iterator::count);
    let descriptors = count(format!("/proc/{shim}/fd").into());
    // The bundle is in the shim's own mount namespace.
    let laid_out = count(format!("/proc/{shim}/root{}/bundle/execs", attempt.dir.display()).into());
    (children.split_whitespace().map(str::to_owned).collect(), descriptors, laid_out)
}

fn twenty_commands_leave_nothing(bed: &Bed) {
    let attempt = waiting(bed);
    assert_eq!(says(&attempt, "true"), "");
    until("the first one's minder is reaped", || holdings(&attempt).0.len() == 1);
    let before = (holdings(&attempt), stats::processes(&attempt.dir).unwrap().len());
    // Of all kinds: ended, killed, never begun, and many at once.
    let sessions: Vec<Session> =
        (0..5).map(|_| exec::start(&attempt.dir, &sh("sleep 1000")).unwrap()).collect();
    let terminals: Vec<(File, exec::Process)> =
        (0..5).map(|_| in_terminal(&attempt, sh("sleep 1000"))).collect();
    for _ in 0..5 {
        assert_eq!(says(&attempt, "echo ended"), "ended\n");
        refused(&attempt, &Exec { args: vec!["nosuch".to_owned()], ..Exec::default() });
    }
    drop((sessions, terminals));
    until("nothing is left", || {
        (holdings(&attempt), stats::processes(&attempt.dir).unwrap().len()) == before
    });
    assert!(matches!(handle::inspect(&attempt.dir).unwrap(), Observed::Running(_)), "its shim has its lock");
}

fn a_long_command_line_arrives(bed: &Bed) {
    let attempt = waiting(bed);
    let mut exec = sh("echo $#");
    exec.args.extend(std::iter::repeat_n("x".repeat(1000), 200));
    // The first of them is `$0`.
    assert_eq!(ran(&attempt, &exec).1, "199\n");
}

fn a_command_goes_with_its_container(bed: &Bed) {
    let attempt = waiting(bed);
    let init = attempt.running().pid;
    let shim = parent(init);
    let Session { process, io: _io } = exec::start(&attempt.dir, &sh("exec sleep 77")).unwrap();
    let (mut master, in_terminal) = in_terminal(&attempt, sh("echo ready; sleep 1000"));
    hear(&mut master, "ready");
    let minder = parent(one_named(&attempt, "sleep 77"));
    handle::signal(&attempt.dir, libc::SIGKILL).unwrap();
    assert_eq!(process.wait().unwrap(), Exit::Signal { signal: 9, oom: false });
    assert_eq!(in_terminal.wait().unwrap(), Exit::Signal { signal: 9, oom: false });
    let exited = attempt.end();
    assert_eq!((exited.exit, exited.reason), (Exit::Signal { signal: 9, oom: false }, None));
    assert_eq!(cgroups_named(&attempt.launch.cgroup), Vec::<PathBuf>::new());
    assert!(is_dead(minder), "it is seen off before the end is recorded");
    until("the shim has ended", || is_dead(shim));
    let error = refused(&attempt, &sh("true"));
    assert!(matches!(error, ExecError::NotRunning { .. }), "{error}");
    assert_eq!(error.fault(), Fault::NotRunning);
}

fn a_paused_container_takes_no_command(bed: &Bed) {
    let attempt = waiting(bed);
    handle::pause(&attempt.dir).unwrap();
    let error = refused(&attempt, &sh("true"));
    assert!(matches!(error, ExecError::Paused { .. }), "{error}");
    handle::resume(&attempt.dir).unwrap();
    assert_eq!(says(&attempt, "echo on it goes"), "on it goes\n");
}

fn a_container_that_replaces_its_files_gains_nothing(bed: &Bed) {
    let outside = bed.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    // What an image has in `/dev` is hidden by the container's own.
    let layer = bed.dir.join("hostile");
    fs::create_dir_all(layer.join("dev")).unwrap();
    symlink(&outside, layer.join("dev/pts")).unwrap();
    symlink("/etc/passwd", layer.join("dev/ptmx")).unwrap();
    let mut attempt = bed.attempt(1, "sleep 1000");
    attempt.launch.layers.push(layer);
    bed.spawn(&attempt);
    let (mut master, process) = in_terminal(&attempt, sh("tty"));
    assert_eq!(hear(&mut master, "\n"), "/dev/pts/0\r\n");
    assert_eq!(process.wait().unwrap(), Exit::Code(0));

    says(
        &attempt,
        "mkdir -p /etc /run; mkfifo /etc/passwd /run/fifo; rm /dev/ptmx; ln -s /run/fifo /dev/ptmx",
    );
    let started = std::time::Instant::now();
    let error = refused(&attempt, &Exec { user: Some("root".to_owned()), ..sh("true") });
    assert!(error.to_string().contains("etc/passwd is not a plain file"), "{error}");
    let terminal = Some(WindowSize { rows: 24, columns: 80 });
    let error = refused(&attempt, &Exec { terminal, ..sh("true") });
    assert_eq!(error.fault(), Fault::Other, "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "nobody waits for a writer");
    assert_eq!(says(&attempt, "echo still there"), "still there\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
