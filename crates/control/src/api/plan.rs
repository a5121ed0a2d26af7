//! The dry run: what a deployment would do, and where it would lead.
//!
//! The command is applied to a copy of the state, and the reconcile loop's own pass runs on that, again and again, with agents who
//! do at once what they are told and clocks that wait for nobody. What differs in the end is the plan.

use std::collections::{BTreeMap, BTreeSet};

use controllers::Object;
use model::{
    Desired, Digest, Ended, Exit, Liveness, Phase, ServiceId, ServiceSpec, SpecVersion, TaskId, TaskStatus,
    Timestamp,
};
use state::{Command, Declared, Proposal, Service, State};
use tonic::Status;
use wire::proto::api::{DeployRequest, PlanReply, PlannedService, PlannedTask};

use crate::api::{Api, inspect, name, pins, refused, rollouts};
use crate::reconcile;

/// Slots of one service up to which its pace is followed, slot by slot. Beyond that all change at once, which leads to nearly
/// the same places and takes no time that grows with the square of their number.
const FOLLOWED: u32 = 500;

/// Passes after which whatever goes on then is not looked at any more: of each slot three, and as many for the rest.
const PASSES: usize = 4_000;

pub(super) async fn answer(api: &Api, request: DeployRequest) -> Result<PlanReply, Status> {
    let DeployRequest { request: _, stack, services, expected: _, keep_replicas } = request;
    let stack = name(&stack)?;
    let specs = super::specs(&stack, services)?;
    let before = api.state().await?;
    let pins::Pinned { images, mut commands, warnings } = pins::pin_all(api, &before, &specs).await?;
    let declared = super::declared(specs, &images, &keep_replicas);
    commands.push(Command::Deploy { stack: stack.clone(), services: declared, expected: None });
    let now = api.parts.clock.now(&before);
    let generation = before.generation_of(&stack).0;
    // It takes a while where there are many tasks, and nobody else is to wait for it.
    let planned = tokio::task::spawn_blocking(move || plan(&before, &stack, commands, now)).await;
    let services = planned.map_err(|_| Status::internal("the plan could not be made"))??;
    Ok(PlanReply { generation, services, warnings })
}

/// What these commands do to a stack, the last of which deploys it.
fn plan(
    before: &State,
    stack: &model::Name,
    commands: Vec<Command>,
    now: Timestamp,
) -> Result<Vec<PlannedService>, Status> {
    let mut after = before.clone();
    let proposal = Proposal { at: now, request: None, by: None, commands };
    if let Some(Err(rejected)) = after.apply(after.applied(), &proposal).outcomes.pop() {
        return Err(refused(&rejected));
    }
    let declared = after.clone();
    hurry(&mut after, stack);
    let unplaced = settle(&mut after, now);
    let services_of = |state: &State| -> BTreeMap<model::ServiceName, ServiceId> {
        let named = state.services().filter(|(_, service)| service.name.stack == *stack && !service.removing);
        named.map(|(id, service)| (service.name.clone(), id)).collect()
    };
    let (old, new) = (services_of(before), services_of(&declared));
    let names: BTreeSet<&model::ServiceName> = old.keys().chain(new.keys()).collect();
    let service = |name: &model::ServiceName| {
        let was = old.get(name).and_then(|id| Some((*id, before.service(*id)?)));
        let is = new.get(name).and_then(|id| Some((*id, declared.service(*id)?)));
        let change = Change { before, after: &after, unplaced: &unplaced };
        change.of(name.to_string(), was, is)
    };
    Ok(names.into_iter().map(service).collect())
}

/// Services of very many slots change all of them at once.
fn hurry(state: &mut State, stack: &model::Name) {
    let large: Vec<(model::Name, Declared)> = state
        .services()
        .filter(|(_, service)| service.name.stack == *stack && !service.removing)
        .filter(|(_, service)| state.slot_count(service) > FOLLOWED)
        .map(|(_, service)| {
            let image = service.templates[&service.version].image;
            let mut spec = service.spec.clone();
            (spec.update.parallelism, spec.rollback.parallelism) = (0, 0);
            (service.name.service.clone(), Declared { spec, image, keep_replicas: false })
        })
        .collect();
    if large.is_empty() {
        return;
    }
    let all = state.services().filter(|(_, service)| service.name.stack == *stack && !service.removing);
    let mut services: BTreeMap<model::Name, Declared> = all
        .map(|(_, service)| {
            let image = service.templates[&service.version].image;
            let declared = Declared { spec: service.spec.clone(), image, keep_replicas: false };
            (service.name.service.clone(), declared)
        })
        .collect();
    services.extend(large);
    let deploy = Command::Deploy { stack: stack.clone(), services, expected: None };
    apply(state, state.time(), vec![deploy]);
}

fn apply(state: &mut State, now: Timestamp, commands: Vec<Command>) {
    let proposal = Proposal { at: now, request: None, by: None, commands };
    state.apply(state.applied(), &proposal);
}

/// Goes on until nothing more would happen, and returns why tasks would have no node then.
fn settle(state: &mut State, now: Timestamp) -> BTreeMap<TaskId, String> {
    let mut now = now;
    for _ in 0..PASSES {
        let dirty: BTreeSet<Object> = controllers::all(state).into_iter().collect();
        let pass = reconcile::pass_over(state, &dirty, now);
        let (commands, wakes) = (pass.commands, pass.wakes);
        let is_planned = !commands.is_empty();
        apply(state, now, commands);
        let is_done = obey(state, now);
        if is_planned || is_done {
            continue;
        }
        // What waits for time alone does not wait here. A deadline is not what anybody hopes for.
        let Some(at) = wakes.values().filter(|at| **at > now).min().filter(|at| is_soon(state, now, **at))
        else {
            break;
        };
        now = *at;
    }
    let unplaced = state.unplaced().map(|task| (task, scheduler::explain(state, task).to_string()));
    unplaced.collect()
}

/// Whether a wait is one of a rollout that goes well, and not the deadline of one that hangs.
fn is_soon(state: &State, now: Timestamp, at: Timestamp) -> bool {
    let patience = |service: &Service| {
        let policy = controllers::policy(service);
        let trial = policy.promote_after.unwrap_or_default().max(policy.monitor);
        trial.max(policy.delay).max(policy.min_healthy.unwrap_or_default())
    };
    let longest = state.services().map(|(_, service)| patience(service)).max().unwrap_or_default();
    at.since(now) <= longest
}

/// Agents that do at once what they are told, where their nodes are up. Tells whether anything was left to do.
fn obey(state: &mut State, now: Timestamp) -> bool {
    let nodes: Vec<_> =
        state.nodes().filter(|(_, node)| node.liveness == Liveness::Ready).map(|(id, _)| id).collect();
    let mut commands = Vec::new();
    for node in nodes {
        let statuses: Vec<(TaskId, TaskStatus)> =
            state.tasks_on(node).filter_map(|(id, task)| Some((id, next_word(task, now)?))).collect();
        if !statuses.is_empty() {
            commands.push(Command::Report { node, statuses });
        }
    }
    let is_done = !commands.is_empty();
    apply(state, now, commands);
    is_done
}

/// What an agent says next of a task that does as it should.
fn next_word(task: &model::Task, now: Timestamp) -> Option<TaskStatus> {
    let known = task.status.as_ref();
    let is_of_job = task.run > 0;
    if task.ended().is_some() || (task.desired.runs() && task.is_ready() && !is_of_job) {
        return None;
    }
    let attempt = known.map_or(1, |known| known.attempt + 1);
    let (phase, ready, ended, exit) = match task.desired {
        // What runs to its end is there at once: others may wait for it.
        Desired::Running | Desired::Yielding if is_of_job => {
            (Phase::Exited, false, Some(Ended::Completed), Some(Exit::Code(0)))
        }
        Desired::Running | Desired::Yielding => (Phase::Running, true, None, None),
        Desired::Stopped | Desired::Removed => {
            (Phase::Exited, false, Some(Ended::Stopped), Some(Exit::Code(0)))
        }
    };
    Some(TaskStatus {
        attempt,
        phase,
        seq: 0,
        ready,
        at: now,
        exit,
        ended,
        reason: None,
        warnings: Vec::new(),
    })
}

struct Change<'a> {
    before: &'a State,
    after: &'a State,
    unplaced: &'a BTreeMap<TaskId, String>,
}

impl Change<'_> {
    fn of(
        &self,
        name: String,
        was: Option<(ServiceId, &Service)>,
        is: Option<(ServiceId, &Service)>,
    ) -> PlannedService {
        let holders = |state: &State, service: Option<(ServiceId, &Service)>| -> BTreeMap<u32, TaskId> {
            let tasks = service.into_iter().flat_map(|(id, _)| state.tasks_of(id));
            // What a job has yet to do is done by the end of the plan.
            let is_to_be_done = |id: TaskId, task: &model::Task| {
                task.succeeded() && self.before.task(id).is_none_or(|before| before.ended().is_none())
            };
            let wanted = tasks.filter(|(id, task)| {
                let runs = task.is_live() && task.ended().is_none() && !self.is_lost(state, task);
                task.desired.runs() && (runs || is_to_be_done(*id, task))
            });
            // By slot and then by age, so that the newest stays.
            wanted.map(|(task, _)| (task.slot, task)).collect()
        };
        let (old, new) = (holders(self.before, was), holders(self.after, is));
        let mut tasks = Vec::new();
        let mut kept = 0;
        for slot in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            match self.slot(*slot, old.get(slot), new.get(slot)) {
                Some(task) => tasks.push(task),
                None => kept += 1,
            }
        }
        let changes = rollouts::differences(&document(was), &document(is));
        let action = action(was, is, &changes, &tasks);
        PlannedService {
            service: name,
            action: action.to_owned(),
            changes,
            tasks,
            kept,
            notes: self.notes(was, is),
        }
    }

    fn is_lost(&self, state: &State, task: &model::Task) -> bool {
        let node = task.placement.as_ref().and_then(|placement| state.node(placement.node));
        node.is_some_and(|node| matches!(node.liveness, Liveness::Down { .. }))
    }

    /// What becomes of one slot; `None` if nothing does.
    fn slot(&self, slot: u32, old: Option<&TaskId>, new: Option<&TaskId>) -> Option<PlannedTask> {
        let node = |state: &State, task: Option<&TaskId>| {
            let placement = task.and_then(|task| state.task(*task)).and_then(|task| task.placement.as_ref());
            placement.and_then(|placement| state.node(placement.node)).map(|node| node.name.to_string())
        };
        let (from_node, to_node) = (node(self.before, old), node(self.after, new));
        let version = |state: &State, task: &TaskId| state.task(*task).map(|task| task.version);
        let reason = new.and_then(|task| self.unplaced.get(task));
        let action = match (old, new) {
            (None, None) => return None,
            (Some(_), None) => "stop",
            (_, Some(_)) if reason.is_some() => "unplaced",
            (None, Some(_)) => "create",
            (Some(old), Some(new)) if old != new => "replace",
            (Some(old), Some(new)) if version(self.before, old) != version(self.after, new) => "in-place",
            (Some(_), Some(_)) => return None,
        };
        Some(PlannedTask {
            slot,
            action: action.to_owned(),
            from_node: from_node.unwrap_or_default(),
            to_node: to_node.unwrap_or_default(),
            reason: reason.cloned().unwrap_or_default(),
        })
    }

    /// How a change of versions would be made, and where it would stop.
    fn notes(&self, was: Option<(ServiceId, &Service)>, is: Option<(ServiceId, &Service)>) -> Vec<String> {
        let (Some((id, old)), Some((_, new))) = (was, is) else { return Vec::new() };
        if old.version == new.version {
            return Vec::new();
        }
        if let Some((before, after)) = old.job.as_ref().zip(new.job.as_ref()) {
            return match (before.last == after.last, new.has_schedule()) {
                (false, _) => vec![format!("it is done anew, as run {}", after.last)],
                (true, true) => vec!["it is done so from the next time of its schedule on".to_owned()],
                (true, false) => Vec::new(),
            };
        }
        let policy = controllers::policy(new);
        let order = controllers::order(new, policy, old.version, new.version);
        let at_once = match policy.parallelism {
            0 => "all slots at once".to_owned(),
            1 => "one slot at a time".to_owned(),
            count => format!("{count} slots at a time"),
        };
        let way = match order {
            model::UpdateOrder::StopFirst => "each stopped before its successor starts",
            model::UpdateOrder::StartFirst => "each stopped once its successor serves",
        };
        let mut notes = vec![format!("{at_once}, {way}")];
        if order != policy.order {
            notes.push("stop-first, since both versions name the same port of their node".to_owned());
        }
        if self.kept_version(id, new.version) {
            notes.push(format!("{} is kept from before and becomes current again", new.version));
        }
        let left = self.after.service(id).and_then(|service| service.rollout.as_ref());
        if left.is_some_and(|rollout| !rollout.promoted) {
            notes.push("it waits then until its canaries are promoted".to_owned());
        }
        notes
    }

    fn kept_version(&self, id: ServiceId, version: SpecVersion) -> bool {
        self.before.service(id).is_some_and(|service| service.templates.contains_key(&version))
    }
}

/// What is declared of a service, as far as a deployment can change it.
fn document(service: Option<(ServiceId, &Service)>) -> serde_json::Value {
    let Some((_, service)) = service else { return serde_json::Value::Null };
    let image: Digest = service.templates[&service.version].image;
    let ServiceSpec { mode, labels, task, update, rollback, job, depends_on } = &service.spec;
    serde_json::json!({
        "mode": service.spec.mode_name(),
        "replicas": mode.replicas(),
        "labels": labels,
        "digest": image.to_string(),
        "task": inspect::task_document(task),
        "update": inspect::policy(update),
        "rollback": inspect::policy(rollback),
        "job": job.as_ref().map(inspect::job),
        "depends_on": inspect::depends_on(depends_on),
    })
}

fn action(
    was: Option<(ServiceId, &Service)>,
    is: Option<(ServiceId, &Service)>,
    changes: &[wire::proto::api::ChangedField],
    tasks: &[PlannedTask],
) -> &'static str {
    let (old, new) = match (was, is) {
        (None, _) => return "create",
        (Some(_), None) => return "remove",
        (Some((_, old)), Some((_, new))) => (old, new),
    };
    if changes.is_empty() {
        return "unchanged";
    }
    if old.version != new.version {
        let has = |action: &str| tasks.iter().any(|task| task.action == action);
        return if has("replace") || !has("in-place") { "replace" } else { "in-place" };
    }
    if old.spec.mode != new.spec.mode { "scale" } else { "settings" }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use model::Name;

    use super::*;
    use crate::fixture::World;

    /// What deploying the files of `fixture` as they are at its end would do.
    fn check(fixture: &str, expected: &Expect) {
        let mut world = World::of(fixture);
        let stack: Name = "hello".parse().unwrap();
        let commands = world.deployment(&stack);
        let before = world.state.rows();
        let services = plan(&world.state, &stack, commands, world.now).unwrap();
        assert!(world.state.rows() == before, "a plan changes nothing");
        let mut text = String::new();
        for PlannedService { service, action, changes, tasks, kept, notes } in services {
            text += &format!("{service}: {action}, {kept} kept\n");
            for change in changes.iter().filter(|_| action != "create" && action != "remove") {
                text += &format!("  {}: {} -> {}\n", change.path, change.before, change.after);
            }
            for PlannedTask { slot, action, from_node, to_node, reason } in tasks {
                text += &format!("  slot {slot} {action} {from_node} -> {to_node} {reason}\n");
            }
            text.extend(notes.iter().map(|note| format!("  {note}\n")));
        }
        expected.assert_eq(&text);
    }

    const THREE: &str = "nodes n1 n2 n3
        service hello/web x3
        service hello/db x1 cpu=0.5
        deploy
        settle\n";

    #[test]
    fn a_job_is_done_in_the_plan_and_what_waits_for_it_is_begun() {
        let file = |command: &str| {
            format!(
                "service hello/migrate x2 job command={command}\n service hello/web x1 after-completed=migrate"
            )
        };
        check(
            &format!("nodes n1 n2\n {}", file("one")),
            &expect![[r#"
            hello/migrate: create, 0 kept
              slot 1 create  -> n1 
              slot 2 create  -> n2 
            hello/web: create, 0 kept
              slot 1 create  -> n1 
        "#]],
        );
        let begun =
            format!("nodes n1 n2\n {}\n deploy\n settle\n report migrate.1 completed\n settle", file("one"));
        check(
            &begun,
            &expect![[r#"
            hello/migrate: unchanged, 1 kept
            hello/web: unchanged, 0 kept
              slot 1 create  -> n1 
        "#]],
        );
        let done = format!("{begun}\n report migrate.2 completed\n settle");
        check(
            &done,
            &expect![[r#"
            hello/migrate: unchanged, 0 kept
            hello/web: unchanged, 1 kept
        "#]],
        );
        check(
            &format!("{done}\n {}", file("two")),
            &expect![[r#"
            hello/migrate: replace, 0 kept
              task.command: ["one"] -> ["two"]
              slot 1 create  -> n2 
              slot 2 create  -> n1 
              it is done anew, as run 2
            hello/web: unchanged, 1 kept
        "#]],
        );
    }

    #[test]
    fn what_did_not_change_is_left_alone() {
        check(
            THREE,
            &expect![[r#"
            hello/db: unchanged, 1 kept
            hello/web: unchanged, 3 kept
        "#]],
        );
    }

    #[test]
    fn a_new_stack_is_made() {
        check(
            "nodes n1 n2\n service hello/web x3",
            &expect![[r#"
            hello/web: create, 0 kept
              slot 1 create  -> n1 
              slot 2 create  -> n2 
              slot 3 create  -> n1 
        "#]],
        );
    }

    #[test]
    fn a_changed_command_replaces_and_a_changed_reservation_does_not() {
        check(
            &format!(
                "{THREE} service hello/web x3 command=two order=start-first\n service hello/db x1 cpu=1"
            ),
            &expect![[r#"
                hello/db: in-place, 0 kept
                  task.reservations.cpu_millis: 500 -> 1000
                  slot 1 in-place n1 -> n1 
                  one slot at a time, each stopped before its successor starts
                hello/web: replace, 0 kept
                  task.command:  -> ["two"]
                  update.order: "stop-first" -> "start-first"
                  slot 1 replace n2 -> n2 
                  slot 2 replace n3 -> n3 
                  slot 3 replace n1 -> n1 
                  one slot at a time, each stopped once its successor serves
            "#]],
        );
    }

    #[test]
    fn slots_are_made_and_stopped_and_services_removed() {
        check(
            &format!("{THREE} service hello/web x5\n without hello/db"),
            &expect![[r#"
            hello/db: remove, 0 kept
              slot 1 stop n1 ->  
            hello/web: scale, 3 kept
              replicas: 3 -> 5
              slot 4 create  -> n2 
              slot 5 create  -> n3 
        "#]],
        );
        check(
            &format!("{THREE} service hello/web x1 label=blue"),
            &expect![[r#"
            hello/db: unchanged, 1 kept
            hello/web: scale, 1 kept
              labels.blue:  -> "yes"
              replicas: 3 -> 1
              slot 2 stop n3 ->  
              slot 3 stop n1 ->  
        "#]],
        );
    }

    #[test]
    fn what_would_have_no_node_is_said_to() {
        check(
            &format!("{THREE} service hello/db x2 cpu=100"),
            &expect![[r#"
            hello/db: replace, 1 kept
              replicas: 1 -> 2
              task.reservations.cpu_millis: 500 -> 100000
              slot 2 unplaced  ->  no node fits: not enough CPU on 3 nodes
              one slot at a time, each stopped before its successor starts
            hello/web: unchanged, 3 kept
        "#]],
        );
    }

    #[test]
    fn canaries_are_as_far_as_it_goes() {
        check(
            &format!("{THREE} service hello/web x3 command=two canaries=1"),
            &expect![[r#"
            hello/db: unchanged, 1 kept
            hello/web: replace, 2 kept
              task.command:  -> ["two"]
              update.canaries: 0 -> 1
              slot 1 replace n2 -> n2 
              one slot at a time, each stopped before its successor starts
              it waits then until its canaries are promoted
        "#]],
        );
    }

    #[test]
    fn a_thousand_slots_change_in_no_time() {
        let mut world = World::of("nodes n1 n2 n3 cpu=400\n service hello/web x1000\n deploy\n settle");
        world.run("service hello/web x1000 command=two");
        let stack: Name = "hello".parse().unwrap();
        let commands = world.deployment(&stack);
        let services = plan(&world.state, &stack, commands, world.now).unwrap();
        assert_eq!((services[0].action.as_str(), services[0].tasks.len()), ("replace", 1000));
    }
}
