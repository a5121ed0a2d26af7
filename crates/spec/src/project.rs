//! The top level of a Compose file.

use std::collections::{BTreeMap, BTreeSet};

use model::Name;

use crate::problem::{Report, Span};
use crate::service::{self, Context, Typed};
use crate::tree::{Content, Entry, Node};
use crate::{Project, extension, keys, typed};
use crate::{order, placement};

/// Types the merged tree. `None` is a project without content.
pub(crate) fn project(
    root: Option<Node>,
    variables: &BTreeMap<String, String>,
    report: &mut Report<'_>,
) -> Project {
    let mut project = Project { name: None, services: BTreeMap::new(), unscaled: BTreeSet::new() };
    let mut declared: Option<&Node> = None;
    let entries = match &root {
        Some(root) => typed::entries(root, "a Compose file", report),
        None => &[],
    };
    let ours = entries.iter().find(|entry| entry.key.text == "x-gantry");
    let hardened = ours.is_some_and(|entry| extension::project(&entry.value, report));
    for Entry { key, value } in entries {
        match key.text.as_str() {
            // The services had to know it before.
            "x-gantry" => {}
            "version" => report.warning(key.span, "`version` is obsolete and means nothing", "take it out"),
            "name" => project.name = name(value, report),
            "services" => {
                declared = Some(value);
                services(value, Context { variables, hardened }, &mut project, report);
            }
            _ => keys::refuse(key, keys::TOP, report),
        }
    }
    demand_services(root.as_ref(), declared, report);
    project
}

fn demand_services(root: Option<&Node>, declared: Option<&Node>, report: &mut Report<'_>) {
    let place = match (root, declared) {
        (None, _) => Span::beginning(0),
        (Some(root), None) if is_mapping_or_null(root) => Span::beginning(root.span.file),
        (Some(_), Some(services)) if is_empty(services) => services.span,
        // There are some, or what stands there is no mapping and has been reported as that.
        (Some(_), None | Some(_)) => return,
    };
    report.error_with(
        place,
        "there are no services here",
        "write `services:` and below it `web: {image: nginx}`",
    );
}

fn is_mapping_or_null(node: &Node) -> bool {
    node.is_null() || matches!(&node.content, Content::Mapping(_))
}

fn is_empty(node: &Node) -> bool {
    node.is_null() || matches!(&node.content, Content::Mapping(entries) if entries.is_empty())
}

fn name(node: &Node, report: &mut Report<'_>) -> Option<Name> {
    let text = typed::string(node, "`name`", report)?;
    named(text, node.span, report)
}

fn services(node: &Node, context: Context<'_>, project: &mut Project, report: &mut Report<'_>) {
    let mut services = BTreeMap::new();
    let entries = typed::entries(node, "`services`", report);
    for Entry { key, value } in entries {
        let name = named(&key.text, key.span, report);
        services.extend(name.zip(service::service(key, value, context, report)));
    }
    let written = entries.iter().map(|entry| entry.key.text.as_str());
    let written = written.collect();
    order::resolve(&mut services, &written, report);
    placement::resolve(&services, &written, report);
    for (name, Typed { spec, is_scaled, .. }) in services {
        if !is_scaled {
            project.unscaled.insert(name.clone());
        }
        project.services.insert(name, spec);
    }
}

fn named(text: &str, span: Span, report: &mut Report<'_>) -> Option<Name> {
    match text.parse::<Name>() {
        Ok(name) => Some(name),
        Err(error) => {
            let like_it = text.to_ascii_lowercase().replace(['_', '.', ' '], "-");
            match like_it.parse::<Name>() {
                Ok(name) => report.error_with(span, error.to_string(), format!("call it `{name}`")),
                Err(_) => report.error(span, error.to_string()),
            }
            None
        }
    }
}
