//! Words as a Dockerfile has them: quotes, backslashes, and variables. (Dockerfile reference, "Environment replacement".)

use std::iter::Peekable;
use std::str::Chars;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidWords {
    #[error("a {0} is opened and not closed")]
    Unclosed(char),
    #[error("`${{{0}}}` is not a plain variable: write ${{NAME}}")]
    Variable(String),
}

/// What a variable stands for; empty if it is not set.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> String;

/// The words of a text.
pub(super) fn split(text: &str, lookup: Lookup<'_>) -> Result<Vec<String>, InvalidWords> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (word, length) = word(rest, true, lookup)?;
        words.push(word);
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

/// A text as one word, with the spaces that are in it.
pub(super) fn whole(text: &str, lookup: Lookup<'_>) -> Result<String, InvalidWords> {
    word(text.trim(), false, lookup).map(|(word, _)| word)
}

/// The first word, and how much of the text it is. Without `ends` a space does not end it.
fn word(text: &str, ends: bool, lookup: Lookup<'_>) -> Result<(String, usize), InvalidWords> {
    let mut word = String::new();
    let mut left = text.chars().peekable();
    while let Some(c) = left.next() {
        match c {
            space if ends && space.is_whitespace() => {
                let length = text.len() - space.len_utf8() - left.map(char::len_utf8).sum::<usize>();
                return Ok((word, length));
            }
            '\'' => loop {
                match left.next() {
                    Some('\'') => break,
                    Some(c) => word.push(c),
                    None => return Err(InvalidWords::Unclosed('\'')),
                }
            },
            '"' => quoted(&mut left, &mut word, lookup)?,
            '\\' => word.push(left.next().unwrap_or('\\')),
            '$' => word.push_str(&variable(&mut left, lookup)?),
            c => word.push(c),
        }
    }
    Ok((word, text.len()))
}

/// To the closing quote.
fn quoted(left: &mut Peekable<Chars<'_>>, word: &mut String, lookup: Lookup<'_>) -> Result<(), InvalidWords> {
    while let Some(c) = left.next() {
        match c {
            '"' => return Ok(()),
            // Before anything else a backslash is itself there.
            '\\' => match left.next_if(|next| ['"', '\\', '$'].contains(next)) {
                Some(escaped) => word.push(escaped),
                None => word.push('\\'),
            },
            '$' => word.push_str(&variable(left, lookup)?),
            c => word.push(c),
        }
    }
    Err(InvalidWords::Unclosed('"'))
}

/// What is behind a `$`.
fn variable(left: &mut Peekable<Chars<'_>>, lookup: Lookup<'_>) -> Result<String, InvalidWords> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let mut name = String::new();
    if left.next_if_eq(&'{').is_none() {
        while let Some(c) = left.next_if(is_name) {
            name.push(c);
        }
        return Ok(if name.is_empty() { "$".to_owned() } else { lookup(&name) });
    }
    loop {
        match left.next() {
            Some('}') => break,
            Some(c) => name.push(c),
            None => return Err(InvalidWords::Unclosed('{')),
        }
    }
    let is_plain = !name.is_empty() && name.chars().all(|c| is_name(&c));
    if is_plain { Ok(lookup(&name)) } else { Err(InvalidWords::Variable(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> String {
        if name == "HOME" { "/root".to_owned() } else { String::new() }
    }

    #[test]
    fn words_are_read_as_in_a_dockerfile() {
        for (text, words) in [
            ("", &[][..]),
            ("  a  b ", &["a", "b"]),
            (r#"a="b c" 'd e'"#, &["a=b c", "d e"]),
            (r#"a\ b "\"x\"" '\n'"#, &["a b", "\"x\"", "\\n"]),
            (r#""" ''"#, &["", ""]),
            (r#"$HOME/x ${HOME}y "$HOME" '$HOME' \$HOME"#, &["/root/x", "/rooty", "/root", "$HOME", "$HOME"]),
            ("x$NONE 5$ ü", &["x", "5$", "ü"]),
        ] {
            assert_eq!(split(text, &own).unwrap(), words, "{text}");
        }
        assert_eq!(whole(r#" one  "two" $HOME "#, &own).unwrap(), "one  two /root");
    }

    #[test]
    fn what_is_not_closed_or_not_known_is_refused() {
        let refused = |text: &str| split(text, &own).unwrap_err().to_string();
        assert_eq!(refused("a 'b"), "a ' is opened and not closed");
        assert_eq!(refused("a \"b"), "a \" is opened and not closed");
        assert_eq!(refused("${HOME"), "a { is opened and not closed");
        assert_eq!(refused("${HOME:-x}"), "`${HOME:-x}` is not a plain variable: write ${NAME}");
    }
}
