//! Lines of logs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use wire::proto::api::LogEntry;

use crate::render::{document, known, lines_for_terminal, plain};
use crate::times;

/// Ends every colour. Source: ECMA-48, 8.3.117, "Select Graphic Rendition".
const RESET: &str = "\u{1b}[0m";

/// What the names of tasks are written in: colours that can be read on a dark and on a light ground.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Which of its two outputs a program writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Stdout,
    Stderr,
}

/// What one of the two leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Escape what would act on a terminal. Elsewhere the text is passed on as it was written.
    pub(crate) is_terminal: bool,
    pub(crate) colour: bool,
}

/// What stands around the text of a line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// Which task wrote it: `web.2 | `.
    pub(crate) prefix: bool,
    pub(crate) timestamps: bool,
    pub(crate) stdout: Screen,
    pub(crate) stderr: Screen,
}

/// Puts lines on two outputs, the pieces of a long one together again. It holds no text.
#[derive(Debug)]
pub(crate) struct Printer {
    style: Style,
    /// Lines that have no end yet.
    open: BTreeMap<To, Open>,
}

#[derive(Debug)]
struct Open {
    task: String,
    /// The text has set a colour.
    is_coloured: bool,
}

impl Printer {
    pub(crate) fn new(style: Style) -> Self {
        Self { style, open: BTreeMap::new() }
    }

    fn screen(&self, to: To) -> Screen {
        match to {
            To::Stdout => self.style.stdout,
            To::Stderr => self.style.stderr,
        }
    }

    /// What is to be written for an entry that is a line, or a piece of one.
    pub(crate) fn line(&mut self, entry: &LogEntry) -> Vec<(To, Vec<u8>)> {
        let to = if entry.stderr { To::Stderr } else { To::Stdout };
        let screen = self.screen(to);
        let goes_on = self.open.get(&to).is_some_and(|open| open.task == entry.task);
        let before = if goes_on { self.open.remove(&to) } else { None };
        let mut written = Vec::new();
        let mut bytes = Vec::new();
        if before.is_none() {
            written = self.interrupted(to);
            bytes.extend(self.head(entry, screen).bytes());
        }
        let mut is_coloured = before.is_some_and(|open| open.is_coloured);
        let text = entry.text.strip_suffix(b"\n").unwrap_or(&entry.text);
        if screen.is_terminal {
            bytes.extend(for_terminal(text, &mut is_coloured).bytes());
        } else {
            bytes.extend_from_slice(text);
        }
        let open = Open { task: entry.task.clone(), is_coloured };
        if entry.partial {
            self.open.insert(to, open);
        } else {
            bytes.extend(open.end().bytes());
        }
        written.push((to, bytes));
        written
    }

    /// Ends the lines that are open where something else is to be written.
    pub(crate) fn interrupted(&mut self, by: To) -> Vec<(To, Vec<u8>)> {
        let one_screen = self.style.stdout.is_terminal && self.style.stderr.is_terminal;
        self.ended(|open| open == by || one_screen)
    }

    /// Ends all lines: nothing follows.
    pub(crate) fn finished(&mut self) -> Vec<(To, Vec<u8>)> {
        self.ended(|_| true)
    }

    fn ended(&mut self, which: impl Fn(To) -> bool) -> Vec<(To, Vec<u8>)> {
        let all = std::mem::take(&mut self.open).into_iter();
        let (ended, open): (BTreeMap<To, Open>, _) = all.partition(|(to, _)| which(*to));
        self.open = open;
        ended.into_iter().map(|(to, open)| (to, open.end().into_bytes())).collect()
    }

    fn head(&self, entry: &LogEntry, screen: Screen) -> String {
        let mut head = String::new();
        if self.style.timestamps {
            head += &format!("{} ", times::rfc3339_nanos(entry.at));
        }
        if self.style.prefix {
            let name = plain(&task_name(entry));
            if screen.colour {
                head += &format!("\u{1b}[{}m{name}{RESET} | ", colour_of(&name));
            } else {
                head += &format!("{name} | ");
            }
        }
        head
    }
}

impl Open {
    /// A colour ends with its line: what follows is another's.
    fn end(&self) -> String {
        if self.is_coloured { format!("{RESET}\n") } else { "\n".to_owned() }
    }
}

/// What gantry itself has to say, without a line end; `None` when the entry is a line.
pub(crate) fn said(entry: &LogEntry) -> Option<String> {
    if !entry.warning.is_empty() {
        return Some(format!("warning: {}", lines_for_terminal(&entry.warning)));
    }
    if entry.note.is_empty() {
        return None;
    }
    let note = lines_for_terminal(&entry.note);
    if entry.service.is_empty() {
        return Some(format!("note: {note}"));
    }
    let name = format!("{}.{}", entry.service, entry.slot);
    Some(format!("note: {}: {note}", plain(&name)))
}

/// An entry as a program reads it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    /// When it was written, RFC 3339.
    at: String,
    service: &'a str,
    slot: u32,
    task: &'a str,
    node: Option<&'a str>,
    /// From 1.
    attempt: Option<u32>,
    /// `stdout | stderr`
    stream: &'static str,
    /// Bytes that are not UTF-8 are U+FFFD.
    line: Cow<'a, str>,
    /// Whether the line goes on in the next object of the same task and stream.
    partial: bool,
}

/// An entry that is a line as one JSON object on a line of its own. What would act on a terminal is escaped in it.
pub(crate) fn json(entry: &LogEntry) -> String {
    let row = Row {
        at: times::rfc3339_nanos(entry.at),
        service: &entry.service,
        slot: entry.slot,
        task: &entry.task,
        node: known(&entry.node),
        attempt: Some(entry.attempt).filter(|attempt| *attempt > 0),
        stream: if entry.stderr { "stderr" } else { "stdout" },
        line: String::from_utf8_lossy(&entry.text),
        partial: entry.partial,
    };
    document::json_line(&row)
}

/// The service within its stack, and the slot.
fn task_name(entry: &LogEntry) -> String {
    let service = entry.service.split_once('/').map_or(entry.service.as_str(), |(_, service)| service);
    format!("{service}.{}", entry.slot)
}

/// The same for a name each time.
fn colour_of(name: &str) -> u8 {
    let sum = name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    COLOURS[sum % COLOURS.len()]
}

/// Colours pass, as with Docker, and so do tabs; whatever else acts on a terminal is escaped. The carriage return before a
/// line end is the text's own.
fn for_terminal(text: &[u8], is_coloured: &mut bool) -> String {
    let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text));
    let mut shown = String::new();
    let mut rest = &*text;
    while let Some(at) = rest.find(['\t', '\u{1b}']) {
        let (before, special) = rest.split_at(at);
        shown += &plain(before);
        rest = match colouring(special) {
            Some((sequence, after)) => {
                shown += sequence;
                *is_coloured = !is_reset(sequence);
                after
            }
            None => {
                let (tab_or_escape, after) = special.split_at(1);
                match tab_or_escape {
                    "\t" => shown.push('\t'),
                    escape => shown += &plain(escape),
                }
                after
            }
        };
    }
    shown + &plain(rest)
}

/// The control sequence at the beginning, if it is one that selects how text looks, and what follows it.
fn colouring(text: &str) -> Option<(&str, &str)> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    let after = parameters[end..].strip_prefix('m')?;
    Some((&text[..text.len() - after.len()], after))
}

fn is_reset(sequence: &str) -> bool {
    sequence.chars().all(|c| matches!(c, '\u{1b}' | '[' | '0' | 'm'))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn entry(text: &[u8]) -> LogEntry {
        LogEntry {
            service: "hello/web".to_owned(),
            slot: 2,
            task: "s1-2-7".to_owned(),
            node: "n3".to_owned(),
            at: 1_700_000_000_000_000_001,
            attempt: 4,
            text: text.to_vec(),
            ..LogEntry::default()
        }
    }

    fn piece(text: &[u8]) -> LogEntry {
        LogEntry { partial: true, ..entry(text) }
    }

    const TERMINAL: Screen = Screen { is_terminal: true, colour: false };
    const TERMINALS: Style = Style { prefix: false, timestamps: false, stdout: TERMINAL, stderr: TERMINAL };

    /// What the two outputs are given, one after the other.
    fn print(style: Style, entries: &[LogEntry]) -> String {
        let mut printer = Printer::new(style);
        let mut written: Vec<_> = entries.iter().flat_map(|entry| printer.line(entry)).collect();
        written.extend(printer.finished());
        let show = |(to, bytes): (To, Vec<u8>)| {
            let mark = match to {
                To::Stdout => "",
                To::Stderr => "!",
            };
            format!("{mark}{}", bytes.escape_ascii())
        };
        written.into_iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pipe_gets_the_bytes_that_were_written() {
        let print = |entry| print(Style::default(), &[entry]);
        assert_eq!(print(entry(b"\x1b[31mred\xff\r")), r"\x1b[31mred\xff\r\n");
        assert_eq!(print(entry(b"ends\n")), r"ends\n", "one line end and not two");
        assert_eq!(print(LogEntry { stderr: true, ..entry(b"x") }), r"!x\n");
    }

    #[test]
    fn a_terminal_gets_colours_and_nothing_else_that_acts_on_it() {
        let print = |text: &[u8]| print(TERMINALS, &[entry(text)]);
        assert_eq!(print(b"\x1b]0;title\x07\ta\r"), r"\\u{1b}]0;title\\u{7}\ta\n");
        assert_eq!(print(b"\x1b[31mred\x1b[0m"), r"\x1b[31mred\x1b[0m\n");
        assert_eq!(print(b"\x1b[1;38:5:9mred\x1b[m"), r"\x1b[1;38:5:9mred\x1b[m\n");
        assert_eq!(print(b"\x1b[31mred"), r"\x1b[31mred\x1b[0m\n", "the next line is another's");
        for hostile in [
            &b"\x1b[2J"[..],
            b"\x1b[1A\x1b[2K",
            b"\x1b[",
            b"\x1b[31",
            b"\x1b[?25l",
            b"\x1b[31 m",
            b"\x1bc",
            b"a\x08\x08b\rc",
            b"\xc2\x9b2J",
            "\u{202e}gnp.exe".as_bytes(),
        ] {
            let written = Printer::new(TERMINALS).line(&entry(hostile));
            let bytes: Vec<u8> = written.into_iter().flat_map(|(_, bytes)| bytes).collect();
            let (end, text) = bytes.split_last().unwrap();
            assert_eq!(*end, b'\n');
            assert!(text.iter().all(|byte| (b' '..=b'~').contains(byte)), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_line_says_when_and_who_if_asked() {
        let style = Style { prefix: true, timestamps: true, ..Style::default() };
        assert_eq!(print(style, &[entry(b"GET /")]), r"2023-11-14T22:13:20.000000001Z web.2 | GET /\n");
        let coloured = Screen { colour: true, ..TERMINAL };
        let style = Style { prefix: true, stdout: coloured, ..TERMINALS };
        let shown = print(style, &[entry(b"a"), LogEntry { stderr: true, ..entry(b"b") }]);
        let colour = colour_of("web.2");
        assert_eq!(shown, format!(r"\x1b[{colour}mweb.2\x1b[0m | a\n !web.2 | b\n"));
    }

    #[test]
    fn the_pieces_of_a_line_are_put_together_again() {
        let style = Style { prefix: true, ..Style::default() };
        let other = LogEntry { slot: 3, task: "s1-3-9".to_owned(), ..entry(b"other") };
        assert_eq!(
            print(style, &[piece(b"a"), piece(b"b"), entry(b"c"), entry(b"d")]),
            r"web.2 | a b c\n web.2 | d\n"
        );
        assert_eq!(
            print(style, &[piece(b"a"), other.clone(), entry(b"b")]),
            r"web.2 | a \n web.3 | other\n web.2 | b\n",
            "what comes between ends it"
        );
        assert_eq!(print(style, &[piece(b"a")]), r"web.2 | a \n", "so does the end");
        let stderr = LogEntry { stderr: true, ..other };
        assert_eq!(
            print(style, &[piece(b"a"), stderr.clone(), entry(b"b")]),
            r"web.2 | a !web.3 | other\n b\n",
            "of two files each has its own lines"
        );
        assert_eq!(
            print(TERMINALS, &[piece(b"\x1b[31ma"), stderr, entry(b"b")]),
            r"\x1b[31ma \x1b[0m\n !other\n b\n",
            "one terminal has not"
        );
        assert_eq!(print(TERMINALS, &[piece(b"\x1b[31ma"), entry(b"b")]), r"\x1b[31ma b\x1b[0m\n");
    }

    #[test]
    fn a_note_and_a_warning_are_told_from_a_line() {
        assert_eq!(said(&entry(b"x")), None);
        let noted = LogEntry { note: "task s1-2-7 has ended".to_owned(), ..entry(b"") };
        assert_eq!(said(&noted).as_deref(), Some("note: hello/web.2: task s1-2-7 has ended"));
        let of_node = LogEntry { note: "node n3 answers again".to_owned(), ..LogEntry::default() };
        assert_eq!(said(&of_node).as_deref(), Some("note: node n3 answers again"));
        let warned = LogEntry { warning: "node n3 is \u{1b}[2Jdown".to_owned(), ..LogEntry::default() };
        assert_eq!(said(&warned).as_deref(), Some("warning: node n3 is \\u{1b}[2Jdown"));
    }

    #[test]
    fn json_is_one_object_a_line_with_the_documented_fields() {
        let mut text = json(&entry(b"GET /\t\"x\""));
        text += &json(&LogEntry { stderr: true, ..piece(b"\x1b[2J\xff\xc2\x9b\xe2\x80\xae") });
        text += &json(&LogEntry { at: 1, ..LogEntry::default() });
        expect![[r#"
            {"at":"2023-11-14T22:13:20.000000001Z","service":"hello/web","slot":2,"task":"s1-2-7","node":"n3","attempt":4,"stream":"stdout","line":"GET /\t\"x\"","partial":false}
            {"at":"2023-11-14T22:13:20.000000001Z","service":"hello/web","slot":2,"task":"s1-2-7","node":"n3","attempt":4,"stream":"stderr","line":"\u001b[2J�\u009b\u202e","partial":true}
            {"at":"1970-01-01T00:00:00.000000001Z","service":"","slot":0,"task":"","node":null,"attempt":null,"stream":"stdout","line":"","partial":false}
        "#]]
        .assert_eq(&text);
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value.as_object().map(serde_json::Map::len), Some(9));
        }
    }
}
