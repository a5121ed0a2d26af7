//! How a service's versions change: Compose's `update_config` and `rollback_config`, and `x-gantry`'s `rollout`.

use std::time::Duration;

use model::{FailureAction, UpdateOrder, UpdatePolicy};

use crate::problem::{Report, Span, shown};
use crate::tree::{Content, Entry, Node};
use crate::typed::{self, Placed};
use crate::{duration, keys};

/// Which of the two it is: going back cannot lead to going back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    Back,
}

/// What `x-gantry.rollout` adds to both.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    min_healthy: Option<Duration>,
    progress_deadline: Option<Duration>,
    canaries: Option<u32>,
    promote_after: Placed<Option<Duration>>,
}

pub(crate) fn policy(node: &Node, way: Way, report: &mut Report<'_>) -> UpdatePolicy {
    let subject = match way {
        Way::Forward => "`update_config`",
        Way::Back => "`rollback_config`",
    };
    let mut policy = UpdatePolicy::default();
    let length = |node: &Node, key: &str, report: &mut Report<'_>| {
        typed::quantity(node, &format!("`{key}`"), duration::parse_duration, report)
    };
    for Entry { key, value } in typed::entries(node, subject, report) {
        match key.text.as_str() {
            "parallelism" => {
                let count = typed::integer(value, "`parallelism`", 0..=u32::MAX, report);
                policy.parallelism = count.unwrap_or(policy.parallelism);
            }
            "delay" => policy.delay = length(value, "delay", report).unwrap_or_default(),
            "monitor" => policy.monitor = length(value, "monitor", report).unwrap_or(policy.monitor),
            "order" => policy.order = order(value, report).unwrap_or(policy.order),
            "failure_action" => {
                policy.failure_action = failure_action(value, way, report).unwrap_or(policy.failure_action);
            }
            "max_failure_ratio" => {
                policy.max_failure_ratio = ratio(value, report).unwrap_or(policy.max_failure_ratio);
            }
            _ => keys::refuse(key, keys::UPDATE_CONFIG, report),
        }
    }
    policy
}

fn order(node: &Node, report: &mut Report<'_>) -> Option<UpdateOrder> {
    match typed::string(node, "`order`", report)? {
        "stop-first" => Some(UpdateOrder::StopFirst),
        "start-first" => Some(UpdateOrder::StartFirst),
        other => {
            let message = format!("`order` cannot be `{}`", shown(other));
            report.error_with(node.span, message, "write stop-first or start-first");
            None
        }
    }
}

fn failure_action(node: &Node, way: Way, report: &mut Report<'_>) -> Option<FailureAction> {
    match (typed::string(node, "`failure_action`", report)?, way) {
        ("pause", _) => Some(FailureAction::Pause),
        ("continue", _) => Some(FailureAction::Continue),
        ("rollback", Way::Forward) => Some(FailureAction::Rollback),
        (other, way) => {
            let message = format!("`failure_action` cannot be `{}` here", shown(other));
            let hint = match way {
                Way::Forward => "write pause, continue or rollback",
                Way::Back => "write pause or continue",
            };
            report.error_with(node.span, message, hint);
            None
        }
    }
}

/// A number between 0 and 1, in thousandths.
fn ratio(node: &Node, report: &mut Report<'_>) -> Option<u16> {
    let text = match &node.content {
        Content::Scalar(scalar) => scalar.text.as_str(),
        Content::Mapping(_) | Content::Sequence(_) => {
            typed::string(node, "`max_failure_ratio`", report)?;
            return None;
        }
    };
    let thousandths =
        text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).and_then(|ratio| {
            // Text of three digits at most: no rounding of a float decides.
            format!("{:.0}", ratio * 1000.0).parse().ok()
        });
    if thousandths.is_none() {
        let message = format!("`max_failure_ratio` cannot be `{}`", shown(text));
        report.error_with(node.span, message, "write a number between 0 and 1: 0.3 is three slots of ten");
    }
    thousandths
}

pub(crate) fn extra(node: &Node, report: &mut Report<'_>) -> Extra {
    let mut extra = Extra::default();
    for Entry { key, value } in typed::entries(node, "`rollout`", report) {
        match key.text.as_str() {
            "min_healthy" => {
                extra.min_healthy = typed::quantity(value, "`min_healthy`", duration::parse_duration, report);
            }
            "progress_deadline" => {
                extra.progress_deadline =
                    typed::quantity(value, "`progress_deadline`", duration::parse_duration, report)
                        .filter(|deadline| is_some_time(*deadline, value.span, report));
            }
            "canaries" => extra.canaries = typed::integer(value, "`canaries`", 0..=u32::MAX, report),
            "promote" => extra.promote_after = promote(value, report).map(|after| (key.span, after)),
            _ => keys::unknown(
                key,
                &["min_healthy", "progress_deadline", "canaries", "promote"],
                "there are min_healthy, progress_deadline, canaries and promote",
                report,
            ),
        }
    }
    if let (Some((span, _)), None | Some(0)) = (extra.promote_after, extra.canaries) {
        report.error_with(span, "there is nothing to promote without `canaries`", "add `canaries: 1`");
    }
    extra
}

fn is_some_time(deadline: Duration, span: Span, report: &mut Report<'_>) -> bool {
    if deadline.is_zero() {
        report.error_with(span, "no rollout is done within no time", "write for example `10m`");
    }
    !deadline.is_zero()
}

/// `manual`, or the time after which it is done.
fn promote(node: &Node, report: &mut Report<'_>) -> Option<Option<Duration>> {
    if typed::string(node, "`promote`", report)? == "manual" {
        return Some(None);
    }
    typed::quantity(node, "`promote`", duration::parse_duration, report).map(Some)
}

impl Extra {
    pub(crate) fn add_to(self, policy: &mut UpdatePolicy, way: Way) {
        policy.min_healthy = self.min_healthy;
        policy.progress_deadline = self.progress_deadline.unwrap_or(policy.progress_deadline);
        if way == Way::Forward {
            policy.canaries = self.canaries.unwrap_or_default();
            policy.promote_after = self.promote_after.and_then(|(_, after)| after);
        }
    }
}
