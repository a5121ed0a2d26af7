//! How far services are from what was asked: a view of the state, sent again whenever it changes.

use std::collections::BTreeSet;

use controllers::{Object, Plan, Waiting};
use model::{Ended, Liveness, ServiceId, ServiceName, Task, TaskId, Timestamp};
use state::{Service, State, Wanted};
use tonic::Status;
use wire::proto::api::{ConvergeRequest, Progress, ServiceProgress};

use crate::api::follow::{Look, follow};
use crate::api::{Answers, Api, jobs, name, rollouts, service_name, views};

/// What is being waited for.
struct Goal {
    stacks: BTreeSet<model::Name>,
    services: BTreeSet<ServiceName>,
    gone: bool,
    /// Of the change that is waited for.
    generation: u64,
}

pub(super) fn answer(api: &Api, request: ConvergeRequest) -> Result<Answers<Progress>, Status> {
    let ConvergeRequest { targets, gone, generation } = request;
    let mut goal = Goal { stacks: BTreeSet::new(), services: BTreeSet::new(), gone, generation };
    for target in &targets {
        if target.contains('/') {
            goal.services.insert(service_name(target)?);
        } else {
            goal.stacks.insert(name(target)?);
        }
    }
    Ok(follow(api, generation, move |state, now| {
        if let Some(gone) = goal.missing(state) {
            return Look::Last(Err(Status::aborted(format!("`{gone}` was removed meanwhile"))));
        }
        let progress = progress(state, &goal, now);
        if progress.converged {
            tracing::debug!(target: "hop", hop = "told");
            return Look::Last(Ok(progress));
        }
        Look::Now(progress)
    }))
}

impl Goal {
    /// What is to run and is not declared any more, by its name.
    fn missing(&self, state: &State) -> Option<String> {
        if self.gone {
            return None;
        }
        let is_gone = |name: &&model::Name| state.stack(name).is_none_or(|stack| stack.removing);
        let stack = self.stacks.iter().find(is_gone).map(ToString::to_string);
        let service = || self.services.iter().find(|name| state.service_named(name).is_none());
        stack.or_else(|| service().map(ToString::to_string))
    }
}

fn progress(state: &State, goal: &Goal, now: Timestamp) -> Progress {
    let concerned = |(_, service): &(ServiceId, &Service)| {
        let is_named = goal.stacks.contains(&service.name.stack) || goal.services.contains(&service.name);
        // What somebody has deployed again under the name is not what is waited for to go.
        is_named && (!goal.gone || service.removing)
    };
    let mut services: Vec<ServiceProgress> = Vec::new();
    let mut converged = true;
    for (id, service) in state.services().filter(concerned) {
        if service.removing {
            converged = false;
            services.push(of_service(state, id, service));
            continue;
        }
        let plan = controllers::plan(state, Object::Service(id), now);
        let one = if let Some(job) = &service.job {
            let one = jobs::progress(state, (id, service), job, &plan, (goal.generation, now));
            converged &= one.failed.is_empty() && one.ready == one.desired;
            one
        } else {
            let mut one = of_service(state, id, service);
            let notes = views::sentences(&views::notes(state, id, &plan));
            one.waiting.extend(notes.iter().cloned());
            one.rollout = rollouts::rollout(service, &plan, one.desired, notes);
            one.failed = failure(service, &plan, one.desired, goal.generation).unwrap_or_default();
            converged &= one.desired == one.ready && one.leaving == 0 && is_as_asked(service, &plan, &one);
            one
        };
        services.push(one);
    }
    if goal.gone {
        converged = services.is_empty();
    }
    Progress { services, converged }
}

/// Whether its slots have the versions that they are to have, for now. What is new is not waited for beyond that, and neither is
/// what comes after canaries that somebody has to promote.
fn is_as_asked(service: &Service, plan: &Plan, one: &ServiceProgress) -> bool {
    let is_promoted = service.rollout.as_ref().is_none_or(|rollout| rollout.promoted);
    let to_be_new = if is_promoted { one.desired } else { one.desired.min(service.spec.update.canaries) };
    one.current >= to_be_new && rollouts::is_settled(service, plan)
}

/// Why a service does not come to what was asked, and will not.
fn failure(service: &Service, plan: &Plan, slots: u32, asked: u64) -> Option<String> {
    rollouts::failure(service, asked).or_else(|| given_up(plan, slots))
}

/// Every one of its slots failed as often as it may: nothing more is going to happen.
fn given_up(plan: &Plan, slots: u32) -> Option<String> {
    let over = plan.notes.iter().filter(|note| matches!(note.why, Waiting::GivenUp)).count();
    let all = u32::try_from(over).is_ok_and(|over| over > 0 && over == slots);
    all.then(|| "every slot failed as often as its restart policy allows".to_owned())
}

fn of_service(state: &State, id: ServiceId, service: &Service) -> ServiceProgress {
    let desired = state.slot_count(service);
    let mut one =
        ServiceProgress { service: service.name.to_string(), desired, ..ServiceProgress::default() };
    let mut waiting = BTreeSet::new();
    let mut slots = Slots::default();
    for (task_id, task) in state.tasks_of(id) {
        count(state, service, (task_id, task), &mut one, &mut slots, &mut waiting);
    }
    one.ready = u32::try_from(slots.ready.len()).unwrap_or(u32::MAX);
    one.current = u32::try_from(slots.current.len()).unwrap_or(u32::MAX);
    one.waiting = waiting.into_iter().collect();
    one
}

/// Slots and not tasks: for a while, a slot may have several.
#[derive(Default)]
struct Slots {
    ready: BTreeSet<u32>,
    current: BTreeSet<u32>,
}

fn count(
    state: &State,
    service: &Service,
    (id, task): (TaskId, &Task),
    one: &mut ServiceProgress,
    slots: &mut Slots,
    waiting: &mut BTreeSet<String>,
) {
    let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
    let is_lost = node.is_some_and(|node| matches!(node.liveness, Liveness::Down { .. }));
    let is_wanted = task.desired.runs() && state.wanted(service, id.slot) != Wanted::Empty;
    if let Some(ended) = task.ended() {
        // A slot whose task did what it was there for is as good as ready.
        if is_wanted && ended == Ended::Completed && task.version == service.version {
            slots.ready.insert(id.slot);
            slots.current.insert(id.slot);
        }
        return;
    }
    if !task.is_live() {
        return;
    }
    if !is_wanted {
        one.leaving += u32::from(task.placement.is_some() && !is_lost);
        if is_lost && let Some(node) = node {
            let what = "holds a task that is stopped when it returns";
            waiting.insert(format!("node {} is down and {what}", node.name));
        }
        return;
    }
    if is_lost {
        return;
    }
    // Its successor may serve before it does not, and is then what counts as the slot's.
    let moves = |task: &Task| {
        task.desired == model::Desired::Yielding || state.has_other_place(id, task.version, &state.shunned())
    };
    one.leaving += u32::from(task.leaves && moves(task));
    one.running += u32::from(task.is_running());
    if task.is_ready() {
        slots.ready.insert(id.slot);
        if task.version == service.version {
            slots.current.insert(id.slot);
        }
    }
    if task.placement.is_none() {
        waiting.insert(scheduler::explain(state, id).to_string());
    } else if !task.is_ready()
        && let Some(reason) = task.status.as_ref().and_then(|status| status.reason.clone())
    {
        waiting.insert(format!("slot {}: {reason}", id.slot));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use model::TaskStatus;
    use state::Command;

    use super::*;
    use crate::fixture::World;

    /// The task's agent says the same again, with a reason.
    fn explain(world: &mut World, task: &str, reason: &str) {
        let id = world.task(task);
        let row = world.state.task(id).unwrap();
        let (node, status) = (row.placement.as_ref().unwrap().node, row.status.clone().unwrap());
        let status = TaskStatus { seq: status.seq + 1, reason: Some(reason.to_owned()), ..status };
        world.must(Command::Report { node, statuses: vec![(id, status)] });
    }

    /// How far `hello` is, as who deployed it is told, once the planners know why these tasks are where they are.
    fn check(fixture: &str, reasons: &[(&str, &str)], expected: &Expect) {
        let mut world = World::of(fixture);
        for (task, reason) in reasons {
            explain(&mut world, task, reason);
        }
        world.run("plan");
        let stacks = BTreeSet::from(["hello".parse().unwrap()]);
        let goal = Goal { stacks, services: BTreeSet::new(), gone: false, generation: 0 };
        let Progress { services, converged } = progress(&world.state, &goal, world.now);
        let mut text = String::new();
        for ServiceProgress {
            service,
            desired,
            running,
            ready,
            current,
            leaving,
            waiting,
            failed,
            rollout: _,
            run: _,
            rests: _,
        } in services
        {
            text +=
                &format!("{service}: {running} run, {ready} of {desired} are ready, {current} of them new");
            text += &format!(", {leaving} leave\n");
            text.extend(waiting.iter().map(|why| format!("  {why}\n")));
            if !failed.is_empty() {
                text += &format!("  never: {failed}\n");
            }
        }
        expected.assert_eq(&format!("{text}converged: {converged}\n"));
    }

    #[test]
    fn what_runs_and_is_not_ready_is_waited_for_and_says_why() {
        check(
            "nodes n1
             service hello/web x3
             deploy
             settle
             report web.1 unready
             report web.2 unready",
            &[("web.2", "not ready: connection refused")],
            &expect![[r#"
                hello/web: 3 run, 1 of 3 are ready, 1 of them new, 0 leave
                  slot 2: not ready: connection refused
                converged: false
            "#]],
        );
    }

    #[test]
    fn canaries_are_waited_for_and_what_comes_after_them_is_not() {
        let changed = "nodes n1
             service hello/web x3 order=start-first
             deploy
             settle
             service hello/web x3 order=start-first canaries=1 command=two
             deploy";
        check(
            changed,
            &[],
            &expect![[r#"
                hello/web: 3 run, 3 of 3 are ready, 0 of them new, 0 leave
                  waiting for a node
                  slot 2 has an old version until the canaries are promoted (and 1 more)
                converged: false
            "#]],
        );
        check(
            &format!("{changed}\n settle"),
            &[],
            &expect![[r#"
                hello/web: 3 run, 3 of 3 are ready, 1 of them new, 0 leave
                  slot 2 has an old version until the canaries are promoted (and 1 more)
                converged: true
            "#]],
        );
    }

    #[test]
    fn what_is_ready_needs_no_reason() {
        check(
            "nodes n1\n service hello/web x1\n deploy\n settle",
            &[("web.1", "it was slow")],
            &expect![[r#"
                hello/web: 1 run, 1 of 1 are ready, 1 of them new, 0 leave
                converged: true
            "#]],
        );
    }

    #[test]
    fn what_has_failed_says_how() {
        check(
            "nodes n1
             service hello/web x2 restart=on-failure
             deploy
             settle
             report web.1 gaveup
             report web.2 failing",
            &[("web.1", "unhealthy: a check failed: no"), ("web.2", "exit code 1: no database")],
            &expect![[r#"
                hello/web: 0 run, 0 of 2 are ready, 0 of them new, 0 leave
                  slot 1 failed as often as its restart policy allows: unhealthy: a check failed: no
                  slot 2 keeps failing and waits before it is tried again: exit code 1: no database
                converged: false
            "#]],
        );
    }
}
