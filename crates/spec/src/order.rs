//! Which services wait for others: `depends_on`.

use std::collections::{BTreeMap, BTreeSet};

use model::{Condition, JobSpec, Name, RestartCondition, RestartPolicy};

use crate::problem::{Report, Span, shown};
use crate::service::Typed;
use crate::tree::{Content, Entry, Key, Node};
use crate::{keys, typed};

/// One service that another waits for.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    /// Where it is named.
    span: Span,
    name: String,
    condition: Condition,
    /// Whether it has to be there.
    required: bool,
}

/// A list of services that have to have started, or a mapping that says how each has to be.
pub(crate) fn depends_on(node: &Node, report: &mut Report<'_>) -> Vec<Dependency> {
    if let Content::Sequence(items) = &node.content {
        let named = |item: &Node, report: &mut Report<'_>| {
            let name = typed::string(item, "each item of `depends_on`", report)?.to_owned();
            Some(Dependency { span: item.span, name, condition: Condition::Started, required: true })
        };
        return items.iter().filter_map(|item| named(item, report)).collect();
    }
    let entries = typed::entries(node, "`depends_on`", report);
    entries.iter().map(|Entry { key, value }| dependency(key, value, report)).collect()
}

fn dependency(name: &Key, node: &Node, report: &mut Report<'_>) -> Dependency {
    let mut dependency = Dependency {
        span: name.span,
        name: name.text.clone(),
        condition: Condition::Started,
        required: true,
    };
    if node.is_null() {
        return dependency;
    }
    for Entry { key, value } in typed::entries(node, "each service in `depends_on`", report) {
        match key.text.as_str() {
            "condition" => {
                dependency.condition = condition(value, report).unwrap_or(dependency.condition);
            }
            "required" => {
                dependency.required = typed::boolean(value, "`required`", report).unwrap_or(true);
            }
            "restart" => {
                if typed::boolean(value, "`restart`", report).unwrap_or_default() {
                    report.error_with(
                        key.span,
                        "gantry does not restart services with those that they depend on yet",
                        "take it out to deploy without it",
                    );
                }
            }
            _ => keys::unknown(
                key,
                &["condition", "required", "restart"],
                "there are condition, required and restart",
                report,
            ),
        }
    }
    dependency
}

fn condition(node: &Node, report: &mut Report<'_>) -> Option<Condition> {
    match typed::string(node, "`condition`", report)? {
        "service_started" => Some(Condition::Started),
        "service_healthy" => Some(Condition::Healthy),
        "service_completed_successfully" => Some(Condition::Completed),
        other => {
            let message = format!("`condition` cannot be `{}`", shown(other));
            let hint = "write service_started, service_healthy or service_completed_successfully";
            report.error_with(node.span, message, hint);
            None
        }
    }
}

/// Gives each service those that it waits for, once all are known. `written` are the names of all, those too that could not be
/// made: they have been reported, and nobody is told that they are missing.
pub(crate) fn resolve(
    services: &mut BTreeMap<Name, Typed>,
    written: &BTreeSet<&str>,
    report: &mut Report<'_>,
) {
    let names: Vec<Name> = services.keys().cloned().collect();
    for name in &names {
        for dependency in
            std::mem::take(&mut services.get_mut(name).expect("it was just listed").dependencies)
        {
            if let Some(target) = target(services, &dependency, written, report)
                && let Some(service) = services.get_mut(name)
            {
                service.spec.depends_on.insert(target.clone(), dependency.condition);
                service.waits.insert(target, dependency.span);
            }
        }
    }
    let waits =
        |_: &Name, service: &Typed| service.waits.iter().map(|(name, span)| (name.clone(), *span)).collect();
    refuse_circles(services, waits, "services wait for each other", report);
}

/// The service that is waited for, made one that can be as it has to be.
fn target(
    services: &mut BTreeMap<Name, Typed>,
    dependency: &Dependency,
    written: &BTreeSet<&str>,
    report: &mut Report<'_>,
) -> Option<Name> {
    let found = dependency.name.parse::<Name>().ok().filter(|name| services.contains_key(name));
    let Some(name) = found else {
        if written.contains(dependency.name.as_str()) {
            return None;
        }
        let message = format!("there is no service `{}`", shown(&dependency.name));
        if dependency.required {
            report.error_with(dependency.span, message, "name one of this file, or write `required: false`");
        } else {
            report.warning(dependency.span, message, "it is not waited for");
        }
        return None;
    };
    let target = services.get_mut(&name)?;
    let runs_for_good =
        target.spec.job.is_none() && target.spec.task.restart.condition == RestartCondition::Always;
    if dependency.condition != Condition::Completed || !runs_for_good {
        return Some(name);
    }
    if target.is_bare {
        // Nothing says that it runs for good, and this says that it does not.
        target.spec.job = Some(JobSpec::default());
        let restart = &mut target.spec.task.restart;
        (restart.condition, restart.window) = (RestartCondition::OnFailure, RestartPolicy::NEVER_HELD);
        return Some(name);
    }
    report.error_with(
        dependency.span,
        format!("`{name}` is started again whenever it ends, so it never completes"),
        "write `deploy: {mode: replicated-job}` there, or another `restart`",
    );
    None
}

/// Refuses services that `next` leads from one to the other and back.
pub(crate) fn refuse_circles(
    services: &BTreeMap<Name, Typed>,
    next: impl Fn(&Name, &Typed) -> Vec<(Name, Span)>,
    what: &str,
    report: &mut Report<'_>,
) {
    let mut done: BTreeSet<Name> = BTreeSet::new();
    let next = |name: &Name| services.get(name).map(|service| next(name, service)).unwrap_or_default();
    for start in services.keys() {
        // The way here, and of each service on it those that have yet to be followed. No recursion: files are hostile.
        let mut way: Vec<(Name, Vec<(Name, Span)>)> = Vec::new();
        if !done.contains(start) {
            way.push((start.clone(), next(start)));
        }
        while let Some((name, left)) = way.last_mut() {
            let Some((target, span)) = left.pop() else {
                done.insert(name.clone());
                way.pop();
                continue;
            };
            if done.contains(&target) {
                continue;
            }
            if let Some(at) = way.iter().position(|(name, _)| *name == target) {
                let circle: Vec<&str> =
                    way[at..].iter().map(|(name, _)| name.as_str()).chain([target.as_str()]).collect();
                let message = format!("{what}: {}", shown(&circle.join(" -> ")));
                report.error_with(span, message, "take one of them out");
                continue;
            }
            let after = next(&target);
            way.push((target, after));
        }
    }
}
