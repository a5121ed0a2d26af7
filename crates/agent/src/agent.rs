//! The agent itself: it owns the staff of tasks' loops, the session and the reports.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use futures::StreamExt as _;
use model::{Capacity, Digest, Platform, TaskId, Timestamp};
use tokio::sync::{mpsc, watch};
use wire::proto::agent::{Delta, FromAgent, FromManager, Hello, Open, Whole, from_agent, from_manager};

use crate::details::Details;
use crate::fetches::Fetches;
use crate::garbage::{Making, Room};
use crate::host::{Failure, Host, ImageSource, Stirred};
use crate::images::{Images, Told};
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
    pub platform: Platform,
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
    images: Images,
    clock: Clock,
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
            images: Images::new(config.address),
            config,
            staff: Staff::new(host.clone(), clock.clone()),
            clock,
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
                // What is to be discarded is for managers to say.
                stirred = self.host.stirred() => if stirred == Stirred::Arrived {
                    self.reports.images(self.host.images().await);
                },
                found = &mut seek => return found,
            }
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            address: self.config.address.to_string(),
            labels: self.config.labels.clone().into_iter().collect(),
            capacity: Some(self.config.capacity.into()),
            platform: Some((&self.config.platform).into()),
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
                news = self.staff.news() => {
                    self.reports.hear(news);
                    self.discard_dropped().await;
                }
                () = self.fetches.arrived() => self.reports.images(self.host.images().await),
                stirred = self.host.stirred() => match stirred {
                    Stirred::Arrived => self.reports.images(self.host.images().await),
                    Stirred::Full => self.make_room(Making::ROOM).await,
                },
                () = self.images.due() => self.make_room(Making::default()).await,
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
        self.images.begin();
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
            self.images.let_go(digest);
            self.fetches.give_up(digest);
        }
        self.discard_dropped().await;
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
        let images: Result<Vec<(ImageSource, bool)>, _> = images.into_iter().map(Images::read).collect();
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
        for (source, required) in images {
            match self.images.told(source, required) {
                Told::Fetch(source) => self.fetches.want(source),
                Told::Leave(digest) => self.fetches.give_up(digest),
            }
        }
        Ok(())
    }

    /// Whether a task of which anything may run is made from this image. Its layers are mounted until the last container of
    /// it is seen ended.
    fn uses(&self, image: Digest) -> bool {
        uses(&self.staff, &self.reports, image)
    }

    /// Discards what the cluster has done with, as far as nothing here uses it.
    async fn discard_dropped(&mut self) {
        let Self { images, staff, reports, .. } = self;
        let free = images.take_dropped(|image| uses(staff, reports, image));
        if free.is_empty() {
            return;
        }
        for image in free {
            self.discard(image).await;
        }
        self.reports.images(self.host.images().await);
    }

    async fn discard(&mut self, image: Digest) {
        if let Err(failure) = self.host.discard(image).await {
            tracing::warn!(%image, %failure, "an image could not be removed");
        }
    }

    /// Lets go of images that can be had again: those that have been unused for long, and more where the disk is full.
    async fn make_room(&mut self, mut making: Making) {
        self.images.looked();
        if !self.images.is_told() {
            return;
        }
        let mut tried = BTreeSet::new();
        loop {
            let shelf = match self.host.shelf().await {
                Ok(shelf) => shelf,
                Err(failure) => return tracing::warn!(%failure, "the images here could not be looked at"),
            };
            if tried.is_empty() {
                let used = shelf.images.iter().map(|image| image.digest).filter(|image| self.uses(*image));
                self.host.touch(used.collect()).await;
            }
            let held = shelf.images.iter().filter(|shelved| !tried.contains(&shelved.digest));
            let held: Vec<_> = held
                .map(|shelved| {
                    let is_used = self.uses(shelved.digest) || self.fetches.wants(shelved.digest);
                    self.images.held(shelved, is_used)
                })
                .collect();
            let room = Room { free: shelf.free, total: shelf.total };
            let Some((image, why)) = making.next(&held, room, self.clock.now()) else { break };
            tracing::info!(%image, ?why, "an image is discarded; it can be had again");
            self.discard(image).await;
            tried.insert(image);
        }
        if !tried.is_empty() {
            self.reports.images(self.host.images().await);
        }
    }
}

fn uses<H: Host>(staff: &Staff<H>, reports: &Reports, image: Digest) -> bool {
    staff.images().any(|(task, used)| used == image && !reports.is_over(task))
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
