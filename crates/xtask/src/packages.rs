//! Debian packages that gantry's build and runs need.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::command::Call;
use crate::output::complain;

/// What a build and a run on a fresh machine lack.
pub(crate) const ALL: [&str; 9] = [
    // bindgen reads RocksDB's headers through it.
    "libclang-dev",
    // libcontainer's seccomp filters, and what its device rules for cgroup v2 are compiled with.
    "libseccomp-dev",
    "pkg-config",
    "libelf-dev",
    "zlib1g-dev",
    // The one program that gantry calls.
    "nftables",
    // For looking at what it does.
    "iproute2",
    // What test images are made of.
    "busybox-static",
    "mmdebstrap",
];

/// What the tests need besides: a real registry, and a client of it that is not ours. The registry is a service, which only
/// the tests start.
pub(crate) const TESTS: [&str; 2] = ["docker-registry", "skopeo"];

/// Installs those of `wanted` that are missing, and returns them.
pub(crate) fn ensure(wanted: &[&'static str]) -> Result<Vec<&'static str>> {
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(missing);
    }
    let names = missing.join(" ");
    if !is_root()? {
        bail!("packages are missing, and only root can install them: run `apt-get install {names}` as root");
    }
    if !Call::of("apt-get").arg("--version").works() {
        bail!("packages are missing, and this machine has no apt-get: install what Debian calls {names}");
    }
    let fresh = has_lists();
    if !fresh {
        update()?;
    }
    match install(&missing) {
        Ok(()) => {}
        // The lists may name versions that the archive has replaced.
        Err(_) if fresh => {
            update()?;
            install(&missing)?;
        }
        Err(error) => return Err(error),
    }
    Ok(missing)
}

/// As [`ensure`], of packages that are services, or need some: none of them is started. Docker's would put rules of its
/// own into the machine's packet filter, which then drops what dev clusters forward.
pub(crate) fn ensure_unstarted(wanted: &[&'static str]) -> Result<Vec<&'static str>> {
    if missing(wanted)?.is_empty() {
        return Ok(Vec::new());
    }
    if !is_root()? {
        return ensure(wanted);
    }
    let _policy = Policy::begin()?;
    ensure(wanted)
}

/// Asked by Debian's packages before they start a service (invoke-rc.d(8)); 101 is "no".
const POLICY: &str = "/usr/sbin/policy-rc.d";
const NO_SERVICE: &str = "#!/bin/sh\nexit 101\n";

/// As long as it is there, no package starts a service. One that the machine has of its own stays as it is.
struct Policy {
    is_ours: bool,
}

impl Policy {
    fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { is_ours: false });
        }
        let policy = Self { is_ours: true };
        let written = fs::write(POLICY, NO_SERVICE)
            .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)));
        written.with_context(|| format!("cannot write {POLICY}"))?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.is_ours && fs::remove_file(POLICY).is_err() {
            complain(&format!(
                "warning: {POLICY} may have been left behind: it keeps services from being started"
            ));
        }
    }
}

fn missing(wanted: &[&'static str]) -> Result<Vec<&'static str>> {
    let format = "--showformat=${Package} ${db:Status-Status}\n";
    // It fails when it does not know one of them, and lists the others all the same.
    let heard = Call::of("dpkg-query").args(["--show", format]).args(wanted).hear();
    let listing =
        heard.context("this is no Debian: install what `crates/xtask/src/packages.rs` lists by hand")?;
    Ok(lacking(wanted, &listing.stdout))
}

/// Those that a listing of names and states does not show as installed.
fn lacking(wanted: &[&'static str], listing: &str) -> Vec<&'static str> {
    let installed: Vec<&str> = listing.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    wanted.iter().copied().filter(|package| !installed.contains(package)).collect()
}

fn update() -> Result<()> {
    Call::of("apt-get").args(["--quiet", "update"]).read().map(drop)
}

fn install(packages: &[&str]) -> Result<()> {
    let install = ["--quiet", "--yes", "--no-install-recommends", "install"];
    let call = Call::of("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(install).args(packages);
    call.read().map(drop)
}

/// Whether apt knows any package at all; fresh images and containers do not.
fn has_lists() -> bool {
    let is_list = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains("_Packages");
    fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| entries.flatten().any(is_list))
}

/// Fails with what to do if this is not root.
pub(crate) fn demand_root(what: &str) -> Result<()> {
    if !is_root()? {
        bail!("{what} needs root: containers, namespaces and cgroups are made");
    }
    Ok(())
}

fn is_root() -> Result<bool> {
    // The owner of a process's directory is its effective user (proc(5)).
    let metadata = fs::metadata("/proc/self").context("cannot read /proc/self")?;
    Ok(metadata.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_fully_installed_is_missing() {
        let listing =
            "nftables installed\nmmdebstrap config-files\npkg-config installed\npkg-config installed\n";
        assert_eq!(lacking(&["nftables", "pkg-config"], listing), [""; 0]);
        assert_eq!(lacking(&["mmdebstrap", "nftables", "iproute2"], listing), ["mmdebstrap", "iproute2"]);
    }
}
