//! Data as JSON and YAML.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::render::{acts, yaml};
use crate::times;

/// Indented JSON, fields in the order of their declaration.
pub(crate) fn json<T: Serialize>(data: &T) -> String {
    let mut text = escaped(&serde_json::to_string_pretty(data).expect("rows have text for keys"));
    text.push('\n');
    text
}

/// JSON in one line, with its end.
pub(crate) fn json_line<T: Serialize>(data: &T) -> String {
    let mut text = escaped(&serde_json::to_string(data).expect("rows have text for keys"));
    text.push('\n');
    text
}

/// JSON in which what would act on a terminal is escaped: file names, command lines and logs are what containers make them.
fn escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        // Ends of lines are between values. All else that acts is within the first 65,536 characters, and within a string:
        // there is nothing else outside of ASCII.
        if acts(c) && c != '\n' {
            write!(safe, "\\u{:04x}", u32::from(c)).expect("writing to memory cannot fail");
        } else {
            safe.push(c);
        }
    }
    safe
}

pub(crate) fn yaml<T: Serialize>(data: &T) -> String {
    yaml::write(&serde_json::to_value(data).expect("rows have text for keys"))
}

/// Puts RFC 3339 in the place of every time: managers write them as `{"unix_ms": N}`.
pub(crate) fn with_times(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(with_times).collect()),
        Value::Object(fields) => match fields.get("unix_ms").and_then(Value::as_u64) {
            Some(millis) if fields.len() == 1 => times::rfc3339(millis).map_or(Value::Null, Value::String),
            Some(_) | None => {
                Value::Object(fields.into_iter().map(|(key, value)| (key, with_times(value))).collect())
            }
        },
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_a_document_acts_on_a_terminal() {
        let hostile = "\u{9b}2J \u{7f}\u{1b}[2J \u{202e}txt.exe";
        for text in [json(&[hostile]), json_line(&[hostile]), yaml(&[hostile])] {
            assert!(!text.chars().any(|c| acts(c) && c != '\n'), "{text:?}");
        }
        for text in [json(&[hostile]), json_line(&[hostile])] {
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!([hostile]), "it means the same");
        }
    }

    #[test]
    fn times_are_written_for_people_at_every_depth() {
        let at = json!({ "unix_ms": 1_700_000_000_000_u64 });
        let read =
            with_times(json!({ "created": at, "copies": [{ "since": at }], "never": { "unix_ms": 0 } }));
        let text = "2023-11-14T22:13:20.000Z";
        assert_eq!(read, json!({ "created": text, "copies": [{ "since": text }], "never": null }));
    }

    #[test]
    fn a_label_that_is_called_like_a_time_is_none() {
        let labels = json!({ "unix_ms": "soon", "a": "b" });
        assert_eq!(with_times(labels.clone()), labels);
    }
}
