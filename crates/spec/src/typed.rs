//! Nodes to plain values. Each function takes what the node is called in messages, reports what is wrong with
//! it and answers with what can be used of it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node, Scalar};
use crate::yaml::Value;

/// The largest argument or environment entry that Linux passes to a program (`MAX_ARG_STRLEN`), in bytes.
const MAX_VALUE: usize = 128 << 10;

const QUOTE_IT: &str = "put it in quotes";

/// A value and where it stands, to compare it with another.
pub(crate) type Placed<T> = Option<(Span, T)>;

/// The entries of a mapping; none of a key without a value.
pub(crate) fn entries<'n>(node: &'n Node, subject: &str, report: &mut Report<'_>) -> &'n [Entry] {
    match &node.content {
        Content::Mapping(entries) => entries,
        Content::Scalar(Scalar { value: Value::Null, .. }) => &[],
        Content::Scalar(_) | Content::Sequence(_) => {
            report.error(node.span, format!("{subject} must be a mapping, and this is {}", node.describe()));
            &[]
        }
    }
}

/// The items of a list; none of a key without a value.
pub(crate) fn items<'n>(node: &'n Node, subject: &str, report: &mut Report<'_>) -> &'n [Node] {
    match &node.content {
        Content::Sequence(items) => items,
        Content::Scalar(Scalar { value: Value::Null, .. }) => &[],
        Content::Scalar(_) | Content::Mapping(_) => {
            report.error(node.span, format!("{subject} must be a list, and this is {}", node.describe()));
            &[]
        }
    }
}

/// A string that can be given to a program.
pub(crate) fn string<'n>(node: &'n Node, subject: &str, report: &mut Report<'_>) -> Option<&'n str> {
    let Some(text) = node.as_text() else {
        let message = format!("{subject} must be a string, and this is {}", node.describe());
        match &node.content {
            Content::Scalar(Scalar { value: Value::Null, .. })
            | Content::Sequence(_)
            | Content::Mapping(_) => {
                report.error(node.span, message);
            }
            Content::Scalar(_) => report.error_with(node.span, message, QUOTE_IT),
        }
        return None;
    };
    passes(text, node.span, subject, report).then_some(text)
}

/// A list of strings.
pub(crate) fn strings(node: &Node, subject: &str, report: &mut Report<'_>) -> Vec<String> {
    let each = format!("each item of {subject}");
    let items = items(node, subject, report);
    items.iter().filter_map(|item| string(item, &each, report).map(str::to_owned)).collect()
}

/// A list of strings, each with its place.
pub(crate) fn placed_strings<'n>(
    node: &'n Node,
    subject: &str,
    report: &mut Report<'_>,
) -> Vec<(Span, &'n str)> {
    let each = format!("each item of {subject}");
    let items = items(node, subject, report);
    items.iter().filter_map(|item| Some((item.span, string(item, &each, report)?))).collect()
}

/// One string, or a list of them, each with its place.
pub(crate) fn string_or_list<'n>(
    node: &'n Node,
    subject: &str,
    report: &mut Report<'_>,
) -> Vec<(Span, &'n str)> {
    if node.as_text().is_some() {
        return string(node, subject, report).map(|text| (node.span, text)).into_iter().collect();
    }
    placed_strings(node, subject, report)
}

/// Each once, where it stands first: files that are merged may say the same.
pub(crate) fn distinct<T: Ord + Clone>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(item.clone())).collect()
}

/// A boolean. A variable leaves it in quotes, and Compose still takes the words that YAML 1.1 had for one.
pub(crate) fn boolean(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<bool> {
    if let Content::Scalar(Scalar { value: Value::Bool(value), .. }) = &node.content {
        return Some(*value);
    }
    let value = match node.as_text().map(str::to_ascii_lowercase).as_deref() {
        Some("true") => return Some(true),
        Some("false") => return Some(false),
        Some("y" | "yes" | "on") => true,
        Some("n" | "no" | "off") => false,
        Some(_) | None => {
            let message = format!("{subject} must be true or false, and this is {}", node.describe());
            report.error(node.span, message);
            return None;
        }
    };
    let message = format!("{subject} is {value} here, but this word is no boolean since YAML 1.2");
    report.warning(node.span, message, format!("write `{value}`"));
    Some(value)
}

/// A whole number within a range; also one in quotes, since that is what a variable leaves.
pub(crate) fn integer<T>(
    node: &Node,
    subject: &str,
    range: RangeInclusive<T>,
    report: &mut Report<'_>,
) -> Option<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    let number = match &node.content {
        Content::Scalar(Scalar { value: Value::Int(number), .. }) => Some(*number),
        Content::Scalar(Scalar { value: Value::Text, text }) => text.parse().ok(),
        Content::Scalar(_) | Content::Sequence(_) | Content::Mapping(_) => None,
    };
    let number = number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
    if number.is_none() {
        report.error(
            node.span,
            format!(
                "{subject} must be a whole number from {} to {}, and this is {}",
                range.start(),
                range.end(),
                node.describe()
            ),
        );
    }
    number
}

/// A string or a number, for a quantity that has a parser of its own.
pub(crate) fn quantity<T, E: Display>(
    node: &Node,
    subject: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
    report: &mut Report<'_>,
) -> Option<T> {
    /// Longer than any quantity, and short enough for a message.
    const MAX: usize = 64;
    let text = match &node.content {
        Content::Scalar(Scalar { value: Value::Int(number), .. }) => number.to_string(),
        Content::Scalar(Scalar { value: Value::Float(_) | Value::Text, text }) => text.clone(),
        Content::Scalar(_) | Content::Sequence(_) | Content::Mapping(_) => {
            report.error(node.span, format!("{subject} must be a quantity, and this is {}", node.describe()));
            return None;
        }
    };
    if text.len() > MAX || text.chars().any(char::is_control) {
        report.error(node.span, format!("{subject} cannot be `{}`", shown(&text)));
        return None;
    }
    match parse(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            report.error(node.span, format!("{subject}: {error}"));
            None
        }
    }
}

/// One of the pairs of `environment` or `labels`.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) key: String,
    /// `None` if only the key is given.
    pub(crate) value: Option<String>,
    /// Of the value, or of the key if it stands alone.
    pub(crate) span: Span,
}

/// A mapping, or a list of `KEY=VALUE`; values may be strings, numbers, booleans or missing.
pub(crate) fn pairs(node: &Node, subject: &str, report: &mut Report<'_>) -> Vec<Pair> {
    let each = format!("each item of {subject}");
    match &node.content {
        Content::Mapping(entries) => {
            entries.iter().filter_map(|entry| mapped(entry, subject, report)).collect()
        }
        Content::Sequence(items) => items.iter().filter_map(|item| listed(item, &each, report)).collect(),
        Content::Scalar(Scalar { value: Value::Null, .. }) => Vec::new(),
        Content::Scalar(_) => {
            let message = format!("{subject} must be a mapping or a list, and this is {}", node.describe());
            report.error(node.span, message);
            Vec::new()
        }
    }
}

fn mapped(Entry { key, value }: &Entry, subject: &str, report: &mut Report<'_>) -> Option<Pair> {
    if !is_key(&key.text, key.span, subject, report) {
        return None;
    }
    let name = format!("`{}`", shown(&key.text));
    let Content::Scalar(scalar) = &value.content else {
        let message = format!("{name} must be a string, number or boolean, and this is {}", value.describe());
        report.error(value.span, message);
        return None;
    };
    let text = scalar.printed();
    if let Some(text) = &text
        && !passes(text, value.span, &name, report)
    {
        return None;
    }
    let span = if text.is_some() { value.span } else { key.span };
    Some(Pair { key: key.text.clone(), value: text, span })
}

fn listed(item: &Node, subject: &str, report: &mut Report<'_>) -> Option<Pair> {
    let text = string(item, subject, report)?;
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    is_key(key, item.span, subject, report).then(|| Pair { key: key.to_owned(), value, span: item.span })
}

fn is_key(key: &str, span: Span, subject: &str, report: &mut Report<'_>) -> bool {
    if key.is_empty() {
        report.error(span, format!("{subject} needs a name before its value"));
        return false;
    }
    if key.contains('=') {
        let hint = "in a mapping the value stands behind a colon";
        report.error_with(span, format!("the name `{}` contains `=`", shown(key)), hint);
        return false;
    }
    passes(key, span, "a name", report)
}

/// A list, unlike a mapping, may give a name twice; Docker takes the last one.
pub(crate) fn told_twice(twice: bool, span: Span, report: &mut Report<'_>) {
    if twice {
        report.warning(span, "the same name stands above, and this value replaces that", "keep one of them");
    }
}

/// Whether text can stand in a line of a file: a control character could begin another one.
pub(crate) fn is_line(text: &str, span: Span, subject: &str, report: &mut Report<'_>) -> bool {
    if text.contains(char::is_control) {
        report.error_with(
            span,
            format!("{subject} contains a control character, such as a new line"),
            "keep it on one line; YAML's `>-` leaves no new line at its end",
        );
        return false;
    }
    true
}

/// Whether text holds a template, which is an error where Swarm would fill it in. In other keys `{{` is text.
pub(crate) fn is_template(text: &str, span: Span, report: &mut Report<'_>) -> bool {
    let is = text.contains("{{");
    if is {
        let hint = "Docker Swarm would fill in `{{…}}`; write what it stands for";
        report.error_with(span, "templates are not done yet", hint);
    }
    is
}

/// Whether text can be given to a program at all.
pub(crate) fn passes(text: &str, span: Span, subject: &str, report: &mut Report<'_>) -> bool {
    if text.contains('\0') {
        report.error(span, format!("{subject} contains a NUL character, which no program can be given"));
        return false;
    }
    if text.len() > MAX_VALUE {
        let message = format!("{subject} has {} bytes; Linux passes {MAX_VALUE} at most", text.len());
        report.error_with(span, message, "put it into a file of the image");
        return false;
    }
    true
}
