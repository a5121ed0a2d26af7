//! What the operator says about registries, and who logs in where. Plain data of the caller's.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::RegistryHost;

#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What is out of the ordinary. A registry that is not in it is spoken to over verified https.
    pub hosts: BTreeMap<RegistryHost, HostSettings>,
    pub timeouts: Timeouts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// Who is asked first, in this order, for what is pulled from this host. A mirror's own settings are under its name.
    pub mirrors: Vec<RegistryHost>,
    /// Certificates, as PEM, that are trusted besides the system's: an authority's, or the registry's very own. They hold
    /// as well for the token service and the blob store that this registry names.
    pub ca: Vec<String>,
    /// Allows plain http and certificates that nobody vouches for, as Docker's `insecure-registries` does. Loopback
    /// addresses are always allowed that.
    pub insecure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For name, TCP and TLS together.
    pub connect: Duration,
    /// How long nothing at all may come, or go while a blob is pushed. A blob may take as long as it takes.
    pub idle: Duration,
    /// For the whole of a small answer, so that one byte now and then holds nobody up for ever.
    pub document: Duration,
    /// For all that a mirror is asked about a name, before the next one is, or the registry.
    pub mirror: Duration,
    /// Before a blob's second try, and twice that before its third.
    pub pause: Duration,
}

impl Default for Timeouts {
    /// A link that is down for half a minute is down; 4 MiB in a minute is less than 1 Mbit/s. A mirror is there to be quicker
    /// than its registry: one that takes longer is missed by nobody, who may wait for half a minute altogether.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            document: Duration::from_secs(60),
            mirror: Duration::from_secs(8),
            pause: Duration::from_secs(1),
        }
    }
}

impl Settings {
    pub(super) fn is_insecure(&self, host: &RegistryHost) -> bool {
        host.is_loopback() || self.hosts.get(host).is_some_and(|settings| settings.insecure)
    }

    /// Who is asked before the host itself for what is pulled from it.
    pub(super) fn mirrors(&self, host: &RegistryHost) -> &[RegistryHost] {
        match self.hosts.get(host) {
            Some(settings) => &settings.mirrors,
            None => &[],
        }
    }
}

/// Who somebody is to one registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credential {
    /// With an identity token it is only what errors call the user.
    pub username: String,
    pub secret: Secret,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Secret {
    Password(String),
    /// What Docker's credential helpers call so: an OAuth 2 refresh token, which the token service takes instead of a
    /// password.
    IdentityToken(String),
}

/// Never the secret: it would end in a log.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

/// Who the caller of one operation is, registry by registry; a mirror is one of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<RegistryHost, Credential>);

impl Credentials {
    /// Nobody, everywhere.
    pub fn anonymous() -> Self {
        Self::default()
    }

    pub fn get(&self, host: &RegistryHost) -> Option<&Credential> {
        self.0.get(host)
    }
}

impl FromIterator<(RegistryHost, Credential)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (RegistryHost, Credential)>>(credentials: I) -> Self {
        Self(credentials.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_in_no_log() {
        let host = RegistryHost::docker_hub();
        for secret in [Secret::Password("hunter2".to_owned()), Secret::IdentityToken("hunter2".to_owned())] {
            let credential = Credential { username: "me".to_owned(), secret };
            let shown = format!("{credential:?} {:?}", credential.secret);
            assert!(shown.contains("me") && !shown.contains("hunter2"), "{shown}");
            let all: Credentials = [(host.clone(), credential)].into_iter().collect();
            assert!(!format!("{all:?}").contains("hunter2"));
        }
    }

    #[test]
    fn only_loopback_and_what_is_marked_is_insecure() {
        let marked: RegistryHost = "reg.lan".parse().unwrap();
        let entry = HostSettings { insecure: true, ..HostSettings::default() };
        let settings = Settings { hosts: BTreeMap::from([(marked.clone(), entry)]), ..Settings::default() };
        assert!(settings.is_insecure(&marked));
        assert!(settings.is_insecure(&"127.0.0.1:5000".parse().unwrap()));
        assert!(!settings.is_insecure(&"reg.lan:5000".parse().unwrap()));
        assert!(!settings.is_insecure(&RegistryHost::docker_hub()));
    }
}
