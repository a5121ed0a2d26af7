//! The node's end of a container's terminal, read and written without a thread.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use runtime::exec::{self, WindowSize};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::net::unix::pipe;

/// The terminal's parts, which work at the same time. Tokio's pipes read and write whatever can be polled, which a terminal
/// can; it is only not looked at whether it is a pipe.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) output: pipe::Receiver,
    pub(super) input: pipe::Sender,
    pub(super) sizes: Sizes,
}

/// Sets the size that the programs in the terminal see.
#[derive(Debug)]
pub(super) struct Sizes(OwnedFd);

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        // Of what all three share.
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        let (output, input) = (File::from(master.try_clone()?), File::from(master.try_clone()?));
        Ok(Self {
            output: pipe::Receiver::from_file_unchecked(output)?,
            input: pipe::Sender::from_file_unchecked(input)?,
            sizes: Sizes(master),
        })
    }
}

impl Sizes {
    pub(super) fn set(&self, size: WindowSize) {
        if let Err(error) = exec::resize(&self.0, size) {
            // It has ended.
            tracing::debug!(%error, "a terminal was not resized");
        }
    }
}
