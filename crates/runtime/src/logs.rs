//! What a container prints, on disk: written by its shim, read by the agent.
//!
//! The format is that of Kubernetes' CRI, which log shippers read and which keeps the container's bytes as they are:
//!
//! ```text
//! 2026-03-01T12:00:00.123456789Z stdout F a line
//! 2026-03-01T12:00:00.123456790Z stderr P the first 16 KiB of a line that goes on
//! ```
//!
//! The current file is `log`; `log.1` is the one before it, and so on.

mod forward;
mod read;
mod write;

pub use read::{LogError, Reader, Wanted};
pub(crate) use write::{Splitter, Writer};

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::record;

/// Lines longer than this are kept in pieces of it, so that neither side ever holds more. Docker's and CRI's size.
pub(crate) const LONGEST_LINE: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When the shim read its end. No two records of a log have the same time.
    pub at: SystemTime,
    pub stream: Stream,
    /// Without the newline; whatever bytes the container wrote.
    pub text: Vec<u8>,
    /// Whether the line goes on in the stream's next record.
    pub partial: bool,
}

impl Line {
    /// Reads a record without its newline; `None` if it is not one.
    fn parse(record: &[u8]) -> Option<Self> {
        let head = Head::parse(record)?;
        let at = head.at()?;
        Some(Self { at, stream: head.stream, partial: head.partial, text: head.text.to_vec() })
    }
}

/// A record as it stands in the file.
struct Head<'a> {
    at: &'a [u8],
    stream: Stream,
    partial: bool,
    text: &'a [u8],
}

impl<'a> Head<'a> {
    /// What stands before the text is never longer.
    const LENGTH: usize = 64;

    fn parse(record: &'a [u8]) -> Option<Self> {
        let mut fields = record.splitn(4, |byte| *byte == b' ');
        let at = fields.next()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let partial = match fields.next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { at, stream, partial, text: fields.next()? })
    }

    fn at(&self) -> Option<SystemTime> {
        let at = std::str::from_utf8(self.at).ok()?.parse::<jiff::Timestamp>().ok()?;
        Some(at.into())
    }
}

fn write_record(into: &mut Vec<u8>, at: SystemTime, stream: Stream, partial: bool, text: &[u8]) {
    use std::io::Write as _;
    // A clock outside the years that can be written is a broken one; the line matters more.
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let tag = if partial { 'P' } else { 'F' };
    write!(into, "{at:.9} {} {tag} ", stream.as_str()).expect("writing to memory cannot fail");
    into.extend_from_slice(text);
    into.push(b'\n');
}

/// The log's file of this age; 0 is the current one.
fn file(dir: &Path, age: u32) -> PathBuf {
    match age {
        0 => dir.join(record::LOG),
        age => dir.join(format!("{}.{age}", record::LOG)),
    }
}

#[cfg(test)]
mod tests;
