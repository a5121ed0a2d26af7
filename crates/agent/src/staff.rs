//! Who keeps the loops of this node's tasks: one for each task, a new one for a loop that failed, until the task is
//! forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{Digest, TaskId};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use crate::agent::Clock;
use crate::details::Details;
use crate::host::Host;
use crate::ledger::{Assigned, Record};
use crate::task::{Means, Order, Said, Worker};

/// How long a task whose loop failed is left alone. What broke an invariant is likely to do so again: seldom enough for the
/// log, often enough for the task.
const EMPLOY_AGAIN: Duration = Duration::from_secs(5);

/// What a loop has to tell.
#[derive(Debug)]
pub(crate) enum News {
    Said(Said),
    /// The task is forgotten, and its loop has ended.
    Over(TaskId),
}

pub(crate) struct Staff<H> {
    means: Means<H>,
    /// The tasks that are known here, and what their loops are told.
    tasks: BTreeMap<TaskId, watch::Sender<Order>>,
    /// What they are made from, until nothing of them is left.
    images: BTreeMap<TaskId, Digest>,
    workers: JoinSet<TaskId>,
    /// Whose loop each worker is: one that panics cannot say.
    whose: BTreeMap<Id, TaskId>,
    said: mpsc::UnboundedReceiver<Said>,
}

impl<H: Host> Staff<H> {
    pub(crate) fn new(host: Arc<H>, clock: Clock) -> Self {
        let (saying, said) = mpsc::unbounded_channel();
        Self {
            means: Means { host, clock, said: saying, details: Details::default() },
            tasks: BTreeMap::new(),
            images: BTreeMap::new(),
            workers: JoinSet::new(),
            whose: BTreeMap::new(),
            said,
        }
    }

    pub(crate) fn details(&self) -> Details {
        self.means.details.clone()
    }

    pub(crate) fn known(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.keys().copied()
    }

    /// The tasks that are known here, and what they are made from.
    pub(crate) fn images(&self) -> impl Iterator<Item = (TaskId, Digest)> {
        self.images.iter().map(|(id, image)| (*id, *image))
    }

    /// Tells a task's loop what is wanted now; a task that is not known yet gets a record and a loop.
    pub(crate) fn assign(&mut self, assigned: Assigned) {
        match self.tasks.get(&assigned.id) {
            Some(task) => drop(task.send_replace(Order::Do(Arc::new(assigned)))),
            None => {
                tracing::debug!(target: "hop", hop = "received", task = %assigned.id);
                let record = Record::new(assigned);
                if let Err(failure) = self.means.host.save(&record) {
                    tracing::error!(task = %record.assigned.id, %failure, "the ledger could not be written");
                }
                let order = Order::Do(Arc::new(record.assigned.clone()));
                self.hire(record, order);
            }
        }
    }

    pub(crate) fn forget(&mut self, id: TaskId) {
        match self.tasks.get(&id) {
            Some(task) => drop(task.send_replace(Order::Forget)),
            None => tracing::debug!(task = %id, "told to forget a task that is not known here"),
        }
    }

    /// Takes up a task that an agent before this one left.
    pub(crate) fn employ(&mut self, record: Record) {
        let order = Order::Resume(Arc::new(record.assigned.clone()));
        self.hire(record, order);
    }

    /// Gives a task its loop.
    fn hire(&mut self, record: Record, order: Order) {
        let id = record.assigned.id;
        self.images.insert(id, record.assigned.image);
        let (task, assigned) = watch::channel(order);
        self.tasks.insert(id, task);
        let worker = Worker::new(self.means.clone(), assigned, record);
        self.work(id, worker.run());
    }

    fn work(&mut self, id: TaskId, work: impl Future<Output = TaskId> + Send + 'static) {
        let worker = self.workers.spawn(work);
        self.whose.insert(worker.id(), id);
    }

    /// The next thing that a loop tells. A call that is dropped loses nothing.
    pub(crate) async fn news(&mut self) -> News {
        loop {
            tokio::select! {
                biased;
                // What a forgotten task still said is of no use to anyone.
                Some(said) = self.said.recv() => if self.tasks.contains_key(&said.task) {
                    return News::Said(said);
                },
                Some(done) = self.workers.join_next_with_id() => if let Some(over) = self.settle(done) {
                    return News::Over(over);
                },
            }
        }
    }

    /// What a loop has said already, if there is anything.
    pub(crate) fn said(&mut self) -> Option<Said> {
        let Self { tasks, said, .. } = self;
        std::iter::from_fn(|| said.try_recv().ok()).find(|said| tasks.contains_key(&said.task))
    }

    /// A loop has ended: its task is forgotten, or something in it broke.
    fn settle(&mut self, done: Result<(Id, TaskId), JoinError>) -> Option<TaskId> {
        match done {
            Ok((worker, id)) => {
                self.whose.remove(&worker);
                self.tasks.remove(&id);
                self.images.remove(&id);
                self.means.details.forget(id);
                Some(id)
            }
            Err(error) => {
                let id = self.whose.remove(&error.id())?;
                tracing::error!(task = %id, %error, "a task's loop failed; it gets another one");
                self.employ_again(id);
                None
            }
        }
    }

    /// Gives a task another loop after a while. Its order stands; what became of it is in the ledger.
    fn employ_again(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else { return };
        let assigned = task.subscribe();
        let means = self.means.clone();
        self.work(id, async move {
            loop {
                tokio::time::sleep(EMPLOY_AGAIN).await;
                let record = match means.host.record(id) {
                    Ok(record) => record.or_else(|| anew(&assigned)),
                    Err(failure) => {
                        tracing::error!(task = %id, %failure, "a task without a loop waits for its record");
                        continue;
                    }
                };
                return match record {
                    Some(record) => Worker::new(means, assigned, record).run().await,
                    None => id,
                };
            }
        });
    }
}

/// The record of a task that has none: nothing was started, or else there would be one, so it is a new task. `None` once it
/// is to be forgotten, which it then is.
fn anew(order: &watch::Receiver<Order>) -> Option<Record> {
    match &*order.borrow() {
        Order::Do(assigned) | Order::Resume(assigned) => Some(Record::new(Assigned::clone(assigned))),
        Order::Forget => None,
    }
}

#[cfg(test)]
mod tests;
