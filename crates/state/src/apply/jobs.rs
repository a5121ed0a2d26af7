//! Runs of jobs: begun, and ended once.

use std::collections::BTreeSet;

use model::{Difference, Ending, Job, Run, RunCause, RunEnd, ServiceId, ServiceName, SpecVersion};

use crate::apply::Step;
use crate::command::{Done, Outcome, Rejected};
use crate::tables::{Service, State};

impl Step<'_> {
    /// Somebody wants it done again.
    pub(super) fn run_job(&mut self, name: &ServiceName) -> Outcome {
        let (id, mut service) = self.job(name)?;
        let active = service.job.as_ref().and_then(|job| job.active().next()).map(|(number, _)| number);
        if let Some(run) = active {
            return Err(Rejected::RunGoesOn { service: name.clone(), run });
        }
        self.begin_run(id, &mut service, RunCause::Asked);
        self.put_run(id, service)
    }

    /// Somebody wants that it is not done any more.
    pub(super) fn stop_job(&mut self, name: &ServiceName) -> Outcome {
        let (id, mut service) = self.job(name)?;
        let reason = self.by.map_or_else(|| "by hand".to_owned(), |by| format!("by {by}"));
        if !self.end_runs(id, &mut service, &Ending::Stopped { reason }) {
            return Ok(Done::Unchanged);
        }
        self.put_run(id, service)
    }

    pub(super) fn end_run(&mut self, id: ServiceId, number: u32, how: &Ending) -> Outcome {
        let service = self.state.service(id).ok_or(Rejected::NoServiceId(id))?;
        let is_its = service.job.as_ref().is_some_and(|job| job.goes_on(number).is_some());
        if !is_its || service.removing {
            return Err(Rejected::NoRun(id, number));
        }
        let done = self.state.completed(id, number);
        if *how == Ending::Succeeded && self.state.slots(service).any(|slot| !done.contains(&slot)) {
            return Err(Rejected::RunNotDone(id, number));
        }
        let mut service = service.clone();
        self.end_one(id, &mut service, number, how);
        self.put_service(id, service);
        self.forget_templates(id);
        Ok(Done::Changed)
    }

    /// Begins what a new job, or one that was changed, is there for.
    pub(super) fn begin_run(&self, id: ServiceId, service: &mut Service, cause: RunCause) {
        let number = service.job.get_or_insert_default().last + 1;
        let reason = format!("run {number} took its place");
        self.end_runs(id, service, &Ending::Stopped { reason });
        let by = self.by.map(str::to_owned);
        let run = Run { version: service.version, cause, by, began: self.state.time, end: None };
        if let Some(job) = &mut service.job {
            job.last = number;
            job.runs.insert(number, run);
            job.forget(service.spec.job.as_ref().map_or(0, |spec| spec.history));
        }
    }

    /// A job that was declared otherwise than it was: what its run does is done again if it takes other containers.
    pub(super) fn rerun(&self, id: ServiceId, service: &mut Service, to: SpecVersion) {
        let from = std::mem::replace(&mut service.version, to);
        service.last_version = service.last_version.max(to);
        let (old, new) = (service.templates.get(&from), service.templates.get(&to));
        match old.zip(new).map(|(old, new)| old.difference(new)) {
            None | Some(Difference::Replace) => self.begin_run(id, service, RunCause::Deploy),
            Some(Difference::None | Difference::InPlace) => {
                let runs = service.job.iter_mut().flat_map(|job| job.runs.values_mut());
                runs.filter(|run| run.end.is_none()).for_each(|run| run.version = to);
            }
        }
    }

    fn job(&self, name: &ServiceName) -> Result<(ServiceId, Service), Rejected> {
        let (id, service) =
            self.state.service_named(name).ok_or_else(|| Rejected::NoService(name.clone()))?;
        if service.spec.job.is_none() {
            return Err(Rejected::NoJob(name.clone()));
        }
        Ok((id, service.clone()))
    }

    /// Ends every run that goes on, and tells whether there was one.
    fn end_runs(&self, id: ServiceId, service: &mut Service, how: &Ending) -> bool {
        let active: Vec<u32> = service.job.iter().flat_map(Job::active).map(|(number, _)| number).collect();
        for number in &active {
            self.end_one(id, service, *number, how);
        }
        !active.is_empty()
    }

    fn end_one(&self, id: ServiceId, service: &mut Service, number: u32, how: &Ending) {
        let done = u32::try_from(self.state.completed(id, number).len()).unwrap_or(u32::MAX);
        let history = service.spec.job.as_ref().map_or(0, |spec| spec.history);
        let Some(job) = &mut service.job else { return };
        if let Some(run) = job.runs.get_mut(&number) {
            run.end = Some(RunEnd { at: self.state.time, done, how: how.clone() });
        }
        job.forget(history);
    }

    fn put_run(&mut self, id: ServiceId, mut service: Service) -> Outcome {
        service.generation = self.at;
        self.put_service(id, service);
        self.forget_templates(id);
        Ok(Done::At(self.at))
    }
}

impl State {
    /// The slots that succeeded in a run.
    pub fn completed(&self, id: ServiceId, run: u32) -> BTreeSet<u32> {
        let of_run = self.tasks_of(id).filter(|(_, task)| task.run == run);
        of_run.filter(|(_, task)| task.succeeded()).map(|(task, _)| task.slot).collect()
    }
}
