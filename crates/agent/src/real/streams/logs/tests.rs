//! Against the files that a shim would have written.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use model::{Desired, Ended, Phase, ServiceId, TaskStatus, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::proto::agent::Chunk;

use super::*;
use crate::host::fake::assigned;
use crate::ledger::{Assigned, Record};

struct Node {
    data: tempfile::TempDir,
    disk: Disk,
}

/// The first task of a slot, or another of its tasks.
fn task(slot: u32, sequence: u64) -> TaskId {
    TaskId { service: ServiceId(1), slot, sequence }
}

impl Node {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let disk = Disk::new(data.path().to_owned());
        Self { data, disk }
    }

    fn save(&self, id: TaskId, status: Option<TaskStatus>) {
        let assigned = Assigned { id, ..assigned(Desired::Running) };
        self.disk.save(&Record { status, remains: true, ..Record::new(assigned) }).unwrap();
    }

    fn assign(&self, id: TaskId) {
        self.save(id, None);
    }

    fn end(&self, id: TaskId) {
        let status = TaskStatus {
            attempt: 1,
            phase: Phase::Exited,
            seq: 0,
            ready: false,
            at: Timestamp(0),
            exit: None,
            ended: Some(Ended::Completed),
            reason: None,
            warnings: Vec::new(),
        };
        self.save(id, Some(status));
    }

    /// Appends to an attempt's log what is written as `SECOND TEXT`, the seconds of one minute of the year 2023.
    fn write(&self, id: TaskId, attempt: u32, lines: &[&str]) {
        let dir = self.disk.attempt(id, attempt);
        fs::create_dir_all(&dir).unwrap();
        let mut log = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
        for line in lines {
            let (second, text) = line.split_once(' ').unwrap();
            writeln!(log, "2023-11-14T22:13:{second:0>2}.000000000Z stdout F {text}").unwrap();
        }
    }

    fn read(&self, open: OpenLogs) -> Reading {
        self.start(Wish::try_from(open).unwrap())
    }

    /// Starts to read. It ends with what is returned.
    fn start(&self, wish: Wish) -> Reading {
        // Small, so that sending waits for reading.
        let (sender, chunks) = mpsc::channel(2);
        let disk = self.disk.clone();
        let mut work = JoinSet::new();
        work.spawn(async move { send(&disk, wish, &Sink(sender)).await });
        Reading { chunks, _work: work }
    }

    async fn all(&self, open: OpenLogs) -> Vec<String> {
        self.read(open).rest().await
    }
}

struct Reading {
    chunks: mpsc::Receiver<Chunk>,
    _work: JoinSet<Result<(), Failure>>,
}

impl Reading {
    /// What is sent next, as `TASK.ATTEMPT TEXT` or `TASK MARK`; nothing once all is sent.
    async fn next(&mut self) -> Option<String> {
        let chunk = timeout(Duration::from_secs(60), self.chunks.recv()).await;
        let Some(Chunk { kind: Some(chunk::Kind::Line(line)) }) = chunk.expect("within a minute") else {
            return None;
        };
        let text = String::from_utf8(line.text.clone()).unwrap();
        Some(match line.mark() {
            LogMark::None => format!("{}.{} {text}", line.task, line.attempt),
            kind => format!("{} {kind:?}", line.task),
        })
    }

    async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.next().await.as_deref(), Some(*expected));
        }
    }

    /// All that is sent until the end.
    async fn rest(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        lines
    }
}

fn log_of(id: TaskId) -> LogOf {
    LogOf { task: Some(id.into()), since_nanos: 0, tail: None }
}

fn once(tasks: &[TaskId]) -> OpenLogs {
    OpenLogs { tasks: tasks.iter().map(|id| log_of(*id)).collect(), ..OpenLogs::default() }
}

fn follow(tasks: &[TaskId]) -> OpenLogs {
    OpenLogs { follow: true, ..once(tasks) }
}

/// Nanoseconds since the epoch of a second of that minute.
fn second(second: u64) -> u64 {
    (1_699_999_980 + second) * 1_000_000_000
}

#[tokio::test(start_paused = true)]
async fn lines_of_several_tasks_come_in_the_order_of_their_times_and_then_of_the_tasks() {
    let node = Node::new();
    let (a, b) = (task(1, 1), task(2, 2));
    node.assign(a);
    node.assign(b);
    node.write(a, 1, &["1 a", "4 a", "4 b", "9 a"]);
    node.write(b, 1, &["2 a", "3 a", "4 a"]);
    let lines = node.all(once(&[a, b])).await;
    assert_eq!(lines, ["0.1 a", "1.1 a", "1.1 a", "0.1 a", "0.1 b", "1.1 a", "0.1 a"]);
}

#[tokio::test(start_paused = true)]
async fn earlier_attempts_are_read_first_and_the_last_lines_reach_back_over_them() {
    let node = Node::new();
    let id = task(1, 1);
    node.assign(id);
    for attempt in 1..=3 {
        node.write(id, attempt, &[&format!("{attempt} begins"), &format!("{attempt} ends")]);
    }
    node.write(id, 4, &[]);
    assert_eq!(
        node.all(once(&[id])).await,
        ["0.1 begins", "0.1 ends", "0.2 begins", "0.2 ends", "0.3 begins", "0.3 ends"]
    );
    let last = |tail| OpenLogs { tasks: vec![LogOf { tail: Some(tail), ..log_of(id) }], ..once(&[]) };
    assert_eq!(node.all(last(3)).await, ["0.2 ends", "0.3 begins", "0.3 ends"]);
    assert_eq!(node.all(last(0)).await, Vec::<String>::new());
    let between = OpenLogs {
        until_nanos: Some(second(2)),
        tasks: vec![LogOf { since_nanos: second(2), ..log_of(id) }],
        ..OpenLogs::default()
    };
    assert_eq!(node.all(between).await, ["0.2 begins", "0.2 ends"]);
}

#[test]
fn one_file_of_a_task_is_open_however_often_it_was_started() {
    let node = Node::new();
    let id = task(1, 1);
    node.assign(id);
    for attempt in 1..=5 {
        node.write(id, attempt, &[&format!("{attempt} a"), &format!("{attempt} b")]);
    }
    let read = |tail| {
        let open = OpenLogs { tasks: vec![LogOf { tail, ..log_of(id) }], ..OpenLogs::default() };
        let wish = Wish::try_from(open).unwrap();
        let mut log = Log::open(&node.disk, &wish, wish.tasks[0]).unwrap();
        let first = log.reader.as_ref().map(|(attempt, _)| *attempt);
        let waiting = log.later.len();
        let lines = std::iter::from_fn(|| log.next(&wish).unwrap()).count();
        (first, waiting, lines)
    };
    assert_eq!(read(None), (Some(1), 4, 10));
    assert_eq!(read(Some(3)), (Some(4), 1, 3));
    assert_eq!(read(Some(0)), (Some(5), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn ended_tasks_are_read_and_what_is_not_here_is_named() {
    let node = Node::new();
    let (first, second, absent, live) = (task(1, 1), task(1, 2), task(1, 3), task(1, 4));
    node.end(first);
    node.end(second);
    node.assign(live);
    node.write(first, 1, &["1 a"]);
    node.write(second, 1, &["5 a"]);
    node.write(live, 1, &["3 a"]);
    let asked = [first, second, absent, live];
    assert_eq!(node.all(once(&asked)).await, ["2 NotHere", "0.1 a", "3.1 a", "1.1 a"]);
    let mut reading = node.read(follow(&[first, second, live]));
    reading.expect(&["0.1 a", "2.1 a", "1.1 a", "0 CaughtUp"]).await;
    node.end(live);
    reading.expect(&["2 Ended"]).await;
    assert_eq!(reading.next().await, None, "nothing can come any more");
}

#[tokio::test(start_paused = true)]
async fn a_followed_task_is_followed_into_its_next_attempts_and_to_its_removal() {
    let node = Node::new();
    let id = task(1, 1);
    node.assign(id);
    let mut reading = node.read(follow(&[id]));
    reading.expect(&["0 CaughtUp"]).await;
    node.write(id, 1, &["1 a"]);
    reading.expect(&["0.1 a"]).await;
    node.write(id, 1, &["2 b"]);
    node.write(id, 2, &["3 c"]);
    node.write(id, 3, &["4 d"]);
    reading.expect(&["0.1 b", "0.2 c", "0.3 d"]).await;
    node.write(id, 3, &["5 last words"]);
    fs::remove_dir_all(node.data.path().join("tasks")).unwrap();
    reading.expect(&["0.3 last words", "0 Removed"]).await;
    assert_eq!(reading.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_this_node_has_not_heard_of_yet_is_waited_for() {
    let node = Node::new();
    let (coming, never) = (task(1, 1), task(2, 2));
    let begun = Instant::now();
    let mut reading = node.read(follow(&[coming, never]));
    reading.expect(&["0 CaughtUp"]).await;
    node.assign(coming);
    node.write(coming, 1, &["1 a"]);
    reading.expect(&["0.1 a", "1 NotHere"]).await;
    assert!(begun.elapsed() > ASSIGNED_WITHIN, "{:?}", begun.elapsed());
    node.write(coming, 1, &["2 b"]);
    reading.expect(&["0.1 b"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_followed_ends_with_the_time_that_was_asked_for() {
    let node = Node::new();
    let id = task(1, 1);
    node.assign(id);
    node.write(id, 1, &["1 a", "2 b", "3 c"]);
    let mut reading = node.read(OpenLogs { until_nanos: Some(second(2)), ..follow(&[id]) });
    reading.expect(&["0.1 a", "0.1 b", "0 CaughtUp"]).await;
    assert_eq!(reading.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_hides_no_other() {
    let node = Node::new();
    let (broken, whole) = (task(1, 1), task(2, 2));
    node.assign(broken);
    node.assign(whole);
    fs::create_dir_all(node.disk.attempt(broken, 1).join("log")).unwrap();
    node.write(whole, 1, &["1 a"]);
    assert_eq!(node.all(once(&[broken, whole])).await, ["0 Unreadable", "1.1 a"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_while_a_log_is_read_is_read_only_if_it_is_followed() {
    let node = Node::new();
    let id = task(1, 1);
    node.assign(id);
    node.write(id, 1, &["1 a", "2 b", "3 c"]);
    let begun = |open: OpenLogs| Wish { begun: time(second(2)), ..Wish::try_from(open).unwrap() };
    assert_eq!(node.start(begun(once(&[id]))).rest().await, ["0.1 a", "0.1 b"]);
    node.start(begun(follow(&[id]))).expect(&["0.1 a", "0.1 b", "0.1 c", "0 CaughtUp"]).await;
}
