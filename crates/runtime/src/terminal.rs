//! Pseudo-terminals. libcontainer makes them inside the container and sends their master to a socket.
#![expect(unsafe_code, reason = "ioctl(2) has no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::retry_on_intr;

use crate::exec::WindowSize;
use crate::passing;
use crate::rootfs::short_path;

const SOCKET: &str = "console.sock";

/// What is waited for has been sent already; this is for what goes wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where libcontainer sends the master.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens in `dir`, which nobody else can enter.
    pub(crate) fn in_dir(dir: &Path) -> io::Result<Self> {
        let (_dir, path) = short_path(dir, SOCKET)?;
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: dir.join(SOCKET) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The master that has been sent.
    pub(crate) fn master(&self) -> io::Result<OwnedFd> {
        let (stream, _address) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut fds = Vec::new();
        retry_on_intr(|| passing::receive(&stream, &mut [0; 64], &mut fds))?;
        fds.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Sets the size that programs in the terminal see; those in its foreground are told by SIGWINCH.
pub(crate) fn resize(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor and `size` live through the call, which reads a `winsize` and writes nothing.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The other end of a master, whichever mount namespace it lies in.
pub(crate) fn slave(master: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the descriptor lives through the call, whose argument is a number.
    let fd = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{BufRead as _, BufReader, Write as _};

    fn master() -> OwnedFd {
        let master = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        let unlocked: libc::c_int = 0;
        // SAFETY: the descriptor and `unlocked` live through the call, which reads a number.
        let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
        assert_eq!(done, 0);
        master.into()
    }

    #[test]
    fn a_terminal_has_the_size_that_it_was_given_and_another_end() {
        let master = master();
        resize(&master, WindowSize { rows: 33, columns: 99 }).unwrap();
        let slave = slave(&master).unwrap();
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor and `size` live through the call, which writes a `winsize`.
        let asked = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        assert_eq!((asked, size.ws_row, size.ws_col), (0, 33, 99));

        File::from(slave).write_all(b"from the slave\n").unwrap();
        let mut line = String::new();
        BufReader::new(File::from(master)).read_line(&mut line).unwrap();
        assert_eq!(line, "from the slave\r\n");
        let (pipe, _) = nix::unistd::pipe().unwrap();
        assert!(resize(&pipe, WindowSize { rows: 1, columns: 1 }).is_err(), "a pipe has no size");
    }

    #[test]
    fn a_master_that_was_sent_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::in_dir(dir.path()).unwrap();
        assert!(console.master().is_err(), "nobody has sent one");
        let stream = std::os::unix::net::UnixStream::connect(console.path()).unwrap();
        passing::send_all(&stream, b"/dev/ptmx", &[master().as_fd()]).unwrap();
        let received = console.master().unwrap();
        assert!(resize(received, WindowSize { rows: 1, columns: 1 }).is_ok());
    }
}
