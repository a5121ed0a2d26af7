//! A host without a machine, for tests of the loops: a container runs until it is stopped, and what goes wrong is what a
//! test says.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending, ready};
use model::{
    ContainerSpec, Desired, Digest, Health, NodeId, Placement, PullPolicy, Resources, RestartPolicy,
    ServiceId, Subnet, TaskId, TaskSpec, Timestamp,
};

use crate::host::{Failure, Found, Host, ImageSource};
use crate::ledger::{Assigned, Record};

#[derive(Debug, Default)]
pub(crate) struct FakeHost(Mutex<Inner>);

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) records: BTreeMap<TaskId, Record>,
    /// The attempts whose containers run.
    pub(crate) running: BTreeMap<TaskId, u32>,
    /// What was done, in order.
    pub(crate) done: Vec<String>,
    /// Images never arrive.
    pub(crate) out_of_reach: bool,
    /// How many writes of the ledger fail from now on.
    pub(crate) full: u32,
    /// How many looks at a container panic from now on.
    pub(crate) broken: u32,
}

impl FakeHost {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn does(&self, what: impl Into<String>) -> BoxFuture<'_, Result<(), Failure>> {
        self.lock().done.push(what.into());
        ready(Ok(())).boxed()
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
        let (breaks, running) = {
            let mut inner = self.lock();
            (one_of(&mut inner.broken), inner.running.get(&task) == Some(&attempt))
        };
        assert!(!breaks, "a look that is to panic");
        ready(if running { Found::Running } else { Found::Nothing }).boxed()
    }

    fn prepare(&self, _: Arc<Assigned>) -> BoxFuture<'_, Result<(), Failure>> {
        let prepared = self.does("prepare");
        if self.lock().out_of_reach { pending().boxed() } else { prepared }
    }

    fn start(&self, task: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<(), Failure>> {
        self.lock().running.insert(task.id, attempt);
        self.does(format!("start {attempt}"))
    }

    fn ended(&self, _: TaskId) -> BoxFuture<'_, ()> {
        pending().boxed()
    }

    fn stop(&self, task: TaskId, _: Duration) -> BoxFuture<'_, Result<(), Failure>> {
        self.lock().running.remove(&task);
        self.does("stop")
    }

    fn release(&self, _: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        self.does("release")
    }

    fn remove(&self, _: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        self.does("remove")
    }

    fn images(&self) -> BoxFuture<'_, Vec<Digest>> {
        ready(Vec::new()).boxed()
    }

    fn fetch(&self, _: ImageSource) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }

    fn discard(&self, _: Digest) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }
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
        constraints: Vec::new(),
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
    }
}
