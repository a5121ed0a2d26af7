//! Moving what would be better off on another node by now.

use model::{NodeId, TaskId};
use scheduler::Move;
use state::{Command, Rejected, State};
use tonic::Status;
use wire::proto::api::{ChangeReply, RebalanceMove, RebalancePlan, RebalanceRequest};

use crate::api::{Api, change, malformed, refused};

/// Moves of one plan.
const MOST: usize = 1000;

pub(super) fn plan(state: &State) -> RebalancePlan {
    let moves = scheduler::rebalance(state, MOST).into_iter().map(|found| one(state, &found));
    RebalancePlan { moves: moves.collect() }
}

fn one(state: &State, found: &Move) -> RebalanceMove {
    let Move { task, from, to, why } = found;
    let node = |id: NodeId| state.node(id).map_or_else(|| id.to_string(), |node| node.name.to_string());
    let service = state.service(task.service).map(|service| service.name.to_string());
    RebalanceMove {
        task: Some(task.into()),
        service: service.unwrap_or_default(),
        from: node(*from),
        to: node(*to),
        reason: why.to_string(),
    }
}

pub(super) async fn carry_out(api: &Api, request: RebalanceRequest) -> Result<ChangeReply, Status> {
    let RebalanceRequest { request, tasks } = request;
    let at = wire::Field("RebalanceRequest", "tasks");
    let mut commands = Vec::with_capacity(tasks.len());
    for task in tasks {
        let task: TaskId = at.required(Some(task)).map_err(malformed)?;
        commands.push(Command::Move { task });
    }
    let mut reply = ChangeReply::default();
    for outcome in api.propose(&request, commands).await? {
        match outcome {
            Ok(done) => reply.changed |= change(&done, 0, Vec::new()).changed,
            // It ended, or was replaced, since somebody looked.
            Err(Rejected::NoTask(_) | Rejected::NotWanted(_)) => {}
            Err(rejected) => return Err(refused(&rejected)),
        }
    }
    reply.generation = api.parts.store.state().applied().0;
    Ok(reply)
}
