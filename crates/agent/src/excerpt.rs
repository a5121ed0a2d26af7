//! Words of a container's, fit to stand in a line that a person reads.

/// What a reason may quote, in characters. Reasons are replicated, and shown in tables.
const LONGEST: usize = 200;

/// Lines at the end of a log among which its last words are looked for.
pub(crate) const LINES: usize = 10;

/// The text on one line: without what a terminal obeys, each stretch of blanks as one, and cut off when it is long.
pub(crate) fn excerpt(text: &str) -> String {
    let mut line = String::new();
    let mut length = 0;
    let mut blank = false;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next == '\u{1b}' {
            skip_sequence(&mut rest);
        } else if next.is_whitespace() || next.is_control() {
            blank = true;
        } else {
            if blank && length > 0 {
                line.push(' ');
                length += 1;
            }
            blank = false;
            if length >= LONGEST {
                line.push('…');
                return line;
            }
            line.push(next);
            length += 1;
        }
    }
    line
}

/// The rest of a terminal's control sequence (ECMA-48, 5.4), such as colours. Another kind loses its first character, and is
/// otherwise text.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    if rest.next() == Some('[') {
        let _final_byte = rest.find(|next| ('@'..='~').contains(next));
    }
}

/// What of a log's last lines tells best why a container ended: the last one on stderr, or else the last. `lines` are told
/// with whether they are on stderr, oldest first.
pub(crate) fn last_words(lines: &[(bool, String)]) -> Option<String> {
    let said = || {
        lines.iter().rev().map(|(stderr, text)| (*stderr, excerpt(text))).filter(|(_, text)| !text.is_empty())
    };
    said().find(|(stderr, _)| *stderr).or_else(|| said().next()).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_line_that_no_terminal_obeys() {
        for (text, expected) in [
            ("cannot connect to database\n", "cannot connect to database"),
            ("  a\t\r\n b  ", "a b"),
            ("\u{1b}[1;31mERROR\u{1b}[0m: no", "ERROR: no"),
            ("a\u{1b}]0;title\u{7}b", "a0;title b"),
            ("a\u{1b}[31", "a"),
            ("a\u{1b}", "a"),
            ("\u{9b}31mred", "31mred"),
            ("", ""),
            (" \n\u{0}", ""),
        ] {
            assert_eq!(excerpt(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_excerpt_is_not_long() {
        let long = excerpt(&"ä".repeat(100_000));
        assert_eq!(long, format!("{}…", "ä".repeat(LONGEST)));
        let spaced = excerpt(&"x ".repeat(100_000));
        assert!(spaced.chars().count() <= LONGEST + 2, "{}", spaced.chars().count());
        assert_eq!(excerpt(&"x".repeat(LONGEST)), "x".repeat(LONGEST));
    }

    #[test]
    fn the_last_words_are_those_on_stderr_if_there_are_any() {
        let lines = |lines: &[(bool, &str)]| {
            last_words(&lines.iter().map(|(stderr, text)| (*stderr, (*text).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(lines(&[]), None);
        assert_eq!(lines(&[(false, " \n"), (true, "")]), None);
        assert_eq!(lines(&[(false, "one"), (false, "two"), (false, "")]).as_deref(), Some("two"));
        assert_eq!(
            lines(&[(true, "failed"), (false, "bye"), (true, "\u{1b}[0m")]).as_deref(),
            Some("failed")
        );
    }
}
