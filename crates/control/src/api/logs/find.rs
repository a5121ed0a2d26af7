//! Whose logs are meant.

use std::collections::{BTreeMap, BTreeSet};

use model::{NodeId, ServiceId, ServiceName, TaskId};
use state::State;

/// Slots of one node whose logs are read at once. Each holds a file open there, of which a daemon may have 1024 where nobody
/// has set another limit.
pub(super) const SLOTS_OF_A_NODE: usize = 200;

/// What a user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Task(TaskId),
    /// Of a service, which is written `stack/service`.
    Slot(String, u32),
    /// A stack or a service.
    Whole(String),
}

/// A task that has a node, and so may have a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) task: TaskId,
    pub(super) node: NodeId,
}

/// There is nothing that is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotFound {
    #[error("there is no task {0}")]
    Task(TaskId),
    #[error("there is no stack, service or task `{0}`")]
    Name(String),
}

impl Scope {
    pub(super) fn of(reference: &str) -> Self {
        if let Ok(id) = reference.parse::<TaskId>() {
            return Self::Task(id);
        }
        let slot = reference.rsplit_once('.').map(|(name, slot)| (name, slot.parse::<u32>()));
        match slot {
            Some((name, Ok(slot))) => Self::Slot(name.to_owned(), slot),
            Some((_, Err(_))) | None => Self::Whole(reference.to_owned()),
        }
    }

    fn names(&self, service: &ServiceName) -> bool {
        match self {
            Self::Task(_) => false,
            Self::Slot(name, _) => service.to_string() == *name,
            Self::Whole(name) => service.stack.as_str() == name || service.to_string() == *name,
        }
    }

    fn has_slot(&self, slot: u32) -> bool {
        match self {
            Self::Task(_) | Self::Whole(_) => true,
            Self::Slot(_, wanted) => *wanted == slot,
        }
    }
}

/// Every task that has been on a node and is still known, also those that have ended: by service, slot and age.
pub(super) fn tasks(state: &State, scope: &Scope) -> Result<Vec<Found>, NotFound> {
    let placed = |(id, task): (TaskId, &model::Task)| {
        task.placement.as_ref().map(|placement| Found { task: id, node: placement.node })
    };
    let name = match scope {
        Scope::Task(id) => {
            let task = state.task(*id).ok_or(NotFound::Task(*id))?;
            return Ok(placed((*id, task)).into_iter().collect());
        }
        Scope::Slot(name, slot) => format!("{name}.{slot}"),
        Scope::Whole(name) => name.clone(),
    };
    let services: Vec<_> =
        state.services().filter(|(_, service)| scope.names(&service.name)).map(|(id, _)| id).collect();
    if services.is_empty() {
        return Err(NotFound::Name(name));
    }
    let tasks = services.into_iter().flat_map(|id| state.tasks_of(id));
    Ok(tasks.filter(|(id, _)| scope.has_slot(id.slot)).filter_map(placed).collect())
}

/// The nodes that would be asked for the logs of too many slots, and of how many. A slot's tasks are read one after the other.
pub(super) fn crowded(found: &[Found]) -> BTreeMap<NodeId, usize> {
    let mut slots: BTreeMap<NodeId, BTreeSet<(ServiceId, u32)>> = BTreeMap::new();
    for Found { task, node } in found {
        slots.entry(*node).or_default().insert((task.service, task.slot));
    }
    let counts = slots.into_iter().map(|(node, slots)| (node, slots.len()));
    counts.filter(|(_, count)| *count > SLOTS_OF_A_NODE).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::fixture::World;

    /// What each of these references stands for in a cluster.
    fn check(fixture: &str, references: &[&str], expected: &Expect) {
        let world = World::of(fixture);
        let mut text = String::new();
        for reference in references {
            let found = match tasks(&world.state, &Scope::of(reference)) {
                Ok(found) if found.is_empty() => "none on a node yet".to_owned(),
                Ok(found) => {
                    found.iter().map(|found| shown(&world.state, found)).collect::<Vec<_>>().join(", ")
                }
                Err(error) => error.to_string(),
            };
            text += &format!("{reference}: {found}\n");
        }
        expected.assert_eq(&text);
    }

    fn shown(state: &State, Found { task, node }: &Found) -> String {
        let ended = state.task(*task).is_some_and(|task| task.ended().is_some() || !task.is_live());
        format!("{task} on {node}{}", if ended { " (ended)" } else { "" })
    }

    #[test]
    fn a_reference_stands_for_every_task_that_is_known_and_has_a_node() {
        check(
            "nodes n1
             service hello/web x2
             service hello/db x1
             service hello/big x1 cpu=99
             service other/api x1
             deploy
             settle
             report web.1 failing
             plan
             tick 2m
             settle",
            &[
                "hello",
                "hello/big",
                "hello/web",
                "hello/web.1",
                "hello/web.9",
                "other",
                "s3-1-1",
                "s1-1-1",
                "s3-1-9",
                "web",
                "hello/web.x",
                "hello/api.1",
            ],
            &expect![[r#"
                hello: s2-1-1 on n1, s3-1-1 on n1 (ended), s3-1-3 on n1, s3-2-2 on n1
                hello/big: none on a node yet
                hello/web: s3-1-1 on n1 (ended), s3-1-3 on n1, s3-2-2 on n1
                hello/web.1: s3-1-1 on n1 (ended), s3-1-3 on n1
                hello/web.9: none on a node yet
                other: s4-1-1 on n1
                s3-1-1: s3-1-1 on n1 (ended)
                s1-1-1: none on a node yet
                s3-1-9: there is no task s3-1-9
                web: there is no stack, service or task `web`
                hello/web.x: there is no stack, service or task `hello/web.x`
                hello/api.1: there is no stack, service or task `hello/api.1`
            "#]],
        );
    }

    #[test]
    fn of_a_slot_that_keeps_failing_five_ended_tasks_are_known() {
        let failures = "report web.1 failing\n plan\n tick 2m\n settle\n".repeat(6);
        check(
            &format!("nodes n1\n service hello/web x2\n deploy\n settle\n {failures}"),
            &["hello/web.1"],
            &expect![[r#"
                hello/web.1: s1-1-3 on n1 (ended), s1-1-4 on n1 (ended), s1-1-5 on n1 (ended), s1-1-6 on n1 (ended), s1-1-7 on n1 (ended), s1-1-8 on n1
            "#]],
        );
    }

    #[test]
    fn ended_tasks_of_a_slot_do_not_crowd_a_node() {
        let found = |slots: u32, tasks: u64| -> Vec<Found> {
            let service = ServiceId(1);
            let ids = (1..=slots)
                .flat_map(|slot| (1..=tasks).map(move |sequence| TaskId { service, slot, sequence }));
            ids.map(|task| Found { task, node: NodeId(1 + u64::from(task.slot % 2)) }).collect()
        };
        assert_eq!(crowded(&[]), BTreeMap::new());
        assert_eq!(crowded(&found(400, 6)), BTreeMap::new());
        assert_eq!(crowded(&found(401, 2)), BTreeMap::from([(NodeId(2), 201)]));
        assert_eq!(crowded(&found(900, 1)), BTreeMap::from([(NodeId(1), 450), (NodeId(2), 450)]));
    }
}
