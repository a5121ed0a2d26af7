//! From a name to the one manifest that this machine runs.

use std::collections::BTreeSet;
use std::error::Error;

use model::{Bytes, Digest};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tokio::time::timeout;

use super::failure::RequestError;
use super::session::{Access, Session};
use super::settings::Credentials;
use super::transport::{Answer, Call};
use super::{Client, Reference, RegistryHost, Target};
use crate::blob::digest_of;
use crate::document::{Descriptor, Document, InvalidDocument, Kind, Manifest, Platform, listed, shown};
use crate::limits;

/// Where a registry says what its answer is.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";

/// Indexes lead to manifests; one within another is seen, and more never.
const NESTING: usize = 4;

/// What a name stands for at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest for this machine's platform: what the store calls the image by.
    pub manifest: Digest,
    /// The manifest's own.
    pub size: Bytes,
    pub media_type: String,
    /// What led to it, where the name stands for images for several platforms.
    pub index: Option<Digest>,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("cannot look up {image}")]
    Request { image: String, source: Box<RequestError> },
    #[error("registry {host} does not keep its word on {image}: it announces {said} and sends {found}")]
    WrongDigest { host: RegistryHost, image: String, said: Digest, found: Digest },
    #[error("registry {host} does not keep its word on {image}: it announces {said} and sends {found}")]
    WrongSize { host: RegistryHost, image: String, said: Bytes, found: Bytes },
    #[error("what registry {host} has as {image} is not acceptable")]
    Document { host: RegistryHost, image: String, source: Box<InvalidDocument> },
    #[error("{image} is not made for this machine, which is {wanted}: there is {found}")]
    Platform { image: String, wanted: String, found: String },
    #[error("{image} is an index of indexes beyond reason")]
    Nesting { image: String },
}

/// A manifest that was found.
pub(super) struct Found {
    /// Who had it: the registry, or one of its mirrors.
    pub(super) host: RegistryHost,
    pub(super) resolved: Resolved,
    /// Its text and what it says, if they were read.
    pub(super) read: Option<(Vec<u8>, Manifest)>,
}

/// What somebody wants to know of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// As little as possible is read: registries count it less, or not at all.
    Digest,
    Manifest,
}

/// A document to be fetched, and what was said of it.
#[derive(Clone, Debug)]
struct Wanted {
    target: Target,
    size: Option<Bytes>,
    media_type: Option<String>,
}

/// A document that is what it was said to be.
struct Fetched {
    digest: Digest,
    media_type: String,
    text: Vec<u8>,
    document: Document,
}

impl Client {
    /// What the name stands for now, for a machine like this one. Mirrors are asked before the registry itself.
    pub async fn resolve(
        &self,
        image: &Reference,
        credentials: &Credentials,
    ) -> Result<Resolved, ResolveError> {
        Ok(self.find(image, credentials, Wish::Digest).await?.resolved)
    }

    /// The image at the first mirror that has it, or at the registry, whose error is the one to hear of.
    pub(super) async fn find(
        &self,
        image: &Reference,
        credentials: &Credentials,
        wish: Wish,
    ) -> Result<Found, ResolveError> {
        let patience = self.transport.settings.timeouts.mirror;
        for mirror in self.transport.settings.mirrors(image.host()) {
            match timeout(patience, self.find_at(mirror, image, credentials, wish)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => {
                    let error = &error as &(dyn Error + 'static);
                    tracing::warn!(%mirror, %image, error, "a mirror does not help");
                }
                Err(_) => tracing::warn!(%mirror, %image, ?patience, "a mirror does not answer"),
            }
        }
        self.find_at(image.host(), image, credentials, wish).await
    }

    async fn find_at(
        &self,
        host: &RegistryHost,
        image: &Reference,
        credentials: &Credentials,
        wish: Wish,
    ) -> Result<Found, ResolveError> {
        let session = Session::new(self, host, image.repository(), Access::Read, credentials.get(host)).await;
        let looking = Looking { session: session.map_err(|source| failed(image, source))?, image };
        let mut wanted = Wanted { target: image.target().clone(), size: None, media_type: None };
        if wish == Wish::Digest
            && let Some(announced) = looking.announced().await?
        {
            match announced {
                (resolved, Kind::Manifest) => return Ok(Found { host: host.clone(), resolved, read: None }),
                // The tag may move before the index is read, so it is read by its digest.
                (index, Kind::Index) => wanted.target = Target::Digest(index.manifest),
            }
        }
        let mut index = None;
        for _ in 0..NESTING {
            let Fetched { digest, media_type, text, document } = looking.fetch(&wanted).await?;
            let entries = match document {
                Document::Manifest(manifest) => {
                    let size = Bytes(text.len() as u64);
                    let resolved = Resolved { manifest: digest, size, media_type, index };
                    return Ok(Found { host: host.clone(), resolved, read: Some((text, manifest)) });
                }
                Document::Index(entries) => entries,
            };
            index = index.or(Some(digest));
            let chosen = looking.choose(&entries)?;
            chosen.within(limits::DOCUMENT).map_err(|source| looking.invalid(source))?;
            if wish == Wish::Digest && Kind::of(&chosen.media_type) == Some(Kind::Manifest) {
                let (size, media_type) = (Bytes(chosen.size), chosen.media_type.clone());
                let resolved = Resolved { manifest: chosen.digest, size, media_type, index };
                return Ok(Found { host: host.clone(), resolved, read: None });
            }
            wanted = Wanted {
                target: Target::Digest(chosen.digest),
                size: Some(Bytes(chosen.size)),
                media_type: Some(chosen.media_type.clone()),
            };
        }
        Err(ResolveError::Nesting { image: image.to_string() })
    }
}

fn failed(image: &Reference, source: RequestError) -> ResolveError {
    ResolveError::Request { image: image.to_string(), source: Box::new(source) }
}

struct Looking<'a> {
    session: Session<'a>,
    image: &'a Reference,
}

impl Looking<'_> {
    /// What the registry says of the image without giving it; `None` if that is not enough to go by.
    async fn announced(&self) -> Result<Option<(Resolved, Kind)>, ResolveError> {
        let target = self.image.target();
        let mut call = Call::get(self.session.url(&format!("manifests/{target}")));
        call.method = reqwest::Method::HEAD;
        let answer =
            self.session.send(&accepting(call)).await.map_err(|source| failed(self.image, source))?;
        match answer.status() {
            StatusCode::OK => {}
            // A body says more, but here it would only be refused once more, and counted once more.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                return Err(failed(self.image, self.session.refusal(answer, &self.what()).await));
            }
            // Not everybody does HEAD; why there is nothing is told by GET.
            _ => return Ok(None),
        }
        let Some((manifest, size, media_type, kind)) = announcement(&answer) else { return Ok(None) };
        if let Target::Digest(asked) = target
            && *asked != manifest
        {
            return Err(self.wrong_digest(*asked, manifest));
        }
        Ok(Some((Resolved { manifest, size, media_type, index: None }, kind)))
    }

    /// Reads a manifest or an index, and holds it against all that was said of it.
    async fn fetch(&self, wanted: &Wanted) -> Result<Fetched, ResolveError> {
        let failed = |source| failed(self.image, source);
        let call = Call::get(self.session.url(&format!("manifests/{}", wanted.target)));
        let answer = self.session.send(&accepting(call)).await.map_err(failed)?;
        let answer = self.session.expect(answer, StatusCode::OK, &self.what()).await.map_err(failed)?;
        let media_type = media_type(&answer).unwrap_or_default();
        // Of another algorithm there is nothing to be held against.
        let said = answer.header(CONTENT_DIGEST).and_then(|said| said.parse::<Digest>().ok());
        let text = answer.text("a manifest", limits::DOCUMENT).await.map_err(failed)?;
        let digest = digest_of(&text);
        let asked = match wanted.target {
            Target::Digest(asked) => Some(asked),
            Target::Tag(_) => None,
        };
        if let Some(said) = [asked, said].into_iter().flatten().find(|said| *said != digest) {
            return Err(self.wrong_digest(said, digest));
        }
        let found = Bytes(text.len() as u64);
        if let Some(said) = wanted.size.filter(|said| *said != found) {
            let (host, image) = (self.session.peer.host.clone(), self.image.to_string());
            return Err(ResolveError::WrongSize { host, image, said, found });
        }
        let document = Document::parse_as(&text, &media_type).map_err(|source| self.invalid(source))?;
        if let Some(said) = wanted.media_type.as_ref().filter(|said| **said != media_type) {
            let (sent_as, is) = (shown(said), format!("`{}`", shown(&media_type)));
            return Err(self.invalid(InvalidDocument::SentAs { sent_as, is }));
        }
        Ok(Fetched { digest, media_type, text, document })
    }

    /// The index's one entry for a machine like this.
    fn choose<'e>(&self, entries: &'e [Descriptor]) -> Result<&'e Descriptor, ResolveError> {
        let here = Platform::here();
        choose(entries, &here).map_err(|found| {
            let (image, wanted) = (self.image.to_string(), here.to_string());
            ResolveError::Platform { image, wanted, found }
        })
    }

    /// What is asked for, within the registry.
    fn what(&self) -> String {
        let separator = match self.image.target() {
            Target::Tag(_) => ':',
            Target::Digest(_) => '@',
        };
        format!("{}{separator}{}", self.image.repository(), self.image.target())
    }

    fn wrong_digest(&self, said: Digest, found: Digest) -> ResolveError {
        let (host, image) = (self.session.peer.host.clone(), self.image.to_string());
        ResolveError::WrongDigest { host, image, said, found }
    }

    fn invalid(&self, source: InvalidDocument) -> ResolveError {
        let (host, image) = (self.session.peer.host.clone(), self.image.to_string());
        ResolveError::Document { host, image, source: Box::new(source) }
    }
}

fn accepting(call: Call) -> Call {
    let types = HeaderValue::try_from(Kind::accepted()).expect("media types can stand in a header");
    call.with(ACCEPT, types)
}

/// Without its parameters.
fn media_type(answer: &Answer) -> Option<String> {
    let written = answer.header(CONTENT_TYPE)?;
    Some(written.split(';').next().unwrap_or(written).trim().to_owned())
}

/// Digest, size and type, if the headers have them all and they are of use. Not everybody knows the length of what is not
/// sent.
fn announcement(answer: &Answer) -> Option<(Digest, Bytes, String, Kind)> {
    let digest = answer.header(CONTENT_DIGEST)?.parse().ok()?;
    let size = Bytes(answer.header(CONTENT_LENGTH)?.parse().ok()?);
    let media_type = media_type(answer)?;
    let kind = Kind::of(&media_type)?;
    (size > Bytes(0) && size <= limits::DOCUMENT).then_some((digest, size, media_type, kind))
}

/// The entry that suits the machine best, the first of several such; or which platforms there are instead.
fn choose<'a>(entries: &'a [Descriptor], machine: &Platform) -> Result<&'a Descriptor, String> {
    let images = || {
        let images = entries.iter().filter(|entry| !entry.is_attestation());
        images.filter(|entry| Kind::of(&entry.media_type).is_some())
    };
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(platform) => platform.fits(machine).map(|level| (true, level)),
        // It may be for anything: what it is for is seen in its configuration, before its layers are fetched.
        None => Some((false, 0)),
    };
    let mut best: Option<(&Descriptor, (bool, u8))> = None;
    for entry in images() {
        if let Some(rank) = rank(entry)
            && best.is_none_or(|(_, known)| rank > known)
        {
            best = Some((entry, rank));
        }
    }
    best.map(|(entry, _)| entry).ok_or_else(|| {
        let platforms = images().filter_map(|entry| entry.platform.as_ref());
        let platforms = platforms.filter(|platform| !platform.is_unknown()).map(ToString::to_string);
        let platforms: BTreeSet<String> = platforms.collect();
        if platforms.is_empty() { "nothing at all".to_owned() } else { listed(&platforms) }
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// What is chosen of an index with entries of these types and platforms, on a machine of this platform.
    #[track_caller]
    fn check(machine: &str, index: &[&str], expected: Expect) {
        let entries = index.iter().enumerate().map(|(number, entry)| {
            let (kind, annotations) = match *entry {
                "attestation" => ("manifest", r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#),
                "index" => ("index", ""),
                _ => ("manifest", ""),
            };
            let platform = platform(entry).map_or_else(String::new, |p| {
                let variant = p.variant.map_or_else(String::new, |v| format!(r#","variant":"{v}""#));
                format!(r#","platform":{{"os":"{}","architecture":"{}"{variant}}}"#, p.os, p.architecture)
            });
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}.v1+json","digest":"{}","size":{number}{platform}{annotations}}}"#,
                Digest([0; 32]),
            )
        });
        let text =
            format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.collect::<Vec<_>>().join(","));
        let Ok(Document::Index(entries)) = Document::parse(text.as_bytes()) else { panic!("{text}") };
        let machine = platform(machine).unwrap();
        let found = match choose(&entries, &machine) {
            // The size is the number of the entry.
            Ok(entry) => format!("{} of {index:?}", entry.size),
            Err(platforms) => format!("none, but {platforms}"),
        };
        expected.assert_eq(&found);
    }

    fn platform(text: &str) -> Option<Platform> {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next()?, parts.next()?);
        Some(Platform { os, architecture, variant: parts.next() })
    }

    #[test]
    fn the_entry_that_suits_the_machine_best_is_chosen() {
        let usual = ["linux/arm64/v8", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"];
        check(
            "linux/amd64",
            &usual,
            expect![[
                r#"1 of ["linux/arm64/v8", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"]"#
            ]],
        );
        check(
            "linux/arm64",
            &usual,
            expect![[
                r#"0 of ["linux/arm64/v8", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"]"#
            ]],
        );
        check(
            "linux/arm/v7",
            &usual,
            expect![[
                r#"3 of ["linux/arm64/v8", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"]"#
            ]],
        );
        check(
            "linux/arm/v6",
            &usual,
            expect![[
                r#"2 of ["linux/arm64/v8", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"]"#
            ]],
        );
        check(
            "linux/amd64",
            &["linux/amd64/v3", "linux/amd64", "linux/amd64"],
            expect![[r#"1 of ["linux/amd64/v3", "linux/amd64", "linux/amd64"]"#]],
        );
        check("linux/amd64", &["nothing", "linux/amd64"], expect![[r#"1 of ["nothing", "linux/amd64"]"#]]);
        check("linux/amd64", &["linux/arm64", "nothing"], expect![[r#"1 of ["linux/arm64", "nothing"]"#]]);
        check("linux/amd64", &["index"], expect![[r#"0 of ["index"]"#]]);
    }

    #[test]
    fn where_none_suits_the_others_are_named() {
        check(
            "linux/s390x",
            &["linux/arm64/v8", "linux/amd64", "linux/amd64", "attestation"],
            expect!["none, but linux/amd64, linux/arm64/v8"],
        );
        check("linux/amd64", &["linux/amd64/v3"], expect!["none, but linux/amd64/v3"]);
        check("linux/amd64", &["attestation"], expect!["none, but nothing at all"]);
        // An attestation that came through a tool which left its annotations out.
        check("linux/amd64", &["linux/arm64", "unknown/unknown"], expect!["none, but linux/arm64"]);
        check("linux/amd64", &[], expect!["none, but nothing at all"]);
    }
}
