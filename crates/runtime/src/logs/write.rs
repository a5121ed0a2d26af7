//! The shim's side: cut into lines, stamp, write, rotate.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::PollFlags;

use super::forward::Forward;
use super::{LONGEST_LINE, Stream, file, write_record};
use crate::launch::{LogPolicy, Options, Output};

/// Records are gathered up to this size before they are written: one read of short lines makes many records.
const BATCH: usize = 64 << 10;

/// By how much a time may be made later so that it is none that a record has. What is further back is a clock that was set
/// back, and is told as it is.
const NUDGE: Duration = Duration::from_secs(1);

/// Cuts a stream into lines. Holds at most one line of at most [`LONGEST_LINE`] bytes.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    /// Takes what was read and calls `emit(text, partial)` for each line, or piece of one, that is complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = LONGEST_LINE - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            let newline = window.iter().position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or(window.len());
            self.pending.extend_from_slice(&window[..taken]);
            bytes = &bytes[taken + usize::from(newline.is_some())..];
            if newline.is_some() || self.pending.len() == LONGEST_LINE {
                emit(&self.pending, newline.is_none());
                self.pending.clear();
            }
        }
    }

    /// At the end of the stream: emits a last line that has no newline.
    pub(crate) fn finish(&mut self, emit: impl FnOnce(&[u8], bool)) {
        if !self.pending.is_empty() {
            emit(&self.pending, false);
            self.pending.clear();
        }
    }
}

/// Appends to the log and rotates it.
///
/// A container is never held up because its log cannot be written: what the disk does not take is dropped and counted,
/// and the log says so as soon as it can.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: PathBuf,
    policy: LogPolicy,
    /// `None` after a rotation that could not open the next file; tried again with the next batch.
    file: Option<File>,
    size: u64,
    batch: Vec<u8>,
    lost: u64,
    /// The time of the last record.
    last: Option<SystemTime>,
    /// Nothing is kept, and there are no files.
    discards: bool,
    forward: Option<Forward>,
}

impl Writer {
    /// Starts the log of the task directory.
    pub(crate) fn create(dir: &Path, policy: LogPolicy) -> io::Result<Self> {
        let file = open(dir)?;
        let size = file.metadata()?.len();
        Ok(Self { file: Some(file), size, ..Self::nowhere(dir, policy) })
    }

    /// The same, for wherever else the output is to go.
    pub(crate) fn begin(dir: &Path, policy: LogPolicy, options: &Options) -> io::Result<Self> {
        match options.output {
            Output::Discard => Ok(Self { discards: true, ..Self::nowhere(dir, policy) }),
            Output::Files | Output::Syslog(_) | Output::Journal(_) => {
                Ok(Self { forward: Forward::to(options), ..Self::create(dir, policy)? })
            }
        }
    }

    fn nowhere(dir: &Path, policy: LogPolicy) -> Self {
        Self {
            dir: dir.to_owned(),
            policy,
            file: None,
            size: 0,
            batch: Vec::new(),
            lost: 0,
            last: None,
            discards: false,
            forward: None,
        }
    }

    /// Adds one record to the batch. Lines that were read at once get times one after the other, so that whoever reads the
    /// log can tell by the time of a line how far it has read.
    pub(crate) fn push(&mut self, at: SystemTime, stream: Stream, text: &[u8], partial: bool) {
        if self.discards {
            return;
        }
        let stamp = match self.last {
            Some(last) if at <= last && at + NUDGE > last => last + Duration::from_nanos(1),
            Some(_) | None => at,
        };
        self.last = Some(stamp);
        if let Some(forward) = &mut self.forward {
            forward.push(stamp, stream, text, partial);
        }
        write_record(&mut self.batch, stamp, stream, partial, text);
        if self.batch.len() >= BATCH {
            self.flush(at);
        }
    }

    /// Writes the batch, and sends what can be sent to a second place. To be called when there is nothing more to read at once,
    /// and when that place takes more or is to be tried again.
    pub(crate) fn flush(&mut self, at: SystemTime) {
        if let Some(forward) = &mut self.forward {
            let now = Instant::now();
            forward.work(now);
            if let Some(notice) = forward.notice(now, false) {
                write_record(&mut self.batch, at, Stream::Stderr, false, notice.as_bytes());
            }
        }
        self.write(at);
    }

    /// What a second place is waited for with, if there is something to send to it.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.forward.as_ref()?.interest()
    }

    /// When a second place is to be tried again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.forward.as_ref()?.deadline()
    }

    /// Ends the log. May take a second, for what a second place has not taken yet.
    pub(crate) fn finish(&mut self, at: SystemTime) {
        self.write(at);
        if let Some(forward) = &mut self.forward {
            forward.finish();
            if let Some(notice) = forward.notice(Instant::now(), true) {
                write_record(&mut self.batch, at, Stream::Stderr, false, notice.as_bytes());
            }
        }
        self.write(at);
    }

    fn write(&mut self, at: SystemTime) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        if self.lost > 0 {
            let notice = format!("gantry: {} bytes of log were lost: the disk did not take them", self.lost);
            let mut with_notice = Vec::new();
            write_record(&mut with_notice, at, Stream::Stderr, false, notice.as_bytes());
            with_notice.append(&mut batch);
            batch = with_notice;
        }
        match self.append(&batch) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost = self.lost.saturating_add(batch.len() as u64),
        }
        batch.clear();
        // Keeps its memory for the next batch.
        self.batch = batch;
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        let grown = self.size.saturating_add(batch.len() as u64);
        if self.size > 0 && grown > self.policy.max_bytes {
            self.file = None;
            rotate(&self.dir, self.policy.files)?;
            self.size = 0;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.dir)?,
        };
        let file = self.file.insert(file);
        let result = file.write_all(batch);
        match result {
            Ok(()) => self.size += batch.len() as u64,
            // Half a record is not left behind, where the next one would continue it.
            Err(_) => file.set_len(self.size)?,
        }
        result
    }
}

fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(file(dir, 0))
}

/// Makes every file one older and forgets the oldest. The current one is gone afterwards.
fn rotate(dir: &Path, files: u32) -> io::Result<()> {
    let oldest = files.max(1) - 1;
    if oldest == 0 {
        return std::fs::remove_file(file(dir, 0));
    }
    for age in (0..oldest).rev() {
        match std::fs::rename(file(dir, age), file(dir, age + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
