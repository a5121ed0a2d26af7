//! Every image that is wanted is held by two nodes that are up, so that losing one loses no image. One that a registry has
//! is lost with no node; it is forgotten once nothing has been made from it for a week.

use std::time::Duration;

use model::{Digest, Image, ImageName, Liveness, NodeId, Timestamp};
use state::{COPIES, Command, State};

use crate::Plan;

/// How long a name outlives its use that nobody asked for but a deploy. Whoever goes back to last week's version finds it,
/// also when its registry is down.
const OUTLIVES: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(crate) fn plan(state: &State, digest: Digest, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(image) = state.image(digest) else { return plan };
    if !state.image_is_wanted(digest) {
        // The nodes learn from the image's absence among the wanted ones that they may drop it.
        if image.copies.values().all(Option::is_none) {
            plan.commands.push(Command::DropImage { image: digest });
        }
        return plan;
    }
    if image.origin.is_some() {
        return forget(state, digest, image, now);
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

/// Takes the names of an image away that only deploys gave it, when nothing has been made from it for long enough.
fn forget(state: &State, digest: Digest, image: &Image, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(idle) = image.idle else { return plan };
    let is_over = |(name, is_automatic): &(&ImageName, bool)| *is_automatic && state.user_of(name).is_none();
    let names = state.names_of(digest).map(|(name, tag)| (name, tag.automatic));
    let over: Vec<ImageName> = names.filter(is_over).map(|(name, _)| name.clone()).collect();
    let due = idle.plus(OUTLIVES);
    if now < due && !over.is_empty() {
        plan.wake(due);
    } else {
        plan.commands.extend(over.into_iter().map(|name| Command::RemoveImage { name }));
    }
    plan
}

fn copies_on(state: &State, node: NodeId) -> usize {
    state.images().filter(|(_, image)| image.copies.contains_key(&node)).count()
}
