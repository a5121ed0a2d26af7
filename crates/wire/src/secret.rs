//! `Debug` of the messages that hold a secret: it must not come into a log with them.

use std::fmt;

use crate::proto::{api, log};

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

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
