//! Who loads the packet filter's rules.

use std::fmt::Debug;
use std::io::{self, Write as _};
use std::process::{Command, ExitStatus, Stdio};

/// The most of nft's complaint that is passed on.
const COMPLAINT_MAX: usize = 500;

/// The packet filter of the calling process's network namespace.
pub trait Ruleset: Debug + Send + Sync {
    /// Applies a script in nft's language as one transaction: all of it, or none. May block for some milliseconds.
    fn apply(&self, script: &str) -> Result<(), RulesetError>;
}

/// A script that was not applied.
#[derive(Debug, thiserror::Error)]
pub enum RulesetError {
    #[error("cannot run `nft`: is the package nftables installed, and in PATH?")]
    Start(#[source] io::Error),
    #[error("cannot hand `nft` its script")]
    Feed(#[source] io::Error),
    #[error("`nft` refused the rules ({status}): {complaint}")]
    Refused { status: ExitStatus, complaint: String },
}

/// The real one: `nft -f -`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nft;

impl Ruleset for Nft {
    fn apply(&self, script: &str) -> Result<(), RulesetError> {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(RulesetError::Start)?;
        let mut input = nft.stdin.take().expect("standard input was piped above");
        let fed = input.write_all(script.as_bytes());
        drop(input);
        let output = nft.wait_with_output().map_err(RulesetError::Feed)?;
        // Its complaint first: an nft that exits early also closes its input.
        if !output.status.success() {
            let complaint =
                String::from_utf8_lossy(&output.stderr).trim().chars().take(COMPLAINT_MAX).collect();
            return Err(RulesetError::Refused { status: output.status, complaint });
        }
        fed.map_err(RulesetError::Feed)
    }
}
