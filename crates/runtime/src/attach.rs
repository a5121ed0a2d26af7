//! The container's own process: what it prints from now on, and what it is given to read.
//!
//! [`attach`] takes over a connection to the container's shim. From then on both sides say frames:
//!
//! ```text
//! kind (1 byte) · length (2 bytes, the higher first) · so many bytes, at most 16 KiB
//! 0 stdin   1 stdout   2 stderr   3 close stdin   4 resize: rows, columns, 2 bytes each   5 exit, as JSON
//! ```
//!
//! The shim says stdout, stderr and at the end exit; the client the others. The stream ends without an exit when the shim
//! dies, and for a client that does not keep up: a container is never held up by who looks at it. A client whose input
//! the container does not read yet is not read either, and so waits. The client keeps the connection whole: one that has
//! shut down its side has gone.
//!
//! A container that is held (`Options::hold_ms`) starts with the first client. That one it waits for, and its input ends with it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Exit;

use crate::exec::WindowSize;
use crate::handle;
use crate::logs::Stream;
use crate::passing;
use crate::protocol::{self, Answer, Request, Takeover, UNKNOWN, VERSION};
use crate::record::ExitForm;

/// How much of a stream is in one frame at most.
pub const LONGEST_FRAME: usize = 16 << 10;

/// A shim does nothing slow but writing its log.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection on which frames arrive and may be sent.
#[derive(Debug)]
pub struct Attached {
    stream: UnixStream,
    terminal: bool,
    stdin: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("the container in {dir} is not running")]
    NotRunning { dir: PathBuf },
    #[error(
        "the container in {dir} was started by an older gantry; replace its task to be able to attach to it"
    )]
    Older { dir: PathBuf },
    #[error("the shim in {dir} refused: {why}")]
    Refused { dir: PathBuf, why: String },
    #[error("the shim in {dir} did not answer")]
    NoAnswer { dir: PathBuf, source: io::Error },
    #[error("the answer of the shim in {dir} is not understood")]
    Garbled { dir: PathBuf, source: serde_json::Error },
}

/// Attaches to the running container of `dir`. What it printed before is in its log. One that is held starts with this.
pub fn attach(dir: &Path) -> Result<Attached, AttachError> {
    begin(dir, &[])
}

/// The same, with the size of the client's terminal before anything else, so that a container that starts with this begins with
/// it.
pub fn attach_with_size(dir: &Path, size: WindowSize) -> Result<Attached, AttachError> {
    begin(dir, &Frame::Resize(size).encode())
}

/// `first` are frames. They go with the request, so that the shim has read them when it answers.
fn begin(dir: &Path, first: &[u8]) -> Result<Attached, AttachError> {
    let not_running = || AttachError::NotRunning { dir: dir.to_owned() };
    let no_answer = |source| AttachError::NoAnswer { dir: dir.to_owned(), source };
    // A shim that hangs up has ended with its container.
    let failed =
        |error: io::Error| if passing::is_hung_up(&error) { not_running() } else { no_answer(error) };
    let stream = match handle::connect(dir) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(not_running());
        }
        Err(source) => return Err(no_answer(source)),
    };
    stream.set_read_timeout(Some(ANSWER_TIME)).map_err(no_answer)?;
    let mut request = protocol::line(&Request { v: VERSION, op: Takeover::Attach });
    request.extend_from_slice(first);
    passing::send_all(&stream, &request, &[]).map_err(failed)?;
    let Some((line, _)) = passing::read_line(&stream).map_err(failed)? else { return Err(not_running()) };
    stream.set_read_timeout(None).map_err(no_answer)?;
    match serde_json::from_slice(&line) {
        Ok(Answer::Attached { terminal, stdin }) => Ok(Attached { stream, terminal, stdin }),
        Ok(Answer::Refused { why }) if why.starts_with(UNKNOWN) => {
            Err(AttachError::Older { dir: dir.to_owned() })
        }
        Ok(Answer::Refused { why }) => Err(AttachError::Refused { dir: dir.to_owned(), why }),
        Ok(Answer::Started { .. } | Answer::Failed(_) | Answer::Ended { .. }) => {
            Err(AttachError::Refused { dir: dir.to_owned(), why: "it answered something else".to_owned() })
        }
        Err(source) => Err(AttachError::Garbled { dir: dir.to_owned(), source }),
    }
}

impl Attached {
    /// Whether the container has a terminal: then all of its output is stdout, and it can be resized.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether the container reads input; otherwise what is sent to it goes nowhere.
    pub fn takes_input(&self) -> bool {
        self.stdin
    }

    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Stdin(Vec<u8>),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// There is no more input. Not for a terminal, whose input only ever ends by a character in it.
    CloseStdin,
    Resize(WindowSize),
    /// The container has ended, and all that it printed came before this.
    Exit(Exit),
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const CLOSE_STDIN: u8 = 3;
const RESIZE: u8 = 4;
const EXIT: u8 = 5;

/// What stands before a frame's content.
const HEAD: usize = 3;

impl Frame {
    /// The frame as it is sent. More of a stream than fits into one becomes several.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stdin(bytes) => data(STDIN, bytes),
            Self::Stdout(bytes) => data(STDOUT, bytes),
            Self::Stderr(bytes) => data(STDERR, bytes),
            Self::CloseStdin => whole(CLOSE_STDIN, &[]),
            Self::Resize(WindowSize { rows, columns }) => {
                whole(RESIZE, &[rows.to_be_bytes(), columns.to_be_bytes()].concat())
            }
            Self::Exit(exit) => {
                let exit = serde_json::to_vec(&ExitForm::from(*exit));
                whole(EXIT, &exit.expect("an exit has string keys and no failing parts"))
            }
        }
    }

    fn decode(kind: u8, content: &[u8]) -> Result<Self, BadFrame> {
        let bad = || BadFrame { kind, length: content.len() };
        Ok(match (kind, content) {
            (STDIN, bytes) => Self::Stdin(bytes.to_vec()),
            (STDOUT, bytes) => Self::Stdout(bytes.to_vec()),
            (STDERR, bytes) => Self::Stderr(bytes.to_vec()),
            (CLOSE_STDIN, []) => Self::CloseStdin,
            (RESIZE, [a, b, c, d]) => Self::Resize(WindowSize {
                rows: u16::from_be_bytes([*a, *b]),
                columns: u16::from_be_bytes([*c, *d]),
            }),
            (EXIT, json) => {
                let exit: ExitForm = serde_json::from_slice(json).map_err(|_| bad())?;
                Self::Exit(exit.into())
            }
            (_, _) => return Err(bad()),
        })
    }
}

/// What of the container's output is sent to who is attached; `bytes` is not empty.
pub(crate) fn output(stream: Stream, bytes: &[u8]) -> Vec<u8> {
    match stream {
        Stream::Stdout => data(STDOUT, bytes),
        Stream::Stderr => data(STDERR, bytes),
    }
}

fn data(kind: u8, bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(LONGEST_FRAME).flat_map(|piece| whole(kind, piece)).collect()
}

fn whole(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("LONGEST_FRAME fits into two bytes");
    let mut frame = Vec::with_capacity(HEAD + content.len());
    frame.push(kind);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(content);
    frame
}

/// The other side does not speak frames, or a later form of them. There is no telling where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of kind {kind} with {length} bytes is none that this gantry knows")]
pub struct BadFrame {
    kind: u8,
    length: usize,
}

/// Finds the frames in what arrives, however it is cut. Holds less than one frame between two calls.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes what has been read, and gives the frames that are complete with it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, BadFrame> {
        self.push(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = self.pop()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// The two halves of it, for who cannot take all frames at once.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn pop(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some(([kind, high, low], rest)) = self.bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind > EXIT || length > LONGEST_FRAME {
            return Err(BadFrame { kind: *kind, length });
        }
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(*kind, content)?;
        self.bytes.drain(..HEAD + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Stdout(b"out\n".to_vec()),
            Frame::Stderr(vec![0, 255]),
            Frame::Stdin(b"in".to_vec()),
            Frame::CloseStdin,
            Frame::Resize(WindowSize { rows: 50, columns: 300 }),
            Frame::Exit(Exit::Code(7)),
            Frame::Exit(Exit::Signal { signal: 9, oom: true }),
        ]
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let bytes: Vec<u8> = frames().iter().flat_map(Frame::encode).collect();
        for size in [1, 2, 3, 5, 7, bytes.len()] {
            let mut parser = Frames::default();
            let found: Vec<Frame> =
                bytes.chunks(size).flat_map(|piece| parser.feed(piece).unwrap()).collect();
            assert_eq!(found, frames(), "cut into pieces of {size}");
            assert!(parser.bytes.is_empty());
        }
    }

    #[test]
    fn a_frame_is_what_was_first_sent() {
        assert_eq!(Frame::Stdout(b"hi".to_vec()).encode(), b"\x01\x00\x02hi");
        assert_eq!(
            Frame::Resize(WindowSize { rows: 24, columns: 256 }).encode(),
            b"\x04\x00\x04\x00\x18\x01\x00"
        );
        assert_eq!(Frame::Exit(Exit::Code(3)).encode(), b"\x05\x00\x0a{\"code\":3}");
        assert_eq!(output(Stream::Stderr, b"x"), b"\x02\x00\x01x");
    }

    #[test]
    fn more_than_fits_into_a_frame_becomes_several() {
        let text = vec![b'x'; 2 * LONGEST_FRAME + 1];
        let found = Frames::default().feed(&Frame::Stdin(text.clone()).encode()).unwrap();
        let pieces: Vec<&Vec<u8>> = found
            .iter()
            .map(|frame| match frame {
                Frame::Stdin(bytes) => bytes,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [16384, 16384, 1]);
        assert_eq!(pieces.into_iter().flatten().copied().collect::<Vec<u8>>(), text);
    }

    #[test]
    fn what_is_no_frame_ends_the_conversation_and_takes_no_memory() {
        for bad in
            [&b"\x09\x00\x00"[..], b"\x01\xff\xff", b"\x04\x00\x01x", b"\x05\x00\x02{}", b"\x03\x00\x01x"]
        {
            assert!(Frames::default().feed(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            Frames::default().feed(b"\x07\x00\x00").unwrap_err().to_string(),
            "a frame of kind 7 with 0 bytes is none that this gantry knows"
        );
    }

    #[test]
    fn nobody_is_attached_where_there_is_no_shim() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(attach(dir.path()), Err(AttachError::NotRunning { .. })));
    }

    #[test]
    fn the_size_of_a_terminal_is_there_before_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let listener =
            std::os::unix::net::UnixListener::bind(dir.path().join(crate::record::SOCKET)).unwrap();
        let shim = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            passing::read_line(&stream).unwrap().unwrap();
            let mut frame = [0; HEAD + 4];
            stream.read_exact(&mut frame).unwrap();
            let attached = "{\"reply\":\"attached\",\"terminal\":true,\"stdin\":false}\n";
            passing::send_all(&stream, attached.as_bytes(), &[]).unwrap();
            frame.to_vec()
        });
        let size = WindowSize { rows: 40, columns: 120 };
        let attached = attach_with_size(dir.path(), size).unwrap();
        assert!(attached.is_terminal() && !attached.takes_input());
        assert_eq!(shim.join().unwrap(), Frame::Resize(size).encode());
    }

    #[test]
    fn a_shim_of_before_is_told_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let listener =
            std::os::unix::net::UnixListener::bind(dir.path().join(crate::record::SOCKET)).unwrap();
        let shim = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            passing::read_line(&stream).unwrap().unwrap();
            let refused = "{\"reply\":\"refused\",\"why\":\"not a request: unknown variant `attach`\"}\n";
            passing::send_all(&stream, refused.as_bytes(), &[]).unwrap();
        });
        assert!(matches!(attach(dir.path()), Err(AttachError::Older { .. })));
        shim.join().unwrap();
    }
}
