//! `Debug` of the messages that hold a secret: it must not come into a log with them.

use std::fmt;

use crate::proto::{api, log, model};

impl fmt::Debug for log::Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl fmt::Debug for api::TokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenReply(..)")
    }
}

impl fmt::Debug for api::JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, name, address, public_key: _ } = self;
        f.debug_struct("JoinRequest").field("name", name).field("address", address).finish_non_exhaustive()
    }
}

impl fmt::Debug for model::RegistryCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { username, secret: _ } = self;
        f.debug_struct("RegistryCredential").field("username", username).finish_non_exhaustive()
    }
}

impl fmt::Debug for model::registry_credential::Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Debug for api::LoginRegistryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, registry, credential: _ } = self;
        let mut shown = f.debug_struct("LoginRegistryRequest");
        shown.field("request", request).field("registry", registry).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::agent;
    use crate::proto::model::registry_credential::Secret as SecretOf;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = "do not tell".to_owned();
        let authority = log::Authority { certificate_pem: String::new(), key_pem: secret.clone() };
        let found = log::command::Found { authority: Some(authority), ..Default::default() };
        let reply = api::TokenReply { token: secret.clone() };
        let join = api::JoinRequest { token: secret.clone(), ..Default::default() };
        for shown in [format!("{found:?}"), format!("{reply:?}"), format!("{join:?}")] {
            assert!(!shown.contains(&secret), "{shown}");
        }
        for secret_of in [SecretOf::Password, SecretOf::IdentityToken] {
            let kind = secret_of(secret.clone());
            let credential =
                model::RegistryCredential { username: "me".to_owned(), secret: Some(kind.clone()) };
            let registry = model::Registry { credential: Some(credential.clone()), ..Default::default() };
            let change = log::command::put_registry::Change::LogIn(credential.clone());
            let put = log::command::PutRegistry { registry: String::new(), change: Some(change) };
            let login = api::LoginRegistryRequest { credential: Some(credential), ..Default::default() };
            let registries = [(String::new(), registry)].into();
            let source = agent::PullSource { origin: String::new(), registries };
            for shown in
                [format!("{kind:?}"), format!("{put:?}"), format!("{login:?}"), format!("{source:?}")]
            {
                assert!(!shown.contains(&secret), "{shown}");
            }
        }
    }
}
