//! How slots come to have the version that they should: which of them may change now, and what becomes of the rollout.
//!
//! At most [`UpdatePolicy::parallelism`] slots at a time are between two tasks because of a rollout, and those that do not
//! serve for other reasons count among them. So a rollout never takes down a slot that serves while as many are down already.
//!
//! **Invariant:** all of it follows from the state and `now`. Nothing is remembered between two plans, so that another
//! leader goes on where this one was.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{
    Availability, Desired, Ended, FailureAction, Health, Name, NodeId, Reservations, Rollout, RolloutPhase,
    ServiceId, SpecVersion, Task, TaskId, TaskSpec, Timestamp, UpdateOrder, UpdatePolicy,
};
use state::{Advance, Command, Service, Shunned, State};

use crate::slots::{self, Creation, Holder, Refill, Row};
use crate::{Plan, SlotNote, Waiting, dependencies};

/// Another part of the progress deadline has to pass before progress is written down: few writes, and a rollout that hangs
/// is noticed not much later than it says.
const PARTS: u32 = 8;

/// One service's rollout while its slots are looked at, one after the other.
pub(crate) struct Engine<'a> {
    state: &'a State,
    id: ServiceId,
    service: &'a Service,
    rollout: Option<&'a Rollout>,
    policy: &'a UpdatePolicy,
    now: Timestamp,
    /// Slots that have been looked at.
    slots: u32,
    /// Slots that are between two tasks, or have one of the right version that does not serve yet.
    busy: u32,
    outdated: Vec<Outdated>,
    /// Slots that have what they should, and have had it for long enough.
    done: u32,
    /// When the last of those became so.
    latest: Timestamp,
    /// When the last of those became ready.
    ready_since: Timestamp,
    failed: BTreeSet<u32>,
    failure: Option<(u32, TaskId)>,
    /// Of each node, the slots that have been looked at whose task is there; counted where so many may share one.
    sharing: BTreeMap<NodeId, u32>,
    /// Of each node, what tasks ask for more that are revised.
    promised: BTreeMap<NodeId, Reservations>,
    /// Looked up when the first task is to leave a node that is being drained.
    shunned: OnceCell<Shunned>,
}

/// A slot whose task is to be replaced by one of another version.
struct Outdated {
    is_ready: bool,
    slot: u32,
    task: TaskId,
    want: SpecVersion,
    how: Replace,
}

/// Why a task is to be made anew elsewhere: for a drain, with the node and the time at which that ends.
struct Leave {
    by: Option<(Name, Option<Timestamp>)>,
}

enum Replace {
    StopFirst,
    StartFirst { already_yields: bool, avoid: Option<NodeId> },
}

/// How far a task of the right version is.
enum Ripe {
    Done { since: Timestamp },
    At(Timestamp),
    NotReady,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(state: &'a State, id: ServiceId, service: &'a Service, now: Timestamp) -> Self {
        let rollout = service.rollout.as_ref();
        Self {
            state,
            id,
            service,
            rollout,
            policy: policy(service),
            now,
            slots: 0,
            busy: 0,
            outdated: Vec::new(),
            done: 0,
            latest: Timestamp::default(),
            ready_since: Timestamp::default(),
            failed: BTreeSet::new(),
            failure: None,
            sharing: BTreeMap::new(),
            promised: BTreeMap::new(),
            shunned: OnceCell::new(),
        }
    }

    /// The version that the next slot is to have now.
    pub(crate) fn next(&mut self, tasks: &[Row<'_>]) -> SpecVersion {
        self.slots += 1;
        match self.rollout {
            Some(rollout) if rollout.is_halted() || self.is_behind_canaries(rollout) => {
                self.keeps(rollout, tasks)
            }
            Some(_) | None => self.service.version,
        }
    }

    fn is_behind_canaries(&self, rollout: &Rollout) -> bool {
        !rollout.promoted && self.slots > self.policy.canaries
    }

    /// What the slot had last, or what all had before.
    fn keeps(&self, rollout: &Rollout, tasks: &[Row<'_>]) -> SpecVersion {
        let had = tasks.last().map(|(_, task)| task.version);
        let known = |version: &SpecVersion| self.service.templates.contains_key(version);
        [had, Some(rollout.from)].into_iter().flatten().find(known).unwrap_or(self.service.version)
    }

    /// Takes note of the tasks of the new version that failed in a slot, whatever the slot has now.
    pub(crate) fn count_failures(&mut self, slot: u32, tasks: &[Row<'_>]) {
        let Some(rollout) = self.rollout else { return };
        let failed = |(_, task): &&Row<'_>| {
            task.version == rollout.to
                && task.created >= rollout.began
                && matches!(task.ended(), Some(Ended::Failing | Ended::GaveUp))
        };
        if let Some((id, _)) = tasks.iter().rfind(failed) {
            self.failed.insert(slot);
            self.failure.get_or_insert((slot, *id));
        }
    }

    pub(crate) fn done(&self) -> u32 {
        self.done
    }

    /// A slot that nothing fills, or whose task is on its way out.
    pub(crate) fn is_busy(&mut self) {
        self.busy += 1;
    }

    /// A slot that is not filled again.
    pub(crate) fn rests(&mut self, slot: u32, why: &Waiting, want: SpecVersion) {
        match why {
            Waiting::Completed if want == self.service.version => self.done += 1,
            Waiting::Completed => {}
            // What failed and is to stay as it is keeps nobody from going on.
            _ if self.policy.failure_action == FailureAction::Continue && self.failed.contains(&slot) => {}
            _ => self.busy += 1,
        }
    }

    pub(crate) fn holds(
        &mut self,
        slot: u32,
        want: SpecVersion,
        holder: &Holder<'_>,
        tasks: &[Row<'_>],
        plan: &mut Plan,
    ) {
        let (id, task) = holder.task;
        if task.version == want {
            match self.must_leave(id, task).filter(|_| holder.yields.is_none()) {
                Some(Leave { by }) => self.moves(slot, want, holder.task, by, tasks, plan),
                None => self.has_it(slot, holder, plan),
            }
        } else if let Some(yields) = holder.yields {
            self.holds_neither(slot, want, holder.task, yields, plan);
        } else if self.revises(id, task, want) {
            plan.commands.push(Command::Revise { task: id, version: want });
        } else {
            self.replaces(slot, want, holder.task, tasks, plan);
        }
    }

    /// A slot with two tasks of which the one that was to serve is of a version that nobody wants any more. Whichever serves stays.
    fn holds_neither(
        &mut self,
        slot: u32,
        want: SpecVersion,
        (id, task): Row<'_>,
        (old, yields): Row<'_>,
        plan: &mut Plan,
    ) {
        let stop = |task| Command::SetDesired { task, desired: Desired::Stopped };
        if yields.is_ready() || (yields.version == want && !task.is_ready()) {
            plan.commands.push(stop(id));
            self.busy += u32::from(yields.version != want || !yields.is_ready());
        } else if yields.version == want {
            self.outdated.push(Outdated { is_ready: true, slot, task: id, want, how: Replace::StopFirst });
        } else {
            plan.commands.push(stop(old));
            self.busy += 1;
        }
    }

    fn has_it(&mut self, slot: u32, holder: &Holder<'_>, plan: &mut Plan) {
        let (_, task) = holder.task;
        match self.ripe(task) {
            Ripe::Done { since } => {
                self.done += u32::from(task.version == self.service.version);
                self.latest = self.latest.max(since);
                self.ready_since = self.ready_since.max(ready_since(task));
                self.busy += u32::from(holder.is_crowded || holder.yields.is_some());
                if let Some((old, _)) = holder.yields {
                    plan.commands.push(Command::SetDesired { task: old, desired: Desired::Stopped });
                }
            }
            Ripe::At(until) => {
                self.busy += 1;
                // Also where the rollout is over: a node that was away may be changed now, and others wait for it.
                plan.wake(until);
                if self.is_running() || holder.yields.is_some() {
                    plan.notes.push(SlotNote { slot, why: Waiting::Trial { until } });
                }
            }
            Ripe::NotReady => self.busy += 1,
        }
    }

    fn is_running(&self) -> bool {
        self.rollout.is_some_and(|rollout| rollout.phase == RolloutPhase::Running)
    }

    fn ripe(&self, task: &Task) -> Ripe {
        if !task.is_ready() {
            return Ripe::NotReady;
        }
        let trial = self.rollout.map_or(Duration::ZERO, |rollout| {
            let is_new = task.version == rollout.to && rollout.from != rollout.to;
            if is_new { min_healthy(self.policy, self.service, rollout.to) } else { Duration::ZERO }
        });
        let since = ready_since(task).plus(trial);
        if since <= self.now { Ripe::Done { since } } else { Ripe::At(since) }
    }

    /// Whether a task becomes one of version `want` in place; what it asks for more is promised to it then.
    fn revises(&mut self, id: TaskId, task: &Task, want: SpecVersion) -> bool {
        let promised = task.placement.as_ref().map(|at| self.promised.entry(at.node).or_default());
        let none = Reservations::default();
        let more = self.state.can_revise(id, want, promised.as_deref().unwrap_or(&none));
        if let (Ok(more), Some(promised)) = (&more, promised) {
            promised.cpu.0 += more.cpu.0;
            promised.memory.0 += more.memory.0;
        }
        more.is_ok()
    }

    /// Whether a task may not stay where it is: its node is being drained, does not meet the constraints any more, or has more of
    /// the service than may share it; or somebody wants it elsewhere, and there is a place.
    fn must_leave(&mut self, id: TaskId, task: &Task) -> Option<Leave> {
        let at = task.placement.as_ref()?.node;
        let node = self.state.node(at)?;
        let policy = &self.state.template_of(id)?.task.placement;
        if let Some(most) = policy.max_per_node {
            let sharing = self.sharing.entry(at).or_default();
            *sharing += 1;
            if *sharing > most.get() {
                return Some(Leave { by: None });
            }
        }
        match node.availability {
            Availability::Drain { until } => Some(Leave { by: Some((node.name.clone(), until)) }),
            Availability::Active | Availability::Pause => {
                let moves = task.leaves && self.has_other_place(id, task.version);
                (moves || policy.bars(at, node).is_some()).then_some(Leave { by: None })
            }
        }
    }

    fn has_other_place(&self, id: TaskId, want: SpecVersion) -> bool {
        let shunned = self.shunned.get_or_init(|| self.state.shunned());
        self.state.has_other_place(id, want, shunned)
    }

    /// A slot of the right version whose task is to be elsewhere. A drain takes nothing down that has nowhere else to go, until
    /// its time is up.
    fn moves(
        &mut self,
        slot: u32,
        want: SpecVersion,
        (id, task): Row<'_>,
        drain: Option<(Name, Option<Timestamp>)>,
        tasks: &[Row<'_>],
        plan: &mut Plan,
    ) {
        if let Some((node, until)) = drain {
            if until.is_some_and(|until| until <= self.now) {
                self.busy += 1;
                plan.commands.push(Command::SetDesired { task: id, desired: Desired::Stopped });
                return;
            }
            until.iter().for_each(|until| plan.wake(*until));
            let why = if self.service.spec.task.is_one_off() {
                Some(Waiting::ForItsEnd { on: node })
            } else {
                let is_stuck = task.desired == Desired::Running && !self.has_other_place(id, want);
                is_stuck.then_some(Waiting::ForAnotherNode { than: node })
            };
            if let Some(why) = why {
                plan.notes.push(SlotNote { slot, why });
                // It serves, and holds up nobody.
                self.done += u32::from(task.is_ready() && want == self.service.version);
                self.busy += u32::from(!task.is_ready());
                return;
            }
        }
        self.replaces(slot, want, (id, task), tasks, plan);
    }

    fn replaces(
        &mut self,
        slot: u32,
        want: SpecVersion,
        (id, task): Row<'_>,
        tasks: &[Row<'_>],
        plan: &mut Plan,
    ) {
        let already_yields = task.desired == Desired::Yielding;
        let mut avoid = slots::left_behind(task);
        if already_yields {
            // The one that was to take its place has ended: it is tried again as in an empty slot.
            match slots::refill(self.service, want, slots::last_ended(tasks), tasks, self.now) {
                Refill::Now { avoid: node } => avoid = node.or(avoid),
                Refill::Not(why) => {
                    if let Waiting::ToTryAgain { at } = why {
                        plan.wake(at);
                    }
                    self.rests(slot, &why, want);
                    plan.notes.push(SlotNote { slot, why });
                    return;
                }
            }
        }
        let is_ready = task.is_ready();
        // What moves does not meet its own ports.
        let order = if task.version == want {
            self.policy.order
        } else {
            order(self.service, self.policy, task.version, want)
        };
        let starts_first = is_ready && order == UpdateOrder::StartFirst;
        let how =
            if starts_first { Replace::StartFirst { already_yields, avoid } } else { Replace::StopFirst };
        self.outdated.push(Outdated { is_ready, slot, task: id, want, how });
    }

    /// Replaces what may be replaced now: nothing by a version whose dependencies are unmet, but what goes back waits for nobody.
    pub(crate) fn advance(&mut self, creation: &mut Creation<'_>, plan: &mut Plan) {
        let mut outdated = std::mem::take(&mut self.outdated);
        if outdated.is_empty() {
            return;
        }
        let goes_back = self.rollout.is_some_and(|rollout| rollout.cause.goes_back());
        let unmet = if goes_back { None } else { dependencies::unmet(self.state, self.service) };
        if let Some(why) = unmet {
            plan.notes.extend(outdated.iter().map(|old| SlotNote { slot: old.slot, why: why.clone() }));
            return;
        }
        // What does not serve anyway goes first, so that a version that never worked does not block its own repair.
        outdated.sort_by_key(|old| (old.is_ready, old.slot));
        let mut down = u32::try_from(outdated.iter().filter(|old| !old.is_ready).count()).unwrap_or(u32::MAX);
        let most = if self.policy.parallelism == 0 { u32::MAX } else { self.policy.parallelism };
        let rest = self.rest();
        for Outdated { is_ready, slot, task, want, how } in outdated {
            let taken = self.busy.saturating_add(if is_ready { down } else { 0 });
            if taken >= most {
                plan.notes.push(SlotNote { slot, why: Waiting::ItsTurn });
                continue;
            }
            if let Some(until) = rest {
                plan.wake(until);
                plan.notes.push(SlotNote { slot, why: Waiting::Rest { until } });
                continue;
            }
            down -= u32::from(!is_ready);
            self.busy += 1;
            match how {
                Replace::StopFirst => {
                    plan.commands.push(Command::SetDesired { task, desired: Desired::Stopped });
                }
                Replace::StartFirst { already_yields, avoid } => {
                    if !already_yields {
                        plan.commands.push(Command::SetDesired { task, desired: Desired::Yielding });
                    }
                    plan.commands.push(creation.fill(slot, want, 0, avoid));
                }
            }
        }
    }

    /// Until when the next batch waits, if it does.
    fn rest(&self) -> Option<Timestamp> {
        let is_begun = self.done > 0 && self.latest >= self.rollout?.began;
        let until = self.latest.plus(self.policy.delay);
        (is_begun && until > self.now).then_some(until)
    }

    /// Why slots that have another version than they will in the end are left alone.
    pub(crate) fn explain(&self, slot: u32, want: SpecVersion, plan: &mut Plan) {
        let Some(rollout) = self.rollout.filter(|_| want != self.service.version) else { return };
        let why = match rollout.phase {
            RolloutPhase::Paused => Waiting::Paused,
            RolloutPhase::Failed => Waiting::Failed,
            RolloutPhase::Running | RolloutPhase::Completed => Waiting::Promotion,
        };
        plan.notes.push(SlotNote { slot, why });
    }

    /// What becomes of the rollout, and whether it goes on.
    pub(crate) fn conclude(&self, plan: &mut Plan) -> bool {
        let Some(rollout) = self.rollout else { return true };
        let has_failed = match rollout.phase {
            RolloutPhase::Paused | RolloutPhase::Completed => return true,
            RolloutPhase::Running => false,
            // It may get there all the same.
            RolloutPhase::Failed => true,
        };
        let is_whole = self.done >= self.slots && self.busy == 0;
        if is_whole {
            let at = self.ready_since.max(rollout.began).plus(self.policy.monitor);
            if at <= self.now {
                self.step(rollout, Advance::Completed, plan);
                return true;
            }
            plan.wake(at);
        }
        if has_failed {
            return true;
        }
        if self.notice_failures(rollout, plan) {
            return false;
        }
        is_whole || self.awaits_promotion(rollout, plan) || !self.notice_stillness(rollout, plan)
    }

    fn step(&self, rollout: &Rollout, how: Advance, plan: &mut Plan) {
        plan.commands.push(Command::Advance { service: self.id, to: rollout.to, how });
    }

    /// Whether too much of it failed for it to go on.
    fn notice_failures(&self, rollout: &Rollout, plan: &mut Plan) -> bool {
        let failed = u32::try_from(self.failed.len()).unwrap_or(u32::MAX).max(rollout.failed);
        if failed > rollout.failed {
            self.step(rollout, Advance::Progressed { done: self.done, failed }, plan);
        }
        let allowed = u64::from(self.policy.max_failure_ratio) * u64::from(self.slots) / 1000;
        if u64::from(failed) > allowed && self.policy.failure_action != FailureAction::Continue {
            let reason = self.failure.map_or_else(
                || "too many slots failed".to_owned(),
                |(slot, id)| slots::said(self.state, slot, id),
            );
            self.fails(rollout, reason, plan);
            return true;
        }
        false
    }

    fn fails(&self, rollout: &Rollout, reason: String, plan: &mut Plan) {
        let back = self.service.way_back();
        let goes_back = self.policy.failure_action == FailureAction::Rollback && !rollout.cause.goes_back();
        let how = match back.filter(|_| goes_back) {
            Some(to) => Advance::RolledBack { to, reason },
            None => Advance::Failed { reason },
        };
        self.step(rollout, how, plan);
    }

    /// Whether its canaries are done and nobody has promoted them.
    fn awaits_promotion(&self, rollout: &Rollout, plan: &mut Plan) -> bool {
        let canaries = self.policy.canaries.min(self.slots);
        if rollout.promoted || self.done < canaries {
            return false;
        }
        if let Some(trial) = self.policy.promote_after {
            let at = self.latest.max(rollout.began).plus(trial);
            if at <= self.now {
                self.step(rollout, Advance::Promoted, plan);
            } else {
                plan.wake(at);
            }
        }
        true
    }

    /// Whether nothing has been done for so long that it has failed.
    fn notice_stillness(&self, rollout: &Rollout, plan: &mut Plan) -> bool {
        let allowed = self.policy.progress_deadline;
        if allowed == Duration::MAX {
            return false;
        }
        let has_progressed = self.done > rollout.done;
        let since = self.rest().map_or(rollout.progressed, |until| rollout.progressed.max(until));
        let due = since.plus(if has_progressed { allowed / PARTS } else { allowed });
        if due > self.now {
            plan.wake(due);
        } else if has_progressed {
            let failed = u32::try_from(self.failed.len()).unwrap_or(u32::MAX);
            self.step(rollout, Advance::Progressed { done: self.done, failed }, plan);
        } else {
            let left = self.slots.saturating_sub(self.done);
            let seconds = allowed.as_secs();
            let waits = plan.notes.iter().find(|note| matches!(note.why, Waiting::ForService { .. }));
            let why = waits.map(|note| format!(": {note}")).unwrap_or_default();
            let reason = format!(
                "no further slot was done within {seconds} s; {left} of {} are left{why}",
                self.slots
            );
            self.fails(rollout, reason, plan);
            return true;
        }
        false
    }
}

/// What a service's latest rollout is done by.
pub fn policy(service: &Service) -> &UpdatePolicy {
    match &service.rollout {
        Some(rollout) if rollout.cause.goes_back() => &service.spec.rollback,
        Some(_) | None => &service.spec.update,
    }
}

/// How long a new task has to have been ready for its slot to be done.
pub fn min_healthy(policy: &UpdatePolicy, service: &Service, version: SpecVersion) -> Duration {
    let is_checked = |task: &TaskSpec| matches!(task.health, Health::Check(_)) || task.readiness.is_some();
    let checked = service.templates.get(&version).is_some_and(|template| is_checked(&template.task));
    policy.min_healthy.unwrap_or(if checked { Duration::ZERO } else { policy.monitor })
}

/// Which of two tasks of a slot goes first. Two that name the same port of their node cannot be there at once.
pub fn order(service: &Service, policy: &UpdatePolicy, from: SpecVersion, to: SpecVersion) -> UpdateOrder {
    let fixed = |version: SpecVersion| -> BTreeSet<(model::Protocol, u16)> {
        service.templates.get(&version).into_iter().flat_map(|template| template.task.host_ports()).collect()
    };
    if fixed(from).is_disjoint(&fixed(to)) { policy.order } else { UpdateOrder::StopFirst }
}

fn ready_since(task: &Task) -> Timestamp {
    task.status.as_ref().map_or(task.created, |status| status.at)
}
