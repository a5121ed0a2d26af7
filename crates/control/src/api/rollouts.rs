//! How services move between versions: what there is to see of it, and what people decide.

use std::time::Duration;

use controllers::{Object, Plan, Waiting};
use model::{Name, RolloutPhase, ServiceId, SpecVersion, Timestamp, UpdateOrder};
use serde_json::Value;
use state::{Command, Service, State, Steer};
use tonic::Status;
use wire::proto::api::{
    self, ChangeReply, ChangedField, HistoryReply, Release, RestartRequest, RolloutReply, RolloutRequest,
    SteerRequest, UndoRequest,
};

use crate::api::{Api, change, inspect, refused, service_name, views};

pub(super) fn status(
    state: &State,
    request: &RolloutRequest,
    now: Timestamp,
) -> Result<RolloutReply, Status> {
    let services = named(state, &request.target)?;
    if let [(_, service)] = services.as_slice()
        && service.spec.job.is_some()
    {
        return Err(refused(&state::Rejected::IsJob(service.name.clone())));
    }
    let rollouts = services.into_iter().filter_map(|(id, service)| {
        let plan = controllers::plan(state, Object::Service(id), now);
        let waiting = views::sentences(&views::notes(state, id, &plan));
        rollout(service, &plan, state.slot_count(service), waiting)
    });
    Ok(RolloutReply { rollouts: rollouts.collect() })
}

/// A service, or those of a stack.
fn named<'s>(state: &'s State, target: &str) -> Result<Vec<(ServiceId, &'s Service)>, Status> {
    if target.contains('/') {
        let name = service_name(target)?;
        let found = state.service_named(&name);
        return Ok(vec![found.ok_or_else(|| refused(&state::Rejected::NoService(name)))?]);
    }
    let name: Name = super::name(target)?;
    let stack = state.stack(&name).ok_or_else(|| refused(&state::Rejected::NoStack(name)))?;
    Ok(stack.services.values().filter_map(|id| state.service(*id).map(|service| (*id, service))).collect())
}

/// How a service's latest rollout stands, by what the planners make of it now. `None` for what is run once.
pub(super) fn rollout(
    service: &Service,
    plan: &Plan,
    slots: u32,
    waiting: Vec<String>,
) -> Option<api::Rollout> {
    let rollout = service.rollout.as_ref()?;
    let policy = controllers::policy(service);
    let done = plan.done;
    let deadline = match rollout.phase {
        RolloutPhase::Running if done < slots && policy.progress_deadline != Duration::MAX => {
            rollout.progressed.plus(policy.progress_deadline).0
        }
        _ => 0,
    };
    let order = match controllers::order(service, policy, rollout.from, rollout.to) {
        UpdateOrder::StopFirst => "stop-first",
        UpdateOrder::StartFirst => "start-first",
    };
    Some(api::Rollout {
        service: service.name.to_string(),
        from: rollout.from.0,
        to: rollout.to.0,
        cause: rollout.cause.as_str().to_owned(),
        phase: rollout.phase.as_str().to_owned(),
        reason: rollout.reason.clone().unwrap_or_default(),
        began: rollout.began.0,
        progressed: rollout.progressed.0,
        deadline,
        slots,
        done,
        failed: rollout.failed,
        canaries: if rollout.cause.goes_back() { 0 } else { policy.canaries },
        promoted: rollout.promoted,
        order: order.to_owned(),
        waiting,
    })
}

/// Why a service will not come to what was asked of it by itself, as far as its rollout tells. `asked` is the generation that
/// the change was answered with.
pub(super) fn failure(service: &Service, asked: u64) -> Option<String> {
    let rollout = service.rollout.as_ref()?;
    let reason = rollout.reason.as_deref().unwrap_or("it was so decided");
    match (rollout.phase, rollout.cause) {
        (RolloutPhase::Failed, _) => Some(format!("the rollout to {} failed: {reason}", rollout.to)),
        (RolloutPhase::Paused, _) => Some(format!("the rollout to {} is paused {reason}", rollout.to)),
        // The service's generation moved on when it went back.
        (_, model::Cause::Rollback) if service.generation.0 > asked => {
            Some(format!("the rollout to {} failed and went back to {}: {reason}", rollout.from, rollout.to))
        }
        (_, model::Cause::Abort) if service.generation.0 > asked => {
            Some(format!("the rollout to {} was aborted and went back to {}", rollout.from, rollout.to))
        }
        (_, _) => None,
    }
}

pub(super) fn history(state: &State, request: &RolloutRequest) -> Result<HistoryReply, Status> {
    let name = service_name(&request.target)?;
    let (_, service) =
        state.service_named(&name).ok_or_else(|| refused(&state::Rejected::NoService(name.clone())))?;
    let mut releases = Vec::new();
    let mut before: Option<Value> = None;
    for (version, template) in &service.templates {
        let mut document = inspect::task_document(&template.task);
        document["digest"] = template.image.to_string().into();
        let changes = before.as_ref().map(|before| differences(before, &document)).unwrap_or_default();
        before = Some(document);
        releases.push(Release {
            service: service.name.to_string(),
            version: version.0,
            current: *version == service.version,
            image: template.task.image.to_string(),
            digest: template.image.to_string(),
            made: template.made.0,
            by: template.by.clone().unwrap_or_default(),
            served: template.stable.map_or(0, |at| at.0),
            changes,
        });
    }
    releases.reverse();
    Ok(HistoryReply { releases })
}

/// The paths at which two documents differ, in their order.
pub(super) fn differences(before: &Value, after: &Value) -> Vec<ChangedField> {
    let mut found = Vec::new();
    differ("", before, after, &mut found);
    found
}

fn differ(path: &str, before: &Value, after: &Value, found: &mut Vec<ChangedField>) {
    if before == after {
        return;
    }
    if let (Value::Object(old), Value::Object(new)) = (before, after) {
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            differ(&path, old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), found);
        }
        return;
    }
    let text = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
    found.push(ChangedField { path: path.to_owned(), before: text(before), after: text(after) });
}

pub(super) async fn undo(api: &Api, request: UndoRequest) -> Result<ChangeReply, Status> {
    let UndoRequest { request, service, to } = request;
    let command = Command::Undo { service: service_name(&service)?, to: to.map(SpecVersion) };
    decide(api, &request, &service, command).await
}

pub(super) async fn restart(api: &Api, request: RestartRequest) -> Result<ChangeReply, Status> {
    let RestartRequest { request, service } = request;
    let command = Command::Restart { service: service_name(&service)? };
    decide(api, &request, &service, command).await
}

pub(super) async fn steer(api: &Api, request: SteerRequest) -> Result<ChangeReply, Status> {
    let SteerRequest { request, service, how } = request;
    let how = match how.as_str() {
        "pause" => Steer::Pause,
        "resume" => Steer::Resume,
        "abort" => Steer::Abort,
        "promote" => Steer::Promote,
        other => {
            let text = format!("`{}` is nothing to do with a rollout", other.escape_debug());
            return Err(Status::invalid_argument(text));
        }
    };
    let command = Command::Steer { service: service_name(&service)?, how };
    decide(api, &request, &service, command).await
}

pub(super) async fn decide(
    api: &Api,
    request: &str,
    service: &str,
    command: Command,
) -> Result<ChangeReply, Status> {
    let name = service_name(service)?;
    let state = api.state().await?;
    let before = state.service_named(&name).map_or(0, |(_, service)| service.generation.0);
    Ok(change(&api.propose_one(request, command).await?, before, Vec::new()))
}

/// Whether nothing is left to be done for a service but to wait: it has what was asked, or never will by itself.
pub(super) fn is_settled(service: &Service, plan: &Plan) -> bool {
    let Some(rollout) = &service.rollout else { return true };
    match (rollout.phase, rollout.cause) {
        (RolloutPhase::Completed, _) => true,
        // What is new serves as soon as it is ready; that it lasts is watched, and not waited for.
        (_, model::Cause::Create) => true,
        (_, _) => {
            let notes = &plan.notes;
            // Canaries that wait for a person are all that was asked for now.
            !rollout.promoted
                && controllers::policy(service).promote_after.is_none()
                && !notes.is_empty()
                && notes.iter().all(|note| note.why == Waiting::Promotion)
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::fixture::World;

    fn check(fixture: &str, expected: &Expect) {
        let world = World::of(fixture);
        let request = RolloutRequest { target: "hello/web".to_owned() };
        let api::Rollout {
            service,
            from,
            to,
            cause,
            phase,
            reason,
            deadline,
            slots,
            done,
            failed,
            canaries,
            promoted,
            order,
            waiting,
            ..
        } = status(&world.state, &request, world.now).unwrap().rollouts.remove(0);
        let mut text = format!("{service} v{from} -> v{to} {cause} {phase} {order}: {done} of {slots}");
        text +=
            &format!(", {failed} failed, canaries {canaries} promoted {promoted} until {}\n", deadline > 0);
        text += &format!("{reason}\n");
        text.extend(waiting.iter().map(|why| format!("  {why}\n")));
        expected.assert_eq(&text);
    }

    const TWO: &str = "nodes n1 n2 n3
        service hello/web x3 deadline=60s
        deploy
        settle
        service hello/web x3 command=two deadline=60s
        deploy
        plan
        agents
        plan
        place\n";

    #[test]
    fn a_rollout_says_how_far_it_is_and_what_it_waits_for() {
        check(
            TWO,
            &expect![[r#"
                hello/web v1 -> v2 deploy running stop-first: 0 of 3, 0 failed, canaries 0 promoted true until true

                  slot 2 is to be replaced and waits for its turn (and 1 more)
            "#]],
        );
    }

    #[test]
    fn a_rollout_that_failed_says_why() {
        check(
            &format!("{TWO} report web.1 gaveup\n plan"),
            &expect![[r#"
                hello/web v1 -> v2 deploy failed stop-first: 0 of 3, 1 failed, canaries 0 promoted true until false
                slot 1: exit code 1
                  slot 1 failed as often as its restart policy allows
                  slot 2 has an old version, and the rollout has failed (and 1 more)
            "#]],
        );
    }

    #[test]
    fn a_history_says_what_each_version_changed() {
        let world = World::of(TWO);
        let request = RolloutRequest { target: "hello/web".to_owned() };
        let releases = history(&world.state, &request).unwrap().releases;
        let told: Vec<_> =
            releases.iter().map(|release| (release.version, release.current, release.served > 0)).collect();
        assert_eq!(told, [(2, true, false), (1, false, true)]);
        let [ChangedField { path, before, after }] = &releases[0].changes[..] else {
            panic!("one thing has changed: {:?}", releases[0].changes)
        };
        assert_eq!((path.as_str(), before.as_str(), after.as_str()), ("command", "", r#"["two"]"#));
    }

    #[test]
    fn a_service_that_is_not_there_is_said_to_be_so() {
        let world = World::of("nodes n1");
        for target in ["hello/web", "hello"] {
            let request = RolloutRequest { target: target.to_owned() };
            let error = status(&world.state, &request, world.now).unwrap_err();
            assert_eq!(error.code(), tonic::Code::NotFound, "{error}");
        }
    }
}
