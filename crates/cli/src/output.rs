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

    /// Writes on a thread, for as long as the reader takes. A pager whose user reads holds up what is written then, and not
    /// this process: one that answers no pings is hung up on within half a minute, and one that hears no signal does not
    /// end of it.
    pub(crate) async fn on_thread(
        self,
        write: impl FnOnce(Self) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let written = tokio::task::spawn_blocking(move || write(self)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error)))
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_its_time_holds_up_nothing_else() {
        let output = Output {
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            colour: false,
            stdout_colour: false,
        };
        let (reads, read) = mpsc::channel::<()>();
        let writing = output.on_thread(move |_| read.recv().map_err(io::Error::other));
        let (written, ()) = tokio::join!(writing, async move { reads.send(()).unwrap() });
        written.unwrap();
    }
}
