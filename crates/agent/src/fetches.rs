//! Images on their way to this node: each is asked for until it is here, or until it is not wanted any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::Digest;
use tokio::task::{Id, JoinError, JoinSet};

use crate::host::{Failure, Host, ImageSource};

/// How long an image that could not be fetched is left alone: its holders may be coming up just now.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Fetches<H> {
    host: Arc<H>,
    /// The images that are not here yet, with their holders as they were last told.
    wanted: BTreeMap<Digest, ImageSource>,
    running: JoinSet<Result<(), Failure>>,
    /// Which image each fetch is of: one that panics cannot say.
    whose: BTreeMap<Id, Digest>,
}

impl<H: Host> Fetches<H> {
    pub(crate) fn new(host: Arc<H>) -> Self {
        Self { host, wanted: BTreeMap::new(), running: JoinSet::new(), whose: BTreeMap::new() }
    }

    pub(crate) fn want(&mut self, source: ImageSource) {
        self.wanted.insert(source.digest, source.clone());
        // Of one that was given up and is wanted again, a fetch may be under way still.
        if !self.whose.values().any(|image| *image == source.digest) {
            self.begin(source, Duration::ZERO);
        }
    }

    /// A fetch that is under way is not broken off: what it has copied may serve another image.
    pub(crate) fn give_up(&mut self, image: Digest) {
        self.wanted.remove(&image);
    }

    pub(crate) fn wants(&self, image: Digest) -> bool {
        self.wanted.contains_key(&image) || self.whose.values().any(|fetched| *fetched == image)
    }

    /// Returns when an image has come. A call that is dropped loses nothing.
    pub(crate) async fn arrived(&mut self) {
        loop {
            match self.running.join_next_with_id().await {
                Some(done) => {
                    if self.settle(done) {
                        return;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Whether an image has come.
    fn settle(&mut self, done: Result<(Id, Result<(), Failure>), JoinError>) -> bool {
        let (fetch, fetched) = match done {
            Ok(done) => done,
            Err(error) => (error.id(), Err(Failure(format!("the fetch broke off: {error}")))),
        };
        let Some(image) = self.whose.remove(&fetch) else { return false };
        match (fetched, self.wanted.get(&image).cloned()) {
            (Ok(()), _) => {
                self.wanted.remove(&image);
                true
            }
            (Err(_), None) => false,
            (Err(failure), Some(latest)) => {
                tracing::warn!(%image, %failure, "an image could not be fetched; trying again");
                self.begin(latest, AGAIN);
                false
            }
        }
    }

    fn begin(&mut self, source: ImageSource, after: Duration) {
        let (host, image) = (self.host.clone(), source.digest);
        let fetch = self.running.spawn(async move {
            tokio::time::sleep(after).await;
            host.fetch(source).await
        });
        self.whose.insert(fetch.id(), image);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::host::fake::{FakeHost, Fetch};

    const IMAGE: Digest = Digest([3; 32]);

    fn source() -> ImageSource {
        ImageSource { digest: IMAGE, holders: Vec::new(), pull: None }
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_is_asked_for_until_it_comes_whatever_goes_wrong() {
        let host = Arc::new(FakeHost::default());
        host.lock().fetches = [Fetch::Fails, Fetch::Panics, Fetch::Fails].into();
        let mut fetches = Fetches::new(host.clone());
        let began = Instant::now();
        fetches.want(source());
        // Told again, as by every session, it is not asked for twice.
        fetches.want(source());
        timeout(Duration::from_secs(60), fetches.arrived()).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 3);
        assert_eq!(host.lock().done, ["fetch", "fetch", "fetch", "fetch"]);
        assert!(fetches.wanted.is_empty() && fetches.whose.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_that_is_not_wanted_any_more_is_not_asked_for_again() {
        let host = Arc::new(FakeHost::default());
        host.lock().fetches = [Fetch::Fails].into();
        let mut fetches = Fetches::new(host.clone());
        fetches.want(source());
        fetches.give_up(IMAGE);
        assert!(timeout(Duration::from_secs(60), fetches.arrived()).await.is_err());
        assert_eq!(host.lock().done, ["fetch"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_image_that_is_given_up_and_wanted_again_is_fetched_once() {
        let host = Arc::new(FakeHost::default());
        host.lock().fetches = [Fetch::Fails; 3].into();
        let mut fetches = Fetches::new(host.clone());
        for _ in 0..5 {
            fetches.want(source());
            fetches.give_up(IMAGE);
        }
        fetches.want(source());
        timeout(Duration::from_secs(60), fetches.arrived()).await.unwrap();
        assert!(
            timeout(Duration::from_secs(60), fetches.arrived()).await.is_err(),
            "nothing else is on its way"
        );
        assert_eq!(host.lock().done, ["fetch"; 4]);
    }
}
