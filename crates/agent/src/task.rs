//! The loop of one task: find, decide, do, say; until the task is forgotten.

mod hooks;

use std::sync::Arc;
use std::time::Duration;

use futures::future::pending;
use model::{Bytes, Desired, Ended, Exit, Health, Phase, TaskId, TaskStatus};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::agent::Clock;
use crate::details::Details;
use crate::excerpt::excerpt;
use crate::health::Check;
use crate::host::{Failure, Found, Host, Prepared, Pulling};
use crate::ledger::{Assigned, Record};
use crate::probing::{Begin, News, Probing};
use crate::step::{Container, Effect, Next, Observed, step};

/// Either half of a start that takes longer than this is reported; a quicker one saves the cluster a write.
const WORTH_SAYING: Duration = Duration::from_millis(250);

/// How often it is said how far an image is on its way. Each time is a write of the cluster's for each task that waits.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// How long to wait before an effect that failed is tried again, where no attempt counts it.
const PAUSE: Duration = Duration::from_secs(1);

/// How long before an image is asked for again that was not to be had before any manager was heard. Those who held it when the
/// ledger was written may be coming up as well.
const UNHEARD: Duration = Duration::from_secs(5);

/// How long a container that its health check gives up may take to be seen ended by itself. Whatever is being asked when a
/// container ends dies with it, and says so before the container's shim has recorded the end, which takes some milliseconds.
const BY_ITSELF: Duration = Duration::from_millis(500);

/// Warnings of an attempt that are told. They are replicated; more than these nobody reads.
const WARNINGS: usize = 20;

/// What the owner wants of a task's loop. A channel that merely closes asks for nothing: the agent is being stopped.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Do(Arc<Assigned>),
    /// As the ledger has it, and no manager has said anything since. Who has the image now is not known, and nothing at all of
    /// its registry: credentials are in memory only.
    Resume(Arc<Assigned>),
    /// The cluster knows nothing of the task, by a quorum's word: nothing of it may stay, its record included.
    Forget,
}

/// A status on its way to the managers.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) task: TaskId,
    pub(crate) status: TaskStatus,
}

/// What all loops of a node work with.
pub(crate) struct Means<H> {
    pub(crate) host: Arc<H>,
    pub(crate) clock: Clock,
    pub(crate) said: mpsc::UnboundedSender<Said>,
    pub(crate) details: Details,
}

impl<H> Clone for Means<H> {
    fn clone(&self) -> Self {
        let Self { host, clock, said, details } = self;
        Self { host: host.clone(), clock: clock.clone(), said: said.clone(), details: details.clone() }
    }
}

pub(crate) struct Worker<H> {
    means: Means<H>,
    assigned: watch::Receiver<Order>,
    record: Record,
    attempt: u32,
    container: Container,
    /// Whether a manager has said what is wanted since this agent began.
    heard: bool,
    course: Course<H>,
    /// How the attempt before this one ended, as long as there is nothing to say of this one.
    before: Option<String>,
    ended: Option<Ended>,
}

/// What concerns the latest attempt alone.
struct Course<H> {
    warnings: Vec<String>,
    /// When the managers are to be told that it is starting, if that is still so and they have not been.
    announce: Option<Instant>,
    /// Asks the container how it is, while it runs and there is something to ask.
    probing: Option<Probing<H>>,
    /// The container's age from which on it counts as up; `None` while its check has not found it healthy yet.
    up: Option<Duration>,
    /// Why its health check has given it up, once it has.
    unhealthy: Option<String>,
    /// The commands before its stop have been run.
    pre_stopped: bool,
}

impl<H> Course<H> {
    fn new(warnings: Vec<String>) -> Self {
        Self { warnings, announce: None, probing: None, up: None, unhealthy: None, pre_stopped: false }
    }
}

impl<H: Host> Worker<H> {
    pub(crate) fn new(means: Means<H>, assigned: watch::Receiver<Order>, record: Record) -> Self {
        let status = record.status.as_ref();
        Self {
            attempt: status.map_or(0, begun),
            ended: status.and_then(|status| status.ended),
            before: status.filter(|status| status.phase == Phase::Exited).and_then(before),
            course: Course::new(status.map(|status| status.warnings.clone()).unwrap_or_default()),
            container: Container::None,
            heard: false,
            means,
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
            let (assigned, heard) = match order {
                Order::Do(assigned) => (assigned, true),
                Order::Resume(assigned) => (assigned, false),
                Order::Forget => return self.forget().await,
            };
            self.heard = heard;
            if *assigned != self.record.assigned {
                let limits = self.record.assigned.spec.resources.limits;
                self.record.assigned = Assigned::clone(&assigned);
                self.write();
                if limits != assigned.spec.resources.limits {
                    self.relimit().await;
                }
            }
            let now = self.means.clock.now();
            let next = step(assigned.desired, &assigned.spec.restart, &self.observed(), now);
            let alive = match next {
                Next::Do(effect) => self.perform(&assigned, effect).await,
                Next::Wait { until } => {
                    self.means.details.rests(id, until);
                    self.wait(until.since(now)).await
                }
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
        let grace = self.record.assigned.spec.container.stop.grace;
        let runs = matches!(self.container, Container::Running | Container::Unhealthy);
        self.course.probing = None;
        // A cluster that has forgotten a container still lets it end in order; what does not is destroyed below.
        if runs && let Err(failure) = self.means.host.stop(id, grace).await {
            tracing::warn!(task = %id, %failure, "could not stop a task that is to be forgotten");
        }
        while let Err(failure) = self.means.host.forget(id).await {
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
        let check = self.check();
        if check.is_none() || status.phase == Phase::Running {
            self.course.up = Some(Duration::ZERO);
        }
        if status.phase == Phase::Stopping {
            // Only its health check gives a reason for a stop; told to stop, a task is not asked for one.
            self.course.unhealthy = status.reason.clone();
        }
        self.container = match self.means.host.find(self.record.assigned.id, self.attempt).await {
            Found::Running { ran } => {
                // Whoever started it may not have come to run what is to be run then.
                let assigned = Arc::new(self.record.assigned.clone());
                if status.phase == Phase::Starting && !self.begins(&assigned).await {
                    return;
                }
                self.take_up(&status, check, ran);
                self.container = self.running();
                // The agent before this one may have been told of others and not have come to it.
                self.relimit().await;
                self.container
            }
            // Its end was taken note of already.
            Found::Exited { .. } | Found::Nothing if status.phase == Phase::Exited => {
                Container::Resting { noted: status.at }
            }
            Found::Exited { exit, ran } => self.exited(exit, ran),
            // It was started, or about to be, and nothing of it is left: the machine went down.
            Found::Nothing => self.exited(Exit::Unknown, Duration::ZERO),
        };
    }

    /// Holds a container that runs to limits that were changed. The next one is made with them.
    async fn relimit(&mut self) {
        if self.container != Container::Running {
            return;
        }
        let (task, attempt) = (Arc::new(self.record.assigned.clone()), self.attempt);
        let refused = match self.means.host.relimit(task, attempt).await {
            Ok(refused) => refused,
            Err(Failure(why)) => vec![format!("the limits are not as they should be: {why}")],
        };
        let news: Vec<String> =
            refused.into_iter().filter(|warning| !self.course.warnings.contains(warning)).collect();
        if news.is_empty() {
            return;
        }
        self.course.warnings.extend(news);
        self.course.warnings.truncate(WARNINGS);
        if self.course.up.is_some() {
            self.say_running(None);
        }
    }

    /// Goes on with a container that runs.
    fn take_up(&mut self, status: &TaskStatus, check: Option<Check>, ran: Duration) {
        if status.phase == Phase::Stopping {
            return;
        }
        let up = self.course.up.is_some();
        let ready = status.phase == Phase::Running && status.ready;
        self.probe(check, Begin { age: ran, healthy: up, ready });
        // What was said stays true, its time too.
        if up && (status.phase != Phase::Running || status.ready != self.is_ready()) {
            self.say_running(None);
        }
    }

    /// Begins to ask the container how it is, if there is anything to ask.
    fn probe(&mut self, check: Option<Check>, begin: Begin) {
        self.course.probing = Probing::new(&self.means, &self.record.assigned, self.attempt, check, begin);
    }

    fn check(&self) -> Option<Check> {
        Check::resolve(&self.record.assigned.spec.health, self.record.image_check.as_ref())
    }

    fn is_ready(&self) -> bool {
        self.course.probing.as_ref().is_none_or(Probing::is_ready)
    }

    fn running(&self) -> Container {
        if self.course.unhealthy.is_some() { Container::Unhealthy } else { Container::Running }
    }

    fn exited(&self, exit: Exit, ran: Duration) -> Container {
        let held = self.course.up.map_or(Duration::ZERO, |up| ran.saturating_sub(up));
        Container::Exited { exit, held, unhealthy: self.course.unhealthy.is_some() }
    }

    fn observed(&self) -> Observed {
        Observed {
            attempt: self.attempt,
            container: self.container,
            failures: self.record.failures,
            ended: self.ended,
            remains: self.record.remains,
            once: self.record.assigned.spec.is_one_off(),
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

    /// Watches a container that runs, until it ends or something else is to be done. What it is asked goes on beside that,
    /// and ends with it.
    async fn watch(&mut self) -> bool {
        let host = self.means.host.clone();
        let mut ended = host.ended(self.record.assigned.id);
        while self.container == Container::Running {
            let Course { announce, probing, .. } = &mut self.course;
            tokio::select! {
                biased;
                changed = self.assigned.changed() => return changed.is_ok(),
                () = &mut ended => {
                    self.look().await;
                    return true;
                }
                news = told(probing) => if let Some(why) = self.heed(news) {
                    if timeout(BY_ITSELF, &mut ended).await.is_ok() {
                        // It was not unhealthy but gone: how it ended is what counts.
                        self.look().await;
                        return true;
                    }
                    self.give_up(why);
                },
                () = at(*announce) => self.say_starting(None),
            }
        }
        true
    }

    /// What follows from an answer; why the container is to be ended, if it is.
    fn heed(&mut self, news: News) -> Option<String> {
        match news {
            News::NotYet { why } => self.say_starting(Some(why)),
            News::Healthy { age } => {
                self.course.up = Some(age);
                self.say_running(None);
            }
            News::Ready { why } => self.say_running(why),
            News::Unhealthy { why } => return Some(why),
        }
        None
    }

    fn give_up(&mut self, why: String) {
        let (task, attempt) = (self.record.assigned.id, self.attempt);
        tracing::warn!(%task, attempt, why, "a container is ended");
        self.course.unhealthy = Some(why);
        self.container = Container::Unhealthy;
    }

    async fn look(&mut self) {
        self.container = match self.means.host.find(self.record.assigned.id, self.attempt).await {
            Found::Running { .. } => self.running(),
            Found::Exited { exit, ran } => self.exited(exit, ran),
            Found::Nothing => self.exited(Exit::Unknown, Duration::ZERO),
        };
    }

    async fn perform(&mut self, assigned: &Arc<Assigned>, effect: Effect) -> bool {
        // Whatever is done, a container that is only to run is not among it.
        self.course.probing = None;
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
        self.course = Course::new(Vec::new());
        self.means.details.begins(assigned.id);
        match self.prepare(assigned).await {
            Some(Ok(Prepared { health })) => self.record.image_check = health,
            Some(Err(failure)) if !self.heard => return self.not_heard(failure).await,
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
            Ok(warnings) => {
                tracing::debug!(target: "hop", hop = "running", task = %assigned.id);
                self.course.warnings =
                    warnings.iter().take(WARNINGS).map(|warning| excerpt(warning)).collect();
                if self.begins(assigned).await {
                    self.started(assigned);
                }
            }
            Err(failure) => self.not_started(Phase::Starting, failure),
        }
        true
    }

    /// Waits for what may take long and has no effect on the node's containers, as long as the task is wanted.
    async fn prepare(&mut self, assigned: &Arc<Assigned>) -> Option<Result<Prepared, Failure>> {
        let host = self.means.host.clone();
        let (told, pulling) = watch::channel(Pulling::default());
        let mut preparing = host.prepare(assigned.clone(), told);
        let mut late = std::pin::pin!(tokio::time::sleep(WORTH_SAYING));
        let mut unsaid = true;
        let mut again = tokio::time::interval_at(Instant::now() + SAY_AGAIN, SAY_AGAIN);
        loop {
            tokio::select! {
                biased;
                changed = self.assigned.changed() => if changed.is_err() || !self.is_wanted() { return None },
                prepared = &mut preparing => return Some(prepared),
                () = &mut late, if unsaid => {
                    unsaid = false;
                    self.say(self.status(Phase::Preparing, self.exit(), self.before.clone()));
                }
                _ = again.tick() => {
                    let now = *pulling.borrow();
                    self.say_pulling(assigned, now);
                }
            }
        }
    }

    fn say_pulling(&mut self, assigned: &Assigned, Pulling { done, total }: Pulling) {
        if total == Bytes(0) {
            return;
        }
        // Decimal, as registries and Docker count.
        let mega = |Bytes(bytes): Bytes| bytes / 1_000_000;
        let reason = format!("pulling {}: {} of {} MB", assigned.spec.image, mega(done), mega(total));
        let said = self.record.status.as_ref().and_then(|status| status.reason.as_ref());
        if said != Some(&reason) {
            self.say(self.status(Phase::Preparing, self.exit(), Some(reason)));
        }
    }

    /// Whether the newest order still is to run the task. Nothing else of an order changes in a task's life but who has its
    /// image, and that makes no difference to a fetch that is under way: if it fails, the next one goes by it.
    fn is_wanted(&mut self) -> bool {
        let newest = self.assigned.borrow_and_update();
        matches!(
            &*newest,
            Order::Do(assigned) | Order::Resume(assigned) if assigned.desired == Desired::Running
        )
    }

    /// The intent comes before the kernel is touched: an agent that dies in between finds the attempt by its record. So
    /// what cannot be recorded is not started yet. False once it is not wanted any more.
    async fn intend(&mut self) -> bool {
        loop {
            let status = Some(self.status(Phase::Starting, self.exit(), None));
            let intent = Record { status, remains: true, ..self.record.clone() };
            let Err(failure) = self.means.host.save(&intent) else {
                self.record = intent;
                return true;
            };
            self.say_held_up(failure);
            if !self.wait(PAUSE).await || !self.is_wanted() {
                return false;
            }
        }
    }

    /// The image is not here, and whoever has it now is yet to be told: that is no failure of the task's, and no attempt of it.
    /// A whole cluster that comes up again would otherwise have used up the attempts of all tasks before it has a leader.
    async fn not_heard(&mut self, failure: Failure) -> bool {
        self.say_held_up(failure);
        self.attempt = self.attempt.saturating_sub(1);
        // The news may have come while the image was asked for.
        if !matches!(&*self.assigned.borrow(), Order::Resume(_)) {
            return true;
        }
        self.wait(UNHEARD).await
    }

    /// Once for each reason: a disk that stays full is not worth a write of the cluster's every time.
    fn say_held_up(&mut self, Failure(reason): Failure) {
        let status = self.status(Phase::Preparing, self.exit(), Some(reason));
        let said = self.record.status.as_ref().map(|said| (said.attempt, &said.reason));
        if said != Some((status.attempt, &status.reason)) {
            self.say(status);
        }
    }

    async fn launch(&mut self, assigned: &Arc<Assigned>) -> Result<Vec<String>, Failure> {
        let host = self.means.host.clone();
        let mut starting = host.start(assigned.clone(), self.attempt);
        let late = Instant::now() + WORTH_SAYING;
        self.course.announce = Some(late);
        tokio::select! {
            biased;
            started = &mut starting => started,
            () = sleep_until(late) => {
                self.say_starting(None);
                starting.await
            }
        }
    }

    /// The container runs. Without a health check it is up; with one, when that says so.
    fn started(&mut self, assigned: &Assigned) {
        let check = self.check();
        if check.is_none() && matches!(assigned.spec.health, Health::Check(_)) {
            self.course.warnings.push("the health check has no test, and neither has the image's".to_owned());
            self.course.warnings.truncate(WARNINGS);
        }
        self.container = Container::Running;
        let up = check.is_none();
        self.course.up = up.then_some(Duration::ZERO);
        self.probe(check, Begin { age: Duration::ZERO, healthy: up, ready: false });
        if up {
            self.say_running(None);
        } else if !self.course.warnings.is_empty() && self.course.announce.is_none() {
            // What was said of the start was said without them.
            self.course.announce = Some(Instant::now());
        }
    }

    fn not_started(&mut self, phase: Phase, Failure(reason): Failure) {
        let (task, attempt) = (self.record.assigned.id, self.attempt);
        tracing::warn!(%task, attempt, reason, "an attempt did not start");
        self.container = Container::Exited { exit: Exit::NotStarted, held: Duration::ZERO, unhealthy: false };
        self.record.status = Some(self.status(phase, None, Some(reason)));
    }

    /// What keeps starting says why it has to: who waits for it may look at any time.
    fn say_starting(&mut self, reason: Option<String>) {
        self.course.announce = None;
        let reason = reason.or_else(|| self.before.clone());
        self.say(self.status(Phase::Starting, self.exit(), reason));
    }

    fn say_running(&mut self, reason: Option<String>) {
        self.course.announce = None;
        // The last exit stays in sight: why a container is in its second attempt is what a user wants to know.
        let mut status = self.status(Phase::Running, self.exit(), reason);
        status.ready = self.is_ready();
        self.say(status);
    }

    async fn stop(&mut self, assigned: &Arc<Assigned>) -> bool {
        // Once: a stop that keeps failing is not worth a write of the cluster's every time.
        let said = self.record.status.as_ref().map(|said| (said.attempt, said.phase));
        if said != Some((self.attempt, Phase::Stopping)) {
            self.say(self.status(Phase::Stopping, None, self.course.unhealthy.clone()));
        }
        let grace = self.pre_stop(assigned).await;
        match self.means.host.stop(assigned.id, grace).await {
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
        let reason = self.reason(true).await;
        let noted = self.means.clock.now();
        // Another attempt beside one that is still there would be a second container with the same address.
        if let Err(failure) = self.means.host.release(self.record.assigned.id).await {
            return self.again("clean up after", &failure).await;
        }
        self.container = Container::Resting { noted };
        self.record.failures = failures;
        let status = self.status(Phase::Exited, exit, reason);
        self.before = before(&status);
        self.say(status);
        true
    }

    async fn end(&mut self, assigned: &Arc<Assigned>, ended: Ended) -> bool {
        let reason = self.reason(ended != Ended::Stopped).await;
        // Its address and ports are given to others as soon as its end is known: they have to be free by then.
        if self.record.remains {
            let given_back = match assigned.desired {
                Desired::Removed => self.means.host.remove(assigned.id).await,
                Desired::Running | Desired::Yielding | Desired::Stopped => {
                    self.means.host.release(assigned.id).await
                }
            };
            if let Err(failure) = given_back {
                return self.again("clean up after", &failure).await;
            }
        }
        let mut status = self.status(Phase::Exited, self.exit(), reason);
        status.ended = Some(ended);
        let remains = self.record.remains && assigned.desired != Desired::Removed;
        let record = Record { status: Some(status), remains, ..self.record.clone() };
        // First: an agent after this one that did not find it would start again what others believe to be over.
        if let Err(failure) = self.means.host.save(&record) {
            return self.again("record the end of", &failure).await;
        }
        self.record = record;
        self.container = Container::None;
        self.ended = Some(ended);
        self.means.details.ends(assigned.id);
        self.tell();
        true
    }

    async fn remove(&mut self, id: TaskId) -> bool {
        match self.means.host.remove(id).await {
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
            Container::None | Container::Running | Container::Unhealthy | Container::Resting { .. } => {
                self.record.status.as_ref().and_then(|status| status.exit)
            }
        }
    }

    /// Why the latest attempt is over, for a person; where that is a question, with what the container said last.
    // By `&mut` although it changes nothing: a shared reference that is held over an await would have to be `Sync`.
    async fn reason(&mut self, asked: bool) -> Option<String> {
        let said = self.record.status.as_ref().and_then(|status| status.reason.clone());
        let exit = self.exit()?;
        let is_over = match self.container {
            Container::Exited { unhealthy: true, .. } => return self.course.unhealthy.clone(),
            // It was said when it was taken note of.
            Container::Resting { .. } => return said.or_else(|| Some(exit.to_string())),
            Container::Exited { .. } => true,
            Container::None | Container::Running | Container::Unhealthy => false,
        };
        match exit {
            Exit::NotStarted => said.or_else(|| Some(exit.to_string())),
            Exit::Code(_) | Exit::Signal { .. } if asked && is_over && !exit.success() => {
                let words = self.means.host.last_words(self.record.assigned.id, self.attempt).await;
                Some(words.map_or_else(|| exit.to_string(), |words| format!("{exit}: {words}")))
            }
            Exit::Code(_) | Exit::Signal { .. } | Exit::Unknown => Some(exit.to_string()),
        }
    }

    fn status(&self, phase: Phase, exit: Option<Exit>, reason: Option<String>) -> TaskStatus {
        let seq = match &self.record.status {
            Some(before) if (before.attempt, before.phase) == (self.attempt, phase) => before.seq + 1,
            Some(_) | None => 0,
        };
        TaskStatus {
            attempt: self.attempt,
            phase,
            seq,
            ready: false,
            at: self.means.clock.now(),
            exit,
            ended: self.ended,
            reason,
            warnings: self.course.warnings.clone(),
        }
    }

    fn say(&mut self, status: TaskStatus) {
        self.record.status = Some(status);
        self.write();
        self.tell();
    }

    fn tell(&self) {
        let Some(status) = self.record.status.clone() else { return };
        // The owner is gone when the agent is being stopped; the next one finds the status in the ledger.
        let _ = self.means.said.send(Said { task: self.record.assigned.id, status });
    }

    fn write(&self) {
        if let Err(failure) = self.means.host.save(&self.record) {
            // A full disk must not stop containers; the next write may succeed.
            tracing::error!(task = %self.record.assigned.id, %failure, "the ledger could not be written");
        }
    }
}

/// What a container that is asked how it is has to tell; without one, nothing ever.
async fn told<H: Host>(probing: &mut Option<Probing<H>>) -> News {
    match probing {
        Some(probing) => probing.news().await,
        None => pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

/// How an attempt ended, for the one after it.
fn before(status: &TaskStatus) -> Option<String> {
    status.reason.as_ref().map(|reason| format!("after attempt {}: {reason}", status.attempt))
}

/// The latest attempt of which anything may have been started. One that was being prepared is made under its number
/// again, and counts once.
fn begun(status: &TaskStatus) -> u32 {
    match status.phase {
        Phase::Preparing => status.attempt.saturating_sub(1),
        Phase::Created | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Exited => status.attempt,
    }
}
