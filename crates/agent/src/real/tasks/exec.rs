//! Another process in a container, with its input and output.

use std::path::PathBuf;
use std::time::Duration;

use model::Exit;
use runtime::exec::{self, Exec, ExecError, Io, Session, WindowSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{self, Begun, piece};

use crate::real::talk::{Ear, Gone, Mouth, Refusal};
use crate::real::tasks::Cut;
use crate::real::tasks::terminal::{Sizes, Terminal};
use crate::real::{blocking, failure};

/// What is read at once. A stream's piece is not larger.
const READ: usize = 16 << 10;

/// How long output is waited for after the process has ended: a child of its that holds the pipe open is not waited for.
const LINGER: Duration = Duration::from_millis(500);

/// How much is read after the process has ended. What it wrote is in its pipe by then, which has no room for more, unless
/// root has enlarged it; so what follows is not the process's.
const LEFT: usize = 1 << 20;

pub(super) async fn answer(
    dir: PathBuf,
    asked: stream::Exec,
    ear: &mut Ear<'_>,
    mouth: &Mouth,
) -> Result<(), Cut> {
    let Session { io, process } = start(dir, asked).await?;
    let process = watched(process.into_stream())?;
    mouth.say(piece::Kind::Begun(Begun::default())).await?;
    let (over, ended) = watch::channel(false);
    let exit = match io {
        Io::Pipes { stdin, stdout, stderr } => {
            let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose().map_err(unusable)?;
            let stdout = pipe::Receiver::from_owned_fd(stdout).map_err(unusable)?;
            let stderr = pipe::Receiver::from_owned_fd(stderr).map_err(unusable)?;
            let output = async {
                let (out, err) = tokio::join!(
                    copy(stdout, ended.clone(), mouth, piece::Kind::Stdout),
                    copy(stderr, ended, mouth, piece::Kind::Stderr)
                );
                out.and(err)
            };
            converse(process, over, mouth, output, feed(stdin, ear)).await?
        }
        Io::Terminal(master) => {
            let Terminal { output, input, sizes } = Terminal::new(master).map_err(unusable)?;
            let output = copy(output, ended, mouth, piece::Kind::Stdout);
            converse(process, over, mouth, output, drive(input, &sizes, ear)).await?
        }
    };
    Ok(mouth.say(piece::Kind::Exited((&exit).into())).await?)
}

async fn start(dir: PathBuf, asked: stream::Exec) -> Result<Session, Refusal> {
    let stream::Exec { args, env, working_dir, user, terminal, stdin, privileged } = asked;
    let terminal = terminal.map(size);
    let exec = Exec { args, env, cwd: working_dir, user, terminal, stdin, privileged };
    let started = tokio::task::spawn_blocking(move || exec::start(&dir, &exec)).await;
    let started = started.map_err(|error| Refusal::from(failure("the command was not started", &error)))?;
    started.map_err(|error| Refusal::new(kind(&error), failure("cannot run the command", &error).0))
}

/// The client's exit code follows from it, as Docker has it.
fn kind(error: &ExecError) -> Kind {
    match error.fault() {
        exec::Fault::NoProgram => Kind::NoProgram,
        exec::Fault::NotExecutable => Kind::NotExecutable,
        exec::Fault::NotRunning => Kind::Conflict,
        exec::Fault::Other => Kind::Failed,
    }
}

pub(super) fn size(size: stream::Size) -> WindowSize {
    let short = |number| u16::try_from(number).unwrap_or(u16::MAX);
    WindowSize { rows: short(size.rows), columns: short(size.columns) }
}

fn unusable(error: std::io::Error) -> Refusal {
    failure("the command's output cannot be read", &error).into()
}

/// The process's end. Dropped before it, it kills the process.
fn watched(stream: std::os::unix::net::UnixStream) -> Result<UnixStream, Refusal> {
    let watched = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    watched.map_err(|error| failure("the command cannot be watched", &error).into())
}

/// Runs all of it until the process has ended, which `over` is told, and its output is read. A client that has gone takes the
/// process with it: `process` is dropped.
async fn converse(
    process: UnixStream,
    over: watch::Sender<bool>,
    mouth: &Mouth,
    output: impl Future<Output = Result<(), Gone>>,
    input: impl Future<Output = Gone>,
) -> Result<Exit, Cut> {
    let (mut output, mut input) = (std::pin::pin!(output), std::pin::pin!(input));
    let (mut all_read, mut ended) = (false, false);
    while !(all_read && ended) {
        tokio::select! {
            biased;
            read = &mut output, if !all_read => {
                read?;
                all_read = true;
            }
            gone = &mut input => return Err(gone.into()),
            () = mouth.gone() => return Err(Gone.into()),
            readable = process.readable(), if !ended => {
                readable.map_err(|error| Refusal::from(failure("the command cannot be watched", &error)))?;
                ended = true;
                over.send_replace(true);
            }
        }
    }
    let exit = blocking(move || {
        let told = process.into_std().and_then(|stream| stream.set_nonblocking(false).map(|()| stream));
        let stream = told.map_err(|error| failure("the command cannot be watched", &error))?;
        exec::exit_from(stream).map_err(|error| failure("how the command ended is not known", &error))
    });
    Ok(exit.await?)
}

/// Copies what a process writes: all of it, however slowly the client takes it.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut ended: watch::Receiver<bool>,
    mouth: &Mouth,
    say: impl Fn(Vec<u8>) -> piece::Kind,
) -> Result<(), Gone> {
    let mut bytes = vec![0; READ];
    let mut left = Left { time: LINGER, bytes: LEFT };
    while let Some(count) = left.read(&mut from, &mut bytes, &mut ended).await {
        mouth.say(say(bytes[..count].to_vec())).await?;
    }
    Ok(())
}

/// What may still be read of a process when it has ended.
struct Left {
    /// Spent on waiting for it alone. The client's time is its own.
    time: Duration,
    bytes: usize,
}

impl Left {
    /// As much as there is, at least one byte; `None` at the end, also at the end of patience.
    async fn read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        bytes: &mut [u8],
        ended: &mut watch::Receiver<bool>,
    ) -> Option<usize> {
        let over = *ended.borrow();
        if !over {
            tokio::select! {
                biased;
                read = from.read(bytes) => return some(read),
                _over = ended.changed() => {}
            }
        }
        let room = bytes.len().min(self.bytes);
        let began = Instant::now();
        let read = timeout(self.time, from.read(&mut bytes[..room])).await.ok()?;
        self.time = self.time.saturating_sub(began.elapsed());
        let count = some(read)?;
        self.bytes -= count;
        Some(count)
    }
}

/// A terminal whose other side is closed answers with an error.
fn some(read: std::io::Result<usize>) -> Option<usize> {
    read.ok().filter(|count| *count > 0)
}

/// Hands the client's input to the process, until the client hangs up. A process that reads no more is not a reason to end.
async fn feed(mut stdin: Option<pipe::Sender>, ear: &mut Ear<'_>) -> Gone {
    while let Some(kind) = ear.hear().await {
        match kind {
            piece::Kind::Data(data) => give(&mut stdin, &data).await,
            piece::Kind::End(_) => stdin = None,
            _other => {}
        }
    }
    Gone
}

/// The same through a terminal, whose size follows the client's.
async fn drive(input: pipe::Sender, sizes: &Sizes, ear: &mut Ear<'_>) -> Gone {
    let mut stdin = Some(input);
    while let Some(kind) = ear.hear().await {
        match kind {
            piece::Kind::Data(data) => give(&mut stdin, &data).await,
            piece::Kind::Resize(to) => sizes.set(size(to)),
            // A terminal has no end of input but the character for it.
            piece::Kind::End(_) => give(&mut stdin, &[END_OF_TRANSMISSION]).await,
            _other => {}
        }
    }
    Gone
}

/// Ctrl-D.
const END_OF_TRANSMISSION: u8 = 4;

async fn give(stdin: &mut Option<impl AsyncWrite + Unpin>, data: &[u8]) {
    if let Some(writer) = stdin
        && writer.write_all(data).await.is_err()
    {
        *stdin = None;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::duplex;
    use tokio::sync::mpsc;
    use tokio::time::sleep;
    use wire::proto::agent::{Chunk, chunk};
    use wire::proto::stream::Piece;

    use super::*;

    /// The next piece of output; `None` when there are no more.
    async fn heard(hears: &mut mpsc::Receiver<Chunk>) -> Option<Vec<u8>> {
        match hears.recv().await?.kind {
            Some(chunk::Kind::Piece(Piece { kind: Some(piece::Kind::Stdout(text)) })) => Some(text),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_all_that_was_printed_by_a_process_that_has_ended() {
        let (mut process, output) = duplex(LEFT);
        let printed: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        process.write_all(&printed).await.unwrap();
        let (over, ended) = watch::channel(false);
        let (says, mut hears) = mpsc::channel(1);
        let copying = async move { copy(output, ended, &Mouth(says), piece::Kind::Stdout).await };
        let listening = async {
            over.send_replace(true);
            let mut all = Vec::new();
            while let Some(text) = heard(&mut hears).await {
                all.extend(text);
                sleep(LINGER * 2).await;
            }
            all
        };
        // It is not the end of the output that ends this: a child of the process's has it open.
        let (copied, all) = tokio::join!(copying, listening);
        assert!(copied.is_ok() && all == printed);
        drop(process);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_goes_on_printing_is_not_waited_for() {
        let (mut child, output) = duplex(READ);
        let (_over, ended) = watch::channel(true);
        let (says, mut hears) = mpsc::channel(1);
        let copying = async move { copy(output, ended, &Mouth(says), piece::Kind::Stdout).await };
        let printing = async move { while child.write_all(&[b'x'; 1000]).await.is_ok() {} };
        let listening = async {
            let mut count = 0;
            while let Some(text) = heard(&mut hears).await {
                count += text.len();
            }
            count
        };
        let (copied, (), count) = tokio::join!(copying, printing, listening);
        assert!(copied.is_ok());
        assert_eq!(count, LEFT);
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_is_noticed_while_its_input_has_no_room() {
        let (process, _minder) = UnixStream::pair().unwrap();
        let (over, _ended) = watch::channel(false);
        let (says, hears) = mpsc::channel(1);
        drop(hears);
        let cut = converse(process, over, &Mouth(says), pending(), pending()).await.unwrap_err();
        assert!(matches!(cut, Cut::Gone), "{cut:?}");
    }
}
