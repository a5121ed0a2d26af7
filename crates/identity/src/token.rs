//! What a machine needs in order to join: whom to trust, and a secret that stands in for a certificate.

use std::fmt;
use std::str::FromStr;

use model::{Digest, Role};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::Secret;
use crate::key::sha256;

/// `GANTRY1-<m|w>-<64 hex digits: the SHA-256 of the authority's certificate>-<32 hex digits: a secret>`.
///
/// The cluster keeps [`JoinToken::hash`], the role and an end; a token is good while they are there. `Debug`
/// leaves the secret out, there is no `Display`.
#[derive(Clone)]
pub struct JoinToken {
    role: Role,
    authority: Digest,
    /// 128 bits: nobody guesses them, whatever the rate.
    secret: [u8; 16],
}

/// None of these repeats the text: it may be a good token with one character too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("it is not a join token: it looks like GANTRY1-w-, 64 hex digits, a dash and 32 hex digits")]
    Malformed,
    #[error("the join token is for no known role: its second part is m (manager) or w (worker)")]
    Role,
    #[error(
        "the join token is cut short or damaged in its third part, which has 64 hex digits in lower case"
    )]
    Authority,
    #[error("the join token is cut short or damaged in its last part, which has 32 hex digits in lower case")]
    Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no randomness for a join token")]
pub struct MintTokenError;

impl JoinToken {
    /// Draws a token for machines that are to trust `authority` ([`crate::CaCertificate::digest`]).
    pub fn mint(role: Role, authority: Digest) -> Result<Self, MintTokenError> {
        let mut secret = [0; 16];
        SystemRandom::new().fill(&mut secret).map_err(|_| MintTokenError)?;
        Ok(Self { role, authority, secret })
    }

    /// What the holder asks to become. The cluster goes by what it stored with the hash.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The digest of the only authority that the holder may trust.
    pub fn authority(&self) -> Digest {
        self.authority
    }

    /// The text that the user passes on.
    pub fn text(&self) -> Secret {
        let hex = hex::encode(self.secret);
        Secret::new(format!("GANTRY1-{}-{}-{hex}", letter(self.role), self.authority.hex()))
    }

    /// What is stored. It covers the role and the authority, so that a token with either one changed is
    /// another token.
    pub fn hash(&self) -> Digest {
        let mut bytes = b"gantry join token 1 ".to_vec();
        bytes.extend_from_slice(letter(self.role).as_bytes());
        bytes.extend_from_slice(&self.authority.0);
        bytes.extend_from_slice(&self.secret);
        sha256(&bytes)
    }

    /// Whether this is the token whose hash is stored, in a time that does not tell how nearly it is.
    pub fn matches(&self, stored: &Digest) -> bool {
        self.hash().0.as_slice().ct_eq(stored.0.as_slice()).into()
    }
}

fn letter(role: Role) -> &'static str {
    match role {
        Role::Manager => "m",
        Role::Worker => "w",
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(InvalidToken::Malformed);
        let (version, role, authority, secret) = (part()?, part()?, part()?, part()?);
        if version != "GANTRY1" || parts.next().is_some() {
            return Err(InvalidToken::Malformed);
        }
        let role = match role {
            "m" => Role::Manager,
            "w" => Role::Worker,
            _ => return Err(InvalidToken::Role),
        };
        Ok(Self {
            role,
            authority: Digest(digits(authority).ok_or(InvalidToken::Authority)?),
            secret: digits(secret).ok_or(InvalidToken::Secret)?,
        })
    }
}

/// Exactly `N` bytes in lower-case hex, so that a token has one spelling.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    text.bytes().all(|c| !c.is_ascii_uppercase()).then_some(bytes)
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("role", &self.role)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken { role: Role::Worker, authority: Digest([0xab; 32]), secret: *b"0123456789abcdef" }
    }

    #[test]
    fn a_token_reads_back_as_written() {
        let text = token().text();
        assert_eq!(
            text.expose(),
            "GANTRY1-w-abababababababababababababababababababababababababababababababab-30313233343536373839616263646566"
        );
        let read: JoinToken = text.expose().parse().unwrap();
        assert_eq!(
            (read.role(), read.authority(), read.hash()),
            (Role::Worker, Digest([0xab; 32]), token().hash())
        );
        assert!(read.matches(&token().hash()));
    }

    #[test]
    fn two_tokens_differ() {
        let [one, other] = [0, 1].map(|_| JoinToken::mint(Role::Manager, Digest([0; 32])).unwrap());
        assert!(one.matches(&one.hash()) && !one.matches(&other.hash()));
    }

    #[test]
    fn a_token_with_another_role_or_authority_is_another_token() {
        let stored = token().hash();
        for changed in [
            JoinToken { role: Role::Manager, ..token() },
            JoinToken { authority: Digest([0xac; 32]), ..token() },
            JoinToken { secret: [0; 16], ..token() },
        ] {
            assert!(!changed.matches(&stored), "{changed:?}");
        }
    }

    #[test]
    fn every_truncation_and_every_changed_character_is_refused_or_another_token() {
        let text = token().text();
        let text = text.expose();
        for length in 0..text.len() {
            assert!(text[..length].parse::<JoinToken>().is_err(), "{length} characters were accepted");
        }
        for at in 0..text.len() {
            for replacement in ["0", "A", "-", "m", "é", "\0", " ", "\n"] {
                let changed = format!("{}{replacement}{}", &text[..at], &text[at + 1..]);
                let same = changed.parse::<JoinToken>().is_ok_and(|read| read.matches(&token().hash()));
                assert_eq!(same, changed == text, "{changed:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let (digest, secret) = ("ab".repeat(32), "01".repeat(16));
        for (text, error) in [
            (String::new(), InvalidToken::Malformed),
            ("SWMTKN-1-x-y".to_owned(), InvalidToken::Malformed),
            (format!("GANTRY2-w-{digest}-{secret}"), InvalidToken::Malformed),
            (format!("GANTRY1-w-{digest}-{secret}-"), InvalidToken::Malformed),
            (format!("GANTRY1-x-{digest}-{secret}"), InvalidToken::Role),
            (format!("GANTRY1--{digest}-{secret}"), InvalidToken::Role),
            (format!("GANTRY1-w-{}-{secret}", digest.to_uppercase()), InvalidToken::Authority),
            (format!("GANTRY1-w-{digest}00-{secret}"), InvalidToken::Authority),
            (format!("GANTRY1-w-{digest}-{secret}0"), InvalidToken::Secret),
            (format!("GANTRY1-w-{digest}- {secret}"), InvalidToken::Secret),
            (format!("GANTRY1-w-{digest}-{secret}\n"), InvalidToken::Secret),
        ] {
            assert_eq!(text.parse::<JoinToken>().map(|t| t.hash()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn no_error_and_no_debug_shows_the_secret() {
        let token = token();
        let text = token.text();
        assert!(!format!("{token:?}").contains("30313233"));
        for broken in [&text.expose()[..100], &format!("{}0", text.expose())] {
            let error = broken.parse::<JoinToken>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("30313233"));
        }
    }
}
