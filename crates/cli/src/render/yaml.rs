//! JSON values as YAML 1.2 that YAML 1.1 reads alike.

use serde_json::{Map, Value};

use crate::render::acts;

/// Words that some reader of YAML takes for something else than text.
const RESERVED: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// The document, with a line end.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    node(value, 0, &mut text);
    text
}

/// Writes a value whose first line is already begun, and the line ends.
fn node(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Array(items) if !items.is_empty() => sequence(items, indent, out),
        Value::Object(fields) if !fields.is_empty() => mapping(fields, indent, out),
        Value::Array(_) => out.push_str("[]\n"),
        Value::Object(_) => out.push_str("{}\n"),
        Value::String(text) => {
            out.push_str(&scalar(text));
            out.push('\n');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            out.push_str(&value.to_string());
            out.push('\n');
        }
    }
}

fn sequence(items: &[Value], indent: usize, out: &mut String) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str("- ");
        node(item, indent + 2, out);
    }
}

fn mapping(fields: &Map<String, Value>, indent: usize, out: &mut String) {
    for (at, (key, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(&scalar(key));
        out.push(':');
        if is_block(value) {
            out.push('\n');
            out.push_str(&" ".repeat(indent + 2));
        } else {
            out.push(' ');
        }
        node(value, indent + 2, out);
    }
}

/// Whether a value takes lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Text as it is if no reader can take it for something else, otherwise in quotes.
fn scalar(text: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(inner)
        && !text.ends_with(':')
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    // YAML's double quotes hold all that JSON's do, but the characters that YAML calls not printable; and none that would act
    // on a terminal.
    let quoted = Value::from(text).to_string();
    quoted.chars().flat_map(printable).collect()
}

fn printable(c: char) -> Vec<char> {
    if acts(c) || matches!(c, '\u{fffe}' | '\u{ffff}') {
        format!("\\u{:04x}", u32::from(c)).chars().collect()
    } else {
        vec![c]
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_and_mappings_nest() {
        // In alphabetical order, since what order a mapping has is up to a feature of serde_json.
        let value = json!([
            { "a": { "b": [1, 2], "c": {} }, "d": [] },
            { "a": null, "b": [[true, "x"], [{ "k": "v", "l": 1.5 }]] },
            "text",
        ]);
        expect![[r#"
            - a:
                b:
                  - 1
                  - 2
                c: {}
              d: []
            - a: null
              b:
                - - true
                  - x
                - - k: v
                    l: 1.5
            - text
        "#]]
        .assert_eq(&write(&value));
    }

    #[test]
    fn text_is_quoted_unless_it_cannot_be_anything_else() {
        for plain in ["hello/web", "nginx:1.22", "s1-2-3", "running", "sha256:00ff"] {
            assert_eq!(scalar(plain), plain);
        }
        for (text, quoted) in [
            ("", r#""""#),
            ("No", r#""No""#),
            ("10.1.2.3", r#""10.1.2.3""#),
            ("2023-11-14T22:13:20.000Z", r#""2023-11-14T22:13:20.000Z""#),
            ("a:", r#""a:""#),
            ("two words", r#""two words""#),
            ("~", r#""~""#),
            ("line\nbreak", r#""line\nbreak""#),
            ("\u{7f}\u{85}", r#""\u007f\u0085""#),
            ("say \"x\"", r#""say \"x\"""#),
        ] {
            assert_eq!(scalar(text), quoted);
        }
    }
}
