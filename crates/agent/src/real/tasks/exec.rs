//! Another process in a container, with its input and output.

use std::path::PathBuf;
use std::time::Duration;

use model::Exit;
use runtime::exec::{self, Exec, ExecError, Io, Session, WindowSize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{self, Begun, piece};

use crate::real::talk::{Ear, Gone, Mouth, Refusal};
use crate::real::tasks::Cut;
use crate::real::tasks::terminal::{Sizes, Terminal};
use crate::real::{blocking, failure};

/// What is read at once. A stream's piece is not larger.
const READ: usize = 16 << 10;

/// How long output may go on after the process has ended: a child of its that holds the pipe open is not waited for.
const LINGER: Duration = Duration::from_millis(500);

pub(super) async fn answer(
    dir: PathBuf,
    asked: stream::Exec,
    ear: &mut Ear<'_>,
    mouth: &Mouth,
) -> Result<(), Cut> {
    let Session { io, process } = start(dir, asked).await?;
    let ended = watch(process.into_stream())?;
    mouth.say(piece::Kind::Begun(Begun::default())).await?;
    let exit = match io {
        Io::Pipes { stdin, stdout, stderr } => {
            let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose().map_err(unusable)?;
            let stdout = pipe::Receiver::from_owned_fd(stdout).map_err(unusable)?;
            let stderr = pipe::Receiver::from_owned_fd(stderr).map_err(unusable)?;
            let output = async {
                let (out, err) = tokio::join!(
                    copy(stdout, mouth, piece::Kind::Stdout),
                    copy(stderr, mouth, piece::Kind::Stderr)
                );
                out.and(err)
            };
            converse(ended, output, feed(stdin, ear)).await?
        }
        Io::Terminal(master) => {
            let Terminal { output, input, sizes } = Terminal::new(master).map_err(unusable)?;
            converse(ended, copy(output, mouth, piece::Kind::Stdout), drive(input, &sizes, ear)).await?
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
fn watch(stream: std::os::unix::net::UnixStream) -> Result<UnixStream, Refusal> {
    let watched = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
    watched.map_err(|error| failure("the command cannot be watched", &error).into())
}

/// Runs all three until the process has ended and its output is read. A client that has gone takes the process with it:
/// `ended` is dropped.
async fn converse(
    ended: UnixStream,
    output: impl Future<Output = Result<(), Gone>>,
    input: impl Future<Output = Gone>,
) -> Result<Exit, Cut> {
    let (mut output, mut input) = (std::pin::pin!(output), std::pin::pin!(input));
    let mut all_read = false;
    loop {
        tokio::select! {
            biased;
            read = &mut output, if !all_read => {
                read?;
                all_read = true;
            }
            gone = &mut input => return Err(gone.into()),
            readable = ended.readable() => {
                readable.map_err(|error| Refusal::from(failure("the command cannot be watched", &error)))?;
                break;
            }
        }
    }
    if !all_read && let Ok(read) = tokio::time::timeout(LINGER, output).await {
        read?;
    }
    let exit = blocking(move || {
        let told = ended.into_std().and_then(|stream| stream.set_nonblocking(false).map(|()| stream));
        let stream = told.map_err(|error| failure("the command cannot be watched", &error))?;
        exec::exit_from(stream).map_err(|error| failure("how the command ended is not known", &error))
    });
    Ok(exit.await?)
}

/// Copies what a process writes.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mouth: &Mouth,
    say: impl Fn(Vec<u8>) -> piece::Kind,
) -> Result<(), Gone> {
    let mut bytes = vec![0; READ];
    loop {
        match from.read(&mut bytes).await {
            // A terminal whose other side is closed answers with an error.
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => mouth.say(say(bytes[..count].to_vec())).await?,
        }
    }
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
