//! `healthcheck`, and the timings that it has in common with `x-gantry.health`.

use std::time::Duration;

use model::{Health, HealthCheck, Probe};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Key, Node};
use crate::{duration, keys, typed};

/// Docker's least, below which a check would do nothing but check.
const MIN_TIME: Duration = Duration::from_millis(1);

pub(crate) fn healthcheck(node: &Node, report: &mut Report<'_>) -> Health {
    let mut check = HealthCheck::default();
    let mut test: Option<(Span, Test)> = None;
    let mut disable: Option<Span> = None;
    for Entry { key, value } in typed::entries(node, "`healthcheck`", report) {
        match key.text.as_str() {
            "test" => test = self::test(value, report).map(|test| (key.span, test)),
            "disable" => {
                let yes = typed::boolean(value, "`disable`", report).unwrap_or_default();
                disable = yes.then_some(key.span);
            }
            _ if timing(key, value, &mut check, report) => {}
            _ => keys::refuse(key, keys::HEALTHCHECK, report),
        }
    }
    if let Some(span) = disable {
        // A later file that turns off what an earlier one has is how this is meant to be used.
        if let Some((other, _)) = test.filter(|(other, _)| other.file == span.file) {
            let message = format!("`disable` {} holds, so `test` means nothing", span.seen_from(other));
            report.warning(other, message, "keep one of them");
        }
        return Health::Disabled;
    }
    match test {
        Some((_, Test::None)) => return Health::Disabled,
        Some((_, Test::Command(command))) => check.probe = Some(Probe::Exec(command)),
        None => {}
    }
    if check == HealthCheck::default() { Health::Image } else { Health::Check(check) }
}

enum Test {
    None,
    Command(Vec<String>),
}

/// A command. `None` is the image's.
fn test(node: &Node, report: &mut Report<'_>) -> Option<Test> {
    if node.is_null() {
        return None;
    }
    if let Content::Sequence(items) = &node.content {
        return listed(node, items, report);
    }
    let text = typed::string(node, "`test`", report).filter(|text| !text.is_empty())?;
    Some(Test::Command(shell(vec![text.to_owned()])))
}

/// As Docker starts it where the image names no shell of its own.
pub(crate) fn shell(rest: Vec<String>) -> Vec<String> {
    let mut command = vec!["/bin/sh".to_owned(), "-c".to_owned()];
    command.extend(rest);
    command
}

fn listed(node: &Node, items: &[Node], report: &mut Report<'_>) -> Option<Test> {
    let words = typed::strings(node, "`test`", report);
    if words.len() < items.len() {
        return None;
    }
    let (first, rest) = words.split_first()?;
    match (first.as_str(), rest) {
        ("NONE", _) => Some(Test::None),
        ("CMD", [_, ..]) => Some(Test::Command(rest.to_vec())),
        ("CMD-SHELL", [_]) => Some(Test::Command(shell(rest.to_vec()))),
        ("CMD-SHELL", [_, ..]) => {
            let message = "of several strings after CMD-SHELL the shell runs the first alone";
            report.warning(node.span, message, "write the command in one string, or begin the list with CMD");
            Some(Test::Command(shell(rest.to_vec())))
        }
        ("CMD" | "CMD-SHELL", []) => {
            report.error_with(node.span, "the `test` has no command", "write it behind the first item");
            None
        }
        (other, _) => {
            let message = format!("a `test` cannot begin with `{}`", shown(other));
            report.error_with(node.span, message, "begin the list with CMD, CMD-SHELL or NONE");
            None
        }
    }
}

/// Reads a timing into its place. Whether the key was one.
pub(crate) fn timing(key: &Key, node: &Node, check: &mut HealthCheck, report: &mut Report<'_>) -> bool {
    match key.text.as_str() {
        "interval" => check.interval = time(node, "`interval`", report),
        "timeout" => check.timeout = time(node, "`timeout`", report),
        "start_period" => check.start_period = time(node, "`start_period`", report),
        "start_interval" => check.start_interval = time(node, "`start_interval`", report),
        "retries" => {
            let retries = typed::integer(node, "`retries`", 0..=u32::MAX, report);
            check.retries = retries.filter(|&retries| retries > 0);
        }
        _ => return false,
    }
    true
}

/// 0 is as if it were not there, as in Docker.
pub(crate) fn time(node: &Node, subject: &str, report: &mut Report<'_>) -> Option<Duration> {
    let time = typed::quantity(node, subject, duration::parse_duration, report)?;
    if time.is_zero() {
        return None;
    }
    if time < MIN_TIME {
        report.error_with(node.span, format!("{subject} is below a millisecond"), "write `1ms` or more");
        return None;
    }
    Some(time)
}
