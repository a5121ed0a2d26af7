//! Copies in and out of a running container.

use std::fs;
use std::io::Read as _;

use model::Exit;
use runtime::files::{self, Fault, FilesError, Source, Unpack};

use crate::{Bed, Test};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("files_go_in_and_out_of_a_running_container", files_go_in_and_out_of_a_running_container)];

/// The names in an archive, and the content of what is a file.
fn entries(archive: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let content = String::from_utf8_lossy(&content).into_owned();
        entries.push((entry.path().unwrap().display().to_string(), content));
    }
    entries
}

fn files_go_in_and_out_of_a_running_container(bed: &Bed) {
    let secret = bed.dir.join("secret");
    fs::write(&secret, "the node's").unwrap();
    let script = format!(
        "mkdir /srv; echo mine > /srv/file; ln -s {} /srv/absolute; ln -s ../../../../../../../../..{} /srv/up
        echo ready; while [ \"$(cat /srv/go 2> /dev/null)\" != on ]; do sleep 0.05; done; id -u > /srv/uid",
        secret.display(),
        secret.display()
    );
    let attempt = bed.attempt(1, &script);
    bed.spawn(&attempt);
    attempt.hear("ready");
    let out = |path: &str, follow| {
        let mut archive = Vec::new();
        Source::open(&attempt.dir, path, follow)?.archive(&mut archive)?;
        Ok::<_, FilesError>(entries(&archive))
    };
    let named = |name: &str, content: &str| (name.to_owned(), content.to_owned());
    assert_eq!(out("/srv/file", false).unwrap(), [named("file", "mine\n")]);
    let tree: Vec<String> = out("srv", false).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(tree, ["srv", "srv/absolute", "srv/file", "srv/up"]);
    for link in ["/srv/absolute", "/srv/up", "/proc/self/root/srv/file", "/proc/1/root/srv/file"] {
        let refused = out(link, true).unwrap_err();
        assert!(!matches!(refused.fault(), Fault::NotRunning), "{link}: {refused}");
    }
    // The kernel's own file systems are seen and not entered.
    let all = out("/", false).unwrap();
    assert!(all.contains(&named("proc", "")), "{all:?}");
    assert!(!all.iter().any(|(name, _)| name.starts_with("proc/") || name.starts_with("sys/")), "{all:?}");

    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(3);
    archive.append_data(&mut header, "go", &b"on\n"[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let into = |path: &str| files::unpack(&attempt.dir, path, Unpack::default(), archive.as_slice());
    assert!(matches!(into("/sys"), Err(FilesError::ReadOnly { .. })));
    assert_eq!(into("/none").unwrap_err().fault(), Fault::NotFound);
    into("/srv").unwrap();
    assert_eq!(attempt.end().exit, Exit::Code(0), "it has seen what came in");
    assert_eq!(into("/srv").unwrap_err().fault(), Fault::NotRunning);
    assert_eq!(out("/srv", false).unwrap_err().fault(), Fault::NotRunning);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "the node's");
}
