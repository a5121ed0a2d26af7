//! A client with little patience, a store to fill, and an image to fill it with.

use std::time::Duration;

use image::Store;
use image::registry::{
    Client, Credential, Credentials, HostSettings, Progress, PullError, Pulled, Reference, RegistryHost,
    Secret, Settings, Timeouts,
};
use model::Digest;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::archive::{Blobs, Tar, blobs, chain, config, content_of, digest};

/// Nothing here takes long; what hangs has failed.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn client(hosts: &[(RegistryHost, HostSettings)]) -> Client {
    patient(hosts, Duration::from_secs(20))
}

/// Waits for so long and no longer for anything to come.
pub(crate) fn patient(hosts: &[(RegistryHost, HostSettings)], idle: Duration) -> Client {
    let timeouts = Timeouts {
        connect: Duration::from_secs(10),
        idle,
        document: idle * 2,
        mirror: Duration::from_secs(3),
        pause: Duration::from_millis(1),
    };
    Client::new(Settings { hosts: hosts.iter().cloned().collect(), timeouts }).unwrap()
}

pub(crate) fn password(password: &str) -> Credential {
    Credential { username: "user".to_owned(), secret: Secret::Password(password.to_owned()) }
}

pub(crate) fn credentials(host: &RegistryHost, credential: Credential) -> Credentials {
    [(host.clone(), credential)].into_iter().collect()
}

pub(crate) struct Shelf {
    pub(crate) root: TempDir,
    pub(crate) store: Store,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        Self { root, store }
    }

    pub(crate) async fn pull(&self, client: &Client, image: &Reference) -> Result<Pulled, PullError> {
        self.pull_as(client, image, &Credentials::anonymous()).await
    }

    pub(crate) async fn pull_as(
        &self,
        client: &Client,
        image: &Reference,
        credentials: &Credentials,
    ) -> Result<Pulled, PullError> {
        let progress = watch::Sender::new(Progress::default());
        let pull = client.pull(&self.store, image, credentials, &progress);
        timeout(DEADLINE, pull).await.expect("the pull hangs")
    }

    /// The pull fails with an error that says this, and leaves nothing but whole blobs.
    pub(crate) async fn refused(&self, client: &Client, image: &Reference, says: &str) {
        let error = self.pull(client, image).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains(says), "{text}");
        self.has_only_whole_blobs().await;
        assert_eq!(self.store.list(), [], "after: {text}");
    }

    /// Writers hear a moment later that nobody wants what they write.
    pub(crate) async fn has_only_whole_blobs(&self) {
        let is_clean = || self.content().iter().all(|name| !name.starts_with("ingest/"));
        let clean = async {
            while !is_clean() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, clean).await.unwrap_or_else(|_| panic!("{:?} stays", self.content()));
        for name in self.content() {
            let hex = name.strip_prefix("blobs/sha256/").unwrap_or_else(|| panic!("{name} is left"));
            let content = std::fs::read(self.root.path().join(&name)).unwrap();
            assert_eq!(digest(&content), format!("sha256:{hex}"));
        }
    }

    fn content(&self) -> Vec<String> {
        content_of(self.root.path())
    }
}

/// An image of two layers, the second of which is not so small that it comes in one piece.
pub(crate) fn image() -> Blobs {
    let layers = [layer("small", 10), layer("large", 1 << 20)];
    blobs(&config(&layers), &layers)
}

fn layer(name: &str, size: usize) -> Vec<u8> {
    // Bytes that differ from place to place, so that a part in a wrong place shows.
    let content: Vec<u8> = (0..size).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect();
    Tar::new().file(name, content).bytes()
}

/// The digest of the image's largest blob, and its content.
pub(crate) fn large(image: &Blobs) -> (String, Vec<u8>) {
    let (digest, content) = image.all.iter().max_by_key(|(_, content)| content.len()).unwrap();
    (digest.clone(), content.clone())
}

pub(crate) fn manifest_digest(image: &Blobs) -> Digest {
    digest(&image.manifest).parse().unwrap()
}
