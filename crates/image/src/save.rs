//! Images out of the store: an OCI image layout (OCI image specification, "Image Layout") as a tar archive, with the
//! `manifest.json` of `docker save` beside it, since Docker before 25 loads nothing else.

use std::io::{self, Read, Write};

use model::{Digest, ImageName};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::blob::DiskError;
use crate::document::{Document, InvalidDocument};
use crate::store::{BlobRef, ReadError, Store};

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the manifest of {image} is not acceptable")]
    Manifest { image: Digest, source: Box<InvalidDocument> },
    #[error("cannot read blob {blob}")]
    Blob { blob: Digest, source: Box<DiskError> },
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl Store {
    /// Writes a complete image as an archive, which [`Store::import`], `docker load` and skopeo's `oci-archive:` take. The
    /// same image under the same names is always the same archive.
    pub fn save(&self, manifest: &Digest, names: &[ImageName], to: impl Write) -> Result<(), SaveError> {
        let blobs = self.blobs(manifest)?;
        let text = self.document(manifest)?;
        let mut archive = Builder::new(to);
        let layout = json!({ "imageLayoutVersion": "1.0.0" });
        document(&mut archive, "oci-layout", &layout)?;
        document(&mut archive, "index.json", &index(*manifest, &text, names)?)?;
        document(&mut archive, "manifest.json", &docker(self, manifest, names)?)?;
        directory(&mut archive, "blobs/")?;
        directory(&mut archive, "blobs/sha256/")?;
        for blob in &blobs {
            self.append(&mut archive, blob)?;
        }
        archive.into_inner().and_then(|mut to| to.flush()).map_err(SaveError::Write)
    }

    fn append(&self, archive: &mut Builder<impl Write>, blob: &BlobRef) -> Result<(), SaveError> {
        let path = self.paths().blob(&blob.digest);
        let file = self.open_blob(&blob.digest).map_err(|error| SaveError::Blob {
            blob: blob.digest,
            source: Box::new(DiskError::new("open", &path, error)),
        })?;
        let mut header = header(EntryType::Regular, blob.size.0, 0o644);
        // What has become shorter on disk would be filled up with what comes next; it is refused instead.
        let mut whole = Exactly { input: file, left: blob.size.0 };
        archive.append_data(&mut header, blob_name(&blob.digest), &mut whole).map_err(SaveError::Write)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// One entry a name; one without any for an image that has none.
fn index(manifest: Digest, text: &[u8], names: &[ImageName]) -> Result<Value, SaveError> {
    let media_type = Document::media_type(text)
        .map_err(|source| SaveError::Manifest { image: manifest, source: Box::new(source) })?;
    let descriptor = |annotations: Value| {
        let mut descriptor =
            json!({ "mediaType": media_type, "digest": manifest.to_string(), "size": text.len() });
        if annotations != Value::Null {
            descriptor["annotations"] = annotations;
        }
        descriptor
    };
    let named = |name: &ImageName| {
        // containerd's and Docker's annotation has the full name, the standard's is what skopeo looks for.
        json!({ "io.containerd.image.name": name.as_str(), "org.opencontainers.image.ref.name": name.as_str() })
    };
    let manifests: Vec<Value> = match names {
        [] => vec![descriptor(Value::Null)],
        names => names.iter().map(|name| descriptor(named(name))).collect(),
    };
    Ok(json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }))
}

/// Docker's own description of the same content.
fn docker(store: &Store, manifest: &Digest, names: &[ImageName]) -> Result<Value, SaveError> {
    let (config, layers) = store.files(manifest)?;
    let layers: Vec<String> = layers.iter().map(blob_name).collect();
    let tags: Vec<&str> = names.iter().map(ImageName::as_str).collect();
    Ok(json!([{ "Config": blob_name(&config), "RepoTags": tags, "Layers": layers }]))
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn directory(archive: &mut Builder<impl Write>, name: &str) -> Result<(), SaveError> {
    let mut header = header(EntryType::Directory, 0, 0o755);
    archive.append_data(&mut header, name, io::empty()).map_err(SaveError::Write)
}

fn document(archive: &mut Builder<impl Write>, name: &str, content: &Value) -> Result<(), SaveError> {
    let text = content.to_string();
    let mut header = header(EntryType::Regular, text.len() as u64, 0o644);
    archive.append_data(&mut header, name, text.as_bytes()).map_err(SaveError::Write)
}

/// Ends with an error if there is less than there should be, and goes no further.
struct Exactly<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}
