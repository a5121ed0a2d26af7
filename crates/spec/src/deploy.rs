//! A service's `deploy`, with Swarm's meaning.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{MAX_REPLICAS, RestartCondition, RestartPolicy, UpdatePolicy};

use crate::limits::{self, Amounts};
use crate::placement::{self, Placement};
use crate::problem::{Report, Span, shown};
use crate::rollout::{self, Way};
use crate::tree::{Entry, Node};
use crate::typed::{self, Placed};
use crate::{duration, keys, service};

#[derive(Debug, Default)]
pub(crate) struct Deploy {
    pub(crate) mode: Option<Mode>,
    pub(crate) replicas: Placed<u32>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) limits: Amounts,
    pub(crate) reservations: Amounts,
    pub(crate) restart: Option<Restarts>,
    pub(crate) placement: Placement,
    pub(crate) update: UpdatePolicy,
    pub(crate) rollback: UpdatePolicy,
    /// Where it says how its versions change.
    pub(crate) rolled_out: Vec<Span>,
}

/// What a file says of when containers are started again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Restarts {
    pub(crate) condition: Placed<RestartCondition>,
    pub(crate) delay: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) window: Option<Duration>,
}

impl Restarts {
    /// With Swarm's defaults for what it does not say.
    pub(crate) fn policy(self) -> RestartPolicy {
        let Self { condition, delay, max_attempts, window } = self;
        let default = RestartPolicy::default();
        RestartPolicy {
            condition: condition.map_or(default.condition, |(_, condition)| condition),
            delay,
            max_attempts,
            window: window.unwrap_or(default.window),
        }
    }
}

/// Swarm's modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) is_global: bool,
    pub(crate) is_job: bool,
}

pub(crate) fn deploy(node: &Node, report: &mut Report<'_>) -> Deploy {
    let mut deploy = Deploy::default();
    for Entry { key, value } in typed::entries(node, "`deploy`", report) {
        match key.text.as_str() {
            "mode" => deploy.mode = Some(mode(value, report)),
            "replicas" => {
                let replicas = typed::integer(value, "`replicas`", 0..=MAX_REPLICAS, report);
                deploy.replicas = replicas.map(|replicas| (value.span, replicas));
            }
            "labels" => deploy.labels = service::labels(value, "`deploy.labels`", report),
            "update_config" => {
                deploy.update = rollout::policy(value, Way::Forward, report);
                deploy.rolled_out.push(key.span);
            }
            "rollback_config" => {
                deploy.rollback = rollout::policy(value, Way::Back, report);
                deploy.rolled_out.push(key.span);
            }
            "resources" => resources(value, &mut deploy, report),
            "restart_policy" => deploy.restart = Some(restart_policy(value, report)),
            "placement" => deploy.placement = placement::placement(value, report),
            _ => keys::refuse(key, keys::DEPLOY, report),
        }
    }
    deploy
}

fn mode(node: &Node, report: &mut Report<'_>) -> Mode {
    let (is_global, is_job) = match typed::string(node, "`deploy.mode`", report) {
        None | Some("replicated") => (false, false),
        Some("global") => (true, false),
        Some("replicated-job") => (false, true),
        Some("global-job") => (true, true),
        Some(other) => {
            let message = format!("`{}` is not a mode of a service", shown(other));
            report.error_with(node.span, message, "write replicated, global, replicated-job or global-job");
            (false, false)
        }
    };
    Mode { is_global, is_job }
}

fn resources(node: &Node, deploy: &mut Deploy, report: &mut Report<'_>) {
    for Entry { key, value } in typed::entries(node, "`resources`", report) {
        match key.text.as_str() {
            "limits" => deploy.limits = limits::limits(value, report),
            "reservations" => deploy.reservations = limits::reservations(value, report),
            _ => keys::refuse(key, keys::RESOURCES, report),
        }
    }
}

/// How often a container is started again. As in Swarm, 0 is without end.
pub(crate) fn attempts(count: u32) -> Option<u32> {
    (count > 0).then_some(count)
}

fn restart_policy(node: &Node, report: &mut Report<'_>) -> Restarts {
    let mut said = Restarts::default();
    for Entry { key, value } in typed::entries(node, "`restart_policy`", report) {
        match key.text.as_str() {
            "condition" => {
                said.condition = condition(value, report).map(|condition| (value.span, condition));
            }
            "delay" => said.delay = typed::quantity(value, "`delay`", duration::parse_duration, report),
            "max_attempts" => {
                let count = typed::integer(value, "`max_attempts`", 0..=u32::MAX, report);
                said.max_attempts = count.and_then(attempts);
            }
            "window" => {
                said.window = typed::quantity(value, "`window`", duration::parse_duration, report);
            }
            _ => keys::refuse(key, keys::RESTART_POLICY, report),
        }
    }
    said
}

fn condition(node: &Node, report: &mut Report<'_>) -> Option<RestartCondition> {
    match typed::string(node, "`condition`", report)? {
        "none" => Some(RestartCondition::Never),
        "on-failure" => Some(RestartCondition::OnFailure),
        "any" => Some(RestartCondition::Always),
        other => {
            let message = format!("`condition` cannot be `{}`", shown(other));
            report.error_with(node.span, message, "write none, on-failure or any");
            None
        }
    }
}
