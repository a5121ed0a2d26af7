//! What a user knows of its stack from the answers alone.

use std::collections::BTreeMap;
use std::fmt;

use model::{Name, ServiceSpec};
use state::State;
use wire::proto::api::ServiceList;

/// The services of a stack.
pub(crate) type Services = BTreeMap<Name, ServiceSpec>;

/// A change of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Deploy(Services),
    Scale { service: Name, replicas: u32 },
    Remove,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy(services) => {
                f.write_str("deploy")?;
                services.iter().try_for_each(|(name, spec)| write!(f, " {name}={}", spec.replicas))
            }
            Self::Scale { service, replicas } => write!(f, "scale {service}={replicas}"),
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
                after.get_mut(service)?.replicas = *replicas;
                Some(Some(after))
            }
            Self::Remove => before.map(|_| None),
        }
    }
}

/// Everything that the stack can be, given what was answered. One possibility, unless a call was given up.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    stack: Name,
    possible: Vec<Option<Services>>,
}

impl Belief {
    /// There is no such stack yet.
    pub(crate) fn new(stack: Name) -> Self {
        Self { stack, possible: vec![None] }
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
        let mut left = std::mem::take(&mut self.possible);
        left.retain(|before| op.effect(before.as_ref()).is_none());
        if left.is_empty() {
            return Err(format!("{op} of {} is refused without a reason", self.stack));
        }
        self.become_one_of(left);
        Ok(())
    }

    pub(crate) fn is_unknown(&mut self, op: &Op) {
        let mut all = self.possible.clone();
        all.extend(self.effects(op));
        self.become_one_of(all);
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
        let shown = |services: &Option<Services>| {
            let services = services.iter().flatten().map(|(name, spec)| {
                (format!("{}/{name}", self.stack), (spec.replicas, spec.task.image.to_string()))
            });
            services.collect::<BTreeMap<_, _>>()
        };
        if self.possible.iter().any(|services| shown(services) == read) {
            return Ok(());
        }
        let expected: Vec<_> = self.possible.iter().map(shown).collect();
        Err(format!("{} reads as {read:?} and has to be one of {expected:?}", self.stack))
    }

    /// # Errors
    /// The state holds none of the possibilities.
    pub(crate) fn is_in(&self, state: &State) -> Result<(), String> {
        let stack = state.stack(&self.stack).filter(|stack| !stack.removing);
        let actual: Option<Services> = stack.map(|stack| {
            let services = stack.services.iter();
            services.filter_map(|(name, id)| Some((name.clone(), state.service(*id)?.spec.clone()))).collect()
        });
        if self.possible.contains(&actual) {
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
        let services = menu::services(&Dice::new(1, "belief"));
        let name = services.keys().next().expect("a deployment has a service").clone();
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
}
