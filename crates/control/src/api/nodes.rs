//! Nodes: what the operator wants of them, and how far a drain is.

use std::collections::BTreeMap;
use std::time::Duration;

use controllers::{Object, Waiting};
use model::{Availability, NodeId, Role, Timestamp};
use state::{Command, Rejected, State};
use store::MembershipError;
use tonic::Status;
use wire::proto::api::{
    ChangeReply, DrainProgress, DrainTask, DrainedRequest, NodeRequest, UpdateNodeRequest,
};

use crate::api::follow::{Look, follow};
use crate::api::{Answers, Api, change, malformed, refused};

pub(super) async fn update(api: &Api, request: UpdateNodeRequest) -> Result<ChangeReply, Status> {
    let UpdateNodeRequest { request, node: name, availability, deadline, set_labels, remove_labels } =
        request;
    let state = api.state().await?;
    let node = named(&state, &name)?;
    let mut commands = Vec::new();
    if availability != 0 {
        let until = deadline.map(|wait| api.parts.clock.now(&state).plus(Duration::from_millis(wait)).0);
        let at = wire::Field("UpdateNodeRequest", "availability");
        let availability = wire::read_availability(at, availability, until).map_err(malformed)?;
        commands.push(Command::SetAvailability { node, availability });
    }
    if !set_labels.is_empty() || !remove_labels.is_empty() {
        let row = state.node(node).ok_or_else(|| refused(&Rejected::NoNode(node)))?;
        if let Some(key) = remove_labels.iter().find(|key| !row.labels.contains_key(*key)) {
            return Err(no_label(&name, key, row));
        }
        let set = set_labels.into_iter().map(|(key, value)| (key, Some(value)));
        let labels = set.chain(remove_labels.into_iter().map(|key| (key, None))).collect();
        commands.push(Command::LabelNode { node, labels });
    }
    let mut reply = ChangeReply::default();
    for outcome in api.propose(&request, commands).await? {
        reply.changed |= change(&outcome.map_err(|rejected| refused(&rejected))?, 0, Vec::new()).changed;
    }
    reply.generation = api.parts.store.state().applied().0;
    Ok(reply)
}

fn no_label(name: &str, key: &str, row: &model::Node) -> Status {
    let text = if row.engine_labels.contains_key(key) {
        format!(
            "node `{name}` has the label `{key}` from its own configuration: change it there, or give it another value here"
        )
    } else {
        format!("node `{name}` has no label `{key}`")
    };
    Status::not_found(text)
}

/// A manager gives up its vote first, while it is still known who it was.
pub(super) async fn remove(api: &Api, request: NodeRequest) -> Result<ChangeReply, Status> {
    let NodeRequest { request, node: name } = request;
    let state = api.state().await?;
    if let Some(outcome) = api.answered(&state, &request)? {
        return Ok(change(&outcome.map_err(|rejected| refused(&rejected))?, 0, Vec::new()));
    }
    let node = named(&state, &name)?;
    let row = state.node(node).ok_or_else(|| refused(&Rejected::NoNode(node)))?;
    if row.liveness == model::Liveness::Ready {
        return Err(refused(&Rejected::NodeIsUp(row.name.clone())));
    }
    if row.role == Role::Manager {
        api.parts.store.remove_voter(node).await.map_err(|error| unmade(&name, &error))?;
    }
    let done = api.propose_one(&request, Command::RemoveNode { node }).await?;
    Ok(change(&done, 0, Vec::new()))
}

fn unmade(name: &str, error: &MembershipError) -> Status {
    match error {
        MembershipError::LastVoter { .. } => {
            Status::failed_precondition(format!("`{name}` is the only manager"))
        }
        MembershipError::NoQuorum { voters, reachable, .. } => Status::failed_precondition(format!(
            "without `{name}` only {reachable} of the {voters} managers left can be reached, which is no majority: bring back one of those that are down first"
        )),
        MembershipError::Refused(_) => Status::failed_precondition(error.to_string()),
        MembershipError::NotLeader { .. }
        | MembershipError::InProgress
        | MembershipError::TimedOut { .. }
        | MembershipError::Stopped => Status::unavailable(error.to_string()),
    }
}

fn named(state: &State, name: &str) -> Result<NodeId, Status> {
    let found = state.node_named(name).map(|(id, _)| id);
    found.ok_or_else(|| Status::not_found(format!("there is no node `{name}`")))
}

pub(super) fn drained(api: &Api, request: DrainedRequest) -> Result<Answers<DrainProgress>, Status> {
    let DrainedRequest { node: name, index } = request;
    named(&api.parts.store.state(), &name)?;
    Ok(follow(api, index, move |state, now| {
        let progress = named(state, &name).map(|node| progress(state, node, now));
        match progress {
            Ok(progress) if !is_over(&progress) => Look::Now(progress),
            over => Look::Last(over),
        }
    }))
}

fn is_over(progress: &DrainProgress) -> bool {
    progress.tasks.is_empty() || progress.availability != "drain"
}

fn progress(state: &State, node: NodeId, now: Timestamp) -> DrainProgress {
    let Some(row) = state.node(node) else { return DrainProgress::default() };
    let mut notes: BTreeMap<model::ServiceId, BTreeMap<u32, Waiting>> = BTreeMap::new();
    let mut tasks = Vec::new();
    for (id, task) in state.tasks_on(node).filter(|(_, task)| task.occupies().is_some()) {
        let Some(service) = state.service(id.service) else { continue };
        let notes = notes.entry(id.service).or_insert_with(|| {
            let plan = controllers::plan(state, Object::Service(id.service), now);
            plan.notes.into_iter().map(|note| (note.slot, note.why)).collect()
        });
        let reason = match notes.get(&id.slot) {
            _ if !task.desired.runs() => "is stopping".to_owned(),
            Some(Waiting::ForAnotherNode { .. }) => {
                scheduler::explain_move(state, id, task.version).to_string()
            }
            Some(why) => why.to_string(),
            None if service.spec.job.is_some() => "runs to its end".to_owned(),
            None => String::new(),
        };
        tasks.push(DrainTask {
            service: service.name.to_string(),
            slot: id.slot,
            task: id.to_string(),
            reason,
        });
    }
    let until = match row.availability {
        Availability::Drain { until } => until.map(|until| until.0),
        Availability::Active | Availability::Pause => None,
    };
    DrainProgress {
        tasks,
        availability: row.availability.as_str().to_owned(),
        until: until.unwrap_or_default(),
    }
}

/// Why a task stays on a node that is being drained, beside what the planners say.
pub(super) fn why_it_stays(state: &State, id: model::ServiceId, slot: u32) -> Option<String> {
    let (task, row) = state.tasks_of(id).filter(|(task, _)| task.slot == slot).last()?;
    let explanation = scheduler::explain_move(state, task, row.version);
    (!explanation.reasons.is_empty()).then(|| explanation.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::fixture::World;

    fn left(world: &World, node: &str) -> String {
        let DrainProgress { tasks, availability, until } =
            progress(&world.state, world.node(node), world.now);
        let line = |task: DrainTask| format!("{}.{}: {}\n", task.service, task.slot, task.reason);
        let lines: String = tasks.into_iter().map(line).collect();
        format!("{lines}{availability} until {until}\n")
    }

    #[test]
    fn what_is_left_on_a_node_says_why() {
        let mut world = World::of(
            r#"nodes n1 n2 cpu=4
               service hello/web x5 cpu=1
               service hello/tied x1 constraint "node.hostname == n1"
               service hello/job x1 job constraint "node.hostname == n1"
               deploy
               settle
               drain n1"#,
        );
        expect![[r#"
            hello/job.1: runs to its end
            hello/tied.1: no node fits: node.hostname == n1 is not met on 1 node
            hello/web.2: 
            hello/web.4: is to be replaced and waits for its turn
            drain until 0
        "#]]
        .assert_eq(&left(&world, "n1"));
        // One at a time, and no more than there is room for.
        world.run("plan");
        expect![[r#"
            hello/job.1: runs to its end
            hello/tied.1: no node fits: node.hostname == n1 is not met on 1 node
            hello/web.2: is stopping
            hello/web.4: is to be replaced and waits for its turn
            drain until 0
        "#]]
        .assert_eq(&left(&world, "n1"));
        world.run("settle");
        expect![[r#"
            hello/job.1: runs to its end
            hello/tied.1: no node fits: node.hostname == n1 is not met on 1 node
            hello/web.4: no node fits: not enough CPU on 1 node
            drain until 0
        "#]]
        .assert_eq(&left(&world, "n1"));
        world.run("drain n1 60s\n tick 60s\n settle");
        expect![[r#"
            drain until 1060000
        "#]]
        .assert_eq(&left(&world, "n1"));
    }
}
