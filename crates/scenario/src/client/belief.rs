//! What a user knows of its stack from the answers alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::{FailureAction, Mode, Name, ServiceSpec, TaskSpec};
use state::State;
use wire::proto::api::ServiceList;

/// The services of a stack.
pub(crate) type Services = BTreeMap<Name, ServiceSpec>;

/// A change of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Deploy(Services),
    Scale { service: Name, replicas: u32 },
    Turn { service: Name, turn: Turn },
    Remove,
}

/// What is done to a rollout. Whether it can be depends on how far that is, which no user knows for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Undo,
    Restart,
    RunJob,
    StopJob,
    Steer(&'static str),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy(services) => {
                f.write_str("deploy")?;
                services.iter().try_for_each(|(name, spec)| match spec.mode {
                    Mode::Replicated { replicas } => write!(f, " {name}={replicas}"),
                    Mode::Global => write!(f, " {name} on every node"),
                })
            }
            Self::Scale { service, replicas } => write!(f, "scale {service}={replicas}"),
            Self::Turn { service, turn: Turn::Undo } => write!(f, "undo {service}"),
            Self::Turn { service, turn: Turn::RunJob } => write!(f, "run {service}"),
            Self::Turn { service, turn: Turn::StopJob } => write!(f, "stop {service}"),
            Self::Turn { service, turn: Turn::Restart } => write!(f, "restart {service}"),
            Self::Turn { service, turn: Turn::Steer(how) } => write!(f, "{how} {service}"),
            Self::Remove => f.write_str("removal"),
        }
    }
}

impl Op {
    /// The stack after the change, or nothing if the change is refused.
    fn effect(&self, before: Option<&Services>) -> Option<Option<Services>> {
        match self {
            Self::Deploy(services) => Some(Some(services.clone())),
            Self::Scale { service, replicas } => {
                let mut after = before?.clone();
                let spec = after.get_mut(service)?;
                if spec.mode == Mode::Global {
                    return None;
                }
                spec.mode = Mode::Replicated { replicas: *replicas };
                Some(Some(after))
            }
            Self::Turn { service, .. } => {
                let before = before?;
                before.contains_key(service).then(|| Some(before.clone()))
            }
            Self::Remove => before.map(|_| None),
        }
    }

    /// Whether it may be refused for reasons that no user sees.
    fn may_be_refused(&self) -> bool {
        matches!(self, Self::Turn { .. })
    }
}

/// Everything that the stack can be, given what was answered. One possibility, unless a call was given up.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    stack: Name,
    possible: Vec<Option<Services>>,
    /// What each service was ever to be made from: what it can go back to.
    past: BTreeMap<Name, Vec<TaskSpec>>,
    /// Services that somebody has sent back, or may have.
    turned: BTreeSet<Name>,
}

impl Belief {
    /// There is no such stack yet.
    pub(crate) fn new(stack: Name) -> Self {
        Self { stack, possible: vec![None], past: BTreeMap::new(), turned: BTreeSet::new() }
    }

    pub(crate) fn stack(&self) -> &Name {
        &self.stack
    }

    /// One of the possibilities, to choose a change by.
    pub(crate) fn guess(&self) -> Option<&Services> {
        self.possible.first().and_then(Option::as_ref)
    }

    fn effects(&self, op: &Op) -> Vec<Option<Services>> {
        self.possible.iter().filter_map(|before| op.effect(before.as_ref())).collect()
    }

    /// # Errors
    /// The change cannot have taken effect.
    pub(crate) fn took_effect(&mut self, op: &Op) -> Result<(), String> {
        self.note(op);
        if let Op::Deploy(_) = op {
            self.turned.clear();
        }
        let after = self.effects(op);
        if after.is_empty() {
            return Err(format!("{op} of {} is done although it cannot be", self.stack));
        }
        self.become_one_of(after);
        Ok(())
    }

    /// # Errors
    /// There is no reason for the refusal.
    pub(crate) fn was_refused(&mut self, op: &Op) -> Result<(), String> {
        if op.may_be_refused() {
            return Ok(());
        }
        let mut left = std::mem::take(&mut self.possible);
        left.retain(|before| op.effect(before.as_ref()).is_none());
        if left.is_empty() {
            return Err(format!("{op} of {} is refused without a reason", self.stack));
        }
        self.become_one_of(left);
        Ok(())
    }

    pub(crate) fn is_unknown(&mut self, op: &Op) {
        self.note(op);
        let mut all = self.possible.clone();
        all.extend(self.effects(op));
        self.become_one_of(all);
    }

    fn note(&mut self, op: &Op) {
        match op {
            Op::Deploy(services) => {
                for (name, spec) in services {
                    let past = self.past.entry(name.clone()).or_default();
                    if !past.contains(&spec.task) {
                        past.push(spec.task.clone());
                    }
                }
            }
            Op::Turn { service, .. } => drop(self.turned.insert(service.clone())),
            Op::Scale { .. } | Op::Remove => {}
        }
    }

    /// What a service that is declared so may be made from.
    fn may_be_made_from<'a>(&'a self, name: &Name, spec: &'a ServiceSpec) -> Vec<&'a TaskSpec> {
        let goes_back = spec.update.failure_action == FailureAction::Rollback || self.turned.contains(name);
        let past = self.past.get(name).into_iter().flatten().filter(|_| goes_back);
        std::iter::once(&spec.task).chain(past).collect()
    }

    fn is_like(&self, believed: &Option<Services>, actual: &Option<Services>) -> bool {
        let (Some(believed), Some(actual)) = (believed, actual) else {
            return believed.is_none() && actual.is_none();
        };
        let like = |(name, spec): (&Name, &ServiceSpec)| {
            actual.get(name).is_some_and(|actual| {
                let made = self.may_be_made_from(name, spec).contains(&&actual.task);
                made && ServiceSpec { task: spec.task.clone(), ..actual.clone() } == *spec
            })
        };
        believed.len() == actual.len() && believed.iter().all(like)
    }

    fn become_one_of(&mut self, possible: Vec<Option<Services>>) {
        self.possible.clear();
        for one in possible {
            if !self.possible.contains(&one) {
                self.possible.push(one);
            }
        }
    }

    /// # Errors
    /// What a user reads is none of the possibilities.
    pub(crate) fn reads_as(&self, list: &ServiceList) -> Result<(), String> {
        let there = list.services.iter().filter(|service| !service.removing);
        let read: BTreeMap<String, (u32, String)> = there
            .map(|service| (service.service.clone(), (service.desired, service.image.clone())))
            .collect();
        let shows = |services: &Option<Services>| {
            let services: Vec<_> = services.iter().flatten().collect();
            let shows = |(name, spec): &(&Name, &ServiceSpec)| {
                read.get(&format!("{}/{name}", self.stack)).is_some_and(|(replicas, image)| {
                    let made = self.may_be_made_from(name, spec);
                    // Of a global one, the nodes that can be seen decide; of a job, whether it is being done.
                    let number = spec.mode.replicas().filter(|_| spec.job.is_none());
                    number.is_none_or(|wanted| wanted == *replicas)
                        && made.iter().any(|task| task.image.to_string() == *image)
                })
            };
            services.len() == read.len() && services.iter().all(shows)
        };
        if self.possible.iter().any(shows) {
            return Ok(());
        }
        Err(format!("{} reads as {read:?} and has to be one of {:?}", self.stack, self.possible))
    }

    /// # Errors
    /// The state holds none of the possibilities.
    pub(crate) fn is_in(&self, state: &State) -> Result<(), String> {
        let stack = state.stack(&self.stack).filter(|stack| !stack.removing);
        let actual: Option<Services> = stack.map(|stack| {
            let services = stack.services.iter();
            services.filter_map(|(name, id)| Some((name.clone(), state.service(*id)?.spec.clone()))).collect()
        });
        if self.possible.iter().any(|believed| self.is_like(believed, &actual)) {
            return Ok(());
        }
        Err(format!("{} is {actual:?} and has to be one of {:?}", self.stack, self.possible))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::menu;
    use crate::dice::Dice;

    fn deploy() -> (Op, Name) {
        let mut services = menu::services(&Dice::new(1, "belief"));
        let (name, spec) = services.iter_mut().next().expect("a deployment has a service");
        spec.mode = Mode::Replicated { replicas: 2 };
        let name = name.clone();
        (Op::Deploy(services), name)
    }

    fn belief() -> Belief {
        Belief::new("stack-1".parse().unwrap())
    }

    #[test]
    fn a_lost_write_is_noticed() {
        let (op, _) = deploy();
        let mut belief = belief();
        assert!(belief.is_in(&State::new()).is_ok());
        belief.took_effect(&op).unwrap();
        assert!(belief.is_in(&State::new()).is_err());
        assert!(belief.reads_as(&ServiceList::default()).is_err());
    }

    #[test]
    fn a_call_that_was_given_up_leaves_both_possible() {
        let (op, _) = deploy();
        let mut belief = belief();
        belief.is_unknown(&op);
        assert!(belief.is_in(&State::new()).is_ok());
        assert_eq!(belief.possible.len(), 2);
        belief.was_refused(&Op::Remove).unwrap();
        assert_eq!(belief.possible, [None], "only a stack that is not there cannot be removed");
    }

    #[test]
    fn an_answer_that_cannot_be_is_noticed() {
        let (op, service) = deploy();
        let mut belief = belief();
        assert!(belief.took_effect(&Op::Scale { service: service.clone(), replicas: 3 }).is_err());
        belief.took_effect(&op).unwrap();
        assert!(belief.was_refused(&Op::Scale { service, replicas: 3 }).is_err());
    }

    #[test]
    fn the_number_of_what_is_on_every_node_cannot_be_changed() {
        let (op, service) = deploy();
        let Op::Deploy(mut services) = op else { unreachable!("it was just made") };
        services.get_mut(&service).unwrap().mode = Mode::Global;
        let mut belief = belief();
        belief.took_effect(&Op::Deploy(services)).unwrap();
        belief.was_refused(&Op::Scale { service: service.clone(), replicas: 3 }).unwrap();
        assert!(belief.took_effect(&Op::Scale { service, replicas: 3 }).is_err());
    }
}
