//! The slots of a service: each is to be filled by one task of the version that it should have.

use std::cell::LazyCell;

use model::{ServiceId, Timestamp};
use state::{Service, State};

use crate::rollout::Engine;
use crate::slots::{self, Creation, Refill, Standing};
use crate::{Plan, SlotNote, Waiting, dependencies};

pub(crate) fn plan(state: &State, id: ServiceId, service: &Service, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let slots = slots::slots(state, id);
    for (slot, tasks) in &slots {
        slots::tidy(state, service, *slot, tasks, now, &mut plan);
    }
    let mut creation = Creation::new(id, service);
    // Asked for an empty slot only: most plans find none.
    let held_back = LazyCell::new(|| dependencies::holds_back(state, id, service, now));
    let mut engine = Engine::new(state, id, service, now);
    for slot in state.slots(service) {
        let tasks = slots.get(&slot).map_or(&[][..], Vec::as_slice);
        let want = engine.next(tasks);
        engine.count_failures(slot, tasks);
        match slots::standing(state, tasks) {
            Standing::Held(holder) => {
                slots::remove(&holder.surplus, &mut plan);
                engine.holds(slot, want, &holder, tasks, &mut plan);
            }
            Standing::Leaving(task) => {
                engine.is_busy();
                plan.notes.push(SlotNote { slot, why: Waiting::ForItsPredecessor(task) });
            }
            Standing::Empty { last } => match slots::refill(service, want, last, tasks, now) {
                Refill::Now { avoid } => {
                    engine.is_busy();
                    match &*held_back {
                        Some((why, until)) => {
                            until.iter().for_each(|at| plan.wake(*at));
                            plan.notes.push(SlotNote { slot, why: why.clone() });
                        }
                        None => plan.commands.push(creation.fill(slot, want, 0, avoid)),
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
        engine.advance(&mut creation, &mut plan);
    }
    plan
}
