//! What the user reads: the outcome on stdout, progress and errors on stderr.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

/// An error and its causes, as one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Writes what a command has to say. A reader that has gone away has heard enough.
pub(crate) fn say(text: &str) {
    let _reader_gone = writeln!(io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// Writes something about the command itself.
pub(crate) fn note(text: &str) {
    let _reader_gone = writeln!(io::stderr(), "{text}");
}

/// Writes an error, what a log has to say about it, and what to do about it.
pub(crate) fn complain(error: &str, log: &str, hint: Option<&str>) {
    let mut stderr = io::stderr().lock();
    let _reader_gone = writeln!(stderr, "error: {error}");
    for line in log.lines() {
        let _reader_gone = writeln!(stderr, "  log: {}", printable(line));
    }
    if let Some(hint) = hint {
        let _reader_gone = writeln!(stderr, "  hint: {hint}");
    }
}

/// Without what a terminal would act on: a log may repeat anything.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Tells what a long command is doing: a live line on a terminal, and a line for each step that is done.
#[derive(Debug)]
pub(crate) struct Narrator {
    began: Instant,
    live: Option<ProgressBar>,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        let live = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(live) = &live {
            live.enable_steady_tick(Duration::from_millis(100));
        }
        Self { began: Instant::now(), live }
    }

    /// What is going on now. Only a terminal shows it, until something else does.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        if let Some(live) = &self.live {
            live.set_message(what.into());
        }
    }

    /// What is done, with the time since the command began.
    pub(crate) fn done(&self, what: &str) {
        let write = || {
            let _reader_gone = writeln!(io::stderr(), "{:>7.2} s  {what}", self.elapsed().as_secs_f64());
        };
        match &self.live {
            Some(live) => live.suspend(write),
            None => write(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Narrator {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            live.finish_and_clear();
        }
    }
}
