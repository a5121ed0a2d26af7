//! The registry that most others are built on (Debian's `docker-registry`), with `skopeo` as a client that is not ours.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use image::registry::{Checked, Credentials, LayerState, Progress, Reference, RegistryHost, Resolved};
use model::{Bytes, Digest, ImageName};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::archive::{Blobs, LAYOUT, Tar, blobs, chain, config, digest, index, oci_layout};
use crate::server::MANIFEST;
use crate::shared::{Shelf, client, credentials, manifest_digest, password};

/// `user` with the password `secret`, by bcrypt.
const USERS: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// The real thing, on a port of its own. It ends, and all that it keeps goes, with this.
struct Registry {
    process: Child,
    address: SocketAddr,
    /// Where skopeo keeps what it copies, too.
    root: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Registry {
    /// For everybody, or for the one user.
    fn start(is_guarded: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let users = root.path().join("users");
        fs::write(&users, USERS).unwrap();
        let guard = format!("auth: {{htpasswd: {{realm: gantry, path: {}}}}}\n", users.display());
        let settings = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:0}}\n{}",
            root.path().join("kept").display(),
            if is_guarded { guard.as_str() } else { "" },
        );
        let (file, log) = (root.path().join("config.yml"), root.path().join("log"));
        fs::write(&file, settings).unwrap();
        let mut command = program("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut process = command.spawn().unwrap_or_else(|error| missing("docker-registry", &error));
        let address = listening(&log, &mut process);
        Self { process, address, root }
    }

    fn host(&self) -> RegistryHost {
        self.address.to_string().parse().unwrap()
    }

    fn image(&self, name: &str) -> Reference {
        let name: ImageName = format!("{}/{name}", self.address).parse().unwrap();
        Reference::try_from(&name).unwrap()
    }

    /// The same image as skopeo calls it.
    fn docker(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address)
    }

    /// An OCI layout of the image, as skopeo calls it.
    fn layout(&self, image: &Blobs) -> String {
        let folder = self.root.path().join("layout");
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        for (digest, content) in &image.all {
            fs::write(folder.join("blobs/sha256").join(&digest["sha256:".len()..]), content).unwrap();
        }
        let name = r#""org.opencontainers.image.ref.name":"v1""#;
        fs::write(folder.join("index.json"), index(&[image], name)).unwrap();
        fs::write(folder.join("oci-layout"), LAYOUT).unwrap();
        format!("oci:{}:v1", folder.display())
    }
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}

fn missing(name: &str, error: &std::io::Error) -> ! {
    panic!("cannot start {name}: {error} (Debian's package {name}; `cargo xtask test` installs it)")
}

/// Where it says that it listens, which it is waited for.
fn listening(log: &Path, process: &mut Child) -> SocketAddr {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let text = fs::read_to_string(log).unwrap();
        let said = text.split_once("listening on ").and_then(|(_, rest)| rest.split_once('"'));
        if let Some((address, _)) = said {
            return address.parse().unwrap();
        }
        assert!(process.try_wait().unwrap().is_none() && Instant::now() < deadline, "{text}");
        std::thread::yield_now();
    }
}

/// What skopeo writes.
fn skopeo(arguments: &[&str]) -> String {
    let mut command = program("skopeo");
    command.arg("--insecure-policy").args(arguments);
    let output = command.output().unwrap_or_else(|error| missing("skopeo", &error));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Compressed, so that skopeo has no reason to make another image of it.
fn compressed() -> Blobs {
    let layers = ["one", "two"].map(|name| {
        // Hardly compressible, so that it comes in more than a few pieces.
        let content: Vec<u8> = (0..60_000).flat_map(|n: u32| crc(n).to_le_bytes()).collect();
        Tar::new().file(name, content).bytes()
    });
    let packed = layers.each_ref().map(|layer| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(layer).unwrap();
        encoder.finish().unwrap()
    });
    let image = blobs(&config(&layers), &packed);
    let typed = String::from_utf8(image.manifest).unwrap().replace("layer.v1.tar\"", "layer.v1.tar+gzip\"");
    let mut all: std::collections::BTreeMap<String, Vec<u8>> =
        packed.into_iter().map(|layer| (digest(&layer), layer)).collect();
    let config = config(&layers).into_bytes();
    all.insert(digest(&config), config);
    all.insert(digest(typed.as_bytes()), typed.clone().into_bytes());
    Blobs { manifest: typed.into_bytes(), all }
}

/// Numbers without an order.
fn crc(n: u32) -> u32 {
    (0..32).fold(n.wrapping_mul(0x9e37_79b9), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
}

#[tokio::test]
async fn what_skopeo_pushed_is_pulled() {
    let (registry, image) = (Registry::start(false), compressed());
    skopeo(&["copy", "--dest-tls-verify=false", &registry.layout(&image), &registry.docker("team/app:v1")]);
    let (client, name, shelf) = (client(&[]), registry.image("team/app:v1"), Shelf::new());
    let expected = Resolved {
        manifest: manifest_digest(&image),
        size: Bytes(image.manifest.len() as u64),
        media_type: MANIFEST.to_owned(),
        index: None,
    };
    assert_eq!(client.resolve(&name, &Credentials::anonymous()).await.unwrap(), expected);
    assert_eq!(shelf.pull(&client, &name).await.unwrap().manifest, expected.manifest);
    for (digest, content) in &image.all {
        let digest: Digest = digest.parse().unwrap();
        let mut pulled = Vec::new();
        std::io::Read::read_to_end(&mut shelf.store.open_blob(&digest).unwrap(), &mut pulled).unwrap();
        assert!(pulled == *content, "{digest} differs");
    }
    let absent = shelf.pull(&client, &registry.image("team/app:v2")).await.unwrap_err();
    assert!(chain(&absent).contains("has no team/app:v2 (it says: manifest unknown)"), "{}", chain(&absent));
}

#[tokio::test]
async fn what_was_pushed_is_read_by_skopeo() {
    let (registry, image, shelf) = (Registry::start(false), compressed(), Shelf::new());
    let imported = shelf.store.import(oci_layout(&image, "").as_slice(), &mut |_| {}).unwrap().digest;
    let (client, name) = (client(&[]), registry.image("team/app:v1"));
    let progress = watch::Sender::new(Progress::default());
    let nobody = Credentials::anonymous();
    client.push(&shelf.store, &imported, &name, &nobody, &progress).await.unwrap();
    assert!(progress.borrow().layers.iter().all(|layer| layer.state == LayerState::Done));
    let docker = registry.docker("team/app:v1");
    let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &docker]);
    assert_eq!(raw.as_bytes(), image.manifest);
    let copy = registry.root.path().join("copy");
    skopeo(&["copy", "--src-tls-verify=false", &docker, &format!("oci:{}:v1", copy.display())]);
    for digest in image.all.keys() {
        assert!(
            copy.join("blobs/sha256").join(&digest["sha256:".len()..]).exists(),
            "{digest} was not copied"
        );
    }
    client.push(&shelf.store, &imported, &name, &nobody, &progress).await.unwrap();
    assert!(progress.borrow().layers.iter().all(|layer| layer.state == LayerState::Exists));
    let other = Shelf::new();
    other.pull(&client, &name).await.unwrap();
    assert_eq!(other.store.list(), shelf.store.list());
}

#[tokio::test]
async fn a_registry_with_a_password_lets_in_who_knows_it() {
    let (registry, image, shelf) = (Registry::start(true), compressed(), Shelf::new());
    let (client, name) = (client(&[]), registry.image("team/app:v1"));
    assert_eq!(client.check(&registry.host(), &password("secret")).await.unwrap(), Checked::Accepted);
    let wrong = client.check(&registry.host(), &password("wrong")).await.unwrap_err();
    assert!(chain(&wrong).contains("does not accept the credentials of user"), "{}", chain(&wrong));

    let login = "--dest-creds=user:secret";
    let docker = registry.docker("team/app:v1");
    skopeo(&["copy", login, "--dest-tls-verify=false", &registry.layout(&image), &docker]);
    let nobody = shelf.pull(&client, &name).await.unwrap_err();
    assert!(chain(&nobody).contains("may not be used without logging in"), "{}", chain(&nobody));
    let mine = credentials(&registry.host(), password("secret"));
    let pulled = shelf.pull_as(&client, &name, &mine).await.unwrap().manifest;
    assert_eq!(pulled, manifest_digest(&image));

    let (copy, progress) = (registry.image("team/copy:v1"), watch::Sender::new(Progress::default()));
    client.push(&shelf.store, &pulled, &copy, &mine, &progress).await.unwrap();
    let docker = registry.docker("team/copy:v1");
    let raw = skopeo(&["inspect", "--creds=user:secret", "--tls-verify=false", "--raw", &docker]);
    assert_eq!(raw.as_bytes(), image.manifest);
}
