//! `gantry diff`.

use serde::Serialize;
use wire::proto::stream::Change;
use wire::proto::stream::change::Kind;

use crate::render::plain;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    /// `added | changed | deleted`, or null for what this version does not know
    kind: Option<&'static str>,
    path: &'a str,
}

pub(crate) fn rows(changes: &[Change]) -> Vec<Row<'_>> {
    changes.iter().map(row).collect()
}

fn row(change: &Change) -> Row<'_> {
    let kind = match change.kind() {
        Kind::Added => Some("added"),
        Kind::Changed => Some("changed"),
        Kind::Deleted => Some("deleted"),
        Kind::Unspecified => None,
    };
    Row { kind, path: &change.path }
}

/// A line each, as Docker writes them: `A /path`.
pub(crate) fn lines(changes: &[Change]) -> String {
    let line = |change: &Change| {
        let kind = match change.kind() {
            Kind::Added => 'A',
            Kind::Changed => 'C',
            Kind::Deleted => 'D',
            Kind::Unspecified => '?',
        };
        format!("{kind} {}\n", plain(&change.path))
    };
    changes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_letter_and_a_path() {
        let change = |kind: Kind, path: &str| Change { kind: kind.into(), path: path.to_owned() };
        let changes = [
            change(Kind::Changed, "/etc"),
            change(Kind::Added, "/etc/new\n"),
            change(Kind::Deleted, "/tmp/old"),
        ];
        assert_eq!(lines(&changes), "C /etc\nA /etc/new\\n\nD /tmp/old\n");
        let value = serde_json::to_value(rows(&changes)).unwrap();
        assert_eq!(value[1], serde_json::json!({ "kind": "added", "path": "/etc/new\n" }));
    }
}
