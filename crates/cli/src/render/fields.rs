//! `gantry inspect` as a table: one line a field, named by its path.

use serde_json::Value;

use crate::render::table::table;

/// Lists are counted from 0: `versions.0.image`.
pub(crate) fn fields_table(document: &Value) -> String {
    let mut rows = Vec::new();
    collect("", document, &mut rows);
    table(&["FIELD", "VALUE"], &rows)
}

fn collect(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| collect(&below(name), value, rows));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(at, item)| collect(&below(&at.to_string()), item, rows));
        }
        Value::String(text) => rows.push(vec![path.to_owned(), text.clone()]),
        Value::Object(_) | Value::Array(_) | Value::Null => rows.push(vec![path.to_owned(), "-".to_owned()]),
        Value::Bool(_) | Value::Number(_) => rows.push(vec![path.to_owned(), value.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_has_a_line() {
        let document = json!({ "a": "text", "b": { "c": 1, "d": null }, "e": [true, { "f": [] }] });
        expect![[r#"
            FIELD  VALUE
            a      text
            b.c    1
            b.d    -
            e.0    true
            e.1.f  -
        "#]]
        .assert_eq(&fields_table(&document));
    }
}
