//! Images from a registry and to one, end to end: the real program, three real managers, Debian's `docker-registry`, and
//! `skopeo` as a client that is not ours. Needs root, and the packages docker-registry, skopeo, nftables and busybox-static.

#![expect(clippy::unwrap_used, reason = "helpers of tests are not in `#[test]` functions")]

#[expect(dead_code, reason = "some of it is for the other tests")]
#[path = "host/cluster.rs"]
mod cluster;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use cluster::{Call, Cluster, Ended, PATIENCE, until};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// `user` with the password `secret`, by bcrypt.
const USERS: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry for the one user, over plain http, where the cluster's nodes reach it. It ends, and all that it keeps goes, with
/// this.
struct Registry {
    process: Child,
    address: SocketAddr,
    /// For files of the test, too.
    root: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Registry {
    fn start(cluster: &Cluster) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("users"), USERS).unwrap();
        let settings = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{}:0\"}}\n\
             auth: {{htpasswd: {{realm: gantry, path: {}}}}}\n",
            path("kept").display(),
            machine(cluster),
            path("users").display(),
        );
        fs::write(path("config.yml"), settings).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path("config.yml")).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.stderr(File::create(path("log")).unwrap()).spawn();
        let mut process = process.expect("the package docker-registry is installed");
        let address = listening(&path("log"), &mut process);
        Self { process, address, root }
    }

    fn stop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }

    fn host(&self) -> String {
        self.address.to_string()
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    /// Puts an image there that says this of itself, without the cluster knowing.
    fn publish(&self, cluster: &Cluster, image: &str, version: &str) {
        let archive = self.path("seed.tar");
        cluster.user(&["image", "import", "-", "seed"]).input(rootfs(version)).end().done();
        cluster.user(&["image", "save", "seed", "-o", &archive]).end().done();
        cluster.user(&["image", "rm", "seed"]).end().done();
        let (from, to) = (format!("oci-archive:{archive}"), format!("docker://{}", self.name(image)));
        skopeo(&["copy", "--dest-creds=user:secret", "--dest-tls-verify=false", &from, &to]);
    }

    /// The digest of what the registry has under a name.
    fn digest(&self, image: &str) -> String {
        let docker = format!("docker://{}", self.name(image));
        digest(&skopeo(&["inspect", "--raw", "--creds=user:secret", "--tls-verify=false", &docker]))
    }

    fn login(&self, cluster: &Cluster, password: &str) -> Ended {
        let login = ["registry", "login", &self.host(), "-u", "user", "--password-stdin"];
        cluster.user(&login).input(format!("{password}\n")).end()
    }

    /// The cluster may use it from now on.
    fn befriend(&self, cluster: &Cluster) {
        cluster.user(&["registry", "set", &self.host(), "--insecure"]).end().done();
        self.login(cluster, "secret").done();
    }
}

/// The machine's own address in the cluster's network.
fn machine(cluster: &Cluster) -> Ipv4Addr {
    let nodes = cluster.user(&["node", "ls", "-o", "json"]).end().done();
    let nodes: Value = serde_json::from_str(&nodes).unwrap();
    let address: SocketAddr = nodes[0]["address"].as_str().unwrap().parse().unwrap();
    let IpAddr::V4(node) = address.ip() else { panic!("{address} is no address of a dev node") };
    let [a, b, c, _] = node.octets();
    Ipv4Addr::new(a, b, c, 254)
}

/// Where it says that it listens, which it is waited for.
fn listening(log: &Path, process: &mut Child) -> SocketAddr {
    let deadline = Instant::now() + PATIENCE;
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
fn skopeo(args: &[&str]) -> String {
    Call::of(Path::new("skopeo"), [&["--insecure-policy"][..], args].concat()).end().done()
}

fn digest(manifest: &str) -> String {
    let hex: String = Sha256::digest(manifest).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A file system with a shell and a file `/version`, as an archive.
fn rootfs(version: &str) -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("the package busybox-static is installed");
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, content) in
        [("bin/busybox", 0o755, busybox.as_slice()), ("version", 0o644, version.as_bytes())]
    {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Deploys stack `t` with the one service `app`, whose tasks cannot share a node.
fn deploy(cluster: &Cluster, image: &str, policy: &str, replicas: u32) -> Ended {
    let script = "trap 'exit 0' TERM; /bin/busybox sleep 1000000000 & wait";
    let compose = format!(
        "services:\n  app:\n    image: {image}\n    pull_policy: {policy}\n    \
         command: [/bin/busybox, sh, -c, \"{script}\"]\n    \
         ports: [{{target: 80, published: 8080, mode: host}}]\n    deploy: {{replicas: {replicas}}}\n"
    );
    cluster.user(&["deploy", "-f", "-", "t"]).input(compose).end()
}

/// What a running task says of itself.
fn version(cluster: &Cluster) -> String {
    cluster.user(&["exec", "t/app", "--", "/bin/busybox", "cat", "/version"]).end().done()
}

/// What the cluster knows of an image by this name.
fn listed(cluster: &Cluster, name: &str) -> Value {
    let images = cluster.user(&["image", "ls", "-o", "json"]).end().done();
    let images: Vec<Value> = serde_json::from_str(&images).unwrap();
    images.into_iter().find(|image| image["name"] == name).unwrap_or_else(|| panic!("there is no {name}"))
}

fn nodes(cluster: &Cluster) -> BTreeSet<String> {
    let tasks = cluster.user(&["ps", "t", "-o", "json"]).end().done();
    let tasks: Vec<Value> = serde_json::from_str(&tasks).unwrap();
    let running = tasks.iter().filter(|task| task["phase"] == "running");
    running.map(|task| task["node"].as_str().unwrap().to_owned()).collect()
}

/// Files of all nodes that must not have the password: what the agents wrote down of their tasks, and the logs.
fn open_files(cluster: &Cluster) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for node in ["n1", "n2", "n3"] {
        let data = cluster.disk().with_file_name(node);
        let tasks = fs::read_dir(data.join("tasks")).into_iter().flatten().flatten();
        files.extend(tasks.map(|task| task.path().join("record")).filter(|record| record.exists()));
        files.push(data.join("daemon.log"));
    }
    files
}

#[test]
fn a_deployment_pulls_what_its_registry_gives_to_whom_the_cluster_knows() {
    let cluster = Cluster::of("pull", 3);
    let registry = Registry::start(&cluster);
    registry.publish(&cluster, "team/app:v1", "one\n");
    let (host, app) = (registry.host(), registry.name("team/app:v1"));
    let set = format!("`gantry registry set {host} --insecure`");
    let service = format!("service `app`: image `{app}`: ");
    deploy(&cluster, &app, "missing", 1).refused(1, &[&service, "does not speak https", &set]);
    cluster.user(&["registry", "set", &host, "--insecure"]).end().done();
    let login = format!("`gantry registry login {host}`");
    deploy(&cluster, &app, "missing", 1).refused(1, &[&service, &login]);
    registry.login(&cluster, "wrong").refused(1, &[&host, "does not accept the credentials of user"]);
    deploy(&cluster, &app, "missing", 1).refused(1, &[&login]);
    assert_eq!(registry.login(&cluster, "secret").done(), format!("logged in to {host} as user\n"));
    let known = cluster.user(&["registry", "ls", "-o", "json"]).end().done();
    assert!(known.contains(&host) && known.contains("user") && !known.contains("secret"), "{known}");
    let absent = registry.name("team/app:v9");
    deploy(&cluster, &absent, "missing", 1).refused(4, &[&format!("image `{absent}`: "), "check its name"]);

    deploy(&cluster, &app, "missing", 1).done();
    assert_eq!(version(&cluster), "one\n");
    let row = listed(&cluster, &app);
    assert_eq!(
        (&row["digest"], &row["origin"]),
        (&registry.digest("team/app:v1").into(), &registry.name("team/app").into())
    );
    let files = open_files(&cluster);
    assert!(files.iter().any(|file| file.ends_with("record")), "{files:?}");
    for file in files {
        let text = fs::read(&file).unwrap();
        assert!(!text.windows(6).any(|part| part == b"secret"), "{} has the password", file.display());
    }

    // The name is asked for when somebody wants it to be, and not when there is one task more.
    registry.publish(&cluster, "team/app:v1", "two\n");
    deploy(&cluster, &app, "missing", 1).done();
    cluster.user(&["scale", "t/app=3"]).end().done();
    let digest = listed(&cluster, &app)["digest"].clone();
    assert_eq!((version(&cluster).as_str(), digest), ("one\n", row["digest"].clone()));
    deploy(&cluster, &app, "always", 1).done();
    until("the other version", || version(&cluster) == "two\n");
    assert_eq!(listed(&cluster, &app)["digest"], registry.digest("team/app:v1"));
    // What was one is there all the same for who asks for that.
    let first = format!("{}@{}", registry.name("team/app"), row["digest"].as_str().unwrap());
    deploy(&cluster, &first, "missing", 1).done();
    until("the first version", || version(&cluster) == "one\n");
}

#[test]
fn a_registry_that_is_gone_is_missed_by_nobody_who_has_the_image() {
    let cluster = Cluster::of("gone", 3);
    let mut registry = Registry::start(&cluster);
    registry.publish(&cluster, "app:v1", "one\n");
    registry.befriend(&cluster);
    let app = registry.name("app:v1");
    deploy(&cluster, &app, "always", 1).done();
    assert_eq!(nodes(&cluster).len(), 1);
    registry.stop();
    cluster.user(&["scale", "t/app=3"]).end().done();
    assert_eq!(nodes(&cluster).len(), 3, "from peers");
    deploy(&cluster, &app, "missing", 3).done();
    deploy(&cluster, &app, "never", 3).done();
    until("the registry's last word to be old", || {
        let ended = deploy(&cluster, &app, "every_1s", 3);
        let is_told = ended.stderr.contains("warning: ")
            && ended.stderr.contains("what the cluster has under that name");
        ended.done();
        is_told
    });
    let import = format!("bring it in with `gantry image import FILE {app}`");
    deploy(&cluster, &app, "always", 3).refused(1, &["service `app`: ", "cannot reach ", &import]);
    assert_eq!(version(&cluster), "one\n");
}

#[test]
fn images_go_where_others_read_them() {
    let cluster = Cluster::of("push", 3);
    let registry = Registry::start(&cluster);
    registry.befriend(&cluster);
    cluster.user(&["image", "import", "-", "seed"]).input(rootfs("one\n")).end().done();
    let seed = listed(&cluster, "seed:latest")["digest"].as_str().unwrap().to_owned();

    let archive = registry.path("saved.tar");
    cluster.user(&["image", "save", "seed", "-o", &archive]).end().done();
    let oci = format!("oci-archive:{archive}");
    assert_eq!(digest(&skopeo(&["inspect", "--raw", &oci])), seed);
    skopeo(&["copy", &oci, &format!("dir:{}", registry.path("copy"))]);
    skopeo(&["inspect", &format!("docker-archive:{archive}")]);
    cluster.user(&["image", "import", &archive, "again"]).end().done();
    assert_eq!(listed(&cluster, "again:latest")["digest"], seed);

    let (pushed, tagged) = (registry.name("team/pushed:v1"), registry.name("team/tagged:v1"));
    cluster.user(&["image", "push", "seed", "--as", &pushed]).end().done();
    assert_eq!(registry.digest("team/pushed:v1"), seed);
    cluster.user(&["image", "tag", "seed", &tagged]).end().done();
    cluster.user(&["image", "push", &tagged]).end().done();
    assert_eq!(registry.digest("team/tagged:v1"), seed);
    cluster.user(&["image", "push", "seed", "--as", "localhost:1/app"]).end().refused(1, &["cannot reach "]);
    cluster.user(&["image", "push", "absent"]).end().refused(4, &["`absent:latest`"]);

    // What no node has ever had: skopeo has compressed its layer.
    registry.publish(&cluster, "team/other:v1", "two\n");
    let other = registry.name("team/other:v1");
    let pull = cluster.user(&["image", "pull", &other, "--node", "n2"]).end();
    assert!(pull.stderr.contains(": done ("), "it does not say how it goes: {pull}");
    let text = pull.done();
    assert!(text.starts_with(&format!("pulled {other} (sha256:")) && text.contains("n2"), "{text}");
    let document = cluster.user(&["image", "inspect", &other]).end().done();
    let document: Value = serde_json::from_str(&document).unwrap();
    let expected = (registry.digest("team/other:v1"), registry.name("team/other"));
    assert_eq!((&document["digest"], &document["origin"]), (&expected.0.into(), &expected.1.into()));
    assert_eq!(document["layers"].as_array().map(Vec::len), Some(1), "{document}");
    let absent = registry.name("team/absent:v1");
    cluster.user(&["image", "pull", &absent]).end().refused(4, &[&absent]);
}
