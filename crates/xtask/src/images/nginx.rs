//! `nginx`: a small Debian with nginx-light, and on it a layer with what makes it a container's web server. Takes about a
//! minute, most of it dpkg.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::layer::Layer;
use crate::command::Call;

/// Where a Debian has its sources, newest form first. Other files there may name repositories that have no nginx, or keys
/// that only this machine has.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/// What a container has no use for.
const LEFT_OUT: [&str; 5] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/zoneinfo/*",
];

const PAGE: &str = "hello from gantry\n";

/// The header tells which task answered: a container's host name is its own.
const SITE: &str = "\
server {
    listen 80 default_server;
    root /var/www/html;
    add_header X-Task $hostname always;
    location / {
        try_files $uri $uri/ =404;
    }
}
";

pub(super) fn execution() -> Value {
    json!({
        "Cmd": ["nginx", "-g", "daemon off;"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "ExposedPorts": { "80/tcp": {} },
        // Finishes what it is answering first (nginx's control signals).
        "StopSignal": "SIGQUIT",
    })
}

pub(super) fn layers(dir: &Path) -> Result<Vec<PathBuf>> {
    let system = dir.join("debian.layer");
    let exclude = LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}"));
    let mut call = Call::of("mmdebstrap")
        // Without apt; what it fetched and what dpkg logged does not stay either.
        .args(["--quiet", "--mode=root", "--variant=essential", "--format=tar", "--include=nginx-light"])
        .args(exclude)
        .arg(suite()?)
        .arg(&system);
    // The machine's own sources, since they are known to be reached; Debian's default mirror otherwise.
    if let Some(sources) = SOURCES.into_iter().find(|path| Path::new(path).exists()) {
        call = call.arg(sources);
    }
    call.read()?;
    let site = dir.join("site.layer");
    write(&site).with_context(|| format!("cannot write {}", site.display()))?;
    Ok(vec![system, site])
}

/// The Debian that this machine has, so that its sources fit.
fn suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    codename(&text).context("/etc/os-release has no VERSION_CODENAME to choose a suite by")
}

/// os-release(5) lets values be quoted.
fn codename(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
}

fn write(path: &Path) -> std::io::Result<()> {
    let mut layer = Layer::create(path)?;
    for dir in [
        "etc",
        "etc/nginx",
        "etc/nginx/sites-available",
        "var",
        "var/log",
        "var/log/nginx",
        "var/www",
        "var/www/html",
    ] {
        layer.dir(dir, 0o755)?;
    }
    layer.file("etc/nginx/sites-available/default", 0o644, SITE.as_bytes())?;
    layer.file("var/www/html/index.html", 0o644, PAGE.as_bytes())?;
    // A container's log is what it prints.
    layer.link("var/log/nginx/access.log", "/dev/stdout")?;
    layer.link("var/log/nginx/error.log", "/dev/stderr")?;
    layer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_read_from_os_release() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"").as_deref(), Some("trixie"));
        assert_eq!(codename("VERSION_CODENAME=\nID=debian"), None);
    }
}
