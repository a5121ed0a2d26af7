//! `gantry rollout`.

use serde::Serialize;
use wire::proto::api;

use crate::render::table::table;
use crate::times;

/// The characters of a digest that tell it from others.
const SHORT: usize = 12;

#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    service: &'a str,
    from: u64,
    to: u64,
    /// `create | deploy | undo | restart | abort | rollback`
    cause: &'a str,
    /// `running | paused | failed | completed`
    phase: &'a str,
    reason: Option<&'a str>,
    began: Option<String>,
    progressed: Option<String>,
    /// When it counts as failed if no further slot is done by then.
    deadline: Option<String>,
    slots: u32,
    done: u32,
    failed: u32,
    canaries: u32,
    promoted: bool,
    /// `stop-first | start-first`
    order: &'a str,
    waiting: &'a [String],
}

pub(crate) fn rows(rollouts: &[api::Rollout]) -> Vec<Row<'_>> {
    rollouts.iter().map(row).collect()
}

fn row(rollout: &api::Rollout) -> Row<'_> {
    Row {
        service: &rollout.service,
        from: rollout.from,
        to: rollout.to,
        cause: &rollout.cause,
        phase: &rollout.phase,
        reason: (!rollout.reason.is_empty()).then_some(&rollout.reason),
        began: times::rfc3339(rollout.began),
        progressed: times::rfc3339(rollout.progressed),
        deadline: times::rfc3339(rollout.deadline),
        slots: rollout.slots,
        done: rollout.done,
        failed: rollout.failed,
        canaries: rollout.canaries,
        promoted: rollout.promoted,
        order: &rollout.order,
        waiting: &rollout.waiting,
    }
}

/// `now` is in milliseconds since the epoch.
pub(crate) fn status_table(rollouts: &[api::Rollout], wide: bool, now: u64) -> String {
    let mut header = vec!["SERVICE", "CHANGE", "CAUSE", "PHASE", "DONE", "FAILED", "BEGAN"];
    if wide {
        header.push("ORDER");
    }
    header.push("REASON");
    let rows: Vec<_> = rollouts.iter().map(|rollout| cells(rollout, wide, now)).collect();
    table(&header, &rows)
}

fn cells(rollout: &api::Rollout, wide: bool, now: u64) -> Vec<String> {
    let change = match (rollout.from, rollout.to) {
        (from, to) if from == to => format!("v{to}"),
        (from, to) => format!("v{from} -> v{to}"),
    };
    let mut cells = vec![
        rollout.service.clone(),
        change,
        rollout.cause.clone(),
        rollout.phase.clone(),
        format!("{}/{}", rollout.done, rollout.slots),
        rollout.failed.to_string(),
        times::ago(now, rollout.began),
    ];
    if wide {
        cells.push(rollout.order.clone());
    }
    let reason = if rollout.reason.is_empty() { rollout.waiting.join("; ") } else { rollout.reason.clone() };
    cells.push(reason);
    cells
}

#[derive(Debug, Serialize)]
pub(crate) struct Release<'a> {
    service: &'a str,
    version: u64,
    current: bool,
    image: &'a str,
    digest: &'a str,
    made: Option<String>,
    by: Option<&'a str>,
    /// When it last was what all slots had, for long enough.
    served: Option<String>,
    changes: Vec<Field<'a>>,
}

/// How a version differs from the kept one before it. What is not there is null.
#[derive(Debug, Serialize)]
pub(crate) struct Field<'a> {
    path: &'a str,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
}

pub(crate) fn history(releases: &[api::Release]) -> Vec<Release<'_>> {
    releases.iter().map(release).collect()
}

fn release(release: &api::Release) -> Release<'_> {
    let api::Release { service, version, current, image, digest, made, by, served, changes } = release;
    Release {
        service,
        version: *version,
        current: *current,
        image,
        digest,
        made: times::rfc3339(*made),
        by: (!by.is_empty()).then_some(by),
        served: times::rfc3339(*served),
        changes: changes.iter().map(field).collect(),
    }
}

pub(crate) fn field(field: &api::ChangedField) -> Field<'_> {
    let value = |text: &str| serde_json::from_str(text).ok();
    Field { path: &field.path, before: value(&field.before), after: value(&field.after) }
}

/// `now` is in milliseconds since the epoch.
pub(crate) fn history_table(releases: &[api::Release], wide: bool, now: u64) -> String {
    let mut header = vec!["VERSION", "CURRENT", "SERVED", "MADE", "BY", "IMAGE"];
    if wide {
        header.push("DIGEST");
    }
    header.push("CHANGES");
    let rows: Vec<_> = releases
        .iter()
        .map(|release| {
            let ago = |at: u64| if at == 0 { String::new() } else { times::ago(now, at) };
            let mut cells = vec![
                release.version.to_string(),
                if release.current { "*" } else { "" }.to_owned(),
                ago(release.served),
                ago(release.made),
                release.by.clone(),
                release.image.clone(),
            ];
            if wide {
                let digest = release.digest.strip_prefix("sha256:").unwrap_or(&release.digest);
                cells.push(digest.chars().take(SHORT).collect());
            }
            cells
                .push(release.changes.iter().map(|field| change(field, wide)).collect::<Vec<_>>().join(", "));
            cells
        })
        .collect();
    table(&header, &rows)
}

/// `command: ["one"] -> ["two"]`, or only what it is that changed.
fn change(field: &api::ChangedField, wide: bool) -> String {
    let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    if wide {
        format!("{}: {} -> {}", field.path, shown(&field.before), shown(&field.after))
    } else {
        field.path.clone()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::document;

    const NOW: u64 = 1_700_000_060_000;

    fn rollout() -> api::Rollout {
        api::Rollout {
            service: "hello/web".to_owned(),
            from: 1,
            to: 2,
            cause: "deploy".to_owned(),
            phase: "failed".to_owned(),
            reason: "slot 1: exit code 3: cannot connect to database".to_owned(),
            began: 1_700_000_000_000,
            progressed: 1_700_000_030_000,
            deadline: 0,
            slots: 3,
            done: 1,
            failed: 1,
            canaries: 0,
            promoted: true,
            order: "start-first".to_owned(),
            waiting: vec!["slot 2 has an old version, and the rollout has failed".to_owned()],
        }
    }

    #[test]
    fn a_rollout_says_how_far_it_came_and_why_not_further() {
        expect![[r#"
            SERVICE    CHANGE    CAUSE   PHASE   DONE  FAILED  BEGAN   REASON
            hello/web  v1 -> v2  deploy  failed  1/3   1       1m ago  slot 1: exit code 3: cannot connect to database
        "#]].assert_eq(&status_table(&[rollout()], false, NOW));
        expect![[r#"
            [
              {
                "service": "hello/web",
                "from": 1,
                "to": 2,
                "cause": "deploy",
                "phase": "failed",
                "reason": "slot 1: exit code 3: cannot connect to database",
                "began": "2023-11-14T22:13:20.000Z",
                "progressed": "2023-11-14T22:13:50.000Z",
                "deadline": null,
                "slots": 3,
                "done": 1,
                "failed": 1,
                "canaries": 0,
                "promoted": true,
                "order": "start-first",
                "waiting": [
                  "slot 2 has an old version, and the rollout has failed"
                ]
              }
            ]
        "#]]
        .assert_eq(&document::json(&rows(&[rollout()])));
    }

    #[test]
    fn a_history_has_the_changes_of_each_version() {
        let field = |path: &str, before: &str, after: &str| api::ChangedField {
            path: path.to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let release = |version, current, served, changes| api::Release {
            service: "hello/web".to_owned(),
            version,
            current,
            image: "nginx:latest".to_owned(),
            digest: format!("sha256:{}", "0".repeat(64)),
            made: 1_700_000_000_000,
            by: "root on n1".to_owned(),
            served,
            changes,
        };
        let releases = [
            release(
                2,
                true,
                0,
                vec![field("command", "", r#"["two"]"#), field("limits.cpu_millis", "500", "1000")],
            ),
            release(1, false, 1_700_000_010_000, Vec::new()),
        ];
        expect![[r#"
            VERSION  CURRENT  SERVED   MADE    BY          IMAGE         CHANGES
            2        *        -        1m ago  root on n1  nginx:latest  command, limits.cpu_millis
            1        -        50s ago  1m ago  root on n1  nginx:latest
        "#]]
        .assert_eq(&history_table(&releases, false, NOW));
        expect![[r#"
            VERSION  CURRENT  SERVED   MADE    BY          IMAGE         DIGEST        CHANGES
            2        *        -        1m ago  root on n1  nginx:latest  000000000000  command: - -> ["two"], limits.cpu_millis: 500 -> 1000
            1        -        50s ago  1m ago  root on n1  nginx:latest  000000000000
        "#]].assert_eq(&history_table(&releases, true, NOW));
        expect![[r#"
            [
              {
                "service": "hello/web",
                "version": 2,
                "current": true,
                "image": "nginx:latest",
                "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "made": "2023-11-14T22:13:20.000Z",
                "by": "root on n1",
                "served": null,
                "changes": [
                  {
                    "path": "command",
                    "before": null,
                    "after": [
                      "two"
                    ]
                  },
                  {
                    "path": "limits.cpu_millis",
                    "before": 500,
                    "after": 1000
                  }
                ]
              },
              {
                "service": "hello/web",
                "version": 1,
                "current": false,
                "image": "nginx:latest",
                "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "made": "2023-11-14T22:13:20.000Z",
                "by": "root on n1",
                "served": "2023-11-14T22:13:30.000Z",
                "changes": []
              }
            ]
        "#]]
        .assert_eq(&document::json(&history(&releases)));
    }
}
