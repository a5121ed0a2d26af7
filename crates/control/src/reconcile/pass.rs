//! One pass: plan for what is dirty and place what is unplaced, on a clone that sees every command before it.

use std::collections::{BTreeMap, BTreeSet};

use controllers::Object;
use model::{TaskId, Timestamp};
use state::{Command, Proposal, State};

/// The most commands that one pass proposes: a log entry of some 100 KiB. The rest is planned in the next pass.
const COMMANDS: usize = 2000;

/// How often one object is planned for within a pass. A slot's end takes two rounds (its task is concluded, then
/// replaced); what is not at rest after this many is looked at again in the next pass.
const ROUNDS: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) commands: Vec<Command>,
    pub(crate) wakes: BTreeMap<Object, Timestamp>,
    /// What was not planned for, since the pass was full.
    pub(crate) rest: BTreeSet<Object>,
}

/// The same for the dry run and for the loop: no effects, and no reading but of its arguments.
pub(crate) fn run(state: &State, dirty: &BTreeSet<Object>, now: Timestamp) -> Pass {
    let mut working = state.clone();
    let mut pass = Pass::default();
    for object in dirty {
        if pass.commands.len() >= COMMANDS {
            pass.rest.insert(*object);
            continue;
        }
        for _ in 0..ROUNDS {
            let plan = controllers::plan(&working, *object, now);
            match plan.wake_at {
                Some(at) => pass.wakes.insert(*object, at),
                None => pass.wakes.remove(object),
            };
            if plan.commands.is_empty() {
                break;
            }
            adopt(&mut working, now, &plan.commands);
            pass.commands.extend(plan.commands);
        }
    }
    let unplaced: Vec<TaskId> = working.unplaced().take(COMMANDS).collect();
    pass.commands.extend(scheduler::place(&working, &unplaced).commands);
    pass
}

fn adopt(working: &mut State, now: Timestamp, commands: &[Command]) {
    let proposal = Proposal { at: now, request: None, commands: commands.to_vec() };
    working.apply(working.applied(), &proposal);
}
