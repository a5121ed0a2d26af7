//! The agent itself: it owns the staff of tasks' loops, the session and the reports.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt as _;
use model::{Capacity, Digest, TaskId, Timestamp};
use tokio::sync::{mpsc, watch};
use wire::proto::agent::{Delta, FromAgent, FromManager, Hello, Open, Whole, from_agent, from_manager};

use crate::details::Details;
use crate::fetches::Fetches;
use crate::host::{Failure, Host, ImageSource};
use crate::ledger::{self, Assigned};
use crate::report::Reports;
use crate::session::{self, Seeker};
use crate::staff::Staff;
use crate::task::Said;
use crate::uplink::{Manager, Session, Uplink};

/// Tells the time of day on this node.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// What the agent says of its node, and whom it may say it to.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where other nodes reach this one's daemon.
    pub address: std::net::SocketAddr,
    pub labels: BTreeMap<String, String>,
    pub capacity: Capacity,
    pub version: String,
    pub managers: BTreeSet<Manager>,
}

/// A stream that a manager asks for; the node's daemon serves it.
pub type Opened = (Manager, Open);

pub struct Agent<H, U> {
    config: Config,
    host: Arc<H>,
    seeker: Seeker<U>,
    with: watch::Sender<Option<Manager>>,
    lost: watch::Receiver<u64>,
    opens: mpsc::UnboundedSender<Opened>,
    staff: Staff<H>,
    reports: Reports,
    /// The Raft index of the newest assignment taken in. An older one is refused.
    generation: u64,
    fetches: Fetches<H>,
}

impl<H, U> std::fmt::Debug for Agent<H, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The heartbeats: a future of its own, so that the daemon can run it on a thread of its own.
pub struct Heart<U> {
    uplink: Arc<U>,
    with: watch::Receiver<Option<Manager>>,
    lost: watch::Sender<u64>,
}

impl<U> std::fmt::Debug for Heart<U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Heart")
    }
}

impl<U: Uplink> Heart<U> {
    pub async fn run(self) {
        session::beat(self.uplink, self.with, self.lost).await;
    }
}

impl<H: Host, U: Uplink> Agent<H, U> {
    /// `opens` gets the streams that managers ask for.
    pub fn new(
        config: Config,
        host: Arc<H>,
        uplink: Arc<U>,
        clock: Clock,
        opens: mpsc::UnboundedSender<Opened>,
    ) -> (Self, Heart<U>) {
        let (with, told) = watch::channel(None);
        let (lost, losses) = watch::channel(0);
        let heart = Heart { uplink: uplink.clone(), with: told, lost };
        let agent = Self {
            seeker: Seeker::new(uplink, config.managers.clone()),
            config,
            staff: Staff::new(host.clone(), clock),
            fetches: Fetches::new(host.clone()),
            host,
            with,
            lost: losses,
            opens,
            reports: Reports::default(),
            generation: 0,
        };
        (agent, heart)
    }

    /// A handle on what is known of the tasks beyond their statuses, for the daemon to serve.
    pub fn details(&self) -> Details {
        self.staff.details()
    }

    /// Takes up what runs here. Fails if the ledger cannot be read. To be called once, before [`Agent::run`].
    pub async fn adopt(&mut self) -> Result<(), Failure> {
        for record in self.host.records().await? {
            if let Some(status) = &record.status {
                self.reports.status(record.assigned.id, status.clone());
            }
            self.staff.employ(record);
        }
        Ok(())
    }

    /// Keeps a session, one after the other, for ever.
    pub async fn run(mut self) -> Infallible {
        loop {
            let images = self.host.images().await;
            self.reports.images(images);
            let hello = self.hello();
            let (manager, session) = self.seek(&hello).await;
            self.with.send_replace(Some(manager));
            self.reports.begin_session();
            match self.attend(manager, session).await {
                Ok(()) => self.seeker.followed(),
                Err(Refused) => self.seeker.refused(),
            }
            self.with.send_replace(None);
            self.seeker.lost(manager);
        }
    }

    /// Finds a session. Containers end and are restarted and images come while no manager can be found, and the search goes
    /// on meanwhile.
    async fn seek(&mut self, hello: &Hello) -> (Manager, Session) {
        let mut seek = std::pin::pin!(self.seeker.seek(hello));
        loop {
            tokio::select! {
                biased;
                news = self.staff.news() => self.reports.hear(news),
                () = self.fetches.arrived() => self.reports.images(self.host.images().await),
                found = &mut seek => return found,
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            address: self.config.address.to_string(),
            labels: self.config.labels.clone().into_iter().collect(),
            capacity: Some(self.config.capacity.into()),
            version: self.config.version.clone(),
            known: self.staff.known().map(Into::into).collect(),
        }
    }

    /// Runs one session to its end.
    async fn attend(&mut self, manager: Manager, mut session: Session) -> Result<(), Refused> {
        self.lost.mark_unchanged();
        loop {
            while let Some(Said { task, status }) = self.staff.said() {
                self.reports.status(task, status);
            }
            if let Some(report) = self.reports.next() {
                let message = FromAgent { kind: Some(from_agent::Kind::Report(report)) };
                if session.outgoing.send(message).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                message = session.incoming.next() => match message {
                    Some(message) => self.take(manager, message).await?,
                    None => return Ok(()),
                },
                news = self.staff.news() => self.reports.hear(news),
                () = self.fetches.arrived() => self.reports.images(self.host.images().await),
                // An error is a heart that beats no more, and nothing to hear from.
                Ok(()) = self.lost.changed() => return Ok(()),
            }
        }
    }

    /// An error ends the session; the next one begins with the whole assignment.
    async fn take(&mut self, manager: Manager, message: FromManager) -> Result<(), Refused> {
        match message.kind {
            Some(from_manager::Kind::Whole(whole)) => self.whole(whole).await,
            Some(from_manager::Kind::Delta(delta)) => self.delta(delta).await,
            Some(from_manager::Kind::Received(received)) => {
                self.reports.received(received.number);
                Ok(())
            }
            Some(from_manager::Kind::Open(open)) => {
                let _ = self.opens.send((manager, open));
                Ok(())
            }
            None => Err(Refused),
        }
    }

    async fn whole(&mut self, whole: Whole) -> Result<(), Refused> {
        let Whole { cluster: _, generation, subnet, tasks, unknown, images, managers } = whole;
        if generation < self.generation {
            tracing::warn!(
                generation,
                known = self.generation,
                "an older assignment than the last one is refused"
            );
            return Err(Refused);
        }
        let managers = managers.iter().filter_map(|holder| ledger::holder(holder).ok());
        let managers = managers.map(|(node, address)| Manager { node: Some(node), address }).collect();
        self.seeker.know(managers);
        let subnet = subnet.ok_or(Refused)?;
        let subnet = wire::subnet(&subnet.base, subnet.prefix).map_err(|error| unreadable(&error))?;
        if let Err(failure) = self.host.join_network(subnet).await {
            tracing::error!(%failure, "this node's network could not be set up; trying again");
            return Err(Refused);
        }
        self.generation = generation;
        self.accept(tasks, unknown, images)
    }

    async fn delta(&mut self, delta: Delta) -> Result<(), Refused> {
        let Delta { from, generation, tasks, unknown, images, dropped_images } = delta;
        if from != self.generation {
            tracing::info!(from, known = self.generation, "a gap in the assignments; asking for the whole");
            return Err(Refused);
        }
        let dropped: Result<Vec<Digest>, _> = dropped_images.iter().map(|text| wire::digest(text)).collect();
        let dropped = dropped.map_err(|error| unreadable(&error))?;
        self.generation = generation;
        self.accept(tasks, unknown, images)?;
        for digest in dropped {
            self.discard(digest).await;
        }
        Ok(())
    }

    fn accept(
        &mut self,
        tasks: Vec<wire::proto::agent::AssignedTask>,
        unknown: Vec<wire::proto::model::TaskId>,
        images: Vec<wire::proto::agent::AssignedImage>,
    ) -> Result<(), Refused> {
        // All is read before anything is done: half an assignment is none.
        let tasks: Result<Vec<Assigned>, _> = tasks.into_iter().map(Assigned::try_from).collect();
        let unknown: Result<Vec<TaskId>, _> = unknown.into_iter().map(TaskId::try_from).collect();
        let images: Result<Vec<ImageSource>, _> = images.into_iter().map(ledger::image_source).collect();
        let (tasks, unknown, images) = match (tasks, unknown, images) {
            (Ok(tasks), Ok(unknown), Ok(images)) => (tasks, unknown, images),
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => return Err(unreadable(&error)),
        };
        for assigned in tasks {
            self.staff.assign(assigned);
        }
        for id in unknown {
            self.staff.forget(id);
            self.reports.forget(id);
        }
        for source in images {
            self.fetches.want(source);
        }
        Ok(())
    }

    async fn discard(&mut self, digest: Digest) {
        if self.staff.uses(digest) {
            return;
        }
        self.fetches.give_up(digest);
        if let Err(failure) = self.host.discard(digest).await {
            tracing::warn!(image = %digest, %failure, "an image could not be removed");
        }
        let images = self.host.images().await;
        self.reports.images(images);
    }
}

/// What a manager said cannot be followed.
#[derive(Debug)]
struct Refused;

fn unreadable(error: &wire::Invalid) -> Refused {
    tracing::warn!(%error, "an assignment that cannot be read is refused");
    Refused
}

#[cfg(test)]
mod tests;
