//! Asks one container how it is, as often as its checks say and for as long as it runs.
//!
//! What the answers amount to is for [`crate::health`] to say; what follows from it, for the task's loop.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use model::{Probe, Timestamp};
use tokio::time::{Instant, sleep_until};

use crate::details::{Checked, ReadinessDetails};
use crate::excerpt::excerpt;
use crate::health::{Check, Living, Probed, Serving, Standing};
use crate::host::{Host, ProbeResult};
use crate::ledger::Assigned;
use crate::task::Means;

/// What the answers come to, where that concerns anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It has not been found healthy yet, and this is the first answer that says so.
    NotYet { why: String },
    /// It has been found healthy for the first time, at this age.
    Healthy { age: Duration },
    /// It is to be ended.
    Unhealthy { why: String },
    /// `ready` has changed, or this is the first answer that says why it is not; why, if it is not.
    Ready { why: Option<String> },
}

/// A container as it is when one begins to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    pub(crate) age: Duration,
    /// What was made of the answers before.
    pub(crate) healthy: bool,
    pub(crate) ready: bool,
}

pub(crate) struct Probing<H> {
    asker: Asker<H>,
    living: Option<(Living, Lane)>,
    /// `None` where nobody asked for it, and until the container is healthy.
    serving: Option<(Serving, Lane)>,
    /// Whether it was said why it is not healthy yet, and why it is not ready.
    said_starting: bool,
    said_unready: bool,
}

struct Asker<H> {
    means: Means<H>,
    assigned: Arc<Assigned>,
    attempt: u32,
    clock: Age,
}

/// Tells how old a container is.
#[derive(Clone, Copy)]
struct Age {
    at: Instant,
    then: Duration,
}

impl Age {
    fn now(self) -> Duration {
        self.then.saturating_add(self.at.elapsed())
    }

    /// When it is this old.
    fn when(self, age: Duration) -> Instant {
        // What a clock cannot count to does not come.
        self.at.checked_add(age.saturating_sub(self.then)).unwrap_or_else(|| self.at + FOR_EVER)
    }
}

/// Thirty years.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// One kind of question, to one container.
struct Lane {
    probe: Probe,
    timeout: Duration,
    /// The age at which it is asked next.
    due: Duration,
    flight: Option<BoxFuture<'static, Answer>>,
}

struct Answer {
    at: Timestamp,
    began: Duration,
    ended: Duration,
    result: ProbeResult,
}

impl Answer {
    fn probed(&self) -> Probed {
        Probed { began: self.began, ended: self.ended, healthy: self.result.healthy }
    }

    fn checked(self, attempt: u32) -> Checked {
        let Self { at, began, ended, result: ProbeResult { healthy, output, paused: _ } } = self;
        Checked { attempt, at, took: ended.saturating_sub(began), healthy, output }
    }
}

impl Lane {
    fn new(probe: &Probe, timeout: Duration, due: Duration) -> Self {
        Self { probe: probe.clone(), timeout, due, flight: None }
    }

    /// The next answer. A call that is dropped loses nothing: what was asked goes on with the next call.
    async fn answer<H: Host>(&mut self, asker: &Asker<H>) -> Answer {
        if self.flight.is_none() {
            sleep_until(asker.clock.when(self.due)).await;
        }
        let answer = self.flight.get_or_insert_with(|| asker.ask(self.probe.clone(), self.timeout)).await;
        self.flight = None;
        answer
    }
}

impl<H: Host> Asker<H> {
    fn ask(&self, probe: Probe, timeout: Duration) -> BoxFuture<'static, Answer> {
        let (means, assigned, attempt, clock) =
            (self.means.clone(), self.assigned.clone(), self.attempt, self.clock);
        async move {
            let (at, began) = (means.clock.now(), clock.now());
            let result = means.host.probe(assigned, attempt, probe, timeout).await;
            Answer { at, began, ended: clock.now(), result }
        }
        .boxed()
    }
}

async fn next<H: Host, M>(asker: &Asker<H>, lane: &mut Option<(M, Lane)>) -> Answer {
    match lane {
        Some((_, lane)) => lane.answer(asker).await,
        None => pending().await,
    }
}

impl<H: Host> Probing<H> {
    /// `None` where there is nothing to ask.
    pub(crate) fn new(
        means: &Means<H>,
        assigned: &Assigned,
        attempt: u32,
        check: Option<Check>,
        begin: Begin,
    ) -> Option<Self> {
        if check.is_none() && assigned.spec.readiness.is_none() {
            return None;
        }
        let Begin { age, healthy, ready } = begin;
        let clock = Age { at: Instant::now(), then: age };
        let living = check.map(|check| {
            let living = Living::new(check, age, healthy);
            let lane = Lane::new(&living.check().probe, living.check().timeout, living.next());
            (living, lane)
        });
        let lives = living.as_ref().is_none_or(|(living, _)| living.standing() == Standing::Healthy);
        let (means, assigned) = (means.clone(), Arc::new(assigned.clone()));
        let asker = Asker { means, assigned, attempt, clock };
        let mut probing = Self { asker, living, serving: None, said_starting: false, said_unready: false };
        if lives {
            probing.serve(age, ready);
        }
        Some(probing)
    }

    /// Whether it is to be sent work.
    pub(crate) fn is_ready(&self) -> bool {
        let lives = self.living.as_ref().is_none_or(|(living, _)| living.standing() == Standing::Healthy);
        let serves = match &self.serving {
            Some((serving, _)) => serving.ready(),
            None => self.asker.assigned.spec.readiness.is_none(),
        };
        lives && serves
    }

    fn serve(&mut self, age: Duration, ready: bool) {
        self.serving = self.asker.assigned.spec.readiness.clone().map(|rule| {
            let serving = Serving::new(rule, age, ready);
            let lane = Lane::new(&serving.rule().probe, serving.rule().timeout, serving.next());
            (serving, lane)
        });
    }

    /// The next thing that concerns anyone. A call that is dropped loses nothing.
    pub(crate) async fn news(&mut self) -> News {
        loop {
            let (asker, living, serving) = (&self.asker, &mut self.living, &mut self.serving);
            let news = tokio::select! {
                biased;
                answer = next(asker, living) => self.judge_life(answer),
                answer = next(asker, serving) => self.judge_service(answer),
            };
            if let Some(news) = news {
                return news;
            }
        }
    }

    fn judge_life(&mut self, answer: Answer) -> Option<News> {
        let (living, lane) = self.living.as_mut()?;
        if answer.result.paused {
            // Docker checks nothing while a container is paused.
            living.pass_over(answer.ended);
            lane.due = living.next();
            return None;
        }
        let (before, age) = (living.standing(), answer.ended);
        let standing = living.judge(answer.probed());
        let failures = living.failures();
        lane.due = living.next();
        let checked = answer.checked(self.asker.attempt);
        let output = excerpt(&checked.output);
        self.asker.means.details.checked(self.asker.assigned.id, standing, failures, checked);
        match standing {
            Standing::Unhealthy => Some(News::Unhealthy { why: why_unhealthy(failures, &output) }),
            Standing::Healthy if before == Standing::Starting => {
                self.serve(age, false);
                Some(News::Healthy { age })
            }
            Standing::Healthy => None,
            Standing::Starting => {
                let first = !std::mem::replace(&mut self.said_starting, true);
                first.then(|| News::NotYet { why: format!("not healthy yet: {output}") })
            }
        }
    }

    fn judge_service(&mut self, answer: Answer) -> Option<News> {
        let (serving, lane) = self.serving.as_mut()?;
        let changed = serving.judge(answer.probed());
        let (ready, against) = (serving.ready(), serving.against());
        lane.due = serving.next();
        let last = answer.checked(self.asker.attempt);
        // Once: what never gets ready has a reason to be seen, and not a write of the cluster's for every answer.
        let first = !ready && !last.healthy && !std::mem::replace(&mut self.said_unready, true);
        let why = (!ready).then(|| format!("not ready: {}", excerpt(&last.output)));
        self.asker.means.details.asked(self.asker.assigned.id, ReadinessDetails { ready, against, last });
        (changed || first).then_some(News::Ready { why })
    }
}

fn why_unhealthy(failures: u32, output: &str) -> String {
    match failures {
        1 => format!("unhealthy: a check failed: {output}"),
        _ => format!("unhealthy: {failures} checks in a row failed; the last: {output}"),
    }
}
