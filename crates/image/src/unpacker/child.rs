//! The life of a process that unpacks one layer.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use super::confine::confine;
use super::report::Report;
use crate::layer::{self, Fault};

/// Unpacks the layer that comes on stdin into an empty directory, and says on stdout what came of it. To be called first
/// thing in `main` of a process that does nothing else: it gives up all rights but those that this takes.
pub fn unpack_main(directory: &Path) -> ExitCode {
    let report = match confine(directory) {
        Ok(()) => match layer::make(Blob, Path::new("/")) {
            Ok(made) => Report::unpacked(&made),
            Err(error) => Report::failed(error.fault(), &error),
        },
        Err(error) => Report::failed(Fault::Machine, &error),
    };
    let mut output = io::stdout().lock();
    let told = output.write_all(&report.line()).and_then(|()| output.flush());
    match (report, told) {
        (Report::Unpacked { .. }, Ok(())) => ExitCode::SUCCESS,
        (Report::Unpacked { .. } | Report::Failed { .. }, _) => ExitCode::FAILURE,
    }
}

/// Stdin as it comes. The standard library's own reader has a small buffer of its own in between.
struct Blob;

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(io::stdin(), buffer)?)
    }
}
