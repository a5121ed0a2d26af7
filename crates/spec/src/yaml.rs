//! What a plain scalar means, as go-yaml v3 has it: Compose files are written against it.
//!
//! Only `true` and `false` are booleans (`yes` and `on` are strings), `0444` and `0o444` are octal, `22:22`
//! is a string.

/// What a scalar stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// Within what a signed or unsigned 64-bit number holds.
    Int(i128),
    Float(f64),
    /// A string: the scalar's text.
    Text,
}

/// Reads a scalar that stands in the file without quotes.
pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        _ => number(text).unwrap_or(Value::Text),
    }
}

fn number(text: &str) -> Option<Value> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).map(Value::Int).or_else(|| float(&plain).map(Value::Float))
}

/// Go's `strconv.ParseInt` with base 0, which takes the base from the prefix.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    if !digits.bytes().all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value).then_some(value)
}

fn float(text: &str) -> Option<f64> {
    // Rust also reads `inf` and `nan`, which YAML writes otherwise.
    let plain = |c: u8| c.is_ascii_digit() || matches!(c, b'+' | b'-' | b'.' | b'e' | b'E');
    text.bytes().all(plain).then(|| text.parse().ok()).flatten()
}

/// A float as Go prints it, which is what a container gets to see: `1.10` becomes `1.1`, `1e21` becomes
/// `1e+21`.
pub(crate) fn print_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_and_false_are_booleans() {
        assert_eq!(resolve("true"), Value::Bool(true));
        assert_eq!(resolve("FALSE"), Value::Bool(false));
        for text in ["yes", "no", "on", "off", "y", "tRUE"] {
            assert_eq!(resolve(text), Value::Text, "{text}");
        }
    }

    #[test]
    fn integers_take_their_base_from_the_prefix() {
        for (text, value) in [
            ("0", 0),
            ("12", 12),
            ("+5", 5),
            ("-5", -5),
            ("0444", 0o444),
            ("0o444", 0o444),
            ("0x1F", 31),
            ("-0b101", -5),
            ("1_000", 1000),
            ("18446744073709551615", i128::from(u64::MAX)),
        ] {
            assert_eq!(resolve(text), Value::Int(value), "{text}");
        }
    }

    #[test]
    fn floats_are_what_has_a_point_an_exponent_or_too_many_digits() {
        for (text, value) in
            [(".5", 0.5), ("1.", 1.0), ("1.10", 1.1), ("1e3", 1e3), ("-2.5E-3", -2.5e-3), ("089", 89.0)]
        {
            assert_eq!(resolve(text), Value::Float(value), "{text}");
        }
        assert_eq!(resolve("18446744073709551616"), Value::Float(18_446_744_073_709_551_616.0));
        assert_eq!(resolve("-.inf"), Value::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn the_rest_is_text() {
        for text in [
            "-",
            "+",
            ".",
            "1.2.3",
            "22:22",
            "64m",
            "2001-01-01",
            "inf",
            "nan",
            "1e",
            "--1",
            "0x",
            "0b2",
            "_1",
            "a",
        ] {
            assert_eq!(resolve(text), Value::Text, "{text}");
        }
    }

    #[test]
    fn nothing_is_null() {
        for text in ["", "~", "null", "NULL"] {
            assert_eq!(resolve(text), Value::Null, "{text}");
        }
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        for (value, text) in [
            (1.1, "1.1"),
            (1000.0, "1000"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e-7, "-1.5e-07"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(print_float(value), text);
        }
    }
}
