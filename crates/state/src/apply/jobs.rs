//! Runs of jobs: begun, and ended once.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{
    Difference, Ending, Job, Missed, Overlap, Run, RunCause, RunEnd, ServiceId, ServiceName, ServiceSpec,
    SkipReason, Skipped, SpecVersion, Timestamp,
};

use crate::apply::Step;
use crate::command::{Done, Outcome, Rejected};
use crate::tables::{Service, State};

/// A job that is begun later than this after its time was missed then. A new leader takes seconds.
const LATE: Duration = Duration::from_secs(60);

impl Step<'_> {
    /// Somebody wants it done again.
    pub(super) fn run_job(&mut self, name: &ServiceName) -> Outcome {
        let (id, mut service) = self.job(name)?;
        let active: Vec<u32> = service.job.iter().flat_map(Job::active).map(|(number, _)| number).collect();
        let schedule = service.spec.job.as_ref().and_then(|spec| spec.schedule.as_ref());
        let may_overlap = schedule.is_some_and(|schedule| schedule.overlap == Overlap::Allow);
        let most = if may_overlap { Job::MOST_AT_ONCE } else { 1 };
        if let Some(run) = active.last().copied().filter(|_| active.len() >= most) {
            return Err(Rejected::RunGoesOn { service: name.clone(), run });
        }
        self.add_run(&mut service, RunCause::Asked);
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

    /// Does at a time of the schedule what that says.
    pub(super) fn due(&mut self, id: ServiceId, at: Timestamp) -> Outcome {
        let service = self.state.service(id).ok_or(Rejected::NoServiceId(id))?;
        let schedule = service.spec.job.as_ref().and_then(|spec| spec.schedule.clone());
        let considered = service.job.as_ref().map(|job| job.considered);
        let is_new = considered.is_some_and(|considered| considered < at && at <= self.state.time);
        let Some(schedule) = schedule.filter(|_| is_new && !service.removing) else {
            return Err(Rejected::NotDue(id));
        };
        let mut service = service.clone();
        let going = service.job.iter().flat_map(Job::active).count();
        let is_late = self.state.time.since(at) > LATE;
        let skipped = match (schedule.missed, schedule.overlap) {
            (Missed::Skip, _) if is_late => Some(SkipReason::Missed),
            (_, Overlap::Skip) if going > 0 => Some(SkipReason::Overlap),
            (_, Overlap::Allow) if going >= Job::MOST_AT_ONCE => Some(SkipReason::Overlap),
            (_, Overlap::Replace) => {
                self.begin_run(id, &mut service, RunCause::Schedule(at));
                None
            }
            (_, Overlap::Skip | Overlap::Allow) => {
                self.add_run(&mut service, RunCause::Schedule(at));
                None
            }
        };
        if let Some(job) = &mut service.job {
            job.considered = at;
            job.skipped = skipped.map(|why| Skipped { at, why }).or(job.skipped);
        }
        self.put_service(id, service);
        self.forget_templates(id);
        Ok(Done::Changed)
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

    /// What becomes of a job that is new: it is done, unless it has times of its own, of which those that have passed are not
    /// its own.
    pub(super) fn new_job(&self, id: ServiceId, service: &mut Service) {
        let considered = self.state.time;
        service.job = Some(Job { considered, ..Job::default() });
        if !service.has_schedule() {
            self.begin_run(id, service, RunCause::Deploy);
        }
    }

    /// Times of a schedule that has changed and have passed are not its own either.
    pub(super) fn reschedule(&self, service: &mut Service, before: &ServiceSpec) {
        let times = |spec: &ServiceSpec| spec.job.as_ref().and_then(|job| job.schedule.clone());
        let is_same = match (times(before), times(&service.spec)) {
            (Some(old), Some(new)) => old.has_times_of(&new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if let Some(job) = service.job.as_mut().filter(|_| !is_same) {
            job.considered = self.state.time;
        }
    }

    /// Begins a run that takes the place of those that go on.
    fn begin_run(&self, id: ServiceId, service: &mut Service, cause: RunCause) {
        let next = service.job.as_ref().map_or(1, |job| job.last + 1);
        let reason = format!("run {next} took its place");
        self.end_runs(id, service, &Ending::Stopped { reason });
        self.add_run(service, cause);
    }

    fn add_run(&self, service: &mut Service, cause: RunCause) {
        let by = self.by.map(str::to_owned);
        let run = Run {
            version: service.version,
            cause,
            by,
            began: self.state.time,
            generation: self.at,
            end: None,
        };
        if let Some(job) = &mut service.job {
            job.last += 1;
            job.runs.insert(job.last, run);
            job.forget(service.spec.job.as_ref().map_or(0, |spec| spec.history));
        }
    }

    /// A job that was declared otherwise than it was: what its run does is done again if it takes other containers.
    pub(super) fn rerun(&self, id: ServiceId, service: &mut Service, to: SpecVersion) {
        let from = std::mem::replace(&mut service.version, to);
        service.last_version = service.last_version.max(to);
        let (old, new) = (service.templates.get(&from), service.templates.get(&to));
        match old.zip(new).map(|(old, new)| old.difference(new)) {
            // What is done at its time is done so then.
            None | Some(Difference::Replace) if service.has_schedule() => {}
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

impl Service {
    /// Whether it is a job that is done by itself at times of its own.
    pub fn has_schedule(&self) -> bool {
        self.spec.job.as_ref().is_some_and(|spec| spec.schedule.is_some())
    }
}

impl State {
    /// The slots that succeeded in a run.
    pub fn completed(&self, id: ServiceId, run: u32) -> BTreeSet<u32> {
        let of_run = self.tasks_of(id).filter(|(_, task)| task.run == run);
        of_run.filter(|(_, task)| task.succeeded()).map(|(task, _)| task.slot).collect()
    }
}
