//! Who asks registries on behalf of this manager, with what the cluster keeps of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::registry::{Client, Credentials, HostSettings, InvalidSettings, RegistryHost, Settings, known};
use state::State;

/// A cheap handle. A client keeps connections and tokens, so there is one as long as the settings are the same.
#[derive(Clone, Debug, Default)]
// A std mutex: it is held for a comparison or for making a client, and never across an await.
pub(crate) struct Registries(Arc<Mutex<Option<Made>>>);

#[derive(Debug)]
struct Made {
    hosts: BTreeMap<RegistryHost, HostSettings>,
    client: Arc<Client>,
}

impl Registries {
    /// The client for what this state says of registries, and who the cluster is to each of them.
    pub(crate) fn of(&self, state: &State) -> Result<(Arc<Client>, Credentials), InvalidSettings> {
        let (settings, credentials) = known(state.registries());
        let mut made = self.lock();
        if let Some(made) = made.as_ref().filter(|made| made.hosts == settings.hosts) {
            return Ok((made.client.clone(), credentials));
        }
        let Settings { hosts, timeouts: _ } = &settings;
        let hosts = hosts.clone();
        let client = Arc::new(Client::new(settings)?);
        *made = Some(Made { hosts, client: client.clone() });
        Ok((client, credentials))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error and everything that caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
