//! What the tasks of one node wrote, from that node: asked for, read, and asked for again from where it broke off.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::{Liveness, NodeId, TaskId};
use state::State;
use store::{News, Watch};
use tokio::time::sleep;
use wire::proto::agent::{Chunk, LogLine, LogMark, LogOf, Open, OpenLogs, chunk, open};
use wire::proto::api::LogEntry;

use crate::api::Api;
use crate::streams::Dialled;

/// How long a node has to dial a stream that it was told to open.
pub(super) const DIAL: Duration = Duration::from_secs(5);

/// How long a node that is up may send nothing of what it was asked for, where it is not to wait for more. It has files to
/// search for the first line that is wanted, and a slow disk.
const SILENCE: Duration = Duration::from_secs(30);

/// The first wait before a node that was lost is asked again, and the longest. It doubles in between.
const AGAIN: Duration = Duration::from_millis(200);
const AT_LAST: Duration = Duration::from_secs(2);

/// What a source has to say.
#[derive(Debug)]
pub(super) enum Event {
    /// A line, a note or a warning.
    Entry(LogEntry),
    /// What comes from now on is being written now.
    CaughtUp,
    /// The node cannot be reached; it is asked again.
    Away,
}

pub(super) type Events = BoxStream<'static, Event>;

/// What is wanted of every log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) follow: bool,
    /// Nanoseconds since the epoch.
    pub(super) until: Option<u64>,
    /// Whether the tasks were named by their ids, so that what is not there is worth a word.
    pub(super) by_id: bool,
}

/// From where on a log is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Nanoseconds since the epoch.
    pub(super) since: u64,
    pub(super) tail: Option<u32>,
}

impl Place {
    /// Behind the line of this time.
    pub(super) fn behind(at: u64) -> Self {
        Self { since: at.saturating_add(1), tail: None }
    }

    /// The line of this time was passed on. Times go back where a node's clock was set back; the place does not.
    fn pass(&mut self, at: u64) {
        self.since = self.since.max(Self::behind(at).since);
        self.tail = None;
    }

    /// All that there was at this time was passed on.
    fn catch_up(&mut self, at: u64) {
        self.since = self.since.max(at);
        self.tail = None;
    }
}

/// The logs of some tasks of one node.
pub(super) struct Source {
    api: Api,
    node: NodeId,
    /// The node's name, or its id if it is none of the cluster any more.
    name: String,
    tasks: Vec<Task>,
    options: Options,
    link: Link,
    /// Calls in a row that the node was not heard in.
    failures: u32,
    said: VecDeque<Event>,
    watch: Watch,
}

#[derive(Debug)]
struct Task {
    id: TaskId,
    /// What all of its lines have in common.
    template: LogEntry,
    place: Place,
    is_over: bool,
}

enum Link {
    Closed {
        wait: Duration,
    },
    Open {
        dialled: Box<Dialled>,
        /// The tasks that were asked for, in that order, by their index in `tasks`.
        asked: Vec<usize>,
    },
    Over,
}

/// Why a node's logs cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    Down,
    NotConnected,
    Silent,
    Broken,
}

impl Source {
    pub(super) fn new(
        api: &Api,
        state: &State,
        node: NodeId,
        tasks: impl IntoIterator<Item = (TaskId, Place)>,
        options: Options,
    ) -> Self {
        let name = state.node(node).map_or_else(|| node.to_string(), |node| node.name.to_string());
        let task = |(id, place): (TaskId, Place)| {
            let service = state.service(id.service).map(|service| service.name.to_string());
            let template = LogEntry {
                service: service.unwrap_or_default(),
                slot: id.slot,
                task: id.to_string(),
                node: name.clone(),
                ..LogEntry::default()
            };
            Task { id, template, place, is_over: false }
        };
        let tasks = tasks.into_iter().map(task).collect();
        Self {
            api: api.clone(),
            node,
            tasks,
            name,
            options,
            link: Link::Closed { wait: Duration::ZERO },
            failures: 0,
            said: VecDeque::new(),
            watch: api.parts.store.watch(),
        }
    }

    /// All that there is to say. The node is asked when this is first read.
    pub(super) fn events(self) -> Events {
        let events = futures::stream::unfold(self, |mut source| async move {
            let event = source.next().await?;
            Some((event, source))
        });
        events.boxed()
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.said.pop_front() {
                return Some(event);
            }
            match &mut self.link {
                Link::Over => return None,
                Link::Closed { wait } => {
                    sleep(*wait).await;
                    self.dial().await;
                }
                Link::Open { dialled, asked: _ } => {
                    let patience = (!self.options.follow).then_some(SILENCE);
                    match hear(dialled, &mut self.watch, self.node, patience).await {
                        Ok(chunk) => self.take(chunk),
                        Err(why) => self.lost(why),
                    }
                }
            }
        }
    }

    async fn dial(&mut self) {
        if self.failures > 0 {
            self.drop_removed();
        }
        let left = self.tasks.iter().enumerate().filter(|(_, task)| !task.is_over);
        let asked: Vec<usize> = left.map(|(index, _)| index).collect();
        if asked.is_empty() {
            self.link = Link::Over;
            return;
        }
        let logs = asked.iter().filter_map(|index| self.tasks.get(*index)).map(Task::wanted).collect();
        let Options { follow, until, by_id: _ } = self.options;
        let what = OpenLogs { follow, until_nanos: until, tasks: logs };
        match open(&self.api, &mut self.watch, self.node, what).await {
            Ok(dialled) => self.link = Link::Open { dialled: Box::new(dialled), asked },
            Err(why) => self.lost(why),
        }
    }

    /// A log goes with its task, and is not waited for then.
    fn drop_removed(&mut self) {
        let state = self.api.parts.store.state();
        for task in self.tasks.iter_mut().filter(|task| !task.is_over && state.task(task.id).is_none()) {
            task.is_over = true;
            self.said.push_back(Event::Entry(task.note(format!("task {} was removed", task.id))));
        }
    }

    fn lost(&mut self, why: Unread) {
        let left: Vec<&Task> = self.tasks.iter().filter(|task| !task.is_over).collect();
        if left.is_empty() {
            self.link = Link::Over;
            return;
        }
        if self.failures == 0 {
            let warning = warning(&self.name, why, &left, self.options.follow);
            let node = self.name.clone();
            self.said.push_back(Event::Entry(LogEntry { node, warning, ..LogEntry::default() }));
            self.said.push_back(Event::Away);
        }
        if !self.options.follow {
            self.link = Link::Over;
            return;
        }
        self.link = Link::Closed { wait: wait(self.failures) };
        self.failures = self.failures.saturating_add(1);
    }

    fn take(&mut self, chunk: Chunk) {
        if self.failures > 0 {
            self.failures = 0;
            let note = format!("node {} answers again", self.name);
            let node = self.name.clone();
            self.said.push_back(Event::Entry(LogEntry { node, note, ..LogEntry::default() }));
        }
        match chunk.kind {
            Some(chunk::Kind::Line(line)) => self.take_line(line),
            Some(chunk::Kind::Failure(why)) => {
                let (node, warning) = (self.name.clone(), format!("node {}: {why}", self.name));
                self.said.push_back(Event::Entry(LogEntry { node, warning, ..LogEntry::default() }));
                self.link = Link::Over;
            }
            Some(chunk::Kind::End(_)) => self.link = Link::Over,
            Some(
                chunk::Kind::Data(_)
                | chunk::Kind::Import(_)
                | chunk::Kind::Piece(_)
                | chunk::Kind::Transfer(_)
                | chunk::Kind::Document(_),
            )
            | None => {}
        }
    }

    fn take_line(&mut self, line: LogLine) {
        let kind = line.mark();
        let LogLine { at, stderr, text, partial, task, attempt, mark: _ } = line;
        let Link::Open { asked, dialled: _ } = &self.link else { return };
        if kind == LogMark::CaughtUp {
            for index in asked {
                if let Some(task) = self.tasks.get_mut(*index) {
                    task.place.catch_up(at);
                }
            }
            self.said.push_back(Event::CaughtUp);
            return;
        }
        let index = usize::try_from(task).ok().and_then(|task| asked.get(task));
        let Some(task) = index.and_then(|index| self.tasks.get_mut(*index)) else { return };
        let id = task.id;
        task.is_over = kind != LogMark::None;
        let entry = match kind {
            LogMark::None => {
                task.place.pass(at);
                LogEntry { at, stderr, text, partial, attempt, ..task.template.clone() }
            }
            LogMark::NotHere if !self.options.by_id => return,
            LogMark::NotHere => task.note(format!("nothing of task {id} is on node {}", self.name)),
            LogMark::Ended => task.note(format!("task {id} has ended")),
            LogMark::Removed => task.note(format!("task {id} was removed")),
            LogMark::Unreadable => {
                let warning = format!("task {id} on node {}: {}", self.name, String::from_utf8_lossy(&text));
                LogEntry { warning, ..task.template.clone() }
            }
            LogMark::CaughtUp => return,
        };
        self.said.push_back(Event::Entry(entry));
    }
}

impl Task {
    fn wanted(&self) -> LogOf {
        let Place { since, tail } = self.place;
        LogOf { task: Some(self.id.into()), since_nanos: since, tail }
    }

    fn note(&self, note: String) -> LogEntry {
        LogEntry { note, ..self.template.clone() }
    }
}

/// Asks the node to dial, and waits until it has.
async fn open(api: &Api, watch: &mut Watch, node: NodeId, what: OpenLogs) -> Result<Dialled, Unread> {
    let expected = api.streams.expect();
    let open = Open { stream: expected.id.clone(), what: Some(open::What::Logs(what)) };
    if api.dispatcher.tell(node, open).await.is_err() {
        let is_up = is_up(&api.parts.store.state(), node);
        return Err(if is_up { Unread::NotConnected } else { Unread::Down });
    }
    tokio::select! {
        biased;
        dialled = expected.dialled() => dialled.ok_or(Unread::Silent),
        () = down(watch, node) => Err(Unread::Down),
        () = sleep(DIAL) => Err(Unread::Silent),
    }
}

/// The next that the node says. One that is gone closes nothing, so its heartbeats are what tells.
async fn hear(
    dialled: &mut Dialled,
    watch: &mut Watch,
    node: NodeId,
    patience: Option<Duration>,
) -> Result<Chunk, Unread> {
    let out_of_patience = async {
        match patience {
            Some(patience) => sleep(patience).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        message = dialled.incoming.message() => match message {
            Ok(Some(chunk)) => Ok(chunk),
            Ok(None) | Err(_) => Err(Unread::Broken),
        },
        () = down(watch, node) => Err(Unread::Down),
        () = out_of_patience => Err(Unread::Silent),
    }
}

/// Returns when the node counts as down.
async fn down(watch: &mut Watch, node: NodeId) {
    loop {
        let (News::Changes { state, changes: _ } | News::Resync { state }) = watch.next().await;
        if !is_up(&state, node) {
            return;
        }
    }
}

fn is_up(state: &State, node: NodeId) -> bool {
    state.node(node).is_some_and(|node| match node.liveness {
        Liveness::Ready | Liveness::Unknown => true,
        Liveness::Down { .. } => false,
    })
}

/// How long to wait before a node is asked again that was not heard `failures` times before.
fn wait(failures: u32) -> Duration {
    AGAIN.saturating_mul(1 << failures.min(16)).min(AT_LAST)
}

/// What is missing, and why.
fn warning(node: &str, why: Unread, tasks: &[&Task], follow: bool) -> String {
    let why = match why {
        Unread::Down => "is down",
        Unread::NotConnected => "is not connected",
        Unread::Silent => "did not answer",
        Unread::Broken => "broke off",
    };
    let first = tasks.first().map_or_else(String::new, |task| {
        let LogEntry { service, slot, task, .. } = &task.template;
        format!(" of {service}.{slot} ({task})")
    });
    let others = match tasks.len().saturating_sub(1) {
        0 => String::new(),
        1 => " and of one more task".to_owned(),
        more => format!(" and of {more} more tasks"),
    };
    let then = if follow { "; it is asked again until it answers" } else { "" };
    format!("node {node} {why}: lines{first}{others} are missing{then}")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_place_only_goes_forward() {
        let mut place = Place { since: 100, tail: Some(10) };
        place.catch_up(50);
        assert_eq!(
            place,
            Place { since: 100, tail: None },
            "what was not asked for is not read later either"
        );
        for (at, since) in [(100, 101), (200, 201), (150, 201)] {
            place.pass(at);
            assert_eq!(place, Place { since, tail: None });
        }
        place.catch_up(300);
        assert_eq!(place, Place { since: 300, tail: None });
    }

    #[test]
    fn a_lost_node_is_asked_again_ever_more_seldom() {
        let millis = [0, 1, 2, 3, 4, 100].map(|failures| wait(failures).as_millis());
        assert_eq!(millis, [200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn a_warning_says_what_is_missing_and_why() {
        let task = |slot| {
            let template = LogEntry {
                service: "hello/web".to_owned(),
                slot,
                task: format!("s1-{slot}-7"),
                ..LogEntry::default()
            };
            let id = TaskId { service: model::ServiceId(1), slot, sequence: 7 };
            Task { id, template, place: Place::default(), is_over: false }
        };
        let tasks = [task(1), task(2), task(3)];
        let tasks: Vec<&Task> = tasks.iter().collect();
        let mut text = String::new();
        for (why, count, follow) in [
            (Unread::Down, 1, false),
            (Unread::NotConnected, 2, false),
            (Unread::Silent, 3, true),
            (Unread::Broken, 1, true),
        ] {
            text += &format!("{}\n", warning("n2", why, &tasks[..count], follow));
        }
        expect![[r#"
            node n2 is down: lines of hello/web.1 (s1-1-7) are missing
            node n2 is not connected: lines of hello/web.1 (s1-1-7) and of one more task are missing
            node n2 did not answer: lines of hello/web.1 (s1-1-7) and of 2 more tasks are missing; it is asked again until it answers
            node n2 broke off: lines of hello/web.1 (s1-1-7) are missing; it is asked again until it answers
        "#]]
        .assert_eq(&text);
    }
}
