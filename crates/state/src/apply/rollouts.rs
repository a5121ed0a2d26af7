//! How services move between their versions.

use model::{
    Bytes, Cause, Difference, MilliCpu, Reservations, Rollout, RolloutPhase, ServiceId, ServiceName,
    ServiceSpec, SpecVersion, TaskId, Template,
};

use crate::apply::Step;
use crate::command::{Advance, Done, Outcome, Rejected, Steer};
use crate::tables::{Service, State};

impl Step<'_> {
    pub(super) fn undo(&mut self, name: &ServiceName, to: Option<SpecVersion>) -> Outcome {
        let (id, service) = self.rolled_out(name)?;
        let to = match to {
            Some(version) if service.templates.contains_key(&version) => version,
            Some(version) => return Err(Rejected::VersionGone { service: name.clone(), version }),
            None => service.way_back().ok_or_else(|| Rejected::NothingToUndo(name.clone()))?,
        };
        if to == service.version {
            return Ok(Done::Unchanged);
        }
        Ok(self.go_to(id, service, to, Cause::Undo, None))
    }

    pub(super) fn restart(&mut self, name: &ServiceName) -> Outcome {
        let (id, mut service) = self.rolled_out(name)?;
        let current = &service.templates[&service.version];
        // Of all that are kept, or two restarts of one version would be alike.
        let restarts =
            service.templates.values().map(|template| template.restarted).max().unwrap_or_default();
        let template = Template {
            restarted: restarts + 1,
            made: self.state.time,
            by: self.by.map(str::to_owned),
            stable: None,
            ..current.clone()
        };
        let to = SpecVersion(service.last_version.0 + 1);
        service.templates.insert(to, template);
        Ok(self.go_to(id, service, to, Cause::Restart, None))
    }

    pub(super) fn steer(&mut self, name: &ServiceName, how: Steer) -> Outcome {
        let (id, mut service) = self.rolled_out(name)?;
        let Some(rollout) = service.rollout.clone() else { return Err(Rejected::RunOnce(name.clone())) };
        let refuse = |hint: &str| {
            let (service, phase) = (name.clone(), rollout.phase);
            Err(Rejected::CannotSteer { service, phase, hint: hint.to_owned() })
        };
        let now = self.state.time;
        let changed = match (how, rollout.phase) {
            (_, RolloutPhase::Completed) => {
                return refuse("`gantry rollout undo` goes back to the version before");
            }
            (Steer::Abort, RolloutPhase::Running | RolloutPhase::Paused | RolloutPhase::Failed) => {
                if rollout.from == rollout.to {
                    return refuse(
                        "there is nothing before its first version; deploy another, or remove the stack",
                    );
                }
                return Ok(self.go_to(id, service, rollout.from, Cause::Abort, None));
            }
            (Steer::Pause, RolloutPhase::Running) => {
                let reason = self.by.map(|by| format!("by {by}"));
                Rollout { phase: RolloutPhase::Paused, reason, ..rollout }
            }
            (Steer::Pause, RolloutPhase::Paused | RolloutPhase::Failed) => return Ok(Done::Unchanged),
            (Steer::Resume, RolloutPhase::Running) => return Ok(Done::Unchanged),
            (Steer::Resume, RolloutPhase::Paused) => {
                Rollout { phase: RolloutPhase::Running, progressed: now, reason: None, ..rollout }
            }
            (Steer::Resume, RolloutPhase::Failed) => Rollout {
                phase: RolloutPhase::Running,
                began: now,
                progressed: now,
                failed: 0,
                reason: None,
                ..rollout
            },
            (Steer::Promote, RolloutPhase::Running) if rollout.promoted => return Ok(Done::Unchanged),
            (Steer::Promote, RolloutPhase::Running) => {
                Rollout { promoted: true, progressed: now, reason: None, ..rollout }
            }
            (Steer::Promote, RolloutPhase::Paused | RolloutPhase::Failed) => {
                return refuse("`gantry rollout resume` it first");
            }
        };
        service.rollout = Some(changed);
        service.generation = self.at;
        self.put_service(id, service);
        Ok(Done::At(self.at))
    }

    pub(super) fn advance(&mut self, id: ServiceId, to: SpecVersion, how: &Advance) -> Outcome {
        let gone = Rejected::NotItsRollout(id, to);
        let mut service = self.state.service(id).ok_or(Rejected::NoServiceId(id))?.clone();
        let is_it = |rollout: &Rollout| {
            let goes_on = match how {
                // One that failed may get there all the same.
                Advance::Completed => [RolloutPhase::Running, RolloutPhase::Failed].contains(&rollout.phase),
                Advance::Progressed { .. }
                | Advance::Promoted
                | Advance::Failed { .. }
                | Advance::RolledBack { .. } => rollout.phase == RolloutPhase::Running,
            };
            rollout.to == to && goes_on
        };
        let Some(rollout) = service.rollout.clone().filter(|rollout| !service.removing && is_it(rollout))
        else {
            return Err(gone);
        };
        let now = self.state.time;
        let changed = match how {
            Advance::Progressed { done, failed } => {
                let progressed = if *done > rollout.done { now } else { rollout.progressed };
                let (done, failed) = (rollout.done.max(*done), rollout.failed.max(*failed));
                Rollout { progressed, done, failed, ..rollout.clone() }
            }
            Advance::Promoted => Rollout { promoted: true, progressed: now, reason: None, ..rollout.clone() },
            Advance::Completed => {
                if let Some(template) = service.templates.get_mut(&to) {
                    template.stable = Some(now);
                }
                // Why it went back stays to be seen; that it had failed is over.
                let reason = rollout.reason.clone().filter(|_| rollout.phase != RolloutPhase::Failed);
                let done = self.state.slot_count(&service);
                Rollout { phase: RolloutPhase::Completed, done, reason, ..rollout.clone() }
            }
            Advance::Failed { reason } => {
                Rollout { phase: RolloutPhase::Failed, reason: Some(reason.clone()), ..rollout.clone() }
            }
            Advance::RolledBack { to: back, reason } => {
                if !service.templates.contains_key(back) || *back == to {
                    return Err(Rejected::NoVersion(id, *back));
                }
                return Ok(self.go_to(id, service, *back, Cause::Rollback, Some(reason.clone())));
            }
        };
        if changed == rollout {
            return Ok(Done::Unchanged);
        }
        service.rollout = Some(changed);
        self.put_service(id, service);
        // Versions that its tasks had before may not be needed any more.
        self.forget_templates(id);
        Ok(Done::Changed)
    }

    pub(super) fn revise(&mut self, id: TaskId, version: SpecVersion) -> Outcome {
        self.state.can_revise(id, version, &Reservations::default())?;
        let task = self.state.task(id).ok_or(Rejected::NoTask(id))?;
        if task.version == version {
            return Ok(Done::Unchanged);
        }
        let task = model::Task { version, ..task.clone() };
        self.put_task(id, task);
        Ok(Done::Changed)
    }

    /// A service that is declared now and is not run once.
    fn rolled_out(&self, name: &ServiceName) -> Result<(ServiceId, Service), Rejected> {
        let (id, service) =
            self.state.service_named(name).ok_or_else(|| Rejected::NoService(name.clone()))?;
        if service.spec.task.is_one_off() {
            return Err(Rejected::RunOnce(name.clone()));
        }
        if service.spec.job.is_some() {
            return Err(Rejected::IsJob(name.clone()));
        }
        Ok((id, service.clone()))
    }

    /// Makes one of the service's versions its own, and its spec that version's; `why` is for a person.
    fn go_to(
        &mut self,
        id: ServiceId,
        mut service: Service,
        to: SpecVersion,
        cause: Cause,
        why: Option<String>,
    ) -> Done {
        self.lets_go(&service.spec.task.image);
        if let Some(template) = service.templates.get(&to) {
            service.spec.task = model::TaskSpec::clone(&template.task);
        }
        service.generation = self.at;
        self.turn(&mut service, to, cause);
        service.rollout = service.rollout.map(|rollout| Rollout { reason: why, ..rollout });
        self.put_service(id, service);
        self.forget_templates(id);
        Done::At(self.at)
    }

    /// Begins a rollout to a version that the service has.
    pub(super) fn turn(&self, service: &mut Service, to: SpecVersion, cause: Cause) {
        let from = std::mem::replace(&mut service.version, to);
        service.last_version = service.last_version.max(to);
        service.rollout = self.rollout(&service.spec, (from, to), cause);
    }

    pub(super) fn rollout(
        &self,
        spec: &ServiceSpec,
        (from, to): (SpecVersion, SpecVersion),
        cause: Cause,
    ) -> Option<Rollout> {
        let now = self.state.time;
        (!spec.task.is_one_off() && spec.job.is_none()).then(|| Rollout {
            from,
            to,
            cause,
            began: now,
            phase: RolloutPhase::Running,
            progressed: now,
            done: 0,
            failed: 0,
            promoted: cause != Cause::Deploy || spec.update.canaries == 0,
            reason: None,
        })
    }
}

impl Service {
    /// Where a service goes back to: the version that last served, besides the current one; and if none has yet, the one that it
    /// came from.
    pub fn way_back(&self) -> Option<SpecVersion> {
        let others = self.templates.iter().filter(|(version, _)| **version != self.version);
        let served = others.filter_map(|(version, template)| Some((template.stable?, *version)));
        let came_from = self.rollout.as_ref().map(|rollout| rollout.from);
        let known = |version: &SpecVersion| *version != self.version && self.templates.contains_key(version);
        served.max().map(|(_, version)| version).or_else(|| came_from.filter(known))
    }
}

impl State {
    /// Whether a task can become one of `version` without another container: nothing differs that its container is made from,
    /// and its node admits the new version and has room for it, beside what is `promised` there. Returns what it asks for more.
    pub fn can_revise(
        &self,
        id: TaskId,
        version: SpecVersion,
        promised: &Reservations,
    ) -> Result<Reservations, Rejected> {
        let task = self.task(id).ok_or(Rejected::NoTask(id))?;
        let service = self.service(id.service).ok_or(Rejected::NoServiceId(id.service))?;
        let no_version = |version| Rejected::NoVersion(id.service, version);
        let old = service.templates.get(&task.version).ok_or_else(|| no_version(task.version))?;
        let new = service.templates.get(&version).ok_or_else(|| no_version(version))?;
        if !task.desired.runs() || !task.is_live() || task.ended().is_some() {
            return Err(Rejected::NotWanted(id));
        }
        if old.difference(new) == Difference::Replace {
            return Err(Rejected::NotInPlace(id, version));
        }
        let Some(placement) = &task.placement else { return Ok(Reservations::default()) };
        let node = self.node(placement.node).ok_or(Rejected::NoNode(placement.node))?;
        let (has, wants) = (&old.task.resources.reservations, &new.task.resources.reservations);
        let more = Reservations {
            cpu: MilliCpu(wants.cpu.0.saturating_sub(has.cpu.0)),
            memory: Bytes(wants.memory.0.saturating_sub(has.memory.0)),
        };
        let free = self.occupancy(placement.node).free(node.capacity);
        let fits =
            more.cpu.0 + promised.cpu.0 <= free.cpu.0 && more.memory.0 + promised.memory.0 <= free.memory.0;
        // What asks for no more than it has asks its node for nothing, which may have shrunk meanwhile.
        let asks_more = more != Reservations::default();
        let admits = new.task.placement.bars(placement.node, node).is_none();
        if !admits || (asks_more && !fits) {
            return Err(Rejected::NotInPlace(id, version));
        }
        Ok(more)
    }
}
