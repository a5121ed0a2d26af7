//! Several files into one tree: mappings recurse, sequences append, scalars replace, and a few keys have
//! rules of their own. (Compose Specification, chapter 13.)

use std::collections::BTreeMap;

use crate::tree::{Content, Directive, Entry, Key, Node, Scalar};
use crate::yaml::Value;

/// Where in a Compose file a node stands, as far as a rule asks for it.
#[derive(Clone, Copy)]
enum Level {
    Top,
    Services,
    Service,
    Deploy,
    Elsewhere,
}

/// How the value of one key is merged.
enum Rule {
    /// The later value stands alone.
    Replace,
    /// A mapping, or a list of `KEY=VALUE`: by key.
    Pairs,
    /// By what the values are.
    Shape(Level),
}

fn rule(level: Level, key: &str) -> Rule {
    match (level, key) {
        (Level::Top, "services") => Rule::Shape(Level::Services),
        (Level::Services, _) => Rule::Shape(Level::Service),
        (Level::Service, "command" | "entrypoint") => Rule::Replace,
        (Level::Service | Level::Deploy, "labels") | (Level::Service, "environment") => Rule::Pairs,
        (Level::Service, "deploy") => Rule::Shape(Level::Deploy),
        (Level::Top | Level::Service | Level::Deploy | Level::Elsewhere, _) => Rule::Shape(Level::Elsewhere),
    }
}

/// Lays the later of two files over the earlier.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    match without_resets(base) {
        Some(base) => by_shape(base, over, Level::Top),
        None => over,
    }
}

/// Drops what is marked `!reset`. A file that stands alone has nothing for it to act on, but does not mean it
/// either.
pub(crate) fn without_resets(mut node: Node) -> Option<Node> {
    if node.directive == Some(Directive::Reset) {
        return None;
    }
    node.content = match node.content {
        scalar @ Content::Scalar(_) => scalar,
        Content::Sequence(items) => Content::Sequence(items.into_iter().filter_map(without_resets).collect()),
        Content::Mapping(entries) => {
            let kept = entries.into_iter();
            let kept =
                kept.filter_map(|Entry { key, value }| Some(Entry { key, value: without_resets(value)? }));
            Content::Mapping(kept.collect())
        }
    };
    Some(node)
}

fn by_shape(base: Node, over: Node, level: Level) -> Node {
    if over.directive.is_some() {
        return over;
    }
    match (base.content, over.content) {
        (Content::Mapping(below), Content::Mapping(above)) => {
            Node::new(over.span, Content::Mapping(entries(below, above, level)))
        }
        (Content::Sequence(mut items), Content::Sequence(more)) => {
            items.extend(more);
            Node::new(over.span, Content::Sequence(items))
        }
        // A key without a value adds nothing to a collection.
        (below @ (Content::Mapping(_) | Content::Sequence(_)), Content::Scalar(scalar)) => {
            let over = Node::new(over.span, Content::Scalar(scalar));
            if over.is_null() { Node::new(base.span, below) } else { over }
        }
        (Content::Scalar(_) | Content::Mapping(_) | Content::Sequence(_), above) => {
            Node::new(over.span, above)
        }
    }
}

fn entries(mut below: Vec<Entry>, above: Vec<Entry>, level: Level) -> Vec<Entry> {
    let mut places: BTreeMap<String, usize> =
        below.iter().enumerate().map(|(at, entry)| (entry.key.text.clone(), at)).collect();
    for Entry { key, value } in above {
        let Some(&at) = places.get(&key.text) else {
            places.insert(key.text.clone(), below.len());
            below.push(Entry { key, value });
            continue;
        };
        let empty = Node::new(key.span, Content::Scalar(null()));
        let base = std::mem::replace(&mut below[at].value, empty);
        let value = match rule(level, &key.text) {
            Rule::Replace => value,
            Rule::Pairs => pairs(base, value),
            Rule::Shape(level) => by_shape(base, value, level),
        };
        below[at] = Entry { key, value };
    }
    below
}

fn pairs(base: Node, over: Node) -> Node {
    if over.directive.is_some() {
        return over;
    }
    match (as_mapping(&base), as_mapping(&over)) {
        (Some(base), Some(over)) => by_shape(base, over, Level::Elsewhere),
        // What is malformed stays, so that typing finds it and says where.
        (None, _) => base,
        (Some(_), None) => over,
    }
}

/// `[KEY=VALUE, KEY]` as `{KEY: VALUE, KEY: null}`. `None` if it is neither list nor mapping of this kind.
fn as_mapping(node: &Node) -> Option<Node> {
    let Content::Sequence(items) = &node.content else {
        return (matches!(node.content, Content::Mapping(_)) || node.is_null()).then(|| node.clone());
    };
    let entries: Option<Vec<Entry>> = items.iter().map(pair).collect();
    Some(Node::new(node.span, Content::Mapping(entries?)))
}

fn pair(item: &Node) -> Option<Entry> {
    let text = item.as_text()?;
    let (key, content) = match text.split_once('=') {
        Some((key, value)) => (key, Scalar::string(value.to_owned())),
        None => (text, null()),
    };
    let value = Node { span: item.span, content: Content::Scalar(content), directive: item.directive };
    Some(Entry { key: Key { text: key.to_owned(), span: item.span }, value })
}

fn null() -> Scalar {
    Scalar { text: String::new(), value: Value::Null }
}
