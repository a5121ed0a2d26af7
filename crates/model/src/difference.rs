//! How two versions of a task differ: whether a running container can become the other.

use std::collections::BTreeMap;

use crate::{Limits, PlacementPolicy, PullPolicy, Resources, RestartPolicy, TaskSpec, Template};

/// What has to be done for a task of one version to be of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// They are the same.
    None,
    /// What differs is read where it is needed, or can be changed while the container runs: its labels, its limits, what is
    /// reserved for it and where it may be, when it is restarted and how its image is pulled.
    InPlace,
    /// It takes another container.
    Replace,
}

impl Template {
    /// From this version to `other`.
    pub fn difference(&self, other: &Self) -> Difference {
        if self.is_like(other) {
            return Difference::None;
        }
        let same = self.image == other.image
            && self.restarted == other.restarted
            && unchangeable(&self.task) == unchangeable(&other.task)
            && can_change(self.task.resources.limits, other.task.resources.limits);
        if same { Difference::InPlace } else { Difference::Replace }
    }
}

/// A spec with all that can be changed in place left out.
fn unchangeable(spec: &TaskSpec) -> TaskSpec {
    // Every field is named, so that a new one is thought about.
    let TaskSpec {
        image,
        entrypoint,
        command,
        environment,
        labels: _,
        working_dir,
        user,
        ports,
        resources: _,
        restart: _,
        placement: _,
        container,
        health,
        readiness,
        pull: _,
    } = spec;
    TaskSpec {
        image: image.clone(),
        entrypoint: entrypoint.clone(),
        command: command.clone(),
        environment: environment.clone(),
        labels: BTreeMap::new(),
        working_dir: working_dir.clone(),
        user: user.clone(),
        ports: ports.clone(),
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: PlacementPolicy::default(),
        container: container.clone(),
        health: health.clone(),
        readiness: readiness.clone(),
        pull: PullPolicy::default(),
    }
}

/// A limit can be set where there was none, but for memory, of which more may be in use already; it can be changed, but to less
/// memory; and none is taken away, since a kernel's own is not to be had back on every host.
fn can_change(from: Limits, to: Limits) -> bool {
    let memory = match (from.memory, to.memory) {
        (Some(from), Some(to)) => to >= from,
        (from, to) => from == to,
    };
    memory && !(from.cpu.is_some() && to.cpu.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, MilliCpu};

    #[test]
    fn a_limit_is_changed_in_place_where_the_kernel_takes_it() {
        let memory = |bytes| Limits { memory: Some(Bytes(bytes)), ..Limits::default() };
        let cpu = |millis| Limits { cpu: Some(MilliCpu(millis)), ..Limits::default() };
        let none = Limits::default();
        for (from, to, can) in [
            (memory(1), memory(2), true),
            (memory(2), memory(1), false),
            (none, memory(1), false),
            (memory(1), none, false),
            (none, cpu(1), true),
            (cpu(2), cpu(1), true),
            (cpu(1), none, false),
            (none, Limits { pids: Some(7), ..none }, true),
            (Limits { pids: Some(7), ..none }, none, true),
        ] {
            assert_eq!(can_change(from, to), can, "{from:?} to {to:?}");
        }
    }
}
