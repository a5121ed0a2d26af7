//! Tasks: created and told by controllers, placed by the scheduler, reported by agents.

use std::sync::Arc;

use model::{Desired, NodeId, Placement, SpecVersion, Task, TaskId, TaskStatus, TaskVerdict};

use crate::apply::{Change, Step};
use crate::command::{Done, Lacking, Outcome, Rejected};
use crate::retention;
use crate::tables::{NodeRow, Service};

impl Step<'_> {
    pub(super) fn create_task(
        &mut self,
        id: TaskId,
        version: SpecVersion,
        run: u32,
        avoid: Option<NodeId>,
    ) -> Outcome {
        let service = self.state.service(id.service).ok_or(Rejected::NoServiceId(id.service))?;
        if service.removing {
            return Err(Rejected::Removing(id.service));
        }
        if !service.templates.contains_key(&version) {
            return Err(Rejected::NoVersion(id.service, version));
        }
        let is_for_a_run = service.job.as_ref().is_some_and(|job| job.goes_on(run).is_some());
        if is_for_a_run != service.spec.job.is_some() || (run > 0 && !is_for_a_run) {
            return Err(Rejected::NoRun(id.service, run));
        }
        if id.sequence != service.next_sequence || id.slot == 0 {
            return Err(Rejected::OutOfSequence(id));
        }
        let service = Service { next_sequence: id.sequence + 1, ..service.clone() };
        // No change of the service that anyone plans by: only the task is announced.
        self.state.services.insert(id.service, Arc::new(service));
        let task = Task {
            version,
            run,
            created: self.state.time,
            desired: Desired::Running,
            avoid,
            leaves: false,
            placement: None,
            status: None,
            verdict: None,
        };
        self.put_task(id, task);
        Ok(Done::Changed)
    }

    pub(super) fn assign(&mut self, id: TaskId, node_id: NodeId) -> Outcome {
        let task = self.state.task(id).ok_or(Rejected::NoTask(id))?;
        if task.placement.is_some() {
            return Err(Rejected::AlreadyAssigned(id));
        }
        if task.desired != Desired::Running || !task.is_live() {
            return Err(Rejected::NotWanted(id));
        }
        if self.state.bound_to(id).is_some_and(|bound| bound != node_id) {
            return Err(Rejected::NotItsNode(id, node_id));
        }
        let row = self.state.nodes.get(&node_id).ok_or(Rejected::NoNode(node_id))?;
        if !row.node.takes_tasks() {
            return Err(Rejected::NodeUnavailable(node_id));
        }
        let template = self.state.template_of(id).ok_or(Rejected::NoVersion(id.service, task.version))?;
        let does_not_fit = |lacking| Rejected::DoesNotFit { task: id, node: node_id, lacking };
        let occupancy = self.state.occupancy(node_id);
        let (wanted, ports) = (&template.task.resources.reservations, &template.task.ports);
        if let Some(most) = template.task.placement.max_per_node
            && occupancy.of_service(id.service) >= most.get()
        {
            return Err(does_not_fit(Lacking::Places(most.get())));
        }
        if let Some(lacking) = occupancy.lacks(&row.node, wanted, ports) {
            return Err(does_not_fit(lacking));
        }
        let (ports, next_port) =
            occupancy.choose_ports(&row.node, ports, row.next_port).map_err(does_not_fit)?;
        let (address, next_address) = occupancy
            .next_address(&row.node, row.next_address)
            .ok_or_else(|| does_not_fit(Lacking::Address))?;
        let placement = Placement { node: node_id, at: self.state.time, address, ports };
        let task = Task { placement: Some(placement), ..task.clone() };
        let row = NodeRow { next_address, next_port, ..NodeRow::clone(row) };
        // Nothing of it that an index is made of has changed.
        self.state.nodes.insert(node_id, Arc::new(row));
        self.put_task(id, task);
        Ok(Done::Changed)
    }

    pub(super) fn move_task(&mut self, id: TaskId) -> Outcome {
        let task = self.state.task(id).ok_or(Rejected::NoTask(id))?;
        if task.desired != Desired::Running || task.occupies().is_none() {
            return Err(Rejected::NotWanted(id));
        }
        if task.leaves {
            return Ok(Done::Unchanged);
        }
        let task = Task { leaves: true, ..task.clone() };
        self.put_task(id, task);
        Ok(Done::Changed)
    }

    pub(super) fn set_desired(&mut self, id: TaskId, desired: Desired) -> Outcome {
        let task = self.state.task(id).ok_or(Rejected::NoTask(id))?;
        // What is wanted of a task only ever moves towards its end.
        if desired <= task.desired {
            return Ok(Done::Unchanged);
        }
        let mut task = Task { desired, ..task.clone() };
        if task.placement.is_none() {
            task.verdict.get_or_insert(TaskVerdict::Ended);
        }
        self.put_task(id, task);
        self.forget_what_is_over(id);
        Ok(Done::Changed)
    }

    pub(super) fn conclude(&mut self, id: TaskId, verdict: TaskVerdict) -> Outcome {
        let task = self.state.task(id).ok_or(Rejected::NoTask(id))?;
        if task.verdict.is_some() {
            return Ok(Done::Unchanged);
        }
        match verdict {
            TaskVerdict::Ended if task.occupies().is_some() => return Err(Rejected::StillRunning(id)),
            TaskVerdict::Ended | TaskVerdict::Lost => {}
        }
        let task = Task { verdict: Some(verdict), ..task.clone() };
        self.put_task(id, task);
        self.forget_what_is_over(id);
        Ok(Done::Changed)
    }

    pub(super) fn report(&mut self, node: NodeId, statuses: &[(TaskId, TaskStatus)]) -> Outcome {
        if self.state.node(node).is_none() {
            return Err(Rejected::NoNode(node));
        }
        let mut done = Done::Unchanged;
        for (id, status) in statuses {
            let Some(task) = self.state.task(*id) else { continue };
            let is_there = task.placement.as_ref().is_some_and(|placement| placement.node == node);
            let is_news = task.status.as_ref().is_none_or(|known| status.supersedes(known));
            if is_there && is_news {
                // A node whose clock is ahead must not have its slots rest until then.
                let status = TaskStatus { at: status.at.min(self.state.time), ..status.clone() };
                let task = Task { status: Some(status), ..task.clone() };
                self.put_task(*id, task);
                self.forget_what_is_over(*id);
                done = Done::Changed;
            }
        }
        Ok(done)
    }

    pub(super) fn put_task(&mut self, id: TaskId, task: Task) {
        let node = task.placement.as_ref().map(|placement| placement.node);
        self.state.put_task(id, Arc::new(task));
        self.changes.insert(Change::Task(id, node));
    }

    fn forget_what_is_over(&mut self, id: TaskId) {
        let trimmed = retention::trim_slot(self.state, id);
        self.changes.extend(trimmed.tasks.into_iter().map(|(gone, node)| Change::Task(gone, node)));
        self.changes.extend(trimmed.images.into_iter().map(Change::Image));
    }
}
