//! Asks a real container how it is: by a command in it, or from the node over the node's bridge, so that an image needs no
//! `curl`.

mod exec;
mod grpc;
mod http;

use std::path::PathBuf;
use std::time::Duration;

use model::{Hook, Probe, TaskId};
use runtime::exec::Exec;
use runtime::handle::{self, Observed};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::host::ProbeResult;
use crate::ledger::Assigned;
use crate::real::disk::Disk;
use crate::real::{blocking, failure};

/// What is kept of an answer: Docker's `maxOutputLen`.
const KEPT: usize = 4096;

/// Commands that are being started at once. Each start is some milliseconds of system time, and after an agent's start a
/// hundred of them may be due; what waits here has not begun, and does not run out of time.
const STARTS: usize = 4;

#[derive(Debug)]
pub(crate) struct Prober {
    disk: Disk,
    starts: Semaphore,
}

impl Prober {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk, starts: Semaphore::new(STARTS) }
    }

    /// Runs a command in the container to its end. What it printed is told where it fails.
    pub(crate) async fn run(
        &self,
        task: TaskId,
        attempt: u32,
        hook: Hook,
        most: Duration,
    ) -> Result<(), String> {
        exec::run(self.disk.attempt(task, attempt), hook_exec(hook), most, &self.starts).await.map(drop)
    }

    pub(crate) async fn ask(
        &self,
        task: &Assigned,
        attempt: u32,
        probe: Probe,
        most: Duration,
    ) -> ProbeResult {
        let address = task.placement.address;
        let answer = match probe {
            Probe::Exec(args) => {
                let exec = Exec { args, ..Exec::default() };
                exec::run(self.disk.attempt(task.id, attempt), exec, most, &self.starts).await
            }
            Probe::Http(probe) => within(most, http::get(address, &probe)).await,
            Probe::Tcp { port } => {
                let connect = async {
                    let connected = TcpStream::connect((address, port)).await;
                    connected.map(|_| "connected".to_owned()).map_err(|error| error.to_string())
                };
                within(most, connect).await
            }
            Probe::Grpc { port, service } => within(most, grpc::check(address, port, service, most)).await,
        };
        let (healthy, mut output) = match answer {
            Ok(output) => (true, output),
            Err(output) => (false, output),
        };
        // Only afterwards: it may have been paused while it was asked.
        let paused = !healthy && is_paused(self.disk.attempt(task.id, attempt)).await;
        if paused {
            "the container is paused".clone_into(&mut output);
        }
        output.truncate(output.floor_char_boundary(KEPT));
        ProbeResult { healthy, output, paused }
    }
}

/// How a hook is run.
fn hook_exec(hook: Hook) -> Exec {
    let Hook { command, user, privileged, working_dir, environment } = hook;
    let env = environment.into_iter().map(|(name, value)| format!("{name}={value}"));
    Exec { args: command, env: env.collect(), cwd: working_dir, user, privileged, ..Exec::default() }
}

/// Whether the container of this directory stands still. One that cannot be looked at does not.
async fn is_paused(dir: PathBuf) -> bool {
    let look = blocking(move || {
        handle::inspect(&dir).map_err(|error| failure("cannot inspect the container", &error))
    });
    match look.await {
        Ok(Observed::Running(running)) => running.paused,
        Ok(Observed::NotStarted | Observed::Starting | Observed::Exited(_) | Observed::Vanished) => false,
        Err(failure) => {
            tracing::debug!(%failure, "whether a container is paused is not known");
            false
        }
    }
}

async fn within(
    most: Duration,
    answer: impl Future<Output = Result<String, String>>,
) -> Result<String, String> {
    match tokio::time::timeout(most, answer).await {
        Ok(answer) => answer,
        Err(_late) => Err(late(most)),
    }
}

fn late(most: Duration) -> String {
    format!("no answer within {most:?}")
}

/// The beginning of what was answered.
#[derive(Debug, Default)]
struct Answered(Vec<u8>);

impl Answered {
    fn push(&mut self, more: &[u8]) {
        let room = KEPT.saturating_sub(self.0.len());
        self.0.extend_from_slice(&more[..more.len().min(room)]);
    }

    fn is_full(&self) -> bool {
        self.0.len() >= KEPT
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use model::{Desired, Placement};
    use tokio::net::TcpListener;

    use super::*;
    use crate::host::fake::assigned;

    #[test]
    fn an_answer_is_kept_up_to_its_limit() {
        let mut answered = Answered::default();
        answered.push(&[b'a'; 3000]);
        assert!(!answered.is_full());
        answered.push(&[0xff; 3000]);
        answered.push(b"more");
        assert!(answered.is_full());
        assert_eq!(answered.0.len(), KEPT);
        assert!(answered.text().starts_with("aaa") && answered.text().ends_with('\u{fffd}'));
    }

    #[tokio::test]
    async fn a_port_is_healthy_while_something_listens_there() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let data = tempfile::tempdir().unwrap();
        let prober = Prober::new(Disk::new(data.path().to_owned()));
        let task = assigned(Desired::Running);
        let placement = Placement { address: Ipv4Addr::LOCALHOST, ..task.placement.clone() };
        let task = Assigned { placement, ..task };
        let most = Duration::from_secs(10);
        let there = prober.ask(&task, 1, Probe::Tcp { port }, most).await;
        assert_eq!(there, ProbeResult { healthy: true, output: "connected".to_owned(), paused: false });
        drop(listener);
        let gone = prober.ask(&task, 1, Probe::Tcp { port }, most).await;
        assert!(!gone.healthy && !gone.paused && gone.output.contains("refused"), "{gone:?}");
    }
}
