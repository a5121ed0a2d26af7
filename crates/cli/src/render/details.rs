//! What only a task's node knows, for `gantry inspect`.

use serde::Serialize;
use wire::proto::stream::{Details, HealthResult};

use crate::times;

#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    /// The last results of health checks and readiness probes, the newest last.
    health: Vec<Check<'a>>,
    /// Null until a check has been made, or where there is none.
    healthy: Option<bool>,
    failures_in_a_row: u32,
    /// When the next attempt is made; null unless one is waited for.
    next_attempt: Option<String>,
    /// The last that the container wrote.
    last_lines: &'a [String],
    /// Of the container's first process, on its node; null while none runs.
    pid: Option<u32>,
    paused: bool,
}

#[derive(Debug, Serialize)]
struct Check<'a> {
    at: Option<String>,
    took_ms: u64,
    healthy: bool,
    output: &'a str,
    /// Whether it was asked for readiness.
    readiness: bool,
}

pub(crate) fn document(details: &Details) -> Document<'_> {
    let Details { health, failures, next_attempt, last_lines, pid, paused, healthy } = details;
    Document {
        health: health.iter().map(check).collect(),
        healthy: *healthy,
        failures_in_a_row: *failures,
        next_attempt: next_attempt.and_then(times::rfc3339),
        last_lines,
        pid: *pid,
        paused: *paused,
    }
}

fn check(result: &HealthResult) -> Check<'_> {
    let HealthResult { at, took_ms, healthy, output, readiness } = result;
    Check { at: times::rfc3339(*at), took_ms: *took_ms, healthy: *healthy, output, readiness: *readiness }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_node_knows_has_times_for_people_and_nulls() {
        let details = Details {
            health: vec![HealthResult {
                at: 1_700_000_000_000,
                took_ms: 12,
                healthy: false,
                output: "refused".to_owned(),
                readiness: false,
            }],
            failures: 2,
            next_attempt: Some(1_700_000_005_000),
            last_lines: vec!["bye".to_owned()],
            pid: None,
            paused: false,
            healthy: Some(false),
        };
        let expected = json!({
            "health": [{
                "at": "2023-11-14T22:13:20.000Z",
                "took_ms": 12,
                "healthy": false,
                "output": "refused",
                "readiness": false,
            }],
            "healthy": false,
            "failures_in_a_row": 2,
            "next_attempt": "2023-11-14T22:13:25.000Z",
            "last_lines": ["bye"],
            "pid": null,
            "paused": false,
        });
        assert_eq!(serde_json::to_value(document(&details)).unwrap(), expected);
        let nothing = serde_json::to_value(document(&Details::default())).unwrap();
        assert_eq!((&nothing["next_attempt"], &nothing["healthy"]), (&json!(null), &json!(null)));
    }
}
