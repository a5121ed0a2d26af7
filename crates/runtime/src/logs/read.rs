//! The agent's side: from the last lines, from a time, and on as the log grows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{LONGEST_LINE, Line, file};

/// No record is longer: a line and what stands before it.
const LONGEST_RECORD: u64 = LONGEST_LINE as u64 + 256;

/// Reads backwards in blocks of this size to find the last lines.
const BLOCK: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {path}")]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// The records of a task directory's log, oldest first.
///
/// `None` is the end for now and not for ever: whoever follows a log asks again later, and gets what was written since,
/// across rotations. What was rotated away before it was read is skipped.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    since: Option<SystemTime>,
    /// `None` until there is a log.
    current: Option<BufReader<File>>,
    /// The beginning of a record whose end is not written yet.
    torn: Vec<u8>,
}

impl Reader {
    /// Reads the log of `dir`: all of it, or the last `tail` records; of those, what is not older than `since`. A
    /// directory without a log has an empty one.
    pub fn open(dir: &Path, since: Option<SystemTime>, tail: Option<usize>) -> Result<Self, LogError> {
        let mut reader = Self { dir: dir.to_owned(), since, current: None, torn: Vec::new() };
        reader.current = match tail {
            Some(count) => reader.last_lines(count)?,
            None => reader.oldest()?,
        }
        .map(BufReader::new);
        Ok(reader)
    }

    fn oldest(&self) -> Result<Option<File>, LogError> {
        let mut oldest = None;
        for age in 0.. {
            match self.file_of(age)? {
                Some(file) => oldest = Some(file),
                None => break,
            }
        }
        Ok(oldest)
    }

    /// The file and place at which the last `count` records begin.
    fn last_lines(&self, count: usize) -> Result<Option<File>, LogError> {
        let mut wanted = count;
        let mut oldest = None;
        for age in 0.. {
            let Some(mut file) = self.file_of(age)? else { break };
            let failed = |source| LogError { path: super::file(&self.dir, age), source };
            let found = seek_to_last(&mut file, wanted).map_err(failed)?;
            wanted -= found;
            oldest = Some(file);
            if wanted == 0 {
                break;
            }
        }
        Ok(oldest)
    }

    fn file_of(&self, age: u32) -> Result<Option<File>, LogError> {
        let path = file(&self.dir, age);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogError { path, source }),
        }
    }

    fn is_age(&self, age: u32, inode: u64) -> bool {
        std::fs::metadata(file(&self.dir, age)).is_ok_and(|found| found.ino() == inode)
    }

    /// At the end of a file: the file after it, if the log was rotated since.
    fn next_file(&self, current: &File) -> Result<Option<File>, LogError> {
        let failed = |source| LogError { path: self.dir.clone(), source };
        let inode = current.metadata().map_err(failed)?.ino();
        for age in 0.. {
            if self.is_age(age, inode) {
                let Some(newer) = age.checked_sub(1) else { return Ok(None) };
                let file = self.file_of(newer)?;
                // If it was rotated again meanwhile, this may not be the next one; the next call looks again.
                return Ok(file.filter(|_| self.is_age(age, inode)));
            }
            if !file(&self.dir, age).exists() {
                break;
            }
        }
        // What was being read is gone; so go on with the oldest that there is.
        self.oldest()
    }

    /// The next record's bytes in the current file, with its newline; empty at the end for now.
    fn record(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        let Some(current) = &mut self.current else { return Ok(None) };
        let failed = |source| LogError { path: self.dir.clone(), source };
        let room = LONGEST_RECORD.saturating_sub(self.torn.len() as u64).max(1);
        current.by_ref().take(room).read_until(b'\n', &mut self.torn).map_err(failed)?;
        let complete = self.torn.ends_with(b"\n") || self.torn.len() as u64 >= LONGEST_RECORD;
        Ok(complete.then(|| std::mem::take(&mut self.torn)))
    }

    fn advance(&mut self) -> Result<Option<Line>, LogError> {
        loop {
            while let Some(record) = self.record()? {
                // What is not a record is a shim's last word, cut off; nobody can make sense of it.
                let line = Line::parse(record.strip_suffix(b"\n").unwrap_or(&record));
                if let Some(line) = line.filter(|line| self.since.is_none_or(|since| line.at >= since)) {
                    return Ok(Some(line));
                }
            }
            let next = match &self.current {
                Some(current) => self.next_file(current.get_ref())?,
                None => self.oldest()?,
            };
            match next {
                // Only when it is read to its end: the shim may have written to it before it began the next one.
                Some(file) if self.drained()? => {
                    self.torn.clear();
                    self.current = Some(BufReader::new(file));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Whether the current file is read to its end. It grows no more once it was seen to be rotated.
    fn drained(&mut self) -> Result<bool, LogError> {
        let failed = |source| LogError { path: self.dir.clone(), source };
        match &mut self.current {
            Some(current) => Ok(current.fill_buf().map_err(failed)?.is_empty()),
            None => Ok(true),
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Line, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// Places the file where its last `count` records begin; returns how many there are, `count` at most.
fn seek_to_last(file: &mut File, count: usize) -> io::Result<usize> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if count == 0 {
        return Ok(0);
    }
    let mut newlines = 0;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline before the first record wanted: one more than there are records after it.
            if newlines == count {
                file.seek(SeekFrom::Start(start + at as u64 + 1))?;
                return Ok(count);
            }
            newlines += 1;
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(newlines)
}
