//! The loop of one task: find, decide, do, say; until the task is forgotten.

use std::sync::Arc;
use std::time::Duration;

use model::{Desired, Ended, Exit, Phase, TaskId, TaskStatus};
use tokio::sync::{mpsc, watch};

use crate::agent::Clock;
use crate::host::{Failure, Found, Host};
use crate::ledger::{Assigned, Record};
use crate::step::{Container, Effect, Next, Observed, step};

/// How long a container has between the stop signal and the kill: Compose's default `stop_grace_period`.
const GRACE: Duration = Duration::from_secs(10);

/// Either half of a start that takes longer than this is reported; a quicker one saves the cluster a write.
const WORTH_SAYING: Duration = Duration::from_millis(250);

/// How long to wait before an effect that failed is tried again, where no attempt counts it.
const PAUSE: Duration = Duration::from_secs(1);

/// What the owner wants of a task's loop. A channel that merely closes asks for nothing: the agent is being stopped.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Do(Arc<Assigned>),
    /// The cluster knows nothing of the task, by a quorum's word: nothing of it may stay, its record included.
    Forget,
}

/// A status on its way to the managers.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) task: TaskId,
    pub(crate) status: TaskStatus,
}

pub(crate) struct Worker<H> {
    host: Arc<H>,
    clock: Clock,
    said: mpsc::UnboundedSender<Said>,
    assigned: watch::Receiver<Order>,
    record: Record,
    attempt: u32,
    container: Container,
    ended: Option<Ended>,
}

impl<H: Host> Worker<H> {
    pub(crate) fn new(
        host: Arc<H>,
        clock: Clock,
        said: mpsc::UnboundedSender<Said>,
        assigned: watch::Receiver<Order>,
        record: Record,
    ) -> Self {
        let status = record.status.as_ref();
        Self {
            attempt: status.map_or(0, begun),
            ended: status.and_then(|status| status.ended),
            container: Container::None,
            host,
            clock,
            said,
            assigned,
            record,
        }
    }

    /// Runs until the task is forgotten, or the agent is stopped.
    pub(crate) async fn run(mut self) -> TaskId {
        let id = self.record.assigned.id;
        self.adopt().await;
        loop {
            let order = self.assigned.borrow_and_update().clone();
            let assigned = match order {
                Order::Do(assigned) => assigned,
                Order::Forget => return self.forget().await,
            };
            if *assigned != self.record.assigned {
                self.record.assigned = Assigned::clone(&assigned);
                self.write();
            }
            let next = step(assigned.desired, &assigned.spec.restart, &self.observed(), self.clock.now());
            let alive = match next {
                Next::Do(effect) => self.perform(&assigned, effect).await,
                Next::Wait { until } => self.wait(until.since(self.clock.now())).await,
                Next::Hold(_) if self.container == Container::Running => self.watch().await,
                Next::Hold(_) => self.assigned.changed().await.is_ok(),
            };
            if !alive {
                return id;
            }
        }
    }

    async fn forget(mut self) -> TaskId {
        let id = self.record.assigned.id;
        // A cluster that has forgotten a container still lets it end in order; what does not is destroyed below.
        if self.container == Container::Running
            && let Err(failure) = self.host.stop(id, GRACE).await
        {
            tracing::warn!(task = %id, %failure, "could not stop a task that is to be forgotten");
        }
        while let Err(failure) = self.host.forget(id).await {
            if !self.again("remove what is left of", &failure).await {
                break;
            }
        }
        id
    }

    /// Takes up what an agent before this one left.
    async fn adopt(&mut self) {
        let Some(status) = self.record.status.clone() else { return };
        // Of an attempt that was being prepared nothing was started, and the end of the one before it was taken note of.
        if self.ended.is_some() || status.phase == Phase::Preparing {
            return;
        }
        self.container = match self.host.find(self.record.assigned.id, self.attempt).await {
            Found::Running => {
                // What was said stays true, its time too.
                if status.phase != Phase::Running || !status.ready {
                    self.say_running();
                }
                Container::Running
            }
            // Its end was taken note of already.
            Found::Exited { .. } | Found::Nothing if status.phase == Phase::Exited => {
                Container::Resting { noted: status.at }
            }
            Found::Exited { exit, ran } => Container::Exited { exit, ran },
            // It was started, or about to be, and nothing of it is left: the machine went down.
            Found::Nothing => Container::Exited { exit: Exit::Unknown, ran: Duration::ZERO },
        };
    }

    fn observed(&self) -> Observed {
        Observed {
            attempt: self.attempt,
            container: self.container,
            failures: self.record.failures,
            ended: self.ended,
            remains: self.record.remains,
        }
    }

    /// False when the agent is being stopped.
    async fn wait(&mut self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            changed = self.assigned.changed() => changed.is_ok(),
            () = tokio::time::sleep(wait) => true,
        }
    }

    async fn watch(&mut self) -> bool {
        let id = self.record.assigned.id;
        let host = self.host.clone();
        tokio::select! {
            biased;
            changed = self.assigned.changed() => return changed.is_ok(),
            () = host.ended(id) => {}
        }
        self.look().await;
        true
    }

    async fn look(&mut self) {
        self.container = match self.host.find(self.record.assigned.id, self.attempt).await {
            Found::Running => Container::Running,
            Found::Exited { exit, ran } => Container::Exited { exit, ran },
            Found::Nothing => Container::Exited { exit: Exit::Unknown, ran: Duration::ZERO },
        };
    }

    async fn perform(&mut self, assigned: &Arc<Assigned>, effect: Effect) -> bool {
        match effect {
            Effect::Start { attempt } => self.start(assigned, attempt).await,
            Effect::Stop => self.stop(assigned).await,
            Effect::Rest { failures } => self.rest(failures).await,
            Effect::End(ended) => self.end(assigned, ended).await,
            Effect::Remove => self.remove(assigned.id).await,
        }
    }

    /// Makes an attempt, unless it is given up before anything of it was started: for another order, or because the agent
    /// is being stopped.
    async fn start(&mut self, assigned: &Arc<Assigned>, attempt: u32) -> bool {
        self.attempt = attempt;
        match self.prepare(assigned).await {
            Some(Ok(())) => {}
            Some(Err(failure)) => {
                self.not_started(Phase::Preparing, failure);
                return true;
            }
            None => return self.assigned.has_changed().is_ok(),
        }
        tracing::debug!(target: "hop", hop = "prepared", task = %assigned.id);
        if !self.intend().await {
            return self.assigned.has_changed().is_ok();
        }
        match self.launch(assigned).await {
            Ok(()) => {
                tracing::debug!(target: "hop", hop = "running", task = %assigned.id);
                self.container = Container::Running;
                self.say_running();
            }
            Err(failure) => self.not_started(Phase::Starting, failure),
        }
        true
    }

    /// Waits for what may take long and has no effect on the node's containers, as long as the task is wanted.
    async fn prepare(&mut self, assigned: &Arc<Assigned>) -> Option<Result<(), Failure>> {
        let host = self.host.clone();
        let mut preparing = host.prepare(assigned.clone());
        let mut late = std::pin::pin!(tokio::time::sleep(WORTH_SAYING));
        let mut unsaid = true;
        loop {
            tokio::select! {
                biased;
                changed = self.assigned.changed() => if changed.is_err() || !self.is_wanted() { return None },
                prepared = &mut preparing => return Some(prepared),
                () = &mut late, if unsaid => {
                    unsaid = false;
                    self.say(self.status(Phase::Preparing, self.exit(), None));
                }
            }
        }
    }

    /// Whether the newest order still is to run the task. Nothing else of an order changes in a task's life but who holds
    /// its image, and that makes no difference to a fetch that is under way.
    fn is_wanted(&mut self) -> bool {
        let newest = self.assigned.borrow_and_update();
        matches!(&*newest, Order::Do(assigned) if assigned.desired == Desired::Running)
    }

    /// The intent comes before the kernel is touched: an agent that dies in between finds the attempt by its record. So
    /// what cannot be recorded is not started yet. False once it is not wanted any more.
    async fn intend(&mut self) -> bool {
        loop {
            let status = Some(self.status(Phase::Starting, self.exit(), None));
            let intent = Record { status, remains: true, ..self.record.clone() };
            let Err(failure) = self.host.save(&intent) else {
                self.record = intent;
                return true;
            };
            self.say_unrecorded(failure);
            if !self.wait(PAUSE).await || !self.is_wanted() {
                return false;
            }
        }
    }

    /// Once for each reason: a disk that stays full is not worth a write of the cluster's every time.
    fn say_unrecorded(&mut self, Failure(reason): Failure) {
        let status = self.status(Phase::Preparing, self.exit(), Some(reason));
        let said = self.record.status.as_ref().map(|said| (said.attempt, &said.reason));
        if said != Some((status.attempt, &status.reason)) {
            self.say(status);
        }
    }

    async fn launch(&mut self, assigned: &Arc<Assigned>) -> Result<(), Failure> {
        let host = self.host.clone();
        let mut starting = host.start(assigned.clone(), self.attempt);
        tokio::select! {
            biased;
            started = &mut starting => started,
            () = tokio::time::sleep(WORTH_SAYING) => {
                self.say(self.status(Phase::Starting, self.exit(), None));
                starting.await
            }
        }
    }

    fn not_started(&mut self, phase: Phase, Failure(reason): Failure) {
        let (task, attempt) = (self.record.assigned.id, self.attempt);
        tracing::warn!(%task, attempt, reason, "an attempt did not start");
        self.container = Container::Exited { exit: Exit::NotStarted, ran: Duration::ZERO };
        self.record.status = Some(self.status(phase, None, Some(reason)));
    }

    fn say_running(&mut self) {
        let mut status = self.status(Phase::Running, None, None);
        status.ready = true;
        // The last exit stays in sight: why a container is in its second attempt is what a user wants to know.
        status.exit = self.record.status.as_ref().and_then(|before| before.exit);
        self.say(status);
    }

    async fn stop(&mut self, assigned: &Arc<Assigned>) -> bool {
        self.say(self.status(Phase::Stopping, None, None));
        match self.host.stop(assigned.id, GRACE).await {
            Ok(()) => {
                self.look().await;
                true
            }
            Err(failure) => self.again("stop", &failure).await,
        }
    }

    /// Tries an effect again later; what keeps failing is in the log, and the task's state says that it is not done.
    async fn again(&mut self, what: &str, failure: &Failure) -> bool {
        tracing::warn!(task = %self.record.assigned.id, %failure, "could not {what} a task; trying again");
        self.wait(PAUSE).await
    }

    async fn rest(&mut self, failures: u32) -> bool {
        let exit = self.exit();
        let reason = self.reason(exit);
        let noted = self.clock.now();
        // Another attempt beside one that is still there would be a second container with the same address.
        if let Err(failure) = self.host.release(self.record.assigned.id).await {
            return self.again("clean up after", &failure).await;
        }
        self.container = Container::Resting { noted };
        self.record.failures = failures;
        self.say(self.status(Phase::Exited, exit, reason));
        true
    }

    async fn end(&mut self, assigned: &Arc<Assigned>, ended: Ended) -> bool {
        let exit = self.exit();
        let reason = self.reason(exit);
        // Its address and ports are given to others as soon as its end is known: they have to be free by then.
        if self.record.remains {
            let given_back = match assigned.desired {
                Desired::Removed => self.host.remove(assigned.id).await,
                Desired::Running | Desired::Stopped => self.host.release(assigned.id).await,
            };
            if let Err(failure) = given_back {
                return self.again("clean up after", &failure).await;
            }
        }
        self.record.remains &= assigned.desired != Desired::Removed;
        self.container = Container::None;
        self.ended = Some(ended);
        let mut status = self.status(Phase::Exited, exit, reason);
        status.ended = Some(ended);
        self.say(status);
        true
    }

    async fn remove(&mut self, id: TaskId) -> bool {
        match self.host.remove(id).await {
            Ok(()) => {
                self.record.remains = false;
                self.write();
                true
            }
            Err(failure) => self.again("remove what is left of", &failure).await,
        }
    }

    /// How the latest attempt ended, or the one before it while none has.
    fn exit(&self) -> Option<Exit> {
        match self.container {
            Container::Exited { exit, .. } => Some(exit),
            Container::None | Container::Running | Container::Resting { .. } => {
                self.record.status.as_ref().and_then(|status| status.exit)
            }
        }
    }

    fn reason(&self, exit: Option<Exit>) -> Option<String> {
        let why_not_started = self.record.status.as_ref().and_then(|status| status.reason.clone());
        match exit? {
            Exit::NotStarted => why_not_started.or_else(|| Some(Exit::NotStarted.to_string())),
            exit @ (Exit::Code(_) | Exit::Signal { .. } | Exit::Unknown) => Some(exit.to_string()),
        }
    }

    fn status(&self, phase: Phase, exit: Option<Exit>, reason: Option<String>) -> TaskStatus {
        let seq = match &self.record.status {
            Some(before) if (before.attempt, before.phase) == (self.attempt, phase) => before.seq + 1,
            Some(_) | None => 0,
        };
        let at = self.clock.now();
        TaskStatus {
            attempt: self.attempt,
            phase,
            seq,
            ready: false,
            at,
            exit,
            ended: self.ended,
            reason,
            warnings: Vec::new(),
        }
    }

    fn say(&mut self, status: TaskStatus) {
        self.record.status = Some(status.clone());
        self.write();
        // The owner is gone when the agent is being stopped; the next one finds the status in the ledger.
        let _ = self.said.send(Said { task: self.record.assigned.id, status });
    }

    fn write(&self) {
        if let Err(failure) = self.host.save(&self.record) {
            // A full disk must not stop containers; the next write may succeed.
            tracing::error!(task = %self.record.assigned.id, %failure, "the ledger could not be written");
        }
    }
}

/// The latest attempt of which anything may have been started. One that was being prepared is made under its number
/// again, and counts once.
fn begun(status: &TaskStatus) -> u32 {
    match status.phase {
        Phase::Preparing => status.attempt.saturating_sub(1),
        Phase::Created | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Exited => status.attempt,
    }
}
