//! The daemon of one node: `gantry daemon --data DIR`.
//!
//! Enter at [`daemon_main`]. In reading order: [`Config`] (what a node is told), `credentials` (who it is, found or joined
//! once and kept), `daemon` (what runs), `server` (its two doors: mTLS for nodes and clients, a socket for root here),
//! `failure` (its last words).
//!
//! **Invariant:** one daemon a data directory. Nothing in it is opened before its lock is held.

mod config;
mod credentials;
mod daemon;
mod failure;
mod host;
mod server;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

pub use config::{Capacity, Config, LoadConfigError, Start};
/// For who takes a node's disk away, which containers have written to.
pub use runtime::removal::remove as remove_disk;

/// Runs the daemon until it is told to stop. Prints why it could not start, or why it ended, and what to do.
pub fn daemon_main(data: &Path) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GANTRY_LOG");
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_env_filter(filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn")))
        .init();
    match daemon::run(data) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For whoever started it, also where the log is filtered.
            let _reader_gone = std::io::stderr().write_all(failure::told(&error).as_bytes());
            ExitCode::from(failure::exit(&error))
        }
    }
}
