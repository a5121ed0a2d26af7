//! `cluster.json`: what a cluster is meant to be, and which processes hold its namespaces.
//!
//! It is written before what it says is done, so that a command that is killed leaves nothing of which there is no
//! trace.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::addresses;
use crate::layout::{Layout, NodeNumber};
use crate::process::Process;

/// What a version of gantry that writes another form of record counts up.
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub(crate) version: u32,
    pub(crate) stage: Stage,
    /// The boot in which the processes are. After another, all of them are gone.
    boot: String,
    /// The base of the cluster's /24.
    pub(crate) network: Ipv4Addr,
    /// Whether there is a table for outbound traffic on the machine.
    pub(crate) masquerade: bool,
    pub(crate) switch: Option<Process>,
    pub(crate) nodes: BTreeMap<NodeNumber, NodeRecord>,
}

/// How far a cluster has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It never came up as a whole: nothing in it is worth keeping.
    Making,
    Made,
    /// Its disks are being deleted.
    Removing,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRecord {
    pub(crate) manager: bool,
    /// It was seen as a member. One that was not is replaced by the next `node add`.
    pub(crate) joined: bool,
    /// Its link is down, which outlives a reboot, like a cable that is pulled.
    pub(crate) partitioned: bool,
    /// `None` while the node is crashed.
    pub(crate) holder: Option<Process>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is damaged")]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("{path} was written by another version of gantry (form {found}; this one knows {})", VERSION)]
    Version { path: PathBuf, found: u32 },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

impl Record {
    /// A cluster of nodes `n1` to `n<nodes>`, the first `managers` of them managers, of which nothing exists yet.
    pub fn new(network: Ipv4Addr, nodes: u8, managers: u8) -> Result<Self, RecordError> {
        let numbers = (1..=nodes).filter_map(NodeNumber::new);
        Ok(Self {
            version: VERSION,
            stage: Stage::Making,
            boot: boot()?,
            network,
            masquerade: false,
            switch: None,
            nodes: numbers.map(|number| (number, NodeRecord::new(number.get() <= managers))).collect(),
        })
    }

    /// `None` if there is no such cluster.
    pub fn load(layout: &Layout) -> Result<Option<Self>, RecordError> {
        /// Read first, so that another form is told from a damaged one.
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        let path = layout.record();
        let Some(Form { version }) = load_json(&path)? else { return Ok(None) };
        if version != VERSION {
            return Err(RecordError::Version { path, found: version });
        }
        let Some(mut record) = load_json::<Self>(&path)? else { return Ok(None) };
        let boot = boot()?;
        if record.boot != boot {
            record.boot = boot;
            record.forget_processes();
        }
        Ok(Some(record))
    }

    pub(crate) fn save(&self, layout: &Layout) -> Result<(), RecordError> {
        save_json(&layout.record(), self)
    }

    pub(crate) fn forget_processes(&mut self) {
        self.switch = None;
        for node in self.nodes.values_mut() {
            node.holder = None;
        }
    }

    pub(crate) fn ip(&self, node: NodeNumber) -> Ipv4Addr {
        addresses::node(self.network, node)
    }

    /// Where the node's daemon listens.
    pub fn address(&self, node: NodeNumber) -> SocketAddr {
        SocketAddr::from((self.ip(node), addresses::PORT))
    }

    /// The nodes that are members and managers, except `but`.
    pub(crate) fn managers(&self, but: Option<NodeNumber>) -> impl Iterator<Item = NodeNumber> {
        let wanted = move |(number, node): &(&NodeNumber, &NodeRecord)| node.manager && Some(**number) != but;
        self.nodes.iter().filter(wanted).map(|(number, _)| *number)
    }

    /// The number of the next node. `None` if there are as many as there may be.
    pub(crate) fn next(&self) -> Option<NodeNumber> {
        let last = self.nodes.last_key_value().map_or(0, |(number, _)| number.get());
        last.checked_add(1).and_then(NodeNumber::new)
    }
}

impl NodeRecord {
    pub(crate) fn new(manager: bool) -> Self {
        Self { manager, joined: false, partitioned: false, holder: None }
    }
}

/// Of this boot, and of no other (random(4)).
fn boot() -> Result<String, RecordError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let read = fs::read_to_string(path).map(|text| text.trim().to_owned());
    read.map_err(|source| RecordError::Read { path: path.to_owned(), source })
}

/// `None` if there is no such file.
pub(crate) fn load_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Read { path: path.to_owned(), source }),
    };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|source| RecordError::Damaged { path: path.to_owned(), source })
}

/// Replaces the file as a whole: a reader, or a machine that loses power, sees the old one or the new one.
pub(crate) fn save_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    let write = || {
        let fresh = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|source| RecordError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(root: &Path) -> Layout {
        let layout = Layout::new("dev".parse().unwrap(), Some(root.into()));
        fs::create_dir_all(layout.dir()).unwrap();
        layout
    }

    fn record() -> Record {
        let mut record = Record::new(Ipv4Addr::new(10, 199, 7, 0), 12, 3).unwrap();
        record.stage = Stage::Made;
        record.switch = Some(Process { pid: 7, start: 70 });
        let second = record.nodes.get_mut(&NodeNumber::new(2).unwrap()).unwrap();
        *second = NodeRecord {
            joined: true,
            partitioned: true,
            holder: Some(Process { pid: 8, start: 80 }),
            ..second.clone()
        };
        record
    }

    #[test]
    fn a_record_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        assert_eq!(Record::load(&layout).unwrap(), None);
        record().save(&layout).unwrap();
        assert_eq!(Record::load(&layout).unwrap(), Some(record()));
        assert_eq!(fs::read_dir(layout.dir()).unwrap().count(), 1, "nothing but the record is left");
    }

    #[test]
    fn after_another_boot_no_process_is_known_and_all_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        Record { boot: "an earlier one".to_owned(), ..record() }.save(&layout).unwrap();
        let mut expected = record();
        expected.forget_processes();
        assert_eq!(Record::load(&layout).unwrap(), Some(expected));
    }

    #[test]
    fn a_damaged_record_and_one_of_another_version_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        for bad in ["", "{", "null", r#"{"version": 1}"#] {
            fs::write(layout.record(), bad).unwrap();
            assert!(matches!(Record::load(&layout), Err(RecordError::Damaged { .. })), "{bad:?}");
        }
        fs::write(layout.record(), r#"{"version": 2, "anything": []}"#).unwrap();
        assert!(matches!(Record::load(&layout), Err(RecordError::Version { found: 2, .. })));
    }

    #[test]
    fn the_first_nodes_are_the_managers_and_the_next_one_follows_the_last() {
        let record = record();
        let managers = |but| record.managers(but).map(|node| node.to_string()).collect::<Vec<_>>();
        assert_eq!(managers(None), ["n1", "n2", "n3"]);
        assert_eq!(managers(NodeNumber::new(2)), ["n1", "n3"]);
        assert_eq!(record.next(), NodeNumber::new(13));
        assert_eq!(record.address(NodeNumber::FIRST).to_string(), "10.199.7.11:7430");
        let full = Record::new(Ipv4Addr::UNSPECIFIED, 200, 1).unwrap();
        assert_eq!(full.next(), None);
    }
}
