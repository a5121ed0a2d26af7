//! What a cluster keeps of registries, as the client takes it.

use model::{Registry, RegistryName};

use super::RegistryHost;
use super::settings::{Credential, Credentials, HostSettings, Secret, Settings};

/// The settings and the credentials in `registries`. A name that no URL can have is left out: no image's name leads there.
pub fn known<'a>(
    registries: impl IntoIterator<Item = (&'a RegistryName, &'a Registry)>,
) -> (Settings, Credentials) {
    let mut settings = Settings::default();
    let mut credentials = Vec::new();
    for (name, registry) in registries {
        let Ok(host) = name.as_str().parse::<RegistryHost>() else { continue };
        let Registry { mirrors, ca, insecure, credential } = registry;
        let mirrors = mirrors.iter().filter_map(|mirror| mirror.as_str().parse().ok()).collect();
        let entry = HostSettings { mirrors, ca: ca.clone(), insecure: *insecure };
        if entry != HostSettings::default() {
            settings.hosts.insert(host.clone(), entry);
        }
        credentials.extend(credential.as_ref().map(|credential| (host, credential.into())));
    }
    (settings, credentials.into_iter().collect())
}

impl From<&model::Credential> for Credential {
    fn from(credential: &model::Credential) -> Self {
        let model::Credential { username, secret } = credential;
        let secret = match secret {
            model::Secret::Password(password) => Secret::Password(password.clone()),
            model::Secret::IdentityToken(token) => Secret::IdentityToken(token.clone()),
        };
        Self { username: username.clone(), secret }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_a_cluster_keeps_is_what_the_client_is_told() {
        let name = |text: &str| text.parse::<RegistryName>().unwrap();
        let credential =
            model::Credential { username: "me".to_owned(), secret: model::Secret::Password("pw".to_owned()) };
        let hub = Registry { credential: Some(credential.clone()), ..Registry::default() };
        let lan = Registry { mirrors: vec![name("mirror.lan")], insecure: true, ..Registry::default() };
        // No URL has this host: it looks like an address and is none.
        let odd = Registry { insecure: true, ..Registry::default() };
        let registries =
            BTreeMap::from([(name("docker.io"), hub), (name("reg.lan"), lan), (name("999.0.0.1"), odd)]);
        let (settings, credentials) = known(&registries);
        assert_eq!(settings.hosts.len(), 1);
        let lan = &settings.hosts[&"reg.lan".parse().unwrap()];
        assert_eq!((lan.mirrors.len(), lan.insecure), (1, true));
        assert_eq!(credentials.get(&RegistryHost::docker_hub()), Some(&Credential::from(&credential)));
        assert_eq!(credentials.get(&"reg.lan".parse().unwrap()), None);
    }
}
