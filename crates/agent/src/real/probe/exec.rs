//! A command in the container, as Docker's `HEALTHCHECK CMD`: with the container's user, directory and environment where nothing
//! else is said.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use model::Exit;
use runtime::exec::{self, Exec, Io, Session};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Answered, late};
use crate::host::Failure;
use crate::real::{blocking, failure};

/// How long a command may take to be started, which is not its own time: on a busy node that is a second, and a check with a
/// second to answer would fail for it. Docker's.
const START: Duration = Duration::from_secs(30);

/// How long output is waited for after the command has ended. All of it is there by then, unless the command left something
/// behind that holds it open.
const DRAIN: Duration = Duration::from_millis(100);

/// Runs the command in the container of `dir`; 0 is healthy. `most` is counted from when it runs. One that takes longer is
/// killed, and so is one whose future is dropped.
pub(super) async fn run(
    dir: PathBuf,
    exec: Exec,
    most: Duration,
    starts: &Semaphore,
) -> Result<String, String> {
    let session = {
        let _turn = starts.acquire().await.map_err(|error| failure("the agent is stopping", &error).0)?;
        within_start(start(dir, exec)).await?
    };
    let mut answered = Answered::default();
    let ran = timeout(most, ended(session, &mut answered)).await;
    let output = answered.text();
    match ran {
        Ok(Ok(exit)) if exit.success() => Ok(output),
        Ok(Ok(exit)) if output.trim().is_empty() => Err(exit.to_string()),
        Ok(Ok(_)) => Err(output),
        Ok(Err(Failure(why))) => Err(why),
        Err(_) if output.trim().is_empty() => Err(late(most)),
        Err(_) => Err(format!("{}: {output}", late(most))),
    }
}

async fn within_start<T>(start: impl Future<Output = Result<T, Failure>>) -> Result<T, String> {
    match timeout(START, start).await {
        Ok(started) => started.map_err(|Failure(why)| why),
        Err(_late) => Err(format!("it was not started within {START:?}")),
    }
}

async fn start(dir: PathBuf, exec: Exec) -> Result<Session, Failure> {
    // Within the same time: a thread that went on to wait when nobody waits for it any more would be one for each check of a
    // container that holds up what joins it, until there are none for the others.
    blocking(move || {
        exec::start_within(&dir, &exec, START).map_err(|error| failure("it could not be run", &error))
    })
    .await
}

async fn ended(Session { io, process }: Session, answered: &mut Answered) -> Result<Exit, Failure> {
    let lost = |error: io::Error| failure("it was lost sight of", &error);
    let stream = process.into_stream();
    stream.set_nonblocking(true).map_err(lost)?;
    let stream = UnixStream::from_std(stream).map_err(lost)?;
    let (stdout, stderr) = match io {
        Io::Pipes { stdin: _, stdout, stderr } => {
            (Receiver::from_owned_fd(stdout).map_err(lost)?, Receiver::from_owned_fd(stderr).map_err(lost)?)
        }
        Io::Terminal(_) => return Err(Failure("it was given a terminal".to_owned())),
    };
    {
        let mut reading = std::pin::pin!(read_both(stdout, stderr, answered));
        tokio::select! {
            () = &mut reading => stream.readable().await.map_err(lost)?,
            ended = stream.readable() => {
                ended.map_err(lost)?;
                // Whether it is all or not, what was read is what there is.
                let _ = timeout(DRAIN, reading).await;
            }
        }
    }
    let stream = stream.into_std().map_err(lost)?;
    stream.set_nonblocking(false).map_err(lost)?;
    blocking(move || exec::exit_from(stream).map_err(|error| failure("how it ended is not known", &error)))
        .await
}

/// Reads both to their end, and keeps the beginning of what comes, in the order in which it comes. The rest is read too: a
/// command that is not listened to would wait.
async fn read_both(
    mut stdout: impl AsyncRead + Unpin,
    mut stderr: impl AsyncRead + Unpin,
    answered: &mut Answered,
) {
    let (mut from_stdout, mut from_stderr) = ([0; 4096], [0; 4096]);
    let (mut out, mut err) = (true, true);
    while out || err {
        tokio::select! {
            read = stdout.read(&mut from_stdout), if out => match read {
                Ok(count) if count > 0 => answered.push(&from_stdout[..count]),
                Ok(_) | Err(_) => out = false,
            },
            read = stderr.read(&mut from_stderr), if err => match read {
                Ok(count) if count > 0 => answered.push(&from_stderr[..count]),
                Ok(_) | Err(_) => err = false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;
    use crate::real::probe::KEPT;

    #[tokio::test(start_paused = true)]
    async fn a_check_that_is_slow_to_start_has_not_failed_yet() {
        let slow = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<u64, Failure>(seconds)
        };
        assert_eq!(within_start(slow(29)).await, Ok(29));
        assert_eq!(within_start(slow(31)).await, Err("it was not started within 30s".to_owned()));
        let refused = async { Err::<u64, Failure>(Failure("the container is paused".to_owned())) };
        assert_eq!(within_start(refused).await, Err("the container is paused".to_owned()));
    }

    #[tokio::test]
    async fn a_flood_of_output_is_read_and_its_beginning_kept() {
        let ((mut out, stdout), (mut err, stderr)) = (duplex(64), duplex(64));
        let mut answered = Answered::default();
        let write = async {
            err.write_all(b"first").await.unwrap();
            drop(err);
            out.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
            drop(out);
        };
        let ((), ()) = tokio::join!(write, read_both(stdout, stderr, &mut answered));
        let text = answered.text();
        assert_eq!((text.len(), text.contains("first")), (KEPT, true));
    }
}
