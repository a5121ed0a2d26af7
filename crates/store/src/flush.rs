//! One fsync at a time, for all who wait for one.
//!
//! While the disk works, whoever writes queues up here; the next fsync covers them all. That is the group commit: the
//! busier the log, the more entries each fsync carries.

use std::io;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Engine, EngineError};
use crate::raft::TypeConfig;

/// More than openraft ever has in flight; the rest waits for the next fsync.
const AT_ONCE: usize = 65_536;

/// What is told when everything written before it was queued is durable.
enum Waiter {
    Append(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<io::Result<()>>),
}

impl Waiter {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Append(callback) => callback.io_completed(result),
            // The caller gave up waiting; that its write is durable harms nobody.
            Self::Caller(caller) => drop(caller.send(result)),
        }
    }
}

/// Asks for durability. Waiters are told in the order in which they asked.
#[derive(Clone, Debug)]
pub(crate) struct Flusher {
    // Unbounded, because each waiter is a write that openraft or a snapshot has already made, and those have bounds.
    waiters: mpsc::UnboundedSender<Waiter>,
}

/// The task behind [`Flusher`]: it ends when the last handle is gone.
#[derive(Debug)]
pub(crate) struct FlushTask {
    engine: Arc<dyn Engine>,
    waiters: mpsc::UnboundedReceiver<Waiter>,
}

pub(crate) fn flusher(engine: Arc<dyn Engine>) -> (Flusher, FlushTask) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Flusher { waiters: sender }, FlushTask { engine, waiters: receiver })
}

fn stopped() -> io::Error {
    io::Error::other("the store is shutting down")
}

impl Flusher {
    /// Calls back when what has been written so far is durable.
    pub(crate) fn notify(&self, callback: IOFlushed<TypeConfig>) -> io::Result<()> {
        self.waiters.send(Waiter::Append(callback)).map_err(|_gone| stopped())
    }

    /// Returns when what has been written so far is durable.
    pub(crate) async fn flushed(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.send(Waiter::Caller(sender)).map_err(|_gone| stopped())?;
        receiver.await.map_err(|_gone| stopped())?
    }
}

impl FlushTask {
    pub(crate) async fn run(mut self) {
        // A sync that failed may have dropped dirty pages, and the next one would succeed without them ("fsyncgate").
        // So the first failure is final.
        let mut failure: Option<Arc<EngineError>> = None;
        let mut waiting = Vec::new();
        while self.waiters.recv_many(&mut waiting, AT_ONCE).await > 0 {
            if failure.is_none() {
                failure = self.engine.sync().await.err().map(Arc::new);
            }
            for waiter in waiting.drain(..) {
                waiter.tell(match &failure {
                    None => Ok(()),
                    Some(error) => Err(io::Error::other(error.clone())),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Batch;
    use crate::memory::MemoryEngine;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_during_an_fsync_share_the_next_one() {
        let engine = MemoryEngine::with_sync_time(Duration::from_millis(10));
        let (flusher, task) = flusher(Arc::new(engine.clone()));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(task.run());
        let mut waiting = Vec::new();
        for _ in 0..50 {
            engine.write(Batch::new()).unwrap();
            waiting.push(flusher.flushed());
        }
        let first = flusher.flushed();
        for result in futures::future::join_all(waiting).await {
            result.unwrap();
        }
        first.await.unwrap();
        assert!(engine.syncs() <= 2, "{} fsyncs for 51 waiters", engine.syncs());
        assert_eq!(engine.unsynced(), 0);
    }

    #[tokio::test]
    async fn nobody_is_told_of_durability_after_a_failed_fsync() {
        let engine = MemoryEngine::new();
        let (flusher, task) = flusher(Arc::new(engine.clone()));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(task.run());
        flusher.flushed().await.unwrap();
        engine.crash(|_| 0);
        for _ in 0..2 {
            let error = flusher.flushed().await.unwrap_err();
            assert_eq!(error.to_string(), "the machine that this handle belonged to has crashed");
        }
    }
}
