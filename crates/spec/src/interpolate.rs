//! Compose's variables: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+instead}`, the
//! same without the colon, and `$$` for a dollar sign. What follows the operator may hold variables again.
//!
//! They are filled in after YAML is read and before files are merged, in values and never in keys, so a value
//! cannot add structure. A dollar sign that begins none of these stands for itself. (Compose Specification,
//! chapter 12.)

use std::collections::{BTreeMap, BTreeSet};

use crate::problem::{Report, excerpt, shown};
use crate::tree::{Content, Directive, Node, Scalar};

/// Of variables in the operands of variables. People write two.
const MAX_NESTING: usize = 16;
/// What variables may add to all files together, in bytes: a large value can be named as often as a file has
/// room for.
const MAX_ADDED: usize = 8 << 20;

/// Fills in the variables of one project's files.
#[derive(Debug)]
pub(crate) struct Interpolation<'a> {
    variables: &'a BTreeMap<String, String>,
    /// The author hears once of each variable that is not set.
    told: BTreeSet<String>,
    left: usize,
}

impl<'a> Interpolation<'a> {
    pub(crate) fn new(variables: &'a BTreeMap<String, String>) -> Self {
        Self { variables, told: BTreeSet::new(), left: MAX_ADDED }
    }

    pub(crate) fn fill(&mut self, node: &mut Node, report: &mut Report<'_>) {
        if node.directive == Some(Directive::Reset) {
            return;
        }
        match &mut node.content {
            Content::Sequence(items) => items.iter_mut().for_each(|item| self.fill(item, report)),
            Content::Mapping(entries) => {
                entries.iter_mut().for_each(|entry| self.fill(&mut entry.value, report));
            }
            Content::Scalar(scalar) => {
                if !scalar.text.contains('$') {
                    return;
                }
                match expand(&scalar.text, self.variables, &mut self.left) {
                    Ok(Expansion { text, unset }) => {
                        *scalar = Scalar::string(text);
                        for name in unset.difference(&self.told) {
                            report.warning(
                                node.span,
                                format!("the variable `{}` is not set, so it is empty here", shown(name)),
                                "set it, or write `${NAME:-default}`",
                            );
                        }
                        self.told.extend(unset);
                    }
                    Err(invalid) => report.error_with(node.span, invalid.to_string(), invalid.hint()),
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Expansion {
    text: String,
    /// Variables that were needed, are not set and have no default.
    unset: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Invalid {
    #[error("`{0}` is not a variable")]
    Malformed(String),
    #[error("the brace of `{0}` is never closed")]
    Unclosed(String),
    #[error("variables are nested more than {} deep", MAX_NESTING)]
    TooDeep,
    #[error("variables make the files too large: they may add {} bytes", MAX_ADDED)]
    TooLarge,
    #[error("the variable `{name}` is required and not set: {message}")]
    Required { name: String, message: String },
    #[error("the variable `{0}` is required and not set")]
    RequiredUnexplained(String),
}

impl Invalid {
    fn hint(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Unclosed(_) => {
                "write `${NAME}` or `${NAME:-default}`; for a dollar sign write `$$`"
            }
            Self::TooDeep => "set one of the variables and use that",
            Self::TooLarge => "use shorter values",
            Self::Required { .. } | Self::RequiredUnexplained(_) => {
                "set it in the environment of this command"
            }
        }
    }
}

/// Fills in one text. `left` is how many bytes variables may still add; what they add is taken from it.
fn expand(text: &str, variables: &BTreeMap<String, String>, left: &mut usize) -> Result<Expansion, Invalid> {
    let mut template = Template { rest: text, variables, unset: BTreeSet::new(), left };
    let text = template.run(0, true)?;
    Ok(Expansion { text, unset: template.unset })
}

struct Template<'a> {
    rest: &'a str,
    variables: &'a BTreeMap<String, String>,
    unset: BTreeSet<String>,
    left: &'a mut usize,
}

#[derive(Clone, Copy)]
enum Operator {
    Default,
    Require,
    Replace,
}

/// Longest first: `:-` also ends in `-`.
const OPERATORS: [(&str, Operator, bool); 6] = [
    (":-", Operator::Default, true),
    (":?", Operator::Require, true),
    (":+", Operator::Replace, true),
    ("-", Operator::Default, false),
    ("?", Operator::Require, false),
    ("+", Operator::Replace, false),
];

impl<'a> Template<'a> {
    /// Up to the end, or inside a variable up to the brace that closes it. What is not `live` is read for its
    /// extent only: a default that is not needed may name variables that are not set.
    fn run(&mut self, nesting: usize, live: bool) -> Result<String, Invalid> {
        let begin = self.rest;
        let mut out = String::new();
        loop {
            let next = self.rest.find(|c: char| c == '$' || nesting > 0 && c == '}');
            let (before, after) = self.rest.split_at(next.unwrap_or(self.rest.len()));
            out.push_str(before);
            self.rest = after;
            if let Some(rest) = after.strip_prefix('$') {
                self.rest = rest;
                self.dollar(&mut out, nesting, live)?;
            } else if let Some(rest) = after.strip_prefix('}') {
                self.rest = rest;
                return Ok(out);
            } else if nesting > 0 {
                return Err(Invalid::Unclosed(shown(begin)));
            } else {
                return Ok(out);
            }
        }
    }

    /// What stands after a dollar sign.
    fn dollar(&mut self, out: &mut String, nesting: usize, live: bool) -> Result<(), Invalid> {
        if let Some(rest) = self.rest.strip_prefix('$') {
            self.rest = rest;
            out.push('$');
        } else if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            self.braced(out, nesting, live)?;
        } else {
            match self.name() {
                "" => out.push('$'),
                name => self.substitute(out, name, live)?,
            }
        }
        Ok(())
    }

    /// What stands after `${`.
    fn braced(&mut self, out: &mut String, nesting: usize, live: bool) -> Result<(), Invalid> {
        let begin = self.rest;
        let name = self.name();
        if name.is_empty() {
            return Err(Invalid::Malformed(format!("${{{}", shown(begin))));
        }
        if let Some(rest) = self.rest.strip_prefix('}') {
            self.rest = rest;
            return self.substitute(out, name, live);
        }
        let operator = OPERATORS.iter().find(|(sign, _, _)| self.rest.starts_with(*sign));
        let Some(&(sign, operator, empty_is_unset)) = operator else {
            return Err(match self.rest {
                "" => Invalid::Unclosed(format!("${{{name}")),
                _ => Invalid::Malformed(format!("${{{}", shown(begin))),
            });
        };
        if nesting >= MAX_NESTING {
            return Err(Invalid::TooDeep);
        }
        self.rest = &self.rest[sign.len()..];
        let is_set = self.variables.get(name).is_some_and(|value| !(empty_is_unset && value.is_empty()));
        let needed = match operator {
            Operator::Default | Operator::Require => !is_set,
            Operator::Replace => is_set,
        };
        let operand = self.run(nesting + 1, live && needed)?;
        match operator {
            Operator::Require if live && needed => Err(required(name, &operand)),
            Operator::Default | Operator::Require if is_set => self.substitute(out, name, live),
            Operator::Default | Operator::Replace if needed => {
                out.push_str(&operand);
                Ok(())
            }
            Operator::Default | Operator::Require | Operator::Replace => Ok(()),
        }
    }

    fn substitute(&mut self, out: &mut String, name: &str, live: bool) -> Result<(), Invalid> {
        if !live {
            return Ok(());
        }
        let Some(value) = self.variables.get(name) else {
            self.unset.insert(name.to_owned());
            return Ok(());
        };
        *self.left = self.left.checked_sub(value.len()).ok_or(Invalid::TooLarge)?;
        out.push_str(value);
        Ok(())
    }

    /// Takes a name off the rest; empty if none begins here.
    fn name(&mut self) -> &'a str {
        let end = match self.rest.bytes().next() {
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => {
                self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len())
            }
            Some(_) | None => 0,
        };
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name
    }
}

fn required(name: &str, message: &str) -> Invalid {
    let name = shown(name);
    match message {
        "" => Invalid::RequiredUnexplained(name),
        message => Invalid::Required { name, message: excerpt(message, 200) },
    }
}

#[cfg(test)]
mod tests;
