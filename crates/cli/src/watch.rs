//! What tasks use, of all nodes that have any that are asked for: a conversation a node, told apart and put together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::FuturesUnordered;
use model::TaskId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wire::proto::api::{self, ListRequest};
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{NodeStats, WatchStats, begin, piece};

use crate::cluster::{CallError, Cluster, Effect, Operation, PATIENCE};
use crate::failure::{Failure, chain};
use crate::talk::{Subject, Talk, TalkError, Times, open};
use crate::usage::{TaskUsage, Usage};

/// Between two attempts to follow a node that does not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a node may say nothing beyond the interval that it was asked for.
const QUIET: Duration = Duration::from_secs(5);

/// How often it is looked which nodes and tasks there are, at the least: a node that has joined is noticed.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// How long that may take while numbers wait to be shown.
const LOOK_TIME: Duration = Duration::from_secs(2);

/// What is asked for: everything, or what is named by any of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted(Vec<String>);

impl Wanted {
    pub(crate) fn of(references: &[String]) -> Self {
        Self(references.to_vec())
    }

    /// By its id, slot, service, stack or node.
    fn has(&self, task: &api::Task) -> bool {
        self.0.is_empty() || self.0.iter().any(|reference| names(reference, task))
    }

    /// The first reference that stands for no node and none of the tasks.
    fn unknown(&self, nodes: &[api::Node], tasks: &[api::Task]) -> Option<&str> {
        let is_known = |reference: &&String| {
            nodes.iter().any(|node| node.node == **reference)
                || tasks.iter().any(|task| names(reference, task))
        };
        self.0.iter().find(|reference| !is_known(reference)).map(String::as_str)
    }

    /// The nodes to ask, each with whether it is up.
    fn nodes(&self, nodes: &[api::Node], tasks: &[api::Task]) -> BTreeMap<String, bool> {
        let has_any = |node: &api::Node| {
            self.0.is_empty()
                || self.0.contains(&node.node)
                || tasks.iter().any(|task| task.node == node.node && self.has(task))
        };
        let asked = nodes.iter().filter(|node| has_any(node));
        asked.map(|node| (node.node.clone(), node.status != "down")).collect()
    }
}

fn names(reference: &str, task: &api::Task) -> bool {
    let api::Task { service, slot, task: id, node, .. } = task;
    let is_stack = service.split_once('/').is_some_and(|(stack, _)| stack == reference);
    is_stack
        || [service, id, node].iter().any(|name| name.as_str() == reference)
        || *reference == format!("{service}.{slot}")
}

/// What a conversation with a node has come to.
#[derive(Debug)]
enum Event {
    Said { node: String, stats: NodeStats },
    Silent { node: String, why: String },
}

/// The conversations, and what they have told.
pub(crate) struct Watch {
    cluster: Cluster,
    wanted: Wanted,
    interval: Duration,
    usage: Usage,
    /// The tasks that are asked for, by what users call them.
    names: BTreeMap<TaskId, String>,
    /// All tasks that were there at the last look.
    known: BTreeSet<TaskId>,
    looked: Instant,
    /// The nodes that there was something to ask of at the last look.
    asked: BTreeSet<String>,
    /// Those that were ever asked. One that comes back is.
    followed: BTreeSet<String>,
    followers: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    events: mpsc::Receiver<Event>,
    report: mpsc::Sender<Event>,
    /// Nodes that do not answer, and why.
    silent: BTreeMap<String, String>,
}

impl Watch {
    /// Asks which nodes and tasks there are. Nothing is heard of any until [`Watch::until`].
    pub(crate) async fn begin(cluster: Cluster, wanted: Wanted, interval: Duration) -> Result<Self, Failure> {
        let mut watch = Self::new(cluster, wanted, interval);
        let (nodes, tasks) = list(&mut watch.cluster).await?;
        if let Some(unknown) = watch.wanted.unknown(&nodes, &tasks) {
            let text = format!("there is no node, stack, service or running task `{unknown}`");
            let (operand, kind, list) = (unknown.to_owned(), Kind::NotFound, "gantry ps");
            return Err(TalkError::Refused { operand, kind, text, list }.into());
        }
        watch.saw(&nodes, &tasks);
        Ok(watch)
    }

    fn new(cluster: Cluster, wanted: Wanted, interval: Duration) -> Self {
        let (report, events) = mpsc::channel(64);
        Self {
            cluster,
            wanted,
            interval,
            usage: Usage::default(),
            names: BTreeMap::new(),
            known: BTreeSet::new(),
            looked: Instant::now(),
            asked: BTreeSet::new(),
            followed: BTreeSet::new(),
            followers: FuturesUnordered::new(),
            events,
            report,
            silent: BTreeMap::new(),
        }
    }

    /// Listens until then.
    pub(crate) async fn until(&mut self, deadline: Instant) {
        loop {
            tokio::select! {
                // There is always a sender: our own.
                Some(event) = self.events.recv() => self.heard(event),
                Some(()) = self.followers.next(), if !self.followers.is_empty() => {}
                () = sleep_until(deadline) => break,
            }
        }
        self.look_around().await;
    }

    /// Listens until every node has said enough for rates, or is known to say nothing; until `deadline` at the latest.
    pub(crate) async fn until_rates(&mut self, deadline: Instant) {
        while Instant::now() < deadline && self.followed.iter().any(|node| self.is_awaited(node)) {
            tokio::select! {
                Some(event) = self.events.recv() => self.heard(event),
                Some(()) = self.followers.next(), if !self.followers.is_empty() => {}
                () = sleep_until(deadline) => {}
            }
        }
        for node in self.followed.iter().filter(|node| self.usage.looks(node) == 0) {
            self.silent.entry(node.clone()).or_insert_with(|| "it has said nothing yet".to_owned());
        }
    }

    fn is_awaited(&self, node: &str) -> bool {
        self.usage.looks(node) < 2 && !self.silent.contains_key(node)
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What is asked for, each with what users call it, in the order of that.
    pub(crate) fn tasks(&self) -> Vec<(String, TaskUsage)> {
        let tasks = self.usage.tasks().into_iter();
        let mut named: Vec<(String, TaskUsage)> =
            tasks.filter_map(|usage| Some((self.names.get(&usage.task)?.clone(), usage))).collect();
        named.sort_by(|(a, one), (b, other)| (a, one.task).cmp(&(b, other.task)));
        named
    }

    /// What there is to know of nodes that do not answer, a line each. One that has left the cluster is not missed.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let line = |(node, why): (&String, &String)| {
            format!("warning: node {node} does not answer, so what runs there is not shown: {why}")
        };
        self.silent.iter().filter(|(node, _)| self.asked.contains(*node)).map(line).collect()
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Said { node, stats } => {
                self.silent.remove(&node);
                self.usage.take(&node, stats);
            }
            Event::Silent { node, why } => {
                self.usage.forget(&node);
                self.silent.insert(node, why);
            }
        }
    }

    /// Looks again which nodes and tasks there are, if there is a reason to. That it does not succeed is no reason to stop.
    async fn look_around(&mut self) {
        let has_unknown = self.usage.has_unknown(|task| self.known.contains(&task));
        if !has_unknown && self.looked.elapsed() < LOOK_AROUND {
            return;
        }
        if let Ok(Ok((nodes, tasks))) = timeout(LOOK_TIME, list(&mut self.cluster)).await {
            self.saw(&nodes, &tasks);
        } else {
            self.cluster.turn_away();
        }
    }

    fn saw(&mut self, nodes: &[api::Node], tasks: &[api::Task]) {
        self.looked = Instant::now();
        let named = tasks.iter().filter_map(|task| Some((task.task.parse::<TaskId>().ok()?, task)));
        let named: Vec<(TaskId, &api::Task)> = named.collect();
        self.known = named.iter().map(|(id, _)| *id).collect();
        let wanted = named.into_iter().filter(|(_, task)| self.wanted.has(task));
        self.names = wanted.map(|(id, task)| (id, format!("{}.{}", task.service, task.slot))).collect();
        let asked = self.wanted.nodes(nodes, tasks);
        self.asked = asked.keys().cloned().collect();
        for (node, is_up) in asked {
            if !is_up {
                // Asking it would only take time.
                self.silent.entry(node).or_insert_with(|| "it is down".to_owned());
                continue;
            }
            if self.followed.insert(node.clone()) {
                let follower = follow(self.cluster.clone(), node, self.interval, self.report.clone());
                self.followers.push(follower.boxed_local());
            }
        }
    }
}

async fn list(cluster: &mut Cluster) -> Result<(Vec<api::Node>, Vec<api::Task>), CallError> {
    let operation = Operation { operand: "", effect: Effect::Reads, list: "gantry node ls" };
    let nodes = cluster.call(operation, PATIENCE, |mut client| async move {
        client.list_nodes(ListRequest::default()).await
    });
    let nodes = nodes.await?.nodes;
    let tasks = cluster.call(operation, PATIENCE, |mut client| async move {
        client.list_tasks(ListRequest::default()).await
    });
    Ok((nodes, tasks.await?.tasks))
}

/// Listens to one node for ever. One that breaks off is asked again after a while.
async fn follow(mut cluster: Cluster, node: String, interval: Duration, report: mpsc::Sender<Event>) {
    let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    loop {
        let what = begin::What::Stats(WatchStats { interval: millis });
        let why = match open(&mut cluster, Subject::Node(&node), what, Times::Any).await {
            Ok(talk) => match listen(talk, &node, interval, &report).await {
                Ok(()) => "it broke off".to_owned(),
                Err(error) => reason(&node, &error),
            },
            Err(error) => reason(&node, &error),
        };
        if report.send(Event::Silent { node: node.clone(), why }).await.is_err() {
            return;
        }
        cluster.turn_away();
        sleep(PAUSE).await;
    }
}

/// Why a node does not answer; that it is this node is said already.
fn reason(node: &str, error: &TalkError) -> String {
    let text = chain(error);
    text.strip_prefix(&format!("{node}: ")).map_or_else(|| text.clone(), str::to_owned)
}

async fn listen(
    talk: Talk,
    node: &str,
    interval: Duration,
    report: &mpsc::Sender<Event>,
) -> Result<(), TalkError> {
    let Talk { mouth: _kept, mut ear } = talk;
    while let Ok(heard) = timeout(interval + QUIET, ear.hear()).await {
        let Some(kind) = heard? else { return Ok(()) };
        if let piece::Kind::Stats(stats) = kind
            && report.send(Event::Said { node: node.to_owned(), stats }).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    fn task(service: &str, slot: u32, node: &str) -> api::Task {
        api::Task {
            service: service.to_owned(),
            slot,
            task: format!("s1-{slot}-7"),
            node: node.to_owned(),
            ..api::Task::default()
        }
    }

    fn node(name: &str, status: &str) -> api::Node {
        api::Node { node: name.to_owned(), status: status.to_owned(), ..api::Node::default() }
    }

    fn wanted(references: &[&str]) -> Wanted {
        Wanted(references.iter().map(|&reference| reference.to_owned()).collect())
    }

    #[test]
    fn a_task_is_meant_by_each_of_its_names() {
        let web = task("hello/web", 2, "n1");
        for reference in ["hello", "hello/web", "hello/web.2", "s1-2-7", "n1"] {
            assert!(wanted(&[reference]).has(&web), "{reference}");
        }
        for reference in ["hell", "web", "hello/web.1", "hello/webs", "s1-2-8", "n2"] {
            assert!(!wanted(&[reference]).has(&web), "{reference}");
        }
        assert!(wanted(&[]).has(&web));
        assert!(wanted(&["other", "n1"]).has(&web));
    }

    #[test]
    fn only_nodes_with_something_to_tell_are_asked() {
        let nodes = [node("n1", "ready"), node("n2", "unknown"), node("n3", "down")];
        let tasks = [task("hello/web", 1, "n1"), task("hello/web", 2, "n3"), task("other/web", 3, "n2")];
        let asked = |references: &[&str]| {
            let nodes = wanted(references).nodes(&nodes, &tasks);
            nodes.into_iter().map(|(node, is_up)| format!("{node} {is_up}")).collect::<Vec<_>>()
        };
        assert_eq!(asked(&[]), ["n1 true", "n2 true", "n3 false"]);
        assert_eq!(asked(&["hello"]), ["n1 true", "n3 false"]);
        assert_eq!(asked(&["n2", "hello/web.1"]), ["n1 true", "n2 true"]);
        assert_eq!(wanted(&["n2", "hello", "nothing"]).unknown(&nodes, &tasks), Some("nothing"));
        assert_eq!(wanted(&["n3", "other/web"]).unknown(&nodes, &tasks), None);
    }

    #[tokio::test]
    async fn a_node_that_has_left_is_not_missed() {
        let target = Target { cluster: "dev".to_owned(), sockets: vec!["/nowhere".into()] };
        let mut watch = Watch::new(Cluster::new(target), wanted(&[]), Duration::from_secs(1));
        watch.saw(&[node("n1", "ready"), node("n2", "down"), node("n3", "ready")], &[]);
        watch.heard(Event::Silent { node: "n3".to_owned(), why: "it broke off".to_owned() });
        assert_eq!(watch.warnings().len(), 2);
        watch.saw(&[node("n1", "ready")], &[]);
        assert_eq!(watch.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_reason_does_not_say_again_which_node() {
        let error =
            TalkError::Unreachable { operand: "n1".to_owned(), why: "it is not connected".to_owned() };
        assert_eq!(reason("n1", &error), "it is not connected");
        let error = TalkError::Unreachable { operand: "n1".to_owned(), why: "node `n1` is new".to_owned() };
        assert_eq!(reason("n1", &error), "node `n1` is new");
    }
}
