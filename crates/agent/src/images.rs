//! What this node is to hold of images, as it was last told, and what becomes of the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use model::Digest;
use tokio::time::{Instant, sleep_until};
use wire::proto::agent::AssignedImage;

use crate::garbage::{Held, Standing};
use crate::host::{ImageSource, Shelved};
use crate::ledger;

/// How often the node looks for images to let go of. A look is one of the disk; what it is for is counted in hours.
const LOOK: Duration = Duration::from_secs(5 * 60);

/// An image of which the cluster counts a copy on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    required: bool,
    /// Another node or a registry has it.
    elsewhere: bool,
}

/// All that the agent was told of images besides its tasks'.
#[derive(Debug)]
pub(crate) struct Images {
    own: SocketAddr,
    copies: BTreeMap<Digest, Counted>,
    /// To be discarded, as soon as nothing uses them.
    dropped: BTreeSet<Digest>,
    /// When to look for others. There is nothing to go by before the first assignment.
    due: Option<Instant>,
}

/// What is to be done about an image that one was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Fetch(ImageSource),
    /// It may stay or go.
    Leave(Digest),
}

impl Images {
    /// `own` is where other nodes reach this one.
    pub(crate) fn new(own: SocketAddr) -> Self {
        Self { own, copies: BTreeMap::new(), dropped: BTreeSet::new(), due: None }
    }

    /// Everything is told anew.
    pub(crate) fn begin(&mut self) {
        self.copies.clear();
        self.due.get_or_insert_with(|| Instant::now() + LOOK);
    }

    pub(crate) fn read(message: AssignedImage) -> Result<(ImageSource, bool), wire::Invalid> {
        let required = !message.optional;
        Ok((ledger::image_source(message)?, required))
    }

    pub(crate) fn told(&mut self, source: ImageSource, required: bool) -> Told {
        let digest = source.digest;
        let other = source.holders.iter().any(|(_, address)| *address != self.own);
        self.copies.insert(digest, Counted { required, elsewhere: other || source.pull.is_some() });
        self.dropped.remove(&digest);
        if required { Told::Fetch(source) } else { Told::Leave(digest) }
    }

    /// The node need not hold it any more, and nobody else does.
    pub(crate) fn let_go(&mut self, image: Digest) {
        self.copies.remove(&image);
        self.dropped.insert(image);
    }

    /// The dropped images that nothing uses. They are not named again.
    pub(crate) fn take_dropped(&mut self, is_used: impl Fn(Digest) -> bool) -> Vec<Digest> {
        let free: Vec<Digest> = self.dropped.iter().copied().filter(|image| !is_used(*image)).collect();
        self.dropped.retain(|image| is_used(*image));
        free
    }

    /// What an image that is here is to this node.
    pub(crate) fn held(&self, shelved: &Shelved, is_used: bool) -> Held {
        let Shelved { digest, size: _, used, busy, whole } = *shelved;
        let standing = match self.copies.get(&digest) {
            _ if is_used || busy => Standing::Used,
            _ if !whole => Standing::Half,
            Some(Counted { required: true, .. }) => Standing::Required,
            Some(Counted { elsewhere: false, .. }) => Standing::OnlyHere,
            Some(Counted { elsewhere: true, .. }) => Standing::Spare,
            None => Standing::Unlisted,
        };
        Held { digest, used, standing }
    }

    /// Returns when it is time to look for images to let go of.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn looked(&mut self) {
        self.due = Some(Instant::now() + LOOK);
    }

    /// Whether anything was ever told: what is known here may be discarded only by what the cluster says of it.
    pub(crate) fn is_told(&self) -> bool {
        self.due.is_some()
    }
}

#[cfg(test)]
mod tests {
    use model::{Bytes, NodeId, Timestamp};

    use super::*;

    const IMAGE: Digest = Digest([1; 32]);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7000))
    }

    fn source(holders: &[u8]) -> ImageSource {
        let holders = holders.iter().map(|last| (NodeId((*last).into()), address(*last))).collect();
        ImageSource { digest: IMAGE, holders, pull: None }
    }

    #[test]
    fn what_may_go_is_what_others_have() {
        let mut images = Images::new(address(1));
        let shelved = Shelved { digest: IMAGE, size: Bytes(1), used: Timestamp(0), busy: false, whole: true };
        let standing = |images: &Images| images.held(&shelved, false).standing;
        assert_eq!(standing(&images), Standing::Unlisted);
        images.told(source(&[1, 2]), true);
        assert_eq!(standing(&images), Standing::Required);
        assert_eq!(images.told(source(&[1, 2]), false), Told::Leave(IMAGE));
        assert_eq!(standing(&images), Standing::Spare);
        images.told(source(&[1]), false);
        assert_eq!(standing(&images), Standing::OnlyHere, "this node itself is no other");
        assert_eq!(images.held(&shelved, true).standing, Standing::Used);
        let busy = Shelved { busy: true, ..shelved };
        assert_eq!(images.held(&busy, false).standing, Standing::Used);
        let half = Shelved { whole: false, ..shelved };
        assert_eq!(images.held(&half, false).standing, Standing::Half);
        assert_eq!(images.held(&half, true).standing, Standing::Used, "a task tries again");
    }

    #[test]
    fn what_is_dropped_while_it_is_used_is_named_once_it_is_not() {
        let mut images = Images::new(address(1));
        images.let_go(IMAGE);
        assert!(images.take_dropped(|_| true).is_empty());
        assert_eq!(images.take_dropped(|_| false), [IMAGE]);
        assert!(images.take_dropped(|_| false).is_empty());
        images.let_go(IMAGE);
        images.told(source(&[2]), true);
        assert!(images.take_dropped(|_| false).is_empty(), "it is wanted again");
    }
}
