//! Real containers on this machine. Needs root, overlayfs, and Debian's `busybox-static`.
//!
//! This program is its own shim: `ShimBinary::seal` execs it again with `shim DIR`, which is why it has a `main` of its
//! own. It understands as much of libtest's command line as cargo and nextest use.

#![expect(clippy::unwrap_used, reason = "this is a test, though not in a `#[test]` function")]

#[path = "host/exec.rs"]
mod exec;
#[path = "host/files.rs"]
mod files;
#[path = "host/held.rs"]
mod held;
#[path = "host/hostile.rs"]
mod hostile;
#[path = "host/init.rs"]
mod init;
#[path = "host/kernel.rs"]
mod kernel;
#[path = "host/mounts.rs"]
mod mounts;
#[path = "host/running.rs"]
mod running;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use model::Exit;
use runtime::handle::{self, Exited, Observed, Running};
use runtime::logs::{Reader, Stream};
use runtime::seccomp::Filters;
use runtime::{Launch, Limits, LogPolicy, Options, ShimBinary, capability, shim};

type Test = fn(&Bed);

const TESTS: &[(&str, Test)] = &[
    ("exit_code_and_output_are_recorded", exit_code_and_output_are_recorded),
    ("a_signal_is_recorded", a_signal_is_recorded),
    ("an_oom_kill_is_recorded", an_oom_kill_is_recorded),
    ("a_stop_is_heeded", a_stop_is_heeded),
    ("a_stop_that_is_not_heeded_ends_in_a_kill", a_stop_that_is_not_heeded_ends_in_a_kill),
    ("the_container_is_who_and_where_it_was_asked_to_be", the_container_is_who_and_where_it_was_asked_to_be),
    ("the_container_is_confined", the_container_is_confined),
    ("a_user_other_than_root_has_no_capabilities", a_user_other_than_root_has_no_capabilities),
    ("without_a_filter_nothing_is_started", without_a_filter_nothing_is_started),
    (
        "limits_are_in_force_and_not_the_containers_to_change",
        limits_are_in_force_and_not_the_containers_to_change,
    ),
    ("upper_layers_win_and_layers_are_not_written_to", upper_layers_win_and_layers_are_not_written_to),
    ("a_command_that_is_not_there_is_a_reason", a_command_that_is_not_there_is_a_reason),
    ("a_hostile_root_is_refused", a_hostile_root_is_refused),
    ("the_node_cannot_be_overwritten_through_the_shim", the_node_cannot_be_overwritten_through_the_shim),
    (
        "a_container_outlives_its_shim_only_until_it_is_buried",
        a_container_outlives_its_shim_only_until_it_is_buried,
    ),
    ("a_running_container_is_destroyed_without_a_trace", a_running_container_is_destroyed_without_a_trace),
    ("one_directory_has_one_shim", one_directory_has_one_shim),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, dir] = args.as_slice()
        && first == "shim"
    {
        return shim::main(Path::new(dir));
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let mut out = std::io::stdout();
    let all = [
        TESTS,
        exec::TESTS,
        files::TESTS,
        running::TESTS,
        held::TESTS,
        hostile::TESTS,
        init::TESTS,
        kernel::TESTS,
        mounts::TESTS,
    ];
    let all = all.into_iter().flatten();
    let chosen: Vec<&(&str, Test)> = all.filter(|(name, _)| is_chosen(name, &args)).collect();
    if has("--list") {
        // None is ignored, and `--ignored` asks for those.
        for (name, _) in chosen.into_iter().filter(|_| !has("--ignored")) {
            writeln!(out, "{name}: test").unwrap();
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, test) in chosen {
        let bed = Bed::new();
        let passed = catch_unwind(AssertUnwindSafe(|| test(&bed))).is_ok();
        let cleaned = catch_unwind(AssertUnwindSafe(|| bed.leave_nothing())).is_ok();
        writeln!(out, "test {name} ... {}", if passed && cleaned { "ok" } else { "FAILED" }).unwrap();
        failed += u32::from(!(passed && cleaned));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_chosen(name: &str, args: &[String]) -> bool {
    let exact = args.iter().any(|arg| arg == "--exact");
    // The one option of libtest's with a value that cargo and nextest pass.
    let mut filters = args.iter().filter(|arg| !arg.starts_with('-') && *arg != "terse").peekable();
    filters.peek().is_none()
        || filters.any(|filter| if exact { name == filter } else { name.contains(filter.as_str()) })
}

/// What the image's busybox is called by.
const APPLETS: [&str; 28] = [
    "cat", "chmod", "dd", "echo", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mkfifo",
    "mknod", "mount", "readlink", "rm", "sh", "sleep", "stat", "stty", "tr", "true", "tty", "umount",
    "unshare", "wc", "yes",
];

/// A place for containers: an image of busybox, and a cgroup of the test's own.
struct Bed {
    dir: PathBuf,
    cgroup: String,
    binary: ShimBinary,
    filters: Filters,
}

impl Bed {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "making containers needs root");
        let dir = tempfile::Builder::new()
            .prefix("runtime-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap()
            .keep();
        let cgroup = format!("/gantry-test-{}", dir.file_name().unwrap().to_str().unwrap());
        let bin = dir.join("busybox/bin");
        std::fs::create_dir_all(&bin).unwrap();
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "{} is missing: apt-get install busybox-static", busybox.display());
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        std::fs::create_dir(dir.join("filters")).unwrap();
        let filters = Filters::new(dir.join("filters"));
        Self { dir, cgroup, binary: ShimBinary::seal().unwrap(), filters }
    }

    /// An attempt that runs `script`.
    fn attempt(&self, number: u64, script: &str) -> Attempt {
        self.given(number, script, Options::default())
    }

    /// The same with Docker's options, and with the filter that goes with them.
    fn given(&self, number: u64, script: &str, options: Options) -> Attempt {
        let capabilities = capability::granted(&options.privileges).capabilities;
        let launch = Launch {
            version: Launch::VERSION,
            task: format!("s1-1-{number}"),
            attempt: 1,
            hostname: "box".to_owned(),
            layers: vec![self.dir.join("busybox")],
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            cwd: String::new(),
            user: None,
            netns: None,
            cgroup: format!("{}/s1-1-{number}.1", self.cgroup),
            shim_cgroup: Some(format!("{}/shims", self.cgroup)),
            limits: Limits::default(),
            labels: BTreeMap::new(),
            seccomp: self.filters.find(None, &capabilities).unwrap(),
            stop_signal: 15,
            log: LogPolicy::default(),
            files: BTreeMap::new(),
            terminal: false,
            stdin: false,
            options,
        };
        Attempt { dir: self.dir.join(format!("tasks/{number}")), launch }
    }

    fn spawn(&self, attempt: &Attempt) -> Observed {
        std::fs::create_dir_all(&attempt.dir).unwrap();
        attempt.launch.save(&attempt.dir).unwrap();
        handle::spawn(&attempt.dir, &self.binary).unwrap()
    }

    fn run(&self, attempt: &Attempt) -> Exited {
        self.spawn(attempt);
        attempt.end()
    }

    /// Runs it to its end, which has to be a good one, and returns what it said.
    fn said(&self, attempt: &Attempt) -> Vec<String> {
        let exited = self.run(attempt);
        let said = attempt.lines(Stream::Stdout);
        assert_eq!(exited.exit, Exit::Code(0), "{exited:?} {said:?} {:?}", attempt.lines(Stream::Stderr));
        said
    }

    /// Starts it, and returns what it was told that the node does not do.
    fn warnings(&self, attempt: &Attempt) -> Vec<String> {
        match self.spawn(attempt) {
            Observed::Running(running) => running.warnings,
            other => panic!("{other:?}"),
        }
    }

    /// Runs what must not start, and returns the reason why it did not.
    fn refusal(&self, attempt: &Attempt) -> String {
        let exited = self.run(attempt);
        assert_eq!(exited.exit, Exit::NotStarted, "{:?}", attempt.lines(Stream::Stdout));
        exited.reason.unwrap()
    }

    /// Takes everything away, and fails if something is left then.
    fn leave_nothing(&self) {
        for task in std::fs::read_dir(self.dir.join("tasks")).into_iter().flatten() {
            handle::destroy(&task.unwrap().path()).unwrap();
        }
        handle::remove_cgroup(&self.cgroup).unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.to_str().unwrap()), "a mount is left:\n{mounts}");
        assert_eq!(cgroups_named(&self.cgroup), Vec::<PathBuf>::new());
    }
}

/// The cgroup's directories, in whichever hierarchy.
fn cgroups_named(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mounts = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let dirs = mounts.chain([root.to_owned()]).map(|mount| mount.join(path.trim_start_matches('/')));
    dirs.filter(|dir| dir.exists()).collect()
}

struct Attempt {
    dir: PathBuf,
    launch: Launch,
}

impl Attempt {
    fn running(&self) -> Running {
        match handle::inspect(&self.dir).unwrap() {
            Observed::Running(running) => running,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until there is news: the container's end, or its shim's.
    fn wait(&self) {
        if let Ok(mut stream) = handle::watch(&self.dir) {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            match stream.read_to_end(&mut Vec::new()) {
                // The shim went without having come to this connection.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                read => drop(read.unwrap()),
            }
        }
    }

    fn end(&self) -> Exited {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            self.wait();
            match handle::inspect(&self.dir).unwrap() {
                Observed::Exited(exited) => return exited,
                // A shim that tidies up answers nobody any more.
                Observed::Running(_) if std::time::Instant::now() < deadline => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn lines(&self, stream: Stream) -> Vec<String> {
        let lines = Reader::open(&self.dir, None, None).unwrap().map(Result::unwrap);
        lines.filter(|line| line.stream == stream).map(|line| String::from_utf8(line.text).unwrap()).collect()
    }

    /// Waits until the container has said something, which the log has as soon as a reader sees it.
    fn hear(&self, text: &str) {
        until(&format!("{text:?} is heard"), || self.lines(Stream::Stdout).iter().any(|line| line == text));
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it never came that {what}");
        std::thread::yield_now();
    }
}

fn exit_code_and_output_are_recorded(bed: &Bed) {
    let attempt = bed.attempt(1, "echo out; echo err >&2; printf last; exit 7");
    let exited = bed.run(&attempt);
    assert_eq!((exited.exit, exited.reason), (Exit::Code(7), None));
    assert_eq!(attempt.lines(Stream::Stdout), ["out", "last"]);
    assert_eq!(attempt.lines(Stream::Stderr), ["err"]);
    assert_eq!(
        cgroups_named(&attempt.launch.cgroup),
        Vec::<PathBuf>::new(),
        "it is gone before the exit is told"
    );
}

fn a_signal_is_recorded(bed: &Bed) {
    let attempt = bed.attempt(1, "sleep 1000");
    assert!(matches!(bed.spawn(&attempt), Observed::Running(_)));
    handle::signal(&attempt.dir, libc::SIGKILL).unwrap();
    assert_eq!(attempt.end().exit, Exit::Signal { signal: 9, oom: false });
}

fn an_oom_kill_is_recorded(bed: &Bed) {
    let mut attempt = bed.attempt(1, "exec dd if=/dev/zero of=/dev/null bs=256M count=1");
    attempt.launch.limits.memory_bytes = Some(64 << 20);
    assert_eq!(bed.run(&attempt).exit, Exit::Signal { signal: 9, oom: true });
}

fn a_stop_is_heeded(bed: &Bed) {
    let attempt = bed.attempt(1, "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.05; done");
    bed.spawn(&attempt);
    attempt.hear("ready");
    handle::request_stop(&attempt.dir, libc::SIGTERM, Duration::from_secs(60)).unwrap();
    assert_eq!(attempt.end().exit, Exit::Code(3));
    assert_eq!(attempt.lines(Stream::Stdout), ["ready", "bye"]);
}

fn a_stop_that_is_not_heeded_ends_in_a_kill(bed: &Bed) {
    let attempt = bed.attempt(1, "trap '' TERM; echo ready; while true; do sleep 0.05; done");
    bed.spawn(&attempt);
    attempt.hear("ready");
    handle::request_stop(&attempt.dir, libc::SIGTERM, Duration::from_secs(3600)).unwrap();
    // The earlier end counts.
    handle::request_stop(&attempt.dir, libc::SIGTERM, Duration::from_millis(100)).unwrap();
    assert_eq!(attempt.end().exit, Exit::Signal { signal: 9, oom: false });
}

fn the_container_is_who_and_where_it_was_asked_to_be(bed: &Bed) {
    let script = "id -u; id -G; echo $HOME $COLOUR; pwd; hostname; cat /etc/hosts; echo through a name > /dev/stdout; echo $$";
    let mut attempt = bed.attempt(1, script);
    std::fs::create_dir(bed.dir.join("busybox/etc")).unwrap();
    std::fs::write(bed.dir.join("busybox/etc/passwd"), "web:x:33:34::/var/www:/bin/sh\n").unwrap();
    std::fs::write(bed.dir.join("busybox/etc/group"), "logs:x:50:web\n").unwrap();
    attempt.launch.user = Some("web".to_owned());
    attempt.launch.cwd = "/srv/data".to_owned();
    attempt.launch.env = vec!["COLOUR=blue".to_owned()];
    attempt.launch.files = BTreeMap::from([("/etc/hosts".into(), "10.0.0.1 box\n".to_owned())]);
    assert_eq!(bed.run(&attempt).exit, Exit::Code(0), "{:?}", attempt.lines(Stream::Stderr));
    let said = ["33", "34 50", "/var/www blue", "/srv/data", "box", "10.0.0.1 box", "through a name", "1"];
    assert_eq!(attempt.lines(Stream::Stdout), said);
}

fn the_container_is_confined(bed: &Bed) {
    let script =
        "grep -E '^(CapEff|CapInh|CapAmb|CapBnd|NoNewPrivs|Seccomp|SigIgn|SigBlk):' /proc/self/status
        ls /proc/self/fd
        unshare -m true 2> /dev/null || echo no new namespaces
        cat /proc/kcore | dd bs=1 count=1 2> /dev/null; ls /sys/firmware
        (echo x > /proc/sys/kernel/hostname) 2> /dev/null || echo /proc/sys is read-only";
    let attempt = bed.attempt(1, script);
    bed.run(&attempt);
    let said = attempt.lines(Stream::Stdout);
    let expected = [
        "SigBlk:\t0000000000000000",
        // Signals 32 and 33 are glibc's own; its posix_spawn, which starts every shim, leaves them ignored.
        "SigIgn:\t0000000180000000",
        "CapInh:\t0000000000000000",
        "CapBnd:\t00000000a80405fb",
        "CapEff:\t00000000a80405fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
        "no new namespaces",
        "/proc/sys is read-only",
    ];
    for line in expected {
        assert!(said.iter().any(|found| found == line), "{line:?} is not in {said:#?}");
    }
    let descriptors: Vec<&String> = said.iter().filter(|line| line.parse::<u32>().is_ok()).collect();
    assert_eq!(descriptors, ["0", "1", "2", "3"], "the fourth is the directory that is being listed");
}

fn a_user_other_than_root_has_no_capabilities(bed: &Bed) {
    let mut attempt = bed.attempt(1, "grep -E '^(CapPrm|CapEff|CapBnd|Seccomp):' /proc/self/status");
    attempt.launch.user = Some("33".to_owned());
    bed.run(&attempt);
    let expected = [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t00000000a80405fb",
        "Seccomp:\t2",
    ];
    assert_eq!(attempt.lines(Stream::Stdout), expected);
}

fn without_a_filter_nothing_is_started(bed: &Bed) {
    let garbled = bed.dir.join("garbled");
    std::fs::write(&garbled, "not a filter").unwrap();
    // The last is what an agent would write that forgot it.
    for (number, filter) in (1..).zip([garbled, PathBuf::new()]) {
        let mut attempt = bed.attempt(number, "echo unconfined");
        attempt.launch.seccomp = filter;
        let exited = bed.run(&attempt);
        assert_eq!(exited.exit, Exit::NotStarted);
        let reason = exited.reason.unwrap();
        assert!(
            reason.contains("is no filter of system calls") || reason.contains("cannot read"),
            "{reason}"
        );
        assert_eq!(attempt.lines(Stream::Stdout), Vec::<String>::new());
    }
}

fn limits_are_in_force_and_not_the_containers_to_change(bed: &Bed) {
    let script = "cd /sys/fs/cgroup
        for f in pids/pids.max memory/memory.limit_in_bytes pids.max memory.max; do
            [ ! -e $f ] || cat $f
            [ ! -e $f ] || (echo -1 > $f) 2> /dev/null || echo read-only
        done";
    let mut attempt = bed.attempt(1, script);
    attempt.launch.limits = Limits { cpu_millis: Some(500), memory_bytes: Some(32 << 20), pids: Some(50) };
    let observed = bed.spawn(&attempt);
    if let Observed::Running(Running { warnings, .. }) = observed {
        assert_eq!(warnings, Vec::<String>::new());
    }
    assert_eq!(attempt.end().exit, Exit::Code(0));
    assert_eq!(attempt.lines(Stream::Stdout), ["50", "read-only", "33554432", "read-only"]);
}

fn upper_layers_win_and_layers_are_not_written_to(bed: &Bed) {
    let mut attempt = bed.attempt(1, "cat /which; echo mine > /which; cat /which");
    for layer in ["low", "high"] {
        std::fs::create_dir(bed.dir.join(layer)).unwrap();
        std::fs::write(bed.dir.join(layer).join("which"), format!("{layer}\n")).unwrap();
        attempt.launch.layers.push(bed.dir.join(layer));
    }
    bed.run(&attempt);
    assert_eq!(attempt.lines(Stream::Stdout), ["high", "mine"]);
    assert_eq!(std::fs::read_to_string(bed.dir.join("high/which")).unwrap(), "high\n");
}

fn a_command_that_is_not_there_is_a_reason(bed: &Bed) {
    let mut attempt = bed.attempt(1, "");
    attempt.launch.args = vec!["nosuch".to_owned()];
    let exited = bed.run(&attempt);
    assert_eq!(exited.exit, Exit::NotStarted);
    let reason = exited.reason.unwrap();
    assert!(reason.contains("`nosuch` is not in the image's PATH"), "{reason}");
    assert_eq!(cgroups_named(&attempt.launch.cgroup), Vec::<PathBuf>::new());
}

fn a_hostile_root_is_refused(bed: &Bed) {
    let outside = bed.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    for (number, name) in (1..).zip(["dev", "proc", "sys"]) {
        let layer = bed.dir.join(format!("hostile-{name}"));
        std::fs::create_dir(&layer).unwrap();
        symlink(&outside, layer.join(name)).unwrap();
        let mut attempt = bed.attempt(number, "true");
        attempt.launch.layers.push(layer);
        let exited = bed.run(&attempt);
        assert_eq!(exited.exit, Exit::NotStarted);
        assert!(exited.reason.unwrap().contains(&format!("the image's /{name} is not a directory")));
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    // The working directory of CVE-2024-21626: a descriptor that the runtime might have left open.
    let mut attempt = bed.attempt(9, "pwd");
    attempt.launch.cwd = "/proc/self/fd/7".to_owned();
    let exited = bed.run(&attempt);
    let said = attempt.lines(Stream::Stdout);
    let inside = said.iter().all(|line| line.starts_with('/')) && !said.is_empty();
    assert!(exited.exit == Exit::NotStarted || inside, "{exited:?} {said:?}");
}

fn the_node_cannot_be_overwritten_through_the_shim(bed: &Bed) {
    assert!(bed.binary.is_sealed());
    let attempt = bed.attempt(1, "sleep 1000");
    bed.spawn(&attempt);
    // What a container gets hold of with CVE-2019-5736. Opening it for writing proves nothing while it runs, on which the
    // attack only has to wait; whether the mount lets anything be changed does.
    let program = format!("/proc/{}/exe", parent(attempt.running().pid));
    let mode = std::fs::metadata(&program).unwrap().permissions();
    assert_eq!(
        std::fs::set_permissions(&program, mode).unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
}

/// The shim: the parent of the container's first process.
fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Gone, or dead and waiting for this machine's init.
fn is_dead(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn a_container_outlives_its_shim_only_until_it_is_buried(bed: &Bed) {
    let attempt = bed.attempt(1, "while true; do sleep 0.05; done");
    bed.spawn(&attempt);
    let init = attempt.running().pid;
    let mut watch = handle::watch(&attempt.dir).unwrap();
    kill(parent(init));
    // The end of the stream is the news, in whichever form the kernel has it for a peer that was killed.
    match watch.read(&mut [0; 1]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    assert_eq!(handle::inspect(&attempt.dir).unwrap(), Observed::Vanished);
    assert!(!is_dead(init));
    assert_eq!(handle::bury(&attempt.dir).unwrap().exit, Exit::Unknown);
    assert!(is_dead(init));
    assert_eq!(cgroups_named(&attempt.launch.cgroup), Vec::<PathBuf>::new());
    assert_eq!(attempt.end().exit, Exit::Unknown);
}

fn a_running_container_is_destroyed_without_a_trace(bed: &Bed) {
    let attempt = bed.attempt(1, "sleep 1000 & sleep 1000");
    bed.spawn(&attempt);
    let init = attempt.running().pid;
    let shim = parent(init);
    handle::destroy(&attempt.dir).unwrap();
    assert!(is_dead(init) && is_dead(shim) && !attempt.dir.exists());
    assert_eq!(handle::inspect(&attempt.dir).unwrap(), Observed::NotStarted);
    handle::destroy(&attempt.dir).unwrap();
}

fn one_directory_has_one_shim(bed: &Bed) {
    let attempt = bed.attempt(1, "sleep 1000");
    let first = bed.spawn(&attempt);
    assert!(matches!(first, Observed::Running(_)), "{first:?}");
    assert_eq!(handle::spawn(&attempt.dir, &bed.binary).unwrap(), first);
}
