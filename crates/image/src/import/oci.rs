//! OCI image layouts (OCI image specification, "Image Layout"), as skopeo, buildkit, podman and Docker since 25 write
//! them: `index.json` names manifests, which name blobs.

use std::collections::{BTreeMap, BTreeSet};

use model::{Bytes, Digest, ImageName};

use super::spool::{self, Spool, blob_name};
use super::{Draft, ImportError, Staging, docker, name};
use crate::config::ImageConfig;
use crate::document::{Descriptor, Document, Manifest, Platform, listed};

/// Documents read in search of the one manifest; a multi-platform image has some twenty.
const DOCUMENTS: usize = 256;

/// containerd's and Docker's annotation has the full name, the standard one often only a tag.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// A manifest in the archive, and what led to it.
struct Candidate {
    manifest: Manifest,
    text: Vec<u8>,
    names: BTreeSet<ImageName>,
}

pub(super) fn draft(spool: &Spool, staging: &mut Staging<'_>) -> Result<Draft, ImportError> {
    let Candidate { manifest, text, mut names } = one(spool, candidates(spool)?)?;
    if spool.has(spool::MANIFEST) {
        names.extend(docker::names(spool)?);
    }
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        let name = blob_name(&layer.digest);
        layers.push(staging.layer(&name, spool.open(&name)?, Some(layer))?);
    }
    Ok(Draft { names, manifest: Some(text), config: config(spool, &manifest)?, layers })
}

/// The one image for this machine.
fn one(spool: &Spool, candidates: BTreeMap<Digest, Candidate>) -> Result<Candidate, ImportError> {
    let here = Platform::here();
    let (mut fitting, mut others) = (Vec::new(), BTreeSet::new());
    for candidate in candidates.into_values() {
        // The configuration knows best: descriptors often lack a platform.
        let platform =
            ImageConfig::platform(&config(spool, &candidate.manifest)?).map_err(ImportError::Config)?;
        if platform.is_kin(&here) {
            fitting.push(candidate);
        } else {
            others.insert(platform.to_string());
        }
    }
    let count = fitting.len();
    match (fitting.pop(), count) {
        (Some(candidate), 1) => Ok(candidate),
        (Some(last), _) => {
            let all = fitting.iter().chain([&last]).flat_map(|candidate| &candidate.names);
            Err(ImportError::Several { count, names: all.map(ToString::to_string).collect() })
        }
        (None, _) if others.is_empty() => Err(ImportError::NoImage),
        (None, _) => Err(ImportError::Platform { wanted: here.to_string(), found: listed(&others) }),
    }
}

fn config(spool: &Spool, manifest: &Manifest) -> Result<Vec<u8>, ImportError> {
    let text = spool.blob(&manifest.config.digest)?;
    let (expected, found) = (Bytes(manifest.config.size), Bytes(text.len() as u64));
    if expected != found {
        return Err(ImportError::WrongSize { name: blob_name(&manifest.config.digest), expected, found });
    }
    Ok(text)
}

/// All manifests that the index leads to and that could be for this machine. Those for others are often not in the
/// archive at all.
fn candidates(spool: &Spool) -> Result<BTreeMap<Digest, Candidate>, ImportError> {
    let here = Platform::here();
    let mut found: BTreeMap<Digest, Candidate> = BTreeMap::new();
    let mut elsewhere = BTreeSet::new();
    let top = index(spool::INDEX, &spool.text(spool::INDEX)?)?;
    let mut pending: Vec<_> = top.into_iter().map(|descriptor| (names(&descriptor), descriptor)).collect();
    let mut read = 0;
    while let Some((names_above, descriptor)) = pending.pop() {
        if descriptor.is_attestation() {
            continue;
        }
        if let Some(platform) = descriptor.platform.as_ref().filter(|platform| !platform.is_kin(&here)) {
            elsewhere.insert(platform.to_string());
            continue;
        }
        if let Some(known) = found.get_mut(&descriptor.digest) {
            known.names.extend(names_above);
            continue;
        }
        read += 1;
        if read > DOCUMENTS {
            return Err(ImportError::Nesting);
        }
        let text = spool.blob(&descriptor.digest)?;
        match parse(&blob_name(&descriptor.digest), &text)? {
            Document::Manifest(manifest) => {
                found.insert(descriptor.digest, Candidate { manifest, text, names: names_above });
            }
            Document::Index(below) => {
                pending.extend(below.into_iter().map(|next| (names_above.clone(), next)))
            }
        }
    }
    if found.is_empty() && !elsewhere.is_empty() {
        return Err(ImportError::Platform { wanted: here.to_string(), found: listed(&elsewhere) });
    }
    Ok(found)
}

fn index(name: &str, text: &[u8]) -> Result<Vec<Descriptor>, ImportError> {
    match parse(name, text)? {
        Document::Index(manifests) => Ok(manifests),
        Document::Manifest(_) => Err(ImportError::NoImage),
    }
}

fn parse(name: &str, text: &[u8]) -> Result<Document, ImportError> {
    Document::parse(text).map_err(|source| ImportError::Document { name: name.to_owned(), source })
}

/// A tag alone is no name.
fn names(descriptor: &Descriptor) -> BTreeSet<ImageName> {
    let annotations = NAMES.iter().filter_map(|key| descriptor.annotation(key));
    annotations.filter(|written| written.contains(['/', ':'])).filter_map(name).collect()
}
