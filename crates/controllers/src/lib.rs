//! Pure planners: which commands bring the cluster closer to what is declared.
//!
//! [`plan`] is the one entry. It looks at one object of one immutable [`State`] and answers with commands, with the
//! time at which looking again could change the answer, and with notes that say why nothing more is being done. It is
//! level-triggered: the answer depends on what is, not on what happened. Applying a plan and planning again ends in an
//! empty plan.
//!
//! Modules in reading order: [`service`] (a service's slots, one after the other), [`slots`] (how one stands), [`rollout`]
//! (which of them may change now), [`dependencies`] (which services wait for others), [`waiting`] (why a slot does not change),
//! [`job`] (slots that are to succeed once a run), [`one_off`] (what is run once, after its end), [`removal`] (services on their
//! way out), [`copies`] (who holds an image).
//!
//! **Invariant:** planners do not choose nodes; that is `scheduler`'s. They know no clock (`now` is an argument), no
//! store and no log.

mod copies;
mod dependencies;
mod job;
mod one_off;
mod removal;
mod rollout;
mod service;
mod slots;
mod waiting;

use std::collections::BTreeSet;
use std::time::Duration;

use model::{Digest, Mode, ServiceId, Timestamp};
use state::{Change, Command, Service, State};

pub use rollout::{min_healthy, order, policy};
pub use slots::replacement_delay;
pub use waiting::{SlotNote, Waiting};

/// What can be planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Service(ServiceId),
    Image(Digest),
}

/// What to do for one object now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub commands: Vec<Command>,
    /// When to plan again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Why slots are left as they are.
    pub notes: Vec<SlotNote>,
    /// Of a service: slots that have the version which it has, and have served with it for long enough.
    pub done: u32,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Commands that bring `object` closer to what is declared, as of `now`, which is at least `state.time()`.
pub fn plan(state: &State, object: Object, now: Timestamp) -> Plan {
    match object {
        Object::Service(id) => match state.service(id) {
            None => Plan::default(),
            Some(service) if service.removing => removal::plan(state, id),
            Some(service) if service.spec.job.is_some() => job::plan(state, id, service, now),
            Some(service) => {
                let mut plan = service::plan(state, id, service, now);
                one_off::plan(state, id, service, now, &mut plan);
                plan
            }
        },
        Object::Image(digest) => copies::plan(state, digest, now),
    }
}

/// The objects whose plan a change may alter.
pub fn touched(state: &State, change: &Change) -> Vec<Object> {
    match change {
        Change::Service(id) => {
            let images = state.service(*id).into_iter().flat_map(|service| service.templates.values());
            let mut objects = vec![Object::Service(*id)];
            objects.extend(images.map(|template| Object::Image(template.image)));
            objects.extend(dependencies::dependents(state, *id).into_iter().map(Object::Service));
            objects
        }
        Change::Task(id, _) => {
            let dependents = dependencies::dependents(state, id.service);
            let services = std::iter::once(id.service).chain(dependents).chain(leaving(state));
            services.map(Object::Service).collect::<BTreeSet<_>>().into_iter().collect()
        }
        Change::Image(digest) => vec![Object::Image(*digest)],
        // A node that comes or goes concerns the services that have tasks there or may have, and every image's copies.
        Change::Node(node) => {
            let there = state.tasks_on(*node).map(|(id, _)| id.service);
            let is_global = |(_, service): &(ServiceId, &Service)| service.spec.mode == Mode::Global;
            let may_come = state.services().filter(is_global).map(|(id, _)| id);
            let services: BTreeSet<ServiceId> = there.chain(may_come).chain(leaving(state)).collect();
            let wait = services.iter().flat_map(|id| dependencies::dependents(state, *id));
            let services: BTreeSet<ServiceId> = wait.chain(services.iter().copied()).collect();
            let images = state.images().map(|(digest, _)| Object::Image(digest));
            services.into_iter().map(Object::Service).chain(images).collect()
        }
        Change::Cluster | Change::Stack(_) | Change::Registry(_) => Vec::new(),
    }
}

/// Services with tasks that are to leave their nodes, which is for when another node takes them.
fn leaving(state: &State) -> impl Iterator<Item = ServiceId> {
    let taken = state.draining().filter_map(|node| state.occupied(node));
    let drained = taken.flat_map(|occupancy| occupancy.by_service.keys().copied());
    drained.chain(state.leaving().map(|task| task.service))
}

/// Every object there is, in the order in which a full pass plans for them.
pub fn all(state: &State) -> Vec<Object> {
    let services = state.services().map(|(id, _)| Object::Service(id));
    services.chain(state.images().map(|(digest, _)| Object::Image(digest))).collect()
}

/// Doubles from `first` with every one of `failures` after the first, up to `most`.
fn back_off(first: Duration, failures: u32, most: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
}
