//! A command line into words, as Compose has it (mattn/go-shellwords): no shell reads `command: sleep 60`.

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    #[error("a quote {0} is never closed")]
    UnclosedQuote(char),
    #[error("a backslash at the end escapes nothing")]
    TrailingBackslash,
    #[error("`{0}` means something to a shell, and no shell reads this")]
    Operator(char),
}

impl InvalidCommand {
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::UnclosedQuote(_) | Self::TrailingBackslash => "write the command as a list of words",
            Self::Operator(_) => "quote it, or write `[sh, -c, '…']`",
        }
    }
}

/// Splits at white space. Single quotes keep everything as it is; a backslash elsewhere takes the next
/// character as it is, except that `\n` and `\t` are a new line and a tab.
///
/// Docker drops what follows an unquoted `;`, `&`, `|`, `<` or `>`; here that is an error, since nobody means
/// it.
pub fn split(text: &str) -> Result<Vec<String>, InvalidCommand> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let escaped = chars.next().ok_or(InvalidCommand::TrailingBackslash)?;
                word.get_or_insert_default().push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
            }
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                // Even an empty pair of quotes is a word.
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, ' ' | '\t' | '\r' | '\n') => words.extend(word.take()),
            (None, ';' | '&' | '|' | '<' | '>' | '(' | ')' | '`') => return Err(InvalidCommand::Operator(c)),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(InvalidCommand::UnclosedQuote(open));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, words: &[&str]) {
        assert_eq!(split(text).unwrap(), words, "{text:?}");
    }

    #[test]
    fn words_are_separated_by_white_space() {
        check("", &[]);
        check(" \t\r\n", &[]);
        check("sleep 60", &["sleep", "60"]);
        check("  a\n  b  ", &["a", "b"]);
        check("--x=1 -- $A #c *", &["--x=1", "--", "$A", "#c", "*"]);
    }

    #[test]
    fn quotes_and_backslashes_keep_words_together() {
        check(r#"sh -c "a && b; c""#, &["sh", "-c", "a && b; c"]);
        check(r"echo 'a \n \' b", &["echo", r"a \n \", "b"]);
        check(r#"a"b c"'d e'f"#, &["ab cd ef"]);
        check(r#"'' """#, &["", ""]);
        check(r#"a\ b "c\"d" "e\nf" \t"#, &["a b", "c\"d", "e\nf", "\t"]);
        check(r#""it's" '"'"#, &["it's", "\""]);
    }

    #[test]
    fn what_only_a_shell_would_understand_is_refused() {
        for (text, error) in [
            ("a && b", InvalidCommand::Operator('&')),
            ("a > b", InvalidCommand::Operator('>')),
            ("$(date)", InvalidCommand::Operator('(')),
            ("`date`", InvalidCommand::Operator('`')),
            ("'a", InvalidCommand::UnclosedQuote('\'')),
            ("a \"b", InvalidCommand::UnclosedQuote('"')),
            ("a\\", InvalidCommand::TrailingBackslash),
        ] {
            assert_eq!(split(text), Err(error), "{text:?}");
        }
    }
}
