//! An image as an OCI layout in a tar (OCI image specification 1.1, "Image Layout"), which gantry, podman, skopeo and Docker
//! since 25 can load; with the `manifest.json` beside it that older Dockers look for (what `docker save` writes).

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType};

use super::layer::header;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Docker's list of the archive's images.
const SAVED: &str = "manifest.json";

/// A piece of content, by its digest's hex digits.
struct Blob {
    hex: String,
    size: u64,
}

impl Blob {
    fn of(content: &[u8]) -> Self {
        Self { hex: hex(Sha256::digest(content).into()), size: content.len() as u64 }
    }

    fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Self { hex: hex(hasher.finalize().into()), size });
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hex)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest(), "size": self.size })
    }
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the archive of an image of uncompressed layers, lowest first. `execution` says how it wants to be run.
pub(super) fn write(archive: &Path, name: &str, execution: &Value, layers: &[PathBuf]) -> io::Result<()> {
    let blobs = layers.iter().map(|layer| Blob::of_file(layer)).collect::<io::Result<Vec<_>>>()?;
    let diff_ids: Vec<String> = blobs.iter().map(Blob::digest).collect();
    let platform = json!({ "os": "linux", "architecture": architecture() });
    let config = json!({
        "os": "linux",
        "architecture": architecture(),
        "config": execution,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string();
    let config_blob = Blob::of(config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_blob.descriptor(CONFIG),
        "layers": blobs.iter().map(|blob| blob.descriptor(LAYER)).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string();
    let manifest_blob = Blob::of(manifest.as_bytes());
    let mut descriptor = manifest_blob.descriptor(MANIFEST);
    descriptor["platform"] = platform;
    // The full name as containerd and Docker write it; the standard annotation has but the tag.
    descriptor["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{name}:latest"),
        "org.opencontainers.image.ref.name": "latest",
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor] });
    let saved = json!([{
        "Config": config_blob.path(),
        "RepoTags": [format!("{name}:latest")],
        "Layers": blobs.iter().map(Blob::path).collect::<Vec<_>>(),
    }]);

    let mut tar = Builder::new(File::create(archive)?);
    text(&mut tar, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    text(&mut tar, "index.json", &index.to_string())?;
    text(&mut tar, SAVED, &saved.to_string())?;
    text(&mut tar, &manifest_blob.path(), &manifest)?;
    text(&mut tar, &config_blob.path(), &config)?;
    for (blob, layer) in blobs.iter().zip(layers) {
        tar.append_data(&mut header(EntryType::Regular, 0o644, blob.size), blob.path(), File::open(layer)?)?;
    }
    tar.into_inner()?.sync_all()
}

/// Unpacks the layers of an archive of ours over one another.
pub(super) fn unpack(archive: &Path, into: &Path) -> io::Result<()> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("its {SAVED} {what}"));
    let mut saved = String::new();
    within(archive, SAVED, |mut entry| entry.read_to_string(&mut saved).map(drop))?;
    let saved: Value = serde_json::from_str(&saved).map_err(|_| odd("is no JSON"))?;
    let layers = saved[0]["Layers"].as_array().ok_or_else(|| odd("names no layers"))?;
    for layer in layers {
        let path = layer.as_str().ok_or_else(|| odd("has a layer without a name"))?;
        within(archive, path, |entry| Archive::new(entry).unpack(into))?;
    }
    Ok(())
}

/// Reads one file of an archive.
fn within(
    archive: &Path,
    path: &str,
    read: impl FnOnce(tar::Entry<'_, File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = Archive::new(File::open(archive)?);
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.path()? == Path::new(path) {
            return read(entry);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no {path}")))
}

fn text<W: Write>(tar: &mut Builder<W>, path: &str, text: &str) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, 0o644, text.len() as u64), path, text.as_bytes())
}

/// In Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer::Layer;
    use super::*;

    fn contents(archive: &Path) -> Vec<(String, Vec<u8>)> {
        let mut archive = Archive::new(File::open(archive).unwrap());
        let read = |entry: io::Result<tar::Entry<'_, File>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn everything_in_an_archive_is_found_by_its_digest_from_the_index_on() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, archive) = (dir.path().join("layer"), dir.path().join("archive"));
        let mut writing = Layer::create(&layer).unwrap();
        writing.dir("etc", 0o755).unwrap();
        writing.file("etc/hostname", 0o644, b"box\n").unwrap();
        writing.link("etc/also", "hostname").unwrap();
        writing.finish().unwrap();
        write(&archive, "box", &json!({ "Cmd": ["/bin/sh"] }), std::slice::from_ref(&layer)).unwrap();

        let contents = contents(&archive);
        let json = |path: &str| -> Value {
            let (_, content) = contents.iter().find(|(name, _)| name == path).unwrap();
            serde_json::from_slice(content).unwrap()
        };
        let blob = |digest: &Value| digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let index = json("index.json");
        let named = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
        assert_eq!(named, "docker.io/library/box:latest");
        let manifest = json(&blob(&index["manifests"][0]["digest"]));
        let config = json(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["config"]["Cmd"][0], "/bin/sh");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        for (path, content) in &contents {
            if let Some(digits) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digits, Blob::of(content).hex);
            }
        }
        assert_eq!(contents.last().unwrap().1, std::fs::read(&layer).unwrap());
        let saved = json("manifest.json");
        assert_eq!(saved[0]["Config"], blob(&manifest["config"]["digest"]));
        assert_eq!(saved[0]["RepoTags"][0], "box:latest");

        unpack(&archive, &dir.path().join("root")).unwrap();
        assert_eq!(std::fs::read(dir.path().join("root/etc/also")).unwrap(), b"box\n");
    }
}
