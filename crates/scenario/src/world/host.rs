//! The agent's host, simulated: what an agent does to its machine, and what it finds there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use agent::host::{
    Failure, Found, Host, ImageSource, Prepared, ProbeResult, Pulling, Shelf, Shelved, Stirred,
};
use agent::ledger::{Assigned, Record};
use futures::future::BoxFuture;
use model::{Bytes, Digest, Exit, Hook, NodeId, Probe, Subnet, TaskId, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::world::{World, vigour};

/// Of every machine's disk.
const ROOM: Bytes = Bytes(100 << 20);

/// How long an image that came stays new. The cluster hears of an import within seconds, faults or not, or the import has failed.
const FRESH: Duration = Duration::from_secs(30);

/// One machine, as its agent holds it.
#[derive(Clone)]
pub(crate) struct SimHost {
    world: Arc<World>,
    node: NodeId,
}

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimHost({})", self.node)
    }
}

impl SimHost {
    pub(crate) fn new(world: Arc<World>, node: NodeId) -> Self {
        Self { world, node }
    }

    async fn copy_image(&self, source: &ImageSource) -> Result<(), Failure> {
        let Self { world, node } = self;
        if world.has_image(*node, source.digest) {
            return Ok(());
        }
        tokio::time::sleep(world.dice.millis(5, 400)).await;
        let from = source
            .holders
            .iter()
            .map(|(holder, _)| *holder)
            .find(|holder| world.net.is_open(*node, *holder) && world.has_image(*holder, source.digest));
        let from = match from {
            Some(holder) => holder.to_string(),
            None if source.pull.is_some() && world.gives(source.digest) => {
                world.trace.count("image pulled from the registry");
                "the registry".to_owned()
            }
            None => {
                let image = source.digest.short();
                return Err(Failure(format!("nobody can be reached that has image {image}")));
            }
        };
        world.import(*node, source.digest);
        world.trace.line(format_args!("{node} copied image {} from {from}", source.digest.short()));
        let (arrived, full) = world.signals(*node);
        arrived.notify_one();
        if world.lock().wild && world.dice.chance(30) {
            full.notify_one();
        }
        Ok(())
    }

    /// Ends a container that runs, however long it takes, also when whoever asked for it is gone.
    async fn end(&self, task: TaskId, grace: Duration) {
        let Self { world, node } = self;
        let Some(run) = world.about_to_stop(*node, task) else { return };
        let farewell = world.farewell(*node, task);
        let exit = if farewell > grace { Exit::Signal { signal: 9, oom: false } } else { Exit::Code(0) };
        let (signalled, node) = (world.clone(), *node);
        world.later(async move {
            tokio::time::sleep(farewell.min(grace)).await;
            signalled.ends(node, task, run, exit);
        });
        self.until_ended(task).await;
    }

    async fn until_ended(&self, task: TaskId) {
        if let Some(mut ended) = self.world.end_of(self.node, task) {
            // An error means that the container is no longer there at all.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }
}

impl Host for SimHost {
    fn records(&self) -> BoxFuture<'_, Result<Vec<Record>, Failure>> {
        Box::pin(async move {
            let written = self.world.records(self.node);
            let read = written.iter().map(|bytes| Record::decode(bytes));
            read.collect::<Result<_, _>>()
                .map_err(|error| Failure(format!("the ledger cannot be read: {error}")))
        })
    }

    fn record(&self, task: TaskId) -> Result<Option<Record>, Failure> {
        let written = self.world.lock().machine(self.node).ledger.get(&task).cloned();
        let read = written.map(|bytes| Record::decode(&bytes)).transpose();
        read.map_err(|error| Failure(format!("the record cannot be read: {error}")))
    }

    fn save(&self, record: &Record) -> Result<(), Failure> {
        self.world.lock().machine(self.node).ledger.insert(record.assigned.id, record.encode());
        Ok(())
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            self.end(task, Duration::from_secs(10)).await;
            self.world.remove(self.node, task);
            self.world.lock().machine(self.node).ledger.remove(&task);
            Ok(())
        })
    }

    fn join_network(&self, subnet: Subnet) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let known = *self.world.lock().machine(self.node).subnet.get_or_insert(subnet);
            if known != subnet {
                self.world.trace.broken(format_args!("{} has {known} and is told {subnet}", self.node));
            }
            Ok(())
        })
    }

    fn find(&self, task: TaskId, attempt: u32) -> BoxFuture<'_, Found> {
        Box::pin(async move { self.world.find(self.node, task, attempt) })
    }

    fn prepare(
        &self,
        task: Arc<Assigned>,
        _pulling: watch::Sender<Pulling>,
    ) -> BoxFuture<'_, Result<Prepared, Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            self.copy_image(&task.source()).await?;
            Ok(Prepared { health: vigour::own_check(task.image) })
        })
    }

    fn start(&self, task: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            let dice = &self.world.dice;
            self.world.thawed(self.node).await;
            tokio::time::sleep(dice.millis(3, 350)).await;
            self.world.launch(self.node, &task, attempt)?;
            // An agent that dies before it hears of the start finds the container later.
            tokio::time::sleep(dice.millis(0, 5)).await;
            let lacks = task.image.0[1] < 64;
            Ok(lacks.then(|| "this node has no limit of swap".to_owned()).into_iter().collect())
        })
    }

    fn relimit(&self, _: Arc<Assigned>, _: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            Ok(Vec::new())
        })
    }

    fn probe(
        &self,
        task: Arc<Assigned>,
        attempt: u32,
        probe: Probe,
        _timeout: Duration,
    ) -> BoxFuture<'_, ProbeResult> {
        Box::pin(async move {
            // A daemon that is paused has nothing that times out.
            self.world.thawed(self.node).await;
            // No time that anyone asks with here is shorter.
            tokio::time::sleep(self.world.moods.millis(1, 50)).await;
            self.world.answer(self.node, task.id, attempt, &probe)
        })
    }

    fn hook(
        &self,
        task: Arc<Assigned>,
        attempt: u32,
        _hook: Hook,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            tokio::time::sleep(self.world.moods.millis(1, 800)).await;
            match self.world.answer(self.node, task.id, attempt, &Probe::Exec(Vec::new())) {
                ProbeResult { healthy: true, .. } => Ok(()),
                ProbeResult { output, .. } => Err(Failure(output)),
            }
        })
    }

    fn ended(&self, task: TaskId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.until_ended(task).await;
            self.world.thawed(self.node).await;
        })
    }

    fn last_words(&self, task: TaskId, attempt: u32) -> BoxFuture<'_, Option<String>> {
        Box::pin(async move { Some(format!("the last words of {task} in attempt {attempt}")) })
    }

    fn stop(&self, task: TaskId, grace: Duration) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            self.end(task, grace).await;
            Ok(())
        })
    }

    fn release(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            tokio::time::sleep(self.world.dice.millis(0, 3)).await;
            self.world.release(self.node, task);
            Ok(())
        })
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            tokio::time::sleep(self.world.dice.millis(0, 3)).await;
            self.world.remove(self.node, task);
            Ok(())
        })
    }

    fn images(&self) -> BoxFuture<'_, Vec<Digest>> {
        Box::pin(async move { self.world.lock().machine(self.node).images.keys().copied().collect() })
    }

    fn fetch(&self, source: ImageSource) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.world.thawed(self.node).await;
            self.copy_image(&source).await
        })
    }

    fn discard(&self, image: Digest) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.world.discard(self.node, image);
            Ok(())
        })
    }

    fn shelf(&self) -> BoxFuture<'_, Result<Shelf, Failure>> {
        Box::pin(async move {
            let mut inner = self.world.lock();
            let is_wild = inner.wild;
            // In peace there is room for everything, and all of it was used just now; otherwise what has been there for a
            // while was not used for ever.
            let used = |came: Instant| match is_wild && came.elapsed() > FRESH {
                true => Timestamp(0),
                false => Timestamp(u64::MAX),
            };
            let free = if is_wild { 0 } else { ROOM.0 };
            let images = inner.machine(self.node).images.iter();
            let images = images.map(|(image, came)| Shelved {
                digest: *image,
                size: Bytes(1 << 20),
                used: used(*came),
                busy: false,
                whole: true,
            });
            Ok(Shelf { images: images.collect(), free: Bytes(free), total: ROOM })
        })
    }

    fn touch(&self, _images: Vec<Digest>) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn stirred(&self) -> BoxFuture<'_, Stirred> {
        Box::pin(async move {
            let (arrived, full) = self.world.signals(self.node);
            tokio::select! {
                biased;
                () = full.notified() => Stirred::Full,
                () = arrived.notified() => Stirred::Arrived,
            }
        })
    }
}
