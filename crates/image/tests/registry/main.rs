//! Images from and to registries: hostile ones of our own making, and Debian's `docker-registry` with `skopeo` at its other
//! end.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "../archive/mod.rs"]
mod archive;
mod login;
mod peer;
mod pull;
mod push;
mod server;
mod shared;
