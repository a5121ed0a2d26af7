//! Lines and descriptors over a socket: what the agent and a shim hand each other besides words.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recv, recvmsg, send, sendmsg,
};

/// As many descriptors go with a message at most: stdin, stdout and stderr.
pub(crate) const MOST: usize = 3;

/// A line longer than this is none of ours.
const LONGEST_LINE: usize = 16 << 10;

/// Sends all of `bytes`, and `fds` (at most [`MOST`]) with the first of them. On a socket that does not wait it fails when
/// the peer has left no room.
pub(crate) fn send_all(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let whole = [IoSlice::new(bytes)];
    let mut sent = retry_on_intr(|| sendmsg(&socket, &whole, &mut ancillary, SendFlags::NOSIGNAL))?;
    while sent < bytes.len() {
        sent += retry_on_intr(|| send(&socket, &bytes[sent..], SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

/// Receives what one read gives, and the descriptors that came with it. 0 is the end.
pub(crate) fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    Ok(received.bytes)
}

/// Reads one line, with its newline, and nothing of what comes after it: that may be for another reader. `None` is the end
/// of the stream.
pub(crate) fn read_line(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let (mut line, mut fds) = (Vec::new(), Vec::new());
    let mut bytes = [0; 512];
    loop {
        let (seen, _) = retry_on_intr(|| recv(&socket, &mut bytes[..], RecvFlags::PEEK))?;
        let newline = bytes[..seen].iter().position(|byte| *byte == b'\n');
        let wanted = newline.map_or(seen, |at| at + 1);
        if wanted == 0 {
            return Ok(None);
        }
        let count = retry_on_intr(|| receive(&socket, &mut bytes[..wanted], &mut fds))?;
        line.extend_from_slice(&bytes[..count]);
        if line.ends_with(b"\n") {
            return Ok(Some((line, fds)));
        }
        if line.len() > LONGEST_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Whether it failed because the other side has closed.
pub(crate) fn is_hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_line_is_read_with_what_came_with_it_and_no_further() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        send_all(&ours, b"first\n", &[write.as_fd()]).unwrap();
        drop(write);
        send_all(&ours, &[b"x".repeat(1000), b"\nrest".to_vec()].concat(), &[]).unwrap();

        let (line, mut fds) = read_line(&theirs).unwrap().unwrap();
        assert_eq!((line.as_slice(), fds.len()), (&b"first\n"[..], 1));
        std::fs::File::from(fds.remove(0)).write_all(b"through the pipe").unwrap();
        let mut through = String::new();
        std::fs::File::from(read).read_to_string(&mut through).unwrap();
        assert_eq!(through, "through the pipe");

        assert_eq!(read_line(&theirs).unwrap().unwrap().0.len(), 1001);
        drop(ours);
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "rest");
        assert!(read_line(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_line_that_never_ends_is_given_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_all(&ours, &vec![b'x'; LONGEST_LINE + 1000], &[]).unwrap();
        assert_eq!(read_line(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
