//! The archive on disk, uncompressed, with what is in it: which kind it is shows only at its end, since `docker save`
//! writes `oci-layout` last. One file, and not one for each entry, so that a root file system is a layer as it stands.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use model::{Bytes, Digest};

use super::{ArchiveKind, ImportError, Progress, Stage, unreadable};
use crate::blob::{DiskError, Staged, digest_of};
use crate::decompress::Decompressed;
use crate::layer::{LayerError, walk};
use crate::limits::{self, Usage};
use crate::path::Clean;
use crate::store::Paths;
use crate::tape::{End, Entry, Kind, Tape};

/// What tells the kinds of archives apart.
pub(super) const LAYOUT: &str = "oci-layout";
pub(super) const INDEX: &str = "index.json";
pub(super) const MANIFEST: &str = "manifest.json";

/// Files of an image archive: some five a layer, for as many platforms as there are.
const MEMBERS: usize = 65_536;

/// Names in image archives are digests and short words.
const NAME: usize = 512;

/// Links to links, in what old versions of Docker write at most one.
const LINKS: usize = 8;

pub(super) struct Spool {
    staged: Staged,
    usage: Usage,
    members: Members,
}

#[derive(Default)]
struct Members {
    named: BTreeMap<String, Member>,
    overflow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    File {
        at: u64,
        size: u64,
    },
    /// Where a symbolic or hard link leads, from the archive's root.
    Link(String),
    /// Two files of one name: programs differ in which one they take.
    Ambiguous,
    /// A directory, a device, a file with holes.
    Other,
}

impl Spool {
    pub(super) fn read(
        paths: &Paths,
        archive: &mut dyn Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, ImportError> {
        let content = Decompressed::new(archive, limits::ARCHIVE).map_err(ImportError::Read)?;
        let mut spooling = Spooling { content, staged: Staged::new(paths)?, failed: None, progress };
        let read = index(&mut spooling);
        let Spooling { staged, failed, .. } = spooling;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let (usage, members) = read?;
        if usage.entries() == 0 {
            return Err(ImportError::Empty);
        }
        let spool = Self { staged, usage, members };
        if spool.members.overflow && spool.kind() != ArchiveKind::RootFileSystem {
            return Err(ImportError::TooManyFiles);
        }
        Ok(spool)
    }

    /// Docker has written both forms into one archive since version 25; OCI's says more.
    pub(super) fn kind(&self) -> ArchiveKind {
        if self.has(LAYOUT) && self.has(INDEX) {
            ArchiveKind::OciLayout
        } else if self.has(MANIFEST) {
            ArchiveKind::DockerSave
        } else {
            ArchiveKind::RootFileSystem
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.named.contains_key(name)
    }

    /// What the archive's files have together, with their holes.
    pub(super) fn file_bytes(&self) -> &Usage {
        &self.usage
    }

    pub(super) fn size(&self) -> Bytes {
        self.staged.written()
    }

    pub(super) fn into_staged(self) -> Staged {
        self.staged
    }

    /// A file of the archive, found through links if need be.
    pub(super) fn open(&self, name: &str) -> Result<Section<'_>, ImportError> {
        let mut at = name;
        for _ in 0..=LINKS {
            match self.members.named.get(at) {
                Some(Member::File { at, size }) => {
                    return Ok(Section { file: self.staged.file(), at: *at, end: at + size });
                }
                Some(Member::Link(target)) => at = target,
                Some(Member::Ambiguous) => return Err(ImportError::Twice(at.to_owned())),
                Some(Member::Other) => return Err(ImportError::NotAFile(at.to_owned())),
                None => return Err(ImportError::Missing(at.to_owned())),
            }
        }
        Err(ImportError::NotAFile(name.to_owned()))
    }

    /// The whole of a small file.
    pub(super) fn text(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        let mut section = self.open(name)?;
        if section.size() > limits::DOCUMENT.0 {
            return Err(ImportError::TooLarge { name: name.to_owned(), limit: limits::DOCUMENT });
        }
        let mut text = Vec::new();
        section.read_to_end(&mut text).map_err(ImportError::Read)?;
        Ok(text)
    }

    /// The whole of a small blob of an OCI layout.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Vec<u8>, ImportError> {
        let name = blob_name(digest);
        let text = self.text(&name)?;
        let found = digest_of(&text);
        if found == *digest {
            Ok(text)
        } else {
            Err(ImportError::WrongDigest { name, expected: *digest, found })
        }
    }
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads everything, to behind the archive's end.
fn index(spooling: &mut Spooling<'_>) -> Result<(Usage, Members), ImportError> {
    let mut tape = Tape::new(BufReader::with_capacity(256 << 10, spooling));
    let mut members = Members::default();
    let usage = walk(&mut tape, Usage::of_at_most(limits::ARCHIVE), |entry, path, _| {
        members.add(entry, path);
        Ok::<(), LayerError>(())
    });
    let usage = usage.map_err(unreadable)?;
    let end = tape.end();
    let mut rest = tape.into_inner();
    let drained = io::copy(&mut rest, &mut io::sink());
    let size = rest.into_inner().staged.written();
    match drained {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ImportError::Truncated(size)),
        Err(error) => Err(ImportError::Read(error)),
        // Every program marks the end, so an archive that lacks the mark was cut off between two entries.
        Ok(_) if end == End::Unmarked && usage.entries() > 0 => Err(ImportError::Truncated(size)),
        Ok(_) => Ok((usage, members)),
    }
}

impl Members {
    fn add(&mut self, entry: &Entry, path: &Clean) {
        let Ok(name) = std::str::from_utf8(path.as_bytes()) else { return };
        let tells = [LAYOUT, INDEX, MANIFEST].contains(&name);
        if name.is_empty() || name.len() > NAME {
            return;
        }
        if self.named.len() >= MEMBERS && !tells {
            self.overflow = true;
            return;
        }
        let member = match &entry.kind {
            Kind::File { size, segments } if segments.iter().map(|s| s.length).sum::<u64>() == *size => {
                Member::File { at: entry.content_at, size: *size }
            }
            Kind::Symlink { target } => {
                link(name.rsplit_once('/').map_or("", |(directory, _)| directory), target)
            }
            Kind::HardLink { target } => link("", target),
            Kind::File { .. }
            | Kind::Directory
            | Kind::Fifo
            | Kind::CharacterDevice { .. }
            | Kind::BlockDevice { .. } => Member::Other,
        };
        let again = self.named.insert(name.to_owned(), member.clone());
        // A directory may well come twice.
        if again.is_some_and(|before| before != Member::Other || member != Member::Other) {
            self.named.insert(name.to_owned(), Member::Ambiguous);
        }
    }
}

/// A link's target as a name in the archive; one that leads out of it leads nowhere.
fn link(directory: &str, target: &[u8]) -> Member {
    let Ok(target) = std::str::from_utf8(target) else { return Member::Other };
    let mut components: Vec<&str> = directory.split('/').filter(|component| !component.is_empty()).collect();
    if target.len() > NAME {
        return Member::Other;
    }
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                if components.pop().is_none() {
                    return Member::Other;
                }
            }
            name => components.push(name),
        }
    }
    Member::Link(components.join("/"))
}

/// Keeps a copy of what is read through it.
struct Spooling<'a> {
    content: Decompressed<'a>,
    staged: Staged,
    /// Why the copy could not be kept: this machine's fault and not the archive's.
    failed: Option<DiskError>,
    progress: &'a mut dyn FnMut(Progress),
}

impl Read for Spooling<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        if let Err(error) = self.staged.write(&buffer[..count]) {
            self.failed = Some(error);
            return Err(io::Error::other("the copy could not be kept"));
        }
        (self.progress)(Progress { stage: Stage::Reading, done: self.staged.written(), total: None });
        Ok(count)
    }
}

/// A part of the spool.
pub(super) struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Section<'_> {
    pub(super) fn size(&self) -> u64 {
        self.end - self.at
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.size()).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_a_name_in_the_archive_or_nowhere() {
        let to = |name: &str| Member::Link(name.to_owned());
        assert_eq!(link("abc", b"../def/layer.tar"), to("def/layer.tar"));
        assert_eq!(link("", b"./x.tar"), to("x.tar"));
        assert_eq!(link("abc", b"layer.tar"), to("abc/layer.tar"));
        assert_eq!(link("abc", b"../../etc/passwd"), Member::Other);
        assert_eq!(link("", b"\xff"), Member::Other);
    }
}
