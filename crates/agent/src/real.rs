//! The real host: containers in shims, layers on disk, a bridge, and images from other nodes and registries.
//!
//! ```text
//! DATA/subnet                this node's part of the cluster's range, for when no manager can be asked
//! DATA/tasks/ID/record       the ledger
//! DATA/tasks/ID/ATTEMPT/     one container's directory, which its shim keeps
//! DATA/images/               the content store
//! DATA/skeleton/             the layer with every container's mount points
//! RUN/seccomp-HASH           the compiled filters of system calls
//! RUN/netns/                 the containers' network namespaces
//! ```

mod containers;
pub mod content;
mod disk;
mod fetch;
mod files;
mod options;
mod plane;
mod probe;
mod registries;
pub mod streams;
mod talk;
mod tasks;
mod words;

pub use image as image_store;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use image::registry::Progress;
use model::{Digest, Hook, Phase, Probe, Subnet, TaskId, TaskStatus};
use runtime::ShimBinary;
use tokio::sync::watch;

use crate::host::{Failure, Found, Host, ImageSource, Prepared, ProbeResult, Pulling, Shelf, Stirred};
use crate::ledger::{Assigned, Record};
use crate::real::containers::Containers;
use crate::real::disk::Disk;
pub use crate::real::fetch::Fetcher;
use crate::real::plane::Plane;
use crate::real::probe::Prober;

/// Where things are on this node.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Survives the machine.
    pub data: PathBuf,
    /// Does not: pinned namespaces and sockets.
    pub run: PathBuf,
    /// The prefix of every cgroup made here, absolute in the hierarchy.
    pub cgroup: String,
    /// The name of the node's bridge.
    pub bridge: String,
}

#[derive(Debug)]
pub struct RealHost {
    disk: Disk,
    containers: Containers,
    plane: Plane,
    prober: Prober,
    fetcher: Arc<Fetcher>,
}

impl RealHost {
    /// `fetcher` is the node's one; whoever serves streams has it as well.
    pub fn new(layout: Layout, images: image::Store, shim: Arc<ShimBinary>, fetcher: Arc<Fetcher>) -> Self {
        let disk = Disk::new(layout.data.clone());
        Self {
            plane: Plane::new(layout.bridge.clone(), layout.run.join("netns")),
            prober: Prober::new(disk.clone()),
            containers: Containers::new(disk.clone(), layout.run, layout.cgroup, images, shim),
            disk,
            fetcher,
        }
    }
}

/// Whether a task has its address and ports on this node. An attempt that has ended has given them back, and one that is
/// being prepared has not taken them yet.
fn holds(record: &Record) -> bool {
    let idle = |status: &TaskStatus| matches!(status.phase, Phase::Preparing | Phase::Exited);
    record.remains && !record.status.as_ref().is_some_and(idle)
}

/// An error and everything that caused it, in one line.
pub(crate) fn failure(what: &str, error: &dyn std::error::Error) -> Failure {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Failure(text)
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(failure("a blocking call did not return", &error)),
    }
}

impl Host for RealHost {
    fn records(&self) -> BoxFuture<'_, Result<Vec<Record>, Failure>> {
        async move {
            let disk = self.disk.clone();
            let records = blocking(move || disk.records()).await?;
            // What they publish stays published: the first change replaces the whole table.
            for record in records.iter().filter(|record| holds(record)) {
                self.plane.adopt(&record.assigned);
            }
            // Without a subnet no agent before this one has made anything.
            if let Some(subnet) = self.disk.subnet()? {
                self.plane.join(subnet).await?;
                self.plane.publish().await?;
                let known = records.iter().filter(|record| record.remains);
                let known: BTreeSet<TaskId> = known.map(|record| record.assigned.id).collect();
                self.plane.sweep(&known).await;
            }
            Ok(records)
        }
        .boxed()
    }

    fn record(&self, task: TaskId) -> Result<Option<Record>, Failure> {
        self.disk.record(task)
    }

    fn save(&self, record: &Record) -> Result<(), Failure> {
        self.disk.save(record)
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.remove(task).await?;
            self.disk.forget(task)
        }
        .boxed()
    }

    fn join_network(&self, subnet: Subnet) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.disk.keep_subnet(subnet)?;
            self.plane.join(subnet).await
        }
        .boxed()
    }

    fn find(&self, task: TaskId, attempt: u32) -> BoxFuture<'_, Found> {
        self.containers.find(task, attempt).boxed()
    }

    fn prepare(
        &self,
        task: Arc<Assigned>,
        pulling: watch::Sender<Pulling>,
    ) -> BoxFuture<'_, Result<Prepared, Failure>> {
        async move {
            let progress = watch::Sender::new(Progress::default());
            let mut seen = progress.subscribe();
            let source = task.source();
            let tell = async {
                while seen.changed().await.is_ok() {
                    let now = fetch::pulling(&seen.borrow_and_update());
                    pulling.send_replace(now);
                }
            };
            tokio::select! {
                biased;
                fetched = self.fetcher.fetch(&source, &progress) => fetched?,
                // It goes on as long as its sender is here.
                () = tell => {}
            }
            let unpacked = self.containers.unpack(task.image).await?;
            self.fetcher.touch(vec![task.image]).await;
            Ok(Prepared { health: unpacked.config.health })
        }
        .boxed()
    }

    fn start(&self, task: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        async move {
            // Both are system time, and have nothing to do with one another: the image is unpacked already.
            let (image, netns) = tokio::join!(self.containers.unpack(task.image), self.plane.attach(&task));
            let (image, netns) = (image?, netns?);
            tracing::debug!(target: "hop", hop = "attached", task = %task.id);
            let published = async {
                let published = self.plane.publish().await;
                tracing::debug!(target: "hop", hop = "published", task = %task.id);
                published
            };
            let running = async {
                let running = self.containers.run(&task, attempt, image, netns).await;
                tracing::debug!(target: "hop", hop = "started", task = %task.id);
                running
            };
            let (published, running) = tokio::join!(published, running);
            published.and(running)
        }
        .boxed()
    }

    fn relimit(&self, task: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        self.containers.relimit(task, attempt).boxed()
    }

    fn probe(
        &self,
        task: Arc<Assigned>,
        attempt: u32,
        probe: Probe,
        timeout: Duration,
    ) -> BoxFuture<'_, ProbeResult> {
        async move { self.prober.ask(&task, attempt, probe, timeout).await }.boxed()
    }

    fn hook(
        &self,
        task: Arc<Assigned>,
        attempt: u32,
        hook: Hook,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        async move { self.prober.run(task.id, attempt, hook, timeout).await.map_err(Failure) }.boxed()
    }

    fn ended(&self, task: TaskId) -> BoxFuture<'_, ()> {
        self.containers.ended(task).boxed()
    }

    fn last_words(&self, task: TaskId, attempt: u32) -> BoxFuture<'_, Option<String>> {
        words::last(self.disk.attempt(task, attempt)).boxed()
    }

    fn stop(&self, task: TaskId, grace: Duration) -> BoxFuture<'_, Result<(), Failure>> {
        self.containers.stop(task, grace).boxed()
    }

    fn release(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.containers.end(task).await?;
            self.plane.detach(task).await
        }
        .boxed()
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.containers.remove(task).await?;
            self.plane.detach(task).await
        }
        .boxed()
    }

    fn images(&self) -> BoxFuture<'_, Vec<Digest>> {
        std::future::ready(self.fetcher.images()).boxed()
    }

    fn fetch(&self, source: ImageSource) -> BoxFuture<'_, Result<(), Failure>> {
        async move { self.fetcher.fetch(&source, &watch::Sender::new(Progress::default())).await }.boxed()
    }

    fn discard(&self, image: Digest) -> BoxFuture<'_, Result<(), Failure>> {
        self.fetcher.discard(image).boxed()
    }

    fn shelf(&self) -> BoxFuture<'_, Result<Shelf, Failure>> {
        self.fetcher.shelf().boxed()
    }

    fn touch(&self, images: Vec<Digest>) -> BoxFuture<'_, ()> {
        self.fetcher.touch(images).boxed()
    }

    fn stirred(&self) -> BoxFuture<'_, Stirred> {
        self.fetcher.stirred().boxed()
    }
}

#[cfg(test)]
mod tests {
    use model::{Desired, Timestamp};

    use super::*;
    use crate::host::fake::assigned;

    #[test]
    fn a_task_has_its_address_from_the_start_of_an_attempt_until_its_end_was_taken_note_of() {
        let record = |phase| {
            let status = TaskStatus {
                attempt: 1,
                phase,
                seq: 0,
                ready: false,
                at: Timestamp(0),
                exit: None,
                ended: None,
                reason: None,
                warnings: Vec::new(),
            };
            Record { status: Some(status), remains: true, ..Record::new(assigned(Desired::Running)) }
        };
        for phase in [Phase::Starting, Phase::Running, Phase::Stopping] {
            assert!(holds(&record(phase)), "{phase:?}");
            assert!(!holds(&Record { remains: false, ..record(phase) }), "{phase:?}");
        }
        for phase in [Phase::Preparing, Phase::Exited] {
            assert!(!holds(&record(phase)), "{phase:?}");
        }
    }
}
