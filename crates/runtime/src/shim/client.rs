//! The shim's socket: who may connect, and one connection's requests.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use rustix::io::Errno;

use super::minder::Order;
use crate::passing;
use crate::protocol::{self, Answer, Op, Reply, Request};
use crate::record;
use crate::rootfs::short_path;

/// The agent uses one connection to wait and one at a time to ask; more than a few are a mistake of somebody's.
pub(super) const MOST_CLIENTS: usize = 16;

/// `shim.sock`, for root only by its mode and again by the peer's credentials. A path and not an abstract name, which
/// every container in the node's network namespace could reach (CVE-2020-15257).
#[derive(Debug)]
pub(super) struct Listener(UnixListener);

impl Listener {
    pub(super) fn bind(dir: &Path) -> io::Result<Self> {
        let (_dir, path) = short_path(dir, record::SOCKET)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // The socket has its mode from the first moment on, since it is made with it.
        let before = umask(Mode::S_IRWXG | Mode::S_IRWXO | Mode::S_IXUSR);
        let bound = UnixListener::bind(&path);
        umask(before);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The next connection; `None` if there is none, or one that may not ask.
    pub(super) fn accept(&self) -> Option<Client> {
        let (stream, _address) = self.0.accept().ok()?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
        stream.set_nonblocking(true).ok()?;
        (peer.uid() == 0).then_some(Client::new(stream))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// How much of the buffer has no newline in it.
    searched: usize,
    /// What came with a request that is not complete yet.
    fds: Vec<OwnedFd>,
    /// It asked to be told of the container's end.
    waits: bool,
    /// The container is to be paused as long as this is open.
    pauses: bool,
}

/// What has become of a connection.
#[derive(Debug)]
pub(super) enum Served {
    Open,
    /// Closed, or with something on it that is no request.
    Over,
    /// It wants a process. The connection belongs to whoever carries that out.
    Exec(Order),
    /// It wants the container's output and input, as frames.
    Attach,
}

impl Client {
    /// Requests are short and read in pieces of this; a longer one in larger pieces.
    const SHORT: usize = 512;
    const LONG: usize = 16 << 10;

    fn new(stream: UnixStream) -> Self {
        let (buffer, fds) = (Vec::new(), Vec::new());
        Self { stream, buffer, searched: 0, fds, waits: false, pauses: false }
    }

    /// Reads what has come and answers each complete request with what `act` says; `None` is "later".
    pub(super) fn serve(&mut self, mut act: impl FnMut(Op) -> Option<Reply>) -> Served {
        match self.receive() {
            Ok(0) => return Served::Over,
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Served::Open,
            Err(_) => return Served::Over,
        }
        while let Some(request) = self.line() {
            // They come with the first byte of a request, so they are this one's.
            let fds = std::mem::take(&mut self.fds);
            let reply = match parse(&request) {
                Ok(Asked::Op(op)) => {
                    self.waits |= op == Op::Wait;
                    self.pauses |= op == Op::PauseWhile;
                    act(op)
                }
                Ok(Asked::Exec) => return Served::Exec(Order { request, fds }),
                Ok(Asked::Attach) => return Served::Attach,
                Err(why) => Some(Reply::Refused { why }),
            };
            if reply.is_some_and(|reply| !self.answer(&reply)) {
                return Served::Over;
            }
        }
        let too_much = self.buffer.len() > protocol::longest(&self.buffer) || self.fds.len() > passing::MOST;
        if too_much { Served::Over } else { Served::Open }
    }

    fn receive(&mut self) -> Result<usize, Errno> {
        let size = if self.buffer.len() < Self::SHORT { Self::SHORT } else { Self::LONG };
        let mut bytes = vec![0; size];
        let count = passing::receive(&self.stream, &mut bytes, &mut self.fds)?;
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// The next complete request.
    fn line(&mut self) -> Option<Vec<u8>> {
        let newline = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(at) = newline else {
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.searched + at + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    pub(super) fn pauses(&self) -> bool {
        self.pauses
    }

    /// False if it did not get through. Replies are short; who does not read them for so long that the socket is full is
    /// not waited for.
    pub(super) fn answer(&mut self, reply: &Reply) -> bool {
        passing::send_all(&self.stream, &protocol::line(reply), &[]).is_ok()
    }

    /// The connection, and what came on it after the last request.
    pub(super) fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.stream, self.buffer)
    }
}

/// Answers a request that has taken the connection. False as in [`Client::answer`].
pub(super) fn tell(stream: &UnixStream, answer: &Answer, fds: &[BorrowedFd<'_>]) -> bool {
    passing::send_all(stream, &protocol::line(answer), fds).is_ok()
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Op(Op),
    /// Not read any further here: it may be long, and is for a process that ends with it.
    Exec,
    Attach,
}

fn parse(request: &[u8]) -> Result<Asked, String> {
    /// Read first, so that a later version is refused as one whatever else it says.
    #[derive(serde::Deserialize)]
    struct Head {
        v: u32,
        op: Option<String>,
    }
    let unreadable = |error: serde_json::Error| format!("{}: {error}", protocol::UNKNOWN);
    let head: Head = serde_json::from_slice(request).map_err(unreadable)?;
    if head.v != protocol::VERSION {
        return Err(format!("version {} is not spoken here; version {} is", head.v, protocol::VERSION));
    }
    match head.op.as_deref() {
        Some(protocol::EXEC) => Ok(Asked::Exec),
        Some(protocol::ATTACH) => Ok(Asked::Attach),
        Some(_) | None => serde_json::from_slice::<Request>(request)
            .map(|request| Asked::Op(request.op))
            .map_err(unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn connected() -> (Client, UnixStream) {
        let (stream, peer) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Client::new(stream), peer)
    }

    fn replies(peer: &UnixStream) -> String {
        peer.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        let count = (&*peer).read(&mut bytes).unwrap_or(0);
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn requests_are_answered_in_order_however_they_are_cut() {
        let (mut client, mut peer) = connected();
        peer.write_all(b"{\"v\":1,\"op\":\"sta").unwrap();
        assert!(matches!(client.serve(|_| Some(Reply::Done)), Served::Open));
        assert_eq!(replies(&peer), "");
        peer.write_all(b"tus\"}\n{\"v\":1,\"op\":\"wait\"}\n{\"v\":1,\"op\":\"signal\",\"signal\":1}\n")
            .unwrap();
        let mut seen = Vec::new();
        let served = client.serve(|op| {
            seen.push(op);
            (op != Op::Wait).then_some(Reply::Done)
        });
        assert!(matches!(served, Served::Open));
        assert_eq!(seen, [Op::Status, Op::Wait, Op::Signal { signal: 1 }]);
        assert_eq!(replies(&peer), "{\"reply\":\"done\"}\n{\"reply\":\"done\"}\n");
        assert!(client.waits());
        drop(peer);
        assert!(matches!(client.serve(|_| None), Served::Over));
    }

    #[test]
    fn what_is_no_request_is_refused_and_what_never_ends_is_cut_off() {
        let (mut client, mut peer) = connected();
        peer.write_all(b"{\"v\":2,\"op\":\"freeze\"}\n{}\n").unwrap();
        let served = client.serve(|_| panic!("nothing of this may be acted on"));
        assert!(matches!(served, Served::Open));
        let told = replies(&peer);
        assert!(told.contains("version 2 is not spoken here; version 1 is"), "{told}");
        assert!(told.contains("\"not a request: missing field"), "{told}");
        assert_eq!(told.matches("refused").count(), 2, "{told}");
        let mut open = true;
        for _ in 0..20 {
            peer.write_all(&[b'x'; 500]).unwrap();
            open = open && matches!(client.serve(|_| None), Served::Open);
        }
        assert!(!open);
    }

    #[test]
    fn an_exec_may_be_long_and_takes_the_connection_with_what_came_with_it() {
        let (mut client, peer) = connected();
        let (_read, write) = nix::unistd::pipe().unwrap();
        let long = "x".repeat(100_000);
        let request = format!("{{\"v\":1,\"op\":\"exec\",\"args\":[\"{long}\"]}}\n");
        passing::send_all(&peer, request.as_bytes(), &[write.as_fd(), write.as_fd()]).unwrap();
        let order = loop {
            match client.serve(|_| None) {
                Served::Open => {}
                Served::Exec(order) => break order,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((order.request.len(), order.fds.len()), (request.len(), 2));
        assert_eq!(client.into_parts().1, b"");
    }

    #[test]
    fn what_follows_an_attach_is_for_whom_it_attaches() {
        let (mut client, mut peer) = connected();
        peer.write_all(b"{\"op\":\"attach\",\"v\":1}\n\x03\x00\x00").unwrap();
        assert!(matches!(client.serve(|_| None), Served::Attach));
        assert_eq!(client.into_parts().1, b"\x03\x00\x00");
    }
}
