//! The runs of a job: each of its slots is to succeed once in each of them.
//!
//! A slot that has succeeded is never tried again in that run, whatever else becomes of its tasks. A task whose node is lost may
//! have succeeded there; its slot is tried elsewhere all the same, so what a job does should bear to be done twice.

use std::collections::BTreeMap;

use model::{Desired, Ended, Ending, JobSpec, Mode, NodeId, Run, ServiceId, TaskId, Timestamp};
use state::{Command, Service, State, Wanted};

use crate::service::{conclude, empty};
use crate::slots::{self, Holder, Refill, Row, Standing};
use crate::{Plan, SlotNote, Waiting, order};

/// After so many tasks, each of which its node has started several times, the slot has failed: what never succeeds is not to be
/// tried for ever. Whoever names `max_attempts` decides for himself.
const TRIES: u32 = 3;

/// A service's tasks by run, by slot and then by age.
type Runs<'a> = BTreeMap<u32, BTreeMap<u32, Vec<Row<'a>>>>;

pub(crate) fn plan(state: &State, id: ServiceId, service: &Service, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let (Some(spec), Some(job)) = (&service.spec.job, &service.job) else { return plan };
    let mut runs: Runs<'_> = BTreeMap::new();
    for (id, task) in state.tasks_of(id) {
        runs.entry(task.run).or_default().entry(id.slot).or_default().push((id, task));
    }
    let mut work = Work { state, id, service, spec, now, next_sequence: service.next_sequence };
    let none = BTreeMap::new();
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
        let is_kept = job.runs.contains_key(number);
        for (slot, tasks) in slots {
            if is_kept && state.wanted(service, *slot) != Wanted::Empty {
                conclude(tasks, &mut plan);
                stop(tasks, &mut plan);
            } else {
                empty(tasks, &mut plan);
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
    next_sequence: u64,
}

impl Work<'_> {
    fn go_on(&mut self, number: u32, run: &Run, slots: &BTreeMap<u32, Vec<Row<'_>>>, plan: &mut Plan) {
        let due = self.spec.deadline.map(|deadline| run.began.plus(deadline));
        for (slot, tasks) in slots {
            match self.state.wanted(self.service, *slot) {
                Wanted::Filled | Wanted::AsItIs => conclude(tasks, plan),
                Wanted::Empty => empty(tasks, plan),
            }
        }
        let mut standings = Vec::new();
        for slot in self.state.slots(self.service) {
            let tasks = slots.get(&slot).map_or(&[][..], Vec::as_slice);
            standings.push((slot, tasks, self.standing(run, tasks)));
        }
        let count = |wanted: fn(&Stands<'_>) -> bool| standings.iter().filter(|(.., s)| wanted(s)).count();
        let done = count(|stands| matches!(stands, Stands::Done));
        plan.done = plan.done.max(u32::try_from(done).unwrap_or(u32::MAX));
        let failed = standings.iter().find_map(|(slot, _, stands)| match stands {
            Stands::Failed(task) => Some(slots::said(self.state, *slot, *task)),
            Stands::Done | Stands::Tried(_) | Stands::Leaving(_) | Stands::Rests(_) | Stands::Open { .. } => {
                None
            }
        });
        let is_late = due.is_some_and(|due| due <= self.now);
        let end = if done == standings.len() {
            Some(Ending::Succeeded)
        } else if let Some(reason) = failed {
            Some(Ending::Failed { reason })
        } else if let Some(deadline) = self.spec.deadline.filter(|_| is_late) {
            let reason = format!("it was not done within its deadline of {} s", deadline.as_secs());
            Some(Ending::Failed { reason })
        } else {
            None
        };
        if let Some(how) = end {
            plan.commands.push(Command::EndRun { service: self.id, run: number, how });
            return;
        }
        if let Some(due) = due {
            plan.wake(due);
        }
        // Once it is begun, it goes on.
        let unmet = order::unmet(self.state, self.service).filter(|_| slots.is_empty());
        let most =
            self.spec.parallelism.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let mut busy =
            count(|stands| matches!(stands, Stands::Tried(_) | Stands::Leaving(_) | Stands::Rests(_)));
        for (slot, tasks, stands) in standings {
            match stands {
                Stands::Done => stop(tasks, plan),
                Stands::Failed(_) => {}
                Stands::Tried(holder) => self.hold(run, &holder, plan),
                Stands::Leaving(task) => {
                    plan.notes.push(SlotNote { slot, why: Waiting::ForItsPredecessor(task) })
                }
                Stands::Rests(why) => {
                    if let Waiting::ToTryAgain { at } = why {
                        plan.wake(at);
                    }
                    plan.notes.push(SlotNote { slot, why });
                }
                Stands::Open { .. } if unmet.is_some() => {
                    plan.notes.extend(unmet.clone().map(|why| SlotNote { slot, why }));
                }
                Stands::Open { .. } if busy >= most => {
                    plan.notes.push(SlotNote { slot, why: Waiting::ForOthers })
                }
                Stands::Open { avoid } => {
                    busy += 1;
                    plan.commands.push(self.create(slot, number, run, avoid));
                }
            }
        }
    }

    fn standing<'a>(&self, run: &Run, tasks: &[Row<'a>]) -> Stands<'a> {
        if tasks.iter().any(|(_, task)| task.succeeded()) {
            return Stands::Done;
        }
        match slots::standing(self.state, tasks) {
            Standing::Held(holder) => Stands::Tried(holder),
            Standing::Leaving(task) => Stands::Leaving(task),
            Standing::Empty { last } => {
                let tried = tasks.iter().filter(|(_, task)| task.ended() == Some(Ended::Failing)).count();
                let given_up = last.filter(|(_, task)| {
                    matches!(task.ended(), Some(Ended::GaveUp | Ended::Completed))
                        || tried >= usize::try_from(TRIES).unwrap_or(usize::MAX)
                });
                if let Some((task, _)) = given_up {
                    return Stands::Failed(task);
                }
                match slots::refill(self.service, run.version, last, tasks, self.now) {
                    Refill::Now { avoid } => Stands::Open { avoid },
                    Refill::Not(why) => Stands::Rests(why),
                }
            }
        }
    }

    /// One task is enough, and what can be changed of it while it runs is.
    fn hold(&self, run: &Run, holder: &Holder<'_>, plan: &mut Plan) {
        let (id, task) = holder.task;
        let remove = |task: &TaskId| Command::SetDesired { task: *task, desired: Desired::Removed };
        plan.commands.extend(holder.surplus.iter().map(remove));
        if task.version != run.version && self.state.can_revise(id, run.version).is_ok() {
            plan.commands.push(Command::Revise { task: id, version: run.version });
        }
    }

    fn create(&mut self, slot: u32, number: u32, run: &Run, avoid: Option<NodeId>) -> Command {
        let task = TaskId { service: self.id, slot, sequence: self.next_sequence };
        self.next_sequence += 1;
        let avoid = avoid.filter(|_| self.service.spec.mode != Mode::Global);
        Command::CreateTask { task, version: run.version, run: number, avoid }
    }
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

/// Tasks that are not needed any more stop, and stay to be looked at.
fn stop(tasks: &[Row<'_>], plan: &mut Plan) {
    let runs =
        tasks.iter().filter(|(_, task)| task.is_live() && task.ended().is_none() && task.desired.runs());
    plan.commands.extend(runs.map(|(id, _)| Command::SetDesired { task: *id, desired: Desired::Stopped }));
}
