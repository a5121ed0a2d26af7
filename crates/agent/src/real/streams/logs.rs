//! What containers of this node wrote, on its way to a manager: of several tasks as one stream, in the order of its times.
//!
//! Nothing here is kept longer than it takes to send it: a manager that does not read is not read for.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::TaskId;
use runtime::logs::{Line, LogError, Reader, Stream, Wanted};
use tokio::time::{Instant, sleep};
use wire::proto::agent::{LogLine, LogMark, LogOf, OpenLogs, chunk};

use crate::host::Failure;
use crate::real::disk::Disk;
use crate::real::failure;
use crate::real::streams::Sink;

/// How often followed logs are looked at for more.
const LOOK: Duration = Duration::from_millis(100);

/// Every so many looks, the ledger is asked whether a followed task still is: once a second.
const LOOKS_A_LIFE: u32 = 10;

/// Lines that are sent before logs that had ended for now are looked at again. One that is written faster than it is sent
/// must not keep the others from their turn.
const ROUND: usize = 256;

/// How long a followed task may be unknown here: its manager may have asked for its log before it told of the task.
const ASSIGNED_WITHIN: Duration = Duration::from_secs(5);

/// What a manager wants to read.
#[derive(Debug)]
pub(super) struct Wish {
    follow: bool,
    until: Option<SystemTime>,
    tasks: Vec<Asked>,
    /// What is written from now on is not read unless it is followed: a log that is written faster than it is read would
    /// have no end.
    begun: SystemTime,
}

/// One task, and from where on.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Its place in the request.
    place: u32,
    task: TaskId,
    since: Option<SystemTime>,
    tail: Option<usize>,
}

impl TryFrom<OpenLogs> for Wish {
    type Error = Failure;

    fn try_from(open: OpenLogs) -> Result<Self, Failure> {
        let OpenLogs { follow, until_nanos, tasks } = open;
        let asked = (0..).zip(tasks).map(|(place, log)| asked(place, log));
        let tasks = asked.collect::<Result<Vec<Asked>, Failure>>()?;
        Ok(Self { follow, until: until_nanos.map(time), tasks, begun: SystemTime::now() })
    }
}

fn asked(place: u32, log: LogOf) -> Result<Asked, Failure> {
    let LogOf { task, since_nanos, tail } = log;
    let task = task.ok_or_else(|| Failure("no task was named".to_owned()))?;
    let task = TaskId::try_from(task).map_err(|error| failure("malformed", &error))?;
    let since = (since_nanos > 0).then(|| time(since_nanos));
    let tail = tail.map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
    Ok(Asked { place, task, since, tail })
}

fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Sends what is wanted until all of it is sent; of what is followed, until nothing more can come.
pub(super) async fn send(disk: &Disk, wish: Wish, sink: &Sink) -> Result<(), Failure> {
    let mut lanes = lanes(disk, &wish);
    let mut caught_up = false;
    let mut looked = Instant::now();
    let mut looks = 0u32;
    loop {
        let now = SystemTime::now();
        let sent = round(disk, &wish, &mut lanes, sink).await?;
        lanes.retain(Lane::goes_on);
        if lanes.is_empty() {
            return Ok(());
        }
        if sent == 0 {
            if !caught_up {
                caught_up = true;
                let mark = LogLine { at: nanos(now), ..mark(0, LogMark::CaughtUp) };
                sink.send(chunk::Kind::Line(mark)).await?;
            }
            sleep(LOOK).await;
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            looks = looks.wrapping_add(1);
            for log in lanes.iter_mut().filter_map(|lane| lane.log.as_mut()) {
                log.look(disk, &wish, looks.is_multiple_of(LOOKS_A_LIFE));
            }
        }
    }
}

/// Sends lines in the order of their times, [`ROUND`] at most; returns how many.
async fn round(disk: &Disk, wish: &Wish, lanes: &mut [Lane], sink: &Sink) -> Result<usize, Failure> {
    for lane in &mut *lanes {
        lane.fill(disk, wish);
    }
    let mut sent = 0;
    while sent < ROUND {
        let with_head = lanes.iter_mut().filter(|lane| lane.head.is_some());
        // Between equals, the order is that of the tasks: the minimum is the first of them.
        let earliest = with_head.min_by_key(|lane| lane.head.as_ref().map(|line| line.at));
        let Some(lane) = earliest else { break };
        if let Some(line) = lane.head.take() {
            sink.send(chunk::Kind::Line(line)).await?;
        }
        lane.fill(disk, wish);
        sent += 1;
    }
    Ok(sent)
}

/// Logs that are read one after the other: each is opened when the one before it is read to its end.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Asked>,
    log: Option<Log>,
    /// What is to be sent next.
    head: Option<LogLine>,
}

/// The tasks of a slot that have ended have a lane together: they ran one after the other, and a file is held open for one of
/// them at a time. Every other task has its own.
fn lanes(disk: &Disk, wish: &Wish) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    let mut ended_before = None;
    for &asked in &wish.tasks {
        let slot = (asked.task.service, asked.task.slot);
        let has_ended = standing(disk, asked.task) == Standing::Ended;
        match lanes.last_mut() {
            Some(lane) if has_ended && ended_before == Some(slot) => lane.waiting.push_back(asked),
            Some(_) | None => lanes.push(Lane { waiting: VecDeque::from([asked]), ..Lane::default() }),
        }
        ended_before = has_ended.then_some(slot);
    }
    lanes
}

impl Lane {
    fn goes_on(&self) -> bool {
        self.head.is_some() || self.log.is_some() || !self.waiting.is_empty()
    }

    /// Sees to it that there is a head, if there is anything to be sent.
    fn fill(&mut self, disk: &Disk, wish: &Wish) {
        while self.head.is_none() {
            let Some(log) = &mut self.log else {
                let Some(asked) = self.waiting.pop_front() else { return };
                match Log::open(disk, wish, asked) {
                    Ok(log) => self.log = Some(log),
                    Err(mark) => self.head = Some(mark),
                }
                continue;
            };
            let place = log.asked.place;
            match log.next(wish) {
                Ok(Some((attempt, line))) => self.head = Some(record(place, attempt, line)),
                Ok(None) => match log.life {
                    Life::Over(last) => {
                        self.log = None;
                        self.head = last.map(|kind| mark(place, kind));
                    }
                    Life::Going | Life::Awaited { .. } => return,
                },
                Err(error) => {
                    self.log = None;
                    self.head = Some(unreadable(place, &error));
                }
            }
        }
    }
}

/// One task's log, all attempts of it.
#[derive(Debug)]
struct Log {
    asked: Asked,
    /// The attempt that is being read.
    reader: Option<(u32, Reader)>,
    /// Those after it, oldest first. Each is opened when it is its turn: a task holds one file open, however often it was
    /// started, and a daemon may not have many.
    later: VecDeque<(u32, PathBuf)>,
    /// The latest attempt that was found; 0 before the first.
    newest: u32,
    life: Life,
}

/// Whether more can come.
#[derive(Clone, Copy, Debug)]
enum Life {
    Going,
    /// The task is not known here, and was looked for first at this time.
    Awaited {
        since: Instant,
    },
    /// All that there will be is on disk. What is to be said when it has been sent.
    Over(Option<LogMark>),
}

impl Log {
    /// Opens what there is; otherwise, what is to be said instead.
    fn open(disk: &Disk, wish: &Wish, asked: Asked) -> Result<Self, LogLine> {
        // First of all: after an end there is no further attempt.
        let standing = standing(disk, asked.task);
        let (attempts, dirs): (Vec<u32>, Vec<_>) = disk.attempts(asked.task).into_iter().unzip();
        let life = match standing {
            Standing::Live if wish.follow => Life::Going,
            Standing::Unknown if wish.follow => Life::Awaited { since: Instant::now() },
            Standing::Live | Standing::Unknown | Standing::Ended => Life::Over(None),
        };
        if attempts.is_empty() && matches!(life, Life::Over(_)) {
            return Err(mark(asked.place, LogMark::NotHere));
        }
        let wanted = Wanted { since: asked.since, until: wish.until, tail: asked.tail };
        let readers = Reader::of_all(&dirs, wanted).map_err(|error| unreadable(asked.place, &error))?;
        let newest = attempts.last().copied().unwrap_or(0);
        // Attempts that are too old for the tail have none. The first that has one is read from the tail on, and all after
        // it from their beginning.
        let too_old = attempts.len().saturating_sub(readers.len());
        let mut read = attempts.into_iter().zip(dirs).skip(too_old);
        let reader = read.next().map(|(attempt, _)| attempt).zip(readers.into_iter().next());
        Ok(Self { asked, reader, later: read.collect(), newest, life })
    }

    /// The next line and the attempt that wrote it; nothing at the end, which is for now as long as the task goes on.
    fn next(&mut self, wish: &Wish) -> Result<Option<(u32, Line)>, LogError> {
        loop {
            let Some((attempt, reader)) = &mut self.reader else {
                let Some((attempt, dir)) = self.later.pop_front() else { return Ok(None) };
                let wanted = Wanted { since: self.asked.since, until: wish.until, tail: None };
                self.reader = Some((attempt, Reader::of(&dir, wanted)?));
                continue;
            };
            let attempt = *attempt;
            match reader.next().transpose()? {
                // A time that lies ahead is a clock that was set back, and says nothing.
                Some(line) if !wish.follow && line.at > wish.begun && line.at <= SystemTime::now() => {
                    self.reader = None;
                    self.later.clear();
                }
                Some(line) => return Ok(Some((attempt, line))),
                None if self.later.is_empty() => return Ok(None),
                // There is a later attempt, so this one has ended, and its log with it.
                None => self.reader = None,
            }
        }
    }

    /// Looks for a further attempt, and from time to time whether there can be one.
    fn look(&mut self, disk: &Disk, wish: &Wish, is_time: bool) {
        if matches!(self.life, Life::Over(_)) {
            return;
        }
        let attempts = disk.attempts(self.asked.task);
        let is_gone = attempts.is_empty() && self.newest > 0;
        let standing = (is_time || is_gone).then(|| standing(disk, self.asked.task));
        // Once more: after an end there is no further attempt, but there may have been one between the two looks.
        let attempts = if standing.is_some() { disk.attempts(self.asked.task) } else { attempts };
        for (attempt, dir) in attempts {
            if attempt > self.newest {
                self.newest = attempt;
                self.later.push_back((attempt, dir));
            }
        }
        if wish.until.is_some_and(|until| SystemTime::now() > until) {
            self.life = Life::Over(None);
        } else if let Some(standing) = standing {
            self.life = next_life(self.life, standing, is_gone);
        }
    }
}

/// What follows from how the ledger has it; `is_gone` if it had attempts here and has none any more.
fn next_life(life: Life, standing: Standing, is_gone: bool) -> Life {
    match (life, standing) {
        (Life::Over(_), _) => life,
        (_, Standing::Live) => Life::Going,
        (_, Standing::Ended) if is_gone => Life::Over(Some(LogMark::Removed)),
        (_, Standing::Ended) => Life::Over(Some(LogMark::Ended)),
        (Life::Going, Standing::Unknown) => Life::Over(Some(LogMark::Removed)),
        (Life::Awaited { since }, Standing::Unknown) if since.elapsed() > ASSIGNED_WITHIN => {
            Life::Over(Some(LogMark::NotHere))
        }
        (Life::Awaited { .. }, Standing::Unknown) => life,
    }
}

/// A task by the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Live,
    /// There will be no further attempt.
    Ended,
}

fn standing(disk: &Disk, task: TaskId) -> Standing {
    match disk.record(task) {
        Ok(Some(record)) if record.status.as_ref().is_some_and(|status| status.ended.is_some()) => {
            Standing::Ended
        }
        // In doubt it goes on.
        Ok(Some(_)) | Err(_) => Standing::Live,
        Ok(None) => Standing::Unknown,
    }
}

fn record(place: u32, attempt: u32, line: Line) -> LogLine {
    let Line { at, stream, text, partial } = line;
    let stderr = match stream {
        Stream::Stdout => false,
        Stream::Stderr => true,
    };
    LogLine { at: nanos(at), stderr, text, partial, task: place, attempt, mark: LogMark::None.into() }
}

fn mark(place: u32, kind: LogMark) -> LogLine {
    LogLine { task: place, mark: kind.into(), ..LogLine::default() }
}

fn unreadable(place: u32, error: &LogError) -> LogLine {
    let Failure(why) = failure("its log cannot be read", error);
    LogLine { text: why.into_bytes(), ..mark(place, LogMark::Unreadable) }
}

#[cfg(test)]
mod tests;
