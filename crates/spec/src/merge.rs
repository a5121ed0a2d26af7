//! Several files into one tree: mappings recurse, sequences append, scalars replace, and a few keys have
//! rules of their own. (Compose Specification, chapter 13, and compose-go's `override` package.)

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Content, Directive, Entry, Key, Node, Scalar};
use crate::yaml::Value;
use crate::{devices, mounts, probe, tmpfs};

/// Where in a Compose file a node stands, as far as a rule asks for it.
#[derive(Clone, Copy)]
enum Level {
    Top,
    Services,
    Service,
    Deploy,
    Healthcheck,
    Ulimits,
    /// A service's `x-gantry`.
    Gantry,
    Probe,
    Elsewhere,
}

/// How the value of one key is merged.
enum Rule {
    /// The later value stands alone.
    Replace,
    /// A mapping, or a list of `KEY=VALUE`: by key.
    Pairs,
    /// A list, or one string in its place: appended.
    List,
    /// As a list; but of two items that have the same name the later one stands in the place of the earlier.
    Named(fn(&Node) -> Option<String>),
    /// Addresses of hosts, each name with as many as there are.
    Hosts,
    /// A mapping, in which one driver's options are not another's.
    Logging,
    /// A mapping, in which one kind of probe stands for another.
    Probe,
    /// By what the values are.
    Shape(Level),
}

fn rule(level: Level, key: &str) -> Rule {
    match (level, key) {
        (Level::Top, "services") => Rule::Shape(Level::Services),
        (Level::Services, _) => Rule::Shape(Level::Service),
        (Level::Service | Level::Deploy, "labels")
        | (Level::Service, "annotations" | "depends_on" | "environment" | "sysctls") => Rule::Pairs,
        (Level::Service, "command" | "entrypoint")
        | (Level::Healthcheck, "test")
        | (Level::Ulimits, _)
        | (Level::Probe, "exec") => Rule::Replace,
        (Level::Service, "dns" | "dns_opt" | "dns_search") => Rule::List,
        (Level::Service, "volumes") => Rule::Named(mounts::written_target),
        (Level::Service, "tmpfs") => Rule::Named(tmpfs::written_target),
        (Level::Service, "devices") => Rule::Named(devices::written_target),
        (Level::Service, "extra_hosts") => Rule::Hosts,
        (Level::Service, "logging") => Rule::Logging,
        (Level::Service, "deploy") => Rule::Shape(Level::Deploy),
        (Level::Service, "healthcheck") => Rule::Shape(Level::Healthcheck),
        (Level::Service, "ulimits") => Rule::Shape(Level::Ulimits),
        (Level::Service, "x-gantry") => Rule::Shape(Level::Gantry),
        (Level::Gantry, "health" | "readiness") => Rule::Probe,
        (
            Level::Top
            | Level::Service
            | Level::Deploy
            | Level::Healthcheck
            | Level::Gantry
            | Level::Probe
            | Level::Elsewhere,
            _,
        ) => Rule::Shape(Level::Elsewhere),
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
            Rule::List => listed(base, value, |_| None),
            Rule::Named(name) => listed(base, value, name),
            Rule::Hosts => hosts(base, value),
            Rule::Logging => logging(base, value),
            Rule::Probe => probe(base, value),
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

/// Lists one after the other. An item whose name an earlier one has takes its place.
fn listed(base: Node, over: Node, name: fn(&Node) -> Option<String>) -> Node {
    if over.directive.is_some() {
        return over;
    }
    if over.is_null() {
        return base;
    }
    // What is malformed stays, so that typing finds it and says where.
    if !is_list(&base) {
        return base;
    }
    if !is_list(&over) {
        return over;
    }
    let span = over.span;
    let mut items = into_items(base);
    let named = items.iter().enumerate().filter_map(|(at, item)| Some((name(item)?, at)));
    let mut places: BTreeMap<String, usize> = named.collect();
    for item in into_items(over) {
        match name(&item) {
            Some(name) => match places.get(&name) {
                Some(&at) => items[at] = item,
                None => {
                    places.insert(name, items.len());
                    items.push(item);
                }
            },
            None => items.push(item),
        }
    }
    Node::new(span, Content::Sequence(items))
}

/// Whether it is a list, or a string in place of one.
fn is_list(node: &Node) -> bool {
    node.is_null() || node.as_text().is_some() || matches!(node.content, Content::Sequence(_))
}

fn into_items(node: Node) -> Vec<Node> {
    if node.is_null() {
        return Vec::new();
    }
    match node.content {
        Content::Sequence(items) => items,
        Content::Scalar(_) | Content::Mapping(_) => vec![node],
    }
}

/// compose-go appends here as well: that a host has one address does not say that it has no other. A name that
/// is marked with a directive loses those of the earlier file.
fn hosts(base: Node, over: Node) -> Node {
    if over.directive.is_some() {
        return over;
    }
    if over.is_null() {
        return base;
    }
    let (Some(mut items), Some(more)) = (host_items(&base), host_items(&over)) else {
        // As in `listed`.
        return if host_items(&base).is_none() { base } else { over };
    };
    let marked: BTreeSet<&str> = match &over.content {
        Content::Mapping(entries) => {
            let marked = entries.iter().filter(|entry| entry.value.directive.is_some());
            marked.map(|entry| entry.key.text.as_str()).collect()
        }
        Content::Scalar(_) | Content::Sequence(_) => BTreeSet::new(),
    };
    items.retain(|item| {
        let text = item.as_text().unwrap_or_default();
        let name = text.split_once('=').or_else(|| text.split_once(':')).map_or(text, |(name, _)| name);
        !marked.contains(name)
    });
    items.extend(more);
    Node::new(over.span, Content::Sequence(items))
}

/// `{NAME: ADDRESS, NAME: [ADDRESS, …]}` as `[NAME=ADDRESS, …]`. `None` if it is neither list nor mapping of
/// this kind.
fn host_items(node: &Node) -> Option<Vec<Node>> {
    let entries = match &node.content {
        Content::Sequence(items) => return Some(items.clone()),
        Content::Scalar(_) => return node.is_null().then(Vec::new),
        Content::Mapping(entries) => entries,
    };
    let mut items = Vec::new();
    for Entry { key, value } in entries {
        if value.directive == Some(Directive::Reset) {
            continue;
        }
        let addresses = match &value.content {
            Content::Sequence(addresses) => addresses.as_slice(),
            Content::Scalar(_) | Content::Mapping(_) => std::slice::from_ref(value),
        };
        for address in addresses {
            let text = format!("{}={}", key.text, address.as_text()?);
            items.push(Node::new(address.span, Content::Scalar(Scalar::string(text))));
        }
    }
    Some(items)
}

fn logging(base: Node, over: Node) -> Node {
    let driver = |node: &Node| node.get("driver").and_then(Node::as_text).map(str::to_owned);
    match (driver(&base), driver(&over)) {
        (Some(below), Some(above)) if below != above => over,
        (Some(_) | None, Some(_) | None) => by_shape(base, over, Level::Elsewhere),
    }
}

fn probe(mut base: Node, over: Node) -> Node {
    let is_kind = |key: &Key| probe::KINDS.contains(&key.text.as_str());
    if let (Content::Mapping(below), Content::Mapping(above)) = (&mut base.content, &over.content)
        && above.iter().any(|entry| is_kind(&entry.key))
    {
        below.retain(|entry| !is_kind(&entry.key) || over.get(&entry.key.text).is_some());
    }
    by_shape(base, over, Level::Probe)
}

fn null() -> Scalar {
    Scalar { text: String::new(), value: Value::Null }
}
