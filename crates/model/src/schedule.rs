//! When a job is done by itself: a cron expression in a time zone.
//!
//! The expression has cron's five fields (minute, hour, day of the month, month, day of the week), names of months and days, and
//! the nicknames `@hourly` to `@yearly`; days of the month and of the week are alternatives where both are named, as in Vixie's
//! cron. Where a clock is set forward, what falls into the gap is due when it is over; where it is set back, what names an hour is
//! due once. Time zones are IANA's, from the tables that gantry is built with, so that all managers agree.

use std::fmt;
use std::sync::LazyLock;

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::Timestamp;

/// When a job is done, and what becomes of times at which it cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    cron: String,
    zone: String,
    pub overlap: Overlap,
    pub missed: Missed,
}

/// What becomes of a time at which the run before it still goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overlap {
    /// Nothing is begun.
    #[default]
    Skip,
    /// Both go on.
    Allow,
    /// The run before it is stopped.
    Replace,
}

/// What becomes of times that passed while no manager led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missed {
    /// The latest of them is made up for.
    #[default]
    Run,
    Skip,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    #[error("`{cron}` is not a cron expression: {why}")]
    Cron { cron: String, why: String },
    #[error("`{0}` never comes")]
    Never(String),
    #[error("there is no time zone `{0}`")]
    Zone(String),
}

impl Schedule {
    /// What stands for the schedule where nobody names a zone.
    pub const UTC: &str = "UTC";

    /// In characters. Five fields that name every one of their values are longer; nobody writes them so.
    const MAX_LENGTH: usize = 200;

    /// # Errors
    /// The expression is none, or names no time that ever comes; or there is no such zone.
    pub fn new(cron: &str, zone: &str, overlap: Overlap, missed: Missed) -> Result<Self, InvalidSchedule> {
        let schedule = Self { cron: cron.to_owned(), zone: zone.to_owned(), overlap, missed };
        parsed(cron)?;
        zone_named(zone)?;
        // The first of January 2026: any will do.
        match schedule.next(Timestamp(1_767_225_600_000)) {
            Some(_) => Ok(schedule),
            None => Err(InvalidSchedule::Never(cron.to_owned())),
        }
    }

    pub fn cron(&self) -> &str {
        &self.cron
    }

    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Whether both name the same times.
    pub fn has_times_of(&self, other: &Self) -> bool {
        (&self.cron, &self.zone) == (&other.cron, &other.zone)
    }

    /// The first time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let (cron, from) = self.at(after)?;
        millis(&cron.find_next_occurrence(&from, false).ok()?)
    }

    /// The last time up to `until`.
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let (cron, from) = self.at(until)?;
        millis(&cron.find_previous_occurrence(&from, true).ok()?)
    }

    fn at(&self, time: Timestamp) -> Option<(Cron, jiff::Zoned)> {
        let at = jiff::Timestamp::from_millisecond(i64::try_from(time.0).ok()?).ok()?;
        Some((parsed(&self.cron).ok()?, at.to_zoned(zone_named(&self.zone).ok()?)))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cron)?;
        if self.zone == Self::UTC { Ok(()) } else { write!(f, " {}", self.zone) }
    }
}

impl Overlap {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Allow => "allow",
            Self::Replace => "replace",
        }
    }
}

impl Missed {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Skip => "skip",
        }
    }
}

fn parsed(cron: &str) -> Result<Cron, InvalidSchedule> {
    let shown: String = cron.chars().take(Schedule::MAX_LENGTH).collect();
    if shown.len() < cron.len() {
        return Err(InvalidSchedule::Cron { cron: shown, why: "it is too long".to_owned() });
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(cron).map_err(|error| {
        let why = match error {
            CronError::InvalidPattern(why)
            | CronError::IllegalCharacters(why)
            | CronError::ComponentError(why) => why,
            other => other.to_string(),
        };
        let why = why.trim_end_matches('.').to_owned();
        InvalidSchedule::Cron { cron: shown, why }
    })
}

fn zone_named(name: &str) -> Result<TimeZone, InvalidSchedule> {
    // No file of the machine that this runs on has a say.
    static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
    BUNDLED.get(name).map_err(|_| InvalidSchedule::Zone(name.chars().take(Schedule::MAX_LENGTH).collect()))
}

fn millis(at: &jiff::Zoned) -> Option<Timestamp> {
    u64::try_from(at.timestamp().as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str) -> Result<Schedule, InvalidSchedule> {
        Schedule::new(cron, zone, Overlap::default(), Missed::default())
    }

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond().unsigned_abs())
    }

    /// The times from `from` on, so many of them.
    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = schedule(cron, zone).unwrap();
        let next = |after: &Timestamp| schedule.next(*after);
        let first = schedule.next(at(from));
        let shown =
            |at: Timestamp| jiff::Timestamp::from_millisecond(at.0.cast_signed()).unwrap().to_string();
        std::iter::successors(first, next).take(count).map(shown).collect()
    }

    #[test]
    fn times_come_by_the_clock_of_the_zone() {
        assert_eq!(
            times("30 3 * * *", "UTC", "2026-11-27T03:30:00Z", 2),
            ["2026-11-28T03:30:00Z", "2026-11-29T03:30:00Z"]
        );
        assert_eq!(times("30 3 * * *", "Europe/Berlin", "2026-11-27T00:00:00Z", 1), ["2026-11-27T02:30:00Z"]);
        assert_eq!(
            times("*/20 9-17 * * MON-FRI", "UTC", "2026-11-27T17:45:00Z", 1),
            ["2026-11-30T09:00:00Z"]
        );
        assert_eq!(times("@daily", "UTC", "2026-11-27T17:45:00Z", 1), ["2026-11-28T00:00:00Z"]);
        // Alternatives, as in cron: the 13th, and every Friday.
        assert_eq!(
            times("0 0 13 * FRI", "UTC", "2026-12-10T00:00:00Z", 3),
            ["2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z", "2026-12-18T00:00:00Z"]
        );
    }

    #[test]
    fn a_clock_that_is_set_forward_leaves_nothing_out_and_one_that_is_set_back_does_nothing_twice() {
        // On 2026-03-29 in Berlin, 02:00 is followed by 03:00.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        // On 2026-10-25, 03:00 is followed by 02:00.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn the_last_time_is_the_one_before() {
        let schedule = schedule("0 * * * *", "UTC").unwrap();
        assert_eq!(schedule.last(at("2026-11-27T10:59:59Z")), Some(at("2026-11-27T10:00:00Z")));
        assert_eq!(schedule.last(at("2026-11-27T10:00:00Z")), Some(at("2026-11-27T10:00:00Z")));
        assert_eq!(schedule.next(at("2026-11-27T10:00:00Z")), Some(at("2026-11-27T11:00:00Z")));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for cron in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "a * * * *",
            "0 0 31 2 *",
            "@sometimes",
            &"1,".repeat(500),
        ] {
            assert!(schedule(cron, "UTC").is_err(), "{cron:?} was accepted");
        }
        for zone in ["", "Mars/Phobos", "Europe", "../../etc/passwd", "+02:00"] {
            assert!(schedule("0 * * * *", zone).is_err(), "{zone:?} was accepted");
        }
        let message = schedule("0 0 31 2 *", "UTC").unwrap_err().to_string();
        assert_eq!(message, "`0 0 31 2 *` never comes");
    }

    #[test]
    fn the_ends_of_time_do_no_harm() {
        let schedule = schedule("0 * * * *", "Europe/Berlin").unwrap();
        assert_eq!(schedule.next(Timestamp(u64::MAX)), None);
        assert_eq!(schedule.last(Timestamp(0)), Some(Timestamp(0)));
    }
}
