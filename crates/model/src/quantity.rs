//! Quantities as integers with their unit in the type.

use std::fmt;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    #[error("`{0}` is not a number of CPUs: write for example 0.5 or 2")]
    Cpus(String),
    #[error("`{0}` is not a size: write for example 64m, 1gb or 1048576")]
    Bytes(String),
    #[error("`{0}` is not a duration: write for example 10s, 1m30s or 500ms")]
    Duration(String),
    #[error("`{0}` is too large")]
    TooLarge(String),
}

/// Thousandths of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MilliCpu(pub u64);

impl MilliCpu {
    /// The largest request that can be meant: 10,000 CPUs.
    const MAX: u64 = 10_000_000;

    /// Reads Compose's `cpus`: a decimal number of CPUs. More than three decimals are rounded up, so that a request is
    /// never understated.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        let bad = || InvalidQuantity::Cpus(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if whole.is_empty() && fraction.is_empty() || text.len() > 32 {
            return Err(bad());
        }
        if !whole.bytes().chain(fraction.bytes()).all(|c| c.is_ascii_digit()) {
            return Err(bad());
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        let mut milli = 0;
        for at in 0..3 {
            milli = milli * 10 + u64::from(fraction.as_bytes().get(at).map_or(0, |c| c - b'0'));
        }
        if fraction.bytes().skip(3).any(|c| c != b'0') {
            milli += 1;
        }
        match whole.checked_mul(1000).and_then(|w| w.checked_add(milli)) {
            Some(total) if total <= Self::MAX => Ok(Self(total)),
            _ => Err(InvalidQuantity::TooLarge(text.to_owned())),
        }
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, milli) = (self.0 / 1000, self.0 % 1000);
        if milli == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{milli:03}").trim_end_matches('0'))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Reads Compose's byte values: a decimal number and `b`, `k`, `kb`, `m`, `mb`, `g`, `gb`, `t` or `tb` (powers of
    /// 1024, as Docker has them), in either case; a number alone is bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidQuantity> {
        let bad = || InvalidQuantity::Bytes(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let shift = match unit.trim() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
            return Err(bad());
        }
        let too_large = || InvalidQuantity::TooLarge(text.to_owned());
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let mut part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| bad())? };
        part = (part << shift) / 10u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
        let total = (u128::from(whole) << shift) + part;
        // The kernel keeps limits as signed 64-bit numbers.
        match u64::try_from(total) {
            Ok(total) if i64::try_from(total).is_ok() => Ok(Self(total)),
            _ => Err(too_large()),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] =
            [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (size, unit) in UNITS {
            if self.0 >= size {
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                return match (tenths / 10, tenths % 10) {
                    (whole, 0) => write!(f, "{whole} {unit}"),
                    (whole, tenth) => write!(f, "{whole}.{tenth} {unit}"),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// Milliseconds since the Unix epoch, on the cluster's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_thousandths_and_never_understated() {
        for (text, milli) in
            [("1", 1000), ("0.5", 500), (".25", 250), ("0.0001", 1), ("2.", 2000), ("1.5000", 1500)]
        {
            assert_eq!(MilliCpu::parse(text), Ok(MilliCpu(milli)), "{text}");
        }
        for bad in ["", ".", "-1", "1e3", "one", "1.2.3", "0x1", "99999999999999999999", "20000"] {
            assert!(MilliCpu::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(MilliCpu(1500).to_string(), "1.5");
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1gb", 1 << 30), ("1.5k", 1536), ("300", 300), ("2KiB", 2048), ("10B", 10)]
        {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
        }
        for bad in ["", "m", "-1m", "1x", "1.2.3m", "9999999999999999999999", "16777216t"] {
            assert!(Bytes::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Bytes(64 << 20).to_string(), "64 MiB");
    }
}
