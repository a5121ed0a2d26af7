//! `apply`: the one place where rows change.

mod cluster;
mod images;
mod jobs;
mod registries;
mod rollouts;
mod stacks;
mod tasks;

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Digest, LogIndex, Name, NodeId, RegistryName, ServiceId, TaskId};

use crate::command::{Command, Outcome, Proposal};
use crate::retention;
use crate::tables::{Recorded, State};

/// What one proposal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// One for each command, in order.
    pub outcomes: Vec<Outcome>,
    /// The rows that are different now, or gone.
    pub changes: BTreeSet<Change>,
}

/// A row that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Cluster,
    Node(NodeId),
    Stack(Name),
    Service(ServiceId),
    /// With the node that the row names, so that a node's own changes can be told even when the row is gone.
    Task(TaskId, Option<NodeId>),
    Image(Digest),
    Registry(RegistryName),
}

/// One proposal on its way through the tables.
pub(crate) struct Step<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) at: LogIndex,
    /// Who asks.
    pub(crate) by: Option<&'a str>,
    pub(crate) changes: BTreeSet<Change>,
}

impl State {
    /// Applies the log entry at index `at`. The same on every manager: it depends on nothing but its arguments.
    pub fn apply(&mut self, at: LogIndex, proposal: &Proposal) -> Applied {
        self.applied = at;
        self.time = self.time.max(proposal.at);
        retention::expire_requests(self);
        if let Some(recorded) = proposal.request.and_then(|request| self.requests.get(&request)) {
            return Applied { outcomes: recorded.outcomes.to_vec(), changes: BTreeSet::new() };
        }
        let by = proposal.by.as_deref();
        let mut step = Step { state: self, at, by, changes: BTreeSet::new() };
        let outcomes: Vec<Outcome> = proposal.commands.iter().map(|command| step.judge(command)).collect();
        step.note_idle_images();
        let changes = step.changes;
        if let Some(request) = proposal.request {
            let recorded = Recorded { at: self.time, outcomes: Arc::new(outcomes.clone()) };
            self.request_ages.insert((recorded.at, request));
            self.requests.insert(request, recorded);
        }
        Applied { outcomes, changes }
    }
}

impl Step<'_> {
    fn judge(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Found { cluster, range, node_prefix, authority } => {
                self.found(*cluster, *range, *node_prefix, authority)
            }
            Command::PutToken { digest, role, expires } => self.put_token(*digest, *role, *expires),
            Command::AdmitNode { name, role, address, token, key } => {
                self.admit_node(name, *role, *address, *token, *key)
            }
            Command::DescribeNode { node, address, labels, capacity, platform, version } => {
                self.describe_node(*node, *address, labels, *capacity, platform.as_ref(), version)
            }
            Command::SetAvailability { node, availability } => self.set_availability(*node, *availability),
            Command::LabelNode { node, labels } => self.label_node(*node, labels),
            Command::RemoveNode { node } => self.remove_node(*node),
            Command::Configure { strategy } => self.configure(*strategy),
            Command::SetLiveness { node, ready } => self.set_liveness(*node, *ready),
            Command::Deploy { stack, services, expected } => self.deploy(stack, services, *expected),
            Command::RemoveStack { stack } => self.remove_stack(stack),
            Command::Scale { service, replicas, expected } => self.scale(service, *replicas, *expected),
            Command::Undo { service, to } => self.undo(service, *to),
            Command::Restart { service } => self.restart(service),
            Command::Steer { service, how } => self.steer(service, *how),
            Command::RunJob { service } => self.run_job(service),
            Command::StopJob { service } => self.stop_job(service),
            Command::Due { service, at } => self.due(*service, *at),
            Command::EndRun { service, run, how } => self.end_run(*service, *run, how),
            Command::Advance { service, to, how } => self.advance(*service, *to, how),
            Command::Revise { task, version } => self.revise(*task, *version),
            Command::DropService { service } => self.drop_service(*service),
            Command::CreateTask { task, version, run, avoid } => {
                self.create_task(*task, *version, *run, *avoid)
            }
            Command::Assign { task, node } => self.assign(*task, *node),
            Command::Move { task } => self.move_task(*task),
            Command::SetDesired { task, desired } => self.set_desired(*task, *desired),
            Command::Conclude { task, verdict } => self.conclude(*task, *verdict),
            Command::Report { node, statuses } => self.report(*node, statuses),
            Command::PutImage { name, image, size, holder } => self.put_image(name, *image, *size, *holder),
            Command::NameImage { name, image, size, origin, automatic } => {
                self.name_image(name, *image, *size, origin.as_ref(), *automatic)
            }
            Command::RemoveImage { name } => self.remove_image(name),
            Command::KeepCopy { image, node } => self.keep_copy(*image, *node),
            Command::ReportImages { node, held } => self.report_images(*node, held),
            Command::DropImage { image } => self.drop_image(*image),
            Command::PutRegistry { registry, change } => self.put_registry(registry, change),
            Command::RemoveRegistry { registry } => self.remove_registry(registry),
        }
    }
}
