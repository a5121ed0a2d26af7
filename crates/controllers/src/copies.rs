//! Every image that is wanted is held by two nodes that are up, so that losing one loses no image.

use model::{Digest, Liveness, NodeId};
use state::{Command, State};

use crate::Plan;

/// How many nodes hold each image, where there are that many.
const COPIES: usize = 2;

pub(crate) fn plan(state: &State, digest: Digest) -> Plan {
    let mut plan = Plan::default();
    let Some(image) = state.image(digest) else { return plan };
    if !state.image_is_wanted(digest) {
        // The nodes learn from the image's absence among the wanted ones that they may drop it.
        if image.copies.values().all(Option::is_none) {
            plan.commands.push(Command::DropImage { image: digest });
        }
        return plan;
    }
    let is_up = |id: &NodeId| state.node(*id).is_some_and(|node| node.liveness == Liveness::Ready);
    let held = image.copies.keys().filter(|id| is_up(id)).count();
    // Without a holder that is up there is nobody to copy from; asking now would only pick the wrong nodes.
    let source = image.copies.iter().any(|(id, since)| since.is_some() && is_up(id));
    if !source || held >= COPIES {
        return plan;
    }
    let mut candidates: Vec<(usize, NodeId)> = state
        .nodes()
        .filter(|(id, _)| is_up(id) && !image.copies.contains_key(id))
        .map(|(id, _)| (copies_on(state, id), id))
        .collect();
    // The node with the fewest images first; between equals, the lowest id.
    candidates.sort_unstable();
    let chosen = candidates.into_iter().take(COPIES - held);
    plan.commands.extend(chosen.map(|(_, node)| Command::KeepCopy { image: digest, node }));
    plan
}

fn copies_on(state: &State, node: NodeId) -> usize {
    state.images().filter(|(_, image)| image.copies.contains_key(&node)).count()
}
