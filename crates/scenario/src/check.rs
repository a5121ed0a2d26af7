//! What is true at all times, judged from outside by an observer that sees every manager at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Difference, Ending, LogIndex, NodeId, RequestId, Run, ServiceId, SpecVersion, TaskId};
use state::State;
use store::{Leadership, News, Store};

use crate::trace::Trace;

/// How many states back managers are compared with one another. A manager that is further behind gets a
/// snapshot.
const HISTORY: usize = 20_000;

/// A handle on the observer's memory.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    seen: Arc<Mutex<Seen>>,
    trace: Trace,
}

#[derive(Debug, Default)]
struct Seen {
    /// Every state that any manager was seen in, by the index of its last entry.
    history: BTreeMap<LogIndex, State>,
    /// Who was seen leading in each term.
    leaders: BTreeMap<u64, NodeId>,
    acknowledged: BTreeMap<RequestId, String>,
}

impl Check {
    pub(crate) fn new(trace: Trace) -> Self {
        Self { seen: Arc::default(), trace }
    }

    /// Judges a state that `node` has reached.
    pub(crate) fn state(&self, node: NodeId, state: &State) {
        let at = state.applied();
        let mut seen = self.lock();
        if let Some(known) = seen.history.get(&at) {
            if !is_same(known, state) {
                self.trace.broken(format!("{node} holds another state at {at} than a manager before it"));
            }
            return;
        }
        for broken in state::invariants::check(state) {
            self.trace.broken(format!("{node} at {at}: {broken}"));
        }
        let before = seen.history.range(..at).next_back();
        let after = seen.history.range(at..).next();
        let broken = before.and_then(|(_, before)| went_back(before, state));
        if let Some((_, before)) = before {
            runs_over(before, state).into_iter().for_each(|what| self.trace.count(what));
        }
        if let Some(broken) = broken.or_else(|| after.and_then(|(_, after)| went_back(state, after))) {
            self.trace.broken(format!("{node} at {at}: {broken}"));
        }
        self.trace.line(format!("{node} applied {at}: {} tasks", state.tasks().count()));
        seen.history.insert(at, state.clone());
        if seen.history.len() > HISTORY {
            seen.history.pop_first();
        }
    }

    /// Judges what `node` says of who leads.
    pub(crate) fn leadership(&self, node: NodeId, now: Leadership) {
        self.trace.line(format!("{node} knows {now:?}"));
        let Leadership::Leader { term } = now else { return };
        self.trace.count("leader");
        let first = *self.lock().leaders.entry(term).or_insert(node);
        if first != node {
            self.trace.broken(format!("{first} and {node} both lead in term {term}"));
        }
    }

    /// A user was told that this request took effect, or that it never will.
    pub(crate) fn acknowledged(&self, request: RequestId, what: &str) {
        self.lock().acknowledged.insert(request, what.to_owned());
    }

    /// Requests that were acknowledged and are not in `state`.
    pub(crate) fn lost(&self, state: &State) -> Vec<String> {
        let seen = self.lock();
        let lost = seen.acknowledged.iter().filter(|(request, _)| state.recorded(**request).is_none());
        lost.map(|(_, what)| what.clone()).collect()
    }

    /// Why a running container must not be stopped, if it must not: by the newest state that any manager
    /// has reached, it is wanted. An order can only come from such a state or an older one, and what is
    /// wanted of a task never comes back.
    pub(crate) fn may_stop(&self, task: TaskId) -> Result<(), String> {
        let seen = self.lock();
        let Some((at, newest)) = seen.history.last_key_value() else {
            return Err("no manager has any state".to_owned());
        };
        match newest.task(task) {
            Some(row) if row.desired.runs() => Err(format!("it is wanted as of {at}")),
            Some(_) | None => Ok(()),
        }
    }

    /// The newest state that any manager was seen in.
    pub(crate) fn newest(&self) -> Option<State> {
        self.lock().history.last_key_value().map(|(_, state)| state.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges a manager's every state and word, until the store ends.
pub(crate) async fn observe(node: NodeId, store: Store, check: Check) {
    let mut watch = store.watch();
    let mut leadership = store.leadership();
    leadership.mark_changed();
    loop {
        tokio::select! {
            biased;
            news = watch.next() => match news {
                News::Changes { state, .. } | News::Resync { state } => check.state(node, &state),
            },
            changed = leadership.changed() => {
                let now = *leadership.borrow_and_update();
                if changed.is_err() {
                    return;
                }
                check.leadership(node, now);
            }
        }
    }
}

/// Whether two managers agree. Rows are compared and not indexes: one that was read from a snapshot has no
/// empty entry for a node whose last task is gone.
pub(crate) fn is_same(one: &State, other: &State) -> bool {
    one.rows() == other.rows()
}

/// What is in `after` as if it had gone backwards since `before`, if anything.
fn went_back(before: &State, after: &State) -> Option<String> {
    if after.time() < before.time() {
        return Some("cluster time went back".to_owned());
    }
    for (id, number, run) in runs(after) {
        let known = before.service(id).and_then(|service| service.job.as_ref()?.runs.get(&number));
        if known.is_some_and(|known| known.end.is_some() && known.end != run.end) {
            return Some(format!("run {number} of {id} ended twice"));
        }
    }
    for (id, new) in after.tasks() {
        let Some(old) = before.task(id) else {
            let next = before.service(id.service).map_or(0, |service| service.next_sequence);
            if id.sequence < next {
                return Some(format!("task {id} came into being although its sequence was used"));
            }
            continue;
        };
        if old.placement.is_some() && old.placement != new.placement {
            return Some(format!("task {id} moved"));
        }
        if new.desired < old.desired {
            return Some(format!("task {id} is wanted again"));
        }
        if old.verdict.is_some() && old.verdict != new.verdict {
            return Some(format!("the verdict on task {id} changed"));
        }
        if new.version != old.version && !is_revised(after, id, old.version, new.version) {
            return Some(format!("task {id} changed its version"));
        }
        match (&old.status, &new.status) {
            (Some(_), None) => return Some(format!("task {id} lost its status")),
            (Some(was), Some(is)) if is.order() < was.order() => {
                return Some(format!("the status of task {id} went back from {was:?} to {is:?}"));
            }
            (Some(_) | None, _) => {}
        }
    }
    None
}

/// Every job's runs that are kept.
fn runs(state: &State) -> impl Iterator<Item = (ServiceId, u32, &Run)> {
    state.services().flat_map(|(id, service)| {
        let runs = service.job.iter().flat_map(|job| &job.runs);
        runs.map(move |(number, run)| (id, *number, run))
    })
}

/// How the runs ended that did between two states.
fn runs_over(before: &State, after: &State) -> Vec<&'static str> {
    let went_on =
        |id, number| before.service(id).and_then(|service| service.job.as_ref()?.goes_on(number)).is_some();
    let over = runs(after).filter(|(id, number, run)| run.end.is_some() && went_on(*id, *number));
    over.filter_map(|(.., run)| match run.end.as_ref()?.how {
        Ending::Succeeded => Some("run succeeded"),
        Ending::Failed { .. } => Some("run failed"),
        Ending::Stopped { .. } => Some("run stopped"),
    })
    .collect()
}

/// Whether a task may have become one of another version: its container did not have to change for that.
fn is_revised(after: &State, id: TaskId, from: SpecVersion, to: SpecVersion) -> bool {
    let Some(service) = after.service(id.service) else { return false };
    match (service.templates.get(&from), service.templates.get(&to)) {
        (Some(from), Some(to)) => from.difference(to) != Difference::Replace,
        // What it was made from before is forgotten.
        (_, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use model::{ClusterId, Subnet, Timestamp};
    use state::command::Authority;
    use state::{Command, Proposal};

    use super::*;

    fn founded(cluster: u128, at: u64) -> State {
        let range = Subnet { base: [10, 1, 0, 0].into(), prefix: 16 };
        let authority = Authority { certificate_pem: String::new(), key_pem: String::new() };
        let found = Command::Found { cluster: ClusterId(cluster), range, node_prefix: 24, authority };
        let mut state = State::new();
        state.apply(
            LogIndex(at),
            &Proposal { at: Timestamp(1), request: None, by: None, commands: vec![found] },
        );
        state
    }

    #[test]
    fn two_managers_with_different_states_at_one_index_are_noticed() {
        let trace = Trace::new();
        let check = Check::new(trace.clone());
        check.state(NodeId(1), &founded(1, 5));
        check.state(NodeId(2), &founded(1, 5));
        assert!(!trace.is_broken());
        check.state(NodeId(3), &founded(2, 5));
        assert!(trace.is_broken());
    }

    #[test]
    fn two_leaders_in_one_term_are_noticed() {
        let trace = Trace::new();
        let check = Check::new(trace.clone());
        check.leadership(NodeId(1), Leadership::Leader { term: 3 });
        check.leadership(NodeId(2), Leadership::Leader { term: 4 });
        assert!(!trace.is_broken());
        check.leadership(NodeId(2), Leadership::Leader { term: 3 });
        assert!(trace.is_broken());
    }

    #[test]
    fn an_acknowledged_request_that_is_nowhere_is_lost() {
        let check = Check::new(Trace::new());
        check.acknowledged(RequestId(9), "scale a/web to 3");
        assert_eq!(check.lost(&founded(1, 5)), ["scale a/web to 3"]);
    }
}
