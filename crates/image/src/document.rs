//! The JSON documents that describe an image: manifest and index, in OCI's form and in Docker's, which only differ in
//! their media types. (OCI image specification 1.1, "Image Manifest" and "Image Index".)
//!
//! `oci-spec` has these types too, but keeps its maps in hash order, so that what it writes differs from one run to the
//! next; here the same archive has to give the same digest. And it takes a document that is manifest and index at once.

use std::collections::BTreeMap;

use model::{Bytes, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decompress::Codec;
use crate::limits;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] = [MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];

#[derive(Debug, thiserror::Error)]
pub enum InvalidDocument {
    #[error("it is not the JSON of a manifest or index")]
    Json(#[source] serde_json::Error),
    #[error("it has schema version {0}; gantry knows version 2")]
    Version(u32),
    #[error("it is manifest and index at once")]
    Ambiguous,
    #[error("it is neither a manifest nor an index")]
    Neither,
    #[error("its media type `{0}` is not what it is")]
    MediaType(String),
    #[error("it is an index where a manifest is needed")]
    Index,
    #[error("its configuration has media type `{0}`: it is an artifact and no container image")]
    Artifact(String),
    #[error("it has {0} layers; an image has 1 to {most}", most = limits::LAYERS)]
    Layers(usize),
    #[error("blob {digest} is said to have {size}, more than the {limit} that it may have")]
    TooLarge { digest: Digest, size: Bytes, limit: Bytes },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

/// In the words of Go: `linux`, `amd64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// As it stands in the file; unknown fields are passed over, as the specification demands.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

impl Document {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, InvalidDocument> {
        let read: Read = serde_json::from_slice(text).map_err(InvalidDocument::Json)?;
        let Read { schema_version, media_type, config, layers, manifests } = read;
        if schema_version != 2 {
            return Err(InvalidDocument::Version(schema_version));
        }
        let document = match (config, layers, manifests) {
            (Some(config), Some(layers), None) => Self::Manifest(Manifest { config, layers }),
            (None, None, Some(manifests)) => Self::Index(manifests),
            (None, _, None) | (_, None, None) => return Err(InvalidDocument::Neither),
            // Two programs could run two different images from it (CVE-2021-41190).
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => return Err(InvalidDocument::Ambiguous),
        };
        let known: &[&str] = match &document {
            Self::Manifest(manifest) => {
                manifest.check()?;
                &MANIFESTS
            }
            Self::Index(_) => &INDEXES,
        };
        match media_type {
            Some(media_type) if !known.contains(&media_type.as_str()) => {
                Err(InvalidDocument::MediaType(media_type))
            }
            _ => Ok(document),
        }
    }
}

impl Manifest {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, InvalidDocument> {
        match Document::parse(text)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(InvalidDocument::Index),
        }
    }

    fn check(&self) -> Result<(), InvalidDocument> {
        if ![CONFIG, DOCKER_CONFIG].contains(&self.config.media_type.as_str()) {
            return Err(InvalidDocument::Artifact(self.config.media_type.clone()));
        }
        if self.layers.is_empty() || self.layers.len() > limits::LAYERS {
            return Err(InvalidDocument::Layers(self.layers.len()));
        }
        self.config.within(limits::DOCUMENT)?;
        self.layers.iter().try_for_each(|layer| layer.within(limits::LAYER))
    }

    /// A manifest of our own for a configuration and layers that came without one. The same input gives the same bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        let written =
            Written { schema_version: 2, media_type: MANIFEST, config: &self.config, layers: &self.layers };
        serde_json::to_vec(&written).expect("strings and numbers can be written as JSON")
    }

    /// Everything but the manifest itself.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    pub(crate) fn size(&self) -> Bytes {
        Bytes(self.descriptors().map(|descriptor| descriptor.size).sum())
    }
}

impl Descriptor {
    pub(crate) fn of_config(digest: Digest, size: Bytes) -> Self {
        Self { media_type: CONFIG.to_owned(), digest, size: size.0, annotations: None, platform: None }
    }

    pub(crate) fn of_layer(codec: Codec, digest: Digest, size: Bytes) -> Self {
        let media_type = match codec {
            Codec::Plain => "application/vnd.oci.image.layer.v1.tar",
            Codec::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Codec::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        Self { media_type: media_type.to_owned(), digest, size: size.0, annotations: None, platform: None }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn within(&self, limit: Bytes) -> Result<(), InvalidDocument> {
        let size = Bytes(self.size);
        if size > limit {
            Err(InvalidDocument::TooLarge { digest: self.digest, size, limit })
        } else {
            Ok(())
        }
    }
}

impl Platform {
    /// What runs on this machine.
    pub(crate) fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |text: &str| text.chars().take(50).flat_map(char::escape_debug).collect::<String>();
        write!(f, "{}/{}", shown(&self.os), shown(&self.architecture))
    }
}

pub(crate) fn write_digest<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

pub(crate) fn read_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(layers: usize) -> Manifest {
        let layer = Descriptor::of_layer(Codec::Gzip, Digest([2; 32]), Bytes(20));
        Manifest { config: Descriptor::of_config(Digest([1; 32]), Bytes(10)), layers: vec![layer; layers] }
    }

    /// The manifest with `more` in front of its first field.
    fn with(more: &str) -> Vec<u8> {
        String::from_utf8(manifest(1).write()).unwrap().replacen('{', &format!("{{{more},"), 1).into_bytes()
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        assert_eq!(Manifest::parse(&manifest(2).write()).unwrap(), manifest(2));
        assert_eq!(manifest(2).size(), Bytes(50));
    }

    #[test]
    fn a_document_is_one_thing_and_says_so() {
        let parse = |text: &[u8]| Document::parse(text).unwrap_err();
        assert!(matches!(parse(&with(r#""manifests":[]"#)), InvalidDocument::Ambiguous));
        assert!(matches!(parse(br#"{"schemaVersion":2}"#), InvalidDocument::Neither));
        assert!(matches!(parse(br#"{"schemaVersion":1}"#), InvalidDocument::Version(1)));
        let index =
            br#"{"schemaVersion":2,"manifests":[],"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
        assert!(matches!(parse(index), InvalidDocument::MediaType(_)));
        assert!(matches!(
            Manifest::parse(br#"{"schemaVersion":2,"manifests":[]}"#),
            Err(InvalidDocument::Index)
        ));
    }

    #[test]
    fn hostile_numbers_and_nesting_are_refused() {
        let nested = "[".repeat(100_000);
        assert!(matches!(Document::parse(nested.as_bytes()), Err(InvalidDocument::Json(_))));
        for layers in [0, 128] {
            assert!(
                matches!(Document::parse(&manifest(layers).write()), Err(InvalidDocument::Layers(n)) if n == layers)
            );
        }
        let mut huge = manifest(1);
        huge.layers[0].size = u64::MAX;
        assert!(matches!(Document::parse(&huge.write()), Err(InvalidDocument::TooLarge { .. })));
        let negative = String::from_utf8(manifest(1).write()).unwrap().replace("\"size\":20", "\"size\":-1");
        assert!(matches!(Document::parse(negative.as_bytes()), Err(InvalidDocument::Json(_))));
    }

    #[test]
    fn an_artifact_is_no_image() {
        let mut chart = manifest(1);
        "application/vnd.cncf.helm.config.v1+json".clone_into(&mut chart.config.media_type);
        assert!(matches!(Document::parse(&chart.write()), Err(InvalidDocument::Artifact(_))));
    }
}
