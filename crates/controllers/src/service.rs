//! The slots of a service: each is to be filled by one task of the version that it should have.

use model::{Desired, Mode, NodeId, ServiceId, SpecVersion, TaskId, TaskVerdict, Timestamp};
use state::{Command, Service, State, Wanted};

use crate::rollout::Engine;
use crate::slots::{self, Refill, Row, Standing};
use crate::{Plan, SlotNote, Waiting, order};

pub(crate) fn plan(state: &State, id: ServiceId, service: &Service, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let slots = slots::slots(state, id);
    for (slot, tasks) in &slots {
        match state.wanted(service, *slot) {
            Wanted::Filled | Wanted::AsItIs => conclude(tasks, &mut plan),
            Wanted::Empty => empty(tasks, &mut plan),
        }
    }
    let mut next_sequence = service.next_sequence;
    let mut create = |slot: u32, version: SpecVersion, avoid: Option<NodeId>| {
        // What is bound to a node has no other to go to.
        let avoid = avoid.filter(|_| service.spec.mode != Mode::Global);
        let task = TaskId { service: id, slot, sequence: next_sequence };
        next_sequence += 1;
        Command::CreateTask { task, version, run: 0, avoid }
    };
    let unmet = order::unmet(state, service);
    let waits = order::holds_back(state, (id, service), unmet.clone(), now, &mut plan);
    let mut engine = Engine::new(state, id, service, now);
    for slot in state.slots(service) {
        let tasks = slots.get(&slot).map_or(&[][..], Vec::as_slice);
        let want = engine.next(tasks);
        engine.count_failures(slot, tasks);
        match slots::standing(state, tasks) {
            Standing::Held(holder) => {
                let remove = |task: &TaskId| Command::SetDesired { task: *task, desired: Desired::Removed };
                plan.commands.extend(holder.surplus.iter().map(remove));
                engine.holds(slot, want, &holder, tasks, &mut plan);
            }
            Standing::Leaving(task) => {
                engine.is_busy();
                plan.notes.push(SlotNote { slot, why: Waiting::ForItsPredecessor(task) });
            }
            Standing::Empty { last } => match slots::refill(service, want, last, tasks, now) {
                Refill::Now { avoid } => {
                    engine.is_busy();
                    match &waits {
                        Some(why) => plan.notes.push(SlotNote { slot, why: why.clone() }),
                        None => plan.commands.push(create(slot, want, avoid)),
                    }
                }
                Refill::Not(why) => {
                    if let Waiting::ToTryAgain { at } = why {
                        plan.wake(at);
                    }
                    engine.rests(slot, &why, want);
                    plan.notes.push(SlotNote { slot, why });
                }
            },
        }
        engine.explain(slot, want, &mut plan);
    }
    plan.done = engine.done();
    if engine.conclude(&mut plan) {
        engine.advance(unmet.as_ref(), &mut plan, create);
    }
    plan
}

/// What an agent is done with gets control's last word, so that the slot no longer counts on it.
pub(crate) fn conclude(tasks: &[Row<'_>], plan: &mut Plan) {
    let ended = tasks.iter().filter(|(_, task)| task.is_live() && task.ended().is_some());
    plan.commands.extend(ended.map(|(id, _)| Command::Conclude { task: *id, verdict: TaskVerdict::Ended }));
}

/// A slot that is not wanted loses every task and leaves nothing behind.
pub(crate) fn empty(tasks: &[Row<'_>], plan: &mut Plan) {
    let kept = tasks.iter().filter(|(_, task)| task.desired != Desired::Removed);
    plan.commands.extend(kept.map(|(id, _)| Command::SetDesired { task: *id, desired: Desired::Removed }));
}
