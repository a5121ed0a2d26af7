//! Clients for what the cluster says of registries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use image::registry::{Client, Credentials, HostSettings, InvalidSettings, RegistryHost, known};
use model::{Registry, RegistryName};

/// Clients that are kept: each has connections and tokens of its own. A cluster has few registries with settings, and these
/// change seldom.
const KEPT: usize = 8;

// A std mutex: it is held for a comparison or for making a client, and never across an await.
#[derive(Debug, Default)]
pub(crate) struct Registries(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    hosts: BTreeMap<RegistryHost, HostSettings>,
    client: Arc<Client>,
}

impl Registries {
    /// The client for these settings, and the credentials among them.
    pub(crate) fn of(
        &self,
        registries: &BTreeMap<RegistryName, Registry>,
    ) -> Result<(Arc<Client>, Credentials), InvalidSettings> {
        let (settings, credentials) = known(registries);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.iter().find(|kept| kept.hosts == settings.hosts) {
            return Ok((kept.client.clone(), credentials));
        }
        let hosts = settings.hosts.clone();
        let client = Arc::new(Client::new(settings)?);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(Kept { hosts, client: client.clone() });
        Ok((client, credentials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_settings_have_one_client_whoever_is_logged_in() {
        let registries = Registries::default();
        let name = |text: &str| text.parse::<RegistryName>().unwrap();
        let with = |insecure, password: Option<&str>| {
            let credential = password.map(|password| model::Credential {
                username: "me".to_owned(),
                secret: model::Secret::Password(password.to_owned()),
            });
            let registry = Registry { insecure, credential, ..Registry::default() };
            registries.of(&BTreeMap::from([(name("reg.lan"), registry)])).unwrap()
        };
        let ((one, nobody), (same, somebody)) = (with(true, None), with(true, Some("pw")));
        assert!(Arc::ptr_eq(&one, &same) && nobody != somebody);
        assert!(!Arc::ptr_eq(&one, &with(false, None).0));
    }
}
