//! What `docker save` writes (Docker's image specification 1.2, "Combined Image JSON + Filesystem Changeset Format"), and
//! kaniko, bazel and jib after it: `manifest.json` names a configuration and layers, under any names.

use std::collections::BTreeSet;

use model::ImageName;
use serde::Deserialize;

use super::spool::{self, Spool};
use super::{Draft, ImportError, Staging, name};
use crate::document::{InvalidDocument, read_json};
use crate::limits;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Image {
    fn names(&self) -> impl Iterator<Item = ImageName> {
        self.repo_tags.iter().flatten().filter_map(|tag| name(tag))
    }
}

pub(super) fn draft(spool: &Spool, staging: &mut Staging<'_>) -> Result<Draft, ImportError> {
    let images = images(spool)?;
    let [image] = images.as_slice() else {
        let names = images.iter().flat_map(Image::names).map(|name| name.to_string()).collect();
        return Err(match images.len() {
            0 => ImportError::NoImage,
            count => ImportError::Several { count, names },
        });
    };
    if image.layers.len() > limits::LAYERS {
        let source = InvalidDocument::Layers(image.layers.len());
        return Err(ImportError::Document { name: spool::MANIFEST.to_owned(), source });
    }
    let config = spool.text(&image.config)?;
    let mut layers = Vec::with_capacity(image.layers.len());
    for name in &image.layers {
        layers.push(staging.layer(name, spool.open(name)?, None)?);
    }
    Ok(Draft { names: image.names().collect(), manifest: None, config, layers })
}

/// What the archive calls its image, where Docker wrote this form beside OCI's.
pub(super) fn names(spool: &Spool) -> Result<BTreeSet<ImageName>, ImportError> {
    let images = images(spool)?;
    // With several images there is no telling which of them the names belong to.
    Ok(if let [image] = images.as_slice() { image.names().collect() } else { BTreeSet::new() })
}

fn images(spool: &Spool) -> Result<Vec<Image>, ImportError> {
    read_json(&spool.text(spool::MANIFEST)?)
        .map_err(|source| ImportError::Json { name: spool::MANIFEST.to_owned(), source })
}
