//! The runs of a job: each of its slots is to succeed once in each of them.
//!
//! A slot that has succeeded is never tried again in that run, whatever else becomes of its tasks. A task whose node is lost may
//! have succeeded there; its slot is tried elsewhere all the same, so what a job does should bear to be done twice.

use std::collections::BTreeMap;

use model::{Desired, Ended, Ending, JobSpec, NodeId, Reservations, Run, ServiceId, Task, TaskId, Timestamp};
use state::{Command, Service, State, Wanted};

use crate::slots::{self, Creation, Holder, Refill, Row, Standing};
use crate::{Plan, SlotNote, Waiting, dependencies};

/// After so many tasks, each of which its node has started several times, the slot has failed: what never succeeds is not to be
/// tried for ever. Whoever names `max_attempts` decides for himself.
const TRIES: usize = 3;

/// A run's tasks by slot and then by age.
type Slots<'a> = BTreeMap<u32, Vec<Row<'a>>>;

pub(crate) fn plan(state: &State, id: ServiceId, service: &Service, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let (Some(spec), Some(job)) = (&service.spec.job, &service.job) else { return plan };
    let mut runs: BTreeMap<u32, Slots<'_>> = BTreeMap::new();
    for (id, task) in state.tasks_of(id) {
        runs.entry(task.run).or_default().entry(id.slot).or_default().push((id, task));
    }
    let mut work = Work { state, id, service, spec, now, creation: Creation::new(id, service) };
    let none = Slots::new();
    for (number, run) in job.active() {
        work.go_on(number, run, runs.get(&number).unwrap_or(&none), &mut plan);
    }
    if let Some(schedule) = &spec.schedule {
        match schedule.last(now).filter(|at| *at > job.considered) {
            Some(at) => plan.commands.push(Command::Due { service: id, at }),
            None => schedule.next(now).into_iter().for_each(|at| plan.wake(at)),
        }
    }
    for (number, slots) in runs.iter().filter(|(number, _)| job.goes_on(**number).is_none()) {
        for (slot, tasks) in slots {
            if !job.runs.contains_key(number) {
                slots::remove(tasks, &mut plan);
                continue;
            }
            slots::tidy(state, service, *slot, tasks, now, &mut plan);
            if state.wanted(service, *slot) != Wanted::Empty {
                stop(tasks, &mut plan);
            }
        }
    }
    plan
}

struct Work<'a> {
    state: &'a State,
    id: ServiceId,
    service: &'a Service,
    spec: &'a JobSpec,
    now: Timestamp,
    creation: Creation<'a>,
}

/// How a slot of a run stands.
enum Stands<'a> {
    Done,
    Tried(Holder<'a>),
    Leaving(TaskId),
    /// It failed, and is tried again in a while.
    Rests(Waiting),
    Open {
        avoid: Option<NodeId>,
    },
    /// It is not tried again; the task that failed last.
    Failed(TaskId),
}

impl Stands<'_> {
    /// Whether it counts among those that are tried at once.
    fn is_busy(&self) -> bool {
        match self {
            Self::Tried(_) | Self::Leaving(_) | Self::Rests(_) => true,
            Self::Done | Self::Open { .. } | Self::Failed(_) => false,
        }
    }
}

impl Work<'_> {
    fn go_on(&mut self, number: u32, run: &Run, slots: &Slots<'_>, plan: &mut Plan) {
        for (slot, tasks) in slots {
            slots::tidy(self.state, self.service, *slot, tasks, self.now, plan);
        }
        let mut standings = Vec::new();
        for slot in self.state.slots(self.service) {
            let tasks = slots.get(&slot).map_or(&[][..], Vec::as_slice);
            standings.push((slot, tasks, self.standing(run, tasks)));
        }
        if let Some(how) = self.end(run, &standings) {
            plan.commands.push(Command::EndRun { service: self.id, run: number, how });
            return;
        }
        if let Some(deadline) = self.spec.deadline {
            plan.wake(run.began.plus(deadline));
        }
        // Once it is begun, it goes on.
        let unmet = if slots.is_empty() { dependencies::unmet(self.state, self.service) } else { None };
        let most = self.spec.parallelism.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let mut busy = standings.iter().filter(|(.., stands)| stands.is_busy()).count();
        for (slot, tasks, stands) in standings {
            let why = match stands {
                Stands::Done => {
                    stop(tasks, plan);
                    continue;
                }
                Stands::Failed(_) => continue,
                Stands::Tried(holder) => {
                    self.hold(run, &holder, plan);
                    continue;
                }
                Stands::Open { avoid } if unmet.is_none() && busy < most => {
                    busy += 1;
                    plan.commands.push(self.creation.fill(slot, run.version, number, avoid));
                    continue;
                }
                Stands::Open { .. } => unmet.clone().unwrap_or(Waiting::ForOthers),
                Stands::Leaving(task) => Waiting::ForItsPredecessor(task),
                Stands::Rests(why) => why,
            };
            if let Waiting::ToTryAgain { at } = why {
                plan.wake(at);
            }
            plan.notes.push(SlotNote { slot, why });
        }
    }

    /// How the run has ended, if it has.
    fn end(&self, run: &Run, standings: &[(u32, &[Row<'_>], Stands<'_>)]) -> Option<Ending> {
        if standings.iter().all(|(.., stands)| matches!(stands, Stands::Done)) {
            return Some(Ending::Succeeded);
        }
        let failed = standings.iter().find_map(|(slot, _, stands)| match stands {
            Stands::Failed(task) => Some(slots::said(self.state, *slot, *task)),
            Stands::Done | Stands::Tried(_) | Stands::Leaving(_) | Stands::Rests(_) | Stands::Open { .. } => {
                None
            }
        });
        let late = self.spec.deadline.filter(|deadline| run.began.plus(*deadline) <= self.now);
        let late =
            late.map(|deadline| format!("it was not done within its deadline of {} s", deadline.as_secs()));
        failed.or(late).map(|reason| Ending::Failed { reason })
    }

    fn standing<'a>(&self, run: &Run, tasks: &[Row<'a>]) -> Stands<'a> {
        if tasks.iter().any(|(_, task)| task.succeeded()) {
            return Stands::Done;
        }
        let last = match slots::standing(self.state, tasks) {
            Standing::Held(holder) => return Stands::Tried(holder),
            Standing::Leaving(task) => return Stands::Leaving(task),
            Standing::Empty { last } => last,
        };
        let tried = tasks.iter().filter(|(_, task)| task.ended() == Some(Ended::Failing)).count();
        // What has completed, and not well, is not to be started again.
        let is_over = |task: &Task| matches!(task.ended(), Some(Ended::GaveUp | Ended::Completed));
        if let Some((task, _)) = last.filter(|(_, task)| tried >= TRIES || is_over(task)) {
            return Stands::Failed(task);
        }
        match slots::refill(self.service, run.version, last, tasks, self.now) {
            Refill::Now { avoid } => Stands::Open { avoid },
            Refill::Not(why) => Stands::Rests(why),
        }
    }

    /// One task is enough, and what can be changed of it while it runs is.
    fn hold(&self, run: &Run, holder: &Holder<'_>, plan: &mut Plan) {
        slots::remove(&holder.surplus, plan);
        slots::end_of_drain(self.state, holder.task, self.now, plan);
        let (id, task) = holder.task;
        if task.version != run.version
            && self.state.can_revise(id, run.version, &Reservations::default()).is_ok()
        {
            plan.commands.push(Command::Revise { task: id, version: run.version });
        }
    }
}

/// Tasks that are not needed any more stop, and stay to be looked at.
fn stop(tasks: &[Row<'_>], plan: &mut Plan) {
    let runs =
        tasks.iter().filter(|(_, task)| task.is_live() && task.ended().is_none() && task.desired.runs());
    plan.commands.extend(runs.map(|(id, _)| Command::SetDesired { task: *id, desired: Desired::Stopped }));
}
