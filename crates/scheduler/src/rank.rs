//! Which of two nodes that can both take a task gets it.

use model::{NodeId, Strategy};
use state::{Demand, Load, Occupancy, State};

/// Lower is better, compared from the first field on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// How many of the services that it would rather be near, or apart from, are not so.
    regrets: u32,
    of_service: u32,
    /// Thousandths of the fuller of CPU and memory that is reserved; where tasks are packed, that is free.
    reserved: u64,
    /// Where tasks are packed, all but these.
    tasks: u32,
}

pub(crate) fn rank(state: &State, demand: &Demand<'_>, id: NodeId) -> Rank {
    let Load { reserved, tasks } = state.load(id);
    let (regrets, of_service) = match state.occupied(id) {
        Some(occupancy) => (demand.regrets(occupancy), occupancy.of_service(demand.service)),
        None => (demand.regrets(&Occupancy::default()), 0),
    };
    match demand.strategy {
        Strategy::Spread => Rank { regrets, of_service, reserved, tasks },
        Strategy::BinPack => Rank {
            regrets,
            of_service: 0,
            reserved: 1000_u64.saturating_sub(reserved),
            tasks: u32::MAX - tasks,
        },
    }
}
