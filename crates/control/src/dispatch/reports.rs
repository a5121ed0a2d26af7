//! Reports of many agents, folded into one command each and into log entries of a bounded size.

use std::collections::BTreeMap;

use model::{Digest, NodeId, TaskId, TaskStatus};
use state::Command;
use wire::Field;
use wire::proto::agent::Report;

/// About what a log entry of reports holds, in bytes. A larger one would hold up whatever is proposed behind it.
const ENTRY: usize = 256 << 10;

/// What a status takes at most beside its reason and warnings: ids, numbers and their tags.
const STATUS: usize = 128;

/// What a warning takes at most beside its text: its tag, and a length in two bytes.
const WARNING: usize = 3;

/// What an image's digest takes: `sha256:`, 64 digits, tag and length.
const DIGEST: usize = 73;

/// The longest reason that is kept. It is for a person to read; what is longer belongs into a log.
const REASON: usize = 1 << 10;

/// The most warnings that are kept, each as long as a reason may be. A node that has more of them is the wrong one for
/// the task, and eight say so.
const WARNINGS: usize = 8;

/// The most images that a node may hold. They are one set and so one command, of 1.5 MB at most; beside [`ENTRY`] that is
/// less than the two MiB which the store takes.
const IMAGES: usize = 20_000;

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
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) commands: Vec<Command>,
    /// Everyone whose words are in it. Without a number where the node has said more, which is still to be committed.
    pub(super) numbers: BTreeMap<NodeId, Option<u64>>,
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
        if images.as_ref().is_some_and(|held| held.len() > IMAGES) {
            return Err(Field("HeldImages", "digests").bad("there are more than a node may hold"));
        }
        let pending = self.nodes.entry(node).or_default();
        pending.number = pending.number.max(number);
        for (id, status) in statuses {
            match pending.statuses.get(&id) {
                Some(known) if !status.supersedes(known) => {}
                Some(_) | None => drop(pending.statuses.insert(id, shortened(status))),
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

    /// As much as goes into one entry. The rest is left for the next.
    pub(super) fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut room = ENTRY;
        while room > 0
            && let Some(mut first) = self.nodes.first_entry()
        {
            let node = *first.key();
            batch.commands.extend(first.get_mut().take(node, &mut room));
            let number = if first.get().is_empty() { Some(first.remove().number) } else { None };
            batch.numbers.insert(node, number);
        }
        batch
    }
}

impl Pending {
    /// As much as there is room for, and what goes beyond it last of all: otherwise a set of images never had enough.
    fn take(&mut self, node: NodeId, room: &mut usize) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut statuses = Vec::new();
        while *room > 0
            && let Some((id, status)) = self.statuses.pop_first()
        {
            *room = room.saturating_sub(room_for(&status));
            statuses.push((id, status));
        }
        if !statuses.is_empty() {
            commands.push(Command::Report { node, statuses });
        }
        if *room > 0
            && let Some(held) = self.images.take()
        {
            *room = room.saturating_sub(STATUS + held.len() * DIGEST);
            commands.push(Command::ReportImages { node, held });
        }
        commands
    }

    fn is_empty(&self) -> bool {
        self.statuses.is_empty() && self.images.is_none()
    }
}

/// What a status takes at most.
fn room_for(status: &TaskStatus) -> usize {
    let reason = status.reason.as_ref().map_or(0, String::len);
    let warnings: usize = status.warnings.iter().map(|warning| WARNING + warning.len()).sum();
    STATUS + reason + warnings
}

fn shortened(mut status: TaskStatus) -> TaskStatus {
    status.warnings.truncate(WARNINGS);
    for text in status.reason.iter_mut().chain(&mut status.warnings) {
        text.truncate(text.floor_char_boundary(REASON));
    }
    status
}

#[cfg(test)]
mod tests {
    use model::{Ended, Exit, Phase, ServiceId, Timestamp};
    use state::Proposal;
    use wire::proto::agent::HeldImages;

    use super::*;

    /// What the store takes.
    const LARGEST: usize = 2 << 20;

    /// The largest status of all, but for the length of what it says; with more warnings than are kept.
    fn status(reason: String) -> TaskStatus {
        TaskStatus {
            attempt: u32::MAX,
            phase: Phase::Exited,
            seq: u32::MAX,
            ready: true,
            at: Timestamp(u64::MAX),
            exit: Some(Exit::Signal { signal: u8::MAX, oom: true }),
            ended: Some(Ended::Failing),
            warnings: vec![reason.clone(); WARNINGS + 1],
            reason: Some(reason),
        }
    }

    fn report(number: u64, tasks: u32, reason: &str, images: Option<usize>) -> Report {
        let task = |slot| TaskId { service: ServiceId(u64::MAX), slot: u32::MAX - slot, sequence: u64::MAX };
        let observed = (0..tasks).map(|slot| (task(slot), status(reason.to_owned())).into());
        let digest = Digest([1; 32]).to_string();
        let images = images.map(|count| HeldImages { digests: vec![digest; count] });
        Report { number, tasks: observed.collect(), images }
    }

    fn size(batch: &Batch) -> usize {
        let commands = batch.commands.clone();
        wire::log::encode(&Proposal { at: Timestamp(u64::MAX), request: None, by: None, commands }).len()
    }

    fn all(mut fold: Fold) -> Vec<Batch> {
        std::iter::from_fn(|| (!fold.is_empty()).then(|| fold.take())).collect()
    }

    #[test]
    fn reports_of_many_agents_go_into_one_entry() {
        let mut fold = Fold::default();
        fold.add(NodeId(1), report(7, 2, "", None)).unwrap();
        fold.add(NodeId(2), report(3, 1, "", Some(1))).unwrap();
        fold.add(NodeId(3), report(9, 0, "", None)).unwrap();
        let batches = all(fold);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].commands.len(), 3);
        let numbers = [(1, 7), (2, 3), (3, 9)].map(|(node, number)| (NodeId(node), Some(number)));
        assert_eq!(batches[0].numbers, BTreeMap::from(numbers));
    }

    #[test]
    fn a_report_that_is_too_large_for_one_entry_is_acknowledged_with_its_last_part() {
        let mut fold = Fold::default();
        fold.add(NodeId(1), report(7, 5000, &"x".repeat(500), Some(10))).unwrap();
        fold.add(NodeId(2), report(3, 1, "", None)).unwrap();
        let batches = all(fold);
        assert!(batches.len() > 5, "{} entries", batches.len());
        assert!(batches.iter().all(|batch| size(batch) < 2 * ENTRY));
        let numbers: Vec<_> = batches.iter().filter_map(|batch| batch.numbers.get(&NodeId(1))).collect();
        let (last, before) = numbers.split_last().unwrap();
        assert!(before.iter().all(|number| number.is_none()), "{before:?}");
        assert_eq!(**last, Some(7));
        let said = batches.iter().flat_map(|batch| &batch.commands).map(|command| match command {
            Command::Report { node: NodeId(1), statuses } => statuses.len(),
            _ => 0,
        });
        assert_eq!(said.sum::<usize>(), 5000);
    }

    #[test]
    fn the_largest_entry_is_one_that_the_store_takes() {
        let mut fold = Fold::default();
        let reason = "x".repeat(REASON);
        // The room is all but used up when the images come.
        let almost = u32::try_from(ENTRY / (STATUS + REASON + WARNINGS * (WARNING + REASON))).unwrap();
        fold.add(NodeId(u64::MAX), report(1, almost, &reason, Some(IMAGES))).unwrap();
        let batches = all(fold);
        assert_eq!(batches.len(), 1);
        assert!(size(&batches[0]) < LARGEST, "{} bytes", size(&batches[0]));
    }

    #[test]
    fn nothing_is_larger_than_it_is_counted_for() {
        let mut fold = Fold::default();
        fold.add(NodeId(u64::MAX), report(1, 100, "", Some(100))).unwrap();
        assert!(size(&fold.take()) <= 101 * STATUS + 100 * WARNINGS * WARNING + 100 * DIGEST);
    }

    #[test]
    fn a_reason_or_a_warning_that_nobody_would_read_to_its_end_is_cut() {
        let mut fold = Fold::default();
        fold.add(NodeId(1), report(1, 1, &"ä".repeat(REASON), None)).unwrap();
        let Some(Command::Report { statuses, .. }) = fold.take().commands.pop() else { panic!("no report") };
        let (kept, status) = ("ä".repeat(REASON / 2), &statuses[0].1);
        assert_eq!(status.warnings, vec![kept.clone(); WARNINGS]);
        assert_eq!(status.reason, Some(kept));
    }

    #[test]
    fn a_node_that_holds_more_images_than_can_be_told_is_refused() {
        let mut fold = Fold::default();
        assert!(fold.add(NodeId(1), report(1, 0, "", Some(IMAGES))).is_ok());
        assert!(fold.add(NodeId(1), report(2, 0, "", Some(IMAGES + 1))).is_err());
    }
}
