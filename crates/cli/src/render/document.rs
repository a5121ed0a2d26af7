//! Data as JSON and YAML.

use serde::Serialize;
use serde_json::Value;

use crate::render::yaml;
use crate::times;

/// Indented JSON, fields in the order of their declaration.
pub(crate) fn json<T: Serialize>(data: &T) -> String {
    let mut text = serde_json::to_string_pretty(data).expect("rows have text for keys");
    text.push('\n');
    text
}

/// JSON in one line, with its end.
pub(crate) fn json_line<T: Serialize>(data: &T) -> String {
    let mut text = serde_json::to_string(data).expect("rows have text for keys");
    text.push('\n');
    text
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
