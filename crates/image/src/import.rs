//! Archives into the store. Everything is staged and checked first, so that what is refused leaves nothing.

mod docker;
mod oci;
mod spool;

use std::collections::BTreeSet;
use std::io::{self, Read};

use model::{Bytes, Digest, ImageName};

use crate::blob::{DiskError, Sealed, Staged, digest_of};
use crate::config::{ImageConfig, InvalidConfig};
use crate::decompress::Codec;
use crate::document::{Descriptor, InvalidDocument, Manifest};
use crate::layer::{self, Inspected, LayerError};
use crate::limits::{self, OverLimit};
use crate::store::{Store, record_of};
use crate::tape::TapeError;
use spool::{Section, Spool};

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Of the manifest.
    pub digest: Digest,
    /// Layers and configuration, as the manifest has them.
    pub size: Bytes,
    /// What the archive calls its image; empty for a root file system.
    pub names: Vec<ImageName>,
    pub kind: ArchiveKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    OciLayout,
    DockerSave,
    RootFileSystem,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    pub done: Bytes,
    /// `None` where only the end will tell.
    pub total: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the archive; bytes are counted uncompressed.
    Reading,
    /// Checking and storing layers.
    Storing,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("the archive is empty")]
    Empty,
    #[error("this is not an image archive: it is no tar, plain or compressed with gzip or zstd")]
    NotAnArchive,
    #[error("the archive is truncated: it ends after {0} (uncompressed)")]
    Truncated(Bytes),
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("the archive is not acceptable")]
    Archive(#[source] LayerError),
    #[error("the archive has too many files for an image archive")]
    TooManyFiles,
    #[error("the archive's `{0}` is there twice")]
    Twice(String),
    #[error("the archive lacks `{0}`, which its image needs")]
    Missing(String),
    #[error("the archive's `{0}` is no plain file")]
    NotAFile(String),
    #[error("the archive's `{name}` is larger than {limit}")]
    TooLarge { name: String, limit: Bytes },
    #[error("the archive's `{name}` is not the JSON that it should be")]
    Json {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the archive's `{name}` is not acceptable")]
    Document {
        name: String,
        #[source]
        source: InvalidDocument,
    },
    #[error("the archive has indexes within indexes beyond reason")]
    Nesting,
    #[error("the archive has {count} images{}: save one at a time", listed(.names))]
    Several { count: usize, names: Vec<String> },
    #[error("the archive has no image")]
    NoImage,
    #[error("the archive has no image for {wanted}, only for {found}")]
    Platform { wanted: String, found: String },
    #[error("the archive's `{name}` has the digest {found}, but should have {expected}")]
    WrongDigest { name: String, expected: Digest, found: Digest },
    #[error("the archive's `{name}` has {found}, but should have {expected}")]
    WrongSize { name: String, expected: Bytes, found: Bytes },
    #[error("the image's configuration is not acceptable")]
    Config(#[source] InvalidConfig),
    #[error("layer `{name}` is not acceptable")]
    Layer {
        name: String,
        #[source]
        source: LayerError,
    },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

/// An image found in an archive, with its layers staged.
struct Draft {
    names: BTreeSet<ImageName>,
    /// As the archive has it; `None` where it has none, and gantry writes its own.
    manifest: Option<Vec<u8>>,
    config: Vec<u8>,
    layers: Vec<StagedLayer>,
}

struct StagedLayer {
    /// In the archive.
    name: String,
    sealed: Sealed,
    inspected: Inspected,
}

pub(crate) fn import(
    store: &Store,
    archive: &mut dyn Read,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, ImportError> {
    let spool = Spool::read(store.paths(), archive, progress)?;
    let kind = spool.kind();
    let mut staging = Staging { store, progress, done: 0 };
    let draft = match kind {
        ArchiveKind::OciLayout => oci::draft(&spool, &mut staging)?,
        ArchiveKind::DockerSave => docker::draft(&spool, &mut staging)?,
        ArchiveKind::RootFileSystem => root_file_system(spool)?,
    };
    admit(store, kind, draft)
}

/// Checks that the parts belong together, and puts them into the store.
fn admit(store: &Store, kind: ArchiveKind, draft: Draft) -> Result<Imported, ImportError> {
    let Draft { names, manifest, config: text, layers } = draft;
    let config = ImageConfig::parse(&text, layers.len()).map_err(ImportError::Config)?;
    for (layer, expected) in layers.iter().zip(&config.diff_ids) {
        let found = layer.inspected.diff_id;
        if found != *expected {
            let source = LayerError::DiffId { expected: *expected, found };
            return Err(ImportError::Layer { name: layer.name.clone(), source });
        }
    }
    let manifest = manifest.unwrap_or_else(|| {
        let config = Descriptor::of_config(digest_of(&text), Bytes(text.len() as u64));
        let descriptor =
            |l: &StagedLayer| Descriptor::of_layer(l.inspected.codec, l.sealed.digest, l.sealed.size);
        Manifest { config, layers: layers.iter().map(descriptor).collect() }.write()
    });
    let parsed = Manifest::parse(&manifest);
    let parsed = parsed.map_err(|source| ImportError::Document { name: "manifest".to_owned(), source })?;
    let mut blobs: Vec<Sealed> = layers.into_iter().map(|layer| layer.sealed).collect();
    blobs.push(Staged::holding(store.paths(), &text)?);
    let sealed = Staged::holding(store.paths(), &manifest)?;
    let (digest, size) = (sealed.digest, parsed.size());
    let record = record_of(digest, sealed.size, &parsed, &config);
    blobs.push(sealed);
    store.admit(&blobs, record)?;
    Ok(Imported { digest, size, names: names.into_iter().collect(), kind })
}

/// The archive itself, uncompressed, is the one layer.
fn root_file_system(spool: Spool) -> Result<Draft, ImportError> {
    let name = "the root file system".to_owned();
    let limit = limits::LAYER;
    if spool.file_bytes().within(limit).is_err() || spool.size() > limit {
        let source = LayerError::Limit { entry: name.clone(), source: OverLimit::Size(limit) };
        return Err(ImportError::Layer { name, source });
    }
    let sealed = spool.into_staged().seal()?;
    let inspected = Inspected { diff_id: sealed.digest, codec: Codec::Plain };
    Ok(Draft {
        names: BTreeSet::new(),
        manifest: None,
        config: ImageConfig::of_plain_layer(sealed.digest),
        layers: vec![StagedLayer { name, sealed, inspected }],
    })
}

/// Copies layers out of the spool.
struct Staging<'a> {
    store: &'a Store,
    progress: &'a mut dyn FnMut(Progress),
    done: u64,
}

impl Staging<'_> {
    /// Stages what the archive calls `name`, and reads it to its end as a layer. `said` is what a manifest says of it.
    fn layer(
        &mut self,
        name: &str,
        mut section: Section<'_>,
        said: Option<&Descriptor>,
    ) -> Result<StagedLayer, ImportError> {
        let name = name.to_owned();
        let found = Bytes(section.size());
        if let Some(expected) = said.map(|said| Bytes(said.size)).filter(|expected| *expected != found) {
            return Err(ImportError::WrongSize { name, expected, found });
        }
        if found > limits::LAYER {
            return Err(ImportError::TooLarge { name, limit: limits::LAYER });
        }
        let mut staged = Staged::new(self.store.paths())?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = section.read(&mut buffer).map_err(ImportError::Read)?;
            if count == 0 {
                break;
            }
            staged.write(&buffer[..count])?;
            self.done += count as u64;
            (self.progress)(Progress { stage: Stage::Storing, done: Bytes(self.done), total: None });
        }
        let sealed = staged.seal()?;
        let found = sealed.digest;
        if let Some(expected) = said.map(|said| said.digest).filter(|expected| *expected != found) {
            return Err(ImportError::WrongDigest { name, expected, found });
        }
        match layer::inspect(sealed.open()?) {
            Ok(inspected) => Ok(StagedLayer { name, sealed, inspected }),
            Err(source) => Err(ImportError::Layer { name, source }),
        }
    }
}

/// The cause behind an archive that could not be read to its end, as the one word that helps.
fn unreadable(error: LayerError) -> ImportError {
    match error {
        // Less than one header, or none where there has to be one.
        LayerError::Tape(TapeError::NoHeader { at: 0 } | TapeError::Truncated { at: 0..512 }) => {
            ImportError::NotAnArchive
        }
        LayerError::Tape(TapeError::Truncated { at }) => ImportError::Truncated(Bytes(at)),
        LayerError::Tape(TapeError::Read { source, .. }) | LayerError::Blob(source) => {
            ImportError::Read(source)
        }
        other => ImportError::Archive(other),
    }
}

/// Names as people write them: Docker's own registry and `library/` are implied. What is not a name is no loss.
fn name(written: &str) -> Option<ImageName> {
    let short = written.strip_prefix("docker.io/").unwrap_or(written);
    let short = short.strip_prefix("library/").filter(|_| short != written).unwrap_or(short);
    short.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_people_write_them() {
        for (written, expected) in [
            ("docker.io/library/nginx:1.22", Some("nginx:1.22")),
            ("docker.io/team/app:v1", Some("team/app:v1")),
            ("library/nginx", Some("library/nginx:latest")),
            ("reg.example:5000/app", Some("reg.example:5000/app:latest")),
            ("Not A Name", None),
            ("", None),
        ] {
            assert_eq!(name(written).map(|name| name.to_string()).as_deref(), expected, "{written}");
        }
    }
}
