//! Sends what a container prints to a second place, and never waits for it.
//!
//! What that place does not take at once is kept up to [`MOST_KEPT`] and then dropped, counted, and told in the log. A connection
//! that is lost is made again as long as there is something to send.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use super::Stream;
use crate::launch::{Journal, Options, Output, Server, Syslog};
use crate::reserved;

/// A burst of some hundred lines. More would be memory that a shim has for as long as a server is away.
const MOST_KEPT: usize = 64 << 10;

/// Before a connection is tried again; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Between two notices of what was lost, while it goes on.
const NOTICE: Duration = Duration::from_secs(60);

/// How long the end of a container waits for what is still to be sent.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// The second place.
#[derive(Clone, Debug)]
enum Place {
    Syslog(Syslog),
    Journal(Journal),
}

#[derive(Debug)]
enum Link {
    Down {
        retry_at: Option<Instant>,
    },
    /// Where a connection takes its time.
    Opening(Socket),
    Up(Socket),
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// Messages run together, and one may be sent in parts.
    is_stream: bool,
}

#[derive(Debug)]
pub(super) struct Forward {
    place: Place,
    /// Gantry's own directories. Its sockets there are to be spoken to by gantry alone.
    reserved: Vec<PathBuf>,
    link: Link,
    retry: Duration,
    queue: VecDeque<Vec<u8>>,
    /// The bytes in `queue`.
    kept: usize,
    /// How much of the first message is sent, on a stream.
    sent: usize,
    /// Messages that were dropped since it was last told.
    lost: u64,
    told_at: Option<Instant>,
}

impl Forward {
    /// `None` where the files of the log are all.
    pub(super) fn to(options: &Options) -> Option<Self> {
        let place = match &options.output {
            Output::Files | Output::Discard => return None,
            Output::Syslog(syslog) => Place::Syslog(syslog.clone()),
            Output::Journal(journal) => Place::Journal(journal.clone()),
        };
        Some(Self {
            place,
            reserved: options.reserved.clone(),
            link: Link::Down { retry_at: None },
            retry: FIRST_RETRY,
            queue: VecDeque::new(),
            kept: 0,
            sent: 0,
            lost: 0,
            told_at: None,
        })
    }

    /// Takes a line, or a part of one, to be sent by the next [`Forward::work`].
    pub(super) fn push(&mut self, at: SystemTime, stream: Stream, text: &[u8], partial: bool) {
        let message = match &self.place {
            Place::Syslog(syslog) => syslog_message(syslog, at, stream, text),
            Place::Journal(journal) => journal_message(journal, stream, text, partial),
        };
        if self.kept + message.len() > MOST_KEPT {
            self.lost += 1;
        } else {
            self.kept += message.len();
            self.queue.push_back(message);
        }
    }

    /// Sends what can be sent without waiting.
    pub(super) fn work(&mut self, now: Instant) {
        while !self.queue.is_empty() {
            let link = std::mem::replace(&mut self.link, Link::Down { retry_at: None });
            self.link = match link {
                Link::Down { retry_at } if retry_at.is_some_and(|at| at > now) => {
                    self.link = Link::Down { retry_at };
                    return;
                }
                Link::Down { .. } => match self.open() {
                    Ok(link) => link,
                    Err(_) => self.broken(now),
                },
                Link::Opening(socket) => match is_open(&socket.fd) {
                    Ok(true) => Link::Up(socket),
                    Ok(false) => {
                        self.link = Link::Opening(socket);
                        return;
                    }
                    Err(_) => self.broken(now),
                },
                Link::Up(socket) => match self.send_to(&socket) {
                    Ok(()) => {
                        self.retry = FIRST_RETRY;
                        self.link = Link::Up(socket);
                        return;
                    }
                    Err(_) => self.broken(now),
                },
            };
        }
    }

    /// Sends until there is no more or no room. An error is the end of the connection.
    fn send_to(&mut self, socket: &Socket) -> Result<(), Errno> {
        while let Some(message) = self.queue.front() {
            let rest = message.get(self.sent..).unwrap_or_default();
            match send(&socket.fd, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) if socket.is_stream && count < rest.len() => self.sent += count,
                Ok(_) => self.forget_first(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::MSGSIZE) => {
                    self.lost += 1;
                    self.forget_first();
                }
                // Over UDP it says that an earlier message did not arrive. The way stays open, and this one is not tried twice.
                Err(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH) if self.is_udp() => {
                    self.lost += 1;
                    self.forget_first();
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn forget_first(&mut self) {
        if let Some(message) = self.queue.pop_front() {
            self.kept -= message.len();
        }
        self.sent = 0;
    }

    fn is_udp(&self) -> bool {
        matches!(&self.place, Place::Syslog(Syslog { server: Server::Udp(_), .. }))
    }

    /// The connection is gone, or there was none. What was sent in part is sent again.
    fn broken(&mut self, now: Instant) -> Link {
        self.sent = 0;
        let retry_at = now.checked_add(self.retry);
        self.retry = (self.retry * 2).min(LAST_RETRY);
        Link::Down { retry_at }
    }

    fn open(&self) -> Result<Link, Errno> {
        match &self.place {
            Place::Syslog(Syslog { server: Server::Udp(address), .. }) => {
                to_address(address, SocketType::DGRAM)
            }
            Place::Syslog(Syslog { server: Server::Tcp(address), .. }) => {
                to_address(address, SocketType::STREAM)
            }
            Place::Syslog(Syslog { server: Server::Unix(path), .. }) => {
                match self.to_path(path, SocketType::DGRAM) {
                    // It listens for connections instead.
                    Err(Errno::PROTOTYPE) => self.to_path(path, SocketType::STREAM),
                    opened => opened,
                }
            }
            Place::Journal(journal) => self.to_path(&journal.socket, SocketType::DGRAM),
        }
    }

    /// To what is found there and no other, whatever has its name by now.
    fn to_path(&self, path: &Path, kind: SocketType) -> Result<Link, Errno> {
        let found = reserved::find(path)?;
        if self.reserved.iter().any(|own| reserved::is_within(&found, own)) {
            return Err(Errno::PERM);
        }
        let socket = new_socket(AddressFamily::UNIX, kind)?;
        let found = format!("/proc/self/fd/{}", found.as_raw_fd());
        connect(&socket.fd, &SocketAddrUnix::new(found)?)?;
        Ok(Link::Up(socket))
    }

    /// What to wait for in order to go on.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.link {
            Link::Opening(socket) | Link::Up(socket) if !self.queue.is_empty() => {
                Some((socket.fd.as_fd(), PollFlags::POLLOUT))
            }
            Link::Down { .. } | Link::Opening(_) | Link::Up(_) => None,
        }
    }

    /// When to go on by time alone.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Down { retry_at } if !self.queue.is_empty() => *retry_at,
            Link::Down { .. } | Link::Opening(_) | Link::Up(_) => None,
        }
    }

    /// What the log is to say of lines that were dropped: once there is nothing left to send, and now and then before.
    pub(super) fn notice(&mut self, now: Instant, is_last: bool) -> Option<String> {
        let is_due = self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= NOTICE);
        if self.lost == 0 || !(self.queue.is_empty() || is_due || is_last) {
            return None;
        }
        self.told_at = Some(now);
        let lost = std::mem::take(&mut self.lost);
        let place = match &self.place {
            Place::Syslog(_) => "the syslog server",
            Place::Journal(_) => "the journal",
        };
        let lines = if lost == 1 { "line" } else { "lines" };
        Some(format!("gantry: {lost} {lines} did not get to {place}"))
    }

    /// Gives what is still to be sent a last chance, and counts the rest as lost.
    pub(super) fn finish(&mut self) {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            self.work(now);
            let left = LAST_CHANCE.saturating_sub(now.saturating_duration_since(begun));
            let Some((fd, events)) = self.interest().filter(|_| !left.is_zero()) else { break };
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            // An interruption is followed by another look at the time.
            let _woken = poll(&mut [PollFd::new(fd, events)], wait);
        }
        self.lost += self.queue.len() as u64;
        self.queue.clear();
        self.kept = 0;
    }
}

fn to_address(address: &SocketAddr, kind: SocketType) -> Result<Link, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = new_socket(family, kind)?;
    match connect(&socket.fd, address) {
        Ok(()) => Ok(Link::Up(socket)),
        Err(Errno::INPROGRESS) => Ok(Link::Opening(socket)),
        Err(errno) => Err(errno),
    }
}

fn new_socket(family: AddressFamily, kind: SocketType) -> Result<Socket, Errno> {
    let fd = socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    Ok(Socket { fd, is_stream: kind == SocketType::STREAM })
}

/// Whether a connection is made; an error if it will not be.
fn is_open(fd: &OwnedFd) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut fds, PollTimeout::ZERO).unwrap_or(0);
    if ready > 0 { socket_error(fd)?.map(|()| true) } else { Ok(false) }
}

/// Six is "informational", three is "error": what Docker makes of a container's two streams.
fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 6,
        Stream::Stderr => 3,
    }
}

/// RFC 5424. Ended by a newline, which tells messages apart on a stream (RFC 6587, 3.4.2) and is no part of a line.
fn syslog_message(syslog: &Syslog, at: SystemTime, stream: Stream, text: &[u8]) -> Vec<u8> {
    let Syslog { server: _, facility, tag, hostname } = syslog;
    let priority = u32::from(*facility) * 8 + u32::from(severity(stream));
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let (hostname, tag) = (header(hostname, 255), header(tag, 48));
    let mut message = format!("<{priority}>1 {at:.6} {hostname} {tag} - - - ").into_bytes();
    message.extend_from_slice(text);
    message.push(b'\n');
    message
}

/// A field of the header: visible ASCII, and not nothing.
fn header(text: &str, longest: usize) -> String {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let field: String = text.chars().take(longest).map(visible).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

/// An entry in the journal's native protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
fn journal_message(journal: &Journal, stream: Stream, text: &[u8], partial: bool) -> Vec<u8> {
    let Journal { socket: _, tag, fields } = journal;
    let mut entry = Vec::with_capacity(text.len() + 128);
    add_field(&mut entry, "MESSAGE", text);
    add_field(&mut entry, "PRIORITY", severity(stream).to_string().as_bytes());
    add_field(&mut entry, "SYSLOG_IDENTIFIER", tag.as_bytes());
    for (name, value) in fields {
        add_field(&mut entry, name, value.as_bytes());
    }
    if partial {
        add_field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    entry
}

/// With its length, so that it may be any bytes.
fn add_field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn syslog(server: Server) -> Output {
        let (tag, hostname) = ("web 1".to_owned(), "n1".to_owned());
        Output::Syslog(Syslog { server, facility: 3, tag, hostname })
    }

    fn forward(output: Output) -> Forward {
        Forward::to(&Options { output, ..Options::default() }).unwrap()
    }

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5_000)
    }

    fn line(forward: &mut Forward, text: &str) {
        forward.push(at(), Stream::Stdout, text.as_bytes(), false);
        forward.work(Instant::now());
    }

    const SENT: &str = "<30>1 2023-11-14T22:13:20.000005Z n1 web_1 - - - ";

    #[test]
    fn a_line_is_a_message_of_rfc_5424() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let mut forward = forward(syslog(Server::Udp(address)));
        line(&mut forward, "hello");
        let mut bytes = [0; 256];
        let count = server.recv(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes[..count]), format!("{SENT}hello\n"));
        let Output::Syslog(to) = syslog(Server::Udp(address)) else { panic!("it is syslog") };
        assert!(syslog_message(&to, at(), Stream::Stderr, b"\xff").starts_with(b"<27>1 "));
    }

    #[test]
    fn lines_follow_each_other_on_a_stream_also_when_it_is_slow() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut forward = forward(syslog(Server::Tcp(server.local_addr().unwrap())));
        line(&mut forward, "one");
        let (mut peer, _) = server.accept().unwrap();
        let text = "x".repeat(10_000);
        let mut pushed = vec![format!("{SENT}one\n")];
        // Until neither the socket nor the queue takes more.
        while forward.lost == 0 {
            line(&mut forward, &text);
            pushed.push(format!("{SENT}{text}\n"));
        }
        pushed.pop();
        assert!(forward.interest().is_some() && forward.kept <= MOST_KEPT);
        let reader = std::thread::spawn(move || {
            let mut received = String::new();
            peer.read_to_string(&mut received).unwrap();
            received
        });
        forward.finish();
        assert_eq!(
            forward.notice(Instant::now(), true).unwrap(),
            "gantry: 1 line did not get to the syslog server"
        );
        drop(forward);
        assert!(reader.join().unwrap() == pushed.concat());
    }

    #[test]
    fn the_journal_gets_entries_with_fields() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("journal");
        let server = UnixDatagram::bind(&socket).unwrap();
        let fields = [("CONTAINER_NAME".to_owned(), "a\nb".to_owned())].into();
        let journal = Journal { socket, tag: "web".to_owned(), fields };
        let mut forward = forward(Output::Journal(journal));
        forward.push(at(), Stream::Stderr, b"hi", true);
        forward.work(Instant::now());
        let mut bytes = [0; 512];
        let count = server.recv(&mut bytes).unwrap();
        let field = |name: &str, value: &str| {
            let mut field = Vec::new();
            add_field(&mut field, name, value.as_bytes());
            field
        };
        let expected = [
            field("MESSAGE", "hi"),
            field("PRIORITY", "3"),
            field("SYSLOG_IDENTIFIER", "web"),
            field("CONTAINER_NAME", "a\nb"),
            field("CONTAINER_PARTIAL_MESSAGE", "true"),
        ];
        assert_eq!(bytes[..count], expected.concat());
        assert_eq!(field("A", "bc"), b"A\n\x02\0\0\0\0\0\0\0bc\n");
    }

    #[test]
    fn gantrys_own_sockets_are_not_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let (own, link) = (dir.path().join("own"), dir.path().join("link"));
        std::fs::create_dir(&own).unwrap();
        let server = UnixDatagram::bind(own.join("socket")).unwrap();
        server.set_nonblocking(true).unwrap();
        std::os::unix::fs::symlink(own.join("socket"), &link).unwrap();
        for path in [own.join("socket"), link] {
            let mut options = Options {
                output: syslog(Server::Unix(path)),
                reserved: vec![own.clone()],
                ..Options::default()
            };
            let mut refused = Forward::to(&options).unwrap();
            line(&mut refused, "one");
            assert!(refused.deadline().is_some() && server.recv(&mut [0; 1]).is_err());
            options.reserved.clear();
            line(&mut Forward::to(&options).unwrap(), "one");
            assert!(server.recv(&mut [0; 512]).unwrap() > 0);
        }
    }

    #[test]
    fn a_server_that_is_away_is_tried_again_and_what_it_misses_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("log");
        let mut forward = forward(syslog(Server::Unix(socket.clone())));
        line(&mut forward, "one");
        let retry_at = forward.deadline().expect("it is not there yet");
        assert!(forward.interest().is_none());
        let long = "x".repeat(MOST_KEPT / 2);
        for _ in 0..3 {
            forward.push(at(), Stream::Stdout, long.as_bytes(), false);
        }
        let now = Instant::now();
        assert_eq!(forward.notice(now, false).unwrap(), "gantry: 2 lines did not get to the syslog server");
        forward.push(at(), Stream::Stdout, long.as_bytes(), false);
        assert_eq!(forward.notice(now, false), None, "it was told just now");
        forward.queue.truncate(1);
        forward.kept = forward.queue[0].len();

        let server = UnixListener::bind(&socket).unwrap();
        forward.work(retry_at);
        assert!(forward.queue.is_empty() && forward.deadline().is_none());
        drop(forward);
        let mut received = String::new();
        server.accept().unwrap().0.read_to_string(&mut received).unwrap();
        assert_eq!(received, format!("{SENT}one\n"));
    }
}
