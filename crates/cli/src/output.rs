//! The only place that prints: data to stdout, everything about it to stderr.

use std::io::{self, IsTerminal as _, Write as _};

/// What stdout and stderr are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) stdout_is_terminal: bool,
    pub(crate) stderr_is_terminal: bool,
    /// Whether text on stderr may have colours.
    pub(crate) colour: bool,
    /// Whether text on stdout may.
    pub(crate) stdout_colour: bool,
}

impl Output {
    /// Asks the two streams and `NO_COLOR` (<https://no-color.org>: any value but an empty one).
    pub(crate) fn of_this_process() -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let stdout_is_terminal = io::stdout().is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            stdout_is_terminal,
            stderr_is_terminal,
            colour: stderr_is_terminal && !unwanted,
            stdout_colour: stdout_is_terminal && !unwanted,
        }
    }

    /// Writes to stdout, and on to its reader at once. A reader that left is an error of the kind `BrokenPipe`.
    pub(crate) fn data(self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes.as_ref())?;
        stdout.flush()
    }

    /// Writes to stderr.
    pub(crate) fn note(self, bytes: impl AsRef<[u8]>) {
        // Nowhere is left to tell that stderr cannot be written to.
        let _ = io::stderr().lock().write_all(bytes.as_ref());
    }

    /// A line of gantry's own to stderr, such as `warning: …`.
    pub(crate) fn say(self, line: &str) {
        self.note(format!("{line}\n"));
    }
}
