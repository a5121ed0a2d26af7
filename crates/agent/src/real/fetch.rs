//! Images from the nodes that hold them, and from registries.

mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use identity::Connector;
use image::registry::{Progress, Reference};
use model::{Bytes, Digest, Timestamp};
use tokio::sync::{Notify, watch};

use crate::host::{Failure, ImageSource, PullFrom, Pulling, Shelf, Shelved, Stirred};
use crate::real::registries::Registries;
use crate::real::{blocking, failure};

/// What fails on a disk with less room than this most likely fails for want of it.
const NEARLY_FULL: Bytes = Bytes(64 << 20);

/// Holders whose failures are told. More of them say the same.
const TOLD: usize = 3;

/// Brings images here, each once at a time, and says what of them is in use.
#[derive(Debug)]
pub struct Fetcher {
    pub(crate) images: image::Store,
    connector: Connector,
    pub(crate) registries: Registries,
    /// The fetches that somebody waits for: thirty tasks that start at once bring their image once.
    // A std mutex around the map: it is held for one map operation and never across an await.
    flights: Mutex<BTreeMap<Digest, Weak<Flight>>>,
    busy: Busy,
    begun: Begun,
    arrived: Notify,
    full: Notify,
}

/// One image on its way, for all who wait for it.
#[derive(Debug)]
struct Flight {
    turn: tokio::sync::Mutex<()>,
    progress: watch::Sender<Progress>,
}

/// The images that are being fetched or read, by how many.
// A std mutex: it is held for one map operation and never across an await.
#[derive(Clone, Debug, Default)]
struct Busy(Arc<Mutex<BTreeMap<Digest, usize>>>);

/// The images that were begun to be fetched since the daemon started, as far as they may be here by half. What was so before
/// went when the store was opened.
// A std mutex: it is held for looks at few files, by threads that may block, and never across an await.
#[derive(Clone, Debug, Default)]
struct Begun(Arc<Mutex<BTreeSet<Digest>>>);

/// An image that may not be discarded as long as this is there.
#[derive(Debug)]
pub(crate) struct Hold {
    busy: Busy,
    image: Digest,
}

impl Busy {
    fn hold(&self, image: Digest) -> Hold {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(image).or_default() += 1;
        Hold { busy: self.clone(), image }
    }

    fn has(&self, image: Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&image)
    }
}

impl Begun {
    /// To be called with a [`Hold`] on the image.
    fn add(&self, image: Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(image);
    }

    /// What is here of them and not whole. The manifest comes first, so without it there is nothing.
    fn halves(&self, images: &image::Store, busy: &Busy) -> Vec<Digest> {
        let is_half = |image: &Digest| images.has_blob(image) && !images.contains(image);
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|image| busy.has(*image) || is_half(image));
        begun.iter().copied().filter(|image| is_half(image)).collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut busy = self.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = busy.get_mut(&self.image) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.image);
            }
        }
    }
}

impl Fetcher {
    pub fn new(images: image::Store, connector: Connector) -> Self {
        Self {
            images,
            connector,
            registries: Registries::default(),
            flights: Mutex::default(),
            busy: Busy::default(),
            begun: Begun::default(),
            arrived: Notify::new(),
            full: Notify::new(),
        }
    }

    pub(crate) fn images(&self) -> Vec<Digest> {
        self.images.list().into_iter().map(|stored| stored.digest).collect()
    }

    /// Keeps an image from being discarded.
    pub(crate) fn hold(&self, image: Digest) -> Hold {
        self.busy.hold(image)
    }

    /// Makes sure that the image is here: from the first holder that gives it, or else from its registry. `progress` shows
    /// the layers, also of a fetch that somebody else has begun.
    pub(crate) async fn fetch(
        &self,
        source: &ImageSource,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        if self.images.contains(&source.digest) {
            return Ok(());
        }
        let flight = self.flight(source.digest);
        let mut seen = flight.progress.subscribe();
        seen.mark_changed();
        let fetched = async {
            let _turn = flight.turn.lock().await;
            if self.images.contains(&source.digest) {
                return Ok(());
            }
            let _hold = self.hold(source.digest);
            self.begun.add(source.digest);
            self.bring(source, &flight.progress).await
        };
        let tell = async {
            while seen.changed().await.is_ok() {
                let now = seen.borrow_and_update().clone();
                progress.send_replace(now);
            }
        };
        let fetched = tokio::select! {
            biased;
            fetched = fetched => fetched,
            // It has a sender as long as the flight is there, which is until this returns.
            () = tell => Err(Failure("the fetch was given up".to_owned())),
        };
        // What happened last may not have been told yet.
        progress.send_replace(flight.progress.borrow().clone());
        fetched
    }

    fn flight(&self, image: Digest) -> Arc<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&image).and_then(Weak::upgrade) {
            return flight;
        }
        let progress = watch::Sender::new(Progress::default());
        let flight = Arc::new(Flight { turn: tokio::sync::Mutex::new(()), progress });
        flights.insert(image, Arc::downgrade(&flight));
        flight
    }

    async fn bring(&self, source: &ImageSource, progress: &watch::Sender<Progress>) -> Result<(), Failure> {
        let mut why = Vec::new();
        for (node, address) in &source.holders {
            match self.copy(source.digest, *node, *address, progress).await {
                Ok(()) => return self.has_arrived(),
                Err(Failure(cause)) => why.push(format!("from {address}: {cause}")),
            }
        }
        why.truncate(TOLD);
        if let Some(from) = &source.pull {
            match self.pull(source.digest, from, progress).await {
                Ok(()) => return self.has_arrived(),
                Err(Failure(cause)) => why.push(format!("from registry {}: {cause}", from.origin.registry())),
            }
        }
        Err(Failure(if why.is_empty() {
            format!("no node holds image {}", source.digest)
        } else {
            format!("cannot fetch the image {}", why.join("; "))
        }))
    }

    fn has_arrived(&self) -> Result<(), Failure> {
        self.arrived.notify_one();
        Ok(())
    }

    async fn pull(
        &self,
        image: Digest,
        from: &PullFrom,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Failure> {
        let (client, credentials) =
            self.registries.of(&from.registries).map_err(|error| self.failed(&error))?;
        let reference = Reference::at(&from.origin, image).map_err(|error| self.failed(&error))?;
        let pulled = client.pull(&self.images, &reference, &credentials, progress).await;
        pulled.map(drop).map_err(|error| self.failed(&error))
    }

    /// An error and its causes; whoever waits for a full disk is told of it.
    fn failed(&self, error: &(dyn Error + 'static)) -> Failure {
        // What unpacks a layer says it in words; the disk says it better.
        let is_nearly = || self.images.space().is_ok_and(|space| space.free < NEARLY_FULL);
        if is_full(error) || is_nearly() {
            self.full.notify_one();
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let said = cause.to_string();
            if !text.ends_with(&said) {
                text = format!("{text}: {said}");
            }
            source = cause.source();
        }
        Failure(text)
    }

    /// Returns when an image has come, or could not for want of room.
    pub(crate) async fn stirred(&self) -> Stirred {
        tokio::select! {
            biased;
            () = self.full.notified() => Stirred::Full,
            () = self.arrived.notified() => Stirred::Arrived,
        }
    }

    pub(crate) async fn discard(&self, image: Digest) -> Result<(), Failure> {
        if self.busy.has(image) {
            return Err(Failure("the image is being fetched or read".to_owned()));
        }
        let images = self.images.clone();
        blocking(move || {
            images.remove(&image).map(drop).map_err(|error| failure("cannot remove the image", &error))
        })
        .await
    }

    pub(crate) async fn shelf(&self) -> Result<Shelf, Failure> {
        let (images, busy, begun) = (self.images.clone(), self.busy.clone(), self.begun.clone());
        blocking(move || {
            let space =
                images.space().map_err(|error| failure("cannot ask for the room on the disk", &error))?;
            let shelved = |digest: Digest, size: Bytes, whole: bool| {
                let used = images.last_used(&digest).duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let used = Timestamp(u64::try_from(used.as_millis()).unwrap_or(u64::MAX));
                Shelved { digest, size, used, busy: busy.has(digest), whole }
            };
            let halves =
                begun.halves(&images, &busy).into_iter().map(|digest| shelved(digest, Bytes(0), false));
            let stored = images.list().into_iter().map(|stored| shelved(stored.digest, stored.size, true));
            Ok(Shelf { images: halves.chain(stored).collect(), free: space.free, total: space.total })
        })
        .await
    }

    /// Notes that these images are used now.
    pub(crate) async fn touch(&self, used: Vec<Digest>) {
        let images = self.images.clone();
        let noted = blocking(move || {
            for image in used {
                images.touch(&image).map_err(|error| failure("an image's use is not noted", &error))?;
            }
            Ok(())
        });
        if let Err(failure) = noted.await {
            tracing::warn!(%failure, "an image may be taken for unused");
        }
    }
}

fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        next = error.source();
    }
    false
}

/// How much of an image's layers is here.
pub(crate) fn pulling(progress: &Progress) -> Pulling {
    let sum = |of: fn(&image::registry::LayerProgress) -> Bytes| {
        Bytes(progress.layers.iter().map(|layer| of(layer).0).sum())
    };
    Pulling { done: sum(|layer| layer.done), total: sum(|layer| layer.total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_busy_until_the_last_has_let_go_of_it() {
        let (busy, image) = (Busy::default(), Digest([1; 32]));
        let (one, two) = (busy.hold(image), busy.hold(image));
        assert!(busy.has(image) && !busy.has(Digest([2; 32])));
        drop(one);
        assert!(busy.has(image));
        drop(two);
        assert!(!busy.has(image) && busy.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_came_by_half_is_known_until_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let store = image::Store::open(directory.path()).unwrap();
        // Of `x`; that it is no manifest makes no difference.
        let text = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let image: Digest = text.parse().unwrap();
        let (begun, busy) = (Begun::default(), Busy::default());
        let hold = busy.hold(image);
        begun.add(image);
        assert!(begun.halves(&store, &busy).is_empty(), "nothing has come yet");
        let mut ingest = store.ingest(&image, Bytes(1)).unwrap();
        ingest.write(b"x").unwrap();
        ingest.finish().unwrap();
        drop(hold);
        assert_eq!(begun.halves(&store, &busy), [image]);
        store.remove(&image).unwrap();
        assert!(begun.halves(&store, &busy).is_empty() && begun.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_full_disk_is_seen_behind_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot keep it")]
        struct Outer(#[source] io::Error);
        assert!(is_full(&Outer(io::Error::from_raw_os_error(28))));
        assert!(!is_full(&Outer(io::Error::from_raw_os_error(5))));
    }
}
