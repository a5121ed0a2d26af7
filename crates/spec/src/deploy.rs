//! A service's `deploy`, with Swarm's meaning.

use std::collections::BTreeMap;

use model::{
    Bytes, Constraint, InvalidConstraint, Limits, MAX_REPLICAS, MilliCpu, Reservations, Resources,
    RestartCondition, RestartPolicy,
};

use crate::problem::{Report, Span, shown};
use crate::tree::{Entry, Node};
use crate::{duration, keys, service, typed};

/// Docker's least limit of memory. A container with less is killed before its program begins.
const MIN_MEMORY: Bytes = Bytes(6 << 20);
/// A hundredth of a CPU, Docker's least limit: the kernel takes no quota below 1 ms of its 100 ms period.
const MIN_CPU: MilliCpu = MilliCpu(10);

#[derive(Debug)]
pub(crate) struct Deploy {
    pub(crate) replicas: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) resources: Resources,
    pub(crate) restart: Option<RestartPolicy>,
    pub(crate) constraints: Vec<Constraint>,
}

impl Default for Deploy {
    fn default() -> Self {
        Self {
            replicas: 1,
            labels: BTreeMap::new(),
            resources: Resources::default(),
            restart: None,
            constraints: Vec::new(),
        }
    }
}

pub(crate) fn deploy(node: &Node, report: &mut Report<'_>) -> Deploy {
    let mut deploy = Deploy::default();
    for Entry { key, value } in typed::entries(node, "`deploy`", report) {
        match key.text.as_str() {
            "mode" => mode(value, report),
            "replicas" => {
                let replicas = typed::integer(value, "`replicas`", 0..=MAX_REPLICAS, report);
                deploy.replicas = replicas.unwrap_or(deploy.replicas);
            }
            "labels" => deploy.labels = service::labels(value, "`deploy.labels`", report),
            "resources" => deploy.resources = resources(value, report),
            "restart_policy" => deploy.restart = Some(restart_policy(value, report)),
            "placement" => deploy.constraints = placement(value, report),
            _ => keys::refuse(key, keys::DEPLOY, report),
        }
    }
    deploy
}

fn mode(node: &Node, report: &mut Report<'_>) {
    match typed::string(node, "`deploy.mode`", report) {
        None | Some("replicated") => {}
        Some(other @ ("global" | "replicated-job" | "global-job")) => {
            let message = format!("gantry does not do `mode: {other}` yet");
            report.error_with(node.span, message, "`mode: replicated` is what there is");
        }
        Some(other) => {
            let message = format!("`{}` is not a mode of a service", shown(other));
            report.error_with(node.span, message, "write `mode: replicated`");
        }
    }
}

/// A quantity and where it stands, to compare it with another.
type Placed<T> = Option<(Span, T)>;

#[derive(Default)]
struct Amounts {
    cpu: Placed<MilliCpu>,
    memory: Placed<Bytes>,
    pids: Option<u32>,
}

fn resources(node: &Node, report: &mut Report<'_>) -> Resources {
    let (mut limits, mut reservations) = (Amounts::default(), Amounts::default());
    for Entry { key, value } in typed::entries(node, "`resources`", report) {
        match key.text.as_str() {
            "limits" => limits = self::limits(value, report),
            "reservations" => reservations = self::reservations(value, report),
            _ => keys::refuse(key, keys::RESOURCES, report),
        }
    }
    within("cpus", reservations.cpu, limits.cpu, report);
    within("memory", reservations.memory, limits.memory, report);
    let value = |cpu: Placed<MilliCpu>| cpu.map(|(_, cpu)| cpu);
    let size = |memory: Placed<Bytes>| memory.map(|(_, memory)| memory);
    Resources {
        reservations: Reservations {
            cpu: value(reservations.cpu).unwrap_or_default(),
            memory: size(reservations.memory).unwrap_or_default(),
        },
        limits: Limits { cpu: value(limits.cpu), memory: size(limits.memory), pids: limits.pids },
    }
}

/// The limits. As in Docker, a limit of 0 is none.
fn limits(node: &Node, report: &mut Report<'_>) -> Amounts {
    let mut amounts = Amounts::default();
    for Entry { key, value } in typed::entries(node, "`limits`", report) {
        match key.text.as_str() {
            "cpus" => amounts.cpu = at_least(MIN_CPU, cpus(value, report), "0.01", report),
            "memory" => amounts.memory = at_least(MIN_MEMORY, memory(value, report), "6m", report),
            "pids" => {
                let pids = typed::integer(value, "`pids`", 0..=u32::MAX, report);
                amounts.pids = pids.filter(|&pids| pids > 0);
            }
            _ => keys::refuse(key, keys::LIMITS, report),
        }
    }
    amounts
}

fn reservations(node: &Node, report: &mut Report<'_>) -> Amounts {
    let mut amounts = Amounts::default();
    for Entry { key, value } in typed::entries(node, "`reservations`", report) {
        match key.text.as_str() {
            "cpus" => amounts.cpu = cpus(value, report),
            "memory" => amounts.memory = memory(value, report),
            _ => keys::refuse(key, keys::RESERVATIONS, report),
        }
    }
    amounts
}

fn cpus(node: &Node, report: &mut Report<'_>) -> Placed<MilliCpu> {
    typed::quantity(node, "`cpus`", MilliCpu::parse, report).map(|cpu| (node.span, cpu))
}

fn memory(node: &Node, report: &mut Report<'_>) -> Placed<Bytes> {
    typed::quantity(node, "`memory`", Bytes::parse, report).map(|memory| (node.span, memory))
}

/// A limit that the kernel can hold, or none if it is 0.
fn at_least<T: Default + PartialOrd>(
    least: T,
    limit: Placed<T>,
    written: &str,
    report: &mut Report<'_>,
) -> Placed<T> {
    let (span, limit) = limit.filter(|(_, limit)| *limit != T::default())?;
    if limit < least {
        let hint = format!("write `{written}` or more, or take it out for no limit");
        report.error_with(span, format!("the limit is below {written}, which nothing can run in"), hint);
        return None;
    }
    Some((span, limit))
}

fn within<T: PartialOrd>(what: &str, reserved: Placed<T>, limit: Placed<T>, report: &mut Report<'_>) {
    if let (Some((span, reserved)), Some((at, limit))) = (reserved, limit)
        && reserved > limit
    {
        report.error_with(
            span,
            format!("this reserves more {what} than the limit {} allows", at.seen_from(span)),
            "reserve at most what the limit is",
        );
    }
}

/// How often a container is started again. As in Swarm, 0 is without end.
pub(crate) fn attempts(count: u32) -> Option<u32> {
    (count > 0).then_some(count)
}

fn restart_policy(node: &Node, report: &mut Report<'_>) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    for Entry { key, value } in typed::entries(node, "`restart_policy`", report) {
        match key.text.as_str() {
            "condition" => policy.condition = condition(value, report).unwrap_or(policy.condition),
            "delay" => policy.delay = typed::quantity(value, "`delay`", duration::parse_duration, report),
            "max_attempts" => {
                let count = typed::integer(value, "`max_attempts`", 0..=u32::MAX, report);
                policy.max_attempts = count.and_then(attempts);
            }
            "window" => {
                let window = typed::quantity(value, "`window`", duration::parse_duration, report);
                policy.window = window.unwrap_or(policy.window);
            }
            _ => keys::refuse(key, keys::RESTART_POLICY, report),
        }
    }
    policy
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

fn placement(node: &Node, report: &mut Report<'_>) -> Vec<Constraint> {
    let mut constraints = Vec::new();
    for Entry { key, value } in typed::entries(node, "`placement`", report) {
        match key.text.as_str() {
            "constraints" => {
                let items = typed::items(value, "`constraints`", report);
                constraints = items.iter().filter_map(|item| constraint(item, report)).collect();
            }
            _ => keys::refuse(key, keys::PLACEMENT, report),
        }
    }
    constraints
}

fn constraint(node: &Node, report: &mut Report<'_>) -> Option<Constraint> {
    let text = typed::string(node, "each item of `constraints`", report)?;
    text.parse()
        .map_err(|error: InvalidConstraint| {
            // The operand may be long and strange.
            let message = match &error {
                InvalidConstraint::Malformed(text) => InvalidConstraint::Malformed(shown(text)),
                InvalidConstraint::Subject(key) => InvalidConstraint::Subject(shown(key)),
            };
            report.error(node.span, message.to_string());
        })
        .ok()
}
