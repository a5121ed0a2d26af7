//! Reports of many agents, folded into one command each and one log entry for all.

use std::collections::BTreeMap;

use model::{Digest, NodeId, TaskId, TaskStatus};
use state::Command;
use wire::proto::agent::Report;

/// What has been reported and is not yet committed.
#[derive(Debug, Default)]
pub(super) struct Fold {
    nodes: BTreeMap<NodeId, Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    /// The highest report number in here, to be acknowledged once committed.
    number: u64,
    statuses: BTreeMap<TaskId, TaskStatus>,
    images: Option<Vec<Digest>>,
}

/// What one proposal carries, and whom to acknowledge it to.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) commands: Vec<Command>,
    pub(super) numbers: BTreeMap<NodeId, u64>,
}

impl Fold {
    /// Takes a report in. What cannot be read is refused as a whole: a part of it would be acknowledged as all of it.
    pub(super) fn add(&mut self, node: NodeId, report: Report) -> Result<(), wire::Invalid> {
        let Report { number, tasks, images } = report;
        let statuses: Vec<(TaskId, TaskStatus)> =
            tasks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let images = images
            .map(|held| held.digests.iter().map(|digest| wire::digest(digest)).collect::<Result<Vec<_>, _>>())
            .transpose()?;
        let pending = self.nodes.entry(node).or_default();
        pending.number = pending.number.max(number);
        for (id, status) in statuses {
            match pending.statuses.get(&id) {
                Some(known) if !status.supersedes(known) => {}
                Some(_) | None => drop(pending.statuses.insert(id, status)),
            }
        }
        if images.is_some() {
            pending.images = images;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Everything so far, leaving nothing.
    pub(super) fn take(&mut self) -> Batch {
        let mut batch = Batch { commands: Vec::new(), numbers: BTreeMap::new() };
        for (node, pending) in std::mem::take(&mut self.nodes) {
            let Pending { number, statuses, images } = pending;
            batch.numbers.insert(node, number);
            if !statuses.is_empty() {
                batch.commands.push(Command::Report { node, statuses: statuses.into_iter().collect() });
            }
            if let Some(held) = images {
                batch.commands.push(Command::ReportImages { node, held });
            }
        }
        batch
    }
}
