//! The container's own process: its output from now on, and its input.

use std::path::PathBuf;

use runtime::attach::{self, Frame, Frames};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use wire::proto::stream::{self, Begun, piece};

use crate::real::talk::{Ear, Gone, Mouth, Refusal};
use crate::real::tasks::Cut;
use crate::real::tasks::exec::size;
use crate::real::{blocking, failure};

/// What is read at once.
const READ: usize = 16 << 10;

/// The largest piece of input that is passed on as one frame.
const FRAME: usize = 16 << 10;

pub(super) async fn answer(
    dir: PathBuf,
    asked: stream::Attach,
    ear: &mut Ear<'_>,
    mouth: &Mouth,
) -> Result<(), Cut> {
    let stream::Attach { stdin: sends, terminal } = asked;
    let (begun, attached) = blocking(move || {
        let attached = match terminal.map(size) {
            Some(size) => attach::attach_with_size(&dir, size),
            None => attach::attach(&dir),
        };
        let attached = attached.map_err(|error| failure("cannot attach to the container", &error))?;
        let (terminal, stdin) = (attached.is_terminal(), attached.takes_input());
        let stream = attached.into_stream();
        stream.set_nonblocking(true).map_err(|error| failure("cannot attach to the container", &error))?;
        Ok((Begun { terminal, stdin, ..Begun::default() }, stream))
    })
    .await?;
    let stream = UnixStream::from_std(attached)
        .map_err(|error| Refusal::from(failure("cannot attach to the container", &error)))?;
    let (from, to) = stream.into_split();
    mouth.say(piece::Kind::Begun(begun)).await?;
    tokio::select! {
        biased;
        told = tell(from, mouth) => told,
        gone = feed(to, sends, ear) => Err(gone.into()),
        () = mouth.gone() => Err(Gone.into()),
    }
}

/// What the container says, to its end.
async fn tell(mut from: OwnedReadHalf, mouth: &Mouth) -> Result<(), Cut> {
    let mut frames = Frames::default();
    let mut bytes = vec![0; READ];
    loop {
        let count = match from.read(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(mouth.say(piece::Kind::End(true)).await?),
            Ok(count) => count,
        };
        let heard: Vec<Frame> = frames
            .feed(&bytes[..count])
            .map_err(|error| Refusal::from(failure("the container's shim is not understood", &error)))?;
        for frame in heard {
            match frame {
                Frame::Stdout(text) => mouth.say(piece::Kind::Stdout(text)).await?,
                Frame::Stderr(text) => mouth.say(piece::Kind::Stderr(text)).await?,
                Frame::Exit(exit) => return Ok(mouth.say(piece::Kind::Exited((&exit).into())).await?),
                // Ours to say.
                Frame::Stdin(_) | Frame::CloseStdin | Frame::Resize(_) => {}
            }
        }
    }
}

/// What the client says, until it hangs up.
async fn feed(mut to: OwnedWriteHalf, stdin: bool, ear: &mut Ear<'_>) -> Gone {
    while let Some(kind) = ear.hear().await {
        match kind {
            piece::Kind::Data(data) if stdin => {
                for piece in data.chunks(FRAME) {
                    put(&mut to, &Frame::Stdin(piece.to_vec())).await;
                }
            }
            piece::Kind::End(_) if stdin => put(&mut to, &Frame::CloseStdin).await,
            piece::Kind::Resize(to_size) => put(&mut to, &Frame::Resize(size(to_size))).await,
            _other => {}
        }
    }
    Gone
}

/// A container that has ended takes no input; that it has, its output tells.
async fn put(to: &mut OwnedWriteHalf, frame: &Frame) {
    let _ended = to.write_all(&frame.encode()).await;
}
