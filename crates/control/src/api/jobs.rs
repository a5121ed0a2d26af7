//! Jobs and their runs: seen, begun and ended.

use std::collections::BTreeSet;

use controllers::{Object, Plan};
use model::{Ending, Job, Run, ServiceId, Timestamp};
use state::{Command, Service, State, Wanted};
use tonic::Status;
use wire::proto::api::{self, ChangeReply, JobList, JobRequest, JobRun, ListRequest, ServiceProgress};

use crate::api::{Api, refused, rollouts, service_name, views};

/// The jobs of the cluster, of one stack, or the one that is named.
pub(super) fn list(state: &State, request: &ListRequest, now: Timestamp) -> Result<JobList, Status> {
    let filter = request.filter.as_str();
    if filter.contains('/') {
        let name = service_name(filter)?;
        let (id, service) =
            state.service_named(&name).ok_or_else(|| refused(&state::Rejected::NoService(name.clone())))?;
        let job = job(state, id, service, now).ok_or_else(|| refused(&state::Rejected::NoJob(name)))?;
        return Ok(JobList { jobs: vec![job] });
    }
    if !filter.is_empty() && state.stacks().all(|(name, _)| name.as_str() != filter) {
        return Err(Status::not_found(format!("there is no stack `{filter}`")));
    }
    let wanted = state.services().filter(|(_, service)| {
        !service.removing && (filter.is_empty() || service.name.stack.as_str() == filter)
    });
    Ok(JobList { jobs: wanted.filter_map(|(id, service)| job(state, id, service, now)).collect() })
}

fn job(state: &State, id: ServiceId, service: &Service, now: Timestamp) -> Option<api::Job> {
    let job = service.job.as_ref()?;
    let plan = controllers::plan(state, Object::Service(id), now);
    let waiting = waiting(state, id, &plan);
    let schedule = service.spec.job.as_ref().and_then(|spec| spec.schedule.as_ref());
    let next = schedule.and_then(|schedule| schedule.next(now));
    let run = |(number, run): (&u32, &Run)| run_view(state, (id, service), (*number, run), &waiting);
    Some(api::Job {
        service: service.name.to_string(),
        mode: service.spec.mode_name().to_owned(),
        image: service.spec.task.image.to_string(),
        runs: job.runs.iter().rev().map(run).collect(),
        schedule: schedule.map(ToString::to_string).unwrap_or_default(),
        next: next.map_or(0, |at| at.0),
        skipped: job.skipped.map_or(0, |skipped| skipped.at.0),
        skip_reason: job.skipped.map(|skipped| skipped.why.as_str().to_owned()).unwrap_or_default(),
    })
}

fn run_view(
    state: &State,
    (id, service): (ServiceId, &Service),
    (number, run): (u32, &Run),
    waiting: &[String],
) -> JobRun {
    let goes_on = run.end.is_none();
    JobRun {
        run: number,
        version: run.version.0,
        cause: run.cause.as_str().to_owned(),
        by: run.by.clone().unwrap_or_default(),
        status: run.status().to_owned(),
        done: run.end.as_ref().map_or_else(|| done(state, (id, service), number), |end| end.done),
        slots: if goes_on { state.slot_count(service) } else { 0 },
        began: run.began.0,
        ended: run.end.as_ref().map_or(0, |end| end.at.0),
        reason: run.reason().unwrap_or_default().to_owned(),
        waiting: if goes_on { waiting.to_vec() } else { Vec::new() },
    }
}

/// How many slots of a run that goes on have succeeded, of those that are to.
fn done(state: &State, (id, service): (ServiceId, &Service), number: u32) -> u32 {
    let completed = state.completed(id, number).into_iter();
    let wanted = completed.filter(|slot| state.wanted(service, *slot) == Wanted::Filled);
    u32::try_from(wanted.count()).unwrap_or(u32::MAX)
}

/// Why slots are not being tried, or what is tried does not run.
fn waiting(state: &State, id: ServiceId, plan: &Plan) -> Vec<String> {
    let mut why: BTreeSet<String> = BTreeSet::new();
    for (task, row) in state.tasks_of(id) {
        if !row.is_live() || row.ended().is_some() || !row.desired.runs() {
            continue;
        }
        let reason = row.status.as_ref().and_then(|status| status.reason.as_ref());
        if row.placement.is_none() {
            why.insert(scheduler::explain(state, task).to_string());
        } else if let Some(reason) = reason.filter(|_| !row.is_ready()) {
            why.insert(format!("slot {}: {reason}", task.slot));
        }
    }
    why.into_iter().chain(views::sentences(&views::notes(state, id, plan))).collect()
}

/// How far a job's latest run is, for whoever waits for what was asked by the change of generation `asked`. Runs from before
/// are nothing that was asked then.
pub(super) fn progress(
    state: &State,
    (id, service): (ServiceId, &Service),
    job: &Job,
    plan: &Plan,
    (asked, now): (u64, Timestamp),
) -> ServiceProgress {
    let mut one = ServiceProgress { service: service.name.to_string(), ..ServiceProgress::default() };
    let Some((number, run)) = job.latest().filter(|(_, run)| run.generation.0 >= asked) else {
        let schedule = service.spec.job.as_ref().and_then(|spec| spec.schedule.as_ref());
        one.rests = match schedule.and_then(|schedule| schedule.next(now)) {
            Some(at) => format!("is done next at {}", rfc3339(at)),
            None => "is not done anew".to_owned(),
        };
        return one;
    };
    one.run = number;
    match &run.end {
        None => {
            let running = state.tasks_of(id).filter(|(_, task)| task.run == number && task.is_running());
            one.running = u32::try_from(running.count()).unwrap_or(u32::MAX);
            one.desired = state.slot_count(service);
            one.ready = done(state, (id, service), number);
            // That it is over has yet to be recorded.
            one.leaving = u32::from(one.ready == one.desired);
            one.waiting = waiting(state, id, plan);
        }
        Some(end) => {
            (one.desired, one.ready) = (end.done, end.done);
            one.failed = match &end.how {
                Ending::Succeeded => String::new(),
                how @ (Ending::Failed { .. } | Ending::Stopped { .. }) => format!("run {number} {how}"),
            };
        }
    }
    one.current = one.ready;
    one
}

fn rfc3339(at: Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

pub(super) async fn run(api: &Api, request: JobRequest) -> Result<ChangeReply, Status> {
    let JobRequest { request, service } = request;
    let command = Command::RunJob { service: service_name(&service)? };
    rollouts::decide(api, &request, &service, command).await
}

pub(super) async fn stop(api: &Api, request: JobRequest) -> Result<ChangeReply, Status> {
    let JobRequest { request, service } = request;
    let command = Command::StopJob { service: service_name(&service)? };
    rollouts::decide(api, &request, &service, command).await
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::fixture::World;

    /// What is said of `job`'s runs, and how far whoever waits for it is told that it is.
    fn check(fixture: &str, expected: &Expect) {
        let world = World::of(fixture);
        let request = ListRequest { filter: "hello/job".to_owned(), all: false };
        let api::Job { service, mode, image, runs, schedule, next, skipped: _, skip_reason } =
            list(&world.state, &request, world.now).unwrap().jobs.remove(0);
        let mut text = format!("{service} {mode} {image}\n");
        if !schedule.is_empty() {
            text += &format!("{schedule}, next at {next} {skip_reason}\n");
        }
        for JobRun { run, version, cause, by: _, status, done, slots, began: _, ended, reason, waiting } in
            runs
        {
            let over = if ended == 0 { "goes on" } else { "is over" };
            text += &format!("run {run} of v{version}, {cause}: {status}, {done}/{slots}, {over} {reason}\n");
            text.extend(waiting.iter().map(|why| format!("  {why}\n")));
        }
        let id = world.service("job");
        let service = world.state.service(id).unwrap();
        let plan = controllers::plan(&world.state, Object::Service(id), world.now);
        let job = service.job.as_ref().unwrap();
        let one = progress(&world.state, (id, service), job, &plan, (service.generation.0, world.now));
        text += &format!(
            "{}/{} of run {}, {} run {}{}\n",
            one.ready, one.desired, one.run, one.running, one.failed, one.rests
        );
        expected.assert_eq(&text);
    }

    #[test]
    fn a_run_that_goes_on_says_how_far_it_is_and_what_it_waits_for() {
        check(
            "nodes n1 cpu=1\n service hello/job x3 job at-once=2 cpu=0.7\n deploy\n settle\n report job.1 completed\n plan\n place",
            &expect![[r#"
                hello/job replicated-job app:latest
                run 1 of v1, deploy: running, 1/3, goes on 
                  no node fits: not enough CPU on 1 node
                1/3 of run 1, 0 run 
            "#]],
        );
        check(
            "nodes n1\n service hello/job x2 job\n deploy\n settle\n report job.1 failing\n plan",
            &expect![[r#"
                hello/job replicated-job app:latest
                run 1 of v1, deploy: running, 0/2, goes on 
                  slot 1 keeps failing and waits before it is tried again
                0/2 of run 1, 1 run 
            "#]],
        );
    }

    #[test]
    fn runs_that_are_over_say_how_they_ended() {
        check(
            "nodes n1
             service hello/job x1 job
             deploy
             settle
             report job.1 completed
             settle
             run job
             settle
             report job.1 gaveup
             settle",
            &expect![[r#"
                hello/job replicated-job app:latest
                run 2 of v1, asked: failed, 0/0, is over slot 1: exit code 1
                run 1 of v1, deploy: succeeded, 1/0, is over 
                0/0 of run 2, 0 run run 2 failed: slot 1: exit code 1
            "#]],
        );
    }

    #[test]
    fn a_job_with_times_of_its_own_says_when_it_is_done_next() {
        let hourly = "nodes n1\n service hello/job x1 job cron=0_*_*_*_*\n deploy\n settle";
        check(
            hourly,
            &expect![[r#"
                hello/job replicated-job app:latest
                0 * * * *, next at 3600000 
                0/0 of run 0, 0 run is done next at 1970-01-01T01:00:00Z
            "#]],
        );
        check(
            &format!("{hourly}\n tick 1h\n settle\n tick 1h\n settle"),
            &expect![[r#"
            hello/job replicated-job app:latest
            0 * * * *, next at 10800000 the run before it still went on
            run 1 of v1, schedule: running, 0/1, goes on 
            0/1 of run 1, 1 run 
        "#]],
        );
    }

    #[test]
    fn what_is_no_job_is_said_to_be_none() {
        let world = World::of("nodes n1\n service hello/web x1\n deploy");
        let ask = |filter: &str| {
            let request = ListRequest { filter: filter.to_owned(), all: false };
            list(&world.state, &request, world.now)
                .map(|list| list.jobs.len())
                .map_err(|status| status.message().to_owned())
        };
        assert_eq!(ask(""), Ok(0));
        assert_eq!(ask("hello"), Ok(0));
        assert_eq!(ask("bye"), Err("there is no stack `bye`".to_owned()));
        assert_eq!(ask("hello/none"), Err("there is no service `hello/none`".to_owned()));
        let none = "service `hello/web` is no job; `gantry job ls` lists those that there are";
        assert_eq!(ask("hello/web"), Err(none.to_owned()));
    }
}
