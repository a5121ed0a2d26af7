//! What containers wrote, from the nodes that they ran on.
//!
//! In reading order: [`find`] (whose logs are meant), [`source`] (those of one node, from that node), [`merge`] (all nodes' lines
//! in the order of their times), [`reading`] (one call, which drives the three for as long as its client reads).
//!
//! **Invariant:** a node that does not answer costs its own lines and some seconds, and is named in a warning. It is no error, and
//! nobody waits for it without an end.
//!
//! **Invariant:** nothing is read faster than the client reads, and what is held meanwhile has a bound.

mod find;
mod merge;
mod reading;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::TaskId;
use tonic::Status;
use wire::proto::api::{LogEntry, LogsRequest};

use crate::api::logs::find::{SLOTS_OF_A_NODE, Scope};
use crate::api::logs::reading::{Reading, Wanted};
use crate::api::logs::source::{Options, Place};
use crate::api::{Answers, Api};

pub(super) async fn answer(api: &Api, request: LogsRequest) -> Result<Answers<LogEntry>, Status> {
    let reference = request.reference.clone();
    let wanted = wanted(request)?;
    let state = api.state().await?;
    let found = find::tasks(&state, &wanted.scope);
    let found = found.map_err(|error| Status::not_found(error.to_string()))?;
    // Who follows waits for the first one.
    if found.is_empty() && !wanted.options.follow {
        let text = format!("`{reference}` has no task that has been on a node yet");
        return Err(Status::not_found(text));
    }
    if let Some((node, slots)) = find::crowded(&found).into_iter().next() {
        let node = state.node(node).map_or_else(|| node.to_string(), |node| node.name.to_string());
        return Err(Status::invalid_argument(format!(
            "`{reference}` stands for {slots} slots on node {node}; logs of {SLOTS_OF_A_NODE} of a node are read at most: name \
             a service, or a slot as STACK/SERVICE.SLOT"
        )));
    }
    let reading = Reading::of(api, &state, &found, wanted);
    Ok(Box::pin(futures::stream::unfold(reading, |mut reading| async move {
        let answer = reading.next().await?;
        Some((answer, reading))
    })))
}

fn wanted(request: LogsRequest) -> Result<Wanted, Status> {
    let LogsRequest { reference, follow, tail, since_nanos, until_nanos, read } = request;
    let scope = Scope::of(&reference);
    let by_id = match scope {
        Scope::Task(_) => true,
        Scope::Slot(..) | Scope::Whole(_) => false,
    };
    let mut places = BTreeMap::new();
    for log in read {
        let task: Result<TaskId, _> = log.task.parse();
        let task = task.map_err(|error| Status::invalid_argument(error.to_string()))?;
        places.insert(task, Place::behind(log.at));
    }
    let options = Options { follow, until: until_nanos, by_id };
    let begin = Place { since: since_nanos.unwrap_or(0), tail };
    Ok(Wanted { scope, options, begin, read: places })
}
