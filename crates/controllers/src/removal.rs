//! A service on its way out: every task is removed, then the service itself is forgotten.

use model::{Desired, ServiceId};
use state::{Command, State};

use crate::Plan;

pub(crate) fn plan(state: &State, id: ServiceId) -> Plan {
    let mut plan = Plan::default();
    let mut tasks = state.tasks_of(id).peekable();
    if tasks.peek().is_none() {
        plan.commands.push(Command::DropService { service: id });
    }
    let staying = tasks.filter(|(_, task)| task.desired != Desired::Removed);
    plan.commands.extend(staying.map(|(task, _)| Command::SetDesired { task, desired: Desired::Removed }));
    plan
}
