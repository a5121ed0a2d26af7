//! What is run in a container beside its own program: when it has started, and before it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use model::Hook;
use tokio::time::{Instant, sleep, timeout_at};

use super::{WORTH_SAYING, Worker};
use crate::excerpt::excerpt;
use crate::host::{Failure, Host};
use crate::ledger::Assigned;
use crate::step::Container;

/// How long one command after the start may take. Whoever waits for the container sees what it waits for.
const START: Duration = Duration::from_secs(10 * 60);

/// What of the grace period is left for the container's own end at the least.
const LEAST: Duration = Duration::from_secs(1);

/// What came of the commands after a start.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    /// All have succeeded.
    Done,
    Failed(String),
    /// The container has ended meanwhile.
    Over,
    /// It is not to run any more.
    Unwanted,
}

impl<H: Host> Worker<H> {
    /// Runs what is to be run once the container runs. False if it is not up then, and what it is has been taken note of.
    pub(super) async fn begins(&mut self, assigned: &Arc<Assigned>) -> bool {
        if assigned.spec.container.hooks.post_start.is_empty() {
            return true;
        }
        match self.post_start(assigned).await {
            Begun::Done => return true,
            Begun::Failed(why) => self.give_up(why),
            Begun::Over => self.look().await,
            Begun::Unwanted => self.container = Container::Running,
        }
        false
    }

    /// Runs the commands for a container that has just been started, as long as it runs and is wanted.
    async fn post_start(&mut self, assigned: &Arc<Assigned>) -> Begun {
        let hooks = &assigned.spec.container.hooks.post_start;
        let host = self.means.host.clone();
        let mut ended = host.ended(assigned.id);
        for (at, hook) in hooks.iter().enumerate() {
            let mut running = host.hook(assigned.clone(), self.attempt, hook.clone(), START);
            // A quick one saves the cluster a write.
            let mut late = std::pin::pin!(sleep(WORTH_SAYING));
            let mut is_said = false;
            loop {
                tokio::select! {
                    biased;
                    changed = self.assigned.changed() => {
                        if changed.is_err() || !self.is_wanted() {
                            return Begun::Unwanted;
                        }
                    }
                    () = &mut ended => return Begun::Over,
                    () = &mut late, if !is_said => {
                        is_said = true;
                        let (number, of) = (at + 1, hooks.len());
                        self.say_starting(Some(format!("post_start {number} of {of}: {}", shown(hook))));
                    }
                    done = &mut running => match done {
                        Ok(()) => break,
                        Err(Failure(why)) => return Begun::Failed(format!("post_start `{}` failed: {why}", shown(hook))),
                    }
                }
            }
        }
        Begun::Done
    }

    /// Runs the commands for a container that is to stop, once, and tells what is left of its grace period.
    pub(super) async fn pre_stop(&mut self, assigned: &Arc<Assigned>) -> Duration {
        let grace = assigned.spec.container.stop.grace;
        let hooks = &assigned.spec.container.hooks.pre_stop;
        if hooks.is_empty() || std::mem::replace(&mut self.course.pre_stopped, true) {
            return grace;
        }
        let host = self.means.host.clone();
        let began = Instant::now();
        let mut ended = host.ended(assigned.id);
        for hook in hooks {
            let most = grace.saturating_sub(began.elapsed());
            let running = host.hook(assigned.clone(), self.attempt, hook.clone(), most);
            let done = tokio::select! {
                biased;
                () = &mut ended => return grace,
                done = timeout_at(began + grace, running) => done,
            };
            let why = match done {
                Ok(Ok(())) => continue,
                Ok(Err(Failure(why))) => why,
                Err(_late) => format!("it took longer than the grace period of {grace:?}"),
            };
            tracing::warn!(task = %assigned.id, why, "a hook failed");
            self.course.warnings.push(excerpt(&format!("pre_stop `{}` failed: {why}", shown(hook))));
            break;
        }
        grace.saturating_sub(began.elapsed()).max(LEAST)
    }
}

fn shown(hook: &Hook) -> String {
    excerpt(&hook.command.join(" "))
}
