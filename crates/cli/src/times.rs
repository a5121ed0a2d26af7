//! Times and lengths of time, as users read them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

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
        1..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..172_800 => format!("{}h ago", seconds / 3600),
        172_800.. => format!("{}d ago", seconds / 86_400),
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

#[cfg(test)]
mod tests {
    use super::*;

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
