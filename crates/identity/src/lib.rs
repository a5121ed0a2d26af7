//! Who is who, and who may call what.
//!
//! A cluster has one [`Authority`]. It signs a certificate for every node and every administrator; what a
//! certificate is about ([`Subject`]) is a SPIFFE URI in it and nothing else. A machine without a certificate
//! has a [`JoinToken`], which names the authority that it may trust and the role that it asks for.
//!
//! - Making identities: [`KeyPair`], [`Authority`], [`JoinToken`].
//! - Using one: [`Credentials`], handed around in a `watch` channel so that a renewed certificate is used by
//!   the next connection. [`Acceptor`] and [`LocalListener`] take calls, [`Connector`], [`connect_joining`]
//!   and [`connect_local`] make them.
//! - Judging a call: the connection says which [`Peer`] is there, [`Authorise`] asks [`policy`] about each
//!   request.
//!
//! **Invariant:** the replicated state, behind [`Membership`], has the word on what a node may do, so that a
//! node that is removed or demoted is denied with its next call. There is no revocation list. The role in a
//! certificate counts for one thing only: for a node that was admitted after what that state knows. A manager
//! that was away could otherwise never be told anything by one that was elected meanwhile.
//!
//! **Invariant:** there is no session resumption. A resumed session would carry a client over that was
//! verified against what was true then.
//!
//! This crate does not know what is replicated or where keys are kept on disk.

mod acceptor;
mod authority;
mod connection;
mod connector;
mod credentials;
mod key;
mod layer;
mod local;
pub mod policy;
mod subject;
mod tls;
mod token;

#[cfg(test)]
mod tests;

pub use acceptor::{Acceptor, HandshakeError};
pub use authority::{
    ADMIN_LIFETIME, Authority, CaCertificate, InvalidPublicKey, IssueError, LoadAuthorityError,
    MintAuthorityError, NODE_LIFETIME, key_digest,
};
pub use connection::Connection;
pub use connector::{
    ConnectError, ConnectLocalError, Connector, DialError, Expect, connect_joining, connect_local,
};
pub use credentials::{Credentials, CredentialsError};
pub use key::{KeyError, KeyPair, Secret};
pub use layer::{Authorise, Authorised};
pub use local::{BindError, LocalListener};
pub use policy::{Denied, Membership, authorise};
pub use subject::{InvalidCertificate, Peer, Subject, Validity};
pub use tls::Mismatch;
pub use token::{InvalidToken, JoinToken, MintTokenError};
