//! What tasks use, by their counters at two moments.

use std::collections::BTreeMap;

use model::TaskId;
use wire::proto::stream::{NodeStats, TaskStats};

/// The last that each node said.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    nodes: BTreeMap<String, Looks>,
}

#[derive(Debug)]
struct Looks {
    now: Look,
    before: Option<Look>,
}

/// One answer of a node.
#[derive(Debug)]
struct Look {
    /// Milliseconds, on the node's clock.
    at: u64,
    cpus: u32,
    memory: u64,
    tasks: BTreeMap<TaskId, TaskStats>,
}

/// What one task uses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskUsage {
    pub(crate) task: TaskId,
    pub(crate) node: String,
    /// Milliseconds since the epoch, on the node's clock.
    pub(crate) at: u64,
    pub(crate) counters: TaskStats,
    /// The memory that it can have, which its node's bounds: as `docker stats` has it.
    pub(crate) memory_limit: u64,
    /// `None` until there are two moments to compare.
    pub(crate) rates: Option<Rates>,
}

/// Changes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// 100 is one CPU.
    pub(crate) cpu_percent: f64,
    pub(crate) read_bytes: f64,
    pub(crate) write_bytes: f64,
    pub(crate) received_bytes: f64,
    pub(crate) sent_bytes: f64,
}

/// What the tasks of one node use together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeUsage {
    pub(crate) node: String,
    pub(crate) cpus: u32,
    /// What the node has, in bytes.
    pub(crate) memory: u64,
    pub(crate) tasks: usize,
    pub(crate) memory_used: u64,
    pub(crate) cpu_percent: Option<f64>,
}

impl Usage {
    pub(crate) fn take(&mut self, node: &str, said: NodeStats) {
        let NodeStats { at, tasks, cpus, memory } = said;
        let named = tasks.into_iter().filter_map(|stats| Some((id(&stats)?, stats)));
        let now = Look { at, cpus, memory, tasks: named.collect() };
        let before = self.nodes.remove(node).map(|looks| looks.now);
        self.nodes.insert(node.to_owned(), Looks { now, before });
    }

    /// A node that does not answer uses nobody knows what.
    pub(crate) fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// How often a node has answered, up to the two times that rates take.
    pub(crate) fn looks(&self, node: &str) -> usize {
        self.nodes.get(node).map_or(0, |looks| if looks.before.is_some() { 2 } else { 1 })
    }

    /// Whether any look shows a task that `is_known` does not know.
    pub(crate) fn has_unknown(&self, is_known: impl Fn(TaskId) -> bool) -> bool {
        self.nodes.values().flat_map(|looks| looks.now.tasks.keys()).any(|task| !is_known(*task))
    }

    pub(crate) fn tasks(&self) -> Vec<TaskUsage> {
        self.nodes.iter().flat_map(|(node, looks)| looks.tasks(node)).collect()
    }

    pub(crate) fn nodes(&self) -> Vec<NodeUsage> {
        self.nodes.iter().map(|(node, looks)| looks.together(node)).collect()
    }
}

fn id(stats: &TaskStats) -> Option<TaskId> {
    TaskId::try_from(stats.task?).ok()
}

impl Looks {
    fn tasks(&self, node: &str) -> Vec<TaskUsage> {
        let Look { at, memory, .. } = self.now;
        let usage = |(task, counters): (&TaskId, &TaskStats)| TaskUsage {
            task: *task,
            node: node.to_owned(),
            at,
            counters: *counters,
            memory_limit: counters.memory_limit.unwrap_or(memory).min(memory),
            rates: self
                .before
                .as_ref()
                .and_then(|before| rates(before.tasks.get(task)?, counters, at.checked_sub(before.at)?)),
        };
        self.now.tasks.iter().map(usage).collect()
    }

    fn together(&self, node: &str) -> NodeUsage {
        let tasks = self.tasks(node);
        let has_two = self.before.is_some();
        NodeUsage {
            node: node.to_owned(),
            cpus: self.now.cpus,
            memory: self.now.memory,
            tasks: tasks.len(),
            // Of numbers that a node says, which may be any.
            memory_used: tasks.iter().fold(0u64, |sum, task| sum.saturating_add(task.counters.memory)),
            cpu_percent: has_two
                .then(|| tasks.iter().filter_map(|task| task.rates).map(|rates| rates.cpu_percent).sum()),
        }
    }
}

/// How much more there is after so many milliseconds; `None` where that cannot be said, which it cannot of counters that
/// have begun anew: another attempt of the task runs.
fn rates(before: &TaskStats, now: &TaskStats, millis: u64) -> Option<Rates> {
    if millis == 0 {
        return None;
    }
    let seconds = millis as f64 / 1000.0;
    let rate =
        |counter: fn(&TaskStats) -> u64| Some(counter(now).checked_sub(counter(before))? as f64 / seconds);
    Some(Rates {
        cpu_percent: rate(|stats| stats.cpu_nanos)? / 1e9 * 100.0,
        read_bytes: rate(|stats| stats.read_bytes)?,
        write_bytes: rate(|stats| stats.write_bytes)?,
        received_bytes: rate(|stats| stats.received_bytes)?,
        sent_bytes: rate(|stats| stats.sent_bytes)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A task in slot 1 whose counters are all made of these numbers.
    pub(crate) fn stats(service: u64, cpu_millis: u64, memory: u64, bytes: u64) -> TaskStats {
        TaskStats {
            task: Some(wire::proto::model::TaskId { service, slot: 1, sequence: 1 }),
            cpu_nanos: cpu_millis * 1_000_000,
            memory,
            memory_limit: Some(64 << 20),
            pids: 3,
            read_bytes: bytes,
            write_bytes: 2 * bytes,
            received_bytes: 3 * bytes,
            sent_bytes: 4 * bytes,
            ..TaskStats::default()
        }
    }

    pub(crate) fn look(at: u64, tasks: Vec<TaskStats>) -> NodeStats {
        NodeStats { at, tasks, cpus: 2, memory: 8 << 30 }
    }

    #[test]
    fn rates_are_differences_over_the_nodes_own_time() {
        let mut usage = Usage::default();
        usage.take("n1", look(10_000, vec![stats(1, 100, 1 << 20, 1000)]));
        assert_eq!(usage.tasks()[0].rates, None, "there is nothing to compare with");
        assert_eq!((usage.looks("n1"), usage.looks("n2")), (1, 0));
        usage.take("n1", look(12_000, vec![stats(1, 1100, 2 << 20, 3000), stats(2, 5, 0, 0)]));
        assert_eq!(usage.looks("n1"), 2);
        let expected = Rates {
            cpu_percent: 50.0,
            read_bytes: 1000.0,
            write_bytes: 2000.0,
            received_bytes: 3000.0,
            sent_bytes: 4000.0,
        };
        let tasks = usage.tasks();
        assert_eq!(tasks[0].rates, Some(expected));
        assert_eq!(tasks[1].rates, None, "it has just begun");
        let node = &usage.nodes()[0];
        assert_eq!((node.cpu_percent, node.memory_used, node.tasks), (Some(50.0), 2 << 20, 2));
    }

    #[test]
    fn what_cannot_be_compared_has_no_rate() {
        let (few, many) = (stats(1, 5, 0, 5), stats(1, 9, 0, 9));
        assert!(rates(&few, &many, 1000).is_some());
        assert_eq!(rates(&many, &few, 1000), None, "another attempt counts from 0");
        assert_eq!(rates(&few, &many, 0), None, "no time has passed");
        let mut usage = Usage::default();
        usage.take("n1", look(2000, vec![few]));
        usage.take("n1", look(1000, vec![many]));
        assert_eq!(usage.tasks()[0].rates, None, "its clock was set back");
    }

    #[test]
    fn a_node_that_is_forgotten_starts_anew() {
        let mut usage = Usage::default();
        for at in [1000, 2000] {
            usage.take("n1", look(at, vec![stats(1, at, 0, 0)]));
        }
        assert!(usage.has_unknown(|_| false) && !usage.has_unknown(|_| true));
        usage.forget("n1");
        assert!(usage.tasks().is_empty() && usage.nodes().is_empty() && !usage.has_unknown(|_| false));
        usage.take("n1", look(9000, vec![stats(1, 9000, 0, 0)]));
        assert_eq!(usage.tasks()[0].rates, None);
    }

    #[test]
    fn absurd_numbers_of_a_node_end_nothing() {
        let mut usage = Usage::default();
        usage.take("n1", look(0, vec![stats(1, 0, u64::MAX, 0), stats(2, 0, u64::MAX, 0)]));
        assert_eq!(usage.nodes()[0].memory_used, u64::MAX);
    }

    #[test]
    fn no_task_has_more_memory_than_its_node() {
        let mut usage = Usage::default();
        let unlimited = TaskStats { memory_limit: None, ..stats(1, 0, 0, 0) };
        let lofty = TaskStats { memory_limit: Some(1 << 60), ..stats(2, 0, 0, 0) };
        usage.take("n1", look(0, vec![unlimited, lofty, stats(3, 0, 0, 0)]));
        let limits: Vec<u64> = usage.tasks().iter().map(|task| task.memory_limit).collect();
        assert_eq!(limits, [8 << 30, 8 << 30, 64 << 20]);
    }
}
