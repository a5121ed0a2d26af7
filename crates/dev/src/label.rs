//! Labels of nodes, as they are typed.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::layout::{InvalidNode, NodeNumber};

/// What a daemon is configured with.
pub(crate) type Labels = BTreeMap<String, String>;

/// `NODE:KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeLabel {
    pub(crate) node: NodeNumber,
    pub(crate) label: Label,
}

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidLabel {
    #[error("a label of a node is written NODE:KEY=VALUE, for example n2:disk=ssd")]
    NoNode,
    #[error("a label is written KEY=VALUE, for example disk=ssd")]
    NoKey,
    #[error(transparent)]
    Node(#[from] InvalidNode),
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let (key, value) = text.split_once('=').ok_or(InvalidLabel::NoKey)?;
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(InvalidLabel::NoKey);
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl FromStr for NodeLabel {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let (node, label) = text.split_once(':').ok_or(InvalidLabel::NoNode)?;
        Ok(Self { node: node.parse()?, label: label.parse()? })
    }
}

impl Label {
    pub(crate) fn map(labels: &[Self]) -> Labels {
        labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect()
    }
}

/// Each node's labels; of two with the same key the later one.
pub(crate) fn by_node(labels: &[NodeLabel]) -> BTreeMap<NodeNumber, Labels> {
    let mut by_node: BTreeMap<NodeNumber, Labels> = BTreeMap::new();
    for NodeLabel { node, label } in labels {
        by_node.entry(*node).or_default().insert(label.key.clone(), label.value.clone());
    }
    by_node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_key_and_any_value() {
        for bad in ["disk=ssd", "n1:disk", "n1:=ssd", "n0:disk=ssd", "n1:a b=c", ""] {
            assert!(bad.parse::<NodeLabel>().is_err(), "{bad:?} was accepted");
        }
        let label: NodeLabel = "n1:a=b=c:d".parse().unwrap();
        assert_eq!((label.label.key.as_str(), label.label.value.as_str()), ("a", "b=c:d"));
    }

    #[test]
    fn the_later_of_two_labels_counts() {
        let labels = ["n1:a=1", "n2:a=2", "n1:a=3", "n1:b="].map(|text| text.parse().unwrap());
        let by_node = by_node(&labels);
        let of = |number| {
            let labels = &by_node[&NodeNumber::new(number).unwrap()];
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert_eq!((of(1), of(2)), (vec!["a=3".to_owned(), "b=".to_owned()], vec!["a=2".to_owned()]));
    }
}
