//! Paths as text. Nothing is looked up: what is there is each node's to know.

use crate::problem::{Report, Span, shown};
use crate::typed;

/// What Linux takes, in bytes, less the NUL at the end.
const MAX_LENGTH: usize = 4095;

/// An absolute path, cleaned. One with `..` is refused: where it leads depends on the links along it.
pub(crate) fn absolute(text: &str, span: Span, subject: &str, report: &mut Report<'_>) -> Option<String> {
    if typed::is_template(text, span, report) || !typed::is_line(text, span, subject, report) {
        return None;
    }
    let (problem, hint) = if !text.starts_with('/') {
        ("must be an absolute path", "begin it with `/`")
    } else if goes_up(text) {
        ("must not have `..` in it", "write where it leads")
    } else if text.len() > MAX_LENGTH {
        ("is longer than a path can be", "Linux takes 4095 bytes")
    } else {
        return Some(cleaned(text));
    };
    report.error_with(span, format!("{subject} {problem}, and this is `{}`", shown(text)), hint);
    None
}

pub(crate) fn goes_up(text: &str) -> bool {
    text.split('/').any(|part| part == "..")
}

/// Without empty parts and `.`, as Go's `path.Clean` has it; `..` stays.
pub(crate) fn cleaned(text: &str) -> String {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let root = if text.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_without_being_looked_up() {
        for (written, clean) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/", "/a"),
            ("/a//./b", "/a/b"),
            ("a/./b/", "a/b"),
            ("/a/../b", "/a/../b"),
        ] {
            assert_eq!(cleaned(written), clean, "{written}");
        }
        assert!(goes_up("/a/..") && goes_up("..") && !goes_up("/a..b/...") && !goes_up(""));
    }
}
