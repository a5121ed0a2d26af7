//! The JSON documents that describe an image: manifest and index, in OCI's form and in Docker's, which only differ in
//! their media types. (OCI image specification 1.1, "Image Manifest" and "Image Index".)
//!
//! `oci-spec` has these types too, but keeps its maps in hash order, so that what it writes differs from one run to the
//! next; here the same archive has to give the same digest. And it takes a document that is manifest and index at once.

use std::collections::{BTreeMap, BTreeSet};

use model::{Bytes, Digest};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decompress::Codec;
use crate::limits;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The last four are no images' own: registries once called everything so, and Docker pulls what they left behind. What is
/// no configuration fails when it is read as one.
const CONFIGS: [&str; 6] = [
    CONFIG,
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] = [MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"];

/// What Docker wrote before 2017. Its layers have no digests that would hold for what it describes.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Marks buildkit's attestations, which stand beside images but are none.
const REFERENCE: &str = "vnd.docker.reference.type";

#[derive(Debug, thiserror::Error)]
pub enum InvalidDocument {
    #[error("it is not the JSON of a manifest or index")]
    Json(#[source] serde_json::Error),
    #[error("it has schema version {0}; gantry knows version 2")]
    Version(u32),
    #[error(
        "it is of Docker's schema 1, which is obsolete: push the image again with a tool from after 2017"
    )]
    Schema1,
    #[error("it is manifest and index at once")]
    Ambiguous,
    #[error("it is neither a manifest nor an index")]
    Neither,
    #[error("its media type `{0}` is not what it is")]
    MediaType(String),
    #[error("it came as `{0}`, which is neither a manifest nor an index")]
    Unknown(String),
    #[error("it came as `{sent_as}`, but is {is}")]
    SentAs { sent_as: String, is: String },
    #[error("it is an index where a manifest is needed")]
    Index,
    #[error("its configuration has media type `{0}`: it is an artifact and no container image")]
    Artifact(String),
    #[error("it has {0} layers; an image has 1 to {most}", most = limits::LAYERS)]
    Layers(usize),
    #[error(
        "layer {0} is to be fetched from addresses in the manifest (a foreign layer), which gantry never does"
    )]
    Foreign(Digest),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    urls: Option<Vec<String>>,
}

/// In the words of Go: `linux`, `amd64`, and perhaps a variant such as `v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
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

/// What a media type announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Index,
}

impl Kind {
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        if MANIFESTS.contains(&media_type) {
            Some(Self::Manifest)
        } else if INDEXES.contains(&media_type) {
            Some(Self::Index)
        } else {
            None
        }
    }

    /// All of them, as a registry is asked for them (`Accept`).
    pub(crate) fn accepted() -> String {
        MANIFESTS.into_iter().chain(INDEXES).collect::<Vec<_>>().join(", ")
    }
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
        Self::read(text).map(|(document, _)| document)
    }

    /// Reads a document as the `Content-Type` with which it came. Whoever goes by that and whoever goes by the content
    /// must come to the same image (CVE-2021-41190).
    pub(crate) fn parse_as(text: &[u8], sent_as: &str) -> Result<Self, InvalidDocument> {
        if SCHEMA_1.contains(&sent_as) {
            return Err(InvalidDocument::Schema1);
        }
        let kind = Kind::of(sent_as).ok_or_else(|| InvalidDocument::Unknown(shown(sent_as)))?;
        let (document, media_type) = Self::read(text)?;
        let differs = |is: &str| InvalidDocument::SentAs { sent_as: shown(sent_as), is: is.to_owned() };
        match (kind, &document) {
            (Kind::Manifest, Self::Manifest(_)) | (Kind::Index, Self::Index(_)) => {}
            (Kind::Manifest, Self::Index(_)) => return Err(differs("an index")),
            (Kind::Index, Self::Manifest(_)) => return Err(differs("a manifest")),
        }
        match media_type {
            Some(media_type) if media_type != sent_as => Err(differs(&format!("`{}`", shown(&media_type)))),
            Some(_) | None => Ok(document),
        }
    }

    /// The media type under which a manifest of this text is to be pushed.
    pub(crate) fn media_type(text: &[u8]) -> Result<String, InvalidDocument> {
        Ok(Self::read(text)?.1.unwrap_or_else(|| MANIFEST.to_owned()))
    }

    /// The document, and what it calls itself.
    fn read(text: &[u8]) -> Result<(Self, Option<String>), InvalidDocument> {
        let read: Read = read_json(text).map_err(InvalidDocument::Json)?;
        let Read { schema_version, media_type, config, layers, manifests } = read;
        match schema_version {
            2 => {}
            1 => return Err(InvalidDocument::Schema1),
            other => return Err(InvalidDocument::Version(other)),
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
                Err(InvalidDocument::MediaType(shown(&media_type)))
            }
            media_type => Ok((document, media_type)),
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
        if !CONFIGS.contains(&self.config.media_type.as_str()) {
            return Err(InvalidDocument::Artifact(shown(&self.config.media_type)));
        }
        if self.layers.is_empty() || self.layers.len() > limits::LAYERS {
            return Err(InvalidDocument::Layers(self.layers.len()));
        }
        self.config.within(limits::DOCUMENT)?;
        // What they lead to is no registry's, and would be asked by the daemon from inside of the user's network.
        let has_urls = |layer: &&Descriptor| layer.urls.as_ref().is_some_and(|urls| !urls.is_empty());
        if let Some(foreign) = self.layers.iter().find(has_urls) {
            return Err(InvalidDocument::Foreign(foreign.digest));
        }
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
        Self::new(CONFIG, digest, size)
    }

    pub(crate) fn of_layer(codec: Codec, digest: Digest, size: Bytes) -> Self {
        let media_type = match codec {
            Codec::Plain => "application/vnd.oci.image.layer.v1.tar",
            Codec::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Codec::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        Self::new(media_type, digest, size)
    }

    /// A layer as OCI's manifests name it. Docker's media types differ, and its layers do not.
    pub(crate) fn as_oci(&self) -> Self {
        let codec = match self.media_type.as_str() {
            zstd if zstd.ends_with("zstd") => Codec::Zstd,
            gzip if gzip.ends_with("gzip") => Codec::Gzip,
            _plain => Codec::Plain,
        };
        Self::of_layer(codec, self.digest, Bytes(self.size))
    }

    fn new(media_type: &str, digest: Digest, Bytes(size): Bytes) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, annotations: None, platform: None, urls: None }
    }

    pub(crate) fn is_attestation(&self) -> bool {
        self.annotation(REFERENCE).is_some()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn within(&self, limit: Bytes) -> Result<(), InvalidDocument> {
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
            "loongarch64" => "loong64",
            other => other,
        };
        // Every later board has v7, also under a 64-bit kernel, which says `aarch64`.
        let is_v6 = || rustix::system::uname().machine().to_bytes().starts_with(b"armv6");
        let variant = match architecture {
            "arm" if is_v6() => Some("v6"),
            "arm" => Some("v7"),
            _ => None,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// What buildkit says of what is no image, whoever may have lost its other marks on the way.
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown"
    }

    /// The same system and processor, whatever the variant.
    pub(crate) fn is_kin(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }

    /// How well a machine runs what is for this platform: the most is best, and `None` is not at all. As containerd has
    /// it: what names no variant is for arm v7, and elsewhere for what all such machines have.
    pub(crate) fn fits(&self, machine: &Self) -> Option<u8> {
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty());
        if !self.is_kin(machine) {
            return None;
        }
        match (self.architecture.as_str(), variant) {
            // Newer processors run what is for older ones.
            ("arm", variant) => {
                let (wanted, here) = (arm_level(variant)?, arm_level(machine.variant.as_deref())?);
                (wanted <= here).then_some(wanted)
            }
            // `amd64/v3` and the like crash on half of the machines, and one digest is for the whole cluster.
            ("amd64", Some("v1")) | ("arm64", Some("v8")) | (_, None) => Some(0),
            (_, Some(_)) => None,
        }
    }
}

fn arm_level(variant: Option<&str>) -> Option<u8> {
    match variant {
        Some("v5") => Some(5),
        Some("v6") => Some(6),
        Some("v7") | None => Some(7),
        Some(_) => None,
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", shown(&self.os), shown(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", shown(variant)),
            None => Ok(()),
        }
    }
}

/// What somebody else wrote, so that it does no harm to a terminal or a log.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

/// A sentence with what somebody else wrote in it, on one line and no longer than so many characters. Quotes may stay; what
/// cannot be printed is a blank.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let is_plain = |c: char| matches!(c, '"' | '\'' | '\\') || c.escape_debug().count() == 1;
    text.trim().chars().take(most).map(|c| if is_plain(c) { c } else { ' ' }).collect()
}

/// Which platforms there are, for people: an index has room for some ten thousand.
pub(crate) fn listed(platforms: &BTreeSet<String>) -> String {
    const MOST: usize = 16;
    let mut listed = platforms.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    if platforms.len() > MOST {
        listed.push_str(&format!(" and {} more", platforms.len() - MOST));
    }
    listed
}

/// Reads JSON that somebody else wrote. What the parser complains of it quotes, all of it: in place of a number it may find
/// four megabytes of text.
pub(crate) fn read_json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    const COMPLAINT: usize = 300;
    serde_json::from_slice(text)
        .map_err(|error| serde_json::Error::custom(printable(&error.to_string(), COMPLAINT)))
}

pub(crate) fn write_digest<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

pub(crate) fn read_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

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
        assert!(matches!(parse(br#"{"schemaVersion":1}"#), InvalidDocument::Schema1));
        assert!(matches!(parse(br#"{"schemaVersion":3}"#), InvalidDocument::Version(3)));
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
    fn a_document_is_what_it_was_sent_as() {
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let refused = |text: &[u8], sent_as: &str| Document::parse_as(text, sent_as).unwrap_err().to_string();
        let text = manifest(1).write();
        assert!(Document::parse_as(&text, MANIFEST).is_ok());
        expect![[r#"it came as `application/vnd.docker.distribution.manifest.v2+json`, but is `application/vnd.oci.image.manifest.v1+json`"#]]
            .assert_eq(&refused(&text, docker));
        expect!["it came as `application/vnd.oci.image.index.v1+json`, but is a manifest"]
            .assert_eq(&refused(&text, INDEXES[0]));
        expect!["it came as `text/html`, which is neither a manifest nor an index"]
            .assert_eq(&refused(&text, "text/html"));
        expect![
            "it is of Docker's schema 1, which is obsolete: push the image again with a tool from after 2017"
        ]
        .assert_eq(&refused(b"{}", SCHEMA_1[1]));
    }

    #[test]
    fn a_layer_from_elsewhere_is_refused() {
        let mut foreign = manifest(2);
        foreign.layers[1].urls = Some(vec!["https://elsewhere.example/layer".to_owned()]);
        assert!(matches!(Document::parse(&foreign.write()), Err(InvalidDocument::Foreign(_))));
        foreign.layers[1].urls = Some(Vec::new());
        assert!(Document::parse(&foreign.write()).is_ok());
    }

    #[test]
    fn a_machine_runs_what_is_for_it_and_for_older_ones_of_its_kind() {
        let platform = |architecture: &str, variant: Option<&str>| Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        };
        let fits = |of: (&str, Option<&str>), machine: (&str, Option<&str>)| {
            platform(of.0, of.1).fits(&platform(machine.0, machine.1))
        };
        let (amd64, arm64, v7, v6) =
            (("amd64", None), ("arm64", None), ("arm", Some("v7")), ("arm", Some("v6")));
        assert_eq!(fits(amd64, amd64), Some(0));
        assert_eq!(fits(("amd64", Some("v1")), amd64), Some(0));
        assert_eq!(fits(("amd64", Some("v3")), amd64), None);
        assert_eq!(fits(("arm64", Some("v8")), arm64), Some(0));
        assert_eq!(fits(arm64, amd64), None);
        assert_eq!(fits(v6, v7), Some(6));
        assert_eq!(fits(("arm", None), v7), Some(7));
        assert_eq!(fits(v7, v6), None);
        assert!(fits(v7, v7) > fits(("arm", Some("v5")), v7));
        assert!(Platform::here().fits(&Platform::here()).is_some());
    }

    #[test]
    fn an_artifact_is_no_image() {
        let mut old = manifest(1);
        "application/octet-stream".clone_into(&mut old.config.media_type);
        assert!(Document::parse(&old.write()).is_ok());
        let mut chart = manifest(1);
        "application/vnd.cncf.helm.config.v1+json".clone_into(&mut chart.config.media_type);
        assert!(matches!(Document::parse(&chart.write()), Err(InvalidDocument::Artifact(_))));
    }

    #[test]
    fn what_a_document_says_is_neither_obeyed_nor_repeated_at_length() {
        let long = "\u{1b}[2J\u{202e}".repeat(100_000);
        let mut artifact = manifest(1);
        artifact.config.media_type.clone_from(&long);
        let text = String::from_utf8(manifest(1).write()).unwrap();
        let quoted = serde_json::to_string(&long).unwrap();
        let not_a_number = text.replacen("\"size\":10", &format!("\"size\":{quoted}"), 1);
        assert_ne!(text, not_a_number);
        for document in [artifact.write(), not_a_number.into_bytes()] {
            let error = Document::parse(&document).unwrap_err();
            let text = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(text.chars().count() < 2000 && !text.contains(['\u{1b}', '\u{202e}']), "{text}");
        }
        let platforms = (0..10_000).map(|number| format!("linux/{number:05}")).collect();
        assert!(listed(&platforms).ends_with("linux/00015 and 9984 more"), "{}", listed(&platforms));
        assert_eq!(printable(" it's \"a\\b\"\n\u{2028}\u{7f}ö ", 100), "it's \"a\\b\"   ö");
    }
}
