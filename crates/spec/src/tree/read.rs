//! YAML events to a tree, within limits that hold whatever the text is.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{Content, Directive, Entry, Key, Node, Scalar};
use crate::problem::{Report, Span, shown};
use crate::yaml::{self, Value};

/// Of one file, in bytes. Compose files that people write have some kilobytes.
const MAX_SIZE: usize = 1 << 20;
/// Of collections in collections, aliases expanded. Compose itself needs nine; every later step recurses this
/// deep.
const MAX_DEPTH: usize = 64;
/// What one file may come to once its aliases are expanded: an anchor bomb grows by a factor with each of its
/// lines.
const MAX_EXPANDED: Weight = Weight { nodes: 200_000, bytes: 8 << 20 };

/// The file cannot be read; the report says why.
#[derive(Debug)]
pub(crate) struct Unreadable;

/// Reads the one document of a file. `None` if there is nothing in it.
pub(crate) fn read(file: usize, text: &str, report: &mut Report<'_>) -> Result<Option<Node>, Unreadable> {
    if text.len() > MAX_SIZE {
        let message = format!("the file has {} bytes; a Compose file has {MAX_SIZE} at most", text.len());
        report.error_with(Span::beginning(file), message, "check that this is the file that you mean");
        return Err(Unreadable);
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(text, options);
    Reader { events, file, anchors: BTreeMap::new(), spent: Weight::default(), report }.document()
}

#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    nodes: usize,
    /// Of scalars' text.
    bytes: usize,
}

struct Reader<'text, 'report, 'sources> {
    events: Parser<'text, StrInput<'text>>,
    file: usize,
    anchors: BTreeMap<usize, Anchored>,
    spent: Weight,
    report: &'report mut Report<'sources>,
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    weight: Weight,
    /// In levels of collections, itself included.
    height: usize,
}

/// What a tag asks for.
enum Tagged {
    /// Nothing: there is none, or one that says what would be read anyway.
    Plain,
    /// To be read as if it were plain, whatever its quotes.
    Resolve,
    Text,
    Directive(Directive),
}

impl<'text> Reader<'text, '_, '_> {
    fn document(mut self) -> Result<Option<Node>, Unreadable> {
        self.next()?; // the stream's start
        let (event, _) = self.next()?;
        if !matches!(event, Event::DocumentStart(..)) {
            return Ok(None);
        }
        let root = self.next_node(0)?;
        self.next()?; // the document's end
        let (event, span) = self.next()?;
        if matches!(event, Event::DocumentStart(..)) {
            return Err(self.stop(
                span,
                "a second document begins here; gantry reads one document a file",
                "put it into a file of its own and name both with -f",
            ));
        }
        Ok(Some(root))
    }

    fn next(&mut self) -> Result<(Event<'text>, Span), Unreadable> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                let place = place(self.file, &span.start);
                let end = span.end.byte_offset().unwrap_or(place.start);
                Ok((event, Span { end: end.max(place.start), ..place }))
            }
            Some(Err(error)) => Err(self.refuse(&error)),
            None => {
                Err(self.stop(Span::beginning(self.file), "the file ends too early", "check its last lines"))
            }
        }
    }

    fn refuse(&mut self, error: &ScanError) -> Unreadable {
        let span = place(self.file, error.marker());
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return self.too_deep(span);
        }
        let hint = "check brackets, quotes and indentation here and on the line before";
        self.report.error_with(span, format!("this is not YAML: {}", error.info()), hint);
        Unreadable
    }

    fn stop(&mut self, span: Span, message: &str, hint: &str) -> Unreadable {
        self.report.error_with(span, message, hint);
        Unreadable
    }

    fn too_deep(&mut self, span: Span) -> Unreadable {
        let message = format!("the file is nested more than {MAX_DEPTH} levels deep here");
        self.stop(span, &message, "nothing in Compose is nested like this")
    }

    fn next_node(&mut self, depth: usize) -> Result<Node, Unreadable> {
        let (event, span) = self.next()?;
        self.node(event, span, depth)
    }

    /// The node that `event` begins, inside `depth` collections.
    fn node(&mut self, event: Event<'text>, span: Span, depth: usize) -> Result<Node, Unreadable> {
        let (content, anchor, directive) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(Weight { nodes: 1, bytes: text.len() }, span)?;
                let tagged = self.tagged(tag.as_deref(), span);
                let value = match tagged {
                    Tagged::Text => Value::Text,
                    Tagged::Resolve => yaml::resolve(&text),
                    Tagged::Plain | Tagged::Directive(_) if style == ScalarStyle::Plain => {
                        yaml::resolve(&text)
                    }
                    Tagged::Plain | Tagged::Directive(_) => Value::Text,
                };
                let scalar = Scalar { text: text.into_owned(), value };
                (Content::Scalar(scalar), anchor, tagged.directive())
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.enter(span, depth)?;
                let directive = self.tagged(tag.as_deref(), span).directive();
                (Content::Sequence(self.items(depth + 1)?), anchor, directive)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.enter(span, depth)?;
                let directive = self.tagged(tag.as_deref(), span).directive();
                (Content::Mapping(self.entries(depth + 1)?), anchor, directive)
            }
            _ => return Err(self.stop(span, "this is not YAML: a value is missing here", "write one")),
        };
        let node = Node { span, content, directive };
        if anchor != 0 {
            self.remember(anchor, &node)?;
        }
        Ok(node)
    }

    fn enter(&mut self, span: Span, depth: usize) -> Result<(), Unreadable> {
        if depth >= MAX_DEPTH {
            return Err(self.too_deep(span));
        }
        self.spend(Weight { nodes: 1, bytes: 0 }, span)
    }

    fn spend(&mut self, weight: Weight, span: Span) -> Result<(), Unreadable> {
        self.spent.nodes = self.spent.nodes.saturating_add(weight.nodes);
        self.spent.bytes = self.spent.bytes.saturating_add(weight.bytes);
        if self.spent.nodes <= MAX_EXPANDED.nodes && self.spent.bytes <= MAX_EXPANDED.bytes {
            return Ok(());
        }
        let message = format!(
            "with its aliases expanded the file is too large: {} values or {} bytes of text at most",
            MAX_EXPANDED.nodes, MAX_EXPANDED.bytes
        );
        Err(self.stop(span, &message, "use fewer aliases of anchors that contain aliases"))
    }

    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Unreadable> {
        let (weight, height) = measure(node);
        // The copy that is kept costs what an alias of it costs.
        self.spend(weight, node.span)?;
        self.anchors.insert(anchor, Anchored { node: node.clone(), weight, height });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Node, Unreadable> {
        let Some((weight, height)) = self.anchors.get(&anchor).map(|known| (known.weight, known.height))
        else {
            return Err(self.stop(span, "this alias stands inside what it stands for", "take it out"));
        };
        if depth + height > MAX_DEPTH {
            return Err(self.too_deep(span));
        }
        self.spend(weight, span)?;
        Ok(self.anchors.get(&anchor).expect("it was found above").node.clone())
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Unreadable> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, span, depth)?);
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Unreadable> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged: Option<Node> = None;
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, span, depth)?;
            let value = self.next_node(depth)?;
            // An alias as a key has the place of its anchor, which is not where the key is.
            let Some(key) = self.key(&key, span) else { continue };
            if let Some(line) = lines.get(&key.text) {
                let message = format!("the key `{}` is already on line {line}", shown(&key.text));
                let hint = if is_merge { "merge several with `<<: [*a, *b]`" } else { "keep one of them" };
                self.report.error_with(span, message, hint);
                continue;
            }
            lines.insert(key.text.clone(), span.line);
            if is_merge {
                merged = Some(value);
            } else {
                entries.push(Entry { key, value });
            }
        }
        if let Some(merged) = merged {
            self.merge_key(merged, lines.into_keys().collect(), &mut entries);
        }
        Ok(entries)
    }

    fn key(&mut self, node: &Node, span: Span) -> Option<Key> {
        if let Some(text) = node.as_text() {
            return Some(Key { text: text.to_owned(), span });
        }
        self.report.error_with(
            span,
            format!("a key must be a string, and this is {}", node.describe()),
            "put it in quotes",
        );
        None
    }

    /// `<<`: what a mapping does not say itself it has from another, or from the first of several that says
    /// it.
    fn merge_key(&mut self, merged: Node, mut own: BTreeSet<String>, entries: &mut Vec<Entry>) {
        let parts = match merged.content {
            Content::Sequence(items) => items,
            Content::Mapping(_) | Content::Scalar(_) => vec![merged],
        };
        for part in parts {
            let described = part.describe();
            let Content::Mapping(inherited) = part.content else {
                self.report.error_with(
                    part.span,
                    format!("`<<` takes a mapping or a list of mappings, and this is {described}"),
                    "write `<<: *anchor`",
                );
                continue;
            };
            for entry in inherited {
                if own.insert(entry.key.text.clone()) {
                    entries.push(entry);
                }
            }
        }
    }

    fn tagged(&mut self, tag: Option<&Tag>, span: Span) -> Tagged {
        let Some(tag) = tag else { return Tagged::Plain };
        match (tag.handle(), tag.suffix(), tag.core_suffix()) {
            ("!", "reset", _) => Tagged::Directive(Directive::Reset),
            ("!", "override", _) => Tagged::Directive(Directive::Override),
            // The tag `!` alone: not to be resolved.
            ("", "!", _) | (_, _, Some("str")) => Tagged::Text,
            (_, _, Some("bool" | "int" | "float" | "null")) => Tagged::Resolve,
            (_, _, Some("map" | "seq")) => Tagged::Plain,
            _ => {
                self.report.error_with(
                    span,
                    format!("gantry does not know the tag `{}`", shown(&tag.original())),
                    "Compose has `!reset` and `!override`",
                );
                Tagged::Plain
            }
        }
    }
}

impl Tagged {
    fn directive(&self) -> Option<Directive> {
        match self {
            Self::Directive(directive) => Some(*directive),
            Self::Plain | Self::Resolve | Self::Text => None,
        }
    }
}

fn place(file: usize, mark: &Marker) -> Span {
    let start = mark.byte_offset().unwrap_or(0);
    // A mark that was never set has line 0.
    Span { file, line: mark.line().max(1), column: mark.col() + 1, start, end: start }
}

/// What a node weighs, and its height in levels of collections, itself included.
fn measure(node: &Node) -> (Weight, usize) {
    let mut weight = Weight { nodes: 1, bytes: 0 };
    let mut tallest = 0;
    let children: Vec<&Node> = match &node.content {
        Content::Scalar(scalar) => return (Weight { nodes: 1, bytes: scalar.text.len() }, 0),
        Content::Sequence(items) => items.iter().collect(),
        Content::Mapping(entries) => {
            weight.nodes += entries.len();
            weight.bytes += entries.iter().map(|entry| entry.key.text.len()).sum::<usize>();
            entries.iter().map(|entry| &entry.value).collect()
        }
    };
    for child in children {
        let (inner, height) = measure(child);
        weight.nodes += inner.nodes;
        weight.bytes += inner.bytes;
        tallest = tallest.max(height);
    }
    (weight, tallest + 1)
}
