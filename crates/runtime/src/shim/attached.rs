//! Who is attached to the container: a connection on which frames go both ways ([`crate::attach`]).
//!
//! The container waits for none of them but the one for whom it was held, and none has more of the shim's memory than
//! [`MOST_BEHIND`] and two frames; that one has up to [`MOST_FOR_PATRON`] when the container has ended.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::stdio::Input;
use crate::attach::{Frame, Frames};

/// People look at a container with one client or two.
pub(super) const MOST_ATTACHED: usize = 16;

/// How far a client may be behind before it is dropped, on top of what the kernel keeps for its socket: enough for a page of
/// output at once, as from `cat`.
const MOST_BEHIND: usize = 256 << 10;

/// The same for the client for whom the container was held. While it is behind, the container waits; this is for what is left in
/// the container's pipes at its end, of which each has 1 MiB at most (`pipe-max-size`).
const MOST_FOR_PATRON: usize = 4 << 20;

/// What is read from a client at once.
const READ: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Attached {
    stream: UnixStream,
    frames: Frames,
    /// Output that the socket has no room for yet.
    behind: Vec<u8>,
    /// Input that the container has no room for yet.
    pending: Vec<u8>,
    /// It reads no more.
    deaf: bool,
    gone: bool,
    patron: bool,
}

impl Attached {
    /// `begun` is what has been read of its frames already. `stream` does not wait.
    pub(super) fn new(stream: UnixStream, begun: &[u8]) -> Self {
        let mut frames = Frames::default();
        frames.push(begun);
        let (behind, pending) = (Vec::new(), Vec::new());
        Self { stream, frames, behind, pending, deaf: false, gone: false, patron: false }
    }

    /// The container was held for this client, which has nobody else to get its output from: the container waits for it, and its
    /// input ends with it.
    pub(super) fn become_patron(&mut self) {
        self.patron = true;
    }

    pub(super) fn is_patron(&self) -> bool {
        self.patron
    }

    /// Whether the container is to wait with its output until this client has read what there is.
    pub(super) fn holds_up(&self) -> bool {
        self.patron && !self.behind.is_empty() && !self.gone
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether it waits for the container to read.
    pub(super) fn has_input(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What to wait for. `None` while its input waits for room: it is not read then, and that it hung up would wake for nothing.
    pub(super) fn interest(&self) -> Option<PollFlags> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.pending.is_empty());
        flags.set(PollFlags::POLLOUT, !self.behind.is_empty());
        (!flags.is_empty()).then_some(flags)
    }

    /// Whether nobody is at the other end any more: to be asked for one that is not listened to.
    pub(super) fn has_hung_up(&self) -> bool {
        // Without a flag it is that alone, or an error.
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// Sends a frame, now or when there is room.
    pub(super) fn send(&mut self, frame: &[u8]) {
        if self.deaf {
            return;
        }
        let sent = if self.behind.is_empty() { self.write(frame) } else { 0 };
        let rest = frame.get(sent..).unwrap_or_default();
        if self.deaf || rest.is_empty() {
            return;
        }
        let most = if self.patron { MOST_FOR_PATRON } else { MOST_BEHIND };
        if self.behind.len() + rest.len() > most {
            self.gone = true;
        } else {
            self.behind.extend_from_slice(rest);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match (&self.stream).write(bytes) {
            Ok(count) => count,
            Err(error) if is_later(&error) => 0,
            Err(_) => {
                self.deaf = true;
                self.behind = Vec::new();
                0
            }
        }
    }

    /// It can be read or written.
    pub(super) fn on_ready(&mut self, input: &mut Input) {
        self.catch_up();
        if self.pending.is_empty() {
            let mut bytes = [0; READ];
            match (&self.stream).read(&mut bytes) {
                Ok(0) => self.gone = true,
                Ok(count) => self.frames.push(&bytes[..count]),
                Err(error) if is_later(&error) => {}
                Err(_) => self.gone = true,
            }
        }
        self.pump(input);
    }

    fn catch_up(&mut self) {
        if self.behind.is_empty() {
            return;
        }
        let behind = std::mem::take(&mut self.behind);
        let sent = self.write(&behind);
        // What is left is copied, so that the memory of a burst is not kept.
        if !self.deaf {
            self.behind = behind[sent..].to_vec();
        }
    }

    /// Hands what has been read to the container, as far as it has room.
    pub(super) fn pump(&mut self, input: &mut Input) {
        loop {
            if !self.pending.is_empty() {
                let taken = input.write(&self.pending);
                self.pending.drain(..taken);
                if !self.pending.is_empty() {
                    return;
                }
            }
            match self.frames.pop() {
                Ok(Some(Frame::Stdin(bytes))) => self.pending = bytes,
                Ok(Some(Frame::CloseStdin)) => input.close(),
                Ok(Some(Frame::Resize(size))) => input.resize(size),
                // The shim's to say, and nobody's to it.
                Ok(Some(Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_))) => {}
                Ok(None) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Sends all that it is behind, and `last`, unless it has not read that by `deadline`.
    pub(super) fn end(mut self, last: &[u8], deadline: Instant) {
        self.send(last);
        while !self.behind.is_empty() && !self.gone {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT)];
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            // Whatever it comes to, the next write tells.
            let _woken = poll(&mut fds, left);
            self.catch_up();
        }
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::output;
    use crate::logs::Stream;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::unistd::pipe2;
    use std::fs::File;

    fn attached() -> (Attached, UnixStream) {
        let (stream, client) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Attached::new(stream, &[]), client)
    }

    fn input() -> (Input, File) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        (Input::Pipe(File::from(write)), File::from(read))
    }

    #[test]
    fn a_client_that_does_not_read_is_dropped_and_holds_little() {
        let (mut attached, _client) = attached();
        let frame = output(Stream::Stdout, &[b'x'; 16 << 10]);
        let mut sent = 0;
        while !attached.is_gone() {
            attached.send(&frame);
            sent += frame.len();
            assert!(sent < 8 << 20, "it takes all that there is");
            assert!(attached.behind.len() <= MOST_BEHIND);
        }
        assert!(sent > MOST_BEHIND);
    }

    #[test]
    fn a_client_whom_the_container_was_held_for_is_waited_for_and_loses_nothing() {
        let (mut attached, mut client) = attached();
        attached.become_patron();
        let frame = output(Stream::Stdout, &[b'x'; 16 << 10]);
        let mut sent = 0;
        while !attached.holds_up() {
            attached.send(&frame);
            sent += frame.len();
        }
        // When the container has ended, what is in its pipes is read all the same.
        while attached.behind.len() <= MOST_BEHIND {
            attached.send(&frame);
            sent += frame.len();
        }
        assert!(!attached.is_gone());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all.len()
        });
        let last = Frame::CloseStdin.encode();
        attached.end(&last, Instant::now() + Duration::from_secs(30));
        assert_eq!(reader.join().unwrap(), sent + last.len());
    }

    #[test]
    fn a_client_that_was_behind_gets_everything_in_order() {
        let (mut attached, mut client) = attached();
        let mut expected = Vec::new();
        let mut number = 0_u32;
        while attached.behind.len() < MOST_BEHIND / 2 {
            let frame = output(Stream::Stdout, number.to_string().repeat(1000).as_bytes());
            attached.send(&frame);
            expected.extend(frame);
            number += 1;
        }
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all
        });
        let last = Frame::CloseStdin.encode();
        attached.end(&last, Instant::now() + Duration::from_secs(30));
        expected.extend(last);
        assert!(reader.join().unwrap() == expected);
    }

    #[test]
    fn input_arrives_in_order_and_a_container_that_does_not_read_holds_up_its_client_alone() {
        let (mut attached, mut client) = attached();
        let (mut input, mut container) = input();
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let frames = [Frame::Stdin(text.clone()).encode(), Frame::CloseStdin.encode()].concat();
        let writer = std::thread::spawn(move || {
            client.write_all(&frames).unwrap();
            client
        });
        while !attached.has_input() {
            attached.on_ready(&mut input);
        }
        assert_eq!(attached.interest(), None, "no more is read from it");
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            container.read_to_end(&mut all).unwrap();
            all
        });
        while !matches!(input, Input::Closed) {
            attached.on_ready(&mut input);
        }
        assert!(reader.join().unwrap() == text);
        drop(writer.join().unwrap());
        attached.on_ready(&mut input);
        assert!(attached.is_gone());
    }

    #[test]
    fn that_it_has_hung_up_is_known_also_while_its_input_has_no_room() {
        let (mut attached, mut client) = attached();
        let (mut input, _container) = input();
        client.write_all(&Frame::Stdin(vec![b'x'; 100_000]).encode()).unwrap();
        while !attached.has_input() {
            attached.on_ready(&mut input);
        }
        assert!(attached.interest().is_none() && !attached.has_hung_up());
        drop(client);
        assert!(attached.interest().is_none() && attached.has_hung_up());
    }

    #[test]
    fn what_is_no_frame_ends_it() {
        let (mut attached, mut client) = attached();
        client.write_all(b"{\"v\":1,\"op\":\"status\"}\n").unwrap();
        attached.on_ready(&mut Input::Closed);
        assert!(attached.is_gone());
    }
}
