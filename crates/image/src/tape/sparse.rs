//! Files with holes: GNU tar's own format, and the map in front of the content that it writes into pax archives.

use std::io::Read;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::number::number;
use super::{BLOCK, Kind, METADATA, Tape, TapeError, pax};

/// A run of stored bytes and where in the file it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

pub(super) fn dense(size: u64) -> Vec<Segment> {
    if size == 0 { Vec::new() } else { vec![Segment { offset: 0, length: size }] }
}

/// A map that a file can have: ascending, within the file's size, and of exactly the bytes that are stored.
fn map(segments: &[Segment], size: u64, stored: u64) -> Option<Kind> {
    let (mut end, mut total) = (0, 0_u64);
    for segment in segments {
        if segment.offset < end {
            return None;
        }
        end = segment.offset.checked_add(segment.length)?;
        total = total.checked_add(segment.length)?;
    }
    if end > size || total != stored {
        return None;
    }
    // A map ends with an empty segment at the file's end when that is a hole.
    let segments = segments.iter().copied().filter(|segment| segment.length > 0).collect();
    Some(Kind::File { size, segments })
}

fn malformed(at: u64) -> TapeError {
    TapeError::Malformed { at, field: "map of a sparse file" }
}

/// Unused places of the fixed-size lists are empty.
fn listed(segment: &GnuSparseHeader) -> Option<Option<Segment>> {
    if segment.is_empty() {
        return Some(None);
    }
    Some(Some(Segment { offset: number(&segment.offset)?, length: number(&segment.numbytes)? }))
}

impl<R: Read> Tape<R> {
    /// The map is in the header, and continues in blocks of its own between header and content.
    pub(super) fn gnu_sparse(&mut self, at: u64, header: &Header, stored: u64) -> Result<Kind, TapeError> {
        let gnu = header.as_gnu().ok_or_else(|| malformed(at))?;
        let size = number(&gnu.realsize).ok_or_else(|| malformed(at))?;
        let mut segments = Vec::new();
        for segment in &gnu.sparse {
            segments.extend(listed(segment).ok_or_else(|| malformed(at))?);
        }
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            blocks += BLOCK;
            if blocks > METADATA {
                return Err(TapeError::Metadata { at });
            }
            let mut block = GnuExtSparseHeader::new();
            if self.block(block.as_mut_bytes())? < BLOCK {
                return Err(TapeError::Truncated { at: self.at });
            }
            for segment in block.sparse() {
                segments.extend(listed(segment).ok_or_else(|| malformed(at))?);
            }
            more = block.is_extended();
        }
        map(&segments, size, stored).ok_or_else(|| malformed(at))
    }

    /// Version 1.0, which GNU tar has written since 2006: the map is text at the start of the content, padded to a block.
    pub(super) fn pax_sparse(&mut self, at: u64, sparse: &pax::Sparse) -> Result<Kind, TapeError> {
        if sparse.version != (Some(1), Some(0)) {
            return Err(TapeError::Malformed { at, field: "sparse file: only version 1.0 is known" });
        }
        let size = sparse.size.ok_or_else(|| malformed(at))?;
        let mut lines = Lines { tape: self, block: [0; BLOCK as usize], next: BLOCK as usize, at };
        let count = lines.number()?;
        // Each segment takes at least four bytes of map.
        if count > METADATA / 4 {
            return Err(TapeError::Metadata { at });
        }
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push(Segment { offset: lines.number()?, length: lines.number()? });
        }
        map(&segments, size, self.left).ok_or_else(|| malformed(at))
    }
}

/// Decimal numbers, one a line, read a block at a time.
struct Lines<'a, R> {
    tape: &'a mut Tape<R>,
    block: [u8; BLOCK as usize],
    next: usize,
    at: u64,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, TapeError> {
        let mut digits = Vec::with_capacity(20);
        loop {
            if self.next == self.block.len() {
                // The last block may be cut short where the file has no content.
                if self.tape.left < BLOCK {
                    return Err(malformed(self.at));
                }
                self.tape.content(&mut self.block)?;
                self.next = 0;
            }
            let byte = self.block[self.next];
            self.next += 1;
            match byte {
                b'\n' => return pax::decimal(&digits).ok_or_else(|| malformed(self.at)),
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => return Err(malformed(self.at)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_ascending_and_of_the_bytes_that_are_stored() {
        let segment = |offset, length| Segment { offset, length };
        assert!(map(&[segment(0, 10), segment(100, 10), segment(200, 0)], 200, 20).is_some());
        assert!(map(&[], 200, 0).is_some());
        for (segments, size, stored) in [
            (vec![segment(0, 10), segment(5, 10)], 200, 20),
            (vec![segment(0, 10)], 5, 10),
            (vec![segment(0, 10)], 200, 11),
            (vec![segment(u64::MAX, 10)], u64::MAX, 10),
        ] {
            assert_eq!(map(&segments, size, stored), None, "{segments:?}");
        }
    }
}
