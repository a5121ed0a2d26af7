//! The entries of a tar archive, as ustar, GNU tar and pax write them.
//!
//! The `tar` crate gives the header's layout and nothing else. Its own iterator reads metadata of any size into memory
//! and splits pax records at newlines although their values are binary, so that a value can pose as a record and the
//! `size` that another program sees is not the one that it sees (TARmageddon). Here a record is as long as it says.

mod number;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::{self, Read};

use tar::{EntryType, Header};

use number::number;
use pax::Records;
pub(crate) use sparse::Segment;

const BLOCK: u64 = 512;

/// Long names, extended attributes and maps of sparse files, together for one entry. The kernel takes 64 KiB of value
/// in one attribute and 4 KiB of path.
const METADATA: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    #[error("there is no tar header at byte {at}")]
    NoHeader { at: u64 },
    #[error("it ends at byte {at}, in the middle of an entry")]
    Truncated { at: u64 },
    #[error("it cannot be read at byte {at}")]
    Read {
        at: u64,
        #[source]
        source: io::Error,
    },
    #[error("the tar header at byte {at} has a malformed {field}")]
    Malformed { at: u64, field: &'static str },
    #[error("the tar header at byte {at} is of type {kind:?}, which gantry does not know")]
    UnknownType { at: u64, kind: char },
    #[error("the metadata of the entry at byte {at} is larger than {most} bytes", most = METADATA)]
    Metadata { at: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As the archive has it: not to be trusted.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// The twelve permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Modified,
    /// Names and values, in the archive's order.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where in the archive the entry's content begins.
    pub(crate) content_at: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        /// With its holes.
        size: u64,
        /// Where the stored bytes belong, in ascending order. One segment for a file without holes, none for an empty one.
        segments: Vec<Segment>,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    /// Another name for an entry; the target is a path from the archive's root.
    HardLink {
        target: Vec<u8>,
    },
    Fifo,
    CharacterDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// Since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modified {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// Reads an archive entry by entry. As a reader it is the stored content of the entry that [`Tape::next`] gave last;
/// what is left of it unread is skipped.
pub(crate) struct Tape<R> {
    input: R,
    at: u64,
    /// Of the current entry's content.
    left: u64,
    /// To the next block after it.
    padding: u64,
    end: End,
}

/// How far the archive has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    NotYet,
    /// By the block of zeroes that every program writes last.
    Marked,
    /// The input ended between two entries.
    Unmarked,
}

/// What the headers before an entry's own say of it.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl<R: Read> Tape<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, at: 0, left: 0, padding: 0, end: End::NotYet }
    }

    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// The rest of the input after the archive's end is the caller's.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The next entry, or `None` at the archive's end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TapeError> {
        let mut ahead = Ahead::default();
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let at = self.at;
            let Some(header) = self.header()? else {
                let complete = ahead.name.is_none() && ahead.link.is_none() && ahead.records.is_none();
                return if complete { Ok(None) } else { Err(TapeError::Truncated { at }) };
            };
            let twice = TapeError::Malformed { at, field: "second extension of one kind" };
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = pax::parse(&self.metadata(at, &header)?);
                    let records = records.ok_or(TapeError::Malformed { at, field: "pax record" })?;
                    if ahead.records.replace(records).is_some() {
                        return Err(twice);
                    }
                }
                EntryType::GNULongName => {
                    if ahead.name.replace(without_nul(self.metadata(at, &header)?)).is_some() {
                        return Err(twice);
                    }
                }
                EntryType::GNULongLink => {
                    if ahead.link.replace(without_nul(self.metadata(at, &header)?)).is_some() {
                        return Err(twice);
                    }
                }
                // Of all entries that follow. Programs write only comments into it, and Docker passes over it too.
                EntryType::XGlobalHeader => drop(self.metadata(at, &header)?),
                _ => return self.entry(at, &header, ahead).map(Some),
            }
        }
    }

    fn entry(&mut self, at: u64, header: &Header, ahead: Ahead) -> Result<Entry, TapeError> {
        let old = header.as_old();
        let records = ahead.records.unwrap_or_default();
        let malformed = |field| TapeError::Malformed { at, field };
        let id = |given: Option<u64>, field: &[u8], name| {
            let id = given.or_else(|| number(field)).ok_or_else(|| malformed(name))?;
            // The largest would mean "leave it as it is" to the kernel.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| malformed(name))
        };
        let path =
            ahead.name.or_else(|| records.path.clone()).unwrap_or_else(|| header.path_bytes().into_owned());
        let target = ahead.link.or_else(|| records.link.clone());
        let target = target.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let mode = number(&old.mode).ok_or_else(|| malformed("mode"))?;
        let modified = match records.modified {
            Some(modified) => modified,
            None => Modified {
                seconds: number::signed(&old.mtime).ok_or_else(|| malformed("mtime"))?,
                nanoseconds: 0,
            },
        };
        let (uid, gid) = (id(records.uid, &old.uid, "uid")?, id(records.gid, &old.gid, "gid")?);
        let stored = records.size.or_else(|| number(&old.size)).ok_or_else(|| malformed("size"))?;
        // Whoever adds a block's length to it need not look for an overflow.
        if stored > i64::MAX as u64 {
            return Err(malformed("size"));
        }
        self.begin_content(stored);
        let (path, kind) = match &records.sparse {
            None => {
                let kind = self.kind(at, header, stored, target, path.ends_with(b"/"))?;
                (path, kind)
            }
            Some(sparse) if header.entry_type() == EntryType::Regular => {
                (sparse.path.clone().unwrap_or(path), self.pax_sparse(at, sparse)?)
            }
            Some(_) => return Err(malformed("sparse map: only files have holes")),
        };
        Ok(Entry {
            path,
            kind,
            mode: (mode & 0o7777) as u32,
            uid,
            gid,
            modified,
            xattrs: records.xattrs,
            content_at: self.at,
        })
    }

    fn kind(
        &mut self,
        at: u64,
        header: &Header,
        stored: u64,
        target: Vec<u8>,
        slash: bool,
    ) -> Result<Kind, TapeError> {
        let kind = match header.entry_type() {
            // Before ustar there was no type for directories.
            EntryType::Regular if slash => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => {
                return Ok(Kind::File { size: stored, segments: sparse::dense(stored) });
            }
            EntryType::GNUSparse => return self.gnu_sparse(at, header, stored),
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink { target },
            EntryType::Link => Kind::HardLink { target },
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => {
                let (major, minor) =
                    device(header).ok_or(TapeError::Malformed { at, field: "device number" })?;
                Kind::CharacterDevice { major, minor }
            }
            EntryType::Block => {
                let (major, minor) =
                    device(header).ok_or(TapeError::Malformed { at, field: "device number" })?;
                Kind::BlockDevice { major, minor }
            }
            other => return Err(TapeError::UnknownType { at, kind: char::from(other.as_byte()) }),
        };
        // Some programs skip such content and some take it for the next header: there is no right way to read on.
        if stored != 0 {
            Err(TapeError::Malformed { at, field: "size: only files have content" })
        } else {
            Ok(kind)
        }
    }

    fn begin_content(&mut self, stored: u64) {
        self.left = stored;
        self.padding = stored.next_multiple_of(BLOCK) - stored;
    }

    /// The content of a header that describes the next one.
    fn metadata(&mut self, at: u64, header: &Header) -> Result<Vec<u8>, TapeError> {
        let size = number(&header.as_old().size).ok_or(TapeError::Malformed { at, field: "size" })?;
        if size > METADATA {
            return Err(TapeError::Metadata { at });
        }
        self.begin_content(size);
        let mut content = vec![0; size as usize];
        self.content(&mut content)?;
        Ok(content)
    }

    /// A header with a right checksum; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>, TapeError> {
        if self.end != End::NotYet {
            return Ok(None);
        }
        let at = self.at;
        let mut header = Header::new_old();
        match self.block(header.as_mut_bytes())? {
            0 => self.end = End::Unmarked,
            BLOCK => {}
            _ => return Err(TapeError::Truncated { at: self.at }),
        }
        if self.end == End::NotYet && header.as_bytes().iter().all(|byte| *byte == 0) {
            self.end = End::Marked;
        }
        if self.end != End::NotYet {
            return Ok(None);
        }
        let checksum = header.as_bytes().iter().enumerate().map(|(place, byte)| {
            // The checksum's own field counts as spaces.
            if (148..156).contains(&place) { u64::from(b' ') } else { u64::from(*byte) }
        });
        if number(&header.as_old().cksum) != Some(checksum.sum::<u64>()) {
            return Err(TapeError::NoHeader { at });
        }
        Ok(Some(header))
    }

    /// Reads one block outside any entry's content: its length, or less where the input ends.
    fn block(&mut self, block: &mut [u8]) -> Result<u64, TapeError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.at += filled as u64;
        Ok(filled as u64)
    }

    /// Fills the buffer from the current entry's content.
    fn content(&mut self, buffer: &mut [u8]) -> Result<(), TapeError> {
        self.read_exact(buffer).map_err(|error| self.failed(error))
    }

    fn skip(&mut self, count: u64) -> Result<(), TapeError> {
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink());
        let skipped = skipped.map_err(|error| self.failed(error))?;
        self.at += skipped;
        if skipped < count { Err(TapeError::Truncated { at: self.at }) } else { Ok(()) }
    }

    fn failed(&self, source: io::Error) -> TapeError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            TapeError::Truncated { at: self.at }
        } else {
            TapeError::Read { at: self.at, source }
        }
    }
}

impl<R: Read> Read for Tape<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

/// GNU tar ends long names with a NUL, others do not.
fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn device(header: &Header) -> Option<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return None,
    };
    // Twelve and twenty bits are what the kernel keeps.
    let major = number(major).filter(|major| *major < 1 << 12)?;
    let minor = number(minor).filter(|minor| *minor < 1 << 20)?;
    Some((major as u32, minor as u32))
}
