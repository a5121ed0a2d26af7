//! Signals by the names that Docker takes.

use std::fmt;
use std::str::FromStr;

/// A signal of Linux, 1 to 64. The numbers are those of x86 and ARM, which are all that gantry runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a signal: write for example SIGTERM, TERM, 15 or SIGRTMIN+3")]
pub struct UnknownSignal(String);

/// signal(7), from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of the same.
const ALIASES: [(&str, u8); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// glibc and musl keep the first two of the kernel's real-time signals, 32 and 33, for themselves.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    pub const KILL: Self = Self(9);
    pub const TERM: Self = Self(15);

    /// `None` if there is no signal of this number.
    pub fn from_number(number: u8) -> Option<Self> {
        (1..=RTMAX).contains(&number).then_some(Self(number))
    }

    pub fn number(self) -> u8 {
        self.0
    }
}

fn read(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse::<u8>() {
        return Signal::from_number(number).map(Signal::number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(above) = name.strip_prefix("RTMIN") {
        let above = if above.is_empty() { 0 } else { above.strip_prefix('+')?.parse::<u8>().ok()? };
        return RTMIN.checked_add(above).filter(|number| *number <= RTMAX);
    }
    if let Some(below) = name.strip_prefix("RTMAX") {
        let below = if below.is_empty() { 0 } else { below.strip_prefix('-')?.parse::<u8>().ok()? };
        return RTMAX.checked_sub(below).filter(|number| *number >= RTMIN);
    }
    let number = (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number);
    number.or_else(|| ALIASES.into_iter().find(|(known, _)| *known == name).map(|(_, number)| number))
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        read(text).map(Self).ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read_in_any_of_dockers_forms() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGIOT", 6),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SYS", 31),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
        }
        for bad in ["", "0", "65", "SIG", "SIGNOTHING", "RTMIN+31", "RTMAX-31", "-1"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_signal_is_read_as_it_is_written() {
        for signal in (1..=RTMAX).filter_map(Signal::from_number) {
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
