//! Which cluster is meant, and by which sockets its nodes on this machine are reached.
//!
//! Every daemon listens on `/run/gantry/CLUSTER/NODE/api.sock`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::{InvalidName, Name};

use crate::Exit;

/// Where daemons keep their sockets.
pub(crate) const RUN: &str = "/run/gantry";

/// One cluster, and where to ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// For messages.
    pub(crate) cluster: String,
    /// At least one, in the order in which they are tried.
    pub(crate) sockets: Vec<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("no cluster found on this machine")]
    None,
    #[error("cluster `{0}` is not on this machine")]
    NoSuch(String),
    #[error("cluster `{0}` has no daemon running on this machine")]
    NotRunning(String),
    #[error("several clusters are on this machine: {}", .0.join(", "))]
    Several(Vec<String>),
    #[error("--context")]
    Context(#[source] InvalidName),
    #[error("GANTRY_SOCKETS names no socket")]
    NoSockets,
    #[error("cannot read {}", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Context(_) | Self::NoSockets | Self::Several(_) => Exit::Usage,
            // The cluster may well be there. Asking again does not help; asking as root does.
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Failed
            }
            Self::None | Self::NoSuch(_) | Self::NotRunning(_) | Self::Unreadable { .. } => Exit::Unavailable,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::None => Some("start one with `gantry dev up`".to_owned()),
            Self::NoSuch(name) => Some(format!("start it with `gantry dev up --name {name}`")),
            Self::NotRunning(name) => Some(format!("`gantry dev status --name {name}` shows its nodes")),
            Self::Several(names) => names.first().map(|name| format!("say which one: `--context {name}`")),
            Self::Context(_) => Some("give the cluster's name".to_owned()),
            Self::NoSockets => Some("set it to paths with colons between them, or unset it".to_owned()),
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run gantry as root".to_owned())
            }
            Self::Unreadable { .. } => None,
        }
    }
}

/// The cluster that is meant. In this order: the one called `context`; the one behind `sockets` (paths with colons between
/// them); the only one whose daemons have a socket below `run`. What is empty counts as not given.
pub(crate) fn find(
    context: Option<&str>,
    sockets: Option<&OsStr>,
    run: &Path,
) -> Result<Target, TargetError> {
    if let Some(name) = context.filter(|name| !name.is_empty()) {
        let name: Name = name.parse().map_err(TargetError::Context)?;
        let directory = run.join(name.as_str());
        return match directory.try_exists() {
            Ok(true) => running(name.to_string(), sockets_of(&directory)?),
            Ok(false) => Err(TargetError::NoSuch(name.to_string())),
            // What may not be looked at may be there all the same.
            Err(source) => Err(TargetError::Unreadable { path: directory, source }),
        };
    }
    if let Some(list) = sockets.filter(|list| !list.is_empty()) {
        let paths = std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty());
        let sockets: Vec<PathBuf> = paths.collect();
        return match sockets.is_empty() {
            true => Err(TargetError::NoSockets),
            false => Ok(Target { cluster: list.display().to_string(), sockets }),
        };
    }
    only_one(clusters(run)?)
}

/// A directory that a cluster left behind does not make the one that runs ambiguous.
fn only_one(mut clusters: BTreeMap<String, Vec<PathBuf>>) -> Result<Target, TargetError> {
    let stopped = clusters.iter().find(|(_, sockets)| sockets.is_empty()).map(|(name, _)| name.clone());
    clusters.retain(|_, sockets| !sockets.is_empty());
    if clusters.len() > 1 {
        return Err(TargetError::Several(clusters.into_keys().collect()));
    }
    match (clusters.pop_first(), stopped) {
        (Some((cluster, sockets)), _) => Ok(Target { cluster, sockets }),
        (None, Some(name)) => Err(TargetError::NotRunning(name)),
        (None, None) => Err(TargetError::None),
    }
}

fn running(cluster: String, sockets: Vec<PathBuf>) -> Result<Target, TargetError> {
    if sockets.is_empty() { Err(TargetError::NotRunning(cluster)) } else { Ok(Target { cluster, sockets }) }
}

/// The sockets of every cluster below `run`, by the cluster's name.
fn clusters(run: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, TargetError> {
    let mut clusters = BTreeMap::new();
    for directory in directories(run)? {
        let Some(name) = directory.file_name().and_then(OsStr::to_str) else { continue };
        clusters.insert(name.to_owned(), sockets_of(&directory)?);
    }
    Ok(clusters)
}

/// The sockets of a cluster's nodes, sorted.
fn sockets_of(cluster: &Path) -> Result<Vec<PathBuf>, TargetError> {
    let mut sockets = Vec::new();
    for node in directories(cluster)? {
        let socket = node.join("api.sock");
        match socket.try_exists() {
            Ok(true) => sockets.push(socket),
            Ok(false) => {}
            Err(source) => return Err(TargetError::Unreadable { path: socket, source }),
        }
    }
    Ok(sockets)
}

/// The directories in a directory, sorted; none if it does not exist.
fn directories(path: &Path) -> Result<Vec<PathBuf>, TargetError> {
    let failed = |source| TargetError::Unreadable { path: path.to_owned(), source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run directory with these nodes (`cluster/node`); those with a `+` have a socket.
    fn run_with(nodes: &[&str]) -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        for node in nodes {
            let directory = run.path().join(node.trim_end_matches('+'));
            fs::create_dir_all(&directory).unwrap();
            if node.ends_with('+') {
                fs::write(directory.join("api.sock"), "").unwrap();
            }
        }
        run
    }

    fn found(context: Option<&str>, sockets: Option<&str>, nodes: &[&str]) -> String {
        let run = run_with(nodes);
        match find(context, sockets.map(OsStr::new), run.path()) {
            Ok(Target { cluster, sockets }) => {
                let shown =
                    |path: &PathBuf| path.strip_prefix(run.path()).unwrap_or(path).display().to_string();
                format!("{cluster}: {}", sockets.iter().map(shown).collect::<Vec<_>>().join(" "))
            }
            Err(error) => format!("{error} (exit {})", error.exit().code()),
        }
    }

    #[test]
    fn the_only_cluster_is_found_by_itself() {
        assert_eq!(
            found(None, None, &["dev/n2+", "dev/n1+", "dev/n3"]),
            "dev: dev/n1/api.sock dev/n2/api.sock"
        );
        assert_eq!(found(None, None, &["dev/n1+", "left-behind/n1"]), "dev: dev/n1/api.sock");
        assert_eq!(found(Some(""), Some(""), &["dev/n1+"]), "dev: dev/n1/api.sock", "empty is not given");
    }

    #[test]
    fn of_several_clusters_one_has_to_be_named() {
        let nodes = ["a/n1+", "b/n1+"];
        assert_eq!(found(None, None, &nodes), "several clusters are on this machine: a, b (exit 2)");
        assert_eq!(found(Some("b"), None, &nodes), "b: b/n1/api.sock");
    }

    #[test]
    fn without_a_cluster_the_error_says_which_is_missing() {
        assert_eq!(found(None, None, &[]), "no cluster found on this machine (exit 6)");
        assert_eq!(
            found(None, None, &["dev/n1"]),
            "cluster `dev` has no daemon running on this machine (exit 6)"
        );
        assert_eq!(found(Some("prod"), None, &["dev/n1+"]), "cluster `prod` is not on this machine (exit 6)");
    }

    #[test]
    fn a_context_is_a_name_and_never_a_path() {
        assert_eq!(found(Some("../dev"), None, &["dev/n1+"]), "--context (exit 2)");
    }

    #[test]
    fn sockets_can_be_named_outright_unless_a_context_is() {
        assert_eq!(found(None, Some("/a.sock::/b.sock"), &["dev/n1+"]), "/a.sock::/b.sock: /a.sock /b.sock");
        assert_eq!(found(None, Some(":"), &["dev/n1+"]), "GANTRY_SOCKETS names no socket (exit 2)");
        assert_eq!(found(Some("dev"), Some("/a.sock"), &["dev/n1+"]), "dev: dev/n1/api.sock");
    }
}
