//! Where everything of a dev cluster is. All names derive from the cluster's, so that what an interrupted command left
//! is found without a record of it.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::Name;
use serde::{Deserialize, Serialize};

/// Names the folder that takes the place of [`ROOT`].
pub const ROOT_VARIABLE: &str = "GANTRY_DEV_ROOT";
/// Where clusters keep what outlives their processes.
const ROOT: &str = "/var/lib/gantry-dev";
/// Where daemons have their sockets, by which clients find them: `/run/gantry/<cluster>/<node>/api.sock`.
const RUN: &str = "/run/gantry";
/// The cgroup of all dev clusters.
pub(crate) const CGROUP: &str = "/gantry-dev";
/// The kernel's limit on interface names (`IFNAMSIZ` less the NUL).
const INTERFACE_MAX: usize = 15;

/// One node of a dev cluster: `n1` to `n200`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeNumber(u8);

impl NodeNumber {
    /// The node that makes the cluster.
    pub const FIRST: Self = Self(1);
    /// So many nodes have an address in the cluster's /24, between its own .1 to .10 and the machine's .254.
    pub const LAST: Self = Self(200);

    /// `None` outside of 1 to 200.
    pub fn new(number: u8) -> Option<Self> {
        (Self::FIRST..=Self::LAST).contains(&Self(number)).then_some(Self(number))
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a dev node: they are named n1, n2 and so on to n200")]
pub struct InvalidNode(String);

impl FromStr for NodeNumber {
    type Err = InvalidNode;

    fn from_str(text: &str) -> Result<Self, InvalidNode> {
        let digits = text.strip_prefix('n').filter(|digits| digits.bytes().all(|c| c.is_ascii_digit()));
        let number = digits.filter(|digits| !digits.starts_with('0')).and_then(|digits| digits.parse().ok());
        let shown = || InvalidNode(text.chars().take(80).flat_map(char::escape_debug).collect());
        number.and_then(Self::new).ok_or_else(shown)
    }
}

/// The paths and names of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    cluster: Name,
    root: PathBuf,
}

impl Layout {
    /// `root` is what [`ROOT_VARIABLE`] says, if it says anything.
    pub fn new(cluster: Name, root: Option<OsString>) -> Self {
        Self {
            cluster,
            root: root.filter(|root| !root.is_empty()).map_or_else(|| ROOT.into(), PathBuf::from),
        }
    }

    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The folder of all clusters.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What of this cluster outlives its processes.
    pub fn dir(&self) -> PathBuf {
        self.root.join(self.cluster.as_str())
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.dir().join("cluster.json")
    }

    /// A node's disk.
    pub fn data(&self, node: NodeNumber) -> PathBuf {
        self.dir().join(node.to_string())
    }

    pub(crate) fn log(&self, node: NodeNumber) -> PathBuf {
        self.data(node).join("daemon.log")
    }

    /// The folder of all clusters' [`Layout::run_dir`].
    pub(crate) fn run_root() -> &'static Path {
        Path::new(RUN)
    }

    /// What of this cluster does not outlive its processes.
    pub fn run_dir(&self) -> PathBuf {
        Path::new(RUN).join(self.cluster.as_str())
    }

    pub fn run(&self, node: NodeNumber) -> PathBuf {
        self.run_dir().join(node.to_string())
    }

    /// Where a node pins its containers' network namespaces; a mount of its own, that only the node sees.
    pub(crate) fn pins(&self, node: NodeNumber) -> PathBuf {
        self.run(node).join("netns")
    }

    pub(crate) fn socket(&self, node: NodeNumber) -> PathBuf {
        self.run(node).join("api.sock")
    }

    pub(crate) fn daemon_record(&self, node: NodeNumber) -> PathBuf {
        self.run(node).join("daemon.json")
    }

    pub fn cgroup(&self) -> String {
        format!("{CGROUP}/{}", self.cluster)
    }

    pub(crate) fn switch_cgroup(&self) -> String {
        format!("{}/switch", self.cgroup())
    }

    /// Everything that runs in a node is in or below it.
    pub fn node_cgroup(&self, node: NodeNumber) -> String {
        format!("{}/{node}", self.cgroup())
    }

    /// The machine's interface to the cluster. A name that is too long for the kernel gives way to its hash.
    pub fn uplink(&self) -> String {
        let name = format!("gdev-{}", self.cluster);
        if name.len() <= INTERFACE_MAX { name } else { format!("gdev-{:010x}", self.hash() >> 24) }
    }

    /// The packet filter's table on the machine.
    pub(crate) fn table(&self) -> String {
        format!("gantry_dev_{}", self.cluster)
    }

    /// FNV-1a: the same for the same name, on every machine and in every version.
    pub(crate) fn hash(&self) -> u64 {
        let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        self.cluster.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(cluster: &str) -> Layout {
        Layout::new(cluster.parse().unwrap(), None)
    }

    #[test]
    fn a_node_is_n_and_a_number() {
        for good in ["n1", "n9", "n10", "n200"] {
            assert_eq!(good.parse::<NodeNumber>().unwrap().to_string(), good);
        }
        for bad in ["", "n", "1", "n0", "n01", "n201", "n256", "n-1", "n+1", "N1", "n1 ", "../n1"] {
            assert!(bad.parse::<NodeNumber>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_interface_name_fits_the_kernel_and_differs_by_cluster() {
        assert_eq!(layout("dev").uplink(), "gdev-dev");
        assert_eq!(layout("ten-chars0").uplink(), "gdev-ten-chars0");
        let long =
            ["a-cluster-with-a-long-name", "a-cluster-with-a-long-nam2"].map(|name| layout(name).uplink());
        assert!(long.iter().all(|name| name.len() == INTERFACE_MAX) && long[0] != long[1], "{long:?}");
    }

    #[test]
    fn another_root_moves_the_disks_only() {
        let moved = Layout::new("dev".parse().unwrap(), Some("/scratch".into()));
        assert_eq!(moved.data(NodeNumber::FIRST), Path::new("/scratch/dev/n1"));
        assert_eq!(moved.socket(NodeNumber::FIRST), Path::new("/run/gantry/dev/n1/api.sock"));
        assert_eq!(Layout::new("dev".parse().unwrap(), Some("".into())), layout("dev"), "empty is unset");
    }

    #[test]
    fn the_longest_name_leaves_room_for_a_socket() {
        let longest = layout(&"a".repeat(63)).socket(NodeNumber::LAST);
        assert!(longest.as_os_str().len() < 108, "sun_path of unix(7)");
    }
}
