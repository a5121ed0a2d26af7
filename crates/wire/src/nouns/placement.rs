//! Where tasks may be, and had better be.

use std::num::NonZeroU32;

use model::{Attribute, Platform, Priority};

use crate::invalid::{Cause, choices, list};
use crate::proto::model as proto;
use crate::{Field, Invalid};

choices! {
    Strategy { Spread, BinPack }
    Wish { Near, Apart }
}

/// All but the constraints, which are beside it.
impl From<&model::PlacementPolicy> for proto::PlacementPolicy {
    fn from(policy: &model::PlacementPolicy) -> Self {
        let model::PlacementPolicy {
            constraints: _,
            spread_over,
            max_per_node,
            platform,
            affinities,
            strategy,
            priority,
        } = policy;
        Self {
            spread_over: spread_over.iter().map(ToString::to_string).collect(),
            max_per_node: max_per_node.map_or(0, NonZeroU32::get),
            platform: platform.as_ref().map(ToString::to_string),
            affinities: affinities.iter().map(Into::into).collect(),
            strategy: strategy.map(|strategy| proto::Strategy::from(strategy).into()),
            priority: priority.0.into(),
        }
    }
}

impl TryFrom<proto::PlacementPolicy> for model::PlacementPolicy {
    type Error = Invalid;

    fn try_from(policy: proto::PlacementPolicy) -> Result<Self, Invalid> {
        let proto::PlacementPolicy { spread_over, max_per_node, platform, affinities, strategy, priority } =
            policy;
        let at = |field| Field("PlacementPolicy", field);
        let attributes = spread_over.iter().map(|text| at("spread_over").parsed::<Attribute>(text));
        let is_priority = |number: &i16| (Priority::LEAST..=Priority::MOST).contains(number);
        let number = i16::try_from(priority).ok().filter(is_priority);
        Ok(Self {
            constraints: Vec::new(),
            spread_over: attributes.collect::<Result<_, Invalid>>()?,
            max_per_node: NonZeroU32::new(max_per_node),
            platform: platform.map(|text| at("platform").parsed::<Platform>(&text)).transpose()?,
            affinities: list::<_, model::Affinity>(affinities)?.into_iter().collect(),
            strategy: strategy.map(|it| at("strategy").choice::<proto::Strategy, _>(it)).transpose()?,
            priority: Priority(number.ok_or_else(|| at("priority").bad(Cause::OutOfRange(priority.into())))?),
        })
    }
}

impl From<&model::Affinity> for proto::Affinity {
    fn from(affinity: &model::Affinity) -> Self {
        let model::Affinity { stack, service, wish, required } = affinity;
        Self {
            stack: stack.as_ref().map(ToString::to_string),
            service: service.to_string(),
            wish: proto::Wish::from(*wish).into(),
            required: *required,
        }
    }
}

impl TryFrom<proto::Affinity> for model::Affinity {
    type Error = Invalid;

    fn try_from(affinity: proto::Affinity) -> Result<Self, Invalid> {
        let proto::Affinity { stack, service, wish, required } = affinity;
        let at = |field| Field("Affinity", field);
        Ok(Self {
            stack: stack.map(|name| at("stack").parsed(&name)).transpose()?,
            service: at("service").parsed(&service)?,
            wish: at("wish").choice::<proto::Wish, _>(wish)?,
            required,
        })
    }
}
