//! The only place that prints.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// A line to stdout.
pub(crate) fn say(line: impl Display) {
    let _reader_gone = writeln!(io::stdout().lock(), "{line}");
}

/// A line to stderr: a warning or an error.
pub(crate) fn complain(line: &str) {
    let _reader_gone = writeln!(io::stderr().lock(), "{line}");
}

/// What happened when, counted from the story's beginning.
#[derive(Debug)]
pub(crate) struct Story {
    began: Instant,
}

impl Story {
    pub(crate) fn begin(title: &str) -> Self {
        say(title);
        Self { began: Instant::now() }
    }

    pub(crate) fn tell(&self, what: impl Display) {
        say(format_args!("{:>8}  {what}", seconds(self.began.elapsed())));
    }

    /// A detail of what was told last.
    pub(crate) fn detail(&self, what: impl Display) {
        say(format_args!("{:>8}  {what}", ""));
    }
}

/// A length of time with the digits that mean something at its size.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

/// A size in MiB, as `ls` would be read by a person.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_digits_that_mean_something() {
        for (millis, text) in
            [(7, "7 ms"), (840, "840 ms"), (1240, "1.24 s"), (12_340, "12.3 s"), (125_000, "2 min 5 s")]
        {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_size_is_in_mebibytes() {
        assert_eq!(mebibytes((57 << 20) + (1 << 19)), "57.5 MiB");
        assert_eq!(mebibytes(0), "0.0 MiB");
    }
}
