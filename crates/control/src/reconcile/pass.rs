//! One pass: plan for what is dirty and place what is unplaced, on a clone that sees every command before it.

use std::collections::{BTreeMap, BTreeSet};

use controllers::Object;
use model::{TaskId, Timestamp};
use state::{Command, Proposal, State};

/// The most commands that one pass plans, and the most assignments that it adds to them; the rest is for the next pass.
/// Each has ids in it, or one digest, and no more than 100 bytes: the log entry has 400 KiB at most, where the store takes
/// two MiB.
const COMMANDS: usize = 2000;

/// How often one object is planned for within a pass. A slot's end takes two rounds (its task is concluded, then
/// replaced); what is not at rest after this many is looked at again in the next pass.
const ROUNDS: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) commands: Vec<Command>,
    pub(crate) wakes: BTreeMap<Object, Timestamp>,
    /// What was not planned for, or not to the end, since the pass was full.
    pub(crate) rest: BTreeSet<Object>,
}

/// The same for the dry run and for the loop: no effects, and no reading but of its arguments.
pub(crate) fn run(state: &State, dirty: &BTreeSet<Object>, now: Timestamp) -> Pass {
    let mut working = state.clone();
    let mut pass = Pass::default();
    for object in dirty {
        attend(&mut working, &mut pass, *object, now);
    }
    let unplaced: Vec<TaskId> = working.unplaced().collect();
    pass.commands.extend(scheduler::place(&working, &unplaced, COMMANDS).commands);
    pass
}

/// Plans for one object until it is at rest or the pass is full.
fn attend(working: &mut State, pass: &mut Pass, object: Object, now: Timestamp) {
    for _ in 0..ROUNDS {
        let room = COMMANDS - pass.commands.len();
        if room == 0 {
            pass.rest.insert(object);
            return;
        }
        let mut plan = controllers::plan(working, object, now);
        match plan.wake_at {
            Some(at) => pass.wakes.insert(object, at),
            None => pass.wakes.remove(&object),
        };
        if plan.commands.is_empty() {
            return;
        }
        // A service of many slots has a plan of many commands. They are judged one by one, and none needs a later one, so
        // that the first of them are a plan as well.
        if plan.commands.len() > room {
            plan.commands.truncate(room);
            pass.rest.insert(object);
        }
        adopt(working, now, &plan.commands);
        pass.commands.extend(plan.commands);
    }
}

fn adopt(working: &mut State, now: Timestamp, commands: &[Command]) {
    let proposal = Proposal { at: now, request: None, by: None, commands: commands.to_vec() };
    working.apply(working.applied(), &proposal);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::World;

    /// What the store takes.
    const LARGEST: usize = 2 << 20;

    #[test]
    fn a_plan_that_is_larger_than_a_pass_is_followed_in_parts() {
        let slots = 2 * COMMANDS + 10;
        let mut world = World::of(&format!("nodes n1\n service hello/web x{slots}\n deploy"));
        let mut dirty = BTreeSet::from([Object::Service(world.service("web"))]);
        let mut made = Vec::new();
        while !dirty.is_empty() {
            let pass = run(&world.state, &dirty, world.now);
            let proposal =
                Proposal { at: world.now, request: None, by: None, commands: pass.commands.clone() };
            assert!(wire::log::encode(&proposal).len() < LARGEST / 4);
            world.must_all(pass.commands);
            made.push(world.state.tasks().count());
            dirty = pass.rest;
        }
        assert_eq!(made, [COMMANDS, 2 * COMMANDS, slots]);
    }

    #[test]
    fn what_follows_a_full_pass_is_for_the_next_one() {
        let slots = COMMANDS;
        let world = World::of(&format!(
            "nodes n1
             service hello/many x{slots}
             service hello/one x1
             deploy"
        ));
        let dirty = BTreeSet::from(["many", "one"].map(|name| Object::Service(world.service(name))));
        let pass = run(&world.state, &dirty, world.now);
        assert!(pass.rest.contains(&Object::Service(world.service("one"))));
        assert!(pass.commands.len() <= 2 * COMMANDS);
    }

    #[test]
    fn tasks_that_no_node_takes_do_not_keep_others_from_being_placed() {
        let many = COMMANDS + 1;
        let world = World::of(&format!(
            "nodes n1 cpu=1
             service hello/big x{many} cpu=2
             service hello/small x1
             deploy
             plan"
        ));
        let small = world.task("small.1");
        let pass = run(&world.state, &BTreeSet::new(), world.now);
        assert_eq!(pass.commands, [Command::Assign { task: small, node: world.node("n1") }]);
    }
}
