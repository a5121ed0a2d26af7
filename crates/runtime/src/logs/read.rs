//! The agent's side: from the last lines, from a time, and on as the log grows.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Head, LONGEST_LINE, Line, file};

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

/// Which records of a log are wanted. Both times are included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub since: Option<SystemTime>,
    /// The first record that is later ends the log.
    pub until: Option<SystemTime>,
    /// Of the lines that are not later than `until`, the last so many. What is followed goes on after them.
    pub tail: Option<usize>,
}

/// The records of a task directory's log, oldest first.
///
/// `None` is the end for now and not for ever: whoever follows a log asks again later, and gets what was written since,
/// across rotations. What was rotated away before it was read is skipped.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    /// A record was later than `until`.
    is_over: bool,
    /// `None` until there is a log.
    current: Option<BufReader<File>>,
    /// The beginning of a record whose end is not written yet.
    torn: Vec<u8>,
}

impl Reader {
    /// Reads the log of `dir`: all of it, or the last `tail` lines; of those, what is not older than `since`. A
    /// directory without a log has an empty one.
    pub fn open(dir: &Path, since: Option<SystemTime>, tail: Option<usize>) -> Result<Self, LogError> {
        Self::of(dir, Wanted { since, until: None, tail })
    }

    /// Reads what is wanted of the log of `dir`. A directory without a log has an empty one.
    pub fn of(dir: &Path, wanted: Wanted) -> Result<Self, LogError> {
        Self::counted(dir, wanted).map(|(reader, _)| reader)
    }

    /// Reads the logs of `dirs`, oldest first, as one: `wanted.tail` reaches back over them. Those in which nothing is wanted
    /// any more are left out, so a reader belongs to the directory that is as far from the end as it is.
    pub fn of_all<P: AsRef<Path>>(dirs: &[P], wanted: Wanted) -> Result<Vec<Self>, LogError> {
        let mut readers = Vec::new();
        let mut left = wanted.tail;
        for dir in dirs.iter().rev() {
            // The last one is wanted in any case: it may go on.
            if left == Some(0) && !readers.is_empty() {
                break;
            }
            let (reader, found) = Self::counted(dir.as_ref(), Wanted { tail: left, ..wanted })?;
            readers.push(reader);
            left = left.map(|left| left - found);
        }
        readers.reverse();
        Ok(readers)
    }

    /// The reader, and how many lines it begins before the end: `wanted.tail` at most, and 0 without one.
    fn counted(dir: &Path, wanted: Wanted) -> Result<(Self, usize), LogError> {
        let Wanted { since, until, tail } = wanted;
        let mut reader =
            Self { dir: dir.to_owned(), since, until, is_over: false, current: None, torn: Vec::new() };
        let (file, found) = match tail {
            Some(count) => reader.last_lines(count)?,
            None => (reader.oldest()?, 0),
        };
        reader.current = file.map(BufReader::new);
        Ok((reader, found))
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

    /// The file and place at which the last `count` lines begin, and how many there are.
    fn last_lines(&self, count: usize) -> Result<(Option<File>, usize), LogError> {
        let mut wanted = count;
        let mut oldest = None;
        for age in 0.. {
            let Some(mut file) = self.file_of(age)? else { break };
            let failed = |source| LogError { path: super::file(&self.dir, age), source };
            let found = seek_to_last(&mut file, wanted, self.until).map_err(failed)?;
            wanted -= found;
            oldest = Some(file);
            if wanted == 0 {
                break;
            }
        }
        Ok((oldest, count - wanted))
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
            if self.is_over {
                return Ok(None);
            }
            while let Some(record) = self.record()? {
                // What is not a record is a shim's last word, cut off; nobody can make sense of it.
                let Some(line) = Line::parse(record.strip_suffix(b"\n").unwrap_or(&record)) else { continue };
                // It ends here, and is not searched on: a log may be written faster than it is read.
                if self.until.is_some_and(|until| line.at > until) {
                    self.is_over = true;
                    return Ok(None);
                }
                if self.since.is_none_or(|since| line.at >= since) {
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

/// Places the file where its last `count` lines begin that are not later than `until`; returns how many there are, `count` at
/// most. The pieces of a long line are one line.
fn seek_to_last(file: &mut File, count: usize, until: Option<SystemTime>) -> io::Result<usize> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if count == 0 {
        return Ok(0);
    }
    let mut last = LastLines { count, until, found: 0, begin: None };
    // What follows the last newline is half a record.
    let mut is_whole = false;
    let mut window = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        window.clear();
        // A record that begins in this block has its head in it, or right behind.
        file.by_ref().take(end - start + Head::LENGTH as u64).read_to_end(&mut window)?;
        let block = window.len().min(usize::try_from(end - start).unwrap_or(usize::MAX));
        for at in (0..block).rev().filter(|at| window[*at] == b'\n') {
            if is_whole && last.all_follow(start + at as u64 + 1, &window[at + 1..]) {
                file.seek(SeekFrom::Start(last.begin.unwrap_or(0)))?;
                return Ok(count);
            }
            is_whole = true;
        }
        if start == 0 && is_whole && last.all_follow(0, &window) {
            break;
        }
        end = start;
    }
    file.seek(SeekFrom::Start(last.begin.unwrap_or(0)))?;
    Ok(last.found)
}

/// The last lines of a log, as its records are looked at from the end on.
struct LastLines {
    count: usize,
    until: Option<SystemTime>,
    found: usize,
    /// Where the earliest record begins that is part of what was found.
    begin: Option<u64>,
}

impl LastLines {
    /// Looks at the record that begins at `place`. True if all the lines that are wanted follow it.
    fn all_follow(&mut self, place: u64, record: &[u8]) -> bool {
        let Some(head) = Head::parse(record) else { return false };
        if self.until.is_some_and(|until| head.at().is_none_or(|at| at > until)) {
            return false;
        }
        if !head.partial {
            if self.found == self.count {
                return true;
            }
            self.found += 1;
        }
        self.begin = Some(place);
        false
    }
}
