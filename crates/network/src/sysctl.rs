//! Kernel settings of a network namespace: `/proc/sys/net` is that of the thread that looks.

use std::path::PathBuf;
use std::{fs, io};

#[derive(Debug, thiserror::Error)]
#[error("cannot set {path} to {value}")]
pub struct SysctlError {
    pub path: PathBuf,
    pub value: &'static str,
    pub source: io::Error,
}

/// Routes packets between interfaces.
pub(crate) fn forward_ipv4() -> Result<(), SysctlError> {
    set("ipv4/ip_forward", "1")
}

/// Keeps IPv6 off one interface, or off all that are still to come (`default`). gantry gives out no IPv6 addresses, and
/// a bridge that listens to router advertisements can be captured by a container (CVE-2020-13401). A kernel without
/// IPv6 has nothing to set.
pub(crate) fn disable_ipv6(interface: &str) -> Result<(), SysctlError> {
    match set(&format!("ipv6/conf/{interface}/disable_ipv6"), "1") {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Writes only what differs: a read-only `/proc/sys` that is as it should be is no obstacle.
fn set(name: &str, value: &'static str) -> Result<(), SysctlError> {
    let path = PathBuf::from("/proc/sys/net").join(name);
    let outcome = fs::read_to_string(&path)
        .and_then(|now| if now.trim() == value { Ok(()) } else { fs::write(&path, value) });
    outcome.map_err(|source| SysctlError { path, value, source })
}
