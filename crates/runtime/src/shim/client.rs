//! The shim's socket: who may connect, and one connection's requests.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};

use crate::protocol::{self, LONGEST, Op, Reply, Request};
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
        (peer.uid() == 0).then_some(Client { stream, buffer: Vec::new(), waits: false })
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
    /// It asked to be told of the container's end.
    waits: bool,
}

impl Client {
    /// Reads what has come and answers each complete request with what `act` says; `None` is "later". False when the
    /// connection is over: closed, or with something on it that is no request.
    pub(super) fn serve(&mut self, mut act: impl FnMut(Op) -> Option<Reply>) -> bool {
        let mut bytes = [0; 512];
        match self.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let request: Vec<u8> = self.buffer.drain(..=end).collect();
            let reply = match parse(&request) {
                Ok(op) => {
                    self.waits |= op == Op::Wait;
                    act(op)
                }
                Err(why) => Some(Reply::Refused { why }),
            };
            if reply.is_some_and(|reply| !self.answer(&reply)) {
                return false;
            }
        }
        self.buffer.len() <= LONGEST
    }

    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// False if it did not get through. Replies are short; who does not read them for so long that the socket is full is
    /// not waited for.
    pub(super) fn answer(&mut self, reply: &Reply) -> bool {
        self.stream.write_all(&protocol::line(reply)).is_ok()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn parse(request: &[u8]) -> Result<Op, String> {
    /// Read first, so that a later version is refused as one whatever else it says.
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let unreadable = |error: serde_json::Error| format!("not a request: {error}");
    let version: Version = serde_json::from_slice(request).map_err(unreadable)?;
    if version.v != protocol::VERSION {
        return Err(format!("version {} is not spoken here; version {} is", version.v, protocol::VERSION));
    }
    serde_json::from_slice::<Request>(request).map(|request| request.op).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> (Client, UnixStream) {
        let (stream, peer) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Client { stream, buffer: Vec::new(), waits: false }, peer)
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
        assert!(client.serve(|_| Some(Reply::Done)));
        assert_eq!(replies(&peer), "");
        peer.write_all(b"tus\"}\n{\"v\":1,\"op\":\"wait\"}\n{\"v\":1,\"op\":\"signal\",\"signal\":1}\n")
            .unwrap();
        let mut seen = Vec::new();
        assert!(client.serve(|op| {
            seen.push(op);
            (op != Op::Wait).then_some(Reply::Done)
        }));
        assert_eq!(seen, [Op::Status, Op::Wait, Op::Signal { signal: 1 }]);
        assert_eq!(replies(&peer), "{\"reply\":\"done\"}\n{\"reply\":\"done\"}\n");
        assert!(client.waits());
        drop(peer);
        assert!(!client.serve(|_| None));
    }

    #[test]
    fn what_is_no_request_is_refused_and_what_never_ends_is_cut_off() {
        let (mut client, mut peer) = connected();
        peer.write_all(b"{\"v\":2,\"op\":\"freeze\"}\n{}\n").unwrap();
        assert!(client.serve(|_| panic!("nothing of this may be acted on")));
        let told = replies(&peer);
        assert!(told.contains("version 2 is not spoken here; version 1 is"), "{told}");
        assert_eq!(told.matches("refused").count(), 2, "{told}");
        let mut open = true;
        for _ in 0..20 {
            peer.write_all(&[b'x'; 500]).unwrap();
            open = open && client.serve(|_| None);
        }
        assert!(!open);
    }
}
