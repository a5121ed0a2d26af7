//! Where tasks may be, and had better be: `deploy.placement`, `platform` and `x-gantry.placement`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use model::{
    Affinity, Attribute, Constraint, InvalidConstraint, InvalidPlatform, Name, Platform, Priority, Strategy,
    Wish,
};

use crate::problem::{Report, Span, shown};
use crate::service::Typed;
use crate::tree::{Content, Entry, Node};
use crate::{keys, order, typed};

/// What `deploy.placement` says.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    pub(crate) constraints: Vec<Constraint>,
    pub(crate) spread_over: Vec<Attribute>,
    pub(crate) max_per_node: typed::Placed<NonZeroU32>,
}

/// What `x-gantry.placement` says.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) affinities: Vec<(Span, Affinity)>,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) priority: Priority,
}

pub(crate) fn placement(node: &Node, report: &mut Report<'_>) -> Placement {
    let mut placement = Placement::default();
    for Entry { key, value } in typed::entries(node, "`placement`", report) {
        match key.text.as_str() {
            "constraints" => {
                let items = typed::items(value, "`constraints`", report);
                placement.constraints = items.iter().filter_map(|item| constraint(item, report)).collect();
            }
            "preferences" => {
                let items = typed::items(value, "`preferences`", report);
                placement.spread_over = items.iter().filter_map(|item| preference(item, report)).collect();
            }
            "max_replicas_per_node" => {
                let most = typed::integer(value, "`max_replicas_per_node`", 0..=u32::MAX, report);
                // As in Swarm, 0 is without bound.
                placement.max_per_node = most.and_then(NonZeroU32::new).map(|most| (key.span, most));
            }
            _ => keys::refuse(key, keys::PLACEMENT, report),
        }
    }
    placement
}

fn constraint(node: &Node, report: &mut Report<'_>) -> Option<Constraint> {
    let text = typed::string(node, "each item of `constraints`", report)?;
    text.parse().map_err(|error| refuse(error, node.span, report)).ok()
}

/// Swarm has one kind: `spread`.
fn preference(node: &Node, report: &mut Report<'_>) -> Option<Attribute> {
    let mut attribute = None;
    for Entry { key, value } in typed::entries(node, "each item of `preferences`", report) {
        match key.text.as_str() {
            "spread" => {
                let text = typed::string(value, "`spread`", report)?;
                attribute = text.parse().map_err(|error| refuse(error, value.span, report)).ok();
            }
            _ => keys::unknown(key, &["spread"], "there is `spread: node.labels.NAME`", report),
        }
    }
    attribute
}

fn refuse(error: InvalidConstraint, span: Span, report: &mut Report<'_>) {
    let hint = match &error {
        InvalidConstraint::Attribute(key) => meant(key).unwrap_or_else(|| error.hint()),
        InvalidConstraint::Malformed(_) | InvalidConstraint::Value { .. } => error.hint(),
    };
    // The operand may be long and strange.
    let error = match error {
        InvalidConstraint::Malformed(text) => InvalidConstraint::Malformed(shown(&text)),
        InvalidConstraint::Attribute(key) => InvalidConstraint::Attribute(shown(&key)),
        InvalidConstraint::Value { attribute, value } => {
            InvalidConstraint::Value { attribute, value: shown(&value) }
        }
    };
    report.error_with(span, error.to_string(), hint);
}

/// The attribute that was meant by one that there is not.
fn meant(key: &str) -> Option<String> {
    let label = |name: &str| format!("did you mean `node.labels.{}`?", shown(name));
    let lower = key.to_ascii_lowercase();
    for prefix in ["node.label.", "nodes.labels.", "labels.", "label.", "engine.label."] {
        if let Some(name) = lower.strip_prefix(prefix).filter(|name| !name.is_empty()) {
            let name = &key[key.len() - name.len()..];
            let is_engines = prefix.starts_with("engine");
            return Some(if is_engines {
                format!("did you mean `engine.labels.{}`?", shown(name))
            } else {
                label(name)
            });
        }
    }
    let names: Vec<&str> = Attribute::names().collect();
    if let Some(name) = keys::nearest(key, &names) {
        return Some(format!("did you mean `{name}`?"));
    }
    match lower.as_str() {
        "node.name" | "hostname" | "node" => Some("did you mean `node.hostname`?".to_owned()),
        "node.arch" | "arch" => Some("did you mean `node.platform.arch`?".to_owned()),
        "node.os" | "os" => Some("did you mean `node.platform.os`?".to_owned()),
        _ if !key.contains('.') && !key.is_empty() => Some(label(key)),
        _ => None,
    }
}

/// `platform` of a service.
pub(crate) fn platform(node: &Node, report: &mut Report<'_>) -> Option<Platform> {
    let text = typed::string(node, "`platform`", report)?;
    text.parse()
        .map_err(|InvalidPlatform(text)| {
            let message = InvalidPlatform(shown(&text)).to_string();
            report.error_with(node.span, message, "write for example linux/amd64 or linux/arm64");
        })
        .ok()
}

/// What an orchestrator needs beyond `deploy.placement`.
pub(crate) fn extra(node: &Node, report: &mut Report<'_>) -> Extra {
    let mut extra = Extra::default();
    for Entry { key, value } in typed::entries(node, "`placement`", report) {
        match key.text.as_str() {
            "affinity" => extra.affinities.extend(affinities(value, "`affinity`", Wish::Near, report)),
            "anti_affinity" => {
                extra.affinities.extend(affinities(value, "`anti_affinity`", Wish::Apart, report));
            }
            "strategy" => extra.strategy = strategy(value, report),
            "priority" => {
                let number = typed::integer(value, "`priority`", Priority::LEAST..=Priority::MOST, report);
                extra.priority = number.map(Priority).unwrap_or_default();
            }
            _ => keys::unknown(
                key,
                &["affinity", "anti_affinity", "strategy", "priority"],
                "there are affinity, anti_affinity, strategy and priority; constraints stand under `deploy.placement`",
                report,
            ),
        }
    }
    extra
}

fn strategy(node: &Node, report: &mut Report<'_>) -> Option<Strategy> {
    let text = typed::string(node, "`strategy`", report)?;
    let known = text.parse().ok();
    if known.is_none() {
        let message = format!("`strategy` cannot be `{}`", shown(text));
        report.error_with(node.span, message, "write spread or binpack");
    }
    known
}

/// A list of services, each by its name or as a mapping that says whether it has to be so.
fn affinities(node: &Node, subject: &str, wish: Wish, report: &mut Report<'_>) -> Vec<(Span, Affinity)> {
    let items = typed::items(node, subject, report);
    items.iter().filter_map(|item| affinity(item, subject, wish, report)).collect()
}

fn affinity(node: &Node, subject: &str, wish: Wish, report: &mut Report<'_>) -> Option<(Span, Affinity)> {
    let (mut name, mut required) = (None, true);
    if matches!(node.content, Content::Mapping(_)) {
        for Entry { key, value } in typed::entries(node, &format!("each item of {subject}"), report) {
            match key.text.as_str() {
                "service" => name = typed::string(value, "`service`", report).map(|text| (value.span, text)),
                "required" => required = typed::boolean(value, "`required`", report).unwrap_or(true),
                _ => keys::unknown(key, &["service", "required"], "there are service and required", report),
            }
        }
        if name.is_none() {
            report.error_with(
                node.span,
                format!("this item of {subject} names no service"),
                "write `service: NAME`",
            );
        }
    } else {
        name = typed::string(node, &format!("each item of {subject}"), report).map(|text| (node.span, text));
    }
    let (span, text) = name?;
    let (stack, service) = match text.split_once('/') {
        Some((stack, service)) => (Some(stack), service),
        None => (None, text),
    };
    let parsed = |text: &str, report: &mut Report<'_>| {
        text.parse::<Name>().map_err(|error| report.error(span, error.to_string())).ok()
    };
    let stack = match stack {
        Some(stack) => Some(parsed(stack, report)?),
        None => None,
    };
    Some((span, Affinity { stack, service: parsed(service, report)?, wish, required }))
}

/// Looks at what services say of each other, once all are known. `written` are the names of all, those too that could not be
/// made: they have been reported.
pub(crate) fn resolve(services: &BTreeMap<Name, Typed>, written: &BTreeSet<&str>, report: &mut Report<'_>) {
    for (name, service) in services {
        for (span, affinity) in service.affinities.iter().filter(|(_, affinity)| affinity.stack.is_none()) {
            let other = affinity.service.as_str();
            if affinity.service == *name {
                let hint = match affinity.wish {
                    Wish::Near => "take it out",
                    Wish::Apart => "write `deploy: {placement: {max_replicas_per_node: 1}}`",
                };
                report.error_with(*span, format!("`{name}` names itself here"), hint);
            } else if !written.contains(other) {
                let hint = "name one of this file, or one of another stack as `stack/service`";
                report.error_with(*span, format!("there is no service `{}`", shown(other)), hint);
            }
        }
    }
    let near = |name: &Name, service: &Typed| -> Vec<(Name, Span)> {
        let needs = |affinity: &Affinity| {
            let is_other = affinity.stack.is_none() && affinity.service != *name;
            affinity.required && affinity.wish == Wish::Near && is_other
        };
        let near = service.affinities.iter().filter(|(_, affinity)| needs(affinity));
        near.map(|(span, affinity)| (affinity.service.clone(), *span)).collect()
    };
    order::refuse_circles(services, near, "services need each other to be there first", report);
}
