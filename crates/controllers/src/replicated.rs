//! The slots of a replicated service: each is to be filled by one task of the version that it should have.

use model::{Desired, ServiceId, SpecVersion, TaskId, TaskVerdict, Timestamp};
use state::{Command, Service, State};

use crate::rollout::Engine;
use crate::slots::{self, Refill, Slots, Standing};
use crate::{Plan, SlotNote, Waiting};

pub(crate) fn plan(state: &State, id: ServiceId, service: &Service, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let slots = slots::slots(state, id);
    conclude(&slots, service.spec.replicas, &mut plan);
    shrink(&slots, service.spec.replicas, &mut plan);
    let mut next_sequence = service.next_sequence;
    let mut create = |slot: u32, version: SpecVersion, avoid| {
        let task = TaskId { service: id, slot, sequence: next_sequence };
        next_sequence += 1;
        Command::CreateTask { task, version, avoid }
    };
    let mut engine = Engine::new(state, id, service, now);
    for slot in 1..=service.spec.replicas {
        let tasks = slots.get(&slot).map_or(&[][..], Vec::as_slice);
        let want = engine.want(slot, tasks);
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
                    plan.commands.push(create(slot, want, avoid));
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
        engine.advance(&mut plan, create);
    }
    plan
}

/// What an agent is done with gets control's last word, so that the slot no longer counts on it.
fn conclude(slots: &Slots<'_>, replicas: u32, plan: &mut Plan) {
    let wanted = slots.range(..=replicas);
    let ended =
        wanted.flat_map(|(_, tasks)| tasks).filter(|(_, task)| task.is_live() && task.ended().is_some());
    plan.commands.extend(ended.map(|(id, _)| Command::Conclude { task: *id, verdict: TaskVerdict::Ended }));
}

/// Slots beyond the wanted number lose every task and leave nothing behind.
fn shrink(slots: &Slots<'_>, replicas: u32, plan: &mut Plan) {
    for (id, task) in slots.range(replicas.saturating_add(1)..).flat_map(|(_, tasks)| tasks) {
        if task.desired != Desired::Removed {
            plan.commands.push(Command::SetDesired { task: *id, desired: Desired::Removed });
        }
    }
}
