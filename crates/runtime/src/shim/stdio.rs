//! The container's standard streams: what it is given, and what the shim holds of them.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use libcontainer::container::builder::ContainerBuilder;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};

use super::attached::Attached;
use crate::attach;
use crate::exec::WindowSize;
use crate::launch::Launch;
use crate::logs::{Splitter, Stream, Writer};
use crate::terminal::{self, Console};
use crate::user::Identity;

/// What is read from a pipe at once. A quarter of a pipe; more would be memory that every shim has.
const READ: usize = 16 << 10;

/// The shim's ends.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) outputs: Vec<Output>,
    pub(super) input: Input,
}

/// The shim's ends of a container that is being made.
#[derive(Debug)]
pub(super) enum Offered {
    Pipes(Streams),
    /// It is made inside the container, which then sends it here.
    Terminal(Console),
}

/// Gives the container that `builder` makes its standard streams.
pub(super) fn offer(
    builder: ContainerBuilder,
    launch: &Launch,
    identity: &Identity,
    bundle: &Path,
) -> io::Result<(ContainerBuilder, Offered)> {
    if launch.terminal {
        let console = Console::in_dir(bundle)?;
        let builder = builder.with_console_socket(Some(console.path().to_owned()));
        return Ok((builder, Offered::Terminal(console)));
    }
    let (input, stdin) = if launch.stdin {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let (held, given) = share(write, read, identity)?;
        (Input::Pipe(held), given)
    } else {
        (Input::Closed, File::open("/dev/null")?.into())
    };
    let (stdout, stdout_end) = output_pipe(identity)?;
    let (stderr, stderr_end) = output_pipe(identity)?;
    let outputs = vec![Output::new(Stream::Stdout, stdout), Output::new(Stream::Stderr, stderr)];
    let builder = builder.with_stdin(stdin).with_stdout(stdout_end).with_stderr(stderr_end);
    Ok((builder, Offered::Pipes(Streams { outputs, input })))
}

fn output_pipe(identity: &Identity) -> io::Result<(File, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    share(read, write, identity)
}

/// Of a pipe's ends, the shim's does not wait. The container's belongs to its user, so that `/dev/stdout` can be opened by an
/// image that logs there and does not run as root.
fn share(held: OwnedFd, given: OwnedFd, identity: &Identity) -> io::Result<(File, OwnedFd)> {
    fcntl(&held, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fchown(&given, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)))?;
    Ok((File::from(held), given))
}

impl Offered {
    /// To be called when the container is made, and before it is started.
    pub(super) fn taken(self, launch: &Launch, identity: &Identity) -> io::Result<Streams> {
        let console = match self {
            Self::Pipes(streams) => return Ok(streams),
            Self::Terminal(console) => console,
        };
        let master = console.master()?;
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let slave = terminal::slave(&master)?;
        fchown(&slave, Some(Uid::from_raw(identity.uid)), None)?;
        let master = File::from(master);
        let output = Output::new(Stream::Stdout, master.try_clone()?);
        let input = Input::Terminal { master, takes_input: launch.stdin, _slave: slave };
        Ok(Streams { outputs: vec![output], input })
    }
}

/// One of the container's output streams.
#[derive(Debug)]
pub(super) struct Output {
    stream: Stream,
    source: File,
    splitter: Splitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    Some,
    NothingYet,
    End,
}

impl Output {
    fn new(stream: Stream, source: File) -> Self {
        Self { stream, source, splitter: Splitter::default() }
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    /// Copies what one read gives to the log, and to who is attached.
    pub(super) fn copy(&mut self, log: &mut Writer, attached: &mut [Attached]) -> Copied {
        let mut bytes = [0; READ];
        match self.source.read(&mut bytes) {
            Ok(0) => Copied::End,
            Ok(count) => {
                let (at, stream) = (SystemTime::now(), self.stream);
                self.splitter.feed(&bytes[..count], |text, partial| log.push(at, stream, text, partial));
                log.flush(at);
                if !attached.is_empty() {
                    let frame = attach::output(stream, &bytes[..count]);
                    attached.iter_mut().for_each(|client| client.send(&frame));
                }
                Copied::Some
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Copied::NothingYet,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Copied::Some,
            // A pipe has no other errors, and a terminal one when it is hung up; either is as good as closed.
            Err(_) => Copied::End,
        }
    }

    pub(super) fn finish(&mut self, log: &mut Writer) {
        let (at, stream) = (SystemTime::now(), self.stream);
        self.splitter.finish(|text, partial| log.push(at, stream, text, partial));
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// What the container reads.
#[derive(Debug)]
pub(super) enum Input {
    /// Nothing, from the beginning or from now on.
    Closed,
    Pipe(File),
    Terminal {
        master: File,
        takes_input: bool,
        /// Held so that reading the master goes on while for a moment no process has the terminal open.
        _slave: OwnedFd,
    },
}

impl Input {
    /// Writes as much as there is room for; who asks comes back with the rest. What nobody will read is taken and dropped.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let mut file: &File = match self {
            Self::Closed | Self::Terminal { takes_input: false, .. } => return bytes.len(),
            Self::Pipe(file) | Self::Terminal { master: file, .. } => file,
        };
        match file.write(bytes) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(_) => {
                self.close();
                bytes.len()
            }
        }
    }

    /// The end of a container's input. A terminal has none but a character that its user sends.
    pub(super) fn close(&mut self) {
        match self {
            Self::Pipe(_) => *self = Self::Closed,
            Self::Closed | Self::Terminal { .. } => {}
        }
    }

    pub(super) fn resize(&self, size: WindowSize) {
        match self {
            Self::Terminal { master, .. } => {
                // It is hung up, and has no size any more.
                let _gone = terminal::resize(master, size);
            }
            Self::Closed | Self::Pipe(_) => {}
        }
    }

    /// What to wait on for more room.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Closed => None,
            Self::Pipe(file) | Self::Terminal { master: file, .. } => Some(file.as_fd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_taken_as_far_as_there_is_room_and_dropped_when_nobody_reads() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut input = Input::Pipe(File::from(write));
        let much = vec![b'x'; 1 << 20];
        let taken = input.write(&much);
        assert!((1..much.len()).contains(&taken), "{taken}");
        assert_eq!(input.write(b"more"), 0);
        assert!(input.fd().is_some());
        drop(read);
        assert_eq!(input.write(b"more"), 4);
        assert!(matches!(input, Input::Closed));
        assert_eq!(input.write(&much), much.len());
    }

    #[test]
    fn closed_input_is_at_its_end() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut input = Input::Pipe(File::from(write));
        assert_eq!(input.write(b"all"), 3);
        input.close();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "all");
    }
}
