//! A YAML document as a tree of nodes that know their place.

mod read;

use crate::problem::{Span, shown};
use crate::yaml::{self, Value};

pub(crate) use read::read;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) content: Content,
    pub(crate) directive: Option<Directive>,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// Without duplicate keys, in the file's order.
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) value: Node,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// Compose's tags for merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    /// `!reset`: neither this value nor the one under it.
    Reset,
    /// `!override`: this value in place of the one under it, not merged with it.
    Override,
}

impl Scalar {
    pub(crate) fn string(text: String) -> Self {
        Self { text, value: Value::Text }
    }

    /// As a program gets to see it, printed as Go prints it. `None` for null.
    pub(crate) fn printed(&self) -> Option<String> {
        match self.value {
            Value::Null => None,
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(yaml::print_float(value)),
            Value::Text => Some(self.text.clone()),
        }
    }
}

impl Node {
    pub(crate) fn new(span: Span, content: Content) -> Self {
        Self { span, content, directive: None }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(Scalar { value: Value::Null, .. }))
    }

    /// The text if this is a string; not that of a number or boolean.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Scalar { text, value: Value::Text }) => Some(text),
            Content::Scalar(_) | Content::Sequence(_) | Content::Mapping(_) => None,
        }
    }

    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Content::Mapping(entries) = &self.content else { return None };
        entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value)
    }

    /// What it is, for a message that says what it should be.
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
            Content::Scalar(Scalar { text, value }) => match value {
                Value::Null => "empty".to_owned(),
                Value::Bool(_) => format!("the boolean `{}`", shown(text)),
                Value::Int(_) | Value::Float(_) => format!("the number `{}`", shown(text)),
                Value::Text => format!("the string `{}`", shown(text)),
            },
        }
    }
}
