//! `x-gantry`: what an orchestrator needs to know and Compose has no key for.

use model::{Health, JobSpec, Readiness, Schedule};

use crate::problem::{Report, Span};
use crate::tree::{Entry, Node};
use crate::typed::{self, Placed};
use crate::{job, keys, placement, probe, rollout};

const SERVICE: &[&str] = &["health", "readiness", "hardened", "rollout", "job", "schedule", "placement"];
const PROJECT: &[&str] = &["hardened"];

/// What a service's `x-gantry` says.
#[derive(Debug, Default)]
pub(crate) struct Extension {
    pub(crate) health: Placed<Health>,
    pub(crate) readiness: Option<Readiness>,
    pub(crate) hardened: Option<bool>,
    pub(crate) rollout: rollout::Extra,
    /// Where it says so.
    pub(crate) rolled_out: Option<Span>,
    pub(crate) placement: placement::Extra,
    pub(crate) job: Placed<JobSpec>,
    /// `None` in it is one that cannot be, which has been reported.
    pub(crate) schedule: Placed<Option<Schedule>>,
}

pub(crate) fn service(node: &Node, report: &mut Report<'_>) -> Extension {
    let mut extension = Extension::default();
    for Entry { key, value } in typed::entries(node, "`x-gantry`", report) {
        match key.text.as_str() {
            "health" => extension.health = probe::health(value, report).map(|health| (key.span, health)),
            "readiness" => extension.readiness = probe::readiness(value, report),
            "hardened" => extension.hardened = typed::boolean(value, "`hardened`", report),
            "schedule" => extension.schedule = Some((key.span, job::schedule(value, report))),
            "job" => extension.job = Some((key.span, job::job(value, report))),
            "placement" => extension.placement = placement::extra(value, report),
            "rollout" => {
                extension.rollout = rollout::extra(value, report);
                extension.rolled_out = Some(key.span);
            }
            _ => keys::unknown(
                key,
                SERVICE,
                "there are health, readiness, hardened, rollout, job, schedule and placement",
                report,
            ),
        }
    }
    extension
}

/// Whether all services are hardened that do not say otherwise.
pub(crate) fn project(node: &Node, report: &mut Report<'_>) -> bool {
    let mut hardened = false;
    for Entry { key, value } in typed::entries(node, "`x-gantry`", report) {
        match key.text.as_str() {
            "hardened" => hardened = typed::boolean(value, "`hardened`", report).unwrap_or_default(),
            _ => keys::unknown(key, PROJECT, "at the top level there is `hardened`", report),
        }
    }
    hardened
}
