//! Compose's durations.

use std::time::Duration;

use model::InvalidQuantity;

use crate::problem::shown;

/// Units in nanoseconds; of two that begin alike the longer first.
const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// The largest duration that Go, and so every other reader of Compose files, can hold: 292 years.
const MAX_NANOS: u128 = i64::MAX as u128;

/// Reads a duration as Compose writes it: numbers with units, `1h5m30s20ms`, added up. Units are `h`, `m`,
/// `s`, `ms`, `us` and `ns`; a number may have a fraction, and `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidQuantity> {
    let bad = || InvalidQuantity::Duration(shown(text));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return Err(bad());
    }
    let mut nanos: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| after.starts_with(*unit)).ok_or_else(bad)?;
        let amount = scaled(number, factor).ok_or_else(bad)?;
        nanos = nanos.saturating_add(amount);
        rest = &after[unit.len()..];
    }
    if nanos > MAX_NANOS {
        return Err(InvalidQuantity::TooLarge(shown(text)));
    }
    let nanos = u64::try_from(nanos).expect("it is at most i64::MAX");
    Ok(Duration::from_nanos(nanos))
}

/// A decimal number times `factor`, what is smaller than one dropped. `None` if it is not a number.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // Beyond nine digits a fraction is less than a nanosecond, except of hours and minutes, where twelve are
    // plenty.
    let fraction = &fraction[..fraction.len().min(12)];
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u128::MAX) };
    Some(whole.saturating_mul(factor).saturating_add(part * factor / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_the_sum_of_its_parts() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("1h5m30s20ms", 3_930_020_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("7us", 7_000),
            ("7µs", 7_000),
            ("9ns", 9),
            ("1.5s", 1_500_000_000),
            (".5m", 30_000_000_000),
            ("2.s", 2_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for bad in ["", "5", "s", "-1s", "+1s", "1 s", "1d", "1.2.3s", ".s", "10s5", "one", "1S", "é"] {
            assert_eq!(parse_duration(bad), Err(InvalidQuantity::Duration(bad.to_owned())), "{bad}");
        }
        assert!(parse_duration(&"1s".repeat(1000)).is_err());
    }

    #[test]
    fn a_duration_beyond_292_years_is_too_large() {
        assert!(parse_duration("2562047h").is_ok());
        for text in ["2562048h", "99999999999999999999999999999999999999999999999h"] {
            assert_eq!(parse_duration(text), Err(InvalidQuantity::TooLarge(text.to_owned())), "{text}");
        }
    }
}
