//! Archives made by hand, hostile ones included: the builder's own checks are passed by.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

pub(crate) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// A tar under construction.
pub(crate) struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.entry(path, EntryType::Regular, |header| header.set_size(content.len() as u64), content)
    }

    pub(crate) fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let name = target.as_bytes();
        self.entry(path, kind, |header| header.as_old_mut().linkname[..name.len()].copy_from_slice(name), b"")
    }

    /// Any entry; `change` has the last word on its header. Mode 0644 (0755 for a directory), owner 0, time 1000.
    pub(crate) fn entry(
        mut self,
        path: &str,
        kind: EntryType,
        change: impl FnOnce(&mut Header),
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1000);
        header.set_size(0);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn digest(content: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(content).into();
    model::Digest(hash).to_string()
}

pub(crate) fn config(layers: &[Vec<u8>]) -> String {
    let ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", digest(layer))).collect();
    format!(
        r#"{{"architecture":"{ARCHITECTURE}","os":"linux","config":{{"Cmd":["/run"],"Env":["A=b"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
}

/// What `docker save` wrote until version 24.
pub(crate) fn docker_save(layers: &[Vec<u8>], tags: &[&str]) -> Vec<u8> {
    let mut tar = Tar::new().file("config.json", config(layers));
    for (number, layer) in layers.iter().enumerate() {
        tar = tar.file(&format!("{number}/layer.tar"), layer);
    }
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    tar.file(
        "manifest.json",
        format!(r#"[{{"Config":"config.json","RepoTags":{tags:?},"Layers":{names:?}}}]"#),
    )
    .bytes()
}

/// The blobs of an image, as an OCI layout has them; layers may be compressed.
pub(crate) struct Blobs {
    pub(crate) manifest: Vec<u8>,
    pub(crate) all: BTreeMap<String, Vec<u8>>,
}

pub(crate) fn blobs(config: &str, layers: &[Vec<u8>]) -> Blobs {
    let descriptor = |kind: &str, content: &[u8]| {
        let (digest, size) = (digest(content), content.len());
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#)
    };
    let listed: Vec<String> = layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect();
    let config_descriptor = descriptor("config.v1+json", config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config_descriptor},"layers":[{}]}}"#,
        listed.join(",")
    );
    let manifest = manifest.into_bytes();
    let contents = layers.iter().cloned().chain([config.as_bytes().to_vec(), manifest.clone()]);
    Blobs { manifest, all: contents.map(|content| (digest(&content), content)).collect() }
}

pub(crate) fn oci_layout(blobs: &Blobs, annotations: &str) -> Vec<u8> {
    layout_tar(&blobs.all).file("index.json", index(&[blobs], annotations)).file("oci-layout", LAYOUT).bytes()
}

pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

pub(crate) fn layout_tar(blobs: &BTreeMap<String, Vec<u8>>) -> Tar {
    blobs.iter().fold(Tar::new(), |tar, (digest, content)| {
        tar.file(&format!("blobs/sha256/{}", &digest["sha256:".len()..]), content)
    })
}

pub(crate) fn index(images: &[&Blobs], annotations: &str) -> String {
    let listed: Vec<String> = images
        .iter()
        .map(|image| {
            let (digest, size) = (digest(&image.manifest), image.manifest.len());
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"annotations":{{{annotations}}}}}"#
            )
        })
        .collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(","))
}

/// The error with its causes, as a user would read it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Every file and directory beneath, but for the store's own directories and lock.
pub(crate) fn content_of(store: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for directory in ["ingest", "blobs/sha256", "images", "layers"] {
        for entry in fs::read_dir(store.join(directory)).unwrap() {
            found.push(format!("{directory}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    found.sort();
    found
}
