//! A host without a machine, for tests of the loops: a container runs until it is stopped or a test ends it, and what goes
//! wrong is what a test says.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use model::{
    Bytes, ContainerSpec, Desired, Digest, Exit, Health, HealthCheck, Hook, NodeId, Placement, Probe,
    PullPolicy, Resources, RestartPolicy, ServiceId, Subnet, TaskId, TaskSpec, Timestamp,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::host::{Failure, Found, Host, ImageSource, Prepared, ProbeResult, Pulling, Shelf, Stirred};
use crate::ledger::{Assigned, Record};

#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    inner: Mutex<Inner>,
    over: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) records: BTreeMap<TaskId, Record>,
    /// The attempts whose containers run.
    pub(crate) running: BTreeMap<TaskId, u32>,
    /// When each of them began to; at the first look, if nobody said.
    pub(crate) since: BTreeMap<TaskId, Instant>,
    /// How a container that ends is found to have ended; `None` is that nothing of it is left.
    pub(crate) exit: Option<Exit>,
    /// What was done, in order.
    pub(crate) done: Vec<String>,
    /// Images never arrive.
    pub(crate) out_of_reach: bool,
    /// How much of an image of 100 MB comes every three seconds; `None` is that all are here.
    pub(crate) rate: Option<u64>,
    /// How many images cannot be had from now on.
    pub(crate) lacking: u32,
    /// The images that are here, and the room that there is.
    pub(crate) shelf: Shelf,
    /// What goes wrong with the next fetches, one after the other.
    pub(crate) fetches: VecDeque<Fetch>,
    /// How many writes of the ledger fail from now on.
    pub(crate) full: u32,
    /// How many looks at a container panic from now on.
    pub(crate) broken: u32,
    /// How many stops fail from now on.
    pub(crate) stuck: u32,
    /// The image's own health check.
    pub(crate) image_check: Option<HealthCheck>,
    pub(crate) warnings: Vec<String>,
    pub(crate) last_words: Option<String>,
    /// What commands in the container answer, and what everything else that is asked does.
    pub(crate) exec: Answer,
    pub(crate) other: Answer,
    pub(crate) probes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetch {
    Fails,
    Panics,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    Healthy,
    Unhealthy,
    /// One and then the other, beginning with healthy.
    Turns,
    Never,
    /// It stands still.
    Paused,
    /// It ends by itself while it is asked, and takes the answer with it.
    Ends,
}

impl FakeHost {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn does(&self, what: impl Into<String>) -> BoxFuture<'_, Result<(), Failure>> {
        self.lock().done.push(what.into());
        ready(Ok(())).boxed()
    }

    /// A task's container ends by itself.
    pub(crate) fn end(&self, task: TaskId) {
        self.lock().running.remove(&task);
        self.over.notify_waiters();
    }
}

/// Says when a probe is dropped before its end.
struct GivenUp<'a>(&'a FakeHost);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.lock().done.push("probe given up".to_owned());
    }
}

/// Whether the next of so many goes wrong.
fn one_of(left: &mut u32) -> bool {
    let one = *left > 0;
    *left = left.saturating_sub(1);
    one
}

impl Host for FakeHost {
    fn records(&self) -> BoxFuture<'_, Result<Vec<Record>, Failure>> {
        let records: Vec<Record> = self.lock().records.values().cloned().collect();
        ready(Ok(records)).boxed()
    }

    fn record(&self, task: TaskId) -> Result<Option<Record>, Failure> {
        Ok(self.lock().records.get(&task).cloned())
    }

    fn save(&self, record: &Record) -> Result<(), Failure> {
        let mut inner = self.lock();
        if one_of(&mut inner.full) {
            return Err(Failure("the disk is full".to_owned()));
        }
        inner.records.insert(record.assigned.id, record.clone());
        Ok(())
    }

    fn forget(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        self.lock().records.remove(&task);
        self.does("forget")
    }

    fn join_network(&self, _: Subnet) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }

    fn find(&self, task: TaskId, attempt: u32) -> BoxFuture<'_, Found> {
        let (breaks, running, exit, ran) = {
            let mut inner = self.lock();
            let since = *inner.since.entry(task).or_insert_with(Instant::now);
            let running = inner.running.get(&task) == Some(&attempt);
            (one_of(&mut inner.broken), running, inner.exit, since.elapsed())
        };
        assert!(!breaks, "a look that is to panic");
        let found = match exit {
            _ if running => Found::Running { ran },
            Some(exit) => Found::Exited { exit, ran },
            None => Found::Nothing,
        };
        ready(found).boxed()
    }

    fn prepare(
        &self,
        _: Arc<Assigned>,
        pulling: watch::Sender<Pulling>,
    ) -> BoxFuture<'_, Result<Prepared, Failure>> {
        let mut inner = self.lock();
        inner.done.push("prepare".to_owned());
        if inner.out_of_reach {
            return pending().boxed();
        }
        if one_of(&mut inner.lacking) {
            return ready(Err(Failure("nobody has it".to_owned()))).boxed();
        }
        if let Some(rate) = inner.rate {
            return pull(pulling, rate).boxed();
        }
        ready(Ok(Prepared { health: inner.image_check.clone() })).boxed()
    }

    fn start(&self, task: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        let mut inner = self.lock();
        inner.running.insert(task.id, attempt);
        inner.since.insert(task.id, Instant::now());
        inner.done.push(format!("start {attempt}"));
        ready(Ok(inner.warnings.clone())).boxed()
    }

    fn relimit(&self, _: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>> {
        let mut inner = self.lock();
        inner.done.push(format!("relimit {attempt}"));
        ready(Ok(inner.warnings.clone())).boxed()
    }

    fn probe(&self, task: Arc<Assigned>, _: u32, probe: Probe, most: Duration) -> BoxFuture<'_, ProbeResult> {
        let (answer, even) = {
            let mut inner = self.lock();
            inner.probes += 1;
            let answer = if matches!(probe, Probe::Exec(_)) { inner.exec } else { inner.other };
            (answer, inner.probes.is_multiple_of(2))
        };
        let result = |healthy: bool| {
            let output = if healthy { "fine" } else { "\u{1b}[31mconnection\nrefused\u{1b}[0m" };
            ready(ProbeResult { healthy, output: output.to_owned(), paused: false }).boxed()
        };
        match answer {
            Answer::Healthy => result(true),
            Answer::Unhealthy => result(false),
            Answer::Turns => result(!even),
            Answer::Never => async move {
                let guard = GivenUp(self);
                let _late = timeout(most, pending::<()>()).await;
                std::mem::forget(guard);
                ProbeResult { healthy: false, output: format!("no answer within {most:?}"), paused: false }
            }
            .boxed(),
            Answer::Paused => {
                let output = "the container is paused".to_owned();
                ready(ProbeResult { healthy: false, output, paused: true }).boxed()
            }
            Answer::Ends => {
                self.end(task.id);
                result(false)
            }
        }
    }

    fn hook(
        &self,
        task: Arc<Assigned>,
        _: u32,
        hook: Hook,
        most: Duration,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        let what = hook.command.join(" ");
        let answer = {
            let mut inner = self.lock();
            inner.done.push(format!("hook {what}"));
            inner.exec
        };
        match answer {
            Answer::Healthy | Answer::Turns | Answer::Paused => ready(Ok(())).boxed(),
            Answer::Unhealthy => ready(Err(Failure("exit code 1".to_owned()))).boxed(),
            Answer::Never => async move {
                let _late = timeout(most, pending::<()>()).await;
                Err(Failure(format!("no answer within {most:?}")))
            }
            .boxed(),
            Answer::Ends => {
                self.end(task.id);
                ready(Err(Failure("exit code 137".to_owned()))).boxed()
            }
        }
    }

    fn ended(&self, task: TaskId) -> BoxFuture<'_, ()> {
        async move {
            loop {
                let over = self.over.notified();
                if !self.lock().running.contains_key(&task) {
                    return;
                }
                over.await;
            }
        }
        .boxed()
    }

    fn last_words(&self, _: TaskId, _: u32) -> BoxFuture<'_, Option<String>> {
        ready(self.lock().last_words.clone()).boxed()
    }

    fn stop(&self, task: TaskId, grace: Duration) -> BoxFuture<'_, Result<(), Failure>> {
        let mut inner = self.lock();
        if one_of(&mut inner.stuck) {
            return ready(Err(Failure("the shim does not answer".to_owned()))).boxed();
        }
        inner.running.remove(&task);
        inner.done.push(format!("stop within {}s", grace.as_secs()));
        ready(Ok(())).boxed()
    }

    fn release(&self, _: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        self.does("release")
    }

    fn remove(&self, _: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        self.does("remove")
    }

    fn images(&self) -> BoxFuture<'_, Vec<Digest>> {
        ready(self.lock().shelf.images.iter().map(|image| image.digest).collect()).boxed()
    }

    fn fetch(&self, _: ImageSource) -> BoxFuture<'_, Result<(), Failure>> {
        let wrong = {
            let mut inner = self.lock();
            inner.done.push("fetch".to_owned());
            inner.fetches.pop_front()
        };
        match wrong {
            None => ready(Ok(())).boxed(),
            Some(Fetch::Fails) => ready(Err(Failure("nobody has it".to_owned()))).boxed(),
            Some(Fetch::Panics) => panic!("a fetch that is to panic"),
        }
    }

    fn discard(&self, image: Digest) -> BoxFuture<'_, Result<(), Failure>> {
        let mut inner = self.lock();
        inner.done.push(format!("discard {}", image.0[0]));
        let Shelf { images, free, .. } = &mut inner.shelf;
        images.retain(|shelved| {
            let goes = shelved.digest == image;
            free.0 += if goes { shelved.size.0 } else { 0 };
            !goes
        });
        ready(Ok(())).boxed()
    }

    fn shelf(&self) -> BoxFuture<'_, Result<Shelf, Failure>> {
        ready(Ok(self.lock().shelf.clone())).boxed()
    }

    fn touch(&self, images: Vec<Digest>) -> BoxFuture<'_, ()> {
        self.lock().done.extend(images.iter().map(|image| format!("touch {}", image.0[0])));
        ready(()).boxed()
    }

    fn stirred(&self) -> BoxFuture<'_, Stirred> {
        pending().boxed()
    }
}

/// Brings an image of 100 MB.
async fn pull(pulling: watch::Sender<Pulling>, rate: u64) -> Result<Prepared, Failure> {
    let total = Bytes(100_000_000);
    let mut done = Bytes(0);
    while done < total {
        pulling.send_replace(Pulling { done, total });
        tokio::time::sleep(Duration::from_secs(3)).await;
        done.0 += rate;
    }
    Ok(Prepared::default())
}

/// The one task that tests need.
pub(crate) fn assigned(desired: Desired) -> Assigned {
    let spec = TaskSpec {
        image: "shop".parse().expect("it is a name"),
        entrypoint: None,
        command: None,
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        working_dir: None,
        user: None,
        ports: Vec::new(),
        resources: Resources::default(),
        restart: RestartPolicy::default(),
        placement: model::PlacementPolicy::default(),
        container: ContainerSpec::default(),
        health: Health::default(),
        readiness: None,
        pull: PullPolicy::default(),
    };
    let address = Ipv4Addr::new(10, 1, 2, 3);
    Assigned {
        id: TaskId { service: ServiceId(1), slot: 1, sequence: 1 },
        service: "shop/web".to_owned(),
        desired,
        spec,
        placement: Placement { node: NodeId(1), at: Timestamp(0), address, ports: Vec::new() },
        image: Digest([7; 32]),
        holders: Vec::new(),
        pull: None,
    }
}
