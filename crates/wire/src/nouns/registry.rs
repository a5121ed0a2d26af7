//! Registries, and what the cluster is to them.

use crate::proto::model as proto;
use crate::proto::model::registry_credential::Secret as SecretKind;
use crate::{Field, Invalid};

impl From<&model::Registry> for proto::Registry {
    fn from(registry: &model::Registry) -> Self {
        let model::Registry { mirrors, ca, insecure, credential } = registry;
        Self {
            mirrors: mirrors.iter().map(ToString::to_string).collect(),
            ca: ca.clone(),
            insecure: *insecure,
            credential: credential.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Registry> for model::Registry {
    type Error = Invalid;

    fn try_from(registry: proto::Registry) -> Result<Self, Invalid> {
        let proto::Registry { mirrors, ca, insecure, credential } = registry;
        let at = Field("Registry", "mirrors");
        Ok(Self {
            mirrors: mirrors.iter().map(|mirror| at.parsed(mirror)).collect::<Result<_, _>>()?,
            ca,
            insecure,
            credential: credential.map(model::Credential::try_from).transpose()?,
        })
    }
}

impl From<&model::Credential> for proto::RegistryCredential {
    fn from(credential: &model::Credential) -> Self {
        let model::Credential { username, secret } = credential;
        let secret = match secret {
            model::Secret::Password(password) => SecretKind::Password(password.clone()),
            model::Secret::IdentityToken(token) => SecretKind::IdentityToken(token.clone()),
        };
        Self { username: username.clone(), secret: Some(secret) }
    }
}

impl TryFrom<proto::RegistryCredential> for model::Credential {
    type Error = Invalid;

    fn try_from(credential: proto::RegistryCredential) -> Result<Self, Invalid> {
        let proto::RegistryCredential { username, secret } = credential;
        let secret = match Field("RegistryCredential", "secret").kind(secret)? {
            SecretKind::Password(password) => model::Secret::Password(password),
            SecretKind::IdentityToken(token) => model::Secret::IdentityToken(token),
        };
        Ok(Self { username, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nouns::tests::reads_back;

    #[test]
    fn a_registry_reads_back_as_written() {
        let secrets = ["password", ""].map(|text| model::Secret::Password(text.to_owned()));
        for secret in secrets.into_iter().chain([model::Secret::IdentityToken("token".to_owned())]) {
            let registry = model::Registry {
                mirrors: vec!["mirror.lan:5000".parse().unwrap(), "docker.io".parse().unwrap()],
                ca: vec!["a certificate".to_owned()],
                insecure: true,
                credential: Some(model::Credential { username: "me".to_owned(), secret }),
            };
            reads_back::<proto::Registry, model::Registry>(&registry);
        }
        reads_back::<proto::Registry, model::Registry>(&model::Registry::default());
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        let bad = proto::Registry { mirrors: vec!["http://mirror".to_owned()], ..Default::default() };
        assert!(model::Registry::try_from(bad).is_err());
        let bad = proto::RegistryCredential { username: "me".to_owned(), secret: None };
        assert!(model::Credential::try_from(bad).is_err());
    }
}
