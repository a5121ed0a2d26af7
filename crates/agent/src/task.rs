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

/// An attempt that takes longer than this to start is reported as being prepared; a quicker one saves the cluster a write.
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
            attempt: status.map_or(0, |status| status.attempt),
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
        while let Err(failure) = self.host.forget(id).await {
            if !self.again("remove what is left of", &failure).await {
                break;
            }
        }
        id
    }

    /// Takes up what an agent before this one left.
    async fn adopt(&mut self) {
        if self.ended.is_some() || !self.record.remains {
            return;
        }
        let id = self.record.assigned.id;
        self.container = match (self.host.find(id, self.attempt).await, self.record.status.as_ref()) {
            (Found::Running, _) => {
                self.say_running();
                Container::Running
            }
            // Its end was taken note of already.
            (Found::Exited { .. } | Found::Nothing, Some(status)) if status.phase == Phase::Exited => {
                Container::Resting { noted: status.at }
            }
            (Found::Exited { exit, ran }, _) => Container::Exited { exit, ran },
            // It was started, or about to be, and nothing of it is left: the machine went down.
            (Found::Nothing, Some(_)) => Container::Exited { exit: Exit::Unknown, ran: Duration::ZERO },
            (Found::Nothing, None) => Container::None,
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
            Effect::Stop => return self.stop(assigned).await,
            Effect::Rest { failures } => return self.rest(failures).await,
            Effect::End(ended) => return self.end(assigned, ended).await,
            Effect::Remove => return self.remove(assigned.id).await,
        }
        true
    }

    async fn start(&mut self, assigned: &Arc<Assigned>, attempt: u32) {
        self.attempt = attempt;
        // The intent comes before the kernel is touched: an agent that dies in between finds the attempt by its record.
        self.record.remains = true;
        self.record.status = Some(self.status(Phase::Preparing, None, None));
        self.write();
        let host = self.host.clone();
        let mut starting = host.start(assigned.clone(), attempt);
        let started = tokio::select! {
            biased;
            started = &mut starting => started,
            () = tokio::time::sleep(WORTH_SAYING) => {
                self.say(self.status(Phase::Preparing, None, None));
                starting.await
            }
        };
        match started {
            Ok(()) => {
                self.container = Container::Running;
                self.say_running();
            }
            Err(Failure(reason)) => {
                tracing::warn!(task = %assigned.id, attempt, reason, "an attempt did not start");
                self.container = Container::Exited { exit: Exit::NotStarted, ran: Duration::ZERO };
                self.record.status = Some(self.status(Phase::Preparing, None, Some(reason)));
            }
        }
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
        TaskStatus { attempt: self.attempt, phase, seq, ready: false, at, exit, ended: self.ended, reason }
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
