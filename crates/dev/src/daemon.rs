//! A node's daemon: started in its node, found again, waited for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::addresses::PORT;
use crate::holder::{self, HolderError};
use crate::layout::{Layout, NodeNumber};
use crate::process::{Process, Vitals};
use crate::record::{Record, RecordError, load_json, save_json};

/// A log that is longer when a daemon starts is put aside, and the one that was put aside before is deleted.
const LOG_MAX: u64 = 16 << 20;
/// How much of a log's end may be read for its last lines.
const TAIL_BYTES: u64 = 16 << 10;
/// Between two looks at a daemon that announces nothing.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("cannot start the daemon of {node}")]
    Start { node: NodeNumber, source: HolderError },
    #[error("cannot open the daemon's log {path}")]
    Log { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("cannot look after the daemon of {node} (pid {pid})")]
    Process { node: NodeNumber, pid: i32, source: io::Error },
}

/// What came of waiting for a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It listens.
    Yes,
    /// It ended.
    Died,
    /// It lives, and does not listen yet.
    NotYet,
}

/// Starts a node's daemon, which does not run, in the namespaces of the node's holder.
pub(crate) fn start(layout: &Layout, node: NodeNumber, holder: Process) -> Result<Process, DaemonError> {
    let path = layout.log(node);
    let log = open_log(&path).map_err(|source| DaemonError::Log { path, source })?;
    let failed = |source| DaemonError::Start { node, source };
    let cgroup = format!("{}/daemon", layout.node_cgroup(node));
    let candidate = holder::start_daemon(holder, &cgroup, &layout.data(node), log).map_err(failed)?;
    save_json(&layout.daemon_record(node), &candidate.process())?;
    candidate.release().map_err(failed)
}

/// The daemon that was last started, and how it is. `None` if none was since the node came up.
pub(crate) fn find(layout: &Layout, node: NodeNumber) -> Result<Option<(Process, Vitals)>, DaemonError> {
    let Some(process) = load_json::<Process>(&layout.daemon_record(node))? else { return Ok(None) };
    let vitals =
        process.vitals().map_err(|source| DaemonError::Process { node, pid: process.pid, source })?;
    Ok(Some((process, vitals)))
}

/// The daemon, if it lives.
pub(crate) fn living(layout: &Layout, node: NodeNumber) -> Result<Option<(Process, Vitals)>, DaemonError> {
    Ok(find(layout, node)?.filter(|(_, vitals)| *vitals != Vitals::Gone))
}

/// Waits until a daemon listens for other nodes. That is looked up and not tried: a worker has no other door, and a
/// partitioned node cannot be reached.
pub(crate) async fn answer(
    record: &Record,
    node: NodeNumber,
    daemon: Process,
    within: Duration,
) -> Result<Answer, DaemonError> {
    let deadline = Instant::now() + within;
    let entry = entry(record.ip(node), PORT);
    loop {
        // Nothing to read is as good as nothing found: whether it lives is asked next.
        let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid)).unwrap_or_default();
        let lives = daemon.lives();
        if !lives.map_err(|source| DaemonError::Process { node, pid: daemon.pid, source })? {
            return Ok(Answer::Died);
        }
        if is_listening(&sockets, &entry) {
            return Ok(Answer::Yes);
        }
        if Instant::now() >= deadline {
            return Ok(Answer::NotYet);
        }
        sleep(PAUSE).await;
    }
}

/// An address as proc_pid_net(5) writes it: the hexadecimal of a number whose bytes in memory are the address.
fn entry(address: Ipv4Addr, port: u16) -> String {
    format!("{:08X}:{port:04X}", u32::from_ne_bytes(address.octets()))
}

/// Whether such a socket is among those of a network namespace, in the form of `/proc/<pid>/net/tcp`.
fn is_listening(sockets: &str, entry: &str) -> bool {
    /// `TCP_LISTEN` of the kernel.
    const LISTEN: &str = "0A";
    sockets.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some(entry) && fields.nth(1) == Some(LISTEN)
    })
}

fn open_log(path: &Path) -> io::Result<File> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    if length > LOG_MAX {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// How long a node's log is, in bytes: what the daemon that is started next writes stands behind it.
pub(crate) fn log_length(layout: &Layout, node: NodeNumber) -> u64 {
    fs::metadata(layout.log(node)).map_or(0, |log| log.len())
}

/// The last lines of a node's log behind its first `from` bytes, for an error; nothing where there is none.
pub(crate) fn last_words(layout: &Layout, node: NodeNumber, from: u64, lines: usize) -> String {
    tail(&layout.log(node), from, lines).unwrap_or_default()
}

fn tail(path: &Path, from: u64, lines: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // A log that has become shorter was put aside: all of this one is new.
    let from = if from > length { 0 } else { from };
    let start = length.saturating_sub(TAIL_BYTES).max(from);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line is cut when there is more than what was read.
    let whole: Vec<&str> = text.lines().skip(usize::from(start > from)).collect();
    Ok(whole[whole.len().saturating_sub(lines)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_daemon_is_found_by_its_listening_socket() {
        let sockets = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B07C70A:1D06 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1
   1: 0C07C70A:1D06 0B07C70A:1D06 01 00000000:00000000 00:00000000 00000000     0        0 13 1
";
        let at = |last, port| is_listening(sockets, &entry(Ipv4Addr::new(10, 199, 7, last), port));
        assert!(at(11, 7430));
        assert!(!at(12, 7430), "a connection is no listener");
        assert!(!at(11, 7431) && !at(13, 7430));
        assert!(!is_listening("", &entry(Ipv4Addr::LOCALHOST, 1)));
    }

    #[test]
    fn the_last_lines_of_a_log_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 0, 2).unwrap(), "two\nthree");
        assert_eq!(tail(&path, 0, 9).unwrap(), "one\ntwo\nthree");
        assert_eq!(tail(&path, 4, 9).unwrap(), "two\nthree", "what stood there before is not its own");
        assert_eq!(tail(&path, 999, 9).unwrap(), "one\ntwo\nthree", "the log was put aside meanwhile");
        let long: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, long).unwrap();
        assert_eq!(tail(&path, 0, 2).unwrap(), "line 9998\nline 9999");
        assert!(tail(&path, 0, 100_000).unwrap().starts_with("line "), "no line is cut in the middle");
    }

    #[test]
    fn a_long_log_is_put_aside_and_a_short_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        open_log(&path).unwrap().set_len(LOG_MAX).unwrap();
        assert_eq!(open_log(&path).unwrap().metadata().unwrap().len(), LOG_MAX);
        open_log(&path).unwrap().set_len(LOG_MAX + 1).unwrap();
        assert_eq!(open_log(&path).unwrap().metadata().unwrap().len(), 0);
        assert_eq!(fs::metadata(dir.path().join("daemon.log.1")).unwrap().len(), LOG_MAX + 1);
    }
}
