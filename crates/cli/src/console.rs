//! This process's stdin, stdout and stderr for a process in a container.

use std::convert::Infallible;
use std::future::pending;
use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use wire::proto::stream::piece;

use crate::failure::Failure;
use crate::output::Output;
use crate::talk::{Ear, Mouth, Talk};
use crate::terminal::{self, Held};

/// What is read at once.
const READ: usize = 16 << 10;

/// Docker's keys for leaving a container alone: Ctrl-P, then Ctrl-Q.
const DETACH: [u8; 2] = [16, 17];

/// What of this process's the one in the container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Console {
    /// It is sent what stdin has.
    pub(crate) stdin: bool,
    /// Its terminal follows ours: every key is sent, and the size.
    pub(crate) terminal: bool,
    /// Ctrl-P and Ctrl-Q end the conversation and are not sent.
    pub(crate) detach: bool,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process has.
    Exited(model::Exit),
    /// The node has nothing more to tell, and does not say why.
    Quiet,
    /// By the user's keys.
    Detached,
}

/// Passes on what either side says, until the process has ended.
pub(crate) async fn converse(output: Output, talk: Talk, console: Console) -> Result<Ended, Failure> {
    let Talk { mouth, mut ear } = talk;
    let holds = console.stdin && console.terminal;
    let _held = holds.then(Held::raw).transpose().map_err(Failure::Terminal)?;
    tokio::select! {
        ended = listen(output, &mut ear) => ended,
        never = follow_size(&mouth, console) => match never {},
        Detached = feed(&mouth, console) => Ok(Ended::Detached),
    }
}

async fn listen(output: Output, ear: &mut Ear) -> Result<Ended, Failure> {
    while let Some(kind) = ear.hear().await? {
        match kind {
            piece::Kind::Stdout(bytes) => output.on_thread(move |output| output.data(bytes)).await?,
            piece::Kind::Stderr(bytes) => {
                let note = move |output: Output| -> io::Result<()> {
                    output.note(bytes);
                    Ok(())
                };
                output.on_thread(note).await?;
            }
            piece::Kind::Exited(exit) => {
                let exit = model::Exit::try_from(exit).unwrap_or(model::Exit::Unknown);
                return Ok(Ended::Exited(exit));
            }
            piece::Kind::End(_) => return Ok(Ended::Quiet),
            _other => {}
        }
    }
    Err(ear.unfinished().into())
}

/// The user has pressed the keys for it.
struct Detached;

/// Sends what stdin has. Where that ends, or nobody takes it any more, the other side says how it goes on.
async fn feed(mouth: &Mouth, console: Console) -> Detached {
    if !console.stdin {
        return pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut keys = Keys::default();
    let mut bytes = vec![0; READ];
    loop {
        let read = match stdin.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(count) => &bytes[..count],
        };
        let (data, detached) = if console.detach { keys.pass(read) } else { (read.to_vec(), false) };
        if !data.is_empty() && mouth.say(piece::Kind::Data(data)).await.is_err() {
            return pending().await;
        }
        if detached {
            return Detached;
        }
    }
    let _hung_up = mouth.say(piece::Kind::End(true)).await;
    pending().await
}

/// Tells the terminal in the container whenever ours has another size.
async fn follow_size(mouth: &Mouth, console: Console) -> Infallible {
    if console.terminal
        && let Ok(mut changes) = signal(SignalKind::window_change())
    {
        // Once at first: nobody listened while the conversation was begun. The same size again changes nothing.
        loop {
            if let Some(size) = terminal::size()
                && mouth.say(piece::Kind::Resize(size)).await.is_err()
            {
                break;
            }
            if changes.recv().await.is_none() {
                break;
            }
        }
    }
    pending().await
}

/// Looks for the keys that detach. The first of them is held back until it is known what follows.
#[derive(Debug, Default)]
struct Keys {
    has_first: bool,
}

impl Keys {
    /// What of `bytes` is to be sent, and whether the user has detached.
    fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let [first, second] = DETACH;
        let mut sent = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if self.has_first {
                self.has_first = false;
                if byte == second {
                    return (sent, true);
                }
                sent.push(first);
            }
            if byte == first {
                self.has_first = true;
            } else {
                sent.push(byte);
            }
        }
        (sent, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_detach_and_nothing_else_is_lost() {
        for (pieces, sent, detached) in [
            (&[&b"ls\n"[..]][..], &b"ls\n"[..], false),
            (&[b"ls\x10\x11x"], b"ls", true),
            (&[b"a\x10", b"\x11"], b"a", true),
            (&[b"a\x10", b"b\x11"], b"a\x10b\x11", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11\x10"], b"\x11", false),
        ] {
            let mut keys = Keys::default();
            let mut passed = (Vec::new(), false);
            for piece in pieces {
                let (more, detached) = keys.pass(piece);
                passed.0.extend(more);
                passed.1 |= detached;
            }
            assert_eq!(passed, (sent.to_vec(), detached), "{pieces:?}");
        }
    }
}
