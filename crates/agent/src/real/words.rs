//! What a container printed last, from its log.

use std::path::{Path, PathBuf};

use runtime::logs::{LogError, Reader, Stream};

use crate::excerpt::{LINES, last_words};
use crate::real::{blocking, failure};

/// What of a line is looked at, in bytes. Longer ones are cut off anyway.
const LINE: usize = 4096;

/// The last words of the container whose directory this is. A log that cannot be read has none: it is no reason to hold up
/// what comes after the container's end.
pub(crate) async fn last(dir: PathBuf) -> Option<String> {
    let read = blocking(move || read(&dir).map_err(|error| failure("cannot read the log", &error)));
    match read.await {
        Ok(lines) => last_words(&lines),
        Err(failure) => {
            tracing::debug!(%failure, "what a container said last is not known");
            None
        }
    }
}

fn read(dir: &Path) -> Result<Vec<(bool, String)>, LogError> {
    let lines = Reader::open(dir, None, Some(LINES))?.take(LINES);
    lines
        .map(|line| {
            let line = line?;
            let text = &line.text[..line.text.len().min(LINE)];
            Ok((line.stream == Stream::Stderr, String::from_utf8_lossy(text).into_owned()))
        })
        .collect()
}
