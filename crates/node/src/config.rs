//! What a node is told: `node.json` in its data directory.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "node.json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A DNS label, unique in the cluster.
    pub name: String,
    /// Where the daemon listens, and where other nodes reach it.
    pub listen: SocketAddr,
    /// For what need not survive the machine: the socket for clients here, pinned namespaces.
    pub run: PathBuf,
    /// The prefix of every cgroup that is made, absolute in the hierarchy.
    pub cgroup: String,
    /// The name of the bridge that containers are attached to.
    pub bridge: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the node gives to tasks; the whole machine where it is absent.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// How the node came into its cluster. Read once: afterwards its certificate says who it is.
    pub start: Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// Make a new cluster, with this node as its first manager.
    Found {
        /// Container addresses of the whole cluster, as `10.208.0.0/12`.
        range: String,
        /// The prefix length of each node's part of it.
        node_prefix: u8,
    },
    /// Join one.
    Join { token: String, managers: Vec<SocketAddr> },
}

#[derive(Debug, thiserror::Error)]
pub enum LoadConfigError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a node's configuration")]
    Parse { path: PathBuf, source: serde_json::Error },
}

impl Config {
    /// Writes the file into the data directory, readable by root only: it may hold a join token.
    pub fn save(&self, data: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("a configuration is plain data");
        crate::credentials::write_private(&data.join(FILE), &text)
    }

    pub fn load(data: &Path) -> Result<Self, LoadConfigError> {
        let path = data.join(FILE);
        let text =
            std::fs::read(&path).map_err(|source| LoadConfigError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| LoadConfigError::Parse { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = r#"{"name":"n1","listen":"127.0.0.1:1","run":"/r","cgroup":"/g","bridge":"b","lables":{},
            "start":{"join":{"token":"t","managers":[]}}}"#;
        let error = serde_json::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `lables`"), "{error}");
    }
}
