//! What a process that unpacks tells who started it: one line of JSON, when all is done or nothing more can be.

use std::error::Error;

use model::{Bytes, Digest};
use serde::{Deserialize, Serialize};

use super::UnpackerError;
use crate::document::{self, read_digest, write_digest};
use crate::layer::{Fault, Made, Opaque};

/// The longest line that is read: six times the names of all the opaque directories that a layer may have, which is what
/// JSON makes of the worst of them, and the rest of a report.
pub(super) const LONGEST: usize = 6 * crate::limits::OPAQUE_NAMES + (64 << 10);

/// How much of an error is passed on: the names in it are bounded, and so is the number of its causes.
const TEXT: usize = 4000;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Report {
    Unpacked {
        #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
        diff_id: Digest,
        entries: u64,
        bytes: u64,
        skipped_xattrs: u64,
        /// In the form of [`Opaque::to_text`].
        opaque: String,
    },
    Failed {
        fault: Fault,
        text: String,
    },
}

impl Report {
    pub(super) fn unpacked(made: &Made) -> Self {
        let Made { diff_id, entries, bytes, skipped_xattrs, opaque } = made;
        Self::Unpacked {
            diff_id: *diff_id,
            entries: *entries,
            bytes: bytes.0,
            skipped_xattrs: *skipped_xattrs,
            opaque: opaque.to_text(),
        }
    }

    pub(super) fn failed(fault: Fault, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Failed { fault, text: printable(&text) }
    }

    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("strings and numbers can be written as JSON");
        line.push(b'\n');
        line
    }
}

/// Reads a line without its end. `None` for what [`Report::line`] does not write.
pub(super) fn read(line: &[u8]) -> Option<Result<Made, UnpackerError>> {
    Some(match serde_json::from_slice(line).ok()? {
        Report::Unpacked { diff_id, entries, bytes, skipped_xattrs, opaque } => {
            let opaque = Opaque::from_text(&opaque)?;
            Ok(Made { diff_id, entries, bytes: Bytes(bytes), skipped_xattrs, opaque })
        }
        // Whoever says so has read hostile input, and the text goes to a terminal.
        Report::Failed { fault, text } => Err(UnpackerError::Told { fault, text: printable(&text) }),
    })
}

/// Text of bounded length, on one line and without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    document::printable(text, TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerError;

    fn made() -> Made {
        let opaque = Opaque::from_text("etc\0\u{ff}/b\0").unwrap();
        Made { diff_id: Digest([7; 32]), entries: 3, bytes: Bytes(10), skipped_xattrs: 1, opaque }
    }

    #[test]
    fn a_report_reads_back_as_written() {
        let line = Report::unpacked(&made()).line();
        let read = read(line.strip_suffix(b"\n").unwrap()).unwrap().unwrap();
        assert_eq!(read, made());
    }

    #[test]
    fn a_failure_is_told_with_its_causes_and_whose_fault_it_is() {
        let source = std::io::Error::other("no space");
        let error = LayerError::Tree(source);
        let line = Report::failed(error.fault(), &error).line();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"failed\":{\"fault\":\"machine\",\"text\":\"its tree cannot be written: no space\"}}\n"
        );
    }

    #[test]
    fn what_is_no_report_is_not_believed() {
        for line in [
            &b""[..],
            b"{}",
            b"null",
            br#"{"unpacked":{}}"#,
            br#"{"failed":{"fault":"nobody","text":""}}"#,
            br#"{"failed":{"fault":"layer","text":"","more":1}}"#,
            b"\xff",
        ] {
            assert!(read(line).is_none(), "{}", String::from_utf8_lossy(line));
        }
        let Report::Unpacked { diff_id, entries, bytes, skipped_xattrs, .. } = Report::unpacked(&made())
        else {
            unreachable!("it is a success")
        };
        let opaque = "\u{100}".to_owned();
        let lie = Report::Unpacked { diff_id, entries, bytes, skipped_xattrs, opaque }.line();
        assert!(read(lie.trim_ascii()).is_none());
    }

    #[test]
    fn a_text_does_not_reach_a_terminal_as_anything_else() {
        let hostile = format!("\u{1b}[2J\nerror{}", "x".repeat(10_000));
        let line = Report::Failed { fault: Fault::Layer, text: hostile }.line();
        let error = read(line.trim_ascii()).unwrap().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(" [2J error") && text.len() <= TEXT, "{text}");
    }
}
