//! Times and lengths of time, as users read them.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// This machine's clock, in milliseconds since the epoch.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the epoch by RFC 3339; `None` for 0, which stands for "never" on the wire, and for what no clock says.
pub(crate) fn rfc3339(millis: u64) -> Option<String> {
    let millis = i64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    let at = Timestamp::from_millisecond(millis).ok()?;
    Some(format!("{at:.3}"))
}

/// Nanoseconds since the epoch by RFC 3339, always with nine decimals so that they line up.
pub(crate) fn rfc3339_nanos(nanos: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(at) => format!("{at:.9}"),
        Err(_) => nanos.to_string(),
    }
}

/// How long before `now` something was, both in milliseconds; empty for 0. The clocks of two machines differ, so what seems
/// to lie ahead is now.
pub(crate) fn ago(now: u64, then: u64) -> String {
    if then == 0 {
        return String::new();
    }
    let seconds = now.saturating_sub(then) / 1000;
    match seconds {
        0 => "now".to_owned(),
        _ => format!("{} ago", roughly(seconds)),
    }
}

/// How long after `now` something will be, both in milliseconds; empty for 0. What is overdue is now.
pub(crate) fn until(now: u64, then: u64) -> String {
    if then == 0 {
        return String::new();
    }
    let seconds = then.saturating_sub(now).div_ceil(1000);
    match seconds {
        0 => "now".to_owned(),
        _ => format!("in {}", roughly(seconds)),
    }
}

/// In one unit, rounded down.
fn roughly(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        172_800.. => format!("{}d", seconds / 86_400),
    }
}

/// A length of time, to three digits or so.
pub(crate) fn length(of: Duration) -> String {
    let seconds = of.as_secs();
    match seconds {
        0 => format!("{} ms", of.as_millis()),
        1..60 if of.subsec_millis() < 10 => format!("{seconds} s"),
        1..60 => format!("{:.2} s", of.as_secs_f64()),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600.. => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A time as users give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long before now.
    Ago(Duration),
    /// Nanoseconds since the epoch.
    At(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time: write for example 10m for ten minutes ago, 2026-03-01T12:00:00Z or 1772366400")]
pub(crate) struct InvalidMoment(String);

impl FromStr for Moment {
    type Err = InvalidMoment;

    /// Reads what Docker's `--since` reads: a duration, a time by RFC 3339, one without a zone, a date, or seconds since the
    /// epoch.
    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        moment(text, TimeZone::system()).ok_or_else(|| InvalidMoment(text.to_owned()))
    }
}

impl Moment {
    /// Nanoseconds since the epoch; `now` is in milliseconds.
    pub(crate) fn nanos(self, now: u64) -> u64 {
        match self {
            Self::Ago(ago) => {
                let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
                now.saturating_mul(1_000_000).saturating_sub(ago)
            }
            Self::At(nanos) => nanos,
        }
    }
}

/// A time without a zone is one of `zone`.
fn moment(text: &str, zone: TimeZone) -> Option<Moment> {
    // First of all: to `parse_duration` a lone 0 is a duration, and a date without dashes is a number, too.
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        return unix(text).map(Moment::At);
    }
    if let Ok(ago) = spec::parse_duration(text) {
        return Some(Moment::Ago(ago));
    }
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        Err(_) => text.parse::<DateTime>().ok()?.to_zoned(zone).ok()?.timestamp(),
    };
    // Nothing was written before the epoch.
    Some(Moment::At(u64::try_from(at.as_nanosecond().max(0)).unwrap_or(u64::MAX)))
}

/// Seconds since the epoch, with up to nine decimals, in nanoseconds.
fn unix(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_so_long_ago_or_a_time_in_one_of_several_forms() {
        const NOON: u64 = 1_772_366_400_000_000_000;
        for (text, at) in [
            ("2026-03-01T12:00:00Z", NOON),
            ("2026-03-01T13:00:00+01:00", NOON),
            ("2026-03-01T12:00:00.000000001Z", NOON + 1),
            ("2026-03-01T12:00:00", NOON),
            ("2026-03-01T12:00", NOON),
            ("2026-03-01", NOON - 12 * 3_600_000_000_000),
            ("1772366400", NOON),
            ("1772366400.5", NOON + 500_000_000),
            ("1772366400.000000001", NOON + 1),
            ("0", 0),
            ("1960-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(moment(text, TimeZone::UTC), Some(Moment::At(at)), "{text}");
        }
        assert_eq!("1h30m".parse(), Ok(Moment::Ago(Duration::from_secs(5400))));
        for bad in
            ["", "yesterday", "-1h", "-5", "12:00", "2026-13-01", "1.2.3", "1.0000000001", "99999999999"]
        {
            assert_eq!(bad.parse::<Moment>(), Err(InvalidMoment(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn a_moment_long_ago_is_the_beginning() {
        assert_eq!(Moment::Ago(Duration::from_secs(1)).nanos(1_700_000_000_000), 1_699_999_999_000_000_000);
        assert_eq!(Moment::Ago(Duration::MAX).nanos(1_700_000_000_000), 0);
        assert_eq!(Moment::At(7).nanos(1_700_000_000_000), 7);
    }

    #[test]
    fn times_are_rfc_3339_and_zero_is_none() {
        assert_eq!(rfc3339(1_700_000_000_000).as_deref(), Some("2023-11-14T22:13:20.000Z"));
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(u64::MAX), None);
        assert_eq!(rfc3339_nanos(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z");
    }

    #[test]
    fn a_time_ago_has_one_unit() {
        let now = 1_700_000_000_000;
        for (before, text) in [
            (0, "now"),
            (999, "now"),
            (12_000, "12s ago"),
            (60_000, "1m ago"),
            (3_600_000, "1h ago"),
            (172_799_000, "47h ago"),
            (172_800_000, "2d ago"),
        ] {
            assert_eq!(ago(now, now - before), text);
        }
        assert_eq!(ago(now, now + 5000), "now", "a clock that is ahead");
        assert_eq!(ago(now, 0), "", "never");
    }

    #[test]
    fn a_length_is_short() {
        for (millis, text) in [
            (840, "840 ms"),
            (1240, "1.24 s"),
            (5000, "5 s"),
            (300_000, "5 min"),
            (301_000, "5 min 1 s"),
            (3_660_000, "1 h 1 min"),
        ] {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
    }
}
