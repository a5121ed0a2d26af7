//! What is mounted into a container: `volumes`, and with `tmpfs` all of it together.
//!
//! A path is one of each node. What stands beside the Compose file on its author's machine stands on no node, so
//! that a relative path or `~` is an error, and not a directory that is made, empty, wherever the task runs.

use std::collections::BTreeMap;

use model::{Bind, Mount, MountKind, Propagation, Tmpfs};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node, Scalar};
use crate::yaml::Value;
use crate::{keys, paths, tmpfs, typed};

/// `volumes`, each in either form. Of two with the same target the later one holds, as in Compose.
pub(crate) fn volumes(node: &Node, report: &mut Report<'_>) -> Vec<(Span, Mount)> {
    let mut mounts = Vec::new();
    for item in typed::items(node, "`volumes`", report) {
        if let Some(mount) = volume(item, report) {
            mounts.push((item.span, mount));
        }
    }
    by_target(mounts, report)
}

pub(crate) fn by_target(mounts: Vec<(Span, Mount)>, report: &mut Report<'_>) -> Vec<(Span, Mount)> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<(Span, Mount)> = Vec::new();
    for (span, mount) in mounts {
        let Some(&at) = places.get(&mount.target) else {
            places.insert(mount.target.clone(), kept.len());
            kept.push((span, mount));
            continue;
        };
        let (target, above) = (shown(&mount.target), kept[at].0.seen_from(span));
        let message = format!("something is mounted at `{target}` {above}, and this replaces it");
        report.warning(span, message, "keep one of them");
        kept[at] = (span, mount);
    }
    kept
}

/// All mounts of a container. One below another comes after it, however they are written, as in Docker.
pub(crate) fn together(
    volumes: Vec<(Span, Mount)>,
    tmpfs: Vec<(Span, Mount)>,
    report: &mut Report<'_>,
) -> Vec<Mount> {
    let taken: BTreeMap<&str, Span> =
        volumes.iter().map(|(span, mount)| (mount.target.as_str(), *span)).collect();
    for (span, mount) in &tmpfs {
        if let Some(first) = taken.get(mount.target.as_str()) {
            let (target, place) = (shown(&mount.target), first.seen_from(*span));
            let message = format!("`volumes` already mounts something at `{target}` {place}");
            report.error_with(*span, message, "keep one of them");
        }
    }
    let mut mounts: Vec<Mount> = volumes.into_iter().chain(tmpfs).map(|(_, mount)| mount).collect();
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    mounts
}

/// Where the container sees a mount.
pub(crate) fn target(text: &str, span: Span, report: &mut Report<'_>) -> Option<String> {
    let target = paths::absolute(text, span, "the container's path", report)?;
    if target == "/" {
        report.error_with(
            span,
            "nothing can be mounted over the container's `/`",
            "name a directory of the container",
        );
        return None;
    }
    Some(target)
}

/// The target of a mount in either form as it is written, for merging.
pub(crate) fn written_target(node: &Node) -> Option<String> {
    if let Some(text) = node.as_text() {
        let (first, rest) = text.split_once(':').unwrap_or((text, text));
        let target = rest.split(':').next().unwrap_or(first);
        return Some(paths::cleaned(target));
    }
    node.get("target").and_then(Node::as_text).map(paths::cleaned)
}

fn volume(node: &Node, report: &mut Report<'_>) -> Option<Mount> {
    match &node.content {
        Content::Mapping(entries) => long(node, entries, report),
        Content::Scalar(Scalar { value: Value::Text, .. }) => {
            let text = typed::string(node, "each item of `volumes`", report)?;
            short(text, node.span, report)
        }
        Content::Scalar(_) | Content::Sequence(_) => {
            let message = format!("a volume must be a string or a mapping, and this is {}", node.describe());
            report.error_with(node.span, message, "write for example `/srv/data:/data:ro`");
            None
        }
    }
}

/// `SOURCE:TARGET[:OPTIONS]`. What the path is missing is made, as a directory.
fn short(text: &str, span: Span, report: &mut Report<'_>) -> Option<Mount> {
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        let message = format!("`{}` is not a volume: there is nothing between its colons", shown(text));
        report.error_with(span, message, "write for example `/srv/data:/data:ro`");
        return None;
    }
    let (source, written, options) = match parts.as_slice() {
        [_] => {
            not_a_path("an anonymous volume", span, report);
            return None;
        }
        [source, target] => (*source, *target, None),
        [source, target, options] => (*source, *target, Some(*options)),
        _ => {
            let message = format!("`{}` is not a volume: it has too many colons", shown(text));
            report.error_with(span, message, "a path with a colon needs the long form, `{type: bind, …}`");
            return None;
        }
    };
    let source = source_of_each_node(source, span, report);
    let target = target(written, span, report);
    let Options { read_only, propagation } = match options {
        Some(options) => self::options(options, span, report)?,
        None => Options::default(),
    };
    let bind = Bind { source: source?, create: true, propagation, recursive: true };
    Some(Mount { target: target?, read_only, kind: MountKind::Bind(bind) })
}

fn not_a_path(what: &str, span: Span, report: &mut Report<'_>) {
    let hint = "mount a path that every node has, such as `/srv/data:/data`, or a `tmpfs`";
    report.error_with(span, format!("gantry does not do volumes yet, and this is {what}"), hint);
}

/// The path of a bind. Compose tells it from the name of a volume by how it begins.
fn source_of_each_node(text: &str, span: Span, report: &mut Report<'_>) -> Option<String> {
    if text.starts_with(['.', '~']) {
        let message = format!("in a cluster a path is of each node, so `{}` has to be absolute", shown(text));
        report.error_with(span, message, "write it from `/` on, and put what it holds on every node");
        return None;
    }
    if !text.starts_with('/') {
        not_a_path(&format!("the volume `{}`", shown(text)), span, report);
        return None;
    }
    paths::absolute(text, span, "a node's path", report)
}

#[derive(Default)]
struct Options {
    read_only: bool,
    propagation: Propagation,
}

/// Of each kind a mount has one option at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Access,
    Label,
    Propagation,
    Consistency,
}

fn options(text: &str, span: Span, report: &mut Report<'_>) -> Option<Options> {
    let mut options = Options::default();
    let mut said: BTreeMap<Kind, &str> = BTreeMap::new();
    for word in text.split(',') {
        let kind = match word {
            "ro" | "rw" => {
                options.read_only = word == "ro";
                Kind::Access
            }
            "z" | "Z" => {
                no_labels(word, span, report);
                Kind::Label
            }
            "cached" | "delegated" | "consistent" => {
                no_consistency(word, span, report);
                Kind::Consistency
            }
            _ => {
                let Some(propagation) = propagation(word) else {
                    let message = format!("`{}` is not an option of a mounted path", shown(word));
                    let hint = "there are ro, rw, shared, rshared, slave, rslave, private and rprivate";
                    report.error_with(span, message, hint);
                    return None;
                };
                options.propagation = propagation;
                Kind::Propagation
            }
        };
        if let Some(before) = said.insert(kind, word) {
            report.error_with(span, format!("the mount is `{before}` and `{word}`"), "keep one of them");
            return None;
        }
    }
    Some(options)
}

/// The forms with and without `r` are one: what is mounted below the path goes the same way as the path.
fn propagation(word: &str) -> Option<Propagation> {
    match word {
        "private" | "rprivate" => Some(Propagation::Private),
        "slave" | "rslave" => Some(Propagation::Slave),
        "shared" | "rshared" => Some(Propagation::Shared),
        _ => None,
    }
}

fn no_labels(word: &str, span: Span, report: &mut Report<'_>) {
    let message = format!("`{word}` asks for SELinux labels, and gantry does not set any");
    report.warning(span, message, "take it out; where a node has SELinux, label the path there");
}

fn no_consistency(word: &str, span: Span, report: &mut Report<'_>) {
    let message = format!("`{}` means nothing on Linux, where a mount is always consistent", shown(word));
    report.warning(span, message, "take it out");
}

/// What the long form said. Outer `None` is that the key is not there, inner that its value is no good.
#[derive(Default)]
struct Long<'n> {
    kind: Option<(Span, Option<&'n str>)>,
    source: Option<(Span, Option<&'n str>)>,
    target: Option<(Span, Option<&'n str>)>,
    read_only: bool,
    bind: Option<(Span, BindOptions)>,
    tmpfs: Option<(Span, Tmpfs)>,
}

#[derive(Clone, Copy)]
struct BindOptions {
    create: bool,
    propagation: Propagation,
    recursive: bool,
}

/// compose-go's: what the path is missing is made also where the long form does not speak of it.
impl Default for BindOptions {
    fn default() -> Self {
        Self { create: true, propagation: Propagation::Private, recursive: true }
    }
}

fn long(node: &Node, entries: &[Entry], report: &mut Report<'_>) -> Option<Mount> {
    let mut long = Long::default();
    for Entry { key, value } in entries {
        match key.text.as_str() {
            "type" => long.kind = Some((value.span, typed::string(value, "`type`", report))),
            "source" => long.source = Some((value.span, typed::string(value, "`source`", report))),
            "target" => long.target = Some((value.span, typed::string(value, "`target`", report))),
            "read_only" => {
                long.read_only = typed::boolean(value, "`read_only`", report).unwrap_or_default();
            }
            "consistency" => {
                if let Some(word) = typed::string(value, "`consistency`", report) {
                    no_consistency(word, key.span, report);
                }
            }
            "bind" => long.bind = Some((key.span, bind_options(value, report))),
            "tmpfs" => long.tmpfs = Some((key.span, tmpfs::section(value, report))),
            _ => keys::refuse(key, keys::MOUNT, report),
        }
    }
    long.finish(node.span, report)
}

impl Long<'_> {
    fn finish(self, span: Span, report: &mut Report<'_>) -> Option<Mount> {
        let Self { kind, source, target, read_only, bind, tmpfs } = self;
        let Some((kind_span, kind)) = kind else {
            report.error_with(span, "this mount has no `type`", "write `type: bind` or `type: tmpfs`");
            return None;
        };
        let kind = match kind? {
            "bind" => {
                misplaced(tmpfs.map(|(span, _)| span), "tmpfs", "tmpfs", report);
                let Some((span, source)) = source else {
                    report.error_with(span, "this bind has no `source`", "name the node's path");
                    return None;
                };
                let BindOptions { create, propagation, recursive } =
                    bind.map(|(_, options)| options).unwrap_or_default();
                let source = source_of_each_node(source?, span, report)?;
                MountKind::Bind(Bind { source, create, propagation, recursive })
            }
            "tmpfs" => {
                misplaced(bind.map(|(span, _)| span), "bind", "bind", report);
                misplaced(source.map(|(span, _)| span), "source", "bind", report);
                MountKind::Tmpfs(tmpfs.map(|(_, tmpfs)| tmpfs).unwrap_or_default())
            }
            other @ ("volume" | "cluster" | "image" | "npipe") => {
                not_a_path(&format!("a mount of the type `{other}`"), kind_span, report);
                return None;
            }
            other => {
                let message = format!("`{}` is not a type of a mount", shown(other));
                report.error_with(kind_span, message, "write `type: bind` or `type: tmpfs`");
                return None;
            }
        };
        let Some((target_span, target)) = target else {
            report.error_with(span, "this mount has no `target`", "name the path in the container");
            return None;
        };
        Some(Mount { target: self::target(target?, target_span, report)?, read_only, kind })
    }
}

fn misplaced(span: Option<Span>, key: &str, kind: &str, report: &mut Report<'_>) {
    if let Some(span) = span {
        let message = format!("`{key}` belongs to a mount of the type `{kind}`");
        report.error_with(span, message, "take it out, or change the `type`");
    }
}

fn bind_options(node: &Node, report: &mut Report<'_>) -> BindOptions {
    let mut options = BindOptions::default();
    for Entry { key, value } in typed::entries(node, "`bind`", report) {
        match key.text.as_str() {
            "create_host_path" => {
                let create = typed::boolean(value, "`create_host_path`", report);
                options.create = create.unwrap_or(options.create);
            }
            "propagation" => {
                let Some(word) = typed::string(value, "`propagation`", report) else { continue };
                match propagation(word) {
                    Some(propagation) => options.propagation = propagation,
                    None if word.is_empty() => {}
                    None => report.error_with(
                        value.span,
                        format!("`propagation` cannot be `{}`", shown(word)),
                        "write rprivate, rslave or rshared",
                    ),
                }
            }
            "recursive" => options.recursive = recursive(value, report).unwrap_or(options.recursive),
            "selinux" => {
                if let Some(word) = typed::string(value, "`selinux`", report) {
                    no_labels(&shown(word), key.span, report);
                }
            }
            _ => keys::refuse(key, keys::MOUNT_BIND, report),
        }
    }
    options
}

fn recursive(node: &Node, report: &mut Report<'_>) -> Option<bool> {
    let (message, hint) = match typed::string(node, "`recursive`", report)? {
        "enabled" => return Some(true),
        "disabled" => return Some(false),
        word @ ("writable" | "readonly") => (
            format!("gantry does not do `recursive: {word}` yet"),
            "write enabled, or disabled to leave out what is mounted below the path",
        ),
        other => (format!("`recursive` cannot be `{}`", shown(other)), "write enabled or disabled"),
    };
    report.error_with(node.span, message, hint);
    None
}
