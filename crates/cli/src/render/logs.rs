//! Lines of logs.

use wire::proto::api::LogEntry;

use crate::render::{lines_for_terminal, plain};
use crate::times;

/// What stands around the text of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Which task wrote it: `web.2 | `.
    pub(crate) prefix: bool,
    pub(crate) timestamps: bool,
    /// Escape what would act on a terminal. Without it the text is passed on as it was written.
    pub(crate) for_terminal: bool,
}

/// One line as bytes, with a line end.
pub(crate) fn line(entry: &LogEntry, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    if style.timestamps {
        out.extend(times::rfc3339_nanos(entry.at).bytes());
        out.push(b' ');
    }
    if style.prefix {
        out.extend(plain(&format!("{} | ", task_name(entry))).bytes());
    }
    let text = entry.text.strip_suffix(b"\n").unwrap_or(&entry.text);
    if style.for_terminal {
        out.extend(for_terminal(text).bytes());
    } else {
        out.extend_from_slice(text);
    }
    out.push(b'\n');
    out
}

/// A note of gantry's own, without a line end; `None` when the entry is a line.
pub(crate) fn note(entry: &LogEntry) -> Option<String> {
    if entry.note.is_empty() {
        return None;
    }
    let name = format!("{}.{}", entry.service, entry.slot);
    Some(format!("note: {}: {}", plain(&name), lines_for_terminal(&entry.note)))
}

/// The service within its stack, and the slot.
fn task_name(entry: &LogEntry) -> String {
    let service = entry.service.split_once('/').map_or(entry.service.as_str(), |(_, service)| service);
    format!("{service}.{}", entry.slot)
}

/// Tabs are harmless, and the carriage return before a line end is the text's own.
fn for_terminal(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text));
    text.split('\t').map(plain).collect::<Vec<_>>().join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &[u8]) -> LogEntry {
        LogEntry {
            service: "hello/web".to_owned(),
            slot: 2,
            at: 1_700_000_000_000_000_001,
            text: text.to_vec(),
            ..LogEntry::default()
        }
    }

    const BARE: Style = Style { prefix: false, timestamps: false, for_terminal: false };

    #[test]
    fn a_pipe_gets_the_bytes_that_were_written() {
        assert_eq!(line(&entry(b"\x1b[31mred\xff\r"), BARE), b"\x1b[31mred\xff\r\n");
        assert_eq!(line(&entry(b"ends\n"), BARE), b"ends\n", "one line end and not two");
    }

    #[test]
    fn a_terminal_gets_nothing_that_acts_on_it() {
        let style = Style { for_terminal: true, ..BARE };
        let shown = line(&entry(b"\x1b]0;title\x07\ta\xff\r"), style);
        assert_eq!(String::from_utf8(shown).unwrap(), "\\u{1b}]0;title\\u{7}\ta\u{fffd}\n");
    }

    #[test]
    fn a_line_says_when_and_who_if_asked() {
        let style = Style { prefix: true, timestamps: true, for_terminal: false };
        assert_eq!(line(&entry(b"GET /"), style), b"2023-11-14T22:13:20.000000001Z web.2 | GET /\n");
    }

    #[test]
    fn a_note_is_told_from_a_line() {
        assert_eq!(note(&entry(b"x")), None);
        let noted = LogEntry { note: "node n2 is not connected".to_owned(), ..entry(b"") };
        assert_eq!(note(&noted).as_deref(), Some("note: hello/web.2: node n2 is not connected"));
    }
}
