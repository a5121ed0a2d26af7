//! Lines of several nodes in the order of their times: what is let go now, and what is held for how long.
//!
//! Each node's lines come in order, on a *lane* of their own. The earliest line that is there is let go once no lane without a
//! line can be expected to bring an earlier one. How long that takes depends on what the lane is doing: one that sends what was
//! written long ago is waited for, one that follows has [`HOLD`], one whose node is away has nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use wire::proto::api::LogEntry;

/// How long a new line is held back for earlier ones of other nodes. A node looks at its logs every 100 ms, so a line may be
/// that much later here than one of the same moment from elsewhere; the rest is for the way.
const HOLD: Duration = Duration::from_millis(150);

/// Lines that a lane holds before its node is made to wait, or, where they are only held back for their order, before they are let
/// go. Enough for some thousand lines a second in order.
const LINES: usize = 1024;

/// All lanes together hold less than this and one line each.
const BYTES: usize = 8 << 20;

/// The lines of several nodes.
#[derive(Debug)]
pub(super) struct Merge {
    lanes: BTreeMap<u64, Lane>,
    /// How long a lane that is behind may say nothing before the others go on without it; for ever if there is no such time.
    patience: Option<Duration>,
    /// Of all lines that are held.
    bytes: usize,
}

#[derive(Debug)]
struct Lane {
    held: VecDeque<Held>,
    phase: Phase,
}

#[derive(Debug)]
struct Held {
    entry: LogEntry,
    arrived: Instant,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// What it sends was written before. It is waited for, until this time if there is one.
    Behind { until: Option<Instant> },
    /// It sends what is being written.
    Live,
    /// Nobody knows when it sends anything again.
    Away,
    /// It sends nothing more.
    Over,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Give(LogEntry),
    /// Nothing until then, or before something arrives.
    Wait(Option<Instant>),
}

impl Merge {
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self { lanes: BTreeMap::new(), patience, bytes: 0 }
    }

    /// A lane that has not sent anything yet. Between lines of the same time, that of the lower lane is the first.
    pub(super) fn open(&mut self, lane: u64, now: Instant) {
        let phase = self.behind(now);
        self.lanes.insert(lane, Lane { held: VecDeque::new(), phase });
    }

    fn behind(&self, now: Instant) -> Phase {
        Phase::Behind { until: self.patience.map(|patience| now + patience) }
    }

    /// Whether there is room for another entry of this lane. An empty one always has: the others may be waiting for it.
    pub(super) fn has_room(&self, lane: u64) -> bool {
        self.lanes
            .get(&lane)
            .is_some_and(|lane| lane.held.is_empty() || lane.held.len() < LINES && self.bytes < BYTES)
    }

    pub(super) fn push(&mut self, lane: u64, entry: LogEntry, now: Instant) {
        let behind = self.behind(now);
        let Some(lane) = self.lanes.get_mut(&lane) else { return };
        match lane.phase {
            // It is not silent: as long as it sends what was written before, it is waited for. So is one that is back.
            Phase::Behind { .. } | Phase::Away => lane.phase = behind,
            Phase::Live | Phase::Over => {}
        }
        self.bytes += size(&entry);
        lane.held.push_back(Held { entry, arrived: now });
    }

    /// What the lane sends from now on is being written now.
    pub(super) fn caught_up(&mut self, lane: u64) {
        self.set(lane, Phase::Live);
    }

    /// The lane's node cannot be reached.
    pub(super) fn away(&mut self, lane: u64) {
        self.set(lane, Phase::Away);
    }

    pub(super) fn close(&mut self, lane: u64) {
        self.set(lane, Phase::Over);
    }

    pub(super) fn close_all(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.phase = Phase::Over;
        }
    }

    fn set(&mut self, lane: u64, phase: Phase) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.phase = phase;
        }
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.held.is_empty())
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.lanes.retain(|_, lane| lane.phase != Phase::Over || !lane.held.is_empty());
        let heads = self.lanes.iter().filter_map(|(id, lane)| Some((*id, lane.held.front()?)));
        let Some((id, head)) = heads.min_by_key(|(_, head)| head.entry.at) else { return Next::Wait(None) };
        match self.due(id, head) {
            Some(due) if due <= now => {}
            due => return Next::Wait(due),
        }
        match self.lanes.get_mut(&id).and_then(|lane| lane.held.pop_front()) {
            Some(Held { entry, .. }) => {
                self.bytes -= size(&entry);
                Next::Give(entry)
            }
            None => Next::Wait(None),
        }
    }

    /// When the earliest line may be let go; `None` if something else has to happen first.
    fn due(&self, id: u64, head: &Held) -> Option<Instant> {
        let mut due = head.arrived;
        // What is not a line has no place among them.
        if head.entry.at == 0 {
            return Some(due);
        }
        // Order is worth that much memory and no more.
        let hold = if self.has_room(id) { HOLD } else { Duration::ZERO };
        for lane in self.lanes.values().filter(|lane| lane.held.is_empty()) {
            match lane.phase {
                Phase::Behind { until } => due = due.max(until?),
                Phase::Live => due = due.max(head.arrived + hold),
                Phase::Away | Phase::Over => {}
            }
        }
        Some(due)
    }
}

/// What an entry costs in memory, its names aside: they are short.
fn size(entry: &LogEntry) -> usize {
    entry.text.len() + entry.note.len() + entry.warning.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written as `LANE.TIME`; time 0 is a note.
    fn entry(lane: u64, at: u64) -> LogEntry {
        LogEntry { task: lane.to_string(), at, text: vec![b'x'; 10], ..LogEntry::default() }
    }

    /// Lanes, and a clock in milliseconds.
    struct Table {
        merge: Merge,
        begun: Instant,
    }

    impl Table {
        fn new(patience: Option<u64>, lanes: u64) -> Self {
            let begun = Instant::now();
            let mut merge = Merge::new(patience.map(Duration::from_millis));
            (1..=lanes).for_each(|lane| merge.open(lane, begun));
            Self { merge, begun }
        }

        fn at(&self, millis: u64) -> Instant {
            self.begun + Duration::from_millis(millis)
        }

        fn push(&mut self, millis: u64, lane: u64, times: &[u64]) {
            for time in times {
                self.merge.push(lane, entry(lane, *time), self.at(millis));
            }
        }

        /// All that is let go at this time, and when to look again.
        fn given(&mut self, millis: u64) -> String {
            let mut given = Vec::new();
            loop {
                match self.merge.next(self.at(millis)) {
                    Next::Give(entry) => given.push(format!("{}.{}", entry.task, entry.at)),
                    Next::Wait(None) => return given.join(" "),
                    Next::Wait(Some(until)) => {
                        given.push(format!("(at {})", (until - self.begun).as_millis()));
                        return given.join(" ");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_written_before_is_in_order_however_it_arrives() {
        let mut table = Table::new(None, 3);
        table.push(0, 1, &[2, 4, 4]);
        assert_eq!(table.given(0), "", "the others may have earlier lines");
        table.push(700, 3, &[1, 4, 5]);
        assert_eq!(table.given(800), "", "there is no hurry");
        table.merge.close(2);
        assert_eq!(table.given(900), "3.1 1.2 1.4 1.4", "the first may go on with another of that time");
        table.merge.close(1);
        assert_eq!(table.given(900), "3.4 3.5");
        table.merge.close(3);
        assert!(table.merge.is_empty());
        assert_eq!(table.given(900), "");
    }

    #[test]
    fn what_is_being_written_is_held_back_for_a_moment() {
        let mut table = Table::new(Some(1000), 2);
        table.merge.caught_up(1);
        table.merge.caught_up(2);
        table.push(0, 1, &[20]);
        assert_eq!(table.given(0), "(at 150)");
        table.push(90, 2, &[10]);
        assert_eq!(table.given(90), "2.10 (at 150)", "both have a line, so the order is known");
        table.push(100, 1, &[30]);
        assert_eq!(table.given(150), "1.20 (at 250)");
        table.push(240, 2, &[5]);
        assert_eq!(table.given(240), "2.5 (at 250)", "what comes too late is not lost");
        assert_eq!(table.given(250), "1.30");
    }

    #[test]
    fn a_lane_that_says_nothing_is_not_waited_for_longer_than_that() {
        let mut table = Table::new(Some(1000), 2);
        table.push(0, 1, &[20]);
        assert_eq!(table.given(0), "(at 1000)");
        table.push(600, 2, &[10]);
        assert_eq!(table.given(600), "2.10 (at 1600)", "it is busy sending what was written before");
        table.push(700, 1, &[30]);
        assert_eq!(table.given(1600), "1.20 1.30");
        table.push(1700, 2, &[25]);
        table.merge.caught_up(2);
        table.merge.caught_up(1);
        assert_eq!(table.given(1700), "(at 1850)");
        assert_eq!(table.given(1850), "2.25");
    }

    #[test]
    fn a_node_that_is_away_holds_up_nobody_until_it_is_back() {
        let mut table = Table::new(Some(1000), 2);
        table.merge.caught_up(1);
        table.push(0, 2, &[0]);
        table.merge.away(2);
        table.push(0, 1, &[20]);
        assert_eq!(table.given(0), "2.0 1.20");
        table.push(50, 2, &[10]);
        assert_eq!(table.given(50), "(at 200)", "the first is live");
        table.push(60, 1, &[30]);
        assert_eq!(table.given(60), "2.10 (at 1050)", "it has more to tell of the time that it was away");
        table.merge.close(2);
        assert_eq!(table.given(60), "1.30");
    }

    #[test]
    fn notes_are_not_held_back_and_stay_behind_the_lines_before_them() {
        let mut table = Table::new(None, 3);
        table.push(0, 1, &[7, 0]);
        table.push(0, 2, &[0, 8]);
        assert_eq!(table.given(0), "2.0");
        table.merge.close(3);
        assert_eq!(table.given(0), "1.7 1.0");
    }

    #[test]
    fn a_flood_is_let_go_before_it_fills_the_memory() {
        let mut table = Table::new(Some(1000), 2);
        table.merge.caught_up(1);
        table.merge.caught_up(2);
        let lines = u64::try_from(LINES).unwrap();
        for time in 1..=lines {
            assert!(table.merge.has_room(1));
            table.push(0, 1, &[time]);
        }
        assert!(!table.merge.has_room(1));
        assert!(table.merge.has_room(2), "whoever is waited for may speak");
        assert_eq!(table.given(0), "1.1 (at 150)");
        assert!(table.merge.has_room(1));
    }

    #[test]
    fn long_lines_fill_the_memory_of_all_lanes() {
        let mut table = Table::new(None, 3);
        let long = LogEntry { text: vec![b'x'; BYTES], ..entry(1, 1) };
        table.merge.push(1, long, table.at(0));
        table.push(0, 2, &[2]);
        assert_eq!([1, 2, 3].map(|lane| table.merge.has_room(lane)), [false, false, true]);
        assert_eq!(table.given(0), "", "the third is to come, however long it takes");
        table.push(5000, 3, &[3]);
        assert_eq!(table.given(5000), "1.1");
        assert_eq!([1, 2, 3].map(|lane| table.merge.has_room(lane)), [true, true, true]);
    }
}
