//! Replies into text: data in, a `String` out.

pub(crate) mod changes;
pub(crate) mod details;
pub(crate) mod document;
pub(crate) mod fields;
pub(crate) mod images;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod plans;
pub(crate) mod processes;
pub(crate) mod progress;
pub(crate) mod registries;
pub(crate) mod rollouts;
pub(crate) mod services;
pub(crate) mod stacks;
pub(crate) mod table;
pub(crate) mod tasks;
pub(crate) mod transfers;
pub(crate) mod usage;
pub(crate) mod version;
mod yaml;

use serde::Serialize;

/// In which form data is written to stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// Documented, stable fields
    Json,
    /// The same fields as YAML
    Yaml,
}

/// Rows in the form asked for; `table` makes the table, with more columns if it is told `true`.
pub(crate) fn list<R: Serialize>(format: Format, rows: &R, table: impl FnOnce(bool) -> String) -> String {
    match format {
        Format::Table => table(false),
        Format::Wide => table(true),
        Format::Json => document::json(rows),
        Format::Yaml => document::yaml(rows),
    }
}

/// Text from elsewhere as a part of one line, without what would act on a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().flat_map(harmless).collect()
}

/// The same, of text that has lines.
pub(crate) fn lines_for_terminal(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// A character, or an escape in its place if it is not harmless.
fn harmless(c: char) -> impl Iterator<Item = char> {
    let (shown, escape) = if acts(c) { (None, Some(c.escape_default())) } else { (Some(c), None) };
    shown.into_iter().chain(escape.into_iter().flatten())
}

/// Whether a character does something to what is shown: a control character, one that is invisible, or one that turns the
/// direction of what follows.
fn acts(c: char) -> bool {
    let deceives =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    c.is_control() || deceives
}

/// What is empty on the wire is unknown, which is null in JSON.
fn known(text: &str) -> Option<&str> {
    if text.is_empty() { None } else { Some(text) }
}
