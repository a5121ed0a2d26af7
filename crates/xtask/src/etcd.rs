//! Debian's etcd, three servers on this machine, started beside gantry to be compared with it.
//!
//! Their files are in the folder of the dev clusters, and so on the same disk. All is as etcd has it by default, so that a
//! write is synced before it is acknowledged; but for the gateway from HTTP to gRPC, which nobody here calls.
//!
//! **Invariant:** an [`Etcd`] that goes out of scope has ended, and left nothing.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::command::{Call, last_lines};
use crate::output::complain;
use crate::{inventory, packages, wait};

/// The servers, and `etcdctl`, which says who leads.
const PACKAGES: [&str; 2] = ["etcd-server", "etcd-client"];

const PREFIX: &str = "etcd-";
const NAMES: [&str; 3] = ["e1", "e2", "e3"];

/// It takes a second or two.
const START: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Etcd {
    servers: Vec<Server>,
    /// Goes after the servers.
    dir: TempDir,
}

/// A process, which ends with this.
#[derive(Debug)]
struct Server {
    process: Child,
    /// Where it has clients that do not use its socket.
    port: u16,
}

/// A server's answer, as `etcdctl` prints it.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    #[serde(rename = "Status")]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct Status {
    header: Header,
    version: String,
    /// 0, which is left out, while none is known.
    #[serde(default)]
    leader: u64,
}

/// By whom it is.
#[derive(Clone, Debug, Deserialize)]
struct Header {
    member_id: u64,
}

impl Etcd {
    /// Starts them, and returns when one of them leads. There has to be a dev cluster, for the folder.
    pub(crate) fn start() -> Result<Self> {
        packages::ensure_unstarted(&PACKAGES)?;
        let root = inventory::dev_root();
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&root);
        let dir = dir.with_context(|| format!("cannot make a directory in {}", root.display()))?;
        let ports = free_ports(2 * NAMES.len()).context("this machine's loopback has no free port")?;
        let (clients, peers) = ports.split_at(NAMES.len());
        let members = NAMES.iter().zip(peers).map(|(name, port)| format!("{name}={}", url(*port)));
        let members = members.collect::<Vec<_>>().join(",");
        let mut etcd = Self { servers: Vec::new(), dir };
        for ((name, client), peer) in NAMES.into_iter().zip(clients).zip(peers) {
            etcd.servers.push(Server::start(etcd.dir.path(), name, [*client, *peer], &members)?);
        }
        etcd.await_leader()?;
        Ok(etcd)
    }

    fn await_leader(&mut self) -> Result<()> {
        let led = wait::until("etcd to have a leader", START, || {
            if self.has_ended()? {
                return Ok(Some(false));
            }
            Ok(leader(&self.ask()?).map(|_| true))
        });
        match led {
            Ok(true) => Ok(()),
            Ok(false) => bail!("etcd ended as soon as it was started{}", self.last_words()),
            Err(error) => Err(error.context(format!("etcd does not come up{}", self.last_words()))),
        }
    }

    /// Whether one of them has.
    fn has_ended(&mut self) -> Result<bool> {
        for server in &mut self.servers {
            if server.process.try_wait().context("cannot look after etcd")?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn last_words(&self) -> String {
        let words = |name: &str| {
            let text = fs::read(log(self.dir.path(), name)).unwrap_or_default();
            format!("\n  {name}:{}", last_lines(&String::from_utf8_lossy(&text)))
        };
        NAMES.into_iter().map(words).collect()
    }

    /// What each says of itself, in the order of their names.
    fn ask(&self) -> Result<Vec<Answer>> {
        let urls: Vec<String> = self.servers.iter().map(|server| url(server.port)).collect();
        let ask = Call::of("etcdctl").env("ETCDCTL_API", "3").arg(format!("--endpoints={}", urls.join(",")));
        let text = ask.args(["endpoint", "status", "--write-out=json"]).read()?;
        serde_json::from_str(&text).context("`etcdctl endpoint status` is not what it should be")
    }

    /// The Unix socket of the server that leads now.
    pub(crate) fn leaders_socket(&self) -> Result<PathBuf> {
        let leader = leader(&self.ask()?).context("etcd has no leader")?;
        Ok(self.dir.path().join(socket(NAMES[leader])))
    }

    pub(crate) fn version(&self) -> Result<String> {
        let first = self.ask()?.into_iter().next().context("etcd has no servers")?;
        Ok(first.status.version)
    }
}

impl Server {
    fn start(dir: &Path, name: &str, [client, peer]: [u16; 2], members: &str) -> Result<Self> {
        let log = File::create(log(dir, name)).context("cannot make etcd's log")?;
        let (for_clients, for_peers) = (url(client), url(peer));
        let listen = format!("{for_clients},unix://{}", socket(name));
        // It ends with us, however we end, and not by a Ctrl-C of which we are still to make something.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd", "--name", name, "--data-dir", name]);
        command.args(["--listen-peer-urls", &for_peers, "--initial-advertise-peer-urls", &for_peers]);
        command.args(["--listen-client-urls", &listen, "--advertise-client-urls", &for_clients]);
        command.args(["--initial-cluster", members, "--enable-grpc-gateway=false"]);
        command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let process = command.spawn().context("cannot run `setpriv`")?;
        Ok(Self { process, port: client })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.kill().and_then(|()| self.process.wait()).is_err() {
            complain(&format!("warning: etcd (process {}) may still run", self.process.id()));
        }
    }
}

/// In the directory that a server is started in. 3.4 takes no other form than `HOST:PORT` (its `pkg/types/urls.go`), which is
/// then the file's name.
fn socket(name: &str) -> String {
    format!("{name}:1")
}

fn log(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

fn url(port: u16) -> String {
    format!("http://{}:{port}", Ipv4Addr::LOCALHOST)
}

/// Ports of loopback that nobody has now; who comes first may have one of them before etcd has.
fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let bound = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    // Held until the last is known, or one could be given out twice.
    let held: Vec<TcpListener> = bound.collect::<io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Which of them leads, once all have answered and agree.
fn leader(answers: &[Answer]) -> Option<usize> {
    let leader = answers.first()?.status.leader;
    let agreed = answers.len() == NAMES.len() && answers.iter().all(|answer| answer.status.leader == leader);
    // Nobody has the id 0.
    let at = answers.iter().position(|answer| answer.status.header.member_id == leader);
    at.filter(|_| agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(leaders: [&str; 3]) -> Vec<Answer> {
        let rows = leaders.iter().zip([9_372_538_179_322_589_801_u64, 2, 18_249_187_646_912_138_824]);
        let row = |(leader, id): (&&str, u64)| {
            format!(
                r#"{{"Endpoint":"http://127.0.0.1:1","Status":{{"header":{{"cluster_id":1,"member_id":{id},"raft_term":2}},
                    "version":"3.4.23","dbSize":20480{leader},"raftIndex":8,"raftTerm":2}}}}"#
            )
        };
        let text = format!("[{}]", rows.map(row).collect::<Vec<_>>().join(","));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn one_leads_when_all_say_so() {
        let third = r#","leader":18249187646912138824"#;
        assert_eq!(leader(&answers([third; 3])), Some(2));
        assert_eq!(leader(&answers([third, third, ""])), None, "one does not know yet");
        assert_eq!(leader(&answers([""; 3])), None);
        assert_eq!(leader(&answers([third; 3])[1..]), None, "one has not answered");
        assert_eq!(leader(&[]), None);
        assert_eq!(answers([""; 3])[0].status.version, "3.4.23");
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(6).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }
}
